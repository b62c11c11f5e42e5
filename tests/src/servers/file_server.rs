//! A folder or a bucket over HTTP on a loopback port, as a web server gives it to a page of another origin: byte ranges, CORS,
//! and nothing that a browser may keep. It reads at each request, so what is replaced is seen.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;

use super::bucket::TestBucket;
use crate::clouds::web::{HttpReply, HttpRequest, HttpServer};

/// Ends when dropped.
pub struct FileServer {
    server: HttpServer,
}

impl FileServer {
    /// Serves everything below `root`.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::of(Source::Folder(root.to_owned())).await
    }

    /// Serves every object of a bucket.
    pub async fn of_bucket(bucket: Arc<TestBucket>) -> Result<Self> {
        Self::of(Source::Bucket(bucket)).await
    }

    async fn of(source: Source) -> Result<Self> {
        let source = Arc::new(source);
        let server = HttpServer::start(move |request| {
            let source = source.clone();
            async move {
                reply(&source, &request)
                    .await
                    .with("access-control-allow-origin", "*")
                    .with("access-control-allow-headers", "*")
                    .with("access-control-expose-headers", "Content-Length, Content-Range")
                    .with("cache-control", "no-store")
            }
        });
        Ok(Self { server: server.await? })
    }

    /// Address of a file, by its path below the folder or in the bucket.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.server.url())
    }
}

enum Source {
    Folder(PathBuf),
    Bucket(Arc<TestBucket>),
}

impl Source {
    async fn read(&self, name: &str) -> Option<Bytes> {
        match self {
            Self::Folder(root) => tokio::fs::read(root.join(name)).await.ok().map(Bytes::from),
            Self::Bucket(bucket) => bucket.read(name).await.ok().flatten(),
        }
    }
}

async fn reply(source: &Source, request: &HttpRequest) -> HttpReply {
    let empty = |status| HttpReply::Content { status, headers: vec![], body: Bytes::new() };
    match request.method.as_str() {
        "OPTIONS" => return empty(204),
        "GET" | "HEAD" => {}
        _ => return empty(405),
    }
    let name = request.path.trim_start_matches('/');
    if name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return empty(404);
    }
    let Some(content) = source.read(name).await else { return empty(404) };
    let (status, range) = match request.header("range") {
        "" => (200, Some(0..content.len())),
        asked => (206, range_of(asked, content.len())),
    };
    let Some(range) = range else {
        return empty(416).with("content-range", format!("bytes */{}", content.len()));
    };
    let reply = HttpReply::Content { status, headers: vec![], body: content.slice(range.clone()) };
    let reply = reply.with("content-type", content_type(name)).with("accept-ranges", "bytes");
    if status == 200 {
        return reply;
    }
    reply.with("content-range", format!("bytes {}-{}/{}", range.start, range.end - 1, content.len()))
}

/// The bytes that a `Range` of one part asks for; `None`: there are none.
fn range_of(header: &str, length: usize) -> Option<Range<usize>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (begin, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) => (first, length),
        (Err(_), Ok(last)) => (length.saturating_sub(last), length),
        (Err(_), Err(_)) => return None,
    };
    (begin < end).then_some(begin..end)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "m3u8" => "application/vnd.apple.mpegurl",
        "ts" => "video/mp2t",
        "mp4" | "m4s" => "video/mp4",
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_what_is_there() {
        for (asked, range) in [
            ("bytes=0-3", Some(0..4)),
            ("bytes=4-", Some(4..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=8-30", Some(8..10)),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-", None),
            ("pictures=0-1", None),
        ] {
            assert_eq!(range_of(asked, 10), range, "{asked}");
        }
    }

    #[tokio::test]
    async fn files_are_served_to_other_origins() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.ts"), b"0123456789").unwrap();
        let server = FileServer::start(folder.path()).await.unwrap();
        let client = reqwest::Client::new();
        let get = |name: &str, range: &'static str| client.get(server.url(name)).header("range", range).send();
        let part = get("a.ts", "bytes=2-3").await.unwrap();
        assert_eq!(part.status().as_u16(), 206);
        assert_eq!(part.headers()["content-range"], "bytes 2-3/10");
        assert_eq!(part.headers()["access-control-allow-origin"], "*");
        assert_eq!(part.headers()["content-type"], "video/mp2t");
        assert_eq!(part.bytes().await.unwrap().as_ref(), b"23");
        assert_eq!(get("a.ts", "bytes=10-").await.unwrap().status().as_u16(), 416);
        let whole = client.get(server.url("a.ts")).send().await.unwrap();
        assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(10)));
        for hidden in ["b.ts", ".a", "", "x/.."] {
            assert_eq!(client.get(server.url(hidden)).send().await.unwrap().status().as_u16(), 404, "{hidden}");
        }
    }
}
