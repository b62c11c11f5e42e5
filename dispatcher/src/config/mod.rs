//! What an operator decides: read from YAML and environment, checked, and documented.
//!
//! `keys` lists every key; `section` turns that list into the reader and into the reference; `environment` fills in
//! variables; `resolve` makes the [`Config`] (`stores`, `targets`, `tenants`, `pages`, `console`: its sections); `syntax_error` explains
//! what is wrong with a file; `check` prints the effective configuration. Reads files, connects to nothing.

pub mod syntax_error;
pub mod error;
pub mod duration;
pub mod values;
pub mod section;
pub mod keys;
mod environment;
mod stores;
mod pages;
mod console;
pub mod targets;
pub mod tenants;
pub mod settings;
mod resolve;
pub mod check;

use std::path::PathBuf;

pub use self::environment::Environment;
pub use self::error::ConfigError;
use self::keys::File;
pub use self::settings::Config;

/// The text of the configuration: `body` unless it is empty, else the content of `file`.
///
/// # Errors
/// When neither was given or the file cannot be read; a retry is right only after the file has changed.
pub fn text_of(body: Option<String>, file: Option<PathBuf>) -> Result<String, ConfigError> {
    match (body.filter(|body| !body.is_empty()), file) {
        (Some(body), _) => Ok(body),
        (None, Some(path)) if !path.as_os_str().is_empty() => {
            std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })
        }
        (None, _) => Err(ConfigError::Missing),
    }
}

/// The parsed file; keys it leaves out are taken from the environment where a variable exists for them.
///
/// # Errors
/// When the text is not a configuration or a variable's value is not possible; never worth a retry.
pub fn read(text: &str, env: Environment) -> Result<File, ConfigError> {
    // An empty text is a file without keys.
    let file: Option<File> = serde_yaml_ng::from_str(text).map_err(|error| ConfigError::Yaml(error.into()))?;
    environment::apply(file.unwrap_or_default(), env)
}

impl Config {
    /// Applies defaults and old names, and checks what contradicts itself. Reads the price list, if the file names one.
    ///
    /// # Errors
    /// When a value is not possible, two keys contradict each other, or the price list cannot be read; no retry.
    pub fn from_file(file: &File) -> Result<Self, ConfigError> {
        resolve::resolve(file)
    }

    /// As [`Config::from_file`], from text and without the environment.
    ///
    /// # Errors
    /// As [`read`] and [`Config::from_file`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::from_file(&read(text, &|_| None)?)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
