//! An HLS output on a disk: what its playlist names, and whether that is there, is cut where it should be, and goes on from
//! one segment to the next. Blocks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use chrono::DateTime;

const PACKET_BYTES: usize = 188;
/// A date and a length are rounded to milliseconds each.
const ROUNDING: f64 = 0.0021;

/// A segment as the playlist names it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedSegment {
    /// Relative to the playlist.
    pub name: String,
    /// Its EXTINF, seconds.
    pub seconds: f64,
    /// Its EXT-X-PROGRAM-DATE-TIME, Unix seconds.
    pub begins: f64,
    /// It does not go on from the one before it.
    pub discontinuity: bool,
}

/// The text of a playlist.
#[derive(Clone, Debug, PartialEq)]
pub struct HlsPlaylist {
    /// In its order.
    pub segments: Vec<NamedSegment>,
    /// EXT-X-TARGETDURATION.
    pub target: u64,
    /// EXT-X-MEDIA-SEQUENCE.
    pub sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE.
    pub discontinuities: u64,
    /// It says EVENT.
    pub is_event: bool,
    /// It has EXT-X-ENDLIST.
    pub ended: bool,
}

impl HlsPlaylist {
    /// Reads the text.
    pub fn read(text: &str) -> Result<Self> {
        ensure!(text.starts_with("#EXTM3U\n"), "no playlist: {text}");
        let mut read =
            Self { segments: vec![], target: 0, sequence: 0, discontinuities: 0, is_event: false, ended: false };
        let (mut seconds, mut begins, mut discontinuity) = (None, None, false);
        for line in text.lines() {
            match line.split_once(':').unwrap_or((line, "")) {
                ("#EXT-X-TARGETDURATION", target) => read.target = target.parse::<u64>().context(line.to_owned())?,
                ("#EXT-X-MEDIA-SEQUENCE", number) => read.sequence = number.parse::<u64>().context(line.to_owned())?,
                ("#EXT-X-DISCONTINUITY-SEQUENCE", number) => {
                    read.discontinuities = number.parse::<u64>().context(line.to_owned())?;
                }
                ("#EXT-X-PLAYLIST-TYPE", kind) => read.is_event = kind == "EVENT",
                ("#EXT-X-DISCONTINUITY", _) => discontinuity = true,
                ("#EXT-X-ENDLIST", _) => read.ended = true,
                ("#EXTINF", length) => {
                    seconds = Some(length.trim_end_matches(',').parse::<f64>().context(line.to_owned())?);
                }
                ("#EXT-X-PROGRAM-DATE-TIME", date) => {
                    let date = DateTime::parse_from_rfc3339(date).context(line.to_owned())?;
                    begins = Some(date.timestamp_millis() as f64 / 1e3);
                }
                _ if line.starts_with('#') => {}
                _ => read.segments.push(NamedSegment {
                    name: line.to_owned(),
                    seconds: seconds.take().with_context(|| format!("{line} has no length"))?,
                    begins: begins.take().with_context(|| format!("{line} has no date"))?,
                    discontinuity: std::mem::take(&mut discontinuity),
                }),
            }
        }
        Ok(read)
    }

    /// Sum of the lengths.
    pub fn seconds(&self) -> f64 {
        self.segments.iter().map(|segment| segment.seconds).sum()
    }

    /// Every segment but the last ends within a picture of its line `n·seconds`, none is longer than the target says, and
    /// dates and lengths add up.
    pub fn is_on_grid(&self, seconds: f64, picture: f64) -> Result<()> {
        ensure!(self.target == seconds.ceil() as u64, "target {} of {seconds} s", self.target);
        let first = self.segments.first().context("no segment")?.begins;
        for (number, pair) in self.segments.windows(2).enumerate() {
            let (end, next) = (pair[0].begins + pair[0].seconds, pair[1].begins);
            ensure!((end - next).abs() < ROUNDING, "{pair:?} do not add up");
            let line = (number + 1) as f64 * seconds;
            ensure!((next - first - line).abs() <= picture + ROUNDING, "{:?} is off its line {line}", pair[1]);
        }
        let longest = self.segments.iter().map(|segment| segment.seconds).fold(0.0, f64::max);
        ensure!(longest.round() as u64 <= self.target, "a segment of {longest} s, and the target is {}", self.target);
        Ok(())
    }
}

/// A finished HLS output.
#[derive(Clone, Debug)]
pub struct HlsFolder {
    /// Of the playlist.
    pub path: PathBuf,
    /// What it says.
    pub playlist: HlsPlaylist,
}

