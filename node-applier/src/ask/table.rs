//! Answers for people.

use std::fmt::Write as _;

use rulecast_node::backend::Verified;
use rulecast_node::control::{Port, Service, Status, Totals};
use serde_json::Value;

/// One line for each fact.
pub(crate) fn status(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        let _infallible = writeln!(out, "{name:<12}{text}");
    };
    line("node", &status.node);
    line("pool", &status.pool);
    let applier = if status.running { "runs" } else { "does not run; this is what its disk has" };
    line("applier", &format!("{applier} (version {})", status.version));
    match &status.in_force {
        None => line("in force", "nothing"),
        Some(version) => {
            let bundle = if version.next { "the pool's next shape, " } else { "" };
            let epoch = if version.epoch > 0 { format!(", epoch {}", version.epoch) } else { String::new() };
            let since = version.since.as_ref().map(|at| format!(", since {at}")).unwrap_or_default();
            let text =
                format!("sequence {}{epoch} of {bundle}bundle {}{since}", version.sequence, version.bundle);
            line("in force", &text);
            line("mode", &version.mode);
            line("digest", &version.digest);
            let published = version.published_shape.as_ref();
            let other = published.map(|shape| format!("; published is {shape}")).unwrap_or_default();
            line("shape", &format!("{}{other}", version.shape));
            line(
                "serves",
                &format!("{} Service ports, {} endpoints", version.service_ports, version.endpoints),
            );
            if status.running {
                let kernel =
                    if version.in_kernel { "holds it" } else { "does not hold it; tried again and again" };
                line("kernel", kernel);
            }
        }
    }
    if let Some(source) = &status.source {
        let heard = source.heard.as_deref().unwrap_or("never");
        let text = match (&source.away_since, source.stale_seconds) {
            (Some(since), Some(seconds)) => {
                let why = source.message.as_deref().unwrap_or_default();
                format!("does not answer since {since} ({seconds} s); last version heard: {heard}; {why}")
            }
            _ if source.reachable => format!("answers; last version heard: {heard}"),
            _ => "was not heard yet".to_owned(),
        };
        line("source", &text);
    }
    if let Some(error) = &status.error {
        let about = error.sequence.map(|n| format!(" (sequence {n})")).unwrap_or_default();
        line("error", &format!("{}{about} since {}: {}", error.reason, error.since, error.message));
    } else if status.running {
        line("error", "none");
    }
    match (&status.hold, &status.hold_damage) {
        (Some(hold), _) => {
            line("hold", &format!("{} since {}: {}", hold.reason, hold.since, hold.message));
            line("", "'rulecast-node resume' ends it");
        }
        (None, Some(damage)) => {
            line("hold", &format!("cannot be read, so the pool is followed: {damage}"));
            line("", "'rulecast-node hold' keeps the present shape, 'rulecast-node resume' forgets the file");
        }
        (None, None) => line("hold", "none"),
    }
    if let Some(sequence) = status.last_shape_change {
        line("previous", &format!("the shape last changed with sequence {sequence}"));
    }
    out
}

/// How much there is.
pub(crate) fn totals(totals: &Totals) -> String {
    let Totals { services, service_ports, endpoints, source_ranges, nodes } = totals;
    format!(
        "services        {services}\nservice ports   {service_ports}\nendpoints       {endpoints}\n\
         source ranges   {source_ranges}\nnodes           {nodes}\n"
    )
}

/// A Service, port by port.
pub(crate) fn service(service: &Service) -> String {
    let mut out = format!("{}\n", service.service);
    for port in &service.ports {
        write_port(&mut out, port);
    }
    for port in &service.health_check_node_ports {
        let _infallible = writeln!(out, "  health checks at node port {port}");
    }
    out
}

fn write_port(out: &mut String, port: &Port) {
    let name = if port.name.is_empty() { String::new() } else { format!(" ({})", port.name) };
    let list = if port.list == "local" { ", endpoints of this node" } else { "" };
    let known = if port.last_known { ", no longer published: endpoints are last known" } else { "" };
    let _infallible = writeln!(out, "  {}/{}{name}{list}{known}", port.cluster, port.protocol);
    if let Some(seconds) = port.affinity_seconds {
        let _infallible = writeln!(out, "    clients stay for {seconds} s");
    }
    for frontend in &port.answers {
        let at = frontend.address.as_deref().unwrap_or("node addresses");
        let _infallible = writeln!(out, "    answers at {at} port {} ({})", frontend.port, frontend.lane);
    }
    for endpoint in &port.endpoints {
        let local = if endpoint.local { " on this node" } else { "" };
        let terminating = if endpoint.terminating { " terminating" } else { "" };
        let _infallible = writeln!(out, "    endpoint {}{local}{terminating}", endpoint.address);
    }
    if port.endpoints.is_empty() {
        let _infallible = writeln!(out, "    no endpoint: {}", port.without_endpoints);
    }
}

/// What differs, and how much was looked at.
pub(crate) fn verified(verified: &Verified) -> String {
    let Verified { chains, rules, sets, elements, differences, more } = verified;
    let mut out = String::new();
    for difference in differences {
        let _infallible = writeln!(out, "{difference}");
    }
    if *more > 0 {
        let _infallible = writeln!(out, "and {more} more");
    }
    let verdict = if verified.is_same() { "The kernel holds what it should" } else { "The kernel differs" };
    let _infallible = writeln!(
        out,
        "{verdict}: {chains} chains, {rules} rules, {sets} sets, {elements} elements compared."
    );
    out
}

/// What became of a wish.
pub(crate) fn wish(answer: &Value, running: bool) -> String {
    let hold = &answer["hold"];
    let word = |field: &str| hold[field].as_str().unwrap_or_default().to_owned();
    let mut out = match (answer["already"].as_bool(), hold.is_null()) {
        (Some(true), true) => "The pool is followed already.\n".to_owned(),
        (_, true) if running => "Resumed: the pool is followed again.\n".to_owned(),
        (_, true) => "The next applier that starts follows the pool again.\n".to_owned(),
        (Some(true), false) => format!("It is so already, since {}: {}\n", word("since"), word("message")),
        (_, false) if running => format!("{}: {}\n", word("reason"), word("message")),
        (_, false) => {
            format!("The next applier that starts will do so. {}: {}\n", word("reason"), word("message"))
        }
    };
    if let Some(why) = answer["notKept"].as_str() {
        let _infallible = writeln!(out, "It will not survive a restart: {why}");
    }
    out
}
