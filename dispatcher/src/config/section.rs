//! A section of the file, declared once: the struct that is read, and the rows of its reference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use spillway_plan::EgressKind;
use spillway_protocol::Secret;

use super::duration::GoDuration;
use super::values::{
    Affinity, CapacityName, Cores, LauncherName, Level, OutputName, OverBudgetName, ServerUrl, TenantByName,
};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEffect {
    Used,
    /// Read, checked, and waiting for the feature it belongs to.
    NotYet,
    /// Read so that files written for livekit/egress are accepted; there is nothing here it could change.
    Without,
}

/// A line of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// With dots: `redis.address`.
    pub key: String,
    pub kind: &'static str,
    pub secret: bool,
    pub effect: KeyEffect,
    pub description: String,
}

/// How a row's value looks, or which rows are below it.
pub trait Explained {
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>);
}

macro_rules! leaf {
    ($($type:ty => $kind:literal),* $(,)?) => {
        $(impl Explained for $type {
            fn rows(row: KeyRow, out: &mut Vec<KeyRow>) {
                out.push(KeyRow { kind: $kind, ..row });
            }
        })*
    };
}

leaf! {
    String => "text", PathBuf => "path", bool => "true/false", u16 => "number", u32 => "number", u64 => "number",
    i64 => "number", f64 => "number", Affinity => "number", Cores => "number", ServerUrl => "URL", Level => "word",
    LauncherName => "word", CapacityName => "word", OverBudgetName => "word", TenantByName => "word",
    Vec<EgressKind> => "list", Vec<OutputName> => "list", GoDuration => "duration", Vec<String> => "list",
    std::net::SocketAddr => "address", BTreeMap<String, String> => "map", serde_json::Value => "map",
}

impl Explained for Secret {
    fn rows(row: KeyRow, out: &mut Vec<KeyRow>) {
        out.push(KeyRow { kind: "text", secret: true, ..row });
    }
}

/// What is below inherits the fate of the section, unless the section is used and the key is not.
pub fn below(row: &KeyRow, key: &str, effect: KeyEffect, description: &str) -> KeyRow {
    let effect = if row.effect == KeyEffect::Used { effect } else { row.effect };
    let key = if row.key.is_empty() { key.to_owned() } else { format!("{}.{key}", row.key) };
    KeyRow { key, kind: "", secret: false, effect, description: description.trim().to_owned() }
}

/// A key written without a value is a key not written: `s3:` alone is common in files that grew.
pub fn given<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// `Used "why it is there" key: Type`, one line per key; everything is optional, defaults are applied later.
macro_rules! section {
    ($name:ident { $($effect:ident $description:literal $key:ident : $type:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
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
pub(super) use section;
