//! From an address in the configuration to a connection that answers: Sentinel lookup, TCP, TLS, login, PING. Each
//! step has a timeout; nothing is retried here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, ErrorKind, FromRedisValue, ProtocolVersion, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::tls::TlsDialler;
use crate::config::{RedisConfig, RedisTopology};
use crate::error::{BusError, Cause, ConnectStep};

/// Where one connection goes.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    /// host:port.
    Address(String),
    /// The master that the Sentinels name at the time of connecting.
    Master {
        /// host:port of each.
        sentinels: Vec<String>,
        /// Of the master.
        name: String,
    },
    /// Any of these servers of a Cluster, in turn.
    AnyOf(Vec<String>),
}

impl Endpoint {
    /// # Errors
    /// The configuration names no address, or Sentinels without a master; for good.
    pub fn of(config: &RedisConfig) -> Result<Self, BusError> {
        match config.topology() {
            Some(RedisTopology::Single { address }) => Ok(Self::Address(address.to_owned())),
            Some(RedisTopology::Cluster { addresses }) => Ok(Self::AnyOf(addresses.to_vec())),
            Some(RedisTopology::Sentinel { master: "", .. }) => {
                Err(BusError::Settings("sentinel_addresses without sentinel_master_name".into()))
            }
            Some(RedisTopology::Sentinel { addresses, master }) => {
                Ok(Self::Master { sentinels: addresses.to_vec(), name: master.to_owned() })
            }
            None => Err(BusError::Settings("none of address, sentinel_addresses, cluster_addresses is given".into())),
        }
    }
}

/// Makes connections. Shared by all tasks of one backend.
pub(super) struct Dialler {
    tls: Option<TlsDialler>,
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    /// Timeout for TCP and TLS.
    dial: Duration,
    /// Timeout for an answer.
    pub answer: Duration,
    /// Counts connection attempts: each starts with the next of a list of addresses, so that a dead one does not cost
    /// its timeout every time.
    round: AtomicUsize,
}

impl Dialler {
    /// # Errors
    /// The TLS settings are wrong or name files that cannot be read.
    pub fn new(config: &RedisConfig) -> Result<Self, BusError> {
        let or = |given: u64, ours: u64| Duration::from_millis(if given == 0 { ours } else { given });
        let cluster = matches!(config.topology(), Some(RedisTopology::Cluster { .. }));
        Ok(Self {
            tls: if config.tls_enabled() { Some(TlsDialler::new(&config.tls)?) } else { None },
            // A Cluster has one database.
            login: login(&config.username, config.password.reveal()).set_db(if cluster { 0 } else { config.db }),
            sentinel_login: login(&config.sentinel_username, config.sentinel_password.reveal()),
            dial: or(config.dial_timeout, 5000),
            answer: or(config.read_timeout.max(config.write_timeout), 3000),
            round: AtomicUsize::new(0),
        })
    }

    /// A connection for commands that has answered a PING.
    ///
    /// # Errors
    /// No server was reached in time, it refused the login, or it is not a master; a retry is right.
    pub async fn commands(&self, target: &Endpoint) -> Result<Connection, BusError> {
        let address = self.locate(target).await?;
        let conn = self.open(&address, &self.login).await?;
        // Right after a failover a Sentinel may still name the old master.
        if matches!(target, Endpoint::Master { .. }) {
            let role: Vec<redis::Value> = ask(self.answer, &conn, redis::cmd("ROLE")).await?;
            let role = role.into_iter().next().and_then(|role| String::from_redis_value(role).ok());
            if role.as_deref() != Some("master") {
                let why = format!("the sentinels name it, but its role is {role:?}");
                return Err(connect(&address, ConnectStep::Answer, why));
            }
        }
        Ok(conn)
    }

    /// A connection for subscriptions.
    ///
    /// # Errors
    /// As [`Dialler::commands`].
    pub async fn pubsub(&self, target: &Endpoint) -> Result<PubSub, BusError> {
        let address = self.locate(target).await?;
        let stream = self.stream(&address).await?;
        within(self.answer, &address, async { PubSub::new(&self.login, stream).await.map_err(Cause::from) }).await
    }

