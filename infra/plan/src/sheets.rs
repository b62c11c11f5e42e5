//! Names of the small pictures beside a recording that no request asks for: a poster, a contact sheet, and sprite sheets with
//! a WebVTT file of thumbnails for players. The path of a file or playlist comes in, theirs come out. Pure.

use crate::name::{cut, split};
use crate::uploads::MAX_COMPONENT_BYTES;

/// Behind the stem of a file: `-thumbnails-`, ten digits at most, `.jpg`.
const MAX_SUFFIX_BYTES: usize = 26;

/// Storage paths of the sheets of one recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheetNames {
    stem: String,
}

impl SheetNames {
    /// Beside the file or playlist with this storage path.
    pub fn beside(path: &str) -> Self {
        let (directory, name) = split(path);
        let stem = match name.rfind('.') {
            Some(dot) if dot > 0 => &name[..dot],
            _ => name,
        };
        Self { stem: format!("{directory}{}", cut(stem, MAX_COMPONENT_BYTES - MAX_SUFFIX_BYTES)) }
    }

    /// Of the poster.
    pub fn poster(&self) -> String {
        format!("{}.jpg", self.stem)
    }

    /// Of the contact sheet.
    pub fn contact_sheet(&self) -> String {
        format!("{}-contact.jpg", self.stem)
    }

    /// Of the WebVTT file.
    pub fn thumbnails(&self) -> String {
        format!("{}-thumbnails.vtt", self.stem)
    }

    /// Of sprite sheet `n`, from 0.
    pub fn sprite_sheet(&self, n: usize) -> String {
        format!("{}-thumbnails-{n:05}.jpg", self.stem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_recording() {
        for (path, stem) in [
            ("a.mp4", "a"),
            ("d/e/a.b.m3u8", "d/e/a.b"),
            ("/d.x/a", "/d.x/a"),
            ("d/.mp4", "d/.mp4"),
            ("d/a b#.mp4", "d/a b#"),
        ] {
            let names = SheetNames::beside(path);
            assert_eq!(names.poster(), format!("{stem}.jpg"), "{path}");
            assert_eq!(names.contact_sheet(), format!("{stem}-contact.jpg"));
            assert_eq!(names.thumbnails(), format!("{stem}-thumbnails.vtt"));
            assert_eq!(names.sprite_sheet(12), format!("{stem}-thumbnails-00012.jpg"));
        }
        let long = SheetNames::beside(&format!("d/{}.mp4", "é".repeat(125)));
        assert!(long.sprite_sheet(u32::MAX as usize).len() <= "d/".len() + MAX_COMPONENT_BYTES);
    }
}
