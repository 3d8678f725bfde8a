//! What the ledger took in, on its way to the readers of `/stream`: frames `cost`, at most [`FRAMES_A_SECOND`].
//!
//! The writer's thread notes what a commit changed, by session, and goes on; a task reads what the sessions now cost and
//! sends it. The first change goes out at once, what follows within [`GAP`] goes out together. Nobody listens: nothing is
//! read. Limits: [`PENDING_MAX`] sessions between two frames, [`SESSIONS_MAX`] in a frame.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use taffrail_event::TimestampMs;
use taffrail_event::ledger::Confidence;
#[cfg(test)]
use taffrail_store::LedgerListener;
use taffrail_store::{CostTotals, LedgerChange, ReadError, Reader};
use tokio::sync::{Notify, watch};

use crate::api::money;
use crate::api::types::{CostFrameJson, SessionCostJson};
use crate::state::{App, stopped};

/// Frames in a second, at most.
const FRAMES_A_SECOND: u32 = 5;
/// Between two frames, at least.
const GAP: Duration = Duration::from_millis(1_000 / FRAMES_A_SECOND as u64);
/// Sessions kept between two frames; an import can touch thousands at once.
const PENDING_MAX: usize = 5_000;
/// Sessions of one frame.
const SESSIONS_MAX: usize = 100;
/// Models without a price of one frame.
const UNPRICED_MAX: usize = 50;

/// What changed and has not been sent.
#[derive(Default)]
pub(crate) struct CostFeed {
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    sessions: HashMap<String, Change>,
    unpriced_models: BTreeSet<String>,
    /// Changes of sessions beyond the limit.
    beyond: usize,
}

#[derive(Debug)]
struct Change {
    app: String,
    delta_nano_usd: i64,
    new_requests: i64,
    newest: TimestampMs,
}

impl CostFeed {
    /// For the store: hears of every commit.
    #[cfg(test)]
    fn listener(self: &Arc<Self>) -> LedgerListener {
        let feed = Arc::clone(self);
        LedgerListener(Arc::new(move |changes| feed.note(changes)))
    }

