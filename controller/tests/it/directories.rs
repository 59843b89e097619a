//! Real files: manifests as source, a directory as sink.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{Follower, POOL, apply, compiled, endpoints, world};
use rulecast_bundle::ChunkId;
use rulecast_controller::objects::{Content, Kind, ObjectId};
use rulecast_controller::publisher::{Outcome, Publisher};
use rulecast_controller::sink::{ChunkKind, DirectorySink, Sink, SinkError, Version};
use rulecast_controller::source::{DirectorySource, Event, load_directory, start};
use tokio::sync::mpsc::Receiver;

pub(crate) fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

/// The events until none comes for a while.
async fn settle(events: &mut Receiver<Event>) -> Vec<String> {
    settle_in_steps(events).await.concat()
}

/// The same, with those that come at once together.
pub(crate) async fn settle_in_steps(events: &mut Receiver<Event>) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(700), events.recv()).await {
        let together = if let Event::Together(events) = event { events } else { vec![event] };
        out.push(together.into_iter().map(told).collect());
    }
    out
}

fn told(event: Event) -> String {
    match event {
        Event::Set(object) => match object.content {
            Content::Service(service) => format!("set {} {:?}", object.id, service.cluster_ips),
            _ => format!("set {}", object.id),
        },
        Event::Gone(id) => format!("gone {id}"),
        Event::Bad(id, _) => format!("bad {id}"),
        Event::Synced => "synced".to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_change_break_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("a.yaml"), service("a", "10.96.0.1") + &service("b", "10.96.0.2")).unwrap();
    fs::write(file("broken.yaml"), "{").unwrap();
    fs::write(file(".hidden.yaml"), service("x", "10.96.0.9")).unwrap();
    fs::write(file("notes.txt"), "not a manifest").unwrap();
    fs::write(file("kustomization.yaml"), "resources: [a.yaml]").unwrap();
    let broken = format!("bad file {}", file("broken.yaml").display());
    let mut events = start(DirectorySource::new(dir.path()).unwrap());
    assert_eq!(
        settle(&mut events).await,
        [broken.as_str(), "set Service default/a [10.96.0.1]", "set Service default/b [10.96.0.2]", "synced"]
    );

    // Only what differs is told.
    fs::write(file("a.yaml"), service("a", "10.96.0.1") + &service("b", "10.96.0.3")).unwrap();
    assert_eq!(settle(&mut events).await, ["set Service default/b [10.96.0.3]"]);

    // Half of a file, without its end: what was in it stays.
    let half = service("a", "10.96.0.4") + "---\napiVersion: v1\nkind: Serv";
    fs::write(file("a.yaml"), &half[..half.len() - 4]).unwrap();
    let bad = format!("bad file {}", file("a.yaml").display());
    assert_eq!(settle(&mut events).await, [bad.as_str(), "set Service default/a [10.96.0.4]"]);
    fs::write(file("a.yaml"), "").unwrap();
    assert_eq!(settle(&mut events).await, [bad.as_str()]);

    // A bad object among good ones: it alone is in doubt.
    fs::write(file("a.yaml"), service("a", "10.96.0.5") + &service("b", "10.96.0.oops")).unwrap();
    let gone = format!("gone file {}", file("a.yaml").display());
    assert_eq!(
        settle(&mut events).await,
        [gone.as_str(), "set Service default/a [10.96.0.5]", "bad Service default/b"]
    );
    fs::write(file("a.yaml"), service("a", "10.96.0.5")).unwrap();
    assert_eq!(settle(&mut events).await, ["gone Service default/b"]);

    // The usual way to replace a file.
    fs::write(file("new.tmp"), service("a", "10.96.0.6")).unwrap();
    fs::rename(file("new.tmp"), file("a.yaml")).unwrap();
    assert_eq!(settle(&mut events).await, ["set Service default/a [10.96.0.6]"]);

    // A folder, an object in two files, and what is left when one of them goes.
    fs::create_dir(file("more")).unwrap();
    fs::write(
        file("more/z.json"),
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},
        "spec":{"clusterIP":"10.96.0.7","ports":[{"port":80}]}}"#,
    )
    .unwrap();
    assert_eq!(settle(&mut events).await, ["set Service default/a [10.96.0.7]"]);
    fs::remove_dir_all(file("more")).unwrap();
    assert_eq!(settle(&mut events).await, ["set Service default/a [10.96.0.6]"]);
    fs::remove_file(file("a.yaml")).unwrap();
    assert_eq!(settle(&mut events).await, ["gone Service default/a"]);
    fs::remove_file(file("broken.yaml")).unwrap();
    assert_eq!(settle(&mut events).await, [format!("gone file {}", file("broken.yaml").display())]);
}

