//! The scenarios that matter with IPVS, in both worlds.

use crate::config::Config;
use crate::matrix;
use crate::worlds::Worlds;

pub(crate) fn base(worlds: &mut Worlds) -> anyhow::Result<()> {
    matrix::run(worlds, Config::ipvs())
}
