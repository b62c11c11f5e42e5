//! Encoded units go to every output that wants them. In: units from the encoders' threads and the recorder's. Out: calls
//! of each [`OutputTaker`], one unit after the other under one lock, and what became of them as [`PipelineEvent`]s.
//!
//! An output that fails is taken out, dropped and reported; the others get every unit. What is taken out is dropped, and
//! events are told, only after the lock is released: dropping an output may wait for a thread of its own that reports
//! here. `Drained` is told when every output has been told of, also where several threads tell at once. Order of locks:
//! the fan-out's, then the spool's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gstreamer as gst;

use super::progress::{PipelineEvent, PipelineEventFn, PipelineProgress};
use super::taker::{OutputTaker, TakerEnd, TakerError, TakerId, TakerProgress, TakerStart};
use crate::element::PipelineError;
use crate::encoded::{EncodedFormat, EncodedUnit, MediaKind, StreamNumber};

/// Where all encoded streams of a recording meet all its outputs.
pub struct Fanout {
    formats: Arc<[EncodedFormat]>,
    /// A stream more than there are formats: raw pictures, of which no units come.
    has_raw_pictures: bool,
    state: Mutex<FanoutState>,
    next_id: AtomicU32,
    progress: Arc<PipelineProgress>,
    tell: PipelineEventFn,
}

#[derive(Default)]
struct FanoutState {
    takers: Vec<TakerSlot>,
    /// They answered [`TakerEnd::Later`].
    ending: Vec<TakerSlot>,
    /// Taken out, and their events are not told yet.
    untold: usize,
    /// A bit per stream.
    ended: u8,
    drained: bool,
    closed: bool,
}

struct TakerSlot {
    id: TakerId,
    /// A bit per stream.
    wants: u8,
    taker: Box<dyn OutputTaker>,
    progress: Arc<TakerProgress>,
}

/// What is done after the lock is released.
#[derive(Default)]
struct Aftermath {
    gone: Vec<TakerSlot>,
    events: Vec<PipelineEvent>,
}

impl Aftermath {
    fn ended(&mut self, slot: TakerSlot) {
        self.events.push(PipelineEvent::TakerEnded(slot.id));
        self.gone.push(slot);
    }

    fn failed(&mut self, slot: TakerSlot, error: TakerError) {
        self.events.push(PipelineEvent::TakerFailed(slot.id, error));
        self.gone.push(slot);
    }
}

fn bit(stream: StreamNumber) -> u8 {
    1u8.checked_shl(u32::from(stream.0)).unwrap_or(0)
}

impl FanoutState {
    /// The end of its streams, for one taker.
    fn end(&mut self, mut slot: TakerSlot, after: &mut Aftermath) {
        match slot.taker.end(slot.progress.media_ns()) {
            Ok(TakerEnd::Whole) => after.ended(slot),
            Ok(TakerEnd::Later) => self.ending.push(slot),
            Err(error) => after.failed(slot, error),
        }
    }

    /// Takers whose streams have all ended.
    fn end_complete(&mut self, after: &mut Aftermath) {
        let ended = self.ended;
        let complete: Vec<TakerSlot> = self.takers.extract_if(.., |slot| slot.wants & !ended == 0).collect();
        complete.into_iter().for_each(|slot| self.end(slot, after));
    }

    /// True once, when nothing more can come of any output.
    fn newly_drained(&mut self, streams: usize) -> bool {
        let all = (0..streams).fold(0, |all, number| all | bit(StreamNumber(number as u8)));
        let over = self.ended & all == all && self.takers.is_empty() && self.ending.is_empty() && self.untold == 0;
        over && !self.closed && !std::mem::replace(&mut self.drained, over)
    }

    fn remove(&mut self, id: TakerId) -> Option<TakerSlot> {
        let of =
            |slots: &mut Vec<TakerSlot>| slots.iter().position(|slot| slot.id == id).map(|index| slots.remove(index));
        of(&mut self.takers).or_else(|| of(&mut self.ending))
    }
}

impl Fanout {
    /// Of streams of these formats, numbered in this order; at most eight. `tell` is called from the threads that give
    /// units and from those of outputs; it must not wait.
    pub fn new(formats: Vec<EncodedFormat>, tell: impl Fn(PipelineEvent) + Send + Sync + 'static) -> Arc<Self> {
        Self::with(formats, false, tell)
    }

    /// The same, with outputs of raw pictures beside the streams; at most seven of these. The end of the pictures counts as
    /// that of a stream ([`Fanout::raw_pictures`]).
    pub fn with_raw_pictures(
        formats: Vec<EncodedFormat>,
        tell: impl Fn(PipelineEvent) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with(formats, true, tell)
    }

