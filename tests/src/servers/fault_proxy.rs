//! An HTTP proxy in front of a store that injects faults: overload, stalls, resets, truncated responses, changed bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::proxy::read_head;

/// A fault of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreFault {
    /// 503 with S3's `SlowDown`.
    Overload,
    /// 429.
    TooMany,
    /// 500 with an HTML body.
    Broken,
    /// The connection is reset after half of the request.
    Reset,
    /// The request is read and never answered.
    Stall,
    /// The store has executed the request; half of its response arrives.
    Truncated,
    /// The store has executed the request; no byte of its response arrives.
    Lost,
    /// A byte of the body is changed on the way.
    Damaged,
}

/// Every fault.
pub const ALL: [StoreFault; 8] = [
    StoreFault::Overload,
    StoreFault::TooMany,
    StoreFault::Broken,
    StoreFault::Reset,
    StoreFault::Stall,
    StoreFault::Truncated,
    StoreFault::Lost,
    StoreFault::Damaged,
];

/// Longer than any timeout of a test.
const STALL: Duration = Duration::from_secs(60);

/// The proxy; ends when dropped.
pub struct FaultProxy {
    /// Where it listens.
    pub address: SocketAddr,
    source: Arc<Mutex<FaultSource>>,
    task: JoinHandle<()>,
}

struct FaultSource {
    rng: StdRng,
    /// For requests without a script.
    probability: f64,
    script: VecDeque<Option<StoreFault>>,
    injected: BTreeMap<StoreFault, u64>,
    stats: BTreeMap<String, RequestStats>,
    /// Multipart uploads seen.
    uploads: BTreeSet<String>,
    /// Of them, aborted by a life-cycle rule.
    swept: BTreeSet<String>,
}

/// Complete requests of one method.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestStats {
    /// Count.
    pub requests: u64,
    /// Of their bodies.
    pub bytes: u64,
    /// Longest time of the store for one response.
    pub slowest: Duration,
}

impl FaultSource {
    fn next(&mut self) -> Option<StoreFault> {
        let fault = match self.script.pop_front() {
            Some(fault) => fault,
            None => {
                let fault = ALL[self.rng.random_range(0..ALL.len())];
                self.rng.random_bool(self.probability).then_some(fault)
            }
        };
        if let Some(fault) = fault {
            *self.injected.entry(fault).or_default() += 1;
        }
        fault
    }
}

