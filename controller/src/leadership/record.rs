//! What a Lease says, and what is written into it.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Duration;

/// A Lease as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// Empty when it was given back.
    pub(super) holder: String,
    /// Others wait this long after the last time they saw it change.
    pub(super) duration: Duration,
    /// By the holder's clock: only whether it differs from the one seen before counts.
    pub(super) renewed: Option<MicroTime>,
    pub(super) acquired: Option<MicroTime>,
    pub(super) transitions: i32,
    /// Of the object.
    pub(super) version: String,
}

impl Record {
    pub(super) fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            duration: Duration::from_secs(seconds),
            renewed: spec.renew_time,
            acquired: spec.acquire_time,
            transitions: spec.lease_transitions.unwrap_or(0),
            version: lease.metadata.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// What a Lease shall say: held by `holder` from now on, or given back when that is empty.
pub(super) fn lease(name: &str, holder: &str, duration: Duration, over: Option<&Record>) -> Lease {
    let now = MicroTime(Timestamp::now());
    let same = over.filter(|record| record.holder == holder);
    let transitions = over.map_or(0, |r| r.transitions + i32::from(same.is_none() && !holder.is_empty()));
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            // What makes the write fail if somebody else was quicker.
            resource_version: over.map(|record| record.version.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            acquire_time: same.and_then(|record| record.acquired.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
    }
}