    /// On the writer's thread: never waits for a reader.
    pub(crate) fn note(&self, changes: &[LedgerChange]) {
        if changes.is_empty() {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().for_each(|change| pending.add(change));
        drop(pending);
        self.wake.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pending {
    fn add(&mut self, change: &LedgerChange) {
        if change.confidence == Confidence::Unpriced
            && self.unpriced_models.len() < UNPRICED_MAX
            && !self.unpriced_models.contains(&change.model)
        {
            self.unpriced_models.insert(change.model.clone());
        }
        if !self.sessions.contains_key(&change.session_id) {
            if self.sessions.len() >= PENDING_MAX {
                self.beyond += 1;
                return;
            }
            let new =
                Change { app: change.app.clone(), delta_nano_usd: 0, new_requests: 0, newest: change.ts };
            self.sessions.insert(change.session_id.clone(), new);
        }
        if let Some(sum) = self.sessions.get_mut(&change.session_id) {
            sum.delta_nano_usd += change.cost_nano_usd - change.cost_before_nano_usd;
            sum.new_requests += i64::from(change.is_new);
            sum.newest = sum.newest.max(change.ts);
        }
    }

    /// The sessions of the next frame, newest request first, and how many are left out.
    fn newest(&mut self) -> (Vec<(String, Change)>, usize) {
        let mut sessions: Vec<(String, Change)> = self.sessions.drain().collect();
        sessions.sort_by(|(a, left), (b, right)| right.newest.cmp(&left.newest).then_with(|| a.cmp(b)));
        let more = sessions.len().saturating_sub(SESSIONS_MAX) + self.beyond;
        sessions.truncate(SESSIONS_MAX);
        (sessions, more)
    }
}

/// Sends what changes until the server stops.
pub(crate) async fn run(app: App, feed: Arc<CostFeed>, mut stop: watch::Receiver<bool>) {
    let mut warned = BTreeSet::new();
    loop {
        tokio::select! {
            () = feed.wake.notified() => {}
            () = stopped(&mut stop) => return,
        }
        let pending = feed.take();
        warn_of_unpriced(&pending.unpriced_models, &mut warned);
        if app.hub.native_clients() == 0 {
            continue;
        }
        send(&app, pending).await;
        tokio::select! {
            () = tokio::time::sleep(GAP) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Says it once for each model: what it costs is not in any total, and no budget can hold it.
fn warn_of_unpriced(models: &BTreeSet<String>, warned: &mut BTreeSet<String>) {
    for model in models {
        if warned.len() < UNPRICED_MAX && warned.insert(model.clone()) {
            tracing::warn!(
                model,
                "no price is known for this model: its requests cost nothing in every total and no budget holds them; \
                 add it to prices.toml of the data directory, then `taffrail prices reprice --apply`"
            );
        }
    }
}

async fn send(app: &App, pending: Pending) {
    match app.read(move |reader| frame(reader, pending)).await {
        Ok(frame) => app.hub.costs(&frame),
        // The page reads the figures anew by itself; only the sign that they changed is late.
        Err(problem) => tracing::warn!(%problem, "what sessions cost could not be read for the stream"),
    }
}

/// What changed, with what the sessions cost now.
fn frame(reader: &Reader, mut pending: Pending) -> Result<CostFrameJson, ReadError> {
    let (changed, more_sessions) = pending.newest();
    let ids = changed.iter().map(|(id, _)| id.clone()).collect();
    let costs = money::of_sessions(reader, ids)?;
    let session = |(session_id, change): (String, Change)| {
        let cost = costs.get(&session_id);
        session_cost(session_id, change, cost)
    };
    Ok(CostFrameJson {
        sessions: changed.into_iter().map(session).collect(),
        unpriced_models: pending.unpriced_models.into_iter().collect(),
        more_sessions,
    })
}

fn session_cost(session_id: String, change: Change, cost: Option<&CostTotals>) -> SessionCostJson {
    let none = CostTotals::default();
    let cost = cost.unwrap_or(&none);
    SessionCostJson {
        session_id,
        app: change.app,
        cost_usd: cost.known_cost_nano_usd().map(money::usd),
        delta_usd: money::usd(change.delta_nano_usd),
        requests: cost.requests,
        new_requests: change.new_requests,
        confidence: money::least_sure(cost).unwrap_or(Confidence::Exact).name().to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taffrail_event::ledger::{RequestSighting, Terms, Usage, Witness};
    use taffrail_event::transcript::{Facts, SessionSighting};
    use taffrail_store::{Options, Store, TranscriptChunk, TranscriptFile};

    use super::*;

    fn change(session: &str, ts: i64, before: i64, after: i64, confidence: Confidence) -> LedgerChange {
        LedgerChange {
            session_id: session.to_owned(),
            agent_id: None,
            app: "harbour".to_owned(),
            user: None,
            model: if confidence == Confidence::Unpriced { "unknown-1" } else { "known-1" }.to_owned(),
            ts: TimestampMs::clamped(1_790_000_000_000 + ts),
            is_new: before == 0,
            cost_before_nano_usd: before,
            cost_nano_usd: after,
            tokens: 1,
            confidence,
            request: None,
        }
    }

    #[test]
    fn changes_of_a_session_between_two_frames_are_one() {
        let feed = CostFeed::default();
        feed.note(&[
            change("a", 1, 0, 100, Confidence::LowerBound),
            change("b", 5, 0, 7, Confidence::Exact),
            change("a", 9, 100, 250, Confidence::Repaired),
            change("a", 2, 0, 0, Confidence::Unpriced),
        ]);
        let mut pending = feed.take();
        let (sessions, more) = pending.newest();
        let found: Vec<(&str, i64, i64)> =
            sessions.iter().map(|(id, c)| (id.as_str(), c.delta_nano_usd, c.new_requests)).collect();
        assert_eq!((found, more), (vec![("a", 250, 2), ("b", 7, 1)], 0));
        assert_eq!(pending.unpriced_models.into_iter().collect::<Vec<_>>(), ["unknown-1"]);
        assert!(feed.take().sessions.is_empty(), "what was taken is gone");
    }

    fn sighting(session: &str, is_final: bool, output: u64) -> RequestSighting {
        RequestSighting {
            witness: Witness::Transcript,
            ts: TimestampMs::clamped(1_795_000_000_000),
            message_id: Some(format!("msg_{session}")),
            request_id: None,
            session_id: session.to_owned(),
            born: TimestampMs::clamped(1_794_000_000_000),
            agent_id: None,
            agent_type: None,
            prompt_id: None,
            app: Some("harbour".to_owned()),
            user: None,
            model: "claude-haiku-4-5".to_owned(),
            usage: Some(Usage { input: 1_000, output, ..Usage::default() }),
            is_final,
            terms: Terms::default(),
            query_source: None,
            effort: None,
            stop_reason: None,
            duration_ms: None,
            ttft_ms: None,
            attempts: None,
            told_cost_nano_usd: None,
        }
    }

    #[test]
    fn a_commit_makes_a_frame_and_a_better_word_on_the_same_request_makes_another() {
        let dir = tempfile::tempdir().unwrap();
        let feed = Arc::new(CostFeed::default());
        let options =
            Options { on_ledger: Some(feed.listener()), ..Options::new(dir.path().join("taffrail.db")) };
        let store = Store::open(&options).unwrap();
        let frame_after = |request: RequestSighting| {
            let file = TranscriptFile { path: dir.path().join("t.jsonl"), ..TranscriptFile::default() };
            let session = SessionSighting {
                session_id: request.session_id.clone(),
                app: request.app.clone(),
                first: request.ts,
                last: request.ts,
                ..SessionSighting::default()
            };
            let facts = Facts { requests: vec![request], sessions: vec![session], ..Facts::default() };
            store.record_transcripts(vec![TranscriptChunk { file, facts }]).unwrap();
            frame(&store.reader().unwrap(), feed.take()).unwrap()
        };
        // Haiku: 1,000 fresh tokens for 1,000,000 nano-dollars, each token out for 5,000.
        let first = frame_after(sighting("s", false, 2));
        let expected = SessionCostJson {
            session_id: "s".to_owned(),
            app: "harbour".to_owned(),
            cost_usd: Some(0.001_01),
            delta_usd: 0.001_01,
            requests: 1,
            new_requests: 1,
            confidence: "lower_bound".to_owned(),
        };
        assert_eq!(first.sessions, vec![expected.clone()]);
        let better = SessionCostJson {
            cost_usd: Some(0.001_5),
            delta_usd: 0.000_49,
            new_requests: 0,
            confidence: "exact".to_owned(),
            ..expected
        };
        assert_eq!(frame_after(sighting("s", true, 100)).sessions, vec![better]);
        assert_eq!(frame_after(sighting("s", true, 100)).sessions, Vec::new(), "nothing new");
    }

    #[test]
    fn an_import_of_many_sessions_is_bounded_and_counted() {
        let feed = CostFeed::default();
        let many = PENDING_MAX + 17;
        for n in 0..many {
            feed.note(&[change(&format!("s{n}"), n as i64, 0, 1, Confidence::Exact)]);
        }
        let (sessions, more) = feed.take().newest();
        assert_eq!((sessions.len(), more), (SESSIONS_MAX, many - SESSIONS_MAX));
        assert_eq!(sessions[0].0, format!("s{}", PENDING_MAX - 1), "the newest of those that are known");
    }
}
