//! Small pictures beside a recording that no request asks for: a poster, a contact sheet, and sprite sheets with a WebVTT
//! file of thumbnails for players. The installation's rules come in; which output of a plan has them beside it, and how they
//! are called, comes out. Pure.

use crate::name::{cut, split};
use crate::output_types::{Container, Output, SheetRules, SheetsPlan};
use crate::types::VideoPlan;
use crate::uploads::MAX_COMPONENT_BYTES;

/// Behind the stem of a file: `-thumbnails-`, ten digits at most, `.jpg`.
const MAX_SUFFIX_BYTES: usize = 26;

impl SheetRules {
    /// The sheets of a recording with this picture and these outputs: beside its first file with pictures, else beside its
    /// playlist. A Track recording has none, because its picture is not decoded.
    pub fn of(self, picture: Option<&VideoPlan>, outputs: &[Output]) -> Option<SheetsPlan> {
        let is_any = self.poster || self.contact_sheet || self.thumbnails_ns.is_some();
        if !is_any || matches!(picture, None | Some(VideoPlan::Copied)) {
            return None;
        }
        let has_picture = |output: &Output| match output {
            Output::File(file) => {
                file.container.is_none_or(|container| matches!(container, Container::Mp4 | Container::Webm))
            }
            Output::Segments(_) => true,
            Output::Images(_) | Output::Streams(_) => false,
        };
        // Files stand before segments.
        let output = u32::try_from(outputs.iter().position(has_picture)?).ok()?;
        Some(SheetsPlan { output, rules: self })
    }
}

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
    use crate::output_types::{FileOutput, SegmentNaming, SegmentsOutput, StreamProtocol, StreamsOutput};
    use crate::types::{H264Profile, VideoEncoding};

    fn file(container: Container) -> Output {
        let (path, manifest, stored) = (String::new(), false, false);
        Output::File(FileOutput { container: Some(container), audio: None, path, manifest, stored })
    }

    fn segments() -> Output {
        let naming = SegmentNaming::default();
        Output::Segments(SegmentsOutput { naming, segment_ns: 1, manifest: false, stored: false })
    }

    #[test]
    fn they_lie_beside_the_first_file_with_pictures_or_the_playlist() {
        let rules = SheetRules { poster: true, ..SheetRules::default() };
        let streams = Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 1 });
        // A copied picture decides what it is.
        let open = match file(Container::Mp4) {
            Output::File(file) => Output::File(FileOutput { container: None, ..file }),
            other => other,
        };
        let encoding = VideoEncoding {
            width: 1280,
            height: 720,
            framerate: 30,
            bitrate: 3000,
            profile: H264Profile::Main,
            key_frame_interval: None,
        };
        let picture = VideoPlan::CopiedIfPossible(encoding);
        for (outputs, output) in [
            (vec![file(Container::Mp4), segments()], Some(0)),
            (vec![file(Container::Ogg), file(Container::Mp4)], Some(1)),
            (vec![file(Container::Mp3), segments()], Some(1)),
            (vec![streams], None),
            (vec![open], Some(0)),
        ] {
            let planned = rules.of(Some(&picture), &outputs);
            assert_eq!(planned, output.map(|output| SheetsPlan { output, rules }), "{outputs:?}");
            assert_eq!(SheetRules::default().of(Some(&picture), &outputs), None);
            assert_eq!(rules.of(Some(&VideoPlan::Copied), &outputs), None);
            assert_eq!(rules.of(None, &outputs), None);
        }
    }

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
