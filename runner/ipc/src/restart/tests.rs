use proptest::prelude::*;

use super::*;

const NEAR: u64 = 32 << 20;

/// A box of an MP4.
fn boxed(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
}

/// A fragment at `at` as our writer makes it, with one track that begins with a keyframe or not.
fn fragment(at: u64, data: &[u8], key: bool) -> Vec<u8> {
    fragment_of(1, at, data, key)
}

fn fragment_of(track: u8, at: u64, data: &[u8], key: bool) -> Vec<u8> {
    let mut out = [&[0, 0, 0, 8][..], b"free", &(data.len() as u32 + 8).to_be_bytes(), b"mdat", data].concat();
    let tfhd = boxed(b"tfhd", &[&[0, 0, 0, 1, 0, 0, 0, track][..], &(at + 16).to_be_bytes()].concat());
    let flags: [u8; 4] = if key { [2, 0, 0, 0] } else { [1, 1, 0, 0] };
    let trun = boxed(b"trun", &[&[0, 0, 7, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9][..], &flags].concat());
    out.extend(boxed(b"moof", &boxed(b"traf", &[tfhd, trun].concat())));
    out
}

struct File {
    _folder: tempfile::TempDir,
    reader: SpoolReader,
    bytes: Vec<u8>,
}

fn file(bytes: Vec<u8>) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0");
    std::fs::write(&path, &bytes).unwrap();
    let reader = SpoolReader::open(&path).unwrap();
    File { _folder: folder, reader, bytes }
}

/// Where fragments begin, and the file.
fn mp4(keys: &[bool]) -> (Vec<u64>, File) {
    let mut bytes = [boxed(b"ftyp", &[1; 24]), boxed(b"free", &[0; 8]), boxed(b"moov", &[2; 100])].concat();
    let mut starts = vec![];
    for (n, key) in keys.iter().enumerate() {
        let at = bytes.len() as u64;
        starts.push(at);
        // What looks like a box inside of media is none.
        let data = [&b"\0\0\0\x10moof"[..], &vec![n as u8; 20_000]].concat();
        bytes.extend(fragment(at, &data, *key));
    }
    (starts, file(bytes))
}

#[test]
fn another_mp4_begins_with_a_keyframe_and_its_offsets_are_changed() {
    let (starts, mut first) = mp4(&[true, false, true, false, false]);
    let whole = first.bytes.len() as u64;
    // The index of a finished file is no part of it.
    first.bytes.extend(boxed(b"moov", &[9; 50]));
    std::fs::write(first.reader.path(), &first.bytes).unwrap();
    let reader = &first.reader;
    let mut points = RestartPoints::new(Container::Mp4);
    // Sealed at any byte.
    for sealed_to in (0..=first.bytes.len() as u64).step_by(777).chain([first.bytes.len() as u64]) {
        points.advance(reader, sealed_to).unwrap();
        assert!(points.walked_to() <= sealed_to);
    }
    assert_eq!(points.walked_to(), whole);
    assert_eq!(points.before(starts[0] - 1, NEAR), None);
    assert_eq!(points.before(whole, NEAR), Some(starts[2]), "with the last keyframe");
    assert_eq!(points.before(starts[2] - 1, NEAR), Some(starts[0]));
    assert_eq!(points.keep_from(whole, NEAR), Some(starts[2]));

    let origin = points.origin(starts[2]).unwrap();
    assert_eq!(origin.head, [&first.bytes[..32], &first.bytes[48..156]].concat());
    let end = origin.in_object(whole);
    let offsets = points.offsets_in(0..whole);
    assert_eq!(offsets.len(), 5);
    let object = origin.read(reader, 0..end, &offsets).unwrap();
    assert_eq!(object.len() as u64, end);
    // The same in pieces of any size.
    for size in [1, 7, 4096] {
        let pieces = (0..end).step_by(size).map(|at| {
            let range = at..(at + size as u64).min(end);
            let offsets = points.offsets_in(origin.in_file(range.start)..origin.in_file(range.end));
            origin.read(reader, range, &offsets).unwrap()
        });
        assert!(pieces.collect::<Vec<_>>().concat() == object, "in pieces of {size}");
    }
    let again = file(object.to_vec());
    let mut second = RestartPoints::new(Container::Mp4);
    second.advance(&again.reader, end).unwrap();
    assert_eq!(second.walked_to(), end, "it is a file like the first");
    let offsets = second.offsets_in(0..end);
    assert_eq!(offsets.len(), 3);
    for (offset, start) in offsets.iter().zip(&starts[2..]) {
        assert_eq!(offset.value, origin.in_object(*start) + 16, "it names its own data");
    }
}

