//! What the kernel should hold: frontends, and what the packet filter has to know of them. Pure.
//!
//! Each Service port contributes its share, and so do the source ranges of each load balancer's address. What two of them
//! contribute is there for as long as one does.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use rulecast_bundle::nft::Family;
use rulecast_netlink::ipset::Entry;
use rulecast_netlink::ipvs::VirtualServer;

use super::plan::Touched;
use super::sets::Set;
use super::share::{Frontend, Own, Share, Source, all_sources, share};
use crate::view::View;

/// All that the kernel should hold.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) scheduler: Arc<str>,
    own: Own,
    shares: HashMap<Source, Share>,
    frontends: [HashMap<VirtualServer, Frontend>; 2],
    entries: HashMap<(Set, Entry), usize>,
    addrs: HashMap<IpAddr, usize>,
}

impl Wanted {
    /// Nothing.
    pub(super) fn empty(scheduler: &str) -> Self {
        Self {
            scheduler: scheduler.into(),
            own: Own::default(),
            shares: HashMap::new(),
            frontends: [HashMap::new(), HashMap::new()],
            entries: HashMap::new(),
            addrs: HashMap::new(),
        }
    }

    /// What a view asks for, of the families that are served.
    pub(super) fn new(view: &View, node_addrs: &[IpAddr], families: &[Family], scheduler: &str) -> Self {
        let mut wanted = Self::empty(scheduler);
        wanted.own = Own::new(view, node_addrs);
        let sources = all_sources(view).into_iter().filter(|source| families.contains(&source.family()));
        for source in sources.collect::<BTreeSet<_>>() {
            wanted.replace(view, source, &mut Touched::default());
        }
        wanted
    }

    /// Takes note of the node's addresses; whether they are others than before.
    pub(super) fn set_own(&mut self, own: Own) -> bool {
        let changed = self.own != own;
        self.own = own;
        changed
    }

    /// Gives the shares of several sources anew, and tells what may differ. A frontend may go from one of them to another.
    pub(super) fn update(&mut self, view: &View, sources: &BTreeSet<Source>) -> Touched {
        let mut touched = Touched::default();
        for source in sources {
            self.take_back(*source, &mut touched);
        }
        for source in sources {
            self.replace(view, *source, &mut touched);
        }
        touched
    }

    /// All that have a share, or should have one.
    pub(super) fn sources(&self, view: &View) -> BTreeSet<Source> {
        self.shares.keys().copied().chain(all_sources(view)).collect()
    }

    pub(super) fn frontend(&self, at: &VirtualServer) -> Option<&Frontend> {
        self.frontends.iter().find_map(|frontends| frontends.get(at))
    }

    pub(super) fn has_entry(&self, set: Set, entry: &Entry) -> bool {
        self.entries.contains_key(&(set, *entry))
    }

    /// Whether an address is to be on the device.
    pub(super) fn has_addr(&self, addr: &IpAddr) -> bool {
        self.addrs.contains_key(addr)
    }

    /// Whether the node has an address by itself.
    pub(super) fn is_own(&self, addr: &IpAddr) -> bool {
        self.own.addrs.contains(addr) || self.own.answering.contains(addr)
    }

    pub(super) fn touch_all(&self, touched: &mut Touched) {
        touched.servers.extend(self.frontends.iter().flat_map(HashMap::keys).copied());
        touched.entries.extend(self.entries.keys().copied());
        touched.addrs.extend(self.addrs.keys().copied());
    }

    fn take_back(&mut self, source: Source, touched: &mut Touched) {
        let Some(share) = self.shares.remove(&source) else { return };
        for (rank, frontends) in share.frontends.into_iter().enumerate() {
            for (at, _) in frontends {
                touched.servers.insert(at);
                self.frontends[rank].remove(&at);
            }
        }
        for entry in share.entries {
            touched.entries.insert(entry);
            release(&mut self.entries, &entry);
        }
        for addr in share.addrs {
            touched.addrs.insert(addr);
            release(&mut self.addrs, &addr);
        }
    }

    fn replace(&mut self, view: &View, source: Source, touched: &mut Touched) {
        let share = share(view, source, &self.own);
        self.put(source, share, touched);
    }

    /// Gives a share in the place of what there was.
    pub(super) fn put(&mut self, source: Source, share: Share, touched: &mut Touched) {
        self.take_back(source, touched);
        if share == Share::default() {
            return;
        }
        for (rank, frontends) in share.frontends.iter().enumerate() {
            for (at, frontend) in frontends {
                touched.servers.insert(*at);
                self.frontends[rank].insert(*at, frontend.clone());
            }
        }
        for entry in &share.entries {
            touched.entries.insert(*entry);
            *self.entries.entry(*entry).or_default() += 1;
        }
        for addr in &share.addrs {
            touched.addrs.insert(*addr);
            *self.addrs.entry(*addr).or_default() += 1;
        }
        self.shares.insert(source, share);
    }
}

#[cfg(test)]
impl Wanted {
    /// Who has a share.
    pub(super) fn shares(&self) -> impl Iterator<Item = Source> {
        self.shares.keys().copied()
    }

    /// One's share.
    pub(super) fn share_of(&self, source: Source) -> Share {
        self.shares.get(&source).cloned().unwrap_or_default()
    }
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
