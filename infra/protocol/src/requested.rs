//! A request as EgressInfo shows it, and so ListEgress, webhooks and logs: without its secrets ([`redacted`]). Makes no
//! decision about what is supported.
//!
//! Where livekit/egress has a placeholder for a secret, ours is the same. It leaves some secrets in the copy (every
//! output when there are several, proxy passwords, query values of SRT and websocket URLs); this module leaves none.
//! `webhooks` stay complete: livekit-server reads its extra destinations from this copy, and `signing_key` is the name
//! of a key, not a secret.

mod urls;

use livekit_protocol as livekit;
use livekit_protocol::egress_info::Request as Shown;

pub use self::urls::{page_url, webhook_urls};
use crate::rpc::start_egress_request::EgressRequest;

/// Macros, because the protocol declares the same four providers and the same outputs once in each message, as different
/// types.
macro_rules! upload {
    ($($path:ident)::+, $provider:expr) => {
        match $provider {
            Some(livekit::$($path)::+::S3(upload)) => s3(upload),
            Some(livekit::$($path)::+::Gcp(upload)) => gcp(upload),
            Some(livekit::$($path)::+::Azure(upload)) => azure(upload),
            Some(livekit::$($path)::+::AliOss(upload)) => ali_oss(upload),
            None => {}
        }
    };
}

macro_rules! lists {
    ($request:ident) => {
        $request.file_outputs.iter_mut().for_each(file);
        $request.stream_outputs.iter_mut().for_each(stream);
        $request.segment_outputs.iter_mut().for_each(segments);
        $request.image_outputs.iter_mut().for_each(images);
    };
}

macro_rules! single {
    ($message:ident, $request:ident) => {
        #[expect(deprecated, reason = "old SDKs still fill the single output")]
        match &mut $request.output {
            Some(livekit::$message::Output::File(output)) => file(output),
            Some(livekit::$message::Output::Stream(output)) => stream(output),
            Some(livekit::$message::Output::Segments(output)) => segments(output),
            None => {}
        }
    };
}

macro_rules! second_api {
    ($message:ident, $request:ident) => {
        match &mut $request.source {
            Some(livekit::$message::Source::Template(template)) => {
                template.custom_base_url = shown_page(&template.custom_base_url);
            }
            Some(livekit::$message::Source::Web(web)) => web.url = shown_page(&web.url),
            Some(livekit::$message::Source::Media(_)) | None => {}
        }
        $request.outputs.iter_mut().for_each(output);
        storage($request.storage.as_mut());
    };
}

/// The request for [`livekit::EgressInfo`], without its secrets.
pub fn redacted(request: &EgressRequest) -> Shown {
    match request.clone() {
        EgressRequest::RoomComposite(mut request) => {
            request.custom_base_url = shown_page(&request.custom_base_url);
            lists!(request);
            single!(room_composite_egress_request, request);
            Shown::RoomComposite(request)
        }
        EgressRequest::Web(mut request) => {
            request.url = shown_page(&request.url);
            lists!(request);
            single!(web_egress_request, request);
            Shown::Web(request)
        }
        EgressRequest::Participant(mut request) => {
            lists!(request);
            Shown::Participant(request)
        }
        EgressRequest::TrackComposite(mut request) => {
            lists!(request);
            single!(track_composite_egress_request, request);
            Shown::TrackComposite(request)
        }
        EgressRequest::Track(mut request) => {
            use livekit::track_egress_request::Output;
            match &mut request.output {
                Some(Output::WebsocketUrl(url)) => *url = stream_url(url),
                Some(Output::File(output)) => upload!(direct_file_output::Output, &mut output.output),
                None => {}
            }
            Shown::Track(request)
        }
        EgressRequest::Egress(mut request) => {
            second_api!(start_egress_request, request);
            Shown::Egress(request)
        }
        EgressRequest::Replay(mut request) => {
            second_api!(export_replay_request, request);
            Shown::Replay(request)
        }
    }
}

/// A stream's URL without its key: `rtmp://host/app/{str...key}`, `srt://host?streamid={...}`. Also the form of URLs in
/// `stream_results`. A text that is no URL of a stream becomes `{...}`, and an RTMP URL without a key at its end
/// `rtmp://{...}`: it is not known which part is the key.
pub fn stream_url(url: &str) -> String {
    let (url, live) = match url.strip_suffix(" live=1") {
        Some(url) => (url, " live=1"),
        None => (url, ""),
    };
    let Some((scheme, rest)) = url.split_once("://") else { return "{...}".to_owned() };
    let rest = credentials_in(rest);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query)),
        None => (rest.clone(), None),
    };
    let path = match scheme.to_ascii_lowercase().as_str() {
        // The key is what follows the scheme: mux://KEY, twitch://KEY.
        "mux" | "twitch" => key(&path),
        "rtmp" | "rtmps" => match path.rsplit_once('/') {
            Some((app, secret)) if !secret.is_empty() => format!("{app}/{}", key(secret)),
            _ => "{...}".to_owned(),
        },
        // What follows a `#` goes to no server, but a key may stand there.
        "srt" | "ws" | "wss" => match path.split_once('#') {
            Some((path, _)) => format!("{path}#{{...}}"),
            None => path,
        },
        _ => return "{...}".to_owned(),
    };
    match query {
        Some(query) => format!("{scheme}://{path}?{}{live}", query_values(query)),
        None => format!("{scheme}://{path}{live}"),
    }
}

