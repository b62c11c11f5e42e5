//! The tracks of one room: which stream carries which of them, who comes, mutes and leaves. In: [`RoomEvent`]s with
//! their arrival. Out: [`TimelineEvent`]s, and requests for key frames.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::event::{Publication, RoomEvent, SourceTime};
use super::layer_gate::LayerGate;
use super::placement::{Absence, ReceiveOptions, TrackPlacement};
use super::reorder::Packet;
use super::stats::TrackStats;
use super::stream::StreamReceiver;
use crate::track::{Codec, TimelineEvent, TrackId, TrackSource};
use crate::units::Ssrc;

/// livekit/egress' default template starts 5 s after something is subscribed, muted or not.
const MUTED_START: Duration = Duration::from_secs(5);

/// Whether media time begins without a packet, when for 5 s nothing has come: it is then zero where these 5 s began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyStart {
    /// It does not.
    #[default]
    Never,
    /// While everything that is subscribed is muted. What is not is waited for.
    Muted,
    /// While anything is subscribed: all is muted, or sends nothing.
    Always,
}

/// Receives every track of a room.
///
/// Push what arrives, tick some 25 times a second, drain after either.
pub struct TrackReceiver {
    streams: BTreeMap<Ssrc, StreamReceiver>,
    placement: TrackPlacement,
    /// Subscriptions: whether it is a video, and whether it is muted.
    published: BTreeMap<String, (bool, bool)>,
    ids: HashMap<(String, TrackSource), Vec<TrackId>>,
    begins_muted: bool,
    begins_without_media: EmptyStart,
    /// Since when [`EmptyStart`] was always the case.
    empty_since: Option<SourceTime>,
    /// Of pictures that begin in their best layer.
    best_layer_of: Arc<[Codec]>,
}

impl TrackReceiver {
    /// Nothing is received yet; the first packet sets media time zero.
    pub fn new(options: ReceiveOptions) -> Self {
        Self {
            streams: BTreeMap::new(),
            placement: TrackPlacement::new(options),
            published: BTreeMap::new(),
            ids: HashMap::new(),
            begins_muted: false,
            begins_without_media: EmptyStart::Never,
            empty_since: None,
            best_layer_of: [].into(),
        }
    }

    /// A sound that is muted from the start joins without a packet, when it has been open for 5 s; media time zero is then
    /// where it was opened. For recordings of one track.
    pub fn begins_muted(self, begins_muted: bool) -> Self {
        Self { begins_muted, ..self }
    }

    /// Also begins where nothing comes. For recordings of more than one track.
    pub fn begins_without_media(self, begins_without_media: EmptyStart) -> Self {
        Self { begins_without_media, ..self }
    }

    /// Pictures of these codecs, which are copied, begin in their best layer if it comes within 2 s (1 s after a mute), and else
    /// with what came meanwhile.
    pub fn best_layer_of(self, codecs: &[Codec]) -> Self {
        Self { best_layer_of: codecs.into(), ..self }
    }

    /// Takes what arrived at `at`. [`TrackReceiver::drain`] gives what came of it.
    pub fn push(&mut self, event: RoomEvent, at: SourceTime) {
        match event {
            RoomEvent::Opened { stream, publication } => self.open(stream, publication, at),
            RoomEvent::Closed { stream } => self.close(stream, at),
            RoomEvent::Packet { stream: ssrc, seq, rtp, marker, form, payload } => {
                let Some(stream) = self.streams.get_mut(&ssrc) else { return };
                if !payload.is_empty() {
                    stream.key_requests.packet();
                    self.placement.begin(at, &self.published);
                    if stream.form != Some(form) {
                        self.placement.change_format(ssrc, stream, form, at);
                    }
                }
                let packet = Packet {
                    seq,
                    rtp,
                    starts: stream.starts(&payload),
                    ends: marker || !form.codec.is_video(),
                    payload,
                    at,
                };
                stream.reorder.put(packet);
                self.placement.pump(ssrc, stream, at);
            }
            RoomEvent::Report { stream, rtp, ntp } => self.placement.timeline.report(stream, rtp, ntp, at),
            RoomEvent::Published { sid, video, muted } => self.publish(sid, video, muted, at),
            RoomEvent::Muted { sid, muted } => {
                if let Some(video) = self.published.get(&sid).map(|(video, _)| *video) {
                    self.publish(sid.clone(), video, muted, at);
                }
                if let Some(known) = self.placement.of_sid(&sid) {
                    known.publication.muted = muted;
                    known.muted_since = muted.then_some(at);
                }
            }
            RoomEvent::Left { sid } => {
                self.unpublish(&sid, at);
                if let Some(known) = self.placement.of_sid(&sid) {
                    known.left_since.get_or_insert(at);
                }
            }
            RoomEvent::Refused { sid } => self.unpublish(&sid, at),
            RoomEvent::Interrupted => self.close_all(at),
            RoomEvent::Trouble { on } => self.placement.trouble = on,
            RoomEvent::Held { on } => self.placement.hold(on),
            RoomEvent::Speakers { identities } => {
                let at = self.placement.now(at);
                self.placement.out.push_back(TimelineEvent::Speakers { at, identities });
            }
            RoomEvent::Layout { name } => {
                let at = self.placement.now(at);
                self.placement.out.push_back(TimelineEvent::Layout { at, name });
            }
        }
    }

