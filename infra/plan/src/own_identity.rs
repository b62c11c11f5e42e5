//! Whether the installation's own credentials may sign for an upload that a request brings: the identity of the runner's process
//! (task role, managed identity, environment), and roles that are assumed with the installation's key. What they sign could be
//! any bucket that they may write to, and a session token in the request goes to whatever endpoint it names. Pure.

use url::{Host, Url};

use crate::destination::{Provider, S3, StorageConfig, with_scheme};
use crate::error::PlanError;

const BUCKET: &str = "another bucket";
const ENDPOINT: &str = "another endpoint";
const PROXY: &str = "a proxy";
/// In [`StorageConfig::own_buckets`]: all.
const ANY: &str = "*";

/// Refuses a provider of a request for which something of the installation's would sign that is not meant for it.
pub(crate) fn check(provider: &Provider, config: &StorageConfig) -> Result<(), PlanError> {
    let need = |fits: bool, what| if fits { Ok(()) } else { Err(PlanError::OwnIdentity(what)) };
    match provider {
        Provider::S3(s3) => {
            let same_endpoint = |own: &&S3| is_same_endpoint(&own.endpoint, &s3.endpoint);
            let of_vendor = is_amazons(&s3.endpoint);
            match &s3.assume_role {
                // What the role may write to is its owner's decision; its session is sent to no other host.
                Some(role) if s3.access_key == config.assume_role_key || Some(role) == config.assume_role.as_ref() => {
                    need(of_vendor || own_s3(config).any(|own| same_endpoint(&own)), ENDPOINT)?;
                }
                None if !s3.has_key() => {
                    let mut known = own_s3(config).filter(|own| own.bucket == s3.bucket);
                    let is_known = is_listed(&s3.bucket, config) || own_s3(config).any(|own| own.bucket == s3.bucket);
                    need(is_known, BUCKET)?;
                    let is_listed_there = of_vendor && is_listed(&s3.bucket, config);
                    need(is_listed_there || known.any(|own| same_endpoint(&own)), ENDPOINT)?;
                }
                _ => return Ok(()),
            }
            need(s3.proxy.is_none(), PROXY)
        }
        Provider::Gcs(gcs) if gcs.credentials.reveal().is_empty() => {
            let is_own = |own: &Provider| matches!(own, Provider::Gcs(own) if own.bucket == gcs.bucket);
            need(is_listed(&gcs.bucket, config) || own(config).any(is_own), BUCKET)?;
            need(gcs.proxy.is_none(), PROXY)
        }
        Provider::Azure(azure) if azure.key.reveal().is_empty() => {
            let is_own = |own: &Provider| matches!(own, Provider::Azure(own) if own.account == azure.account && own.container == azure.container);
            let name = format!("{}/{}", azure.account, azure.container);
            need(is_listed(&name, config) || own(config).any(is_own), BUCKET)
        }
        // The last two need no credentials, or bring them always.
        Provider::Gcs(_) | Provider::Azure(_) | Provider::AliOss(_) | Provider::Local(_) => Ok(()),
    }
}

/// The stores of the configuration.
fn own(config: &StorageConfig) -> impl Iterator<Item = &Provider> {
    config.primary.iter().chain(config.backup.iter().map(|store| &store.provider))
}

fn own_s3(config: &StorageConfig) -> impl Iterator<Item = &S3> {
    own(config).filter_map(|provider| match provider {
        Provider::S3(s3) => Some(&**s3),
        _ => None,
    })
}

fn is_listed(name: &str, config: &StorageConfig) -> bool {
    config.own_buckets.iter().any(|own| own == name || own == ANY)
}

/// An endpoint that is left out is the vendor's.
fn is_same_endpoint(own: &str, asked: &str) -> bool {
    let normal = |endpoint: &str| Url::parse(&with_scheme(endpoint)).ok();
    match (own.is_empty(), asked.is_empty()) {
        (true, _) => is_amazons(asked),
        (false, true) => false,
        (false, false) => normal(own).is_some() && normal(own) == normal(asked),
    }
}

