//! Elements that are the same for every node: those of static sets.

use std::collections::HashMap;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_bundle::{Name, Part};
use rulecast_netlink::{Batch, Key, Value};

use super::out::Out;
use crate::view::{Touched, View};

/// How many elements each static set has.
pub(super) fn count(view: &View, family: Family) -> HashMap<Name, usize> {
    let mut counts = HashMap::new();
    for (_, set, _) in view.elements().iter().filter(|e| e.0 == family) {
        *counts.entry(set.clone()).or_default() += 1;
    }
    counts
}

/// Deletes and adds what changed.
pub(super) fn update(batch: &mut Batch, family: Family, touched: &Touched) {
    let of_family = |e: &&(Family, Name, Vec<Part>)| e.0 == family;
    // The same element removed and added leaves it as it is.
    for (_, set, parts) in touched.removed.difference(&touched.added).filter(of_family) {
        delete(batch, family, set, parts);
    }
    for (_, set, parts) in touched.added.difference(&touched.removed).filter(of_family) {
        add(batch, family, set, parts);
    }
}

/// Adds an element of a static set.
pub(super) fn add(out: &mut impl Out, family: Family, set: &Name, parts: &[Part]) {
    match range(parts) {
        (from, Some(to)) => out.add_range(family, set.as_str(), &from, &to),
        (key, None) => out.add_element(family, set.as_str(), &key, Value::None),
    }
}

/// Deletes an element of a static set.
pub(super) fn delete(batch: &mut Batch, family: Family, set: &Name, parts: &[Part]) {
    match range(parts) {
        (from, Some(to)) => batch.delete_range(family, set.as_str(), &from, &to),
        (key, None) => batch.delete_element(family, set.as_str(), &key),
    }
}

/// The key, or the first and last key when a part is a prefix.
fn range(parts: &[Part]) -> (Key, Option<Key>) {
    let (mut from, mut to, mut ranged) = (Key::new(), Key::new(), false);
    for part in parts {
        let both = |k: Key| match part {
            Part::Addr(addr) => k.addr(*addr),
            Part::Proto(proto) => k.proto(*proto as u8),
            Part::Port(port) => k.port(*port),
            Part::Prefix(..) => k,
        };
        (from, to) = (both(from), both(to));
        if let Part::Prefix(addr, len) = part {
            ranged = true;
            from = from.addr(*addr);
            to = to.addr(last_address(*addr, *len));
        }
    }
    (from, ranged.then_some(to))
}

fn last_address(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
            IpAddr::from((a.to_bits() | host).to_be_bytes())
        }
        IpAddr::V6(a) => {
            let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
            IpAddr::from((a.to_bits() | host).to_be_bytes())
        }
    }
}
