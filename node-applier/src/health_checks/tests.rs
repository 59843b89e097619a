//! Real servers on the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};

use super::*;

fn check(port: u16, name: &str, local_endpoints: [usize; 2]) -> HealthCheck {
    HealthCheck { port, namespace: "shop".to_owned(), name: name.to_owned(), local_endpoints }
}

fn checks() -> (HealthChecks, Shared) {
    let shared = Shared::default();
    shared.lock().0.in_step = true;
    (HealthChecks::new(shared.clone()), shared)
}

/// A port that nobody has right now.
fn free_port() -> u16 {
    StdListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

/// Asks over a connection of its own; returns the head and the body. `None` when nobody listens.
async fn ask(ip: &str, port: u16) -> Option<(String, String)> {
    let to = SocketAddr::new(ip.parse().unwrap(), port);
    let conversation = move || {
        let mut stream = StdStream::connect(to).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Some((head.to_owned(), body.to_owned()))
    };
    tokio::task::spawn_blocking(conversation).await.unwrap()
}

async fn code(ip: &str, port: u16) -> Option<String> {
    ask(ip, port).await.map(|(head, _)| head.split(' ').nth(1).unwrap().to_owned())
}

/// What kube-proxy's handler prints for Service shop/web with three local endpoints.
const BODY: &str = "{
\t\"service\": {
\t\t\"namespace\": \"shop\",
\t\t\"name\": \"web\"
\t},
\t\"localEndpoints\": 3,
\t\"serviceProxyHealthy\": true
}";

#[tokio::test]
async fn answers_are_kube_proxys() {
    let (mut checks, shared) = checks();
    let port = free_port();
    checks.set(vec![check(port, "web", [3, 0])], &Listen::All);
    assert_eq!(checks.problems(), [""; 0]);
    let (head, body) = ask("127.0.0.1", port).await.unwrap();
    assert_eq!(body, BODY);
    for line in [
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
        "X-Load-Balancing-Endpoint-Weight: 3",
    ] {
        assert!(head.lines().any(|l| l == line), "{line} in\n{head}");
    }

    let (head, body) = ask("::1", port).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert!(head.contains("X-Load-Balancing-Endpoint-Weight: 0\r\n"), "{head}");
    assert!(body.contains("\"localEndpoints\": 0,"), "of the family that asks: {body}");

    shared.lock().0.draining = true;
    assert_eq!(code("127.0.0.1", port).await.unwrap(), "200", "a node being drained is no matter here");
    shared.lock().0.in_step = false;
    let (head, body) = ask("127.0.0.1", port).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, BODY.replace("true", "false"));
}

#[tokio::test]
async fn listeners_come_and_go_and_those_that_stay_are_left_alone() {
    let (mut checks, _) = checks();
    let (stays, goes) = (free_port(), free_port());
    checks.set(vec![check(stays, "a", [1, 1]), check(goes, "b", [1, 1])], &Listen::All);
    // This connection is there before and after.
    let mut kept = StdStream::connect(("127.0.0.1", stays)).unwrap();
    assert_eq!(code("127.0.0.1", goes).await.unwrap(), "200");
    let mut cut = StdStream::connect(("127.0.0.1", goes)).unwrap();
    // The server has it before it is told to close.
    cut.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut cut, read) = read_some(cut).await;
    assert!(read > 0);

    checks.set(vec![check(stays, "a", [0, 2])], &Listen::All);
    assert_eq!(code("127.0.0.1", goes).await, None);
    let closed = tokio::task::spawn_blocking(move || cut.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "connections end with their Service: {closed:?}");
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let answer = tokio::task::spawn_blocking(move || kept.read_to_string(&mut answer).map(|_| answer));
    assert!(answer.await.unwrap().unwrap().starts_with("HTTP/1.1 503"), "the new number of endpoints");
    assert_eq!(code("::1", stays).await.unwrap(), "200");

    checks.set(Vec::new(), &Listen::All);
    assert_eq!(code("127.0.0.1", stays).await, None);
}

