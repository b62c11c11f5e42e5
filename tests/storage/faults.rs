//! Every cloud behind a way on which things go wrong: what is stored in the end is what was sent, and what went wrong is
//! called by its name.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use spillway_plan::destination::{Azure, Gcs, S3};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::{Meta, Options, Part, Storage, StorageError, StorageErrorKind, open};
use spillway_tests::guard::loopback_guard;
use spillway_tests::servers::bucket::SAS;
use spillway_tests::servers::emulators::{AZURE_ACCOUNT, AZURE_KEY, Emulator, KEY, SECRET};
use spillway_tests::servers::fault_proxy::{ALL, FaultProxy, StoreFault};

const BUCKET: &str = "recordings";
const SEED: u64 = 20_261_122;
/// A call that fails so often in a row is broken, not unlucky.
const MAX_TRIES: usize = 60;

struct FaultyStore {
    // It serves as long as it is held.
    _emulator: Emulator,
    fault_proxy: FaultProxy,
    storage: Arc<dyn Storage>,
    /// Where the test reads objects, past the faults: before the name and after it.
    read: (String, &'static str),
}

async fn faulty_store(
    emulator: Emulator,
    seed: u64,
    read: (String, &'static str),
    provider: impl FnOnce(&str) -> Provider,
) -> FaultyStore {
    let fault_proxy = FaultProxy::start(&emulator.address, seed).await.expect("a way");
    let options = Options {
        attempts: 2,
        first_wait: Duration::from_millis(1),
        max_wait: Duration::from_millis(5),
        stall_timeout: Duration::from_millis(1500),
        min_bytes_per_second: 8 << 20,
        complete_timeout: Duration::from_secs(3),
        guard: loopback_guard(),
        ..Options::default()
    };
    let store = Store { provider: provider(&fault_proxy.url()), prefix: String::new(), presign: false };
    let storage = open(&Destination::Store(Box::new(store)), &options).await.expect("opens");
    FaultyStore { _emulator: emulator, fault_proxy, storage, read }
}

async fn s3(seed: u64) -> FaultyStore {
    let moto = Emulator::moto().expect("moto starts");
    let bucket = format!("{}/{BUCKET}", moto.url());
    Client::new().put(&bucket).send().await.expect("a bucket");
    faulty_store(moto, seed, (bucket, ""), |url| {
        Provider::S3(Box::new(S3 {
            access_key: Secret::new(KEY.into()),
            secret: Secret::new(SECRET.into()),
            endpoint: url.to_owned(),
            bucket: BUCKET.into(),
            force_path_style: true,
            ..S3::default()
        }))
    })
    .await
}

async fn azure(seed: u64) -> FaultyStore {
    let azurite = Emulator::azurite().expect("Azurite starts");
    let container = format!("{}/{AZURE_ACCOUNT}/{BUCKET}", azurite.url());
    let made = Client::new().put(format!("{container}?restype=container&{SAS}")).header("content-length", "0");
    made.send().await.expect("a container").error_for_status().expect("a container");
    faulty_store(azurite, seed, (container, SAS), |url| {
        Provider::Azure(Azure {
            account: AZURE_ACCOUNT.into(),
            key: Secret::new(AZURE_KEY.into()),
            container: BUCKET.into(),
            endpoint: format!("{url}/{AZURE_ACCOUNT}"),
            ..Azure::default()
        })
    })
    .await
}

async fn gcs(seed: u64) -> FaultyStore {
    let moto = Emulator::moto().expect("moto starts");
    let bucket = format!("{}/{BUCKET}", moto.url());
    Client::new().put(&bucket).send().await.expect("a bucket");
    faulty_store(moto, seed, (bucket, ""), |url| {
        Provider::Gcs(Gcs {
            credentials: crate::gcs::account(),
            bucket: BUCKET.into(),
            endpoint: url.to_owned(),
            ..Gcs::default()
        })
    })
    .await
}

/// As the uploader does: what may pass is asked again.
async fn with_retries<T, F: Future<Output = Result<T, StorageError>>>(what: &str, mut call: impl FnMut() -> F) -> T {
    for _ in 0..MAX_TRIES {
        match call().await {
            Ok(done) => return done,
            Err(error) if error.is_transient() => {}
            Err(error) => panic!("{what}, seed {SEED}: {error}"),
        }
    }
    panic!("{what}, seed {SEED}: not in {MAX_TRIES} tries");
}

/// A recording of three parts, its tail sent twice and its first part again last, while a quarter of all requests fail.
async fn a_recording_survives(faulty_store: FaultyStore) {
    let FaultyStore { fault_proxy, storage, read, .. } = &faulty_store;
    let meta = Meta::of("video/mp4");
    let size = storage.rules().min_part_bytes.max(200_000) as usize;
    let piece = |byte: u8, size: usize| Bytes::from((0..size).map(|at| byte ^ (at % 251) as u8).collect::<Vec<_>>());
    fault_proxy.set_probability(0.25);
    for round in 0..3 {
        let name = format!("faults/{round}.mp4");
        let upload = with_retries("begin", || storage.begin(&name, &meta)).await;
        let sent = [
            (1, 0, piece(1, size)),
            (2, 0, piece(2, size)),
            (3, 0, piece(3, 900)),
            (3, 1, piece(4, 1000)),
            (1, 1, piece(5, size)),
        ];
        let mut tags = std::collections::BTreeMap::new();
        for (number, generation, bytes) in &sent {
            let tag = with_retries("put part", || storage.put_part(&upload, *number, *generation, bytes.clone())).await;
            tags.insert(*number, Part { number: *number, generation: *generation, tag });
        }
        let parts: Vec<_> = tags.into_values().collect();
        let stored = with_retries("complete", || storage.complete(&upload, &parts, &meta)).await;
        let whole = [piece(5, size), piece(2, size), piece(4, 1000)].concat();
        assert_eq!(stored.bytes, whole.len() as u64);
        fault_proxy.set_probability(0.0);
        let mut ask = Client::new().get(format!("{}/{name}?{}", read.0, read.1));
        if read.1.is_empty() {
            // moto wants to see some signature, whichever.
            ask = ask.header("authorization", "Bearer stage");
        }
        let found = ask.send().await.expect("an answer");
        let found = found.error_for_status().expect("it is there").bytes().await.expect("all of it");
        assert!(found == whole, "round {round}, seed {SEED}: what is stored is not what was sent");
        fault_proxy.set_probability(0.25);
    }
    let injected = fault_proxy.injected();
    assert!(injected.values().sum::<u64>() >= 5, "seed {SEED}: {injected:?}");
}

/// Each fault once on each act: the call succeeds by itself or says what may pass.
async fn every_fault_is_called_by_its_name(faulty_store: FaultyStore) {
    let FaultyStore { fault_proxy, storage, .. } = &faulty_store;
    let meta = Meta::of("video/mp4");
    // The first answer tells the kind of the store's tags.
    let upload = storage.begin("faults/named.mp4", &meta).await.expect("nothing is wrong yet");
    storage.put_part(&upload, 1, 0, Bytes::from_static(b"fine")).await.expect("nothing is wrong yet");
    for (generation, fault) in ALL.into_iter().enumerate() {
        fault_proxy.script([Some(fault); 12]);
        let bytes = Bytes::from(vec![generation as u8; 10_000]);
        let error = storage.put_part(&upload, 2, generation as u32, bytes).await.expect_err("twelve faults in a row");
        let expected = if fault == StoreFault::Damaged { StorageErrorKind::Mismatch } else { StorageErrorKind::Busy };
        assert!(error.is_transient() && error.kind == expected, "{fault:?}: {:?} {error}", error.kind);
        fault_proxy.clear();
    }
    let tag = storage.put_part(&upload, 1, 1, Bytes::from_static(b"still open")).await.expect("all is well again");
    storage.complete(&upload, &[Part { number: 1, generation: 1, tag }], &meta).await.expect("all is well again");
}

#[tokio::test]
async fn s3_survives() {
    a_recording_survives(s3(SEED).await).await;
}

#[tokio::test]
async fn azure_survives() {
    a_recording_survives(azure(SEED).await).await;
}

#[tokio::test]
async fn gcs_survives() {
    a_recording_survives(gcs(SEED).await).await;
}

#[tokio::test]
async fn s3_names_its_faults() {
    every_fault_is_called_by_its_name(s3(SEED).await).await;
}

#[tokio::test]
async fn azure_names_its_faults() {
    every_fault_is_called_by_its_name(azure(SEED).await).await;
}

#[tokio::test]
async fn gcs_names_its_faults() {
    every_fault_is_called_by_its_name(gcs(SEED).await).await;
}
