//! File names in the runner: variables are filled in when the recording knows its tracks. The path was cleaned when the
//! request was planned (`uploads`).
//!
//! The rules are livekit/egress' (variables are plain replacement, `/` in a value makes directories, an unknown variable
//! stays as it is written), with one difference: a `..` that comes from a *value* is dropped.

use chrono::NaiveDateTime;

use crate::output_types::{Container, FileOutput};
use crate::types::{EgressKind, EgressPlan, Source};
use crate::uploads::{MAX_COMPONENT_BYTES, MAX_PATH_BYTES};

/// Values of the variables. An empty one is not known and its variable stays in the name, as with livekit/egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFacts {
    /// Decides which variables exist.
    pub kind: EgressKind,
    /// `{room_name}`.
    pub room_name: String,
    /// `{room_id}`.
    pub room_id: String,
    /// `{publisher_identity}`.
    pub publisher_identity: String,
    /// `{track_id}`.
    pub track_id: String,
    /// `{track_type}`: `audio` or `video`.
    pub track_kind: String,
    /// `{track_source}`: lower-case proto name, e.g. `screen_share`.
    pub track_source: String,
    /// `{retry}`, where it is positive.
    pub retry_count: i32,
}

impl NameFacts {
    /// The values that are known before the room is joined.
    pub fn of(plan: &EgressPlan) -> Self {
        let (publisher_identity, track_id) = match &plan.source {
            Source::Participant { identity, .. } => (identity.clone(), String::new()),
            Source::Track { track_id } => (String::new(), track_id.clone()),
            // Of the preset PASSTHROUGH, where it is one of the two.
            Source::Tracks { audio, video } if plan.kind == EgressKind::Track => {
                (String::new(), audio.as_ref().or(video.as_ref()).cloned().unwrap_or_default())
            }
            Source::Room | Source::Tracks { .. } | Source::Media { .. } | Source::Page(_) => Default::default(),
        };
        Self {
            kind: plan.kind,
            room_name: plan.room_name.clone(),
            room_id: plan.room_id.clone(),
            publisher_identity,
            track_id,
            track_kind: String::new(),
            track_source: String::new(),
            retry_count: plan.retry_count,
        }
    }

    /// The value of a variable; `None`: this kind of egress does not have it, or it is not known.
    pub(crate) fn value(&self, variable: &str, now: NaiveDateTime) -> Option<String> {
        let known = |text: &String| (!text.is_empty()).then(|| text.clone());
        let of_track = |text: &String| if self.kind == EgressKind::Track { known(text) } else { None };
        match variable {
            "time" => Some(time(now)),
            // The local time of the host, as in livekit/egress: in a container that is UTC.
            "utc" => Some(now.format("%Y%m%d%H%M%S%3f").to_string()),
            "room_name" => known(&self.room_name),
            // The sid may be unknown for an egress that names its room; livekit/egress' value is then empty too.
            "room_id" if !self.room_name.is_empty() => Some(self.room_id.clone()),
            "publisher_identity"
                if !matches!(self.kind, EgressKind::RoomComposite | EgressKind::Media | EgressKind::Web) =>
            {
                known(&self.publisher_identity)
            }
            "track_id" => of_track(&self.track_id),
            "track_type" => of_track(&self.track_kind),
            "track_source" => of_track(&self.track_source),
            "retry" if self.retry_count > 0 => Some(self.retry_count.to_string()),
            _ => None,
        }
    }

    /// Of a file without a name: room or track, and the time.
    pub(crate) fn generated(&self, now: NaiveDateTime) -> String {
        let identifier = match self.kind {
            EgressKind::Track => &self.track_id,
            EgressKind::RoomComposite
            | EgressKind::Participant
            | EgressKind::TrackComposite
            | EgressKind::Media
            | EgressKind::Web => &self.room_name,
        };
        let identifier = if identifier.is_empty() { "web" } else { identifier };
        match self.retry_count {
            1.. => format!("{identifier}-{}-{}", time(now), self.retry_count),
            _ => format!("{identifier}-{}", time(now)),
        }
    }
}

fn time(now: NaiveDateTime) -> String {
    now.format("%Y-%m-%dT%H%M%S").to_string()
}

