//! Servers that must not be reached: on every address of this network namespace, they note who comes. At one address, the public
//! one, the same listeners are an ordinary web server with the page that tries.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

const MAX_HEAD_BYTES: usize = 16 << 10;

/// End when dropped.
pub struct Canaries {
    state: Arc<CanaryState>,
    tasks: Vec<JoinHandle<()>>,
}

struct CanaryState {
    public: IpAddr,
    page: String,
    hits: Mutex<BTreeSet<String>>,
    said: Mutex<Option<String>>,
}

impl Canaries {
    /// Listens on these ports of every address. The web server at `public` answers `/` with the page; any other path with something.
    pub async fn start(public: IpAddr, page: String, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let state = Arc::new(CanaryState { public, page, hits: Mutex::default(), said: Mutex::default() });
        let mut tasks = Vec::new();
        for port in tcp {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).await;
            let listener = listener.with_context(|| format!("listen on port {port}"))?;
            let state = state.clone();
            tasks.push(tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = state.clone();
                    // A browser may open connections that it does not use.
                    tokio::spawn(async move { state.serve(stream).await.is_ok() });
                }
            }));
        }
        for port in udp {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, *port)).await;
            let (socket, state, port) =
                (socket.with_context(|| format!("listen on port {port}"))?, state.clone(), *port);
            tasks.push(tokio::spawn(async move {
                while socket.recv_from(&mut [0; 1500]).await.is_ok() {
                    state.hit(format!("datagram at port {port}"));
                }
            }));
        }
        Ok(Self { state, tasks })
    }

    /// Who came since the last call: `connection at ADDRESS`, `PATH at ADDRESS`, `datagram at port PORT`.
    pub fn take_hits(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.state.hits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the page has said at its end (`/said?…`) since the last call.
    pub fn take_said(&self) -> Option<String> {
        self.state.said.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl CanaryState {
    fn hit(&self, hit: String) {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner).insert(hit);
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let at = stream.local_addr()?.ip().to_canonical();
        if at != self.public {
            // A connection alone is a hit: a port scanner needs no more.
            self.hit(format!("connection at {at}"));
        }
        let mut head = Vec::with_capacity(4 << 10);
        while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("nothing").to_owned();
        if at != self.public {
            self.hit(format!("{path} at {at}"));
            return stream.write_all(&reply("200 OK", "text/plain", "x")).await;
        }
        // What a worker does when it runs, in its own ways.
        let worker =
            |name: &str| format!("fetch('http://169.254.169.254/{name}', {{ mode: 'no-cors' }}).catch(() => {{}});");
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let reply = match path {
            "/" => reply("200 OK", "text/html; charset=utf-8", &self.page),
            "/said" => {
                *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(query.to_owned());
                reply("200 OK", "text/plain", "")
            }
            "/redirect" => {
                format!("HTTP/1.1 302 Found\r\nLocation: {query}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .into_bytes()
            }
            "/worker.js" | "/shared.js" | "/service.js" => {
                let script = worker(path.trim_start_matches('/'));
                reply("200 OK", "text/javascript", &script)
            }
            _ => reply("200 OK", "text/plain", "x"),
        };
        stream.write_all(&reply).await
    }
}

fn reply(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nAccess-Control-Allow-Origin: *\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
