//! A dump goes into a receiver again, as fast as it is read, and gives the same events as the room did.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use spillway_ipc::MediaEndReason;

use super::dump::{DumpItem, DumpReader};
use super::room::RoomMessage;
use crate::receive::{ReceiveOptions, TrackReceiver};

/// A dump and the receiver it goes into.
pub struct Replay {
    reader: DumpReader,
    receiver: TrackReceiver,
    ready: VecDeque<RoomMessage>,
    over: bool,
}

impl Replay {
    /// `options`: those of the receiver, which may differ from the recording's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no dump.
    pub fn open(path: &Path, options: ReceiveOptions) -> io::Result<Self> {
        let reader = DumpReader::open(path)?;
        Ok(Self { reader, receiver: TrackReceiver::new(options), ready: VecDeque::new(), over: false })
    }

    /// `None` after `Ended`. A file that cannot be read further ends as `Failed`.
    pub fn recv(&mut self) -> Option<RoomMessage> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Some(delivery);
            }
            if let Some(timed) = self.receiver.drain().next() {
                return Some(RoomMessage::TimelineEvent(timed));
            }
            if self.over {
                return None;
            }
            match self.reader.record() {
                Ok(Some(record)) => {
                    let at = record.at();
                    match record.what {
                        DumpItem::Event(arrival) => self.receiver.push(arrival, at),
                        DumpItem::Tick => self.receiver.tick(at),
                        DumpItem::Finish => self.receiver.finish(at),
                    }
                }
                end => {
                    self.over = true;
                    let why = match end {
                        Ok(_) => MediaEndReason::Stopped,
                        Err(error) => {
                            MediaEndReason::Failed { code: "data_loss".to_owned(), message: error.to_string() }
                        }
                    };
                    self.ready.extend(self.receiver.stats().into_iter().map(RoomMessage::Stats));
                    self.ready.push_back(RoomMessage::Ended(why));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
