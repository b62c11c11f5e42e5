//! `/healthz`: the process works. `/readyz`: it takes new work. `/metrics`: what is counted. hyper, because it is the HTTP of everything else in the
//! tree already; a web framework would bring a router for three paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};

use crate::house::House;

pub async fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(at).await
}

/// Until the house stops.
pub async fn serve(listener: TcpListener, house: Arc<House>) {
    if let Ok(at) = listener.local_addr() {
        info!(%at, "health is served");
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = house.stop.asked() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(attend(stream, Arc::clone(&house)))),
            Err(error) => {
                warn!(%error, "health: no connection taken");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn attend(stream: tokio::net::TcpStream, house: Arc<House>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.uri().path(), &house);
        async move { Ok::<_, Infallible>(answer) }
    });
    // With a timer, hyper drops who does not finish his request's head within 30 s.
    let served = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        debug!(%error, "health: connection broke");
    }
}

fn answer(path: &str, house: &House) -> Response<Full<Bytes>> {
    let (status, words) = match path {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if house.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        "/readyz" if !house.bus.healthy() => (StatusCode::SERVICE_UNAVAILABLE, "redis does not answer\n".to_owned()),
        "/readyz" => (StatusCode::OK, "ready\n".to_owned()),
        "/metrics" => (StatusCode::OK, house.meter.text()),
        _ => (StatusCode::NOT_FOUND, "/healthz, /readyz or /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(words)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.status_mut() = status;
    response
}
