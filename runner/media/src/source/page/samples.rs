//! Sound of the page on its way to the encoders. In: the sound server's blocks, in a thread that never waits. Out, to the thread
//! that feeds the encoders: every sample from the beginning to the end once, silence where none came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::units::{PageSamples, monotonic};
use crate::units::{MediaTime, SampleIndex};

/// Blocks are this late at most on a machine that works; what has not come by then and no block is behind it, is silence.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// The same when the sound server is gone.
const MAX_DELAY_WITHOUT_SERVER: Duration = Duration::from_millis(600);
/// Blocks nearer to their place than this follow the one before them.
const EXACT_SAMPLES: i64 = 240;
/// Samples of one piece of silence.
const SILENCE_SAMPLES: i64 = 4800;
/// Interleaved samples that may wait: a minute.
const MAX_WAITING: usize = 60 * 2 * SampleIndex::RATE as usize;

/// The queue; shared by the thread that fills it, the page's own and the encoders'.
#[derive(Debug, Default)]
pub struct SampleQueue {
    state: Mutex<SampleState>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct SampleState {
    /// CLOCK_MONOTONIC of sample 0.
    began: Option<Duration>,
    waiting: VecDeque<PageSamples>,
    /// Interleaved.
    waiting_samples: usize,
    /// Stereo samples that were given.
    given: i64,
    /// How many there are in all.
    end: Option<i64>,
    /// No block comes any more.
    is_over: bool,
    closed: bool,
    /// Stereo samples of silence where a block should have been.
    missing: u64,
}

impl SampleQueue {
    fn lock(&self) -> MutexGuard<'_, SampleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next block of the server. Never waits.
    pub fn put(&self, block: PageSamples) {
        let mut state = self.lock();
        if state.began.is_none() || state.closed || state.waiting_samples >= MAX_WAITING {
            return;
        }
        state.waiting_samples += block.samples.len();
        state.waiting.push_back(block);
        drop(state);
        self.news.notify_all();
    }

    /// The server is gone.
    pub fn over(&self) {
        self.lock().is_over = true;
        self.news.notify_all();
    }

    /// Sample 0 is at this moment; the first call counts. Blocks are late, so none of it has come yet.
    pub fn begin(&self, at: Duration) {
        self.lock().began.get_or_insert(at);
        self.news.notify_all();
    }

    /// The recording ends at this moment; the first call counts. `lead`: so many samples more are given.
    pub fn end_at(&self, at: Duration, lead: u32) {
        let mut state = self.lock();
        let Some(began) = state.began else { return };
        let length = SampleIndex::at(MediaTime::from(at.saturating_sub(began))) - SampleIndex::new(0);
        state.end.get_or_insert(length + i64::from(lead));
        drop(state);
        self.news.notify_all();
    }

    /// Nothing more is given.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.news.notify_all();
    }

    /// Milliseconds of silence where sound should have been.
    pub fn missing_ms(&self) -> u64 {
        self.lock().missing * 1000 / SampleIndex::RATE
    }

    /// Waits for the samples that follow those given before, interleaved. `None`: that was all.
    pub fn next(&self) -> Option<Vec<f32>> {
        let mut state = self.lock();
        loop {
            if state.closed || state.end.is_some_and(|end| state.given >= end) {
                return None;
            }
            if let Some(samples) = state.take() {
                return Some(samples);
            }
            let began = state.began;
            state = match began {
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(began) => {
                    let wait = state.silent_from(began).saturating_sub(monotonic());
                    if wait.is_zero() {
                        return Some(state.silence(SILENCE_SAMPLES));
                    }
                    self.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl SampleState {
    /// What can be given now.
    fn take(&mut self) -> Option<Vec<f32>> {
        let began = self.began?;
        while let Some(block) = self.waiting.pop_front() {
            self.waiting_samples = self.waiting_samples.saturating_sub(block.samples.len());
            let length = (block.samples.len() / 2) as i64;
            // Before the beginning it is negative.
            let since = SampleIndex::at(MediaTime::from(block.at.saturating_sub(began))) - SampleIndex::new(0);
            let before = SampleIndex::at(MediaTime::from(began.saturating_sub(block.at))) - SampleIndex::new(0);
            let at = since - before;
            let ahead = at - self.given;
            if ahead > EXACT_SAMPLES || (self.given == 0 && ahead > 0) {
                // First the hole in front of it.
                self.waiting_samples += block.samples.len();
                self.waiting.push_front(block);
                return Some(self.silence(ahead.min(SILENCE_SAMPLES)));
            }
            let late = if ahead < -EXACT_SAMPLES || self.given == 0 { (-ahead).max(0) } else { 0 };
            if late >= length {
                continue;
            }
            let skipped = usize::try_from(late).unwrap_or_default() * 2;
            let mut samples = block.samples;
            samples.drain(..skipped.min(samples.len()));
            self.given += length - late;
            if let Some(end) = self.end.filter(|end| *end < self.given) {
                let beyond = usize::try_from(self.given - end).unwrap_or_default() * 2;
                samples.truncate(samples.len().saturating_sub(beyond));
                self.given = end;
            }
            return Some(samples);
        }
        None
    }

    /// When the next sample is given up if it has not come.
    fn silent_from(&self, began: Duration) -> Duration {
        let delay = if self.is_over { MAX_DELAY_WITHOUT_SERVER } else { MAX_DELAY };
        began + Duration::from_nanos(SampleIndex::new(self.given).time().ns()) + delay
    }

    fn silence(&mut self, samples: i64) -> Vec<f32> {
        let samples = self.end.map_or(samples, |end| samples.min(end - self.given)).max(0);
        self.given += samples;
        self.missing += samples.unsigned_abs();
        vec![0.0; usize::try_from(samples).unwrap_or_default() * 2]
    }
}

#[cfg(test)]
#[path = "samples_tests.rs"]
mod tests;
