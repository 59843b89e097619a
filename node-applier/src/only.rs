//! One applier on a node: two would remove each other's rules.
//!
//! Two come about when a node moves to another pool: the pod of the one pool's DaemonSet starts while the other's ends. Pools may
//! keep their files in different folders, so what is shared is a name in the node's network namespace, as are the rules: an
//! abstract socket, which the kernel frees with the process (unix(7)).

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use tracing::{info, warn};

const NAME: &str = "rulecast-node";
/// How often to look whether the other one ended.
const AGAIN: Duration = Duration::from_millis(100);

/// As long as this is there, no other applier serves the node.
#[derive(Debug)]
pub struct Only {
    _name: UnixListener,
}

impl Only {
    /// Takes the node; none: another applier serves it.
    pub fn try_take() -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Some(Self { _name: listener })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the node as soon as no other applier serves it.
    pub async fn take() -> io::Result<Self> {
        let mut waits = false;
        loop {
            if let Some(taken) = Self::try_take()? {
                if waits {
                    info!("the other applier has ended");
                }
                return Ok(taken);
            }
            if !std::mem::replace(&mut waits, true) {
                warn!(
                    "another applier serves this node: waiting for its end. Is it a pod of another pool's DaemonSet?"
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_one_waits() {
        let first = Only::take().await.unwrap();
        assert!(Only::try_take().unwrap().is_none());
        let next = tokio::spawn(Only::take());
        tokio::time::sleep(AGAIN * 3).await;
        assert!(!next.is_finished());
        drop(first);
        next.await.unwrap().unwrap();
    }
}
