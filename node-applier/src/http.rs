//! /healthz, /livez and /metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tracing::debug;

use crate::status::Shared;

/// The most connections served at a time.
const MAX_CONNECTIONS: usize = 64;

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, shared: Shared) {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = std::sync::Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &shared))));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (state, metrics) = &mut *shared.lock();
    let check = match request.uri().path() {
        "/healthz" => ("healthz", state.healthy()),
        // Losing the API server, or rules that cannot be written, is nothing that a restart would mend.
        "/livez" => ("livez", true),
        "/metrics" => return respond(StatusCode::OK, "text/plain; version=0.0.4", metrics.render()),
        _ => {
            return respond(
                StatusCode::NOT_FOUND,
                "text/plain",
                "try /healthz, /livez or /metrics\n".to_owned(),
            );
        }
    };
    let code = if check.1 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    metrics.answered(check.0, code.as_u16());
    let body = json!({
        "healthy": check.1,
        "nodeEligible": !state.draining,
        "sequence": state.head.as_ref().map(|h| h.sequence),
        "digest": state.head.as_ref().map(|h| &h.digest),
        "restored": state.restored,
        "problem": state.problem,
    });
    respond(code, "application/json", format!("{body}\n"))
}

fn respond(code: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    let response =
        Response::builder().status(code).header("content-type", kind).header("cache-control", "no-store");
    response.body(Full::new(body.into())).expect("fixed headers are valid")
}

/// Binds the address, or says what is in the way.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|e| {
        anyhow::anyhow!(
            "cannot listen on {addr} for health checks ({e}): choose another --healthz-bind-address"
        )
    })
}
