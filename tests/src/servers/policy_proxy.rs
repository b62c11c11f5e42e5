//! An HTTP proxy in front of a store that enforces the runner's policy: a request without permission is refused with
//! the vendor's error and recorded.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::bucket::SAS;
use super::fault_proxy::forwarded;
use super::proxy::read_head;
use crate::clouds::metadata::IssuedTokens;
use crate::clouds::policy::{Permission, Policy};

/// API of the store; decides which permissions a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreProtocol {
    /// Amazon S3.
    S3,
    /// Google's XML API.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// The proxy; ends when dropped.
pub struct PolicyProxy {
    /// Where it listens.
    pub address: SocketAddr,
    is_tls: bool,
    log: Arc<Mutex<PolicyLog>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct PolicyLog {
    used: BTreeSet<String>,
    refused: Vec<String>,
}

impl PolicyProxy {
    /// A proxy in front of the store at `to` (`host:port`). With `known`, only these identities are accepted.
    pub async fn start(
        to: &str,
        protocol: StoreProtocol,
        policy: Policy,
        known: Option<AcceptedIdentities>,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let address = listener.local_addr()?;
        let log = Arc::<Mutex<PolicyLog>>::default();
        let (issued, tls) = known.map_or((None, None), |known| (Some(known.issued), known.tls));
        let is_tls = tls.is_some();
        let check = Arc::new(PolicyCheck { to: to.to_owned(), protocol, policy, issued, log: log.clone() });
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let check = check.clone();
                // A client may hang up.
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => check.serve(tls.accept(client).await?).await,
                        None => check.serve(client).await,
                    }
                });
            }
        });
        Ok(Self { address, is_tls, log, task })
    }

    /// `http://` or `https://` and the address.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    /// Every permission that a request has used.
    pub fn used(&self) -> BTreeSet<String> {
        locked(&self.log).used.clone()
    }

    /// Every permission that was refused, with the resource.
    pub fn refused(&self) -> Vec<String> {
        locked(&self.log).refused.clone()
    }
}

impl Drop for PolicyProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked(log: &Mutex<PolicyLog>) -> MutexGuard<'_, PolicyLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Identities that are accepted: every token that a metadata server has issued and that is valid.
#[derive(Clone)]
pub struct AcceptedIdentities {
    /// Tokens of the metadata server.
    pub issued: IssuedTokens,
    /// For clients that send a token over TLS only.
    pub tls: Option<TlsAcceptor>,
}

/// A certificate for 127.0.0.1, and a file with it that programs can trust (`SSL_CERT_FILE`).
pub fn certificate(file: &Path) -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).context("make a certificate")?;
    let text = STANDARD.encode(made.cert.der());
    let lines: Vec<String> =
        text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    std::fs::write(file, pem).context("write a certificate")?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct PolicyCheck {
    to: String,
    protocol: StoreProtocol,
    policy: Policy,
    issued: Option<IssuedTokens>,
    log: Arc<Mutex<PolicyLog>>,
}

