//! What is answered where, and what happens when an address is taken.

use http_body_util::BodyExt as _;

use super::*;
use rulecast_bundle::Mode;

async fn get(pages: Pages, path: &str, shared: &Shared) -> (u16, String) {
    let response = answer(pages, path, shared);
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

async fn health_of(path: &str, shared: &Shared) -> (u16, Value) {
    let (code, body) = get(Pages::Health, path, shared).await;
    (code, serde_json::from_str(&body).unwrap())
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn health_has_kube_proxys_fields_and_meaning() {
    let shared = Shared::default();
    let (code, body) = health_of("/healthz", &shared).await;
    assert_eq!((code, &body["healthy"], &body["nodeEligible"]), (503, &json!(false), &json!(true)));
    assert_eq!(body["lastUpdated"], "0001-01-01T00:00:00Z");

    let written = SystemTime::now() - Duration::from_mins(1);
    {
        let (state, _) = &mut *shared.lock();
        (state.in_step, state.applied_at) = (true, Some(written));
    }
    let (code, body) = health_of("/healthz", &shared).await;
    assert_eq!((code, &body["healthy"]), (200, &json!(true)));
    assert_eq!(body["lastUpdated"], body["currentTime"], "recent while all is well");
    assert_eq!(at(&body["status"]["IPv6"]["lastUpdated"]), timestamp(written));

    shared.lock().0.draining = true;
    let (code, body) = health_of("/healthz", &shared).await;
    assert_eq!((code, &body["healthy"], &body["nodeEligible"]), (503, &json!(true), &json!(false)));
    assert_eq!(at(&body["lastUpdated"]), timestamp(written));
    let (code, body) = health_of("/livez", &shared).await;
    assert_eq!((code, &body["healthy"], body.get("nodeEligible")), (200, &json!(true), None));
    assert_eq!(body["lastUpdated"], body["currentTime"]);

    shared.lock().0.in_step = false;
    let (code, body) = health_of("/livez", &shared).await;
    assert_eq!((code, &body["healthy"]), (200, &json!(false)), "nothing that a restart would mend");
    let (_, page) = get(Pages::Health, "/metrics", &shared).await;
    assert!(page.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 2\n"), "{page}");
    assert!(page.contains("kubeproxy_proxy_livez_total{code=\"200\"} 2\n"), "{page}");
}

#[tokio::test]
async fn the_metrics_address_serves_what_kube_proxy_serves_there() {
    let shared = Shared::default();
    assert_eq!(get(Pages::Metrics, "/proxyMode", &shared).await, (200, "none".to_owned()));
    shared.lock().0.mode = Some(Mode::Iptables);
    assert_eq!(get(Pages::Metrics, "/proxyMode", &shared).await, (200, "iptables".to_owned()));
    assert_eq!(get(Pages::Metrics, "/healthz", &shared).await, (200, "ok".to_owned()));
    for pages in [Pages::Metrics, Pages::Health] {
        let (code, page) = get(pages, "/metrics", &shared).await;
        assert!(code == 200 && page.contains("rulecast_node_bundle_sequence 0\n"), "{page}");
        assert_eq!(get(pages, "/nothing", &shared).await.0, 404);
    }
    assert_eq!(get(Pages::Metrics, "/livez", &shared).await.0, 404);
    assert_eq!(get(Pages::Health, "/proxyMode", &shared).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_is_fatal_only_if_asked_and_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = open(Pages::Metrics, addr, Shared::default(), true).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("--metrics-bind-address"), "{error}");

    open(Pages::Metrics, addr, Shared::default(), false).await.unwrap();
    drop(taken);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    tokio::time::sleep(RETRY * 2).await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_ok());
}
