//! Stands in for an API server towards kube-proxy: what it lists and watches, as JSON, and the changes that it is told of.
//!
//! The subject is the path of packets, not how the rules came to be; a real API server needs minutes to take 10,000
//! Services.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rulecast_tests::namespace::Namespace;
use serde_json::{Value, json};

/// A list as clients get it, by path.
type Lists = HashMap<&'static str, String>;

/// A stand-in at work, until this program ends.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lists: Lists,
    /// Connections that watch, with what.
    watches: Mutex<Vec<(String, TcpStream)>>,
}

impl Server {
    /// Tells those who watch a list that one of its objects changed; returns how many there are.
    pub(crate) fn change(&self, path: &str, object: &Value) -> Result<usize> {
        let event = json!({ "type": "MODIFIED", "object": object }).to_string() + "\n";
        let mut told = 0;
        let mut watches = self.shared.watches.lock().expect("no watch panics");
        for (_, stream) in watches.iter_mut().filter(|(watched, _)| watched == path) {
            write!(stream, "{:x}\r\n{event}\r\n", event.len())?;
            told += 1;
        }
        Ok(told)
    }
}

/// Serves lists of objects on a loopback address of a namespace.
pub(crate) fn serve(
    namespace: &Namespace,
    lists: impl IntoIterator<Item = (&'static str, Vec<Value>)>,
) -> Result<Server> {
    let lists = lists.into_iter().map(|(path, items)| (path, list(&items))).collect();
    let shared = Arc::new(Shared { lists, watches: Mutex::default() });
    let serves = Arc::clone(&shared);
    let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0"))??;
    let address = listener.local_addr()?;
    // One thread a connection: kube-proxy has a handful.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let shared = serves.clone();
            // A client that goes away is the client's business.
            thread::spawn(move || drop(answer_all(&stream, &shared)));
        }
    });
    Ok(Server { address, shared })
}

fn list(items: &[Value]) -> String {
    let kind = items.first().and_then(|item| item["kind"].as_str()).map(|kind| format!("{kind}List"));
    let version = items.first().map(|item| item["apiVersion"].clone());
    let metadata = json!({ "resourceVersion": "1" });
    json!({ "kind": kind, "apiVersion": version, "metadata": metadata, "items": items }).to_string()
}

/// Answers one request after the other.
fn answer_all(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        answer(stream, &first, &body, shared)?;
    }
}

fn answer(mut stream: &TcpStream, request: &str, body: &[u8], shared: &Shared) -> io::Result<()> {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let found = shared.lists.get(path);
    let is = |word: &str| query.split('&').any(|parameter| parameter == word);
    if request.starts_with("POST ") {
        // Events: taken, and forgotten.
        return respond(stream, "201 Created", body);
    }
    match found {
        // Lists by way of a watch are an option that clients fall back from.
        Some(_) if is("sendInitialEvents=true") => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400 });
            respond(stream, "400 Bad Request", status.to_string().as_bytes())
        }
        Some(_) if is("watch=true") || is("watch=1") => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            shared.watches.lock().expect("no watch panics").push((path.to_owned(), stream.try_clone()?));
            // Changes are told by others. This thread ends with the program.
            loop {
                thread::sleep(Duration::from_hours(1));
            }
        }
        Some(list) => respond(stream, "200 OK", list.as_bytes()),
        None => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
            });
            respond(stream, "404 Not Found", status.to_string().as_bytes())
        }
    }
}

fn respond(mut stream: &TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lists = Lists::from([("/api/v1/nodes", list(&[json!({ "kind": "Node", "apiVersion": "v1" })]))]);
        let shared = Shared { lists, watches: Mutex::default() };
        thread::spawn(move || answer_all(&listener.accept().unwrap().0, &shared));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lists_are_given_and_lists_by_watch_are_refused() {
        let list = ask("GET /api/v1/nodes?limit=500 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(list.starts_with("HTTP/1.1 200 OK"), "{list}");
        assert!(list.contains(r#""kind":"NodeList""#), "{list}");
        let refused = ask("GET /api/v1/nodes?sendInitialEvents=true&watch=true HTTP/1.1\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        assert!(ask("GET /api/v1/pods HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        let event = ask("POST /api/v1/events HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}");
        assert!(event.starts_with("HTTP/1.1 201") && event.ends_with("{}"), "{event}");
    }
}
