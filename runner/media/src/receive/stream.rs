//! One RTP stream on its way to whole frames that a decoder can start with: jitter buffer and depacketiser behind one
//! interface. Drops what needs a key frame that is missing, and the server's own blank frames. Pure.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::depacketize::{self, UnitKind};
use super::event::{PayloadFormat, SourceTime};
use super::key_requests::KeyRequests;
use super::layer_gate::LayerGate;
use super::reorder::{Packet, Reorder, ReorderOutput};
use crate::track::TrackId;
use crate::units::RtpTime;

/// A frame that may be recorded, not yet placed in time.
pub(super) struct WholeFrame {
    pub(super) rtp: RtpTime,
    /// Arrival of its earliest packet.
    pub(super) at: SourceTime,
    /// Nothing is complete beyond this moment before the frame has its place: its arrival, or that of the first frame of a lower
    /// layer that it stands for.
    pub(super) awaited_since: SourceTime,
    pub(super) key: bool,
    pub(super) size: Option<(u32, u32)>,
    pub(super) data: Bytes,
}

pub(super) enum StreamOutput {
    Unit(WholeFrame),
    Lost(u64),
    /// A frame that needs a key frame first, or that does not make sense.
    Undecodable,
    /// A picture that is not recorded; asking for a key frame would bring another one.
    TooLarge((u32, u32)),
}

/// Units without a picture are kept for the next one with a picture; of more the newest.
const MAX_PREFIX: usize = 64 << 10;

pub(super) struct StreamReceiver {
    pub(super) track: TrackId,
    pub(super) form: Option<PayloadFormat>,
    pub(super) reorder: Reorder,
    pub(super) held: VecDeque<WholeFrame>,
    /// Nothing but a key frame may come next.
    pub(super) key_needed_since: Option<SourceTime>,
    /// It is needed because the chain of frames broke.
    pub(super) torn: bool,
    pub(super) had_key: bool,
    /// Its last key frame was too large.
    pub(super) too_large: bool,
    pub(super) key_requests: KeyRequests,
    prefix: BytesMut,
    /// Of a picture that is copied: where a better layer is worth waiting for.
    best: Option<LayerGate>,
    /// The wait of now.
    gate: Option<LayerGate>,
    /// Frames of a lower layer: dropped when a better one comes, else recorded.
    lower: VecDeque<WholeFrame>,
}

impl StreamReceiver {
    pub(super) fn new(
        track: TrackId,
        reorder_wait: std::time::Duration,
        best: Option<LayerGate>,
        at: SourceTime,
    ) -> Self {
        Self {
            track,
            form: None,
            reorder: Reorder::new(reorder_wait),
            held: VecDeque::new(),
            key_needed_since: Some(at),
            torn: false,
            had_key: false,
            too_large: false,
            key_requests: KeyRequests::default(),
            prefix: BytesMut::new(),
            gate: best.clone(),
            best,
            lower: VecDeque::new(),
        }
    }

    /// The earliest frame that has no place yet.
    pub(super) fn first_unplaced(&self) -> Option<&WholeFrame> {
        self.held.front().or(self.lower.front())
    }

    /// The first packet, or another codec: it begins anew.
    pub(super) fn change_form(&mut self, form: PayloadFormat, at: SourceTime) {
        self.form = Some(form);
        self.gate = self.best.clone();
        self.needs_key(at);
    }

    pub(super) fn starts(&self, payload: &[u8]) -> bool {
        self.form.is_some_and(|form| depacketize::starts_frame(form.codec, payload))
    }

    pub(super) fn sends_video(&self) -> bool {
        self.form.is_some_and(|form| form.codec.is_video())
    }

    pub(super) fn needs_key(&mut self, at: SourceTime) {
        self.key_needed_since.get_or_insert(at);
        self.prefix.clear();
    }

    /// A decoder may have been thrown away meanwhile; the server begins again with a key frame.
    pub(super) fn needs_key_after_pause(&mut self) {
        if self.sends_video() {
            // Far in the future of "since": the wait begins with the first frame that comes.
            self.key_needed_since = Some(SourceTime::MAX);
            self.key_requests.restart();
            if self.lower.is_empty() {
                self.gate = self.best.as_ref().map(LayerGate::after_pause);
            }
        }
    }

