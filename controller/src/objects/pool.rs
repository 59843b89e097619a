//! RulePools.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rulecast_api::{Approval, DetectLocalMode, Ipvs, Mode, PoolOptions, Release, RulePool};
use rulecast_bundle::{IpvsOptions, Settings};
use rulecast_compiler::model::{DetectLocal, NodePortAddresses, Options, Pool, Prefix};

use super::convert::{Convert, Wrong};
use super::{Content, Kind, text};
use crate::release::{Approved, Asked, Exact, Promotion};

/// The pool that is used when a directory of manifests has none.
pub const DEFAULT_POOL: &str = "default";
/// The annotation on a RulePool that says why it is held.
pub const HOLD_REASON: &str = "rulecast.dev/hold-reason";
/// The most of it that is repeated, in bytes.
const MAX_REASON: usize = 200;
/// The longest time that an exact replay may last.
const LONGEST_REPLAY: Duration = Duration::from_hours(1);

pub(crate) type RawPool = RulePool;

/// A pool's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// What the compiler needs. The cluster's ServiceCIDRs are not yet in its options.
    pub pool: Pool,
    /// The shortest time between two publications.
    pub publish_interval: Duration,
    /// The least epoch to publish in.
    pub epoch: u64,
    /// How its shapes go live.
    pub asked: Asked,
    /// `status.releases` as they were read: what went live before this process began.
    pub releases: Vec<Release>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `status.conditions` as they were read: times of transition outlive a restart.
    pub conditions: Vec<Condition>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            pool: Pool::default(),
            publish_interval: Duration::from_secs(1),
            epoch: 0,
            asked: Asked::default(),
            releases: Vec::new(),
            generation: None,
            conditions: Vec::new(),
        }
    }
}

impl Convert for RulePool {
    const KIND: Kind = Kind::RulePool;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, _: &mut Vec<String>) -> Result<Content, Wrong> {
        // The name becomes a folder's, and no API server may have checked it.
        let name = self.name_any();
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let bytes = name.as_bytes();
        if bytes.len() > 63
            || !edge(bytes.first().copied())
            || !edge(bytes.last().copied())
            || !bytes.iter().copied().all(label)
        {
            let problem = "must be a DNS label: at most 63 characters of a-z, 0-9 and '-'";
            return Err(Wrong::new("metadata.name", problem));
        }
        let publish_interval = self.spec.publish_interval.get();
        if !(Duration::from_millis(100)..=Duration::from_secs(10)).contains(&publish_interval) {
            return Err(Wrong::new("spec.publishInterval", "must be from 100ms to 10s"));
        }
        let asked = asked(&self)?;
        let status = self.status.unwrap_or_default();
        Ok(Content::Pool(Box::new(PoolConfig {
            pool: Pool {
                options: options(self.spec.mode, &self.spec.options)?,
                node_selector: self.spec.node_selector,
            },
            publish_interval,
            epoch: self.spec.epoch,
            asked,
            generation: self.metadata.generation,
            conditions: status.conditions,
            releases: status.releases,
        })))
    }
}

fn asked(pool: &RulePool) -> Result<Asked, Wrong> {
    let spec = &pool.spec;
    let approved = spec.approved.as_ref().map(|approved| {
        let digest =
            approved.digest.parse().map_err(|e| Wrong::new("spec.approved.digest", format!("{e}")))?;
        Ok(Approved { revision: approved.revision, digest })
    });
    let exact = spec.exact_replay.as_ref().map(|exact| {
        let until = exact.until.0;
        let longest = Timestamp::now().saturating_add(LONGEST_REPLAY);
        if longest.is_ok_and(|longest| until > longest) {
            let problem =
                "is more than an hour away: a replay has endpoints that may be dead, so it must end soon";
            return Err(Wrong::new("spec.exactReplay.until", problem));
        }
        Ok(Exact { revision: exact.revision, until })
    });
    let mut hold_reason = pool.annotations().get(HOLD_REASON).cloned().unwrap_or_default();
    hold_reason.retain(|c| !c.is_control());
    hold_reason.truncate(hold_reason.floor_char_boundary(MAX_REASON));
    Ok(Asked {
        manual: spec.approval == Approval::Manual,
        approved: approved.transpose()?,
        hold: spec.hold,
        hold_reason,
        pinned: spec.pinned_revision,
        exact: exact.transpose()?,
        history: spec.revision_history_limit as usize,
        promotion: spec.promotion.as_ref().map(|p| Promotion { from: p.from.clone(), soak: p.soak.get() }),
        waves: spec.waves.as_ref().map(|waves| waves.pause.get()),
    })
}

/// The mode of a custom resource, as bundles have it.
pub(crate) fn mode(mode: Mode) -> rulecast_bundle::Mode {
    match mode {
        Mode::Nftables => rulecast_bundle::Mode::Nftables,
        Mode::Iptables => rulecast_bundle::Mode::Iptables,
        Mode::Ipvs => rulecast_bundle::Mode::Ipvs,
    }
}

