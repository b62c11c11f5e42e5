//! Free ports for programs that take a port as an argument.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Below the ephemeral ports of Linux (`ip_local_port_range`, from 32768): seconds may pass between the check and the
/// `bind` of the program, and no connection or fake of another test is given the same port meanwhile.
const FIRST_PORT: u32 = 12_000;
const PORT_COUNT: u32 = 20_000;

/// A loopback port that is free for TCP and UDP and that this process has not handed out before.
pub fn free_port() -> Result<u16> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at the same time begin at different ports.
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
