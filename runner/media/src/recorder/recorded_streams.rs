//! The streams of a recording, as the controller knows them: which there are, what puts frames into them, what is told of
//! them. On the controller's thread; servers are talked to by the streams' own, which reports through the controller's
//! channel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use spillway_ipc::{MediaEvent, MediaSettings, StreamLag, StreamStart, StreamState};
use spillway_plan::EgressPlan;

use super::formats::stream_numbers;
use super::input::RecorderInput;
use crate::encoded::{EncodedFormat, StreamNumber};
use crate::output::{
    Fanout, KeyFrameRequests, RingTaker, StreamEnd, StreamEvent, Streams, TakerError, TakerId, TakerProgress,
    TakerReporter, TakerStart,
};
use crate::track::{TimelineEvent, TrackId};
use crate::units::MediaTime;

/// Streams before, while and after they are written. Dropping it cuts their connections.
pub struct RecordedStreams {
    is_asked: bool,
    /// They begin with the first media.
    pending: Vec<StreamStart>,
    running: Option<RunningStreams>,
    /// Every stream that was given frames, those that have ended too: an id is begun once.
    begun: BTreeMap<u32, BegunStream>,
    mutes: SoundMutes,
}

/// When the sound stops and goes on, until output time 0 is known. Of several tracks it stops with the last one.
#[derive(Default)]
struct SoundMutes {
    /// Tracks of which something came since they were muted.
    audible: BTreeSet<TrackId>,
    is_muted: bool,
    untold: Vec<(MediaTime, bool)>,
}

impl SoundMutes {
    /// Since when it is muted, or not any more, if this event changes it.
    fn change(&mut self, timed: &TimelineEvent) -> Option<(MediaTime, bool)> {
        let (at, muted) = match timed {
            TimelineEvent::Frame(frame) => {
                self.audible.insert(frame.track);
                (frame.at, false)
            }
            TimelineEvent::Muted { track, at, .. } => {
                self.audible.remove(track);
                (*at, self.audible.is_empty())
            }
            TimelineEvent::Left { track, .. } => {
                self.audible.remove(track);
                return None;
            }
            _ => return None,
        };
        (std::mem::replace(&mut self.is_muted, muted) != muted).then_some((at, muted))
    }
}

struct RunningStreams {
    streams: Streams,
    fanout: Arc<Fanout>,
    /// The encoded streams that each stream is given.
    numbers: Vec<StreamNumber>,
    has_pictures: bool,
    /// Known when the encoders run, which is after the first stream was added.
    key_frames: Arc<OnceLock<KeyFrameRequests>>,
}

struct BegunStream {
    taker: TakerId,
    reporter: TakerReporter,
    retries: u32,
    /// A server has taken it. Those who watch it are there while its connection is tried again, too.
    was_active: bool,
    is_over: bool,
}

impl RecordedStreams {
    /// Of a recording that begins with `streams`.
    pub fn new(plan: &EgressPlan, streams: Vec<StreamStart>) -> Self {
        let (is_asked, mutes) = (plan.streams().is_some(), SoundMutes::default());
        let mut recorded = Self { is_asked, pending: vec![], running: None, begun: BTreeMap::new(), mutes };
        streams.into_iter().for_each(|start| recorded.add(start));
        recorded
    }

    /// The plan has an output of streams, whether there is a stream now or not: the runner decides when the recording ends.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// The first media is there: from now on streams are given what comes out of `fanout`.
    ///
    /// # Errors
    ///
    /// As [`Streams::start`].
    pub fn begin(
        &mut self,
        fanout: &Arc<Fanout>,
        settings: &MediaSettings,
        tell: &Sender<RecorderInput>,
    ) -> io::Result<()> {
        if !self.is_asked {
            return Ok(());
        }
        let numbers = stream_numbers(fanout.formats());
        let of = |number: &StreamNumber| fanout.formats().get(usize::from(number.0)).cloned();
        let formats: Vec<EncodedFormat> = numbers.iter().filter_map(of).collect();
        let has_pictures = formats.iter().any(|format| matches!(format, EncodedFormat::Video { .. }));
        let key_frames: Arc<OnceLock<KeyFrameRequests>> = Arc::default();
        let (keys, tell) = (key_frames.clone(), tell.clone());
        let key_frame = Arc::new(move || {
            if let Some(keys) = keys.get() {
                keys.now();
            }
        });
        // Refused only when the controller is gone.
        let tell = Arc::new(move |id, event| drop(tell.send(RecorderInput::Stream(id, event))));
        let streams = Streams::start(formats.into(), settings, key_frame, tell)?;
        self.running = Some(RunningStreams { streams, fanout: fanout.clone(), numbers, has_pictures, key_frames });
        std::mem::take(&mut self.pending).into_iter().for_each(|start| self.add(start));
        Ok(())
    }

