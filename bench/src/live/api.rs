//! Requests to an API server over connections of our own, so that every byte is counted.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::counted::{Counted, Traffic};

const JSON: &str = "application/json";

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, as kube's client.
    Http1,
    /// HTTP/2, as client-go.
    Http2,
}

/// Where an API server is and how to trust it.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Api {
    /// An API server at an address, with the certificate (PEM) of who signed its own.
    pub fn new(address: SocketAddr, authority: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(authority).context("the API server's authority")?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let connector = |protocol: &[u8]| -> Result<TlsConnector> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config =
                ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            // Each connection is another node's.
            config.resumption = rustls::client::Resumption::disabled();
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Self { address, http1: connector(b"http/1.1")?, http2: connector(b"h2")? })
    }

    /// Connects as who has this bearer token. Must be called in the network namespace of the API server or one with a way
    /// to it.
    pub async fn connect(&self, protocol: Protocol, token: &str) -> Result<Connection> {
        self.connect_counted(protocol, token, Arc::default()).await
    }

    /// The same, and goes on counting where another connection ended.
    pub async fn connect_counted(
        &self,
        protocol: Protocol,
        token: &str,
        traffic: Arc<Traffic>,
    ) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).await.with_context(|| self.address.to_string())?;
        tcp.set_nodelay(true)?;
        let counted = Counted::new(tcp, traffic.clone());
        let name = ServerName::from(self.address.ip());
        let connector = if protocol == Protocol::Http1 { &self.http1 } else { &self.http2 };
        let stream = TokioIo::new(connector.connect(name, counted).await.context("TLS")?);
        // A connection that breaks is noticed by who waits for its answers.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                // The windows of Go's client: 4 MiB a stream, 1 GiB a connection.
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(1 << 30)
                    .handshake(stream)
                    .await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        let authorization = format!("Bearer {token}");
        Ok(Connection { host: self.address.to_string(), authorization, sender, traffic })
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One connection, as somebody.
pub struct Connection {
    host: String,
    authorization: String,
    sender: Sender,
    traffic: Arc<Traffic>,
}

/// How a request is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// The media types that are accepted; empty: JSON.
    pub accept: &'a str,
    /// Whether gzip is.
    pub gzip: bool,
    /// The media type of the body; empty: JSON.
    pub content_type: &'a str,
}

impl Connection {
    /// What went over it so far, below TLS.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }

    /// Whether the other side has closed it, as an API server does after 90 s without requests.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request; on success gives the answer, whose body is still to be read.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        ask: Ask<'_>,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let or_json = |media: &'_ str| if media.is_empty() { JSON.to_owned() } else { media.to_owned() };
        let mut request = Request::builder()
            .method(&method)
            .header(ACCEPT, or_json(ask.accept))
            .header(AUTHORIZATION, &self.authorization);
        if ask.gzip {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, or_json(ask.content_type));
        }
        let body = Full::from(body);
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request.uri(path).header(HOST, &self.host).body(body)?;
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                let request = request.uri(format!("https://{}{path}", self.host)).body(body)?;
                sender.ready().await?;
                sender.send_request(request).await
            }
        };
        let response = response.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(response)
    }

    /// Sends JSON and reads JSON.
    pub async fn json(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let response = self.send(method, path, Ask::default(), body).await?;
        let bytes = response.into_body().collect().await?.to_bytes();
        ensure!(!bytes.is_empty(), "{path}: an empty answer");
        Ok(serde_json::from_slice(&bytes)?)
    }
}
