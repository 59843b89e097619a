//! The API server: one watched object, and chunks read by name.

use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, GroupVersionKind, Object};
use kube::client::Client;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use rulecast_bundle::{ChunkId, Head};
use rulecast_connect::chain;
use serde::{Deserialize, Serialize};

use super::{Source, SourceError};

/// How long a single read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Seconds after which the API server ends a watch and it is made anew from where it was.
const WATCH_SECONDS: u32 = 280;

type Bundle = Object<Head, Nothing>;
type Chunk = Object<ChunkSpec, Nothing>;

/// No status.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Nothing {}

/// The part of a RuleChunk that is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChunkSpec {
    data: String,
}

/// The RuleBundle of one pool.
pub struct Cluster {
    stream: Pin<Box<dyn Stream<Item = Result<Event<Bundle>, watcher::Error>> + Send>>,
    chunks: Api<Chunk>,
}

/// The kind `name` of our group.
#[must_use]
pub fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("rulecast.dev", "v1alpha1", kind), plural)
}

impl Cluster {
    /// Watches the RuleBundle `pool`. A broken watch comes back after a jittered backoff of 0.8 to 30 s.
    #[must_use]
    pub fn new(client: &Client, pool: &str) -> Self {
        let bundles: Api<Bundle> = Api::all_with(client.clone(), &resource("RuleBundle", "rulebundles"));
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={pool}"))
            // From the watch cache: many nodes may ask at once.
            .any_semantic()
            .timeout(WATCH_SECONDS);
        let stream = watcher(bundles, config).default_backoff();
        let chunks = Api::all_with(client.clone(), &resource("RuleChunk", "rulechunks"));
        Self { stream: Box::pin(stream), chunks }
    }
}

impl Source for Cluster {
    async fn next(&mut self) -> Result<Head, SourceError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Event::Apply(bundle) | Event::InitApply(bundle))) => return Ok(bundle.spec),
                // A deleted bundle changes nothing: the last good one stays until there is a new one.
                Some(Ok(Event::Init | Event::InitDone | Event::Delete(_))) => {}
                Some(Err(error)) => return Err(SourceError::Watch(chain(&error))),
                None => return Err(SourceError::Watch("it ended".to_owned())),
            }
        }
    }

    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        let name = id.to_string();
        let what = format!("RuleChunk {name}");
        let chunk = match tokio::time::timeout(READ_TIMEOUT, self.chunks.get(&name)).await {
            Err(_) => return Err(SourceError::Timeout(what)),
            Ok(Err(source)) => return Err(SourceError::Api { what, source: Box::new(source) }),
            Ok(Ok(chunk)) => chunk,
        };
        STANDARD_NO_PAD
            .decode(&chunk.spec.data)
            .map_err(|e| SourceError::Malformed { what, why: e.to_string() })
    }
}
