//! What the kernel holds, and what the view says that it should.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rulecast_bundle::nft::{Data, Family};
use rulecast_bundle::{Empty, GroupId, Name};
use rulecast_netlink::{Connection, Key};
use rulecast_node::applier::Applier;
use rulecast_node::nftables::Nftables;
use rulecast_node::view::Usable;

/// Where keys lead, by verdict map; and their endpoints, by map of endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    verdicts: BTreeMap<(String, Vec<u8>), String>,
    endpoints: BTreeMap<(String, Vec<u8>), BTreeSet<Vec<u8>>>,
}

/// Reads the kernel. Fails when numbers are not 0 to N-1.
pub(crate) fn kernel_behaviour(applier: &Applier<Nftables>, family: Family) -> Behaviour {
    let mut connection = Connection::open().unwrap();
    let mut behaviour = Behaviour::default();
    for set in &applier.view().rules(family).unwrap().sets {
        let list = connection
            .elements(family, set.name.as_str(), Vec::new, |all, e| {
                all.push((e.key.to_vec(), e.data.to_vec(), e.verdict.map(str::to_owned)));
            })
            .unwrap();
        let name = set.name.to_string();
        let mut members: BTreeMap<Vec<u8>, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        for (key, data, verdict) in list {
            match (&set.data, verdict) {
                (Data::Verdict, Some(verdict)) => {
                    drop(behaviour.verdicts.insert((name.clone(), key), verdict));
                }
                (Data::Fields(_), None) => {
                    let (key, index) = key.split_at(key.len() - 4);
                    let index = u32::from_ne_bytes(index.try_into().unwrap());
                    members.entry(key.to_vec()).or_default().insert(index, data);
                }
                _ => {}
            }
        }
        for (key, members) in members {
            assert!(members.keys().copied().eq(0..u32::try_from(members.len()).unwrap()), "{name} {key:?}");
            behaviour.endpoints.insert((name.clone(), key), members.into_values().collect());
        }
    }
    behaviour
}

/// What the view says the kernel should do.
pub(crate) fn expected_behaviour(applier: &Applier<Nftables>, family: Family) -> Behaviour {
    let view = applier.view();
    let rules = view.rules(family).unwrap();
    let mut behaviour = Behaviour::default();
    for (id, target) in view.targets().filter(|(id, _)| id.family() == family) {
        let group = target.shape().unwrap();
        let endpoint =
            |m: &Usable| Key::new().addr(m.endpoint.addr).port(m.endpoint.port).as_bytes().to_vec();
        let members: BTreeSet<Vec<u8>> = target.members().iter().map(endpoint).collect();
        for key in group.keys.iter() {
            let lane = &rules.lanes[usize::from(key.lane)];
            let bytes = kernel_key(id, key.addr, key.port);
            let mut leads = |map: &Name, verdict: String| {
                drop(behaviour.verdicts.insert((map.to_string(), bytes.clone()), verdict));
            };
            if let Some(detour) = lane.detour.as_ref().filter(|_| !members.is_empty()) {
                leads(&detour.map, detour.chain.to_string());
            }
            let pick = format!("{}-{}", lane.chain, members.len());
            let sticky = lane.affinity.as_ref().zip(group.affinity);
            let port = format!("tcp-{}-{}", id.addr, id.port);
            if let Some((affinity, timeout)) = sticky
                && let Some(remember) = &affinity.remember
            {
                leads(&remember.verdicts, format!("{}-{timeout}-{port}", remember.chain));
            }
            match (sticky, members.len(), group.empty) {
                (_, 0, Empty::Reject) => continue,
                (_, 0, Empty::Drop) => {
                    leads(&lane.verdicts, "drop".to_owned());
                    continue;
                }
                (Some((affinity, _)), ..) => {
                    leads(&lane.verdicts, format!("{}-{port}", affinity.chain));
                }
                (None, ..) => leads(&lane.verdicts, pick),
            }
            behaviour.endpoints.insert((lane.endpoints.to_string(), bytes), members.clone());
        }
    }
    behaviour
}

fn kernel_key(id: &GroupId, addr: Option<IpAddr>, port: u16) -> Vec<u8> {
    let key = addr.map_or(Key::new(), |a| Key::new().addr(a));
    key.proto(id.proto as u8).port(port).as_bytes().to_vec()
}
