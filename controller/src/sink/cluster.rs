//! The cluster as sink: `RuleBundle` and `RuleChunk` objects.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use rulecast_api::{RuleBundle, RuleChunk, RuleChunkSpec, RuleRevision, RuleRevisionSpec};
use rulecast_bundle::{ChunkId, Head};
use serde::{Deserialize, Serialize};

use super::{ChunkKind, LastBundle, Revision, Sink, SinkError, Version};
use crate::source::explain;

/// The label by which a pool's chunks are found.
const POOL_LABEL: &str = "rulecast.dev/pool";
/// No answer after this long counts as a failure. kube's own retries could go on for hours.
const PATIENCE: Duration = Duration::from_secs(15);

/// A `RuleBundle` whose spec is a head: they have the same JSON.
#[derive(Resource, Serialize, Deserialize, Debug, Clone)]
#[resource(inherit = "RuleBundle")]
struct HeadObject {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: serde_json::Value,
}

/// Publishes into custom resources.
pub struct ClusterSink {
    heads: Api<HeadObject>,
    chunks: Api<RuleChunk>,
    revisions: Api<RuleRevision>,
}

impl ClusterSink {
    /// Publishes through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let revisions = Api::all(client.clone());
        Self { heads: Api::all(client.clone()), chunks: Api::all(client), revisions }
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

async fn patient<T>(
    what: impl Display + Send,
    request: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<Result<T, kube::Error>, SinkError> {
    let late = |_| SinkError::failed(what.to_string(), format!("no answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, request).await.map_err(late)
}

impl Sink for ClusterSink {
    async fn read_head(&self, pool: &str) -> Result<Option<(Head, Version)>, SinkError> {
        let what = format!("reading RuleBundle {pool}");
        let object = patient(&what, self.heads.get_opt(pool)).await?;
        let Some(object) = object.map_err(|e| SinkError::failed(&what, e))? else { return Ok(None) };
        let version = Version(object.resource_version().unwrap_or_default());
        match serde_json::from_value(object.spec) {
            Ok(head) => Ok(Some((head, version))),
            Err(e) => Err(SinkError::Damaged {
                what: format!("RuleBundle {pool}"),
                problem: e.to_string(),
                version,
            }),
        }
    }

    async fn read_chunk(&self, _: &str, id: ChunkId) -> Result<Vec<u8>, SinkError> {
        let what = format!("reading RuleChunk {id}");
        let chunk = patient(&what, self.chunks.get_opt(&id.to_string())).await?;
        let chunk =
            chunk.map_err(|e| SinkError::failed(&what, explain(&e)))?.ok_or(SinkError::Missing(id))?;
        STANDARD_NO_PAD.decode(&chunk.spec.data).map_err(|e| SinkError::failed(&what, e))
    }

    async fn write_chunk(
        &self,
        pool: &str,
        kind: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        let spec = RuleChunkSpec { kind, pool: pool.to_owned(), data: STANDARD_NO_PAD.encode(bytes) };
        let mut chunk = RuleChunk::new(&id.to_string(), spec);
        chunk.labels_mut().insert(POOL_LABEL.to_owned(), pool.to_owned());
        let what = format!("writing RuleChunk {id}");
        match patient(&what, self.chunks.create(&PostParams::default(), &chunk)).await? {
            Err(e) if code(&e) != 409 => Err(SinkError::failed(&what, explain(&e))),
            // Content-addressed: what is there is the same.
            _ => Ok(()),
        }
    }

    async fn write_head(
        &self,
        pool: &str,
        head: &Head,
        over: Option<&Version>,
    ) -> Result<Version, SinkError> {
        let what = format!("writing RuleBundle {pool}");
        let mut object = HeadObject {
            api_version: RuleBundle::api_version(&()).into_owned(),
            kind: RuleBundle::kind(&()).into_owned(),
            metadata: ObjectMeta { name: Some(pool.to_owned()), ..ObjectMeta::default() },
            spec: serde_json::to_value(head).map_err(|e| SinkError::failed(&what, e))?,
        };
        let params = PostParams::default();
        let written = if let Some(Version(version)) = over {
            object.metadata.resource_version = Some(version.clone());
            // One empty entry removes them, and without them the API server does not begin to track fields again:
            // every byte of this object is sent to every node at every change.
            object.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
            patient(&what, self.heads.replace(pool, &params, &object)).await?
        } else {
            patient(&what, self.heads.create(&params, &object)).await?
        };
        match written {
            Ok(object) => Ok(Version(object.resource_version().unwrap_or_default())),
            // 404: it was deleted since it was read.
            Err(e) if matches!((code(&e), over), (409, _) | (404, Some(_))) => Err(SinkError::Conflict(what)),
            Err(e) => Err(SinkError::failed(&what, explain(&e))),
        }
    }

    async fn delete_head(&self, pool: &str) -> Result<(), SinkError> {
        let what = format!("deleting RuleBundle {pool}");
        match patient(&what, self.heads.delete(pool, &DeleteParams::default())).await? {
            Err(e) if code(&e) != 404 => Err(SinkError::failed(&what, explain(&e))),
            _ => Ok(()),
        }
    }

    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        let what = "listing RuleBundles";
        let list = patient(what, self.heads.list_metadata(&ListParams::default())).await?;
        let list = list.map_err(|e| SinkError::failed(what, explain(&e)))?;
        Ok(list.items.into_iter().map(|object| object.name_any()).collect())
    }

    async fn list_chunks(&self, pool: &str) -> Result<Vec<ChunkId>, SinkError> {
        let what = format!("listing the RuleChunks of {pool}");
        let params = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
        let list = patient(&what, self.chunks.list_metadata(&params)).await?;
        let list = list.map_err(|e| SinkError::failed(&what, explain(&e)))?;
        Ok(list.items.into_iter().filter_map(|object| object.name_any().parse().ok()).collect())
    }

    async fn delete_chunk(&self, _: &str, id: ChunkId) -> Result<(), SinkError> {
        let what = format!("deleting RuleChunk {id}");
        match patient(&what, self.chunks.delete(&id.to_string(), &DeleteParams::default())).await? {
            Err(e) if code(&e) != 404 => Err(SinkError::failed(&what, explain(&e))),
            _ => Ok(()),
        }
    }

    async fn list_revisions(&self, pool: &str) -> Result<Vec<Revision>, SinkError> {
        let what = format!("listing the RuleRevisions of {pool}");
        let params = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
        let list = patient(&what, self.revisions.list(&params)).await?;
        let list = list.map_err(|e| SinkError::failed(&what, explain(&e)))?;
        let stored = |object: RuleRevision| {
            let last = object.status.and_then(|status| status.last_bundle);
            Revision { spec: object.spec, last }
        };
        Ok(list.items.into_iter().map(stored).filter(|revision| revision.spec.pool == pool).collect())
    }

    async fn write_revision(&self, spec: &RuleRevisionSpec) -> Result<(), SinkError> {
        let name = format!("{}-{}", spec.pool, spec.number);
        let mut revision = RuleRevision::new(&name, spec.clone());
        revision.labels_mut().insert(POOL_LABEL.to_owned(), spec.pool.clone());
        let what = format!("writing RuleRevision {name}");
        match patient(&what, self.revisions.create(&PostParams::default(), &revision)).await? {
            Err(e) if code(&e) == 409 => Err(SinkError::Conflict(what)),
            Err(e) => Err(SinkError::failed(&what, explain(&e))),
            Ok(_) => Ok(()),
        }
    }

    async fn write_last_bundle(&self, pool: &str, number: u64, last: &LastBundle) -> Result<(), SinkError> {
        let name = format!("{pool}-{number}");
        let what = format!("writing the status of RuleRevision {name}");
        let patch = Patch::Merge(serde_json::json!({ "status": { "lastBundle": last } }));
        match patient(&what, self.revisions.patch_status(&name, &PatchParams::default(), &patch)).await? {
            // It was cleaned up: nobody can go back to it.
            Err(e) if code(&e) != 404 => Err(SinkError::failed(&what, explain(&e))),
            _ => Ok(()),
        }
    }

    async fn delete_revision(&self, pool: &str, number: u64) -> Result<(), SinkError> {
        let name = format!("{pool}-{number}");
        let what = format!("deleting RuleRevision {name}");
        match patient(&what, self.revisions.delete(&name, &DeleteParams::default())).await? {
            Err(e) if code(&e) != 404 => Err(SinkError::failed(&what, explain(&e))),
            _ => Ok(()),
        }
    }
}
