//! The applier's life: restore, then follow the source, repair, report.

mod edges;
mod local;
mod wave;

use rulecast_bundle::{Head, Refusal, Way};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

pub use edges::Edges;
use local::AlreadySaid;
pub use local::Local;
use wave::Wave;

use crate::applier::ApplyError;
use crate::backend::Backend;
use crate::control::Request;
use crate::source::{News, Source, SourceError, catch_up};

/// How often to look whether somebody changed our rules: well below the 2 s within which they must be back.
const WATCH_RULES: Duration = Duration::from_millis(500);
/// How often to look for new node addresses, should nobody have told.
const WATCH_ADDRESSES: Duration = Duration::from_secs(10);
/// The same refused version is tried again after this long: the cause may be gone (a kernel module, a chunk).
const RETRY: Duration = Duration::from_secs(10);
/// The longest that reading what leads to a version may take; then it is tried again, or a newer one.
const PATIENCE: Duration = Duration::from_mins(1);

/// An applier that follows a source.
pub struct Runner<B, S> {
    local: Local<B>,
    source: S,
    wave: Wave,
    /// A version that could not be applied, and when to try again.
    retry: Option<(Head, Instant)>,
    rules: Interval,
    addresses: Interval,
    patience: Duration,
    /// What is asked on this node; none: nobody can.
    asked: Option<mpsc::Receiver<Request>>,
}

impl<B: Backend, S: Source> Runner<B, S> {
    /// Puts the parts together; the source follows the pool's own bundle. Must be called in a tokio runtime.
    pub fn new(mut local: Local<B>, source: S) -> Self {
        let ticks = |every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (rules, addresses) = (ticks(WATCH_RULES), ticks(WATCH_ADDRESSES));
        let wave = Wave::new(local.pool());
        local.follow(wave.followed());
        Self { local, source, wave, retry: None, rules, addresses, patience: PATIENCE, asked: None }
    }

    /// With another time than a minute after which reading what leads to a version is given up.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// With somebody who asks on this node.
    #[must_use]
    pub fn with_asked(self, asked: mpsc::Receiver<Request>) -> Self {
        Self { asked: Some(asked), ..self }
    }

