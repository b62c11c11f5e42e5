//! The commands that check and change nothing: `probe` and `doctor`. Findings go to standard output as they come, or as one JSON
//! document at the end; what happens meanwhile, and the log, to standard error. A failed check is an error.

use anyhow::{Context, bail};
use serde_json::json;
use spillway_bus::{ProbeCause, ProbeLine};
use spillway_dispatcher::Config;
use spillway_dispatcher::config::targets::TargetConfig;
use spillway_dispatcher::doctor;
use spillway_dispatcher::probe::{self, ProbeFinding, ProbeNews, ProbeOptions, ProbeSite, is_fine};
use spillway_process::telemetry::{self, LogFormat};

/// One target, or each of them in turn.
///
/// # Errors
/// There is no such target, or a check has failed.
pub async fn probe(config: &Config, target: Option<&str>, options: &ProbeOptions, json: bool) -> anyhow::Result<()> {
    let targets: Vec<&TargetConfig> =
        config.targets.iter().filter(|known| target.is_none_or(|name| known.name == name)).collect();
    if targets.is_empty() {
        let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        bail!("there is no target {}; there are {}", target.unwrap_or_default(), names.join(", "));
    }
    telemetry::init(&config.log_level, if config.log_json { LogFormat::Json } else { LogFormat::Text });
    let mut summaries = Vec::new();
    for target in targets {
        if !json {
            println!("target {}", target.name);
        }
        let tell: &mut (dyn FnMut(ProbeNews<'_>) + Send) = &mut |news| match news {
            ProbeNews::Finding(finding) if !json => println!("{}", finding.text()),
            ProbeNews::Finding(_) => {}
            ProbeNews::Progress(doing) => eprintln!("  {}: {doing}", target.name),
        };
        let summary = probe::probe(config, target, options, tell).await;
        if !json {
            println!("{}\n", summary.verdict());
        }
        summaries.push(summary);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&summaries).context("write the findings")?);
    }
    let failed: Vec<&str> =
        summaries.iter().filter(|summary| !summary.ok).map(|summary| summary.target.as_str()).collect();
    if !failed.is_empty() {
        bail!("a recording would fail on {}", failed.join(", "));
    }
    Ok(())
}

/// A configuration that cannot be read is a finding, too.
///
/// # Errors
/// A check has failed.
pub async fn doctor(config: anyhow::Result<Config>, json: bool) -> anyhow::Result<()> {
    let mut tell = |finding: &ProbeFinding| {
        if !json {
            println!("{}", finding.text());
        }
    };
    let findings = match config {
        Ok(config) => {
            telemetry::init(&config.log_level, if config.log_json { LogFormat::Json } else { LogFormat::Text });
            doctor::doctor(&config, &mut tell).await
        }
        Err(error) => {
            let line = ProbeLine::failed("configuration", ProbeCause::Unclear, format!("{error:#}"));
            let finding = ProbeFinding::of(line, ProbeSite::Here);
            tell(&finding);
            vec![finding]
        }
    };
    let ok = is_fine(&findings);
    if json {
        let document = json!({ "ok": ok, "findings": findings });
        println!("{}", serde_json::to_string_pretty(&document).context("write the findings")?);
    }
    if !ok {
        let failed = findings.iter().filter(|finding| !is_fine(std::slice::from_ref(*finding))).count();
        bail!("{failed} of {} checks have failed", findings.len());
    }
    Ok(())
}
