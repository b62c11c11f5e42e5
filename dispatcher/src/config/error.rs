//! Why a configuration is refused. Returned to `main`, which prints it and exits.

use std::path::PathBuf;

use super::syntax_error::SyntaxError;

/// A configuration that cannot be used. No variant is worth a retry with the same input.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a file nor a text was given.
    #[error("missing config: name a file with --config or EGRESS_CONFIG_FILE, or give the text in EGRESS_CONFIG_BODY")]
    Missing,
    /// A file cannot be read: the configuration itself, or one it names (price list, Google credentials).
    #[error("read {}", path.display())]
    File {
        /// As it was given.
        path: PathBuf,
        /// From the file system.
        source: std::io::Error,
    },
    /// Not YAML, an unknown key, or a value of the wrong type.
    #[error("could not parse config")]
    Yaml(#[source] SyntaxError),
    /// Well-formed, but the value is not possible or contradicts another.
    #[error("`{key}`: {message}")]
    Value {
        /// Key of the file, or name of an environment variable.
        key: &'static str,
        /// What is wrong, for the operator.
        message: String,
    },
}
