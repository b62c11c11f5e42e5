//! URLs that a request names beside those of its outputs: webhooks, which livekit-server calls, and the page that is recorded.

use livekit_protocol as livekit;

use crate::rpc::start_egress_request::EgressRequest;

/// URLs of the webhooks that a request adds, in its order.
pub fn webhook_urls(request: &EgressRequest) -> impl Iterator<Item = &str> {
    let webhooks = match request {
        EgressRequest::RoomComposite(request) => &request.webhooks,
        EgressRequest::Web(request) => &request.webhooks,
        EgressRequest::Participant(request) => &request.webhooks,
        EgressRequest::TrackComposite(request) => &request.webhooks,
        EgressRequest::Track(request) => &request.webhooks,
        EgressRequest::Egress(request) => &request.webhooks,
        EgressRequest::Replay(request) => &request.webhooks,
    };
    webhooks.iter().map(|webhook| webhook.url.as_str())
}

/// URL of the page that a request wants recorded, or of its template; `None`: it names none.
pub fn page_url(request: &EgressRequest) -> Option<&str> {
    use livekit::export_replay_request::Source as ReplaySource;
    use livekit::start_egress_request::Source;
    let url = match request {
        EgressRequest::RoomComposite(request) => &request.custom_base_url,
        EgressRequest::Web(request) => &request.url,
        EgressRequest::Egress(request) => match request.source.as_ref()? {
            Source::Template(template) => &template.custom_base_url,
            Source::Web(web) => &web.url,
            Source::Media(_) => return None,
        },
        EgressRequest::Replay(request) => match request.source.as_ref()? {
            ReplaySource::Template(template) => &template.custom_base_url,
            ReplaySource::Web(web) => &web.url,
            ReplaySource::Media(_) => return None,
        },
        EgressRequest::Participant(_) | EgressRequest::TrackComposite(_) | EgressRequest::Track(_) => return None,
    };
    (!url.is_empty()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_and_pages_are_found_in_every_kind_of_request() {
        use livekit::export_replay_request::Source as ReplaySource;
        use livekit::start_egress_request::Source;
        let webhooks = || vec![livekit::WebhookConfig { url: "https://hook".into(), ..Default::default() }];
        let page = || String::from("https://page");
        let template = || livekit::TemplateSource { custom_base_url: page(), ..Default::default() };
        let web = || livekit::WebSource { url: page(), ..Default::default() };
        let second = |source| {
            EgressRequest::Egress(livekit::StartEgressRequest {
                source: Some(source),
                webhooks: webhooks(),
                ..Default::default()
            })
        };
        let replayed = |source| {
            EgressRequest::Replay(livekit::ExportReplayRequest {
                source: Some(source),
                webhooks: webhooks(),
                ..Default::default()
            })
        };
        let with_page = [
            EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                custom_base_url: page(),
                webhooks: webhooks(),
                ..Default::default()
            }),
            EgressRequest::Web(livekit::WebEgressRequest { url: page(), webhooks: webhooks(), ..Default::default() }),
            second(Source::Template(template())),
            second(Source::Web(web())),
            replayed(ReplaySource::Template(template())),
            replayed(ReplaySource::Web(web())),
        ];
        let without = [
            EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                webhooks: webhooks(),
                ..Default::default()
            }),
            EgressRequest::Participant(livekit::ParticipantEgressRequest {
                webhooks: webhooks(),
                ..Default::default()
            }),
            EgressRequest::TrackComposite(livekit::TrackCompositeEgressRequest {
                webhooks: webhooks(),
                ..Default::default()
            }),
            EgressRequest::Track(livekit::TrackEgressRequest { webhooks: webhooks(), ..Default::default() }),
            second(Source::Media(livekit::MediaSource::default())),
        ];
        for (requests, expected) in [(with_page.as_slice(), Some("https://page")), (without.as_slice(), None)] {
            for request in requests {
                assert_eq!(page_url(request), expected, "{request:?}");
                assert_eq!(webhook_urls(request).collect::<Vec<_>>(), ["https://hook"], "{request:?}");
            }
        }
    }
}
