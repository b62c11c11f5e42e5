//! Attempt after attempt to send a stream, until its frames end or a fault is final; the same for every protocol. Runs in the
//! stream's task.

use std::fmt::Display;

use spillway_plan::stream_url;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::retry::{FirstFault, RetryBudget, RetryDecision};
use super::stream::{StreamContext, StreamEvent};

/// What ended an attempt or a connection. Its text goes to the user and has no key.
pub trait StreamFault: Display + Send {
    /// What it is to a stream that has not lived.
    fn at_first(&self) -> FirstFault;

    /// psrpc code, as text, of a stream that ends with it.
    fn code(&self) -> &'static str {
        "unavailable"
    }

    /// Whether it ends any stream.
    fn is_final(&self) -> bool {
        false
    }
}

/// One stream of a protocol, with what outlives its connections.
pub trait StreamDriver: Send {
    /// Why there is no connection, or no longer.
    type Fault: StreamFault;

    /// One connection, from dialling to its end. `budget` is told when the server has accepted the stream. Ends without a fault
    /// only when the frames do.
    ///
    /// # Errors
    ///
    /// Anything but the end of the frames.
    fn attempt(&mut self, budget: &mut RetryBudget) -> impl Future<Output = Result<(), Self::Fault>> + Send;

    /// A server has taken the stream, by now or before.
    fn has_begun(&self) -> bool;
}

/// Sends until the ring ends.
///
/// # Errors
///
/// The fault that was final: what could be tried again was, as [`RetryBudget`] has it, three times before the first connection
/// that lived, for 30 s after that. A ring that ends while a stream that a server has taken is being tried again is no fault; of
/// another one it is the last.
pub async fn publish<D: StreamDriver>(context: &StreamContext, driver: &mut D) -> Result<(), D::Fault> {
    let mut budget = RetryBudget::default();
    let mut last = None;
    context.reporter.report(StreamEvent::Connecting);
    loop {
        let Err(fault) = driver.attempt(&mut budget).await else { break };
        let was_published = budget.is_published();
        let wait = match budget.failed(Instant::now().into_std(), fault.at_first()) {
            RetryDecision::After(wait) if !fault.is_final() => wait,
            RetryDecision::After(_) | RetryDecision::GiveUp => return Err(fault),
        };
        if was_published && context.ring.has_pictures() {
            // Encoded while the next connection is made, it is in the ring when that begins.
            (context.key_frame)();
        }
        debug!(stream = ?context.reporter, url = %stream_url(context.url.reveal()), %fault, ?wait, "tried again");
        context.reporter.report(StreamEvent::Retrying { message: fault.to_string(), retries: budget.failures() });
        last = Some(fault);
        if timeout(wait, context.ring.ended()).await.is_ok() {
            break;
        }
    }
    match last {
        Some(fault) if !driver.has_begun() => Err(fault),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::super::ring::RingBounds;
    use super::super::stream_test::TestStream;
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
    #[error("fault {0}")]
    struct Fault(u32);

    impl StreamFault for Fault {
        fn at_first(&self) -> FirstFault {
            if self.0 == 400 { FirstFault::Final } else { FirstFault::Passing }
        }

        fn is_final(&self) -> bool {
            self.0 == 1000
        }
    }

    /// Its attempts: how long each takes, how it ends, and whether a server took the stream.
    struct Scripted<'a> {
        context: &'a StreamContext,
        attempts: VecDeque<(u64, u32, bool)>,
        has_begun: bool,
    }

    impl StreamDriver for Scripted<'_> {
        type Fault = Fault;

        async fn attempt(&mut self, budget: &mut RetryBudget) -> Result<(), Fault> {
            let Some((seconds, fault, is_taken)) = self.attempts.pop_front() else {
                self.context.ring.ended().await;
                return Ok(());
            };
            if is_taken {
                self.has_begun = true;
                budget.published(Instant::now().into_std());
            }
            sleep(Duration::from_secs(seconds)).await;
            Err(Fault(fault))
        }

        fn has_begun(&self) -> bool {
            self.has_begun
        }
    }

    /// How a stream with these attempts ends whose frames end after so long, and after how many of them.
    async fn published(attempts: &[(u64, u32, bool)], ended_after: Duration) -> (Result<(), Fault>, usize) {
        let (context, stream) = TestStream::new("rtmp://h/app/canary", vec![], RingBounds::Sound);
        let mut driver = Scripted { context: &context, attempts: attempts.iter().copied().collect(), has_begun: false };
        let end = async {
            sleep(ended_after).await;
            stream.ring.end();
        };
        let (outcome, ()) = tokio::join!(publish(&context, &mut driver), end);
        (outcome, attempts.len() - driver.attempts.len())
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_a_fault_of_a_stream_that_no_server_has_taken() {
        let ms = Duration::from_millis;
        // In the wait, and in the next attempt.
        assert_eq!(published(&[(0, 1, false)], ms(500)).await, (Err(Fault(1)), 1));
        assert_eq!(published(&[(0, 1, false)], ms(1500)).await, (Err(Fault(1)), 1));
        assert_eq!(published(&[(3, 1, true)], ms(3020)).await, (Ok(()), 1));
        assert_eq!(published(&[(3, 1, true)], ms(3500)).await, (Ok(()), 1));
        assert_eq!(published(&[], ms(10)).await, (Ok(()), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_fault_is_not_tried_again() {
        let late = Duration::from_secs(60);
        assert_eq!(published(&[(0, 400, false), (0, 1, false)], late).await, (Err(Fault(400)), 1));
        assert_eq!(published(&[(3, 400, true), (3, 1000, true), (0, 1, false)], late).await, (Err(Fault(1000)), 2));
        assert_eq!(published(&[(0, 1, false); 5], late).await, (Err(Fault(1)), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_frame_is_asked_for_as_soon_as_an_accepted_connection_breaks() {
        let ms = Duration::from_millis;
        let (context, stream) = TestStream::new("rtmp://h/app/canary", vec![], RingBounds::Pictures);
        let attempts = [(0, 1, false), (3, 1, true)].into();
        let mut driver = Scripted { context: &context, attempts, has_begun: false };
        let asked = async {
            // The first attempt fails at once, the second lives from 1 s to 4 s, the third comes 50 ms later.
            sleep(ms(3990)).await;
            assert_eq!(stream.asked_key_frames(), 0, "an attempt that was not accepted is no loss");
            sleep(ms(20)).await;
            assert_eq!(stream.asked_key_frames(), 1);
            stream.ring.end();
        };
        let (outcome, ()) = tokio::join!(publish(&context, &mut driver), asked);
        assert_eq!(outcome, Ok(()));
    }
}
