use std::sync::Arc;

use super::*;
use crate::source::page::units::PageRect;

const BYTES: usize = 16;

fn queue() -> PictureQueue {
    PictureQueue::new(30, BYTES)
}

/// Every byte of it is this number.
fn frame(at: Duration, number: u8) -> PageFrame {
    PageFrame { at, data: vec![number; BYTES], damage: PageRect::default() }
}

fn number(picture: &QueuedPicture) -> u8 {
    picture.picture[0]
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What comes until the end: output and number of each picture.
fn all(queue: &PictureQueue) -> (Vec<(u64, u8)>, Option<u64>) {
    let mut pictures = vec![];
    loop {
        match queue.next(u64::MAX) {
            PictureTurn::Picture(queued) => pictures.push((queued.slot, number(&queued))),
            PictureTurn::Over(end) => return (pictures, Some(end)),
            PictureTurn::Still | PictureTurn::Closed => return (pictures, None),
        }
    }
}

#[test]
fn it_begins_with_what_the_page_shows_and_ends_where_it_is_told_to() {
    let queue = queue();
    // All of it lies in the past, so that nothing is waited for.
    let began = monotonic() - ms(3000);
    queue.put(frame(began - ms(500), 1));
    queue.put(frame(began - ms(100), 2));
    queue.begin(began, Vec::new);
    queue.begin(began + ms(10), Vec::new);
    queue.put(frame(began + ms(100), 3));
    queue.put(frame(began + ms(900), 4));
    queue.put(frame(began + ms(1100), 5));
    queue.end_at(began + ms(1000));
    queue.end_at(began + ms(2000));
    queue.put(frame(began + ms(1200), 6));
    assert_eq!(all(&queue), (vec![(0, 2), (3, 3), (27, 4)], Some(30)));
}

#[test]
fn without_any_picture_it_begins_blank() {
    let queue = queue();
    let began = monotonic() - ms(3000);
    queue.begin(began, || vec![9; BYTES]);
    queue.end_at(began + ms(100));
    assert_eq!(all(&queue), (vec![(0, 9)], Some(3)));
}

#[test]
fn a_page_that_is_held_stands_still_and_comes_back_as_it_is() {
    let queue = queue();
    let began = monotonic() - ms(5000);
    queue.put(frame(began - ms(1), 1));
    queue.begin(began, Vec::new);
    queue.put(frame(began + ms(500), 2));
    // Seen 100 ms late: what was painted meanwhile is taken back.
    queue.put(frame(began + ms(1050), 66));
    queue.hold(began + ms(1000));
    queue.put(frame(began + ms(1200), 67));
    queue.put(frame(began + ms(1900), 3));
    queue.release(began + ms(2000));
    queue.put(frame(began + ms(2500), 4));
    queue.end_at(began + ms(3000));
    assert_eq!(all(&queue), (vec![(0, 1), (15, 2), (60, 3), (75, 4)], Some(90)));
}

#[test]
fn what_finds_no_room_takes_the_place_of_the_newest() {
    let queue = queue();
    let began = monotonic() - ms(60_000);
    queue.begin(began, || vec![0; BYTES]);
    for n in 1..=100u32 {
        queue.put(frame(began + Duration::from_secs(1) * n / 30, n as u8));
    }
    assert_eq!(queue.no_room(), 41);
    queue.end_at(began + ms(10_000));
    let (pictures, end) = all(&queue);
    assert_eq!(
        (pictures.len(), pictures[0], pictures[58], pictures[59], end),
        (60, (0, 0), (58, 58), (100, 100), Some(300))
    );
}

#[test]
fn nothing_is_made_before_its_time_and_a_still_page_is_told_of() {
    let queue = queue();
    let began = monotonic();
    queue.begin(began, || vec![0; BYTES]);
    assert!(matches!(queue.next(30), PictureTurn::Picture(queued) if queued.slot == 0));
    let first = monotonic() - began;
    assert!(first >= PICTURE_DELAY && first < PICTURE_DELAY + ms(200), "{first:?}");
    assert!(matches!(queue.next(3), PictureTurn::Still));
    let still = monotonic() - began;
    assert!(still >= PICTURE_DELAY + ms(100), "{still:?}");
    assert!(queue.lag(3) < ms(200) && queue.lag(300) == Duration::ZERO);
}

#[test]
fn a_thread_that_waits_is_let_go() {
    let queue = Arc::new(queue());
    let waits = queue.clone();
    let thread = std::thread::spawn(move || waits.next(u64::MAX));
    std::thread::sleep(ms(20));
    queue.close();
    assert!(matches!(thread.join().unwrap(), PictureTurn::Closed));
}
