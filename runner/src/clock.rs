//! What people put into file names: the time of day where this runner is.

use chrono::{DateTime, Local, NaiveDateTime};
use spillway_process::Clock;

pub fn local(clock: &Clock) -> NaiveDateTime {
    DateTime::from_timestamp_nanos(clock.unix_ns()).with_timezone(&Local).naive_local()
}
