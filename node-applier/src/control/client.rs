//! Asking an applier on this node.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, SOCKET};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody listens.
    #[error("no applier runs here: nobody listens at {0}")]
    NotRunning(String),
    /// Somebody listens who does not let us in.
    #[error("{0}: permission denied")]
    Permission(String),
    /// The connection broke, or what came was no answer.
    #[error("the applier did not answer: {0}")]
    Broken(io::Error),
}

/// Asks the applier that keeps its bundles in `dir`. `path` is that of the request; a body makes it a POST.
pub fn ask(dir: &Path, path: &str, body: Option<&str>) -> Result<Answer, NoAnswer> {
    let socket = dir.join(SOCKET);
    let name = socket.display().to_string();
    let mut stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NoAnswer::NotRunning(name),
        io::ErrorKind::PermissionDenied => NoAnswer::Permission(name),
        _ => NoAnswer::Broken(error),
    })?;
    let mut talk = || -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.unwrap_or_default();
        // Version 1.0: the connection ends with the answer, which then has no encoding of its own.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: node\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut bytes = Vec::new();
        (&stream).take(MAX_ANSWER).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = talk().map_err(NoAnswer::Broken)?;
    parse(&bytes)
        .ok_or_else(|| NoAnswer::Broken(io::Error::new(io::ErrorKind::InvalidData, "half an answer")))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")?;
    let head = str::from_utf8(&bytes[..end]).ok()?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let length: usize = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())?;
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some(Answer { code, body: String::from_utf8(body.to_vec()).ok()?.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let whole = b"HTTP/1.0 404 Not Found\r\nContent-Length: 3\r\n\r\n{}\n";
        assert_eq!(parse(whole), Some(Answer { code: 404, body: "{}".to_owned() }));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length} bytes");
        }
    }
}
