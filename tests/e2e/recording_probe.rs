//! A finished recording, looked at and listened to.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use spillway_tests::analyser::picture::{self, DecodedVideo};
use spillway_tests::analyser::sound::{self, Beep, BeepSide, DecodedAudio};
use spillway_tests::analyser::sync::{Marks, Offset, offset, presence};
use spillway_tests::analyser::{duration, probe, stream};
use spillway_tests::assets::person;

use spillway_tests::egress::{file_of, nanos};

pub struct RecordingProbe {
    pub info: Value,
    pub path: PathBuf,
    pub probed: Value,
    pub pictures: Option<DecodedVideo>,
    pub sound: Option<DecodedAudio>,
    /// Wall time of the file's zero, seconds.
    begun: f64,
}

/// The info of an egress, with this result as that of its one file.
pub fn one_result(info: &Value, result: &Value) -> Value {
    let mut one = info.clone();
    one["file_results"] = json!([result]);
    one
}

/// Seconds in the file.
pub type Span = (f64, f64);

impl RecordingProbe {
    /// Decodes the one file of a finished egress.
    pub fn open(info: &Value) -> Result<Self> {
        Self::fetched(info, file_of(info)?)
    }

    /// The same, fetched from where it was stored.
    pub fn fetched(info: &Value, path: PathBuf) -> Result<Self> {
        let probed = probe(&path)?;
        let said = nanos(&info["file_results"][0]["duration"]) as f64 / 1e9;
        let has = duration(&probed);
        ensure!((said - has).abs() < 5.0, "{}: EgressInfo says {said:.1} s, ffprobe {has:.1} s", path.display());
        let pictures = stream(&probed, "video").map(|_| picture::analyse(&path)).transpose()?;
        let sound = stream(&probed, "audio").map(|_| sound::analyse(&path)).transpose()?;
        let begun = nanos(&info["file_results"][0]["started_at"]) as f64 / 1e9;
        Ok(Self { info: info.clone(), path, probed, pictures, sound, begun })
    }

