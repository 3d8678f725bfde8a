//! Judgement: what was committed goes through the engine, and what it finds is stored and shown.
//!
//! A thread of its own steps the engine. What it is told comes from the ingest path after the commit and from the ledger's
//! listener, through a queue of [`SIGNALS_MAX`] signals that never makes a sender wait: what does not fit is counted, and
//! judged no more. Findings are written together, and announced to the readers of `/stream` once they are stored. The clock
//! is read here and nowhere in the engine.

mod hear;
mod keep;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use taffrail_engine::{Config, Engine, Finding, Signal, Told, What};
use taffrail_event::{Event, RowId, TimestampMs};
use taffrail_store::{LedgerChange, Store};

use crate::clock;
use crate::live::Hub;

/// Messages between the writer's thread and the engine's; each has a commit's signals.
const QUEUE_MAX: usize = 8_192;
/// Signals of all messages that wait.
const SIGNALS_MAX: usize = 50_000;
/// Between two ticks of the engine.
const TICK: Duration = Duration::from_secs(5);
/// Findings that are written together.
const FINDINGS_MAX: usize = 256;
/// A request older than this, in milliseconds, is history: an import is not judged as if it happened now.
const REQUEST_AGE_MAX_MS: i64 = 15 * 60_000;
/// A finding that nobody has told anything of for this long is over, in milliseconds.
const STALE_MS: i64 = 2 * 86_400_000;

/// What goes to the engine's thread.
enum Message {
    Told(Vec<Told>),
    Stop,
}

/// The ear of the engine; clones share it.
#[derive(Clone)]
pub(crate) struct Judge {
    to: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Told and not judged, for want of room.
    missed: AtomicU64,
    /// Told and not judged yet.
    waiting: AtomicUsize,
    stats: Mutex<Stats>,
}

/// What the engine has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) engine: taffrail_engine::Stats,
    /// Sessions and agents that are followed.
    pub(crate) sessions: usize,
    pub(crate) agents: usize,
    /// Findings that could not be stored.
    pub(crate) lost: u64,
    /// Messages that were not judged for want of room.
    pub(crate) missed: u64,
}

/// An event on its way to the engine, before its row is known.
pub(crate) struct Draft(Vec<Told>);

impl Judge {
    /// The ear, and what [`run`] takes.
    pub(crate) fn new() -> (Self, Ears) {
        let (to, from) = mpsc::sync_channel(QUEUE_MAX);
        (Self { to, shared: Arc::default() }, Ears(from))
    }

    /// What the engine needs of this event; none where it needs nothing.
    pub(crate) fn draft(&self, event: &Event) -> Option<Draft> {
        let told = hear::of_event(event);
        (!told.is_empty()).then_some(Draft(told))
    }

    /// Called on the writer's thread after the commit: never waits.
    pub(crate) fn committed(&self, drafts: impl Iterator<Item = (RowId, Draft)>) {
        let mut told = Vec::new();
        for (row, Draft(mut of_event)) in drafts {
            hear::set_row(&mut of_event, row);
            told.append(&mut of_event);
        }
        self.send(told);
    }

    /// Called on the writer's thread with what a commit changed in the ledger: never waits.
    pub(crate) fn charged(&self, changes: &[LedgerChange]) {
        let oldest = clock::now_ms().saturating_sub(REQUEST_AGE_MAX_MS);
        let fresh = changes.iter().filter(|change| change.ts.get() >= oldest && change.request.is_some());
        self.send(fresh.filter_map(hear::of_request).collect());
    }

    /// What a model of usual behaviour says of calls: never waits.
    pub(crate) fn scored(&self, told: Vec<Told>) {
        self.send(told);
    }

    fn send(&self, told: Vec<Told>) {
        if told.is_empty() {
            return;
        }
        let signals = told.len();
        let waits = self.shared.waiting.fetch_add(signals, Ordering::Relaxed) + signals;
        if waits > SIGNALS_MAX || self.to.try_send(Message::Told(told)).is_err() {
            self.shared.waiting.fetch_sub(signals, Ordering::Relaxed);
            self.shared.missed.fetch_add(signals as u64, Ordering::Relaxed);
        }
    }

    /// What the engine has done.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.missed = self.shared.missed.load(Ordering::Relaxed);
        stats
    }

    /// Ends the thread, once it has written what it found.
    pub(crate) fn stop(&self) {
        let _ = self.to.send(Message::Stop);
    }
}

/// What the engine's thread hears.
pub(crate) struct Ears(Receiver<Message>);

#[cfg(test)]
impl Ears {
    /// What was told so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        let messages = self.0.try_iter();
        messages
            .flat_map(|message| if let Message::Told(told) = message { told } else { Vec::new() })
            .collect()
    }
}

