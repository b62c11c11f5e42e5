//! Text of HLS playlists (RFC 8216): the EVENT playlist of the whole recording and the live window of its last segments.
//! Segments that are stored come in, in order; text goes out. Pure; knows no store and no clock.
//!
//! Order and spelling of the lines are livekit/egress' (`sink/m3u8/writer.go`), whose users' tools may match on them. Ours
//! are the tags of a discontinuity and the escapes in names. The type stays EVENT when ENDLIST follows, as there.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use chrono::DateTime;

/// Segments in the live playlist.
const LIVE_WINDOW: usize = 5;

/// A segment as a playlist names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaylistEntry {
    /// Path of its file, relative to the playlist.
    pub name: String,
    /// URL of its file, where it is in another store than the playlist.
    pub elsewhere: Option<String>,
    /// Where it begins, nanoseconds of media time.
    pub at_ns: u64,
    /// Until the next one begins, nanoseconds.
    pub length_ns: u64,
    /// Segments between it and the entry before it are lost.
    pub discontinuity: bool,
}

/// Both playlists of one recording.
#[derive(Clone, Debug)]
pub struct Playlist {
    target_seconds: u64,
    origin_unix_ns: i64,
    /// Name of the init segment.
    init: Option<String>,
    /// Of all entries.
    text: String,
    window: VecDeque<WindowEntry>,
    /// Entries that left the window, and how many of them followed a discontinuity.
    removed: u64,
    removed_discontinuities: u64,
}

#[derive(Clone, Debug)]
struct WindowEntry {
    text: String,
    discontinuity: bool,
}

impl Playlist {
    /// `origin_unix_ns`: the wall clock at media time zero. Dates are that plus media time: never the time of writing.
    /// `segment_length` is the requested one; the target duration is never raised, players need not expect that.
    pub fn new(segment_length: Duration, origin_unix_ns: i64) -> Self {
        Self {
            target_seconds: segment_length.as_millis().div_ceil(1000) as u64,
            origin_unix_ns,
            init: None,
            text: String::new(),
            window: VecDeque::new(),
            removed: 0,
            removed_discontinuities: 0,
        }
    }

    /// Segments are of fragmented MP4 and need this init segment; its path is relative to the playlist.
    pub fn with_init(mut self, name: &str) -> Self {
        self.init = Some(reference(name));
        self
    }

    /// Another segment is stored, and all before it are or never will be.
    pub fn push(&mut self, entry: &PlaylistEntry) {
        // Nothing is discontinuous with nothing.
        let discontinuity = entry.discontinuity && !self.text.is_empty();
        let (begin, end) = (self.unix_ms(entry.at_ns), self.unix_ms(entry.at_ns + entry.length_ns));
        let (length, date) = (end - begin, DateTime::from_timestamp_millis(begin).unwrap_or_default());
        let mut text = String::new();
        if discontinuity {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        // Differences of dates, so that date and length of an entry add up to the date of the next. Writing to a string
        // does not fail.
        let _ = write!(
            text,
            "#EXT-X-PROGRAM-DATE-TIME:{}\n#EXTINF:{}.{:03},\n{}\n",
            date.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            length / 1000,
            length % 1000,
            entry.elsewhere.clone().unwrap_or_else(|| reference(&entry.name)),
        );
        self.text.push_str(&text);
        self.window.push_back(WindowEntry { text, discontinuity });
        if self.window.len() > LIVE_WINDOW
            && let Some(gone) = self.window.pop_front()
        {
            self.removed += 1;
            self.removed_discontinuities += u64::from(gone.discontinuity);
        }
    }

    /// The playlist of everything so far. `ended`: nothing follows.
    pub fn event(&self, ended: bool) -> String {
        let mut out = self.head(true, 0, 0);
        out.push_str(&self.text);
        finish(out, ended)
    }

    /// The playlist of the last five segments. `ended`: nothing follows.
    pub fn live(&self, ended: bool) -> String {
        let mut out = self.head(false, self.removed, self.removed_discontinuities);
        self.window.iter().for_each(|entry| out.push_str(&entry.text));
        finish(out, ended)
    }

    /// About the size of [`Playlist::event`]: what an upload of it costs.
    pub fn event_bytes(&self) -> u64 {
        self.text.len() as u64
    }

    fn head(&self, event: bool, sequence: u64, discontinuities: u64) -> String {
        let kind = if event { "#EXT-X-PLAYLIST-TYPE:EVENT\n" } else { "" };
        let target = self.target_seconds;
        // EXT-X-MAP beside other things than I frames is of version 6 (RFC 8216 7); 7 is what players know fragments by.
        let version = if self.init.is_some() { 7 } else { 4 };
        let mut out = format!(
            "#EXTM3U\n#EXT-X-VERSION:{version}\n{kind}#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n"
        );
        // A player that loads the list again counts the discontinuities that it no longer sees; without the tag there are none.
        if discontinuities > 0 {
            let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}");
        }
        if let Some(init) = &self.init {
            let _ = writeln!(out, "#EXT-X-MAP:URI=\"{init}\"");
        }
        out
    }

    fn unix_ms(&self, at_ns: u64) -> i64 {
        unix_ms(self.origin_unix_ns, at_ns)
    }
}

