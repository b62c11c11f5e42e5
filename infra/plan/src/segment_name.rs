//! Names of an HLS output: directory, playlists, segments. The request's paths come in, cleaned and checked when the
//! request is planned; the runner fills in the variables when the recording knows its tracks. Pure.
//!
//! The rules are livekit/egress' (`pkg/config/output_segment.go` and the matrix of `config_test.go`), with two differences:
//! a `..` that comes from a *value* is dropped, and a `/` in a generated name makes no directory, because the names in a
//! playlist are relative to it.

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::name::{NameFacts, cut, fill, within};
pub use crate::output_types::{SegmentFormat, SegmentNaming, SegmentSuffix};
use crate::uploads::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES, clean};

const PLAYLIST: &str = ".m3u8";
/// Behind the prefix of a segment: `_`, 17 digits of a time, the extension.
const MAX_SUFFIX_BYTES: usize = 22;
/// Longest name of a file without its suffix.
const MAX_STEM_BYTES: usize = MAX_COMPONENT_BYTES - MAX_SUFFIX_BYTES;

/// Names with all variables filled in. No component is `.` or `..`, none is too long for a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentNames {
    /// Storage path of the directory with the playlists: empty, or it ends in `/`.
    pub directory: String,
    /// Name of the playlist in the directory.
    pub playlist: String,
    /// Name of the live playlist in the directory.
    pub live_playlist: Option<String>,
    /// Of segments, below the directory; may have directories of its own.
    pub prefix: String,
    /// What follows the prefix.
    pub suffix: SegmentSuffix,
    /// Decides the extension.
    pub format: SegmentFormat,
}

impl SegmentNaming {
    /// As the request has them.
    pub fn new(prefix: &str, playlist: &str, live_playlist: &str, suffix: SegmentSuffix) -> Self {
        let (prefix, playlist, live_playlist) = (clean(prefix), clean(playlist), clean(live_playlist));
        Self { prefix, playlist, live_playlist, suffix, format: SegmentFormat::MpegTs }
    }

    /// Mistakes that show before the variables are known.
    ///
    /// # Errors
    ///
    /// The playlists are in two directories or one object, or a second attempt would write over the first. A retry changes
    /// nothing.
    pub fn check(&self, retry_count: i32) -> Result<(), PlanError> {
        let ((directory, name), (live_directory, live_name)) = (split(&self.playlist), split(&self.live_playlist));
        if !live_directory.is_empty() && live_directory != directory {
            return Err(PlanError::Field("live_playlist_name must be in same directory as playlist_name"));
        }
        let (name, live_name) = (without_extension(name), without_extension(live_name));
        if !live_name.is_empty() && name == live_name {
            return Err(PlanError::Field("live_playlist_name cannot be identical to playlist_name"));
        }
        let named = if self.prefix.is_empty() { &self.playlist } else { &self.prefix };
        if retry_count > 0 && !named.is_empty() && !named.contains("{retry}") {
            return Err(PlanError::NotRetrySafe);
        }
        Ok(())
    }

    /// Fills in the variables and what the request leaves out. `now` is the local time.
    pub fn resolve(&self, facts: &NameFacts, now: NaiveDateTime) -> SegmentNames {
        let filled = |path: &str| tidy(path, &fill(path, |variable| facts.value(variable, now)));
        let (prefix, playlist, live) = (filled(&self.prefix), filled(&self.playlist), filled(&self.live_playlist));
        let ((mut own_directory, own_name), (mut directory, name)) = (split(&prefix), split(&playlist));
        if own_directory == directory {
            own_directory = "";
        } else if directory.is_empty() {
            directory = std::mem::take(&mut own_directory);
        }
        // Below the directory of the playlist, wherever that is.
        let own_directory = own_directory.trim_start_matches('/');

        let generated = facts.generated(now).replace('/', "-").replace('\0', "_");
        let stem = match (without_extension(name), own_name) {
            ("", "") => &generated,
            ("", own_name) => own_name,
            (name, _) => name,
        };
        let stem = cut(stem, MAX_STEM_BYTES);
        let own_stem = if own_name.is_empty() { stem } else { cut(own_name, MAX_STEM_BYTES) };
        let live_stem = cut(without_extension(split(&live).1), MAX_STEM_BYTES);
        // Two playlists in one object would replace each other.
        let live_playlist = (!live_stem.is_empty() && live_stem != stem).then(|| format!("{live_stem}{PLAYLIST}"));
        SegmentNames {
            directory: directory.to_owned(),
            playlist: format!("{stem}{PLAYLIST}"),
            live_playlist,
            prefix: format!("{own_directory}{own_stem}"),
            suffix: self.suffix,
            format: self.format,
        }
    }
}

