//! The boxes of ISO 14496-12, as far as we write them: each function appends one box to a buffer. Pure.

/// What a track's samples are, for players.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleFormat {
    H264 { config: Vec<u8>, size: (u32, u32) },
    H265 { config: Vec<u8>, size: (u32, u32) },
    Aac { config: Vec<u8>, rate: u32 },
    Opus { pre_skip: u16 },
}

/// A box around what `inside` writes.
pub fn boxed(out: &mut Vec<u8>, name: &[u8; 4], inside: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name);
    inside(out);
    let size = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// A box that begins with a version and flags.
pub fn full(out: &mut Vec<u8>, name: &[u8; 4], version: u8, flags: u32, inside: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, name, |out| {
        u32(out, (u32::from(version) << 24) | flags);
        inside(out);
    });
}

/// Big endian.
pub fn u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Big endian.
pub fn u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Big endian.
pub fn u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// `count` zero bytes.
pub fn zeros(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, 0);
}

/// `ftyp` of a file that is read from its beginning, 32 bytes.
pub fn ftyp(out: &mut Vec<u8>) {
    brands(out, b"ftyp", b"mp42mp41isomiso2");
}

/// `ftyp` of a file or `styp` of a segment; the first of the brands is the major one.
pub fn brands(out: &mut Vec<u8>, name: &[u8; 4], brands: &[u8]) {
    boxed(out, name, |out| {
        out.extend_from_slice(&brands[..4]);
        u32(out, 0);
        out.extend_from_slice(brands);
    });
}

const MATRIX: [u32; 9] = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000];

fn matrix(out: &mut Vec<u8>) {
    MATRIX.iter().for_each(|value| u32(out, *value));
}

/// Movie header; `duration` in `timescale`.
pub fn mvhd(out: &mut Vec<u8>, timescale: u32, duration: u64, next_track: u32) {
    full(out, b"mvhd", 1, 0, |out| {
        zeros(out, 16);
        u32(out, timescale);
        u64(out, duration);
        u32(out, 0x10000);
        u16(out, 0x100);
        zeros(out, 10);
        matrix(out);
        zeros(out, 24);
        u32(out, next_track);
    });
}

/// Track header; `duration` in the movie's timescale, `size` in pixels for a picture.
pub fn tkhd(out: &mut Vec<u8>, track: u32, duration: u64, size: Option<(u32, u32)>) {
    // Enabled, in the movie, in the preview.
    full(out, b"tkhd", 1, 7, |out| {
        zeros(out, 16);
        u32(out, track);
        u32(out, 0);
        u64(out, duration);
        zeros(out, 8);
        u16(out, 0);
        // Sounds are alternatives of nothing.
        u16(out, u16::from(size.is_none()));
        u16(out, if size.is_none() { 0x100 } else { 0 });
        u16(out, 0);
        matrix(out);
        let (width, height) = size.unwrap_or_default();
        u32(out, width << 16);
        u32(out, height << 16);
    });
}

/// Media header; `duration` in `timescale`.
pub fn mdhd(out: &mut Vec<u8>, timescale: u32, duration: u64) {
    full(out, b"mdhd", 1, 0, |out| {
        zeros(out, 16);
        u32(out, timescale);
        u64(out, duration);
        // "und"
        u16(out, 0x55c4);
        u16(out, 0);
    });
}

/// Handler: video or sound.
pub fn hdlr(out: &mut Vec<u8>, video: bool) {
    full(out, b"hdlr", 0, 0, |out| {
        u32(out, 0);
        out.extend_from_slice(if video { b"vide" } else { b"soun" });
        zeros(out, 12);
        out.extend_from_slice(if video { b"VideoHandler\0" } else { b"SoundHandler\0" });
    });
}

/// `vmhd` or `smhd`, and a `dinf` that says: in this file.
pub fn media_head(out: &mut Vec<u8>, video: bool) {
    if video {
        full(out, b"vmhd", 0, 1, |out| zeros(out, 8));
    } else {
        full(out, b"smhd", 0, 0, |out| zeros(out, 4));
    }
    boxed(out, b"dinf", |out| {
        full(out, b"dref", 0, 0, |out| {
            u32(out, 1);
            // In this file.
            full(out, b"url ", 0, 1, |_| {});
        });
    });
}

/// Sample descriptions.
pub fn stsd(out: &mut Vec<u8>, formats: &[SampleFormat]) {
    full(out, b"stsd", 0, 0, |out| {
        u32(out, formats.len() as u32);
        formats.iter().for_each(|format| description(out, format));
    });
}

fn description(out: &mut Vec<u8>, format: &SampleFormat) {
    match format {
        SampleFormat::H264 { config, size } => picture(out, b"avc1", *size, b"avcC", config),
        SampleFormat::H265 { config, size } => picture(out, b"hvc1", *size, b"hvcC", config),
        SampleFormat::Aac { config, rate } => sound(out, b"mp4a", *rate, |out| esds(out, config)),
        SampleFormat::Opus { pre_skip } => sound(out, b"Opus", 48_000, |out| {
            boxed(out, b"dOps", |out| {
                out.extend_from_slice(&[0, 2]);
                u16(out, *pre_skip);
                u32(out, 48_000);
                zeros(out, 3);
            });
        }),
    }
}

fn picture(out: &mut Vec<u8>, name: &[u8; 4], (width, height): (u32, u32), config_name: &[u8; 4], config: &[u8]) {
    boxed(out, name, |out| {
        zeros(out, 6);
        u16(out, 1);
        zeros(out, 16);
        u16(out, width as u16);
        u16(out, height as u16);
        // 72 dpi
        u32(out, 0x48_0000);
        u32(out, 0x48_0000);
        u32(out, 0);
        u16(out, 1);
        zeros(out, 32);
        u16(out, 24);
        u16(out, 0xffff);
        boxed(out, config_name, |out| out.extend_from_slice(config));
    });
}

fn sound(out: &mut Vec<u8>, name: &[u8; 4], rate: u32, config: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, name, |out| {
        zeros(out, 6);
        u16(out, 1);
        zeros(out, 8);
        u16(out, 2);
        u16(out, 16);
        u32(out, 0);
        u32(out, rate << 16);
        config(out);
    });
}

/// Descriptors of MPEG-4 systems, each with its length in one byte: ours are short.
fn esds(out: &mut Vec<u8>, config: &[u8]) {
    full(out, b"esds", 0, 0, |out| {
        let specific = config.len() as u8;
        out.extend_from_slice(&[3, 3 + 2 + 13 + 2 + specific + 3, 0, 0, 0]);
        // MPEG-4 audio, an audio stream.
        out.extend_from_slice(&[4, 13 + 2 + specific, 0x40, 0x15, 0, 0, 0]);
        zeros(out, 8);
        out.extend_from_slice(&[5, specific]);
        out.extend_from_slice(config);
        out.extend_from_slice(&[6, 1, 2]);
    });
}
