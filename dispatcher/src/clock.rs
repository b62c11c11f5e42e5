use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// What time it is, for time stamps. Waiting is tokio's business.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    Wall,
    /// Runs with tokio's clock, so that a test with paused time sees both agree.
    Virtual {
        unix_ns: i64,
        at: Instant,
    },
}

impl Clock {
    pub fn from(unix_ns: i64) -> Self {
        Self::Virtual { unix_ns, at: Instant::now() }
    }

    pub fn unix_ns(self) -> i64 {
        match self {
            Self::Wall => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
            Self::Virtual { unix_ns, at } => {
                unix_ns.saturating_add(i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX))
            }
        }
    }

    pub fn unix_ms(self) -> i64 {
        self.unix_ns() / 1_000_000
    }
}
