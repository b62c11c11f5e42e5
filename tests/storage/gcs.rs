use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use bytes::Bytes;
use reqwest::{Client, Method};
use spillway_plan::destination::{DestinationOrigin, Gcs, Proxy};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::conformance::{self, StorageSubject};
use spillway_storage::{Meta, Options, Storage, StorageError, StorageErrorKind, open};
use spillway_tests::guard::loopback_guard;
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
    let options = Options { stall_timeout: Duration::from_secs(10), guard: loopback_guard(), ..Options::default() };
    let store = Store { provider: Provider::Gcs(gcs), prefix: String::new(), presign: false };
    open(&Destination::Store(Box::new(store)), &options).await.expect("opens")
}

/// The XML API, for which moto's S3 stands in: requests and answers have the same shape. Through a proxy.
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
            ..Gcs::default()
        }
    }

    async fn request(&self, method: Method, name: &str, query: &str) -> reqwest::Response {
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
impl StorageSubject for Xml {
    async fn storage(&self) -> Arc<dyn Storage> {
        storage(self.gcs()).await
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

    async fn open_uploads(&self) -> Option<usize> {
        let text = self.request(Method::GET, "", "?uploads").await.text().await.expect("a list");
        Some(text.matches("<UploadId>").count())
    }

    async fn broken(&self) -> Vec<(Arc<dyn Storage>, StorageErrorKind)> {
        vec![
            (storage(Gcs { bucket: "nobodys".into(), ..self.gcs() }).await, StorageErrorKind::NotFound),
            (storage(Gcs { endpoint: "http://127.0.0.1:9".into(), ..self.gcs() }).await, StorageErrorKind::Busy),
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
#[ignore = "Google's emulator closes the connection on a PUT of the XML API: needs another judge, moto checks the same calls"]
async fn whole_objects_written_by_the_xml_api_are_those_of_the_json_api() {
    let emulator = Emulator::google().expect("the emulator starts");
    let gcs = |bucket: &str| Gcs {
        credentials: account(),
        bucket: bucket.into(),
        endpoint: emulator.url(),
        ..Gcs::default()
    };
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
    assert_eq!(error.kind, StorageErrorKind::NotFound, "{error}");
}

/// Its signature is looked at as Google does: the text is made of the link alone, the key is the account's public one.
#[tokio::test]
async fn a_link_is_signed_offline() {
    let (credentials, key) = bucket::account_and_public_key().unwrap();
    let gcs = Gcs { credentials: secret(&credentials), bucket: BUCKET.into(), ..Gcs::default() };
    let link = storage(gcs).await.presign("calls/my file.mp4", Duration::from_secs(600)).await.unwrap();
    assert!(link.starts_with("https://storage.googleapis.com/recordings/calls/my%20file.mp4?"), "{link}");
    let (unsigned, signature) = link.split_once("&X-Goog-Signature=").unwrap();
    let (_, path_and_query) = unsigned.split_once("googleapis.com").unwrap();
    let (path, query) = path_and_query.split_once('?').unwrap();
    let url = url::Url::parse(&link).unwrap();
    let said = |name: &str| url.query_pairs().find(|(found, _)| found == name).expect(name).1.into_owned();
    assert_eq!(said("X-Goog-Expires"), "600");
    let (account, scope) =
        said("X-Goog-Credential").split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(account, "recorder@stage.iam.gserviceaccount.com");
    let request = format!("GET\n{path}\n{query}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest = hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request.as_bytes()).as_ref());
    let text = format!("GOOG4-RSA-SHA256\n{}\n{scope}\n{digest}", said("X-Goog-Date"));
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).expect("a signature in hexadecimal"))
        .collect();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
    key.verify(text.as_bytes(), &signature).expect("the account's own signature");
    assert!(key.verify(b"another text", &signature).is_err());
}

/// Answers every connection with what looks like a token, and counts them.
async fn listener() -> (String, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let request = Arc::new(AtomicUsize::new(0));
    let count = request.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let body = format!("{{\"{CANARY}\":\"{CANARY}\"}}");
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    (url, request)
}

/// Everything a user, an operator or a log is told of what a store did with these credentials.
async fn told(credentials: serde_json::Value, origin: DestinationOrigin) -> Vec<StorageError> {
    let gcs = Gcs {
        credentials: secret(&credentials.to_string()),
        origin,
        bucket: BUCKET.into(),
        endpoint: "http://127.0.0.1:9".into(),
        ..Gcs::default()
    };
    let store = Store { provider: Provider::Gcs(gcs), prefix: String::new(), presign: true };
    let options =
        Options { attempts: 1, stall_timeout: Duration::from_secs(5), guard: loopback_guard(), ..Options::default() };
    let store = match open(&Destination::Store(Box::new(store)), &options).await {
        Ok(store) => store,
        Err(error) => return vec![error],
    };
    let meta = Meta::of("video/mp4");
    let (put, begun) = (store.put("x", Bytes::from_static(b"x"), &meta).await, store.begin("y", &meta).await);
    let link = store.presign("x", Duration::from_secs(60)).await;
    [put.err(), begun.err(), link.err()].into_iter().flatten().collect()
}

/// The kinds that make Google's library read a file or ask a URL, each naming a canary.
fn instructions(file: &std::path::Path, url: &str) -> Vec<serde_json::Value> {
    use serde_json::json;
    let external = |source: serde_json::Value| {
        json!({ "type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": url, "credential_source": source })
    };
    let format = json!({ "type": "json", "subject_token_field_name": "nope" });
    let user = json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
        "token_uri": url });
    vec![
        external(json!({ "file": file, "format": format })),
        external(json!({ "file": file })),
        external(json!({ "url": url, "headers": { "Metadata-Flavor": "Google" }, "format": format })),
        external(json!({ "executable": { "command": format!("cat {}", file.display()) } })),
        user.clone(),
        json!({ "type": "impersonated_service_account", "source_credentials": user,
            "service_account_impersonation_url": format!("{url}/v1/projects/-/serviceAccounts/x:generateAccessToken") }),
    ]
}

fn assert_silent(errors: &[StorageError], what: &serde_json::Value) {
    for error in errors {
        let all = format!("{error} {error:?} {}", spillway_process::chain(error));
        assert!(!all.contains(CANARY), "{what}: {all}");
    }
}

const CANARY: &str = "canary0canary0canary";

/// A ticket of an older dispatcher says nothing of its credentials' origin: that counts as a request.
#[tokio::test]
async fn a_request_makes_googles_library_read_no_file_and_ask_no_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret.json");
    std::fs::write(&file, format!("{{\"{CANARY}\":\"{CANARY}\"}}")).expect("a file");
    let (url, request) = listener().await;
    for credentials in instructions(&file, &url) {
        let errors = told(credentials.clone(), DestinationOrigin::default()).await;
        let kind = credentials["type"].as_str().expect("a type");
        assert_eq!(errors.len(), 1, "not even opened: {errors:?}");
        assert_eq!(errors[0].kind, StorageErrorKind::Denied);
        assert!(
            errors[0].message.contains("only the installation's configuration") && errors[0].message.contains(kind)
        );
        assert_silent(&errors, &credentials);
    }
    // What a service account brings beside its key is not used either.
    let mut account: serde_json::Value = serde_json::from_str(account().reveal()).expect("an account");
    for field in ["token_uri", "auth_uri", "auth_provider_x509_cert_url", "client_x509_cert_url"] {
        account[field] = url.clone().into();
    }
    account["universe_domain"] = url.trim_start_matches("http://").into();
    account["credential_source"] = serde_json::json!({ "file": file });
    let errors = told(account.clone(), DestinationOrigin::Request).await;
    assert!(
        errors.iter().all(|error| error.kind == StorageErrorKind::Busy),
        "its own store is asked, and is not there: {errors:?}"
    );
    assert_silent(&errors, &account);
    account["private_key"] = CANARY.into();
    let errors = told(account.clone(), DestinationOrigin::Request).await;
    assert!(errors.iter().any(|error| error.kind == StorageErrorKind::Denied), "{errors:?}");
    assert_silent(&errors, &account);
    assert_eq!(request.load(Ordering::SeqCst), 0, "no connection was made");
}

/// The installation's own credentials may, and still nothing of what was read is repeated.
#[tokio::test]
async fn what_googles_library_has_read_is_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret.json");
    std::fs::write(&file, format!("{{\"{CANARY}\":\"{CANARY}\"}}")).expect("a file");
    let (url, request) = listener().await;
    for credentials in instructions(&file, &url) {
        let errors = told(credentials.clone(), DestinationOrigin::Configuration).await;
        assert!(!errors.is_empty());
        assert_silent(&errors, &credentials);
        let kind = credentials["type"].as_str().expect("a type");
        assert!(errors.iter().any(|error| error.message.contains(kind)), "{errors:?}");
    }
    assert!(request.load(Ordering::SeqCst) > 0, "they were obeyed");
}

#[tokio::test]
async fn credentials_that_are_none_are_refused_without_quoting_them() {
    let gcs = Gcs { credentials: secret(r#"{"type":"canary"}"#), bucket: BUCKET.into(), ..Gcs::default() };
    let store = Store { provider: Provider::Gcs(gcs), prefix: String::new(), presign: false };
    let error = open(&Destination::Store(Box::new(store)), &Options::default()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Denied, "{error}");
}
