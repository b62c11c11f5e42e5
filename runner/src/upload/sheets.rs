//! Poster, contact sheet and thumbnails of a recording that is over: what lies in its spool folder goes beside its file or
//! playlist, and the WebVTT file is written of what arrived. Bounded, and a fault is a note: the recording itself is where it
//! belongs by then. Used by the session and by a salvage.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use spillway_ipc::sheet_file::{self, SheetIndex};
use spillway_plan::manifest::ManifestSheet;
use spillway_plan::sheets::SheetNames;
use spillway_storage::Meta;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::objects::ObjectUploads;
use crate::results::webvtt::{self, Thumbnail};

/// For all of them together: the store has taken the recording just before.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at once.
const AT_ONCE: usize = 8;

/// What has become of the sheets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSheets {
    /// What is stored, for the manifest.
    pub sheets: Vec<ManifestSheet>,
    /// Why something is not, for `details`.
    pub notes: Vec<String>,
}

/// One run of [`store_sheets`].
struct SheetStore<'a> {
    folder: &'a Path,
    objects: &'a ObjectUploads,
    give_up: Instant,
    stored: StoredSheets,
    /// Why objects are missing; the first reason.
    missing: Option<(u32, String)>,
}

/// What a folder has; `None`: nothing, or nothing that can be read.
pub async fn read_index(folder: &Path) -> Option<SheetIndex> {
    let path = folder.join(sheet_file::INDEX);
    let read = spawn_blocking(move || fs::read(path)).await.ok()?.ok()?;
    serde_json::from_slice(&read).inspect_err(|error| warn!(%error, "the index of the sheets cannot be read")).ok()
}

/// Stores what is in `folder` beside the file or playlist with the storage path `beside`, in which the first `skipped_ns`
/// nanoseconds of the recording are missing. Takes 30 s at most.
pub async fn store_sheets(
    index: &SheetIndex,
    folder: &Path,
    (beside, skipped_ns): (&str, u64),
    objects: &ObjectUploads,
) -> StoredSheets {
    let names = SheetNames::beside(beside);
    let give_up = Instant::now() + STORE_TIMEOUT;
    let mut store = SheetStore { folder, objects, give_up, stored: StoredSheets::default(), missing: None };
    if index.poster {
        let put = store.put_file(sheet_file::POSTER, &names.poster()).await;
        store.is_stored("poster", names.poster(), put);
    }
    if index.contact_sheet {
        let put = store.put_file(sheet_file::CONTACT_SHEET, &names.contact_sheet()).await;
        store.is_stored("contact_sheet", names.contact_sheet(), put);
    }
    if !index.sheets.is_empty() {
        let there = store.put_sprites(index, &names).await;
        let text = thumbnails(index, &names, &there, skipped_ns);
        let put = store.put(&names.thumbnails(), text.into(), "text/vtt").await;
        store.is_stored("thumbnails", names.thumbnails(), put);
    }
    let SheetStore { mut stored, missing, .. } = store;
    if let Some((count, message)) = missing {
        stored.notes.push(format!("{count} of the pictures beside {beside} are not stored: {message}"));
    }
    stored
}

impl SheetStore<'_> {
    /// Answers which of the sprite sheets are stored.
    async fn put_sprites(&mut self, index: &SheetIndex, names: &SheetNames) -> Vec<bool> {
        let numbers: Vec<usize> = (0..index.sheets.len()).collect();
        let mut there = vec![];
        for some in numbers.chunks(AT_ONCE) {
            let store = &*self;
            let put = some.iter().map(|n| {
                let (spooled, name) = (sheet_file::sprite_sheet(*n), names.sprite_sheet(*n));
                async move {
                    let put = store.put_file(&spooled, &name).await;
                    (name, put)
                }
            });
            let answers = join_all(put).await;
            for (name, put) in answers {
                there.push(put.is_ok());
                self.is_stored("sprite_sheet", name, put);
            }
        }
        there
    }

    async fn put_file(&self, spooled: &str, name: &str) -> Result<String, String> {
        let path = self.folder.join(spooled);
        let read = spawn_blocking(move || fs::read(path)).await;
        let bytes = read.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        let bytes = bytes.map_err(|error| format!("read {spooled}: {error}"))?;
        self.put(name, bytes.into(), "image/jpeg").await
    }

    /// Answers the object's location.
    async fn put(&self, name: &str, bytes: Bytes, mime: &str) -> Result<String, String> {
        let left = self.give_up.saturating_duration_since(Instant::now());
        let meta = Meta::of(mime);
        let put = timeout(left, self.objects.put_small(name, bytes, &meta, left));
        put.await.unwrap_or_else(|_| Err("the store did not answer in time".to_owned()))
    }

    fn is_stored(&mut self, kind: &str, filename: String, put: Result<String, String>) {
        match put {
            Ok(location) => self.stored.sheets.push(ManifestSheet { kind: kind.to_owned(), filename, location }),
            Err(message) => {
                warn!(sheet = filename, error = message, "not stored");
                self.missing.get_or_insert((0, message)).0 += 1;
            }
        }
    }
}

