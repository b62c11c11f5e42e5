//! `spillway-dispatcher doctor`: whether a dispatcher could work from here: Redis, livekit-server and its API key, clocks, stores,
//! the targets' platforms. Starts nothing and changes nothing but one value in Redis that it removes again. What runners may
//! do where they run is for a probe to find out. Everything runs in the caller's task, each check for a bounded time.

mod stores;

use std::time::Duration;

use spillway_bus::{Bus, ProbeCause, ProbeLine, ProbeReport, ProbeReports, RedisFacts};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::config::targets::TargetConfig;
use crate::probe::{ProbeFinding, ProbeSite, new_id, of_launch};
use crate::server_api::ServerApi;
use crate::setup::{self, DispatcherError};

const TIMEOUT: Duration = Duration::from_secs(20);
/// A header of HTTP has whole seconds, and an answer takes its time.
const HTTP_SKEW_MS: i64 = 5000;
/// Difference between this host's clock and Redis' that is worth a word, and one that breaks tokens and signatures.
const SKEW_WARNED_NS: u64 = 2_000_000_000;
const SKEW_FAILED_NS: u64 = 60_000_000_000;

/// Checks everything and tells each finding as it comes.
pub async fn doctor(config: &Config, tell: &mut (dyn FnMut(&ProbeFinding) + Send)) -> Vec<ProbeFinding> {
    let mut found = FoundSoFar { all: Vec::new(), tell };
    found.add(ProbeSite::Here, configuration(config));
    redis(config, &mut found).await;
    for line in server(config).await {
        found.add(ProbeSite::Here, line);
    }
    for line in stores::check(&config.defaults.storage).await {
        found.add(ProbeSite::Here, line);
    }
    for target in &config.targets {
        let line = target_line(target, config).await;
        found.add(ProbeSite::of(target), line);
    }
    found.all
}

struct FoundSoFar<'a> {
    all: Vec<ProbeFinding>,
    tell: &'a mut (dyn FnMut(&ProbeFinding) + Send),
}

impl FoundSoFar<'_> {
    fn add(&mut self, site: ProbeSite, line: ProbeLine) {
        let finding = ProbeFinding::of(line, site);
        (self.tell)(&finding);
        self.all.push(finding);
    }
}

/// It was read, or we would not be here.
fn configuration(config: &Config) -> ProbeLine {
    let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
    ProbeLine::passed("configuration", format!("readable, with the targets {}", names.join(", ")))
}

async fn redis(config: &Config, found: &mut FoundSoFar<'_>) {
    let began = Instant::now();
    let bus = match timeout(TIMEOUT, Bus::connect(&config.redis)).await {
        Ok(Ok(bus)) => bus,
        Ok(Err(error)) => {
            let line = ProbeLine::failed("redis", error.probe_cause(), chain(&error).to_string());
            return found.add(ProbeSite::Here, line.took(began.elapsed()));
        }
        Err(_) => {
            let message = format!("no connection within {} s", TIMEOUT.as_secs());
            return found.add(ProbeSite::Here, ProbeLine::failed("redis", ProbeCause::RedisUnreachable, message));
        }
    };
    let line = match timeout(TIMEOUT, written(&bus)).await {
        Ok(line) => line,
        Err(_) => ProbeLine::failed("redis", ProbeCause::RedisRefuses, "it stopped answering"),
    };
    found.add(ProbeSite::Here, line.took(began.elapsed()));
    found.add(ProbeSite::Here, clock(bus.clock().ahead_of_host_ns()));
}

/// Version and settings, and that it takes a script that writes.
async fn written(bus: &Bus) -> ProbeLine {
    let write = async {
        let id = EgressId::parse(&new_id()).ok();
        let reports = ProbeReports::new(bus);
        if let Some(id) = id {
            reports.put(&id, &ProbeReport::default()).await?;
            reports.remove(&id).await?;
        }
        RedisFacts::of(bus).await
    };
    let facts = match write.await {
        Ok(facts) => facts,
        Err(error) => return ProbeLine::failed("redis", error.probe_cause(), chain(&error).to_string()),
    };
    let message = format!("version {}, {}, {}, writable", facts.version, facts.role, facts.eviction_policy);
    match facts.cause() {
        None => ProbeLine::passed("redis", message),
        Some(cause @ ProbeCause::RedisEviction) => ProbeLine::warned("redis", cause, message),
        Some(cause) => ProbeLine::failed("redis", cause, message),
    }
}

