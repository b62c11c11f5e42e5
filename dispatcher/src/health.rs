//! The HTTP port: `/healthz` (the process works), `/readyz` (it takes new work), `/metrics`, and `/events/cloudrun`
//! (see `events`). One task per connection. On hyper, which the tree has anyway: a web framework would add a router for
//! four paths.

use std::convert::Infallible;
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

use crate::events::{self, TokenVerifier};
use crate::instance::Instance;
use crate::reconcile::task_exit::ExitEvents;

const PUSHED: &str = "/events/cloudrun";

/// Binds the port.
///
/// # Errors
/// When the address is taken or not ours; a retry is right in the first case.
pub async fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(at).await
}

/// Serves until the dispatcher stops.
pub async fn serve(listener: TcpListener, exits: Arc<ExitEvents>) {
    let instance = Arc::clone(&exits.actions.instance);
    if let Ok(at) = listener.local_addr() {
        info!(%at, "health is served");
    }
    let verifier = Arc::new(instance.config().push.clone().map(TokenVerifier::new));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = instance.shutdown.triggered() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(attend(stream, Arc::clone(&exits), Arc::clone(&verifier)))),
            Err(error) => {
                warn!(%error, "health: no connection taken");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn attend(stream: tokio::net::TcpStream, exits: Arc<ExitEvents>, verifier: Arc<Option<TokenVerifier>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (exits, verifier) = (Arc::clone(&exits), Arc::clone(&verifier));
        async move {
            let pushed = request.method() == Method::POST && request.uri().path() == PUSHED;
            Ok::<_, Infallible>(if pushed {
                text_response(push(request, &exits, verifier.as_ref().as_ref()).await, String::new())
            } else {
                answer(request.uri().path(), &exits.actions.instance)
            })
        }
    });
    // With a timer, hyper closes connections whose request head takes longer than 30 s.
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "health: connection broke");
    }
}

fn answer(path: &str, instance: &Instance) -> Response<Full<Bytes>> {
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

fn text_response(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.status_mut() = status;
    response
}
