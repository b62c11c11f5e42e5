//! Ports for programs that want to be told theirs.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Below those that Linux gives to whoever asks for any (`ip_local_port_range`, from 32768): between our look and the
/// program's `bind`, which can be seconds, no connection and no fake of a test beside it is given the same one.
const FIRST_PORT: u32 = 12_000;
const PORT_COUNT: u32 = 20_000;

/// A port on loopback that nobody listens on, neither TCP nor UDP, and that nobody in this process was given before.
pub fn free_port() -> Result<u16> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test programs beside each other begin at places of their own.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let _ =
        TAKEN.compare_exchange(0, 1 + (std::process::id() ^ now) % PORT_COUNT, Ordering::Relaxed, Ordering::Relaxed);
    (0..PORT_COUNT)
        .filter_map(|_| u16::try_from(FIRST_PORT + TAKEN.fetch_add(1, Ordering::Relaxed) % PORT_COUNT).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .context("every port is taken")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_is_taken() {
        let held = TcpListener::bind(("127.0.0.1", free_port().unwrap() + 1));
        let ports: Vec<u16> = (0..100).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        if let Ok(held) = held {
            assert!(!ports.contains(&held.local_addr().unwrap().port()));
        }
        assert!(ports.iter().all(|port| *port < 32_768));
    }
}
