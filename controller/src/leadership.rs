//! Which of several controllers publishes.
//!
//! The Lease only saves work: what keeps a deposed leader from doing harm is that heads are written on top of the version
//! that was read.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use rulecast_connect::jitter;

/// The Lease's name.
const LEASE: &str = "rulecast-controller";
/// In seconds: a leader that is gone is replaced after this long.
const DURATION: u64 = 10;
/// In seconds: it is renewed this long before it ends.
const GRACE: u64 = 4;
const RETRY: Duration = Duration::from_secs(2);
const FAREWELL: Duration = Duration::from_secs(3);

/// Says whether this process leads.
pub struct Leadership {
    leads: watch::Receiver<bool>,
    /// Without an election: what keeps the channel open.
    _always: Option<watch::Sender<bool>>,
}

impl Leadership {
    /// Without others there is nothing to elect.
    #[must_use]
    pub fn always() -> Self {
        let (sender, leads) = watch::channel(true);
        Self { leads, _always: Some(sender) }
    }

    /// As another task says.
    #[must_use]
    pub fn follow(leads: watch::Receiver<bool>) -> Self {
        Self { leads, _always: None }
    }

    /// Whether it leads now.
    #[must_use]
    pub fn leads(&mut self) -> bool {
        *self.leads.borrow_and_update()
    }

    /// Waits until that changes. An error: nobody will ever say.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.leads.changed().await
    }
}

/// An election that runs.
pub struct Election(JoinHandle<()>);

impl Election {
    /// Stands for election by a Lease in a namespace.
    #[must_use]
    pub fn start(client: Client, namespace: String, identity: String) -> (Leadership, Self) {
        let (sender, leads) = watch::channel(false);
        let task = tokio::spawn(elect(client, namespace, identity, sender));
        (Leadership::follow(leads), Self(task))
    }

    /// Gives the Lease back, once the [`Leadership`] is dropped, so that another one need not wait for its end.
    pub async fn end(self) {
        let _ = tokio::time::timeout(FAREWELL, self.0).await;
    }
}

async fn elect(client: Client, namespace: String, identity: String, sender: watch::Sender<bool>) {
    let manager = loop {
        match candidate(&client, &namespace, &identity).await {
            Ok(manager) => break manager,
            Err(error) => {
                tracing::warn!(%error, namespace, "the Lease cannot be read; it is tried again");
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(jitter(RETRY)) => {}
                }
            }
        }
    };
    let (mut leads, task) = manager.watch().await;
    loop {
        sender.send_replace(*leads.borrow_and_update());
        tokio::select! {
            () = sender.closed() => break,
            changed = leads.changed() => if changed.is_err() { break },
        }
    }
    // Without a listener the manager gives the Lease back.
    drop(leads);
    if let Ok(Err(error)) = task.await {
        tracing::warn!(%error, "the Lease could not be given back");
    }
}

async fn candidate(
    client: &Client,
    namespace: &str,
    identity: &str,
) -> Result<LeaseManager, kube_lease_manager::LeaseManagerError> {
    LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_field_manager(identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await
}
