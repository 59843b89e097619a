//! Asking a program for its health and its numbers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::namespace::Namespace;

/// Gets a path from a namespace: status code and body.
pub fn get(from: &Namespace, to: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
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
    Ok((code.with_context(|| format!("not HTTP: {head:?}"))?, body.to_owned()))
}

/// A number of a metrics page; the name with its labels, as it stands there.
pub fn metric(page: &str, name: &str) -> anyhow::Result<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.ok_or_else(|| anyhow!("there is no metric {name} in\n{page}"))?;
    Ok(value.split(' ').next().unwrap_or_default().parse()?)
}
