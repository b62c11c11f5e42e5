//! The built-in template over HTTP on a loopback port, for the Chromium that records it. In: the folder of its built files, read
//! once. Out: those files and nothing else. One task for the port and one for each connection, in the runtime that starts it.
//! Whether Chromium's proxy lets a page reach the port is not decided here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use spillway_plan::built_in_template;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};

const PAGE: &str = "index.html";

/// The page's own files and connections to a room, nothing else. Its address has the room's token in it: no other server is
/// told of it.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; media-src blob:; \
         connect-src http: https: ws: wss:; base-uri 'none'; form-action 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

/// After an error of `accept`, which may last (no file descriptor is left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no built-in template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateServerError {
    /// Its folder cannot be read.
    #[error("read the built-in template in {}", folder.display())]
    Read {
        /// Where it was looked for.
        folder: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The folder is not that of a built template.
    #[error("the built-in template in {} has no {PAGE}", folder.display())]
    NoPage {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The port is taken, or no file descriptor is left.
    #[error("listen on port {port} for the built-in template")]
    Port {
        /// The port that was asked for; 0: any.
        port: u16,
        /// The operating system's error.
        source: io::Error,
    },
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct TemplateServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TemplateServer {
    /// Reads the files of `folder` (those in folders below it are left out) and serves them on `port` of 127.0.0.1; 0: any
    /// free one. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read or has no page: there is no template on this machine, and a retry changes nothing. When
    /// the port is taken: another one may be free.
    pub async fn start(folder: &Path, port: u16) -> Result<Self, TemplateServerError> {
        let files = read(folder).await.map_err(|source| TemplateServerError::Read { folder: folder.into(), source })?;
        if !files.contains_key(PAGE) {
            return Err(TemplateServerError::NoPage { folder: folder.into() });
        }
        let failed = |source| TemplateServerError::Port { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let task = tokio::spawn(serve(listener, Arc::new(files)));
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the page, without a query.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Where a page of the built-in template is served, whose URL has `spillway_plan::built_in_template::URL` for an address;
    /// `None`: it is a page of another server.
    pub fn url_of(&self, page: &str) -> Option<String> {
        built_in_template::served_at(page, self.address)
    }
}

impl Drop for TemplateServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// By their names.
type TemplateFiles = BTreeMap<String, Bytes>;

async fn read(folder: &Path) -> io::Result<TemplateFiles> {
    let mut files = TemplateFiles::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        // A name that is not text is none that a page asks for.
        if let Ok(name) = entry.file_name().into_string()
            && entry.file_type().await?.is_file()
        {
            files.insert(name, tokio::fs::read(entry.path()).await?.into());
        }
    }
    Ok(files)
}

async fn serve(listener: TcpListener, files: Arc<TemplateFiles>) {
    // Dropped with the task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(attend(stream, Arc::clone(&files)));
            }
            Err(error) => {
                warn!(%error, "the built-in template: no connection taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn attend(stream: TcpStream, files: Arc<TemplateFiles>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &files);
        async move { Ok::<_, Infallible>(response) }
    });
    // With a timer, hyper closes connections whose request head takes longer than 30 s.
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "the built-in template: a connection broke");
    }
}

fn answer(method: &Method, path: &str, files: &TemplateFiles) -> Response<Full<Bytes>> {
    let name = path.strip_prefix('/').unwrap_or(path);
    let name = if name.is_empty() { PAGE } else { name };
    let file = files.get(name);
    let is_read = *method == Method::GET || *method == Method::HEAD;
    let (status, body) = match file {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
        Some(file) => (StatusCode::OK, file.clone()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (header, value) in HEADERS {
        headers.insert(header, HeaderValue::from_static(value));
    }
    match status {
        StatusCode::OK => headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(name))),
        StatusCode::METHOD_NOT_ALLOWED => headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD")),
        _ => None,
    };
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn its_files_are_served_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "<p>here</p>").unwrap();
        std::fs::write(folder.path().join("template.js"), "let here;").unwrap();
        std::fs::create_dir(folder.path().join("below")).unwrap();
        std::fs::write(folder.path().join("below/secret"), "x").unwrap();
        let server = TemplateServer::start(folder.path(), 0).await.unwrap();
        let address = server.address();
        assert_eq!(server.url(), format!("http://{address}/"));
        let page = format!("{}?layout=grid", built_in_template::URL);
        assert_eq!(server.url_of(&page), Some(format!("http://{address}/?layout=grid")));

        let page = ask(address, "GET /?url=ws%3A%2F%2Fx&token=t").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.ends_with("\r\n\r\n<p>here</p>"), "{page}");
        for header in ["content-type: text/html", "referrer-policy: no-referrer", "cache-control: no-store"] {
            assert!(page.contains(header), "{header} in {page}");
        }
        assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{page}");
        let script = ask(address, "GET /template.js").await;
        assert!(script.contains("content-type: text/javascript") && script.ends_with("let here;"), "{script}");
        let head = ask(address, "HEAD /").await;
        assert!(head.contains("content-length: 11\r\n") && head.ends_with("\r\n\r\n"), "{head}");

        for hidden in ["/below/secret", "/below", "/../index.html", "//index.html", "/index.html/", "/nosuch.js"] {
            let refused = ask(address, &format!("GET {hidden}")).await;
            assert!(refused.starts_with("HTTP/1.1 404 "), "{hidden}: {refused}");
        }
        let posted = ask(address, "POST /").await;
        assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");

        drop(server);
        let mut tries = 0;
        // The task that was aborted has the listener.
        while TcpStream::connect(address).await.is_ok() {
            tries += 1;
            assert!(tries < 100, "the port is closed with the server");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn without_a_page_or_a_port_there_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = TemplateServer::start(folder.path(), 0).await.unwrap_err();
        assert!(matches!(error, TemplateServerError::NoPage { .. }), "{error}");
        let error = TemplateServer::start(&folder.path().join("nosuch"), 0).await.unwrap_err();
        assert!(matches!(error, TemplateServerError::Read { .. }), "{error}");
        std::fs::write(folder.path().join("index.html"), "x").unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = TemplateServer::start(folder.path(), port).await.unwrap_err();
        assert!(matches!(error, TemplateServerError::Port { .. }), "{error}");
    }
}
