//! What of a growing file is sent when, and when its object can be completed. Pure: no store, no disk, no clock.
//!
//! The order is such that whatever is completed at any moment is a recording: parts hold sealed bytes only, an object is
//! made of whole parts without a gap and at most one shorter one behind them, and the head that is rewritten at the end
//! goes last, when everything it points to is there (`spec/storage.md` 5, 6).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use spillway_storage::{Part, PartRules, PartTag};

use super::plan::Cutting;

/// A part that closes by itself this much after a checkpoint is due makes it needless.
const STRETCH: f64 = 1.15;
/// Below it a file may hold no media.
const FIRST_BYTES: u64 = 32 << 10;
/// Over which the speed of the recording is measured.
const PACE_WINDOW: Duration = Duration::from_secs(30);
const PACE_LEAST: Duration = Duration::from_secs(2);
/// Of one part; older ones have arrived by now or never will.
const MOST_LOST: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// How old media may become before it is sent even though its part is not full.
    pub checkpoint: Duration,
    pub at_once: usize,
    /// Bytes that may be in flight, and so in memory; one part is always allowed.
    pub bytes_at_once: u64,
}

/// Send these bytes under this number. Never two of one number at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub number: u32,
    pub generation: u32,
    pub range: Range<u64>,
}

/// One part as another process needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartState {
    pub start: u64,
    /// Where it is cut; open at the end of a file that grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Part>,
    /// Sent, but the store has not answered: these may have arrived, or may yet. The newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Pending>,
    /// How often it was sent.
    #[serde(default)]
    pub sends: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub generation: u32,
    pub bytes: u64,
    /// What the store answers if it gets the bytes, where that can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<PartTag>,
}

#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    /// Where it is cut; the last one may be open.
    end: Option<u64>,
    sends: u32,
    sending: Option<Sending>,
    acked: Option<Acked>,
    /// Sendings whose answer was lost: they may still arrive at the store, after newer ones.
    lost: Vec<Pending>,
    punched: bool,
    /// Rises when its bytes are written again.
    version: u32,
    /// Since when there are sealed bytes nobody else has.
    waiting_since: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Sending {
    generation: u32,
    to: u64,
    version: u32,
    waited_since: Option<Instant>,
    tag: Option<PartTag>,
}

#[derive(Clone, Debug)]
struct Acked {
    part: Part,
    to: u64,
    version: u32,
}

impl Sending {
    fn pending(&self, start: u64) -> Pending {
        Pending { generation: self.generation, bytes: self.to - start, tag: self.tag.clone() }
    }
}

impl Piece {
    fn new(start: u64) -> Self {
        Self {
            start,
            end: None,
            sends: 0,
            sending: None,
            acked: None,
            lost: vec![],
            punched: false,
            version: 0,
            waiting_since: None,
        }
    }

    fn is_done(&self) -> bool {
        self.acked.as_ref().is_some_and(|acked| Some(acked.to) == self.end && acked.version == self.version)
    }

    /// Bytes that are in the store or on their way.
    fn taken_to(&self) -> u64 {
        let acked = self.acked.as_ref().map_or(self.start, |acked| acked.to);
        self.sending.as_ref().map_or(acked, |sending| sending.to)
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    cutting: Cutting,
    rules: PartRules,
    knobs: Knobs,
    /// Part `n` is `pieces[n - 1]`. Never empty.
    pieces: Vec<Piece>,
    /// All before this one are done.
    first_open: usize,
    sealed_to: u64,
    closed: bool,
    /// Sendings whose answer was lost, each of which may come in late, once.
    strays: usize,
    pace: VecDeque<(Instant, u64)>,
}

impl Machine {
    pub fn new(cutting: Cutting, rules: PartRules, knobs: Knobs) -> Self {
        let pieces = vec![Piece::new(0)];
        Self {
            cutting,
            rules,
            knobs,
            pieces,
            first_open: 0,
            sealed_to: 0,
            closed: false,
            strays: 0,
            pace: VecDeque::new(),
        }
    }

    /// Goes on where another process stopped. What had no answer is sent again.
    pub fn resume(cutting: Cutting, rules: PartRules, knobs: Knobs, parts: &[PartState]) -> Self {
        let mut machine = Self::new(cutting, rules, knobs);
        let piece = |state: &PartState| {
            let settled = state.acked.clone().filter(|_| state.pending.is_empty());
            Piece {
                end: state.end,
                sends: state.sends,
                acked: settled.map(|part| Acked { to: state.start + part.tag.bytes, part, version: 0 }),
                lost: state.pending.clone(),
                ..Piece::new(state.start)
            }
        };
        machine.strays = parts.iter().map(|part| part.pending.len()).sum();
        if !parts.is_empty() {
            machine.pieces = parts.iter().map(piece).collect();
            machine.sealed_to = machine.pieces.iter().map(Piece::taken_to).max().unwrap_or(0);
        }
        machine
    }