    async fn locate(&self, target: &Endpoint) -> Result<String, BusError> {
        match target {
            Endpoint::Address(address) => Ok(address.clone()),
            Endpoint::AnyOf(addresses) => {
                let start = self.round.fetch_add(1, Ordering::Relaxed);
                Ok(addresses[start % addresses.len()].clone())
            }
            Endpoint::Master { sentinels, name } => {
                let start = self.round.fetch_add(1, Ordering::Relaxed);
                let mut last = None;
                for at in 0..sentinels.len() {
                    match self.master(&sentinels[(start + at) % sentinels.len()], name).await {
                        Ok(address) => return Ok(address),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(|| BusError::Settings("no sentinel addresses".into())))
            }
        }
    }

    async fn master(&self, sentinel: &str, name: &str) -> Result<String, BusError> {
        let conn = self.open(sentinel, &self.sentinel_login).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(name);
        let master: Option<(String, String)> = ask(self.answer, &conn, question).await?;
        match master {
            Some((host, port)) if host.contains(':') => Ok(format!("[{host}]:{port}")),
            Some((host, port)) => Ok(format!("{host}:{port}")),
            None => Err(connect(sentinel, ConnectStep::Answer, format!("this sentinel knows no master {name:?}"))),
        }
    }

    async fn open(&self, address: &str, login: &RedisConnectionInfo) -> Result<Connection, BusError> {
        let stream = self.stream(address).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.answer));
        let closed = CancellationToken::new();
        let closing = closed.clone().drop_guard();
        let connection = within(self.answer, address, async {
            let (connection, driver) = MultiplexedConnection::new_with_config(login, stream, config).await?;
            // Ends by itself when the connection, or every handle to it, is gone.
            tokio::spawn(async move {
                let _closing = closing;
                driver.await;
            });
            Ok(connection)
        })
        .await?;
        let conn = Connection { address: address.to_owned(), connection, closed };
        // A server that is loading its data accepts connections and refuses every command.
        let _: String = ask(self.answer, &conn, redis::cmd("PING")).await?;
        Ok(conn)
    }

    async fn stream(&self, address: &str) -> Result<Box<dyn RedisStream>, BusError> {
        let by = Instant::now() + self.dial;
        let lookup = async { Ok::<Vec<SocketAddr>, io::Error>(lookup_host(address).await?.collect()) };
        let addresses = self.step(ConnectStep::Resolve, address, by, lookup).await?;
        let open = async {
            let tcp = TcpStream::connect(&addresses[..]).await?;
            tcp.set_nodelay(true)?;
            Ok::<TcpStream, io::Error>(tcp)
        };
        let tcp = self.step(ConnectStep::Open, address, by, open).await?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(self.step(ConnectStep::Encrypt, address, by, tls.wrap(address, tcp)).await?),
        })
    }

    async fn step<T>(
        &self,
        step: ConnectStep,
        address: &str,
        by: Instant,
        work: impl Future<Output = io::Result<T>>,
    ) -> Result<T, BusError> {
        match timeout_at(by, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(connect(address, step, error)),
            Err(_) => Err(connect(address, step, format!("no connection within {:?}", self.dial))),
        }
    }
}

/// A connection for commands.
pub(super) struct Connection {
    /// host:port it was made to.
    pub address: String,
    /// Handle to the multiplexed connection.
    pub connection: MultiplexedConnection,
    /// Cancelled when the socket is closed.
    pub closed: CancellationToken,
}

/// TCP, or TLS over it.
pub(super) trait RedisStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> RedisStream for T {}

/// One dialler for all connections.
pub(super) type SharedDialler = Arc<Dialler>;

fn login(username: &str, password: &str) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP2)
        .set_lib_name("spillway", env!("CARGO_PKG_VERSION"));
    if !username.is_empty() {
        login = login.set_username(username);
    }
    if !password.is_empty() {
        login = login.set_password(password);
    }
    login
}

async fn ask<T: FromRedisValue>(
    answer_timeout: Duration,
    conn: &Connection,
    question: redis::Cmd,
) -> Result<T, BusError> {
    let mut connection = conn.connection.clone();
    within(answer_timeout, &conn.address, async { question.query_async(&mut connection).await.map_err(Cause::from) })
        .await
}

async fn within<T>(
    answer_timeout: Duration,
    address: &str,
    work: impl Future<Output = Result<T, Cause>>,
) -> Result<T, BusError> {
    match timeout(answer_timeout, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(connect(address, step_of(&source), source)),
        Err(_) => Err(connect(address, ConnectStep::Answer, format!("no answer within {answer_timeout:?}"))),
    }
}

/// How far a connection came on which this was reported.
fn step_of(source: &Cause) -> ConnectStep {
    let Some(error) = source.downcast_ref::<RedisError>() else { return ConnectStep::Answer };
    match error.kind() {
        _ if error.is_timeout() => ConnectStep::Answer,
        ErrorKind::AuthenticationFailed => ConnectStep::LogIn,
        ErrorKind::Io | ErrorKind::Parse => ConnectStep::Speak,
        _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => ConnectStep::LogIn,
        _ => ConnectStep::Answer,
    }
}

fn connect(address: &str, step: ConnectStep, why: impl Into<Cause>) -> BusError {
    BusError::Connect { address: address.to_owned(), step, source: why.into() }
}
