//! Recordings of one room that begin and end together, and the marks in their files against the seconds at which they were
//! sent: every clip flashes and beeps at each whole second of [`epoch`].

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::{DecodedAudio, RATE};
use spillway_tests::analyser::{duration, percentile, probe};
use spillway_tests::assets::TestPerson;
use spillway_tests::egress::{Egress, complete_all, file_of, nanos};
use spillway_tests::publisher::epoch;
use spillway_tests::servers::TestServers;

/// Further from its second a mark belongs to none.
const NEAR_S: f64 = 0.1;
/// A mark within so much of a pause may be cut.
const CUT_S: (f64, f64) = (0.1, 0.06);
/// Of both ends of a file nothing is asked.
const ENDS_S: (f64, f64) = (0.5, 0.7);
/// Sound is searched in parts: the search takes 32 bytes a sample.
const PART: usize = RATE * 60;

/// Recordings of one room.
pub struct Recordings<'a> {
    servers: &'a TestServers,
    room: &'a str,
    started: Vec<(&'static str, Egress)>,
}

impl<'a> Recordings<'a> {
    /// None yet.
    pub fn of(servers: &'a TestServers, room: &'a str) -> Self {
        Self { servers, room, started: vec![] }
    }

    fn file(&self, kind: &str, ending: &str) -> Value {
        let path = self.servers.folder().join("files").join(format!("{}-{kind}-{{time}}.{ending}", self.room));
        json!({ "filepath": path.to_string_lossy() })
    }

    async fn start(&mut self, kind: &'static str, method: &str, mut request: Value) -> Result<()> {
        request["room_name"] = json!(self.room);
        self.started.push((kind, Egress::start(&self.servers.api, method, request).await?));
        Ok(())
    }

    /// A grid of 640×360.
    pub async fn room(&mut self) -> Result<()> {
        let (advanced, file) = (json!({ "width": 640, "height": 360 }), self.file("room", "mp4"));
        let request = json!({ "layout": "grid", "advanced": advanced, "file_outputs": [file] });
        self.start("room", "StartRoomCompositeEgress", request).await
    }

    /// Its sound alone.
    pub async fn room_sound(&mut self) -> Result<()> {
        let request = json!({ "audio_only": true, "file_outputs": [self.file("sound", "ogg")] });
        self.start("room, audio only", "StartRoomCompositeEgress", request).await
    }

    /// Picture and sound of one participant, copied.
    pub async fn participant(&mut self, identity: &str) -> Result<()> {
        let request = json!({ "identity": identity, "file_outputs": [self.file("participant", "mp4")] });
        self.start("participant", "StartParticipantEgress", request).await
    }

    /// Two tracks, copied.
    pub async fn track_composite(&mut self, video: &str, audio: &str) -> Result<()> {
        let file_outputs = [self.file("track-composite", "mp4")];
        let request = json!({ "video_track_id": video, "audio_track_id": audio, "file_outputs": file_outputs });
        self.start("track composite", "StartTrackCompositeEgress", request).await
    }

    /// One track of sound, copied.
    pub async fn track(&mut self, sid: &str) -> Result<()> {
        let request = json!({ "track_id": sid, "file": self.file("track", "ogg") });
        self.start("track", "StartTrackEgress", request).await
    }

    /// All of them, of this participant's tracks where they are of one.
    pub async fn every_kind(&mut self, identity: &str, (video, audio): (&str, &str)) -> Result<()> {
        self.room().await?;
        self.room_sound().await?;
        self.participant(identity).await?;
        self.track_composite(video, audio).await?;
        self.track(audio).await
    }

    /// Waits until each is ACTIVE.
    pub async fn active(&self) -> Result<()> {
        for (kind, egress) in &self.started {
            egress.active().await.context(*kind)?;
        }
        Ok(())
    }

    /// Stops them together; each must be COMPLETE.
    pub async fn complete(self) -> Result<Vec<RecordedFile>> {
        let (kinds, egresses): (Vec<_>, Vec<_>) = self.started.into_iter().unzip();
        let infos = complete_all(&egresses).await?;
        kinds.into_iter().zip(&infos).map(|(kind, info)| RecordedFile::open(kind, info)).collect()
    }
}

/// A finished recording.
#[derive(Clone, Debug)]
pub struct RecordedFile {
    /// Which kind it is.
    pub kind: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Its length by its container.
    pub seconds: f64,
    /// The same by its EgressInfo, from the first instant to the last.
    pub told_s: f64,
    /// Unix time of its zero, seconds.
    begun_s: f64,
}

impl RecordedFile {
    fn open(kind: &'static str, info: &Value) -> Result<Self> {
        let path = file_of(info)?;
        let told = &info["file_results"][0];
        let [begun_s, ended_s] = ["started_at", "ended_at"].map(|name| nanos(&told[name]) as f64 / 1e9);
        Ok(Self { kind, seconds: duration(&probe(&path)?), path, told_s: ended_s - begun_s, begun_s })
    }

    /// Where a moment lies in the file, seconds.
    pub fn at(&self, moment: SystemTime) -> f64 {
        moment.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) - self.begun_s
    }

    /// Where the marks lie that were sent within the file: one at each second, but for the pauses of their publisher.
    pub fn marks(&self, pauses: &[(SystemTime, SystemTime)]) -> Vec<f64> {
        let zero = self.at(epoch().1);
        let pauses: Vec<(f64, f64)> =
            pauses.iter().map(|(from, to)| (self.at(*from) - CUT_S.0, self.at(*to) + CUT_S.1)).collect();
        let first = (ENDS_S.0 - zero).ceil() as i64;
        let all = (first..).map(|second| zero + second as f64).take_while(|at| *at < self.seconds - ENDS_S.1);
        all.filter(|at| !pauses.iter().any(|(from, to)| (from..=to).contains(&at))).collect()
    }
}

