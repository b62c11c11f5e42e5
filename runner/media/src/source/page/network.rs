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

#[cfg(test)]
mod tests {
    use spillway_ipc::PageSettings;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::source::page::guard::GuardOptions;

    fn options(url: String, settings: PageSettings) -> PageOptions {
        PageOptions {
            url: Secret::new(url),
            awaits_start: true,
            joins_room: true,
            size: (640, 360),
            framerate: 30,
            settings,
            guard: GuardOptions::default(),
        }
    }

    /// The first line of what the proxy answers.
    async fn asked(network: &PageNetwork, url: &str) -> String {
        let mut stream = TcpStream::connect(network.proxy()).await.unwrap();
        let request = format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_built_in_template_is_reached_and_nothing_else_of_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "here").unwrap();
        let settings = PageSettings { template_folder: folder.path().to_owned(), ..PageSettings::default() };
        let url = format!("{}?layout=grid&token=t", built_in_template::URL);
        let mut network = PageNetwork::open(&options(url, settings.clone())).await.unwrap();
        let served = network.url().reveal().clone();
        assert!(served.starts_with("http://127.0.0.1:") && served.ends_with("/?layout=grid&token=t"), "{served}");
        assert!(asked(&network, &served).await.contains(" 200"));
        assert_eq!((network.refusals(), network.failure()), (vec![], None));

        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = format!("http://{}/", other.local_addr().unwrap());
        assert!(asked(&network, &other).await.contains(" 403"));
        let told = ["the page: 127.0.0.1 is refused: it is a loopback address"];
        assert_eq!((network.refusals(), network.failure()), (told.map(str::to_owned).to_vec(), None));
        // A recording names some hosts, not all.
        for host in 1..20 {
            asked(&network, &format!("http://10.0.0.{host}/")).await;
        }
        assert_eq!(network.refusals().len(), MAX_TOLD - 1);

        let missing = PageSettings { template_folder: folder.path().join("missing"), ..settings };
        let error = PageNetwork::open(&options(built_in_template::URL.to_owned(), missing)).await.err().unwrap();
        assert!(error.contains("built-in template"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn why_the_page_itself_is_not_reached_is_known() {
        let options = options("http://10.0.0.5/?secret=s".to_owned(), PageSettings::default());
        let network = PageNetwork::open(&options).await.unwrap();
        assert!(asked(&network, "http://10.0.0.5/?secret=s").await.contains(" 403"));
        let why = "10.0.0.5 is refused: it is a private address".to_owned();
        assert_eq!(network.failure(), Some((true, why)));
    }
}
