//! Hosts that a request names, before it is accepted: what the guard would refuse for its form is refused at once, and not
//! when a recording begins. Whoever connects (the runner to stores, proxies and streams) asks the guard again, for each
//! connection and after the name was resolved.
//!
//! Webhooks are called by livekit-server, which does not look where they lead: their names are resolved here, once. Another
//! answer to livekit-server's own question cannot be excluded from here.

use std::time::Duration;

use futures_util::future::join_all;
use spillway_guard::{Guard, GuardError, host_and_port};
use spillway_plan::destination::{DestinationOrigin, Proxy, with_scheme};
use spillway_plan::{Destination, Destinations, Provider};
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ledger::stream_urls;
use spillway_protocol::requested::{page_url, webhook_urls};
use spillway_protocol::rpc::StartEgressRequest;
use tokio::time::timeout;

/// For the names of all webhooks. StartEgress is answered within a second.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(400);

/// One host.
struct RequestHost {
    /// What it is for, as errors call it.
    what: &'static str,
    /// The name or address as the URL has it, an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// Holds every host of a request against the guard, without resolving a name.
///
/// # Errors
/// PERMISSION_DENIED with the host and the reason; not worth a retry with the same request.
pub fn check(start: &StartEgressRequest, destinations: &[Destinations], guard: &Guard) -> Result<(), RpcError> {
    let mut hosts: Vec<RequestHost> = destinations.iter().flat_map(of_destination).collect();
    if let Some(request) = &start.request {
        hosts.extend(page_url(request).and_then(|url| named("page", url)));
        hosts.extend(stream_urls(request).into_iter().filter_map(|url| named("stream", url)));
        for url in webhook_urls(request) {
            hosts.push(webhook(url)?);
        }
    }
    hosts
        .iter()
        .try_for_each(|host| guard.check(&host.host, host.port).map(drop).map_err(|error| refused(host, &error)))
}

/// Resolves the hosts of the request's webhooks, all at once. A name that cannot be resolved here, or not in time, passes:
/// livekit-server may have another resolver, or none is there and the webhook never arrives.
///
/// # Errors
/// As [`check`].
pub async fn check_webhooks(start: &StartEgressRequest, guard: &Guard) -> Result<(), RpcError> {
    let Some(request) = &start.request else { return Ok(()) };
    let hosts = webhook_urls(request).map(webhook).collect::<Result<Vec<_>, _>>()?;
    let resolving = hosts.iter().map(|host| async move {
        match timeout(LOOKUP_TIMEOUT, guard.resolve(&host.host, host.port)).await {
            Ok(Err(error)) if error.is_refusal() => Err(refused(host, &error)),
            _ => Ok(()),
        }
    });
    join_all(resolving).await.into_iter().collect()
}

fn refused(host: &RequestHost, error: &GuardError) -> RpcError {
    RpcError::new(Code::PermissionDenied, format!("{}: {error}", host.what))
}

/// `None`: no host is in it (`mux://key`). Whether it has the form of its kind is the plan's to say.
fn named(what: &'static str, url: &str) -> Option<RequestHost> {
    host_and_port(url).map(|(host, port)| RequestHost { what, host, port })
}

fn webhook(url: &str) -> Result<RequestHost, RpcError> {
    let is_http = url
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
    // Not the URL, in which a token may stand.
    let invalid = || RpcError::new(Code::InvalidArgument, "request has missing or invalid field: webhook url");
    named("webhook", url).filter(|_| is_http).ok_or_else(invalid)
}

/// Hosts of a store that a request brought; backups are the configuration's.
fn of_destination(destinations: &Destinations) -> Vec<RequestHost> {
    let Destination::Store(store) = &destinations.primary else { return vec![] };
    let (origin, endpoint, proxy): (_, _, Option<&Proxy>) = match &store.provider {
        Provider::S3(s3) => (s3.origin, &s3.endpoint, s3.proxy.as_ref()),
        Provider::Gcs(gcs) => (gcs.origin, &gcs.endpoint, gcs.proxy.as_ref()),
        Provider::Azure(azure) => (azure.origin, &azure.endpoint, None),
        Provider::AliOss(oss) => (oss.origin, &oss.endpoint, None),
        Provider::Local(_) => return vec![],
    };
    if origin == DestinationOrigin::Configuration {
        return vec![];
    }
    let endpoint = (!endpoint.is_empty()).then(|| named("storage endpoint", &with_scheme(endpoint)));
    let proxy = proxy.map(|proxy| named("storage proxy", proxy.url.reveal()));
    [endpoint, proxy].into_iter().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use spillway_guard::GuardRules;
    use spillway_guard::forms::{self, FORMS, HostForm};
    use spillway_plan::StorageConfig;
    use spillway_protocol::livekit;
    use spillway_protocol::rpc::start_egress_request::EgressRequest;

    use super::*;

    fn start(request: livekit::RoomCompositeEgressRequest) -> StartEgressRequest {
        StartEgressRequest {
            egress_id: "EG_1".into(),
            request: Some(EgressRequest::RoomComposite(request)),
            ..Default::default()
        }
    }

    fn stored(endpoint: String, proxy: Option<String>) -> StartEgressRequest {
        let upload = livekit::S3Upload {
            access_key: "key".into(),
            secret: "canary".into(),
            bucket: "b".into(),
            endpoint,
            proxy: proxy.map(|url| livekit::ProxyConfig { url, ..Default::default() }),
            ..Default::default()
        };
        let output = Some(livekit::encoded_file_output::Output::S3(upload));
        let file = livekit::EncodedFileOutput { output, ..Default::default() };
        start(livekit::RoomCompositeEgressRequest { file_outputs: vec![file], ..Default::default() })
    }

    fn streamed(url: String) -> StartEgressRequest {
        let stream = livekit::StreamOutput { urls: vec![url], ..Default::default() };
        start(livekit::RoomCompositeEgressRequest { stream_outputs: vec![stream], ..Default::default() })
    }

    fn called(url: String) -> StartEgressRequest {
        let webhook = livekit::WebhookConfig { url, ..Default::default() };
        start(livekit::RoomCompositeEgressRequest { webhooks: vec![webhook], ..Default::default() })
    }

    fn shown(url: String) -> StartEgressRequest {
        start(livekit::RoomCompositeEgressRequest { custom_base_url: url, ..Default::default() })
    }

    /// Every way in which a request can name this host, with what the refusal calls it.
    fn requests(form: &HostForm) -> Vec<(&'static str, StartEgressRequest)> {
        let host = form.authority();
        vec![
            ("storage endpoint", stored(format!("https://{host}:9000"), None)),
            ("storage endpoint", stored(host.clone(), Some("http://public.example:3128".into()))),
            ("storage proxy", stored(String::new(), Some(format!("http://user:canary@{host}:3128")))),
            ("webhook", called(format!("https://{host}/canary"))),
            ("stream", streamed(format!("rtmp://{host}/app/canary"))),
            ("stream", streamed(format!("srt://{host}:9000?streamid=canary"))),
            ("stream", streamed(format!("wss://{host}/canary"))),
            ("page", shown(format!("https://user:canary@{host}/canary"))),
        ]
    }

    async fn checked(what: &str, start: &StartEgressRequest, rules: &GuardRules) -> Result<(), RpcError> {
        let guard = forms::guard(rules);
        // Webhooks, pages and streams have no destination.
        let is_stored = what.starts_with("storage");
        let destinations = is_stored.then(|| spillway_plan::destinations(start, &StorageConfig::default()));
        let destinations = destinations.unwrap_or(Ok(vec![])).expect("destinations");
        check(start, &destinations, &guard)?;
        check_webhooks(start, &guard).await
    }

    #[tokio::test]
    async fn no_form_of_the_table_is_accepted_and_each_is_by_its_entry() {
        let closed = GuardRules::default();
        for form in FORMS {
            let is_known = forms::guard(&closed).check(form.host, 443).is_err();
            for (what, request) in requests(form) {
                let refused = checked(what, &request, &closed).await;
                // Names that must be resolved are for whoever connects; nobody of ours calls webhooks.
                if is_known || what == "webhook" {
                    let error = refused.expect_err(form.host);
                    assert_eq!(error.code, Code::PermissionDenied, "{}: {error}", form.host);
                    assert!(error.message.starts_with(&format!("{what}: ")), "{} as {what}: {error}", form.host);
                    assert!(!error.message.contains("canary"), "{error}");
                }
                let opened = checked(what, &request, &form.rules()).await;
                assert!(opened.is_ok(), "{} as {what}: {opened:?}", form.host);
            }
        }
    }

    #[tokio::test]
    async fn a_webhook_is_an_http_url_and_its_name_need_not_be_known_here() {
        for url in ["", "hook.example/canary", "ftp://hook.example/canary", "file:///canary", "gopher://10.0.0.5/"] {
            let error = checked("webhook", &called(url.into()), &GuardRules::default()).await.expect_err(url);
            assert_eq!(error.code, Code::InvalidArgument, "{url}");
            assert!(!error.message.contains("canary"), "{error}");
        }
        for url in ["HTTPS://public.example/hook", "http://not-known.example:8080/hook"] {
            checked("webhook", &called(url.into()), &GuardRules::default()).await.expect(url);
        }
    }

    #[tokio::test]
    async fn what_the_configuration_names_is_not_asked_about() {
        let ours = spillway_plan::destination::S3 {
            origin: DestinationOrigin::Configuration,
            endpoint: "http://10.0.0.5:9000".into(),
            bucket: "b".into(),
            ..Default::default()
        };
        let config = StorageConfig { primary: Some(Provider::S3(Box::new(ours))), ..StorageConfig::default() };
        let file = livekit::EncodedFileOutput::default();
        let start = start(livekit::RoomCompositeEgressRequest { file_outputs: vec![file], ..Default::default() });
        let destinations = spillway_plan::destinations(&start, &config).expect("destinations");
        check(&start, &destinations, &Guard::default()).expect("the installation's own store");
    }
}
