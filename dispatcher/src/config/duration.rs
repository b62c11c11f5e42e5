//! Durations of the file, written as Go writes them. Pure.
//!
//! Parsed by hand: the rule is Go's (`1h30m`, `2.5s`, no bare numbers but 0), and its errors name the key and the line.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration as Go's `time.ParseDuration` reads it, which livekit's files rely on: `90m`, `1h30m`, `2.5s`, `100ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// `None`: not such a duration, negative, or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Some(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return None;
        }
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (amount, after) = rest.split_at(number);
            let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit);
            let worth = match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            seconds += amount.parse::<f64>().ok()? * worth;
            rest = after;
        }
        // Binary fractions do not add up to whole nanoseconds; Go's durations are whole nanoseconds.
        let rounded = (seconds * 1e9).round() / 1e9;
        Duration::try_from_secs_f64(rounded).ok().map(Self)
    }

    /// Whole milliseconds, saturating.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// For defaults.
    pub fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 if self.0.is_zero() => f.write_str("0s"),
            0 => write!(f, "{}ns", self.0.as_nanos()),
            _ if !millis.is_multiple_of(1000) => write!(f, "{millis}ms"),
            _ if millis.is_multiple_of(3_600_000) => write!(f, "{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => write!(f, "{}m", millis / 60_000),
            _ => write!(f, "{}s", millis / 1000),
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a duration like 90m, 5s or 100ms")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                GoDuration::parse(text)
                    .ok_or_else(|| E::custom(format!("\"{text}\" is no duration, write it like 90m, 5s or 100ms")))
            }

            // Go takes a bare number for nanoseconds, which is never what is meant; zero needs no unit.
            fn visit_u64<E: Error>(self, number: u64) -> Result<GoDuration, E> {
                match number {
                    0 => Ok(GoDuration::default()),
                    _ => Err(E::custom(format!("{number} has no unit, write it like {number}s or {number}ms"))),
                }
            }
        }
        from.deserialize_any(DurationVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, millis) in
            [("90m", 5_400_000), ("1h30m", 5_400_000), ("2.5s", 2500), ("100ms", 100), ("0", 0), ("1m0.5s", 60_500)]
        {
            assert_eq!(GoDuration::parse(text), Some(GoDuration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 s", "5x", "..s", "99999999999999999999h"] {
            assert_eq!(GoDuration::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for text in ["0s", "2h", "90m", "61s", "1500ms", "5ns"] {
            assert_eq!(GoDuration::parse(text).unwrap().to_string(), text);
        }
    }
}
