//! How long each case ran and waited for its place: a table at the end of the run, longest first. Wall-clock seconds; nothing
//! passes or fails by them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a case uses the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Share {
    /// One place of several.
    Place,
    /// All places.
    Whole,
    /// None: it waits nearly all the time.
    Waiting,
}

struct CaseTime {
    name: String,
    share: Share,
    waited: Duration,
    ran: Duration,
}

static TIMES: Mutex<Vec<CaseTime>> = Mutex::new(Vec::new());

/// Takes what the case needs of the machine, runs it, and notes how long both took.
pub fn timed<P, T>(name: &str, share: Share, take: impl FnOnce() -> P, body: impl FnOnce() -> T) -> T {
    let asked = Instant::now();
    let taken = take();
    let began = Instant::now();
    let result = body();
    let ran = began.elapsed();
    drop(taken);
    let time = CaseTime { name: name.to_owned(), share, waited: began - asked, ran };
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    result
}

/// Lines of the table; empty where fewer than two cases ran.
pub fn table() -> Vec<String> {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    if times.len() < 2 {
        return Vec::new();
    }
    times.sort_by_key(|time| std::cmp::Reverse(time.ran));
    let sum =
        |share| times.iter().filter(|time| time.share == share).fold(0.0, |sum, time| sum + time.ran.as_secs_f64());
    let mut lines = vec![format!(
        "seconds of cases: {:.0} with one place, {:.0} with the whole machine, {:.0} with none",
        sum(Share::Place),
        sum(Share::Whole),
        sum(Share::Waiting)
    )];
    lines.extend(times.iter().map(|CaseTime { name, share, waited, ran }| {
        format!("{:>7.1} s, waited {:>6.1} s, {share:<7?} {name}", ran.as_secs_f64(), waited.as_secs_f64())
    }));
    lines
}
