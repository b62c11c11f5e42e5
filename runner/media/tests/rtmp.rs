//! A stream as ffmpeg's RTMP server receives it, plain and over TLS.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::streamed::{PICTURES, VIDEO, end, pictures, publish, times_ms, tone};
use common::{complaints, until};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use spillway_ipc::StreamSettings;
use spillway_media::encoded::EncodedFormat;
use spillway_media::output::StreamEnd;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

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
