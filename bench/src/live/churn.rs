//! Endpoints that come and go: EndpointSlices written as the EndpointSlice controller writes them, as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::api::{Api, Connection, Protocol};
use crate::cluster::{Cluster, Size};
use crate::objects;

/// Changes one endpoint after the other, each of another Service: it is replaced by a pod at another address. Which ones
/// is the same every time.
pub struct Churn {
    connection: Connection,
    api: Api,
    token: String,
    used: Instant,
    cluster: Cluster,
    size: Size,
    number: u32,
    /// Addresses that were given away.
    spares: u32,
    /// Slices that are no longer as they were made, by path.
    changed: HashMap<String, Value>,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number of the Service.
    pub service: u32,
    /// The endpoint that left.
    pub old: IpAddr,
    /// The one that came.
    pub new: IpAddr,
    /// The target port of both.
    pub port: u16,
}

/// How a run of changes went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Changes that were written.
    pub changes: u32,
    /// The longest that one of them was written too late.
    pub late: Duration,
}

impl Churn {
    /// With a connection of its own, as administrator.
    pub async fn new(api: &Api, token: &str, cluster: Cluster, size: Size) -> Result<Self> {
        let connection = api.connect(Protocol::Http1, token).await?;
        let (api, token, used) = (api.clone(), token.to_owned(), Instant::now());
        Ok(Self {
            connection,
            api,
            token,
            used,
            cluster,
            size,
            number: 0,
            spares: 0,
            changed: HashMap::new(),
        })
    }

    /// Connects anew after a pause in which the API server may have closed the connection, which it does after 90 s.
    pub async fn refresh(&mut self) -> Result<()> {
        if self.used.elapsed() > Duration::from_secs(30) {
            self.connection = self.api.connect(Protocol::Http1, &self.token).await?;
            self.used = Instant::now();
        }
        Ok(())
    }

    /// Changes the next endpoint, and returns when the API server has taken it.
    pub async fn change(&mut self) -> Result<Change> {
        let number = self.number;
        self.number += 1;
        let new = spare(&self.cluster, &mut self.spares);
        let (path, mut slice, change) = next(&self.cluster, self.size, &self.changed, number, new);
        slice["metadata"]["annotations"][objects::CHANGED] = format!("{:.0}", jiff::Timestamp::now()).into();
        // Without a resourceVersion: nobody else writes them, so nothing has to be read first.
        self.connection.json(Method::PUT, &path, Some(&slice)).await?;
        self.used = Instant::now();
        self.changed.insert(path, slice);
        Ok(change)
    }

    /// Makes `rate` changes a second for this long, evenly spread. One that is late is made at once, so that the number is
    /// what was asked for.
    pub async fn run(&mut self, rate: u32, time: Duration) -> Result<Run> {
        let start = Instant::now();
        let total = u32::try_from(u128::from(rate) * time.as_millis() / 1000).context("too many changes")?;
        let mut run = Run::default();
        for n in 0..total {
            let due = start + time * n / total;
            sleep_until(due).await;
            run.late = run.late.max(due.elapsed());
            self.change().await?;
            run.changes += 1;
        }
        sleep_until(start + time).await;
        Ok(run)
    }
}

/// The change of this number: the slice's path, the slice as it is then, and what is different.
fn next(
    cluster: &Cluster,
    size: Size,
    changed: &HashMap<String, Value>,
    number: u32,
    new: IpAddr,
) -> (String, Value, Change) {
    let service = cluster.scattered_service(number);
    let round = number / size.services;
    let slices = objects::slices(cluster, service);
    let fresh = slices
        .into_iter()
        .nth(pick(round, size.endpoints.div_ceil(100)))
        .expect("below the number of slices");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&fresh["metadata"]["namespace"]), text(&fresh["metadata"]["name"]));
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}");
    let mut slice = changed.get(&path).unwrap_or(&fresh).clone();
    let owner = text(&slice["metadata"]["labels"]["kubernetes.io/service-name"]);
    let endpoints = slice["endpoints"].as_array_mut().expect("a slice has endpoints");
    let at = pick(number, u32::try_from(endpoints.len()).expect("at most 100"));
    let old = text(&endpoints[at]["addresses"][0]).parse().expect("an address");
    endpoints[at] = objects::endpoint(cluster, &namespace, &owner, new);
    let port = slice["ports"][0]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    (path, slice, Change { service, old, new, port: port.expect("a port") })
}

/// An address that nobody has had, until they run out. Not of node 0, where Services with policy Local have theirs.
fn spare(cluster: &Cluster, given: &mut u32) -> IpAddr {
    loop {
        let address = cluster.spare(*given % cluster.spares()).addr;
        *given += 1;
        if cluster.node_of(address) != 0 {
            return address;
        }
    }
}

/// An index below `bound`, another one for each number in turn.
fn pick(number: u32, bound: u32) -> usize {
    usize::try_from(number % bound).expect("below 32 bits")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_are_new() {
        let cluster = Cluster::new(Size { services: 200, endpoints: 5 }).unwrap();
        let pods = (0..200).flat_map(|n| cluster.slices(n)).flat_map(|(_, slice)| slice.endpoints);
        let mut taken: HashSet<_> = pods.map(|pod| pod.addr).collect();
        let mut given = 0;
        for _ in 0..10_000 {
            let address = spare(&cluster, &mut given);
            assert!(taken.insert(address) && cluster.node_of(address) != 0, "{address}");
        }
    }

    #[test]
    fn each_change_replaces_one_endpoint() {
        let size = Size { services: 20, endpoints: 150 };
        let cluster = Cluster::new(size).unwrap();
        let mut changed: HashMap<String, Value> = HashMap::new();
        let (mut seen, mut came) = (HashSet::new(), HashSet::new());
        let mut spares = 0;
        for number in 0..60 {
            let new = spare(&cluster, &mut spares);
            let (path, slice, change) = next(&cluster, size, &changed, number, new);
            assert_eq!(change.new, new);
            let fresh = objects::slices(&cluster, change.service);
            let name = path.rsplit('/').next().unwrap();
            let fresh = fresh.into_iter().find(|slice| slice["metadata"]["name"] == name).unwrap();
            let before = changed.get(&path).unwrap_or(&fresh);
            let endpoints = |slice: &Value| slice["endpoints"].as_array().unwrap().clone();
            let (before, after) = (endpoints(before), endpoints(&slice));
            assert_eq!(before.len(), after.len());
            let differ: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
            assert_eq!(differ.len(), 1);
            assert_eq!(differ[0].0["addresses"][0], change.old.to_string());
            assert_eq!(differ[0].1["addresses"][0], change.new.to_string());
            assert!(came.insert(change.new));
            seen.insert(path.clone());
            changed.insert(path, slice);
        }
        // Each Service has two slices, and three rounds were made.
        assert_eq!(seen.len(), 40);
    }
}
