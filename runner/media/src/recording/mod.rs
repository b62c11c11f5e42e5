//! The leader of one recording. It hears orders, the room, the scene and the pipelines on one channel, decides what is
//! made (`choose`), leads the file (`part`), and says what happens (`report`).
//!
//! Choices it makes (each loses nothing that was published):
//! * A picture that can be copied is copied, whatever sizes it takes later.
//! * When the copied publication comes back in another codec, its file is closed and another file begins.
//! * A muted picture beside sound is black; a single track has a long last frame instead.

mod choose;
mod part;
mod report;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use spillway_plan::Secret;
use spillway_process::{Clock, chain};
use spillway_spool::framing::{HappeningWriter, OrderReader};
use spillway_spool::{EndReason, FileId, Happening, Order, StartOrder};
use tracing::{debug, error, info, warn};

use crate::pipeline::{PipelineError, PipelineEvent};
use crate::scene::{SceneEvent, Wish};
use crate::source::TrackStats;
use crate::source::room::{Delivery, JoinOptions, Room};
use crate::track::Timed;
use choose::{Choice, Known};
use part::{Part, PartError, Turn};
use report::Report;

/// Progress is looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// How long the room may take to hand over what has arrived after we leave.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
/// How long a drain may go without any progress before the file is closed as it is.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// The same when the runner is gone and nobody will wait for us.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);
/// Copies of several tracks may wait this long for sender reports to begin in sync.
const HOLD: Duration = Duration::ZERO;

/// What the leader hears.
pub(crate) enum Input {
    Order(Order),
    RunnerGone,
    Room(Vec<Delivery>),
    RoomGone,
    Pipeline(u32, PipelineEvent),
    Scene(u32, SceneEvent),
}

/// Records until told to stop or until there is nothing more. Returns when everything is said.
pub fn run(mut orders: OrderReader, say: HappeningWriter) {
    let (tell, inbox) = channel();
    // The first start of a process pays for GStreamer's registry: meanwhile we join.
    let gstreamer = std::thread::spawn(gst::init);
    let reader = tell.clone();
    std::thread::spawn(move || {
        loop {
            let input = match orders.hear() {
                Ok(Some(order)) => Input::Order(order),
                Ok(None) => Input::RunnerGone,
                Err(error) => {
                    warn!(error = %chain(&error), "the runner is not understood");
                    Input::RunnerGone
                }
            };
            let gone = matches!(input, Input::RunnerGone);
            if reader.send(input).is_err() || gone {
                return;
            }
        }
    });
    let mut report = Report::new(say);
    let Some(start) = first_order(&inbox, &mut report) else { return };
    let span = tracing::info_span!("recording", egress_id = %start.plan.egress_id);
    let _recording = span.enter();
    let recording = Recording {
        clock: Clock::host_ahead_by(start.clock_ahead_ns),
        start,
        report,
        tell,
        gstreamer: Some(gstreamer),
        room: None,
        origin: None,
        known: Known::default(),
        held: vec![],
        opening: None,
        part: None,
        parts: 0,
        started: false,
        leaving: None,
        draining: None,
        orphan: false,
    };
    recording.lead(&inbox);
}

fn first_order(inbox: &Receiver<Input>, report: &mut Report) -> Option<StartOrder> {
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(Input::Order(Order::Start(start))) => return Some(*start),
            Ok(Input::Order(Order::Stop)) => {
                report.ended(EndReason::Stopped);
                return None;
            }
            Ok(Input::RunnerGone) | Err(RecvTimeoutError::Disconnected) => return None,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => report.alive(0, 0, 0),
        }
    }
}

struct Recording {
    start: StartOrder,
    /// The installation's time, as the runner has told it; no step of the host's wall clock moves it.
    clock: Clock,
    report: Report,
    tell: Sender<Input>,
    gstreamer: Option<JoinHandle<Result<(), gst::glib::Error>>>,
    room: Option<Room>,
    /// Unix nanoseconds of session time 0.
    origin: Option<i64>,
    known: Known,
    /// What came while there was no file to take it.
    held: Vec<Timed>,
    /// Asked the runner where the next file goes.
    opening: Option<Choice>,
    part: Option<Part>,
    parts: u32,
    started: bool,
    /// Asked the room to let us go; it is given until then.
    leaving: Option<Instant>,
    draining: Option<Draining>,
    /// The runner is gone.
    orphan: bool,
}

