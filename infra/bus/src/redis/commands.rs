//! Commands to one server, or to the server of a Cluster that has the key. Runs in the caller's task and waits for
//! bounded times only; the connections ([`super::node`]) have tasks of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::try_join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

use super::dial::{Endpoint, SharedDialler};
use super::node::{Asking, Node, NodeReply};
use crate::config::{RedisConfig, RedisTopology};
use crate::error::BusError;

/// Commands in one pipeline. More would delay other callers of the same connection.
const PIPELINE_COMMANDS: usize = 500;
/// Single commands of one caller that are on their way to a Cluster at once.
const IN_FLIGHT: usize = 64;

/// A script with its keys; arguments are added by the caller. EVAL, since a script cache can be lost at any failover.
pub(super) fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg(text).arg(keys.len()).arg(keys);
    cmd
}

/// An answer, or a part of one, as a `T`.
///
/// # Errors
/// It is no `T`.
pub(super) fn typed<T: FromRedisValue>(act: &'static str, answer: Value) -> Result<T, BusError> {
    redis::from_redis_value(answer).map_err(|error| BusError::Command { act, source: error.into() })
}

/// Where commands go.
pub(super) enum Commands {
    /// A single server, or the master the Sentinels name.
    One(Node),
    /// Servers that share the keys.
    Cluster(Cluster),
}

impl Commands {
    /// Returns when a server answered.
    ///
    /// # Errors
    /// No address answered, or the login was refused; a retry is right while Redis may still be starting.
    pub async fn connect(config: &RedisConfig, dialler: SharedDialler) -> Result<Self, BusError> {
        let Some(RedisTopology::Cluster { addresses }) = config.topology() else {
            return Ok(Self::One(Node::connect(dialler, Endpoint::of(config)?).await?));
        };
        let redirects = if config.max_redirects == 0 { 2 } else { config.max_redirects };
        Ok(Self::Cluster(Cluster::connect(dialler, addresses.to_vec(), redirects).await?))
    }

    /// One command. `key`: the key it is about, which decides the server in a Cluster; `None`: any server.
    ///
    /// # Errors
    /// Redis was not reached, refused the command, did not answer in time, or answered something that is no `T`. The
    /// command may have been done.
    pub async fn run<T: FromRedisValue>(&self, act: &'static str, key: Option<&str>, cmd: Cmd) -> Result<T, BusError> {
        let answer = match self {
            Self::One(node) => match node.run(act, &cmd, Asking::No).await? {
                NodeReply::Done(value) => value,
                NodeReply::Refused { error, .. } => return Err(BusError::Command { act, source: error.into() }),
            },
            Self::Cluster(cluster) => cluster.run(act, key, &cmd).await?,
        };
        typed(act, answer)
    }

    /// Reads of many keys, in their order: pipelines to one server, or single commands to the servers of a Cluster.
    ///
    /// # Errors
    /// As [`Commands::run`], of the first that failed.
    pub async fn run_all(&self, act: &'static str, asked: Vec<(String, Cmd)>) -> Result<Vec<Value>, BusError> {
        let mut answers = Vec::with_capacity(asked.len());
        match self {
            Self::One(node) => {
                for some in asked.chunks(PIPELINE_COMMANDS) {
                    let mut pipe = redis::pipe();
                    for (_, cmd) in some {
                        pipe.add_command(cmd.clone());
                    }
                    match node.run_all(act, &pipe).await? {
                        NodeReply::Done(Value::Array(some)) => answers.extend(some),
                        NodeReply::Done(other) => answers.push(other),
                        NodeReply::Refused { error, .. } => {
                            return Err(BusError::Command { act, source: error.into() });
                        }
                    }
                }
            }
            Self::Cluster(cluster) => {
                for some in asked.chunks(IN_FLIGHT) {
                    let mut each = Vec::with_capacity(some.len());
                    for (key, cmd) in some {
                        each.push(cluster.run(act, Some(key), cmd));
                    }
                    answers.extend(try_join_all(each).await?);
                }
            }
        }
        if answers.len() != asked.len() {
            return Err(BusError::Command { act, source: "redis answered fewer commands than it was sent".into() });
        }
        Ok(answers)
    }

