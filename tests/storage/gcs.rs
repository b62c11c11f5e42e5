use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, Method};
use spillway_plan::destination::{Gcs, Proxy};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::conformance::{self, Subject};
use spillway_storage::{Kind, Meta, Options, Storage, open};
use spillway_tests::servers::bucket;
use spillway_tests::servers::emulators::Emulator;
use spillway_tests::servers::proxy::AuthProxy;

const BUCKET: &str = "recordings";
const PASSWORD: &str = "a b:c@d/%41";

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

pub fn account() -> Secret {
    Secret::new(bucket::account().expect("a key"))
}

async fn storage(gcs: Gcs) -> Arc<dyn Storage> {
    let options = Options { stall_timeout: Duration::from_secs(10), ..Options::default() };
    let store = Store { provider: Provider::Gcs(gcs), prefix: String::new(), presign: false };
    open(&Destination::Store(Box::new(store)), &options).await.expect("opens")
}

/// The XML API, for which moto's S3 stands in: requests and answers have the same shape. Through a proxy, so that whole
/// objects go this way too.
struct Xml {
    moto: Emulator,
    proxy: AuthProxy,
    credentials: Secret,
    http: Client,
}

impl Xml {
    async fn start() -> Self {
        let moto = Emulator::moto().expect("moto starts");
        let http = Client::new();
        http.put(format!("{}/{BUCKET}", moto.url()))
            .send()
            .await
            .expect("a bucket")
            .error_for_status()
            .expect("a bucket");
        let proxy = AuthProxy::start("me", PASSWORD).await.expect("a proxy");
        Self { moto, proxy, credentials: account(), http }
    }

    fn gcs(&self) -> Gcs {
        let proxy = Proxy { url: secret(&self.proxy.url()), username: secret("me"), password: secret(PASSWORD) };
        Gcs {
            credentials: self.credentials.clone(),
            bucket: BUCKET.into(),
            proxy: Some(proxy),
            endpoint: self.moto.url(),
        }
    }

    async fn asked(&self, method: Method, name: &str, query: &str) -> reqwest::Response {
        let mut url = url::Url::parse(&self.moto.url()).expect("a url");
        url.path_segments_mut().expect("a base").push(BUCKET).extend(name.split('/').filter(|part| !part.is_empty()));
        self.http
            .request(method, format!("{url}{query}"))
            .header("authorization", "Bearer stage")
            .send()
            .await
            .expect("moto answers")
    }
}

#[async_trait]
impl Subject for Xml {
    async fn storage(&self) -> Arc<dyn Storage> {
        storage(self.gcs()).await
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        let answer = self.asked(Method::GET, name, "").await;
        if answer.status() == 404 {
            return None;
        }
        Some(answer.error_for_status().expect("read").bytes().await.expect("read"))
    }

    async fn content_type(&self, name: &str) -> Option<String> {
        let answer = self.asked(Method::HEAD, name, "").await;
        Some(answer.headers().get("content-type")?.to_str().expect("text").to_owned())
    }

    async fn open_uploads(&self) -> Option<usize> {
        let text = self.asked(Method::GET, "", "?uploads").await.text().await.expect("a list");
        Some(text.matches("<UploadId>").count())
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, Kind)> {
        vec![
            (storage(Gcs { bucket: "nobodys".into(), ..self.gcs() }).await, Kind::NotFound),
            (storage(Gcs { endpoint: "http://127.0.0.1:9".into(), ..self.gcs() }).await, Kind::Busy),
        ]
    }
}

#[tokio::test]
async fn the_xml_api_conforms_and_the_proxy_is_the_only_way() {
    let xml = Xml::start().await;
    conformance::all(&xml).await;
    assert_eq!(xml.open_uploads().await, Some(0), "every upload was completed or aborted");
    assert!(xml.proxy.passed() > 50 && xml.proxy.refused() == 0, "{} requests", xml.proxy.passed());
}

#[tokio::test]
async fn whole_objects_go_through_googles_own_crate() {
    let emulator = Emulator::google().expect("the emulator starts");
    let gcs =
        |bucket: &str| Gcs { credentials: account(), bucket: bucket.into(), proxy: None, endpoint: emulator.url() };
    let store = storage(gcs(BUCKET)).await;
    for text in ["first", "second, and longer"] {
        let stored = store.put("dir/my file.json", Bytes::from(text), &Meta::of("application/json")).await.unwrap();
        assert_eq!(stored.location, "https://recordings.storage.googleapis.com/dir/my%20file.json");
        let url = format!("{}/storage/v1/b/{BUCKET}/o/dir%2Fmy%20file.json", emulator.url());
        let meta: serde_json::Value =
            serde_json::from_str(&Client::new().get(&url).send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(meta["contentType"], "application/json");
        assert_eq!(meta["size"].as_str().map(str::to_owned), Some(text.len().to_string()));
        let read = Client::new().get(format!("{url}?alt=media")).send().await.unwrap().text().await.unwrap();
        assert_eq!(read, text);
    }
    let error = storage(gcs("nobodys")).await.put("x", Bytes::new(), &Meta::default()).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
}

#[tokio::test]
async fn a_link_is_signed_without_asking_anybody() {
    let gcs = Gcs { credentials: account(), bucket: BUCKET.into(), ..Gcs::default() };
    let link = storage(gcs).await.presign("my file.mp4", Duration::from_secs(600)).await.unwrap();
    assert!(link.starts_with("https://storage.googleapis.com/recordings/my%20file.mp4?"), "{link}");
    assert!(link.contains("X-Goog-Expires=600") && link.contains("X-Goog-Signature="), "{link}");
}

#[tokio::test]
async fn credentials_that_are_none_are_refused_without_quoting_them() {
    let gcs = Gcs { credentials: secret(r#"{"type":"canary"}"#), bucket: BUCKET.into(), ..Gcs::default() };
    let store = Store { provider: Provider::Gcs(gcs), prefix: String::new(), presign: false };
    let error = open(&Destination::Store(Box::new(store)), &Options::default()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
}
