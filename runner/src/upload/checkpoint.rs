//! What a salvage needs to complete the uploads of this process should it die. Changes come from the session and the upload
//! tasks; a background task writes the newest state to Redis as JSON, without a secret. No caller waits for Redis, except
//! in [`CheckpointWriter::flush`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_bus::{FencedWrite, UploadStates};
use spillway_ipc::Origin;
use spillway_plan::Container;
use spillway_process::chain;
use spillway_protocol::EgressId;
use spillway_storage::Upload;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::images::ImagesCheckpoint;
use super::parts::PartState;
use super::plan::PartLayout;
use super::segments::SegmentsCheckpoint;
use crate::results::FileNumber;

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
}

/// State of one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileCheckpoint {
    /// Number of the file in the recording: that of its output, or a later one.
    pub file: u32,
    /// Which output of the plan; `None`, from an older attempt: the one with the file's number.
    #[serde(default)]
    pub output: Option<u32>,
    /// Its place in the EgressInfo's list of files; `None`, from an older attempt: its place in this list.
    #[serde(default)]
    pub index: Option<usize>,
    /// The object's name, or the file's on the disk.
    pub filename: String,
    /// Decides how the file is read.
    pub container: Container,
    /// Unix nanoseconds of the first recorded instant; `None`: nothing was recorded yet.
    #[serde(default)]
    pub started_at: Option<i64>,
    /// Samples: (bytes of the object, nanoseconds of media in them), ascending.
    #[serde(default)]
    pub media: Vec<(u64, u64)>,
    /// The file itself, or its spool file.
    pub path: PathBuf,
    /// `None`: it stays on the disk, or its upload has not begun.
    #[serde(default)]
    pub upload: Option<UploadCheckpoint>,
    /// What of the file the object is made of; its parts and samples count the object's bytes.
    #[serde(default)]
    pub origin: Origin,
    /// Nothing of the file from here on was given back to the disk: a restart point.
    #[serde(default)]
    pub kept_from: u64,
}

/// State of an upload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadCheckpoint {
    /// It goes to the second of the file's destinations.
    #[serde(default)]
    pub backup: bool,
    /// As the store named it.
    pub upload: Upload,
    /// Every part was stored and the store was asked to complete the object.
    #[serde(default)]
    pub completing: bool,
    /// The object is made, and has so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// How the object is cut into parts.
    pub layout: PartLayout,
    /// Part `n` is `parts[n - 1]`.
    pub parts: Vec<PartState>,
    /// Uploads at the primary store that were given up for the backup and are to be aborted.
    #[serde(default)]
    pub left: Vec<Upload>,
}

impl FileCheckpoint {
    /// Of a file in which nothing is recorded yet, without an upload.
    pub fn new(number: FileNumber, filename: String, container: Container, path: PathBuf) -> Self {
        Self {
            file: number.file,
            output: Some(number.output),
            index: Some(number.index),
            filename,
            container,
            started_at: None,
            media: vec![],
            path,
            upload: None,
            origin: Origin::default(),
            kept_from: 0,
        }
    }

    /// Which output of the plan it is of.
    pub fn output(&self) -> u32 {
        self.output.unwrap_or(self.file)
    }

    /// How much media is in the first `bytes`, nanoseconds.
    pub fn media_ns(&self, bytes: u64) -> u64 {
        media_at(&self.media, bytes)
    }
}

/// Nanoseconds of media in the first `bytes`: interpolated between `samples`, extrapolated beyond the last at the average so
/// far.
pub fn media_at(samples: &[(u64, u64)], bytes: u64) -> u64 {
    let after = samples.partition_point(|(at, _)| *at < bytes);
    let before = after.checked_sub(1).map_or((0, 0), |index| samples[index]);
    match samples.get(after) {
        None if before.0 == 0 => before.1,
        None => (bytes as f64 * (before.1 as f64 / before.0 as f64)) as u64,
        Some(next) if next.0 == before.0 => next.1,
        Some(next) => {
            let share = (bytes - before.0) as f64 / (next.0 - before.0) as f64;
            before.1 + (next.1.saturating_sub(before.1) as f64 * share) as u64
        }
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
    use spillway_bus::Bus;

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
    fn media_grows_evenly_between_samples() {
        let at = |bytes| file(0).media_ns(bytes);
        assert_eq!((at(0), at(50), at(100), at(150), at(200)), (0, 500, 1000, 2000, 3000));
        assert_eq!(at(220), 3300, "beyond the last sample it goes on as before");
        assert_eq!(at(999), 14985);
        assert_eq!(media_at(&[], 7), 0);
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
