//! Every configured store: one small object is written where recordings would be, read back and removed again. Keys that may only
//! write are as good as others; then the object stays.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use spillway_bus::{ProbeCause, ProbeLine};
use spillway_plan::destination::Provider;
use spillway_plan::{Destination, Destinations, Store};
use spillway_storage::{Meta, Storage, StorageError, StorageErrorKind};
use tokio::time::{Instant, timeout};

use crate::upload::stores::StoreFactory;

const CONTENT: &[u8] = b"spillway probe: this object may be removed\n";
/// For reading back and removing: what was written counts.
const AFTER_TIMEOUT: Duration = Duration::from_secs(6);

/// A store of the installation, and what it is for.
#[derive(Debug)]
pub(super) struct StorePlace<'a> {
    role: &'static str,
    destination: &'a Destination,
    store: &'a Store,
}

impl StorePlace<'_> {
    /// It is used as the identity of the machine: no key is configured.
    pub(super) fn needs_identity(&self) -> bool {
        match &self.store.provider {
            Provider::S3(s3) => s3.access_key.reveal().is_empty() || s3.secret.reveal().is_empty(),
            Provider::Gcs(gcs) => gcs.credentials.reveal().is_empty(),
            Provider::Azure(azure) => azure.key.reveal().is_empty(),
            Provider::AliOss(_) | Provider::Local(_) => false,
        }
    }
}

/// Each store once.
pub(super) fn places(destinations: &[Destinations]) -> Vec<StorePlace<'_>> {
    let mut places: Vec<StorePlace<'_>> = Vec::new();
    for to in destinations {
        for (role, destination) in [("store", Some(&to.primary)), ("backup store", to.backup.as_ref())] {
            let Some(destination) = destination else { continue };
            let Destination::Store(store) = destination else { continue };
            if !places.iter().any(|place| place.destination == destination) {
                places.push(StorePlace { role, destination, store });
            }
        }
    }
    places
}

/// `object`: its name below the prefix of each store.
pub(super) async fn check(places: &[StorePlace<'_>], stores: &dyn StoreFactory, object: &str) -> Vec<ProbeLine> {
    if places.is_empty() {
        return vec![ProbeLine::noted("store", "none is configured: files stay on the disk of the runner")];
    }
    join_all(places.iter().map(|place| check_one(place, stores, object))).await
}

async fn check_one(place: &StorePlace<'_>, stores: &dyn StoreFactory, object: &str) -> ProbeLine {
    let began = Instant::now();
    let check = format!("{} {}", place.role, place.store.provider.name());
    let line = match stores.open(place.destination).await {
        Ok(storage) => use_once(&check, &*storage, object).await,
        Err(error) => failed(&check, &error),
    };
    line.took(began.elapsed())
}

/// A recording begins with a multipart upload, which proves the permission that it needs; a playlist is a small object.
async fn use_once(check: &str, storage: &dyn Storage, object: &str) -> ProbeLine {
    let meta = Meta::of("text/plain");
    let begun = match storage.begin(object, &meta).await {
        Ok(upload) => storage.abort(&upload).await,
        Err(error) => return failed(check, &error),
    };
    if let Err(error) = storage.put(object, Bytes::from_static(CONTENT), &meta).await {
        return failed(check, &error);
    }
    let location = storage.location(object);
    let read = timeout(AFTER_TIMEOUT, storage.read_small(object)).await;
    let deleted = timeout(AFTER_TIMEOUT, storage.delete(object)).await;
    let mut notes = Vec::new();
    match read {
        Ok(Ok(Some(content))) if content == CONTENT => {}
        Ok(Ok(_)) => {
            let message = format!("{location} was written, and something else is read there");
            return ProbeLine::failed(check, ProbeCause::StoreRefuses, message);
        }
        Ok(Err(error)) if error.kind == StorageErrorKind::Denied => notes.push("may not be read".to_owned()),
        Ok(Err(error)) => notes.push(format!("was not read: {}", error.message)),
        Err(_) => notes.push("was not read in time".to_owned()),
    }
    match deleted {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.kind == StorageErrorKind::Denied => {
            notes.push("may not be removed and stays".to_owned());
        }
        Ok(Err(error)) => notes.push(format!("was not removed: {}", error.message)),
        Err(_) => notes.push("was not removed in time".to_owned()),
    }
    if let Err(error) = begun {
        notes.push(format!("an unfinished upload stays: {}", error.message));
    }
    match notes.is_empty() {
        true => ProbeLine::passed(check, format!("{location} written, read back and removed")),
        false => ProbeLine::noted(check, format!("{location} written; it {}", notes.join(", "))),
    }
}

fn failed(check: &str, error: &StorageError) -> ProbeLine {
    ProbeLine::failed(check, cause(error), format!("{}: {}", error.doing, error.message))
}

/// Texts by which stores tell unknown or missing credentials from a missing permission.
const ABOUT_CREDENTIALS: [&str; 8] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidClientTokenId",
    "InvalidToken",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "credentials",
    "access token",
];

