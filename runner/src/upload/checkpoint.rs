//! What a salvage needs to complete the uploads of this process should it die. Changes come from the session and the upload
//! tasks; a background task writes the newest state to Redis as JSON, without a secret. No caller waits for Redis, except
//! in [`CheckpointWriter::flush`]. `file` is the state of one file; HLS and images have theirs beside their uploads.

mod file;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_bus::{FencedWrite, UploadStates};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use file::{FileCheckpoint, SavedFile, UploadCheckpoint, media_at};

use super::images::ImagesCheckpoint;
use super::segments::SegmentsCheckpoint;

/// How long Redis may keep an upload waiting.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The outputs of an egress: its files, and those of HLS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The machine whose disk the paths are of.
    #[serde(default)]
    pub host: String,
    /// One entry per file that was opened or whose upload was begun.
    #[serde(default)]
    pub files: Vec<FileCheckpoint>,
    /// One entry per HLS output in which something is recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentsCheckpoint>,
    /// One entry per image output of which something is recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImagesCheckpoint>,
    /// Times in which nothing was recorded.
    #[serde(default, skip_serializing_if = "GapsCheckpoint::is_empty")]
    pub gaps: GapsCheckpoint,
}

impl Checkpoint {
    /// Unix nanoseconds of the first recorded instant; `None`: nothing is recorded.
    pub fn started_at(&self) -> Option<i64> {
        let files = self.files.iter().filter_map(|file| file.started_at);
        let others =
            self.segments.iter().map(|left| left.started_at).chain(self.images.iter().map(|left| left.started_at));
        files.chain(others).min()
    }
}

/// Gaps of a recording that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GapsCheckpoint {
    /// How many.
    pub count: u32,
    /// Their lengths, nanoseconds.
    pub sum_ns: u64,
    /// Each as users are told of it.
    pub sentences: Vec<String>,
}

impl GapsCheckpoint {
    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Keeps the state and has it written in the background. Clones share it.
#[derive(Clone, Debug)]
pub struct CheckpointWriter {
    shared: Arc<CheckpointState>,
}

#[derive(Debug)]
struct CheckpointState {
    checkpoint: Mutex<Checkpoint>,
    /// Rises with every change.
    version: watch::Sender<u64>,
    written: watch::Sender<u64>,
    superseded: watch::Sender<bool>,
    enabled: bool,
}

impl CheckpointWriter {
    /// For a recording without a dispatcher, which no salvage follows: changes are dropped.
    pub fn disabled() -> Self {
        Self::new(false)
    }

    fn new(enabled: bool) -> Self {
        let checkpoint = Checkpoint { host: host(), ..Checkpoint::default() };
        Self {
            shared: Arc::new(CheckpointState {
                checkpoint: Mutex::new(checkpoint),
                version: watch::Sender::new(0),
                written: watch::Sender::new(0),
                superseded: watch::Sender::new(false),
                enabled,
            }),
        }
    }

    /// The writer, and the loop that writes: to be polled beside everything else, until it is dropped.
    pub fn start(states: UploadStates, egress_id: EgressId, attempt: u32) -> (Self, impl Future<Output = ()>) {
        let checkpoint_writer = Self::new(true);
        let shared = checkpoint_writer.shared.clone();
        (checkpoint_writer, write_loop(shared, states, egress_id, attempt))
    }

    fn checkpoint(&self) -> MutexGuard<'_, Checkpoint> {
        self.shared.checkpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What another attempt has left, of a recording that goes on: it is kept until it is settled. Files in which nothing was
    /// recorded are not.
    pub fn adopt(&self, earlier: &Checkpoint) {
        self.change(|checkpoint| {
            let recorded = earlier.files.iter().filter(|file| file.started_at.is_some());
            checkpoint.files = recorded.cloned().collect();
            checkpoint.segments.clone_from(&earlier.segments);
            checkpoint.images.clone_from(&earlier.images);
            checkpoint.gaps.clone_from(&earlier.gaps);
        });
    }

    /// A gap is over.
    pub fn gaps(&self, gaps: GapsCheckpoint) {
        self.change(|checkpoint| checkpoint.gaps = gaps);
    }

    /// A file was opened, or its upload begun; an earlier entry of that number is replaced.
    pub fn opened(&self, file: FileCheckpoint) {
        self.change(|checkpoint| {
            checkpoint.files.retain(|known| known.file != file.file);
            checkpoint.files.push(file);
        });
    }

    /// Nothing of a file is kept.
    pub fn forget(&self, file: u32) {
        self.change(|checkpoint| checkpoint.files.retain(|known| known.file != file));
    }

    /// Changes the entry of a file, if there is one.
    pub fn update(&self, file: u32, change: impl FnOnce(&mut FileCheckpoint)) {
        self.change(|checkpoint| {
            if let Some(known) = checkpoint.files.iter_mut().find(|known| known.file == file) {
                change(known);
            }
        });
    }

    /// Changes the entries of all files.
    pub fn update_all(&self, change: impl Fn(&mut FileCheckpoint)) {
        self.change(|checkpoint| checkpoint.files.iter_mut().for_each(&change));
    }

    /// The state of an HLS output has changed; its earlier entry is replaced.
    pub fn segments(&self, segments: SegmentsCheckpoint) {
        self.change(|checkpoint| match checkpoint.segments.iter_mut().find(|known| known.output == segments.output) {
            Some(known) => *known = segments,
            None => checkpoint.segments.push(segments),
        });
    }

