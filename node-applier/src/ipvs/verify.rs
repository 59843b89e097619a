//! Whether the kernel holds what was written: virtual servers with destinations and weights, sets with entries, addresses,
//! and the iptables rules.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;

use super::kernel::{Look, excluded};
use super::sets::family;
use super::state::State;
use super::{DEVICE, Ipvs, text};
use crate::backend::{BackendError, Verified};

/// Compares everything.
pub(super) fn verify(ipvs: &mut Ipvs) -> Result<Verified, BackendError> {
    let mut verified = Verified::default();
    if !ipvs.known {
        verified.differs(|| "the rules of the version in force have not been written".to_owned());
        return Ok(verified);
    }
    let exclude = ipvs.exclude.clone();
    let ours: BTreeSet<_> = ipvs.state.servers.keys().copied().collect();
    let found = ipvs.kernel()?.read(|at| excluded(&exclude, at) && !ours.contains(at))?;
    compare_servers(&ipvs.state, &found, &mut verified);
    compare_entries(&ipvs.state, &found, &mut verified);
    verified.elements += ipvs.state.addrs.len();
    for addr in ipvs.state.addrs.difference(&found.addrs).collect::<BTreeSet<_>>() {
        verified.differs(|| format!("device {DEVICE}, address {addr}: missing"));
    }
    for addr in found.addrs.difference(&ipvs.state.addrs).collect::<BTreeSet<_>>() {
        verified.differs(|| format!("device {DEVICE}, address {addr}: not ours"));
    }
    ipvs.filter.verify(&mut verified)?;
    Ok(verified)
}

fn compare_servers(wanted: &State, found: &State, verified: &mut Verified) {
    let all: BTreeSet<_> = wanted.servers.keys().chain(found.servers.keys()).collect();
    for at in all {
        match (wanted.servers.get(at), found.servers.get(at)) {
            (Some(server), Some(there)) => {
                verified.elements += 1 + server.destinations.len();
                if server.scheduling != there.scheduling {
                    let there = &there.scheduling;
                    verified.differs(|| {
                        format!(
                            "virtual server {at}: scheduler {}, persistence {:?}",
                            there.scheduler, there.persistence
                        )
                    });
                }
                let both: BTreeSet<_> = server.destinations.keys().chain(there.destinations.keys()).collect();
                for to in both {
                    let (weight, other) = (server.destinations.get(to), there.destinations.get(to));
                    if weight != other {
                        let words =
                            |w: Option<&u32>| w.map_or("missing".to_owned(), |w| format!("weight {w}"));
                        verified.differs(|| {
                            format!(
                                "virtual server {at}, destination {to}: {} instead of {}",
                                words(other),
                                words(weight)
                            )
                        });
                    }
                }
            }
            (Some(server), None) => {
                verified.elements += 1 + server.destinations.len();
                verified.differs(|| format!("virtual server {at}: missing"));
            }
            (None, _) => verified.differs(|| format!("virtual server {at}: not ours")),
        }
    }
}

fn compare_entries(wanted: &State, found: &State, verified: &mut Verified) {
    let sets: BTreeSet<_> = wanted.entries.iter().map(|(set, e)| (*set, family(e.addr))).collect();
    verified.sets += sets.len();
    verified.elements += wanted.entries.len();
    for (entries, others, word) in
        [(&wanted.entries, &found.entries, "missing"), (&found.entries, &wanted.entries, "not ours")]
    {
        for (set, entry) in entries.difference(others).collect::<BTreeSet<_>>() {
            let name = set.name(family(entry.addr));
            verified.differs(|| format!("ipset {name}, entry {}: {word}", text::entry(entry)));
        }
    }
}

/// The first thing that somebody else changed, of what a look shows.
pub(super) fn first_difference(
    state: &State,
    look: &Look,
    exclude: &[(IpAddr, u8)],
    served: impl Iterator<Item = Family>,
) -> Option<String> {
    let gone = |what: &dyn Display| format!("{what} is gone");
    let mut there = 0;
    for (at, how) in &look.services {
        match state.servers.get(at) {
            Some(server)
                if *server.scheduling.scheduler == *how.scheduler
                    && server.scheduling.persistence == how.persistence =>
            {
                there += 1;
            }
            Some(_) => return Some(format!("virtual server {at} was changed")),
            None if excluded(exclude, at) => {}
            None => return Some(format!("virtual server {at} was added")),
        }
    }
    if there != state.servers.len() {
        let found: BTreeSet<_> = look.services.iter().map(|(at, _)| at).collect();
        let missing = state.servers.keys().find(|at| !found.contains(at));
        return missing.map(|at| gone(&format!("virtual server {at}")));
    }
    let found: BTreeSet<_> = look.addrs.iter().collect();
    if let Some(addr) = state.addrs.iter().find(|addr| !found.contains(addr)) {
        return Some(gone(&format!("address {addr} of {DEVICE}")));
    }
    let served: Vec<Family> = served.collect();
    for (set, of, header) in look.sets.iter().filter(|(_, family, _)| served.contains(family)) {
        let name = set.name(*of);
        let Some(header) = header else { return Some(gone(&format!("ipset {name}"))) };
        let wanted = state.entries.iter().filter(|(s, e)| s == set && family(e.addr) == *of).count();
        if header.entries.is_some_and(|entries| entries as usize != wanted) {
            return Some(format!("ipset {name} was changed"));
        }
    }
    None
}
