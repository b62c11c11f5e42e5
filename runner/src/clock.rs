//! The two wall clocks: what machines compare and what people put into file names.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::NaiveDateTime;

pub fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

pub fn local() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}