    /// The state of an image output has changed; its earlier entry is replaced.
    pub fn images(&self, images: ImagesCheckpoint) {
        self.change(|checkpoint| match checkpoint.images.iter_mut().find(|known| known.output == images.output) {
            Some(known) => *known = images,
            None => checkpoint.images.push(images),
        });
    }

    fn change(&self, change: impl FnOnce(&mut Checkpoint)) {
        if self.shared.enabled {
            change(&mut self.checkpoint());
            self.shared.version.send_modify(|version| *version += 1);
        }
    }

    /// Waits until what was changed before now is written, for at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        if self.shared.enabled {
            let wanted = *self.shared.version.borrow();
            let mut written = self.shared.written.subscribe();
            let _ = timeout(limit, written.wait_for(|written| *written >= wanted)).await;
        }
    }

    /// Redis has refused a write because a later attempt has taken the uploads over.
    pub fn is_superseded(&self) -> bool {
        *self.shared.superseded.borrow()
    }

    /// Waits for that. Cancel-safe.
    pub async fn superseded(&self) {
        let mut superseded = self.shared.superseded.subscribe();
        if superseded.wait_for(|superseded| *superseded).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn write_loop(shared: Arc<CheckpointState>, states: UploadStates, egress_id: EgressId, attempt: u32) {
    let mut versions = shared.version.subscribe();
    let mut failing = false;
    loop {
        let version = *versions.borrow_and_update();
        if version > *shared.written.borrow() {
            let text = {
                let checkpoint = shared.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
                serde_json::to_vec(&*checkpoint)
            };
            let Ok(text) = text else { return };
            let message = match timeout(WRITE_TIMEOUT, states.put(&egress_id, attempt, &text)).await {
                Ok(Ok(FencedWrite::Accepted)) => {
                    shared.written.send_replace(version);
                    failing = false;
                    continue;
                }
                Ok(Ok(FencedWrite::Superseded)) => {
                    debug!("a later attempt has taken the uploads over");
                    shared.superseded.send_replace(true);
                    return;
                }
                Ok(Err(error)) => chain(&error).to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if !failing {
                warn!(error = message, "state of the uploads not written, they go on");
            }
            failing = true;
            sleep(RETRY_INTERVAL).await;
        } else if versions.changed().await.is_err() {
            return;
        }
    }
}

/// Identifies this boot of this machine (host name and boot id): paths of another are not looked for here.
pub fn host() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{}/{}", read("hostname").trim(), read("random/boot_id").trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::FileNumber;
    use spillway_bus::Bus;
    use spillway_plan::Container;

    fn named(number: u32) -> FileNumber {
        FileNumber { file: number, output: number, index: number as usize }
    }

    fn file(number: u32) -> FileCheckpoint {
        FileCheckpoint {
            started_at: Some(1),
            media: vec![(100, 1000), (200, 3000)],
            ..FileCheckpoint::new(named(number), "a.mp4".into(), Container::Mp4, "/tmp/a.mp4".into())
        }
    }

    #[test]
    fn a_checkpoint_of_an_older_attempt_is_understood() {
        let text = r#"{"host":"h/1","files":[{"file":0,"filename":"a.mp4","container":"mp4","started_at":7,
            "media":[[100,1000]],"path":"/spool/EG_1/0.mp4","upload":null,"origin":{"head":"","from":0},"kept_from":0}]}"#;
        let read: Checkpoint = serde_json::from_str(text).unwrap();
        let file = &read.files[0];
        assert_eq!((file.output(), file.output, file.index, file.started_at), (0, None, None, Some(7)));
        let now = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Checkpoint>(&now).unwrap(), read);
    }

    #[test]
    fn a_checkpoint_without_segments_and_images_reads_and_writes_as_before() {
        let text = r#"{"host":"h/b","files":[]}"#;
        let checkpoint: Checkpoint = serde_json::from_str(text).unwrap();
        assert!(checkpoint.images.is_empty());
        assert_eq!((checkpoint.segments.len(), serde_json::to_string(&checkpoint).unwrap().as_str()), (0, text));
    }

    #[tokio::test]
    async fn the_newest_state_is_kept_until_a_later_attempt_takes_over() {
        let bus = Bus::memory();
        let (id, states) = (EgressId::parse("EG_1").unwrap(), UploadStates::new(&bus));
        let (checkpoint_writer, writing) = CheckpointWriter::start(states.clone(), id.clone(), 1);
        let writing = tokio::spawn(writing);
        checkpoint_writer.opened(file(0));
        checkpoint_writer.update(0, |file| file.media.push((300, 4000)));
        checkpoint_writer.flush(Duration::from_secs(5)).await;
        let (attempt, text) = states.get(&id).await.unwrap().unwrap();
        let checkpoint: Checkpoint = serde_json::from_slice(&text).unwrap();
        assert_eq!((attempt, checkpoint.files[0].media.len(), checkpoint.host), (1, 3, host()));

        states.put(&id, 2, b"{}").await.unwrap();
        checkpoint_writer.update(0, |file| file.media.clear());
        timeout(Duration::from_secs(5), checkpoint_writer.superseded()).await.unwrap();
        writing.await.unwrap();
        assert_eq!(states.get(&id).await.unwrap().unwrap().1.as_ref(), b"{}");
    }
}
