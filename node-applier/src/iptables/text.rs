//! A view's chains as text, as `iptables-restore` reads it.

use std::io::{self, Write};
use std::net::IpAddr;

use rulecast_bundle::nft::Family;

use super::chain::Table;
use super::table::{Found, Tables};
use crate::view::View;

/// Writes both families' chains and what leads to them: what a rebuild writes where nothing is yet. The comments say what each
/// part is for; the rules of one family are for `iptables-restore --noflush`, those of the other for `ip6tables-restore`.
pub fn render(out: &mut dyn Write, view: &View, node_addrs: &[IpAddr]) -> io::Result<()> {
    for (family, tool) in [(Family::V4, "iptables-restore"), (Family::V6, "ip6tables-restore")] {
        if view.options(family).is_none() {
            continue;
        }
        writeln!(out, "# {tool} --noflush")?;
        let tables = Tables::of(view, family, node_addrs);
        for set in tables.sets() {
            let inet = if family == Family::V4 { "inet" } else { "inet6" };
            writeln!(out, "# ipset create {set} hash:ip family {inet} hashsize 64 timeout 0")?;
        }
        for table in Table::ALL.into_iter().rev() {
            writeln!(out, "*{}", table.name())?;
            tables.write(out, table, view)?;
            Found::default().write_jumps(out, table)?;
            writeln!(out, "COMMIT")?;
        }
    }
    Ok(())
}
