//! Which of several controllers publishes.
//!
//! The Lease only saves work: what keeps a deposed leader from doing harm is that heads are written on top of the version
//! that was read. So it may be short, and a controller that cannot reach the API server for some seconds loses it: it could
//! not have published either.
//!
//! A Lease of our own making rather than a crate's: `kube-lease-manager` and `kubert` sleep until the Lease they saw would
//! end, so a successor would notice a graceful stop seconds late, and they compare clocks of different machines.

mod candidate;
mod election;
mod record;

use tokio::sync::watch;

pub use election::Election;

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
