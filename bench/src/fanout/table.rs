//! What was measured, side by side.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::fleet::Counts;
use super::join::Join;
use super::{Phase, Plan};
use crate::memory::Memory;

/// rulecast's share of kube-proxy's cost must not be above one in so many.
const BYTES: f64 = 30.0;
/// The same where every EndpointSlice is full: a kube-proxy reads the whole slice for one endpoint.
const BYTES_OF_FULL_SLICES: f64 = 100.0;
const CPU: f64 = 12.0;
const JOIN: f64 = 50.0;

/// kube-proxy and rulecast side by side.
#[derive(Debug)]
pub struct Comparison {
    plan: Plan,
    /// The changes alone.
    pub(super) churn: Phase,
    /// With kube-proxies; none if there were none to be.
    pub(super) peer: Option<Phase>,
    /// With the controller and no nodes.
    pub(super) controller: Phase,
    /// With the controller and rulecast nodes.
    pub(super) own: Phase,
    pub(super) peer_join: Option<Join>,
    pub(super) own_join: Option<Join>,
    pub(super) peer_connections: usize,
    pub(super) own_connections: usize,
    /// The API server's memory at the end of a phase.
    pub(super) peer_api_server: Option<Memory>,
    pub(super) own_api_server: Option<Memory>,
    /// The controller's own processor time in the last phase.
    pub(super) controller_cpu: Duration,
    pub(super) controller_memory: Option<Memory>,
}

/// One line of the table.
struct Row {
    what: &'static str,
    unit: &'static str,
    digits: usize,
    peer: Option<f64>,
    own: Option<f64>,
    /// rulecast's may be one in so many of kube-proxy's.
    target: Option<f64>,
}

impl Comparison {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: *plan,
            churn: Phase::default(),
            peer: None,
            controller: Phase::default(),
            own: Phase::default(),
            peer_join: None,
            own_join: None,
            peer_connections: 0,
            own_connections: 0,
            peer_api_server: None,
            own_api_server: None,
            controller_cpu: Duration::ZERO,
            controller_memory: None,
        }
    }

    /// A phase's processor time above that of the changes alone, in seconds.
    fn above(&self, phase: Phase) -> f64 {
        phase.cpu.as_secs_f64() - self.churn.cpu.as_secs_f64()
    }

    fn rows(&self) -> Vec<Row> {
        let Plan { nodes, peer_nodes, time, size, .. } = self.plan;
        let (peer, seconds) = (self.peer, time.as_secs_f64());
        let each = |number: u64, nodes: u32| float(number) / f64::from(nodes) / seconds;
        let both = |what, unit, digits, target, of: &dyn Fn(Phase, u32) -> f64| Row {
            what,
            unit,
            digits,
            peer: peer.map(|phase| of(phase, peer_nodes)),
            own: (nodes > 0).then(|| of(self.own, nodes)),
            target,
        };
        let bytes = if size.endpoints >= 100 { BYTES_OF_FULL_SLICES } else { BYTES };
        let same = peer_nodes == nodes;
        let mut rows = vec![
            both("bytes to one node a second", "B", 0, Some(bytes), &|phase, nodes| {
                each(phase.counts.bytes, nodes)
            }),
            both("events to one node a second", "", 2, None, &|phase, nodes| {
                each(phase.counts.events, nodes)
            }),
            both("bytes of an event", "B", 0, None, &|phase, _| event_bytes(phase.counts)),
            both("API server, processor time", "s", 2, None, &|phase, _| phase.cpu.as_secs_f64()),
            both("  above the changes alone", "s", 2, Some(CPU).filter(|_| same), &|phase, _| {
                self.above(phase)
            }),
            both("  above, for each node in 1000 s", "s", 2, None, &|phase, nodes| {
                self.above(phase) / f64::from(nodes) / seconds * 1000.0
            }),
        ];
        rows.push(Row {
            what: "API server, resident memory",
            unit: "MB",
            digits: 0,
            peer: self.peer_api_server.map(|memory| memory.now),
            own: self.own_api_server.map(|memory| memory.now),
            target: None,
        });
        let joins = [
            ("joining: bytes", "B", 0, &(|join: Join| float(join.bytes)) as &dyn Fn(Join) -> f64),
            ("joining: API server, processor time", "ms", 1, &|join: Join| join.cpu.as_secs_f64() * 1e3),
        ];
        rows.extend(joins.map(|(what, unit, digits, of)| Row {
            what,
            unit,
            digits,
            peer: self.peer_join.map(of),
            own: self.own_join.map(of),
            target: Some(JOIN),
        }));
        rows
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Plan { size, nodes, peer_nodes, rate, time, .. } = self.plan;
        let mut table = format!(
            "fanout  {} Services x {} endpoints, {rate} changes/s for {time:?}: {peer_nodes} kube-proxies, {nodes} \
             rulecast nodes\n{:48}{:>14}{:>14}{:>9}\n",
            size.services, size.endpoints, "", "kube-proxy", "rulecast", "1 in"
        );
        for Row { what, unit, digits, peer, own, target } in self.rows() {
            let number =
                |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            let share = peer.zip(own).filter(|(_, own)| *own > 0.0).map(|(peer, own)| peer / own);
            let verdict = match (share, target) {
                (Some(share), Some(target)) if share >= target => format!("  >= {target}  ok"),
                (Some(_), Some(target)) => format!("  >= {target}  MISSED"),
                _ => String::new(),
            };
            let share = share.map(|share| format!("{share:.1}")).unwrap_or_default();
            let (peer, own) = (number(peer), number(own));
            writeln!(table, "  {what:<42} {unit:<3}{peer:>14}{own:>14}{share:>9}{verdict}")
                .expect("a String grows");
        }
        let Phase { cpu, .. } = self.churn;
        writeln!(
            table,
            "  API server: {cpu:.2?} for the changes alone, {:.2?} with the controller and no nodes; {} reports",
            self.controller.cpu, self.own.counts.reports
        )
        .expect("a String grows");
        if let Some(memory) = self.controller_memory {
            writeln!(
                table,
                "  controller: {:.2?} of processor time, {:.0} MB resident, {:.0} MB at most",
                self.controller_cpu, memory.now, memory.peak
            )
            .expect("a String grows");
        }
        table
    }

    fn json(&self) -> Value {
        let Plan { size, nodes, peer_nodes, rate, time, joins, report_interval } = self.plan;
        let mut json = json!({
            "bench": "fanout", "services": size.services, "endpoints": size.endpoints, "rate": rate,
            "seconds": time.as_secs(), "nodes": nodes, "peer_nodes": peer_nodes, "joins": joins,
            "report_interval_s": report_interval.map(|interval| interval.as_secs()),
            "controller_cpu_s": rounded(self.controller_cpu.as_secs_f64()),
            "controller_rss_mb": self.controller_memory.map(|memory| rounded(memory.now)),
            "controller_peak_rss_mb": self.controller_memory.map(|memory| rounded(memory.peak)),
            "peer_connections": self.peer_connections, "own_connections": self.own_connections,
            "peer_api_server_rss_mb": self.peer_api_server.map(|memory| rounded(memory.now)),
            "own_api_server_rss_mb": self.own_api_server.map(|memory| rounded(memory.now)),
            "join_peer_bytes": self.peer_join.map(|join| join.bytes),
            "join_own_bytes": self.own_join.map(|join| join.bytes),
            "join_peer_cpu_ms": self.peer_join.map(|join| rounded(join.cpu.as_secs_f64() * 1e3)),
            "join_own_cpu_ms": self.own_join.map(|join| rounded(join.cpu.as_secs_f64() * 1e3)),
        });
        let map = json.as_object_mut().expect("an object");
        for (name, phase) in [
            ("churn", Some(self.churn)),
            ("peer", self.peer),
            ("controller_alone", Some(self.controller)),
            ("own", Some(self.own)),
        ] {
            insert(map, name, phase);
        }
        json
    }
}

