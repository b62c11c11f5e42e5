//! Sheets with real encoders: put together picture by picture, and through a fan-out.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use gstreamer as gst;
use spillway_ipc::sheet_file::{self, SheetIndex};
use spillway_plan::{SheetRules, SheetsPlan};

use super::*;
use crate::output::images::slot::TakenPicture;
use crate::output::{Fanout, RawPictures, RawSink, TakerStart};

const SECOND_NS: u64 = 1_000_000_000;
const FROM: (u32, u32) = (320, 180);

/// What is made, with a thumbnail each so many seconds.
fn options(folder: &Path, seconds: u64) -> SheetOptions {
    let rules = SheetRules { poster: true, contact_sheet: true, thumbnails_ns: Some(seconds * SECOND_NS) };
    SheetOptions { plan: SheetsPlan { output: 1, rules }, folder: folder.to_owned(), from: FROM }
}

/// The upper half has this luma, the lower half is black.
fn picture(at_ns: u64, luma: u8) -> gst::Buffer {
    let pixels = (FROM.0 * FROM.1) as usize;
    let mut data = vec![128u8; pixels * 3 / 2];
    data[..pixels].fill(16);
    data[..pixels / 2].fill(luma);
    let mut picture = gst::Buffer::from_mut_slice(data);
    let fresh = picture.make_mut();
    fresh.set_pts(gst::ClockTime::from_nseconds(at_ns));
    fresh.set_duration(gst::ClockTime::from_nseconds(SECOND_NS));
    picture
}

/// Composes a picture a second and ends.
fn composed(options: SheetOptions, seconds: u64) -> Result<(), TakerError> {
    let mut composer = SheetComposer::new(options)?;
    for n in 0..seconds {
        let luma = 16 + u8::try_from(n % 200).unwrap();
        composer.take(&TakenPicture { buffer: picture(n * SECOND_NS, luma), at_ns: n * SECOND_NS })?;
    }
    composer.finish(seconds * SECOND_NS)
}

fn index(folder: &Path) -> SheetIndex {
    serde_json::from_slice(&fs::read(folder.join(sheet_file::INDEX)).unwrap()).unwrap()
}

/// Width and height of a JPEG file.
fn size(folder: &Path, name: &str) -> (u32, u32) {
    let file = fs::read(folder.join(name)).unwrap();
    let sof = file.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    let said = |at: usize| u32::from(u16::from_be_bytes([file[sof + at], file[sof + at + 1]]));
    (said(7), said(5))
}

#[test]
fn a_short_recording_has_one_of_each() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    composed(options(folder.path(), 2), 25).unwrap();
    let expected = SheetIndex {
        output: 1,
        poster: true,
        contact_sheet: true,
        tile: (160, 90),
        columns: 10,
        sheets: vec![(0..13).map(|n| n * 2 * SECOND_NS).collect()],
        end_ns: 25 * SECOND_NS,
    };
    assert_eq!(index(folder.path()), expected);
    assert_eq!(size(folder.path(), sheet_file::POSTER), FROM);
    assert_eq!(size(folder.path(), sheet_file::CONTACT_SHEET), (1280, 720));
    assert_eq!(size(folder.path(), &sheet_file::sprite_sheet(0)), (1600, 180), "two rows");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is unfinished");
}

#[test]
fn a_sheet_that_is_full_is_followed_by_another() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    composed(options(folder.path(), 1), 105).unwrap();
    let index = index(folder.path());
    assert_eq!(index.sheets.iter().map(Vec::len).collect::<Vec<_>>(), [100, 5]);
    assert_eq!(index.sheets[1][0], 100 * SECOND_NS);
    assert_eq!(size(folder.path(), &sheet_file::sprite_sheet(0)), (1600, 900));
    assert_eq!(size(folder.path(), &sheet_file::sprite_sheet(1)), (1600, 90));
}

#[test]
fn what_is_not_asked_for_is_not_made() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), 1);
    options.plan.rules = SheetRules { poster: true, ..SheetRules::default() };
    composed(options, 3).unwrap();
    let expected = SheetIndex { output: 1, poster: true, end_ns: 3 * SECOND_NS, ..SheetIndex::default() };
    assert_eq!(index(folder.path()), expected);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn nothing_is_written_of_a_recording_without_a_picture() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    composed(options(folder.path(), 1), 0).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// What the fan-out tells of a recording of one picture, and what the user is told.
fn through_a_fanout(folder: &Path) -> (Vec<String>, Vec<String>) {
    gst::init().unwrap();
    let (tell, events) = channel();
    let tell = Mutex::new(tell);
    let fanout = Fanout::with_raw_pictures(vec![], move |event| drop(tell.lock().unwrap().send(event)));
    let (id, reporter) = fanout.reserve();
    let progress = Arc::<TakerProgress>::default();
    let (note, notes) = channel();
    let note: SheetNoteFn = Box::new(move |text| note.send(text).unwrap());
    let (taker, way) = start(options(folder, 1), reporter, progress.clone(), note).unwrap();
    let streams = fanout.raw_pictures().into_iter().collect();
    fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress });
    let pictures = RawPictures::new(None, vec![way], fanout);
    pictures.push(picture(0, 200)).unwrap();
    pictures.end();
    let next = || events.recv_timeout(Duration::from_secs(5)).map(|event| format!("{event:?}"));
    let told = (0..3).map(|_| next().unwrap()).collect();
    (told, notes.try_iter().collect())
}

#[test]
fn they_end_with_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let (told, notes) = through_a_fanout(folder.path());
    assert_eq!(told, ["Flowing", "TakerEnded(TakerId(0))", "Drained"]);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!((index(folder.path()).sheets, index(folder.path()).end_ns), (vec![vec![0]], SECOND_NS));
}

#[test]
fn a_disk_that_takes_nothing_is_a_note_and_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let (told, notes) = through_a_fanout(&folder.path().join("none"));
    assert_eq!(told, ["Flowing", "TakerEnded(TakerId(0))", "Drained"]);
    assert!(notes.len() == 1 && notes[0].starts_with("poster and thumbnails end here: "), "{notes:?}");
}
