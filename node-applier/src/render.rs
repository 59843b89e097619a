//! A node's rules as text, in the words of the tools of its mode.

use std::fmt;
use std::net::IpAddr;

use rulecast_bundle::Mode;
use serde::Serialize;

use crate::backend::BackendError;
use crate::view::View;
use crate::{iptables, ipvs, nftables};

/// The rules of a node, as a start of the applier writes them where there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Rules {
    /// As `nft list ruleset` prints them.
    Nftables(nftables::text::Tables),
    /// As other tools read them.
    Lines {
        /// The mode.
        mode: Mode,
        /// For `iptables-restore` and `ip6tables-restore`; in IPVS mode for `ipvsadm -R`, `ipset restore` and these.
        lines: Vec<String>,
    },
}

/// The rules of a node with this view and these addresses; those of an empty view are none, in nftables.
pub fn render(view: &View, node_addrs: &[IpAddr]) -> Result<Rules, BackendError> {
    let mode = view.mode().unwrap_or_default();
    let text = match mode {
        Mode::Nftables => return nftables::text::render(view, node_addrs).map(Rules::Nftables),
        Mode::Iptables => {
            let mut text = Vec::new();
            iptables::text::render(&mut text, view, node_addrs).expect("memory takes it");
            String::from_utf8_lossy(&text).into_owned()
        }
        Mode::Ipvs => ipvs::text::render(view, node_addrs),
    };
    Ok(Rules::Lines { mode, lines: text.lines().map(ToOwned::to_owned).collect() })
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables(tables) => tables.fmt(f),
            Self::Lines { lines, .. } => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
        }
    }
}