fn options(mode: Mode, given: &PoolOptions) -> Result<Options, Wrong> {
    if given.masquerade_bit > 31 {
        return Err(Wrong::new("spec.masqueradeBit", "must be from 0 to 31"));
    }
    let conntrack = &given.conntrack;
    let seconds = |timeout: Option<rulecast_api::Duration>| {
        timeout.and_then(|t| u32::try_from(t.get().as_secs()).ok()).filter(|seconds| *seconds > 0)
    };
    let number = |given: Option<u32>| given.filter(|number| *number > 0);
    Ok(Options {
        settings: Settings {
            conntrack_max_per_core: number(conntrack.max_per_core),
            conntrack_min: number(conntrack.min),
            tcp_established_timeout: seconds(conntrack.tcp_established_timeout),
            tcp_close_wait_timeout: seconds(conntrack.tcp_close_wait_timeout),
            tcp_be_liberal: conntrack.tcp_be_liberal,
            udp_timeout: seconds(conntrack.udp_timeout),
            udp_stream_timeout: seconds(conntrack.udp_stream_timeout),
        },
        mode: self::mode(mode),
        detect_local: detect_local(given)?,
        masquerade_all: given.masquerade_all,
        masquerade_bit: given.masquerade_bit,
        node_port_addresses: node_port_addresses(&given.node_port_addresses)?,
        service_cidrs: prefixes("spec.serviceCIDRs", given.service_cidrs.iter().map(String::as_str))?
            .into_iter()
            .collect(),
        allow_external_ips: given.allow_service_external_ips,
        localhost_node_ports: given.iptables.localhost_node_ports,
        ipvs: ipvs(&given.ipvs)?,
    })
}

fn ipvs(given: &Ipvs) -> Result<IpvsOptions, Wrong> {
    let name = given.scheduler.trim();
    if name.len() > 15 || !name.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(Wrong::new("spec.ipvs.scheduler", "must be a scheduler's name, such as rr, lc or mh"));
    }
    let seconds = |timeout: Option<rulecast_api::Duration>| {
        timeout.map_or(0, |t| u32::try_from(t.get().as_secs()).unwrap_or(u32::MAX))
    };
    Ok(IpvsOptions {
        scheduler: if name.is_empty() { "rr" } else { name }.to_owned(),
        strict_arp: given.strict_arp,
        exclude: prefixes("spec.ipvs.excludeCIDRs", given.exclude_cidrs.iter().map(String::as_str))?,
        tcp_timeout: seconds(given.tcp_timeout),
        tcp_fin_timeout: seconds(given.tcp_fin_timeout),
        udp_timeout: seconds(given.udp_timeout),
    })
}

fn detect_local(given: &PoolOptions) -> Result<DetectLocal, Wrong> {
    match given.detect_local_mode {
        DetectLocalMode::ClusterCIDR if given.cluster_cidr.trim().is_empty() => Ok(DetectLocal::None),
        DetectLocalMode::ClusterCIDR => {
            Ok(DetectLocal::ClusterCidr(prefixes("spec.clusterCIDR", given.cluster_cidr.split(','))?))
        }
        DetectLocalMode::NodeCIDR => Ok(DetectLocal::NodeCidr),
        DetectLocalMode::BridgeInterface => {
            interface("spec.detectLocal.bridgeInterface", &given.detect_local.bridge_interface)
                .map(DetectLocal::BridgeInterface)
        }
        DetectLocalMode::InterfaceNamePrefix => {
            interface("spec.detectLocal.interfaceNamePrefix", &given.detect_local.interface_name_prefix)
                .map(DetectLocal::InterfaceNamePrefix)
        }
    }
}

fn interface(field: &str, name: &str) -> Result<String, Wrong> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
    if (1..=15).contains(&name.len()) && name.bytes().all(good) {
        Ok(name.to_owned())
    } else {
        let problem = "must be the name of an interface, or its beginning: 1 to 15 letters, digits, '_', '.', '@' or '-'";
        Err(Wrong::new(field, problem))
    }
}

fn node_port_addresses(given: &[String]) -> Result<NodePortAddresses, Wrong> {
    match given {
        [] => Ok(NodePortAddresses::Default),
        [word] if word == "primary" => Ok(NodePortAddresses::Only { primary: true, prefixes: Vec::new() }),
        cidrs => {
            let prefixes = prefixes("spec.nodePortAddresses", cidrs.iter().map(String::as_str))?;
            Ok(NodePortAddresses::Only { primary: false, prefixes })
        }
    }
}

/// The most prefixes in one field: each is part of a rule, or a rule, that new connections pass.
const MAX_PREFIXES: usize = 16;

fn prefixes<'a>(field: &str, texts: impl Iterator<Item = &'a str>) -> Result<Vec<Prefix>, Wrong> {
    let texts: Vec<&str> = texts.collect();
    if texts.len() > MAX_PREFIXES {
        return Err(Wrong::new(
            field,
            format!("has {} prefixes; at most {MAX_PREFIXES} are possible", texts.len()),
        ));
    }
    let texts = texts.into_iter();
    let read = |(i, cidr): (usize, &str)| {
        text::prefix(cidr)
            .ok_or_else(|| Wrong::new(format!("{field}[{i}]"), format!("{cidr:?} is not a CIDR")))
    };
    texts.enumerate().map(read).collect()
}
