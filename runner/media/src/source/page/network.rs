//! What a page can reach: its own URL at the address that serves it, and everything else through the guard's proxy. Made once
//! for a recording, by the page's driver, and kept over restarts of the browser.

use std::net::SocketAddr;

use spillway_plan::{Secret, built_in_template};
use spillway_process::chain;
use tracing::debug;

use super::guard::GuardProxy;
use super::message::PageOptions;
use crate::template_server::TemplateServer;

/// Hosts that `details` names. A page can ask for as many as it likes.
const MAX_TOLD: usize = 8;

/// Ends with the browser's connections.
pub(super) struct PageNetwork {
    proxy: GuardProxy,
    _template: Option<TemplateServer>,
    url: Secret,
    told: usize,
}

impl PageNetwork {
    /// Within a tokio runtime. The error is for the user.
    pub(super) async fn open(options: &PageOptions) -> Result<Self, String> {
        let mut guard = options.guard.clone();
        let mut url = options.url.clone();
        let mut template = None;
        if url.reveal().starts_with(built_in_template::URL) {
            let server = TemplateServer::start(&options.settings.template_folder, 0).await;
            let server = server.map_err(|error| chain(&error).to_string())?;
            guard.open(&server.url());
            if let Some(served) = server.url_of(url.reveal()) {
                url = Secret::new(served);
            }
            template = Some(server);
        }
        let proxy = GuardProxy::start(&guard).map_err(|error| chain(&error).to_string())?;
        Ok(Self { proxy, _template: template, url, told: 0 })
    }

    /// What the browser opens.
    pub(super) fn url(&self) -> &Secret {
        &self.url
    }

    /// The browser's only way out.
    pub(super) fn proxy(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Hosts that the page was refused since the last call, each in words; the first of a recording only.
    pub(super) fn refusals(&mut self) -> Vec<String> {
        let mut refusals = vec![];
        for refusal in self.proxy.take_refusals() {
            self.told += 1;
            match self.told {
                1..=MAX_TOLD => refusals.push(format!("the page: {refusal}")),
                _ => debug!(%refusal, "not told: others were refused before"),
            }
        }
        refusals
    }

    /// Why the page's own host was not reached, if it was not: whether it may not be, and the reason in words.
    pub(super) fn failure(&self) -> Option<(bool, String)> {
        self.proxy.failure(self.url.reveal()).map(|error| (error.is_refusal(), error.to_string()))
    }
}
