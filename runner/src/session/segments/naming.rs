//! Names of HLS outputs: no two outputs of an egress have one in a store, and none replaces what is on a disk. Runs in the
//! session's task.

use std::time::Duration;

use chrono::NaiveDateTime;
use spillway_plan::EgressPlan;

use super::{SegmentedOutput, SessionSegments};
use crate::results::{self, OutputError, claim};
use crate::upload::ObjectNames;

impl SessionSegments {
    /// Before anything is recorded: an output gets names that no other of this egress has in its stores, which `object_names`
    /// knows by the output's number, and on this machine's disk names of which nothing is there. Names that depend on a track
    /// are not known yet: they are not claimed on a disk.
    ///
    /// # Errors
    /// The disk refuses, or does not answer within `limit`; a retry is right only where that passes.
    pub(in crate::session) async fn claim_names(
        &mut self,
        plan: &EgressPlan,
        now: NaiveDateTime,
        limit: Duration,
        object_names: impl Fn(u32) -> ObjectNames,
    ) -> Result<(), OutputError> {
        for output in &mut self.outputs {
            output.object_names = object_names(output.job.output);
            if output.is_resumed() {
                continue;
            }
            let naming = &output.job.naming;
            let known = results::known(plan, |plan, track| results::segment_names(plan, naming, track, now));
            let (Some(root), Some(names)) = (output.job.place.root().cloned(), known) else { continue };
            let (path, holder) =
                (root.locate(names.playlist_path()), claim::holder(&plan.egress_id, output.job.output));
            let claimed = claim::within(limit, path, move || claim::claim_segments(&names, &root, &holder));
            output.claimed = Some(claimed.await?);
        }
        Ok(())
    }
}

impl SegmentedOutput {
    /// Names it as it was claimed, or as it is called with its facts at the time `now`; asks no disk and no store. False: it
    /// has its names, or its facts are not known yet.
    pub(super) fn take_names(&mut self, plan: &EgressPlan, now: impl FnOnce() -> NaiveDateTime) -> bool {
        let (None, Some(facts)) = (&self.names, &self.facts) else { return false };
        let names = match &self.claimed {
            Some((names, _)) => names.clone(),
            None => {
                let asked = results::segment_names(plan, &self.job.naming, facts, now());
                let number = self.object_names.take_all(|number| asked.numbered(number).reserved());
                asked.numbered(number)
            }
        };
        self.names = Some(names);
        true
    }
}