    /// The encoders run.
    pub fn encoding(&self, key_frames: KeyFrameRequests) {
        if let Some(running) = &self.running {
            // They are started once.
            let _ = running.key_frames.set(key_frames);
        }
    }

    /// Another stream; nothing happens if its id was given before.
    pub fn add(&mut self, start: StreamStart) {
        let id = start.id;
        if self.begun.contains_key(&id) || self.pending.iter().any(|pending| pending.id == id) {
            return;
        }
        let Some(running) = &mut self.running else {
            self.pending.push(start);
            return;
        };
        let (taker, reporter) = running.fanout.reserve();
        let ring = Box::new(RingTaker::new(running.streams.add(start)));
        self.begun.insert(id, BegunStream { taker, reporter, retries: 0, was_active: false, is_over: false });
        let (streams, progress) = (running.numbers.clone(), Arc::<TakerProgress>::default());
        running.fanout.add(TakerStart { id: taker, streams, taker: ring, progress });
    }

    /// What happens to the tracks, for servers that are told when the sound is muted. `origin`: output time 0, once it is
    /// known.
    pub fn timed(&mut self, timed: &TimelineEvent, origin: Option<MediaTime>) {
        if !self.is_asked {
            return;
        }
        let change = self.mutes.change(timed);
        self.mutes.untold.extend(change);
        if !self.mutes.untold.is_empty() {
            self.tell_mutes(origin);
        }
    }

    fn tell_mutes(&mut self, origin: Option<MediaTime>) {
        let (Some(running), Some(origin)) = (&self.running, origin) else { return };
        for (at, muted) in self.mutes.untold.drain(..) {
            running.streams.mutes().set(at.ns_since(origin), muted);
        }
    }

    /// Ends a stream. Answers what is to be told at once; of one that has begun the end comes as an event.
    pub fn remove(&mut self, id: u32, at: i64) -> Option<MediaEvent> {
        if let Some(index) = self.pending.iter().position(|pending| pending.id == id) {
            self.pending.remove(index);
            return Some(finished(id, at));
        }
        let (running, begun) = (self.running.as_ref()?, self.begun.get(&id)?);
        running.fanout.remove(begun.taker);
        running.streams.remove(id);
        None
    }

    /// What happened to stream `id` at this time, Unix nanoseconds, as the runner is told of it. One that has ended is no
    /// output any more.
    pub fn on_event(&mut self, id: u32, event: StreamEvent, at: i64) -> Option<MediaEvent> {
        let begun = self.begun.get_mut(&id)?;
        let (state, message) = match event {
            StreamEvent::Connecting => (StreamState::Connecting, String::new()),
            StreamEvent::Active => {
                begun.was_active = true;
                (StreamState::Active { at }, String::new())
            }
            StreamEvent::Retrying { message, retries } => {
                begun.retries = retries;
                (StreamState::Retrying { at }, message)
            }
            StreamEvent::Ended(StreamEnd::Finished) => {
                begun.is_over = true;
                begun.reporter.ended();
                (StreamState::Finished { at }, String::new())
            }
            StreamEvent::Ended(StreamEnd::Failed { code, message }) => {
                begun.is_over = true;
                begun.reporter.failed(TakerError::Stream { message: message.clone() });
                (StreamState::Failed { at, code: code.to_owned() }, message)
            }
        };
        let retries = begun.retries;
        let lag_ms = self.lags().into_iter().find(|lag| lag.id == id).map_or(0, |lag| lag.lag_ms);
        Some(MediaEvent::Stream { id, state, message, retries, lag_ms })
    }

    /// Pictures go to a server now, or would if its connection held.
    pub fn is_watched(&self) -> bool {
        let has_pictures = self.running.as_ref().is_some_and(|running| running.has_pictures);
        has_pictures && self.begun.values().any(|begun| begun.was_active && !begun.is_over)
    }

    /// How far the streams that have begun and not ended are behind.
    pub fn lags(&self) -> Vec<StreamLag> {
        let Some(running) = &self.running else { return vec![] };
        let is_on = |id: u32| self.begun.get(&id).is_some_and(|begun| !begun.is_over);
        let lags = running.streams.lags_ms().map(|(id, lag_ms)| StreamLag { id, lag_ms });
        lags.filter(|lag| is_on(lag.id)).collect()
    }

