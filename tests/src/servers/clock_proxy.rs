//! A Redis whose clock is wrong: a proxy that changes the answers to `TIME` and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Two texts, of which the first has ten characters: seconds until the year 2286.
const ANSWER: &[u8] = b"*2\r\n$10\r\n";
const DIGITS: usize = 10;

/// The proxy; ends when dropped.
pub struct ClockProxy {
    /// Where it listens.
    pub address: SocketAddr,
    changed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl ClockProxy {
    /// In front of the Redis at `to` (`host:port`), whose clock becomes so many seconds ahead.
    pub async fn start(to: &str, ahead_s: i64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let changed = Arc::<AtomicU64>::default();
        let (to, counted) = (to.to_owned(), changed.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Either side may hang up.
                tokio::spawn(serve(client, to.clone(), ahead_s, counted.clone()));
            }
        });
        Ok(Self { address, changed, task })
    }

    /// Answers that were changed.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

impl Drop for ClockProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, to: String, ahead_s: i64, changed: Arc<AtomicU64>) -> Result<()> {
    let server = TcpStream::connect(&to).await.context("reach Redis")?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await?;
        Ok::<(), anyhow::Error>(())
    };
    let answered = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = from_server.read(&mut bytes).await?;
            if read == 0 {
                return Ok::<(), anyhow::Error>(());
            }
            changed.fetch_add(shift(&mut bytes[..read], ahead_s), Ordering::Relaxed);
            to_client.write_all(&bytes[..read]).await?;
        }
    };
    tokio::try_join!(asked, answered).map(|_| ())
}

/// How many answers were changed. One that is cut in two stays as it is; it is a single short write of Redis.
fn shift(bytes: &mut [u8], ahead_s: i64) -> u64 {
    let mut changed = 0;
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(ANSWER.len()).position(|window| window == ANSWER) {
        at += found + ANSWER.len();
        let Some(digits) = bytes.get_mut(at..at + DIGITS) else { break };
        let seconds = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
        let Some(shifted) = seconds.map(|seconds| format!("{:010}", seconds + ahead_s)) else { continue };
        if shifted.len() == DIGITS {
            digits.copy_from_slice(shifted.as_bytes());
            changed += 1;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_time_is_changed() {
        let mut bytes = b"+OK\r\n*2\r\n$10\r\n1796094000\r\n$6\r\n123456\r\n$2\r\nhi\r\n".to_vec();
        assert_eq!(shift(&mut bytes, 1200), 1);
        assert_eq!(bytes, b"+OK\r\n*2\r\n$10\r\n1796095200\r\n$6\r\n123456\r\n$2\r\nhi\r\n");
        let mut other = b"*2\r\n$10\r\nabcdefghij\r\n$1\r\nx\r\n*2\r\n$10\r\n17".to_vec();
        let before = other.clone();
        assert_eq!((shift(&mut other, 1200), other == before), (0, true));
    }
}
