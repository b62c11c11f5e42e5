//! The state of an HLS output for another process: into the checkpoint, and out of it. Pure.

use std::sync::Arc;

use super::super::saved::{SegmentsCheckpoint, UnlistedSegment};
use super::{SegmentsMachine, SegmentsPlan, SpooledSegment};

impl SegmentsMachine {
    /// That of a dead task. Segments that its checkpoint does not know as stored are pending, and not sent by themselves:
    /// [`Self::send`] or [`Self::lost`] decides about each.
    pub fn resume(checkpoint: &SegmentsCheckpoint, locate: Arc<dyn Fn(&str) -> String + Send + Sync>) -> Self {
        let mut machine = Self::new(SegmentsPlan {
            output: checkpoint.output,
            names: checkpoint.names.clone(),
            segment_ns: checkpoint.segment_ns,
            folder: checkpoint.folder.clone(),
            started_at: checkpoint.started_at,
            locate,
        });
        machine.on_backup = checkpoint.on_backup;
        machine.processes.clone_from(&checkpoint.processes);
        for run in &checkpoint.listed {
            let mut bytes = run.bytes;
            for (n, at_ns, length_ns) in run.segments() {
                // Only their sum is known.
                let whole = SpooledSegment { n, at_ns, length_ns, bytes: std::mem::take(&mut bytes) };
                machine.add(whole);
                machine.stored(n, whole.bytes, run.on_backup);
            }
        }
        for &UnlistedSegment { n, at_ns, length_ns, bytes, stored, on_backup } in &checkpoint.unlisted {
            machine.add(SpooledSegment { n, at_ns, length_ns, bytes });
            if stored {
                machine.stored(n, bytes, on_backup);
            }
        }
        if let Some((n, at_ns)) = checkpoint.open {
            machine.opened(n, at_ns);
        }
        machine
    }

    /// For a salvage.
    pub fn checkpoint(&self) -> SegmentsCheckpoint {
        let waiting = self.sequencer.waiting().map(|(n, segment)| UnlistedSegment {
            n,
            at_ns: segment.at_ns,
            length_ns: segment.length_ns,
            bytes: segment.bytes,
            stored: true,
            on_backup: segment.on_backup,
        });
        let pending = self.pending.values().map(|&SpooledSegment { n, at_ns, length_ns, bytes }| UnlistedSegment {
            n,
            at_ns,
            length_ns,
            bytes,
            stored: false,
            on_backup: false,
        });
        let mut unlisted: Vec<UnlistedSegment> = waiting.chain(pending).collect();
        unlisted.sort_by_key(|segment| segment.n);
        SegmentsCheckpoint {
            output: self.plan.output,
            names: self.plan.names.clone(),
            segment_ns: self.plan.segment_ns,
            folder: self.plan.folder.clone(),
            started_at: self.plan.started_at,
            on_backup: self.on_backup,
            listed: self.runs.as_slice().to_vec(),
            unlisted,
            open: self.open,
            processes: self.processes.clone(),
        }
    }
}
