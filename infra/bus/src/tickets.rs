//! Tickets in Redis: encrypted with a key that Redis does not have, and taken by one runner. The dispatcher puts
//! them, the runner takes them; [`spillway_model::Ticket`] says what is inside.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::Rng;
use sha2::{Digest, Sha256};
use spillway_model::{ClaimToken, Ticket};
use spillway_protocol::{EgressId, Secret};

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{CasResult, NewValue, Precondition, Versioned};

/// Names one taker of a ticket while it tries: takes with the same name are repetitions of one take. Random, so that it
/// reveals nothing.
#[derive(Clone, Debug)]
pub struct Taker(String);

impl Taker {
    /// 128 random bits.
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random::<16>()))
    }
}

/// How long the first taker of a ticket may take it again. A runner tries five times with 3.4 s of pauses, and each
/// try takes at most 12 s: two connections, 3 s to wait for one and 3 s for its answer.
const REPEATABLE: Duration = Duration::from_secs(120);

/// 32 bytes that dispatchers and runners share and Redis does not have. Never printed.
#[derive(Clone)]
pub struct TicketKey(Secret<[u8; 32]>);

impl TicketKey {
    /// 32 bytes in base64 (44 characters, with or without padding, either alphabet) or in hex (64 characters).
    ///
    /// # Errors
    /// [`BusError::TicketKey`]: the text is neither; for good.
    pub fn from_text(text: &str) -> Result<Self, BusError> {
        let text = text.trim();
        let bytes = if text.len() == 64 { hex::decode(text).ok() } else { unbase64(text) };
        let bytes = bytes.ok_or(BusError::TicketKey("must be 32 bytes in base64 or hex"))?;
        let key = <[u8; 32]>::try_from(bytes).map_err(|_| BusError::TicketKey("must be exactly 32 bytes"))?;
        Ok(Self(Secret::new(key)))
    }

    /// 256 random bits.
    pub fn random() -> Self {
        Self(Secret::new(random()))
    }

