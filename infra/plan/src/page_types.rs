//! A page in a plan: plain values, part of its JSON. The page's URL is a secret and not here.

use serde::{Deserialize, Serialize};

/// A web page is recorded, in Chromium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagePlan {
    /// What page it is.
    pub kind: PageKind,
    /// The recording begins when the page logs START_RECORDING; else when the page is loaded.
    pub awaits_start: bool,
}

/// What page is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageKind {
    /// One that the request names. It knows nothing of a room.
    Web,
    /// A template that joins the room with the token of the recording and shows it.
    Template,
}
