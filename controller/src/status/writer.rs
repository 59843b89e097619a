//! Where a status goes, and the Events beside it.

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _};
use rulecast_api::{RulePool, RulePoolStatus};
use serde_json::{Value, json};

use super::{About, Notice};
use crate::source::explain;

/// Takes the status of pools.
pub trait StatusWriter: Send + Sync + 'static {
    /// Replaces what the controller says of a pool, and tells what is new in it.
    fn write(
        &self,
        pool: &str,
        status: &RulePoolStatus,
        notices: &[Notice],
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Keeps it to itself: where manifests are the input, there is no object to write to.
pub struct NoStatus;

impl StatusWriter for NoStatus {
    async fn write(&self, _: &str, _: &RulePoolStatus, _: &[Notice]) -> Result<(), String> {
        Ok(())
    }
}

const REPORTER: &str = "rulecast-controller";
/// What was done, in an Event: that field may not be empty.
const ACTION: &str = "Publish";
/// The longest note of an Event, in bytes (`k8s.io/api/events/v1`).
const NOTE: usize = 1024;
/// Where Events of objects without a namespace are found.
const NAMESPACE: &str = "default";

/// Writes it to the RulePools of a cluster.
pub struct ClusterStatus {
    client: Client,
    identity: String,
}

impl ClusterStatus {
    /// Writes through this client; Events say that they are from `identity`.
    #[must_use]
    pub fn new(client: Client, identity: impl Into<String>) -> Self {
        Self { client, identity: identity.into() }
    }

    async fn tell(&self, pool: &RulePool, notice: &Notice) -> Result<(), kube::Error> {
        let regarding = match &notice.about {
            About::Pool => pool.object_ref(&()),
            About::Service(name) => match self.service(name).await? {
                Some(service) => service,
                // It is gone, and so is its problem.
                None => return Ok(()),
            },
        };
        let namespace = regarding.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
        let event = self.event(notice, regarding);
        Api::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await?;
        Ok(())
    }

    fn event(&self, notice: &Notice, regarding: ObjectReference) -> Event {
        let mut note = notice.message.clone();
        note.truncate(note.floor_char_boundary(NOTE));
        let now = Timestamp::now();
        let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or(REPORTER), now.as_nanosecond());
        Event {
            metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
            event_time: Some(MicroTime(now)),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(notice.reason.clone()),
            note: Some(note),
            action: Some(ACTION.to_owned()),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            regarding: Some(regarding),
            ..Event::default()
        }
    }

    /// What `kubectl describe` looks for has the object's uid.
    async fn service(&self, name: &str) -> Result<Option<ObjectReference>, kube::Error> {
        let Some((namespace, name)) = name.split_once('/') else { return Ok(None) };
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found =
            services.list_metadata(&ListParams::default().fields(&format!("metadata.name={name}"))).await?;
        Ok(found.items.into_iter().next().map(|found| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: found.metadata.name,
            namespace: found.metadata.namespace,
            uid: found.metadata.uid,
            ..ObjectReference::default()
        }))
    }
}

impl StatusWriter for ClusterStatus {
    async fn write(&self, pool: &str, status: &RulePoolStatus, notices: &[Notice]) -> Result<(), String> {
        let mut status = serde_json::to_value(status).map_err(|e| e.to_string())?;
        // What is left out of a merge patch stays, so what is empty has to be said.
        for field in [
            "conditions",
            "quarantined",
            "digest",
            "observedGeneration",
            "revision",
            "shape",
            "pending",
            "releases",
        ] {
            if status.get(field).is_none() {
                status[field] = Value::Null;
            }
        }
        let patch = Patch::Merge(json!({ "status": status }));
        let pools: Api<RulePool> = Api::all(self.client.clone());
        let written = match pools.patch_status(pool, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(explain(&error)),
            Ok(written) => written,
        };
        for notice in notices {
            // The status says the same.
            if let Err(error) = self.tell(&written, notice).await {
                tracing::warn!(
                    pool,
                    reason = notice.reason,
                    error = explain(&error),
                    "an Event could not be written"
                );
            }
        }
        Ok(())
    }
}