/// Code and message.
type PolicyRefusal = (&'static str, String);

impl PolicyCheck {
    /// One request for each connection: the response has `Connection: close`.
    async fn serve(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
        let (head, mut body) = read_head(&mut client).await?;
        let header = |name: &str| {
            head.split("\r\n").find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if header("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while body.len() < length {
            if client.read_buf(&mut body).await? == 0 {
                return Ok(());
            }
        }
        let mut line = head.split(' ');
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let tagged = header("x-amz-tagging").is_some();
        let authorization = header("authorization").unwrap_or_default();
        let answer = match self.refusal(authorization, needed(self.protocol, method, path, query, tagged)) {
            None => forwarded(&self.to, &self.readdressed(&head), &body).await?,
            Some((code, message)) => {
                let message =
                    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
                let head = format!(
                    "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nx-ms-error-code: {code}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                    message.len()
                );
                let message = if method == "HEAD" { "" } else { &message };
                format!("{head}{message}").into_bytes()
            }
        };
        Ok(client.write_all(&answer).await?)
    }

    /// Azurite accepts no tokens of a machine: a request that was accepted here gets a signature.
    fn readdressed(&self, head: &str) -> String {
        if self.issued.is_none() || self.protocol != StoreProtocol::Azure {
            return head.to_owned();
        }
        let (line, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let signed = line.rsplit_once(' ').map_or_else(String::new, |(target, version)| {
            let mark = if target.contains('?') { '&' } else { '?' };
            format!("{target}{mark}{SAS} {version}")
        });
        let is_token =
            |line: &&str| line.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("authorization"));
        let kept: Vec<&str> = rest.split("\r\n").filter(|line| !is_token(line)).collect();
        format!("{signed}\r\n{}", kept.join("\r\n"))
    }

    fn refusal(&self, authorization: &str, needed: Vec<Permission>) -> Option<PolicyRefusal> {
        if let Some(issued) = &self.issued {
            let key = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
            if !issued.accepts(authorization) && !key.is_some_and(|key| issued.holds(key)) {
                locked(&self.log).refused.push(format!("let in with {}", key.unwrap_or("no key")));
                return Some(("InvalidAccessKeyId", format!("no identity was given {}", key.unwrap_or("what came"))));
            }
        }
        match self.policy.lacks(&needed) {
            None => {
                locked(&self.log).used.extend(needed.into_iter().map(|need| need.action));
                None
            }
            Some(Permission { action, resource, .. }) => {
                locked(&self.log).refused.push(format!("{action} on {resource}"));
                let code = if self.protocol == StoreProtocol::Azure {
                    "AuthorizationPermissionMismatch"
                } else {
                    "AccessDenied"
                };
                Some((code, format!("not authorized to perform: {action} on resource: {resource}")))
            }
        }
    }
}

/// Permissions of one request, from each vendor's documentation of its calls.
fn needed(protocol: StoreProtocol, method: &str, path: &str, query: &str, tagged: bool) -> Vec<Permission> {
    let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let path = path.trim_start_matches('/');
    let all =
        |actions: &[&str], resource: &str| actions.iter().map(|action| Permission::new(*action, resource)).collect();
    match protocol {
        StoreProtocol::S3 => {
            let is_object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
            let resource = format!("arn:aws:s3:::{}", path.trim_end_matches('/'));
            let action = match (method, is_object) {
                ("GET", true) if asks("uploadId") => "s3:ListMultipartUploadParts",
                ("GET", true) if asks("tagging") => "s3:GetObjectTagging",
                ("GET" | "HEAD", true) => "s3:GetObject",
                ("DELETE", true) if asks("uploadId") => "s3:AbortMultipartUpload",
                ("DELETE", true) => "s3:DeleteObject",
                ("PUT", true) if asks("tagging") => "s3:PutObjectTagging",
                ("PUT" | "POST", true) => "s3:PutObject",
                ("GET", false) if asks("location") => "s3:GetBucketLocation",
                ("GET", false) if asks("uploads") => "s3:ListBucketMultipartUploads",
                ("GET" | "HEAD", false) => "s3:ListBucket",
                ("PUT", false) => "s3:CreateBucket",
                _ => "s3:DeleteObject",
            };
            let mut needed: Vec<Permission> = all(&[action], &resource);
            if tagged && action == "s3:PutObject" {
                needed.push(Permission::new("s3:PutObjectTagging", &resource));
            }
            needed
        }
        StoreProtocol::Google => {
            let is_object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
            match (method, is_object) {
                ("GET", true) if asks("uploadId") => all(&["storage.multipartUploads.listParts"], path),
                ("GET" | "HEAD", true) => all(&["storage.objects.get"], path),
                ("DELETE", true) if asks("uploadId") => all(&["storage.multipartUploads.abort"], path),
                ("DELETE", true) => all(&["storage.objects.delete"], path),
                ("POST", true) if asks("uploads") => all(&["storage.multipartUploads.create"], path),
                ("PUT", true) if asks("uploadId") => all(&["storage.multipartUploads.create"], path),
                // Replacing an object needs the permission to delete it.
                ("POST", true) => {
                    all(&["storage.multipartUploads.create", "storage.objects.create", "storage.objects.delete"], path)
                }
                ("PUT", true) => all(&["storage.objects.create", "storage.objects.delete"], path),
                ("GET", false) if asks("uploads") => all(&["storage.multipartUploads.list"], path),
                ("GET", false) => all(&["storage.objects.list"], path),
                _ => all(&["storage.buckets.get"], path),
            }
        }
        StoreProtocol::Azure => {
            // After the account: container, name.
            let is_blob = path.split('/').nth(2).is_some_and(|name| !name.is_empty());
            let on = |kind: &str| format!("Microsoft.Storage/storageAccounts/blobServices/{kind}");
            let action = match (method, is_blob) {
                ("GET" | "HEAD", true) => on("containers/blobs/read"),
                ("DELETE", true) => on("containers/blobs/delete"),
                (_, true) => on("containers/blobs/write"),
                // A list shows blobs.
                ("GET", false) if asks("comp") => on("containers/blobs/read"),
                ("GET" | "HEAD", false) => on("containers/read"),
                _ => on("containers/write"),
            };
            vec![Permission::new(action, path)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants;

    fn asked(protocol: StoreProtocol, method: &str, target: &str) -> Vec<String> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        needed(protocol, method, path, query, true).into_iter().map(|need| need.action).collect()
    }

    #[test]
    fn a_request_takes_the_permissions_of_its_kind() {
        assert_eq!(
            asked(StoreProtocol::S3, "PUT", "/b/k?partNumber=1&uploadId=x"),
            ["s3:PutObject", "s3:PutObjectTagging"]
        );
        assert_eq!(asked(StoreProtocol::S3, "DELETE", "/b/k?uploadId=x"), ["s3:AbortMultipartUpload"]);
        assert_eq!(asked(StoreProtocol::S3, "DELETE", "/b/k"), ["s3:DeleteObject"]);
        assert_eq!(asked(StoreProtocol::S3, "GET", "/b/?list-type=2"), ["s3:ListBucket"]);
        assert_eq!(asked(StoreProtocol::Google, "POST", "/b/k?uploads"), ["storage.multipartUploads.create"]);
        let write = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write";
        assert_eq!(asked(StoreProtocol::Azure, "PUT", "/account/c/k?comp=block"), [write]);
    }

    #[test]
    fn a_runner_writes_below_its_prefix_of_its_bucket_only() {
        let policy = grants::aws_runner("recordings", "calls/").unwrap();
        let lacks =
            |method: &str, path: &str| policy.lacks(&needed(StoreProtocol::S3, method, path, "", false)).cloned();
        assert_eq!(lacks("PUT", "/recordings/calls/a.mp4"), None);
        let other = lacks("PUT", "/recordings/secrets/a.mp4").unwrap();
        assert_eq!(
            (other.action.as_str(), other.resource.as_str()),
            ("s3:PutObject", "arn:aws:s3:::recordings/secrets/a.mp4")
        );
        assert!(lacks("PUT", "/elsewhere/calls/a.mp4").is_some());
        assert_eq!(lacks("DELETE", "/recordings/calls/a.mp4").unwrap().action, "s3:DeleteObject");
    }
}
