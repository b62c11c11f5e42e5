//! Local time for file names.

use chrono::{DateTime, Local, NaiveDateTime};
use spillway_process::Clock;

/// The time of `clock` in this machine's time zone.
pub fn local(clock: &Clock) -> NaiveDateTime {
    DateTime::from_timestamp_nanos(clock.unix_ns()).with_timezone(&Local).naive_local()
}