fn insert(map: &mut Map<String, Value>, name: &str, phase: Option<Phase>) {
    let mut entry = |key: &str, value: Option<Value>| {
        map.insert(format!("{name}_{key}"), value.unwrap_or_default());
    };
    entry("cpu_s", phase.map(|phase| rounded(phase.cpu.as_secs_f64())));
    entry("late_ms", phase.map(|phase| rounded(phase.late.as_secs_f64() * 1e3)));
    if ["peer", "own"].contains(&name) {
        entry("bytes", phase.map(|phase| phase.counts.bytes.into()));
        entry("events", phase.map(|phase| phase.counts.events.into()));
        entry("event_bytes", phase.map(|phase| rounded(event_bytes(phase.counts))));
        entry("reports", phase.map(|phase| phase.counts.reports.into()));
    }
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

/// The mean; 0 without events.
fn event_bytes(counts: Counts) -> f64 {
    float(counts.event_bytes) / float(counts.events.max(1))
}

fn rounded(value: f64) -> Value {
    ((value * 100.0).round() / 100.0).into()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Size;

    fn comparison(endpoints: u32, own_bytes: u64) -> Comparison {
        let plan = Plan {
            size: Size { services: 10, endpoints },
            nodes: 10,
            peer_nodes: 10,
            joins: 1,
            rate: 1,
            time: Duration::from_secs(10),
            report_interval: None,
        };
        let phase = |cpu, bytes| Phase {
            cpu: Duration::from_secs(cpu),
            counts: Counts { bytes, events: 10, event_bytes: 1000, reports: 3 },
            late: Duration::ZERO,
        };
        let mut comparison = Comparison::new(&plan);
        comparison.churn = phase(2, 0);
        comparison.peer = Some(phase(26, 300_000));
        comparison.own = phase(4, own_bytes);
        comparison.own_join = Some(Join { bytes: 10, cpu: Duration::from_millis(1) });
        comparison.peer_join = Some(Join { bytes: 499, cpu: Duration::from_millis(50) });
        comparison
    }

    #[test]
    fn shares_have_verdicts() {
        let table = comparison(10, 10_000).table();
        let verdicts = |word| table.lines().filter(|line| line.ends_with(word)).count();
        // Bytes (30), processor time (12) and the joining node's (50) are just enough; the joining node's bytes are not.
        assert_eq!((verdicts("ok"), verdicts("MISSED")), (3, 1), "{table}");
        assert!(comparison(100, 10_000).table().contains(">= 100  MISSED"));
    }

    #[test]
    fn json_is_flat() {
        let json = comparison(10, 10_000).json();
        assert!(json.as_object().unwrap().values().all(|value| !value.is_object() && !value.is_array()));
        assert_eq!((&json["peer_cpu_s"], &json["own_bytes"]), (&json!(26.0), &json!(10_000)));
        assert_eq!((&json["join_peer_bytes"], &json["join_own_cpu_ms"]), (&json!(499), &json!(1.0)));
        assert_eq!(json["own_event_bytes"], 100.0);
    }
}
