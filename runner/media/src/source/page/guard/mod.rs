//! The only way out of a page's browser: a forward proxy in this process (CONNECT, and `http://` in absolute form) that lets
//! through what the guard lets through, and connects to the address that was checked. `head` reads HTTP, `serve` is one
//! connection, `upstream` the proxy of the network behind ours, `refusals` what did not get through.
//!
//! Chromium's own means do not serve (page.md 7.1, 37 forms): requests that were stopped by the DevTools protocol let 12
//! through (names, workers, websockets), host rules one (rebinding). Datagrams do not come here: the browser's profile forbids
//! those that would pass a proxy.
//!
//! Our own and not hyper's server: of every message it reads one head, and passes on bodies and tunnels as they come.

mod serve;
mod upstream;
mod refusals;
mod head;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use spillway_guard::{Guard, GuardError, GuardRules, host_and_port};
use spillway_plan::Secret;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, warn};

pub use self::refusals::PageRefusal;
use self::refusals::RefusalLog;
use self::serve::{ProxyContext, serve};
use self::upstream::UpstreamProxy;
pub use self::upstream::UpstreamProxyError;

/// Connections at once. A browser keeps to 32 for each proxy, and idle ones beside them; more wait.
const MAX_CONNECTIONS: usize = 256;
/// After a connection that could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a page may reach, and how.
#[derive(Clone, Debug, Default)]
pub struct GuardOptions {
    /// The installation's list, and what the recording itself needs (see [`GuardOptions::open`]).
    pub rules: GuardRules,
    /// URL of the network's own proxy (`http://user:password@host:port`); `None`: hosts are connected to straight.
    pub upstream: Option<Secret>,
}

impl GuardOptions {
    /// Lets the page reach the server of this URL, at its port: livekit-server's, our template's. A URL without a host opens
    /// nothing.
    pub fn open(&mut self, url: &str) {
        if let Some((host, port)) = host_and_port(url) {
            self.rules.allow.push(format!("{host}:{port}"));
        }
    }
}

/// Why there is no proxy, and so no page. A retry does not help.
#[derive(Debug, thiserror::Error)]
pub enum GuardProxyError {
    /// No port, thread or event queue.
    #[error("start the page's proxy")]
    Start(#[from] io::Error),
    /// The network's own.
    #[error(transparent)]
    Upstream(#[from] UpstreamProxyError),
}

/// A proxy for one page. Dropping it ends its connections.
#[derive(Debug)]
pub struct GuardProxy {
    address: SocketAddr,
    log: Arc<RefusalLog>,
    /// `None` and the thread ends.
    until: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl GuardProxy {
    /// Listens on a port of loopback; its connections run on a thread of their own.
    ///
    /// # Errors
    ///
    /// The system has no port or thread left, or the network's proxy cannot be used; for good.
    pub fn start(options: &GuardOptions) -> Result<Self, GuardProxyError> {
        let upstream = options.upstream.as_ref().map(UpstreamProxy::parse).transpose()?;
        Ok(Self::with_guard(Guard::new(&options.rules), upstream)?)
    }

    fn with_guard(guard: Guard, upstream: Option<UpstreamProxy>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let log = Arc::<RefusalLog>::default();
        let context = Arc::new(ProxyContext { guard, upstream, log: log.clone() });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let (until, over) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("page-guard".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, context) => {}
                    // Ends when the sender is dropped.
                    _ = over => {}
                }
            });
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { address, log, until: Some(until), thread: Some(thread) })
    }

    /// For `--proxy-server`, with `--proxy-bypass-list=<-loopback>`: by itself Chromium goes to loopback without a proxy.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hosts that the page was refused since the last call, for `details`: each once, 32 at most.
    pub fn take_refusals(&self) -> Vec<PageRefusal> {
        self.log.take()
    }

    /// Why the last request to the host of this URL failed, if it did: the browser says `ERR_TUNNEL_CONNECTION_FAILED` of a
    /// refusal, of a name that is not there and of a server that is not there alike.
    pub fn failure(&self, url: &str) -> Option<GuardError> {
        self.log.failure(url)
    }
}

impl Drop for GuardProxy {
    fn drop(&mut self) {
        drop(self.until.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of a page's proxy panicked");
        }
    }
}

async fn accept(listener: TcpListener, context: Arc<ProxyContext>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let context = context.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(client, &context).await {
                        debug!(%error, "a page's connection broke");
                    }
                    drop(slot);
                });
            }
            // Out of files: those in use become free.
            Err(error) => {
                debug!(%error, "a page's connection was not taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