/// The WebVTT file; `there`: which of the sprite sheets are stored.
fn thumbnails(index: &SheetIndex, names: &SheetNames, there: &[bool], skipped_ns: u64) -> String {
    let mut list = vec![];
    for (sheet, captured) in index.sheets.iter().enumerate() {
        let name = names.sprite_sheet(sheet);
        // Relative to the WebVTT file, which lies in the same folder.
        let name = name.rsplit('/').next().unwrap_or_default();
        let is_there = there.get(sheet).copied().unwrap_or_default();
        list.extend(captured.iter().enumerate().map(|(n, at_ns)| Thumbnail {
            at_ns: at_ns.saturating_sub(skipped_ns),
            sheet: is_there.then(|| name.to_owned()),
            area: webvtt::area(n, index.columns, index.tile),
        }));
    }
    webvtt::thumbnails(&list, index.end_ns.saturating_sub(skipped_ns))
}

/// Removes all of it from a spool folder, and the folder if it is empty then. Blocks for the disk.
pub fn remove_sheets(folder: &Path) {
    if !folder.as_os_str().is_empty() {
        clear_sheets(folder);
        let _ = fs::remove_dir(folder);
    }
}

/// The same, and the folder stays: a recording goes on there.
pub fn clear_sheets(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(sheet_file::is_one) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use spillway_process::LocalRoot;

    use super::*;
    use crate::upload::UploadSettings;
    use crate::upload::objects::ObjectStore;

    const SECOND_NS: u64 = 1_000_000_000;

    /// A poster and two sprite sheets, and something else.
    fn spooled(folder: &Path) -> SheetIndex {
        fs::create_dir_all(folder).unwrap();
        for name in [sheet_file::POSTER, &sheet_file::sprite_sheet(0), &sheet_file::sprite_sheet(1), "0-1.ts"] {
            fs::write(folder.join(name), name).unwrap();
        }
        let index = SheetIndex {
            output: 0,
            poster: true,
            contact_sheet: false,
            tile: (160, 90),
            columns: 10,
            sheets: vec![vec![0, 5 * SECOND_NS], vec![10 * SECOND_NS]],
            end_ns: 12 * SECOND_NS,
        };
        fs::write(folder.join(sheet_file::INDEX), serde_json::to_vec(&index).unwrap()).unwrap();
        index
    }

    fn objects(root: &Path) -> ObjectUploads {
        let root = LocalRoot::of_setting(Some(root)).unwrap();
        ObjectUploads::new(ObjectStore::Disk(root), None, String::new(), UploadSettings::default())
    }

    #[tokio::test]
    async fn they_lie_beside_the_recording_and_the_spool_is_empty() {
        let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = spool.path().join("EG_x");
        let index = spooled(&folder);
        assert_eq!(read_index(&folder).await.as_ref(), Some(&index));
        let stored = store_sheets(&index, &folder, ("d/a.mp4", 0), &objects(root.path())).await;
        assert!(stored.notes.is_empty(), "{:?}", stored.notes);
        let listed: Vec<_> = stored.sheets.iter().map(|sheet| (sheet.kind.as_str(), sheet.filename.as_str())).collect();
        let expected = [
            ("poster", "d/a.jpg"),
            ("sprite_sheet", "d/a-thumbnails-00000.jpg"),
            ("sprite_sheet", "d/a-thumbnails-00001.jpg"),
            ("thumbnails", "d/a-thumbnails.vtt"),
        ];
        assert_eq!(listed, expected);
        assert_eq!(stored.sheets[0].location, root.path().join("d/a.jpg").display().to_string());
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("d/a.jpg"), sheet_file::POSTER);
        let text = read("d/a-thumbnails.vtt");
        assert!(text.ends_with("00:00:10.000 --> 00:00:12.000\na-thumbnails-00001.jpg#xywh=0,0,160,90\n"), "{text}");
        remove_sheets(&folder);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "what is not ours stays");
        fs::remove_file(folder.join("0-1.ts")).unwrap();
        remove_sheets(&folder);
        assert!(!folder.exists());
        assert_eq!(read_index(&folder).await, None);
    }

    #[tokio::test]
    async fn a_sheet_that_is_missing_is_a_note_and_not_in_the_list() {
        let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let index = spooled(spool.path());
        fs::remove_file(spool.path().join(sheet_file::sprite_sheet(0))).unwrap();
        let stored = store_sheets(&index, spool.path(), ("a.m3u8", 0), &objects(root.path())).await;
        assert_eq!(stored.sheets.len(), 3);
        assert!(stored.notes[0].starts_with("1 of the pictures beside a.m3u8 are not stored: "), "{stored:?}");
        let text = fs::read_to_string(root.path().join("a-thumbnails.vtt")).unwrap();
        assert!(!text.contains("00000.jpg") && text.contains("00001.jpg"), "{text}");
    }

    #[test]
    fn a_file_that_begins_later_has_other_times() {
        let spool = tempfile::tempdir().unwrap();
        let text = thumbnails(&spooled(spool.path()), &SheetNames::beside("a.mp4"), &[true; 2], 6 * SECOND_NS);
        let times: Vec<&str> = text.lines().filter(|line| line.contains("-->")).collect();
        assert_eq!(times, ["00:00:00.000 --> 00:00:04.000", "00:00:04.000 --> 00:00:06.000"], "{text}");
        assert!(text.contains("#xywh=160,0,160,90"), "{text}");
    }
}
