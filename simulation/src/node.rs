//! The node's program, killed and started again.

use std::sync::Arc;
use std::time::Duration;

use rulecast_connect::between;
use rulecast_node::applier::Applier;
use rulecast_node::run::{Local, Runner};
use rulecast_node::status::Shared;
use rulecast_node::store::Store;
use tokio::task::{JoinError, JoinHandle, spawn_local};
use tokio::time::sleep;

use crate::faults::{Client, Fault};
use crate::machine::{KilledAtStep, Machine};
use crate::source::ApiSource;
use crate::trace::Invariant;
use crate::{PATIENCE, Universe};

/// Runs the program on its machine, for good.
pub(crate) async fn run(
    universe: Arc<Universe>,
    number: usize,
    node: String,
    pool: String,
    machine: Machine,
) {
    loop {
        universe.trace.note(format_args!("{node}: starts"));
        let shared = Shared::default();
        machine.begin(&shared);
        let source = ApiSource::start(&universe, Client::Node(number), &pool);
        let process = spawn_local(process(node.clone(), pool.clone(), machine.clone(), shared, source));
        let ended = until_killed(&universe, process).await;
        match ended.map_err(JoinError::try_into_panic) {
            Ok(()) => universe.trace.violate(Invariant::Runs, format!("{node}: the program ended")),
            // Killed between two steps, of which the first may be done.
            Err(Ok(panic)) if panic.is::<KilledAtStep>() => {}
            Err(Ok(_)) => universe.trace.violate(Invariant::Runs, format!("{node}: the program panicked")),
            Err(Err(_)) => machine.look(),
        }
        universe.trace.note(format_args!("{node}: killed"));
        if universe.faults.hits(Fault::Reboot) {
            universe.trace.note(format_args!("{node}: its machine starts anew"));
            machine.reboot();
            if universe.faults.hits(Fault::DiskLost) {
                universe.trace.note(format_args!("{node}: its disk is lost"));
                machine.lose_disk();
            }
        }
        sleep(between(Duration::from_millis(1), Duration::from_secs(3))).await;
    }
}

async fn until_killed(universe: &Universe, mut process: JoinHandle<()>) -> Result<(), JoinError> {
    tokio::select! {
        biased;
        ended = &mut process => ended,
        () = universe.faults.killed() => {
            process.abort();
            process.await
        }
    }
}

async fn process(node: String, pool: String, machine: Machine, shared: Shared, source: ApiSource) {
    let store = Store::on(machine.clone());
    let applier = Applier::new(&node, &pool, machine.clone(), Some(store));
    let mut local = Local::new(applier, shared).with_addresses(|| Some(Vec::new()));
    local.restore();
    machine.restored();
    Runner::new(local, source).with_patience(PATIENCE).run(std::future::pending()).await;
}