#[test]
fn sound_alone_is_no_beginning_where_there_are_pictures() {
    let trak = |id: u8, handler: &[u8; 4]| {
        let tkhd = boxed(b"tkhd", &[&[1, 0, 0, 7][..], &[0; 16], &[0, 0, 0, id]].concat());
        let hdlr = boxed(b"hdlr", &[&[0; 8][..], handler].concat());
        boxed(b"trak", &[tkhd, boxed(b"mdia", &hdlr)].concat())
    };
    for (first, last_key) in [(b"vide", 0), (b"soun", 3)] {
        let moov = boxed(b"moov", &[trak(1, first), trak(2, b"soun")].concat());
        let mut bytes = [boxed(b"ftyp", &[1; 24]), moov].concat();
        let mut starts = vec![];
        // A keyframe, one that is none, sound alone twice.
        for (track, key) in [(1, true), (1, false), (2, true), (2, true)] {
            starts.push(bytes.len() as u64);
            bytes.extend(fragment_of(track, bytes.len() as u64, &[0; 20_000], key));
        }
        let file = file(bytes);
        let end = file.bytes.len() as u64;
        let mut points = RestartPoints::new(Container::Mp4);
        points.advance(&file.reader, end).unwrap();
        assert_eq!(points.before(end, NEAR), Some(starts[last_key]));
    }
}

/// A shared screen that stands still: clusters of sound alone. Pictures behind them need the ones before.
#[test]
fn sound_alone_is_no_beginning_of_a_webm_with_pictures() {
    let element = |id: &[u8], content: &[u8]| {
        let size = (content.len() as u64 | 1 << 56).to_be_bytes();
        [id, &size, content].concat()
    };
    let entry = |number: u8, kind: u8| element(&[0xAE], &[0xD7, 0x81, number, 0x83, 0x81, kind]);
    let block = |track: u8, flags: u8| element(&[0xA3], &[&[0x80 | track, 0, 0, flags][..], &[7; 10_000]].concat());
    for (kinds, last_key) in [([1, 2], 1), ([2, 1], 4), ([2, 2], 4)] {
        let tracks = element(&[0x16, 0x54, 0xAE, 0x6B], &[entry(1, kinds[0]), entry(2, kinds[1])].concat());
        let mut bytes = [&[0x1A, 0x45, 0xDF, 0xA3, 0x80, 0x18, 0x53, 0x80, 0x67][..], &[0xFF; 8], &tracks[..]].concat();
        bytes[9] = 1;
        let mut starts = vec![];
        // Both with a key frame twice, one that is none, and the second track alone twice.
        for blocks in [
            [block(1, 0x80), block(2, 0x80)].concat(),
            [block(2, 0x80), block(1, 0x80)].concat(),
            [block(1, 0), block(2, 0x80)].concat(),
            [block(2, 0x80), block(2, 0)].concat(),
            [block(2, 0x80), block(2, 0x80)].concat(),
        ] {
            starts.push(bytes.len() as u64);
            bytes.extend(element(&[0x1F, 0x43, 0xB6, 0x75], &blocks));
        }
        let file = file(bytes);
        let end = file.bytes.len() as u64;
        let mut points = RestartPoints::new(Container::Webm);
        points.advance(&file.reader, end).unwrap();
        assert_eq!(points.walked_to(), end);
        assert_eq!(points.before(end, NEAR), Some(starts[last_key]), "{kinds:?}");
    }
}

