//! WebM that may be cut off behind any block, and has its length and an index after a clean end. Units with their times
//! come in, bytes and their places in the file go out. Runs in the thread that has the unit; pure.
//!
//! Our own, because webmmux (GStreamer 1.22) locks its inputs (collect pads, STATE_LOCKED): sound waits in memory for the
//! next picture, for hours when a shared screen of Firefox or Safari stands still, and is lost when the process is killed.
//! It ignores GAP events there ("Setting pad video_0 to waiting 0, locked 1" in its log). Its file is as long as its last
//! buffer says, so that the newest picture had to be held back as well. Of the crates, `webm` is libwebm (a C++ build that
//! queues sound, too); `mkv-element` (0.4 after three incompatible versions in half a year) and `ebml-iterable` write single
//! elements in their shortest form: order, clusters, index and sizes that are filled in later would stay ours, and the
//! elements themselves are 70 lines (`ebml`).
//!
//! While recording: EBML header, a segment of unknown size, room for what is known at the end (`head`), the tracks, then
//! clusters, each block with one write. The open cluster has no size, so that it plays up to its last block. At the end
//! the index follows, and the room is filled.

mod head;
mod order;
mod track;
mod index;
mod ebml;
mod ids;
mod unit;

use self::ebml::{binary, element, front, open_front, uint, wide_size};
use self::head::HeadPlaces;
use self::ids::{BLOCK, BLOCK_GROUP, CLUSTER, DISCARD_PADDING, SIMPLE_BLOCK, TIMESTAMP};
use self::index::SeekIndex;
use self::order::UnitOrder;
use self::track::WebmTrack;
pub use self::track::WebmTrackKind;
pub use self::unit::{FileWrite, WebmUnit};
use super::scale;

/// What the open cluster holds is lost with the task: without key frames it would stay open for the half minute that its
/// 16 bits can count.
const MAX_CLUSTER_MS: u64 = 1000;
/// A key frame begins a cluster unless the open one began with another, shortly before: a stream of key frames only must
/// not become a cluster each.
const MIN_CLUSTER_MS: u64 = 100;
/// Id and size of a cluster.
const CLUSTER_FRONT: u64 = 12;
/// Ids, sizes, track, time and flags of a block at most, with the head of a cluster.
const BLOCK_FRONT: usize = 64;
const KEY: u8 = 0x80;

/// Writes one file.
#[derive(Debug)]
pub struct WebmMuxer {
    tracks: Vec<WebmTrack>,
    order: UnitOrder,
    index: SeekIndex,
    /// Once it is written.
    head: Option<HeadPlaces>,
    cluster: Option<OpenCluster>,
    /// Bytes of the file.
    end: u64,
}

#[derive(Debug)]
struct OpenCluster {
    /// Its place in the file.
    at: u64,
    begin_ms: u64,
    /// Of its last block.
    newest_ms: u64,
    /// Whether its first picture is a key frame; `None` while it has no picture.
    begins_with_key: Option<bool>,
}

impl WebmMuxer {
    /// `kinds`: the tracks in the order of their indices. Nothing is written before the first unit.
    pub fn new(kinds: &[WebmTrackKind]) -> Self {
        let tracks: Vec<WebmTrack> = kinds.iter().map(|kind| WebmTrack::new(*kind)).collect();
        let order = UnitOrder::new(tracks.iter().map(WebmTrack::is_video));
        Self { tracks, order, index: SeekIndex::new(), head: None, cluster: None, end: 0 }
    }

    /// Units of one track in the order of their times, the tracks as they come. Pictures before the first key frame are
    /// dropped. What is written now, in this order: units that need not wait.
    pub fn push(&mut self, track: usize, unit: WebmUnit) -> Vec<FileWrite> {
        let mut out = vec![];
        if let Some(unit) = self.tracks.get_mut(track).and_then(|known| known.take(unit)) {
            self.order.push(track, unit);
            while let Some((track, unit)) = self.order.pop_due() {
                self.write(track, &unit, &mut out);
            }
        }
        out
    }

