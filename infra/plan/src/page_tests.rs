use livekit_protocol as livekit;
use spillway_protocol::code::Code;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

use super::*;
use crate::output_types::{AudioCodec, Container, Output};
use crate::plan::{Defaults, plan};
use crate::types::{AudioPlan, EgressKind, EgressPlan, Source, VideoPlan};

type Composite = livekit::RoomCompositeEgressRequest;

const BASE: &str = "https://templates.example/t?theme=a&layout=x#part";

fn start(request: EgressRequest) -> StartEgressRequest {
    StartEgressRequest { egress_id: "EG_x".into(), request: Some(request), ..StartEgressRequest::default() }
}

fn file() -> livekit::EncodedFileOutput {
    livekit::EncodedFileOutput::default()
}

fn composite() -> Composite {
    Composite { room_name: "sales".into(), file_outputs: vec![file()], ..Composite::default() }
}

fn web(url: &str) -> livekit::WebEgressRequest {
    livekit::WebEgressRequest { url: url.into(), file_outputs: vec![file()], ..Default::default() }
}

fn second(source: livekit::start_egress_request::Source) -> livekit::StartEgressRequest {
    let output = livekit::Output {
        config: Some(livekit::output::Config::File(livekit::FileOutput::default())),
        ..Default::default()
    };
    livekit::StartEgressRequest { source: Some(source), outputs: vec![output], ..Default::default() }
}

fn rules(engine: CompositeEngine, template_base: Option<&str>) -> Defaults {
    let template_base = template_base.map(str::to_owned);
    Defaults { pages: PageRules { engine, template_base }, ..Defaults::default() }
}

fn planned(request: EgressRequest) -> EgressPlan {
    plan(&start(request), &Defaults::default()).unwrap()
}

fn url(request: EgressRequest, kind: PageKind, base: Option<&str>) -> Result<String, PlanError> {
    let token = Secret::new("to ken&=".to_owned());
    page_url(&start(request), kind, base, ("wss://h:1/", &token)).map(|url| url.reveal().clone())
}

#[test]
fn a_web_page_needs_no_room_and_is_one_picture_and_one_sound() {
    let bare = Defaults { mints_tokens: false, knows_server: false, ..Defaults::default() };
    let first = plan(&start(EgressRequest::Web(web("https://x/?a=b"))), &bare).unwrap();
    assert_eq!((first.kind, first.room_name.as_str()), (EgressKind::Web, ""));
    assert_eq!(first.page(), Some(PagePlan { kind: PageKind::Web, awaits_start: false }));
    assert!(matches!(first.picture, Some(VideoPlan::Single(_))));
    assert!(matches!(first.sound, Some(AudioPlan::Mixed { codec: AudioCodec::Aac, .. })));
    assert_eq!(first.file(0).unwrap().container, Some(Container::Mp4));
    let text = serde_json::to_string(&first).unwrap();
    assert!(!text.contains("https"), "the URL is no part of it: {text}");
    assert_eq!(serde_json::from_str::<EgressPlan>(&text).unwrap(), first);

    let awaited =
        planned(EgressRequest::Web(livekit::WebEgressRequest { await_start_signal: true, ..web("http://x") }));
    assert_eq!(awaited.page(), Some(PagePlan { kind: PageKind::Web, awaits_start: true }));
    let heard = planned(EgressRequest::Web(livekit::WebEgressRequest { audio_only: true, ..web("http://x") }));
    assert_eq!((heard.picture.is_none(), heard.file(0).unwrap().container), (true, Some(Container::Ogg)));
    let seen = planned(EgressRequest::Web(livekit::WebEgressRequest { video_only: true, ..web("http://x") }));
    assert_eq!((seen.picture.is_some(), seen.sound), (true, None));

    let source = livekit::WebSource { url: "https://x".into(), await_start_signal: true, ..Default::default() };
    let second = planned(EgressRequest::Egress(second(livekit::start_egress_request::Source::Web(source))));
    assert_eq!((second.kind, second.page()), (awaited.kind, awaited.page()));
    assert_eq!(second.picture, first.picture);
}

