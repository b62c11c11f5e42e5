//! Where media comes from. `room` joins a LiveKit room and receives; `dump` keeps what arrived in a file, `replay`
//! gives it to a receiver again. `page` shows a web page and records what it shows and plays.

pub mod replay;
pub mod room;
pub mod page;
pub mod dump;
