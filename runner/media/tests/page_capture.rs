//! A display and a sound server of a page with real parts: Xvfb, a program that draws on it, PulseAudio's player.

#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use spillway_media::source::page::display::Display;
use spillway_media::source::page::sound::SoundServer;
use spillway_media::source::page::units::{DisplayOptions, PageFrame, PageRect, PageSamples, SoundOptions, monotonic};
use tempfile::TempDir;
use x11rb::connection::Connection as _;
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::xproto::{
    ChangeGCAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, Gcontext, Rectangle, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
const PERIOD: Duration = Duration::from_nanos(33_333_333);
/// BT.709, limited range.
const RED: [u8; 3] = [63, 102, 240];

/// Each paints or plays in real time: beside another one on two cores pictures are late.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn display(folder: &TempDir, width: u32, height: u32) -> (Display, Receiver<PageFrame>) {
    let options = DisplayOptions { width, height, fps: 30, folder: folder.path().to_owned() };
    Display::start(&options).unwrap()
}

/// A program with one window, as large as the display.
struct Painter {
    connection: RustConnection,
    root: Window,
    window: Window,
    context: Gcontext,
}

impl Painter {
    fn new(address: &str, width: u32, height: u32) -> Self {
        let (connection, screen) = RustConnection::connect(Some(address)).unwrap();
        let screen = connection.setup().roots[screen].clone();
        let (window, context) = (connection.generate_id().unwrap(), connection.generate_id().unwrap());
        let aux = CreateWindowAux::new().override_redirect(1).background_pixel(screen.black_pixel);
        connection
            .create_window(
                screen.root_depth,
                window,
                screen.root,
                0,
                0,
                width as u16,
                height as u16,
                0,
                WindowClass::INPUT_OUTPUT,
                screen.root_visual,
                &aux,
            )
            .unwrap();
        connection.create_gc(context, window, &CreateGCAux::new()).unwrap();
        connection.map_window(window).unwrap();
        connection.get_input_focus().unwrap().reply().unwrap();
        Self { connection, root: screen.root, window, context }
    }

    /// Paints a rectangle; it is done when this returns.
    fn paint(&self, colour: u32, rect: PageRect) -> Duration {
        let rectangle =
            Rectangle { x: rect.x as i16, y: rect.y as i16, width: rect.width as u16, height: rect.height as u16 };
        self.connection.change_gc(self.context, &ChangeGCAux::new().foreground(colour)).unwrap();
        self.connection.poly_fill_rectangle(self.window, self.context, &[rectangle]).unwrap();
        self.connection.get_input_focus().unwrap().reply().unwrap();
        monotonic()
    }

    /// Refreshes a second that the display says.
    fn refresh(&self) -> f64 {
        let resources = self.connection.randr_get_screen_resources(self.root).unwrap().reply().unwrap();
        let crtc = self.connection.randr_get_crtc_info(resources.crtcs[0], 0).unwrap().reply().unwrap();
        let mode = resources.modes.iter().find(|mode| mode.id == crtc.mode).unwrap();
        f64::from(mode.dot_clock) / (f64::from(mode.htotal) * f64::from(mode.vtotal))
    }
}

fn whole(width: u32, height: u32) -> PageRect {
    PageRect { x: 0, y: 0, width, height }
}

fn grey(level: u32) -> u32 {
    level * 0x01_0101
}

/// Luma, U and V of a pixel; of a width that needs no padding.
fn pixel(frame: &PageFrame, (width, height): (u32, u32), x: u32, y: u32) -> [u8; 3] {
    let (width, height, x, y) = (width as usize, height as usize, x as usize, y as usize);
    let chroma = width * height + (y / 2) * (width / 2) + x / 2;
    [frame.data[y * width + x], frame.data[chroma], frame.data[chroma + width * height / 4]]
}

fn near(found: [u8; 3], expected: [u8; 3]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) <= 1)
}

fn luma_of(level: u32) -> u8 {
    (16.0 + f64::from(level) * 219.0 / 255.0).round() as u8
}

/// What comes while `paint` paints, which may be more than the queue holds, and until nothing does for so long.
fn while_painting<T: Send>(
    frames: &Receiver<PageFrame>,
    quiet: Duration,
    paint: impl FnOnce() -> T + Send,
) -> (T, Vec<PageFrame>) {
    std::thread::scope(|scope| {
        let painting = scope.spawn(paint);
        let shown = until_quiet(frames, quiet);
        (painting.join().unwrap(), shown)
    })
}

