//! IVF: a header of 32 bytes, then frames with 12 bytes each before them. GStreamer's own muxer leaves a duration
//! that players misread, and a frame needs nothing that would be worth a pipeline.

use spillway_ipc::{SpoolError, SpoolFile};

use super::scale;
use crate::track::Codec;

/// Ticks of a second: RTP's video clock, so that time stamps lose nothing.
const TICKS: u32 = 90_000;

/// AV1 temporal units in IVF begin with a delimiter, which RTP leaves out.
const TEMPORAL_DELIMITER: [u8; 2] = [0x12, 0x00];

/// An IVF file that is being written; readable at any moment.
pub struct Ivf {
    file: SpoolFile,
    codec: Codec,
    frames: u32,
    media_ns: u64,
}

impl Ivf {
    /// `size` is that of the first key frame.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn open(mut file: SpoolFile, codec: Codec, size: (u32, u32)) -> Result<Self, SpoolError> {
        file.append(&header(codec, size))?;
        Ok(Self { file, codec, frames: 0, media_ns: 0 })
    }

    /// `at`: nanoseconds since the beginning of the file.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn write(&mut self, at: u64, data: &[u8]) -> Result<(), SpoolError> {
        let delimiter: &[u8] = match self.codec {
            Codec::Av1 if !data.starts_with(&TEMPORAL_DELIMITER) => &TEMPORAL_DELIMITER,
            _ => &[],
        };
        // One write a frame: a kill then leaves whole frames.
        let mut bytes = Vec::with_capacity(12 + delimiter.len() + data.len());
        bytes.extend_from_slice(&((delimiter.len() + data.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(&ticks(at).to_le_bytes());
        bytes.extend_from_slice(delimiter);
        bytes.extend_from_slice(data);
        self.file.append(&bytes)?;
        self.frames += 1;
        self.media_ns = at;
        Ok(())
    }

    /// Fills in the length. libvpx counts frames here and looks at it nowhere; ffmpeg reads it as a duration.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn finish(&mut self) -> Result<(), SpoolError> {
        let frame = self.media_ns / u64::from(self.frames.max(2) - 1);
        let length = u32::try_from(ticks(self.media_ns + frame)).unwrap_or(u32::MAX);
        self.file.write_at(24, &length.to_le_bytes())
    }

    /// Where the last frame stands.
    pub fn media_ns(&self) -> u64 {
        self.media_ns
    }
}

fn ticks(ns: u64) -> u64 {
    scale(ns, 1_000_000_000, TICKS)
}

fn header(codec: Codec, (width, height): (u32, u32)) -> [u8; 32] {
    let name = match codec {
        Codec::Vp9 => b"VP90",
        Codec::Av1 => b"AV01",
        Codec::H264 => b"H264",
        Codec::H265 => b"HEVC",
        _ => b"VP80",
    };
    let mut header = [0; 32];
    header[..4].copy_from_slice(b"DKIF");
    header[6..8].copy_from_slice(&32u16.to_le_bytes());
    header[8..12].copy_from_slice(name);
    header[12..14].copy_from_slice(&(width as u16).to_le_bytes());
    header[14..16].copy_from_slice(&(height as u16).to_le_bytes());
    header[16..20].copy_from_slice(&TICKS.to_le_bytes());
    header[20..24].copy_from_slice(&1u32.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_plan::Container;

    #[test]
    fn a_delimiter_is_added_to_av1_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ivf");
        let file = SpoolFile::create(&path, Container::Ivf).unwrap();
        let mut ivf = Ivf::open(file, Codec::Av1, (640, 360)).unwrap();
        ivf.write(0, &[0x0a, 1, 0]).unwrap();
        ivf.write(1_000_000_000, &[0x12, 0, 0x0a, 1, 0]).unwrap();
        ivf.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 32 + 2 * (12 + 5));
        assert_eq!(&bytes[44..49], &bytes[61..66]);
        assert_eq!(u64::from_le_bytes(bytes[53..61].try_into().unwrap()), 90_000);
        assert_eq!(u32::from_le_bytes(bytes[24..28].try_into().unwrap()), 2 * 90_000);
    }
}
