//! Time by steps, for what judges a server by how long it has been quiet. Pure.

use std::time::{Duration, Instant};

/// A step counts at most so much: a process of ours that was stopped or starved must not blame the server.
pub const MAX_STEP: Duration = Duration::from_millis(300);

/// When the last step was.
#[derive(Debug)]
pub struct StepClock {
    stepped: Instant,
}

impl StepClock {
    /// Begins now.
    pub const fn new(now: Instant) -> Self {
        Self { stepped: now }
    }

    /// One step: what passed since the one before, at most [`MAX_STEP`].
    pub fn step(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.stepped).min(MAX_STEP);
        self.stepped = now;
        passed
    }
}
