//! Locks and condition variables that outlive a panic: every change under the locks of a compositor is one step, so
//! what a panicked thread held is still whole.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a panicked thread held is still whole enough: every change under these locks is one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification; a poisoned lock is taken as it is, see [`lock`].
pub fn wait<'a, T>(news: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    news.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
