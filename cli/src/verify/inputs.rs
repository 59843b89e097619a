//! The cluster's objects, kept up to date while `verify` looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt as _};
use rulecast_bundle::{Bundle, Shape};
use rulecast_compiler::Live;
use rulecast_controller::metrics::Metrics;
use rulecast_controller::objects::Kind;
use rulecast_controller::source::{ClusterSource, Event, start};
use rulecast_controller::world::World;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

use super::fixed;
use crate::cluster::{Cluster, Problem, Request, Verb};

/// How long the first lists may take.
const FIRST: Duration = Duration::from_mins(2);

/// The controller's own reading and compiling, without its writing.
pub(super) struct Inputs {
    world: World,
    events: Receiver<Event>,
}

impl Inputs {
    /// Reads everything once, and goes on listening.
    pub(super) async fn watch(cluster: &Cluster, pools: &[String]) -> anyhow::Result<Self> {
        // The watches below try again for ever and say nothing, so what cannot work is found out here.
        may_list::<Service>(cluster).await?;
        may_list::<EndpointSlice>(cluster).await?;
        may_list::<Node>(cluster).await?;
        let events = start(ClusterSource::new(cluster.client(), Arc::new(Metrics::default())));
        let mut this = Self { world: World::default().with_pools(pools.iter().cloned()), events };
        let end = Instant::now() + FIRST;
        while !this.world.is_synced() {
            match timeout_at(end, this.events.recv()).await {
                Ok(Some(event)) => this.world.apply(event),
                Ok(None) => bail!("reading the cluster's objects ended early"),
                Err(_) => bail!(
                    "the cluster's objects could not all be read within {} s: may you watch them, too? kubectl auth \
                     can-i watch services,endpointslices,nodes,servicecidrs",
                    FIRST.as_secs()
                ),
            }
        }
        Ok(this)
    }

    /// Takes what has come meanwhile, and compiles it.
    pub(super) fn take_what_came(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.world.apply(event);
        }
        self.world.compile();
    }

    /// Listens for this long.
    pub(super) async fn wait(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(Some(event)) = timeout_at(end, self.events.recv()).await {
            self.world.apply(event);
        }
    }

    /// The longest of the pools.
    pub(super) fn publish_interval(&self) -> Duration {
        self.world.pools().values().map(|pool| pool.publish_interval).max().unwrap_or_default()
    }

    /// The shape that the objects ask for.
    pub(super) fn wanted(&self, pool: &str) -> Option<Shape> {
        self.world.compiler().pools().find(|(name, _)| *name == pool).map(|(_, pool)| pool.wanted().clone())
    }

    /// A shape with the members that the objects give it now.
    pub(super) fn with_shape(&mut self, pool: &str, shape: Shape, wave: BTreeSet<String>) -> Bundle {
        let mut set = |live: Live, wave: BTreeSet<String>| {
            if let Some(pool) = self.world.compiler_mut().pool_mut(pool) {
                pool.set_live(live);
                pool.set_wave(wave);
            }
            self.world.compile();
        };
        set(fixed(shape), wave);
        let found = self.world.compiler().pools().find(|(name, _)| *name == pool);
        found.map(|(_, pool)| pool.bundle().clone()).unwrap_or_default()
    }

    /// The Services whose present state the controller cannot use either, so that what it had before stays.
    pub(super) async fn unusable(&self, cluster: &Cluster) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for id in self.world.quarantined().keys() {
            match id.kind {
                Kind::Service => drop(all.insert(format!("Service {}", id.name))),
                Kind::EndpointSlice => all.extend(owner(cluster, &id.name).await),
                _ => {}
            }
        }
        all
    }
}

/// The Service that a slice is of.
async fn owner(cluster: &Cluster, slice: &str) -> Option<String> {
    let (namespace, name) = slice.split_once('/')?;
    let api: Api<PartialObjectMeta<EndpointSlice>> = Api::namespaced(cluster.client(), namespace);
    let request = Request::of::<EndpointSlice>(Verb::Get).named(name).within(namespace);
    let slice = cluster.ask(&request, api.get_metadata(name)).await.ok()?;
    Some(format!("Service {namespace}/{}", slice.labels().get("kubernetes.io/service-name")?))
}

async fn may_list<K>(cluster: &Cluster) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(cluster.client());
    let request = Request::of::<K>(Verb::List);
    let listed: Result<_, Problem> =
        cluster.ask(&request, api.list_metadata(&ListParams::default().limit(1))).await;
    listed.map(drop).context("all objects that rules are made from have to be read")
}