impl FaultProxy {
    /// A proxy in front of the server at `to` (`host:port`). Injects nothing before a script or `set_probability`.
    pub async fn start(to: &str, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let source = FaultSource {
            rng: StdRng::seed_from_u64(seed),
            probability: 0.0,
            script: VecDeque::new(),
            injected: BTreeMap::new(),
            stats: BTreeMap::new(),
            uploads: BTreeSet::new(),
            swept: BTreeSet::new(),
        };
        let source = Arc::new(Mutex::new(source));
        let (shared, to) = (source.clone(), to.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (source, to) = (shared.clone(), to.clone());
                // A client may hang up.
                tokio::spawn(async move { serve(client, &to, &source).await });
            }
        });
        Ok(Self { address, source, task })
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Probability of a random fault for each request without a script.
    pub fn set_probability(&self, probability: f64) {
        self.source().probability = probability;
    }

    /// Faults of the next requests, in order; `None`: the request passes.
    pub fn script(&self, faults: impl IntoIterator<Item = Option<StoreFault>>) {
        self.source().script.extend(faults);
    }

    /// A life-cycle rule of the store aborts every multipart upload seen so far: later requests for them get S3's
    /// `NoSuchUpload`. Gives their number.
    pub fn sweep(&self) -> usize {
        let mut source = self.source();
        let seen = std::mem::take(&mut source.uploads);
        source.swept.extend(seen);
        source.swept.len()
    }

    /// Drops the rest of the script.
    pub fn clear(&self) {
        self.source().script.clear();
    }

    /// Faults injected so far.
    pub fn injected(&self) -> BTreeMap<StoreFault, u64> {
        self.source().injected.clone()
    }

    /// Requests of a method since the start or [`count_again`](Self::count_again).
    pub fn stats_of(&self, method: &str) -> RequestStats {
        self.source().stats.get(method).copied().unwrap_or_default()
    }

    /// Sets the counts of requests to 0.
    pub fn count_again(&self) {
        self.source().stats.clear();
    }

    fn source(&self) -> std::sync::MutexGuard<'_, FaultSource> {
        self.source.lock().expect("no panic while it is locked")
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request for each connection: the response has `Connection: close`.
async fn serve(mut client: TcpStream, to: &str, source: &Mutex<FaultSource>) -> Result<()> {
    let (head, mut body) = read_head(&mut client).await?;
    let fault = source.lock().expect("no panic while it is locked").next();
    let header = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let wanted = if fault == Some(StoreFault::Reset) { length / 2 } else { length };
    while body.len() < wanted {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(());
        }
    }
    let method = head.split(' ').next().unwrap_or_default();
    {
        let mut source = source.lock().expect("no panic while it is locked");
        let stats = source.stats.entry(method.to_owned()).or_default();
        (stats.requests, stats.bytes) = (stats.requests + 1, stats.bytes + body.len() as u64);
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    if let Some(upload) = target.split(['?', '&']).find_map(|field| field.strip_prefix("uploadId=")) {
        let swept = {
            let mut source = source.lock().expect("no panic while it is locked");
            let swept = source.swept.contains(upload);
            if !swept {
                source.uploads.insert(upload.to_owned());
            }
            swept
        };
        if swept {
            // The emulator drops it too; it checks no signature.
            let path = target.split('?').next().unwrap_or_default();
            let (_, headers) = head.split_once("\r\n").unwrap_or_default();
            let kept = headers.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
            let abort = kept.fold(format!("DELETE {path}?uploadId={upload} HTTP/1.1"), |all, line| all + "\r\n" + line);
            forwarded(to, &abort, b"").await?;
            let message = "<Error><Code>NoSuchUpload</Code><Message>The specified upload does not exist. The upload ID may be \
                         invalid, or the upload may have been aborted or completed.</Message></Error>";
            return refuse(&mut client, "404 Not Found", message).await;
        }
    }
    match fault {
        Some(StoreFault::Overload) => {
            let message = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            return refuse(&mut client, "503 Slow Down", message).await;
        }
        Some(StoreFault::TooMany) => return refuse(&mut client, "429 Too Many Requests", "").await,
        Some(StoreFault::Broken) => return refuse(&mut client, "500 Internal Server Error", "<html>oops</html>").await,
        Some(StoreFault::Reset) => return reset(client),
        Some(StoreFault::Stall) => {
            tokio::time::sleep(STALL).await;
            return Ok(());
        }
        Some(StoreFault::Damaged) if !body.is_empty() => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        _ => {}
    }
    let asked = Instant::now();
    let answer = forwarded(to, &head, &body).await?;
    if let Some(stats) = source.lock().expect("no panic while it is locked").stats.get_mut(method) {
        stats.slowest = stats.slowest.max(asked.elapsed());
    }
    match fault {
        Some(StoreFault::Lost) => reset(client),
        Some(StoreFault::Truncated) => {
            client.write_all(&answer[..answer.len() / 2]).await?;
            reset(client)
        }
        _ => Ok(client.write_all(&answer).await?),
    }
}

pub(super) async fn forwarded(to: &str, head: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut server = TcpStream::connect(to).await?;
    let kept = head.split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case("expect")
    });
    let head = kept.fold(String::new(), |head, line| head + line + "\r\n");
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn refuse(client: &mut TcpStream, status: &str, body: &str) -> Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(())
}

/// RST instead of FIN: the peer loses what it has not read.
fn reset(client: TcpStream) -> Result<()> {
    client.set_zero_linger()?;
    Ok(())
}
