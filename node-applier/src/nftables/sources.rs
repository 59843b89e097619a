//! Who may use a VIP with loadBalancerSourceRanges, as far as only the node knows.
//!
//! A load balancer may give its VIP to the nodes as an address of their own. What a node sends to the VIP then comes from
//! the VIP. kube-proxy lets it in where the ranges hold the node's address, and so does this.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Name, Part, prefix_contains};
use rulecast_netlink::Batch;

use super::fixed;
use super::out::Out;
use super::table::Table;
use crate::view::{Touched, View};

/// What is to be changed.
pub(super) struct Sources {
    gone: Vec<Vec<Part>>,
    came: Vec<Vec<Part>>,
}

/// Compares what the table holds with what the view wants, for the VIPs that an update touched.
pub(super) fn wanted(table: &mut Table, view: &View, touched: &Touched) -> Sources {
    let none = Sources { gone: Vec::new(), came: Vec::new() };
    let Some(set) = table.layout.rules.sources.clone() else { return none };
    let of_set = |e: &&(_, Name, Vec<Part>)| e.0 == table.layout.family && e.1 == set;
    let vips: BTreeSet<&[Part]> = if touched.fact {
        view.elements().iter().filter(of_set).map(|e| vip(&e.2)).collect()
    } else {
        touched.added.iter().chain(&touched.removed).filter(of_set).map(|e| vip(&e.2)).collect()
    };
    let primary = view.primary(table.layout.family);
    let wanted: BTreeSet<Vec<Part>> =
        vips.iter().filter_map(|vip| own_source(table, view, &set, vip, primary?)).collect();
    let had = |e: &&Vec<Part>| touched.fact || vips.contains(vip(e));
    let before: BTreeSet<Vec<Part>> = table.sources.iter().filter(had).cloned().collect();
    let gone: Vec<_> = before.difference(&wanted).cloned().collect();
    let came: Vec<_> = wanted.difference(&before).cloned().collect();
    for element in &gone {
        table.sources.remove(element);
    }
    table.sources.extend(came.iter().cloned());
    Sources { gone, came }
}

impl Sources {
    /// Before other elements come, which may hold these addresses as well.
    pub(super) fn delete(&self, batch: &mut Batch, table: &Table) {
        for element in &self.gone {
            if let Some(set) = &table.layout.rules.sources {
                fixed::delete(batch, table.layout.family, set, element);
            }
        }
    }

    /// After other elements went.
    pub(super) fn add(&self, out: &mut impl Out, table: &Table) {
        for element in &self.came {
            if let Some(set) = &table.layout.rules.sources {
                fixed::add(out, table.layout.family, set, element);
            }
        }
    }
}

/// The VIP's key in front of a range.
fn vip(parts: &[Part]) -> &[Part] {
    parts.split_last().map_or(&[], |(_, vip)| vip)
}

/// The VIP as a source, if one of its ranges holds the node's address and none the VIP itself.
fn own_source(table: &Table, view: &View, set: &Name, vip: &[Part], primary: IpAddr) -> Option<Vec<Part>> {
    let Some(Part::Addr(addr)) = vip.first().copied() else { return None };
    // A bundle from elsewhere may have other keys in this set, which are not VIPs'.
    if Family::of(addr) != table.layout.family || vip.len() != 3 {
        return None;
    }
    let first = (table.layout.family, set.clone(), vip.to_vec());
    let of_vip = view.elements().range(first..).take_while(|e| e.1 == *set && e.2.starts_with(vip));
    let ranges: Vec<(IpAddr, u8)> = of_vip
        .filter_map(|e| if let Some(Part::Prefix(net, len)) = e.2.last() { Some((*net, *len)) } else { None })
        .collect();
    let hold = |addr| ranges.iter().any(|range| prefix_contains(*range, addr));
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    (hold(primary) && !hold(addr)).then(|| [vip, &[Part::Prefix(addr, whole)]].concat())
}
