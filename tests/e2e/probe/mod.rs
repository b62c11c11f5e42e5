//! `spillway-dispatcher probe` against targets in which something is wrong: each fault is named, with what to change. On the
//! clouds of this machine a fault is the platform's (quota, image, role, network …) or of what a task is given; with
//! processes it is of real servers (livekit-server, Redis, a store).

mod platforms;
mod given;
mod here;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use spillway_tests::servers::TestServers;

pub fn cases() -> Vec<Trial> {
    let cases = [platforms::cases(), given::cases(), here::cases()];
    cases.into_iter().flatten().collect()
}

/// What a probe of one target has found.
pub struct Probed {
    /// The program's exit status was 0.
    pub ok: bool,
    /// The summary of the target.
    pub summary: Value,
    /// Standard error.
    pub log: String,
}

/// Probes the configuration's only target.
pub async fn probe(servers: &TestServers, name: &str, config: &str, more: &[&str]) -> Result<Probed> {
    let arguments: Vec<&str> = ["probe", "--json"].into_iter().chain(more.iter().copied()).collect();
    let run = servers.dispatcher_command(name, config, &arguments).await?;
    let document: Value = serde_json::from_str(&run.out).with_context(|| format!("no findings: {run:?}"))?;
    let probed = Probed { ok: run.ok, summary: document[0].clone(), log: run.error };
    ensure!(probed.summary["ok"] == probed.ok, "{}", probed.summary);
    Ok(probed)
}

impl Probed {
    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.summary["findings"].as_array().into_iter().flatten()
    }

    /// The finding about this check; several stores have several.
    pub fn line(&self, check: &str) -> Result<&Value> {
        self.findings().find(|line| line["check"] == check).with_context(|| format!("no {check}: {}", self.summary))
    }

    /// One of these causes is named, with this in what to change.
    pub fn names(&self, fault: &str, causes: &[&str], advice: &str) -> Result<()> {
        let is_it = |line: &&Value| causes.iter().any(|cause| line["cause"] == *cause);
        let line = self.findings().find(is_it);
        let line = line.with_context(|| format!("{fault}: none of {causes:?} in {}\n{}", self.summary, self.log))?;
        println!("{fault}: {} {}: {} → {}", line["check"], line["cause"], line["message"], line["change"]);
        ensure!(
            line["change"].as_str().is_some_and(|change| change.contains(advice)),
            "{fault}: no {advice} in {line}"
        );
        ensure!(self.ok == (line["outcome"] == "warned"), "{fault}: {}", self.summary);
        Ok(())
    }
}
