//! Web pages: which requests are recorded from one ([`plan_of`]), and what Chromium opens for them ([`page_url`]). The URL holds
//! secrets (the room token, whatever a request has in its query) and is no part of the plan.

use serde::{Deserialize, Serialize};
use spillway_protocol::Secret;
use spillway_protocol::rpc::StartEgressRequest;
use url::Url;

use crate::error::PlanError;
use crate::fields::RequestedPage;
use crate::page_types::{PageKind, PagePlan};
use crate::request;
use crate::types::Mixing;

/// What makes the picture of room composites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompositeEngine {
    /// Built-in layouts by our own compositor; a page where the request or the installation names one.
    #[default]
    Auto,
    /// Never a page: a request with one of its own is refused.
    Native,
    /// Always a page, but for sound alone without a layout.
    Page,
}

/// What an installation has decided about pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRules {
    /// For room composites.
    pub engine: CompositeEngine,
    /// Template of room composites that name none; `None`: there is none.
    pub template_base: Option<String>,
}

/// The page of a request; `None`: tracks are recorded. `mixing`: which participants are to be heard on which channel.
pub(crate) fn plan_of(
    asked: Option<RequestedPage>,
    rules: &PageRules,
    mixing: Mixing,
) -> Result<Option<PagePlan>, PlanError> {
    let (own, only_sound) = match asked {
        None => return Ok(None),
        Some(RequestedPage::Web { awaits_start }) => {
            return Ok(Some(PagePlan { kind: PageKind::Web, awaits_start }));
        }
        Some(RequestedPage::Template { own, only_sound }) => (own, only_sound),
    };
    let has_base = own || rules.template_base.is_some();
    let is_page = match rules.engine {
        CompositeEngine::Native if own => return Err(PlanError::NativeOnly),
        CompositeEngine::Native => false,
        // livekit/egress' rule: sound alone that names no page needs none.
        CompositeEngine::Auto | CompositeEngine::Page if only_sound && !own => false,
        CompositeEngine::Auto => has_base,
        CompositeEngine::Page if !has_base => return Err(PlanError::NoTemplate),
        CompositeEngine::Page => true,
    };
    if is_page && mixing != Mixing::Both {
        // A page is heard as it plays. livekit/egress ignores the field.
        return Err(PlanError::Impossible {
            field: "audio_mixing",
            asked: "channels by participant".to_owned(),
            possible: "the default mixing, where a page is recorded",
        });
    }
    Ok(is_page.then_some(PagePlan { kind: PageKind::Template, awaits_start: true }))
}

/// What Chromium opens for a request that [`plan`](crate::plan) has given a page: the URL as the request names it, or the
/// template with `layout`, `token` and `url` in its query, as livekit/egress writes it (all names in alphabetical order).
///
/// # Errors
///
/// The request has no page, or the template's URL is none. A retry is useless.
pub fn page_url(
    start: &StartEgressRequest,
    kind: PageKind,
    template_base: Option<&str>,
    (ws_url, token): (&str, &Secret),
) -> Result<Secret, PlanError> {
    let address = request::page_address(start)?;
    let (base, layout) = match kind {
        PageKind::Web => return Ok(Secret::new(address.url.to_owned())),
        PageKind::Template if address.url.is_empty() => (template_base.ok_or(PlanError::NoTemplate)?, address.layout),
        PageKind::Template => (address.url, address.layout),
    };
    let mut url = Url::parse(base).map_err(|_| PlanError::Field("template base url"))?;
    let ours = [("layout", layout), ("token", token.reveal().as_str()), ("url", ws_url)];
    let is_ours = |name: &str| ours.iter().any(|(our, _)| *our == name);
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().filter(|(name, _)| !is_ours(name)).collect();
    pairs.extend(ours.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // Stable: several values of one name keep their order.
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    url.query_pairs_mut().clear().extend_pairs(pairs);
    Ok(Secret::new(url.into()))
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
