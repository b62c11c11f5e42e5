//! The HTTP ports: `/healthz` (the process works), `/readyz` (it takes new work), `/metrics`, `/events/cloudrun` (see
//! `events`), and what is below `/console`, here or on a port of its own (see `console`). One task per connection. On hyper,
//! which the tree has anyway: a web framework would add a router for five paths.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};

use crate::console::{self, Console, ConsoleBody};
use crate::events::{self, TokenVerifier};
use crate::instance::Instance;
use crate::reconcile::task_exit::ExitEvents;

const PUSHED: &str = "/events/cloudrun";

/// Binds the port.
///
/// # Errors
/// When the address is taken or not ours; a retry is right in the first case.
pub async fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(at).await
}

/// What one port serves.
pub struct PortRoutes {
    /// Of the dispatcher.
    pub instance: Arc<Instance>,
    /// Health, metrics and events; `None`: not here.
    pub exits: Option<Arc<ExitEvents>>,
    /// The console; `None`: not here.
    pub console: Option<Arc<Console>>,
}

/// Serves until the dispatcher stops.
pub async fn serve(listener: TcpListener, routes: PortRoutes) {
    if let Ok(at) = listener.local_addr() {
        info!(%at, health = routes.exits.is_some(), console = routes.console.is_some(), "http is served");
    }
    let verifier = routes.instance.config().push.clone().map(TokenVerifier::new);
    let site = Arc::new((routes, verifier));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = site.0.instance.shutdown.triggered() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(attend(stream, Arc::clone(&site)))),
            Err(error) => {
                warn!(%error, "http: no connection taken");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn attend(stream: tokio::net::TcpStream, site: Arc<(PortRoutes, Option<TokenVerifier>)>) {
    let service = service_fn(|request: Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.0.answer(request, site.1.as_ref()).await) }
    });
    // With a timer, hyper closes connections whose request head takes longer than 30 s.
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "http: connection broke");
    }
}

impl PortRoutes {
    async fn answer(&self, request: Request<Incoming>, verifier: Option<&TokenVerifier>) -> Response<ConsoleBody> {
        let path = request.uri().path();
        let below_console =
            path.strip_prefix(console::PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match (&self.exits, &self.console) {
            (_, Some(console)) if below_console => {
                let (head, body) = request.into_parts();
                // The body of a GET is empty.
                match Limited::new(body, console::MAX_BODY_BYTES).collect().await {
                    Ok(body) => self.instance.answered(console.answer(&head, body.to_bytes())).await,
                    Err(_) => text_response(StatusCode::PAYLOAD_TOO_LARGE, "too large\n".to_owned()),
                }
            }
            (Some(exits), _) if request.method() == Method::POST && path == PUSHED => {
                text_response(push(request, exits, verifier).await, String::new())
            }
            (Some(_), _) => answer(path, &self.instance),
            (None, _) => text_response(StatusCode::NOT_FOUND, "/console\n".to_owned()),
        }
    }
}

fn answer(path: &str, instance: &Instance) -> Response<ConsoleBody> {
    let (status, message) = match path {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if instance.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        "/readyz" if !instance.reaches_redis() => {
            (StatusCode::SERVICE_UNAVAILABLE, "redis does not answer\n".to_owned())
        }
        "/readyz" => (StatusCode::OK, "ready\n".to_owned()),
        "/metrics" => (StatusCode::OK, instance.metrics.text()),
        PUSHED => (StatusCode::METHOD_NOT_ALLOWED, "events are posted\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n".to_owned()),
    };
    text_response(status, message)
}

/// May take as long as a runner's last heartbeat takes to expire: Pub/Sub waits, or delivers again.
async fn push(request: Request<Incoming>, exits: &ExitEvents, verifier: Option<&TokenVerifier>) -> StatusCode {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, events::MAX_BYTES).collect().await else { return StatusCode::PAYLOAD_TOO_LARGE };
    let bearer = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    exits.actions.instance.answered(events::receive(exits, verifier, bearer, &body.to_bytes())).await
}

fn text_response(status: StatusCode, message: String) -> Response<ConsoleBody> {
    let never = |never: Infallible| -> io::Error { match never {} };
    let mut response = Response::new(Full::new(Bytes::from(message)).map_err(never).boxed_unsync());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.status_mut() = status;
    response
}
