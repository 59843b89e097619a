//! The API server: one watched object, and chunks read by name.

use std::ops::RangeInclusive;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, GetParams, GroupVersionKind, Object};
use kube::client::Client;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use rulecast_bundle::{ChunkId, Head};
use rulecast_connect::{explain_watch, jitter};
use serde::{Deserialize, Serialize};

use super::spread::Spread;
use super::{News, Source, SourceError};

/// How long a single read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The API server ends a watch after a time in this range, and it is made anew from where it was. Nodes that were started
/// together, or came back together, do so at different times.
const WATCH: RangeInclusive<u32> = 200..=290;

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

type Watch = Pin<Box<dyn Stream<Item = Result<Event<Bundle>, watcher::Error>> + Send>>;

/// One RuleBundle.
pub struct Cluster {
    bundles: Api<Bundle>,
    name: String,
    stream: Watch,
    /// The list that began the watch has had the bundle, as far as it was read.
    listed: bool,
    chunks: Api<Chunk>,
}

/// The kind `name` of our group.
#[must_use]
pub fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("rulecast.dev", "v1alpha1", kind), plural)
}

impl Cluster {
    /// Watches the RuleBundle `name`. A broken watch comes back after up to 5 s, one that stays broken
    /// after up to 30 s.
    #[must_use]
    pub fn new(client: &Client, name: &str) -> Self {
        let bundles: Api<Bundle> = Api::all_with(client.clone(), &resource("RuleBundle", "rulebundles"));
        let chunks = Api::all_with(client.clone(), &resource("RuleChunk", "rulechunks"));
        Self { stream: watch(&bundles, name), bundles, name: name.to_owned(), listed: false, chunks }
    }

    /// Reads a chunk as the API server has it in memory, which spares it the way to etcd and the decoding of half a
    /// megabyte. A chunk never changes, so only one that is not there, as when it is very new, is asked for again.
    async fn read(&self, name: &str) -> Result<Chunk, kube::Error> {
        match self.chunks.get_with(name, &GetParams::any()).await {
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => self.chunks.get(name).await,
            read => read,
        }
    }
}

fn watch(bundles: &Api<Bundle>, name: &str) -> Watch {
    // From the watch cache: many nodes may ask at once. With a page size, kube asks for the newest version instead, for
    // which the API server asks etcd first.
    let config = watcher::Config { page_size: None, ..watcher::Config::default() }
        .fields(&format!("metadata.name={name}"))
        .any_semantic()
        .timeout(fastrand::u32(WATCH));
    watcher(bundles.clone(), config).backoff(Spread::default()).boxed()
}

/// How long to wait then at most: all nodes hear it at once.
const SOON: Duration = Duration::from_secs(1);
/// The API server no longer knows the version that the watch was to go on from.
const GONE: u16 = 410;
const NOT_FOUND: u16 = 404;

fn is_gone(error: &watcher::Error) -> bool {
    use watcher::Error as E;
    match error {
        E::WatchError(status) => status.code == GONE,
        E::InitialListFailed(kube::Error::Api(s)) | E::WatchStartFailed(kube::Error::Api(s)) => {
            s.code == GONE
        }
        _ => false,
    }
}

impl Source for Cluster {
    fn follow(&mut self, name: &str) {
        name.clone_into(&mut self.name);
        self.stream = watch(&self.bundles, name);
    }

    async fn next(&mut self) -> Result<News, SourceError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Event::Apply(bundle) | Event::InitApply(bundle))) => {
                    self.listed = true;
                    return Ok(News::Head(bundle.spec));
                }
                Some(Ok(Event::Init)) => self.listed = false,
                Some(Ok(Event::InitDone)) if self.listed => {}
                Some(Ok(Event::InitDone)) => return Ok(News::Gone { deleted: false }),
                Some(Ok(Event::Delete(_))) => return Ok(News::Gone { deleted: true }),
                // That is no failure of the API server, so it is asked again soon: what was missed may be urgent. A new
                // watch, since the old one would wait as long as after an outage.
                Some(Err(error)) if is_gone(&error) => {
                    self.stream = watch(&self.bundles, &self.name);
                    tokio::time::sleep(jitter(SOON)).await;
                }
                Some(Err(error)) => return Err(SourceError::Watch(explain_watch(&error))),
                None => return Err(SourceError::Watch("it ended".to_owned())),
            }
        }
    }

    async fn chunk(&self, id: ChunkId) -> Result<Vec<u8>, SourceError> {
        let name = id.to_string();
        let what = format!("RuleChunk {name}");
        let chunk = match tokio::time::timeout(READ_TIMEOUT, self.read(&name)).await {
            Err(_) => return Err(SourceError::Timeout(what)),
            Ok(Err(source)) => return Err(SourceError::Api { what, source: Box::new(source) }),
            Ok(Ok(chunk)) => chunk,
        };
        STANDARD_NO_PAD
            .decode(&chunk.spec.data)
            .map_err(|e| SourceError::Malformed { what, why: e.to_string() })
    }
}