    pub(super) fn next(&mut self, now: SourceTime) -> Option<StreamOutput> {
        self.gate.take_if(|gate| gate.is_over(now));
        loop {
            if self.gate.is_none()
                && let Some(frame) = self.lower.pop_front()
            {
                return Some(StreamOutput::Unit(frame));
            }
            match self.reorder.next(now) {
                ReorderOutput::WaitUntil(_) | ReorderOutput::Empty => return None,
                step => {
                    if let Some(made) = self.step(step, now) {
                        return Some(made);
                    }
                }
            }
        }
    }

    pub(super) fn flush(&mut self) -> Vec<StreamOutput> {
        self.gate = None;
        let steps = self.reorder.flush();
        let lower: Vec<StreamOutput> = self.lower.drain(..).map(StreamOutput::Unit).collect();
        lower.into_iter().chain(steps.into_iter().filter_map(|step| self.step(step, SourceTime::MAX))).collect()
    }

    /// `None`: nothing to say about it.
    fn step(&mut self, step: ReorderOutput, now: SourceTime) -> Option<StreamOutput> {
        match step {
            ReorderOutput::Frame(packets) => self.make(&packets, now),
            ReorderOutput::Lost(packets) => Some(self.lost(packets, now)),
            ReorderOutput::WaitUntil(_) | ReorderOutput::Empty => None,
        }
    }

    fn lost(&mut self, packets: u64, now: SourceTime) -> StreamOutput {
        if self.sends_video() {
            self.needs_key(now);
            self.torn = true;
        }
        StreamOutput::Lost(packets)
    }

    /// `None`: nothing to say about it (blank frames, parameter sets).
    fn make(&mut self, packets: &[Packet], now: SourceTime) -> Option<StreamOutput> {
        let form = self.form?;
        let first = packets.first()?;
        let Ok(unit) = depacketize::assemble(form.codec, packets) else {
            self.needs_key(now);
            self.torn = true;
            return Some(StreamOutput::Undecodable);
        };
        let (key, size) = match unit.kind {
            UnitKind::Blank => {
                // The server's own frames; after a blank key frame nothing decodes until a real one.
                if form.codec.is_video() {
                    self.key_needed_since = Some(SourceTime::MAX);
                }
                return None;
            }
            UnitKind::Prefix => {
                if self.prefix.len() + unit.data.len() > MAX_PREFIX {
                    self.prefix.clear();
                }
                if unit.data.len() <= MAX_PREFIX {
                    self.prefix.extend_from_slice(&unit.data);
                }
                return None;
            }
            UnitKind::TooLarge { size } => {
                self.too_large = true;
                self.needs_key(now);
                return Some(StreamOutput::TooLarge(size));
            }
            UnitKind::Key { size } => (true, size),
            UnitKind::Delta => (false, None),
        };
        if key {
            self.key_needed_since = None;
            self.key_requests.restart();
            self.torn = false;
            self.too_large = false;
        } else if let Some(since) = self.key_needed_since {
            self.key_needed_since = Some(since.min(now));
            return Some(StreamOutput::Undecodable);
        }
        self.had_key = true;
        let data = if self.prefix.is_empty() {
            unit.data
        } else {
            self.prefix.extend_from_slice(&unit.data);
            self.prefix.split().freeze()
        };
        let at = packets.iter().map(|packet| packet.at).min().unwrap_or(first.at);
        let mut frame = WholeFrame { rtp: first.rtp, at, awaited_since: at, key, size, data };
        if let Some(gate) = &mut self.gate {
            if !gate.passes(form.codec, key, size, now) {
                self.lower.push_back(frame);
                return None;
            }
            self.gate = None;
            frame.awaited_since = self.lower.front().map_or(at, |first| first.at.min(at));
            self.lower.clear();
        }
        Some(StreamOutput::Unit(frame))
    }
}
