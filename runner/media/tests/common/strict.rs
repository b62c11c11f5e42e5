//! A reader of MP4 that believes the sample descriptions alone, as Apple's players and hardware decoders do: parameter sets
//! within the samples do not count.

use std::path::Path;
use std::process::Command;

/// The picture of an MP4 with H264.
pub struct StrictVideo {
    /// Of the track's header, pixels.
    pub size: (u32, u32),
    /// `avcC` of each description, and the pixels it is labelled with.
    pub descriptions: Vec<(Vec<u8>, (u32, u32))>,
    /// Number of the description (from 0) and contents of each sample.
    pub samples: Vec<(usize, Vec<u8>)>,
    /// When each sample is decoded and shown, in the track's units.
    pub times: Vec<(u64, u64)>,
}

/// The contents of the boxes of this name, one after the other.
fn boxes<'a>(data: &'a [u8], name: &[u8; 4]) -> Vec<&'a [u8]> {
    let (mut at, mut found) = (0usize, vec![]);
    while at + 8 <= data.len() {
        let (head, size) = match u32_at(data, at) {
            0 => (8, (data.len() - at) as u64),
            1 => (16, u64_at(data, at + 8)),
            size => (8, u64::from(size)),
        };
        let end = at + size as usize;
        if &data[at + 4..at + 8] == name {
            found.push(&data[at + head..end]);
        }
        at = end;
    }
    found
}

fn inside<'a>(data: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
    path.iter().fold(data, |data, name| boxes(data, name).first().copied().unwrap_or_default())
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(data[at..at + 2].try_into().unwrap())
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(data[at..at + 8].try_into().unwrap())
}

/// Entries of a table box, each of so many numbers of 32 bits.
fn table(data: &[u8], width: usize) -> Vec<Vec<u32>> {
    let count = if data.is_empty() { 0 } else { u32_at(data, 4) as usize };
    (0..count).map(|n| (0..width).map(|column| u32_at(data, 8 + (n * width + column) * 4)).collect()).collect()
}

impl StrictVideo {
    /// The last `moov` of a finished file.
    pub fn read(path: &Path) -> Self {
        let file = std::fs::read(path).unwrap();
        let moov = *boxes(&file, b"moov").last().unwrap();
        let is_video = |trak: &&[u8]| inside(trak, &[b"mdia", b"hdlr"]).get(8..12) == Some(&b"vide"[..]);
        let trak = boxes(moov, b"trak").into_iter().find(is_video).unwrap();
        let header = inside(trak, &[b"tkhd"]);
        let sides = header.len() - 8;
        let tables = inside(trak, &[b"mdia", b"minf", b"stbl"]);
        let descriptions = boxes(&inside(tables, &[b"stsd"])[8..], b"avc1")
            .into_iter()
            .map(|entry| {
                let size = (u32::from(u16_at(entry, 24)), u32::from(u16_at(entry, 26)));
                (inside(&entry[78..], &[b"avcC"]).to_vec(), size)
            })
            .collect();
        let offsets = inside(tables, &[b"co64"]);
        let offsets = (0..u32_at(offsets, 4) as usize).map(|n| u64_at(offsets, 8 + n * 8) as usize);
        let sizes = inside(tables, &[b"stsz"]);
        let mut sizes = (0..u32_at(sizes, 8) as usize).map(|n| u32_at(sizes, 12 + n * 4) as usize);
        let runs = table(inside(tables, &[b"stsc"]), 3);
        let mut samples = vec![];
        for (mut at, chunk) in offsets.zip(1..) {
            let run = runs.iter().rfind(|run| run[0] <= chunk).unwrap();
            for size in sizes.by_ref().take(run[1] as usize) {
                samples.push((run[2] as usize - 1, file[at..at + size].to_vec()));
                at += size;
            }
        }
        let spread = |runs: Vec<Vec<u32>>| runs.into_iter().flat_map(|run| vec![run[1]; run[0] as usize]);
        let offsets = spread(table(inside(tables, &[b"ctts"]), 2)).chain(std::iter::repeat(0));
        let mut decoded = 0;
        let times = spread(table(inside(tables, &[b"stts"]), 2)).zip(offsets).map(|(duration, offset)| {
            let at = decoded;
            decoded += u64::from(duration);
            (at, at.saturating_add_signed(i64::from(offset as i32)))
        });
        let times = times.collect();
        Self { size: (u32_at(header, sides) >> 16, u32_at(header, sides + 4) >> 16), descriptions, samples, times }
    }

    /// In Annex B, with the parameter sets of the descriptions and none of the samples' own.
    fn annex_b(&self) -> Vec<u8> {
        let (mut out, mut before) = (vec![], None);
        let mut put = |unit: &[u8]| {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(unit);
        };
        for (description, sample) in &self.samples {
            if before.replace(*description) != Some(*description) {
                parameter_sets(&self.descriptions[*description].0).iter().for_each(|unit| put(unit));
            }
            let mut rest = &sample[..];
            while !rest.is_empty() {
                let (unit, behind) = rest[4..].split_at(u32_at(rest, 0) as usize);
                if !matches!(unit[0] & 0x1f, 7 | 8) {
                    put(unit);
                }
                rest = behind;
            }
        }
        out
    }

    /// What ffmpeg complains about, and the size of each picture it shows.
    pub fn decode(&self, dir: &Path) -> (String, Vec<(u32, u32)>) {
        let path = dir.join("strict.h264");
        std::fs::write(&path, self.annex_b()).unwrap();
        let out = Command::new("ffprobe")
            .args(["-v", "error", "-f", "h264", "-show_entries", "frame=width,height", "-of", "csv=p=0"])
            .arg(&path)
            .output()
            .unwrap();
        let sizes = String::from_utf8_lossy(&out.stdout)
            .lines()
            .filter_map(|line| {
                let mut sides = line.split(',').map(str::parse::<u32>);
                Some((sides.next()?.ok()?, sides.next()?.ok()?))
            })
            .collect();
        (String::from_utf8_lossy(&out.stderr).into_owned(), sizes)
    }
}

/// The parameter sets of an `avcC`.
fn parameter_sets(config: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut at) = (vec![], 5);
    for mask in [0x1f, 0xff] {
        let count = config[at] & mask;
        at += 1;
        for _ in 0..count {
            let length = usize::from(u16_at(config, at));
            found.push(&config[at + 2..at + 2 + length]);
            at += 2 + length;
        }
    }
    found
}
