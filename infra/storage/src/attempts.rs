use std::time::Duration;

use spillway_process::retry::Schedule;
use tokio::time::{sleep, timeout};

use crate::error::{Kind, StorageError};
use crate::open::Options;

/// A call of a library whose own patience is switched off: tried a few times where another try may help.
pub async fn tried<T, F>(
    provider: &'static str,
    doing: &'static str,
    options: &Options,
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut waits = Schedule::new(options.first_wait, options.longest_wait);
    let mut left = options.attempts.max(1);
    loop {
        left -= 1;
        let error = match timeout(patience, attempt()).await {
            Ok(Err(error)) if error.is_passing() => error,
            Ok(done) => return done,
            Err(_) => {
                let words = format!("no answer within {} s", patience.as_secs());
                StorageError::new(Kind::Busy, provider, doing, words)
            }
        };
        if left == 0 {
            return Err(error);
        }
        sleep(waits.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let options = Options::default();
        for (kind, tries) in [(Kind::Busy, 3), (Kind::Mismatch, 3), (Kind::Denied, 1)] {
            let mut made = 0;
            let result: Result<(), _> = tried("S3", "put", &options, Duration::from_secs(1), || {
                made += 1;
                async move { Err(StorageError::new(kind, "S3", "put", "no")) }
            })
            .await;
            assert_eq!((result.unwrap_err().kind, made), (kind, tries));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_no_answer() {
        let begun = tokio::time::Instant::now();
        let result: Result<(), _> =
            tried("S3", "put", &Options::default(), Duration::from_secs(20), std::future::pending).await;
        assert_eq!(result.unwrap_err().kind, Kind::Busy);
        assert!(begun.elapsed() < Duration::from_secs(65));
    }
}
