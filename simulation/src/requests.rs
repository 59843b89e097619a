//! Requests to the API server: they take time, get lost, arrive late, or lose their answer.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::Universe;
use crate::api_server::ApiServer;
use crate::faults::Client;

/// No answer after this long is a failure, as for the programs' own clients.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a request. What it does, it does even when the sender has given up, or is no more.
pub(crate) async fn ask<T: Send + 'static>(
    universe: &Arc<Universe>,
    client: Client,
    what: impl Display,
    effect: impl FnOnce(&mut ApiServer) -> T + Send + 'static,
) -> Result<T, String> {
    let fate = universe.faults.fate(client);
    let patience = fate.breaks.map_or(PATIENCE, |breaks| breaks.min(PATIENCE));
    let (tell, told) = oneshot::channel();
    if fate.arrives {
        let universe = Arc::clone(universe);
        tokio::spawn(async move {
            sleep(fate.there).await;
            let answer = universe.change(effect);
            sleep(fate.back).await;
            let _gave_up = tell.send(answer);
        });
    } else {
        sleep(patience).await;
    }
    if let Ok(Ok(answer)) = timeout(patience, told).await {
        return Ok(answer);
    }
    universe.trace.note(format_args!("{client}: no answer to {what}"));
    Err(format!("{what}: no answer"))
}
