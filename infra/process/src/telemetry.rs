use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a process speaks. Logs go to standard error; standard output belongs to results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line a person reads.
    #[default]
    Text,
    /// A JSON object a line, for log collectors.
    Json,
}

const FILTER_VARIABLE: &str = "SPILLWAY_LOG";
const FORMAT_VARIABLE: &str = "SPILLWAY_LOG_FORMAT";

/// How this process speaks, for those it starts.
static CONFIGURED: OnceLock<(String, LogFormat)> = OnceLock::new();

/// Environment that makes a child speak as we do.
pub fn handed_down() -> Vec<(&'static str, String)> {
    let Some((filter, format)) = CONFIGURED.get() else { return Vec::new() };
    let format = if *format == LogFormat::Json { "json" } else { "text" };
    vec![(FILTER_VARIABLE, filter.clone()), (FORMAT_VARIABLE, format.to_owned())]
}

/// The form a parent has handed down; text without one.
pub fn inherited_format() -> LogFormat {
    if std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format == "json") { LogFormat::Json } else { LogFormat::Text }
}

/// Libraries that get credentials: they say nothing at all. Their warnings quote what they have read (a profile, the
/// answer of a metadata service or of a URL); why there are no credentials is said by the error of the call that needed them.
const CREDENTIAL_LIBRARIES: &[&str] =
    &["aws_config", "aws_credential_types", "aws_runtime", "azure_identity", "google_cloud_auth"];

/// Libraries that write down whole requests, with the credentials in their headers: they only warn, whatever is asked for.
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

/// What is said of what a filter asks for; `None`: it is none.
pub fn filter(asked: &str) -> Option<EnvFilter> {
    let quiet = WARN_ONLY_LIBRARIES.iter().fold(asked.to_owned(), |filter, library| format!("{filter},{library}=warn"));
    let quiet = CREDENTIAL_LIBRARIES.iter().fold(quiet, |filter, library| format!("{filter},{library}=off"));
    EnvFilter::try_new(quiet).ok()
}

/// Starts the log. `level` is `debug`, `info`, `warn` or `error`; `SPILLWAY_LOG` (tracing's filter syntax) goes before it.
/// Libraries speak at warn, or one level finer when we are debugged. A second call changes nothing.
pub fn init(level: &str, format: LogFormat) {
    let libraries = if level == "debug" || level == "trace" { "info" } else { "warn" };
    let ours = [
        "protocol",
        "process",
        "plan",
        "bus",
        "storage",
        "launchers",
        "dispatcher",
        "spool",
        "runner",
        "media",
        "tests",
    ]
    .map(|room| format!("spillway_{room}={level}"))
    .join(",");
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| format!("{libraries},{ours}"));
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
    // Already started (tests): the first one stays.
    let _ = result;
}
