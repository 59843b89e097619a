//! `RulePool`: what the operator writes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema::{DIGEST, MAX_COUNTER, POOL_NAME, rule};
use crate::{Duration, Mode, PoolOptions, RulePoolStatus};

/// A set of nodes that are served the same rules, and how changes are released to them.
///
/// Approval, hold, pin and promotion are about the shape of the rules: which Services, ports, policies and options exist.
/// Endpoints always follow at once, whatever is set here.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq)]
#[kube(
    group = "rulecast.dev",
    version = "v1alpha1",
    kind = "RulePool",
    shortname = "rpool",
    category = "rulecast",
    derive = "PartialEq",
    status = "RulePoolStatus",
    doc = "RulePool is a set of nodes that are served the same Service rules. The nodes run an applier with the pool's \
           name (rulecast-node run --pool NAME) and watch the RuleBundle of that name.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.sequence"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.services"),
    printcolumn(name = "Endpoints", type_ = "integer", json_path = ".status.endpoints"),
    printcolumn(
        name = "Quarantined",
        type_ = "integer",
        json_path = ".status.quarantinedCount",
        description = "Services that keep their previous rules, because their present state could not be compiled."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision", priority = "1"),
    printcolumn(name = "Approval", type_ = "string", json_path = ".spec.approval", priority = "1"),
    printcolumn(name = "Hold", type_ = "boolean", json_path = ".spec.hold", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("the name must be a DNS label: at most 63 characters of a-z, 0-9 and '-'"),
    validation = kube::core::Rule::new("!has(self.spec.promotion) || self.spec.promotion.from != self.metadata.name")
        .message("promotion.from must be another pool")
        .field_path(".spec.promotion.from")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = detect_local_is_complete()))]
pub struct RulePoolSpec {
    /// How the nodes program the kernel: nftables, iptables or ipvs.
    #[serde(default)]
    pub mode: Mode,
    /// The labels of the pool's nodes, all of which must match; empty: all nodes. It decides which nodes' facts (zone,
    /// pod CIDRs) the bundle carries and should equal the node selector of the pool's DaemonSet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// What the rules do; the names are those of `KubeProxyConfiguration`.
    #[serde(flatten)]
    pub options: PoolOptions,
    /// The shortest time between two publications. The first change after a quiet time is published at once; further
    /// ones are gathered for this long. From 100ms to 10s.
    #[serde(default = "default_publish_interval")]
    #[schemars(extend("x-kubernetes-validations" = publish_interval_in_range()))]
    pub publish_interval: Duration,
    /// Raise it after a cluster was restored from a backup: nodes refuse a bundle with a lower sequence than theirs, as a
    /// stale cache or a replay would bring, and take one of a higher epoch whatever its sequence. Lowering it does nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = MAX_COUNTER))]
    pub epoch: u64,
    /// Automatic: a new shape goes live when it compiles. Manual: it waits as a RuleRevision until it is approved.
    #[serde(default)]
    pub approval: Approval,
    /// The shape that is approved. With approval Manual it goes live; otherwise it lets one through that was stopped because
    /// many Services would be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// Stops new shapes from going live while true.
    #[serde(default)]
    pub hold: bool,
    /// The number of the RuleRevision that shall be live, instead of the newest one. It is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub pinned_revision: Option<u64>,
    /// Puts an old bundle back exactly as it was, endpoints included that may be dead by now, until a given time. For what
    /// pinnedRevision cannot mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_replay: Option<ExactReplay>,
    /// How many RuleRevisions are kept to go back to. Those that are live, pinned or some node's last good one are kept
    /// beyond that.
    #[serde(default = "default_revision_history_limit")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: u32,
    /// Lets this pool follow another one: a shape goes live here after it has proved itself there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// Lets a new shape go live on one node first, then on a tenth of the nodes, then on the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
}

/// How a new shape goes live.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Approval {
    /// When it compiles.
    #[default]
    Automatic,
    /// When somebody approves it.
    Manual,
}

/// A shape that somebody has looked at.
///
/// It is written as a whole: a number by one writer beside the digest of another would name two shapes.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Approved {
    /// The number of its RuleRevision. When given, it and the digest must name the same one. Left out where the digest was
    /// computed before there was a RuleRevision: in CI, from manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub revision: Option<u64>,
    /// Its digest.
    #[schemars(length(max = 27), regex(pattern = DIGEST))]
    pub digest: String,
}

/// An old bundle, put back as it was.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExactReplay {
    /// The number of the RuleRevision whose last bundle it is.
    #[schemars(range(min = 1, max = MAX_COUNTER))]
    pub revision: u64,
    /// When it ends: from then on endpoints are today's again. At most an hour after it was asked for.
    pub until: Time,
}

/// How a new shape spreads over the nodes of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Waves {
    /// How long each wave must run without an error before the next one.
    pub pause: Duration,
}

/// Which pool goes first, and for how long.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// The pool that gets a new shape first. It must have the same mode.
    #[schemars(length(max = 63), regex(pattern = POOL_NAME))]
    pub from: String,
    /// How long a shape must be live there, without an error on any node, before it goes live here.
    pub soak: Duration,
}

impl Default for RulePoolSpec {
    /// What the API server makes of `spec: {}`.
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            node_selector: BTreeMap::new(),
            options: PoolOptions::default(),
            publish_interval: default_publish_interval(),
            epoch: 0,
            approval: Approval::default(),
            hold: false,
            approved: None,
            pinned_revision: None,
            exact_replay: None,
            revision_history_limit: default_revision_history_limit(),
            promotion: None,
            waves: None,
        }
    }
}

const fn default_publish_interval() -> Duration {
    Duration::from_millis(1_000)
}

const fn default_revision_history_limit() -> u32 {
    10
}

fn publish_interval_in_range() -> serde_json::Value {
    rule(
        "duration(self) >= duration('100ms') && duration(self) <= duration('10s')",
        "publishInterval must be from 100ms to 10s",
    )
}

/// Without this a pool would take every pod's traffic for foreign, which shows only as lost source addresses.
fn detect_local_is_complete() -> serde_json::Value {
    let needs = |mode: &str, field: &str| {
        serde_json::json!({
            "rule": format!(
                "self.detectLocalMode != '{mode}' || \
                 has(self.detectLocal) && has(self.detectLocal.{field}) && self.detectLocal.{field} != ''"
            ),
            "message": format!("detectLocalMode {mode} needs detectLocal.{field}"),
        })
    };
    serde_json::json!([
        needs("BridgeInterface", "bridgeInterface"),
        needs("InterfaceNamePrefix", "interfaceNamePrefix"),
    ])
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_what_an_empty_spec_means() {
        let spec: RulePoolSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, RulePoolSpec::default());
        assert_eq!(spec.publish_interval.to_string(), "1s");
        assert_eq!(spec.options.masquerade_bit, 14);
        assert!(spec.options.allow_service_external_ips);
    }

    #[test]
    fn options_lie_flat_beside_the_rest() {
        let spec: RulePoolSpec = serde_json::from_value(serde_json::json!({
            "mode": "ipvs", "clusterCIDR": "10.0.0.0/8", "ipvs": { "strictARP": true, "tcpFinTimeout": "2m" },
        }))
        .unwrap();
        assert_eq!(spec.mode, Mode::Ipvs);
        assert_eq!(spec.options.cluster_cidr, "10.0.0.0/8");
        assert!(spec.options.ipvs.strict_arp);
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<RulePoolSpec>(json).unwrap(), spec);
        assert!(serde_json::from_str::<RulePoolSpec>(r#"{"mode":"userspace"}"#).is_err());
    }
}
