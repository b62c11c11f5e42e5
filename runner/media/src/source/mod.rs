//! Where media comes from. `room` joins a LiveKit room and receives; `page` shows a web page; `dump` keeps what arrived in a
//! file, `replay` gives it to a receiver again.

pub mod replay;
pub mod room;
pub mod page;
pub mod dump;
