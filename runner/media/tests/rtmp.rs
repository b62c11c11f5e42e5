//! A stream as ffmpeg's RTMP server receives it, plain and over TLS.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
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
use spillway_media::output::MediaKind;
use spillway_media::output::rtmp::{
    RtmpDial, RtmpFault, RtmpStream, RtmpTlsOptions, RtmpUrl, StreamAudio, StreamEvent, StreamFormat, StreamQueue,
    StreamUnit, StreamVideo, TcpDial,
};
use spillway_media::track::Codec;
use spillway_media::units::MediaTime;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const PICTURES: u64 = 90;
const VIDEO: StreamVideo = StreamVideo { width: 320, height: 180, framerate: 30.0, bitrate_kbps: 400 };

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

/// Three seconds of pictures.
fn pictures() -> Vec<StreamUnit> {
    let frames = encoded(Codec::H264, (VIDEO.width, VIDEO.height), PICTURES as u32).unwrap();
    let unit = |(n, frame): (usize, spillway_media::track::Frame)| StreamUnit {
        kind: MediaKind::Video,
        at: MediaTime::from_ns(n as u64 * 1_000_000_000 / 30),
        key: frame.key,
        data: frame.data,
    };
    frames.into_iter().enumerate().map(unit).collect()
}

/// Three seconds of a tone.
fn tone() -> Vec<StreamUnit> {
    gst::init().unwrap();
    let chain = "audiotestsrc num-buffers=141 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! \
                 audio/mpeg,stream-format=raw ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(chain).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = vec![];
    while let Ok(sample) = out.pull_sample() {
        let data = Bytes::copy_from_slice(&sample.buffer().unwrap().map_readable().unwrap());
        let at = MediaTime::from_ns(units.len() as u64 * 1024 * 1_000_000_000 / 48_000);
        units.push(StreamUnit { kind: MediaKind::Audio, at, key: true, data });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

/// Publishes the units faster than real time, from when the server has accepted the stream.
async fn publish(url: &str, audio: Option<StreamAudio>, tls: RtmpTlsOptions, mut units: Vec<StreamUnit>) {
    units.sort_by_key(|unit| unit.at);
    let queue = Arc::new(StreamQueue::new(true));
    let stream = RtmpStream {
        url: RtmpUrl::parse(url).unwrap(),
        format: StreamFormat { video: Some(VIDEO), audio },
        queue: queue.clone(),
        dial: TcpDial::new(tls.client_config().unwrap()),
    };
    let (tell, mut events) = mpsc::unbounded_channel();
    let task = tokio::spawn(stream.run(move |event| {
        let _ = tell.send(event);
    }));
    assert_eq!(events.recv().await, Some(StreamEvent::Published { failures: 0 }));
    for unit in units {
        assert!(!queue.put(unit), "a key frame is wanted");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    queue.end();
    assert_eq!(task.await.unwrap(), Ok(()));
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

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_receives_every_frame_in_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = FfmpegServer::start(folder.path());
    let tone = tone();
    let expected: Vec<u64> = tone.iter().map(|unit| unit.at.ns() / 1_000_000).collect();
    let audio = Some(StreamAudio { rate: 48_000, channels: 2, bitrate_kbps: 128 });
    let url = format!("rtmp://127.0.0.1:{}/live/key", server.port);
    publish(&url, audio, RtmpTlsOptions::default(), [pictures(), tone].concat()).await;
    let file = server.received();
    assert_pictures(&file);
    assert_eq!(times_ms(&file, "a"), expected);
}

/// TLS in front of a port of this machine, with a certificate that only the file at `ca` makes trusted.
async fn tls_in_front_of(port: u16, ca: &Path) -> u16 {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let text = STANDARD.encode(made.cert.der());
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    std::fs::write(ca, format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
        .unwrap();
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
            // A client that trusts nobody ends the handshake; skipped ones send nothing and need no server.
            let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
            tokio::spawn(async move {
                let mut first = [0; 1];
                if tokio::io::AsyncReadExt::read_exact(&mut tls, &mut first).await.is_ok() {
                    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut tcp, &first).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut tcp).await;
                }
            });
        }
    });
    tls_port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_and_a_stream_without_sound_has_silence() {
    let folder = tempfile::tempdir().unwrap();
    let server = FfmpegServer::start(folder.path());
    let ca_file = folder.path().join("ca.pem");
    let port = tls_in_front_of(server.port, &ca_file).await;
    let url = format!("rtmps://127.0.0.1:{port}/live/key");
    let parsed = RtmpUrl::parse(&url).unwrap();

    let dial = |options: RtmpTlsOptions| TcpDial::new(options.client_config().unwrap());
    let refused = dial(RtmpTlsOptions::default()).dial(&parsed).await.err().unwrap();
    assert!(matches!(refused, RtmpFault::Tls { .. }), "{refused}");
    assert!(dial(RtmpTlsOptions { skip_verify: true, ca_file: None }).dial(&parsed).await.is_ok());

    publish(&url, None, RtmpTlsOptions { ca_file: Some(ca_file), skip_verify: false }, pictures()).await;
    let file = server.received();
    assert_pictures(&file);
    let silence = times_ms(&file, "a");
    assert_eq!(silence.len(), 128, "{silence:?}");
}

#[test]
fn a_file_without_authorities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = RtmpTlsOptions { ca_file: Some(folder.path().join("none.pem")), skip_verify: false };
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let empty = RtmpTlsOptions { ca_file: Some(empty), skip_verify: false };
    for options in [missing, empty] {
        let told = options.client_config().unwrap_err().to_string();
        assert!(told.contains(".pem: "), "{told}");
    }
}
