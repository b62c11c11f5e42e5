//! Image outputs as facts for the EgressInfo. Values only.

use spillway_protocol::ledger::Fact;

use super::SessionImages;
use crate::upload::images::ImagesResult;

impl SessionImages {
    /// Of outputs that have got their names since the last call.
    pub fn opened_facts(&mut self) -> Vec<Fact> {
        let mut facts = vec![];
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let Some(names) = output.names.as_ref().filter(|_| !output.told) else { continue };
            facts.push(Fact::ImagesOpened { index, prefix: names.told.clone() });
            output.told = true;
        }
        facts
    }

    /// Of outputs that have come further since the last call.
    pub fn progress_facts(&mut self) -> Vec<Fact> {
        let mut facts = vec![];
        for (index, output) in self.outputs.iter_mut().enumerate() {
            let Some(upload) = &output.upload else { continue };
            let now = upload.status().totals;
            if now != std::mem::replace(&mut output.reported, now) {
                facts.push(Fact::ImagesProgress { index, count: now.count });
            }
        }
        facts
    }

    /// After [`SessionImages::finish`]: what all outputs came to.
    pub fn result_facts(&self) -> impl Iterator<Item = Fact> {
        self.results().flat_map(|(index, _, result)| image_facts(index, result))
    }
}

/// What one output came to; `index` among the image outputs.
pub fn image_facts(index: usize, result: &ImagesResult) -> Vec<Fact> {
    let mut facts = vec![];
    if result.gone {
        return facts;
    }
    if result.used_backup {
        facts.push(Fact::BackupUsed);
    }
    if result.totals.count > 0 {
        facts.push(Fact::ImagesProgress { index, count: result.totals.count });
        facts.push(Fact::ImagesStored { index, started_at: result.started_at, ended_at: result.ended_at });
    }
    facts.extend(result.notes.iter().cloned().map(Fact::Noted));
    facts
}
