//! The WebVTT file of a recording's thumbnails: which part of which sprite sheet a player shows at which time. Pure. The form is
//! the one that players agree on (video.js, JW Player, Shaka, Plyr): `sheet.jpg#xywh=0,0,160,90`, the last part a media fragment
//! (W3C, Media Fragments URI 1.0).

use std::fmt::Write;

use super::playlist::reference;

/// A thumbnail: a rectangle of a sprite sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// From when on it stands for the recording, nanoseconds since the recording's beginning.
    pub at_ns: u64,
    /// Name of the sheet, relative to the file; `None`: the sheet is not stored, and its time shows nothing.
    pub sheet: Option<String>,
    /// Left, upper edge, width, height, pixels.
    pub area: (u32, u32, u32, u32),
}

/// Where the thumbnails of a sprite sheet stand, by their numbers: rows of `columns`, from the left.
pub fn area(n: usize, columns: u32, (width, height): (u32, u32)) -> (u32, u32, u32, u32) {
    let (n, columns) = (u32::try_from(n).unwrap_or(u32::MAX), columns.max(1));
    ((n % columns).saturating_mul(width), (n / columns).saturating_mul(height), width, height)
}

/// The file. Each thumbnail is shown until the next one, the last up to `end_ns`, the first from the beginning on. Times are
/// ascending; of several that are the same millisecond the last is shown.
pub fn thumbnails(thumbnails: &[Thumbnail], end_ns: u64) -> String {
    let mut text = String::from("WEBVTT\n");
    for (n, thumbnail) in thumbnails.iter().enumerate() {
        let from_ns = if n == 0 { 0 } else { thumbnail.at_ns };
        let to_ns = thumbnails.get(n + 1).map_or(end_ns, |next| next.at_ns);
        let (from, to) = (from_ns / 1_000_000, to_ns / 1_000_000);
        let Some(sheet) = thumbnail.sheet.as_ref().filter(|_| from < to) else { continue };
        let (x, y, width, height) = thumbnail.area;
        // Writing into a text cannot fail.
        let _ = write!(text, "\n{} --> {}\n{}#xywh={x},{y},{width},{height}\n", time(from), time(to), uri(sheet));
    }
    text
}

/// `HH:MM:SS.mmm`, with more hours where there are more.
fn time(ms: u64) -> String {
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// A file name as a relative reference. An arrow in it would begin the next entry.
fn uri(name: &str) -> String {
    reference(name).replace("-->", "--%3E")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn at(ms: u64, sheet: Option<&str>, n: usize) -> Thumbnail {
        Thumbnail { at_ns: ms * 1_000_000, sheet: sheet.map(str::to_owned), area: area(n, 10, (160, 90)) }
    }

    #[test]
    fn each_thumbnail_is_shown_until_the_next() {
        let list = [at(33, Some("a-0.jpg"), 0), at(5000, Some("a-0.jpg"), 1), at(10_033, Some("a-1.jpg"), 0)];
        let expected = "WEBVTT\n\n\
            00:00:00.000 --> 00:00:05.000\na-0.jpg#xywh=0,0,160,90\n\n\
            00:00:05.000 --> 00:00:10.033\na-0.jpg#xywh=160,0,160,90\n\n\
            00:00:10.033 --> 00:00:12.500\na-1.jpg#xywh=0,0,160,90\n";
        assert_eq!(thumbnails(&list, 12 * SECOND_NS + SECOND_NS / 2), expected);
    }

    #[test]
    fn what_is_not_stored_or_has_no_length_is_left_out() {
        for (list, end_ms, shown) in [
            (vec![], 1000, vec![]),
            (vec![at(0, None, 0), at(1000, Some("b"), 0)], 2000, vec!["00:00:01.000 --> 00:00:02.000"]),
            (vec![at(0, Some("a"), 0), at(1000, None, 0)], 2000, vec!["00:00:00.000 --> 00:00:01.000"]),
            (vec![at(0, Some("a"), 0), at(1000, Some("a"), 1)], 1000, vec!["00:00:00.000 --> 00:00:01.000"]),
            (vec![at(0, Some("a"), 0), at(0, Some("a"), 1)], 9, vec!["00:00:00.000 --> 00:00:00.009"]),
            (vec![at(5000, Some("a"), 0)], 2000, vec!["00:00:00.000 --> 00:00:02.000"]),
        ] {
            let text = thumbnails(&list, end_ms * 1_000_000);
            assert!(text.starts_with("WEBVTT\n"));
            assert_eq!(text.lines().filter(|line| line.contains("-->")).collect::<Vec<_>>(), shown, "{list:?}");
        }
    }

    #[test]
    fn times_and_names_are_those_of_the_standard() {
        for (ms, expected) in [
            (0, "00:00:00.000"),
            (3_599_999, "00:59:59.999"),
            (86_400_000, "24:00:00.000"),
            (360_000_001, "100:00:00.001"),
        ] {
            assert_eq!(time(ms), expected);
        }
        assert_eq!(uri("my room #1?-->.jpg"), "my room %231%3F--%3E.jpg");
    }

    #[test]
    fn areas_stand_in_rows() {
        for (n, columns, expected) in [
            (0, 10, (0, 0, 160, 90)),
            (9, 10, (1440, 0, 160, 90)),
            (57, 10, (1120, 450, 160, 90)),
            (3, 0, (0, 270, 160, 90)),
        ] {
            assert_eq!(area(n, columns, (160, 90)), expected, "{n}");
        }
    }
}
