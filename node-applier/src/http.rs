//! What the node tells over HTTP: /healthz, /livez and /metrics, at kube-proxy's two addresses and with its fields.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use crate::status::{Shared, State};

/// The most connections served at a time, for each address.
const MAX_CONNECTIONS: usize = 64;
/// How often an address that could not be bound is tried again, as kube-proxy does.
const RETRY: Duration = Duration::from_secs(5);
/// What kube-proxy says about text.
const TEXT: &str = "text/plain; charset=utf-8";
/// The format that Prometheus reads.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// What is served at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// `--healthz-bind-address`: /healthz and /livez, which say how the proxy is, and /metrics.
    Health,
    /// `--metrics-bind-address`: /metrics, /proxyMode, and a /healthz that says only that somebody listens.
    Metrics,
}

impl Pages {
    fn option(self) -> &'static str {
        match self {
            Self::Health => "--healthz-bind-address",
            Self::Metrics => "--metrics-bind-address",
        }
    }
}

/// Serves pages at an address until the process ends. If it cannot be bound, that is an error with `hard_fail`; else it is
/// logged and tried again every few seconds, because a proxy that works and cannot be asked is better than none.
pub async fn open(pages: Pages, addr: SocketAddr, shared: Shared, hard_fail: bool) -> anyhow::Result<()> {
    match TcpListener::bind(addr).await {
        Ok(listener) => {
            tokio::spawn(serve(listener, pages, shared));
        }
        Err(error) => {
            let option = pages.option();
            let why = format!("cannot listen on {addr} ({error}): choose another {option}");
            if hard_fail {
                anyhow::bail!(why);
            }
            warn!("{why}; trying again every {} s", RETRY.as_secs());
            tokio::spawn(async move {
                let listener = loop {
                    tokio::time::sleep(RETRY).await;
                    if let Ok(listener) = TcpListener::bind(addr).await {
                        break listener;
                    }
                };
                info!(%addr, "listening at last");
                serve(listener, pages, shared).await;
            });
        }
    }
    Ok(())
}

async fn serve(listener: TcpListener, pages: Pages, shared: Shared) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
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
            let respond = |request: Request<Incoming>| {
                let response = answer(pages, request.uri().path(), &shared);
                std::future::ready(Ok::<_, Infallible>(response))
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service_fn(respond));
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
}

fn answer(pages: Pages, path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    let (state, metrics) = &mut *shared.lock();
    let (check, good, body) = match (pages, path) {
        (_, "/metrics") => return respond(StatusCode::OK, PROMETHEUS, metrics.render()),
        (Pages::Health, "/healthz") => {
            let mut body = health(state, state.healthy());
            body["nodeEligible"] = (!state.draining).into();
            ("healthz", state.healthy(), body)
        }
        // Losing the API server, or rules that cannot be written, is nothing that a restart would mend.
        (Pages::Health, "/livez") => ("livez", true, health(state, state.proxy_healthy())),
        (Pages::Metrics, "/proxyMode") => {
            let mode = state.mode.map_or_else(|| "none".to_owned(), |mode| mode.to_string());
            return respond(StatusCode::OK, TEXT, mode);
        }
        (Pages::Metrics, "/healthz") => return respond(StatusCode::OK, TEXT, "ok".to_owned()),
        (Pages::Health, _) => return not_found("try /healthz, /livez or /metrics\n"),
        (Pages::Metrics, _) => return not_found("try /metrics, /proxyMode or /healthz\n"),
    };
    let code = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    metrics.answered(check, code.as_u16());
    respond(code, "application/json", format!("{body}\n"))
}

/// kube-proxy's `ProxyHealth`, and what else we know. With it, `lastUpdated` is the present while all is well, and else the
/// time of the last write. One transaction writes both families.
fn health(state: &State, well: bool) -> Value {
    let now = Timestamp::now();
    let written = state.applied_at.map(timestamp);
    // What Go prints for a time that never was.
    let written = written.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string());
    let healthy = state.proxy_healthy();
    let family = json!({"lastUpdated": written, "healthy": healthy});
    json!({
        "lastUpdated": if well { now.to_string() } else { written },
        "currentTime": now.to_string(),
        "healthy": healthy,
        "status": {"IPv4": family, "IPv6": family},
        "sequence": state.head.as_ref().map(|h| h.sequence),
        "digest": state.head.as_ref().map(|h| &h.digest),
        "restored": state.restored,
        "problem": state.problem,
    })
}

fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn not_found(hint: &str) -> Response<Full<Bytes>> {
    respond(StatusCode::NOT_FOUND, TEXT, hint.to_owned())
}

fn respond(code: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .header("content-type", kind)
        .header("x-content-type-options", "nosniff")
        .header("cache-control", "no-store")
        .body(Full::new(body.into()))
        .expect("fixed headers are valid")
}

#[cfg(test)]
mod tests;
