//! Files of a recording that goes on after the death of a media process, or of the task before this one. Runs in the
//! session's task.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use spillway_plan::EgressPlan;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::SessionFiles;
use super::file::{DiskLook, SessionFile};
use crate::results::{FileNumber, FileResult};
use crate::upload::FileUpload;
use crate::upload::checkpoint::SavedFile;

impl SessionFiles {
    /// A task before this one has recorded something, among that these files.
    pub fn go_on(&mut self, earlier: Vec<FileNumber>) {
        (self.started, self.earlier) = (true, earlier);
    }

    /// This task has recorded the file.
    pub fn knows(&self, number: FileNumber) -> bool {
        self.files.iter().any(|file| file.number == number)
    }

    /// Where another media process goes on: by output the number of its first file, and the next number behind those. An
    /// output of which nothing is kept has its own.
    pub fn next_numbers(&self, plan: &EgressPlan) -> (BTreeMap<u32, u32>, u32) {
        let outputs = u32::try_from(plan.outputs.len()).unwrap_or(u32::MAX);
        let numbers = self.files.iter().map(|file| &file.number).chain(&self.earlier);
        let known = numbers.map(|number| number.file.saturating_add(1)).max();
        let mut next = known.unwrap_or_default().max(outputs);
        let mut first = BTreeMap::new();
        for output in (0..outputs).filter(|output| self.count_of(*output) > 0) {
            first.insert(output, next);
            next = next.saturating_add(1);
        }
        (first, next)
    }

    /// The media process is gone, and another one goes on. A file with media is as it will be, and is stored meanwhile; one
    /// with less of it than `min_ns`, in which a player may find nothing, is taken away, and its name is free.
    pub async fn interrupted(&mut self, min_ns: u64) {
        let mut discarded = vec![];
        for mut file in std::mem::take(&mut self.files) {
            if file.is_recording() && !file.interrupted(min_ns) {
                discarded.push(file);
            } else {
                self.files.push(file);
            }
        }
        self.process += 1;
        self.started_at = None;
        join_all(discarded.iter().filter_map(SessionFile::upload).map(FileUpload::abandon)).await;
        for file in &discarded {
            let (number, filename) = (file.number, &file.output_path.filename);
            self.checkpoint_writer.forget(number.file);
            if let Some(outputs) = &self.outputs {
                outputs.names(number.output).give_back(filename);
            }
        }
        let looks: Vec<DiskLook> = discarded.iter().filter_map(SessionFile::removal).collect();
        let removed = spawn_blocking(move || {
            for look in &looks {
                look.run();
            }
        });
        if let Err(error) = removed.await {
            warn!(%error, "empty files not removed");
        }
    }

    /// This task leaves, and another one goes on: what is stored need not be looked at again.
    pub fn leave(&self) {
        for FileResult { number, filename, location, bytes, started_at, ended_at, used_backup } in self.results() {
            let saved = SavedFile { filename, location, bytes, started_at, ended_at, used_backup };
            self.checkpoint_writer.update(number.file, |file| file.saved = Some(saved));
        }
    }
}
