//! Waits for damages and reads the display. In: DAMAGE events of the X server. Out: frames, into a channel that it never
//! waits for. Runs in the capture thread.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use x11rb::NONE;
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::damage::{self, ConnectionExt as _, ReportLevel};
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xfixes::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{ImageFormat, ImageOrder, Rectangle, Setup, Window};
use x11rb::rust_connection::RustConnection;

use super::canvas::{I420Canvas, PIXEL_BYTES};
use super::error::CaptureError;
use super::slots::FrameSlots;
use crate::source::page::units::{DisplayOptions, PageFrame, PageRect, monotonic};

/// So long after the queue was full the display is read half as often.
const HALVED_FOR: Duration = Duration::from_secs(2);
/// Paints between two pictures that are counted; what the rest damages is read with them.
const COUNTED_PAINTS: u32 = 4;
/// Bits of a colour; the depth of the display.
const DEPTH: u8 = 24;

/// Counters that other threads read.
#[derive(Default)]
pub struct FrameCounts {
    /// Given to the receiver.
    pub frames: AtomicU64,
    /// Made, and left out because the channel was full.
    pub left_out: AtomicU64,
}

/// Where frames go.
pub struct FrameOutput {
    /// Holds two seconds.
    pub frames: SyncSender<PageFrame>,
    /// Counted here.
    pub counts: Arc<FrameCounts>,
    /// Readable (at its end) when the thread is to end.
    pub stopped: UnixStream,
}

/// Owns the connection to the X server.
pub struct DisplayReader {
    connection: RustConnection,
    root: Window,
    damage: damage::Damage,
    region: xfixes::Region,
    segment: shm::Seg,
    memory: File,
    width: u32,
    height: u32,
    canvas: I420Canvas,
    slots: FrameSlots,
    /// A damage was reported since the last one was taken.
    reported: bool,
    /// Taken damages that are not in a picture yet.
    taken: Option<PageRect>,
    taken_count: u32,
    /// Of frames that were left out.
    owed: Option<PageRect>,
    halved_until: Option<Duration>,
    output: FrameOutput,
    receiver_gone: bool,
}

impl DisplayReader {
    /// Connects and reads the whole display: the first frame.
    ///
    /// # Errors
    ///
    /// When the display is not there or not as `options` say; a retry needs another one.
    pub fn new(
        address: &str,
        options: &DisplayOptions,
        canvas: I420Canvas,
        output: FrameOutput,
    ) -> Result<Self, CaptureError> {
        let (width, height) = (options.width, options.height);
        let (connection, screen) = RustConnection::connect(Some(address)).map_err(CaptureError::Connect)?;
        let root = root_of(connection.setup(), screen, width, height).ok_or(CaptureError::Screen)?;
        connection.shm_query_version()?.reply()?;
        connection.damage_query_version(1, 1)?.reply()?;
        // Before any region: the server does not know the requests of a version that was not asked for.
        connection.xfixes_query_version(5, 0)?.reply()?;
        let memory =
            memfd_create("display", MemfdFlags::CLOEXEC).map_err(|errno| CaptureError::Memory(errno.into()))?;
        let memory = File::from(memory);
        memory.set_len(u64::from(width * PIXEL_BYTES) * u64::from(height)).map_err(CaptureError::Memory)?;
        let theirs = OwnedFd::from(memory.try_clone().map_err(CaptureError::Memory)?);
        let segment = connection.generate_id()?;
        connection.shm_attach_fd(segment, theirs, false)?.check()?;
        let region = connection.generate_id()?;
        connection.xfixes_create_region(region, &[])?.check()?;
        let damage = connection.generate_id()?;
        connection.damage_create(damage, root, ReportLevel::NON_EMPTY)?.check()?;
        let mut reader = Self {
            connection,
            root,
            damage,
            region,
            segment,
            memory,
            width,
            height,
            canvas,
            slots: FrameSlots::new(options.fps),
            reported: false,
            taken: None,
            taken_count: 0,
            owed: None,
            halved_until: None,
            output,
            receiver_gone: false,
        };
        // The whole screen is reported damaged at first. That is no paint of the page: its time says nothing about its phase.
        reader.take_damage()?;
        reader.was_damaged()?;
        let at = monotonic();
        reader.read_rows(0, height)?;
        let damage = PageRect { x: 0, y: 0, width, height };
        reader.give(PageFrame { at, data: reader.canvas.data().to_vec(), damage }, at);
        Ok(reader)
    }