#[test]
fn a_keyframe_that_is_too_far_back_is_not_worth_its_room() {
    let (starts, file) = mp4(&[vec![true], vec![false; 1800]].concat());
    let end = file.bytes.len() as u64;
    let mut points = RestartPoints::new(Container::Mp4);
    points.advance(&file.reader, end).unwrap();
    assert_eq!(points.before(starts[900], NEAR), Some(starts[0]));
    let before = points.before(end, NEAR).unwrap();
    assert!(end - before < 2 * 20_100, "{before} of {end}");
    points.forget_starts(before);
    assert_eq!(points.before(end, NEAR), Some(before));
    // The last bytes of an offset belong to a part that may be sent again.
    let last = *points.offsets_in(0..before).last().unwrap();
    points.forget_offsets(1000..last.at + 3);
    assert_eq!(points.offsets_in(0..before), [last]);
    points.forget_offsets(1000..before);
    assert!(points.offsets_in(0..before).is_empty());
}

#[test]
fn a_page_that_continues_a_packet_begins_nothing() {
    let page = |flags: u8, granule: u64, body: &[u8]| {
        let mut page = [b"OggS\0", &[flags][..], &granule.to_le_bytes(), &[0; 12], &[1, body.len() as u8]].concat();
        page.extend_from_slice(body);
        page
    };
    let mut bytes = [page(2, 0, b"OpusHead"), page(0, 0, b"OpusTags")].concat();
    let head = bytes.len() as u64;
    let mut starts = vec![];
    for n in 0..1000u64 {
        if n % 2 == 0 {
            starts.push(bytes.len() as u64);
        }
        bytes.extend(page(u8::from(n % 2 == 1), 960 * (n + 1), &[n as u8; 200]));
    }
    let file = file(bytes);
    let end = file.bytes.len() as u64;
    let mut points = RestartPoints::new(Container::Ogg);
    points.advance(&file.reader, end).unwrap();
    let at = points.before(end, NEAR).unwrap();
    assert!(starts.contains(&at) && end - at < SPACING + 1000, "{at}");
    assert_eq!(points.origin(at).unwrap().head, file.bytes[..head as usize]);
    assert_eq!(points.walked_to(), end);
}

#[test]
fn what_is_not_known_is_not_kept_for_nothing() {
    for container in [Container::Mp4, Container::Webm, Container::Ogg, Container::Ivf, Container::Mp3] {
        let file = file(vec![b'f'; 5000]);
        let mut points = RestartPoints::new(container);
        assert_eq!(points.keep_from(0, NEAR), Some(0), "it may yet become known");
        points.advance(&file.reader, 5000).unwrap();
        assert_eq!((points.before(5000, NEAR), points.keep_from(5000, NEAR)), (None, None), "{container:?}");
    }
}

#[test]
fn an_origin_survives_redis_and_the_default_is_the_file() {
    let origin = Origin { head: Bytes::from_static(&[0, 255, 7]), from: 12 };
    let text = serde_json::to_string(&origin).unwrap();
    assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin);
    assert_eq!((origin.in_object(12), origin.in_object(20), origin.in_file(3), origin.in_file(11)), (3, 11, 12, 20));
    let whole = Origin::default();
    assert!(whole.is_whole());
    assert_eq!((whole.in_object(9), whole.in_file(9)), (9, 9));
}

proptest! {
    /// Whatever lies there: no panic, no endless walk, and never beyond what is sealed.
    #[test]
    fn any_bytes_can_be_walked(
        which in 0usize..5,
        head in prop::sample::select(vec![
            vec![], b"OggS\0\x02".to_vec(), b"DKIF".to_vec(), vec![0xFF, 0xFB, 0x90, 0], vec![0x1A, 0x45, 0xDF, 0xA3],
            boxed(b"ftyp", &[0; 24]),
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..600),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = [head, rest].concat();
        let end = bytes.len() as u64;
        let file = file(bytes);
        let containers = [Container::Mp4, Container::Webm, Container::Ogg, Container::Ivf, Container::Mp3];
        let mut points = RestartPoints::new(containers[which]);
        let sealed = cut.index(end as usize + 1) as u64;
        points.advance(&file.reader, sealed).unwrap();
        prop_assert!(points.walked_to() <= sealed);
        points.advance(&file.reader, end).unwrap();
        prop_assert!(points.walked_to() <= end);
    }
}