fn cause(error: &StorageError) -> ProbeCause {
    match error.kind {
        StorageErrorKind::Expired => ProbeCause::StoreCredentials,
        StorageErrorKind::Denied if ABOUT_CREDENTIALS.iter().any(|text| error.message.contains(text)) => {
            ProbeCause::StoreCredentials
        }
        StorageErrorKind::Denied => ProbeCause::StoreDenied,
        StorageErrorKind::NotFound => ProbeCause::BucketNotFound,
        StorageErrorKind::Busy => ProbeCause::StoreUnreachable,
        _ => ProbeCause::StoreRefuses,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use spillway_bus::ProbeOutcome;
    use spillway_plan::destination::S3;
    use spillway_storage::unreliable::{Fault, FaultMode};
    use spillway_storage::{RamStorage, Unreliable};

    use super::*;

    #[derive(Debug)]
    struct OneStore(Arc<dyn Storage>);

    #[async_trait]
    impl StoreFactory for OneStore {
        async fn open(&self, _: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
            Ok(Arc::clone(&self.0))
        }
    }

    fn destinations() -> Vec<Destinations> {
        let provider = Provider::S3(Box::new(S3 { bucket: "rec".into(), ..S3::default() }));
        let store = Store { provider, prefix: String::new(), presign: false };
        vec![Destinations { primary: Destination::Store(Box::new(store)), backup: Some(Destination::Disk) }]
    }

    async fn line_of(storage: Arc<dyn Storage>) -> ProbeLine {
        let destinations = destinations();
        let places = places(&destinations);
        assert!(places[0].needs_identity());
        let mut lines = check(&places, &OneStore(storage), "spillway-probe/PB_1").await;
        assert_eq!((lines.len(), lines[0].check.as_str()), (1, "store S3"));
        lines.remove(0)
    }

    #[tokio::test]
    async fn an_object_is_written_read_and_removed_and_nothing_stays() {
        let ram = RamStorage::new();
        let line = line_of(Arc::new(ram.clone())).await;
        assert_eq!((line.outcome, line.cause), (ProbeOutcome::Passed, None), "{line:?}");
        assert!(ram.keys().is_empty() && ram.open_uploads() == 0, "{:?}", ram.keys());
    }

    #[tokio::test]
    async fn a_refusal_has_a_cause() {
        for (kind, cause) in [
            (StorageErrorKind::Denied, ProbeCause::StoreDenied),
            (StorageErrorKind::NotFound, ProbeCause::BucketNotFound),
            (StorageErrorKind::Expired, ProbeCause::StoreCredentials),
        ] {
            let store = Unreliable::new(Arc::new(RamStorage::new()));
            store.set_fault_mode(FaultMode::Refusing(kind));
            let line = line_of(Arc::new(store)).await;
            assert_eq!((line.outcome, line.cause), (ProbeOutcome::Failed, Some(cause)), "{line:?}");
        }
        let unknown = StorageError::new(StorageErrorKind::Denied, "S3", "begin", "InvalidAccessKeyId: … (403)");
        assert_eq!(cause(&unknown), ProbeCause::StoreCredentials);
    }

    #[tokio::test]
    async fn what_may_not_be_removed_is_a_note() {
        // Begin, abort, put and read are served.
        let script = [None, None, None, None, Some(Fault::Busy)];
        let line = line_of(Arc::new(Unreliable::scripted(Arc::new(RamStorage::new()), script))).await;
        assert_eq!((line.outcome, line.cause), (ProbeOutcome::Noted, None));
        assert!(line.message.contains("was not removed"), "{line:?}");
    }

    #[tokio::test]
    async fn without_a_store_there_is_a_note() {
        let lines = check(&[], &OneStore(Arc::new(RamStorage::new())), "x").await;
        assert_eq!((lines.len(), lines[0].outcome), (1, ProbeOutcome::Noted));
    }
}
