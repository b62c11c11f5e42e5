//! Which outputs of a recording take media, as the machine counts them. Values only.

use std::collections::{BTreeMap, BTreeSet};

use spillway_plan::{EgressPlan, StreamsOutput};

use crate::results::FileNumber;

/// Outputs that take what is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOutputs {
    pub(super) open: BTreeSet<u32>,
    /// Streams that fail leave the egress well as long as another output is open: each has its own result.
    pub(super) streams: Option<u32>,
    /// Of those that are files: place in the EgressInfo's list of files.
    pub(super) files: BTreeMap<u32, usize>,
}

impl OpenOutputs {
    /// All outputs of a plan, but for streams of which none is there yet.
    pub fn of(plan: &EgressPlan) -> Self {
        let mut open: BTreeSet<u32> = (0..u32::try_from(plan.outputs.len()).unwrap_or(u32::MAX)).collect();
        let files = open.iter().filter(|output| plan.file(**output).is_some());
        let files = files.map(|output| (*output, FileNumber::new(plan, *output, *output).index)).collect();
        let streams = plan.streams();
        if let Some((output, StreamsOutput { count: 0, .. })) = streams {
            open.remove(&output);
        }
        Self { open, streams: streams.map(|(output, _)| output), files }
    }
}
