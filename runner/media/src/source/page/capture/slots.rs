//! At which times the page's pictures are shown: on a grid of one output period, which follows the page's own phase. In: when
//! the display was damaged and read. Out: whether to read it now or how long to wait, and the time of the frame. Pure; times
//! are nanoseconds of CLOCK_MONOTONIC.
//!
//! A picture takes the slot nearest to the moment it is read. When that slot has a picture already, the display is read at
//! the beginning of the next one: two pictures in one slot lose nothing and are late by a slot at most, until the grid has
//! come near again; and of more pictures than slots the newest one wins. At 60 damages a second a grid that gave every damage the next free slot kept 20.6 of 30
//! pictures a second; a plain tick at the output rate 28.4 of 30 (measured on a page of 30 pictures a second).

use std::time::Duration;

/// The grid follows the page by this part of the distance, and by no more than `PULL_NS`, per picture. A page that draws by
/// the display's refresh keeps its distance within 5 ms (standard deviation 1 ms, measured at 30 Hz).
const PULL_PART: i64 = 64;
const PULL_NS: i64 = 500_000;
/// A page that paints so often per picture, on average, has no phase to follow: it paints faster than the output.
const CROWDED: f32 = 1.2;
/// The average moves by this part of each picture's paints.
const AVERAGE_PART: f32 = 16.0;
/// After so long without a picture the next one begins the grid anew: nothing moves that could be seen to jump.
const FORGET_NS: i64 = 500_000_000;

/// The grid, and its newest slot that has a picture.
#[derive(Debug)]
pub struct FrameSlots {
    period_ns: i64,
    /// Only every so many slots are used.
    stride: i64,
    /// Average.
    paints_per_picture: f32,
    grid: Option<Grid>,
}

#[derive(Clone, Copy, Debug)]
struct Grid {
    /// When slot 0 is shown.
    origin_ns: i64,
    last: i64,
}

impl FrameSlots {
    /// A grid of so many slots a second, at least one.
    pub fn new(fps: u32) -> Self {
        Self { period_ns: 1_000_000_000 / i64::from(fps.max(1)), stride: 1, paints_per_picture: 1.0, grid: None }
    }

    /// Whether only every other slot is used.
    pub fn set_halved(&mut self, halved: bool) {
        self.stride = if halved { 2 } else { 1 };
    }

    /// For a damaged display: `None` says that it is to be read now, else when.
    pub fn wait_until(&self, now: Duration) -> Option<Duration> {
        let grid = self.grid?;
        let next = grid.last + self.stride;
        if self.nearest(grid, nanos(now)) >= next {
            return None;
        }
        Some(time(grid.origin_ns + next * self.period_ns - self.period_ns / 2))
    }

    /// The display is read now, after so many paints: when this picture is shown, later than the one before.
    pub fn take(&mut self, now: Duration, paints: u32) -> Duration {
        self.paints_per_picture += (paints as f32 - self.paints_per_picture) / AVERAGE_PART;
        let now_ns = nanos(now);
        let Some(mut grid) = self.grid.filter(|grid| now_ns - self.shown(*grid, grid.last) < FORGET_NS) else {
            self.grid = Some(Grid { origin_ns: now_ns, last: 0 });
            return now;
        };
        let slot = self.nearest(grid, now_ns).max(grid.last + 1);
        // Also pays back the slot that a picture had to wait.
        if self.paints_per_picture < CROWDED {
            let off_ns = now_ns - self.shown(grid, slot);
            grid.origin_ns += (off_ns / PULL_PART).clamp(-PULL_NS, PULL_NS);
        }
        grid.last = slot;
        self.grid = Some(grid);
        time(self.shown(grid, slot))
    }

    fn nearest(&self, grid: Grid, now_ns: i64) -> i64 {
        (now_ns - grid.origin_ns + self.period_ns / 2).div_euclid(self.period_ns)
    }

    fn shown(&self, grid: Grid, slot: i64) -> i64 {
        grid.origin_ns + slot * self.period_ns
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn time(ns: i64) -> Duration {
    Duration::from_nanos(ns.max(0).unsigned_abs())
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
