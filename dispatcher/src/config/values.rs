//! Values that are checked as they are read, so that a wrong one is told with its line: a check after the reading
//! (`try_from`) would be told with the line of the section.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LauncherName {
    Process,
    Simulated,
    Ecs,
    CloudRun,
    Aci,
    Docker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityName {
    OnDemand,
    Spot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputName {
    Upload,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantByName {
    None,
    RoomPrefix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverBudgetName {
    Refuse,
    Warn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Above 0, at most 1. psrpc counts 0 and less as "cannot".
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

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cores(pub f64);

impl TryFrom<f64> for Cores {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        if value.is_finite() && value > 0.0 { Ok(Self(value)) } else { Err(format!("{value} is no number of cores")) }
    }
}

/// livekit-server's address; `http` is taken for `ws`, as by LiveKit's own tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerUrl(String);

impl ServerUrl {
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
            // Unset in templates.
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
