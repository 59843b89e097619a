//! What is asked of an applier on its node: over a socket in its folder, without an API server.
//!
//! It is HTTP, so that curl can ask too: `curl --unix-socket /var/lib/rulecast/applier.sock http://node/status`. Who may open
//! the socket is who may read the folder: root.

pub mod client;
mod look;
mod server;
mod show;
mod status;

use tokio::sync::{mpsc, oneshot};

pub use look::{Look, OnDisk};
pub use server::serve;
pub use show::{Port, Service, Totals, rules, service, totals};
pub use status::{Status, status};

use crate::hold::Wish;

/// The socket's name, in the folder where the last good bundles are kept.
pub const SOCKET: &str = "applier.sock";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// `GET /status`.
    Status,
    /// `GET /show`, `GET /show?service=NAMESPACE/NAME`.
    Show(Option<String>),
    /// `POST /hold` and `POST /use-previous`, with the reason as the body.
    Keep(Wish, String),
    /// `POST /resume`.
    Resume,
    /// `GET /verify`.
    Verify,
}

/// A question, and where its answer goes.
pub struct Request {
    /// The question.
    pub ask: Ask,
    /// For the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// An answer, as HTTP has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200; 404 for a Service that is not there; 409 when there is nothing to go back to; 500 when it cannot be done.
    pub code: u16,
    /// JSON.
    pub body: String,
}

impl Answer {
    /// A value.
    pub fn ok(value: &impl serde::Serialize) -> Self {
        Self { code: 200, body: serde_json::to_string(value).expect("plain data") }
    }

    /// Why not.
    #[must_use]
    pub fn error(code: u16, message: &str) -> Self {
        Self { code, body: serde_json::json!({ "error": message }).to_string() }
    }
}

/// The way from the socket to the applier. Few ask at a time.
#[must_use]
pub fn channel() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(4)
}
