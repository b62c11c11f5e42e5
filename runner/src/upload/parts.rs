//! One part of an object: what is asked of the store, what another process has to know of it, and its state in this one. Pure;
//! `machine` decides when it is sent.

use std::ops::Range;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use spillway_storage::{Part, PartTag};

/// Send these bytes of the object as this part. There are never two requests of one part at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRequest {
    /// From 1.
    pub number: u32,
    /// How often the part was sent before.
    pub generation: u32,
    /// Bytes of the object.
    pub range: Range<u64>,
}

/// One part as another process needs to know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartState {
    /// Its first byte in the object.
    pub start: u64,
    /// Where it is cut; open at the end of a file that grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// What the store acknowledged last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked: Option<Part>,
    /// Sent, but the store has not answered: these may have arrived, or may yet. The newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingPart>,
    /// How often it was sent.
    #[serde(default)]
    pub sends: u32,
}

/// A request whose answer is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingPart {
    /// As in [`PartRequest`].
    pub generation: u32,
    /// Its length.
    pub bytes: u64,
    /// What the store answers if it gets the bytes, where that can be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<PartTag>,
}

/// A part as this process knows it.
#[derive(Clone, Debug)]
pub(super) struct PartSlot {
    pub(super) start: u64,
    /// Where it is cut; the last one may be open.
    pub(super) end: Option<u64>,
    pub(super) sends: u32,
    pub(super) in_flight: Option<InFlightPart>,
    pub(super) acked: Option<AckedPart>,
    /// Requests whose answer was lost: their bytes may still arrive at the store, after newer ones.
    pub(super) lost: Vec<PendingPart>,
    /// The machine has named it in `take_stored`: it cannot be sent again.
    pub(super) punched: bool,
    /// Rises when its bytes are written again.
    pub(super) version: u32,
    /// Since when there are sealed bytes that are nowhere but here.
    pub(super) waiting_since: Option<Instant>,
}

/// A request that is on its way.
#[derive(Clone, Debug)]
pub(super) struct InFlightPart {
    pub(super) generation: u32,
    pub(super) to: u64,
    pub(super) version: u32,
    pub(super) waited_since: Option<Instant>,
    pub(super) tag: Option<PartTag>,
}

/// What the store acknowledged last.
#[derive(Clone, Debug)]
pub(super) struct AckedPart {
    pub(super) part: Part,
    pub(super) to: u64,
    pub(super) version: u32,
}

impl InFlightPart {
    pub(super) fn pending(&self, start: u64) -> PendingPart {
        PendingPart { generation: self.generation, bytes: self.to - start, tag: self.tag.clone() }
    }
}

impl PartSlot {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            end: None,
            sends: 0,
            in_flight: None,
            acked: None,
            lost: vec![],
            punched: false,
            version: 0,
            waiting_since: None,
        }
    }

    /// The store has all of it, as it is in the file.
    pub(super) fn is_done(&self) -> bool {
        self.acked.as_ref().is_some_and(|acked| Some(acked.to) == self.end && acked.version == self.version)
    }

    /// Bytes that are in the store or on their way.
    pub(super) fn taken_to(&self) -> u64 {
        let acked = self.acked.as_ref().map_or(self.start, |acked| acked.to);
        self.in_flight.as_ref().map_or(acked, |in_flight| in_flight.to)
    }
}