    /// Bytes before `sealed_to` never change again, but for the head.
    pub fn wrote(&mut self, sealed_to: u64, now: Instant) {
        if self.closed || sealed_to <= self.sealed_to {
            return;
        }
        self.sealed_to = sealed_to;
        self.lay(now);
        self.pace.push_back((now, sealed_to));
        while self.pace.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > PACE_WINDOW) {
            self.pace.pop_front();
        }
    }

    /// Nothing more is written. `rewritten`: the head was, so the first part is sent once more, as the last.
    pub fn close(&mut self, total: u64, rewritten: bool, now: Instant) {
        self.sealed_to = self.sealed_to.max(total);
        self.lay(now);
        self.closed = true;
        let last = self.pieces.len() - 1;
        if self.pieces[last].end.is_none() {
            if last > 0 && self.pieces[last].start == self.sealed_to {
                self.pieces.pop();
            } else {
                self.pieces[last].end = Some(self.sealed_to);
            }
        }
        if rewritten {
            self.pieces[0].version += 1;
        }
        self.first_open = 0;
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Cuts what is sealed into parts.
    fn lay(&mut self, now: Instant) {
        loop {
            let number = self.pieces.len() as u32;
            // The last part the store allows takes what it can.
            let size = if number >= self.rules.most { self.rules.largest } else { self.cutting.size(number) };
            let Some(last) = self.pieces.last_mut() else { return };
            if last.end.is_none() {
                if self.sealed_to > last.taken_to() {
                    last.waiting_since.get_or_insert(now);
                }
                if self.sealed_to < last.start + size {
                    return;
                }
                last.end = Some(last.start + size);
            }
            match last.end {
                Some(end) if end < self.sealed_to || !self.closed => {
                    if number >= self.rules.most {
                        return;
                    }
                    self.pieces.push(Piece::new(end));
                }
                _ => return,
            }
        }
    }

    /// The store's number of parts is nearly used up: the recording must end.
    pub fn is_exhausted(&self) -> bool {
        self.pieces.len() as u32 + 1 >= self.rules.most
    }

    /// The next thing to send, if there is one and it may be sent now.
    pub fn next(&mut self, now: Instant) -> Option<Put> {
        self.lay(now);
        while self.pieces.get(self.first_open).is_some_and(Piece::is_done) {
            self.first_open += 1;
        }
        let flying: Vec<u64> = self
            .pieces
            .iter()
            .skip(if self.closed { 0 } else { self.first_open })
            .filter_map(|piece| Some(piece.sending.as_ref()?.to - piece.start))
            .collect();
        if flying.len() >= self.knobs.at_once {
            return None;
        }
        let (index, to) =
            (self.first_open..self.pieces.len()).find_map(|index| Some((index, self.due(index, now)?)))?;
        let flying_bytes: u64 = flying.iter().sum();
        let bytes = to - self.pieces[index].start;
        if !flying.is_empty() && flying_bytes + bytes > self.knobs.bytes_at_once {
            return None;
        }
        let flows = self.cutting.flows(index as u32 + 1);
        let piece = &mut self.pieces[index];
        if flows && piece.end.is_none() {
            piece.end = Some(to);
        }
        let generation = piece.sends;
        piece.sends += 1;
        let waited_since = piece.waiting_since.take();
        piece.sending = Some(Sending { generation, to, version: piece.version, waited_since, tag: None });
        let range = piece.start..to;
        self.lay(now);
        Some(Put { number: index as u32 + 1, generation, range })
    }

    /// Up to where a piece is to be sent now.
    fn due(&self, index: usize, now: Instant) -> Option<u64> {
        let piece = &self.pieces[index];
        if piece.sending.is_some() || piece.is_done() {
            return None;
        }
        match piece.end {
            // The head points to everything else.
            Some(_) if self.closed && index == 0 && self.pieces[1..].iter().any(|piece| !piece.is_done()) => None,
            Some(end) => Some(end),
            None => self.checkpoint_due(index, now).then_some(self.sealed_to),
        }
    }

    /// Whether the open end of the file is to be sent although it will be sent again.
    fn checkpoint_due(&self, index: usize, now: Instant) -> bool {
        let piece = &self.pieces[index];
        let Some(since) = piece.waiting_since else { return false };
        let flows = self.cutting.flows(index as u32 + 1);
        let behind =
            self.pieces[self.first_open..index].iter().any(|piece| piece.sending.is_none() && !piece.is_done());
        // Behind a gap it would be of no use.
        if behind || self.sealed_to <= piece.taken_to() {
            return false;
        }
        let every = self.knobs.checkpoint.as_secs_f64();
        let age = now.saturating_duration_since(since).as_secs_f64();
        if age >= every * STRETCH {
            return true;
        }
        // A recording is in the store from its first seconds; a container's head alone is none yet.
        if piece.taken_to() < FIRST_BYTES {
            return age >= every / 5.0;
        }
        let number = index as u32 + 1;
        let Some(pace) = self.bytes_per_second().filter(|_| !flows) else { return age >= every };
        let left = (piece.start + self.cutting.size(number)).saturating_sub(self.sealed_to) as f64 / pace;
        // What is sent before the part is full is sent again with it, so checkpoints are counted back from there: the
        // first one is the shortest.
        let whole = age + left;
        if whole <= every * STRETCH {
            return false;
        }
        let gap = if whole <= 2.0 * every * STRETCH { every * STRETCH } else { every };
        age >= every / 10.0 && age >= whole % gap
    }

    fn bytes_per_second(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.pace.front()?, self.pace.back()?);
        let span = last.saturating_duration_since(*first);
        (span >= PACE_LEAST && to > from).then(|| (to - from) as f64 / span.as_secs_f64())
    }

