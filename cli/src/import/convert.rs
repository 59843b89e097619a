//! From `KubeProxyConfiguration` to a RulePool: its fields that decide what the rules do.
//!
//! Conversion, defaults and validation are those of kube-proxy v1.36 (`pkg/proxy/apis/config` and
//! `platformApplyDefaults`): the pool does what that kube-proxy did, not what the file seems to say.

mod ipvs;
mod local;

use std::time::Duration as StdDuration;

use rulecast_api::{Conntrack, Duration, Mode, RulePoolSpec};

use super::leaves::{Leaf, Leaves, Wrong};
use super::report::{Fate, Report};
use super::{cidr, elsewhere};

/// A RulePool's spec, and what became of each field.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) spec: RulePoolSpec,
    pub(super) report: Report,
}

/// Converts a configuration into a pool of mode `target`, or of kube-proxy's own mode.
pub(super) fn convert(leaves: Leaves, target: Option<Mode>) -> Result<Converted, Wrong> {
    let mut c =
        Conversion { leaves, report: Report::default(), spec: RulePoolSpec::default(), from: Mode::Iptables };
    c.mode(target)?;
    c.masquerade()?;
    c.detect_local()?;
    c.node_port_addresses()?;
    c.ipvs()?;
    c.conntrack()?;
    c.publish_interval()?;
    c.external_ips()?;
    let Conversion { mut leaves, mut report, mut spec, from } = c;
    for section in SECTIONS {
        if let Some(leaf) = leaves.given(section) {
            return Err(leaf.wrong(format!("{} stands where fields are wanted", leaf.shown())));
        }
    }
    elsewhere::note(&mut leaves, &mut report, from, &mut spec)?;
    for leaf in leaves.rest() {
        let text = format!(
            "{} (line {}): no field of kube-proxy v1.36, which ignores it too",
            leaf.shown(),
            leaf.line
        );
        report.add(Fate::NotUnderstood, leaf.path, text);
    }
    Ok(Converted { spec, report })
}

/// The fields that hold fields.
const SECTIONS: [&str; 9] = [
    "clientConnection",
    "conntrack",
    "detectLocal",
    "featureGates",
    "iptables",
    "ipvs",
    "logging",
    "nftables",
    "winkernel",
];

struct Conversion {
    leaves: Leaves,
    report: Report,
    spec: RulePoolSpec,
    /// kube-proxy's mode.
    from: Mode,
}

const DEFAULT: &str = "kube-proxy's default";
const LEFT_ALONE: &str = "left out, which leaves the node's setting alone";
/// What a field says that does not count in this mode, and did not in kube-proxy.
const OTHER_MODE: &str = "kube-proxy reads it in another mode only";

/// The most prefixes in one field of a pool that the controller takes.
const MAX_PREFIXES: usize = 16;

impl Conversion {
    fn carried(&mut self, leaf: &Leaf) {
        self.report.leaf(Fate::Carried, leaf, "");
    }

    fn mode(&mut self, target: Option<Mode>) -> Result<(), Wrong> {
        let given = self.leaves.nonzero("mode");
        self.from = match &given {
            None => Mode::Iptables,
            Some(leaf) => mode(leaf)?,
        };
        self.spec.mode = target.unwrap_or(self.from);
        let origin = if given.is_some() { String::new() } else { format!(", {DEFAULT} on Linux") };
        let more = if self.spec.mode != self.from {
            format!("; {} as asked for", self.spec.mode)
        } else if self.spec.mode == Mode::Ipvs {
            "; upstream removes it in Kubernetes 1.43: docs/migration.md says how to leave it".to_owned()
        } else {
            String::new()
        };
        let text = format!("{}{origin}{more}", self.from);
        self.report.add(Fate::Carried, "mode", text);
        if (self.from, self.spec.mode) == (Mode::Iptables, Mode::Nftables) {
            let text = "packets that connection tracking calls invalid: iptables drops them, nftables lets them pass; \
                        conntrack.tcpBeLiberal: true makes fewer of them";
            self.report.add(Fate::NotCarried, "mode", text);
        }
        Ok(())
    }

