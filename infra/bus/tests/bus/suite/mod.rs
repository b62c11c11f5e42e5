//! What every bus promises. Each promise is a function that takes a ground.

pub mod calls;
pub mod strange;
pub mod io;
pub mod time;
pub mod keys;
pub mod tasks;
