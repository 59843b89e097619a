//! Synthetic kube-proxies: what kube-proxy v1.36 asks an API server for, as its own log shows it (`-v=8`).
//!
//! One HTTP/2 connection with protobuf and four watches: Services and EndpointSlices with label selectors, ServiceCIDRs,
//! and its own Node. It reports nothing. client-go 0.36 begins with `sendInitialEvents` (feature `WatchListClient`) on the
//! very watch that goes on afterwards; watches are never compressed. A fleet of them skips the beginning, because five
//! hundred times 10,000 objects are more than two processors can send: it starts at the version of one list. What the
//! beginning costs is measured one by one, in [`join`].

use anyhow::{Context as _, Result};
use hyper::Method;
use serde_json::json;

use super::fleet::{Fleet, Node, follow};
use super::frames::{Encoding, Kind};
use crate::live::{Api, Ask, Connection, Live, Protocol};
use crate::progress::Progress;

const ASK: Ask<'static> = Ask {
    accept: "application/vnd.kubernetes.protobuf, */*",
    // What Go's HTTP client adds by itself.
    gzip: true,
    content_type: "",
};
/// kube-proxy's watches end after 5 to 10 minutes and go on where they were. These do not end within a measurement.
const WATCH_SECONDS: u32 = 7200;
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-proxy";

/// The four collections and the selectors, percent-encoded.
fn collections(node: &str) -> [(&'static str, String); 4] {
    [
        ("/api/v1/nodes", format!("&fieldSelector=metadata.name%3D{node}")),
        ("/apis/networking.k8s.io/v1/servicecidrs", String::new()),
        (
            "/apis/discovery.k8s.io/v1/endpointslices",
            "&labelSelector=%21service.kubernetes.io%2Fheadless".to_owned(),
        ),
        (
            "/api/v1/services",
            "&fieldSelector=spec.clusterIP%21%3DNone\
             &labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"
                .to_owned(),
        ),
    ]
}

/// Gives kube-proxy's service account the rights that kubeadm gives it, and returns a token of it.
pub(super) fn account(live: &Live) -> Result<String> {
    live.apply(&[
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": "kubeadm:node-proxier" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
        }),
    ])?;
    let token = live.kubectl(&["create", "token", NAME, "-n", NAMESPACE, "--duration", "24h"])?;
    Ok(token.trim().to_owned())
}

/// Connects kube-proxies that are up to date.
pub(super) async fn fleet(live: &Live, token: &str, count: u32, progress: &mut Progress) -> Result<Fleet> {
    let mut connection = live.api().connect(Protocol::Http2, token).await?;
    let mut versions = Vec::new();
    for (path, _) in collections("") {
        let list = connection.json(Method::GET, &format!("{path}?limit=1"), None).await?;
        versions.push(list["metadata"]["resourceVersion"].as_str().context("a list's version")?.to_owned());
    }
    let connect = async |n: u32, seen: std::sync::Arc<super::fleet::Seen>| {
        let mut connection = live.api().connect(Protocol::Http2, token).await?;
        let name = live.cluster().node_name(n);
        let mut watches = Vec::new();
        for ((path, selectors), version) in collections(&name).into_iter().zip(&versions) {
            let path = format!(
                "{path}?allowWatchBookmarks=true{selectors}&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}\
                 &watch=true"
            );
            watches.push(connection.send(Method::GET, &path, ASK, Vec::new()).await?.into_body());
        }
        let traffic = vec![connection.traffic()];
        let work = async move {
            let _open = connection;
            let watches = watches.into_iter().map(|body| {
                follow(body, Encoding::Protobuf, |kind, event| {
                    if kind == Kind::Object {
                        seen.event(event.len());
                    }
                    Ok(false)
                })
            });
            // As long as all of them last.
            futures::future::try_join_all(watches).await.map(drop)
        };
        Ok(Node { traffic, work })
    };
    Fleet::start(count, "kube-proxies", connect, progress).await
}

/// The annotation of the bookmark that ends the beginning of a watch.
const INITIAL_EVENTS_END: &[u8] = b"k8s.io/initial-events-end";

/// A kube-proxy that knows nothing joins; returns the bytes that it received until it knew everything.
pub(super) async fn join(api: &Api, token: &str, node: &str) -> Result<u64> {
    let mut connection: Connection = api.connect(Protocol::Http2, token).await?;
    let mut watches = Vec::new();
    for (path, selectors) in collections(node) {
        let path = format!(
            "{path}?allowWatchBookmarks=true{selectors}&resourceVersionMatch=NotOlderThan&sendInitialEvents=true\
             &timeoutSeconds={WATCH_SECONDS}&watch=true"
        );
        let body = connection.send(Method::GET, &path, ASK, Vec::new()).await?.into_body();
        watches.push(follow(body, Encoding::Protobuf, |kind, event| {
            let is_end = |window: &[u8]| window == INITIAL_EVENTS_END;
            Ok(kind == Kind::Bookmark && event.windows(INITIAL_EVENTS_END.len()).any(is_end))
        }));
    }
    let ended = futures::future::try_join_all(watches).await?;
    anyhow::ensure!(ended.iter().all(|end| *end), "a watch ended before everything was there");
    Ok(connection.traffic().received())
}