#[test]
fn every_kind_of_output_takes_a_page() {
    let request = livekit::WebEgressRequest {
        segment_outputs: vec![livekit::SegmentedFileOutput::default()],
        image_outputs: vec![livekit::ImageOutput::default()],
        stream_outputs: vec![livekit::StreamOutput { protocol: 2, urls: vec!["srt://h:1".into()] }],
        ..web("https://x")
    };
    let kinds: Vec<_> = planned(EgressRequest::Web(request)).outputs.iter().map(Output::kind).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn what_is_wrong_with_a_page_is_said_as_the_peer_says_it() {
    let both = livekit::WebEgressRequest { audio_only: true, video_only: true, ..web("https://x") };
    for (request, field) in [
        (web(""), "web url"),
        (web("ftp://x"), "web url"),
        (web("page.html"), "web url"),
        (both, "audio_only and video_only"),
        (livekit::WebEgressRequest { file_outputs: vec![], ..web("https://x") }, "output"),
    ] {
        let error = plan(&start(EgressRequest::Web(request)), &Defaults::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("request has missing or invalid field: {field}"));
    }
}

#[test]
fn a_room_composite_is_a_page_where_one_is_named() {
    use CompositeEngine::{Auto, Native, Page};
    let own = || Composite { custom_base_url: BASE.into(), layout: "of mine".into(), ..composite() };
    let heard = || Composite { audio_only: true, ..composite() };
    let heard_in_layout = || Composite { layout: "speaker".into(), ..heard() };
    for (request, engine, base, is_page) in [
        (composite(), Auto, None, false),
        (composite(), Auto, Some(BASE), true),
        (composite(), Native, Some(BASE), false),
        (composite(), Page, Some(BASE), true),
        (own(), Auto, None, true),
        (own(), Page, None, true),
        (heard(), Auto, Some(BASE), false),
        (heard(), Page, Some(BASE), false),
        (heard_in_layout(), Auto, Some(BASE), true),
        (heard_in_layout(), Auto, None, false),
        (Composite { custom_base_url: BASE.into(), ..heard() }, Auto, None, true),
    ] {
        let plan = plan(&start(EgressRequest::RoomComposite(request.clone())), &rules(engine, base)).unwrap();
        assert_eq!(plan.page().is_some(), is_page, "{engine:?} {base:?} {request:?}");
        assert_eq!(plan.kind, EgressKind::RoomComposite);
        if is_page {
            assert_eq!(plan.source, Source::Page(PagePlan { kind: PageKind::Template, awaits_start: true }));
            assert!(!matches!(plan.picture, Some(VideoPlan::Composed { .. })));
        }
    }
    for (request, engine, code, text) in [
        (own(), Native, Code::PermissionDenied, "composite_engine: native"),
        (composite(), Page, Code::FailedPrecondition, "template_base"),
        (Composite { audio_mixing: 1, ..own() }, Auto, Code::InvalidArgument, "audio_mixing"),
        (Composite { layout: "nosuch".into(), ..composite() }, Auto, Code::InvalidArgument, "layout"),
    ] {
        let error = plan(&start(EgressRequest::RoomComposite(request)), &rules(engine, None)).unwrap_err();
        assert!(error.code() == code && error.to_string().contains(text), "{error}");
    }
    let template = livekit::TemplateSource { custom_base_url: BASE.into(), ..Default::default() };
    let asked = second(livekit::start_egress_request::Source::Template(template));
    let asked = livekit::StartEgressRequest { room_name: "sales".into(), ..asked };
    assert!(planned(EgressRequest::Egress(asked)).page().is_some());
}

#[test]
fn a_template_gets_layout_token_and_server_in_its_query() {
    let own = Composite { custom_base_url: BASE.into(), layout: "a b".into(), ..composite() };
    assert_eq!(
        url(EgressRequest::RoomComposite(own), PageKind::Template, Some("https://other")).unwrap(),
        "https://templates.example/t?layout=a+b&theme=a&token=to+ken%26%3D&url=wss%3A%2F%2Fh%3A1%2F#part"
    );
    let none = || EgressRequest::RoomComposite(composite());
    assert_eq!(
        url(none(), PageKind::Template, Some("http://localhost:7980/")).unwrap(),
        "http://localhost:7980/?layout=&token=to+ken%26%3D&url=wss%3A%2F%2Fh%3A1%2F"
    );
    assert_eq!(url(none(), PageKind::Template, None), Err(PlanError::NoTemplate));
    let verbatim = "https://x/a?z=1&a=%20b";
    assert_eq!(url(EgressRequest::Web(web(verbatim)), PageKind::Web, Some(BASE)).unwrap(), verbatim);
    let track = EgressRequest::Track(livekit::TrackEgressRequest::default());
    assert_eq!(url(track, PageKind::Web, None), Err(PlanError::Field("request")));
}
