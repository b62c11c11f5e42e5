use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, Method};
use spillway_plan::destination::{AliOss, AssumeRole, Proxy, S3};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::conformance::{self, StorageSubject};
use spillway_storage::{Meta, Options, Storage, StorageErrorKind, open};
use spillway_tests::guard::loopback_guard;
use spillway_tests::servers::emulators::{Emulator, KEY, SECRET};
use spillway_tests::servers::proxy::AuthProxy;

const BUCKET: &str = "recordings";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn s3(endpoint: &str) -> S3 {
    S3 {
        access_key: secret(KEY),
        secret: secret(SECRET),
        endpoint: endpoint.to_owned(),
        bucket: BUCKET.to_owned(),
        force_path_style: true,
        ..S3::default()
    }
}

fn options() -> Options {
    Options { stall_timeout: Duration::from_secs(10), guard: loopback_guard(), ..Options::default() }
}

async fn opened(provider: Provider, options: &Options) -> Arc<dyn Storage> {
    let store = Store { provider, prefix: String::new(), presign: false };
    open(&Destination::Store(Box::new(store)), options).await.expect("opens")
}

async fn storage(s3: S3) -> Arc<dyn Storage> {
    opened(Provider::S3(Box::new(s3)), &options()).await
}

struct MotoS3 {
    emulator: Emulator,
    http: Client,
}

impl MotoS3 {
    async fn start() -> Self {
        let moto = Self { emulator: Emulator::moto().expect("moto starts"), http: Client::new() };
        moto.http.put(moto.url("")).send().await.expect("a bucket").error_for_status().expect("a bucket");
        moto
    }

    fn url(&self, key: &str) -> String {
        let mut url = url::Url::parse(&self.emulator.url()).expect("a url");
        url.path_segments_mut().expect("a base").push(BUCKET).extend(key.split('/').filter(|part| !part.is_empty()));
        url.into()
    }

    /// Any signature opens moto's doors, no signature does not.
    async fn request(&self, method: Method, key: &str, query: &str) -> reqwest::Response {
        self.http
            .request(method, format!("{}{query}", self.url(key)))
            .header("authorization", "Bearer stage")
            .send()
            .await
            .expect("moto answers")
    }

    async fn header(&self, key: &str, name: &str) -> Option<String> {
        let answer = self.request(Method::HEAD, key, "").await;
        Some(answer.headers().get(name)?.to_str().expect("text").to_owned())
    }
}

#[async_trait]
impl StorageSubject for MotoS3 {
    async fn storage(&self) -> Arc<dyn Storage> {
        storage(s3(&self.emulator.url())).await
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        let answer = self.request(Method::GET, name, "").await;
        if answer.status() == 404 {
            return None;
        }
        Some(answer.error_for_status().expect("read").bytes().await.expect("read"))
    }

    async fn content_type(&self, name: &str) -> Option<String> {
        self.header(name, "content-type").await
    }

    async fn open_uploads(&self) -> Option<usize> {
        let text = self.request(Method::GET, "", "?uploads").await.text().await.expect("a list");
        Some(text.matches("<UploadId>").count())
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        let url = self.emulator.url();
        vec![
            (storage(S3 { bucket: "nobodys".into(), ..s3(&url) }).await, StorageErrorKind::NotFound),
            (storage(s3("http://127.0.0.1:9")).await, StorageErrorKind::Busy),
        ]
    }
}

#[tokio::test]
async fn moto_conforms() {
    let moto = MotoS3::start().await;
    conformance::all(&moto).await;
    assert_eq!(moto.open_uploads().await, Some(0), "every upload was completed or aborted");
}

#[tokio::test]
async fn what_a_request_asks_for_is_on_the_object() {
    let moto = MotoS3::start().await;
    let request = S3 {
        metadata: [("meeting".to_owned(), "42".to_owned())].into(),
        tagging: "team=sales&keep=yes".into(),
        content_disposition: "attachment".into(),
        ..s3(&moto.emulator.url())
    };
    let store = storage(request).await;
    store.put("whole", Bytes::from_static(b"x"), &Meta::of("application/json")).await.unwrap();
    let upload = store.begin("parts", &Meta::of("video/mp4")).await.unwrap();
    let tag = store.put_part(&upload, 1, 0, Bytes::from_static(b"x")).await.unwrap();
    let part = spillway_storage::Part { number: 1, generation: 0, tag };
    store.complete(&upload, &[part], &Meta::of("video/mp4")).await.unwrap();
    for key in ["whole", "parts"] {
        assert_eq!(moto.header(key, "x-amz-meta-meeting").await.as_deref(), Some("42"), "{key}");
        assert_eq!(moto.header(key, "content-disposition").await.as_deref(), Some("attachment"), "{key}");
        let tags = moto.request(Method::GET, key, "?tagging").await.text().await.unwrap();
        assert!(tags.contains("<Key>team</Key>") && tags.contains("<Value>sales</Value>"), "{key}: {tags}");
    }
    storage(s3(&moto.emulator.url())).await.put("plain", Bytes::new(), &Meta::default()).await.unwrap();
    assert_eq!(moto.header("plain", "content-disposition").await.as_deref(), Some("inline"));
}