/// Marks of a file against those that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Punctuality {
    /// Sent.
    pub wanted: usize,
    /// Of them, there within 100 ms of their time.
    pub present: usize,
    /// Marks at times at which none was sent.
    pub stray: usize,
    /// How far the marks are from the nearest that was sent, up to half a second.
    pub p50_ms: f64,
    /// As `p50_ms`.
    pub p99_ms: f64,
    /// As `p50_ms`.
    pub max_ms: f64,
}

impl Punctuality {
    /// `seen` and `wanted` in seconds, each in order.
    pub fn of(seen: &[f64], wanted: &[f64]) -> Self {
        let off = |from: f64, among: &[f64]| among.iter().map(|at| (at - from).abs()).fold(f64::MAX, f64::min);
        let is_near = |from: f64, among: &[f64]| off(from, among) <= NEAR_S;
        let (first, last) = (wanted.first().copied().unwrap_or(0.0), wanted.last().copied().unwrap_or(0.0));
        // What was sent before and after them is not known here.
        let inside: Vec<f64> =
            seen.iter().copied().filter(|at| (first - NEAR_S..=last + NEAR_S).contains(at)).collect();
        let apart: Vec<f64> =
            wanted.iter().map(|at| off(*at, seen) * 1e3).filter(|apart_ms| *apart_ms < 500.0).collect();
        Self {
            wanted: wanted.len(),
            present: wanted.iter().filter(|at| is_near(**at, seen)).count(),
            stray: inside.iter().filter(|at| !is_near(**at, wanted)).count(),
            p50_ms: percentile(&apart, 0.5),
            p99_ms: percentile(&apart, 0.99),
            max_ms: percentile(&apart, 1.0),
        }
    }

    /// A line of a table.
    pub fn line(&self) -> String {
        format!(
            "{:>4} of {:>4} there, {:>2} stray, off p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            self.present, self.wanted, self.stray, self.p50_ms, self.p99_ms, self.max_ms
        )
    }
}

/// Begins of a person's beeps, of a file of any length.
pub fn beeps(sound: &DecodedAudio, person: TestPerson) -> Vec<f64> {
    let length = sound.left.len();
    let mut all: Vec<f64> = vec![];
    for from in (0..length).step_by(PART) {
        // What is cut at an end is whole in one of the two parts.
        let to = (from + PART + RATE).min(length);
        let begins = sound.begins + from as f64 / RATE as f64;
        let part = DecodedAudio { left: sound.left[from..to].to_vec(), right: sound.right[from..to].to_vec(), begins };
        for beep in part.beeps(person) {
            if all.last().is_none_or(|last| beep.at - last > 0.2) {
                all.push(beep.at);
            }
        }
    }
    all
}

/// Real time is what is measured here.
pub async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[cfg(test)]
mod tests {
    use spillway_tests::assets::person;

    use super::*;

    #[test]
    fn a_mark_in_another_place_is_missing_there_and_stray_here() {
        let wanted = [1.0, 2.0, 3.0, 7.0, 8.0];
        let right = Punctuality::of(&[0.2, 1.01, 2.01, 3.02, 7.01, 8.01, 9.0], &wanted);
        assert_eq!((right.wanted, right.present, right.stray, right.max_ms.round()), (5, 5, 0, 20.0));
        // After a pause of four seconds it goes on three seconds early.
        let wrong = Punctuality::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 8.3], &wanted);
        assert_eq!((wrong.present, wrong.stray), (3, 2));
    }

    #[test]
    fn marks_in_a_pause_are_not_wanted() {
        let moment = |s: f64| epoch().1 + Duration::from_secs_f64(s);
        let begun_s = moment(0.25).duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let file = RecordedFile { kind: "track", path: PathBuf::new(), seconds: 8.0, told_s: 8.0, begun_s };
        let marks = |pauses: &[(f64, f64)]| {
            let pauses: Vec<_> = pauses.iter().map(|(from, to)| (moment(*from), moment(*to))).collect();
            file.marks(&pauses).into_iter().map(|at| (at * 100.0).round() / 100.0).collect::<Vec<_>>()
        };
        assert_eq!(marks(&[]), [0.75, 1.75, 2.75, 3.75, 4.75, 5.75, 6.75]);
        assert_eq!(marks(&[(2.05, 3.9), (5.2, 5.35)]), [0.75, 3.75, 4.75, 5.75, 6.75], "2 is cut, 3 is not sent");
    }

    #[test]
    fn a_beep_at_the_end_of_a_part_is_heard_once() {
        let tone = person("p0").tone;
        let beep = |index: usize| {
            let phase = (index as f64 / RATE as f64 + 0.02) % 1.0;
            if index > RATE / 2 && phase < 0.04 {
                (0.15 * (std::f64::consts::TAU * tone * phase).sin()) as f32
            } else {
                0.0
            }
        };
        let left: Vec<f32> = (0..RATE * 63).map(beep).collect();
        let sound = DecodedAudio { right: left.clone(), left, begins: 0.0 };
        let heard = beeps(&sound, person("p0"));
        assert!((62..=63).contains(&heard.len()), "{}", heard.len());
        assert!(heard.windows(2).all(|pair| (pair[1] - pair[0] - 1.0).abs() < 0.01), "{heard:.3?}");
    }
}
