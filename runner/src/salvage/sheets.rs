//! Poster and thumbnails that a dead attempt has left in a spool of this machine: as far as they are written they are put
//! beside what was saved of the recording. What lies in the spool of a machine that is gone is lost. Runs in the salvage's
//! task, after everything else; a fault is a note.

use spillway_ipc::sheet_file::SheetIndex;
use tokio::task::spawn_blocking;
use tracing::info;

use super::places::SalvagePlaces;
use crate::upload::checkpoint::Checkpoint;
use crate::upload::sheets::{clear_sheets, read_index, remove_sheets, store_sheets};

/// Puts them beside the recording and removes them from the spool, whose folder stays where the recording `goes_on`.
/// `is_saved`: the recording could be saved and was not finished before. Answers notes for the user.
pub(super) async fn finish_sheets(
    places: &SalvagePlaces<'_>,
    checkpoint: &Checkpoint,
    egress_id: &str,
    (is_saved, goes_on): (bool, bool),
) -> Vec<String> {
    let folder = places.settings.spool().join(egress_id);
    let mut notes = vec![];
    if let Some(index) = read_index(&folder).await.filter(|_| is_saved)
        && let Some((beside, on_backup)) = beside(&index, checkpoint)
    {
        match places.of_output(index.output, on_backup).await {
            Ok(place) => {
                let objects = place.uploads(places.settings.clone());
                let stored = store_sheets(&index, &folder, (beside.as_str(), 0), &objects).await;
                info!(beside, objects = stored.sheets.len(), "sheets saved");
                notes = stored.notes;
            }
            Err(message) => notes.push(format!("the poster and thumbnails of {beside} are not stored: {message}")),
        }
    }
    // Also where the attempt died before it wrote the index.
    let _ = spawn_blocking(move || if goes_on { clear_sheets(&folder) } else { remove_sheets(&folder) }).await;
    notes
}

/// Storage path of the file or playlist that they belong to, and whether it is in its second destination.
fn beside(index: &SheetIndex, checkpoint: &Checkpoint) -> Option<(String, bool)> {
    let first = checkpoint.files.iter().find(|file| file.output() == index.output && file.file == index.output);
    let file = first.map(|file| {
        let on_backup = file.upload.as_ref().is_some_and(|upload| upload.backup);
        (file.filename.clone(), on_backup)
    });
    file.or_else(|| {
        let segments = checkpoint.segments.iter().find(|segments| segments.output == index.output)?;
        Some((segments.names.playlist_path(), segments.on_backup))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use spillway_ipc::sheet_file;
    use spillway_process::LocalRoot;

    use super::*;
    use crate::upload::UploadSettings;
    use crate::upload::stores::DefaultStoreFactory;

    #[tokio::test]
    async fn what_has_no_index_yet_leaves_the_spool_too() {
        let spool = tempfile::tempdir().unwrap();
        let folder = spool.path().join("EG_1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(sheet_file::POSTER), "poster").unwrap();
        let settings = UploadSettings { spool_dir: Some(spool.path().to_owned()), ..UploadSettings::default() };
        let stores = DefaultStoreFactory::default();
        let places = SalvagePlaces {
            destinations: &[],
            root: &LocalRoot::confined("/nowhere"),
            stores: &stores,
            settings: &settings,
            here: true,
        };
        let notes = finish_sheets(&places, &Checkpoint::default(), "EG_1", (true, false)).await;
        assert!(notes.is_empty() && !folder.exists());
    }
}