    /// As [`TicketKey::from_text`] reads it; for the runner's environment.
    pub fn reveal(&self) -> String {
        STANDARD.encode(self.0.reveal())
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Tickets of all launches.
#[derive(Clone)]
pub struct Tickets {
    bus: Bus,
    key: TicketKey,
}

const NONCE_BYTES: usize = 24;

impl Tickets {
    /// With the key that the takers have too.
    pub fn new(bus: &Bus, key: TicketKey) -> Self {
        Self { bus: bus.clone(), key }
    }

    /// Stores the ticket for `ttl`; the token alone finds it.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right; a first ticket may be left behind and expires.
    /// Others: the ticket cannot be serialised or encrypted.
    pub async fn put(&self, ticket: &Ticket, ttl: Duration) -> Result<ClaimToken, BusError> {
        let id = &ticket.egress_id;
        let value = self.sealed(ticket)?;
        loop {
            let token = ClaimToken::from_text(&URL_SAFE_NO_PAD.encode(random::<32>()));
            // The attempt is stored beside it in the clear: it is needed to open the ticket, and is no secret.
            let value = NewValue { version: u64::from(ticket.attempt), value: &value, ttl: Some(ttl) };
            if self.bus.backend.compare_and_set(&key(id, &token), Precondition::Is(0), value).await? == CasResult::Done
            {
                return Ok(token);
            }
        }
    }

    fn sealed(&self, ticket: &Ticket) -> Result<Vec<u8>, BusError> {
        let id = &ticket.egress_id;
        let plain =
            serde_json::to_vec(ticket).map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
        let nonce = random::<NONCE_BYTES>();
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &bound_to(id, ticket.attempt) })
            .map_err(|_| BusError::Ticket { egress_id: id.to_string(), why: "too large to encrypt" })?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Whether this version could use the ticket, which stays where it is: one of a newer version must not be lost to a
    /// runner that cannot read it. A ticket that is not there passes.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right. [`BusError::Ticket`]: it cannot be opened.
    pub async fn check(&self, id: &EgressId, token: &ClaimToken) -> Result<(), BusError> {
        match self.bus.backend.read(&key(id, token)).await? {
            Some(kept) => self.opened(id, &kept).map(drop),
            None => Ok(()),
        }
    }

    /// Takes the ticket; no other taker gets it afterwards. `None`: the token is wrong, the ticket was taken by
    /// another or has expired. An answer can be lost: the same `taker` may repeat the take for two minutes and gets
    /// the same.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry with the same `taker` is right. [`BusError::Ticket`]: the
    /// stored value cannot be opened, now or later.
    pub async fn take(&self, id: &EgressId, token: &ClaimToken, taker: &Taker) -> Result<Option<Ticket>, BusError> {
        let Some(kept) = self.bus.backend.take(&key(id, token), &taker.0, REPEATABLE).await? else { return Ok(None) };
        self.opened(id, &kept).map(Some)
    }

    /// Stores the same ticket for another attempt; the first stays until it is withdrawn. `None` as for
    /// [`Tickets::take`].
    ///
    /// # Errors
    /// As [`Tickets::put`] and [`Tickets::take`].
    pub async fn copy(
        &self,
        id: &EgressId,
        token: &ClaimToken,
        attempt: u32,
        ttl: Duration,
    ) -> Result<Option<ClaimToken>, BusError> {
        self.copy_changed(id, token, attempt, ttl, |_| {}).await
    }

    /// The same with a change of the copy.
    ///
    /// # Errors
    /// As [`Tickets::copy`].
    pub async fn copy_changed(
        &self,
        id: &EgressId,
        token: &ClaimToken,
        attempt: u32,
        ttl: Duration,
        change: impl FnOnce(&mut Ticket),
    ) -> Result<Option<ClaimToken>, BusError> {
        let Some(kept) = self.bus.backend.read(&key(id, token)).await? else { return Ok(None) };
        let mut ticket = Ticket { attempt, ..self.opened(id, &kept)? };
        change(&mut ticket);
        self.put(&ticket, ttl).await.map(Some)
    }

    /// Changes a ticket that nobody has taken, where it is; it lasts as long as before. One that is not there is no error.
    /// Of two changes at once one is lost.
    ///
    /// # Errors
    /// As [`Tickets::put`] and [`Tickets::take`].
    pub async fn amend(
        &self,
        id: &EgressId,
        token: &ClaimToken,
        change: impl FnOnce(&mut Ticket),
    ) -> Result<(), BusError> {
        let key = key(id, token);
        let Some(kept) = self.bus.backend.read(&key).await? else { return Ok(()) };
        let mut ticket = self.opened(id, &kept)?;
        change(&mut ticket);
        let sealed = self.sealed(&ticket)?;
        let value = NewValue { version: kept.version, value: &sealed, ttl: None };
        self.bus.backend.compare_and_set(&key, Precondition::Is(kept.version), value).await?;
        Ok(())
    }

    fn opened(&self, id: &EgressId, kept: &Versioned) -> Result<Ticket, BusError> {
        let bad = |why| BusError::Ticket { egress_id: id.to_string(), why };
        let attempt = u32::try_from(kept.version).map_err(|_| bad("its attempt is no number of ours"))?;
        let (nonce, sealed) = kept.value.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| bad("it is cut off"))?;
        let plain = self
            .cipher()
            .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound_to(id, attempt) })
            .map_err(|_| bad("the key is another one, or it was tampered with"))?;
        serde_json::from_slice(&plain).map_err(|_| bad("its content is from another version"))
    }

    /// A ticket that is there lasts for `ttl` from now on.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn renew(&self, id: &EgressId, token: &ClaimToken, ttl: Duration) -> Result<(), BusError> {
        self.bus.backend.expire(&key(id, token), ttl).await
    }

    /// Removes the ticket, taken or not: its launch failed or ended.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
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

/// The key holds a hash of the token: keys that are listed do not give tickets away, and a wrong token finds none.
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

/// Either alphabet, padded or not.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=').replace('+', "-").replace('/', "_")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_however_it_was_written_down() {
        let key = TicketKey::random();
        let text = key.reveal();
        let hex = hex::encode(key.0.reveal());
        let url = text.replace('+', "-").replace('/', "_").replace('=', "");
        for spelling in [text.clone(), format!("{text}\n"), url, hex.to_uppercase(), hex] {
            assert_eq!(TicketKey::from_text(&spelling).unwrap().0, key.0);
        }
        assert!(TicketKey::from_text("short").is_err());
        assert!(TicketKey::from_text("").is_err());
        assert_eq!(format!("{key:?}"), "[secret]");
    }
}