/// What comes until nothing does for so long.
fn until_quiet(frames: &Receiver<PageFrame>, quiet: Duration) -> Vec<PageFrame> {
    let mut all = Vec::new();
    loop {
        match frames.recv_timeout(quiet) {
            Ok(frame) => all.push(frame),
            Err(RecvTimeoutError::Timeout) => return all,
            Err(RecvTimeoutError::Disconnected) => panic!("the display is lost"),
        }
    }
}

#[test]
fn every_picture_of_a_page_is_a_frame_near_its_time() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (mut display, frames) = display(&folder, WIDTH, HEIGHT);
    let first = frames.recv_timeout(Duration::from_secs(1)).unwrap();
    assert_eq!(first.damage, whole(WIDTH, HEIGHT));
    assert!(near(pixel(&first, (WIDTH, HEIGHT), 640, 360), [16, 128, 128]));
    let painter = Painter::new(display.address(), WIDTH, HEIGHT);
    until_quiet(&frames, Duration::from_millis(300));

    // 25 a second for three seconds, each of a grey that is not taken for another.
    let (painted, shown) = while_painting(&frames, Duration::from_millis(600), || {
        let paint = |level| {
            std::thread::sleep(Duration::from_millis(40));
            (level, painter.paint(grey(level), whole(WIDTH, HEIGHT)))
        };
        (20..245).step_by(3).map(paint).collect::<Vec<_>>()
    });
    assert!(shown.windows(2).all(|pair| pair[1].at > pair[0].at));
    let mut off = Vec::new();
    for (level, at) in &painted {
        let found = shown.iter().find(|frame| {
            near(pixel(frame, (WIDTH, HEIGHT), 1278, 718), [luma_of(*level), 128, 128]) && frame.at + PERIOD > *at
        });
        off.extend(found.map(|frame| frame.at.abs_diff(*at)));
    }
    // A busy machine may be late for some.
    assert!(off.len() >= 70, "{} of 75 pictures", off.len());
    assert!(shown.len() <= 76, "{} frames", shown.len());
    off.sort();
    assert!(off[off.len() / 2] < PERIOD, "half of them are {:?} off", off[off.len() / 2]);
    assert_eq!(display.stats().left_out, 0);

    // A part of it; odd numbers are widened to even ones.
    painter.paint(0xff_0000, PageRect { x: 101, y: 50, width: 198, height: 101 });
    let part = until_quiet(&frames, Duration::from_millis(300));
    assert_eq!(part.len(), 1);
    assert_eq!(part[0].damage, PageRect { x: 100, y: 50, width: 200, height: 102 });
    for (x, y, expected) in
        [(102, 52, RED), (296, 148, RED), (96, 52, [luma_of(242), 128, 128]), (102, 48, [luma_of(242), 128, 128])]
    {
        let found = pixel(&part[0], (WIDTH, HEIGHT), x, y);
        assert!(near(found, expected), "{found:?} at {x},{y}");
    }
    assert_eq!(display.failure(), None);
    let pid = display.pid();
    drop(display);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the X server is gone");
}

#[test]
fn of_many_pictures_the_newest_ones_are_shown() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (display, frames) = display(&folder, 640, 360);
    let painter = Painter::new(display.address(), 640, 360);
    until_quiet(&frames, Duration::from_millis(300));
    let (level, shown) = while_painting(&frames, Duration::from_millis(500), || {
        let begun = Instant::now();
        let mut level = 0;
        while begun.elapsed() < Duration::from_secs(3) {
            level = (level + 1) % 200;
            painter.paint(grey(level), whole(640, 360));
            std::thread::sleep(Duration::from_millis(8));
        }
        level
    });
    assert!((75..=93).contains(&shown.len()), "{} frames in 3 s", shown.len());
    for pair in shown.windows(2) {
        assert!(pair[1].at - pair[0].at >= PERIOD - Duration::from_micros(600));
    }
    let last = shown.last().unwrap();
    assert!(near(pixel(last, (640, 360), 10, 10), [luma_of(level), 128, 128]), "the last picture stays");
}

