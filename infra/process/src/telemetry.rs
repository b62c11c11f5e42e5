//! The log of a process: format, level and filter, handed down to the processes it starts. Standard output belongs to
//! results, so the log goes to standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for each event, for people.
    #[default]
    Text,
    /// One JSON object for each event, for log collectors.
    Json,
}

const FILTER_VARIABLE: &str = "SPILLWAY_LOG";
const FORMAT_VARIABLE: &str = "SPILLWAY_LOG_FORMAT";

/// Filter and format of this process, for its children.
static CONFIGURED: OnceLock<(String, LogFormat)> = OnceLock::new();

/// Environment variables that give a child process this process' filter and format; empty before [`init`].
pub fn handed_down() -> Vec<(&'static str, String)> {
    let Some((filter, format)) = CONFIGURED.get() else { return Vec::new() };
    let format = if *format == LogFormat::Json { "json" } else { "text" };
    vec![(FILTER_VARIABLE, filter.clone()), (FORMAT_VARIABLE, format.to_owned())]
}

/// The format from the parent process' [`handed_down`]; text without one.
pub fn inherited_format() -> LogFormat {
    if std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format == "json") { LogFormat::Json } else { LogFormat::Text }
}

/// Libraries that fetch credentials: off at every level. Their warnings quote what they have read (a profile, the answer of
/// a metadata service or of a URL); the error of the call that needed the credentials says why there are none. And the one
/// that talks to a browser: every message goes through its log, the URL with the room token among them.
const CREDENTIAL_LIBRARIES: &[&str] =
    &["aws_config", "aws_credential_types", "aws_runtime", "azure_identity", "chromiumoxide", "google_cloud_auth"];

/// Libraries that log whole requests, with the credentials in their headers: never below warn, whatever the filter says.
const WARN_ONLY_LIBRARIES: &[&str] = &[
    "aws_sdk_ecs",
    "aws_sdk_s3",
    "aws_sdk_secretsmanager",
    "aws_sdk_sts",
    "aws_sigv4",
    "aws_smithy_http_client",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "azure_core",
    "azure_storage_blob",
    "bollard",
    "h2",
    "hyper",
    "hyper_util",
    "lambda_runtime",
    "lambda_runtime_api_client",
    "reqwest",
    "typespec_client_core",
];

/// The filter `asked` (tracing's syntax), with the libraries that would log credentials kept quiet. `None`: not a filter.
pub fn filter(asked: &str) -> Option<EnvFilter> {
    let quiet = WARN_ONLY_LIBRARIES.iter().fold(asked.to_owned(), |filter, library| format!("{filter},{library}=warn"));
    let quiet = CREDENTIAL_LIBRARIES.iter().fold(quiet, |filter, library| format!("{filter},{library}=off"));
    EnvFilter::try_new(quiet).ok()
}

/// Starts the log. `level` (`trace`, `debug`, `info`, `warn` or `error`) holds for our crates; libraries log at warn, or at
/// info when `level` is `debug` or `trace`. `SPILLWAY_LOG` (tracing's filter syntax) replaces both. A second call changes
/// nothing.
pub fn init(level: &str, format: LogFormat) {
    let libraries = if level == "debug" || level == "trace" { "info" } else { "warn" };
    let crates = [
        "protocol",
        "process",
        "plan",
        "bus",
        "storage",
        "launchers",
        "dispatcher",
        "lambda",
        "ipc",
        "runner",
        "media",
        "tests",
    ]
    .map(|name| format!("spillway_{name}={level}"))
    .join(",");
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| format!("{libraries},{crates}"));
    let _ = CONFIGURED.set((filter.clone(), format));
    let filter = self::filter(&filter).or_else(|| self::filter("info")).unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_target(false)
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr),
            )
            .try_init(),
    };
    // An error means that a subscriber is set (tests): the first one stays.
    let _ = result;
}