/// `redis_ahead_ns`: by how much Redis' time is ahead of this host's.
fn clock(redis_ahead_ns: i64) -> ProbeLine {
    let off = redis_ahead_ns.unsigned_abs();
    let side = if redis_ahead_ns > 0 { "behind" } else { "ahead of" };
    let message = format!("this host is {:.3} s {side} Redis", off as f64 / 1e9);
    match off {
        0..SKEW_WARNED_NS => ProbeLine::passed("clock", message),
        SKEW_WARNED_NS..SKEW_FAILED_NS => ProbeLine::warned("clock", ProbeCause::ClockWrong, message),
        _ => ProbeLine::failed("clock", ProbeCause::ClockWrong, message),
    }
}

async fn server(config: &Config) -> Vec<ProbeLine> {
    let check = "livekit-server";
    if config.ws_url.is_empty() {
        return vec![ProbeLine::noted(check, "no ws_url: only requests that bring their own are recorded")];
    }
    if config.api_key.is_empty() {
        return vec![ProbeLine::noted(check, "no api_key: only requests that bring a token are recorded")];
    }
    let began = Instant::now();
    match ServerApi::new(config).check_key().await {
        Ok(time) => {
            let passed =
                ProbeLine::passed(check, format!("{} answers and knows the key {}", config.ws_url, config.api_key));
            let mut lines = vec![passed.took(began.elapsed())];
            let off_ms = time.map(|time| (time - chrono::Utc::now()).num_milliseconds());
            if let Some(off_ms) = off_ms.filter(|off_ms| off_ms.abs() > HTTP_SKEW_MS) {
                let side = if off_ms > 0 { "behind" } else { "ahead of" };
                let message = format!("this host is about {} s {side} livekit-server", off_ms.abs() / 1000);
                lines.push(ProbeLine::warned("clock", ProbeCause::ClockWrong, message));
            }
            lines
        }
        Err(error) => vec![ProbeLine::failed(check, error.cause(), chain(&error).to_string()).took(began.elapsed())],
    }
}

async fn target_line(target: &TargetConfig, config: &Config) -> ProbeLine {
    let check = format!("target {}", target.name);
    let began = Instant::now();
    let asked = async {
        let launcher = setup::launcher(target, config, &spillway_process::Clock::host()).await?;
        launcher.check().await.map_err(|source| DispatcherError::Launcher { target: target.name.clone(), source })
    };
    let line = match timeout(TIMEOUT, asked).await {
        Ok(Ok(())) => ProbeLine::passed(check, "answers and accepts our identity; whether it launches, a probe tells"),
        Ok(Err(error)) => {
            let cause = match &error {
                DispatcherError::Launcher { source, .. } => of_launch(source),
                _ => ProbeCause::Unclear,
            };
            ProbeLine::failed(check, cause, chain(&error).to_string())
        }
        Err(_) => {
            let message = format!("no answer within {} s", TIMEOUT.as_secs());
            ProbeLine::failed(check, ProbeCause::PlatformSilent, message)
        }
    };
    line.took(began.elapsed())
}

#[cfg(test)]
mod tests {
    use spillway_bus::ProbeOutcome;

    use super::*;
    use crate::probe::is_fine;

    #[test]
    fn a_clock_that_breaks_tokens_is_a_failure() {
        let outcome = |ahead_ns| clock(ahead_ns).outcome;
        assert_eq!(outcome(1_000_000), ProbeOutcome::Passed);
        assert_eq!(outcome(-3_000_000_000), ProbeOutcome::Warned);
        assert_eq!(outcome(90_000_000_000), ProbeOutcome::Failed);
        assert!(clock(90_000_000_000).message.contains("behind Redis"));
    }

    #[tokio::test]
    async fn everything_that_is_not_there_is_named_at_once() {
        let mut config = Config {
            ws_url: "ws://127.0.0.1:1".into(),
            api_key: "key".into(),
            api_secret: spillway_protocol::Secret::new("a-secret-that-is-long-enough-for-hmac".into()),
            ..Config::default()
        };
        config.redis.address = "127.0.0.1:1".into();
        let mut told = 0;
        let found = doctor(&config, &mut |_| told += 1).await;
        assert_eq!(told, found.len());
        let cause = |check: &str| found.iter().find(|finding| finding.line.check == check).unwrap().line.cause;
        assert_eq!(cause("redis"), Some(ProbeCause::RedisUnreachable));
        assert_eq!(cause("livekit-server"), Some(ProbeCause::ServerUnreachable));
        assert_eq!(cause("configuration"), None);
        // No spillway-runner lies beside a test.
        assert_eq!(cause("target process"), Some(ProbeCause::TargetNotFound));
        assert!(
            !is_fine(&found) && found.iter().all(|finding| finding.line.cause.is_none() || !finding.change.is_empty())
        );
    }
}
