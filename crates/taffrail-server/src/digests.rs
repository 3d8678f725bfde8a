//! Keeps the digests of sessions up to date: a thread of its own, of low priority, that follows the dirty marks.
//!
//! A session is digested when it has been quiet for [`QUIET_MS`], or has waited for [`BUSY_MS`]. One that was expensive is left
//! alone for [`SESSION_REST`] times what it took, so that a huge one costs at most 5 % of a core; after a batch the thread
//! rests as long as it worked ([`REST_IDLE`]), and longer while events are waiting to be stored ([`REST_BUSY`]), so that an
//! import is taken in gently. A session that cannot be digested is tried again later, and later each time; it stays marked.
//!
//! Limits: [`CANDIDATES_MAX`] sessions looked at in a round; [`BATCH_SESSIONS`] or [`BATCH_CONTRIBUTIONS`] in a transaction;
//! [`SESSION_KEYS`] keys of a kind from one session;
//! [`POINTS_MAX`] points of compaction remembered for each of [`MODELS_MAX`] models.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use taffrail_analytics::digest::{self, Digest, Limits};
use taffrail_store::{Claimed, Dirty, Patience, SessionDigest, Store};

use crate::background::{Background, Stopping};

/// Without a change for so long, a session is digested.
pub(crate) const QUIET_MS: i64 = 2_000;
/// One that changes all the time waits so long at most, unless it is expensive.
pub(crate) const BUSY_MS: i64 = 10_000;
const PATIENCE: Patience = Patience { quiet_ms: QUIET_MS, busy_ms: BUSY_MS };
/// Between two looks, while nothing is ripe.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A session rests so many times as long as its last digest took.
const SESSION_REST: u32 = 20;
/// After a batch: so many times as long as it took, while nothing waits to be stored.
const REST_IDLE: u32 = 1;
/// The same while events wait to be stored.
const REST_BUSY: u32 = 6;
/// The longest rest after a batch.
const REST_MAX: Duration = Duration::from_secs(5);
/// Sessions that are looked at in a round, those that waited longest.
const CANDIDATES_MAX: usize = 2_000;
/// Sessions in a transaction.
const BATCH_SESSIONS: usize = 32;
/// Contributions in a transaction, unless one session alone has more: what a transaction may take of the writer's time.
const BATCH_CONTRIBUTIONS: usize = 3_000;
/// Distinct keys that a session contributes of each kind, the most frequent; the rest is its `(other)`. Most of a long
/// session's chains occur once: each would be four rows.
const SESSION_KEYS: usize = 120;
/// After a failure; twice as long after each further one.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Points of compaction remembered of a model, the newest.
const POINTS_MAX: usize = 64;
/// Models of which points of compaction are remembered.
const MODELS_MAX: usize = 64;

/// What the worker says of itself.
#[derive(Default)]
pub(crate) struct DigestStatus(Mutex<Figures>);

/// See [`DigestStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Digests written since the start.
    pub(crate) digested: u64,
    /// Failed tries since the start.
    pub(crate) failed: u64,
    /// Time spent on reading and analysing since the start, in microseconds.
    pub(crate) busy_us: u64,
    /// Why the last try failed; none once one succeeded after it.
    pub(crate) error: Option<String>,
}