#[test]
fn what_is_not_taken_is_left_out_and_painted_later() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (display, frames) = display(&folder, 320, 240);
    let painter = Painter::new(display.address(), 320, 240);
    until_quiet(&frames, Duration::from_millis(300));
    let begun = Instant::now();
    let mut level = 0;
    // Two seconds fill the queue; then another part is painted.
    while begun.elapsed() < Duration::from_secs(5) {
        level = (level + 1) % 200;
        let place = if begun.elapsed() < Duration::from_secs(3) { 0 } else { 100 };
        painter.paint(grey(level), PageRect { x: place, y: place, width: 50, height: 50 });
        std::thread::sleep(Duration::from_millis(33));
    }
    let left_out = display.stats().left_out;
    assert!(left_out > 0);
    let waited = frames.try_iter().count();
    assert!((50..=60).contains(&waited), "{waited} frames waited");
    painter.paint(grey(250), PageRect { x: 200, y: 200, width: 4, height: 4 });
    let next = frames.recv_timeout(Duration::from_secs(1)).unwrap();
    assert!(next.damage.x <= 100 && next.damage.y <= 100, "what was left out is damaged: {:?}", next.damage);
    assert!(near(pixel(&next, (320, 240), 110, 110), [luma_of(level), 128, 128]));
}

#[test]
fn the_refresh_rate_is_the_outputs_and_may_change() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (display, _frames) = display(&folder, 854, 480);
    let painter = Painter::new(display.address(), 854, 480);
    for (set, hz) in [(None, 30.0), (Some(60), 60.0), (Some(25), 25.0), (Some(60), 60.0)] {
        if let Some(hz) = set {
            display.set_refresh(hz).unwrap();
        }
        assert!((painter.refresh() - hz).abs() < 0.001, "{} Hz instead of {hz}", painter.refresh());
    }
}

#[test]
fn a_display_that_dies_is_seen_within_a_second() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (mut display, frames) = display(&folder, 640, 360);
    until_quiet(&frames, Duration::from_millis(100));
    kill_process(Pid::from_raw(display.pid() as i32).unwrap(), Signal::KILL).unwrap();
    assert_eq!(frames.recv_timeout(Duration::from_secs(1)).unwrap_err(), RecvTimeoutError::Disconnected);
    // The process is a zombie some microseconds after its sockets are closed.
    std::thread::sleep(Duration::from_millis(50));
    let failure = display.failure().unwrap();
    assert!(failure.contains("signal: 9"), "{failure}");
    // What it left behind is in no other's way.
    let folder = TempDir::new().unwrap();
    let (_display, frames) = self::display(&folder, 640, 360);
    assert!(frames.recv_timeout(Duration::from_secs(1)).is_ok());
}

#[test]
fn a_display_that_cannot_be_is_refused() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    for (width, height, fps) in [(0, 720, 30), (1281, 720, 30), (1280, 40_000, 30), (1280, 720, 0)] {
        let options = DisplayOptions { width, height, fps, folder: folder.path().to_owned() };
        assert!(Display::start(&options).is_err(), "{width}x{height} at {fps}");
    }
}

const RATE: usize = 48_000;

/// Samples that are not found twice, never zero, on one side.
fn samples(seconds: f64, left: bool) -> Vec<f32> {
    let mut state = if left { 1u32 } else { 77_777 };
    (0..(seconds * RATE as f64) as usize)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.8 + 1e-6;
            if left { [sample, 0.0] } else { [0.0, sample] }
        })
        .collect()
}

/// PulseAudio's own player; killed with this value.
struct Player(Child);

impl Player {
    fn start(server: &SoundServer, folder: &TempDir, name: &str, samples: &[f32]) -> Self {
        let file = folder.path().join(name);
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        std::fs::write(&file, bytes).unwrap();
        let child = Command::new("pacat")
            .args(["--playback", "--raw", "--format=float32le", "--rate=48000", "--channels=2"])
            .arg(file)
            .env("PULSE_SERVER", format!("unix:{}", server.address().display()))
            .env("PULSE_COOKIE", server.cookie())
            .env("HOME", folder.path())
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), signal).unwrap();
    }

    /// It plays everything, hears that it is heard, and ends.
    fn ends_well(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the player does not end");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sound(folder: &TempDir) -> (SoundServer, Receiver<PageSamples>) {
    SoundServer::start(&SoundOptions { folder: folder.path().to_owned() }).unwrap()
}

