//! Where kube-proxy's iptables mode does something else than its nftables mode.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rulecast_bundle::{Mode, Proto};
use rulecast_compiler::model::{NodePortAddresses, Prefix};

use super::{Entry, Model, Why, contains};
use crate::packet::{Outcome, Packet, Verdict};

const LOOPBACK: Prefix = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);

impl<'w> Model<'w> {
    pub(super) fn is_iptables(&self) -> bool {
        self.world.options().mode == Mode::Iptables
    }

    /// What is not translated at a VIP may still be at a nodePort, also where it would be dropped: translation comes first.
    pub(super) fn with_iptables(&self, packet: &Packet) -> Verdict {
        let is_translated = |verdict: &Verdict| matches!(verdict.first(), Some(Outcome::To { .. }));
        let vip = self.owner(packet, Some(packet.dst));
        let at_vip = vip.map(|(port, why)| self.at_vip_with_iptables(packet, port, why));
        if let Some(verdict) = at_vip.as_ref().filter(|verdict| is_translated(verdict)) {
            return verdict.clone();
        }
        match self.at_node_port(packet) {
            Some(verdict) if is_translated(&verdict) => verdict,
            at_node_port => at_vip.or(at_node_port).unwrap_or_else(|| self.elsewhere_with_iptables(packet)),
        }
    }

    /// A cluster IP has no source ranges even where it is a load balancer's address, too; and that there are no endpoints counts
    /// before who asks.
    fn at_vip_with_iptables(&self, packet: &Packet, port: Entry<'w>, why: Why) -> Verdict {
        if why == Why::ClusterIp {
            return self.at_cluster_ip(packet, port);
        }
        let restricted = port.service.load_balancer_ips.contains(&packet.dst);
        if restricted && !self.in_source_ranges(port, packet) && self.categorize(port).any {
            return [Outcome::Dropped].into();
        }
        self.external(packet, port)
    }

    /// Undefined ports of cluster IPs and cluster IPs of nobody are no business of iptables mode. That loopback addresses answer
    /// nodePorts must not let others reach what only listens there.
    fn elsewhere_with_iptables(&self, packet: &Packet) -> Verdict {
        let foreign = contains(LOOPBACK, packet.dst) && !contains(LOOPBACK, packet.src);
        let outcome = if foreign && self.loopback_answers_node_ports(packet.dst) {
            Outcome::Dropped
        } else {
            Outcome::Untouched { masqueraded: false }
        };
        [outcome].into()
    }

    pub(super) fn loopback_answers_node_ports(&self, addr: IpAddr) -> bool {
        let options = self.world.options();
        let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
        let inside = match &options.node_port_addresses {
            NodePortAddresses::Default | NodePortAddresses::All => true,
            NodePortAddresses::Only { primary, prefixes } => {
                let prefixes: Vec<&Prefix> = prefixes.iter().filter(|p| p.0.is_ipv4()).collect();
                (prefixes.is_empty() && !primary) || prefixes.iter().any(|p| contains(**p, localhost))
            }
        };
        addr.is_ipv4() && options.localhost_node_ports && inside
    }

    /// Whether an endpoint of this node is masqueraded where it reaches itself; iptables mode looks at its address only.
    pub(super) fn is_hairpin(&self, at: SocketAddr, proto: Proto) -> bool {
        if self.is_iptables() {
            return self.hairpin.iter().any(|(own, _)| own.ip() == at.ip());
        }
        self.hairpin.contains(&(at, proto as u8))
    }
}