    /// Whether commands are answered; in a Cluster by the first connected server.
    pub fn is_up(&self) -> bool {
        match self {
            Self::One(node) => node.is_up(),
            Self::Cluster(cluster) => cluster.home.is_up(),
        }
    }
}

/// Learns from MOVED which server has which slot and asks there the next time. Every command of this crate has keys
/// of one slot.
pub(super) struct Cluster {
    dialler: SharedDialler,
    /// One of the configured servers, for slots not learned yet and for commands without a key.
    home: Node,
    redirects: u32,
    learned: Mutex<Learned>,
}

#[derive(Default)]
struct Learned {
    nodes: HashMap<String, Arc<Node>>,
    slots: HashMap<u16, String>,
}

impl Cluster {
    async fn connect(dialler: SharedDialler, addresses: Vec<String>, redirects: u32) -> Result<Self, BusError> {
        let target = Endpoint::AnyOf(addresses.clone());
        let mut outcome = Node::connect(dialler.clone(), target.clone()).await;
        for _ in 1..addresses.len() {
            if outcome.is_ok() {
                break;
            }
            outcome = Node::connect(dialler.clone(), target.clone()).await;
        }
        Ok(Self { dialler, home: outcome?, redirects, learned: Mutex::default() })
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn run(&self, act: &'static str, key: Option<&str>, cmd: &Cmd) -> Result<Value, BusError> {
        let mut at = key.map(slot_of).and_then(|slot| self.learned().slots.get(&slot).cloned());
        let mut asking = Asking::No;
        let mut left = self.redirects;
        loop {
            let answer = match &at {
                Some(address) => self.node(address).run(act, cmd, asking).await,
                None => self.home.run(act, cmd, asking).await,
            };
            let (address, error) = match answer {
                Ok(NodeReply::Done(value)) => return Ok(value),
                Ok(NodeReply::Refused { address, error }) => (address, error),
                // The server that had this slot is gone; the others know which one has it now.
                Err(_) if at.is_some() && left > 0 => {
                    left -= 1;
                    self.forget(&at.take().unwrap_or_default());
                    asking = Asking::No;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some((hint, slot, to)) = redirection(&error, &address).filter(|_| left > 0) else {
                return Err(BusError::Command { act, source: error.into() });
            };
            left -= 1;
            asking = hint;
            if hint == Asking::No {
                self.learned().slots.insert(slot, to.clone());
            }
            at = Some(to);
        }
    }

    fn node(&self, address: &str) -> Arc<Node> {
        let mut learned = self.learned();
        let node = learned.nodes.entry(address.to_owned());
        let start = || Arc::new(Node::start(self.dialler.clone(), Endpoint::Address(address.to_owned()), None));
        node.or_insert_with(start).clone()
    }

    fn forget(&self, address: &str) {
        let mut learned = self.learned();
        learned.nodes.remove(address);
        learned.slots.retain(|_, at| at != address);
    }
}

/// MOVED is for good, ASK for this one command.
fn redirection(error: &RedisError, asked: &str) -> Option<(Asking, u16, String)> {
    let hint = match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => Asking::No,
        ErrorKind::Server(ServerErrorKind::Ask) => Asking::Yes,
        _ => return None,
    };
    let (address, slot) = error.redirect_node()?;
    // A server that does not know its own name leaves the host out and means the one we asked.
    let address = match address.strip_prefix(':') {
        Some(port) => format!("{}:{port}", asked.rsplit_once(':')?.0),
        None => address.to_owned(),
    };
    Some((hint, slot, address))
}

/// CRC16 (XMODEM) of the key, or of the text in its first braces, modulo 16384. redis-rs has the same
/// behind its feature `cluster` only, which pulls in its own `crc16`.
fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 }
            },
        )
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_own() {
        // From `CLUSTER KEYSLOT`.
        assert_eq!(slot_of("123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12182);
        assert_eq!(slot_of("spillway:{foo}:record"), 12182);
        assert_eq!(slot_of("{}foo"), slot_of("{}foo"));
        assert_ne!(slot_of("{}foo"), slot_of(""));
    }
}
