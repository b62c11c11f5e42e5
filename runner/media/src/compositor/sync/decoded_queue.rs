//! What the queues of decoded pictures and of decoded sound have in common: how far they are known, and how they end.
//! Each has one writer (a decoder) and one reader (a mixer).

use crate::units::MediaTime;

/// What lies between a track's decoder and a mixer.
pub trait DecodedQueue: Send + Sync + 'static {
    /// Nothing earlier than `to` will be put any more.
    fn complete_to(&self, to: MediaTime);
    /// Nothing more is put; what waits is still taken.
    fn close(&self);
    /// Nothing is taken any more: a blocked decoder goes on, what it puts is thrown away.
    fn abandon(&self);
}

/// How far a decoded track is known, and whether more comes.
#[derive(Debug, Default)]
pub struct QueueProgress {
    /// Nothing earlier than this comes.
    pub complete: MediaTime,
    /// Nothing more comes.
    pub closed: bool,
    /// Nothing is taken any more.
    pub abandoned: bool,
}

impl QueueProgress {
    /// See [`DecodedQueue::complete_to`].
    pub fn complete_to(&mut self, to: MediaTime) {
        self.complete = self.complete.max(to);
    }

    /// See [`DecodedQueue::abandon`].
    pub fn abandon(&mut self) {
        self.closed = true;
        self.abandoned = true;
    }
}