    /// Of the three sections of modes, kube-proxy reads one; ipvs marks packets as iptables does.
    fn masquerade(&mut self) -> Result<(), Wrong> {
        let (read, other) =
            if self.from == Mode::Nftables { ("nftables", "iptables") } else { ("iptables", "nftables") };
        if let Some(leaf) = self.leaves.nonzero(&format!("{read}.masqueradeAll")) {
            self.spec.options.masquerade_all = leaf.bool()?;
            self.carried(&leaf);
        }
        // Bit 0 is not the default.
        if let Some(leaf) = self.leaves.given(&format!("{read}.masqueradeBit")) {
            self.spec.options.masquerade_bit = u8::try_from(leaf.number(31)?).expect("at most 31");
            self.carried(&leaf);
        }
        for field in ["masqueradeAll", "masqueradeBit"] {
            if let Some(leaf) = self.leaves.nonzero(&format!("{other}.{field}")) {
                self.report.leaf(Fate::NotNeeded, &leaf, OTHER_MODE);
            }
        }
        Ok(())
    }

    fn node_port_addresses(&mut self) -> Result<(), Wrong> {
        let path = "nodePortAddresses";
        let Some(leaf) = self.leaves.nonzero(path) else {
            let all_to = |mode| mode != Mode::Nftables;
            match (all_to(self.from), all_to(self.spec.mode)) {
                (true, false) => {
                    self.spec.options.node_port_addresses = ["0.0.0.0/0", "::/0"].map(str::to_owned).to_vec();
                    self.report.add(Fate::Carried, path, format!("all, {DEFAULT} in mode {}", self.from));
                }
                (false, true) => {
                    self.spec.options.node_port_addresses = vec!["primary".to_owned()];
                    self.report.add(Fate::Carried, path, format!("primary, {DEFAULT} in mode {}", self.from));
                }
                _ => {}
            }
            return Ok(());
        };
        let mut addresses: Vec<String> = Vec::new();
        for word in leaf.list()? {
            let address = match word {
                "primary" => "primary".to_owned(),
                cidr => cidr::canonical(cidr).ok_or_else(|| {
                    leaf.wrong(format!("{cidr:?} is not a CIDR, and not \"primary\" alone"))
                })?,
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > 1 && addresses.iter().any(|a| a == "primary") {
            return Err(leaf.wrong("\"primary\" and CIDRs together cannot be expressed; list CIDRs only"));
        }
        if addresses.len() > MAX_PREFIXES {
            let problem = format!("{} CIDRs; a RulePool can have {MAX_PREFIXES}; join some", addresses.len());
            return Err(leaf.wrong(problem));
        }
        self.spec.options.node_port_addresses = addresses;
        self.carried(&leaf);
        Ok(())
    }

    /// kube-proxy sets these without being asked; rulecast changes nothing that is not in the pool.
    fn conntrack(&mut self) -> Result<(), Wrong> {
        let max = i32::MAX.unsigned_abs();
        let per_core = self.number_or("conntrack.maxPerCore", max, 32_768)?;
        if per_core > 0 {
            self.spec.options.conntrack.max_per_core = Some(per_core);
            self.spec.options.conntrack.min = Some(self.number_or("conntrack.min", max, 131_072)?);
        } else if let Some(leaf) = self.leaves.nonzero("conntrack.min") {
            self.report.leaf(Fate::NotNeeded, &leaf, "kube-proxy ignores it where conntrack.maxPerCore is 0");
        }
        let established = self.duration_or("conntrack.tcpEstablishedTimeout", Some("24h"))?;
        let close_wait = self.duration_or("conntrack.tcpCloseWaitTimeout", Some("1h"))?;
        let udp = self.duration_or("conntrack.udpTimeout", None)?;
        let udp_stream = self.duration_or("conntrack.udpStreamTimeout", None)?;
        let liberal = self.leaves.nonzero("conntrack.tcpBeLiberal");
        if let Some(leaf) = &liberal {
            leaf.bool()?;
            self.carried(leaf);
        }
        self.spec.options.conntrack = Conntrack {
            tcp_established_timeout: established,
            tcp_close_wait_timeout: close_wait,
            tcp_be_liberal: liberal.map(|_| true),
            udp_timeout: udp,
            udp_stream_timeout: udp_stream,
            ..self.spec.options.conntrack
        };
        Ok(())
    }

    fn number_or(&mut self, path: &str, max: u32, default: u32) -> Result<u32, Wrong> {
        if let Some(leaf) = self.leaves.given(path) {
            let number = leaf.number(max)?;
            match (number, path) {
                (0, "conntrack.maxPerCore") => self.report.leaf(Fate::Carried, &leaf, LEFT_ALONE),
                _ => self.carried(&leaf),
            }
            return Ok(number);
        }
        self.report.add(Fate::Carried, path, format!("{default}, {DEFAULT}"));
        Ok(default)
    }

    /// A timeout; none where the node's own setting stays.
    fn duration_or(&mut self, path: &str, default: Option<&str>) -> Result<Option<Duration>, Wrong> {
        match (self.leaves.given(path), default) {
            (Some(leaf), _) => {
                let timeout = Some(leaf.duration()?).filter(|t| !t.get().is_zero());
                match (timeout, default) {
                    (Some(_), _) => self.carried(&leaf),
                    (None, Some(_)) => {
                        self.report.leaf(Fate::Carried, &leaf, LEFT_ALONE);
                    }
                    (None, None) => {}
                }
                Ok(timeout)
            }
            (None, None) => Ok(None),
            (None, Some(default)) => {
                self.report.add(Fate::Carried, path, format!("{default}, {DEFAULT}"));
                Ok(Some(default.parse().expect("a constant")))
            }
        }
    }

    /// The least time between two syncs becomes that between two publications.
    fn publish_interval(&mut self) -> Result<(), Wrong> {
        let from = self.from.as_str();
        for mode in ["iptables", "ipvs", "nftables"] {
            let min = self.leaves.nonzero(&format!("{mode}.minSyncPeriod"));
            let full = self.leaves.nonzero(&format!("{mode}.syncPeriod"));
            if mode != from {
                for leaf in min.iter().chain(&full) {
                    self.report.leaf(Fate::NotNeeded, leaf, OTHER_MODE);
                }
                continue;
            }
            if let Some(leaf) = min {
                let (least, most) = (StdDuration::from_millis(100), StdDuration::from_secs(10));
                let wanted = leaf.duration()?.get();
                let interval = Duration::from(wanted.clamp(least, most));
                self.spec.publish_interval = interval;
                let fate = if interval.get() == wanted { Fate::Carried } else { Fate::NotCarried };
                let text = match fate {
                    Fate::Carried => "as publishInterval".to_owned(),
                    _ => format!("publishInterval is {interval}, the nearest that it can be"),
                };
                self.report.leaf(fate, &leaf, &text);
            }
            if let Some(leaf) = full {
                leaf.duration()?;
                let text = "rulecast hears of changes to its rules from the kernel and repairs them at once";
                self.report.leaf(Fate::NotNeeded, &leaf, text);
            }
        }
        Ok(())
    }

    fn external_ips(&mut self) -> Result<(), Wrong> {
        if let Some(leaf) = self.leaves.given("featureGates.AllowServiceExternalIPs") {
            self.spec.options.allow_service_external_ips = leaf.bool()?;
            self.report.leaf(Fate::Carried, &leaf, "as allowServiceExternalIPs");
        }
        Ok(())
    }
}

fn mode(leaf: &Leaf) -> Result<Mode, Wrong> {
    match leaf.text()? {
        "iptables" => Ok(Mode::Iptables),
        "ipvs" => Ok(Mode::Ipvs),
        "nftables" => Ok(Mode::Nftables),
        "userspace" => Err(leaf.wrong(
            "userspace is gone since Kubernetes 1.26; set mode to nftables (or to iptables or ipvs) and try again",
        )),
        "kernelspace" => {
            Err(leaf.wrong("kernelspace is kube-proxy's mode on Windows; keep kube-proxy on Windows nodes"))
        }
        other => Err(leaf.wrong(format!("{other:?} is not one of nftables, iptables, ipvs"))),
    }
}
