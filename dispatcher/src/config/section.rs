//! A section of the file, declared once: the struct that serde reads, and the rows of the reference. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use spillway_plan::{CompositeEngine, EgressKind};
use spillway_protocol::Secret;

use super::duration::GoDuration;
use super::values::{
    Affinity, CapacityName, Cores, LauncherName, Level, OutputName, OverBudgetName, ResumeName, ServerUrl, TenantByName,
};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEffect {
    /// It changes behaviour.
    Used,
    /// Read and checked; the feature it belongs to does not exist yet.
    NotYet,
    /// Read so that files written for livekit/egress are accepted; changes nothing.
    Without,
}

/// A row of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// With dots: `redis.address`.
    pub key: String,
    /// Type of the value, for the reader of the reference.
    pub kind: &'static str,
    /// Hidden by `--check-config`.
    pub secret: bool,
    /// Whether it changes anything.
    pub effect: KeyEffect,
    /// Markdown; may be empty.
    pub description: String,
}

/// A type of value: contributes its own row, or the rows of the section below it.
pub trait Explained {
    /// Appends to `out`; `row` is the key as its section declares it.
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>);
}

/// Types that are one row each.
macro_rules! leaf {
    ($($type:ty => $kind:literal),* $(,)?) => {
        $(impl crate::config::section::Explained for $type {
            fn rows(row: crate::config::section::KeyRow, out: &mut Vec<crate::config::section::KeyRow>) {
                out.push(crate::config::section::KeyRow { kind: $kind, ..row });
            }
        })*
    };
}

leaf! {
    String => "text", PathBuf => "path", bool => "true/false", u16 => "number", u32 => "number", u64 => "number",
    i64 => "number", f64 => "number", Affinity => "number", Cores => "number", ServerUrl => "URL", Level => "word",
    CompositeEngine => "word", LauncherName => "word", CapacityName => "word", OverBudgetName => "word",
    ResumeName => "word", TenantByName => "word",
    Vec<EgressKind> => "list", Vec<OutputName> => "list", GoDuration => "duration", Vec<String> => "list",
    std::net::SocketAddr => "address", BTreeMap<String, String> => "map", serde_json::Value => "map",
}

impl Explained for Secret {
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>) {
        out.push(KeyRow { kind: "text", secret: true, ..row });
    }
}

/// The row of `key` inside the section `row`. An unused section makes all its keys unused.
pub fn below(row: &KeyRow, key: &str, effect: KeyEffect, description: &str) -> KeyRow {
    let effect = if row.effect == KeyEffect::Used { effect } else { row.effect };
    let key = if row.key.is_empty() { key.to_owned() } else { format!("{}.{key}", row.key) };
    KeyRow { key, kind: "", secret: false, effect, description: description.trim().to_owned() }
}

/// A key without a value (`s3:` alone) is taken as not set.
///
/// # Errors
/// When the value has the wrong type; no retry.
pub fn given<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// `Used "description" key: Type`, one line per key. Every key is optional; `resolve` applies the defaults.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($effect:ident $description:literal $key:ident : $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                #[doc = concat!("`", stringify!($key), "`. ", $description)]
                #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::config::section::given")]
                pub $key: Option<$type>,
            )*
        }

        impl crate::config::section::Explained for $name {
            fn rows(row: crate::config::section::KeyRow, out: &mut Vec<crate::config::section::KeyRow>) {
                use crate::config::section::{KeyEffect, below};
                $(
                    <$type as crate::config::section::Explained>::rows(
                        below(&row, stringify!($key), KeyEffect::$effect, $description), out,
                    );
                )*
            }
        }
    };
}
pub(super) use {leaf, section};
