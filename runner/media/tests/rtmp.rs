//! A stream as ffmpeg's RTMP server receives it, plain and over TLS.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::{complaints, encoded, until};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use spillway_ipc::{StreamSettings, StreamStart};
use spillway_media::encoded::{EncodedFormat, EncodedUnit, MediaKind, StreamNumber};
use spillway_media::output::{StreamEnd, StreamEvent, Streams};
use spillway_media::track::{Codec, Frame};
use spillway_plan::Secret;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

const PICTURES: u64 = 90;
const SIZE: (u32, u32) = (320, 180);
const VIDEO: EncodedFormat =
    EncodedFormat::Video { codec: Codec::H264, size: SIZE, framerate: Some(30), bitrate_kbps: Some(400) };
const TIMEOUT: Duration = Duration::from_secs(20);

/// ffmpeg that takes one stream and writes it into a file.
struct FfmpegServer {
    child: Child,
    port: u16,
    file: PathBuf,
}

impl FfmpegServer {
    fn start(folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = folder.join("received.flv");
        let child = Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-y",
                "-listen",
                "1",
                "-i",
                &format!("rtmp://127.0.0.1:{port}/live/key"),
                "-c",
                "copy",
            ])
            .arg(&file)
            .spawn()
            .unwrap();
        // It takes one connection only, so the kernel is asked whether it listens.
        let listening = format!(":{port:04X} 00000000:0000 0A");
        until("ffmpeg listens", || std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&listening));
        Self { child, port, file }
    }

    /// The file, when ffmpeg has finished it.
    fn received(mut self) -> PathBuf {
        until("ffmpeg ends with the stream", || self.child.try_wait().unwrap().is_some());
        std::mem::take(&mut self.file)
    }
}

impl Drop for FfmpegServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unit(kind: MediaKind, at_ns: u64, key: bool, data: Bytes) -> EncodedUnit {
    let stream = StreamNumber(u8::from(kind == MediaKind::Audio));
    EncodedUnit { stream, kind, key, at_ns, duration_ns: 0, data }
}

/// Three seconds of pictures.
fn pictures() -> Vec<EncodedUnit> {
    let frames = encoded(Codec::H264, SIZE, PICTURES as u32).unwrap();
    let unit = |(n, frame): (u64, Frame)| unit(MediaKind::Video, n * 1_000_000_000 / 30, frame.key, frame.data);
    (0..).zip(frames).map(unit).collect()
}

/// Three seconds of a tone.
fn tone() -> Vec<EncodedUnit> {
    gst::init().unwrap();
    let chain = "audiotestsrc num-buffers=141 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! \
                 audio/mpeg,stream-format=raw ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(chain).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = vec![];
    while let Ok(sample) = out.pull_sample() {
        let data = Bytes::copy_from_slice(&sample.buffer().unwrap().map_readable().unwrap());
        let at_ns = units.len() as u64 * 1024 * 1_000_000_000 / 48_000;
        units.push(unit(MediaKind::Audio, at_ns, true, data));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

fn streams(formats: &[EncodedFormat], settings: StreamSettings) -> (Streams, Receiver<StreamEvent>) {
    let (tell, events) = channel();
    let said = move |_, event| {
        let _ = tell.send(event);
    };
    (Streams::start(formats.into(), &settings, Arc::new(no_key_frame), Arc::new(said)).unwrap(), events)
}

fn no_key_frame() {
    panic!("a key frame is wanted");
}

/// Publishes the units faster than real time, from when the server has accepted the stream.
fn publish(url: &str, formats: &[EncodedFormat], settings: StreamSettings, mut units: Vec<EncodedUnit>) {
    units.sort_by_key(|unit| unit.at_ns);
    let (mut streams, events) = streams(formats, settings);
    let ring = streams.add(StreamStart { id: 0, output: 0, url: Secret::new(url.to_owned()) });
    // A connection that begins with a key frame at hand asks for none.
    ring.put(units.remove(0));
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Connecting);
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Active);
    for unit in units {
        ring.put(unit);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(ring.stats().dropped, 0);
    streams.remove(0);
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Ended(StreamEnd::Finished));
}

/// How a stream ends whose server is not reached.
fn end(url: &str, settings: StreamSettings) -> StreamEnd {
    let (mut streams, events) = streams(&[VIDEO], settings);
    let ring = streams.add(StreamStart { id: 0, output: 0, url: Secret::new(url.to_owned()) });
    ring.put(unit(MediaKind::Video, 0, true, Bytes::new()));
    loop {
        if let StreamEvent::Ended(end) = events.recv_timeout(TIMEOUT).unwrap() {
            return end;
        }
    }
}

/// Time in milliseconds of every packet of a stream (`v` or `a`).
fn times_ms(file: &Path, stream: &str) -> Vec<u64> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", stream, "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let ms = |line: &str| (line.trim_end_matches(',').parse::<f64>().unwrap() * 1000.0).round() as u64;
    text.lines().map(ms).collect()
}

fn assert_pictures(file: &Path) {
    let times = times_ms(file, "v");
    assert_eq!(times, (0..PICTURES).map(|n| n * 1000 / 30).collect::<Vec<_>>());
    assert_eq!(complaints(file), "");
}

#[test]
fn ffmpeg_receives_every_frame_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = FfmpegServer::start(folder.path());
    let tone = tone();
    let expected: Vec<u64> = tone.iter().map(|unit| unit.at_ns / 1_000_000).collect();
    let formats = [VIDEO, EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 }];
    let url = format!("rtmp://127.0.0.1:{}/live/key", server.port);
    publish(&url, &formats, StreamSettings::default(), [pictures(), tone].concat());
    let file = server.received();
    assert_pictures(&file);
    assert_eq!(times_ms(&file, "a"), expected);
}

/// TLS in front of a port of this machine: its port, and the certificate that makes it trusted.
async fn tls_in_front_of(port: u16) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let text = STANDARD.encode(made.cert.der());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let ca = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls_port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            tokio::spawn(async move {
                let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut tcp).await;
            });
        }
    });
    (tls_port, ca)
}

#[test]
fn a_private_authority_is_trusted_and_a_stream_without_sound_has_silence() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = FfmpegServer::start(folder.path());
    let (port, ca) = runtime.block_on(tls_in_front_of(server.port));
    let url = format!("rtmps://127.0.0.1:{port}/live/key");

    let StreamEnd::Failed { code, message } = end(&url, StreamSettings::default()) else { panic!("trusted") };
    assert_eq!(code, "unavailable");
    assert!(message.starts_with("TLS: "), "{message}");

    let settings = StreamSettings { ca: Some(ca), tls_skip_verify: false };
    publish(&url, &[VIDEO], settings, pictures());
    let file = server.received();
    assert_pictures(&file);
    let silence = times_ms(&file, "a");
    assert_eq!(silence.len(), 128, "{silence:?}");
}

#[test]
fn a_server_that_is_not_authenticated_is_taken_where_the_settings_say_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = FfmpegServer::start(folder.path());
    let (port, _) = runtime.block_on(tls_in_front_of(server.port));
    let settings = StreamSettings { ca: None, tls_skip_verify: true };
    publish(&format!("rtmps://127.0.0.1:{port}/live/key"), &[VIDEO], settings, pictures());
    assert_pictures(&server.received());
}
