//! Hearing of what others do.

use rulecast_bundle::nft::Family;
use rulecast_netlink::{Batch, Connection, Event, Monitor, Value};

use crate::layout::{FAMILIES, add_elements, add_layout, endpoint, flow};
use crate::namespace::{in_namespace, nft};

const V4: Family = Family::V4;

fn events(monitor: &mut Monitor) -> Vec<Event> {
    std::iter::from_fn(|| monitor.next().unwrap()).collect()
}

/// What others did to our tables, as text.
fn foreign(monitor: &mut Monitor) -> Vec<String> {
    let describe = |event| match event {
        Event::Foreign { family, what, .. } => Some(format!("{family:?} {what}")),
        _ => None,
    };
    events(monitor).into_iter().filter_map(describe).collect()
}

fn layout(connection: &mut Connection) {
    let mut batch = Batch::new();
    for family in FAMILIES {
        add_layout(&mut batch, family);
        add_elements(&mut batch, family);
    }
    connection.commit(batch).unwrap();
}

#[test]
fn our_own_commits_and_other_tables_are_not_reported() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        let mut monitor = Monitor::open(connection.port_id()).unwrap();
        layout(&mut connection);
        assert_eq!(events(&mut monitor), []);

        nft(
            &["-f", "-"],
            "table ip other { set s { type ipv4_addr; elements = { 10.0.0.1 }; }; chain c { accept; }; }",
        );
        let generation = connection.generation().unwrap();
        match &events(&mut monitor)[..] {
            [Event::NewGeneration { generation: told, process, pid, port_id }] => {
                assert_eq!((*told, process.as_str()), (generation, "nft"));
                assert!(*pid > 0 && *port_id != connection.port_id());
            }
            events => panic!("{events:?}"),
        }
    });
}

#[test]
fn foreign_changes_are_reported() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        let mut monitor = Monitor::open(connection.port_id()).unwrap();

        nft(&["-f", "-"], "delete element ip rulecast node-ips { 10.96.0.7 }");
        assert_eq!(foreign(&mut monitor), ["V4 elements of set node-ips deleted"]);
        nft(&["-f", "-"], "add element ip6 rulecast node-ips { fd00::9 }");
        assert_eq!(foreign(&mut monitor), ["V6 elements of set node-ips added"]);
        nft(&["-f", "-"], "flush chain ip6 rulecast lb-3");
        let rule = "V6 rule of chain lb-3 deleted";
        assert_eq!(foreign(&mut monitor), [rule, rule]);
        nft(&["-f", "-"], "flush set ip rulecast hairpin");
        assert_eq!(foreign(&mut monitor), ["V4 elements of set hairpin deleted"]);
        nft(&["-f", "-"], "delete table ip rulecast");
        assert!(foreign(&mut monitor).contains(&"V4 table deleted".to_owned()));
        layout(&mut connection);
        nft(&["-f", "-"], "flush ruleset");
        let told = foreign(&mut monitor);
        for family in ["V4", "V6"] {
            assert!(told.contains(&format!("{family} table deleted")), "{told:?}");
        }
    });
}

#[test]
fn a_pause_hides_what_happens_in_it_and_nothing_else() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        let mut monitor = Monitor::open(connection.port_id()).unwrap();
        let change =
            |element: &str| nft(&["-f", "-"], &format!("add element ip rulecast node-ips {{ {element} }}"));
        change("10.0.0.1");
        monitor.pause().unwrap();
        change("10.0.0.2");
        monitor.resume().unwrap();
        change("10.0.0.3");
        assert_eq!(foreign(&mut monitor).len(), 2);
        change("10.0.0.4");
        monitor.drain().unwrap();
        assert_eq!(events(&mut monitor), []);
        change("10.0.0.5");
        assert_eq!(foreign(&mut monitor).len(), 1);
    });
}

#[test]
fn lost_events_are_reported_and_later_ones_come() {
    in_namespace(|| {
        let mut connection = Connection::open().unwrap();
        layout(&mut connection);
        let mut monitor = Monitor::open(connection.port_id()).unwrap();
        let mut batch = Batch::new();
        for i in 3..100_000 {
            batch.add_element(V4, "endpoints", &flow(V4, 1).index(i), Value::Bytes(&endpoint(V4, i)));
        }
        Connection::open().unwrap().commit(batch).unwrap();
        assert!(events(&mut monitor).contains(&Event::Overflow));
        nft(&["-f", "-"], "delete table ip6 rulecast");
        assert!(foreign(&mut monitor).contains(&"V6 table deleted".to_owned()));
    });
}