    /// What only time brings: holes that are given up, mutes that are true by now, the watermark.
    pub fn tick(&mut self, at: SourceTime) {
        for (ssrc, stream) in &mut self.streams {
            self.placement.pump(*ssrc, stream, at);
        }
        for id in self.placement.tracks.keys().copied().collect::<Vec<_>>() {
            match self.placement.absence(id, at) {
                Some(Absence::Left) => {
                    for ssrc in self.streams_of(id).collect::<Vec<_>>() {
                        self.close(ssrc, at);
                    }
                    self.placement.leave(id);
                }
                Some(Absence::Silent { muted }) => self.absent(id, muted),
                None => {}
            }
        }
        self.begin_muted(at);
        self.begin_without_media(at);
        self.placement.advance(&self.streams, at);
    }

    fn begin_muted(&mut self, at: SourceTime) {
        if !self.begins_muted || self.origin().is_some() {
            return;
        }
        let is_sound = |sid: &str| self.published.get(sid).is_some_and(|(video, _)| !video);
        let waited = self.placement.tracks.iter().find_map(|(id, known)| {
            let since = known.muted_since.filter(|since| at.saturating_sub(*since) >= MUTED_START)?;
            (is_sound(&known.publication.sid) && known.left_since.is_none()).then_some((*id, since))
        });
        if let Some((id, since)) = waited {
            self.placement.begin(since, &self.published);
            self.placement.join_muted(id);
        }
    }

    fn begin_without_media(&mut self, at: SourceTime) {
        let since = self.empty_since.filter(|since| at.saturating_sub(*since) >= MUTED_START);
        if let (None, Some(since)) = (self.origin(), since) {
            self.placement.begin(since, &self.published);
        }
    }

    /// Nothing more will come: what is whole is placed, and everything is complete.
    pub fn finish(&mut self, at: SourceTime) {
        self.placement.finished = true;
        self.close_all(at);
        self.placement.complete_all();
    }