    /// Where a moment lies in the file.
    pub fn at(&self, moment: SystemTime) -> f64 {
        moment.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()) - self.begun
    }

    pub fn seconds(&self) -> f64 {
        duration(&self.probed)
    }

    /// All of the file but its ends.
    pub fn whole(&self) -> Vec<Span> {
        vec![(0.5, self.seconds() - 0.7)]
    }

    pub fn video(&self) -> Result<&Value> {
        stream(&self.probed, "video").with_context(|| format!("{} has no video", self.path.display()))
    }

    pub fn audio(&self) -> Result<&Value> {
        stream(&self.probed, "audio").with_context(|| format!("{} has no audio", self.path.display()))
    }

    /// H264 of exactly this size, encoded by us at 30 pictures a second, over all of the file: something moves all the time.
    pub fn is_h264(&self, profile: &str, width: u64, height: u64) -> Result<()> {
        let pictures = self.pictures.as_ref().map_or(0, |pictures| pictures.all.len());
        self.is_h264_at(pictures as f64 / self.seconds(), (profile, width, height))
    }

    /// The same where the picture stands still for a while: there are two a second of it at least.
    pub fn is_h264_with_pauses(&self, profile: &str, width: u64, height: u64) -> Result<()> {
        let all = self.pictures.as_ref().map_or(&[][..], |pictures| &pictures.all);
        self.is_h264_of((profile, width, height))?;
        let longest = all.windows(2).map(|pair| pair[1].at - pair[0].at).fold(0.0, f64::max);
        let rate = all.len() as f64 / self.seconds();
        ensure!(longest < 0.55, "{longest:.2} s between two pictures of {}", self.path.display());
        ensure!((1.9..31.0).contains(&rate), "{rate:.2} pictures a second in {}", self.path.display());
        Ok(())
    }

    /// The same of what a player had that came in the middle: its pictures begin at most half a second behind its sound, at
    /// a key frame.
    pub fn is_streamed_h264(&self, profile: &str, width: u64, height: u64) -> Result<()> {
        let all = self.pictures.as_ref().map_or(&[][..], |pictures| &pictures.all);
        let [first, .., last] = all else { bail!("{} has no pictures", self.path.display()) };
        ensure!(first.at < 0.5, "the first picture of {} is at {:.2} s", self.path.display(), first.at);
        self.is_h264_at((all.len() - 1) as f64 / (last.at - first.at), (profile, width, height))
    }

    fn is_h264_at(&self, rate: f64, of: (&str, u64, u64)) -> Result<()> {
        self.is_h264_of(of)?;
        ensure!((29.0..31.0).contains(&rate), "{rate:.2} pictures a second in {}", self.path.display());
        Ok(())
    }

    fn is_h264_of(&self, (profile, width, height): (&str, u64, u64)) -> Result<()> {
        let video = self.video()?;
        ensure!(video["codec_name"] == "h264" && video["profile"] == profile, "not H264 {profile}: {video}");
        ensure!(video["width"] == width && video["height"] == height, "not {width}x{height}: {video}");
        Ok(())
    }

    pub fn is_audio(&self, codec: &str, rate: &str, channels: u64) -> Result<()> {
        let audio = self.audio()?;
        let fits = audio["codec_name"] == codec && audio["sample_rate"] == rate && audio["channels"] == channels;
        ensure!(fits, "not {codec} {rate} Hz with {channels} channels: {audio}");
        Ok(())
    }

    /// `<egress_id>.json` beside the file, and it names the file.
    pub fn has_manifest(&self) -> Result<Value> {
        let id = self.info["egress_id"].as_str().unwrap_or_default();
        let path = self.path.with_file_name(format!("{id}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("no manifest at {}", path.display()))?;
        let manifest: Value = serde_json::from_str(&text).context("read the manifest")?;
        let named = manifest["files"][0]["location"].as_str().unwrap_or_default();
        ensure!(named.ends_with(&*self.path.to_string_lossy()), "the manifest names {named}");
        Ok(manifest)
    }

    /// Flashes in every second of the spans and none where there must be none.
    pub fn shows(&self, who: &str, wanted: &[Span], forbidden: &[Span]) -> Result<()> {
        let pictures = self.pictures.as_ref().context("there is no picture")?;
        let flashes = pictures.flashes(person(who));
        let presence = presence(Marks { seen: &flashes, wanted, forbidden });
        println!("{} {who} flashes {presence}", self.name());
        ensure!(presence.good(), "{who} in {}: {presence}; wanted {wanted:.1?}, seen {flashes:.2?}", self.name());
        let ghosts: Vec<f64> = pictures
            .of(person(who))
            .filter(|(at, reading)| reading.is_some() && forbidden.iter().any(|(from, to)| (*from..=*to).contains(at)))
            .map(|(at, _)| at)
            .collect();
        ensure!(ghosts.is_empty(), "{who} is in the picture of {} at {ghosts:.2?}", self.name());
        Ok(())
    }

    /// Beeps in every second of the spans, all on `side`, and none where there must be none.
    pub fn sounds(&self, who: &str, side: BeepSide, wanted: &[Span], forbidden: &[Span]) -> Result<()> {
        let beeps = self.beeps(who)?;
        let at: Vec<f64> = beeps.iter().map(|beep| beep.at).collect();
        let presence = presence(Marks { seen: &at, wanted, forbidden });
        println!("{} {who} beeps {presence}", self.name());
        ensure!(presence.good(), "{who} in {}: {presence}; wanted {wanted:.1?}, heard {at:.2?}", self.name());
        let elsewhere: Vec<&Beep> = beeps
            .iter()
            .filter(|beep| wanted.iter().any(|(from, to)| (*from..=*to).contains(&beep.at)) && beep.side() != side)
            .collect();
        ensure!(elsewhere.is_empty(), "{who} in {} is not {side:?}: {elsewhere:?}", self.name());
        Ok(())
    }

    pub fn beeps(&self, who: &str) -> Result<Vec<Beep>> {
        Ok(self.sound.as_ref().context("there is no sound")?.beeps(person(who)))
    }

    pub fn flashes(&self, who: &str) -> Result<Vec<f64>> {
        Ok(self.pictures.as_ref().context("there is no picture")?.flashes(person(who)))
    }

    /// Median ≤ 15 ms, p99 ≤ 40 ms.
    pub fn in_sync(&self, who: &str) -> Result<Offset> {
        let beeps: Vec<f64> = self.beeps(who)?.iter().map(|beep| beep.at).collect();
        // The first and the last mark may be cut.
        let inside: Vec<f64> =
            self.flashes(who)?.into_iter().filter(|at| (0.2..self.seconds() - 0.2).contains(at)).collect();
        let offset = offset(&inside, &beeps);
        println!("{} {who} picture - sound {offset}", self.name());
        let good = offset.pairs >= 3 && offset.median_ms.abs() <= 15.0 && offset.p99_ms <= 40.0;
        ensure!(good, "{who} in {}: picture - sound {offset}", self.name());
        Ok(offset)
    }

    /// Each of several people in one picture, whatever their cameras' phases.
    pub fn all_in_sync(&self, people: &[&str]) -> Result<()> {
        people.iter().try_for_each(|who| self.in_sync(who).map(drop))
    }

    /// At least so many different pictures of a person a second, none out of order.
    pub fn moves(&self, who: &str, least: f64) -> Result<()> {
        let identity = self.pictures.as_ref().context("there is no picture")?.identity(person(who));
        println!("{} {who} {identity:?}", self.name());
        ensure!(identity.backwards == 0, "{who} in {} steps back: {identity:?}", self.name());
        ensure!(identity.different_per_second >= least, "{who} in {}: {identity:?}", self.name());
        Ok(())
    }

    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}