impl DigestStatus {
    pub(crate) fn get(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Starts the thread.
pub(crate) fn start(store: Store, status: Arc<DigestStatus>) -> Background {
    Background::start("taffrail-digest", move |stopping| Worker::new(store, status, stopping).run())
}

/// A session that is left alone for a while.
#[derive(Clone, Copy, Debug)]
struct Resting {
    until: Instant,
    failures: u32,
}

struct Worker {
    store: Store,
    status: Arc<DigestStatus>,
    stopping: Arc<Stopping>,
    resting: HashMap<i64, Resting>,
    /// By model: at which size of the context it was compacted by itself.
    points: HashMap<String, VecDeque<i64>>,
}

impl Worker {
    fn new(store: Store, status: Arc<DigestStatus>, stopping: Arc<Stopping>) -> Self {
        Self { store, status, stopping, resting: HashMap::new(), points: HashMap::new() }
    }

    fn run(&mut self) {
        match self.store.mark_stale_digests() {
            Ok(0) => {}
            Ok(sessions) => tracing::info!(sessions, "digests of another version are made again"),
            Err(error) => tracing::warn!(%error, "digests of another version could not be looked for"),
        }
        while !self.stopping.is() {
            if let Err(error) = self.round(PATIENCE) {
                tracing::warn!(error, "sessions could not be digested");
                self.status.change(|figures| figures.error = Some(error));
            }
            self.stopping.rest(LOOK_EVERY);
        }
    }

    /// Digests what is ripe, in batches with rests between them.
    fn round(&mut self, patience: Patience) -> Result<(), String> {
        let now = Instant::now();
        // How often one has failed is forgotten some time after its last try.
        self.resting.retain(|_, resting| {
            let kept = if resting.failures > 0 { RETRY_MAX } else { Duration::ZERO };
            resting.until + kept > now
        });
        let is_free =
            |dirty: &Dirty| self.resting.get(&dirty.session).is_none_or(|resting| resting.until <= now);
        let reader = self.store.reader().map_err(|e| e.to_string())?;
        let mut waiting = reader.dirty_sessions(CANDIDATES_MAX).map_err(|e| e.to_string())?;
        drop(reader);
        waiting.retain(is_free);
        if waiting.is_empty() {
            return Ok(());
        }
        let ripe = self.store.claim_dirty(waiting, patience).map_err(|e| e.to_string())?;
        self.digest(&ripe);
        Ok(())
    }

    /// Digests these sessions; those that fail wait, and are tried again.
    fn digest(&mut self, sessions: &[i64]) {
        let mut batch = Vec::new();
        let mut contributions = 0;
        let mut began = Instant::now();
        for (at, session) in sessions.iter().enumerate() {
            if self.stopping.is() {
                return;
            }
            match self.one(*session) {
                Ok(digest) => {
                    contributions += digest.contributions();
                    batch.push(digest);
                }
                Err(error) => self.failed(*session, &error),
            }
            let is_full = contributions >= BATCH_CONTRIBUTIONS || batch.len() >= BATCH_SESSIONS;
            if is_full || at + 1 == sessions.len() {
                self.write(std::mem::take(&mut batch));
                contributions = 0;
                self.rest_after(began.elapsed());
                began = Instant::now();
            }
        }
    }

    /// Reads and analyses a session.
    fn one(&mut self, session: i64) -> Result<SessionDigest, String> {
        let began = Instant::now();
        let claimed =
            self.store.reader().and_then(|reader| reader.claimed(session)).map_err(|e| e.to_string())?;
        let limits =
            Limits { keys: SESSION_KEYS, compaction_points: self.compaction_points(), ..Limits::default() };
        let analysed = catch_unwind(AssertUnwindSafe(|| analyse(&claimed, &limits)));
        let digest =
            analysed.map_err(|_| "the analysis panicked: this is a mistake in Taffrail".to_owned())?;
        self.remember_compactions(&digest);
        let took = began.elapsed();
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.status.change(|figures| figures.busy_us = figures.busy_us.saturating_add(took_us));
        let failures = self.resting.get(&session).map_or(0, |resting| resting.failures);
        self.resting.insert(session, Resting { until: Instant::now() + took * SESSION_REST, failures });
        Ok(SessionDigest::of(claimed, i64::try_from(took_us).unwrap_or(i64::MAX), digest))
    }

    /// All at once; where that fails, one by one, so that one bad session keeps no other.
    fn write(&mut self, batch: Vec<SessionDigest>) {
        if batch.is_empty() {
            return;
        }
        let single = batch.len() == 1;
        match self.store.write_digests(batch.clone()) {
            Ok(()) => self.succeeded(&batch),
            Err(error) if single => {
                batch.iter().for_each(|one| self.failed(one.session(), &error.to_string()));
            }
            Err(_) => batch.into_iter().for_each(|one| self.write(vec![one])),
        }
    }

    fn succeeded(&mut self, batch: &[SessionDigest]) {
        for one in batch {
            if let Some(resting) = self.resting.get_mut(&one.session()) {
                resting.failures = 0;
            }
        }
        self.status.change(|figures| {
            figures.digested += batch.len() as u64;
            figures.error = None;
        });
    }

    fn failed(&mut self, session: i64, error: &str) {
        let failures = self.resting.get(&session).map_or(0, |resting| resting.failures);
        let wait = RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
        self.resting
            .insert(session, Resting { until: Instant::now() + wait, failures: failures.saturating_add(1) });
        tracing::warn!(session, error, "a session could not be digested; it is tried again");
        self.status.change(|figures| {
            figures.failed += 1;
            figures.error = Some(error.to_owned());
        });
    }

    fn rest_after(&self, worked: Duration) {
        let times = if self.store.stats().queue_events > 0 { REST_BUSY } else { REST_IDLE };
        self.stopping.rest((worked * times).min(REST_MAX));
    }

    /// The median of each model.
    fn compaction_points(&self) -> Vec<(String, i64)> {
        let median = |points: &VecDeque<i64>| {
            let mut sorted: Vec<i64> = points.iter().copied().collect();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied()
        };
        let mut points: Vec<(String, i64)> =
            self.points.iter().filter_map(|(model, list)| Some((model.clone(), median(list)?))).collect();
        points.sort();
        points
    }

    fn remember_compactions(&mut self, digest: &Digest) {
        for agent in digest.facts.context.agents.iter().filter(|agent| !agent.model.is_empty()) {
            let by_itself =
                |c: &&taffrail_analytics::context::CompactionFact| c.trigger.as_deref() == Some("auto");
            for tokens in agent.compactions.iter().filter(by_itself).filter_map(|c| c.pre_tokens) {
                if !self.points.contains_key(&agent.model) && self.points.len() >= MODELS_MAX {
                    return;
                }
                let points = self.points.entry(agent.model.clone()).or_default();
                // A session digested again tells the same points again.
                if !points.contains(&tokens) {
                    points.push_back(tokens);
                }
                if points.len() > POINTS_MAX {
                    points.pop_front();
                }
            }
        }
    }
}

fn analyse(claimed: &Claimed, limits: &Limits) -> Digest {
    claimed.read.as_ref().map(|read| digest::digest(&read.trace, limits)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taffrail_event::normalize::{Delivery, hook};
    use taffrail_event::{Event, EventId, Source, TimestampMs};
    use taffrail_store::Options;

    use super::*;

    const AT_ONCE: Patience = Patience { quiet_ms: 0, busy_ms: 0 };

    fn event(session: &str, at: i64) -> Event {
        let payload = format!(
            r#"{{"session_id":"{session}","hook_event_name":"UserPromptSubmit","prompt":"at {at}","cwd":"/p"}}"#
        );
        let delivery = Delivery {
            event_id: EventId::derived(&[payload.as_bytes()]),
            source: Source::Hook,
            captured: Some(TimestampMs::clamped(1_795_342_500_000 + at)),
            received: TimestampMs::clamped(1_795_342_500_000 + at),
            app: Some("harbour"),
            user: None,
            host: None,
            payload: payload.as_bytes(),
            payload_bytes: payload.len() as u64,
            truncated: false,
            redactions: 0,
            hook_wall_us: None,
        };
        hook(&delivery, &|_| None)
    }

    struct Bed {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        worker: Worker,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("taffrail.db");
            let store = Store::open(&Options::new(&path)).unwrap();
            let worker = Worker::new(store, Arc::default(), Arc::default());
            Self { _dir: dir, path, worker }
        }

        fn pending(&self) -> i64 {
            self.worker.store.reader().unwrap().digest_backlog().unwrap().pending_sessions
        }
    }

    #[test]
    fn many_sessions_at_once_are_all_digested_in_batches() {
        let mut bed = Bed::new();
        let sessions = BATCH_SESSIONS * 3 + 1;
        let events = (0..sessions).map(|n| event(&format!("s{n}"), n as i64)).collect();
        bed.worker.store.append(events).unwrap();
        assert_eq!(bed.pending(), sessions as i64);
        let commits = bed.worker.store.stats().commits;
        bed.worker.round(AT_ONCE).unwrap();
        assert_eq!((bed.pending(), bed.worker.status.get().digested), (0, sessions as u64));
        assert_eq!(bed.worker.store.stats().commits, commits, "digests are no events");
        let facts = bed.worker.store.reader().unwrap().session_facts("s7").unwrap().unwrap();
        assert!(!facts.is_pending);
        assert_eq!(facts.cut, 0);
    }

    #[test]
    fn a_session_rests_in_proportion_to_its_cost_and_others_do_not_wait_for_it() {
        let mut bed = Bed::new();
        bed.worker.store.append(vec![event("s", 0)]).unwrap();
        bed.worker.round(AT_ONCE).unwrap();
        // As if its digest had been expensive.
        bed.worker
            .resting
            .insert(1, Resting { until: Instant::now() + Duration::from_secs(600), failures: 0 });
        bed.worker.store.append(vec![event("s", 1), event("t", 2)]).unwrap();
        bed.worker.round(AT_ONCE).unwrap();
        assert_eq!((bed.pending(), bed.worker.status.get().digested), (1, 2));
        bed.worker.resting.clear();
        bed.worker.round(AT_ONCE).unwrap();
        assert_eq!(bed.pending(), 0);
        let rests = bed
            .worker
            .resting
            .values()
            .all(|resting| resting.until > Instant::now() - Duration::from_secs(60));
        assert!(rests && !bed.worker.resting.is_empty());
    }

    #[test]
    fn sessions_that_cannot_be_digested_wait_longer_each_time_and_stay_marked() {
        let mut bed = Bed::new();
        bed.worker.store.append((0..3).map(|n| event(&format!("s{n}"), n)).collect()).unwrap();
        let digests: Vec<SessionDigest> = (1..4).map(|session| bed.worker.one(session).unwrap()).collect();
        let store = bed.worker.store.clone();
        store.close();
        bed.worker.write(digests.clone());
        let figures = bed.worker.status.get();
        assert_eq!((figures.digested, figures.failed, bed.pending()), (0, 3, 3));
        assert!(figures.error.is_some());
        let wait = |worker: &Worker| worker.resting[&1].until - Instant::now();
        let first = wait(&bed.worker);
        bed.worker.write(digests);
        assert!(wait(&bed.worker) > first + RETRY_FIRST / 2, "longer each time");
        assert!(bed.worker.round(AT_ONCE).is_ok(), "all of them rest");
        assert_eq!(bed.worker.status.get().failed, 6);
        bed.worker.store = Store::open(&Options::new(&bed.path)).unwrap();
        bed.worker.resting.values_mut().for_each(|resting| resting.until = Instant::now());
        bed.worker.round(AT_ONCE).unwrap();
        let figures = bed.worker.status.get();
        assert_eq!((bed.pending(), figures.digested, figures.error), (0, 3, None));
    }

    #[test]
    fn a_session_is_left_alone_while_it_is_busy() {
        let mut bed = Bed::new();
        bed.worker.store.append(vec![event("s", 0)]).unwrap();
        bed.worker.round(Patience { quiet_ms: 3_600_000, busy_ms: 3_600_000 }).unwrap();
        assert_eq!(bed.pending(), 1);
        bed.worker.round(Patience { quiet_ms: 3_600_000, busy_ms: 0 }).unwrap();
        assert_eq!(bed.pending(), 0);
    }

    #[test]
    fn the_thread_ends_when_it_is_told_and_what_it_did_not_do_waits() {
        let bed = Bed::new();
        let status = Arc::new(DigestStatus::default());
        let digests = start(bed.worker.store.clone(), Arc::clone(&status));
        digests.stop();
        bed.worker.store.append(vec![event("s", 0)]).unwrap();
        assert_eq!((bed.pending(), status.get().digested), (1, 0));
    }

    #[test]
    fn points_of_compaction_are_remembered_once_and_bounded() {
        use taffrail_analytics::context::{AgentContext, CompactionFact};
        let mut bed = Bed::new();
        let digest_of = |model: &str, tokens: &[i64], trigger: &str| {
            let compaction = |tokens: &i64| CompactionFact {
                trigger: Some(trigger.to_owned()),
                pre_tokens: Some(*tokens),
                ..CompactionFact::default()
            };
            let mut digest = Digest::default();
            digest.facts.context.agents = vec![AgentContext {
                model: model.to_owned(),
                compactions: tokens.iter().map(compaction).collect(),
                ..AgentContext::default()
            }];
            digest
        };
        bed.worker.remember_compactions(&digest_of("m", &[150_000, 170_000, 160_000], "auto"));
        bed.worker.remember_compactions(&digest_of("m", &[150_000, 170_000, 160_000], "auto"));
        bed.worker.remember_compactions(&digest_of("m", &[10], "manual"));
        assert_eq!(bed.worker.compaction_points(), [("m".to_owned(), 160_000)]);
        for n in 0..2 * MODELS_MAX {
            let many: Vec<i64> = (0..2 * POINTS_MAX as i64).collect();
            bed.worker.remember_compactions(&digest_of(&format!("m{n}"), &many, "auto"));
        }
        assert_eq!(bed.worker.points.len(), MODELS_MAX);
        assert!(bed.worker.points.values().all(|points| points.len() <= POINTS_MAX));
    }
}