struct Draining {
    why: EndReason,
    worked: u64,
    give_up_at: Instant,
}

/// The room's way to us. However the room ends, a panic included, we hear that it is gone.
struct Mouth(Sender<Input>);

impl Drop for Mouth {
    fn drop(&mut self) {
        let _ = self.0.send(Input::RoomGone);
    }
}

/// Whether the recording goes on.
type Onwards = std::ops::ControlFlow<EndReason>;
const GO_ON: Onwards = Onwards::Continue(());

impl Recording {
    fn lead(mut self, inbox: &Receiver<Input>) {
        let mut onwards = self.join();
        let mut next_tick = Instant::now();
        while onwards == GO_ON {
            let now = Instant::now();
            onwards = if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now)
            } else {
                match inbox.recv_timeout(next_tick - now) {
                    Ok(input) => self.on(input),
                    Err(_) => GO_ON,
                }
            };
        }
        if let Onwards::Break(why) = onwards {
            self.close_part();
            info!(?why, "recording ended");
            self.report.ended(why);
        }
    }

    fn join(&mut self) -> Onwards {
        let plan = &self.start.plan;
        let mut options =
            JoinOptions::new(self.start.ws_url.clone(), Secret::new(self.start.token.clone()), plan.source.clone());
        options.room_id = plan.room_id.clone();
        options.want_video = plan.picture.is_some();
        options.want_audio = plan.sound.is_some();
        options.reorder = Duration::from_millis(self.start.settings.reorder_ms);
        options.appear = Duration::from_millis(self.start.settings.appear_ms);
        options.hold = HOLD;
        let mouth = Mouth(self.tell.clone());
        match Room::join(options, move |deliveries| mouth.0.send(Input::Room(deliveries)).is_ok()) {
            Ok(room) => self.room = Some(room),
            Err(error) => return failed("internal", format!("start the room's thread: {error}")),
        }
        GO_ON
    }

    fn on(&mut self, input: Input) -> Onwards {
        match input {
            Input::Order(Order::Start(_)) => GO_ON,
            Input::Order(Order::WriteTo { file, path, id }) => self.write_to(file, (&path, id)),
            Input::Order(Order::Stop) => self.stop(),
            Input::RunnerGone => {
                self.orphan = true;
                self.stop()
            }
            Input::Room(deliveries) => deliveries.into_iter().try_for_each(|delivery| self.delivered(delivery)),
            Input::RoomGone => self.room_over(EndReason::SourceClosed { words: "the room is over".into() }),
            Input::Pipeline(part, event) => self.on_pipeline(part, event),
            Input::Scene(part, event) => self.on_scene(part, event),
        }
    }

    fn delivered(&mut self, delivery: Delivery) -> Onwards {
        match delivery {
            Delivery::Origin { at } => self.origin = Some(self.clock.unix_ns_at(at.into())),
            Delivery::Timed(timed) => return self.timed(timed),
            Delivery::Joined { room_id, room_name } => self.report.say(Happening::Joined { room_id, room_name }),
            Delivery::Waiting(what) => self.report.say(Happening::Waiting { what }),
            Delivery::Noted(words) => self.report.say(Happening::Noted { words }),
            Delivery::Stats(stats) => self.stats(&stats),
            Delivery::Ended(why) => return self.room_over(why),
        }
        GO_ON
    }

    fn stats(&mut self, stats: &TrackStats) {
        if let Some(part) = &mut self.part {
            part.packets(stats.track, stats.packets, stats.lost);
            part.av_offset(stats.track, stats.av_offset_ms);
        }
    }

    fn timed(&mut self, timed: Timed) -> Onwards {
        if self.draining.is_some() {
            return GO_ON;
        }
        let Some(part) = &mut self.part else {
            self.known.take(&timed);
            self.held.push(timed);
            return self.choose();
        };
        match part.take(&timed) {
            Ok(Turn::Went) => GO_ON,
            Ok(Turn::Noted(words)) => {
                self.report.say(Happening::Noted { words });
                GO_ON
            }
            Ok(Turn::OtherCodec) => self.next_file(timed),
            Err(error) => self.broke(error),
        }
    }

    /// Asks for a file as soon as enough is known.
    fn choose(&mut self) -> Onwards {
        if self.opening.is_none()
            && let Some(choice) = self.known.choose(&self.start.plan)
        {
            debug!(?choice, "chosen");
            let container = match &choice {
                Choice::Track { container, .. } => *container,
                _ => choose::container(&self.start.plan),
            };
            let facts = self.known.facts(&self.start.plan);
            self.report.say(Happening::Opening { file: self.parts, container, facts });
            self.opening = Some(choice);
        }
        GO_ON
    }

    fn write_to(&mut self, file: u32, place: (&std::path::Path, Option<FileId>)) -> Onwards {
        if file != self.parts {
            return GO_ON;
        }
        let Some(choice) = self.opening.take() else { return GO_ON };
        if let Some(gstreamer) = self.gstreamer.take() {
            match gstreamer.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return failed("internal", format!("start GStreamer: {error}")),
                Err(_) => return failed("internal", "start GStreamer: it panicked".into()),
            }
        }
        let opened = Part::open(file, choice, &self.start.plan, &self.start.settings, place, &self.tell);
        match opened {
            Ok(part) => self.part = Some(part),
            Err(error) => return self.broke(error),
        }
        self.parts += 1;
        for timed in std::mem::take(&mut self.held) {
            let onwards = self.timed(timed);
            if onwards != GO_ON {
                return onwards;
            }
        }
        GO_ON
    }

    /// The publication came back in a codec this file cannot take.
    fn next_file(&mut self, joined: Timed) -> Onwards {
        let words = "the published codec changed; the recording goes on in another file".to_owned();
        self.report.say(Happening::Noted { words });
        if let Some(part) = &mut self.part
            && let Err(error) = part.end()
        {
            return self.broke(error);
        }
        self.known = Known::default();
        self.known.take(&joined);
        self.held.push(joined);
        // The old part drains in its own threads; what comes meanwhile is held.
        self.draining = None;
        self.finish_quietly();
        self.choose()
    }

    /// Waits for the old file of a change of codec; its drain is a matter of milliseconds.
    fn finish_quietly(&mut self) {
        if let Some(part) = &mut self.part {
            part.wait_drained(ORPHAN_PATIENCE);
        }
        self.close_part();
        self.part = None;
    }

    fn stop(&mut self) -> Onwards {
        if self.leaving.is_none() && self.draining.is_none() {
            self.leaving = Some(Instant::now() + ROOM_PATIENCE);
            if let Some(room) = &self.room {
                room.leave();
            }
        }
        GO_ON
    }

    fn room_over(&mut self, why: EndReason) -> Onwards {
        let why = if self.leaving.is_some() { EndReason::Stopped } else { why };
        self.drain(why)
    }

    fn drain(&mut self, why: EndReason) -> Onwards {
        if self.draining.is_some() {
            return GO_ON;
        }
        let Some(part) = &mut self.part else { return Onwards::Break(why) };
        if let Err(error) = part.end() {
            return self.broke(error);
        }
        self.draining = Some(Draining { why, worked: part.worked(), give_up_at: Instant::now() + self.patience() });
        GO_ON
    }

    fn patience(&self) -> Duration {
        if self.orphan { ORPHAN_PATIENCE } else { DRAIN_PATIENCE }
    }

    fn on_pipeline(&mut self, number: u32, event: PipelineEvent) -> Onwards {
        if self.part.as_ref().is_none_or(|part| part.number != number) {
            return GO_ON;
        }
        match event {
            PipelineEvent::Flowing => self.flowing(),
            PipelineEvent::Drained => match self.draining.take() {
                Some(draining) => Onwards::Break(draining.why),
                // Both lanes ended by themselves: only a scene that broke does that.
                None => failed("internal", "the recording ended before it was told to".into()),
            },
            PipelineEvent::Broke(error) => self.broke(PartError::Pipeline(error)),
        }
    }

    fn flowing(&mut self) -> Onwards {
        let Some(part) = &self.part else { return GO_ON };
        if !self.started
            && let (Some(zero), Some(origin)) = (self.origin, part.origin())
        {
            self.started = true;
            self.report.say(Happening::Started { at: zero + origin.0 as i64 });
        }
        GO_ON
    }

    fn on_scene(&mut self, number: u32, event: SceneEvent) -> Onwards {
        let Some(part) = self.part.as_mut().filter(|part| part.number == number) else { return GO_ON };
        match event {
            SceneEvent::Started { at } => part.began(at),
            SceneEvent::Wish(wish) => {
                if let Some(room) = &self.room {
                    match wish {
                        Wish::Prefer { track, width, height } => room.prefer(track, width, height),
                        Wish::KeyFrame { track } => room.ask_keyframe(track),
                    }
                }
            }
            SceneEvent::Noted { words } => self.report.say(Happening::Noted { words }),
            SceneEvent::Broken { words } => return self.drain(EndReason::Failed { code: "internal".into(), words }),
            SceneEvent::Ended => {}
        }
        GO_ON
    }

    /// Nothing more can be written. What was, stays.
    fn broke(&mut self, error: PartError) -> Onwards {
        // A closed lane is the echo of a fault that the pipeline tells itself.
        if matches!(&error, PartError::Copy(crate::copy::CopyError::Feed(_))) {
            return GO_ON;
        }
        let words = chain(&error).to_string();
        if let Some(room) = &self.room {
            room.leave();
        }
        Onwards::Break(match &error {
            full if full.is_full() => EndReason::Full { words },
            PartError::Open(_) | PartError::Pipeline(PipelineError::Write { .. }) => {
                EndReason::Failed { code: "invalid_argument".into(), words }
            }
            _ => {
                error!(error = words, "recording broke");
                EndReason::Failed { code: "internal".into(), words }
            }
        })
    }

    fn tick(&mut self, now: Instant) -> Onwards {
        let (mut media_ns, mut lag_ms, mut backlog, mut worked) = (0, 0, 0, 0);
        if let Some(part) = &mut self.part {
            media_ns = part.media_ns();
            lag_ms = part.lag_ms();
            backlog = part.backlog_bytes();
            worked = part.worked();
            let (end, sealed_to) = part.bytes();
            self.report.wrote(part.number, end, sealed_to, media_ns);
        }
        self.report.alive(media_ns, lag_ms, backlog);
        // The first frame may have passed before the scene's start or the wall clock was known.
        if media_ns > 0 {
            let _ = self.flowing();
        }
        if let Some(draining) = &mut self.draining {
            if draining.worked != worked {
                draining.worked = worked;
                draining.give_up_at = now + if self.orphan { ORPHAN_PATIENCE } else { DRAIN_PATIENCE };
            } else if now >= draining.give_up_at {
                warn!("the file did not finish draining");
                return Onwards::Break(EndReason::Failed {
                    code: "deadline_exceeded".into(),
                    words: "the encoder did not finish; the file ends where it stood".into(),
                });
            }
        } else if self.leaving.is_some_and(|until| now >= until) {
            return self.drain(EndReason::Stopped);
        }
        GO_ON
    }

    /// Says what the file has become.
    fn close_part(&mut self) {
        let Some(part) = &mut self.part else { return };
        let (quality, media_ns) = (part.quality(), part.media_ns());
        part.close();
        let (bytes, sealed_to) = part.bytes();
        self.report.wrote(part.number, bytes, sealed_to, media_ns);
        let zero = self.origin.unwrap_or_else(|| self.clock.unix_ns());
        let started_at = zero + part.origin().map_or(0, |at| at.0 as i64);
        self.report.say(Happening::Closed {
            file: part.number,
            bytes,
            started_at,
            ended_at: started_at + media_ns as i64,
            quality,
        });
    }
}

fn failed(code: &str, words: String) -> Onwards {
    Onwards::Break(EndReason::Failed { code: code.to_owned(), words })
}
