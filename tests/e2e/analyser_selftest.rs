//! The analyser against files whose faults are known, muxed by ffmpeg: who judges must be judged first.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use spillway_tests::analyser::sync::{Marks, offset, presence};
use spillway_tests::analyser::{copied, picture, sound};
use spillway_tests::assets::{PEOPLE, clip, folder, person};

use crate::harness::alone;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("analyser_selftest::a_known_offset_is_measured", a_known_offset_is_measured),
        alone("analyser_selftest::four_tiles_are_told_apart", four_tiles_are_told_apart),
        alone("analyser_selftest::a_cut_is_seen", a_cut_is_seen),
    ]
}

fn ffmpeg(arguments: &[&str], out: &Path) -> Result<()> {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments)
        .arg(out)
        .current_dir(folder()?)
        .status()
        .context("start ffmpeg")?;
    ensure!(status.success(), "ffmpeg {arguments:?}: {status}");
    Ok(())
}

fn a_known_offset_is_measured() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("late-sound.mkv");
    let inputs = ["-r", "30", "-i", "p0-360.h264", "-itsoffset", "0.1", "-i", "p0.pcma"];
    // What ffmpeg takes for G.711 in a raw file has to be said.
    let inputs = [&inputs[..6], &["-f", "alaw", "-ar", "8000"], &inputs[6..]].concat();
    ffmpeg(
        &[&inputs[..], &["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", "-t", "6"]].concat(),
        &file,
    )?;
    let (pictures, sound) = (picture::analyse(&file)?, sound::analyse(&file)?);
    let beeps: Vec<f64> = sound.beeps(person("p0")).iter().map(|beep| beep.at).collect();
    let measured = offset(&pictures.flashes(person("p0")), &beeps);
    ensure!(measured.pairs == 6 && (measured.median_ms + 100.0).abs() < 4.0, "{measured}");
    let comparison = copied::compare(&file, &*clip("p0-360.h264")?)?;
    ensure!(comparison.perfect(), "{comparison}");

    // ffmpeg takes out what Opus decodes late, as the clip's header says: in step, so neither the clip (it is not advanced
    // for its encoder) nor the analyser lends a recording an offset.
    let file = folder.path().join("opus.mp4");
    let inputs = ["-r", "30", "-i", "p0-360.h264", "-i", "p0.opus"];
    ffmpeg(&[&inputs[..], &["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-t", "6"]].concat(), &file)?;
    let beeps: Vec<f64> = sound::analyse(&file)?.beeps(person("p0")).iter().map(|beep| beep.at).collect();
    let measured = offset(&picture::analyse(&file)?.flashes(person("p0")), &beeps);
    ensure!(measured.pairs == 6 && measured.median_ms.abs() < 1.5, "Opus: {measured}");
    Ok(())
}

fn four_tiles_are_told_apart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("grid.mp4");
    let inputs: Vec<String> = PEOPLE
        .iter()
        .flat_map(|person| {
            ["-r", "30", "-i"].map(str::to_owned).into_iter().chain([format!("{}-360.h264", person.name)])
        })
        .collect();
    let mut arguments: Vec<&str> = inputs.iter().map(String::as_str).collect();
    // Cut to 15:9, as a layout may do, and on a canvas with a margin.
    arguments.extend([
        "-filter_complex",
        "[0]crop=600:360[a];[1]crop=600:360[b];[2]crop=600:360[c];[3]crop=600:360[d];\
         [a][b][c][d]xstack=inputs=4:layout=0_0|w0_0|0_h0|w0_h0,pad=1280:720:40:0[v]",
        "-map",
        "[v]",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-b:v",
        "1500k",
        "-t",
        "3",
    ]);
    ffmpeg(&arguments, &file)?;
    let pictures = picture::analyse(&file)?;
    for person in PEOPLE {
        let flashes = pictures.flashes(person);
        ensure!(flashes.len() == 3, "{}: {flashes:?}", person.name);
        let identity = pictures.identity(person);
        ensure!(
            identity.read == 90 && identity.different == 90 && identity.missing == 0,
            "{}: {identity:?}",
            person.name
        );
    }
    Ok(())
}

fn a_cut_is_seen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cut.mp4");
    let select = "select='not(between(n,60,89))',setpts=N/30/TB";
    ffmpeg(
        &["-r", "30", "-i", "p0-360.h264", "-vf", select, "-c:v", "libx264", "-preset", "ultrafast", "-t", "4"],
        &file,
    )?;
    let pictures = picture::analyse(&file)?;
    let identity = pictures.identity(person("p0"));
    ensure!(identity.missing == 30 && identity.backwards == 0, "{identity:?}");
    // The second that was cut out shifts what follows by a whole second: presence alone would not see it.
    let flashes = pictures.flashes(person("p0"));
    let all = presence(Marks { seen: &flashes, wanted: &[(0.0, 3.5)], forbidden: &[] });
    ensure!(all.good(), "{all}");
    let comparison = copied::compare(&file, &*clip("p0-360.h264")?)?;
    ensure!(comparison.changed > 100, "an encoded file passes as a copy: {comparison}");
    Ok(())
}
