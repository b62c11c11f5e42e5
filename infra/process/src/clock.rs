//! The current time, the same for all processes of an installation whatever their hosts' clocks show. Time stamps, psrpc
//! envelopes and bills use it.
//!
//! A [`Clock`] is the host's monotonic clock plus an offset. It starts from the host's wall clock; the bus measures the
//! offset to the common reference (Redis' `TIME`) when it connects and again every few seconds ([`Clock::measured`]), and
//! every handle of the clock follows. The wall clock is read once, at the start: a step of it (NTP, an operator) moves no
//! time stamp. The time never runs backward.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Slew limit: a correction changes the speed of the clock by at most one half.
const SLEW: i64 = 2;
/// A clock that is at least so far behind, nanoseconds, steps ahead at once: its machine was suspended or moved.
const STEP_NS: i64 = 1_000_000_000;

/// Two clocks that were read within this time were read at once.
const AT_ONCE: Duration = Duration::from_micros(200);
/// Reads before the best one is taken.
const MAX_READS: u32 = 16;

/// The monotonic clock and the host's wall clock (Unix nanoseconds), read at one moment. A thread may lose its CPU between
/// two reads: on a busy machine of two cores a recording was found to begin 0.1 s before its `started_at`.
pub fn read_both() -> (Instant, i64) {
    read_together(Instant::now, || unix_ns_of(SystemTime::now()))
}

/// Reads `wall` between two reads of `monotonic`, until these two are close or it was tried often enough.
fn read_together(mut monotonic: impl FnMut() -> Instant, mut wall: impl FnMut() -> i64) -> (Instant, i64) {
    let mut read = || {
        let (before, unix_ns, after) = (monotonic(), wall(), monotonic());
        (after.saturating_duration_since(before), before, unix_ns)
    };
    let mut best = read();
    for _ in 1..MAX_READS {
        if best.0 <= AT_ONCE {
            break;
        }
        let next = read();
        if next.0 < best.0 {
            best = next;
        }
    }
    let (apart, before, unix_ns) = best;
    (before + apart / 2, unix_ns)
}

/// Handle of a clock; clones are one clock. It runs with tokio's clock, so that both agree in a test with paused time.
#[derive(Clone, Debug)]
pub struct Clock {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    at: Instant,
    /// Unix nanoseconds at `at`.
    unix_ns: i64,
    /// Part of the last corrections that was not applied at `at`, nanoseconds.
    pending_ns: i64,
    is_measured: bool,
}

/// One reading of the reference clock.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// When the request was sent.
    pub asked: Instant,
    /// When the response arrived.
    pub answered: Instant,
    /// Unix nanoseconds on the reference's clock, somewhere between the two.
    pub reference_ns: i64,
}

impl Measurement {
    /// Time between request and response; half of it is the uncertainty of the reading.
    pub fn round_trip(&self) -> Duration {
        self.answered.saturating_duration_since(self.asked)
    }

    /// The reference was read in the middle of the round trip, give or take half of it.
    fn uncertainty_ns(&self) -> i64 {
        nanos(self.round_trip()) / 2
    }
}

/// What a measurement has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// By how much the clock was behind the reference, nanoseconds; negative: ahead.
    pub behind_ns: i64,
    /// How the difference is removed.
    pub how: Correction,
}

/// How a difference to the reference is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// The first measurement: the reference's time is taken over, unless the difference is within its uncertainty.
    First,
    /// None: the difference is within the uncertainty of the measurement.
    Nothing,
    /// The clock runs faster or slower until the difference is gone.
    Slewed,
    /// The clock was at least a second behind and was set ahead.
    Stepped,
}

impl Clock {
    /// Starts at the host's wall clock time.
    pub fn host() -> Self {
        Self::host_ahead_by(0)
    }

    /// Starts at `unix_ns`, Unix nanoseconds.
    pub fn starting_at(unix_ns: i64) -> Self {
        Self::starting_from(Instant::now(), unix_ns)
    }

