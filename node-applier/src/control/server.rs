//! The socket's side of the applier.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

use super::{Answer, Ask, Request, SOCKET};
use crate::hold::Wish;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 4;
/// The longest reason, in bytes.
const MAX_BODY: usize = 4096;
/// How long a request may take to arrive, and the applier to answer: it may be reading a large bundle.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `DIR/applier.sock`, which its owner alone may open, until the process ends. An error when another applier does, or
/// when it cannot be made.
pub fn serve(dir: &Path, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let path = dir.join(SOCKET);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        let message = "another applier answers there";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Between these two anybody could open it who may enter the folder; so it comes under its name when it is closed.
    let new = dir.join(format!("{SOCKET}.new"));
    let _left = fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    fs::rename(&new, &path)?;
    tokio::spawn(accept(listener, requests));
    Ok(())
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>) {
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
        let requests = requests.clone();
        tokio::spawn(async move {
            let respond = |request| {
                let requests = requests.clone();
                async move { Ok::<_, Infallible>(answer(request, &requests).await) }
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service_fn(respond));
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
}

async fn answer(request: HttpRequest<Incoming>, requests: &mpsc::Sender<Request>) -> Response<Full<Bytes>> {
    let Answer { code, body } = match ask(request).await {
        Ok(ask) => pass_on(ask, requests).await,
        Err(answer) => answer,
    };
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header("content-type", "application/json")
        .body(Full::new(format!("{body}\n").into()))
        .expect("fixed headers are valid")
}

async fn pass_on(ask: Ask, requests: &mpsc::Sender<Request>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        requests.send(Request { ask, reply }).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::error(503, "the applier is ending"),
        Err(_) => Answer::error(503, "the applier is busy; try again"),
    }
}

async fn ask(request: HttpRequest<Incoming>) -> Result<Ask, Answer> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
    let get = request.method() == Method::GET;
    let keep = match path.as_str() {
        "/status" if get => return Ok(Ask::Status),
        "/verify" if get => return Ok(Ask::Verify),
        "/show" if get => {
            let service = query.as_deref().and_then(|query| query.strip_prefix("service="));
            return Ok(Ask::Show(service.map(str::to_owned)));
        }
        "/resume" if request.method() == Method::POST => return Ok(Ask::Resume),
        "/hold" if request.method() == Method::POST => Wish::Hold,
        "/use-previous" if request.method() == Method::POST => Wish::UsePrevious,
        _ => {
            let hint = "GET /status, /show[?service=NAMESPACE/NAME] or /verify, POST /hold, /use-previous or /resume";
            return Err(Answer::error(404, hint));
        }
    };
    let body = tokio::time::timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let text =
        body.ok().and_then(Result::ok).and_then(|body| String::from_utf8(body.to_bytes().to_vec()).ok());
    let text = text.ok_or_else(|| Answer::error(400, "the reason is too long, or no text"))?;
    Ok(Ask::Keep(keep, text.trim().to_owned()))
}
