//! `rulecast-node status`: what is in force, and how it stands with the source.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use rulecast_bundle::{Shape, is_next};
use serde::{Deserialize, Serialize};

use super::Look;
use crate::hold::LastKnown;
use crate::metrics::Away;
use crate::status::{Problem, Shared};

/// A source that does not answer is asked again within a minute. So one that failed longer ago than this answers again.
const AWAY: Duration = Duration::from_mins(2);

/// An applier's state. Times are RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// An applier runs; if not, this is what its disk says.
    pub running: bool,
    /// The version of the applier.
    pub version: String,
    /// The node.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// What is in force; none: nothing.
    pub in_force: Option<InForce>,
    /// How it stands with the source, while an applier runs.
    pub source: Option<SourceStatus>,
    /// Why something newer is not in force.
    pub error: Option<ErrorStatus>,
    /// A shape that is kept on this node.
    pub hold: Option<HoldStatus>,
    /// Why what was asked of this node is not in force, although it is on its disk.
    pub hold_damage: Option<String>,
    /// The version that brought the last change of the shape; `use-previous` goes back to the one before.
    pub last_shape_change: Option<u64>,
}

/// The version in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InForce {
    /// Its bundle.
    pub bundle: String,
    /// It is of the pool's next shape: the node is in a wave.
    pub next: bool,
    /// The mode of the rules.
    pub mode: String,
    /// Its sequence.
    pub sequence: u64,
    /// Its epoch.
    pub epoch: u64,
    /// Its digest.
    pub digest: String,
    /// The digest of the shape in force.
    pub shape: String,
    /// That of the published shape, when it is another one.
    pub published_shape: Option<String>,
    /// Since when; none from disk.
    pub since: Option<String>,
    /// It is from disk, and no source has confirmed yet that there is nothing newer.
    pub restored: bool,
    /// The kernel holds it.
    pub in_kernel: bool,
    /// Service ports.
    pub service_ports: usize,
    /// Endpoints that this node uses.
    pub endpoints: usize,
}

/// The source's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// It answers, as far as is known.
    pub reachable: bool,
    /// When it last brought a version.
    pub heard: Option<String>,
    /// Since when it has not answered.
    pub away_since: Option<String>,
    /// For how many seconds.
    pub stale_seconds: Option<u64>,
    /// What happened last.
    pub message: Option<String>,
}

/// A problem that lasts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorStatus {
    /// A CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when.
    pub since: String,
    /// The version that it is about.
    pub sequence: Option<u64>,
}

/// A hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldStatus {
    /// Hold or UsePrevious.
    pub reason: String,
    /// What is different from the pool's bundle.
    pub message: String,
    /// Somebody's words.
    pub text: String,
    /// Since when.
    pub since: String,
    /// Shape records that differ from the published ones.
    pub differing: usize,
    /// Endpoints that nobody vouches for any more, since their Service port is no longer published.
    pub last_known_endpoints: usize,
    /// The Service ports that these are of.
    pub last_known_ports: usize,
}

/// What is to be said; `shared` has what only a running applier knows.
#[must_use]
pub fn status(look: Look<'_>, shared: Option<&Shared>) -> Status {
    let mut status = Status {
        running: shared.is_some(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: look.node.to_owned(),
        pool: look.pool.to_owned(),
        in_force: in_force(look),
        hold: hold(look),
        hold_damage: look.hold_damage.map(str::to_owned),
        last_shape_change: look.previous,
        ..Status::default()
    };
    if let Some(shared) = shared {
        let (state, metrics) = &*shared.lock();
        if let Some(in_force) = &mut status.in_force {
            in_force.since = state.applied_at.map(time);
            (in_force.restored, in_force.in_kernel) = (state.restored, state.in_step);
        }
        status.error = state.problem.as_ref().map(error);
        status.source = Some(source(metrics.heard, metrics.away.as_ref()));
    }
    status
}

fn in_force(look: Look<'_>) -> Option<InForce> {
    let (bundle, head) = look.version?;
    let published = Shape::of(head.mode, look.published).digest();
    // A shape that is kept may be one of another mode.
    let mode = look.view.mode().unwrap_or(head.mode);
    let shape = look.mask().map_or(published, |mask| mask.shape(mode, look.published).digest());
    Some(InForce {
        bundle: bundle.to_owned(),
        next: is_next(bundle),
        mode: mode.to_string(),
        sequence: head.sequence,
        epoch: head.epoch,
        digest: head.digest.clone(),
        shape: shape.to_string(),
        published_shape: (shape != published).then(|| published.to_string()),
        service_ports: look.view.counts().targets,
        endpoints: look.view.counts().members,
        ..InForce::default()
    })
}

fn hold(look: Look<'_>) -> Option<HoldStatus> {
    let hold = look.hold?;
    let LastKnown { endpoints, ports } = hold.mask.last_known();
    Some(HoldStatus {
        reason: hold.wish.reason().to_owned(),
        message: hold.message(),
        text: hold.text.clone(),
        since: time(hold.since),
        differing: hold.mask.differing(),
        last_known_endpoints: endpoints,
        last_known_ports: ports,
    })
}

fn error(problem: &Problem) -> ErrorStatus {
    ErrorStatus {
        reason: problem.reason.to_owned(),
        message: problem.message.clone(),
        since: time(problem.since),
        sequence: problem.sequence,
    }
}

fn source(heard: Option<SystemTime>, away: Option<&Away>) -> SourceStatus {
    let ago = |at: SystemTime| at.elapsed().unwrap_or_default();
    let away = away.filter(|away| ago(away.last) < AWAY);
    SourceStatus {
        reachable: away.is_none() && heard.is_some(),
        heard: heard.map(time),
        away_since: away.map(|away| time(away.since)),
        stale_seconds: away.map(|away| ago(away.since).as_secs()),
        message: away.map(|away| away.message.clone()),
    }
}

fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}