impl HlsFolder {
    /// The playlist must have its end, and everything it names must be there.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("no playlist at {}", path.display()))?;
        let open = Self { path: path.to_owned(), playlist: HlsPlaylist::read(&text)? };
        ensure!(open.playlist.ended, "without an end: {text}");
        ensure!(!open.playlist.segments.is_empty(), "nothing is in it: {text}");
        for file in open.files() {
            let bytes = std::fs::metadata(&file).with_context(|| format!("{} is named", file.display()))?.len();
            ensure!(bytes > 0, "{} is empty", file.display());
        }
        Ok(open)
    }

    /// Paths of the segments, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.playlist.segments.iter().map(|segment| self.path.with_file_name(&segment.name)).collect()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> Result<u64> {
        let sizes = self.files().into_iter().map(|file| anyhow::Ok(std::fs::metadata(&file)?.len()));
        sizes.sum()
    }

    /// Continuity counters of every PID go on through all segments; those behind a discontinuity may begin anew. Gives the
    /// number of packets.
    pub fn counters_go_on(&self) -> Result<usize> {
        let (mut counters, mut packets) = (BTreeMap::new(), 0);
        for (segment, file) in self.playlist.segments.iter().zip(self.files()) {
            if segment.discontinuity {
                counters.clear();
            }
            let bytes = std::fs::read(&file).context("read a segment")?;
            packets += continue_counters(&bytes, &mut counters).with_context(|| segment.name.clone())?;
        }
        Ok(packets)
    }

    /// The first picture of each segment can be decoded alone.
    pub fn begins_with_key_frames(&self) -> Result<()> {
        for file in self.files() {
            let out = Command::new("ffprobe")
                .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=flags", "-of", "csv=p=0"])
                .arg(&file)
                .output()
                .context("start ffprobe")?;
            let flags = String::from_utf8_lossy(&out.stdout);
            let first = flags.lines().next().unwrap_or_default();
            ensure!(first.contains('K'), "{} begins with a picture {first:?}", file.display());
        }
        Ok(())
    }

    /// A player decodes all of it, from the playlist on, without an error.
    pub fn plays(&self) -> Result<()> {
        let out = Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-nostdin", "-i"])
            .arg(&self.path)
            // In the pictures' own time base: what repeats is left out, and in the base of a guessed rate times coincide.
            .args(["-enc_time_base", "-1", "-f", "null", "-"])
            .output()
            .context("start ffmpeg")?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success() && said.is_empty(), "{}: {said}", self.path.display());
        Ok(())
    }

    /// All of it as an MP4 whose time begins at 0, nothing encoded again.
    pub fn as_mp4(&self) -> Result<PathBuf> {
        let file = self.path.with_extension("mp4");
        let out = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-nostdin", "-i"])
            .arg(&self.path)
            .args(["-map", "0", "-c", "copy", "-f", "mp4"])
            .arg(&file)
            .output()
            .context("start ffmpeg")?;
        ensure!(out.status.success(), "{}: {}", self.path.display(), String::from_utf8_lossy(&out.stderr));
        Ok(file)
    }
}

/// Checks the counters of packets that follow those before; gives how many there were. `counters`: the last of each PID.
fn continue_counters(bytes: &[u8], counters: &mut BTreeMap<u16, u8>) -> Result<usize> {
    ensure!(bytes.len().is_multiple_of(PACKET_BYTES), "{} bytes are no whole packets", bytes.len());
    for (number, packet) in bytes.chunks_exact(PACKET_BYTES).enumerate() {
        ensure!(packet[0] == 0x47, "no packet at {number}");
        let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff;
        let has_payload = packet[3] & 0x10 != 0;
        let counter = packet[3] & 0x0f;
        if let Some(last) = counters.insert(pid, counter) {
            let expected = if has_payload { (last + 1) & 0x0f } else { last };
            ensure!(counter == expected, "packet {number} of PID {pid}: {counter} behind {last}");
        }
    }
    Ok(bytes.len() / PACKET_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-ALLOW-CACHE:NO\n#EXT-X-TARGETDURATION:4\n\
        #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.250Z\n#EXTINF:4.011,\na.ts\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:04.261Z\n#EXTINF:1.500,\nb.ts\n";

    #[test]
    fn a_playlist_is_read_and_measured() {
        let mut playlist = HlsPlaylist::read(TEXT).unwrap();
        assert_eq!((playlist.target, playlist.sequence, playlist.is_event, playlist.ended), (4, 0, true, false));
        assert_eq!((playlist.segments[1].name.as_str(), playlist.segments[1].begins), ("b.ts", 1_772_366_404.261));
        assert!((playlist.seconds() - 5.511).abs() < 1e-9);
        playlist.is_on_grid(4.0, 0.0333).unwrap();
        assert!(playlist.is_on_grid(4.0, 0.005).is_err(), "a border is 11 ms late");
        playlist.segments[0].seconds = 4.02;
        assert!(playlist.is_on_grid(4.0, 0.0333).is_err(), "the dates say something else");
        assert!(HlsPlaylist::read(&format!("{TEXT}#EXT-X-ENDLIST\n")).unwrap().ended);
        assert!(HlsPlaylist::read("#EXTM3U\na.ts\n").is_err());
    }

    #[test]
    fn a_counter_that_jumps_is_found() {
        let packets = |counters: &[u8]| -> Vec<u8> {
            let packet = |counter: &u8| {
                let mut packet = vec![0x47, 1, 0, 0x10 | *counter];
                packet.resize(PACKET_BYTES, 0xff);
                packet
            };
            counters.iter().flat_map(packet).collect()
        };
        let mut counters = BTreeMap::new();
        assert_eq!(continue_counters(&packets(&[14, 15, 0]), &mut counters).unwrap(), 3);
        assert_eq!(continue_counters(&packets(&[1]), &mut counters).unwrap(), 1);
        assert!(continue_counters(&packets(&[3]), &mut counters).is_err());
        assert!(continue_counters(&[0x47; 100], &mut BTreeMap::new()).is_err());
    }
}
