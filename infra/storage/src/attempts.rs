//! Retries of one call, for vendors' libraries whose own retries are switched off (Azure, GCS): a future per try goes in, the
//! last answer comes out. Runs in the caller's task.

use std::time::Duration;

use spillway_process::retry::RetrySchedule;
use tokio::time::{sleep, timeout};

use crate::error::{StorageError, StorageErrorKind};
use crate::options::Options;

/// Calls `attempt` until it succeeds, fails for good, or `options.attempts` tries are used up. Each try may take
/// `call_timeout`.
///
/// # Errors
/// That of the last try; `Busy` where it timed out.
pub async fn tried<T, F>(
    provider: &'static str,
    doing: &'static str,
    options: &Options,
    call_timeout: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StorageError>
where
    F: Future<Output = Result<T, StorageError>>,
{
    let mut waits = RetrySchedule::new(options.first_wait, options.max_wait);
    let mut left = options.attempts.max(1);
    loop {
        left -= 1;
        let error = match timeout(call_timeout, attempt()).await {
            Ok(Err(error)) if error.is_transient() => error,
            Ok(done) => return done,
            Err(_) => {
                let message = format!("no answer within {} s", call_timeout.as_secs());
                StorageError::new(StorageErrorKind::Busy, provider, doing, message)
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
    async fn transient_errors_are_tried_again_and_others_are_not() {
        let options = Options::default();
        for (kind, tries) in
            [(StorageErrorKind::Busy, 3), (StorageErrorKind::Mismatch, 3), (StorageErrorKind::Denied, 1)]
        {
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
        assert_eq!(result.unwrap_err().kind, StorageErrorKind::Busy);
        assert!(begun.elapsed() < Duration::from_secs(65));
    }
}
