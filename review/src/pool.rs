//! A pool's own part of a shape: its rules and its settings.

use std::collections::BTreeMap;

use rulecast_bundle::nft::text::{self, RuleWords};
use rulecast_bundle::nft::{Family, Lane as Layout, Rule, Ruleset, SetDef};
use rulecast_bundle::{Digest, Key, Lane, Settings, Value};
use serde::Serialize;

use crate::compare::Fields;
use crate::{FieldChange, options};

/// What a pool's options compile to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PoolDescription {
    /// The proxy mode.
    pub mode: String,
    /// By table: `ip` and `ip6`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, RulesDescription>,
    /// In modes whose layout the nodes know: their options, by family, `ip` and `ip6`, and by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// What is set on nodes beside rules, by its name in `spec.conntrack` of a RulePool; timeouts are in seconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

/// One family's rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RulesDescription {
    /// Names the rules by their content. The lines below are for people; if these do not differ and this does, something
    /// about the rules is not among the lines.
    pub digest: String,
    /// By chain, set, map and lane, in nft's words. `N` stands for the number of endpoints.
    pub parts: BTreeMap<String, Vec<String>>,
}

impl PoolDescription {
    /// Describes the pool's own records among `records`.
    pub(crate) fn of<'a>(
        mode: rulecast_bundle::Mode,
        records: impl IntoIterator<Item = &'a (Key, Value)>,
    ) -> Self {
        let mut description = Self { mode: mode.to_string(), ..Self::default() };
        for (key, value) in records {
            match (key, value) {
                (Key::Rules(family), Value::Rules(rules)) => {
                    let encoded = value.encode(key);
                    let described = RulesDescription {
                        digest: Digest::of(&[b"rulecast rules", &encoded]).to_string(),
                        parts: parts(rules, *family),
                    };
                    description.rules.insert(text::word(*family).to_owned(), described);
                }
                (Key::Options(family), Value::Options(given)) => {
                    description.options.insert(text::word(*family).to_owned(), options::named(given));
                }
                (Key::Settings, Value::Settings(settings)) => description.settings = named(settings),
                _ => {}
            }
        }
        description
    }

    /// What is different in `after`. The digests of rules are told only if nothing else is.
    pub(crate) fn compare(&self, after: &Self) -> Vec<FieldChange> {
        let changes = self.fields().compare(&after.fields());
        if changes.is_empty() { self.digests().compare(&after.digests()) } else { changes }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.add("mode", [&self.mode]);
        for (name, value) in &self.settings {
            fields.add(&format!("conntrack.{name}"), [value]);
        }
        for (family, options) in &self.options {
            for (name, value) in options {
                fields.add(&format!("options.{family}.{name}"), [value]);
            }
        }
        for (table, rules) in &self.rules {
            for (part, lines) in &rules.parts {
                fields.add(&format!("rules.{table}.{part}"), lines);
            }
        }
        fields
    }

    fn digests(&self) -> Fields {
        let mut fields = Fields::default();
        for (table, rules) in &self.rules {
            fields.add(&format!("rules.{table}.digest"), [&rules.digest]);
        }
        fields
    }
}

fn named(settings: &Settings) -> BTreeMap<String, String> {
    let Settings {
        conntrack_max_per_core,
        conntrack_min,
        tcp_established_timeout,
        tcp_close_wait_timeout,
        tcp_be_liberal,
        udp_timeout,
        udp_stream_timeout,
    } = settings;
    let numbers = [
        ("maxPerCore", conntrack_max_per_core),
        ("min", conntrack_min),
        ("tcpEstablishedTimeout", tcp_established_timeout),
        ("tcpCloseWaitTimeout", tcp_close_wait_timeout),
        ("udpTimeout", udp_timeout),
        ("udpStreamTimeout", udp_stream_timeout),
    ];
    let numbers =
        numbers.into_iter().filter_map(|(name, n)| Some((name.to_owned(), n.as_ref()?.to_string())));
    numbers.chain(tcp_be_liberal.map(|on| ("tcpBeLiberal".to_owned(), on.to_string()))).collect()
}

fn parts(rules: &Ruleset, family: Family) -> BTreeMap<String, Vec<String>> {
    let mut parts = BTreeMap::new();
    let lines = |rules: &[Rule]| rules.iter().map(|r| text::rule(r, family, RuleWords::ANY)).collect();
    for set in rules.sets.iter().chain(&rules.port_maps) {
        parts.insert(format!("set {}", set.name), set_lines(set, family));
    }
    for chain in &rules.chains {
        let mut all: Vec<String> = chain.hook.map(text::hook).into_iter().collect();
        all.extend::<Vec<String>>(lines(&chain.rules));
        parts.insert(format!("chain {}", chain.name), all);
    }
    for (number, lane) in (0..).zip(&rules.lanes) {
        let name = Lane::of(number).map_or_else(|| number.to_string(), |lane| format!("{lane:?}"));
        parts.insert(format!("lane {name}"), lane_lines(lane, lines));
    }
    let mut more = Vec::new();
    more.extend(rules.hairpin.iter().map(|set| format!("endpoints of the node itself: @{set}")));
    more.extend(rules.sources.iter().map(|set| format!("source ranges: @{set}")));
    if let Some(addresses) = &rules.node_addresses {
        let primary = addresses.primary.then(|| "the primary address".to_owned());
        let prefixes = addresses.prefixes.iter().map(|(addr, len)| text::prefix(*addr, *len));
        let all: Vec<String> = primary.into_iter().chain(prefixes).collect();
        more.push(format!("node addresses that answer nodePorts: @{}: {}", addresses.set, all.join(", ")));
    }
    parts.insert("filled by the node".to_owned(), more);
    parts.retain(|_, lines| !lines.is_empty());
    parts
}

fn set_lines(set: &SetDef, family: Family) -> Vec<String> {
    let mut lines = vec![text::set_type(set, family)];
    lines.extend(text::set_flags(set).map(|flags| format!("flags {flags}")));
    if set.size > 0 {
        lines.push(format!("size {}", set.size));
    }
    lines
}

fn lane_lines(lane: &Layout, lines: impl Fn(&[Rule]) -> Vec<String>) -> Vec<String> {
    let Layout { verdicts, endpoints, chain, pick, affinity, sets, detour } = lane;
    let mut out = vec![format!("@{verdicts} goto {chain}-N, @{endpoints}")];
    out.extend(sets.iter().map(|set| format!("keys: @{set}")));
    out.extend(detour.iter().map(|detour| format!("detour: @{} goto {}", detour.map, detour.chain)));
    out.extend(lines(pick).into_iter().map(|line| format!("{chain}-N: {line}")));
    if let Some(affinity) = affinity {
        out.push(format!("members: @{}", affinity.members));
        out.extend(lines(&affinity.look).into_iter().map(|line| format!("{}: {line}", affinity.chain)));
        if let Some(remember) = &affinity.remember {
            out.push(format!("remember: @{} goto {}", remember.verdicts, remember.chain));
            out.extend(lines(&remember.rules).into_iter().map(|line| format!("{}: {line}", remember.chain)));
        }
    }
    out
}
