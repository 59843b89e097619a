//! Asking a program for its health and its numbers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::namespace::Namespace;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub code: u16,
    /// The headers, names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// Gets a path from a namespace.
pub fn fetch(from: &Namespace, to: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    let text = from.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let text = text.with_context(|| format!("http://{to}{path}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("not HTTP: {text:?}"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Ok(Reply {
        code: code.with_context(|| format!("not HTTP: {head:?}"))?,
        headers: head.lines().skip(1).filter_map(header).collect(),
        body: body.to_owned(),
    })
}

/// The same: status code and body.
pub fn get(from: &Namespace, to: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    fetch(from, to, path).map(|reply| (reply.code, reply.body))
}

/// A number of a metrics page; the name with its labels, as it stands there.
pub fn metric(page: &str, name: &str) -> anyhow::Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.ok_or_else(|| anyhow!("there is no metric {name} in\n{page}"))?;
    Ok(value.split(' ').next().unwrap_or_default().parse()?)
}
