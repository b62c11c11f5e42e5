//! A dump arrives again, as fast as it is read, and gives the same stream as the room did.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use spillway_spool::EndReason;

use super::dump::{Reader, What};
use super::reception::{Reception, ReceptionOptions};
use super::room::Delivery;

pub struct Replay {
    reader: Reader,
    reception: Reception,
    ready: VecDeque<Delivery>,
    over: bool,
}

impl Replay {
    pub fn open(path: &Path, options: ReceptionOptions) -> io::Result<Self> {
        let reader = Reader::open(path)?;
        Ok(Self { reader, reception: Reception::new(options), ready: VecDeque::new(), over: false })
    }

    /// `None` after `Ended`. A file that cannot be read further ends as `Failed`.
    pub fn recv(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Some(delivery);
            }
            if let Some(timed) = self.reception.take() {
                return Some(Delivery::Timed(timed));
            }
            if self.over {
                return None;
            }
            match self.reader.record() {
                Ok(Some(record)) => {
                    let at = record.at();
                    match record.what {
                        What::Arrived(arrival) => self.reception.on(arrival, at),
                        What::Tick => self.reception.tick(at),
                        What::Finish => self.reception.finish(at),
                    }
                }
                end => {
                    self.over = true;
                    let why = match end {
                        Ok(_) => EndReason::Stopped,
                        Err(error) => EndReason::Failed { code: "data_loss".to_owned(), words: error.to_string() },
                    };
                    self.ready.extend(self.reception.stats().into_iter().map(Delivery::Stats));
                    self.ready.push_back(Delivery::Ended(why));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
