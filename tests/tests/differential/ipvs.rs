//! IPVS mode beside iptables mode, in user-mode Linux.

use crate::config::Config;
use crate::worlds::Worlds;
use crate::{affinity, matrix, sequences};

pub(crate) fn base(worlds: &mut Worlds) -> anyhow::Result<()> {
    matrix::run(worlds, Config::ipvs())
}

pub(crate) fn masquerade_all_and_no_local_detector(worlds: &mut Worlds) -> anyhow::Result<()> {
    let name = "ipvs, masqueradeAll, no local detector";
    matrix::run(worlds, Config { name, detect_local: false, masquerade_all: true, ..Config::ipvs() })
}

pub(crate) fn endpoints_come_and_go(worlds: &mut Worlds) -> anyhow::Result<()> {
    sequences::endpoints_come_and_go(worlds)
}

pub(crate) fn clients_stay_until_their_endpoint_goes(worlds: &mut Worlds) -> anyhow::Result<()> {
    affinity::clients_stay_until_their_endpoint_goes(worlds)
}