/// Whether an endpoint is one of S3's at AWS, over TLS: `s3.REGION.amazonaws.com` and its kinds. Other names below
/// `amazonaws.com` are of AWS' customers (machines, load balancers).
fn is_amazons(endpoint: &str) -> bool {
    if endpoint.is_empty() {
        return true;
    }
    let Ok(url) = Url::parse(&with_scheme(endpoint)) else { return false };
    let Some(Host::Domain(host)) = url.host() else { return false };
    let Some(labels) = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn")) else {
        return false;
    };
    let mut labels = labels.split('.');
    let is_s3 = labels.next().is_some_and(|first| matches!(first, "s3" | "s3-fips" | "s3-accelerate"));
    let is_region = |label: &str| label.contains('-') && label.ends_with(|last: char| last.is_ascii_digit());
    url.scheme() == "https"
        && url.port().is_none()
        && is_s3
        && labels.all(|label| label == "dualstack" || is_region(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{AssumeRole, Azure, Gcs, Proxy, Store};
    use spillway_protocol::Secret;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn s3(bucket: &str, endpoint: &str) -> S3 {
        S3 { bucket: bucket.into(), endpoint: endpoint.into(), ..S3::default() }
    }

    fn refused(provider: Provider, config: &StorageConfig) -> &'static str {
        match check(&provider, config) {
            Ok(()) => "",
            Err(PlanError::OwnIdentity(what)) => what,
            Err(other) => panic!("{other}"),
        }
    }

    fn config(primary: Provider) -> StorageConfig {
        let backup = Store { provider: Provider::S3(Box::new(s3("second", ""))), prefix: "".into(), presign: false };
        StorageConfig {
            primary: Some(primary),
            backup: Some(backup),
            own_buckets: vec!["listed".into()],
            ..StorageConfig::default()
        }
    }

    #[test]
    fn the_identity_of_the_process_signs_for_the_installations_buckets_only() {
        let at_minio = config(Provider::S3(Box::new(s3("first", "https://minio:9000"))));
        let of = |bucket: &str, endpoint: &str| refused(Provider::S3(Box::new(s3(bucket, endpoint))), &at_minio);
        for (bucket, endpoint, expected) in [
            ("first", "https://minio:9000", ""),
            ("first", "minio:9000/", ""),
            ("first", "", ENDPOINT),
            ("first", "http://minio:9000", ENDPOINT),
            ("first", "https://evil.example", ENDPOINT),
            ("second", "", ""),
            ("second", "s3.eu-west-1.amazonaws.com", ""),
            ("second", "https://s3.dualstack.us-east-1.amazonaws.com", ""),
            ("second", "http://s3.eu-west-1.amazonaws.com", ENDPOINT),
            ("second", "https://minio:9000", ENDPOINT),
            ("second", "https://ec2-1-2-3-4.compute-1.amazonaws.com", ENDPOINT),
            ("second", "https://s3-x-1.us-east-1.elb.amazonaws.com", ENDPOINT),
            ("second", "https://s3.us-east-1.elb.amazonaws.com", ENDPOINT),
            ("second", "https://s3.amazonaws.com.evil.example", ENDPOINT),
            ("second", "https://s3.amazonaws.com:8443", ENDPOINT),
            ("listed", "", ""),
            ("listed", "https://minio:9000", ENDPOINT),
            ("other", "", BUCKET),
        ] {
            assert_eq!(of(bucket, endpoint), expected, "{bucket} at {endpoint}");
        }
        let proxied = S3 { proxy: Some(Proxy::default()), ..s3("second", "") };
        assert_eq!(refused(Provider::S3(Box::new(proxied)), &at_minio), PROXY);
        let half = S3 { access_key: secret("key"), ..s3("other", "") };
        assert_eq!(refused(Provider::S3(Box::new(half)), &at_minio), BUCKET, "a key without its secret is none");
        let theirs = S3 { access_key: secret("key"), secret: secret("s"), ..s3("other", "http://evil.example") };
        assert_eq!(refused(Provider::S3(Box::new(theirs)), &at_minio), "");
    }

    #[test]
    fn a_session_of_the_installations_goes_to_the_vendor() {
        let role = |arn: &str| Some(AssumeRole { arn: arn.into(), external_id: Secret::default() });
        let config = StorageConfig {
            assume_role_key: secret("ours"),
            assume_role_secret: secret("s"),
            assume_role: role("arn:ours"),
            ..StorageConfig::default()
        };
        let of = |key: &str, arn: &str, endpoint: &str| {
            let s3 = S3 { access_key: secret(key), secret: secret("s"), assume_role: role(arn), ..s3("any", endpoint) };
            refused(Provider::S3(Box::new(s3)), &config)
        };
        assert_eq!(of("ours", "arn:theirs", ""), "");
        assert_eq!(of("ours", "arn:theirs", "https://evil.example"), ENDPOINT);
        assert_eq!(of("theirs", "arn:ours", "https://evil.example"), ENDPOINT);
        assert_eq!(of("theirs", "arn:theirs", "https://evil.example"), "");
    }

    #[test]
    fn google_and_azure_likewise() {
        let gcs = |bucket: &str, credentials: &str| {
            Provider::Gcs(Gcs { bucket: bucket.into(), credentials: secret(credentials), ..Gcs::default() })
        };
        let ours = config(gcs("first", ""));
        assert_eq!(refused(gcs("first", ""), &ours), "");
        assert_eq!(refused(gcs("listed", ""), &ours), "");
        assert_eq!(refused(gcs("other", ""), &ours), BUCKET);
        assert_eq!(refused(gcs("other", "{}"), &ours), "");
        let azure = |account: &str, container: &str| {
            Provider::Azure(Azure { account: account.into(), container: container.into(), ..Azure::default() })
        };
        let ours = StorageConfig { own_buckets: vec!["acc/listed".into()], ..config(azure("acc", "first")) };
        assert_eq!(refused(azure("acc", "first"), &ours), "");
        assert_eq!(refused(azure("acc", "listed"), &ours), "");
        assert_eq!(refused(azure("acc", "other"), &ours), BUCKET);
        assert_eq!(refused(azure("evil", "first"), &ours), BUCKET);
        let any = StorageConfig { own_buckets: vec![ANY.into()], ..StorageConfig::default() };
        for provider in [gcs("x", ""), azure("a", "x"), Provider::S3(Box::new(s3("x", "")))] {
            assert_eq!(refused(provider, &any), "");
        }
    }
}
