//! The real kube-proxy with the tools that an image of it would have.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::control_plane;

/// kube-proxy as it is in an image that has this variant of iptables, `legacy` or `nft`: it takes what it finds in the PATH. Lies
/// in `dir`.
pub fn with_iptables(variant: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = dir.join(format!("iptables-{variant}"));
    let program = folder.join("kube-proxy");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&folder)?;
    for tool in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            let name = format!("{tool}-{variant}{end}");
            let found = std::env::split_paths(&std::env::var_os("PATH").context("no PATH")?)
                .map(|folder| folder.join(&name))
                .find(|path| path.is_file());
            symlink(found.context(name)?, folder.join(format!("{tool}{end}")))?;
        }
    }
    let real = control_plane::peers()?.join("kube-proxy");
    // The lock is for the whole machine otherwise, and whoever else writes rules there makes kube-proxy give up.
    let text = format!(
        "#!/bin/sh\nexport PATH={}:$PATH XTABLES_LOCKFILE={}\nexec {} \"$@\"\n",
        folder.display(),
        dir.join("xtables.lock").display(),
        real.display()
    );
    fs::write(&program, text)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}
