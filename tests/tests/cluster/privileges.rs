//! What the programs may do, and what the applier says when it may not do its work.

use std::path::Path;

use anyhow::ensure;
use rulecast_tests::cluster::Cluster;
use rulecast_tests::namespace::require;
use rulecast_tests::process::Process;
use rulecast_tests::programs;

/// The programs run with these tokens in every other scenario; here is what the tokens are not good for.
pub(crate) fn the_programs_can_do_their_work_and_nothing_else(c: &mut Cluster) -> anyhow::Result<()> {
    let refused = |who: &str, args: &[&str], why: &str| {
        let error = c.kubectl_as(who, args, "").err().map(|e| format!("{e:#}"));
        ensure!(error.as_deref().is_some_and(|e| e.contains(why)), "{who} {args:?}: {error:?}");
        Ok(())
    };
    for who in ["node-a", "controller"] {
        refused(who, &["get", "secrets", "-A"], "forbidden")?;
        refused(who, &["get", "pods", "-A"], "forbidden")?;
        refused(who, &["delete", "rulebundle", "default"], "forbidden")?;
    }
    for what in ["services", "endpointslices", "nodes", "rulebundles"] {
        refused("node-a", &["get", what, "-A"], "forbidden")?;
    }
    // The pool's bundle and that of its next shape, and no other pool's.
    c.kubectl_as("node-a", &["get", "rulebundle", "default"], "")?;
    refused("node-a", &["get", "rulebundle", "default.next"], "not found")?;
    refused("node-a", &["get", "rulebundle", "other"], "forbidden")?;
    refused("node-a", &["delete", "rulebundle", "default.next"], "forbidden")?;
    let patch =
        ["patch", "--subresource=status", "--type=merge", "-p", r#"{"status":{"sequence":1}}"#, "rulenode"];
    refused("node-a", &[&patch[..], &["node-b"]].concat(), "not by one on node-a")
}

pub(crate) fn without_net_admin_the_applier_says_so(c: &mut Cluster) -> anyhow::Result<()> {
    require(&["setpriv"])?;
    let program = programs::folder()?.join(programs::APPLIER).display().to_string();
    let (log, state) = (c.dir().join("powerless.log"), c.dir().join("powerless").display().to_string());
    let without = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let run = [program.as_str(), "run", "--bundle-dir", &state, "--state-dir", &state, "--once"];
    let args = [&without[..], &run].concat();
    let mut applier = Process::new("the applier without NET_ADMIN", Path::new("setpriv"), &args, &log);
    applier.start(&c.network.client.namespace)?;
    let status = applier.wait()?;
    ensure!(status.code() == Some(77), "{status}: {}", applier.log());
    ensure!(applier.log().contains("NET_ADMIN"), "{}", applier.log());
    Ok(())
}
