//! What a dead attempt has left of one file on this machine's disk, and which bytes of its object can be read from that. Blocks
//! in `read` and `is_whole`.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{BaseDataOffset, Origin, SpoolReader};
use spillway_plan::Container;
use tokio::task::spawn_blocking;

use crate::upload::checkpoint::FileCheckpoint;

/// What still lies in a spool of this machine.
#[derive(Clone)]
pub(super) struct Spooled {
    pub(super) spool: Arc<SpoolReader>,
    pub(super) origin: Origin,
    /// Those behind `offsets_from`.
    offsets: Vec<BaseDataOffset>,
    /// Offsets of an MP4 before this byte of the file are not known: a part with such bytes cannot be sent.
    offsets_from: u64,
    /// The same from this byte of the file on: what stands there is not understood. Blocks may have been given back to the
    /// disk after the checkpoint was written.
    offsets_to: u64,
    /// Size of the object that can be made of it.
    pub(super) bytes: u64,
}

impl Spooled {
    /// Bytes `range` of the object.
    pub(super) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.origin.read(&self.spool, range, &self.offsets)
    }

    /// Bytes `range` of the object can be read.
    pub(super) fn is_whole(&self, range: Range<u64>) -> io::Result<bool> {
        let file = self.origin.in_file(range.start)..self.origin.in_file(range.end);
        Ok(file.start >= self.offsets_from && file.end <= self.offsets_to && self.spool.is_whole(file)?)
    }
}

/// Opens the spool file, or the file on the disk, if it lies on this machine and has bytes.
pub(super) async fn spooled(file: &FileCheckpoint) -> Option<Spooled> {
    let (path, container, origin, kept_from) = (file.path.clone(), file.container, file.origin.clone(), file.kept_from);
    let look = spawn_blocking(move || {
        let spool = SpoolReader::open(&path).ok()?;
        let end = spool.end().ok().filter(|bytes| *bytes > 0)?;
        if origin.is_whole() {
            let spool = Arc::new(spool);
            return Some(Spooled { spool, origin, offsets: vec![], offsets_from: 0, offsets_to: u64::MAX, bytes: end });
        }
        let from = origin.from.max(kept_from);
        let mut points = RestartPoints::resume(container, &Origin { head: origin.head.clone(), from });
        points.advance(&spool, end).ok()?;
        let bytes = origin.in_object(points.walked_to());
        // The other containers have no offsets.
        let (offsets_from, offsets_to) =
            if container == Container::Mp4 { (from, points.walked_to()) } else { (0, u64::MAX) };
        let offsets = points.offsets_in(from..end);
        Some(Spooled { spool: Arc::new(spool), offsets, offsets_from, offsets_to, origin, bytes })
    });
    look.await.ok().flatten()
}
