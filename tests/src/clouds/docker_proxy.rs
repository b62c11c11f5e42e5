//! A proxy in front of a Docker daemon that injects faults.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::fault::{CloudFault, FaultScript};
use crate::servers::proxy::read_head;

/// Longer than any call here takes, shorter than any timeout.
const LATE: Duration = Duration::from_millis(1500);

/// The proxy; ends when dropped.
pub struct DockerProxy {
    /// Path of its socket.
    pub socket: PathBuf,
    faults: Arc<FaultScript>,
    task: JoinHandle<()>,
}

impl DockerProxy {
    /// A proxy in front of the daemon at `to`, with a socket in the same folder.
    pub fn start(to: &Path) -> Result<Self> {
        let socket = to.with_file_name("proxy.sock");
        let listener = UnixListener::bind(&socket).with_context(|| format!("bind {}", socket.display()))?;
        let faults = Arc::<FaultScript>::default();
        let (shared, to) = (faults.clone(), to.to_owned());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (faults, to) = (shared.clone(), to.clone());
                // A client may hang up.
                tokio::spawn(async move { serve(client, &to, &faults).await });
            }
        });
        Ok(Self { socket, faults, task })
    }

    /// Operations: `create`, `start`, `attach`, `inspect`, `kill`, `remove`, `list`, and `other`.
    pub fn faults(&self) -> &FaultScript {
        &self.faults
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request for each connection: the response has `Connection: close`.
async fn serve(mut client: UnixStream, to: &Path, faults: &FaultScript) -> Result<()> {
    let (head, mut body) = read_head(&mut client).await?;
    let header = |name: &str| {
        head.split("\r\n").find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(());
        }
    }
    let mut line = head.split(' ');
    let operation = operation(line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let fault = faults.next(operation);
    match fault {
        Some(CloudFault::Lost) => return Ok(()),
        Some(CloudFault::Busy) => {
            return refuse(&mut client, "409 Conflict", "removal of container is already in progress").await;
        }
        Some(CloudFault::Broken) => {
            return refuse(&mut client, "500 Internal Server Error", "daemon is shutting down").await;
        }
        _ => {}
    }
    let mut daemon = UnixStream::connect(to).await?;
    if operation == "attach" {
        daemon.write_all(format!("{head}\r\n\r\n").as_bytes()).await?;
        daemon.write_all(&body).await?;
        copy_bidirectional(&mut client, &mut daemon).await?;
        return Ok(());
    }
    let kept = head.split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !line.is_empty() && !name.eq_ignore_ascii_case("connection")
    });
    let head = kept.fold(String::new(), |head, line| head + line + "\r\n");
    daemon.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    daemon.write_all(&body).await?;
    let mut answer = Vec::new();
    daemon.read_to_end(&mut answer).await?;
    match fault {
        Some(CloudFault::LostAfter) => return Ok(()),
        Some(CloudFault::BrokenAfter) => {
            return refuse(&mut client, "500 Internal Server Error", "context canceled").await;
        }
        Some(CloudFault::Late) => tokio::time::sleep(LATE).await,
        _ => {}
    }
    Ok(client.write_all(&answer).await?)
}

fn operation(method: &str, target: &str) -> &'static str {
    let path = target.split('?').next().unwrap_or_default();
    let Some((_, rest)) = path.split_once("/containers/") else { return "other" };
    match (method, rest.split_once('/').map_or(rest, |(_, verb)| verb)) {
        ("POST", "create") => "create",
        ("POST", "start") => "start",
        ("POST", "attach") => "attach",
        ("POST", "kill") => "kill",
        ("GET", "json") if rest == "json" => "list",
        ("GET", "json") => "inspect",
        ("DELETE", _) => "remove",
        _ => "other",
    }
}

async fn refuse(client: &mut UnixStream, status: &str, message: &str) -> Result<()> {
    let body = serde_json::json!({ "message": message }).to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    Ok(client.write_all(format!("{head}{body}").as_bytes()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_known_by_method_and_path() {
        let table = [
            ("POST", "/v1.41/containers/create?name=a", "create"),
            ("POST", "/v1.41/containers/abc/start", "start"),
            ("POST", "/v1.41/containers/abc/attach?stdin=true", "attach"),
            ("GET", "/v1.41/containers/json?all=true", "list"),
            ("GET", "/v1.41/containers/abc/json", "inspect"),
            ("DELETE", "/v1.41/containers/abc?force=true", "remove"),
            ("GET", "/info", "other"),
        ];
        for (method, target, expected) in table {
            assert_eq!(operation(method, target), expected, "{method} {target}");
        }
    }
}