/// The date of a moment of media as playlists and names of segments have it: rounded to milliseconds.
pub fn unix_ms(origin_unix_ns: i64, at_ns: u64) -> i64 {
    let unix_ns = i128::from(origin_unix_ns) + i128::from(at_ns);
    i64::try_from((unix_ns + 500_000).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

fn finish(mut text: String, ended: bool) -> String {
    if ended {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

/// A file's name as a relative reference (RFC 3986 4.2). Room names get into it: what would end the path, the line, or
/// begin a scheme is escaped; the rest stays as it is, because a player that opens a local file decodes nothing.
fn reference(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    if name.split('/').next().is_some_and(|first| first.contains(':')) {
        out.push_str("./");
    }
    for c in name.chars() {
        match c {
            '%' | '#' | '?' | '\\' | '"' | '\u{7f}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// 2026-03-01T12:00:00.250Z.
    const ORIGIN: i64 = 1_772_366_400_250_000_000;

    fn entry(index: u64, discontinuity: bool) -> PlaylistEntry {
        let at = |index: u64| index * 4 * SECOND + index % 2 * 11_333_333;
        let length_ns = at(index + 1) - at(index);
        let name = format!("a_{index:05}.ts");
        PlaylistEntry { name, elsewhere: None, at_ns: at(index), length_ns, discontinuity }
    }

    fn filled(entries: impl Iterator<Item = PlaylistEntry>) -> Playlist {
        let mut playlist = Playlist::new(Duration::from_secs(4), ORIGIN);
        entries.for_each(|entry| playlist.push(&entry));
        playlist
    }

    /// What a player reads: media sequence, discontinuity sequence, and for each entry date (ms), length (ms), name and
    /// discontinuity.
    type Read = (u64, u64, Vec<(i64, i64, String, bool)>);

    fn read(text: &str) -> Read {
        let mut read: Read = (0, 0, vec![]);
        let (mut date, mut length, mut discontinuity) = (0, 0, false);
        for line in text.lines() {
            match line.split_once(':').unwrap_or((line, "")) {
                ("#EXT-X-MEDIA-SEQUENCE", number) => read.0 = number.parse().unwrap(),
                ("#EXT-X-DISCONTINUITY-SEQUENCE", number) => read.1 = number.parse().unwrap(),
                ("#EXT-X-DISCONTINUITY", _) => discontinuity = true,
                ("#EXT-X-PROGRAM-DATE-TIME", at) => {
                    date = DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis();
                }
                ("#EXTINF", seconds) => {
                    let seconds: f64 = seconds.trim_end_matches(',').parse().unwrap();
                    length = (seconds * 1000.0).round() as i64;
                }
                _ if line.starts_with('#') => {}
                _ => read.2.push((date, length, line.to_owned(), std::mem::take(&mut discontinuity))),
            }
        }
        read
    }

    #[test]
    fn the_text_is_livekit_egress_text() {
        let mut playlist = filled((0..1).map(|index| entry(index, true)));
        playlist.push(&PlaylistEntry {
            name: "b.ts".into(),
            elsewhere: None,
            at_ns: 8 * SECOND,
            length_ns: 4 * SECOND,
            discontinuity: true,
        });
        let entries = "#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.250Z\n#EXTINF:4.011,\na_00000.ts\n\
                       #EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:08.250Z\n#EXTINF:4.000,\nb.ts\n";
        let head = "#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n";
        let event = format!("#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-PLAYLIST-TYPE:EVENT\n{head}{entries}");
        assert_eq!(playlist.event(false), event);
        assert_eq!(playlist.event(true), format!("{event}#EXT-X-ENDLIST\n"));
        assert_eq!(playlist.live(false), format!("#EXTM3U\n#EXT-X-VERSION:4\n{head}{entries}"));
        assert_eq!(playlist.event_bytes(), entries.len() as u64);
    }

    #[test]
    fn dates_and_lengths_add_up_however_long_it_takes() {
        let (_, _, entries) = read(&filled((0..2000).map(|index| entry(index, false))).event(true));
        assert_eq!(entries.len(), 2000);
        for pair in entries.windows(2) {
            assert_eq!(pair[0].0 + pair[0].1, pair[1].0);
        }
        assert!(entries.iter().all(|(_, length, _, _)| [3988, 3989, 4011, 4012].contains(length)));
        assert_eq!(entries[1998].0 - entries[0].0, 1998 * 4000);
    }

    #[test]
    fn the_live_window_counts_what_left_it() {
        let mut playlist = filled(std::iter::empty());
        assert_eq!(read(&playlist.live(false)), (0, 0, vec![]));
        for index in 0..40 {
            playlist.push(&entry(index, index % 6 == 3));
            let (sequence, discontinuities, entries) = read(&playlist.live(index == 39));
            assert_eq!(sequence, (index + 1).saturating_sub(5));
            // Those at 3, 9, 15 …
            assert_eq!(discontinuities, (sequence + 2) / 6);
            let (_, _, all) = read(&playlist.event(false));
            assert_eq!(entries, all[sequence as usize..]);
        }
        assert!(playlist.live(true).ends_with("#EXT-X-ENDLIST\n"));
    }

    #[test]
    fn the_target_duration_holds_a_length_with_a_fraction() {
        let text = Playlist::new(Duration::from_millis(2500), ORIGIN).live(false);
        assert!(text.contains("#EXT-X-TARGETDURATION:3\n"), "{text}");
    }

    #[test]
    fn fragments_name_their_init_segment() {
        let playlist = Playlist::new(Duration::from_secs(4), ORIGIN).with_init("e/a_init.mp4");
        let text = playlist.live(false);
        assert!(text.starts_with("#EXTM3U\n#EXT-X-VERSION:7\n"), "{text}");
        assert!(text.ends_with("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-MAP:URI=\"e/a_init.mp4\"\n"), "{text}");
    }

    #[test]
    fn names_stay_one_path_on_one_line() {
        assert_eq!(reference("e/ünter a_00000.ts"), "e/ünter a_00000.ts");
        assert_eq!(reference("room:1_00000.ts"), "./room:1_00000.ts");
        assert_eq!(reference("a/b:1.ts"), "a/b:1.ts");
        assert_eq!(reference("#1?50%\n\\.ts"), "%231%3F50%25%0A%5C.ts");
    }
}