    fn starting_from(at: Instant, unix_ns: i64) -> Self {
        let state = State { at, unix_ns, pending_ns: 0, is_measured: false };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Starts ahead of the host's wall clock; negative: behind it.
    pub fn host_ahead_by(nanoseconds: i64) -> Self {
        let (at, unix_ns) = read_both();
        Self::starting_from(at, unix_ns.saturating_add(nanoseconds))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment of a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current time, Unix nanoseconds.
    pub fn unix_ns(&self) -> i64 {
        let state = self.state();
        state.read(Instant::now())
    }

    /// The current time, Unix milliseconds, rounded down.
    pub fn unix_ms(&self) -> i64 {
        self.unix_ns() / 1_000_000
    }

    /// Unix nanoseconds at a monotonic instant near now.
    pub fn unix_ns_at(&self, at: Instant) -> i64 {
        let (now, unix_ns) = {
            let state = self.state();
            let now = Instant::now();
            (now, state.read(now))
        };
        let (past, future) = (now.saturating_duration_since(at), at.saturating_duration_since(now));
        unix_ns.saturating_sub(nanos(past)).saturating_add(nanos(future))
    }

    /// Unix nanoseconds on this clock of a time stamp of the host's wall clock (a file's last change). When the wall clock
    /// was set since, the result is wrong by that step.
    pub fn unix_ns_of_host(&self, stamp: SystemTime) -> i64 {
        unix_ns_of(stamp).saturating_add(self.ahead_of_host_ns())
    }

    /// By how much this clock is ahead of the host's wall clock, nanoseconds.
    pub fn ahead_of_host_ns(&self) -> i64 {
        let (at, host_ns) = read_both();
        self.state().read(at).saturating_sub(host_ns)
    }

    /// Corrects the clock. The first measurement is taken over, unless the host's clock is right within the uncertainty;
    /// later ones remove, without a jump, the part of the difference that exceeds the uncertainty. A clock that is at
    /// least a second behind is set ahead.
    pub fn measured(&self, measurement: &Measurement) -> Corrected {
        self.state().measured(measurement)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::host()
    }
}

impl State {
    fn read(&self, now: Instant) -> i64 {
        let elapsed = nanos(now.saturating_duration_since(self.at));
        self.unix_ns.saturating_add(elapsed).saturating_add(self.applied(elapsed))
    }

    fn applied(&self, elapsed: i64) -> i64 {
        let max = elapsed / SLEW;
        self.pending_ns.clamp(-max, max)
    }

    fn measured(&mut self, measurement: &Measurement) -> Corrected {
        let now = measurement.answered.max(self.at);
        let elapsed = nanos(now - self.at);
        let (unix_ns, pending_ns) = (self.read(now), self.pending_ns - self.applied(elapsed));
        let open = measurement.uncertainty_ns();
        let since = nanos(now - measurement.answered);
        let reference = measurement.reference_ns.saturating_add(open).saturating_add(since);
        let behind_ns = reference.saturating_sub(unix_ns).saturating_sub(pending_ns);
        let is_certain = behind_ns.saturating_abs() > open;
        let (unix_ns, pending_ns, how) = if !self.is_measured {
            (if is_certain { reference } else { unix_ns }, 0, Correction::First)
        } else if !is_certain {
            (unix_ns, pending_ns, Correction::Nothing)
        } else {
            let surely = behind_ns - open * behind_ns.signum();
            let pending_ns = pending_ns.saturating_add(surely);
            if pending_ns >= STEP_NS {
                (unix_ns.saturating_add(pending_ns), 0, Correction::Stepped)
            } else {
                (unix_ns, pending_ns, Correction::Slewed)
            }
        };
        *self = Self { at: now, unix_ns, pending_ns, is_measured: true };
        Corrected { behind_ns, how }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn unix_ns_of(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: i64 = 1_000_000;
    const SECOND: i64 = 1_000 * MS;
    /// 2026-01-01.
    const NEW_YEAR: i64 = 1_767_225_600 * SECOND;

    /// Asks a right reference over a way that takes `there` and `back`, milliseconds.
    async fn ask(clock: &Clock, right: &Clock, there: u64, back: u64) -> Corrected {
        let asked = Instant::now();
        advance(Duration::from_millis(there)).await;
        let reference_ns = right.unix_ns();
        advance(Duration::from_millis(back)).await;
        clock.measured(&Measurement { asked, answered: Instant::now(), reference_ns })
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_wrong_by_seconds_or_minutes_is_right_after_the_first_answer() {
        for wrong_s in [-600, -20, -3, -1, 0, 3, 600] {
            let right = Clock::starting_at(NEW_YEAR);
            let clock = Clock::starting_at(NEW_YEAR + wrong_s * SECOND);
            let corrected = ask(&clock, &right, 2, 2).await;
            assert_eq!(corrected, Corrected { behind_ns: -wrong_s * SECOND, how: Correction::First });
            assert_eq!(clock.unix_ns(), right.unix_ns(), "{wrong_s} s");
            advance(Duration::from_secs(3600)).await;
            assert_eq!(clock.clone().unix_ms(), right.unix_ms(), "it runs on, in every handle");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_uneven_way_moves_the_clock_no_more_than_half_of_its_length() {
        let (right, clock) = (Clock::starting_at(NEW_YEAR), Clock::starting_at(NEW_YEAR - 20 * SECOND));
        ask(&clock, &right, 40, 0).await;
        assert_eq!(right.unix_ns() - clock.unix_ns(), -20 * MS);
        // A better answer takes back what it can be sure of; one that is no better changes nothing.
        assert_eq!(ask(&clock, &right, 60, 0).await.how, Correction::Nothing);
        let corrected = ask(&clock, &right, 1, 1).await;
        assert_eq!((corrected.behind_ns, corrected.how), (-20 * MS, Correction::Slewed));
        advance(Duration::from_secs(1)).await;
        assert_eq!(right.unix_ns() - clock.unix_ns(), -MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_right_is_not_made_wrong_by_a_slow_answer() {
        let (right, clock) = (Clock::starting_at(NEW_YEAR), Clock::starting_at(NEW_YEAR));
        assert_eq!(ask(&clock, &right, 250, 0).await, Corrected { behind_ns: 125 * MS, how: Correction::First });
        assert_eq!(clock.unix_ns(), right.unix_ns());
    }

    #[test]
    fn a_pause_between_two_reads_does_not_move_the_clock() {
        let (begun, now) = (Instant::now(), std::cell::Cell::new(Duration::ZERO));
        // The thread loses its CPU for 100 ms before, between and after the reads, in turn; then it has luck.
        let mut pauses = [100, 0, 0, 0, 100, 0, 0, 0, 100].into_iter().map(Duration::from_millis);
        let mut pass = || now.set(now.get() + pauses.next().unwrap_or(Duration::from_micros(1)));
        let pass = std::cell::RefCell::new(&mut pass);
        let monotonic = || {
            (pass.borrow_mut())();
            begun + now.get()
        };
        let wall = || {
            (pass.borrow_mut())();
            NEW_YEAR + nanos(now.get())
        };
        let (at, unix_ns) = read_together(monotonic, wall);
        let off = unix_ns - NEW_YEAR - nanos(at.saturating_duration_since(begun));
        assert!(off.abs() <= nanos(AT_ONCE) / 2, "{off} ns");
    }

    #[test]
    fn the_best_of_bad_reads_is_taken() {
        let (begun, reads) = (Instant::now(), std::cell::Cell::new(0u64));
        // Each pair is 100 ms apart but the fifth, which is 10 ms.
        let at = || {
            reads.set(reads.get() + 1);
            let (pair, second) = ((reads.get() - 1) / 2, (reads.get() - 1) % 2);
            begun + Duration::from_millis(pair * 1000 + second * if pair == 4 { 10 } else { 100 })
        };
        let (at, _) = read_together(at, || NEW_YEAR);
        assert_eq!(at, begun + Duration::from_millis(4005));
    }

    #[tokio::test(start_paused = true)]
    async fn a_correction_is_spread_and_the_time_never_runs_backward() {
        let (right, clock) = (Clock::starting_at(NEW_YEAR), Clock::starting_at(NEW_YEAR));
        ask(&clock, &right, 0, 0).await;
        // A reference on another machine: 400 ms behind, then 400 ms ahead.
        for off in [-400 * MS, 400 * MS] {
            let reference = Clock::starting_at(clock.unix_ns() + off);
            assert_eq!(ask(&clock, &reference, 0, 0).await, Corrected { behind_ns: off, how: Correction::Slewed });
            let (mut before, mut rates) = (clock.unix_ns(), Vec::new());
            for _ in 0..100 {
                advance(Duration::from_millis(10)).await;
                let now = clock.unix_ns();
                rates.push((now - before) / MS);
                before = now;
            }
            let expected = if off < 0 { 5 } else { 15 };
            assert!(rates[..80].iter().all(|rate| *rate == expected), "{rates:?}");
            assert!(rates[80..].iter().all(|rate| *rate == 10), "{rates:?}");
            assert_eq!(clock.unix_ns(), reference.unix_ns());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_slept_steps_ahead_and_one_far_ahead_waits() {
        let (right, clock) = (Clock::starting_at(NEW_YEAR), Clock::starting_at(NEW_YEAR));
        ask(&clock, &right, 0, 0).await;
        let later = Clock::starting_at(clock.unix_ns() + 90 * SECOND);
        assert_eq!(ask(&clock, &later, 1, 1).await.how, Correction::Stepped);
        assert!((later.unix_ns() - clock.unix_ns()).abs() <= MS);
        let earlier = Clock::starting_at(clock.unix_ns() - 90 * SECOND);
        let before = clock.unix_ns();
        assert_eq!(ask(&clock, &earlier, 0, 0).await.how, Correction::Slewed);
        assert_eq!(clock.unix_ns(), before);
        advance(Duration::from_secs(180)).await;
        assert_eq!(clock.unix_ns(), earlier.unix_ns());
    }

    #[tokio::test(start_paused = true)]
    async fn time_stamps_of_the_host_are_converted_to_this_clock() {
        let clock = Clock::host_ahead_by(-3 * SECOND);
        let stamp = SystemTime::now() - Duration::from_secs(10);
        let stamped = clock.unix_ns_of_host(stamp);
        assert!((unix_ns_of(stamp) - 3 * SECOND - stamped).abs() < SECOND, "{stamped}");
        let (began, unix_ns) = (Instant::now(), clock.unix_ns());
        advance(Duration::from_secs(100)).await;
        assert_eq!(clock.unix_ns_at(began), unix_ns);
        assert_eq!(clock.unix_ns_at(Instant::now() + Duration::from_secs(1)), unix_ns + 101 * SECOND);
    }
}
