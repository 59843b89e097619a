//! The real kube-proxy on the node.

use std::fs;

use anyhow::{Context as _, ensure};
use rulecast_tests::kube_proxy::with_iptables;
use rulecast_tests::network::POD_CIDRS;
use rulecast_tests::nft::nft;
use rulecast_tests::process::Process;
use rulecast_tests::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::site::{NFTABLES, Site};
use crate::who::Proxy;

/// How it writes rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// nftables.
    Nftables,
    /// iptables, by the old kernel interface.
    IptablesLegacy,
    /// iptables, whose rules are nf_tables' underneath.
    IptablesNft,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesLegacy | Self::IptablesNft => "iptables",
        }
    }

    /// How it shows as who serves.
    pub(crate) fn party(self) -> Proxy {
        if self == Self::Nftables { Proxy::Upstream } else { Proxy::Iptables }
    }

    /// The variant of the program `iptables` that it finds.
    fn variant(self) -> &'static str {
        if self == Self::IptablesLegacy { "legacy" } else { "nft" }
    }
}

impl Site {
    /// Starts kube-proxy, and waits until its rules for both families are there.
    pub(crate) fn start_kube_proxy(&mut self, mode: Mode) -> anyhow::Result<()> {
        let config = self.cluster.dir().join(format!("kube-proxy-{}.json", mode.name()));
        fs::write(&config, self.kube_proxy_config(mode).to_string())?;
        let (program, config) =
            (with_iptables(mode.variant(), &self.cluster.dir())?, config.display().to_string());
        let args = ["--config", &config, "--hostname-override", &self.node().name];
        let mut kube_proxy =
            Process::new("kube-proxy", &program, &args, &self.cluster.dir().join("kube-proxy.log"));
        let mark = kube_proxy.log_mark();
        kube_proxy.start(self.namespace())?;
        wait_for("kube-proxy to have written its rules", PATIENCE, || {
            // There may be rules of the one before. It says this for each family.
            let log = kube_proxy.log_since(mark);
            let written = log.matches("SyncProxyRules complete").count();
            ensure!(written >= 2, "{}", kube_proxy.log_tail());
            Ok(())
        })?;
        self.kube_proxy = Some(kube_proxy);
        wait_for("kube-proxy's rules", PATIENCE, || {
            let wanted = self.services.sticky.cluster.map(|to| to.ip().to_string());
            for (family, ip) in ["ip", "ip6"].iter().zip(wanted) {
                let text = if mode == Mode::Nftables {
                    nft(self.namespace(), &["list", "map", family, "kube-proxy", "service-ips"])?
                } else {
                    let tool = format!("{family}tables-{}-save", mode.variant());
                    self.namespace().output(&tool, &["-t", "nat"])?
                };
                ensure!(text.contains(&ip), "nothing of {ip} in {text}");
            }
            Ok(())
        })
    }

    /// Stops kube-proxy; its rules stay.
    pub(crate) fn stop_kube_proxy(&mut self) -> anyhow::Result<()> {
        // It says nothing by its exit code: a signal is an error to it.
        self.kube_proxy.as_mut().context("no kube-proxy runs")?.terminate().map(drop)
    }

    /// `kube-proxy --cleanup`.
    pub(crate) fn clean_up_kube_proxy(&self, mode: Mode) -> anyhow::Result<()> {
        let program = with_iptables(mode.variant(), &self.cluster.dir())?.display().to_string();
        self.namespace().output(&program, &["--cleanup"]).map(drop)
    }

    /// Puts its configuration where kubeadm does, and makes the pool out of it, as the import prints it for
    /// that mode.
    pub(crate) fn import_pool(&self, mode: Mode, ours: &str) -> anyhow::Result<()> {
        let config = self.kube_proxy_config(mode).to_string();
        self.cluster.apply(&[json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": { "config.conf": config },
            "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        })])?;
        let map =
            self.cluster.kubectl(&["get", "configmap", "kube-proxy", "-n", "kube-system", "-o", "yaml"])?;
        let (file, pool) = (self.cluster.dir().join("configmap.yaml"), self.cluster.dir().join("pool.yaml"));
        let [file, pool] = [file, pool].map(|path| path.display().to_string());
        fs::write(&file, map)?;
        let printed = self.cluster.command_line(&["import", "kube-proxy-config", "--mode", ours, &file])?;
        fs::write(&pool, printed)?;
        self.cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &pool])?;
        wait_for("the pool to be published in its new mode", PATIENCE, || {
            let bundle = self.cluster.bundle()?;
            // The default is left out.
            let mode = bundle["spec"]["mode"].as_str().unwrap_or(NFTABLES);
            ensure!(mode == ours, "{mode}");
            Ok(())
        })
    }

    /// A KubeProxyConfiguration.
    pub(crate) fn kube_proxy_config(&self, mode: Mode) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": mode.name(),
            // So that it says when it has written its rules.
            "logging": { "verbosity": 2 },
            "clientConnection": { "kubeconfig": self.cluster.control_plane.kubeconfig() },
            "clusterCIDR": POD_CIDRS,
            // What belongs to the whole machine cannot be set in a namespace.
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
            },
        })
    }
}
