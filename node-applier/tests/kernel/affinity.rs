//! Session affinity: clients that are kept, and objects of a Service port's own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rulecast_bundle::nft::Family;
use rulecast_netlink::{Batch, Connection, Key, Value};

use crate::rig::*;

/// The clients of the Service port 172.30.0.1:80.
const AFFINITY: &str = "affinity-tcp-172.30.0.1-80";

#[test]
fn clients_of_endpoints_that_left_are_forgotten() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let mut connection = Connection::open().unwrap();
        let sticky = |on: bool| Some(service("172.30.0.1", if on { 16 } else { 0 }));
        controller.compiler.set_service("ns/s1", sticky(true));
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, false), (2, false)])));
        deliver(&mut controller, &mut applier);
        // As packets would have remembered them.
        let mut batch = Batch::new();
        for n in 0..210u8 {
            let client = Key::new().addr(IpAddr::from([10, 9, 9, n])).proto(6);
            let endpoint = Key::new().addr(ip(if n < 200 { "10.1.0.1" } else { "10.1.0.2" })).port(8080);
            batch.add_element(Family::V4, AFFINITY, &client, Value::Bytes(&endpoint));
        }
        connection.commit(batch).unwrap();
        applier.repair().unwrap();
        assert_eq!(keys_of(AFFINITY).len(), 210, "a rebuild keeps them");
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(2, false), (3, false)])));
        deliver(&mut controller, &mut applier);
        assert_eq!(keys_of(AFFINITY).len(), 10);
        // Nobody compares members while affinity is off.
        controller.compiler.set_service("ns/s1", sticky(false));
        deliver(&mut controller, &mut applier);
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(3, false)])));
        deliver(&mut controller, &mut applier);
        controller.compiler.set_service("ns/s1", sticky(true));
        deliver(&mut controller, &mut applier);
        assert!(keys_of(AFFINITY).is_empty());
    });
}

#[test]
fn what_session_affinity_needed_goes_with_it() {
    in_namespace(|| {
        let mut controller = Controller::new();
        let mut applier = applier(None);
        let own = || {
            let mut connection = Connection::open().unwrap();
            let sets = connection.sets(Family::V4).unwrap().into_iter().map(|set| set.name);
            let all = sets.chain(connection.chains(Family::V4).unwrap());
            all.filter(|name| name.contains("-tcp-")).collect::<BTreeSet<String>>()
        };
        controller.compiler.set_slice("ns/s1", Some(slice("ns/s1", &[(1, true), (2, false)])));
        // ClusterIP and nodePort; then with a VIP and externalTrafficPolicy Local; then none; then with a VIP and policy
        // Cluster, which shares a chain with the cluster IP; then without the VIP; then gone.
        let mut seen = Vec::new();
        for keys in [Some(17), Some(23), Some(1), Some(23), Some(19), Some(17), Some(19), None] {
            controller.compiler.set_service("ns/s1", keys.map(|keys| service("172.30.0.1", keys)));
            deliver(&mut controller, &mut applier);
            std::thread::sleep(std::time::Duration::from_millis(1100));
            assert!(applier.repair().unwrap().is_none(), "our own cleaning is not foreign");
            let left = own();
            applier.rebuild().unwrap();
            assert_eq!(left, own(), "a rebuild has neither more nor less");
            seen.push(left.len());
        }
        assert!(seen[0] > 0 && seen[1] > seen[0] && seen[3] == seen[1], "{seen:?}");
        assert_eq!((seen[2], seen[7]), (0, 0));
        assert!(seen[5] == seen[0] && seen[4] > seen[0] && seen[6] == seen[4], "{seen:?}");
    });
}
