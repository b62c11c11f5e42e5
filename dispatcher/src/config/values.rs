//! Values that are checked while the file is parsed, so that the error names their line: a check after parsing
//! (`#[serde(try_from)]`) would name the line of the section. Pure.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

/// `launcher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LauncherName {
    /// A child process for each recording.
    Process,
    /// Starts nothing.
    Simulated,
    /// Amazon ECS.
    Ecs,
    /// Google Cloud Run jobs.
    CloudRun,
    /// Azure Container Instances.
    Aci,
    /// A Docker daemon.
    Docker,
}

/// `targets[].capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityName {
    /// Stays until it ends.
    OnDemand,
    /// Cheaper, may be reclaimed.
    Spot,
}

/// `resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResumeName {
    /// Another process or task goes on where one has died.
    Auto,
    /// Its death is the end.
    Off,
}

/// An entry of `targets[].outputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputName {
    /// To a store.
    Upload,
    /// To the disk of the task.
    Disk,
}

/// `tenants.by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantByName {
    /// One tenant for all rooms.
    None,
    /// The room's name up to the separator.
    RoomPrefix,
}

/// `tenants.over_budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverBudgetName {
    /// Refuse new requests.
    Refuse,
    /// Log a warning.
    Warn,
}

/// `logging.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For development.
    Debug,
    /// One line per step of an egress.
    Info,
    /// What heals by itself.
    Warn,
    /// What an operator has to mend.
    Error,
}

impl Level {
    /// As the file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// psrpc affinity, above 0 to 1. psrpc takes 0 and less for "cannot serve".
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Affinity(pub f32);

impl TryFrom<f64> for Affinity {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 1.0 {
            Ok(Self(value as f32))
        } else {
            Err(format!("{value} is not above 0 and at most 1"))
        }
    }
}

/// A number of cores, finite and above 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cores(pub f64);

impl TryFrom<f64> for Cores {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value.is_finite() && value > 0.0 { Ok(Self(value)) } else { Err(format!("{value} is no number of cores")) }
    }
}

/// livekit-server's address; `http` is taken for `ws`, as by LiveKit's own tools. Empty: not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = |url: &Url| matches!(url.scheme(), "ws" | "wss" | "http" | "https") && url.has_host();
        match Url::parse(&text) {
            Ok(url) if fits(&url) => Ok(Self(text)),
            // Templates have an empty value.
            _ if text.is_empty() => Ok(Self(text)),
            _ => Err("not a URL like wss://livekit.example.com".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Affinity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Number(Self::try_from))
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Number(Self::try_from))
    }
}

impl<'de> Deserialize<'de> for ServerUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct UrlVisitor;
        impl Visitor<'_> for UrlVisitor {
            type Value = ServerUrl;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a URL")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ServerUrl, E> {
                ServerUrl::try_from(text.to_owned()).map_err(E::custom)
            }
        }
        from.deserialize_any(UrlVisitor)
    }
}

struct Number<T>(fn(f64) -> Result<T, String>);

impl<T> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        (self.0)(number).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_f64(number as f64)
    }
}
