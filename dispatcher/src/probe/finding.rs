//! What checks have found, for people and for machines: one line each with a mark, and below it what to change. Values only.

use serde::Serialize;
use spillway_bus::{ProbeCause, ProbeLine, ProbeOutcome};

use super::advice::{ProbeSite, advice};

/// One check with what to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeFinding {
    /// What was found.
    #[serde(flatten)]
    pub line: ProbeLine,
    /// What to change; empty where nothing is to be changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub change: String,
}

impl ProbeFinding {
    /// A line from this kind of platform.
    pub fn of(line: ProbeLine, site: ProbeSite) -> Self {
        let wants_change = matches!(line.outcome, ProbeOutcome::Failed | ProbeOutcome::Warned);
        let cause = line.cause.or(Some(ProbeCause::Unclear)).filter(|_| wants_change);
        let change = cause.map(|cause| advice(cause, site)).unwrap_or_default();
        Self { line, change }
    }

    /// One line, or two.
    pub fn text(&self) -> String {
        let ProbeLine { check, outcome, message, took_ms, .. } = &self.line;
        let mark = match outcome {
            ProbeOutcome::Passed => "✓",
            ProbeOutcome::Noted => "·",
            ProbeOutcome::Warned => "!",
            ProbeOutcome::Failed => "✗",
        };
        let time = if *took_ms > 0 { format!(" ({took_ms} ms)") } else { String::new() };
        let first = format!("{mark} {check:<16} {message}{time}");
        if self.change.is_empty() { first } else { format!("{first}\n    change: {}", self.change) }
    }
}

/// Everything that was found about one target.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeSummary {
    /// Its name.
    pub target: String,
    /// Nothing has failed.
    pub ok: bool,
    /// Id of the probe; its task is labelled with it.
    pub probe: String,
    /// The platform's name of the task; `None`: none was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// In the order in which they came.
    pub findings: Vec<ProbeFinding>,
}

impl ProbeSummary {
    /// The last line for people.
    pub fn verdict(&self) -> String {
        let count = |outcome| self.findings.iter().filter(|finding| finding.line.outcome == outcome).count();
        let (failed, warned) = (count(ProbeOutcome::Failed), count(ProbeOutcome::Warned));
        match (failed, warned) {
            (0, 0) => format!("{}: a recording would work", self.target),
            (0, _) => format!("{}: a recording would work, {warned} of its checks with a warning", self.target),
            _ => format!("{}: a recording would fail, {failed} of its checks have", self.target),
        }
    }
}

/// Nothing has failed.
pub fn is_fine(findings: &[ProbeFinding]) -> bool {
    findings.iter().all(|finding| finding.line.outcome != ProbeOutcome::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_a_mark_and_what_to_change() {
        let passed =
            ProbeFinding::of(ProbeLine { took_ms: 4, ..ProbeLine::passed("redis", "version 7.2") }, ProbeSite::Aws);
        assert_eq!(passed.text(), "✓ redis            version 7.2 (4 ms)");
        let failed = ProbeLine::failed("store S3", ProbeCause::StoreDenied, "put: AccessDenied");
        let failed = ProbeFinding::of(failed, ProbeSite::Aws);
        let text = failed.text();
        assert!(
            text.starts_with("✗ store S3") && text.contains("\n    change: ") && text.contains("s3:PutObject"),
            "{text}"
        );
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!((json["check"].as_str(), json["cause"].as_str()), (Some("store S3"), Some("store_denied")));
        assert!(!is_fine(&[passed.clone(), failed.clone()]) && is_fine(std::slice::from_ref(&passed)));
        let summary = ProbeSummary {
            target: "aws".into(),
            ok: false,
            probe: "PB_1".into(),
            task: None,
            findings: vec![passed, failed],
        };
        assert_eq!(summary.verdict(), "aws: a recording would fail, 1 of its checks have");
    }

    #[test]
    fn what_a_newer_runner_reports_still_has_advice() {
        let line: ProbeLine = serde_json::from_str(r#"{"check":"gpu","outcome":"odd","message":"?"}"#).unwrap();
        let finding = ProbeFinding::of(line, ProbeSite::Docker);
        assert!(!finding.change.is_empty() && !is_fine(&[finding]));
    }
}
