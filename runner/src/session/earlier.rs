//! What a task before this one has recorded, where the recording goes on: as its checkpoint says, and what became of its
//! files. Values; `salvage` saves the files beside the recording.

use spillway_plan::segment_name::SegmentNames;
use tokio::sync::watch;

use crate::results::FileResult;
use crate::upload::checkpoint::{Checkpoint, FileCheckpoint};

/// A recording that goes on.
#[derive(Clone, Debug)]
pub struct EarlierRecording {
    /// As that task left it.
    pub checkpoint: Checkpoint,
    /// The paths in it are of this machine.
    pub here: bool,
    /// Why that task is gone, for the user.
    pub why: String,
    /// Unix nanoseconds of the first media of the recording.
    pub started_at: i64,
    /// What became of its files, once that is known.
    pub saved: watch::Receiver<Option<SavedFiles>>,
}

/// What became of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedFiles {
    /// Those that are where they were asked to be, or as much of them as there is.
    pub results: Vec<FileResult>,
    /// Messages for the user, one for each that is not.
    pub failures: Vec<String>,
    /// One is in a backup store.
    pub used_backup: bool,
}

impl EarlierRecording {
    /// Files in which something was recorded; with their place in the checkpoint.
    pub(super) fn files(&self) -> impl Iterator<Item = (usize, &FileCheckpoint)> {
        self.checkpoint.files.iter().enumerate().filter(|(_, file)| file.started_at.is_some())
    }

    /// By output: what its objects are called. No other output may have these names.
    pub(super) fn names(&self) -> Vec<(u32, String)> {
        let files = self.files().map(|(_, file)| (file.output(), file.filename.clone()));
        let reserved = |(output, names): (u32, Vec<String>)| names.into_iter().map(move |name| (output, name));
        let segments = self.checkpoint.segments.iter().map(|left| (left.output, SegmentNames::reserved(&left.names)));
        let images = self.checkpoint.images.iter().map(|left| (left.output, vec![left.names.reserved()]));
        files.chain(segments.flat_map(reserved)).chain(images.flat_map(reserved)).collect()
    }

    /// Unix nanoseconds of the last recorded instant, as far as the checkpoint says. Without a file it is that of segments.
    pub(super) fn recorded_to(&self) -> i64 {
        let of_file = |(_, file): (usize, &FileCheckpoint)| {
            let media_ns = file.media.last().map_or(0, |(_, ns)| *ns);
            Some(file.started_at?.saturating_add_unsigned(media_ns))
        };
        let of_segments = || self.checkpoint.segments.iter().filter_map(|left| left.recorded_to()).max();
        let last = self.files().filter_map(of_file).max().or_else(of_segments);
        last.unwrap_or(self.started_at).max(self.started_at)
    }

    /// Waits until it is known what became of the files. Cancel-safe.
    pub(super) async fn settled(&mut self) -> SavedFiles {
        let saved = self.saved.wait_for(Option::is_some).await.map(|saved| saved.clone()).ok();
        match saved {
            Some(saved) => saved.unwrap_or_default(),
            // Whoever was to save them is gone, and this task with it.
            None => std::future::pending().await,
        }
    }
}

impl SavedFiles {
    /// Unix nanoseconds of the last instant that is kept; `None`: there were no files, or nothing of them is kept.
    pub(super) fn kept_to(&self) -> Option<i64> {
        self.results.iter().map(|file| file.ended_at).max()
    }
}

/// Waits until it is known what became of the files of an earlier task. Cancel-safe.
pub(super) async fn settled(earlier: &mut Option<EarlierRecording>) -> SavedFiles {
    match earlier {
        Some(earlier) => earlier.settled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use spillway_plan::Container;

    use super::*;
    use crate::results::FileNumber;

    #[test]
    fn a_file_without_media_is_none_and_the_last_instant_is_the_files() {
        let number = |file| FileNumber { file, output: 0, index: 0 };
        let file = |n, started_at, media| FileCheckpoint {
            started_at,
            media,
            ..FileCheckpoint::new(number(n), format!("a-{n}.mp4"), Container::Mp4, "/spool/a.mp4".into())
        };
        let (_, saved) = watch::channel(None);
        let mut earlier = EarlierRecording {
            checkpoint: Checkpoint { files: vec![file(0, None, vec![])], ..Checkpoint::default() },
            here: true,
            why: String::new(),
            started_at: 100,
            saved,
        };
        assert_eq!((earlier.files().count(), earlier.names(), earlier.recorded_to()), (0, vec![], 100));
        earlier.checkpoint.files = vec![file(0, Some(100), vec![(9, 50)]), file(1, Some(160), vec![])];
        assert_eq!(earlier.recorded_to(), 160);
        assert_eq!(earlier.names(), [(0, "a-0.mp4".to_owned()), (0, "a-1.mp4".to_owned())]);
    }
}
