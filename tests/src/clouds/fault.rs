//! Faults of calls to a fake cloud, by script or by chance, and the call quota of a vendor.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloudFault {
    /// Too many calls, in the vendor's form.
    Throttled,
    /// No machine of this kind is free.
    NoCapacity,
    /// The quota of the account is used up.
    QuotaReached,
    /// 500; the call was not executed.
    Broken,
    /// 500; the call was executed.
    BrokenAfter,
    /// The connection closes; the call was not executed.
    Lost,
    /// The connection closes; the call was executed.
    LostAfter,
    /// The call was executed twice.
    Doubled,
    /// The call was executed; the response takes 1.5 s.
    Late,
    /// The caller's token has just expired.
    Expired,
    /// The caller's clock is wrong.
    Skewed,
    /// Another operation on the same resource is under way.
    Busy,
}

/// Every fault.
pub const ALL: [CloudFault; 12] = [
    CloudFault::Throttled,
    CloudFault::NoCapacity,
    CloudFault::QuotaReached,
    CloudFault::Broken,
    CloudFault::BrokenAfter,
    CloudFault::Lost,
    CloudFault::LostAfter,
    CloudFault::Doubled,
    CloudFault::Late,
    CloudFault::Expired,
    CloudFault::Skewed,
    CloudFault::Busy,
];

impl CloudFault {
    /// The call is not executed.
    pub fn before(self) -> bool {
        !matches!(self, Self::BrokenAfter | Self::LostAfter | Self::Doubled | Self::Late)
    }
}

/// Faults of one cloud, for all its calls.
#[derive(Default)]
pub struct FaultScript(Mutex<FaultState>);

#[derive(Default)]
struct FaultState {
    script: HashMap<String, VecDeque<Option<CloudFault>>>,
    chance: Option<FaultOdds>,
    injected: BTreeMap<CloudFault, u64>,
}

struct FaultOdds {
    rng: StdRng,
    /// Operation, fault, probability.
    odds: Vec<(String, CloudFault, f64)>,
}

impl FaultOdds {
    fn next(&mut self, operation: &str) -> Option<CloudFault> {
        let Self { rng, odds } = self;
        odds.iter()
            .filter(|(of, ..)| of == operation)
            .find(|(.., odds)| rng.random_bool(*odds))
            .map(|(_, fault, _)| *fault)
    }
}

impl FaultScript {
    /// Faults of the next calls of an operation, in order; `None`: the call succeeds.
    pub fn script(&self, operation: &str, faults: impl IntoIterator<Item = Option<CloudFault>>) {
        self.state().script.entry(operation.to_owned()).or_default().extend(faults);
    }

    /// Operation, fault and probability, for calls without a script.
    pub fn by_chance(&self, seed: u64, odds: Vec<(String, CloudFault, f64)>) {
        self.state().chance = Some(FaultOdds { rng: StdRng::seed_from_u64(seed), odds });
    }

    /// Faults injected so far.
    pub fn injected(&self) -> BTreeMap<CloudFault, u64> {
        self.state().injected.clone()
    }

    /// Draws the fault of a call.
    pub fn next(&self, operation: &str) -> Option<CloudFault> {
        let mut state = self.state();
        let fault = match state.script.get_mut(operation).and_then(VecDeque::pop_front) {
            Some(fault) => fault,
            None => state.chance.as_mut().and_then(|chance| chance.next(operation)),
        };
        if let Some(fault) = fault {
            *state.injected.entry(fault).or_default() += 1;
        }
        fault
    }

    fn state(&self) -> std::sync::MutexGuard<'_, FaultState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vendor's call quota: a token bucket, full at first.
#[derive(Debug)]
pub struct CallQuota {
    burst: f64,
    per_second: f64,
    level: f64,
    at: Instant,
}

impl CallQuota {
    /// `burst` calls at once, `per_second` on average.
    pub fn new(burst: u32, per_second: f64) -> Self {
        Self { burst: f64::from(burst), per_second, level: f64::from(burst), at: Instant::now() }
    }

    /// Takes one call.
    ///
    /// # Errors
    ///
    /// None is left; the time until there is one.
    pub fn take(&mut self) -> Result<(), Duration> {
        let now = Instant::now();
        self.level = (self.level + (now - self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / self.per_second))
    }
}