#[tokio::test]
async fn a_presigned_link_reads_the_object() {
    let moto = MotoS3::start().await;
    let provider = Provider::S3(Box::new(s3(&moto.emulator.url())));
    let store = Store { provider, prefix: "tenant/a".into(), presign: true };
    let store = open(&Destination::Store(Box::new(store)), &options()).await.unwrap();
    let stored = store.put("my file.txt", Bytes::from_static(b"hello"), &Meta::of("text/plain")).await.unwrap();
    assert!(stored.location.contains("X-Amz-Expires=604800") && stored.location.contains("/tenant/a/my%20file.txt?"));
    let read = moto.http.get(&stored.location).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(read.bytes().await.unwrap(), &b"hello"[..]);
}

#[tokio::test]
async fn a_role_is_taken_and_its_session_signs() {
    let moto = MotoS3::start().await;
    let role = AssumeRole { arn: "arn:aws:iam::123456789012:role/egress".into(), external_id: secret("ext-1") };
    let request = S3 { assume_role: Some(role), ..s3(&moto.emulator.url()) };
    let options = Options { sts_endpoint: Some(moto.emulator.url()), ..options() };
    let store = opened(Provider::S3(Box::new(request.clone())), &options).await;
    store.put("by-role", Bytes::from_static(b"x"), &Meta::default()).await.unwrap();
    // The session's own key is in the link: not the one of the request.
    let link = store.presign("by-role", Duration::from_secs(60)).await.unwrap();
    assert!(link.contains("X-Amz-Credential=ASIA") && link.contains("X-Amz-Security-Token="), "{link}");

    let unreachable = Options { sts_endpoint: Some("http://127.0.0.1:9".into()), ..options };
    let store = opened(Provider::S3(Box::new(request)), &unreachable).await;
    let error = store.begin("x", &Meta::default()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Busy, "{error}");
}

#[tokio::test]
async fn a_session_token_is_sent() {
    let moto = MotoS3::start().await;
    let store = storage(S3 { session_token: secret("canary-token"), ..s3(&moto.emulator.url()) }).await;
    let link = store.presign("x", Duration::from_secs(60)).await.unwrap();
    assert!(link.contains("X-Amz-Security-Token=canary-token"), "{link}");
}

#[tokio::test]
async fn the_proxy_is_the_only_way_whatever_its_password() {
    let moto = MotoS3::start().await;
    for (username, password) in [("me", "plain"), ("me@corp", "a b:c@d/%41?#é")] {
        let proxy = AuthProxy::start(username, password).await.unwrap();
        let through = |password: &str| S3 {
            proxy: Some(Proxy { url: secret(&proxy.url()), username: secret(username), password: secret(password) }),
            ..s3(&moto.emulator.url())
        };
        storage(through(password)).await.put("proxied", Bytes::from_static(b"x"), &Meta::default()).await.unwrap();
        assert_eq!((proxy.passed(), proxy.refused()), (1, 0), "{password}");
        let error = storage(through("wrong")).await.put("refused", Bytes::new(), &Meta::default()).await.unwrap_err();
        assert!(proxy.refused() > 0 && error.to_string().contains("407"), "{error}");
    }
    assert_eq!(moto.read("refused").await, None);
}

#[tokio::test]
async fn alibabas_oss_is_spoken_to_as_s3() {
    let moto = MotoS3::start().await;
    let oss = AliOss {
        access_key: secret(KEY),
        secret: secret(SECRET),
        endpoint: moto.emulator.url(),
        bucket: BUCKET.into(),
        ..AliOss::default()
    };
    let store = opened(Provider::AliOss(oss), &options()).await;
    let stored = store.put("a b.mp4", Bytes::from_static(b"x"), &Meta::of("video/mp4")).await.unwrap();
    assert_eq!(stored.location, format!("https://{BUCKET}.{}/a%20b.mp4", moto.emulator.address));
    assert_eq!(store.name(), "AliOSS");
    let link = store.presign("x", Duration::from_secs(60)).await.unwrap();
    assert!(!link.contains("canary"));
}

/// An S3 that looks at signatures.
struct S3s(Emulator);

#[async_trait]
impl StorageSubject for S3s {
    async fn storage(&self) -> Arc<dyn Storage> {
        storage(s3(&self.0.url())).await
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        std::fs::read(self.0.folder().join(BUCKET).join(name)).ok().map(Bytes::from)
    }

    async fn content_type(&self, _: &str) -> Option<String> {
        None
    }

    async fn open_uploads(&self) -> Option<usize> {
        None
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        let url = self.0.url();
        vec![
            (storage(S3 { access_key: secret("AKIDNOBODY0000000000"), ..s3(&url) }).await, StorageErrorKind::Denied),
            (storage(S3 { secret: secret("wrong"), ..s3(&url) }).await, StorageErrorKind::Denied),
        ]
    }
}

#[tokio::test]
async fn s3s_conforms() {
    let s3s = S3s(Emulator::s3s().expect("s3s-fs starts"));
    std::fs::create_dir(s3s.0.folder().join(BUCKET)).unwrap();
    conformance::without_fencing(&s3s).await;
}