impl SegmentNames {
    /// Name of a segment, relative to the playlists. `begin`: local time of where it begins.
    pub fn segment(&self, index: u32, begin: NaiveDateTime) -> String {
        let extension = self.format.extension();
        match self.suffix {
            SegmentSuffix::Index => format!("{}_{index:05}{extension}", self.prefix),
            SegmentSuffix::Timestamp => format!("{}_{}{extension}", self.prefix, begin.format("%Y%m%d%H%M%S%3f")),
        }
    }

    /// Name of the init segment, relative to the playlists, where the format has one.
    pub fn init(&self) -> Option<String> {
        (self.format == SegmentFormat::FragmentedMp4).then(|| format!("{}_init.mp4", self.prefix))
    }

    /// Storage path of a playlist or segment.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.directory)
    }

    /// Storage path of the playlist.
    pub fn playlist_path(&self) -> String {
        self.path(&self.playlist)
    }
}

/// Directory with its `/`, and the rest.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |at| at + 1))
}

/// Of a playlist: whatever follows its last dot is dropped, known or not.
fn without_extension(name: &str) -> &str {
    name.rfind('.').map_or(name, |dot| &name[..dot])
}

/// A value may contain anything: no `..`, no NUL, nothing too long; rooted only if the request is.
fn tidy(asked: &str, filled: &str) -> String {
    let safe = filled.replace('\0', "_");
    let (directories, name) = split(&safe);
    let name = if matches!(name, "." | "..") { "" } else { name };
    let components: Vec<&str> = directories.split('/').filter(|c| !matches!(*c, "" | "." | "..")).collect();
    // Half of the longest path for the playlist's directory, half for one below it.
    let room = MAX_PATH_BYTES / 2 - MAX_COMPONENT_BYTES;
    let root = if asked.starts_with('/') { "/" } else { "" };
    within(&components, room).iter().fold(root.to_owned(), |path, component| path + component + "/") + name
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use proptest::prelude::*;

    use super::*;
    use crate::types::EgressKind;

    fn now() -> NaiveDateTime {
        NaiveDate::from_ymd_opt(2022, 10, 4).unwrap().and_hms_milli_opt(1, 13, 6, 78).unwrap()
    }

    fn facts(room_name: &str) -> NameFacts {
        NameFacts {
            kind: EgressKind::RoomComposite,
            room_name: room_name.into(),
            room_id: String::new(),
            publisher_identity: String::new(),
            track_id: String::new(),
            track_kind: String::new(),
            track_source: String::new(),
            retry_count: 0,
        }
    }

    fn naming(prefix: &str, playlist: &str, live: &str) -> SegmentNaming {
        SegmentNaming::new(prefix, playlist, live, SegmentSuffix::Index)
    }

    fn resolved(prefix: &str, playlist: &str, live: &str, room: &str) -> [String; 4] {
        let names = naming(prefix, playlist, live).resolve(&facts(room), now());
        [names.directory, names.playlist, names.live_playlist.unwrap_or_default(), names.prefix]
    }

    #[test]
    fn the_matrix_of_livekit_egress() {
        for (asked, expected) in [
            (["", "playlist", ""], ["", "playlist.m3u8", "", "playlist"]),
            (["", "d/playlist", "d/live_playlist"], ["d/", "playlist.m3u8", "live_playlist.m3u8", "playlist"]),
            (["filename", "", "live2.m3u8"], ["", "filename.m3u8", "live2.m3u8", "filename"]),
            (["filename", "playlist", ""], ["", "playlist.m3u8", "", "filename"]),
            (["filename", "d/", ""], ["d/", "filename.m3u8", "", "filename"]),
            (["d/", "playlist", ""], ["d/", "playlist.m3u8", "", "playlist"]),
            (["d/filename", "playlist", ""], ["d/", "playlist.m3u8", "", "filename"]),
            (["d/filename", "d/playlist", ""], ["d/", "playlist.m3u8", "", "filename"]),
            (["e/filename", "d/playlist", ""], ["d/", "playlist.m3u8", "", "e/filename"]),
            (["", "my.show", ""], ["", "my.m3u8", "", "my"]),
            (["", "", ""], ["", "sales-2022-10-04T011306.m3u8", "", "sales-2022-10-04T011306"]),
            (["/e/filename", "/d/playlist.m3u8", ""], ["/d/", "playlist.m3u8", "", "e/filename"]),
        ] {
            assert_eq!(resolved(asked[0], asked[1], asked[2], "sales"), expected, "{asked:?}");
        }
    }

    #[test]
    fn values_make_directories_but_never_climb() {
        assert_eq!(resolved("{room_name}", "", "", "../x/a"), ["x/", "a.m3u8", "", "a"]);
        assert_eq!(resolved("rec/{room_name}/b", "c", "", ".."), ["rec/", "c.m3u8", "", "b"]);
        assert_eq!(
            resolved("{room_name}", "", "", "/etc/"),
            ["etc/", "-etc--2022-10-04T011306.m3u8", "", "-etc--2022-10-04T011306"]
        );
        assert_eq!(resolved("", "", "", "team/a")[..2], ["", "team-a-2022-10-04T011306.m3u8"]);
    }

    #[test]
    fn segments_are_told_apart_by_index_or_time() {
        let mut names = naming("e/x", "d/{room_name}", "").resolve(&facts("sales"), now());
        assert_eq!(names.segment(7, now()), "e/x_00007.ts");
        assert_eq!(names.segment(123_456, now()), "e/x_123456.ts");
        assert_eq!(names.path(&names.segment(7, now())), "d/e/x_00007.ts");
        names.suffix = SegmentSuffix::Timestamp;
        assert_eq!((names.segment(7, now()), names.init()), ("e/x_20221004011306078.ts".into(), None));
        names.format = SegmentFormat::FragmentedMp4;
        assert_eq!(
            (names.segment(7, now()), names.init()),
            ("e/x_20221004011306078.m4s".into(), Some("e/x_init.mp4".into()))
        );
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(naming("a", "b", "c").check(0), Ok(()));
        assert_eq!(naming("", "", "live").check(0), Ok(()));
        let two = PlanError::Field("live_playlist_name must be in same directory as playlist_name");
        assert_eq!(naming("", "d/a", "e/b").check(0), Err(two));
        let same = PlanError::Field("live_playlist_name cannot be identical to playlist_name");
        assert_eq!(naming("", "d/a.m3u8", "d/a").check(0), Err(same));
        assert_eq!(naming("a", "{retry}", "").check(1), Err(PlanError::NotRetrySafe));
        assert_eq!(naming("", "a", "").check(1), Err(PlanError::NotRetrySafe));
        for (prefix, playlist) in [("a-{retry}", ""), ("", "a-{retry}"), ("", "")] {
            assert_eq!(naming(prefix, playlist, "").check(1), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn no_name_escapes(
            prefix in "[./a{}\\PC]{0,40}",
            playlist in ".{0,40}",
            live in ".{0,40}",
            value in "[./a{}\\PC\u{0}]{0,300}",
        ) {
            for prefix in [prefix, "{room_name}".into(), "a/.{room_name}/".into()] {
                let names = naming(&prefix, &playlist, &live).resolve(&facts(&value), now());
                prop_assert!(names.directory.is_empty() || names.directory.ends_with('/'));
                prop_assert!(names.live_playlist.as_ref() != Some(&names.playlist));
                prop_assert!(!names.prefix.starts_with('/') && !names.prefix.ends_with('/'));
                let segment = names.segment(3, now());
                for name in [Some(&names.playlist), names.live_playlist.as_ref(), Some(&segment)].into_iter().flatten() {
                    let path = names.path(name);
                    prop_assert!(path.len() <= 4096 && !path.contains('\0'));
                    let inner = path.strip_prefix('/').unwrap_or(&path);
                    prop_assert!(
                        inner.split('/').all(|c| !c.is_empty() && c != "." && c != ".." && c.len() <= 255),
                        "{}", path
                    );
                }
            }
        }
    }
}
