//! The tables that say which PIDs there are: one program of at most one video and one audio stream. Pure.

use super::packet::PidWriter;

const PROGRAM: u8 = 1;
const PMT_PID: u16 = 0x1000;
const H264: u8 = 0x1b;
const ADTS: u8 = 0x0f;

/// Program association and program map table, and the counters of their PIDs.
#[derive(Clone, Debug)]
pub struct Tables {
    pat: (PidWriter, Vec<u8>),
    pmt: (PidWriter, Vec<u8>),
}

impl Tables {
    /// PIDs of the streams that there are. The video stream carries the clock, the audio stream only where it is alone.
    pub fn new(video: Option<u16>, audio: Option<u16>, clock: u16) -> Self {
        let mut pat = vec![0, PROGRAM];
        pat.extend_from_slice(&pid(PMT_PID));
        let mut pmt = pid(clock).to_vec();
        // No descriptors.
        pmt.extend_from_slice(&[0xf0, 0]);
        for (stream_type, stream) in [(H264, video), (ADTS, audio)] {
            if let Some(stream) = stream {
                pmt.push(stream_type);
                pmt.extend_from_slice(&pid(stream));
                pmt.extend_from_slice(&[0xf0, 0]);
            }
        }
        Self { pat: (PidWriter::new(0), section(0, &pat)), pmt: (PidWriter::new(PMT_PID), section(2, &pmt)) }
    }

    /// Both tables, a packet each.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        self.pat.0.section(out, &self.pat.1);
        self.pmt.0.section(out, &self.pmt.1);
    }
}

/// Three reserved bits, then the 13 of the PID.
fn pid(pid: u16) -> [u8; 2] {
    (0xe000 | pid).to_be_bytes()
}

fn section(table: u8, body: &[u8]) -> Vec<u8> {
    // The number of the stream or program, version 0 that is current, section 0 of 0.
    let head = [0, PROGRAM, 0xc1, 0, 0];
    let length = (head.len() + body.len() + 4) as u16;
    let mut section = vec![table];
    section.extend_from_slice(&(0xb000 | length).to_be_bytes());
    section.extend_from_slice(&head);
    section.extend_from_slice(body);
    section
}
