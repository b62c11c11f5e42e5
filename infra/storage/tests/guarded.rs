//! Hosts that a request names: the forms of the guard's table as endpoints and as proxies, and names whose answer changes
//! between two questions. The clients are real, and so is the server that must not be reached.

use std::sync::Arc;
use std::time::Duration;

use spillway_guard::forms::{self, FORMS, HostForm};
use spillway_guard::{FixedNames, Guard, GuardRules};
use spillway_plan::destination::{AliOss, Azure, DestinationOrigin, Gcs, Proxy, S3};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::{Meta, Options, Storage, StorageError, StorageErrorKind, open};
use tokio::net::TcpListener;
use tokio::time::timeout;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn s3(endpoint: &str, proxy: Option<&str>) -> S3 {
    let proxy = proxy.map(|url| Proxy { url: secret(url), ..Proxy::default() });
    S3 {
        access_key: secret("key"),
        secret: secret("secret"),
        region: "us-east-1".into(),
        endpoint: endpoint.into(),
        bucket: "b".into(),
        force_path_style: true,
        proxy,
        ..S3::default()
    }
}

fn azure(endpoint: &str) -> Azure {
    Azure {
        account: "acc".into(),
        key: secret("a2V5"),
        container: "c".into(),
        endpoint: endpoint.into(),
        ..Azure::default()
    }
}

/// Every way in which a request names this host to a store.
fn named(form: &HostForm) -> Vec<(&'static str, Provider)> {
    let (host, proxy) = (form.authority(), format!("http://{}:3128", form.authority()));
    let oss = AliOss {
        access_key: secret("key"),
        secret: secret("secret"),
        endpoint: host.clone(),
        bucket: "b".into(),
        ..AliOss::default()
    };
    let gcs =
        Gcs { bucket: "b".into(), proxy: Some(Proxy { url: secret(&proxy), ..Proxy::default() }), ..Gcs::default() };
    vec![
        ("endpoint", Provider::S3(Box::new(s3(&format!("https://{host}"), None)))),
        ("endpoint without a scheme", Provider::S3(Box::new(s3(&host, None)))),
        ("endpoint behind a proxy", Provider::S3(Box::new(s3(&host, Some("http://public.example:3128"))))),
        ("proxy", Provider::S3(Box::new(s3("", Some(&proxy))))),
        ("AliOSS endpoint", Provider::AliOss(oss)),
        ("GCS proxy", Provider::Gcs(gcs)),
        ("Azure endpoint", Provider::Azure(azure(&format!("http://{host}/acc")))),
    ]
}

fn options(guard: Guard) -> Options {
    Options {
        attempts: 2,
        first_wait: Duration::from_millis(1),
        connect_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(2),
        guard,
        ..Options::default()
    }
}

async fn opened(provider: Provider, guard: Guard) -> Result<Arc<dyn Storage>, StorageError> {
    let store = Store { provider, prefix: String::new(), presign: false };
    open(&Destination::Store(Box::new(store)), &options(guard)).await
}

#[tokio::test]
async fn no_form_of_the_table_is_opened_and_each_is_by_its_entry() {
    for (index, form) in FORMS.iter().enumerate() {
        let ways = named(form);
        // Clients read the system's authorities: one for each form is enough.
        let (way, provider) = &ways[index % ways.len()];
        // Application default credentials are for the tests of that backend.
        if !matches!(provider, Provider::Gcs(_)) {
            let rules = GuardRules { allow: vec![form.opened_by.to_owned(), "public.example".to_owned()] };
            let allowed = opened(provider.clone(), forms::guard(&rules)).await;
            assert!(allowed.is_ok(), "{} as {way}: {:?}", form.host, allowed.err());
        }
        for (way, provider) in ways {
            let closed = opened(provider, forms::guard(&GuardRules::default())).await;
            let error = closed.map(drop).expect_err(form.host);
            assert_eq!(error.kind, StorageErrorKind::Refused, "{} as {way}: {error}", form.host);
            assert!(!error.is_transient() && error.to_string().contains(" is refused: "), "{error}");
        }
    }
}

#[tokio::test]
async fn what_the_configuration_names_is_not_asked_about() {
    let ours =
        S3 { origin: DestinationOrigin::Configuration, ..s3("http://10.0.0.5:9000", Some("http://127.0.0.1:1")) };
    assert!(opened(Provider::S3(Box::new(ours)), Guard::default()).await.is_ok());
}

/// The answer that was checked when the store was opened is not the one that is connected to.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused_at_the_connection() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let url = format!("http://rebinds.example:{port}");
    let providers = [
        Provider::S3(Box::new(s3(&url, None))),
        Provider::S3(Box::new(s3("http://public.example", Some(&url)))),
        Provider::Azure(azure(&format!("{url}/acc"))),
    ];
    for provider in providers {
        let names = FixedNames::default()
            .with("rebinds.example", &["93.184.216.34", "127.0.0.1"])
            .with("public.example", &["93.184.216.34"]);
        let guard = Guard::default().with_names(names);
        let store = opened(provider, guard).await.expect("the first answer is a public address");
        let error = store.begin("x", &Meta::of("video/mp4")).await.expect_err("the second is not");
        assert_eq!(error.kind, StorageErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("rebinds.example is refused: its name leads to a loopback address"));
    }
    assert!(timeout(Duration::from_millis(100), server.accept()).await.is_err(), "nothing was connected to");
}

#[tokio::test]
async fn an_entry_of_the_list_opens_the_connection_too() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    for host in ["inside.example", "127.0.0.1"] {
        let names = FixedNames::default().with("inside.example", &["127.0.0.1"]);
        let guard = Guard::new(&GuardRules { allow: vec![format!("127.0.0.1:{port}")] }).with_names(names);
        let store = opened(Provider::S3(Box::new(s3(&format!("http://{host}:{port}"), None))), guard).await.unwrap();
        let meta = Meta::of("video/mp4");
        let (reached, failed) = tokio::join!(
            timeout(Duration::from_secs(5), async { server.accept().await.map(drop) }),
            store.begin("x", &meta)
        );
        reached.expect("a connection").expect("a connection");
        assert_ne!(failed.expect_err("it hangs up").kind, StorageErrorKind::Refused);
        // Its other attempts.
        while timeout(Duration::from_millis(20), server.accept()).await.is_ok() {}
    }
}