/// The storage path of a file: variables filled in, a name generated where the path has none, the extension of the
/// container. It begins with `/` only if the requested path does; no component is `.` or `..`.
///
/// `now` is the local time for `{time}` and `{utc}`.
pub fn resolve(output: &FileOutput, container: Container, facts: &NameFacts, now: NaiveDateTime) -> String {
    let filled = fill(&output.path, |variable| facts.value(variable, now));
    let filled = if filled.is_empty() || filled.ends_with('/') { filled + &facts.generated(now) } else { filled };
    // A value may contain anything: no `..`, no NUL, no component longer than a file system takes.
    let safe = filled.replace('\0', "_");
    let mut components: Vec<&str> = safe.split('/').filter(|c| !matches!(*c, "" | "." | "..")).collect();
    let last = components.pop().unwrap_or_default();
    let file = named(last, container, facts, now);
    let directories = within(&components, MAX_PATH_BYTES.saturating_sub(file.len() + 1));
    let mut all: Vec<&str> = directories.iter().map(String::as_str).collect();
    all.push(&file);
    let root = if output.path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", all.join("/"))
}

/// The last component with the container's extension: another known extension is replaced, any other stays part of the
/// name (`a.mov` becomes `a.mov.mp4`).
fn named(last: &str, container: Container, facts: &NameFacts, now: NaiveDateTime) -> String {
    const KNOWN: &[&str] = &[".raw", ".ogg", ".mp3", ".ivf", ".mp4", ".ts", ".webm", ".m3u8", ".jpeg"];
    let extension = container.extension();
    let stem = last
        .strip_suffix(extension)
        .or_else(|| KNOWN.iter().find_map(|known| last.strip_suffix(known)))
        .unwrap_or(last);
    let generated;
    let stem = if stem.is_empty() {
        // Reached when a value was empty or ended in `/`. Here a `/` of the room's name must not make directories.
        generated = facts.generated(now).replace('/', "-");
        &generated
    } else {
        stem
    };
    format!("{}{extension}", cut(stem, MAX_COMPONENT_BYTES - extension.len()))
}

/// As many leading directories as fit into `room` bytes, each short enough for a file system.
pub(crate) fn within(components: &[&str], room: usize) -> Vec<String> {
    let mut used = 0;
    let cut_short = components.iter().map(|component| cut(component, MAX_COMPONENT_BYTES).to_owned());
    cut_short
        .take_while(|component| {
            used += component.len() + 1;
            used <= room
        })
        .collect()
}

/// The beginning of `text`, at most so many bytes of whole characters.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// Fills variables in one pass, so that a value that looks like a variable stays as it is.
pub(crate) fn fill(path: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        let variable = &rest[open + 1..];
        let found = variable.find('}').and_then(|close| Some((value(&variable[..close])?, close)));
        match found {
            Some((value, close)) => {
                filled.push_str(&value);
                rest = &variable[close + 1..];
            }
            None => {
                filled.push('{');
                rest = variable;
            }
        }
    }
    filled + rest
}

/// Directory with its `/`, and the rest.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |at| at + 1))
}

