//! What a runner needs to begin, secrets included. It lies in Redis encrypted, and can be taken by one.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use spillway_protocol::EgressId;
use spillway_protocol::Secret;

use crate::backend::{CasResult, NewValue, Precondition, Versioned};
use crate::{Bus, BusError};

/// Everything about one launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    pub egress_id: EgressId,
    pub attempt: u32,
    /// StartEgressRequest as it came.
    pub request: Secret<Vec<u8>>,
    /// The plan made of it.
    pub plan_json: Secret,
    /// Room token.
    pub token: Secret,
    pub ws_url: String,
    /// Where each output of the plan goes, with its credentials, as JSON; absent: to the runner's disk.
    #[serde(default)]
    pub destinations: Option<Secret>,
    /// Settings of the runner.
    pub runner: serde_json::Value,
}

/// What a launch hands to its runner so that only it can take the ticket.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimToken(Secret);

impl ClaimToken {
    fn random() -> Self {
        Self(Secret::new(URL_SAFE_NO_PAD.encode(random::<32>())))
    }

    pub fn from_text(text: &str) -> Self {
        Self(Secret::new(text.to_owned()))
    }

    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Names one taker of a ticket, and only for as long as it tries: whatever asks with the same name is the same attempt
/// to take it. A value of chance, so that it tells nothing.
#[derive(Clone, Debug)]
pub struct Taker(String);

impl Taker {
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random::<16>()))
    }
}

/// How long the first taker of a ticket may ask for it again. A runner tries five times with 3.4 s of pauses, and each
/// try takes at most 12 s: two connections, 3 s to wait for one and 3 s for its answer.
const REPEATABLE: Duration = Duration::from_secs(120);

/// 32 bytes that dispatchers and runners share, and Redis does not know.
#[derive(Clone)]
pub struct TicketKey(Secret<[u8; 32]>);

impl TicketKey {
    /// 32 bytes in base64 (44 characters, with or without padding, either alphabet) or in hex (64 characters).
    pub fn from_text(text: &str) -> Result<Self, BusError> {
        let text = text.trim();
        let bytes = if text.len() == 64 { unhex(text) } else { unbase64(text) };
        let bytes = bytes.ok_or(BusError::TicketKey("must be 32 bytes in base64 or hex"))?;
        let key = <[u8; 32]>::try_from(bytes).map_err(|_| BusError::TicketKey("must be exactly 32 bytes"))?;
        Ok(Self(Secret::new(key)))
    }

    pub fn random() -> Self {
        Self(Secret::new(random()))
    }

    /// As [`TicketKey::from_text`] reads it; for the one way it is handed on.
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0.reveal())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[derive(Clone)]
pub struct Tickets {
    bus: Bus,
    key: TicketKey,
}

const NONCE: usize = 24;

impl Tickets {
    pub fn new(bus: &Bus, key: TicketKey) -> Self {
        Self { bus: bus.clone(), key }
    }

    /// Lays the ticket down for `ttl`.
    pub async fn put(&self, ticket: &Ticket, ttl: Duration) -> Result<ClaimToken, BusError> {
        let id = &ticket.egress_id;
        let plain =
            serde_json::to_vec(ticket).map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
        let nonce = random::<NONCE>();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &bound_to(id, ticket.attempt) })
            .map_err(|_| BusError::Ticket { egress_id: id.to_string(), why: "too large to encrypt" })?;
        let value = [nonce.as_slice(), &sealed].concat();
        loop {
            let token = ClaimToken::random();
            // The attempt stands beside it in the clear: it is needed to open it, and is no secret.
            let value = NewValue { version: u64::from(ticket.attempt), value: &value, ttl: Some(ttl) };
            if self.bus.backend.compare_and_set(&key(id, &token), Precondition::Is(0), value).await? == CasResult::Done
            {
                return Ok(token);
            }
        }
    }

    /// Picks it up: for all others it is gone afterwards. `None` when the token is wrong, the ticket taken by another or its
    /// time over. An answer can be lost on its way: the same `taker` may ask again, for two minutes, and gets the same.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry with the same `taker` is right. [`BusError::Ticket`]: what lies
    /// there cannot be opened, now or later.
    pub async fn take(&self, id: &EgressId, token: &ClaimToken, taker: &Taker) -> Result<Option<Ticket>, BusError> {
        let Some(kept) = self.bus.backend.take(&key(id, token), &taker.0, REPEATABLE).await? else { return Ok(None) };
        self.opened(id, &kept).map(Some)
    }

    /// Another one like it, for another attempt; the first stays until it is withdrawn. `None` as for [`Tickets::take`].
    pub async fn copy(
        &self,
        id: &EgressId,
        token: &ClaimToken,
        attempt: u32,
        ttl: Duration,
    ) -> Result<Option<ClaimToken>, BusError> {
        let Some(kept) = self.bus.backend.read(&key(id, token)).await? else { return Ok(None) };
        let ticket = Ticket { attempt, ..self.opened(id, &kept)? };
        self.put(&ticket, ttl).await.map(Some)
    }

    fn opened(&self, id: &EgressId, kept: &Versioned) -> Result<Ticket, BusError> {
        let bad = |why| BusError::Ticket { egress_id: id.to_string(), why };
        let attempt = u32::try_from(kept.version).map_err(|_| bad("its attempt is no number of ours"))?;
        let (nonce, sealed) = kept.value.split_first_chunk::<NONCE>().ok_or_else(|| bad("it is cut off"))?;
        let plain = self
            .cipher()
            .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound_to(id, attempt) })
            .map_err(|_| bad("the key is another one, or it was tampered with"))?;
        serde_json::from_slice(&plain).map_err(|_| bad("its content is from another version"))
    }

    /// Nobody will take it (the launch failed).
    pub async fn withdraw(&self, id: &EgressId, token: &ClaimToken) -> Result<(), BusError> {
        self.bus.backend.remove(&key(id, token)).await
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.0.reveal().into())
    }
}

/// Ties the ciphertext to its egress and attempt: moved to another key it does not open.
fn bound_to(id: &EgressId, attempt: u32) -> Vec<u8> {
    format!("spillway ticket {id} {attempt}").into_bytes()
}

/// The key holds a hash of the token: whoever lists keys cannot take tickets, and a wrong token finds nothing.
fn key(id: &EgressId, token: &ClaimToken) -> String {
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(token.reveal()));
    format!("spillway:{{{id}}}:ticket:{hash}")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The thread's generator is a ChaCha seeded by the system, fit for keys.
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let text: String = text
        .chars()
        .map(|c| {
            if c == '+' {
                '-'
            } else if c == '/' {
                '_'
            } else {
                c
            }
        })
        .collect();
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_however_it_was_written_down() {
        let key = TicketKey::random();
        let text = key.reveal();
        let hex: String = key.0.reveal().iter().map(|byte| format!("{byte:02x}")).collect();
        let url = text.replace('+', "-").replace('/', "_").replace('=', "");
        for spelling in [text.clone(), format!("{text}\n"), url, hex] {
            assert_eq!(TicketKey::from_text(&spelling).unwrap().0, key.0);
        }
        assert!(TicketKey::from_text("short").is_err());
        assert!(TicketKey::from_text("").is_err());
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
