//! What of a growing file is sent when, and when its object can be completed. Pure: no store, no disk, no clock.
//!
//! The order is such that whatever is completed at any moment is a recording: parts hold sealed bytes only, an object is
//! made of whole parts without a gap and at most one shorter one behind them, and the head that is rewritten at the end
//! goes last, when everything it points to is there.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use spillway_storage::{Part, PartRules, PartTag};

use super::parts::{AckedPart, InFlightPart, PartRequest, PartSlot, PartState};
use super::plan::PartLayout;

/// A part that closes by itself this much after a checkpoint is due makes it needless.
const STRETCH: f64 = 1.15;
/// Below it a file may hold no media.
const FIRST_BYTES: u64 = 32 << 10;
/// Over which the speed of the recording is measured.
const PACE_WINDOW: Duration = Duration::from_secs(30);
const MIN_PACE_SPAN: Duration = Duration::from_secs(2);
/// Of one part; older ones have arrived by now or never will.
const MAX_LOST: usize = 8;

/// When and how much is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How old media may become before it is sent even though its part is not full.
    pub checkpoint: Duration,
    /// Requests in flight.
    pub at_once: usize,
    /// Bytes that may be in flight, and so in memory; one part is always allowed.
    pub bytes_at_once: u64,
}

/// State of one object: parts that are cut, in flight and stored.
#[derive(Clone, Debug)]
pub struct UploadMachine {
    layout: PartLayout,
    rules: PartRules,
    tuning: Tuning,
    /// Part `n` is `slots[n - 1]`. Never empty.
    slots: Vec<PartSlot>,
    /// All before this one are done.
    first_open: usize,
    sealed_to: u64,
    closed: bool,
    /// Requests whose answer was lost, each of which may arrive late, once.
    late_writes: usize,
    pace: VecDeque<(Instant, u64)>,
}

impl UploadMachine {
    /// For an object of which nothing is written yet.
    pub fn new(layout: PartLayout, rules: PartRules, tuning: Tuning) -> Self {
        let slots = vec![PartSlot::new(0)];
        Self {
            layout,
            rules,
            tuning,
            slots,
            first_open: 0,
            sealed_to: 0,
            closed: false,
            late_writes: 0,
            pace: VecDeque::new(),
        }
    }

    /// Goes on where another process stopped. What had no answer is sent again.
    pub fn resume(layout: PartLayout, rules: PartRules, tuning: Tuning, parts: &[PartState]) -> Self {
        let mut machine = Self::new(layout, rules, tuning);
        let slot = |state: &PartState| {
            let settled = state.acked.clone().filter(|_| state.pending.is_empty());
            PartSlot {
                end: state.end,
                sends: state.sends,
                acked: settled.map(|part| AckedPart { to: state.start + part.tag.bytes, part, version: 0 }),
                lost: state.pending.clone(),
                ..PartSlot::new(state.start)
            }
        };
        machine.late_writes = parts.iter().map(|part| part.pending.len()).sum();
        if !parts.is_empty() {
            machine.slots = parts.iter().map(slot).collect();
            machine.sealed_to = machine.slots.iter().map(PartSlot::taken_to).max().unwrap_or(0);
        }
        machine
    }

