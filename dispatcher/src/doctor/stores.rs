//! Whether the servers of the configured stores answer from here. A dispatcher has no client of a store: requests are not signed,
//! so nothing is proved about rights, which are the runner's in any case.

use std::time::Duration;

use futures_util::future::join_all;
use spillway_bus::{ProbeCause, ProbeLine};
use spillway_plan::destination::{Provider, StorageConfig};
use spillway_process::chain;
use tokio::time::Instant;

use crate::server_api;

const TIMEOUT: Duration = Duration::from_secs(8);

pub(super) async fn check(storage: &StorageConfig) -> Vec<ProbeLine> {
    let primary = storage.primary.as_ref().map(|provider| ("store", provider));
    let backup = storage.backup.as_ref().map(|store| ("backup store", &store.provider));
    let all: Vec<_> = primary.into_iter().chain(backup).collect();
    if all.is_empty() {
        return vec![ProbeLine::noted("store", "none is configured: files stay where runners are")];
    }
    join_all(all.into_iter().map(|(role, provider)| check_one(role, provider))).await
}

async fn check_one(role: &str, provider: &Provider) -> ProbeLine {
    let check = format!("{role} {}", provider.name());
    if let Provider::Local(local) = provider {
        return match std::fs::metadata(&local.root) {
            Ok(found) if found.is_dir() => ProbeLine::passed(check, format!("{} is there", local.root.display())),
            // A folder is made by the first file.
            _ => ProbeLine::noted(check, format!("{} is not there yet", local.root.display())),
        };
    }
    let Some(server) = provider.server() else {
        return ProbeLine::failed(check, ProbeCause::StoreRefuses, "its endpoint is missing");
    };
    let began = Instant::now();
    let line = match reqwest::Client::new().get(bucket_url(provider, &server)).timeout(TIMEOUT).send().await {
        // Without a signature a private bucket answers 403, and one that does not exist 404.
        Ok(answer) if answer.status().as_u16() == 404 && tells_missing(provider) => {
            ProbeLine::failed(check, ProbeCause::BucketNotFound, format!("{server} knows no such bucket"))
        }
        Ok(_) => ProbeLine::passed(check, format!("{server} answers; whether a runner may write, a probe tells")),
        Err(error) => {
            let message = chain(&error.without_url()).to_string();
            let cause = match server_api::lost(&message) {
                cause @ (ProbeCause::NameNotFound | ProbeCause::NameServerSilent) => cause,
                _ => ProbeCause::StoreUnreachable,
            };
            ProbeLine::failed(check, cause, format!("{server}: {message}"))
        }
    };
    line.took(began.elapsed())
}

/// Of the bucket where the vendor's own server tells whether there is one.
fn bucket_url(provider: &Provider, server: &str) -> String {
    match provider {
        Provider::Gcs(gcs) if gcs.endpoint.is_empty() => format!("{server}/{}", gcs.bucket),
        _ => server.to_owned(),
    }
}

fn tells_missing(provider: &Provider) -> bool {
    match provider {
        Provider::S3(s3) => s3.endpoint.is_empty(),
        Provider::Gcs(gcs) => gcs.endpoint.is_empty(),
        Provider::Azure(_) | Provider::AliOss(_) | Provider::Local(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use spillway_bus::ProbeOutcome;
    use spillway_plan::destination::{Gcs, Local, S3};

    use super::*;

    fn storage(primary: Provider) -> StorageConfig {
        StorageConfig { primary: Some(primary), ..StorageConfig::default() }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_named() {
        let s3 = S3 { endpoint: "http://127.0.0.1:1".into(), bucket: "rec".into(), ..S3::default() };
        let lines = check(&storage(Provider::S3(Box::new(s3)))).await;
        assert_eq!((lines[0].check.as_str(), lines[0].cause), ("store S3", Some(ProbeCause::StoreUnreachable)));
        let folder = tempfile::tempdir().unwrap();
        let local = |root| storage(Provider::Local(Local { root }));
        assert_eq!(check(&local(folder.path().to_owned())).await[0].outcome, ProbeOutcome::Passed);
        assert_eq!(check(&local(folder.path().join("later"))).await[0].outcome, ProbeOutcome::Noted);
        assert_eq!(check(&StorageConfig::default()).await[0].outcome, ProbeOutcome::Noted);
    }

    #[test]
    fn only_the_vendors_own_servers_tell_a_missing_bucket() {
        let ours = Provider::Gcs(Gcs { bucket: "rec".into(), ..Gcs::default() });
        assert_eq!(bucket_url(&ours, "https://storage.googleapis.com"), "https://storage.googleapis.com/rec");
        let emulator = Provider::Gcs(Gcs { endpoint: "http://x".into(), bucket: "rec".into(), ..Gcs::default() });
        assert!(tells_missing(&ours) && !tells_missing(&emulator));
        assert_eq!(bucket_url(&emulator, "http://x"), "http://x");
    }
}
