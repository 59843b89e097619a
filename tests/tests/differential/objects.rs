//! Where the objects are that both worlds serve.

use rulecast_tests::process::Process;
use serde_json::Value;

use crate::config::Config;
use crate::world::World;

/// What a change is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Service,
    EndpointSlice,
}

impl Kind {
    /// As kubectl knows it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
        }
    }
}

/// Objects, and the proxies that follow them: every change is made once, and both worlds see it.
pub(crate) trait Objects {
    /// Writes Services and slices as they are described, but for the Services' status.
    fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()>;

    /// What load balancers report: Services with nothing but names and a status.
    fn set_statuses(&mut self, services: &[Value]) -> anyhow::Result<()>;

    /// Merges a patch (RFC 7386) into an object's metadata and spec.
    fn patch(&mut self, kind: Kind, name: &str, patch: &Value) -> anyhow::Result<()>;

    /// Removes what is there of these.
    fn delete(&mut self, kind: Kind, names: &[&str]) -> anyhow::Result<()>;

    /// Removes all slices of these Services.
    fn delete_slices(&mut self, services: &[&str]) -> anyhow::Result<()>;

    /// All Services, with what was allocated.
    fn services(&self) -> anyhow::Result<Vec<Value>>;

    /// Gives both worlds a configuration, instead of `before`; whatever serves runs afterwards.
    fn configure(&mut self, worlds: [&mut World; 2], before: &Config, config: &Config) -> anyhow::Result<()>;

    /// What runs beside the proxies.
    fn processes(&self) -> Vec<&Process>;

    /// More to read when something is wrong.
    fn log_tails(&self) -> String;
}
