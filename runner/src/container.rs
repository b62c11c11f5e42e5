//! A runner that was started in a container: secrets that the platform put into its environment become the line that a
//! launcher would have written on standard input, and leave the environment before anything else is done. Runs in the main
//! thread before any other exists.
//!
//! Variables, as Terraform names them:
//! * `SPILLWAY_TICKET_KEY`: text of the ticket key (secret)
//! * `SPILLWAY_REDIS`: the configuration's `redis:` section as JSON, without secrets
//! * `SPILLWAY_REDIS_PASSWORD`: its password (secret); may be missing
//! * or `SPILLWAY_HANDOVER` instead of all: the whole line (secret)
//!
//! How it logs comes from `SPILLWAY_LOG` and `SPILLWAY_LOG_FORMAT`, as everywhere.

use std::env;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::MemfdFlags;
use serde_json::json;
use spillway_process::telemetry::{self, LogFormat};
use spillway_protocol::Secret;

const HANDOVER: &str = "SPILLWAY_HANDOVER";
const TICKET_KEY: &str = "SPILLWAY_TICKET_KEY";
const REDIS: &str = "SPILLWAY_REDIS";
const REDIS_PASSWORD: &str = "SPILLWAY_REDIS_PASSWORD";
const ALL: [&str; 4] = [HANDOVER, TICKET_KEY, REDIS, REDIS_PASSWORD];

/// Why the environment was not turned into a handover.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// A ticket key without Redis.
    #[error("{TICKET_KEY} is set and {REDIS} is not: it is not known where Redis is")]
    NoRedis,
    /// The text is not quoted: it may hold a password.
    #[error("{REDIS} is no JSON object")]
    BadRedis,
    /// No memory file could be made.
    #[error("keep the handover in memory")]
    Memory(#[source] io::Error),
    /// This program could not be executed again.
    #[error("start anew without secrets in the environment")]
    Reexec(#[source] io::Error),
}

/// The line, where the environment holds one.
fn handover_line(get: impl Fn(&str) -> Option<String>, json_log: bool) -> Result<Option<Secret>, ContainerError> {
    let given = |name: &str| get(name).filter(|value| !value.is_empty());
    if let Some(whole) = given(HANDOVER) {
        return Ok(Some(Secret::new(whole)));
    }
    let Some(key) = given(TICKET_KEY) else { return Ok(None) };
    let redis = given(REDIS).ok_or(ContainerError::NoRedis)?;
    // The parser's own message would quote the text, which may hold a password.
    let mut redis: serde_json::Value = serde_json::from_str(&redis).map_err(|_| ContainerError::BadRedis)?;
    let section = redis.as_object_mut().ok_or(ContainerError::BadRedis)?;
    if let Some(password) = given(REDIS_PASSWORD) {
        section.insert("password".to_owned(), password.into());
    }
    let handover_line = json!({ "ticket_key": key, "redis": redis, "log": { "json": json_log } });
    Ok(Some(Secret::new(handover_line.to_string())))
}

/// Where the environment holds secrets, executes this program once more without them, with the line on standard input; so
/// they are in no `/proc/<pid>/environ`, and no child can inherit them. Returns `Ok` only where there are none.
///
/// # Errors
/// Half of the variables are missing or wrong, or the operating system refuses. A retry changes nothing.
pub fn take_secrets_out() -> Result<(), ContainerError> {
    let json_log = telemetry::inherited_format() == LogFormat::Json;
    let Some(handover_line) = handover_line(|name| env::var(name).ok(), json_log)? else { return Ok(()) };
    let memory = rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC)
        .map_err(|error| ContainerError::Memory(error.into()))?;
    let mut memory = std::fs::File::from(memory);
    memory
        .write_all(handover_line.reveal().as_bytes())
        .and_then(|()| memory.rewind())
        .map_err(ContainerError::Memory)?;
    let ourselves = env::current_exe().map_err(ContainerError::Reexec)?;
    let mut command = Command::new(ourselves);
    command.args(env::args_os().skip(1)).stdin(Stdio::from(memory));
    for name in ALL {
        command.env_remove(name);
    }
    Err(ContainerError::Reexec(command.exec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket;

    fn line_of(variables: &[(&str, &str)]) -> Result<Option<Secret>, ContainerError> {
        let get = |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
        handover_line(get, true)
    }

    #[test]
    fn what_the_secret_store_gave_is_the_line_of_a_launcher() {
        let key = spillway_bus::TicketKey::random().reveal();
        let redis = r#"{"address":"r:6379","tls":{"enabled":true}}"#;
        let given = line_of(&[(TICKET_KEY, &key), (REDIS, redis), (REDIS_PASSWORD, "canary")]).unwrap().unwrap();
        let (handover, _) = ticket::handover(given.reveal().as_bytes()).unwrap();
        assert_eq!((handover.redis.address.as_str(), handover.redis.password.reveal().as_str()), ("r:6379", "canary"));
        assert!(handover.redis.tls_enabled() && handover.log.json);
        let whole = line_of(&[(HANDOVER, given.reveal())]).unwrap().unwrap();
        assert_eq!(whole.reveal(), given.reveal());
    }

    #[test]
    fn without_secrets_nothing_is_done_and_half_of_them_is_a_mistake_with_a_name() {
        assert!(line_of(&[(REDIS, "{}"), (TICKET_KEY, "")]).unwrap().is_none());
        let error = line_of(&[(TICKET_KEY, "k")]).unwrap_err();
        assert!(error.to_string().contains("SPILLWAY_REDIS is not"), "{error}");
        let error = line_of(&[(TICKET_KEY, "k"), (REDIS, "canary")]).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}