    /// Runs until `stop` resolves. The rules stay in the kernel.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) {
        let follow = async {
            loop {
                self.turn();
                // In this order, as heads could keep a tick waiting, and ticks, which are rare, no head.
                tokio::select! {
                    biased;
                    _ = self.rules.tick() => {
                        self.local.tick();
                        self.try_again().await;
                    }
                    _ = self.addresses.tick() => self.local.watch_addresses(),
                    Some(request) = next_request(&mut self.asked) => answer(&mut self.local, request),
                    news = self.source.next() => self.take(news).await,
                }
            }
        };
        // Everything that is not awaited is whole: ending between two awaits leaves nothing half done.
        tokio::select! {
            biased;
            () = stop => {}
            () = follow => {}
        }
    }

    /// Follows the source until one version is in force, for scripts. Should that say that the node is in a wave, then until
    /// the wave's is.
    pub async fn run_once(&mut self) -> anyhow::Result<()> {
        self.turn();
        loop {
            match self.source.next().await? {
                News::Head(head) => self.take(Ok(News::Head(head))).await,
                News::Gone if self.wave.is_next() => self.wave.failed(),
                News::Gone => continue,
            }
            if !self.turn() {
                break;
            }
        }
        let problem = self.local.shared().lock().0.problem.clone();
        problem.map_or(Ok(()), |p| Err(anyhow::anyhow!("{}: {}", p.reason, p.message)))
    }

    /// Turns to the other one of the pool's bundles if it is time. Returns whether it did.
    fn turn(&mut self) -> bool {
        let turned = self.wave.turn(self.local.is_in_wave());
        if turned {
            let name = self.wave.followed();
            info!(bundle = name, "following another bundle of the pool");
            self.source.follow(name);
            self.local.follow(name);
            // It was the other bundle's.
            self.retry = None;
        }
        turned
    }

    async fn take(&mut self, news: Result<News, SourceError>) {
        match news {
            Ok(News::Head(head)) => {
                self.wave.heard();
                self.local.heard();
                self.follow(head).await;
            }
            // Of the pool's own bundle that changes nothing: the last good one stays until there is a new one.
            Ok(News::Gone) => self.wave.gone(),
            Err(error) => self.local.source_failed(&error),
        }
    }

    async fn follow(&mut self, head: Head) {
        let have = match self.local.admit(&head) {
            Ok(have) => have,
            Err(AlreadySaid { refused }) => {
                if refused {
                    self.wave.failed();
                }
                return;
            }
        };
        if self.local.adopt(&head) {
            self.retry = None;
            return;
        }
        let result = match self.try_way(&head, have).await {
            Err(first) if have.is_some() && first.is_of_the_way() => {
                info!(
                    sequence = head.sequence,
                    "the deltas do not lead to this version; reading the checkpoint"
                );
                // When that fails too: what was read and refused says more than what could not be read.
                let second = self.try_way(&head, None).await;
                second.map_err(|second| if matches!(first, Failure::Apply(_)) { first } else { second })
            }
            result => result,
        };
        match result {
            Ok(()) => self.retry = None,
            Err(failure) => {
                // A next shape that this node cannot run must not keep it from following endpoints. One that it runs and
                // that cannot be read for a while is no reason to go back to the old one.
                if matches!(failure, Failure::Apply(_)) || !self.local.is_on_next() {
                    self.wave.failed();
                }
                match failure {
                    Failure::Read(error) => self.local.unreadable(&error, &head),
                    Failure::Apply(error) => self.local.failed(&error, Some(&head)),
                }
                self.retry = Some((head, Instant::now() + RETRY));
            }
        }
    }

    async fn try_way(&mut self, head: &Head, have: Option<u64>) -> Result<(), Failure> {
        let way = self.read_way(head, have).await.map_err(Failure::Read)?;
        self.local.offer(head, way).map_err(Failure::Apply)
    }

    /// Reads what leads to a version. Our rules are looked after meanwhile: a source may answer slowly.
    async fn read_way(&mut self, head: &Head, have: Option<u64>) -> Result<Way, SourceError> {
        let Self { local, source, rules, addresses, patience, asked, .. } = self;
        let read = tokio::time::timeout(*patience, catch_up(&*source, head, have));
        tokio::pin!(read);
        loop {
            tokio::select! {
                biased;
                way = &mut read => {
                    let slow = |_| SourceError::Timeout(format!("what leads to sequence {}", head.sequence));
                    return way.map_err(slow)?;
                }
                _ = rules.tick() => local.tick(),
                _ = addresses.tick() => local.watch_addresses(),
                Some(request) = next_request(asked) => answer(local, request),
            }
        }
    }

    async fn try_again(&mut self) {
        if let Some((head, _)) = self.retry.take_if(|(_, at)| *at <= Instant::now()) {
            warn!(sequence = head.sequence, "trying this version again");
            self.follow(head).await;
        }
    }
}

/// Waits for a question.
async fn next_request(asked: &mut Option<mpsc::Receiver<Request>>) -> Option<Request> {
    match asked {
        Some(asked) => asked.recv().await,
        None => std::future::pending().await,
    }
}

fn answer<B: Backend>(local: &mut Local<B>, Request { ask, reply }: Request) {
    // Who asked may have given up.
    let _nobody = reply.send(local.answer(ask));
}

enum Failure {
    Read(SourceError),
    Apply(ApplyError),
}

impl Failure {
    /// Whether another way to the same version may do.
    fn is_of_the_way(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Apply(ApplyError::Refused(refusal)) => {
                matches!(refusal, Refusal::Digest | Refusal::Misfit(_) | Refusal::Decode(_))
            }
            Self::Apply(ApplyError::Kernel(_)) => false,
        }
    }
}
