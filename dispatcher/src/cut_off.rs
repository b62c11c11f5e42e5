//! Cutting a dispatcher off in the middle of its work, as if its process were gone: for tests of what other dispatchers do
//! then (feature `testing`). Every task of the context, and every answer that changes something, runs under it; without the
//! feature all of them run to their end.

/// Clones are one.
#[derive(Clone, Default)]
pub struct CutOff {
    #[cfg(feature = "testing")]
    token: tokio_util::sync::CancellationToken,
}

impl CutOff {
    /// The result of `work`; `None`: the dispatcher was cut off meanwhile.
    pub async fn unless<T>(self, work: impl Future<Output = T>) -> Option<T> {
        #[cfg(feature = "testing")]
        {
            self.token.run_until_cancelled(work).await
        }
        #[cfg(not(feature = "testing"))]
        {
            Some(work.await)
        }
    }

    /// From now on nothing runs.
    #[cfg(feature = "testing")]
    pub fn cut(&self) {
        self.token.cancel();
    }
}
