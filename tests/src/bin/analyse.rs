//! `spillway-analyse`: prints what the analyser finds in a recording of clips.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use spillway_tests::analyser::{copied, picture, probe, sound, stream, sync};
use spillway_tests::assets::{PEOPLE, clip};

#[derive(Parser)]
#[command(name = "spillway-analyse", about = "Flashes, beeps and picture numbers of a recording, per person")]
struct Args {
    file: PathBuf,
    /// Compare the encoded frames with this clip, e.g. p0-720.h264
    #[arg(long)]
    copied: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = args.copied {
        println!("{}", copied::compare(&args.file, &*clip(&name)?)?);
        return Ok(());
    }
    let probed = probe(&args.file)?;
    let pictures = stream(&probed, "video").map(|_| picture::analyse(&args.file)).transpose()?;
    let sound = stream(&probed, "audio").map(|_| sound::analyse(&args.file)).transpose()?;
    if let Some(pictures) = &pictures {
        let (first, last) = (pictures.all.first().map_or(0.0, |p| p.at), pictures.all.last().map_or(0.0, |p| p.at));
        println!(
            "{}x{}, {} pictures from {first:.3} to {last:.3} s",
            pictures.size.0,
            pictures.size.1,
            pictures.all.len()
        );
    }
    if let Some(sound) = &sound {
        println!("{:.3} s of sound", sound.seconds());
    }
    for person in PEOPLE {
        let flashes = pictures.as_ref().map(|pictures| pictures.flashes(person)).unwrap_or_default();
        let beeps = sound.as_ref().map(|sound| sound.beeps(person)).unwrap_or_default();
        if flashes.is_empty() && beeps.is_empty() {
            continue;
        }
        println!("{}:", person.name);
        if let Some(pictures) = &pictures {
            println!("  flashes {:?}", flashes.iter().map(|at| (at * 1000.0).round() / 1000.0).collect::<Vec<_>>());
            println!("  there {:.2?}", pictures.spans(person));
            if let Some((_, Some(reading))) = pictures.of(person).filter(|(_, reading)| reading.is_some()).last() {
                println!("  last tile {:.3?}", reading.tile);
            }
            println!("  {:?}", pictures.identity(person));
        }
        let at: Vec<f64> = beeps.iter().map(|beep| beep.at).collect();
        println!(
            "  beeps {:?}",
            beeps.iter().map(|beep| ((beep.at * 1000.0).round() / 1000.0, beep.side())).collect::<Vec<_>>()
        );
        println!("  picture - sound: {}", sync::offset(&flashes, &at));
    }
    Ok(())
}
