//! Local time for file names.

use chrono::{DateTime, Local, NaiveDateTime};
use spillway_process::Clock;

/// A Unix time of so many milliseconds in this machine's time zone.
pub fn local_of_ms(unix_ms: i64) -> NaiveDateTime {
    DateTime::from_timestamp_millis(unix_ms).unwrap_or_default().with_timezone(&Local).naive_local()
}

/// The time of `clock` in this machine's time zone.
pub fn local(clock: &Clock) -> NaiveDateTime {
    DateTime::from_timestamp_nanos(clock.unix_ns()).with_timezone(&Local).naive_local()
}