/// Starts the engine's thread. It takes what happened before by [`keep::recent`] first, and tells nothing of that.
pub(crate) fn run(
    judge: &Judge,
    ears: Ears,
    config: Config,
    store: Store,
    hub: Arc<Hub>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(&judge.shared);
    std::thread::Builder::new().name("taffrail-judge".to_owned()).spawn(move || {
        let mut bench = Bench {
            rows: Rows::default(),
            engine: Engine::new(config),
            found: VecDeque::new(),
            store,
            hub,
            shared,
            lost: 0,
        };
        bench.warm();
        bench.sit(&ears.0);
    })
}

/// Open calls whose row is remembered.
const ROWS_MAX: usize = 16_384;

/// The rows of open calls: a call's is that of the event that told of it first, which its end does not know.
#[derive(Default)]
struct Rows(HashMap<(Arc<str>, Arc<str>, String), i64>);

impl Rows {
    /// Gives a call its row.
    fn place(&mut self, told: &mut Told) {
        let (call, ends) = match &mut told.what {
            What::CallStarted(call) => (call, false),
            What::CallEnded(call) => (call, true),
            _ => return,
        };
        let Some(use_id) = &call.tool_use_id else { return };
        let key = (Arc::clone(&told.key.session_id), Arc::clone(&told.agent_id), use_id.clone());
        if ends {
            call.id = self.0.remove(&key).unwrap_or(call.id);
            return;
        }
        if self.0.len() >= ROWS_MAX {
            self.0.clear();
        }
        self.0.insert(key, call.id);
    }
}

/// The engine at work.
struct Bench {
    rows: Rows,
    engine: Engine,
    found: VecDeque<Finding>,
    store: Store,
    hub: Arc<Hub>,
    shared: Arc<Shared>,
    lost: u64,
}

impl Bench {
    fn warm(&mut self) {
        let now = clock::now();
        match self.store.reader().and_then(|reader| keep::recent(&reader, now)) {
            Ok(signals) => self.engine.warm(signals),
            Err(error) => {
                tracing::warn!(%error, "the newest sessions could not be read: the engine begins knowing nothing");
            }
        }
        let before = TimestampMs::clamped(now.get().saturating_sub(STALE_MS));
        if let Err(error) = self.store.end_stale_findings(before) {
            tracing::warn!(%error, "findings of which nothing was heard could not be ended");
        }
    }

    fn sit(&mut self, ears: &Receiver<Message>) {
        let mut next_tick = Instant::now() + TICK;
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            match ears.recv_timeout(wait) {
                Ok(Message::Told(told)) => {
                    self.shared.waiting.fetch_sub(told.len(), Ordering::Relaxed);
                    let now_ms = clock::now_ms();
                    for mut told in told {
                        self.rows.place(&mut told);
                        self.found.extend(self.engine.step(now_ms, &Signal::Told(told)));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.keep();
                    return;
                }
            }
            if Instant::now() >= next_tick {
                self.found.extend(self.engine.step(clock::now_ms(), &Signal::Tick));
                next_tick = Instant::now() + TICK;
                self.tell_stats();
            }
            self.keep();
        }
    }

    /// Stores what was found, and announces it.
    fn keep(&mut self) {
        while !self.found.is_empty() {
            let part: Vec<Finding> = self.found.drain(..self.found.len().min(FINDINGS_MAX)).collect();
            let rows = part.iter().map(keep::row_of).collect();
            match self.store.record_findings(rows, clock::now()) {
                Ok(told) => keep::announce(&self.store, &self.hub, &told),
                Err(error) => {
                    self.lost += part.len() as u64;
                    tracing::error!(%error, findings = part.len(), "findings were not stored");
                }
            }
        }
    }

    fn tell_stats(&self) {
        let (sessions, agents) = self.engine.size();
        let stats = Stats { engine: self.engine.stats(), sessions, agents, lost: self.lost, missed: 0 };
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn signals(count: usize) -> Vec<Told> {
        let one = Told {
            key: taffrail_engine::signal::SessionKey::default(),
            agent_id: Arc::from(""),
            agent_type: Arc::from("main"),
            at_ms: 0,
            via: taffrail_engine::signal::Via::Hook,
            what: What::AgentStarted,
        };
        vec![one; count]
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let (judge, ears) = Judge::new();
        judge.scored(signals(SIGNALS_MAX));
        judge.scored(signals(7));
        assert_eq!((judge.stats().missed, ears.told().len()), (7, SIGNALS_MAX), "signals are bounded");
        let (judge, ears) = Judge::new();
        for _ in 0..QUEUE_MAX + 3 {
            judge.scored(signals(1));
        }
        assert_eq!((judge.stats().missed, ears.told().len()), (3, QUEUE_MAX), "and messages");
        drop(ears);
        judge.scored(signals(2));
        assert_eq!(judge.stats().missed, 5, "nobody listens any more");
    }
}