    /// Until it is stopped, or the receiver is gone.
    ///
    /// # Errors
    ///
    /// When the X server is gone or refuses; it cannot go on.
    pub fn run(&mut self) -> Result<(), CaptureError> {
        while !self.receiver_gone {
            self.reported |= self.was_damaged()?;
            let mut until = None;
            if self.reported || self.taken.is_some() {
                until = self.slots.wait_until(monotonic());
                if until.is_none() {
                    self.capture()?;
                    continue;
                }
                if self.reported && self.taken_count < COUNTED_PAINTS {
                    self.count_paint()?;
                    // The next event may have come with the reply: then the socket is not readable.
                    continue;
                }
            }
            if !self.wait(until)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the events that are there; true when one of them is a damage.
    fn was_damaged(&self) -> Result<bool, CaptureError> {
        let mut damaged = false;
        while let Some(event) = self.connection.poll_for_event()? {
            match event {
                Event::DamageNotify(_) => damaged = true,
                Event::Error(error) => return Err(CaptureError::Refused(format!("{error:?}"))),
                _ => {}
            }
        }
        Ok(damaged)
    }

    /// The damage reported becomes ours; the next paint is reported again.
    fn take_damage(&self) -> Result<Option<PageRect>, CaptureError> {
        self.connection.damage_subtract(self.damage, NONE, self.region)?;
        let extents = self.connection.xfixes_fetch_region(self.region)?.reply()?.extents;
        Ok(even(extents, self.width, self.height))
    }

    fn count_paint(&mut self) -> Result<(), CaptureError> {
        let fresh = self.take_damage()?;
        self.reported = false;
        self.taken_count += 1;
        self.taken = both(self.taken, fresh);
        Ok(())
    }

    fn capture(&mut self) -> Result<(), CaptureError> {
        let fresh = self.take_damage()?;
        let paints = self.taken_count + u32::from(self.reported);
        (self.reported, self.taken_count) = (false, 0);
        let Some(damage) = both(self.taken.take(), fresh) else { return Ok(()) };
        let now = monotonic();
        let at = self.slots.take(now, paints.max(1));
        self.read_rows(damage.y, damage.height)?;
        let damage = self.owed.take().map_or(damage, |owed| owed.union(damage));
        self.give(PageFrame { at, data: self.canvas.data().to_vec(), damage }, now);
        Ok(())
    }

    fn give(&mut self, frame: PageFrame, now: Duration) {
        match self.output.frames.try_send(frame) {
            Ok(()) => {
                self.output.counts.frames.fetch_add(1, Relaxed);
            }
            Err(TrySendError::Full(frame)) => {
                self.output.counts.left_out.fetch_add(1, Relaxed);
                self.owed = Some(frame.damage);
                self.halved_until = Some(now + HALVED_FOR);
                self.slots.set_halved(true);
            }
            Err(TrySendError::Disconnected(_)) => self.receiver_gone = true,
        }
        if self.halved_until.is_some_and(|until| until <= now) {
            self.halved_until = None;
            self.slots.set_halved(false);
        }
    }

    fn read_rows(&mut self, first: u32, rows: u32) -> Result<(), CaptureError> {
        let (y, width, height) = (first as i16, self.width as u16, rows as u16);
        let format = u8::from(ImageFormat::Z_PIXMAP);
        self.connection.shm_get_image(self.root, 0, y, width, height, !0, format, self.segment, 0)?.reply()?;
        let memory = &self.memory;
        self.canvas.paint_rows(first, rows, |band, from| memory.read_exact_at(band, from))?;
        Ok(())
    }

    /// Until something comes from the server, or until that time. False: the thread is to end.
    fn wait(&self, until: Option<Duration>) -> Result<bool, CaptureError> {
        let timeout = until.and_then(|until| Timespec::try_from(until.saturating_sub(monotonic())).ok());
        let mut sockets =
            [PollFd::new(self.connection.stream(), PollFlags::IN), PollFd::new(&self.output.stopped, PollFlags::IN)];
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(sockets[1].revents().is_empty()),
            Err(errno) => Err(CaptureError::Wait(errno.into())),
        }
    }
}

/// The root window of a screen whose pixels we can read: four bytes, blue first.
fn root_of(setup: &Setup, screen: usize, width: u32, height: u32) -> Option<Window> {
    let screen = setup.roots.get(screen)?;
    let readable = setup.image_byte_order == ImageOrder::LSB_FIRST
        && screen.root_depth == DEPTH
        && setup.pixmap_formats.iter().any(|format| format.depth == DEPTH && format.bits_per_pixel == 32);
    let sized = u32::from(screen.width_in_pixels) == width && u32::from(screen.height_in_pixels) == height;
    (readable && sized).then_some(screen.root)
}

/// The part of a region's extents that lies on the display, widened to even numbers; `None` when nothing does.
fn even(extents: Rectangle, width: u32, height: u32) -> Option<PageRect> {
    let span = |from: i16, length: u16, whole: u32| {
        let begin = i32::from(from).max(0).unsigned_abs();
        let end = (i32::from(from) + i32::from(length)).max(0).unsigned_abs().min(whole);
        let (even_begin, even_end) = (begin & !1, end.next_multiple_of(2).min(whole));
        (begin < end).then_some((even_begin, even_end.saturating_sub(even_begin)))
    };
    let (x, width) = span(extents.x, extents.width, width)?;
    let (y, height) = span(extents.y, extents.height, height)?;
    Some(PageRect { x, y, width, height })
}

fn both(one: Option<PageRect>, other: Option<PageRect>) -> Option<PageRect> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.union(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damage_is_cut_to_the_display_and_widened_to_even_numbers() {
        let of = |x, y, width, height| {
            let rect = even(Rectangle { x, y, width, height }, 1280, 720)?;
            Some((rect.x, rect.y, rect.width, rect.height))
        };
        assert_eq!(of(0, 0, 1280, 720), Some((0, 0, 1280, 720)));
        assert_eq!(of(3, 5, 1, 1), Some((2, 4, 2, 2)));
        assert_eq!(of(3, 5, 2, 2), Some((2, 4, 4, 4)));
        assert_eq!(of(-10, -1, 12, 3), Some((0, 0, 2, 2)));
        assert_eq!(of(1279, 719, 500, 500), Some((1278, 718, 2, 2)));
        for outside in [of(0, 0, 0, 0), of(11, 11, 0, 5), of(-10, 0, 10, 10), of(1280, 0, 5, 5), of(0, 720, 5, 5)] {
            assert_eq!(outside, None);
        }
    }
}
