//! How a node tells its pods: detectLocalMode and what belongs to it.

use rulecast_api::DetectLocalMode;

use super::Conversion;
use crate::import::cidr;
use crate::import::leaves::Wrong;
use crate::import::report::Fate;

impl Conversion {
    pub(super) fn detect_local(&mut self) -> Result<(), Wrong> {
        let mode = match self.leaves.nonzero("detectLocalMode") {
            None => DetectLocalMode::ClusterCIDR,
            Some(leaf) => {
                self.carried(&leaf);
                match leaf.text()? {
                    "ClusterCIDR" => DetectLocalMode::ClusterCIDR,
                    "NodeCIDR" => DetectLocalMode::NodeCIDR,
                    "BridgeInterface" => DetectLocalMode::BridgeInterface,
                    "InterfaceNamePrefix" => DetectLocalMode::InterfaceNamePrefix,
                    _ => {
                        let modes = "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                        return Err(leaf.wrong(format!("{:?} is not one of {modes}", leaf.shown())));
                    }
                }
            }
        };
        self.spec.options.detect_local_mode = mode;
        self.cluster_cidr(mode)?;
        let bridge = self.interface("bridgeInterface", mode == DetectLocalMode::BridgeInterface)?;
        let prefix = self.interface("interfaceNamePrefix", mode == DetectLocalMode::InterfaceNamePrefix)?;
        self.spec.options.detect_local.bridge_interface = bridge;
        self.spec.options.detect_local.interface_name_prefix = prefix;
        Ok(())
    }

    fn cluster_cidr(&mut self, mode: DetectLocalMode) -> Result<(), Wrong> {
        let Some(leaf) = self.leaves.nonzero("clusterCIDR") else { return Ok(()) };
        if mode != DetectLocalMode::ClusterCIDR {
            self.report.leaf(
                Fate::NotNeeded,
                &leaf,
                "kube-proxy reads it with detectLocalMode ClusterCIDR only",
            );
            return Ok(());
        }
        let cidrs: Option<Vec<String>> = leaf.text()?.split(',').map(|c| cidr::canonical(c.trim())).collect();
        let cidrs = cidrs.filter(|cidrs| match cidrs.as_slice() {
            [_] => true,
            [one, two] => cidr::is_v6(one) != cidr::is_v6(two),
            _ => false,
        });
        let cidrs = cidrs.ok_or_else(|| {
            leaf.wrong(format!(
                "{:?} is not one CIDR, or an IPv4 and an IPv6 one with a comma between",
                leaf.shown()
            ))
        })?;
        self.spec.options.cluster_cidr = cidrs.join(",");
        self.carried(&leaf);
        Ok(())
    }

    fn interface(&mut self, field: &str, needed: bool) -> Result<String, Wrong> {
        let path = format!("detectLocal.{field}");
        let Some(leaf) = self.leaves.nonzero(&path) else {
            if needed {
                let problem = format!("detectLocalMode {:?} needs it", self.spec.options.detect_local_mode);
                return Err(Wrong::missing(path, problem));
            }
            return Ok(String::new());
        };
        if !needed {
            self.report.leaf(Fate::NotNeeded, &leaf, "kube-proxy reads it with another detectLocalMode only");
            return Ok(String::new());
        }
        let name = leaf.text()?;
        if name.len() > 15 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b)) {
            return Err(leaf
                .wrong(format!("{name:?} is not an interface name of at most 15 letters, digits, _ . @ -")));
        }
        self.carried(&leaf);
        Ok(name.to_owned())
    }
}