    /// Events that are ready, per track in order of time. What the iterator does not take stays for the next call.
    pub fn drain(&mut self) -> impl Iterator<Item = TimelineEvent> + '_ {
        std::iter::from_fn(|| self.placement.out.pop_front())
    }

    /// Streams that need a key frame now; each call empties the list.
    pub fn keyframes_wanted(&mut self) -> Vec<Ssrc> {
        std::mem::take(&mut self.placement.keyframes)
    }

    /// What the user is to know; each call empties the list.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.placement.notes)
    }

    /// Arrival time of media time zero: of the first packet. `None` before it.
    pub fn origin(&self) -> Option<SourceTime> {
        self.placement.timeline.origin()
    }

    /// A stream is open: packets are to be expected.
    pub fn is_receiving(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The open streams of a track.
    pub fn streams_of(&self, track: TrackId) -> impl Iterator<Item = Ssrc> + '_ {
        self.streams.iter().filter(move |(_, stream)| stream.track == track).map(|(ssrc, _)| *ssrc)
    }

    /// Whether the server is asked for the frames of this track.
    pub fn ask_for(&mut self, track: TrackId, wanted: bool) {
        self.placement.ask_for(track, wanted);
    }

    /// A track's newest publication.
    pub fn publication_of(&self, track: TrackId) -> Option<&Publication> {
        self.placement.tracks.get(&track).map(|known| &known.publication)
    }

    /// Whether a packet has come of the open streams of this publication.
    pub fn has_come(&self, sid: &str) -> bool {
        let is_of = |stream: &StreamReceiver| {
            self.publication_of(stream.track).is_some_and(|publication| publication.sid == sid)
        };
        self.streams.values().any(|stream| stream.reorder.counts().packets > 0 && is_of(stream))
    }

    /// Numbers of every track that was ever opened.
    pub fn stats(&self) -> Vec<TrackStats> {
        let tracks = self.placement.tracks.iter();
        tracks
            .map(|(id, known)| {
                let open = self.streams.values().filter(|stream| stream.track == *id);
                let counts = open.fold(known.past, |sum, stream| sum + stream.reorder.counts());
                TrackStats {
                    track: *id,
                    sid: known.publication.sid.clone(),
                    codec: known.joined,
                    packets: counts.packets,
                    lost: counts.lost,
                    recovered: counts.recovered,
                    late: counts.late,
                    av_offset_ms: self.av_offset_ms(*id, &known.publication),
                    ..known.stats
                }
            })
            .collect()
    }

    fn av_offset_ms(&self, picture: TrackId, publication: &Publication) -> Option<f64> {
        let beside = match publication.origin {
            TrackSource::Camera => TrackSource::Microphone,
            TrackSource::ScreenShare => TrackSource::ScreenShareAudio,
            _ => return None,
        };
        let sound = self.ids.get(&(publication.identity.clone(), beside))?;
        let lateness = |track| self.streams_of(track).find_map(|ssrc| self.placement.timeline.lateness(ssrc));
        Some((lateness(picture)? - sound.iter().find_map(|track| lateness(*track))?) / 1e6)
    }

    fn publish(&mut self, sid: String, video: bool, muted: bool, at: SourceTime) {
        self.published.insert(sid.clone(), (video, muted));
        self.note_empty(at);
        if self.origin().is_some() {
            let at = self.placement.now(at);
            self.placement.out.push_back(TimelineEvent::Published { sid, video, muted, at });
        }
    }

    fn unpublish(&mut self, sid: &str, at: SourceTime) {
        let is_known = self.published.remove(sid).is_some();
        self.note_empty(at);
        if is_known && self.origin().is_some() {
            let at = self.placement.now(at);
            self.placement.out.push_back(TimelineEvent::Unpublished { sid: sid.to_owned(), at });
        }
    }

    /// What is published, or muted, has changed.
    fn note_empty(&mut self, at: SourceTime) {
        let mut published = self.published.values();
        let is_empty = match self.begins_without_media {
            EmptyStart::Never => false,
            EmptyStart::Muted => published.len() > 0 && published.all(|(_, muted)| *muted),
            EmptyStart::Always => published.len() > 0,
        };
        self.empty_since = is_empty.then(|| self.empty_since.unwrap_or(at));
    }

    fn open(&mut self, ssrc: Ssrc, publication: Publication, at: SourceTime) {
        if let Some(stream) = self.streams.get(&ssrc) {
            if self.publication_of(stream.track).is_some_and(|known| known.sid == publication.sid) {
                return;
            }
            self.close(ssrc, at);
        }
        let track = self.id_for(&publication, at);
        let best = LayerGate::new(&self.best_layer_of, publication.size);
        let muted_since = publication.muted.then_some(at);
        if let Some(known) = self.placement.tracks.get_mut(&track) {
            known.publication = publication;
            known.muted_since = muted_since;
            known.left_since = None;
            known.last_arrival = at;
        }
        self.streams.insert(ssrc, StreamReceiver::new(track, self.placement.options.reorder_wait, best, at));
    }

    /// The same participant and source is the same track, unless both live at once.
    fn id_for(&mut self, publication: &Publication, at: SourceTime) -> TrackId {
        let known = &self.placement.tracks;
        let next = TrackId(known.len() as u32 + 1);
        let ids = self.ids.entry((publication.identity.clone(), publication.origin)).or_default();
        let same = ids.iter().find(|id| known.get(id).is_some_and(|it| it.publication.sid == publication.sid));
        let streams = &self.streams;
        let free = || ids.iter().find(|id| !streams.values().any(|stream| stream.track == **id));
        if let Some(id) = same.or_else(free) {
            return *id;
        }
        ids.push(next);
        self.placement.add(next, publication.clone(), at);
        next
    }

    fn close_all(&mut self, at: SourceTime) {
        for ssrc in self.streams.keys().copied().collect::<Vec<_>>() {
            self.close(ssrc, at);
        }
    }

    fn close(&mut self, ssrc: Ssrc, at: SourceTime) {
        let Some(mut stream) = self.streams.remove(&ssrc) else { return };
        let track = stream.track;
        self.placement.close(ssrc, &mut stream, at);
        let still_sent = self.streams.values().any(|other| other.track == track);
        let Some(known) = self.placement.tracks.get(&track) else { return };
        if known.left_since.is_some() {
            self.placement.leave(track);
        } else if !still_sent && !self.placement.finished {
            let muted = known.publication.muted;
            self.absent(track, muted);
        }
    }

    fn absent(&mut self, id: TrackId, muted: bool) {
        for stream in self.streams.values_mut().filter(|stream| stream.track == id) {
            stream.needs_key_after_pause();
        }
        self.placement.absent(id, muted);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
#[cfg(test)]
#[path = "standstill_tests.rs"]
mod standstill_tests;
