//! The node's RuleNode: which version it runs, and why not the newest.

mod schedule;

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use rulecast_connect::{chain, jitter};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, warn};

pub use schedule::spread_of_versions;
use schedule::{Change, Schedule};

use crate::source::cluster::resource;
use crate::status::{Shared, State};

/// How often to look whether there is something to report.
const LOOK: Duration = Duration::from_millis(500);
/// How long a write may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The custom resource bounds what is said of a hold, in characters.
const MAX_HELD: usize = 512;
const MANAGER: &str = "rulecast-node";

/// Writes RuleNode `node` when something changed, as [`Schedule`] says.
pub async fn run(client: Client, node: String, pool: String, interval: Duration, shared: Shared) {
    let api: Api<DynamicObject> = Api::all_with(client, &resource("RuleNode", "rulenodes"));
    let mut schedule = Schedule::new(interval);
    let mut reported: Option<State> = None;
    let mut failing = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let state = shared.lock().0.clone();
        let change = match &reported {
            Some(before) if *before == state => Change::None,
            Some(before) if !is_urgent(before, &state) => Change::Version,
            _ => Change::Urgent,
        };
        if !schedule.is_due(change, state.nodes, Instant::now()) {
            continue;
        }
        match write(&api, &node, &status(&pool, &state)).await {
            Ok(()) => {
                (reported, failing) = (Some(state), false);
                shared.lock().1.source_answered();
                debug!("reported");
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(error = chain(&*error), "RuleNode {node} cannot be written; trying on");
                }
                // Not all at once when the API server comes back.
                tokio::time::sleep(jitter(Duration::from_secs(8))).await;
            }
        }
    }
}

/// Whether somebody waits for it. Of the nodes in a wave, which are few, that is every version.
fn is_urgent(before: &State, after: &State) -> bool {
    let reason = |state: &State| state.problem.as_ref().map(|problem| problem.reason);
    reason(before) != reason(after)
        || before.restored != after.restored
        || before.is_next()
        || after.is_next()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn write(api: &Api<DynamicObject>, node: &str, status: &Value) -> Result<(), Failure> {
    let params = PatchParams::apply(MANAGER).force();
    let object = |status: Option<&Value>| {
        let mut object = json!({
            "apiVersion": "rulecast.dev/v1alpha1", "kind": "RuleNode", "metadata": { "name": node },
        });
        if let Some(status) = status {
            object["status"] = status.clone();
        }
        Patch::Apply(object)
    };
    let status = object(Some(status));
    let wrote = tokio::time::timeout(TIMEOUT, api.patch_status(node, &params, &status)).await?;
    if let Err(kube::Error::Api(answer)) = &wrote
        && answer.code == 404
    {
        tokio::time::timeout(TIMEOUT, api.patch(node, &params, &object(None))).await??;
        tokio::time::timeout(TIMEOUT, api.patch_status(node, &params, &status)).await??;
        return Ok(());
    }
    wrote?;
    Ok(())
}

fn status(pool: &str, state: &State) -> Value {
    let mut status = json!({
        "pool": pool,
        "version": env!("CARGO_PKG_VERSION"),
        "restored": state.restored,
    });
    if let Some(mode) = state.mode {
        status["mode"] = json!(mode.to_string());
    }
    if let Some(head) = &state.head {
        status["sequence"] = json!(head.sequence);
        status["epoch"] = json!(head.epoch);
        status["digest"] = json!(head.digest);
    }
    if state.is_next() {
        status["next"] = json!(true);
    }
    if let Some(held) = &state.held
        && let Ok(since) = Timestamp::try_from(held.since)
    {
        let message: String = held.message.chars().take(MAX_HELD).collect();
        status["hold"] = json!({ "reason": held.reason, "message": message, "since": format!("{since:.0}") });
    }
    if let Some(at) = state.applied_at.and_then(time) {
        status["appliedAt"] = json!(at);
    }
    if let Some(problem) = &state.problem {
        status["error"] = json!({ "reason": problem.reason, "message": shorten(&problem.message) });
        if let Some(since) = time(problem.since) {
            status["error"]["since"] = json!(since);
        }
        if let Some(sequence) = problem.sequence {
            status["error"]["sequence"] = json!(sequence);
        }
    }
    status
}

/// RFC 3339 with microseconds, as Kubernetes writes a MicroTime.
fn time(at: SystemTime) -> Option<String> {
    Timestamp::try_from(at).ok().map(|t| format!("{t:.6}"))
}

/// The custom resource bounds messages.
fn shorten(message: &str) -> String {
    message.chars().take(1000).collect()
}
