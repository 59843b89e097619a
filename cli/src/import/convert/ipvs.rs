//! The options of IPVS mode.

use rulecast_api::{Ipvs, Mode};

use super::{Conversion, OTHER_MODE};
use crate::import::cidr;
use crate::import::leaves::{Leaf, Wrong};
use crate::import::report::Fate;

impl Conversion {
    pub(super) fn ipvs(&mut self) -> Result<(), Wrong> {
        let mut ipvs = Ipvs::default();
        let taken = [
            "ipvs.scheduler",
            "ipvs.excludeCIDRs",
            "ipvs.strictARP",
            "ipvs.tcpTimeout",
            "ipvs.tcpFinTimeout",
            "ipvs.udpTimeout",
        ]
        .map(|path| self.leaves.nonzero(path));
        if (self.from, self.spec.mode) != (Mode::Ipvs, Mode::Ipvs) {
            for leaf in taken.iter().flatten() {
                match self.from {
                    Mode::Ipvs => self.report.leaf(
                        Fate::NotCarried,
                        leaf,
                        &format!("means nothing in mode {}", self.spec.mode),
                    ),
                    _ => self.report.leaf(Fate::NotNeeded, leaf, OTHER_MODE),
                }
            }
            return Ok(());
        }
        for leaf in taken.iter().flatten() {
            match leaf.path.as_str() {
                "ipvs.scheduler" => ipvs.scheduler = scheduler(leaf)?,
                "ipvs.excludeCIDRs" => ipvs.exclude_cidrs = exclude(leaf)?,
                "ipvs.strictARP" => ipvs.strict_arp = leaf.bool()?,
                "ipvs.tcpTimeout" => ipvs.tcp_timeout = Some(leaf.duration()?),
                "ipvs.tcpFinTimeout" => ipvs.tcp_fin_timeout = Some(leaf.duration()?),
                _ => ipvs.udp_timeout = Some(leaf.duration()?),
            }
            self.carried(leaf);
        }
        self.spec.options.ipvs = ipvs;
        Ok(())
    }
}

fn scheduler(leaf: &Leaf) -> Result<String, Wrong> {
    let name = leaf.text()?;
    let known = name.len() <= 15 && name.bytes().all(|b| b.is_ascii_lowercase());
    known
        .then(|| name.to_owned())
        .ok_or_else(|| leaf.wrong(format!("{name:?} is no name of a scheduler such as rr")))
}

fn exclude(leaf: &Leaf) -> Result<Vec<String>, Wrong> {
    let list = leaf.list()?;
    if list.len() > 32 {
        return Err(leaf.wrong(format!("{} CIDRs; a RulePool can have 32; join some", list.len())));
    }
    let read =
        |text: &&str| cidr::canonical(text).ok_or_else(|| leaf.wrong(format!("{text:?} is not a CIDR")));
    list.iter().map(read).collect()
}
