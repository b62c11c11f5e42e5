//! A request whose credentials are instructions: read this file, ask this URL. The real stores, the real runner.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use serde_json::{Value, json};
use spillway_plan::destination::{Gcs, Proxy, S3};
use spillway_plan::{Destination, Destinations, Provider, Secret, Store};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;

use crate::harness::{RunnerHarness, done};
use crate::scripted_media;

const CANARY: &str = "canary0canary0canary";

/// Counts who comes.
fn listener() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (url, asked)
}

/// Without a field that must be there, Google's library quotes the whole file.
fn instruction(folder: &tempfile::TempDir, url: &str) -> Value {
    let file = folder.path().join("secret.json");
    std::fs::write(&file, format!("{{\"{CANARY}\":\"{CANARY}\"}}")).unwrap();
    json!({
        "type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": url,
        "credential_source": { "file": file, "format": { "type": "json", "subject_token_field_name": "nope" } },
    })
}

/// A dispatcher from before the field `origin`, or one that a request has talked into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_does_not_say_whose_its_credentials_are_is_a_request() {
    let (url, asked) = listener();
    let mut harness = RunnerHarness::new().await;
    let credentials = Secret::new(instruction(&harness.folder, &url).to_string());
    let provider = Provider::Gcs(Gcs { credentials, bucket: "b".into(), ..Gcs::default() });
    let store = Store { provider, prefix: String::new(), presign: false };
    let primary = Destination::Store(Box::new(store));
    harness.destinations = Some(Destinations { primary, backup: None });
    let run = harness.run("record").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressStatus::EgressFailed, 400));
    assert!(
        last.error.starts_with("GCP upload failed: open: only the installation's configuration may bring this kind"),
        "{}",
        last.error
    );
    let record = harness.record().await;
    let all = format!("{last:?} {:?}", EgressInfo::decode(record.info.as_slice()).unwrap());
    assert!(!all.contains(CANARY), "{all}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Endpoints and proxies inside of the network; the harness' own stores are those of an installation that opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_inside_of_the_network_is_refused_before_the_room_is_joined() {
    let (url, asked) = listener();
    let secret = |text: &str| Secret::new(text.to_owned());
    let proxy = || Some(Proxy { url: secret(&url), ..Proxy::default() });
    for (endpoint, proxy) in [(url.as_str(), None), ("", proxy()), ("http://169.254.169.254", None)] {
        let mut harness = RunnerHarness::new().await;
        let s3 = S3 {
            access_key: secret("key"),
            secret: secret(CANARY),
            region: "us-east-1".into(),
            endpoint: endpoint.into(),
            bucket: "b".into(),
            proxy,
            ..S3::default()
        };
        let store = Store { provider: Provider::S3(Box::new(s3)), prefix: String::new(), presign: false };
        harness.destinations = Some(Destinations { primary: Destination::Store(Box::new(store)), backup: None });
        let run = harness.run("record").await;
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error_code), (EgressStatus::EgressFailed, 400));
        assert!(last.error.starts_with("S3 upload failed: open: "), "{}", last.error);
        assert!(last.error.contains(" is refused: it is ") && !last.error.contains(CANARY), "{}", last.error);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_request_by_hand_is_refused_before_anything_is_read() {
    let (url, asked) = listener();
    let folder = tempfile::tempdir().unwrap();
    let credentials = instruction(&folder, &url).to_string();
    let upload = json!({ "credentials": credentials, "bucket": "b" });
    let request = folder.path().join("request.json");
    let body = json!({ "track": { "room_name": "record", "track_id": "TR_1",
        "file": { "filepath": "a.ogg", "gcp": upload } }, "egress_id": "EG_1" });
    std::fs::write(&request, body.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spillway-runner"))
        .arg("--request")
        .arg(&request)
        .args(["--ws-url", "ws://127.0.0.1:1", "--api-key", "k"])
        .env("LIVEKIT_API_SECRET", CANARY.repeat(2))
        .env("SPILLWAY_MEDIA", scripted_media())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gcp credentials (type external_account asked, possible are service_account)"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// It becomes part of file names; livekit-server makes it, but not here.
#[test]
fn an_egress_id_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    for id in ["../../x", "/x", "a/b", ".."] {
        let request = folder.path().join("request.json");
        let body = json!({ "track": { "room_name": "record-closed", "track_id": "TR_1",
            "file": { "filepath": "a.ogg" } }, "egress_id": id });
        std::fs::write(&request, body.to_string()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_spillway-runner"))
            .arg("--request")
            .arg(&request)
            .args(["--ws-url", "ws://127.0.0.1:1", "--api-key", "k", "--local-root", "out"])
            .env("LIVEKIT_API_SECRET", "s".repeat(32))
            .env("SPILLWAY_MEDIA", scripted_media())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("invalid field: egressID"), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the request");
}