/// A path with its variables filled in. A value may contain anything: no `..`, no NUL, nothing too long; rooted only if the
/// request is.
pub(crate) fn tidy(asked: &str, filled: &str) -> String {
    let safe = filled.replace('\0', "_");
    let (directories, name) = split(&safe);
    let name = if matches!(name, "." | "..") { "" } else { name };
    let components: Vec<&str> = directories.split('/').filter(|c| !matches!(*c, "" | "." | "..")).collect();
    // Half of the longest path for the directory of an output, half for what is below it.
    let room = MAX_PATH_BYTES / 2 - MAX_COMPONENT_BYTES;
    let root = if asked.starts_with('/') { "/" } else { "" };
    within(&components, room).iter().fold(root.to_owned(), |path, component| path + component + "/") + name
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use proptest::prelude::*;

    use super::*;
    use crate::uploads::clean;

    fn now() -> NaiveDateTime {
        NaiveDate::from_ymd_opt(2022, 10, 4).unwrap().and_hms_milli_opt(1, 13, 6, 78).unwrap()
    }

    fn facts(kind: EgressKind) -> NameFacts {
        NameFacts {
            kind,
            room_name: "sales".into(),
            room_id: "RM_x".into(),
            publisher_identity: "ann".into(),
            track_id: "TR_x".into(),
            track_kind: "video".into(),
            track_source: "screen_share".into(),
            retry_count: 0,
        }
    }

    fn file(path: &str) -> FileOutput {
        FileOutput { container: None, audio: None, path: clean(path), manifest: true, stored: false }
    }

    fn name(path: &str, kind: EgressKind) -> String {
        resolve(&file(path), Container::Mp4, &facts(kind), now())
    }

    #[test]
    fn variables_are_filled_in_where_the_kind_has_them() {
        assert_eq!(name("r_{room_name}_{time}.mp4", EgressKind::RoomComposite), "r_sales_2022-10-04T011306.mp4");
        assert_eq!(name("{room_id}/{utc}", EgressKind::RoomComposite), "RM_x/20221004011306078.mp4");
        assert_eq!(name("{publisher_identity}", EgressKind::Participant), "ann.mp4");
        assert_eq!(
            name("{publisher_identity}-{track_id}", EgressKind::RoomComposite),
            "{publisher_identity}-{track_id}.mp4"
        );
        assert_eq!(
            name("t_{track_id}_{track_type}_{track_source}", EgressKind::Track),
            "t_TR_x_video_screen_share.mp4"
        );
        assert_eq!(name("{nosuch}{retry}{", EgressKind::Track), "{nosuch}{retry}{.mp4");
        let again = NameFacts { retry_count: 2, ..facts(EgressKind::Track) };
        assert_eq!(resolve(&file("a-{retry}"), Container::Ogg, &again, now()), "a-2.ogg");
        assert_eq!(resolve(&file(""), Container::Ogg, &again, now()), "TR_x-2022-10-04T011306-2.ogg");
    }

    #[test]
    fn no_name_asked_for_means_a_generated_one() {
        assert_eq!(name("", EgressKind::Participant), "sales-2022-10-04T011306.mp4");
        assert_eq!(name("out/", EgressKind::Track), "out/TR_x-2022-10-04T011306.mp4");
        assert_eq!(name("/", EgressKind::Track), "/TR_x-2022-10-04T011306.mp4");
        let nameless = NameFacts { room_name: String::new(), ..facts(EgressKind::RoomComposite) };
        assert_eq!(resolve(&file(""), Container::Mp4, &nameless, now()), "web-2022-10-04T011306.mp4");
    }

    #[test]
    fn the_extension_is_that_of_the_container() {
        for (asked, expected) in [
            ("a.mp4", "a.mp4"),
            ("a.mov", "a.mov.mp4"),
            ("a.webm", "a.mp4"),
            ("a", "a.mp4"),
            ("d.ogg/b.ts", "d.ogg/b.mp4"),
        ] {
            assert_eq!(name(asked, EgressKind::Track), expected);
        }
    }

    #[test]
    fn a_value_makes_directories_but_never_climbs() {
        let climbing = NameFacts { room_name: "../../etc/passwd".into(), ..facts(EgressKind::RoomComposite) };
        let name = |path: &str| resolve(&file(path), Container::Mp4, &climbing, now());
        assert_eq!(name("rec/{room_name}"), "rec/etc/passwd.mp4");
        assert_eq!(name("{room_name}"), "etc/passwd.mp4");
        let team = NameFacts { room_name: "team/a".into(), ..facts(EgressKind::RoomComposite) };
        assert_eq!(resolve(&file("x/{room_name}"), Container::Mp4, &team, now()), "x/team/a.mp4");
        // Dots put together from the path and a value.
        let dot = NameFacts { room_name: ".".into(), ..facts(EgressKind::RoomComposite) };
        assert_eq!(resolve(&file("a/.{room_name}/b"), Container::Mp4, &dot, now()), "a/b.mp4");
        let rooted = NameFacts { room_name: "/etc".into(), ..facts(EgressKind::RoomComposite) };
        assert_eq!(resolve(&file("{room_name}/x"), Container::Mp4, &rooted, now()), "etc/x.mp4");
    }

    proptest! {
        #[test]
        fn no_name_escapes(path in ".{0,60}", value in "[./a{}\\PC\u{0}]{0,40}", wild in any::<String>(), retry in -1..3i32) {
            for kind in [EgressKind::RoomComposite, EgressKind::Participant, EgressKind::TrackComposite, EgressKind::Track] {
                let facts = NameFacts {
                    kind,
                    room_name: value.clone(),
                    room_id: wild.clone(),
                    publisher_identity: value.clone(),
                    track_id: value.clone(),
                    track_kind: wild.clone(),
                    track_source: value.clone(),
                    retry_count: retry,
                };
                let cleaned = clean(&path);
                prop_assert!(!cleaned.split('/').any(|c| c == ".." || c == "."));
                prop_assert_eq!(clean(&cleaned), cleaned.clone(), "cleaning is done once");
                for asked in [cleaned, "{room_name}{track_id}".into(), "a/{room_name}/.{track_source}/".into()] {
                    let output =
                        FileOutput { container: None, audio: None, path: asked.clone(), manifest: false, stored: false };
                    let name = resolve(&output, Container::Webm, &facts, now());
                    prop_assert_eq!(name.starts_with('/'), asked.starts_with('/'));
                    prop_assert!(name.ends_with(".webm") && !name.ends_with("/.webm"));
                    prop_assert!(name.len() <= 4096 && !name.contains('\0'));
                    let inner = name.strip_prefix('/').unwrap_or(&name);
                    prop_assert!(inner.split('/').all(|c| !c.is_empty() && c != "." && c != ".." && c.len() <= 255), "{}", name);
                }
            }
        }
    }
}
