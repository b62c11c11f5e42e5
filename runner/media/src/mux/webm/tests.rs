//! Files as a reader of EBML finds them: finished, and as a kill leaves them.

use std::fmt::Write;

use bytes::Bytes;
use proptest::prelude::*;
use spillway_ipc::SealTracker;
use spillway_plan::Container;

use super::ids::*;
use super::*;

const PICTURES: WebmTrackKind = WebmTrackKind::Vp8 { size: (320, 180) };
const SOUND: WebmTrackKind = WebmTrackKind::Opus { channels: 2, pre_skip: 0 };
const VIDEO_TRACK: usize = 0;
const AUDIO_TRACK: usize = 1;

fn unit(at_ms: u64, key: bool, data: &[u8]) -> WebmUnit {
    WebmUnit { at_ns: at_ms * 1_000_000, duration_ns: 0, key, data: Bytes::copy_from_slice(data) }
}

/// 20 ms of sound: a packet that says so.
fn packet(at_ms: u64) -> WebmUnit {
    WebmUnit { duration_ns: 20_000_000, ..unit(at_ms, true, &[0xfc, 1]) }
}

fn apply(file: &mut Vec<u8>, write: &FileWrite) {
    let (from, to) = (write.at as usize, write.at as usize + write.bytes.len());
    file.resize(file.len().max(to), 0);
    file[from..to].copy_from_slice(&write.bytes);
}

fn applied(writes: &[FileWrite]) -> Vec<u8> {
    let mut file = vec![];
    writes.iter().for_each(|write| apply(&mut file, write));
    file
}

/// An element of a file.
struct Found<'a> {
    id: u32,
    /// Its place in the file, and that of its content.
    at: usize,
    content_at: usize,
    content: &'a [u8],
    size_is_known: bool,
}

/// Elements in the content that begins at `at`. The last one may be there in part: the segment, and a cluster.
fn inside(content: &[u8], at: usize) -> Vec<Found<'_>> {
    let (mut found, mut from) = (vec![], 0);
    while let Some((id, size, front)) = front_of(&content[from..]) {
        let begin = from + front;
        let end = size.map_or(content.len(), |size| begin + size);
        let end = if matches!(id, SEGMENT | CLUSTER) { end.min(content.len()) } else { end };
        let Some(inner) = content.get(begin..end) else { break };
        let size_is_known = size.is_some();
        found.push(Found { id, at: at + from, content_at: at + begin, content: inner, size_is_known });
        from = end;
    }
    found
}

