//! A stream as ffmpeg's SRT listener receives it, encrypted, and what is told of one that it refuses.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::streamed::{PICTURES, VIDEO, end, pictures, publish, times_ms, tone};
use common::{complaints, until};
use gstreamer as gst;
use spillway_ipc::StreamSettings;
use spillway_media::encoded::EncodedFormat;
use spillway_media::output::StreamEnd;

/// ffmpeg that takes one stream and writes it into a file.
struct FfmpegListener {
    child: Child,
    port: u16,
    file: PathBuf,
}

impl FfmpegListener {
    fn start(folder: &Path) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.join("received.mkv");
        let url = format!("srt://127.0.0.1:{port}?mode=listener&passphrase=0123456789ab&pbkeylen=16");
        let child = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-y", "-i", &url, "-c", "copy"])
            .arg(&file)
            .spawn()
            .unwrap();
        let listening = format!(":{port:04X} 00000000:0000 07");
        until("ffmpeg listens", || std::fs::read_to_string("/proc/net/udp").unwrap().contains(&listening));
        Self { child, port, file }
    }

    /// The file, when ffmpeg has finished it.
    fn received(mut self) -> PathBuf {
        until("ffmpeg ends with the stream", || self.child.try_wait().unwrap().is_some());
        std::mem::take(&mut self.file)
    }
}

impl Drop for FfmpegListener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A transport stream counts in 90 kHz, a Matroska file in milliseconds.
fn assert_times(file: &Path, stream: &str, expected: &[u64]) {
    let times = times_ms(file, stream);
    let near = times.iter().zip(expected).all(|(time, expected)| time.abs_diff(*expected) <= 1);
    assert!(times.len() == expected.len() && near, "{stream}: {times:?} instead of {expected:?}");
}

#[test]
fn ffmpeg_receives_every_frame_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let listener = FfmpegListener::start(folder.path());
    let tone = tone();
    let sound: Vec<u64> = tone.iter().map(|unit| unit.at_ns / 1_000_000).collect();
    let formats = [VIDEO, EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 }];
    let url = format!("srt://127.0.0.1:{}?passphrase=0123456789ab&streamid=x&latency=200", listener.port);
    publish(&url, &formats, StreamSettings::default(), [pictures(), tone].concat());
    let file = listener.received();
    assert_times(&file, "v", &(0..PICTURES).map(|n| n * 1000 / 30).collect::<Vec<_>>());
    assert_times(&file, "a", &sound);
    assert_eq!(complaints(&file), "");
}

#[test]
fn a_wrong_passphrase_and_silence_are_told() {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listener = FfmpegListener::start(folder.path());
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (url, told) in [
        (
            format!("srt://127.0.0.1:{}?passphrase=ba9876543210", listener.port),
            "the server refused: Failed to authenticate: Incorrect passphrase",
        ),
        (format!("srt://127.0.0.1:{closed}"), "could not connect: no answer"),
        (format!("srt://nohost.invalid:{closed}?passphrase=ba9876543210"), "the host cannot be resolved: "),
    ] {
        let StreamEnd::Failed { code, message } = end(&url, StreamSettings::default()) else { panic!("taken") };
        assert_eq!(code, "unavailable");
        assert!(message.starts_with(told) && !message.contains("ba9876"), "{message}");
    }
}
