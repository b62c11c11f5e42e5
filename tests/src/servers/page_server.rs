//! Pages of our own on a web server, for recordings of pages: one that shows and sounds what the analyser reads, and a template
//! of room composites.

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::file_server::FileServer;
use crate::assets::npm_file;

const PAGE: &str = include_str!("../../assets/page.html");
const TEMPLATE: &str = include_str!("../../assets/template.html");

/// Ends when dropped.
pub struct PageServer {
    server: FileServer,
    folder: TempDir,
}

impl PageServer {
    /// With the page alone.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        std::fs::write(folder.path().join("page.html"), PAGE).context("write the page")?;
        Ok(Self { server: FileServer::start(folder.path()).await?, folder })
    }

    /// Of the page, with this query: see `assets/page.html`.
    pub fn page(&self, query: &str) -> String {
        self.server.url(&format!("page.html?{query}"))
    }

    /// Of a file that is not there.
    pub fn missing(&self) -> String {
        self.server.url("missing.html")
    }

    /// Of the template, with this query. Its livekit-client is put beside it.
    pub fn template(&self, query: &str) -> Result<String> {
        let client = npm_file("livekit-client/dist/livekit-client.umd.js")?;
        std::fs::copy(client, self.folder.path().join("livekit-client.umd.js")).context("copy livekit-client")?;
        std::fs::write(self.folder.path().join("template.html"), TEMPLATE).context("write the template")?;
        Ok(self.server.url(&format!("template.html?{query}")))
    }
}