    /// Bytes before `sealed_to` never change again, but for the head.
    pub fn wrote(&mut self, sealed_to: u64, now: Instant) {
        if self.closed || sealed_to <= self.sealed_to {
            return;
        }
        self.sealed_to = sealed_to;
        self.cut(now);
        self.pace.push_back((now, sealed_to));
        while self.pace.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > PACE_WINDOW) {
            self.pace.pop_front();
        }
    }

    /// Nothing more is written. `rewritten`: the head was, so the first part is sent once more, as the last.
    pub fn close(&mut self, total: u64, rewritten: bool, now: Instant) {
        self.sealed_to = self.sealed_to.max(total);
        self.cut(now);
        self.closed = true;
        let last = self.slots.len() - 1;
        if self.slots[last].end.is_none() {
            if last > 0 && self.slots[last].start == self.sealed_to {
                self.slots.pop();
            } else {
                self.slots[last].end = Some(self.sealed_to);
            }
        }
        if rewritten {
            self.slots[0].version += 1;
        }
        self.first_open = 0;
    }

    /// [`UploadMachine::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Cuts what is sealed into parts.
    fn cut(&mut self, now: Instant) {
        loop {
            let number = self.slots.len() as u32;
            // The last part the store allows takes what it can.
            let size =
                if number >= self.rules.max_parts { self.rules.max_part_bytes } else { self.layout.size(number) };
            let Some(last) = self.slots.last_mut() else { return };
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
                    if number >= self.rules.max_parts {
                        return;
                    }
                    self.slots.push(PartSlot::new(end));
                }
                _ => return,
            }
        }
    }

    /// The store's number of parts is nearly used up: the recording must end.
    pub fn is_exhausted(&self) -> bool {
        self.slots.len() as u32 + 1 >= self.rules.max_parts
    }

    /// The next thing to send, if there is one and it may be sent now.
    pub fn next(&mut self, now: Instant) -> Option<PartRequest> {
        self.cut(now);
        while self.slots.get(self.first_open).is_some_and(PartSlot::is_done) {
            self.first_open += 1;
        }
        let flying: Vec<u64> = self
            .slots
            .iter()
            .skip(if self.closed { 0 } else { self.first_open })
            .filter_map(|slot| Some(slot.in_flight.as_ref()?.to - slot.start))
            .collect();
        if flying.len() >= self.tuning.at_once {
            return None;
        }
        let (index, to) = (self.first_open..self.slots.len()).find_map(|index| Some((index, self.due(index, now)?)))?;
        let flying_bytes: u64 = flying.iter().sum();
        let bytes = to - self.slots[index].start;
        if !flying.is_empty() && flying_bytes + bytes > self.tuning.bytes_at_once {
            return None;
        }
        let flows = self.layout.flows(index as u32 + 1);
        let slot = &mut self.slots[index];
        if flows && slot.end.is_none() {
            slot.end = Some(to);
        }
        let generation = slot.sends;
        slot.sends += 1;
        let waited_since = slot.waiting_since.take();
        slot.in_flight = Some(InFlightPart { generation, to, version: slot.version, waited_since, tag: None });
        let range = slot.start..to;
        self.cut(now);
        Some(PartRequest { number: index as u32 + 1, generation, range })
    }

    /// Up to which byte the part is to be sent now; `None`: it is not.
    fn due(&self, index: usize, now: Instant) -> Option<u64> {
        let slot = &self.slots[index];
        if slot.in_flight.is_some() || slot.is_done() {
            return None;
        }
        match slot.end {
            // The head points to everything else.
            Some(_) if self.closed && index == 0 && self.slots[1..].iter().any(|slot| !slot.is_done()) => None,
            Some(end) => Some(end),
            None => self.checkpoint_due(index, now).then_some(self.sealed_to),
        }
    }

    /// Whether the open end of the file is to be sent although it will be sent again.
    fn checkpoint_due(&self, index: usize, now: Instant) -> bool {
        let slot = &self.slots[index];
        let Some(since) = slot.waiting_since else { return false };
        let flows = self.layout.flows(index as u32 + 1);
        let behind = self.slots[self.first_open..index].iter().any(|slot| slot.in_flight.is_none() && !slot.is_done());
        // Behind a gap it would be of no use.
        if behind || self.sealed_to <= slot.taken_to() {
            return false;
        }
        let every = self.tuning.checkpoint.as_secs_f64();
        let age = now.saturating_duration_since(since).as_secs_f64();
        if age >= every * STRETCH {
            return true;
        }
        // A recording is in the store from its first seconds; a container's head alone is none yet.
        if slot.taken_to() < FIRST_BYTES {
            return age >= every / 5.0;
        }
        let number = index as u32 + 1;
        let Some(pace) = self.bytes_per_second().filter(|_| !flows) else { return age >= every };
        let left = (slot.start + self.layout.size(number)).saturating_sub(self.sealed_to) as f64 / pace;
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
        (span >= MIN_PACE_SPAN && to > from).then(|| (to - from) as f64 / span.as_secs_f64())
    }

    /// The tag the store will answer if it gets the bytes.
    pub fn expects(&mut self, number: u32, generation: u32, tag: PartTag) {
        if let Some(in_flight) = self.sent(number, generation).and_then(|slot| slot.in_flight.as_mut()) {
            in_flight.tag = Some(tag);
        }
    }

    /// The store has it. An answer to an earlier generation is ignored.
    pub fn acked(&mut self, number: u32, generation: u32, tag: PartTag) {
        let Some(slot) = self.sent(number, generation) else { return };
        if let Some(in_flight) = slot.in_flight.take() {
            let part = Part { number, generation, tag };
            slot.acked = Some(AckedPart { part, to: in_flight.to, version: in_flight.version });
        }
    }

    /// It was not stored, or that is not known (`may_arrive`); it becomes due again.
    pub fn failed(&mut self, number: u32, generation: u32, may_arrive: bool) {
        let Some(slot) = self.sent(number, generation) else { return };
        let Some(in_flight) = slot.in_flight.take() else { return };
        if may_arrive {
            slot.lost.push(in_flight.pending(slot.start));
            if slot.lost.len() > MAX_LOST {
                slot.lost.remove(0);
            }
        }
        slot.waiting_since = in_flight.waited_since;
        self.late_writes += usize::from(may_arrive);
    }

    fn sent(&mut self, number: u32, generation: u32) -> Option<&mut PartSlot> {
        let slot = self.slots.get_mut((number as usize).checked_sub(1)?)?;
        slot.in_flight.as_ref().is_some_and(|in_flight| in_flight.generation == generation).then_some(slot)
    }

    /// All parts, when the object can be completed: everything is in the store as it is in the file.
    pub fn finished(&self) -> Option<Vec<Part>> {
        let whole = self.closed && self.sealed_to > 0 && self.slots.iter().all(PartSlot::is_done);
        whole.then(|| self.slots.iter().filter_map(|slot| Some(slot.acked.as_ref()?.part.clone())).collect())
    }

    /// Bytes of the object as far as they are known.
    pub fn total(&self) -> u64 {
        self.sealed_to
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.sealed_to == 0
    }

    /// The store does not have what it acknowledged: what may have been overwritten by a late arrival is sent again, as
    /// often as one may come. False: there is no such part.
    pub fn invalidate(&mut self) -> bool {
        let Some(left) = self.late_writes.checked_sub(1) else { return false };
        self.late_writes = left;
        let mut any = false;
        for slot in self.slots.iter_mut().filter(|slot| !slot.lost.is_empty() && !slot.punched) {
            slot.acked = None;
            any = true;
        }
        self.first_open = 0;
        any
    }

    /// What an object could be made of now: whole parts from the first on, and at most one shorter one; and its bytes.
    pub fn prefix(&self) -> (Vec<Part>, u64) {
        let (mut parts, mut bytes) = (vec![], 0);
        for slot in &self.slots {
            let Some(acked) = &slot.acked else { break };
            parts.push(acked.part.clone());
            bytes = acked.to;
            if Some(acked.to) != slot.end {
                break;
            }
        }
        (parts, bytes)
    }

    /// Bytes that survive the death of this process: whole parts, and the part of which the store has the beginning.
    pub fn safe_to(&self) -> u64 {
        let (slot, whole) = self.first_not_whole();
        slot.and_then(|slot| slot.acked.as_ref()).map_or(whole, |acked| acked.to)
    }

    /// Bytes of whole parts without a gap from the first on. What lies behind may be sent again, from the first byte of
    /// its part.
    pub fn whole_to(&self) -> u64 {
        self.first_not_whole().1
    }

    /// The first part that the store does not have up to its end, and where it begins.
    fn first_not_whole(&self) -> (Option<&PartSlot>, u64) {
        let (done, rest) = self.slots.split_at(self.first_open.min(self.slots.len()));
        let mut whole = done.last().map_or(0, PartSlot::taken_to);
        for slot in rest {
            match &slot.acked {
                Some(acked) if Some(acked.to) == slot.end => whole = acked.to,
                _ => return (Some(slot), whole),
            }
        }
        (None, whole)
    }

    /// Ranges whose bytes are in the store for good and were not named before. Not the first part, which is sent again.
    pub fn take_stored(&mut self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = vec![];
        for slot in self.slots.iter_mut().skip(1) {
            if let (Some(end), true) = (slot.end, slot.is_done() && slot.lost.is_empty() && !slot.punched) {
                slot.punched = true;
                match ranges.last_mut() {
                    Some(before) if before.end == slot.start => before.end = end,
                    _ => ranges.push(slot.start..end),
                }
            }
        }
        ranges
    }

    /// For the checkpoint.
    pub fn part_states(&self) -> Vec<PartState> {
        let state = |slot: &PartSlot| PartState {
            start: slot.start,
            end: slot.end,
            acked: slot.acked.as_ref().map(|acked| acked.part.clone()),
            pending: {
                let in_flight = slot.in_flight.as_ref().map(|in_flight| in_flight.pending(slot.start));
                slot.lost.iter().cloned().chain(in_flight).collect()
            },
            sends: slot.sends,
        };
        self.slots.iter().map(state).collect()
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
