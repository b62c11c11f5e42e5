//! The SDK's client for one bucket: region, credentials, proxy, timeouts and retries. Runs once when a store is opened, in the
//! caller's task; makes at most one request (the bucket's region), and AWS STS is asked when the first call needs a role.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use spillway_plan::destination::{S3, with_scheme, without_user};
use tracing::debug;

use super::api::failed;
use crate::error::{StorageError, StorageErrorKind};
use crate::guarded::{GuardedNames, NamedHosts};
use crate::options::Options;
use crate::proxy;

/// Length of a role session. Longer ones need a change of the role; the SDK renews sessions while they are used.
const SESSION: Duration = Duration::from_secs(3600);

/// A client for the bucket of a destination.
///
/// # Errors
/// `Invalid`: the proxy's URL. `Refused`: a request may not name the endpoint or the proxy. A retry changes nothing.
pub async fn client(provider: &'static str, s3: &S3, options: &Options) -> Result<Client, StorageError> {
    let hosts = NamedHosts { provider, origin: s3.origin, endpoint: &s3.endpoint, proxy: s3.proxy.as_ref() };
    let http = http(provider, s3, hosts.checked(options).await?)?;
    let named = !s3.region.is_empty();
    let region = Region::new(if named { s3.region.clone() } else { "us-east-1".to_owned() });
    let credentials = credentials(s3, &region, &http, options).await;
    let build = |region: Region| {
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials.clone())
            .http_client(http.clone())
            .force_path_style(s3.force_path_style)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(options.attempts)
                    .with_initial_backoff(options.first_wait)
                    .with_max_backoff(options.max_wait),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(options.connect_timeout)
                    .operation_attempt_timeout(options.stall_timeout)
                    .build(),
            )
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(options.stall_timeout).build(),
            );
        if !s3.endpoint.is_empty() {
            // Some compatible stores do not know AWS' newer checksums, and some refuse them.
            config = config
                .endpoint_url(with_scheme(&without_user(&s3.endpoint)))
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        Client::from_conf(config.build())
    };
    let client = build(region);
    if named || !s3.endpoint.is_empty() {
        return Ok(client);
    }
    // As livekit/egress: only where neither region nor endpoint is configured.
    match client.get_bucket_location().bucket(&s3.bucket).send().await {
        Ok(answer) => {
            let found = answer.location_constraint().map(|found| found.as_str()).filter(|found| !found.is_empty());
            Ok(found
                .map_or(client, |found| build(Region::new(if found == "EU" { "eu-west-1" } else { found }.to_owned()))))
        }
        Err(error) => {
            let error = failed(provider, "head", error);
            debug!(%error, "the bucket's region is not known, us-east-1 is tried");
            Ok(client)
        }
    }
}

/// Key and secret of the request, else the process' own identity; with a role, that role assumed by them.
async fn credentials(
    s3: &S3,
    region: &Region,
    http: &SharedHttpClient,
    options: &Options,
) -> SharedCredentialsProvider {
    let own = || async {
        // Without the proxy: a metadata service is not reached through it.
        let chain =
            aws_config::default_provider::credentials::DefaultCredentialsChain::builder().region(region.clone());
        SharedCredentialsProvider::new(chain.build().await)
    };
    let (key, secret, token) = (s3.access_key.reveal(), s3.secret.reveal(), s3.session_token.reveal());
    let base = if !s3.has_key() {
        own().await
    } else {
        let token = Some(token.clone()).filter(|token| !token.is_empty());
        SharedCredentialsProvider::new(Credentials::new(key, secret, token, None, "egress"))
    };
    let Some(role) = &s3.assume_role else { return base };
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region.clone())
        .credentials_provider(base)
        .http_client(http.clone())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(options.connect_timeout)
                .operation_attempt_timeout(options.stall_timeout)
                .build(),
        );
    if let Some(endpoint) = &options.sts_endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    let mut provider = AssumeRoleProvider::builder(&role.arn)
        .session_name(&options.session_name)
        .session_length(SESSION)
        .configure(&config);
    if !role.external_id.reveal().is_empty() {
        provider = provider.external_id(role.external_id.reveal());
    }
    SharedCredentialsProvider::new(provider.build().await)
}

fn http(provider: &'static str, s3: &S3, names: GuardedNames) -> Result<SharedHttpClient, StorageError> {
    let proxy = match &s3.proxy {
        None => None,
        Some(proxy) => {
            let bad = || StorageError::new(StorageErrorKind::Invalid, provider, "open", "the proxy's URL is none");
            let url = proxy::url(proxy).ok_or_else(bad)?;
            Some(ProxyConfig::all(String::from(url)).map_err(|_| bad())?)
        }
    };
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        if let Some(sleep) = components.and_then(|components| components.sleep_impl()) {
            connector.set_sleep_impl(Some(sleep));
        }
        if let Some(proxy) = &proxy {
            connector.set_proxy_config(Some(proxy.clone()));
        }
        let connector = connector.tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc));
        connector.build_with_resolver(names.clone())
    }))
}
