//! A room of people with clips, as the packets, reports and signals that would arrive of it, in virtual time: as fast as they
//! are asked for. One of them leaves every five minutes and comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use spillway_media::receive::event::{PayloadFormat, Publication, RoomEvent, SourceTime};
use spillway_media::track::{Codec, TrackSource};
use spillway_media::units::{RtpTime, SeqNo, Ssrc};
use spillway_plan::StereoSide;
use spillway_tests::assets::clip;
use spillway_tests::clip::{Clip, nal_units};

/// A receiver is told of time this often.
pub const STEP: Duration = Duration::from_millis(40);
const REPORT_EVERY: Duration = Duration::from_secs(3);
/// The last of the people is away for so long, each …
const AWAY: Duration = Duration::from_secs(5);
/// … of these.
const LEAVES_EVERY: Duration = Duration::from_secs(300);
const WAY: Duration = Duration::from_millis(20);
/// Nanoseconds since 1970 at the beginning, by everybody's clock.
const NTP: i64 = 1_700_000_000_000_000_000;
/// Bytes of a packet's payload.
const MTU: usize = 1200;

/// What arrives, step by step.
pub struct ReplayedRoom {
    now: SourceTime,
    tracks: Vec<ReplayedTrack>,
    /// Streams so far.
    streams: u32,
}

struct ReplayedTrack {
    identity: String,
    clip: Arc<Clip>,
    ssrc: Ssrc,
    /// Counted over all rounds of the clip.
    next: u64,
    seq: SeqNo,
    /// Nothing but a key frame may come next.
    needs_key: bool,
    leaves: bool,
    is_there: bool,
    reported: SourceTime,
}

impl ReplayedRoom {
    /// p0, p1, … with a camera of 180p and a microphone each.
    pub fn new(people: usize) -> Result<Self> {
        let mut tracks = vec![];
        for index in 0..people {
            for ending in ["-180.h264", ".opus"] {
                let identity = format!("p{index}");
                tracks.push(ReplayedTrack {
                    clip: clip(&format!("{identity}{ending}"))?,
                    identity,
                    ssrc: Ssrc::new(0),
                    next: 0,
                    seq: SeqNo::new(1 << 16),
                    needs_key: true,
                    leaves: index + 1 == people,
                    is_there: false,
                    reported: SourceTime::ZERO,
                });
            }
        }
        Ok(Self { now: SourceTime::ZERO, tracks, streams: 0 })
    }

    /// What arrives until the next step, in order, and when that is.
    pub fn step(&mut self) -> (Vec<(SourceTime, RoomEvent)>, SourceTime) {
        let (from, to) = (self.now, self.now + STEP);
        let mut events = vec![];
        for track in &mut self.tracks {
            let since = Duration::from_nanos((from.as_nanos() % LEAVES_EVERY.as_nanos()) as u64);
            let is_away = track.leaves && from >= LEAVES_EVERY && since < AWAY;
            if is_away == track.is_there {
                events.extend(track.comes_or_goes(&mut self.streams).into_iter().map(|event| (from, event)));
            }
            track.send(to, &mut events);
            if track.is_there && from >= track.reported + REPORT_EVERY {
                track.reported = from;
                events.push((from, track.report(from)));
            }
        }
        self.now = to;
        events.sort_by_key(|(at, _)| *at);
        (events, to)
    }
}

impl ReplayedTrack {
    fn codec(&self) -> Codec {
        if self.clip.codec.is_video() { Codec::H264 } else { Codec::Opus }
    }

    /// With a new publication in a new stream each time.
    fn comes_or_goes(&mut self, streams: &mut u32) -> Vec<RoomEvent> {
        let video = self.clip.codec.is_video();
        let sid = |ssrc: Ssrc| format!("TR_{ssrc}");
        self.is_there = !self.is_there;
        if !self.is_there {
            return vec![RoomEvent::Closed { stream: self.ssrc }, RoomEvent::Left { sid: sid(self.ssrc) }];
        }
        *streams += 1;
        (self.ssrc, self.needs_key) = (Ssrc::new(*streams), true);
        let publication = Publication {
            sid: sid(self.ssrc),
            identity: self.identity.clone(),
            agent: false,
            side: StereoSide::Both,
            origin: if video { TrackSource::Camera } else { TrackSource::Microphone },
            size: self.clip.size,
            muted: false,
        };
        vec![
            RoomEvent::Published { sid: sid(self.ssrc), video, muted: false },
            RoomEvent::Opened { stream: self.ssrc, publication },
        ]
    }

