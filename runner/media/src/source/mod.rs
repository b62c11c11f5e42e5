//! Where media comes from. `room` joins a LiveKit room and receives; `dump` keeps what arrived in a file, `replay`
//! gives it to a receiver again. `page` records a web page.

pub mod replay;
pub mod room;
pub mod page;
pub mod dump;
