//! What a page was not let through to, for its recording's `details` and to put a browser's error into words. Bounded: a page can
//! ask for as many hosts as it likes. Written by the proxy's connections, read by the page's own task.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spillway_guard::{GuardError, GuardHost, host_and_port};
use tracing::{debug, info};

/// Refused hosts between two readings, and failures that are remembered. Nobody reads a longer list.
const MAX_HOSTS: usize = 32;

/// A host that a page was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRefusal {
    /// Why, with the host.
    pub error: GuardError,
    /// TCP port.
    pub port: u16,
    /// How often it was asked for.
    pub count: u64,
}

impl fmt::Display for PageRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

/// Where a request went.
type RequestTarget = (String, u16);

/// All of a page's.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<RefusalState>);

#[derive(Debug, Default)]
struct RefusalState {
    refused: BTreeMap<RequestTarget, PageRefusal>,
    failures: VecDeque<(RequestTarget, GuardError)>,
}

impl RefusalLog {
    /// A request to this host did not get there. `host`: as it was asked for.
    pub fn note(&self, host: &str, port: u16, error: &GuardError) {
        let target = (normal(host), port);
        let mut state = self.lock();
        state.failures.retain(|(known, _)| *known != target);
        if state.failures.len() == MAX_HOSTS {
            state.failures.pop_front();
        }
        state.failures.push_back((target.clone(), error.clone()));
        if !error.is_refusal() {
            debug!(%error, port, "a page's request failed");
            return;
        }
        let has_room = state.refused.len() < MAX_HOSTS;
        match state.refused.get_mut(&target) {
            Some(known) => known.count += 1,
            None if has_room => {
                info!(%error, port, "a page is refused a host");
                state.refused.insert(target, PageRefusal { error: error.clone(), port, count: 1 });
            }
            None => {}
        }
    }

    /// What was refused since the last reading.
    pub fn take(&self) -> Vec<PageRefusal> {
        std::mem::take(&mut self.lock().refused).into_values().collect()
    }

    /// Why the last request to this URL's host failed, if it did.
    pub fn failure(&self, url: &str) -> Option<GuardError> {
        let (host, port) = host_and_port(url)?;
        let target = (normal(&host), port);
        let state = self.lock();
        state.failures.iter().find(|(known, _)| *known == target).map(|(_, error)| error.clone())
    }

    fn lock(&self) -> MutexGuard<'_, RefusalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One spelling for each host. What is none is cut: it comes from the page.
fn normal(host: &str) -> String {
    match GuardHost::parse(host) {
        Some(GuardHost::Address(address)) => address.to_string(),
        Some(GuardHost::Name(name)) => name,
        None => host.chars().take(100).collect(),
    }
}

#[cfg(test)]
mod tests {
    use spillway_guard::Guard;

    use super::*;

    fn refused(host: &str) -> GuardError {
        Guard::default().check(host, 80).unwrap_err()
    }

    #[test]
    fn a_host_is_told_once_with_its_count() {
        let log = RefusalLog::default();
        for host in ["10.0.0.5", "0xa.0.0.5", "[::1]"] {
            log.note(host, 80, &refused(host));
        }
        let gone = GuardError::Resolve { host: "gone.example".into(), message: "no such name".into() };
        log.note("gone.example", 443, &gone);
        let told: Vec<(String, u64)> = log.take().into_iter().map(|one| (one.to_string(), one.count)).collect();
        let expected = [
            ("10.0.0.5 is refused: it is a private address".to_owned(), 2),
            ("::1 is refused: it is a loopback address".to_owned(), 1),
        ];
        assert_eq!(told, expected);
        assert!(log.take().is_empty());
        // To put the browser's error into words, it is still known.
        assert_eq!(log.failure("https://gone.example/x"), Some(gone));
        assert_eq!(log.failure("http://10.0.0.5/"), Some(refused("10.0.0.5")));
        assert_eq!(log.failure("https://other.example/"), None);
    }

    #[test]
    fn a_page_that_asks_for_everything_fills_nothing() {
        let log = RefusalLog::default();
        for n in 0..1000u32 {
            let host = format!("10.0.{}.{}", n / 250, n % 250);
            log.note(&host, 80, &refused(&host));
        }
        assert_eq!((log.take().len(), log.lock().failures.len()), (MAX_HOSTS, MAX_HOSTS));
    }
}