    /// Frames that arrive before `to`.
    fn send(&mut self, to: SourceTime, events: &mut Vec<(SourceTime, RoomEvent)>) {
        loop {
            let frames = &self.clip.frames;
            let (round, index) = (self.next / frames.len() as u64, (self.next % frames.len() as u64) as usize);
            let frame = &frames[index];
            let at = self.clip.length * round as u32 + frame.at;
            let arrives = at + WAY + Duration::from_millis(self.next * 7919 % 9);
            if arrives >= to {
                return;
            }
            self.next += 1;
            self.needs_key &= !frame.key;
            if !self.is_there || self.needs_key {
                continue;
            }
            let codec = self.codec();
            let payloads = payloads(codec, &frame.data);
            let (clock_rate, channels) = if codec.is_video() { (90_000, 0) } else { (48_000, 2) };
            let form = PayloadFormat { codec, clock_rate, channels };
            let last = payloads.len().saturating_sub(1);
            for (number, payload) in payloads.into_iter().enumerate() {
                let (stream, rtp, marker) = (self.ssrc, rtp(at, clock_rate), codec.is_video() && number == last);
                events.push((arrives, RoomEvent::Packet { stream, seq: self.seq, rtp, marker, form, payload }));
                self.seq = self.seq.next();
            }
        }
    }

    fn report(&self, at: SourceTime) -> RoomEvent {
        let clock_rate: u32 = if self.codec().is_video() { 90_000 } else { 48_000 };
        let ticks = at.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
        RoomEvent::Report { stream: self.ssrc, rtp: ticks as u32, ntp: NTP + at.as_nanos() as i64 }
    }
}

/// Times begin at 2³², where the low half is 0.
fn rtp(at: SourceTime, clock_rate: u32) -> RtpTime {
    RtpTime::new((1 << 32) + (at.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u64)
}

/// A frame in packets: NAL units alone or in fragments (RFC 6184 5.6, 5.8), a packet of Opus as it is.
fn payloads(codec: Codec, frame: &[u8]) -> Vec<Bytes> {
    const DELIMITER: u8 = 9;
    const FRAGMENT: u8 = 28;
    if !codec.is_video() {
        return vec![Bytes::copy_from_slice(frame)];
    }
    let mut all = vec![];
    for nal in nal_units(frame) {
        let Some((header, data)) = nal.split_first().filter(|(header, _)| **header & 0x1f != DELIMITER) else {
            continue;
        };
        if nal.len() <= MTU {
            all.push(Bytes::copy_from_slice(nal));
            continue;
        }
        let count = data.chunks(MTU).len();
        for (number, part) in data.chunks(MTU).enumerate() {
            let (begins, ends) = (u8::from(number == 0) << 7, u8::from(number + 1 == count) << 6);
            let head = [header & 0xe0 | FRAGMENT, begins | ends | header & 0x1f];
            all.push(Bytes::from([&head[..], part].concat()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_unit_is_sent_in_fragments_and_a_delimiter_not_at_all() {
        let idr = [&[0x65u8][..], &[7; 3000][..]].concat();
        let start: &[u8] = &[0, 0, 0, 1];
        let frame = [start, &[9, 16], start, &[0x67, 1, 2], start, &idr[..]].concat();
        let sent = payloads(Codec::H264, &frame);
        let heads: Vec<(usize, &[u8])> = sent.iter().map(|payload| (payload.len(), &payload[..2])).collect();
        assert_eq!(
            heads,
            [(3, &[0x67, 1][..]), (1202, &[0x7c, 0x85][..]), (1202, &[0x7c, 0x05][..]), (602, &[0x7c, 0x45][..])]
        );
    }
}
