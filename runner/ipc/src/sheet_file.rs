//! Poster, contact sheet and sprite sheets in a spool folder: what their files are called, and the index that says what is
//! there. The media process writes them, each under its name only when it is whole and the index last; the runner or a
//! salvage reads them when the recording is over. Nothing is said of them between the processes. Pure.

use serde::{Deserialize, Serialize};

/// The file with a [`SheetIndex`] as JSON.
pub const INDEX: &str = "sheets.json";
/// Of the poster.
pub const POSTER: &str = "sheet-poster.jpg";
/// Of the contact sheet.
pub const CONTACT_SHEET: &str = "sheet-contact.jpg";
/// Of any of these while it is written; renamed when it is whole.
pub const UNFINISHED: &str = "sheet.part";

/// Of sprite sheet `n`, from 0.
pub fn sprite_sheet(n: usize) -> String {
    format!("sheet-{n}.jpg")
}

/// Whether a file of a spool folder is one of these.
pub fn is_one(name: &str) -> bool {
    let number = || name.strip_prefix("sheet-")?.strip_suffix(".jpg")?.parse::<u32>().ok();
    [INDEX, POSTER, CONTACT_SHEET, UNFINISHED].contains(&name) || number().is_some()
}

/// What is in the folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SheetIndex {
    /// The output of the plan whose file or playlist all of it belongs to.
    pub output: u32,
    /// There is a poster.
    pub poster: bool,
    /// There is a contact sheet.
    pub contact_sheet: bool,
    /// Width and height of a thumbnail, pixels.
    pub tile: (u32, u32),
    /// Thumbnails in a row of a sprite sheet; they stand in rows, from the left.
    pub columns: u32,
    /// By sprite sheet: when each of its thumbnails was captured, nanoseconds since [`Started`](crate::MediaEvent::Started).
    pub sheets: Vec<Vec<u64>>,
    /// Up to where the last one stands for the recording, nanoseconds.
    pub end_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_files_are_meant() {
        for name in [INDEX, POSTER, CONTACT_SHEET, UNFINISHED, &sprite_sheet(0), &sprite_sheet(173)] {
            assert!(is_one(name), "{name}");
        }
        for name in ["1-0.jpeg", "0-12.ts", "1-image.part", "sheet-.jpg", "sheet-x.jpg", "sheet-1.jpeg", "a.mp4"] {
            assert!(!is_one(name), "{name}");
        }
    }

    #[test]
    fn an_index_of_another_version_is_read() {
        let read: SheetIndex = serde_json::from_str(r#"{"sheets": [[0, 5]], "newer": 1}"#).unwrap();
        assert_eq!(read, SheetIndex { sheets: vec![vec![0, 5]], ..SheetIndex::default() });
    }
}
