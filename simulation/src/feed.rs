//! What a controller sees of the cluster: lists that may be old, watches that lag, each kind by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rulecast_connect::between;
use rulecast_controller::objects::ObjectId;
use rulecast_controller::source::Event;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::Universe;
use crate::cluster::KINDS;
use crate::faults::{Client, Fault};

/// Feeds a controller for as long as it listens.
pub(crate) async fn run(universe: Arc<Universe>, client: Client, events: mpsc::Sender<Event>) {
    let mut watches = Vec::new();
    for kind in 0..KINDS.len() {
        while !universe.faults.reaches(client) {
            sleep(Duration::from_millis(500)).await;
        }
        sleep(between(Duration::from_millis(1), Duration::from_millis(50))).await;
        let mut watch = Watch { kind, at: 0, seen: BTreeSet::new() };
        if !send(&events, watch.list(&universe)).await {
            return;
        }
        watches.push(watch);
    }
    if events.send(Event::Synced).await.is_err() {
        return;
    }
    loop {
        let changed = universe.changed();
        let mut due: Vec<&mut Watch> =
            watches.iter_mut().filter(|watch| watch.is_behind(&universe)).collect();
        if due.is_empty() || !universe.faults.reaches(client) {
            // A watch that is apart says nothing; it is looked at again.
            let apart = !due.is_empty();
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep(Duration::from_millis(500)), if apart => {}
                () = events.closed() => return,
            }
            continue;
        }
        let longest = if universe.faults.hits(Fault::Delayed) { 5000 } else { 20 };
        sleep(between(Duration::from_millis(1), Duration::from_millis(longest))).await;
        let number = fastrand::usize(..due.len());
        let watch = &mut *due[number];
        let said =
            if universe.faults.hits(Fault::Gone) { watch.list(&universe) } else { watch.next(&universe) };
        if !send(&events, said).await {
            return;
        }
    }
}

async fn send(events: &mpsc::Sender<Event>, said: Vec<Event>) -> bool {
    for event in said {
        if events.send(event).await.is_err() {
            return false;
        }
    }
    true
}

/// The watch of one kind.
struct Watch {
    kind: usize,
    /// How much of the log was told.
    at: usize,
    seen: BTreeSet<ObjectId>,
}

impl Watch {
    fn is_behind(&self, universe: &Universe) -> bool {
        self.at < universe.cluster().log(self.kind).len()
    }

    /// Everything that is there, or was a while ago, and what is there no more.
    fn list(&mut self, universe: &Universe) -> Vec<Event> {
        let lag = if universe.faults.hits(Fault::Stale) { fastrand::usize(..6) } else { 0 };
        let cluster = universe.cluster();
        let log = cluster.log(self.kind);
        self.at = self.at.max(log.len().saturating_sub(lag));
        let mut objects = BTreeMap::new();
        let mut bad = BTreeMap::new();
        for event in &log[..self.at] {
            match event {
                Event::Set(object) => {
                    bad.remove(&object.id);
                    objects.insert(object.id.clone(), object.clone());
                }
                Event::Gone(id) => {
                    bad.remove(id);
                    objects.remove(id);
                }
                Event::Bad(id, problem) => drop(bad.insert(id.clone(), problem.clone())),
                Event::Unusable(..) | Event::Together(_) | Event::Synced => {}
            }
        }
        let there: BTreeSet<ObjectId> = objects.keys().chain(bad.keys()).cloned().collect();
        let gone = std::mem::replace(&mut self.seen, there);
        let gone = gone.into_iter().filter(|id| !self.seen.contains(id)).map(Event::Gone);
        let bad_events = bad.iter().map(|(id, problem)| Event::Bad(id.clone(), problem.clone()));
        let set =
            objects.into_iter().filter(|(id, _)| !bad.contains_key(id)).map(|(_, object)| Event::Set(object));
        gone.chain(set).chain(bad_events).collect()
    }

    fn next(&mut self, universe: &Universe) -> Vec<Event> {
        let event = universe.cluster().log(self.kind)[self.at].clone();
        self.at += 1;
        if let Event::Set(object) = &event {
            self.seen.insert(object.id.clone());
        }
        vec![event]
    }
}