/// Id and size of an element, and the bytes of both. No size: to the end.
fn front_of(bytes: &[u8]) -> Option<(u32, Option<usize>, usize)> {
    let id_length = bytes.first()?.leading_zeros() as usize + 1;
    assert!(id_length <= 4, "no id: {bytes:x?}");
    let id = number(bytes.get(..id_length)?) as u32;
    let size_length = bytes.get(id_length)?.leading_zeros() as usize + 1;
    let marked = number(bytes.get(id_length..id_length + size_length)?);
    let unknown = (1u64 << (7 * size_length)) - 1;
    let size = marked & unknown;
    Some((id, (size != unknown).then_some(size as usize), id_length + size_length))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn first<'a>(found: &'a [Found<'a>], id: u32) -> &'a Found<'a> {
    found.iter().find(|found| found.id == id).unwrap()
}

#[derive(Clone, Debug, PartialEq)]
struct FoundBlock {
    track: u8,
    at_ms: u64,
    key: bool,
    data: Vec<u8>,
    padding_ns: u64,
    /// Place and time of its cluster.
    cluster: (usize, u64),
    /// First byte behind it.
    end: usize,
}

/// All blocks, with what holds in every cluster.
fn blocks(file: &[u8]) -> Vec<FoundBlock> {
    let mut all: Vec<FoundBlock> = vec![];
    let top = inside(file, 0);
    let Some(segment) = top.iter().find(|found| found.id == SEGMENT) else { return all };
    for cluster in inside(segment.content, segment.content_at).iter().filter(|found| found.id == CLUSTER) {
        let (mut begin_ms, mut newest_ms) = (None, 0);
        for found in inside(cluster.content, cluster.content_at) {
            let (content, padding_ns) = match found.id {
                TIMESTAMP => {
                    begin_ms = Some(number(found.content));
                    continue;
                }
                SIMPLE_BLOCK => (found.content, 0),
                BLOCK_GROUP => {
                    let parts = inside(found.content, found.content_at);
                    assert_eq!((parts[0].id, parts[1].id, parts.len()), (BLOCK, DISCARD_PADDING, 2));
                    (parts[0].content, number(parts[1].content))
                }
                other => panic!("{other:x} in a cluster"),
            };
            let begin_ms = begin_ms.expect("the time comes first");
            let relative_ms = number(&content[1..3]);
            assert!(relative_ms <= 1000, "{relative_ms} ms behind its cluster");
            let at_ms = begin_ms + relative_ms;
            assert!(at_ms >= newest_ms, "{at_ms} behind {newest_ms}");
            newest_ms = at_ms;
            let simple = found.id == SIMPLE_BLOCK;
            assert_eq!(content[3] & !0x80, 0, "no flag but that of key frames");
            all.push(FoundBlock {
                track: content[0] & 0x7f,
                at_ms,
                key: !simple || content[3] & 0x80 != 0,
                data: content[4..].to_vec(),
                padding_ns,
                cluster: (cluster.at, begin_ms),
                end: found.content_at + found.content.len(),
            });
        }
    }
    all
}

/// How an element is called and shown.
enum Shown {
    Elements,
    Number,
    Float,
    Text,
    Bytes,
    Block,
}

fn name(id: u32) -> (&'static str, Shown) {
    match id {
        EBML => ("EBML", Shown::Elements),
        EBML_VERSION => ("EBMLVersion", Shown::Number),
        EBML_READ_VERSION => ("EBMLReadVersion", Shown::Number),
        EBML_MAX_ID_LENGTH => ("EBMLMaxIDLength", Shown::Number),
        EBML_MAX_SIZE_LENGTH => ("EBMLMaxSizeLength", Shown::Number),
        DOC_TYPE => ("DocType", Shown::Text),
        DOC_TYPE_VERSION => ("DocTypeVersion", Shown::Number),
        DOC_TYPE_READ_VERSION => ("DocTypeReadVersion", Shown::Number),
        SEGMENT => ("Segment", Shown::Elements),
        SEEK_HEAD => ("SeekHead", Shown::Elements),
        SEEK => ("Seek", Shown::Elements),
        SEEK_ID => ("SeekID", Shown::Bytes),
        SEEK_POSITION => ("SeekPosition", Shown::Number),
        INFO => ("Info", Shown::Elements),
        TIMESTAMP_SCALE => ("TimestampScale", Shown::Number),
        MUXING_APP => ("MuxingApp", Shown::Text),
        WRITING_APP => ("WritingApp", Shown::Text),
        DURATION => ("Duration", Shown::Float),
        TRACKS => ("Tracks", Shown::Elements),
        TRACK_ENTRY => ("TrackEntry", Shown::Elements),
        TRACK_NUMBER => ("TrackNumber", Shown::Number),
        TRACK_UID => ("TrackUID", Shown::Number),
        TRACK_TYPE => ("TrackType", Shown::Number),
        FLAG_LACING => ("FlagLacing", Shown::Number),
        LANGUAGE => ("Language", Shown::Text),
        CODEC_ID => ("CodecID", Shown::Text),
        CODEC_PRIVATE => ("CodecPrivate", Shown::Bytes),
        CODEC_DELAY => ("CodecDelay", Shown::Number),
        SEEK_PREROLL => ("SeekPreRoll", Shown::Number),
        VIDEO => ("Video", Shown::Elements),
        PIXEL_WIDTH => ("PixelWidth", Shown::Number),
        PIXEL_HEIGHT => ("PixelHeight", Shown::Number),
        AUDIO => ("Audio", Shown::Elements),
        SAMPLING_FREQUENCY => ("SamplingFrequency", Shown::Float),
        CHANNELS => ("Channels", Shown::Number),
        CLUSTER => ("Cluster", Shown::Elements),
        TIMESTAMP => ("Timestamp", Shown::Number),
        SIMPLE_BLOCK => ("SimpleBlock", Shown::Block),
        BLOCK_GROUP => ("BlockGroup", Shown::Elements),
        BLOCK => ("Block", Shown::Block),
        DISCARD_PADDING => ("DiscardPadding", Shown::Number),
        SEEK_INDEX => ("Cues", Shown::Elements),
        SEEK_POINT => ("CuePoint", Shown::Elements),
        POINT_TIME => ("CueTime", Shown::Number),
        POINT_POSITIONS => ("CueTrackPositions", Shown::Elements),
        POINT_TRACK => ("CueTrack", Shown::Number),
        POINT_CLUSTER => ("CueClusterPosition", Shown::Number),
        VOID => ("Void", Shown::Bytes),
        other => panic!("no element of ours: {other:x}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line for each element; behind those of unknown size stands a plus.
fn tree(content: &[u8], at: usize, depth: usize, out: &mut String) {
    for found in inside(content, at) {
        let (name, shown) = name(found.id);
        let sign = if found.size_is_known { "" } else { "+" };
        write!(out, "{}{name}{sign}", "  ".repeat(depth)).unwrap();
        match shown {
            Shown::Elements => {
                out.push('\n');
                tree(found.content, found.content_at, depth + 1, out);
                continue;
            }
            Shown::Number => write!(out, " {}", number(found.content)),
            Shown::Float => write!(out, " {}", f64::from_be_bytes(found.content.try_into().unwrap())),
            Shown::Text => write!(out, " {}", std::str::from_utf8(found.content).unwrap()),
            Shown::Bytes => write!(out, " {}", hex(found.content)),
            Shown::Block => write!(out, " {} {}", hex(&found.content[..4]), hex(&found.content[4..])),
        }
        .unwrap();
        out.push('\n');
    }
}

fn shown(file: &[u8]) -> String {
    let mut out = String::new();
    tree(file, 0, 0, &mut out);
    out
}

const HEAD: &str = "\
EBML
  EBMLVersion 1
  EBMLReadVersion 1
  EBMLMaxIDLength 4
  EBMLMaxSizeLength 8
  DocType webm
  DocTypeVersion 4
  DocTypeReadVersion 2
";
const TRACK_LINES: &str = "  Tracks
    TrackEntry
      TrackNumber 1
      TrackUID 1
      TrackType 1
      FlagLacing 0
      Language und
      CodecID V_VP8
      Video
        PixelWidth 320
        PixelHeight 180
    TrackEntry
      TrackNumber 2
      TrackUID 2
      TrackType 2
      FlagLacing 0
      Language und
      CodecID A_OPUS
      CodecPrivate 4f707573486561640102380180bb0000000000
      CodecDelay 6500000
      SeekPreRoll 80000000
      Audio
        SamplingFrequency 48000
        Channels 2
";

#[test]
fn a_file_is_what_the_specifications_say() {
    let mut muxer = WebmMuxer::new(&[PICTURES, WebmTrackKind::Opus { channels: 2, pre_skip: 312 }]);
    let heard = |at_ms: u64, duration_ms: u64, number: u8| WebmUnit {
        duration_ns: duration_ms * 1_000_000,
        ..unit(at_ms, true, &[0xfc, number])
    };
    let mut writes = vec![];
    writes.extend(muxer.push(VIDEO_TRACK, unit(0, true, &[1, 2, 3])));
    writes.extend(muxer.push(VIDEO_TRACK, unit(40, false, &[4])));
    assert!(writes.is_empty(), "pictures wait for their sound");
    writes.extend(muxer.push(AUDIO_TRACK, heard(0, 20, 9)));
    writes.extend(muxer.push(AUDIO_TRACK, heard(20, 20, 10)));
    let recording = shown(&applied(&writes));
    // 15 of its 20 ms are what the encoder has filled up.
    writes.extend(muxer.push(AUDIO_TRACK, heard(40, 5, 11)));
    writes.extend(muxer.finish());

    let room = |bytes: usize| "00".repeat(bytes - 2);
    let expected = format!(
        "{HEAD}Segment+
  Void {}
  Info
    TimestampScale 1000000
    MuxingApp Spillway
    WritingApp Spillway
    Void {}
{TRACK_LINES}  Cluster+
    Timestamp 0
    SimpleBlock 81000080 010203
    SimpleBlock 82000080 fc09
    SimpleBlock 82001480 fc0a
",
        room(68),
        room(11)
    );
    assert_eq!(recording, expected);

    let file = applied(&writes);
    let expected = format!(
        "{HEAD}Segment
  SeekHead
    Seek
      SeekID 1549a966
      SeekPosition 68
    Seek
      SeekID 1654ae6b
      SeekPosition 113
    Seek
      SeekID 1c53bb6b
      SeekPosition 304
  Info
    TimestampScale 1000000
    MuxingApp Spillway
    WritingApp Spillway
    Duration 80
{TRACK_LINES}  Cluster
    Timestamp 0
    SimpleBlock 81000080 010203
    SimpleBlock 82000080 fc09
    SimpleBlock 82001480 fc0a
    SimpleBlock 81002800 04
    BlockGroup
      Block 82002800 fc0b
      DiscardPadding 15000000
  Cues
    CuePoint
      CueTime 0
      CueTrackPositions
        CueTrack 1
        CueClusterPosition 236
"
    );
    assert_eq!(shown(&file), expected);
    let segment = inside(&file, 0).pop().unwrap();
    for (id, at) in [(INFO, 68), (TRACKS, 113), (CLUSTER, 236), (SEEK_INDEX, 304)] {
        assert_eq!(front_of(&segment.content[at..]).map(|(id, ..)| id), Some(id));
    }
    assert!(segment.content_at + 236 < SealTracker::new(Container::Webm).head() as usize, "what is filled in is known");
}

#[test]
fn what_says_how_long_a_file_lasts() {
    let duration = |given: &[(usize, WebmUnit)], lasts: Option<u64>| {
        let mut muxer = WebmMuxer::new(&[PICTURES, WebmTrackKind::Opus { channels: 1, pre_skip: 312 }]);
        let mut writes = vec![];
        for (track, unit) in given {
            writes.extend(muxer.push(*track, unit.clone()));
        }
        lasts.into_iter().for_each(|end_ms| muxer.lasts(VIDEO_TRACK, end_ms * 1_000_000));
        writes.extend(muxer.finish());
        let file = applied(&writes);
        let top = inside(&file, 0);
        let segment = first(&top, SEGMENT);
        let parts = inside(segment.content, segment.content_at);
        let info = first(&parts, INFO);
        let fields = inside(info.content, info.content_at);
        let said = fields.iter().find(|found| found.id == DURATION);
        said.map(|found| f64::from_be_bytes(found.content.try_into().unwrap()))
    };
    let picture = |at_ms, key| (VIDEO_TRACK, unit(at_ms, key, &[1]));
    let sound = |at_ms| (AUDIO_TRACK, packet(at_ms));
    // Nothing, and what nothing can show.
    assert_eq!((duration(&[], None), duration(&[picture(0, false)], None)), (None, None));
    assert_eq!(duration(&[picture(0, true)], Some(50_000)), Some(50_000.0));
    // As long as the one before, but no pause.
    assert_eq!(duration(&[picture(0, true), picture(40, false)], None), Some(80.0));
    assert_eq!(duration(&[picture(0, true), picture(9000, false)], None), Some(10_000.0));
    // What was said of an earlier picture does not count.
    assert_eq!(duration(&[picture(0, true), picture(40, false)], Some(30)), Some(80.0));
    // Without what a decoder drops at the beginning.
    assert_eq!(duration(&[picture(0, true), sound(1980)], None), Some(1993.5));
}

#[test]
fn av1_is_described_by_its_first_sequence_header() {
    // 640 × 360 of 8 bits, level 3.0, BT.709 primaries, sRGB transfer, BT.601 matrix.
    let body: [u8; 14] = [0x00, 0x00, 0x00, 0x24, 0xc4, 0xff, 0x67, 0x70, 0x9e, 0x44, 0x04, 0x34, 0x18, 0xa0];
    let header = [&[0x0a, body.len() as u8][..], &body].concat();
    let frame: [u8; 3] = [0x32, 1, 9];
    let described = |first: &[u8]| {
        let mut muxer = WebmMuxer::new(&[WebmTrackKind::Av1 { size: (640, 360) }]);
        let mut writes = muxer.push(0, unit(0, true, &[&[0x12, 0][..], first, &frame].concat()));
        writes.extend(muxer.push(0, unit(33, false, &[&[0x12, 0][..], &frame].concat())));
        applied(&writes)
    };
    let file = described(&header);
    let has = |file: &[u8], wanted: &[u8]| file.windows(wanted.len()).any(|bytes| bytes == wanted);
    assert!(has(&file, &[&[0x63, 0xA2, 0x94, 0x81, 4, 0x0D, 0][..], &header[..]].concat()), "av1C with its header");
    let colours: [u8; 16] = [0x55, 0xB1, 0x81, 6, 0x55, 0xB9, 0x81, 1, 0x55, 0xBA, 0x81, 13, 0x55, 0xBB, 0x81, 1];
    assert!(has(&file, &[&[0x55, 0xB0, 0x90][..], &colours].concat()), "its colours");
    let data: Vec<Vec<u8>> = blocks(&file).into_iter().map(|block| block.data).collect();
    assert_eq!(data, [[&header[..], &frame].concat(), frame.to_vec()], "without delimiters");
    // One that is too long for a head, and none.
    for other in [[&[0x0a, 0x90, 0x03][..], &[0u8; 400]].concat(), vec![]] {
        let file = described(&other);
        assert!(has(&file, &[0x63, 0xA2, 0x84, 0x81, 31, 0x0C, 0]), "what rooms send");
        assert_eq!(blocks(&file).len(), 2);
    }
}

/// A shared screen that stands still: what was lost, and waited in memory.
#[test]
fn sound_waits_for_a_picture_half_a_second_at_most() {
    let mut muxer = WebmMuxer::new(&[PICTURES, SOUND]);
    let mut writes = muxer.push(VIDEO_TRACK, unit(0, true, &[1]));
    for n in 0..500 {
        writes.extend(muxer.push(AUDIO_TRACK, packet(n * 20)));
        let written = blocks(&applied(&writes)).len();
        assert_eq!(written, 2 + (n as usize).saturating_sub(25), "at {} ms", n * 20);
    }
    // It comes when sound behind it is in the file.
    writes.extend(muxer.push(VIDEO_TRACK, unit(9000, false, &[2])));
    writes.extend(muxer.push(VIDEO_TRACK, unit(10_000, false, &[3])));
    writes.extend(muxer.finish());
    let all = blocks(&applied(&writes));
    let late = all.iter().position(|block| block.data == [2]).unwrap();
    assert_eq!((all.len(), all[late].at_ms, all[late].cluster.1), (503, 9000, 9000), "in a cluster of its own time");
    assert!(all[..late].is_sorted_by_key(|block| block.at_ms) && all[late..].is_sorted_by_key(|block| block.at_ms));
}

/// Mixed sound is behind its pictures by what the room waits for.
#[test]
fn pictures_wait_for_sound_that_is_two_seconds_late() {
    let mut muxer = WebmMuxer::new(&[PICTURES, SOUND]);
    let mut writes = vec![];
    for n in 0..500u64 {
        if n % 2 == 0 {
            writes.extend(muxer.push(VIDEO_TRACK, unit(n * 20, n % 50 == 0, &[1])));
        }
        if let Some(heard) = n.checked_sub(100) {
            writes.extend(muxer.push(AUDIO_TRACK, packet(heard * 20)));
        }
    }
    writes.extend(muxer.finish());
    let all = blocks(&applied(&writes));
    assert_eq!(all.len(), 250 + 400);
    assert!(all.is_sorted_by_key(|block| block.at_ms));
    // Each key frame begins a cluster, before the sound of its time.
    let keys: Vec<&FoundBlock> = all.iter().filter(|block| block.track == 1 && block.key).collect();
    assert_eq!(keys.len(), 10);
    assert!(keys.iter().all(|block| block.cluster.1 == block.at_ms), "{keys:?}");
}

#[test]
fn a_file_of_twelve_hours_has_a_small_index_and_times_that_fit() {
    const HOURS: u64 = 12;
    let mut muxer = WebmMuxer::new(&[PICTURES, SOUND]);
    let (mut written, mut end) = (0, 0);
    let mut file = vec![];
    let mut waiting = 0;
    for second in 0..HOURS * 3600 {
        let picture = muxer.push(VIDEO_TRACK, unit(second * 1000, true, &[1; 8]));
        let sound = muxer.push(AUDIO_TRACK, packet(second * 1000 + 500));
        let writes: Vec<FileWrite> = picture.into_iter().chain(sound).collect();
        written += writes.iter().filter(|write| write.at >= end).count();
        end = writes.iter().map(|write| write.at + write.bytes.len() as u64).fold(end, u64::max);
        writes.iter().for_each(|write| apply(&mut file, write));
        // All but the head are blocks.
        waiting = waiting.max(2 * (second as usize + 1) + 1 - written);
    }
    assert!(waiting <= 2, "{waiting} units wait");
    let last = muxer.finish();
    let index: usize = last.iter().map(|write| write.bytes.len()).max().unwrap();
    last.iter().for_each(|write| apply(&mut file, write));
    assert!((100_000..400_000).contains(&index), "an index of {index} bytes");
    let all = blocks(&file);
    assert_eq!(all.len() as u64, 2 * HOURS * 3600);
    assert_eq!(all.last().unwrap().at_ms, HOURS * 3_600_000 - 500);
    // Bytes of blocks and clusters alone.
    assert!(file.len() < all.len() * 45, "{} bytes", file.len());
}

/// The points of the index, each with its time and the place of its cluster.
fn index_points(file: &[u8]) -> Vec<(u64, usize)> {
    let top = inside(file, 0);
    let segment = first(&top, SEGMENT);
    let parts = inside(segment.content, segment.content_at);
    let Some(index) = parts.iter().find(|found| found.id == SEEK_INDEX) else { return vec![] };
    inside(index.content, index.content_at)
        .iter()
        .map(|point| {
            let fields = inside(point.content, point.content_at);
            let positions = first(&fields, POINT_POSITIONS);
            let places = inside(positions.content, positions.content_at);
            let cluster = number(first(&places, POINT_CLUSTER).content) as usize + segment.content_at;
            (number(first(&fields, POINT_TIME).content), cluster)
        })
        .collect()
}

/// What a track of the file is to have: time in milliseconds, key frame, contents.
fn wanted(units: &[WebmUnit]) -> Vec<(u64, bool, Vec<u8>)> {
    let is_shown = units.iter().skip_while(|unit| !unit.key);
    is_shown.map(|unit| ((unit.at_ns + 500_000) / 1_000_000, unit.key, unit.data.to_vec())).collect()
}

/// Times that grow by so many microseconds, and contents of so many bytes that all differ.
fn units(gaps: Vec<(u64, bool, usize)>) -> Vec<WebmUnit> {
    let mut at_ns = 0;
    let unit = |(number, (gap_us, key, size)): (usize, (u64, bool, usize))| {
        let data = Bytes::from([&[number as u8][..], &vec![0xA3; size]].concat());
        let unit = WebmUnit { at_ns, duration_ns: 0, key, data };
        at_ns += gap_us * 1000;
        unit
    };
    gaps.into_iter().enumerate().map(unit).collect()
}

proptest! {
    /// Whichever track comes first, and whenever the process is killed: what is whole is found, and what is sealed stays.
    #[test]
    fn every_block_that_is_whole_is_found_whenever_the_file_ends(
        pictures in prop::collection::vec((1000u64..2_500_000, any::<bool>(), 0usize..40), 0..40),
        sounds in prop::collection::vec((2500u64..300_000, Just(true), 0usize..20), 0..60),
        picks in prop::collection::vec(any::<bool>(), 0..100),
        cut in any::<prop::sample::Index>(),
    ) {
        let (pictures, sounds) = (units(pictures), units(sounds));
        let mut muxer = WebmMuxer::new(&[PICTURES, SOUND]);
        let mut writes = vec![];
        let (mut shown, mut heard) = (pictures.iter().peekable(), sounds.iter().peekable());
        let mut picks = picks.into_iter();
        while shown.peek().is_some() || heard.peek().is_some() {
            let is_picture = picks.next().unwrap_or(true) && shown.peek().is_some() || heard.peek().is_none();
            let (track, unit) = if is_picture { (VIDEO_TRACK, shown.next()) } else { (AUDIO_TRACK, heard.next()) };
            writes.extend(muxer.push(track, unit.unwrap().clone()));
        }
        writes.extend(muxer.finish());
        let finished = applied(&writes);
        let all = blocks(&finished);

        for (number, units) in [(1, &pictures), (2, &sounds)] {
            let found = all.iter().filter(|block| block.track == number);
            let found = found.map(|block| (block.at_ms, block.key, block.data.clone()));
            prop_assert_eq!(found.collect::<Vec<_>>(), wanted(units));
        }
        let of_clusters = all.chunk_by(|one, next| one.cluster == next.cluster);
        for cluster in of_clusters {
            let mut seen = cluster.iter().filter(|block| block.track == 1);
            let begins_with_key = seen.next().is_none_or(|block| block.key);
            for again in seen.filter(|block| block.key) {
                prop_assert!(begins_with_key && again.at_ms < again.cluster.1 + MIN_CLUSTER_MS);
            }
        }
        for (at_ms, place) in index_points(&finished) {
            let keys = all.iter().filter(|block| block.track == 1 && block.key);
            let mut here = keys.filter(|block| block.at_ms == at_ms && block.cluster.0 == place);
            prop_assert!(here.next().is_some(), "{at_ms} ms at {place}");
        }
        prop_assert!(!has_unknown_size(&finished));

        let mut tracker = SealTracker::new(Container::Webm);
        let head = tracker.head() as usize;
        let mut file = vec![];
        for write in &writes {
            apply(&mut file, write);
            tracker.wrote(write.at, &write.bytes);
            let sealed = (tracker.sealed_to() as usize).max(head.min(file.len()));
            prop_assert!(file[head.min(sealed)..sealed] == finished[head.min(sealed)..sealed]);
            prop_assert_eq!(&blocks(&file)[..], &all[..blocks(&file).len()]);
            let cut = cut.index(file.len() + 1);
            let whole = all.iter().filter(|block| block.end <= cut).count();
            let found = blocks(&file[..cut]);
            prop_assert_eq!(found.len(), whole);
            prop_assert_eq!(&found[..], &all[..whole]);
        }
        prop_assert_eq!(tracker.sealed_to() as usize, finished.len());
    }
}

/// Or a segment that does not end with the file.
fn has_unknown_size(file: &[u8]) -> bool {
    let top = inside(file, 0);
    let segment = first(&top, SEGMENT);
    let clusters = inside(segment.content, segment.content_at);
    !segment.size_is_known
        || segment.content_at + segment.content.len() != file.len()
        || !clusters.iter().all(|found| found.size_is_known)
}
