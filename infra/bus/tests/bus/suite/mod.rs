//! What every bus promises, in memory and on Redis: each promise is a function that takes a fixture.

pub mod calls;
pub mod foreign_messages;
pub mod io;
pub mod time;
pub mod keys;
pub mod tasks;
