//! A cluster as source: one watch a kind, each with its own backoff.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use rulecast_connect::{explain_watch, jitter};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Event, Source};
use crate::metrics::Metrics;
use crate::objects::{
    Convert, HEADLESS, Kind, ObjectId, PROXY_NAME, RawNode, RawPool, RawReport, RawService, RawServiceCidr,
    RawSlice, key,
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
/// There are two controllers, not thousands of nodes: coming back soon hurts nobody.
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often a kind that this cluster does not know is asked for again.
const UNKNOWN_KIND: Duration = Duration::from_mins(1);

/// Watches a cluster.
pub struct ClusterSource {
    client: Client,
    metrics: Arc<Metrics>,
}

impl ClusterSource {
    /// Watches through this client.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self { client, metrics }
    }
}

impl Source for ClusterSource {
    async fn run(self, events: mpsc::Sender<Event>) {
        const KINDS: usize = 6;
        let watch = Watch { waiting: Arc::new(AtomicUsize::new(KINDS)), events, metrics: self.metrics };
        let config = watcher::Config::default;
        let others = format!("!{PROXY_NAME}");
        let headless = format!("!{HEADLESS}");
        let client = || self.client.clone();
        tokio::join!(
            watch.clone().kind::<RawPool>(Api::all(client()), config()),
            watch.clone().kind::<RawServiceCidr>(Api::all(client()), config()),
            watch.clone().kind::<RawReport>(Api::all(client()), config()),
            watch.clone().kind::<RawNode>(Api::all(client()), config()),
            watch.clone().kind::<RawService>(Api::all(client()), config().labels(&others)),
            watch.clone().kind::<RawSlice>(Api::all(client()), config().labels(&headless)),
        );
    }
}

/// What the watches of all kinds share.
#[derive(Clone)]
struct Watch {
    /// The number of kinds that have not been listed yet.
    waiting: Arc<AtomicUsize>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

impl Watch {
    /// Watches one kind until nobody listens any more.
    async fn kind<K>(self, api: Api<DeserializeGuard<K>>, config: watcher::Config)
    where
        K: Convert + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let mut stream = watcher(api, config).boxed();
        let mut known = Known::default();
        let mut failures = 0;
        while !self.events.is_closed() {
            let Some(result) = stream.next().await else { return };
            let sent = match result {
                Ok(event) => {
                    if failures > 0 {
                        tracing::info!(kind = %K::KIND, "watching again");
                    }
                    failures = 0;
                    self.take(event, &mut known).await
                }
                // Before Kubernetes 1.33 there are no ServiceCIDRs: that is the same as none. Without RuleNodes nothing is promoted.
                Err(error) if matches!(K::KIND, Kind::ServiceCidr | Kind::RuleNode) && is_missing(&error) => {
                    let listed = self.listed(&mut known).await;
                    tokio::time::sleep(UNKNOWN_KIND).await;
                    listed
                }
                Err(error) => {
                    self.report(K::KIND, &error, failures == 0);
                    let longest = FIRST_RETRY.saturating_mul(1 << failures.min(10)).min(LAST_RETRY);
                    failures += 1;
                    tokio::time::sleep(jitter(longest)).await;
                    true
                }
            };
            if !sent {
                return;
            }
        }
    }

    fn report(&self, kind: Kind, error: &watcher::Error, first: bool) {
        self.metrics.watch_restarted(kind);
        if is_gone(error) {
            // The API server forgot the version that was watched; a new list follows.
            tracing::debug!(%kind, %error, "the watch is listed anew");
        } else if !first {
            tracing::debug!(%kind, error = explain_watch(error), "the watch is still broken");
        } else if kind == Kind::RulePool && is_missing(error) {
            tracing::warn!("the cluster has no RulePools: kubectl apply -k manifests/crds, or crds/yaml");
        } else {
            tracing::warn!(%kind, error = explain_watch(error), "the watch broke; it is tried again, and what is known stays");
        }
    }

    async fn take<K>(&self, event: watcher::Event<DeserializeGuard<K>>, known: &mut Known) -> bool
    where
        K: Convert + Resource<DynamicType = ()>,
    {
        match event {
            watcher::Event::Init => {
                // What an interrupted list named was told of, too.
                let interrupted = known.seen.replace(HashSet::new());
                known.names.extend(interrupted.into_iter().flatten());
                true
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.send(convert(object, known)).await
            }
            watcher::Event::Delete(object) => {
                let name = key(K::KIND, object.meta());
                known.names.remove(&name);
                self.send(Event::Gone(ObjectId::new(K::KIND, name))).await
            }
            watcher::Event::InitDone => {
                let seen = known.seen.take().unwrap_or_default();
                for name in known.names.difference(&seen) {
                    if !self.send(Event::Gone(ObjectId::new(K::KIND, name.clone()))).await {
                        return false;
                    }
                }
                known.names = seen;
                self.listed(known).await
            }
        }
    }

