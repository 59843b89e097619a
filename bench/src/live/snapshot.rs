//! etcd's folder with a whole cluster in it, kept for the next time: an API server needs minutes to take 10,000 Services.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rulecast_tests::control_plane::{self, ControlPlane};
use rulecast_tests::namespace::Namespace;

use super::api::Api;
use super::{flags, load, run_in};
use crate::cluster::{Cluster, Size};
use crate::progress::Progress;

/// Counts what is written into it: it goes up when that changes.
const FORMAT: u32 = 1;

/// The folder with a cluster of this size. It is made if it never was, in `hub`; nothing runs there afterwards.
pub(super) fn folder(
    hub: &Namespace,
    address: Ipv4Addr,
    cluster: &Cluster,
    size: Size,
    progress: &mut Progress,
) -> Result<PathBuf> {
    let peers = control_plane::peers()?;
    let folder = place(&peers, size)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let parent = folder.parent().context("a folder lies in one")?;
    fs::create_dir_all(parent)?;
    // Beside its place, so that it gets there in one step, once it is whole.
    let dir = tempfile::Builder::new().prefix(".making-").tempdir_in(parent)?;
    let running = dir.path().join("control-plane");
    let control_plane = ControlPlane::start_with(hub, &running, address, None, &flags())?;
    let api = Api::new(control_plane.address()?, &control_plane.authority())?;
    let token = control_plane.token()?;
    run_in(hub, async || load::everything(&api, &token, cluster, size, progress).await)?
        .inspect_err(|_| eprintln!("{}", control_plane.log_tails()))?;
    control_plane.stop_api_server(hub)?;
    let data = control_plane.data();
    drop(control_plane);
    if let Err(error) = fs::rename(&data, &folder) {
        // Somebody else was faster: theirs is the same.
        ensure!(folder.is_dir(), "{}: {error}", folder.display());
    }
    Ok(folder)
}

/// Below the folder of programs' own, by their versions: what one release writes is for that release.
fn place(peers: &Path, size: Size) -> Result<PathBuf> {
    let (cache, versions) = (peers.ancestors().nth(2), peers.file_name());
    let (cache, versions) = cache.zip(versions).context("the programs lie below a cache folder")?;
    let Size { services, endpoints } = size;
    Ok(cache.join("clusters").join(versions).join(format!("{services}x{endpoints}-{FORMAT}")))
}

/// Megabytes of a folder on disk.
pub(super) fn megabytes(folder: &Path) -> Result<u64> {
    let output = Command::new("du").args(["-sm", "--"]).arg(folder).output().context("the tool `du`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().next().and_then(|n| n.parse().ok()).context("du prints a number first")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_and_size_has_its_own_place() {
        let peers = Path::new("/cache/rulecast/peers/k8s-v1-etcd-v3");
        let place = |services| place(peers, Size { services, endpoints: 10 }).unwrap();
        assert_eq!(place(7), Path::new(&format!("/cache/rulecast/clusters/k8s-v1-etcd-v3/7x10-{FORMAT}")));
        assert_ne!(place(7), place(8));
    }
}