    /// Cuts what is still connected. What happened until then is in the controller's channel.
    pub fn close(&mut self) {
        self.running = None;
    }

    /// Of a recording that ends before its first media: the end of each stream.
    pub fn never_begun(&mut self, at: i64) -> Vec<MediaEvent> {
        std::mem::take(&mut self.pending).iter().map(|start| finished(start.id, at)).collect()
    }
}

fn finished(id: u32, at: i64) -> MediaEvent {
    MediaEvent::Stream { id, state: StreamState::Finished { at }, message: String::new(), retries: 0, lag_ms: 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use bytes::Bytes;
    use spillway_plan::{EgressKind, Limits, Output, Secret, Source, StreamProtocol, StreamsOutput};

    use super::*;
    use crate::encoded::{EncodedUnit, MediaKind};
    use crate::output::PipelineEvent;
    use crate::track::{Codec, Frame};

    fn plan() -> EgressPlan {
        EgressPlan {
            egress_id: "EG_x".into(),
            room_name: "room".into(),
            room_id: String::new(),
            kind: EgressKind::RoomComposite,
            source: Source::Room,
            picture: None,
            sound: None,
            outputs: vec![Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 1 })],
            limits: Limits::default(),
            retry_count: 0,
            sheets: None,
        }
    }

    /// To a port where nothing listens.
    fn start(id: u32) -> StreamStart {
        StreamStart { id, output: 0, url: Secret::new(format!("rtmp://127.0.0.1:1/app/canary-{id}")) }
    }

    fn begun(streams: &mut RecordedStreams) -> (Arc<Fanout>, Receiver<RecorderInput>) {
        let formats = vec![
            EncodedFormat::Opus { channels: 2, pre_skip: 312 },
            EncodedFormat::Aac { rate: 44_100, bitrate_kbps: 128 },
        ];
        begun_with(streams, formats)
    }

    fn begun_with(
        streams: &mut RecordedStreams,
        formats: Vec<EncodedFormat>,
    ) -> (Arc<Fanout>, Receiver<RecorderInput>) {
        let (tell, inbox) = channel();
        let pipeline = tell.clone();
        let fanout = Fanout::new(formats, move |event| drop(pipeline.send(RecorderInput::Pipeline(0, event))));
        streams.begin(&fanout, &MediaSettings::default(), &tell).unwrap();
        (fanout, inbox)
    }

    fn push(fanout: &Fanout, stream: u8) {
        let data = Bytes::from_static(&[0; 8]);
        let unit = EncodedUnit {
            stream: StreamNumber(stream),
            kind: MediaKind::Audio,
            key: true,
            at_ns: 0,
            offset_ns: 0,
            duration_ns: 0,
            data,
        };
        fanout.push(unit).unwrap();
    }

    /// The next end of a stream, as the runner is told of it.
    fn ended(streams: &mut RecordedStreams, inbox: &Receiver<RecorderInput>) -> (u32, StreamState) {
        loop {
            if let RecorderInput::Stream(id, event) = inbox.recv_timeout(Duration::from_secs(10)).unwrap()
                && let Some(MediaEvent::Stream { state, .. }) = streams.on_event(id, event, 9)
                && matches!(state, StreamState::Finished { .. } | StreamState::Failed { .. })
            {
                return (id, state);
            }
        }
    }

    #[test]
    fn what_was_given_before_the_first_media_begins_with_it() {
        let mut streams = RecordedStreams::new(&plan(), vec![start(0), start(1), start(0)]);
        streams.add(start(2));
        assert!(matches!(
            streams.remove(1, 9),
            Some(MediaEvent::Stream { id: 1, state: StreamState::Finished { at: 9 }, .. })
        ));
        let (fanout, inbox) = begun(&mut streams);
        assert_eq!(streams.lags().iter().map(|lag| lag.id).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(streams.never_begun(9).len(), 0);
        // Frames of Opus are not for it: a stream that is given none ends without having been tried.
        push(&fanout, 0);
        assert!(streams.remove(0, 9).is_none());
        assert_eq!(ended(&mut streams, &inbox), (0, StreamState::Finished { at: 9 }));
        assert_eq!(streams.lags().iter().map(|lag| lag.id).collect::<Vec<_>>(), [2]);
        // An id is begun once.
        streams.add(start(0));
        assert_eq!(streams.lags().len(), 1);
    }

    #[test]
    fn a_stream_that_fails_is_no_output_any_more() {
        let mut streams = RecordedStreams::new(&plan(), vec![start(0)]);
        let (fanout, inbox) = begun(&mut streams);
        push(&fanout, 1);
        let (id, state) = ended(&mut streams, &inbox);
        assert!(id == 0 && matches!(state, StreamState::Failed { at: 9, .. }), "{state:?}");
        fanout.end_stream(StreamNumber(0));
        fanout.end_stream(StreamNumber(1));
        let next = || inbox.recv_timeout(Duration::from_secs(10)).unwrap();
        while !matches!(next(), RecorderInput::Pipeline(_, PipelineEvent::Drained)) {}
    }

    #[test]
    fn it_is_watched_from_the_first_connection_to_the_last_end() {
        let (size, bitrate_kbps) = ((320, 180), Some(500));
        let video = EncodedFormat::Video { codec: Codec::H264, size, framerate: Some(30), bitrate_kbps };
        let mut streams = RecordedStreams::new(&plan(), vec![start(0), start(1)]);
        assert!(!streams.is_watched());
        let _running = begun_with(&mut streams, vec![video]);
        let mut on = |id, event| {
            streams.on_event(id, event, 9);
            streams.is_watched()
        };
        let lost = || StreamEvent::Retrying { message: "lost".into(), retries: 1 };
        assert!(!on(0, StreamEvent::Connecting) && !on(0, lost()), "nobody has seen it");
        assert!(on(0, StreamEvent::Active) && on(0, lost()) && on(1, StreamEvent::Active));
        assert!(on(0, StreamEvent::Ended(StreamEnd::Finished)), "the other one still is");
        let failed = StreamEnd::Failed { code: "unavailable", message: "gone".into() };
        assert!(!on(1, StreamEvent::Ended(failed)));
        let mut sound = RecordedStreams::new(&plan(), vec![start(0)]);
        let _running = begun(&mut sound);
        sound.on_event(0, StreamEvent::Active, 9);
        assert!(!sound.is_watched(), "no picture to leave out");
    }

    #[test]
    fn without_a_beginning_every_stream_has_finished() {
        let mut streams = RecordedStreams::new(&plan(), vec![start(0), start(1)]);
        assert_eq!(streams.never_begun(9).len(), 2);
        assert_eq!(streams.never_begun(9).len(), 0);
    }

    #[test]
    fn mutes_are_told_in_output_time_once_its_beginning_is_known() {
        let ms = |ms: u64| MediaTime::from_ns(ms * 1_000_000);
        let muted = |at| TimelineEvent::Muted { track: TrackId(1), at: ms(at), muted: true };
        let frame = |at| {
            TimelineEvent::Frame(Frame {
                track: TrackId(1),
                at: ms(at),
                offset_ns: 0,
                key: true,
                size: None,
                data: Bytes::new(),
            })
        };
        let mut streams = RecordedStreams::new(&plan(), vec![]);
        let (_fanout, _inbox) = begun(&mut streams);
        streams.timed(&frame(900), None);
        streams.timed(&muted(1000), None);
        streams.timed(&muted(1010), None);
        let is_muted_at = |streams: &RecordedStreams, at_ms: u64| {
            streams.running.as_ref().unwrap().streams.mutes().is_muted_at(at_ms * 1_000_000)
        };
        assert!(!is_muted_at(&streams, 500), "the beginning is not known");
        streams.timed(&TimelineEvent::Watermark { at: ms(1020) }, Some(ms(800)));
        streams.timed(&frame(2000), Some(ms(800)));
        let muted: Vec<u64> = (0..3000).filter(|at| is_muted_at(&streams, *at)).collect();
        assert_eq!(muted, (200..1200).collect::<Vec<_>>());
    }

    #[test]
    fn of_several_tracks_the_sound_is_muted_when_all_are() {
        let ms = |ms: u64| MediaTime::from_ns(ms * 1_000_000);
        let muted = |track, at| TimelineEvent::Muted { track: TrackId(track), at: ms(at), muted: true };
        let frame = |track, at| {
            TimelineEvent::Frame(Frame {
                track: TrackId(track),
                at: ms(at),
                offset_ns: 0,
                key: true,
                size: None,
                data: Bytes::new(),
            })
        };
        let mut mutes = SoundMutes::default();
        let events = [
            frame(1, 0),
            frame(2, 0),
            muted(1, 100),
            frame(2, 120),
            muted(2, 200),
            frame(1, 300),
            TimelineEvent::Left { track: TrackId(1), at: ms(310) },
            muted(1, 320),
        ];
        let told: Vec<_> = events.iter().filter_map(|event| mutes.change(event)).collect();
        assert_eq!(told, [(ms(200), true), (ms(300), false), (ms(320), true)]);
    }
}
