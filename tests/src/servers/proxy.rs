//! An HTTP proxy with basic authentication.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const MAX_HEAD_BYTES: usize = 64 << 10;

/// Forwards plain requests (absolute form) and tunnels (CONNECT), and counts them. Ends when dropped.
pub struct AuthProxy {
    /// Where it listens.
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl AuthProxy {
    /// Accepts this user and password only.
    pub async fn start(username: &str, password: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let wanted: Arc<str> = format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))).into();
        let (passed, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (passed.clone(), refused.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (wanted, counts) = (wanted.clone(), counts.clone());
                // A client may hang up.
                tokio::spawn(async move { serve(client, &wanted, &counts.0, &counts.1).await });
            }
        });
        Ok(Self { address, passed, refused, task })
    }

    /// `http://` and the address, without credentials.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests and tunnels with the right credentials.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Requests and tunnels without them: answered 407.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for AuthProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, wanted: &str, passed: &AtomicU64, refused: &AtomicU64) -> Result<()> {
    let (head, rest) = read_head(&mut client).await?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let [method, target, version] = line.split(' ').collect::<Vec<_>>()[..] else { bail!("no request: {line}") };
    let headers: HashMap<String, &str> =
        lines.clone().filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v)).collect();
    if headers.get("proxy-authorization").copied() != Some(wanted) {
        refused.fetch_add(1, Ordering::Relaxed);
        client
            .write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"stage\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .await?;
        return Ok(());
    }
    passed.fetch_add(1, Ordering::Relaxed);
    if method == "CONNECT" {
        let mut server = TcpStream::connect(target).await?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        server.write_all(&rest).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let Some((host, path)) = target.strip_prefix("http://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    else {
        bail!("no absolute target: {target}");
    };
    let mut server = TcpStream::connect(host).await?;
    let kept = lines.filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !line.is_empty() && !name.starts_with("proxy-") && name != "connection"
    });
    let head = kept.fold(format!("{method} /{path} {version}\r\n"), |head, line| head + line + "\r\n");
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(&rest).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The head without its final blank line, and the bytes of the body read so far.
pub(crate) async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if from.read_buf(&mut bytes).await? == 0 || bytes.len() > MAX_HEAD_BYTES {
            bail!("no request");
        }
    }
}