#[test]
fn a_directory_is_compiled_without_a_loop() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a", "10.96.0.1") + &service("b", "10.96.0.x")).unwrap();
    let world = load_directory(dir.path()).unwrap();
    let (name, pool) = world.compiler().pools().next().expect("the default pool");
    assert_eq!((name, pool.stats().services), ("default", 1));
    let bad: Vec<_> = world.quarantined().keys().collect();
    assert_eq!(bad, [&ObjectId::new(Kind::Service, "default/b")]);
    let text = &world.quarantined()[bad[0]];
    assert!(text.contains("a.yaml: document 2: Service default/b: spec.clusterIP[0]: "), "{text}");

    // With a RulePool there is no default one, even if it cannot be used.
    let pool = "---\napiVersion: rulecast.dev/v1alpha1\nkind: RulePool\nmetadata: {name: edge}\nspec: {mode: MODE}\n";
    fs::write(dir.path().join("pool.yaml"), pool.replace("MODE", "nftables")).unwrap();
    let names = |world: &rulecast_controller::world::World| world.pools().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&load_directory(dir.path()).unwrap()), ["edge"]);
    fs::write(dir.path().join("pool.yaml"), pool.replace("MODE", "userspace")).unwrap();
    assert!(names(&load_directory(dir.path()).unwrap()).is_empty());
    assert!(load_directory(Path::new("/nowhere")).is_err());
}

#[tokio::test]
async fn the_directory_sink_publishes_and_survives_damage() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirectorySink::lock(dir.path()).unwrap();
    assert!(DirectorySink::lock(dir.path()).is_err(), "one writer at a time");
    let mut world = world(3);
    let mut publisher = Publisher::new(POOL);
    for host in 1..4 {
        apply(&mut world, [endpoints(1, [host])]);
        publisher.publish(&sink, world.compiler_mut().pool_mut(POOL).unwrap()).await.unwrap();
    }
    let mut follower = Follower::new();
    follower.follow(&sink).await;
    assert_eq!((follower.root(), follower.sequence()), (compiled(&world), 3));
    assert_eq!(sink.list_pools().await.unwrap(), [POOL]);
    assert_eq!(sink.list_chunks(POOL).await.unwrap().len(), 4, "checkpoint, index, two deltas");
    let leftovers = fs::read_dir(dir.path().join(POOL)).unwrap().map(|e| e.unwrap().file_name());
    assert!(leftovers.map(|n| n.into_string().unwrap()).all(|n| !n.starts_with('.')));

    // A head that is no JSON any more: the sequence is found again from the chunks, and goes up.
    fs::write(sink.head_path(POOL), "oops").unwrap();
    assert!(matches!(sink.read_head(POOL).await, Err(SinkError::Damaged { .. })));
    let mut publisher = Publisher::new(POOL);
    let outcome = publisher.publish(&sink, world.compiler_mut().pool_mut(POOL).unwrap()).await.unwrap();
    assert!(matches!(outcome, Outcome::Published { sequence: 4.., .. }), "{outcome:?}");
    follower.follow(&sink).await;
    assert_eq!(follower.root(), compiled(&world));
}

#[tokio::test]
async fn the_directory_sink_has_preconditions_and_mends_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirectorySink::new(dir.path()).unwrap();
    let mut world = world(1);
    Publisher::new(POOL).publish(&sink, world.compiler_mut().pool_mut(POOL).unwrap()).await.unwrap();
    let (head, version) = sink.read_head(POOL).await.unwrap().unwrap();
    for wrong in [None, Some(Version("old".to_owned()))] {
        let result = sink.write_head(POOL, &head, wrong.as_ref()).await;
        assert!(matches!(result, Err(SinkError::Conflict(_))), "{wrong:?}");
    }
    sink.write_head(POOL, &head, Some(&version)).await.unwrap();

    let id = ChunkId::of(b"bytes");
    let path = dir.path().join(POOL).join("chunks").join(id.to_string());
    sink.write_chunk(POOL, ChunkKind::Delta, id, b"bytes").await.unwrap();
    fs::write(&path, "half").unwrap();
    sink.write_chunk(POOL, ChunkKind::Delta, id, b"bytes").await.unwrap();
    assert_eq!(sink.read_chunk(POOL, id).await.unwrap(), b"bytes");
    sink.delete_chunk(POOL, id).await.unwrap();
    sink.delete_chunk(POOL, id).await.unwrap();
    assert!(matches!(sink.read_chunk(POOL, id).await, Err(SinkError::Missing(_))));
}
