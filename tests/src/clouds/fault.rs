//! What goes wrong with a call, by script or by chance.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloudFault {
    /// The vendor's answer to too many calls.
    Throttled,
    /// No machine of this kind is free.
    NoCapacity,
    /// All that the account may run is running.
    QuotaReached,
    /// 500, and nothing was done.
    Broken,
    /// It was done, and the answer is 500.
    BrokenAfter,
    /// The connection ends, and nothing was done.
    Lost,
    /// It was done, and the connection ends after the body.
    LostAfter,
    /// It was done twice, as clouds do now and then.
    Doubled,
    /// It was done, and the answer takes its time.
    Late,
    /// The caller's token has just run out.
    Expired,
    /// The caller's clock is wrong.
    Skewed,
    /// Something else is being done to the same thing.
    Busy,
}

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
    pub fn before(self) -> bool {
        !matches!(self, Self::BrokenAfter | Self::LostAfter | Self::Doubled | Self::Late)
    }
}

/// Shared by the calls of one cloud.
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
    /// The next calls of this operation fare so.
    pub fn script(&self, operation: &str, faults: impl IntoIterator<Item = Option<CloudFault>>) {
        self.state().script.entry(operation.to_owned()).or_default().extend(faults);
    }

    /// Calls without a script fare so, each with its probability.
    pub fn by_chance(&self, seed: u64, odds: Vec<(String, CloudFault, f64)>) {
        self.state().chance = Some(FaultOdds { rng: StdRng::seed_from_u64(seed), odds });
    }

    /// How often each has struck.
    pub fn injected(&self) -> BTreeMap<CloudFault, u64> {
        self.state().injected.clone()
    }

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

/// A vendor's quota: full at first, refilled steadily.
#[derive(Debug)]
pub struct CallQuota {
    burst: f64,
    per_second: f64,
    level: f64,
    at: Instant,
}

impl CallQuota {
    pub fn new(burst: u32, per_second: f64) -> Self {
        Self { burst: f64::from(burst), per_second, level: f64::from(burst), at: Instant::now() }
    }

    /// Takes one, or says how long until there is one.
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