    /// The store will answer this, if it gets the bytes.
    pub fn expects(&mut self, number: u32, generation: u32, tag: PartTag) {
        if let Some(sending) = self.sent(number, generation).and_then(|piece| piece.sending.as_mut()) {
            sending.tag = Some(tag);
        }
    }

    /// The store has it. An answer to a sending that was given up means nothing.
    pub fn acked(&mut self, number: u32, generation: u32, tag: PartTag) {
        let Some(piece) = self.sent(number, generation) else { return };
        if let Some(sending) = piece.sending.take() {
            let part = Part { number, generation, tag };
            piece.acked = Some(Acked { part, to: sending.to, version: sending.version });
        }
    }

    /// It was not stored, or nobody knows (`may_arrive`); it becomes due again.
    pub fn failed(&mut self, number: u32, generation: u32, may_arrive: bool) {
        let Some(piece) = self.sent(number, generation) else { return };
        let Some(sending) = piece.sending.take() else { return };
        if may_arrive {
            piece.lost.push(sending.pending(piece.start));
            if piece.lost.len() > MOST_LOST {
                piece.lost.remove(0);
            }
        }
        piece.waiting_since = sending.waited_since;
        self.strays += usize::from(may_arrive);
    }

    fn sent(&mut self, number: u32, generation: u32) -> Option<&mut Piece> {
        let piece = self.pieces.get_mut((number as usize).checked_sub(1)?)?;
        piece.sending.as_ref().is_some_and(|sending| sending.generation == generation).then_some(piece)
    }

    /// All parts, when the object can be completed: everything is in the store as it is in the file.
    pub fn finished(&self) -> Option<Vec<Part>> {
        let whole = self.closed && self.sealed_to > 0 && self.pieces.iter().all(Piece::is_done);
        whole.then(|| self.pieces.iter().filter_map(|piece| Some(piece.acked.as_ref()?.part.clone())).collect())
    }

    /// Bytes of the object as far as they are known.
    pub fn total(&self) -> u64 {
        self.sealed_to
    }

    pub fn is_empty(&self) -> bool {
        self.sealed_to == 0
    }

    /// The store does not have what it acknowledged: what may have been overwritten by a late arrival is sent again, as
    /// often as one may come. False: there is no such part.
    pub fn doubt(&mut self) -> bool {
        let Some(left) = self.strays.checked_sub(1) else { return false };
        self.strays = left;
        let mut any = false;
        for piece in self.pieces.iter_mut().filter(|piece| !piece.lost.is_empty() && !piece.punched) {
            piece.acked = None;
            any = true;
        }
        self.first_open = 0;
        any
    }

    /// What an object could be made of now: whole parts from the first on, and at most one shorter one; and its bytes.
    pub fn prefix(&self) -> (Vec<Part>, u64) {
        let (mut parts, mut bytes) = (vec![], 0);
        for piece in &self.pieces {
            let Some(acked) = &piece.acked else { break };
            parts.push(acked.part.clone());
            bytes = acked.to;
            if Some(acked.to) != piece.end {
                break;
            }
        }
        (parts, bytes)
    }

    /// Bytes that survive the death of this process.
    pub fn safe_to(&self) -> u64 {
        let done = self.pieces[..self.first_open.min(self.pieces.len())].last().map_or(0, Piece::taken_to);
        let mut safe = done;
        for piece in &self.pieces[self.first_open.min(self.pieces.len())..] {
            let Some(acked) = &piece.acked else { break };
            safe = acked.to;
            if Some(acked.to) != piece.end {
                break;
            }
        }
        safe
    }

    /// Ranges whose bytes are in the store for good and were not named before. Not the first part, which is sent again.
    pub fn take_stored(&mut self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = vec![];
        for piece in self.pieces.iter_mut().skip(1) {
            if let (Some(end), true) = (piece.end, piece.is_done() && piece.lost.is_empty() && !piece.punched) {
                piece.punched = true;
                match ranges.last_mut() {
                    Some(before) if before.end == piece.start => before.end = end,
                    _ => ranges.push(piece.start..end),
                }
            }
        }
        ranges
    }

    /// For another process.
    pub fn state(&self) -> Vec<PartState> {
        let state = |piece: &Piece| PartState {
            start: piece.start,
            end: piece.end,
            acked: piece.acked.as_ref().map(|acked| acked.part.clone()),
            pending: {
                let sending = piece.sending.as_ref().map(|sending| sending.pending(piece.start));
                piece.lost.iter().cloned().chain(sending).collect()
            },
            sends: piece.sends,
        };
        self.pieces.iter().map(state).collect()
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
