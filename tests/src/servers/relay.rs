//! A TCP relay in front of a server on this machine, which breaks as networks do: it resets its connections, leaves them
//! hanging, or is slow in the direction of the server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Of what is read at once.
const CHUNK_BYTES: usize = 4 << 10;
/// Of a slow relay: what the kernel takes beyond it hides how slow it is.
const BUFFER_BYTES: u32 = 16 << 10;

/// The relay; ends with all connections when dropped.
pub struct TcpRelay {
    address: SocketAddr,
    to: SocketAddr,
    orders: watch::Sender<RelayOrder>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

/// What becomes of the connections that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RelayOrder {
    /// They are closed.
    Close,
    /// Their clients get a reset.
    Reset,
    /// Nothing more is read or written, and nothing is closed.
    Hang,
}

impl TcpRelay {
    /// In front of `to`. With `bytes_per_second` so much is carried to the server on each connection; what the server sends
    /// is not slowed.
    pub async fn start(to: SocketAddr, bytes_per_second: Option<u64>) -> Result<Self> {
        let socket = TcpSocket::new_v4().context("make a socket")?;
        if bytes_per_second.is_some() {
            socket.set_recv_buffer_size(BUFFER_BYTES).context("make the relay's buffer small")?;
        }
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).context("bind the relay")?;
        let listener = socket.listen(16).context("listen as a relay")?;
        let address = listener.local_addr()?;
        let accepted = Arc::<Mutex<Vec<Instant>>>::default();
        let orders = watch::Sender::new(RelayOrder::Close);
        let (begun, told) = (accepted.clone(), orders.clone());
        let task = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                begun.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                // What hung is given up when its client comes again: a server would refuse it while it has the old one.
                told.send_if_modified(|order| std::mem::replace(order, RelayOrder::Close) == RelayOrder::Hang);
                connections.spawn(serve(client, to, bytes_per_second, told.subscribe()));
            }
        });
        Ok(Self { address, to, orders, accepted, task })
    }

    /// The URL of something on the server, through this relay.
    pub fn in_front_of(&self, url: &str) -> String {
        url.replacen(&self.to.to_string(), &self.address.to_string(), 1)
    }

    /// Resets every connection.
    pub fn reset(&self) {
        self.orders.send_replace(RelayOrder::Reset);
    }

    /// Leaves every connection hanging until the next one comes: half open, as after a cable was pulled.
    pub fn hang(&self) {
        self.orders.send_replace(RelayOrder::Hang);
    }

    /// When each connection was accepted.
    pub fn accepted(&self) -> Vec<Instant> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    to: SocketAddr,
    bytes_per_second: Option<u64>,
    mut orders: watch::Receiver<RelayOrder>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    // On a network that is whole it is the same as without a relay.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::select! {
        carried = carry(&mut client, &mut server, bytes_per_second) => return carried,
        // Fails when the relay is dropped, and this task with it.
        _ = orders.changed() => {}
    }
    let order = *orders.borrow_and_update();
    match order {
        RelayOrder::Close => {}
        RelayOrder::Reset => rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?,
        RelayOrder::Hang => drop(orders.changed().await),
    }
    Ok(())
}

/// Until one side closes.
async fn carry(client: &mut TcpStream, server: &mut TcpStream, bytes_per_second: Option<u64>) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let Some(rate) = bytes_per_second else { return copy(&mut from_client, &mut to_server).await.map(drop) };
        let mut chunk = [0; CHUNK_BYTES];
        let (begun, mut carried) = (Instant::now(), 0);
        loop {
            let length = from_client.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            to_server.write_all(&chunk[..length]).await?;
            carried += length;
            let due = begun + Duration::from_secs_f64(carried as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(due.into()).await;
        }
    };
    tokio::select! {
        up = up => up,
        down = copy(&mut from_server, &mut to_client) => down.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut io, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = io.split();
                    copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn said(client: &mut TcpStream) -> io::Result<[u8; 2]> {
        client.write_all(b"hi").await?;
        let mut answer = [0; 2];
        client.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn it_carries_resets_and_hangs() {
        let to = echo().await;
        let relay = TcpRelay::start(to, None).await.unwrap();
        assert_eq!(relay.in_front_of(&format!("rtmp://{to}/a/b")), format!("rtmp://{}/a/b", relay.address));
        let mut first = TcpStream::connect(relay.address).await.unwrap();
        assert_eq!(&said(&mut first).await.unwrap(), b"hi");
        relay.reset();
        assert_eq!(first.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut second = TcpStream::connect(relay.address).await.unwrap();
        assert_eq!(&said(&mut second).await.unwrap(), b"hi");
        relay.hang();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(tokio::time::timeout(Duration::from_millis(200), said(&mut second)).await.is_err());
        let mut third = TcpStream::connect(relay.address).await.unwrap();
        assert_eq!(&said(&mut third).await.unwrap(), b"hi");
        assert_eq!(relay.accepted().len(), 3);
    }
}