    /// One more kind has been listed.
    async fn listed(&self, known: &mut Known) -> bool {
        let first = !std::mem::replace(&mut known.listed, true);
        // Every kind's objects are in the channel before its count goes down, so the last one may say so for all.
        if first && self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            return self.send(Event::Synced).await;
        }
        true
    }

    async fn send(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }
}

/// The objects of one kind that were told of.
#[derive(Default)]
struct Known {
    names: HashSet<String>,
    /// During a list: what it has named so far.
    seen: Option<HashSet<String>>,
    listed: bool,
}

fn convert<K>(object: DeserializeGuard<K>, known: &mut Known) -> Event
where
    K: Convert + Resource<DynamicType = ()>,
{
    let name = key(K::KIND, object.meta());
    match &mut known.seen {
        Some(seen) => drop(seen.insert(name.clone())),
        None => drop(known.names.insert(name.clone())),
    }
    let generation = object.meta().generation.filter(|_| K::KIND == Kind::RulePool);
    let bad = match object.0.map(Convert::convert) {
        Ok(Ok(object)) => return Event::Set(object),
        Ok(Err(error)) => Event::Bad(error.id.clone(), error.to_string()),
        Err(invalid) => Event::Bad(ObjectId::new(K::KIND, name.as_str()), invalid.to_string()),
    };
    match generation {
        Some(generation) => Event::Together(vec![bad, Event::Unusable(name, generation)]),
        None => bad,
    }
}

fn status(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    }
}

fn is_missing(error: &watcher::Error) -> bool {
    status(error) == Some(404)
}

fn is_gone(error: &watcher::Error) -> bool {
    status(error) == Some(410)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Guarded = DeserializeGuard<RawService>;

    fn service(name: &str, cluster_ip: &str) -> Guarded {
        let json = json!({ "metadata": { "name": name, "namespace": "a" },
                           "spec": { "clusterIP": cluster_ip, "ports": [{ "port": 80 }] } });
        serde_json::from_value(json).unwrap()
    }

    fn undecodable(name: &str) -> Guarded {
        let json = json!({ "metadata": { "name": name, "namespace": "a" }, "spec": { "ports": "none" } });
        serde_json::from_value(json).unwrap()
    }

    async fn told(kinds: usize, events: Vec<watcher::Event<Guarded>>) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(100);
        let waiting = Arc::new(AtomicUsize::new(kinds));
        let watch = Watch { waiting, events: sender, metrics: Arc::default() };
        let mut known = Known::default();
        for event in events {
            assert!(watch.take(event, &mut known).await);
        }
        drop(watch);
        let mut out = Vec::new();
        while let Some(event) = receiver.recv().await {
            out.push(match event {
                Event::Set(object) => format!("set {}", object.id.name),
                Event::Gone(id) => format!("gone {}", id.name),
                Event::Bad(id, _) => format!("bad {}", id.name),
                Event::Synced => "synced".to_owned(),
                Event::Unusable(..) | Event::Together(_) => unreachable!("only RulePools are told of so"),
            });
        }
        out
    }

    #[tokio::test]
    async fn what_a_new_list_does_not_name_is_gone() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let events = vec![
            Init,
            InitApply(service("x", "10.0.0.1")),
            InitApply(undecodable("y")),
            InitDone,
            Apply(service("z", "10.0.0.2")),
            Apply(service("z", "oops")),
            Delete(service("x", "10.0.0.1")),
            // The connection broke; meanwhile z went and w came.
            Init,
            InitApply(service("y", "10.0.0.3")),
            InitApply(service("v", "10.0.0.5")),
            // Again, in the middle of the list.
            Init,
            InitApply(service("w", "10.0.0.4")),
            InitApply(service("y", "10.0.0.3")),
            InitDone,
        ];
        let wanted = [
            "set a/x", "bad a/y", "synced", "set a/z", "bad a/z", "gone a/x", "set a/y", "set a/v",
            "set a/w", "set a/y", "gone a/v", "gone a/z",
        ];
        let mut told = told(1, events).await;
        // The last ones come from a set.
        told[10..].sort();
        assert_eq!(told, wanted);
    }

    #[tokio::test]
    async fn one_kind_alone_does_not_make_it_complete() {
        let events = vec![watcher::Event::Init, watcher::Event::InitDone];
        assert!(told(2, events).await.is_empty());
    }
}