/// A page's URL without what may be secret in it: credentials, the values of its query, and its fragment, where single-page
/// applications have a query of their own. livekit/egress shows it whole.
fn shown_page(url: &str) -> String {
    let (rest, fragment) = match url.split_once('#') {
        Some((rest, fragment)) => (rest, if fragment.is_empty() { "#" } else { "#{...}" }),
        None => (url, ""),
    };
    let shown = without_credentials(rest);
    match shown.split_once('?') {
        Some((page, query)) => format!("{page}?{}{fragment}", query_values(query)),
        None => format!("{shown}{fragment}"),
    }
}

/// A stream's URL as users see it. Made from the complete URL only, so that no other comes into an EgressInfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// [`stream_url`] of a URL with its key.
    pub fn of(url: &str) -> Self {
        Self(stream_url(url))
    }

    /// Its text.
    pub fn into_string(self) -> String {
        self.0
    }
}

fn output(output: &mut livekit::Output) {
    use livekit::output::Config;
    match &mut output.config {
        Some(Config::Stream(output)) => stream(output),
        Some(Config::Segments(output)) => segments(output),
        Some(Config::Images(output)) => images(output),
        Some(Config::File(_)) | None => {}
    }
    storage(output.storage.as_mut());
}

fn storage(storage: Option<&mut livekit::StorageConfig>) {
    if let Some(storage) = storage {
        upload!(storage_config::Provider, &mut storage.provider);
    }
}

fn file(output: &mut livekit::EncodedFileOutput) {
    upload!(encoded_file_output::Output, &mut output.output);
}

fn stream(output: &mut livekit::StreamOutput) {
    for url in &mut output.urls {
        *url = stream_url(url);
    }
}

fn segments(output: &mut livekit::SegmentedFileOutput) {
    upload!(segmented_file_output::Output, &mut output.output);
}

fn images(output: &mut livekit::ImageOutput) {
    upload!(image_output::Output, &mut output.output);
}

fn s3(upload: &mut livekit::S3Upload) {
    hide(&mut upload.access_key, "{access_key}");
    hide(&mut upload.secret, "{secret}");
    hide(&mut upload.session_token, "{session_token}");
    hide(&mut upload.assume_role_external_id, "{external_id}");
    upload.endpoint = without_credentials(&upload.endpoint);
    proxy(upload.proxy.as_mut());
}

fn gcp(upload: &mut livekit::GcpUpload) {
    hide(&mut upload.credentials, "{credentials}");
    proxy(upload.proxy.as_mut());
}

fn azure(upload: &mut livekit::AzureBlobUpload) {
    hide(&mut upload.account_name, "{account_name}");
    hide(&mut upload.account_key, "{account_key}");
}

fn ali_oss(upload: &mut livekit::AliOssUpload) {
    hide(&mut upload.access_key, "{access_key}");
    hide(&mut upload.secret, "{secret}");
    upload.endpoint = without_credentials(&upload.endpoint);
}

fn proxy(proxy: Option<&mut livekit::ProxyConfig>) {
    if let Some(proxy) = proxy {
        proxy.url = without_credentials(&proxy.url);
        hide(&mut proxy.username, "{username}");
        hide(&mut proxy.password, "{password}");
    }
}

/// An empty field stays empty, so that a reader sees that it was not set.
fn hide(secret: &mut String, placeholder: &str) {
    if !secret.is_empty() {
        *secret = placeholder.to_owned();
    }
}

/// `scheme://user:password@host/…` with `{...}` for user and password; any other text unchanged.
pub fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", credentials_in(rest)),
        None => credentials_in(url),
    }
}

fn credentials_in(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{{...}}@{}", &rest[at + 1..]),
        None => rest.to_owned(),
    }
}

/// A query with its names and `{...}` for each value.
fn query_values(query: &str) -> String {
    let hidden = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={{...}}"),
        None if pair.is_empty() => String::new(),
        None => "{...}".to_owned(),
    });
    hidden.collect::<Vec<_>>().join("&")
}

