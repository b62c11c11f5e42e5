use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, Method};
use spillway_plan::destination::Azure;
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::conformance::{self, StorageSubject};
use spillway_storage::{Meta, Options, Part, Storage, StorageErrorKind, open};
use spillway_tests::guard::loopback_guard;
use spillway_tests::servers::bucket::SAS;
use spillway_tests::servers::emulators::{AZURE_ACCOUNT, AZURE_KEY, Emulator};

const CONTAINER: &str = "recordings";

struct Azurite {
    emulator: Emulator,
    http: Client,
}

impl Azurite {
    async fn start() -> Self {
        let azurite = Self { emulator: Emulator::azurite().expect("Azurite starts"), http: Client::new() };
        let made = azurite.request(Method::PUT, "", "restype=container&").await;
        assert!(made.status().is_success(), "{made:?}");
        azurite
    }

    fn azure(&self) -> Azure {
        Azure {
            account: AZURE_ACCOUNT.into(),
            key: Secret::new(AZURE_KEY.into()),
            container: CONTAINER.into(),
            endpoint: format!("{}/{AZURE_ACCOUNT}", self.emulator.url()),
            ..Azure::default()
        }
    }

    async fn request(&self, method: Method, name: &str, query: &str) -> reqwest::Response {
        let mut url = url::Url::parse(&self.azure().endpoint).expect("a url");
        url.path_segments_mut()
            .expect("a base")
            .push(CONTAINER)
            .extend(name.split('/').filter(|part| !part.is_empty()));
        let request = self.http.request(method, format!("{url}?{query}{SAS}")).header("content-length", "0");
        request.header("x-ms-version", "2022-11-02").send().await.expect("Azurite answers")
    }
}

async fn storage(azure: Azure) -> Arc<dyn Storage> {
    let options = Options { stall_timeout: Duration::from_secs(10), guard: loopback_guard(), ..Options::default() };
    let store = Store { provider: Provider::Azure(azure), prefix: String::new(), presign: false };
    open(&Destination::Store(Box::new(store)), &options).await.expect("opens")
}

#[async_trait]
impl StorageSubject for Azurite {
    async fn storage(&self) -> Arc<dyn Storage> {
        storage(self.azure()).await
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        let answer = self.request(Method::GET, name, "").await;
        if answer.status() == 404 {
            return None;
        }
        Some(answer.error_for_status().expect("read").bytes().await.expect("read"))
    }

    async fn content_type(&self, name: &str) -> Option<String> {
        let answer = self.request(Method::HEAD, name, "").await;
        Some(answer.headers().get("content-type")?.to_str().expect("text").to_owned())
    }

    /// Names that have blocks and no blob.
    async fn open_uploads(&self) -> Option<usize> {
        let mut counts = Vec::new();
        for include in ["uncommittedblobs", "metadata"] {
            let query = format!("restype=container&comp=list&include={include}&");
            let text = self.request(Method::GET, "", &query).await.text().await.expect("a list");
            counts.push(text.matches("<Blob>").count());
        }
        Some(counts[0] - counts[1])
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        vec![
            (storage(Azure { key: Secret::new("d3Jvbmc=".into()), ..self.azure() }).await, StorageErrorKind::Denied),
            (storage(Azure { container: "nobodys".into(), ..self.azure() }).await, StorageErrorKind::NotFound),
            (storage(Azure { endpoint: "http://127.0.0.1:9/a".into(), ..self.azure() }).await, StorageErrorKind::Busy),
        ]
    }
}

#[tokio::test]
async fn azurite_conforms() {
    let azurite = Azurite::start().await;
    conformance::all(&azurite).await;
    assert_eq!(azurite.open_uploads().await, Some(0), "every upload was completed or aborted");
}

#[tokio::test]
async fn a_link_signed_with_the_key_reads_the_blob() {
    let azurite = Azurite::start().await;
    let store = Store { provider: Provider::Azure(azurite.azure()), prefix: "tenant".into(), presign: true };
    let options = Options { guard: loopback_guard(), ..Options::default() };
    let store = open(&Destination::Store(Box::new(store)), &options).await.unwrap();
    let stored = store.put("my file.txt", Bytes::from_static(b"hello"), &Meta::of("text/plain")).await.unwrap();
    assert!(stored.location.contains("/tenant/my%20file.txt?"), "{}", stored.location);
    let read = azurite.http.get(&stored.location).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(read.bytes().await.unwrap(), &b"hello"[..]);
    let forged = stored.location.replace("my%20file.txt", "other.txt");
    assert_eq!(azurite.http.get(forged).send().await.unwrap().status(), 403);
}

/// A recording that replaces an older one of its name is fenced by the older one's tag.
#[tokio::test]
async fn what_is_replaced_is_what_was_there_at_the_beginning() {
    let azurite = Azurite::start().await;
    let store = azurite.storage().await;
    let meta = Meta::of("video/mp4");
    store.put("again.mp4", Bytes::from_static(b"yesterday's"), &meta).await.unwrap();
    let send = async |text: &'static str| {
        let upload = store.begin("again.mp4", &meta).await.unwrap();
        let tag = store.put_part(&upload, 1, 0, Bytes::from_static(text.as_bytes())).await.unwrap();
        (upload, Part { number: 1, generation: 0, tag })
    };
    let (slow, slow_part) = send("slow").await;
    let (quick, quick_part) = send("quick").await;
    store.complete(&quick, &[quick_part], &meta).await.unwrap();
    assert_eq!(azurite.read("again.mp4").await.as_deref(), Some(&b"quick"[..]));
    let late = store.complete(&slow, &[slow_part], &meta).await.unwrap_err();
    assert_eq!(late.kind, StorageErrorKind::Gone, "{late}");
    assert_eq!(azurite.read("again.mp4").await.as_deref(), Some(&b"quick"[..]));
    // An abort leaves what it did not make.
    let (upload, _) = send("never").await;
    store.abort(&upload).await.unwrap();
    assert_eq!(azurite.read("again.mp4").await.as_deref(), Some(&b"quick"[..]));
}
