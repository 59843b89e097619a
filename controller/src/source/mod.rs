//! Where objects come from: a cluster, or a directory of manifests.

mod cluster;
mod directory;
mod links;
mod load;
mod tree;
mod worktree;

use tokio::sync::mpsc;

use crate::objects::{Object, ObjectId};

pub use crate::objects::Extent;
pub use cluster::ClusterSource;
pub use directory::{DirectoryError, DirectorySource};
pub use load::{LoadOptions, load_directories, load_directory};
pub(crate) use rulecast_connect::explain;
pub use rulecast_connect::{ClientError, ClusterOptions, connect};

/// What a source says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object is there, or has changed.
    Set(Object),
    /// An object is gone, or was never there.
    Gone(ObjectId),
    /// An object, or a file of them, cannot be used; what was known of it before stays. With the reason.
    Bad(ObjectId, String),
    /// A RulePool that cannot be used has this `metadata.generation`.
    Unusable(String, i64),
    /// All of these at once: nothing in between is compiled.
    Together(Vec<Event>),
    /// Everything that is there has been said. Comes once.
    Synced,
}

/// How many events wait for the compiler before a source has to.
const BACKLOG: usize = 8192;

/// Yields events as long as it is polled, whatever happens to what it reads from.
pub trait Source: Send + 'static {
    /// Feeds events until the receiver is dropped.
    fn run(self, events: mpsc::Sender<Event>) -> impl Future<Output = ()> + Send;
}

/// Starts a source as a task of its own.
pub fn start(source: impl Source) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(source.run(sender));
    receiver
}
