//! A ticket → what the session is given. Values only; secrets stay where they do not print themselves.

use std::path::PathBuf;

use anyhow::Context;
use prost::Message;
use spillway_bus::{LiveStream, LiveStreams, Ticket};
use spillway_guard::GuardRules;
use spillway_plan::{Destinations, EgressPlan, Output};
use spillway_process::Clock;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::{Secret, hide_value};
use tokio::sync::watch;
use tracing::warn;

use crate::config::Settings;
use crate::session::{SessionJob, media};
use crate::upload::UploadResources;

pub(crate) fn destinations_of(ticket: &Ticket) -> anyhow::Result<Vec<Destinations>> {
    let Some(text) = &ticket.destinations else { return Ok(vec![]) };
    // The error goes into the EgressInfo.
    serde_json::from_str(text.reveal()).map_err(hide_value).context("read the destinations in the ticket")
}

/// Settings of a dispatcher of another version that cannot be read are no reason to lose a recording.
pub(crate) fn settings_of(ticket: &Ticket) -> Settings {
    let settings = match &ticket.runner {
        serde_json::Value::Null => Settings::default(),
        given => serde_json::from_value(given.clone()).unwrap_or_else(|error| {
            let error = hide_value(error);
            warn!(%error, "runner settings in the ticket not understood, defaults taken");
            Settings::default()
        }),
    };
    Settings { guard: guard_of(&ticket.runner), ..settings }
}

/// What the request may name, by the settings in a ticket. A dispatcher writes it always, if only that nothing is open; one
/// that does not is of a version without a guard, whose configured stores are not marked as such: while it is replaced its
/// recordings go on as they began.
pub(crate) fn guard_of(settings: &serde_json::Value) -> GuardRules {
    match settings.get("guard") {
        Some(given) => serde_json::from_value(given.clone()).unwrap_or_default(),
        None => GuardRules::unrestricted(),
    }
}

/// A plan that cannot be read has none; that is an error later, when the egress is ours.
pub(super) fn can_be_updated(ticket: &Ticket) -> bool {
    let plan = serde_json::from_str::<EgressPlan>(ticket.plan_json.reveal());
    plan.is_ok_and(|plan| plan.streams().is_some_and(|(_, streams)| streams.can_be_updated()))
}

/// A request to record, from a ticket or without a dispatcher. Its secrets are here and not in the plan.
pub(super) struct RequestedRecording {
    pub(super) start: StartEgressRequest,
    pub(super) plan: EgressPlan,
    /// As they are by now; `None`: as the request says.
    pub(super) streams: Option<LiveStreams>,
    pub(super) ws_url: String,
    pub(super) token: Secret,
}

impl RequestedRecording {
    pub(super) fn of_ticket(ticket: &Ticket) -> anyhow::Result<Self> {
        let plan = serde_json::from_str::<EgressPlan>(ticket.plan_json.reveal()).map_err(hide_value);
        let mut plan = plan.context("read the plan in the ticket")?;
        for output in &mut plan.outputs {
            if let (Output::Streams(planned), Some(streams)) = (output, &ticket.streams) {
                planned.count = u32::try_from(streams.live.len()).unwrap_or(u32::MAX);
            }
        }
        Ok(Self {
            start: StartEgressRequest::decode(ticket.request.reveal().as_slice())
                .context("read the request in the ticket")?,
            plan,
            streams: ticket.streams.clone(),
            ws_url: ticket.ws_url.clone(),
            token: ticket.token.clone(),
        })
    }

    pub(super) fn job(
        self,
        settings: &Settings,
        program: PathBuf,
        resources: UploadResources,
        (clock, live_streams): (Clock, watch::Sender<LiveStreams>),
    ) -> anyhow::Result<SessionJob> {
        let Self { start, plan, streams, ws_url, token } = self;
        let base = settings.template_base.as_deref();
        let page_url = plan.page().map(|page| spillway_plan::page_url(&start, page.kind, base, (&ws_url, &token)));
        let page_url = page_url.transpose()?;
        let streams = match (plan.streams(), streams) {
            (None, _) => LiveStreams::default(),
            (Some(_), Some(streams)) => streams,
            (Some(_), None) => first_streams(spillway_plan::stream_urls(&start)?),
        };
        Ok(SessionJob {
            rules: settings.rules(&plan.limits),
            root: settings.root().context("find the working directory")?,
            media: settings.media_settings(page_url.as_ref()),
            page_url,
            streams,
            live_streams,
            earlier: None,
            plan,
            ws_url,
            token,
            program,
            clock,
            resources,
        })
    }
}

/// Those of a request, in its order.
fn first_streams(urls: Vec<Secret>) -> LiveStreams {
    let next_id = u32::try_from(urls.len()).unwrap_or(u32::MAX);
    LiveStreams { next_id, live: (0..).zip(urls).map(|(id, url)| LiveStream { id, url }).collect() }
}

pub(super) fn job_of(
    ticket: &Ticket,
    settings: &Settings,
    resources: UploadResources,
    (clock, live_streams): (&Clock, watch::Sender<LiveStreams>),
) -> anyhow::Result<SessionJob> {
    let request = RequestedRecording::of_ticket(ticket)?;
    let program = settings.media_program.clone().map_or_else(media::program, Ok)?;
    request.job(settings, program, resources, (clock.clone(), live_streams))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_without_a_guard_are_of_a_dispatcher_that_knows_none() {
        for older in [json!(null), json!({}), json!({ "media": {} })] {
            assert_eq!(guard_of(&older), GuardRules::unrestricted(), "{older}");
        }
        for closed in [json!({ "guard": {} }), json!({ "guard": { "allow": [] } }), json!({ "guard": "unreadable" })] {
            assert_eq!(guard_of(&closed), GuardRules::default(), "{closed}");
        }
        let open = json!({ "guard": { "allow": ["minio"] }, "of_a_newer_version": 1 });
        assert_eq!(guard_of(&open).allow, ["minio"]);
    }
}