    fn with(
        formats: Vec<EncodedFormat>,
        has_raw_pictures: bool,
        tell: impl Fn(PipelineEvent) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            formats: formats.into(),
            has_raw_pictures,
            state: Mutex::default(),
            next_id: AtomicU32::new(0),
            progress: Arc::default(),
            tell: Arc::new(tell),
        })
    }

    /// What the streams are, by their numbers.
    pub fn formats(&self) -> &Arc<[EncodedFormat]> {
        &self.formats
    }

    /// The stream that ends with the raw pictures, behind all others.
    pub fn raw_pictures(&self) -> Option<StreamNumber> {
        self.has_raw_pictures.then(|| StreamNumber(u8::try_from(self.formats.len()).unwrap_or(u8::MAX)))
    }

    /// A raw picture was shown to the outputs that take them; it ends at `end_ns`.
    pub(super) fn raw_picture_to(&self, end_ns: u64) {
        if self.progress.advance_raw(end_ns, self.formats.is_empty()) {
            (self.tell)(PipelineEvent::Flowing);
        }
    }

    /// No raw picture comes any more.
    pub fn end_raw_pictures(&self) {
        if let Some(stream) = self.raw_pictures() {
            self.end_stream(stream);
        }
    }

    /// How far the streams have come.
    pub fn progress(&self) -> Arc<PipelineProgress> {
        self.progress.clone()
    }

    /// To every output that wants it.
    ///
    /// # Errors
    ///
    /// `Flushing` once it is closed: what gives units ends.
    pub fn push(&self, unit: EncodedUnit) -> Result<(), gst::FlowError> {
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            if state.closed {
                return Err(gst::FlowError::Flushing);
            }
            let (wanted, end_ns) = (bit(unit.stream), unit.end_ns());
            let mut failed = Vec::new();
            for (index, slot) in state.takers.iter_mut().enumerate().filter(|(_, slot)| slot.wants & wanted != 0) {
                match slot.taker.take(&unit) {
                    Ok(()) => slot.progress.advance(end_ns),
                    Err(error) => failed.push((index, error)),
                }
            }
            for (index, error) in failed.into_iter().rev() {
                let slot = state.takers.remove(index);
                after.failed(slot, error);
            }
            if self.progress.advance(unit.kind, end_ns) {
                after.events.insert(0, PipelineEvent::Flowing);
            }
            state.untold += after.gone.len();
        }
        self.finish(after);
        Ok(())
    }

    /// The newest unit of this stream lasts at least until `end_ns`: of copied pictures, which say no duration, and of the last
    /// encoded one, which may follow the one before at any distance.
    pub(super) fn lasts(&self, stream: StreamNumber, kind: MediaKind, end_ns: u64) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        for slot in state.takers.iter_mut().filter(|slot| slot.wants & bit(stream) != 0) {
            slot.taker.lasts(stream, end_ns);
            slot.progress.advance(end_ns);
        }
        // A unit went before it: that the first one flows has been told.
        self.progress.advance(kind, end_ns);
    }

    /// Nothing more comes of this stream. Outputs that wait for none of the others are ended.
    pub fn end_stream(&self, stream: StreamNumber) {
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            if state.closed {
                return;
            }
            state.ended |= bit(stream);
            state.end_complete(&mut after);
            state.untold += after.gone.len();
        }
        self.finish(after);
    }

    /// A number and a way to report, before the taker is made.
    pub fn reserve(self: &Arc<Self>) -> (TakerId, TakerReporter) {
        let id = TakerId(self.next_id.fetch_add(1, Ordering::Relaxed));
        (id, TakerReporter { fanout: Arc::downgrade(self), id })
    }

    /// It is given every unit from now on, and ended at once if its streams have ended.
    pub fn add(&self, start: TakerStart) {
        let wants = start.streams.iter().fold(0, |wants, stream| wants | bit(*stream));
        let slot = TakerSlot { id: start.id, wants, taker: start.taker, progress: start.progress };
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            if state.closed {
                after.gone.push(slot);
            } else {
                state.takers.push(slot);
                state.end_complete(&mut after);
            }
            state.untold += after.gone.len();
        }
        self.finish(after);
    }

    /// Ends this output alone; nothing happens if it has ended.
    pub fn remove(&self, id: TakerId) {
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            if let Some(index) = state.takers.iter().position(|slot| slot.id == id) {
                let slot = state.takers.remove(index);
                state.end(slot, &mut after);
                state.untold += after.gone.len();
            }
        }
        self.finish(after);
    }

    /// Takes nothing more; outputs are dropped as they are.
    pub fn close(&self) {
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            state.closed = true;
            after.gone.append(&mut state.takers);
            after.gone.append(&mut state.ending);
            state.untold += after.gone.len();
        }
        self.finish(after);
    }

    /// An encoder broke.
    pub(super) fn broke(&self, error: PipelineError) {
        self.progress.finish();
        (self.tell)(PipelineEvent::Broke(error));
    }

    /// A taker says from its own thread that it is over.
    fn over(&self, id: TakerId, error: Option<TakerError>) {
        let mut after = Aftermath::default();
        {
            let mut state = self.state();
            let Some(slot) = state.remove(id) else { return };
            match error {
                None => after.ended(slot),
                Some(error) => after.failed(slot, error),
            }
            state.untold += after.gone.len();
        }
        self.finish(after);
    }

    /// Files are closed before anything is told of them.
    fn finish(&self, after: Aftermath) {
        let told = after.gone.len();
        drop(after.gone);
        after.events.into_iter().for_each(|event| (self.tell)(event));
        let drained = {
            let mut state = self.state();
            state.untold -= told;
            state.newly_drained(self.formats.len() + usize::from(self.has_raw_pictures))
        };
        if drained {
            self.progress.finish();
            (self.tell)(PipelineEvent::Drained);
        }
    }

    fn state(&self) -> MutexGuard<'_, FanoutState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For takers that end later or fail by themselves. Both calls are idempotent, and neither is made inside of
/// [`OutputTaker::take`] or [`OutputTaker::end`]: they take the fan-out's lock and drop the taker.
#[derive(Clone)]
pub struct TakerReporter {
    fanout: Weak<Fanout>,
    id: TakerId,
}

impl TakerReporter {
    /// Everything is written.
    pub fn ended(&self) {
        if let Some(fanout) = self.fanout.upgrade() {
            fanout.over(self.id, None);
        }
    }

    /// It takes no more.
    pub fn failed(&self, error: TakerError) {
        if let Some(fanout) = self.fanout.upgrade() {
            fanout.over(self.id, Some(error));
        }
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