async fn read_some(mut stream: StdStream) -> (StdStream, usize) {
    let read = move || {
        let read = stream.read(&mut [0; 1024]).unwrap();
        (stream, read)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test]
async fn only_the_addresses_that_are_asked_for_are_bound() {
    let (mut checks, _) = checks();
    let port = free_port();
    let listen = |addrs: &[&str]| Listen::Addrs(addrs.iter().map(|a| a.parse().unwrap()).collect());
    let wanted = vec![check(port, "a", [1, 1])];
    checks.set(wanted.clone(), &listen(&["127.0.0.2", "::1"]));
    for (ip, answers) in [("127.0.0.1", false), ("127.0.0.2", true), ("::1", true)] {
        assert_eq!(code(ip, port).await.is_some(), answers, "{ip}");
    }
    checks.set(wanted.clone(), &listen(&["127.0.0.2", "127.0.0.3"]));
    for (ip, answers) in [("::1", false), ("127.0.0.2", true), ("127.0.0.3", true)] {
        assert_eq!(code(ip, port).await.is_some(), answers, "{ip}");
    }
    checks.set(wanted.clone(), &Listen::All);
    assert_eq!(checks.problems(), [""; 0]);
    assert_eq!(code("127.0.0.9", port).await.unwrap(), "200");
    checks.set(wanted, &listen(&[]));
    assert_eq!((code("127.0.0.9", port).await, checks.problems()), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_reported_and_tried_again() {
    let (mut checks, _) = checks();
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = Listen::Addrs(vec!["127.0.0.1".parse().unwrap()]);
    checks.set(vec![check(port, "web", [1, 1])], &listen);
    let problems = checks.problems();
    assert_eq!(problems.len(), 1);
    for word in ["Service shop/web", &port.to_string(), "127.0.0.1", "in use", "ss -ltnp"] {
        assert!(problems[0].contains(word), "{word} in {problems:?}");
    }
    drop(taken);
    checks.retry();
    assert_eq!(checks.problems(), problems, "not yet due");
    tokio::time::advance(RETRY).await;
    checks.retry();
    assert_eq!(checks.problems(), [""; 0]);
    assert!(StdStream::connect(("127.0.0.1", port)).is_ok());
}

#[tokio::test]
async fn of_two_services_with_one_port_the_first_by_name_is_served() {
    let (mut checks, _) = checks();
    let port = free_port();
    for order in [["web", "api"], ["api", "web"]] {
        let wanted = order.iter().map(|name| check(port, name, [1, 1])).collect();
        checks.set(wanted, &Listen::All);
        let (_, body) = ask("127.0.0.1", port).await.unwrap();
        assert!(body.contains("\"api\""), "{body}");
        let problems = checks.problems();
        assert!(problems.len() == 1 && problems[0].contains("shop/web"), "{problems:?}");
    }
}

/// Clients that ask nothing do not keep others' ports busy, and do not cost more than their share.
#[tokio::test]
async fn silent_clients_of_one_port_leave_the_other_ports_alone() {
    let (mut checks, _) = checks();
    let (busy, other) = (free_port(), free_port());
    checks.set(vec![check(busy, "a", [1, 1]), check(other, "b", [1, 1])], &Listen::All);
    let silent: Vec<StdStream> =
        (0..MAX_PORT_CONNECTIONS + 4).map(|_| StdStream::connect(("127.0.0.1", busy)).unwrap()).collect();
    let left = || checks.connections.available_permits();
    let patience = Instant::now() + Duration::from_secs(10);
    while left() > MAX_CONNECTIONS - MAX_PORT_CONNECTIONS && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(code("127.0.0.1", other).await.unwrap(), "200");
    assert_eq!(left(), MAX_CONNECTIONS - MAX_PORT_CONNECTIONS);
    drop(silent);
    assert_eq!(code("127.0.0.1", busy).await.unwrap(), "200");
}
