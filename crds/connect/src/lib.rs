//! The connection to an API server, for the controller and the node applier alike.
//!
//! kube's own client sets no keepalive: an API server that vanished without a word would be noticed after five minutes.

mod jitter;

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};
use tower::ServiceBuilder;

pub use jitter::{between, jitter};

/// A silent peer is asked for a sign of life after this long, and again after each third of it.
const KEEPALIVE: Duration = Duration::from_secs(9);
/// One that does not answer, or does not take what is sent, is given up after this long (tcp(7), `TCP_USER_TIMEOUT`). With
/// [`KEEPALIVE`] and a probe on the way that makes less than [`NOTICED`].
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Within this time a connection is known to be dead.
pub const NOTICED: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, and as whom.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// A kubeconfig file; none: `$KUBECONFIG`, `~/.kube/config`, or the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; none: its current one.
    pub context: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig that cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a service account.
    #[error("no cluster: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// Certificates or keys that cannot be used.
    #[error("{0}")]
    Client(#[from] kube::Error),
}

/// Connects, without yet sending anything. Dead connections are noticed within [`NOTICED`]; kube's own client would take
/// five minutes.
pub async fn connect(options: &ClusterOptions) -> Result<Client, ClientError> {
    let config = config(options).await?;
    if config.proxy_url.is_some() {
        // kube puts proxies together by itself, and then without keepalive.
        return Ok(Client::try_from(config)?);
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE / 3));
    http.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let https = config.rustls_https_connector_with_connector(http)?;
    let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
    let auth = config.auth_layer()?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(auth)
        .layer(config.extra_headers_layer()?)
        .map_err(tower::BoxError::from)
        .service(client);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// What [`connect`] goes by: the server's address, and as whom.
pub async fn config(options: &ClusterOptions) -> Result<Config, ClientError> {
    let ClusterOptions { kubeconfig, context } = options;
    if kubeconfig.is_none() && context.is_none() {
        return Ok(Config::infer().await?);
    }
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None => Kubeconfig::read()?,
    };
    let choice = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    Ok(Config::from_custom_kubeconfig(read, &choice).await?)
}

/// What went wrong, in words, with its causes. kube prints an API server's answers as Rust structures.
#[must_use]
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => chain(other),
    }
}

/// The same of a watch that broke.
#[must_use]
pub fn explain_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// An error and its causes in one line, each told once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
