//! What is asked of the applier on its node.

use std::time::SystemTime;

use serde_json::json;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::Local;
use crate::backend::Backend;
use crate::control::{self, Answer, Ask};
use crate::hold::{Fulfilled, HoldError, Wish};
use crate::status::Held;

/// How often the log says that a shape is kept.
const REMIND: Duration = Duration::from_mins(1);

impl<B: Backend> Local<B> {
    /// Answers a question, or does what is asked.
    pub(in crate::run) fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Answer::ok(&control::status(self.applier.look(), Some(&self.shared))),
            Ask::Show(None) => Answer::ok(&control::totals(self.applier.look())),
            Ask::Show(Some(name)) => match control::service(self.applier.look(), &name) {
                Some(service) => Answer::ok(&service),
                None => Answer::error(404, &format!("no Service {name} is in force here")),
            },
            Ask::Keep(wish, text) => {
                let fulfilled = self.applier.ask(wish, &text);
                self.fulfilled(fulfilled, if wish == Wish::Hold { "hold" } else { "use-previous" })
            }
            Ask::Verify => match self.applier.verify() {
                Ok(verified) => Answer::ok(&verified),
                Err(error) => Answer::error(500, &error.to_string()),
            },
            Ask::Resume => {
                let fulfilled = self.applier.resume();
                self.fulfilled(fulfilled, "resume")
            }
        }
    }

    fn fulfilled(&mut self, fulfilled: Result<Fulfilled, HoldError>, what: &str) -> Answer {
        let fulfilled = match fulfilled {
            Ok(fulfilled) => fulfilled,
            Err(error) => {
                warn!("asked on this node to {what}, which cannot be done: {error}");
                let known = !matches!(error, HoldError::Kernel(_));
                self.tell();
                return Answer::error(if known { 409 } else { 500 }, &error.to_string());
            }
        };
        if fulfilled != Fulfilled::Already {
            info!("asked on this node to {what}: done");
            self.next_reminder = None;
            self.tell();
        }
        let not_kept = if let Fulfilled::NotKept(why) = &fulfilled { Some(why) } else { None };
        let hold = control::status(self.applier.look(), None).hold;
        Answer::ok(&json!({ "already": fulfilled == Fulfilled::Already, "hold": hold, "notKept": not_kept }))
    }

    /// Tells what is kept, and reminds of it.
    pub(super) fn tell_hold(&mut self) {
        let held = self.applier.hold().map(|hold| Held {
            reason: hold.wish.reason(),
            message: hold.message(),
            since: hold.since,
        });
        let now = Instant::now();
        if let Some(held) = &held
            && self.next_reminder.is_none_or(|at| at <= now)
        {
            let hours = held.since.elapsed().unwrap_or_default().as_secs() / 3600;
            warn!(
                reason = held.reason,
                hours, "this node does not follow its pool's shape: {}", held.message
            );
            self.next_reminder = Some(now + REMIND);
        }
        if held.is_none() {
            self.next_reminder = None;
        }
        let (state, metrics) = &mut *self.shared.lock();
        metrics.held = held.is_some();
        state.held = held;
    }

    /// Takes note of the source, for those who ask.
    pub(in crate::run) fn heard(&self) {
        let (_, metrics) = &mut *self.shared.lock();
        metrics.heard = Some(SystemTime::now());
        metrics.source_answered();
    }
}
