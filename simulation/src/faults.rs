//! What goes wrong, and how often: chosen anew for every history, and within it from one weather to the next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rulecast_connect::between;
use tokio::time::{Instant, sleep};

use crate::Universe;
use crate::api_server::ApiServer;

/// Who asks the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Controller(usize),
    Node(usize),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(n) => write!(f, "controller {n}"),
            Self::Node(n) => write!(f, "node {n}"),
        }
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A request does not arrive.
    Lost,
    /// It does, and its answer is lost.
    AnswerLost,
    /// It arrives long after its sender gave up.
    Late,
    /// A chunk's bytes are altered on the way.
    Corrupt,
    /// A list shows an older state.
    Stale,
    /// A watch breaks.
    Cut,
    /// It cannot go on from where it was.
    Gone,
    /// A watch event comes twice.
    Twice,
    /// A watch event comes seconds late.
    Delayed,
    /// A person edits a head, or deletes a chunk.
    Tampered,
    /// A disk refuses a write, perhaps in the middle of it.
    Disk,
    /// A disk cannot be read.
    DiskRead,
    /// A kernel refuses a transaction.
    Kernel,
    /// Somebody else changes a node's rules.
    Interference,
    /// A node's program is killed between two steps of its work.
    KilledAtStep,
    /// A program is killed while it waits.
    Killed,
    /// With its machine: the kernel's state goes.
    Reboot,
    /// And the disk's too.
    DiskLost,
}

/// Each with the highest rate that a history chooses, per mille.
const FAULTS: [(Fault, u32); 18] = [
    (Fault::Lost, 200),
    (Fault::AnswerLost, 200),
    (Fault::Late, 150),
    (Fault::Corrupt, 100),
    (Fault::Stale, 500),
    (Fault::Cut, 300),
    (Fault::Gone, 500),
    (Fault::Twice, 300),
    (Fault::Delayed, 300),
    (Fault::Tampered, 300),
    (Fault::Disk, 300),
    (Fault::DiskRead, 200),
    (Fault::Kernel, 300),
    (Fault::Interference, 50),
    (Fault::KilledAtStep, 60),
    (Fault::Killed, 1000),
    (Fault::Reboot, 400),
    (Fault::DiskLost, 300),
];

/// The longest that a request is under way.
pub(crate) const LONGEST_FLIGHT: Duration = Duration::from_secs(16);

/// The longest that a request, or an answer, takes when all is well.
const FAST: Duration = Duration::from_millis(10);

/// What becomes of a request.
pub(crate) struct Fate {
    /// How long it takes to the API server.
    pub(crate) there: Duration,
    /// Whether it arrives.
    pub(crate) arrives: bool,
    /// How long the answer takes.
    pub(crate) back: Duration,
    /// When its sender sees the connection break.
    pub(crate) breaks: Option<Duration>,
}

/// The faults of one history.
pub(crate) struct Faults(Mutex<Inner>);

struct Inner {
    on: bool,
    rates: BTreeMap<Fault, u32>,
    /// The API server is away until then.
    away: Instant,
    /// A client cannot reach it until then.
    apart: BTreeMap<Client, Instant>,
    /// How long an answer takes, at most.
    slow: Duration,
}

impl Faults {
    /// Half of the faults do not come in a history at all, so that each is also seen without the others.
    pub(crate) fn new() -> Self {
        let rate = |(fault, most)| (fault, if fastrand::bool() { fastrand::u32(1..=most) } else { 0 });
        let rates = FAULTS.into_iter().map(rate).collect();
        let (away, apart) = (Instant::now(), BTreeMap::new());
        Self(Mutex::new(Inner { on: true, rates, away, apart, slow: FAST }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A node may be killed where it asks for this; nothing here is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on everything works, and quickly.
    pub(crate) fn end(&self) {
        let mut inner = self.inner();
        inner.on = false;
        inner.slow = FAST;
    }

    /// Whether this fault happens now.
    pub(crate) fn hits(&self, fault: Fault) -> bool {
        let inner = self.inner();
        let rate = inner.rates[&fault];
        inner.on && rate > 0 && fastrand::u32(..1000) < rate
    }

    /// Whether this client can reach the API server now.
    pub(crate) fn reaches(&self, client: Client) -> bool {
        let inner = self.inner();
        let now = Instant::now();
        !inner.on || inner.away <= now && inner.apart.get(&client).is_none_or(|until| *until <= now)
    }

    pub(crate) fn fate(&self, client: Client) -> Fate {
        let slow = self.inner().slow;
        let moment = |longest| between(Duration::from_millis(1), longest);
        let mut fate = Fate { there: moment(slow), arrives: true, back: moment(slow), breaks: None };
        if !self.reaches(client) || self.hits(Fault::Lost) {
            fate.arrives = false;
            fate.breaks = Some(moment(if fastrand::bool() { slow } else { LONGEST_FLIGHT }));
        } else if self.hits(Fault::AnswerLost) {
            fate.breaks = Some(fate.there + Duration::from_millis(1));
        } else if self.hits(Fault::Late) {
            fate.there = moment(LONGEST_FLIGHT);
            fate.breaks = fastrand::bool().then(|| moment(Duration::from_secs(1)));
        }
        fate
    }

    /// Waits until a program that begins now is killed: never, for some, and once the faults have ended.
    pub(crate) async fn killed(&self) {
        if self.hits(Fault::Killed) {
            sleep(between(Duration::from_millis(1), Duration::from_secs(40))).await;
            if self.inner().on {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn change_weather(&self, clients: &[Client]) -> String {
        let mut inner = self.inner();
        let until = |longest| Instant::now() + between(Duration::from_millis(200), longest);
        match fastrand::u32(..5) {
            0 => {
                inner.slow = Duration::from_secs(2);
                "answers are slow".to_owned()
            }
            1 => {
                inner.away = until(Duration::from_secs(15));
                "the API server is away".to_owned()
            }
            2 | 3 => {
                let client = clients[fastrand::usize(..clients.len())];
                // Longer than chunks are kept: what it was reading may be gone when it comes back.
                inner.apart.insert(client, until(crate::KEEP_CHUNKS + Duration::from_secs(20)));
                format!("{client} cannot reach the API server")
            }
            _ => {
                inner.slow = FAST;
                "answers are fast".to_owned()
            }
        }
    }
}

/// Changes the weather from time to time, until the faults end.
pub(crate) async fn weather(universe: &Universe, clients: &[Client]) {
    let often = between(Duration::from_secs(2), Duration::from_mins(1));
    loop {
        sleep(between(Duration::from_millis(100), often)).await;
        let what = universe.faults.change_weather(clients);
        universe.trace.note(format_args!("weather: {what}"));
    }
}

/// Tampers with what is published from time to time, until it is dropped.
pub(crate) async fn people(universe: &Universe) {
    loop {
        sleep(between(Duration::from_secs(1), Duration::from_secs(20))).await;
        if universe.faults.hits(Fault::Tampered) {
            universe.change(ApiServer::tamper);
        }
    }
}
