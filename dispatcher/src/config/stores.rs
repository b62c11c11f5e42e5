//! The storage sections, today's and those of livekit/egress in 2022 → the plan's `StorageConfig`. Pure: no store is
//! opened.

use std::path::Path;

use spillway_plan::destination::{
    AliOss, AssumeRole, Azure, DestinationOrigin, Gcs, Local, Provider, Proxy, S3, StorageConfig, Store,
};
use spillway_plan::uploads::check;
use spillway_protocol::Secret;

use super::error::ConfigError;
use super::keys;

/// Where recordings are uploaded when a request names no store of its own, and the backup store.
///
/// # Errors
/// When a store is given twice or its section is incomplete; no retry.
pub fn resolve(file: &keys::File) -> Result<StorageConfig, ConfigError> {
    let section = today_or_2022(file)?;
    let primary = provider(&section, "storage")?;
    let backup = backup(file)?;
    let given = |text: &Option<Secret>| text.clone().unwrap_or_default();
    let arn = file.s3_assume_role_arn.clone().filter(|arn| !arn.is_empty());
    Ok(StorageConfig {
        primary,
        prefix: section.prefix.clone().unwrap_or_default(),
        presign: section.generate_presigned_url.unwrap_or_default(),
        backup,
        assume_role_key: given(&file.s3_assume_role_key),
        assume_role_secret: given(&file.s3_assume_role_secret),
        assume_role: arn.map(|arn| AssumeRole { arn, external_id: given(&file.s3_assume_role_external_id) }),
        own_buckets: file.guard.as_ref().and_then(|guard| guard.own_buckets.clone()).unwrap_or_default(),
        disallow_local: file.disallow_local_storage.unwrap_or_default(),
    })
}

fn today_or_2022(file: &keys::File) -> Result<keys::Storage, ConfigError> {
    let mut section = file.storage.clone().unwrap_or_default();
    let both = [
        ("s3", section.s3.is_some() && file.s3.is_some()),
        ("gcp", section.gcp.is_some() && file.gcp.is_some()),
        ("azure", section.azure.is_some() && file.azure.is_some()),
        ("alioss", section.alioss.is_some() && file.alioss.is_some()),
    ];
    if let Some((key, _)) = both.into_iter().find(|(_, both)| *both) {
        return Err(ConfigError::Value { key, message: format!("stands beside storage.{key}, keep one of them") });
    }
    section.s3 = section.s3.or_else(|| file.s3.clone());
    section.gcp = section.gcp.or_else(|| file.gcp.clone());
    section.azure = section.azure.or_else(|| file.azure.clone());
    section.alioss = section.alioss.or_else(|| file.alioss.clone());
    Ok(section)
}

fn backup(file: &keys::File) -> Result<Option<Store>, ConfigError> {
    let directory = file.backup_storage.as_deref().filter(|path| !path.as_os_str().is_empty());
    let section = file.backup.clone().unwrap_or_default();
    let provider = match (provider(&section, "backup")?, directory) {
        (Some(_), Some(_)) => {
            let message = "stands beside backup, keep one of them".to_owned();
            return Err(ConfigError::Value { key: "backup_storage", message });
        }
        (Some(provider), None) => Some(provider),
        (None, directory) => directory.map(|root: &Path| Provider::Local(Local { root: root.to_owned() })),
    };
    Ok(provider.map(|provider| Store {
        provider,
        prefix: section.prefix.unwrap_or_default(),
        presign: section.generate_presigned_url.unwrap_or_default(),
    }))
}

/// The first store that is set, in livekit/egress' order. An empty section counts as not set: templates have them.
fn provider(section: &keys::Storage, key: &'static str) -> Result<Option<Provider>, ConfigError> {
    let s3 = section.s3.as_ref().filter(|given| **given != keys::S3::default()).map(s3);
    let gcp = || section.gcp.as_ref().filter(|given| **given != keys::Gcp::default()).map(gcp);
    let azure = || section.azure.as_ref().filter(|given| **given != keys::Azure::default()).map(azure);
    let alioss = || section.alioss.as_ref().filter(|given| **given != keys::AliOss::default()).map(alioss);
    let chosen = s3.or_else(gcp).or_else(azure).or_else(alioss);
    if let Some(provider) = &chosen {
        check(provider).map_err(|error| ConfigError::Value { key, message: error.to_string() })?;
    }
    Ok(chosen)
}

fn s3(given: &keys::S3) -> Provider {
    let given = given.clone();
    let role = given.assume_role_arn.filter(|arn| !arn.is_empty());
    Provider::S3(Box::new(S3 {
        access_key: given.access_key.unwrap_or_default(),
        secret: given.secret.unwrap_or_default(),
        session_token: given.session_token.unwrap_or_default(),
        assume_role: role.map(|arn| AssumeRole { arn, external_id: given.assume_role_external_id.unwrap_or_default() }),
        region: given.region.unwrap_or_default(),
        endpoint: given.endpoint.unwrap_or_default(),
        origin: DestinationOrigin::Configuration,
        bucket: given.bucket.unwrap_or_default(),
        force_path_style: given.force_path_style.unwrap_or_default(),
        metadata: given.metadata.unwrap_or_default(),
        tagging: given.tagging.unwrap_or_default(),
        content_disposition: given.content_disposition.unwrap_or_default(),
        proxy: proxy(given.proxy_config, given.proxy),
    }))
}

fn gcp(given: &keys::Gcp) -> Provider {
    let given = given.clone();
    Provider::Gcs(Gcs {
        credentials: given.credentials_json.unwrap_or_default(),
        origin: DestinationOrigin::Configuration,
        bucket: given.bucket.unwrap_or_default(),
        proxy: proxy(given.proxy_config, None),
        endpoint: given.endpoint.unwrap_or_default(),
    })
}

fn azure(given: &keys::Azure) -> Provider {
    let given = given.clone();
    Provider::Azure(Azure {
        account: given.account_name.unwrap_or_default(),
        key: given.account_key.unwrap_or_default(),
        container: given.container_name.unwrap_or_default(),
        endpoint: given.endpoint.unwrap_or_default(),
        origin: DestinationOrigin::Configuration,
    })
}

fn alioss(given: &keys::AliOss) -> Provider {
    let given = given.clone();
    Provider::AliOss(AliOss {
        access_key: given.access_key.unwrap_or_default(),
        secret: given.secret.unwrap_or_default(),
        region: given.region.unwrap_or_default(),
        endpoint: given.endpoint.unwrap_or_default(),
        origin: DestinationOrigin::Configuration,
        bucket: given.bucket.unwrap_or_default(),
    })
}

fn proxy(section: Option<keys::Proxy>, old: Option<String>) -> Option<Proxy> {
    let section = section.unwrap_or_default();
    let url = section.url.filter(|url| !url.is_empty()).or(old).filter(|url| !url.is_empty())?;
    Some(Proxy {
        url: Secret::new(url),
        username: section.username.unwrap_or_default(),
        password: section.password.unwrap_or_default(),
    })
}
