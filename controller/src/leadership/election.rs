//! The election on an API server: reads, writes and watches the Lease.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use rulecast_connect::explain;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::Leadership;
use super::candidate::{Candidate, DURATION, Step};
use super::record::{self, Record};

/// The Lease's name.
const LEASE: &str = "rulecast-controller";
/// For one request.
const PATIENCE: Duration = Duration::from_secs(2);
const FAREWELL: Duration = Duration::from_secs(3);
/// In one that is given back; the API server wants at least a second.
const NO_TIME: Duration = Duration::from_secs(1);

/// An election that runs.
pub struct Election(JoinHandle<()>);

impl Election {
    /// Stands for election by a Lease in a namespace.
    #[must_use]
    pub fn start(client: Client, namespace: &str, identity: &str) -> (Leadership, Self) {
        let (sender, leads) = watch::channel(false);
        let leases = Api::namespaced(client, namespace);
        let changes = changes(&leases);
        let elector = Elector { leases, candidate: Candidate::new(identity, Instant::now()), failing: false };
        (Leadership::follow(leads), Self(tokio::spawn(elector.run(changes, sender))))
    }

    /// Gives the Lease back, once the [`Leadership`] is dropped, so that another one need not wait for its end.
    pub async fn end(self) {
        let _ = tokio::time::timeout(FAREWELL, self.0).await;
    }
}

/// Without it a Lease that is given back would be noticed late; with it broken, elections go on all the same.
type Changes = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<Lease>>> + Send>>;

fn changes(leases: &Api<Lease>) -> Changes {
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE}"));
    watcher(leases.clone(), config).default_backoff().boxed()
}

struct Elector {
    leases: Api<Lease>,
    candidate: Candidate,
    /// It was told that the API server does not answer.
    failing: bool,
}

impl Elector {
    async fn run(mut self, mut changes: Changes, sender: watch::Sender<bool>) {
        loop {
            let now = Instant::now();
            let until = self.candidate.leads_until(now);
            sender.send_if_modified(|leads| std::mem::replace(leads, until.is_some()) != until.is_some());
            let wake = match self.candidate.step(now) {
                Step::Wait(at) => until.map_or(at, |until| at.min(until)),
                Step::Read | Step::Write => now,
            };
            tokio::select! {
                biased;
                () = sender.closed() => break,
                event = changes.next() => self.observe(event),
                () = tokio::time::sleep_until(wake) => self.act().await,
            }
        }
        self.give_back().await;
    }

    fn observe(&mut self, event: Option<watcher::Result<watcher::Event<Lease>>>) {
        use watcher::Event as E;
        let now = Instant::now();
        match event {
            Some(Ok(E::Apply(lease) | E::InitApply(lease))) => {
                self.candidate.heard(Record::of(&lease), now);
            }
            Some(Ok(E::Delete(_))) => self.candidate.doubt(),
            Some(Ok(E::Init | E::InitDone)) => {}
            Some(Err(error)) => tracing::debug!(%error, "the watch of the Lease broke"),
            None => unreachable!("a watcher never ends"),
        }
    }

    async fn act(&mut self) {
        let began = Instant::now();
        let step = self.candidate.step(began);
        let done = match step {
            Step::Wait(_) => return,
            Step::Read => self.read().await,
            Step::Write => self.write(began).await,
        };
        match done {
            Ok(()) => self.failing = false,
            Err(problem) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(problem, "Lease {LEASE}: trying on");
                }
                self.candidate.failed(Instant::now());
            }
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let lease = within(self.leases.get_opt(LEASE)).await?.map_err(|e| explain(&e))?;
        self.candidate.observe(lease.as_ref().map(Record::of), Instant::now());
        Ok(())
    }

    async fn write(&mut self, began: Instant) -> Result<(), String> {
        match self.put(self.candidate.name(), DURATION).await? {
            Some(record) => {
                self.candidate.wrote(record, began, Instant::now());
                Ok(())
            }
            // Somebody else was quicker.
            None => self.read().await,
        }
    }

    /// Writes over what was seen; none when the Lease is no longer that.
    async fn put(&self, holder: &str, duration: Duration) -> Result<Option<Record>, String> {
        let seen = self.candidate.seen();
        let lease = record::lease(LEASE, holder, duration, seen);
        let params = PostParams::default();
        let written = match seen {
            Some(_) => within(self.leases.replace(LEASE, &params, &lease)).await?,
            None => within(self.leases.create(&params, &lease)).await?,
        };
        match written {
            Ok(lease) => Ok(Some(Record::of(&lease))),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 && seen.is_some() => Ok(None),
            Err(error) => Err(explain(&error)),
        }
    }

    async fn give_back(&self) {
        if self.candidate.leads_until(Instant::now()).is_none() {
            return;
        }
        if let Err(problem) = self.put("", NO_TIME).await {
            tracing::warn!(problem, "the Lease could not be given back; it ends by itself");
        }
    }
}

async fn within<T>(request: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, request).await.map_err(|_| format!("no answer within {PATIENCE:?}"))
}
