//! Where an output goes: its path, and the upload in the request or the installation's storage, checked for every mistake
//! that shows without access to the store.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as livekit;
use spillway_protocol::Secret;
use url::Url;

use crate::destination::*;
use crate::error::PlanError;
use crate::own_identity;

/// Longest component a file system takes.
pub(crate) const MAX_COMPONENT_BYTES: usize = 255;
/// Longest path that is accepted or made, below Linux' 4096. Object stores refuse more than 1024 themselves.
pub(crate) const MAX_PATH_BYTES: usize = 4000;

/// The upload of an output. Each message of the protocol has the same four, as types of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestedUpload<'a> {
    S3(&'a livekit::S3Upload),
    Gcp(&'a livekit::GcpUpload),
    Azure(&'a livekit::AzureBlobUpload),
    AliOss(&'a livekit::AliOssUpload),
}

macro_rules! uploads_of {
    ($($message:ident::$oneof:ident),*) => {$(
        impl<'a> From<&'a livekit::$message::$oneof> for RequestedUpload<'a> {
            fn from(asked: &'a livekit::$message::$oneof) -> Self {
                match asked {
                    livekit::$message::$oneof::S3(upload) => Self::S3(upload),
                    livekit::$message::$oneof::Gcp(upload) => Self::Gcp(upload),
                    livekit::$message::$oneof::Azure(upload) => Self::Azure(upload),
                    livekit::$message::$oneof::AliOss(upload) => Self::AliOss(upload),
                }
            }
        }
    )*};
}

uploads_of!(
    encoded_file_output::Output,
    direct_file_output::Output,
    segmented_file_output::Output,
    image_output::Output,
    storage_config::Provider
);

/// The destinations of an output with this upload: the upload, else the installation's storage, else the disk.
pub(crate) fn destination(upload: Option<RequestedUpload>, config: &StorageConfig) -> Result<Destinations, PlanError> {
    let is_asked = upload.is_some();
    let provider = match upload {
        Some(upload) => Some(asked(upload, config)?),
        None => config.primary.clone(),
    };
    let Some(provider) = provider else {
        if config.disallow_local {
            return Err(PlanError::Field("output"));
        }
        // A file that is written in place needs no backup.
        return Ok(Destinations { primary: Destination::Disk, backup: None });
    };
    check(&provider)?;
    if is_asked {
        own_identity::check(&provider, config)?;
    }
    let primary = Store { provider, prefix: config.prefix.clone(), presign: config.presign };
    Ok(Destinations {
        primary: Destination::Store(Box::new(primary)),
        backup: config.backup.clone().map(|store| Destination::Store(Box::new(store))),
    })
}

fn asked(upload: RequestedUpload, config: &StorageConfig) -> Result<Provider, PlanError> {
    let secret = |text: &String| Secret::new(text.clone());
    Ok(match upload {
        RequestedUpload::S3(asked) => Provider::S3(Box::new(s3(asked, config)?)),
        RequestedUpload::Gcp(asked) => Provider::Gcs(Gcs {
            credentials: secret(&asked.credentials),
            origin: DestinationOrigin::Request,
            bucket: asked.bucket.clone(),
            proxy: proxy(asked.proxy.as_ref()),
            endpoint: String::new(),
        }),
        RequestedUpload::Azure(asked) => Provider::Azure(Azure {
            account: asked.account_name.clone(),
            key: secret(&asked.account_key),
            container: asked.container_name.clone(),
            endpoint: String::new(),
            origin: DestinationOrigin::Request,
        }),
        RequestedUpload::AliOss(asked) => Provider::AliOss(AliOss {
            access_key: secret(&asked.access_key),
            secret: secret(&asked.secret),
            region: asked.region.clone(),
            endpoint: asked.endpoint.clone(),
            origin: DestinationOrigin::Request,
            bucket: asked.bucket.clone(),
        }),
    })
}

fn s3(asked: &livekit::S3Upload, config: &StorageConfig) -> Result<S3, PlanError> {
    let secret = |text: &String| Secret::new(text.clone());
    let own_role =
        AssumeRole { arn: asked.assume_role_arn.clone(), external_id: secret(&asked.assume_role_external_id) };
    let assume_role = if own_role.arn.is_empty() { config.assume_role.clone() } else { Some(own_role) };
    let (mut access_key, mut key_secret) = (secret(&asked.access_key), secret(&asked.secret));
    // A key without its secret would be none: the identity of the process would take its place.
    if assume_role.is_some() && (access_key.reveal().is_empty() || key_secret.reveal().is_empty()) {
        // Never with the identity of the process: a caller could then assume any role that trusts the installation.
        if config.assume_role_key.reveal().is_empty() || config.assume_role_secret.reveal().is_empty() {
            return Err(PlanError::AssumeRoleDisabled);
        }
        (access_key, key_secret) = (config.assume_role_key.clone(), config.assume_role_secret.clone());
    }
    Ok(S3 {
        access_key,
        secret: key_secret,
        session_token: secret(&asked.session_token),
        assume_role,
        region: asked.region.clone(),
        endpoint: asked.endpoint.clone(),
        origin: DestinationOrigin::Request,
        bucket: asked.bucket.clone(),
        force_path_style: asked.force_path_style,
        metadata: asked.metadata.clone().into_iter().collect(),
        tagging: asked.tagging.clone(),
        content_disposition: asked.content_disposition.clone(),
        proxy: proxy(asked.proxy.as_ref()),
    })
}

/// A proxy without a URL counts as not set.
fn proxy(asked: Option<&livekit::ProxyConfig>) -> Option<Proxy> {
    let asked = asked.filter(|proxy| !proxy.url.is_empty())?;
    Some(Proxy {
        url: Secret::new(asked.url.clone()),
        username: Secret::new(asked.username.clone()),
        password: Secret::new(asked.password.clone()),
    })
}

/// The requested path without `.` and `..`: they are resolved, and a `..` above the root is dropped. A leading `/` stays, and
/// so does a trailing one, which asks for a generated name in that directory.
pub(crate) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("{root}{}{end}", kept.join("/"))
}

/// Whether a path can exist on a file system: no NUL, no component over 255 bytes, at most 4000 bytes in all.
pub(crate) fn possible(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES
        && !path.contains('\0')
        && path.split('/').all(|component| component.len() <= MAX_COMPONENT_BYTES)
}

/// Whether a second attempt cannot overwrite the file of the first: the name is generated or has `{retry}` in it.
pub(crate) fn retry_safe(path: &str) -> bool {
    path.is_empty() || path.ends_with('/') || path.contains("{retry}")
}

/// Names and values of user metadata. S3 takes 2 KiB; more than 24,000 entries are a panic of the HTTP library.
const MAX_METADATA_BYTES: usize = 8 << 10;

/// Checks the fields of a provider, from a request or from the configuration. Does not contact it.
///
/// # Errors
///
/// [`PlanError::Field`] or [`PlanError::Impossible`] with the field's name in the request. A retry is useless.
pub fn check(provider: &Provider) -> Result<(), PlanError> {
    let need = |there: bool, field| if there { Ok(()) } else { Err(PlanError::Field(field)) };
    match provider {
        Provider::S3(s3) => {
            need(!s3.bucket.is_empty(), "s3 bucket")?;
            need(s3.endpoint.is_empty() || is_endpoint(&s3.endpoint), "s3 endpoint")?;
            need(is_tagging(&s3.tagging), "s3 tagging")?;
            need(s3.metadata.iter().all(|(name, value)| is_token(name) && is_header(value)), "s3 metadata")?;
            let metadata_bytes: usize = s3.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
            need(metadata_bytes <= MAX_METADATA_BYTES, "s3 metadata")?;
            need(is_header(&s3.content_disposition), "s3 content_disposition")?;
            need(is_region(&s3.region), "s3 region")?;
            need(s3.proxy.as_ref().is_none_or(is_proxy), "s3 proxy url")
        }
        Provider::Gcs(gcs) => {
            need(!gcs.bucket.is_empty(), "gcp bucket")?;
            google_credentials(gcs)?;
            need(gcs.endpoint.is_empty() || is_endpoint(&gcs.endpoint), "gcp endpoint")?;
            need(gcs.proxy.as_ref().is_none_or(is_proxy), "gcp proxy url")
        }
        Provider::Azure(azure) => {
            // The account becomes part of a host name.
            let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
            need(is_name(&azure.account), "azure account_name")?;
            need(!azure.container.is_empty(), "azure container_name")?;
            need(STANDARD.decode(azure.key.reveal()).is_ok(), "azure account_key")?;
            need(azure.endpoint.is_empty() || is_endpoint(&azure.endpoint), "azure endpoint")
        }
        Provider::AliOss(oss) => {
            need(!oss.access_key.reveal().is_empty(), "alioss access_key")?;
            need(!oss.secret.reveal().is_empty(), "alioss secret")?;
            need(!oss.bucket.is_empty(), "alioss bucket")?;
            need(is_endpoint(&oss.endpoint), "alioss endpoint")
        }
        Provider::Local(local) => need(!local.root.as_os_str().is_empty(), "backup_storage"),
    }
}

/// A URL, or a host with or without a port.
fn is_endpoint(text: &str) -> bool {
    Url::parse(&with_scheme(text)).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn is_proxy(proxy: &Proxy) -> bool {
    Url::parse(proxy.url.reveal()).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// A query string of at most ten tags. S3 refuses a wrong one only when the object is created.
fn is_tagging(text: &str) -> bool {
    let is_pair = |pair: &str| {
        pair.split_once('=').is_some_and(|(name, value)| !name.is_empty() && !value.contains('='))
            && pair.bytes().all(|byte| byte.is_ascii_graphic())
    };
    text.is_empty() || (text.split('&').count() <= 10 && text.split('&').all(is_pair))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A valid HTTP header value; the HTTP library refuses any other in the middle of a recording.
fn is_header(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || c == '\t')
}

/// AWS' libraries put the region into the host name of the STS request: with a `/`, `#` or `.` in it that would be a host of
/// the caller's choice, and the request may be signed with the installation's key.
fn is_region(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Kinds of Google credentials. All but the first make Google's library read a file or call a URL that they name.
const GOOGLE_KINDS: [&str; 4] =
    ["service_account", "external_account", "impersonated_service_account", "authorized_user"];

/// Empty credentials mean the identity of the process.
fn google_credentials(gcs: &Gcs) -> Result<(), PlanError> {
    const FIELD: &str = "gcp credentials";
    let text = gcs.credentials.reveal();
    if text.is_empty() {
        return Ok(());
    }
    let Ok(serde_json::Value::Object(json)) = serde_json::from_str(text) else { return Err(PlanError::Field(FIELD)) };
    let field = |name: &str| json.get(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let kind = GOOGLE_KINDS.into_iter().find(|kind| field("type") == Some(kind));
    match (kind, gcs.origin) {
        (Some("service_account"), _) if field("client_email").is_some() && field("private_key").is_some() => Ok(()),
        (Some("service_account"), _) | (None, DestinationOrigin::Configuration) => Err(PlanError::Field(FIELD)),
        (Some(_), DestinationOrigin::Configuration) => Ok(()),
        (asked, DestinationOrigin::Request) => Err(PlanError::Impossible {
            field: FIELD,
            // Never the caller's text: it may be a secret in the wrong field.
            asked: format!("type {}", asked.unwrap_or("unknown")),
            possible: "service_account",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(result: Result<Destinations, PlanError>) -> &'static str {
        match result {
            Err(PlanError::Field(field)) => field,
            other => panic!("{other:?}"),
        }
    }

    fn store(result: Result<Destinations, PlanError>) -> Store {
        match result.expect("a destination").primary {
            Destination::Store(store) => *store,
            Destination::Disk => panic!("disk"),
        }
    }

    fn s3_upload() -> livekit::S3Upload {
        livekit::S3Upload {
            access_key: "key".into(),
            secret: "secret".into(),
            bucket: "b".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_can_be_known_to_be_wrong_is_named() {
        let none = StorageConfig { own_buckets: vec!["*".into()], ..StorageConfig::default() };
        let s3 = |change: fn(&mut livekit::S3Upload)| {
            let mut upload = s3_upload();
            change(&mut upload);
            field(destination(Some(RequestedUpload::S3(&upload)), &none))
        };
        assert_eq!(s3(|s3| s3.bucket.clear()), "s3 bucket");
        assert_eq!(s3(|s3| s3.endpoint = "ftp://x".into()), "s3 endpoint");
        for region in ["evil.example/#", "evil.example", "u@evil", "x?y", "x:1"] {
            let upload = livekit::S3Upload { region: region.into(), ..s3_upload() };
            assert_eq!(field(destination(Some(RequestedUpload::S3(&upload)), &none)), "s3 region", "{region}");
        }
        assert_eq!(s3(|s3| s3.tagging = "a=1&b".into()), "s3 tagging");
        assert_eq!(s3(|s3| s3.tagging = "a=1=2".into()), "s3 tagging");
        assert_eq!(s3(|s3| drop(s3.metadata.insert("a b".into(), String::new()))), "s3 metadata");
        let many = |s3: &mut livekit::S3Upload| s3.metadata.extend((0..2000).map(|n| (format!("k{n}"), "v".into())));
        assert_eq!(s3(many), "s3 metadata");
        assert_eq!(s3(|s3| s3.content_disposition = "inline\nX-Evil: 1".into()), "s3 content_disposition");
        assert_eq!(
            s3(|s3| s3.proxy = Some(livekit::ProxyConfig { url: "proxy".into(), ..Default::default() })),
            "s3 proxy url"
        );

        let gcp = |credentials: &str, bucket: &str| {
            let upload =
                livekit::GcpUpload { credentials: credentials.into(), bucket: bucket.into(), ..Default::default() };
            destination(Some(RequestedUpload::Gcp(&upload)), &none)
        };
        assert_eq!(field(gcp("", "")), "gcp bucket");
        assert_eq!(field(gcp("{", "b")), "gcp credentials");
        assert_eq!(field(gcp(r#"{"type":"service_account"}"#, "b")), "gcp credentials");
        assert!(gcp("", "b").is_ok());

        let azure = |account: &str, key: &str, container: &str| {
            let upload = livekit::AzureBlobUpload {
                account_name: account.into(),
                account_key: key.into(),
                container_name: container.into(),
            };
            destination(Some(RequestedUpload::Azure(&upload)), &none)
        };
        assert_eq!(field(azure("", "a2V5", "c")), "azure account_name");
        assert_eq!(field(azure("evil.example/", "a2V5", "c")), "azure account_name");
        assert_eq!(field(azure("a", "not base64!", "c")), "azure account_key");
        assert_eq!(field(azure("a", "a2V5", "")), "azure container_name");
        assert!(azure("a", "", "c").is_ok());

        let oss = livekit::AliOssUpload { access_key: "k".into(), secret: "s".into(), ..Default::default() };
        assert_eq!(field(destination(Some(RequestedUpload::AliOss(&oss)), &none)), "alioss bucket");
        let oss = livekit::AliOssUpload { bucket: "b".into(), ..oss };
        assert_eq!(field(destination(Some(RequestedUpload::AliOss(&oss)), &none)), "alioss endpoint");
    }

    /// Any kind but a service account is an instruction to Google's library: read this file, call this URL.
    #[test]
    fn a_request_brings_a_service_account_or_nothing() {
        let asked = |credentials: &str| {
            let upload =
                livekit::GcpUpload { credentials: credentials.into(), bucket: "b".into(), ..Default::default() };
            destination(Some(RequestedUpload::Gcp(&upload)), &StorageConfig::default())
        };
        for (kind, shown) in [
            ("external_account", "external_account"),
            ("impersonated_service_account", "impersonated_service_account"),
            ("authorized_user", "authorized_user"),
            ("external_account_authorized_user", "unknown"),
            ("gdch_service_account", "unknown"),
            ("Service_Account", "unknown"),
            ("canary", "unknown"),
        ] {
            // With a service account's fields beside it too.
            let json = format!(r#"{{"type":"{kind}","client_email":"a@b","private_key":"k"}}"#);
            let error = asked(&json).expect_err(kind);
            assert_eq!(
                error.to_string(),
                format!(
                    "request has missing or invalid field: gcp credentials (type {shown} asked, possible are \
                     service_account)"
                )
            );
            assert_eq!(error.code(), spillway_protocol::Code::InvalidArgument);
        }
        assert!(asked(r#"{"client_email":"a@b","private_key":"k"}"#).is_err(), "without a type");
        assert!(asked(r#"{"type":"service_account","client_email":"a@b","private_key":"k"}"#).is_ok());
        let same_twice = r#"{"type":"service_account","type":"external_account","client_email":"a","private_key":"k"}"#;
        assert!(asked(same_twice).is_err(), "the last one counts, here and in Google's library");
    }

    #[test]
    fn the_installation_may_bring_what_google_knows() {
        let ours = |credentials: &str| {
            check(&Provider::Gcs(Gcs {
                credentials: Secret::new(credentials.into()),
                origin: DestinationOrigin::Configuration,
                bucket: "b".into(),
                ..Gcs::default()
            }))
        };
        for kind in ["external_account", "impersonated_service_account", "authorized_user"] {
            assert_eq!(ours(&format!(r#"{{"type":"{kind}"}}"#)), Ok(()), "{kind}");
        }
        assert_eq!(ours(r#"{"type":"service_account"}"#), Err(PlanError::Field("gcp credentials")));
        assert_eq!(ours(r#"{"type":"canary"}"#), Err(PlanError::Field("gcp credentials")));
    }

    #[test]
    fn a_role_without_a_key_needs_the_installations() {
        let mut upload = livekit::S3Upload { access_key: "key of nobody".into(), secret: String::new(), ..s3_upload() };
        upload.assume_role_arn = "arn:aws:iam::1:role/theirs".into();
        let mut config = StorageConfig::default();
        assert_eq!(destination(Some(RequestedUpload::S3(&upload)), &config), Err(PlanError::AssumeRoleDisabled));
        config.assume_role_key = Secret::new("ours".into());
        assert_eq!(destination(Some(RequestedUpload::S3(&upload)), &config), Err(PlanError::AssumeRoleDisabled));
        config.assume_role_secret = Secret::new("ours".into());
        config.assume_role = Some(AssumeRole { arn: "arn:ours".into(), external_id: Secret::default() });
        let made = |upload: &livekit::S3Upload, config: &StorageConfig| {
            let Provider::S3(s3) = store(destination(Some(RequestedUpload::S3(upload)), config)).provider else {
                panic!()
            };
            (s3.access_key.reveal().clone(), s3.assume_role.map(|role| role.arn))
        };
        assert_eq!(made(&upload, &config), ("ours".into(), Some("arn:aws:iam::1:role/theirs".into())));
        (upload.access_key, upload.secret) = ("theirs".into(), "theirs".into());
        assert_eq!(made(&upload, &config).0, "theirs");
        upload.assume_role_arn.clear();
        assert_eq!(made(&upload, &config), ("theirs".into(), Some("arn:ours".into())));
    }

    #[test]
    fn an_upload_of_its_own_goes_before_the_installations_and_keeps_its_prefix() {
        let azure = Azure { account: "a".into(), container: "c".into(), ..Azure::default() };
        let config = StorageConfig {
            primary: Some(Provider::Azure(azure)),
            prefix: "tenant".into(),
            presign: true,
            backup: Some(Store {
                provider: Provider::Local(Local { root: "/backup".into() }),
                prefix: String::new(),
                presign: false,
            }),
            disallow_local: true,
            ..StorageConfig::default()
        };
        let own = store(destination(Some(RequestedUpload::S3(&s3_upload())), &config));
        assert_eq!((own.provider.name(), own.prefix.as_str(), own.presign), ("S3", "tenant", true));
        let theirs = destination(None, &config).unwrap();
        assert!(theirs.backup.is_some());
        assert_eq!(store(Ok(theirs)).provider.name(), "Azure");

        let bare = StorageConfig { primary: None, ..config };
        assert_eq!(field(destination(None, &bare)), "output");
        let bare = StorageConfig { disallow_local: false, ..bare };
        let disk = Destinations { primary: Destination::Disk, backup: None };
        assert_eq!(destination(None, &bare), Ok(disk));
    }

    #[test]
    fn paths_are_cleaned_as_the_peer_does() {
        for (asked, expected) in [
            ("../../etc/x", "etc/x"),
            ("a/./b/../c", "a/c"),
            ("/a//b/", "/a/b/"),
            ("..", ""),
            (".", ""),
            ("/..", "/"),
            ("a/..", ""),
            ("", ""),
        ] {
            assert_eq!(clean(asked), expected, "{asked}");
        }
    }
}