    /// The newest unit of `track` is shown at least until `end_ns`.
    pub fn lasts(&mut self, track: usize, end_ns: u64) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.lasts(end_ns);
        }
    }

    /// The last writes, in this order. Nothing comes after them.
    pub fn finish(&mut self) -> Vec<FileWrite> {
        let mut out = vec![];
        while let Some((track, unit)) = self.order.pop() {
            self.write(track, &unit, &mut out);
        }
        let head = self.begin(&mut out);
        self.close_cluster(&mut out);
        let index = (!self.index.is_empty()).then_some(self.end);
        if index.is_some() {
            let mut bytes = vec![];
            self.index.write(&mut bytes, track_number(self.indexed_track()), head.segment);
            self.append(bytes, &mut out);
        }
        let end_ns = self.tracks.iter().map(WebmTrack::end_ns).max().unwrap_or(0);
        out.extend(head.finish(self.end, end_ns, index));
        out
    }

    /// Writes the head, if it is not there.
    fn begin(&mut self, out: &mut Vec<FileWrite>) -> HeadPlaces {
        if let Some(head) = self.head {
            return head;
        }
        let mut bytes = vec![];
        let head = HeadPlaces::write(&mut bytes, &self.tracks);
        self.head = Some(head);
        self.append(bytes, out);
        head
    }

    fn write(&mut self, track: usize, unit: &WebmUnit, out: &mut Vec<FileWrite>) {
        let Some(known) = self.tracks.get(track) else { return };
        let (is_video, padding_ns) = (known.is_video(), known.padding_ns(unit));
        self.begin(out);
        let at_ms = scale(unit.at_ns, 1_000_000_000, 1000);
        let mut bytes = Vec::with_capacity(unit.data.len() + BLOCK_FRONT);
        let begins = self.begins_cluster(at_ms, is_video && unit.key);
        if begins {
            self.close_cluster(out);
            open_front(&mut bytes, CLUSTER);
            uint(&mut bytes, TIMESTAMP, at_ms);
            let cluster = OpenCluster { at: self.end, begin_ms: at_ms, newest_ms: at_ms, begins_with_key: None };
            self.cluster = Some(cluster);
        }
        let is_indexed = track == self.indexed_track() && if is_video { unit.key } else { begins };
        let Some(cluster) = &mut self.cluster else { return };
        cluster.newest_ms = at_ms;
        if is_video {
            cluster.begins_with_key.get_or_insert(unit.key);
        }
        if is_indexed {
            self.index.add(at_ms, cluster.at);
        }
        block(&mut bytes, track_number(track), at_ms - cluster.begin_ms, unit, padding_ns);
        self.append(bytes, out);
    }

    /// Whether a block at this time begins a cluster. Times never go back in one: what came too late begins another.
    fn begins_cluster(&self, at_ms: u64, is_key_picture: bool) -> bool {
        let Some(open) = &self.cluster else { return true };
        let length_ms = at_ms.saturating_sub(open.begin_ms);
        at_ms < open.newest_ms
            || length_ms >= MAX_CLUSTER_MS
            || is_key_picture && (open.begins_with_key == Some(false) || length_ms >= MIN_CLUSTER_MS)
    }

    fn close_cluster(&mut self, out: &mut Vec<FileWrite>) {
        if let Some(open) = self.cluster.take() {
            let size = wide_size(self.end - open.at - CLUSTER_FRONT);
            out.push(FileWrite { at: open.at + CLUSTER_FRONT - size.len() as u64, bytes: size.to_vec() });
        }
    }

    fn append(&mut self, bytes: Vec<u8>, out: &mut Vec<FileWrite>) {
        let at = self.end;
        self.end += bytes.len() as u64;
        out.push(FileWrite { at, bytes });
    }

    /// The first with pictures; without one the first.
    fn indexed_track(&self) -> usize {
        self.tracks.iter().position(WebmTrack::is_video).unwrap_or(0)
    }
}

/// In the file; a few tracks at most.
fn track_number(track: usize) -> u8 {
    track as u8 + 1
}

/// `relative_ms`: since the cluster's begin, less than [`MAX_CLUSTER_MS`].
fn block(out: &mut Vec<u8>, number: u8, relative_ms: u64, unit: &WebmUnit, padding_ns: u64) {
    let [high, low] = (relative_ms as u16).to_be_bytes();
    let put = |out: &mut Vec<u8>, id: u32, flags: u8| {
        // The number of a track has a length marker, as sizes have.
        let head = [0x80 | number, high, low, flags];
        front(out, id, head.len() + unit.data.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(&unit.data);
    };
    if padding_ns == 0 {
        put(out, SIMPLE_BLOCK, if unit.key { KEY } else { 0 });
    } else {
        element(out, BLOCK_GROUP, |out| {
            put(out, BLOCK, 0);
            // Signed.
            binary(out, DISCARD_PADDING, &padding_ns.to_be_bytes());
        });
    }
}

#[cfg(test)]
mod tests;