/// Everything heard up to this time, as it comes.
fn heard_until(blocks: &Receiver<PageSamples>, until: Duration) -> Vec<PageSamples> {
    let mut all: Vec<PageSamples> = Vec::new();
    while all.last().is_none_or(|block| block.at < until) {
        all.push(blocks.recv_timeout(Duration::from_secs(2)).unwrap());
    }
    all
}

/// One side (0 or 1) of all blocks, and where it is not silent.
fn side(blocks: &[PageSamples], side: usize) -> (Vec<f32>, Range<usize>) {
    let samples: Vec<f32> =
        blocks.iter().flat_map(|block| block.samples.chunks_exact(2).map(move |frame| frame[side])).collect();
    let first = samples.iter().position(|sample| *sample != 0.0).unwrap_or(0);
    let last = samples.iter().rposition(|sample| *sample != 0.0).map_or(0, |last| last + 1);
    (samples, first..last)
}

#[test]
fn sound_is_heard_whole_at_its_time() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (server, blocks) = sound(&folder);
    let played = samples(2.0, true);
    let begun = monotonic();
    let mut player = Player::start(&server, &folder, "one.raw", &played);
    player.ends_well();
    let ended = monotonic();
    let all = heard_until(&blocks, ended + Duration::from_millis(100));
    for pair in all.windows(2) {
        let (distance, length) = (pair[1].at - pair[0].at, pair[0].samples.len());
        assert!(length == 2 * 960 && distance.abs_diff(Duration::from_millis(20)) <= Duration::from_nanos(1));
    }
    let (left, range) = side(&all, 0);
    let expected: Vec<f32> = played.chunks_exact(2).map(|frame| frame[0]).collect();
    assert_eq!(range.len(), expected.len(), "{:?}", server.stats());
    assert!(left[range.clone()] == expected[..], "every sample, unchanged");
    let at = all[0].at + Duration::from_secs_f64(range.start as f64 / RATE as f64);
    assert!(
        at > begun && at + Duration::from_secs(2) < ended + Duration::from_millis(50),
        "{begun:?} {at:?} {ended:?}"
    );
    assert_eq!(server.stats().lost_frames, 0);
}

#[test]
fn several_players_are_mixed_and_a_stopped_one_loses_nothing() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (server, blocks) = sound(&folder);
    let (left, right) = (samples(2.0, true), samples(2.5, false));
    let mut one = Player::start(&server, &folder, "left.raw", &left);
    std::thread::sleep(Duration::from_millis(300));
    let mut other = Player::start(&server, &folder, "right.raw", &right);
    std::thread::sleep(Duration::from_millis(500));
    // As a machine that has no time for the browser: it goes on within the half second that blocks wait.
    one.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(250));
    one.signal(Signal::CONT);
    one.ends_well();
    other.ends_well();
    let all = heard_until(&blocks, monotonic() + Duration::from_millis(100));
    for (index, played) in [left, right].iter().enumerate() {
        let (heard, range) = side(&all, index);
        let expected: Vec<f32> = played.chunks_exact(2).map(|frame| frame[index]).collect();
        assert_eq!(range.len(), expected.len(), "side {index}: {:?}", server.stats());
        assert!(heard[range] == expected[..], "side {index}");
    }
    let stats = server.stats();
    assert!(stats.worst_late_ms >= 150 && stats.lost_frames == 0, "{stats:?}");
}

#[test]
fn silence_comes_in_time_and_no_file_is_left() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let (server, blocks) = sound(&folder);
    let mut delays = Vec::new();
    for _ in 0..50 {
        let block = blocks.recv_timeout(Duration::from_secs(2)).unwrap();
        assert!(block.samples.iter().all(|sample| *sample == 0.0));
        delays.push(monotonic() - block.at);
    }
    assert!(delays.iter().all(|delay| *delay >= Duration::from_millis(500)));
    delays.sort();
    assert!(delays[delays.len() / 2] < Duration::from_millis(560), "{:?}", delays[delays.len() / 2]);
    assert_eq!(server.failure(), None);
    let files = [server.address().to_owned(), server.cookie().to_owned()];
    assert!(files.iter().all(|file| file.exists()));
    drop(server);
    assert!(!files.iter().any(|file| file.exists()));
    assert!(blocks.iter().all(|block| block.samples.len() == 2 * 960), "then the channel ends");
}
