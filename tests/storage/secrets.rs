//! What a store's credentials leave in the log of a process that logs everything.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use spillway_plan::destination::{AssumeRole, Proxy, S3};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_process::telemetry;
use spillway_storage::{Meta, Options, Part, open};
use spillway_tests::guard::loopback_guard;
use spillway_tests::servers::emulators::Emulator;
use spillway_tests::servers::proxy::AuthProxy;
use tracing_subscriber::layer::SubscriberExt;

const CANARY: &str = "canary0canary0canary";
const BUCKET: &str = "recordings";

#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no thread panics while holding it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn canary() -> Secret {
    Secret::new(CANARY.to_owned())
}

async fn used(provider: Provider, options: &Options) {
    let store = Store { provider, prefix: String::new(), presign: false };
    let Ok(storage) = open(&Destination::Store(Box::new(store)), options).await else { return };
    let meta = Meta::of("video/mp4");
    let _ = storage.put("x", Bytes::from_static(b"x"), &meta).await;
    if let Ok(upload) = storage.begin("y", &meta).await
        && let Ok(tag) = storage.put_part(&upload, 1, 0, Bytes::from_static(b"y")).await
    {
        let _ = storage.complete(&upload, &[Part { number: 1, generation: 0, tag }], &meta).await;
    }
}

#[tokio::test]
async fn a_log_of_everything_holds_no_credential() {
    let log = CapturedLog::default();
    let writer = log.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let filter = telemetry::filter("trace").expect("a filter");
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer));

    let moto = Emulator::moto().expect("moto starts");
    reqwest::Client::new().put(format!("{}/{BUCKET}", moto.url())).send().await.expect("a bucket");
    let proxy = AuthProxy::start(CANARY, CANARY).await.expect("a proxy");
    let through = Proxy { url: Secret::new(proxy.url()), username: canary(), password: canary() };
    let s3 = S3 {
        access_key: canary(),
        secret: canary(),
        session_token: canary(),
        endpoint: moto.url(),
        bucket: BUCKET.into(),
        force_path_style: true,
        proxy: Some(through.clone()),
        ..S3::default()
    };
    let options = Options { guard: loopback_guard(), ..Options::default() };
    used(Provider::S3(Box::new(s3.clone())), &options).await;
    let role = AssumeRole { arn: "arn:aws:iam::123456789012:role/egress".into(), external_id: canary() };
    let options = Options { sts_endpoint: Some(moto.url()), ..options };
    used(Provider::S3(Box::new(S3 { assume_role: Some(role), proxy: None, ..s3 })), &options).await;
    tracing::trace!("the log is there");

    let text = String::from_utf8_lossy(&log.0.lock().expect("no thread panics while holding it")).into_owned();
    assert!(text.contains("the log is there"));
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{CANARY}:{CANARY}"));
    let told: Vec<&str> = text.lines().filter(|line| line.contains(CANARY) || line.contains(&base64)).collect();
    assert!(told.is_empty(), "{} of {} lines, the first: {}", told.len(), text.lines().count(), told[0]);
}