/// The first and last one to three characters of a stream key, so that its owner recognises it.
fn key(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let shown = match letters.len() {
        9.. => 3,
        6.. => 2,
        3.. => 1,
        _ => 0,
    };
    let first: String = letters[..shown].iter().collect();
    let last: String = letters[letters.len() - shown..].iter().collect();
    format!("{{{first}...{last}}}")
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    const CANARY: &str = "canary-canary-canary";

    fn canary() -> String {
        CANARY.to_owned()
    }

    fn proxied() -> Option<livekit::ProxyConfig> {
        Some(livekit::ProxyConfig {
            url: format!("http://me:{CANARY}@proxy:3128"),
            username: canary(),
            password: canary(),
        })
    }

    fn s3_upload() -> livekit::S3Upload {
        livekit::S3Upload {
            access_key: canary(),
            secret: canary(),
            session_token: canary(),
            assume_role_external_id: canary(),
            bucket: "bucket".into(),
            endpoint: format!("https://{CANARY}@minio"),
            proxy: proxied(),
            ..Default::default()
        }
    }

    fn streams() -> livekit::StreamOutput {
        livekit::StreamOutput {
            protocol: 0,
            urls: vec![
                format!("rtmp://host/live/{CANARY}"),
                format!("rtmps://user:{CANARY}@host/live/{CANARY} live=1"),
                format!("srt://host:99?streamid={CANARY}&passphrase={CANARY}"),
                format!("wss://host/audio?token={CANARY}"),
                format!("mux://{CANARY}"),
                format!("twitch://{CANARY}"),
                // It is not known which part of these is the key.
                CANARY.to_owned(),
                format!("rtmp://{CANARY}"),
                format!("rtmp://host/live/{CANARY}/"),
                format!("https://host/{CANARY}"),
            ],
        }
    }

    fn all_outputs() -> [livekit::EncodedFileOutput; 4] {
        use livekit::encoded_file_output::Output;
        let with = |output| livekit::EncodedFileOutput { output: Some(output), ..Default::default() };
        [
            with(Output::S3(s3_upload())),
            with(Output::Gcp(livekit::GcpUpload { credentials: canary(), bucket: "b".into(), proxy: proxied() })),
            with(Output::Azure(livekit::AzureBlobUpload {
                account_name: canary(),
                account_key: canary(),
                container_name: "c".into(),
            })),
            with(Output::AliOss(livekit::AliOssUpload {
                access_key: canary(),
                secret: canary(),
                endpoint: format!("https://u:{CANARY}@oss"),
                ..Default::default()
            })),
        ]
    }

    fn segment() -> livekit::SegmentedFileOutput {
        livekit::SegmentedFileOutput {
            output: Some(livekit::segmented_file_output::Output::S3(s3_upload())),
            ..Default::default()
        }
    }

    fn image() -> livekit::ImageOutput {
        livekit::ImageOutput { output: Some(livekit::image_output::Output::S3(s3_upload())), ..Default::default() }
    }

    fn storage_config() -> Option<livekit::StorageConfig> {
        Some(livekit::StorageConfig { provider: Some(livekit::storage_config::Provider::S3(s3_upload())) })
    }

    fn v2_outputs() -> Vec<livekit::Output> {
        use livekit::output::Config;
        [Config::Stream(streams()), Config::Segments(segment()), Config::Images(image())]
            .map(|config| livekit::Output { config: Some(config), storage: storage_config() })
            .into()
    }

    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    fn requests() -> Vec<EgressRequest> {
        let url = || format!("https://user:{CANARY}@page/?token={CANARY}&{CANARY}#/room?key={CANARY}");
        let direct =
            |output| EgressRequest::Track(livekit::TrackEgressRequest { output: Some(output), ..Default::default() });
        vec![
            EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                custom_base_url: url(),
                file_outputs: all_outputs().into(),
                stream_outputs: vec![streams(), streams()],
                segment_outputs: vec![segment(), segment()],
                image_outputs: vec![image(), image()],
                output: Some(livekit::room_composite_egress_request::Output::Stream(streams())),
                ..Default::default()
            }),
            EgressRequest::Web(livekit::WebEgressRequest {
                url: url(),
                file_outputs: all_outputs().into(),
                output: Some(livekit::web_egress_request::Output::Segments(segment())),
                ..Default::default()
            }),
            EgressRequest::Participant(livekit::ParticipantEgressRequest {
                file_outputs: all_outputs().into(),
                image_outputs: vec![image(), image()],
                ..Default::default()
            }),
            EgressRequest::TrackComposite(livekit::TrackCompositeEgressRequest {
                segment_outputs: vec![segment(), segment()],
                output: Some(livekit::track_composite_egress_request::Output::File(all_outputs()[0].clone())),
                ..Default::default()
            }),
            direct(livekit::track_egress_request::Output::WebsocketUrl(format!("wss://u:{CANARY}@h/?k={CANARY}"))),
            direct(livekit::track_egress_request::Output::File(livekit::DirectFileOutput {
                output: Some(livekit::direct_file_output::Output::S3(s3_upload())),
                ..Default::default()
            })),
            EgressRequest::Egress(livekit::StartEgressRequest {
                source: Some(livekit::start_egress_request::Source::Web(livekit::WebSource {
                    url: url(),
                    ..Default::default()
                })),
                outputs: v2_outputs(),
                storage: storage_config(),
                ..Default::default()
            }),
            EgressRequest::Replay(livekit::ExportReplayRequest {
                source: Some(livekit::export_replay_request::Source::Template(livekit::TemplateSource {
                    custom_base_url: url(),
                    ..Default::default()
                })),
                outputs: v2_outputs(),
                storage: storage_config(),
                ..Default::default()
            }),
        ]
    }

    #[test]
    fn no_secret_of_any_output_is_shown() {
        for request in requests() {
            let info = livekit::EgressInfo { request: Some(redacted(&request)), ..Default::default() };
            let bytes = info.encode_to_vec();
            let shown = String::from_utf8_lossy(&bytes);
            assert!(!shown.contains(CANARY), "{shown}");
        }
    }

    #[test]
    fn a_page_is_shown_without_the_values_of_its_query() {
        for (url, shown) in [
            ("https://x/a", "https://x/a"),
            ("https://x/a?b=c&d=&e", "https://x/a?b={...}&d={...}&{...}"),
            ("https://u:p@x/#/room", "https://{...}@x/#{...}"),
            ("https://x/?q#", "https://x/?{...}#"),
            ("no url", "no url"),
        ] {
            assert_eq!(shown_page(url), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let webhook =
            livekit::WebhookConfig { url: "https://hook".into(), signing_key: "APIkey".into(), ..Default::default() };
        let mut upload = livekit::EncodedFileOutput { filepath: "a.mp4".into(), ..Default::default() };
        upload.output = Some(livekit::encoded_file_output::Output::S3(livekit::S3Upload {
            secret: canary(),
            bucket: "bucket".into(),
            region: "eu-west-1".into(),
            ..Default::default()
        }));
        let request = livekit::ParticipantEgressRequest {
            identity: "ann".into(),
            webhooks: vec![webhook],
            file_outputs: vec![upload],
            ..Default::default()
        };
        let mut expected = request.clone();
        let Some(livekit::encoded_file_output::Output::S3(s3)) = &mut expected.file_outputs[0].output else { panic!() };
        s3.secret = "{secret}".into();
        assert_eq!(redacted(&EgressRequest::Participant(request)), Shown::Participant(expected));
    }

    #[test]
    fn a_media_source_and_its_webhooks_are_shown_whole() {
        let webhook =
            livekit::WebhookConfig { url: "https://hook".into(), signing_key: "APIkey".into(), ..Default::default() };
        let route = livekit::AudioRoute {
            channel: livekit::AudioChannel::Right.into(),
            r#match: Some(livekit::audio_route::Match::ParticipantIdentity("ann".into())),
        };
        let media = livekit::MediaSource {
            video: Some(livekit::media_source::Video::VideoTrackId("TR_v".into())),
            audio: Some(livekit::AudioConfig { capture_all: true, routes: vec![route] }),
        };
        let request = livekit::StartEgressRequest {
            room_name: "sales".into(),
            source: Some(livekit::start_egress_request::Source::Media(media)),
            webhooks: vec![webhook],
            ..Default::default()
        };
        assert_eq!(redacted(&EgressRequest::Egress(request.clone())), Shown::Egress(request));
    }

    #[test]
    fn a_stream_key_is_recognised_but_not_told() {
        for (url, shown) in [
            ("rtmp://localhost:1935/live/stream-key", "rtmp://localhost:1935/live/{str...key}"),
            ("rtmp://h/app/abcdef live=1", "rtmp://h/app/{ab...ef} live=1"),
            ("rtmp://h/app/abc", "rtmp://h/app/{a...c}"),
            ("rtmps://h/app/ab", "rtmps://h/app/{...}"),
            ("mux://abcdefghi", "mux://{abc...ghi}"),
            ("srt://h:9000?mode=caller&passphrase=x", "srt://h:9000?mode={...}&passphrase={...}"),
            ("wss://u:p@h/audio", "wss://{...}@h/audio"),
            ("wss://h/audio#token", "wss://h/audio#{...}"),
            ("ws://h/a#token?x=1", "ws://h/a#{...}?x={...}"),
            ("ws://h/a?x=1#token", "ws://h/a?x={...}"),
            ("nothing", "{...}"),
            ("https://h/app/key", "{...}"),
            ("rtmp://key", "rtmp://{...}"),
            ("rtmps://h/app/key/?token=x live=1", "rtmps://{...}?token={...} live=1"),
        ] {
            assert_eq!(stream_url(url), shown);
        }
    }
}
