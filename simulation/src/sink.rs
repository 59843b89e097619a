//! The API server as the controller's sink: as `controller/src/sink/cluster.rs` asks and understands it.

use std::sync::Arc;

use rulecast_bundle::{ChunkId, Head};
use rulecast_controller::sink::{
    ChunkKind, LastBundle, Revision, RuleRevisionSpec, Sink, SinkError, Version,
};

use crate::Universe;
use crate::api_server::Refused;
use crate::faults::{Client, Fault};
use crate::requests::ask;

/// One controller's connection.
pub(crate) struct ApiSink {
    pub(crate) universe: Arc<Universe>,
    pub(crate) client: Client,
}

impl ApiSink {
    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        effect: impl FnOnce(&mut crate::api_server::ApiServer) -> T + Send + 'static,
    ) -> Result<T, SinkError> {
        let failed = |problem| SinkError::Failed { what: what.clone(), problem };
        ask(&self.universe, self.client, &what, effect).await.map_err(failed)
    }
}

impl Sink for ApiSink {
    async fn read_head(&self, pool: &str) -> Result<Option<(Head, Version)>, SinkError> {
        let name = pool.to_owned();
        let found = self.ask(format!("get head of {pool}"), move |api| api.head(&name)).await?;
        Ok(found.map(|(head, version)| (head, Version(version.to_string()))))
    }

    async fn read_chunk(&self, pool: &str, id: ChunkId) -> Result<Vec<u8>, SinkError> {
        let bytes = self.ask(format!("get chunk {id}"), move |api| api.chunk(id)).await?;
        let mut bytes = bytes.ok_or(SinkError::Missing(id))?;
        if self.universe.corrupt(self.client, id, &mut bytes) {
            // What cannot be read is replaced, also where the same would do.
            self.universe.api().ledger.excuse(pool);
        }
        Ok(bytes)
    }

    async fn write_chunk(
        &self,
        pool: &str,
        kind: ChunkKind,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        let (pool, bytes) = (pool.to_owned(), bytes.to_vec());
        self.ask(format!("create chunk {id}"), move |api| api.create_chunk(&pool, kind, id, bytes)).await
    }

    async fn write_head(
        &self,
        pool: &str,
        head: &Head,
        over: Option<&Version>,
    ) -> Result<Version, SinkError> {
        let what = format!("put head {}/{} of {pool}", head.epoch, head.sequence);
        let (name, head) = (pool.to_owned(), head.clone());
        let over = over.map(|Version(version)| version.parse().expect("versions are ours"));
        let written = self.ask(what.clone(), move |api| api.put_head(&name, &head, over)).await?;
        written.map(|version| Version(version.to_string())).map_err(|refused| match refused {
            Refused::Conflict => {
                self.universe.trace.note(format_args!("{}: conflict: {what}", self.client));
                SinkError::Conflict(what)
            }
            Refused::Invalid(why) => SinkError::Failed { what, problem: why.to_owned() },
        })
    }

    async fn delete_head(&self, pool: &str) -> Result<(), SinkError> {
        let name = pool.to_owned();
        self.ask(format!("delete head of {pool}"), move |api| api.delete_head(&name)).await
    }

    async fn list_pools(&self) -> Result<Vec<String>, SinkError> {
        self.ask("list heads".to_owned(), |api| api.pools()).await
    }

    async fn list_chunks(&self, pool: &str) -> Result<Vec<ChunkId>, SinkError> {
        let name = pool.to_owned();
        self.ask(format!("list chunks of {pool}"), move |api| api.chunks_of(&name)).await
    }

    async fn delete_chunk(&self, _: &str, id: ChunkId) -> Result<(), SinkError> {
        self.ask(format!("delete chunk {id}"), move |api| api.delete_chunk(id)).await
    }

    async fn list_revisions(&self, pool: &str) -> Result<Vec<Revision>, SinkError> {
        let name = pool.to_owned();
        self.ask(format!("list revisions of {pool}"), move |api| api.revisions_of(&name)).await
    }

    async fn write_revision(&self, spec: &RuleRevisionSpec) -> Result<(), SinkError> {
        let what = format!("create revision {} of {}", spec.number, spec.pool);
        let spec = spec.clone();
        let written = self.ask(what.clone(), move |api| api.create_revision(spec)).await?;
        if written { Ok(()) } else { Err(SinkError::Conflict(what)) }
    }

    async fn write_last_bundle(&self, pool: &str, number: u64, last: &LastBundle) -> Result<(), SinkError> {
        let (name, last) = (pool.to_owned(), last.clone());
        let what = format!("patch status of revision {number} of {pool}");
        self.ask(what, move |api| api.note_last_bundle(&name, number, last)).await
    }

    async fn delete_revision(&self, pool: &str, number: u64) -> Result<(), SinkError> {
        let name = pool.to_owned();
        self.ask(format!("delete revision {number} of {pool}"), move |api| api.delete_revision(&name, number))
            .await
    }
}

impl Universe {
    /// Alters bytes on their way, perhaps.
    pub(crate) fn corrupt(&self, client: Client, id: ChunkId, bytes: &mut [u8]) -> bool {
        let hit = !bytes.is_empty() && self.faults.hits(Fault::Corrupt);
        if hit {
            bytes[fastrand::usize(..bytes.len())] ^= 1 << fastrand::u32(..8);
            self.trace.note(format_args!("{client}: chunk {id} is altered on its way"));
        }
        hit
    }
}
