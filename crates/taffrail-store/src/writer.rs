//! The writer's thread: takes whatever waits, commits it as one group, and says so.
//!
//! It does not wait for more to come: the next group gathers while this one is synced. A group that fails is
//! rolled back and each submission of it is tried alone, so that one bad event fails none but its own; when the
//! disk is full or fails, all of them hear it and the writer goes on with what comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use taffrail_event::Event;
use taffrail_event::normalize::otlp::Telemetry;
use taffrail_event::prices::PriceTable;

use crate::BATCH_EVENTS_MAX;
use crate::connect::append_error;
use crate::error::AppendError;
use crate::ledger::LedgerChange;
use crate::ledger::held::Held;
use crate::ledger::names::Memory as LedgerMemory;
use crate::options::LedgerListener;
use crate::queue::Queue;
use crate::record::{Memory, Recorder};
use crate::store::{Appended, Done, Outcome};

/// Payload bytes in one transaction, at most, unless one submission alone has more.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A change other than an append; it opens its own transaction.
pub(crate) type Change = Box<dyn FnOnce(&mut Connection) + Send>;

/// Work on the ledger: it opens its own transactions, and waits in the queue as its share of events and bytes.
pub(crate) struct LedgerWork<Job: ?Sized> {
    pub(crate) places: usize,
    pub(crate) bytes: usize,
    pub(crate) work: Box<Job>,
}

/// With the writer's connection, what it remembers, and whom to tell what a commit changed.
pub(crate) type LedgerJob = dyn FnOnce(&Connection, &mut LedgerMemory, &dyn Fn(&[LedgerChange])) + Send;

/// The same of an import, with what it holds.
pub(crate) type HeldJob =
    dyn FnOnce(&mut Held, &Connection, &mut LedgerMemory, &dyn Fn(&[LedgerChange])) + Send;

/// What the writer is asked to do.
pub(crate) enum Command {
    Append(Submission),
    Change(Change),
    Ledger(LedgerWork<LedgerJob>),
    /// Everything else commits what such work has left open.
    Held(LedgerWork<HeldJob>),
    Close,
}

/// Events that are stored together or not at all.
pub(crate) struct Submission {
    pub(crate) events: Vec<Event>,
    pub(crate) telemetry: Vec<Telemetry>,
    pub(crate) bytes: usize,
    pub(crate) done: Done,
}

impl Submission {
    /// How many rows it is to the bounds: events and telemetry alike.
    pub(crate) fn rows(&self) -> usize {
        self.events.len() + self.telemetry.len()
    }
}

/// Counters that others read while the writer works.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) stored: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commit_us: AtomicU64,
    pub(crate) commit_us_max: AtomicU64,
    pub(crate) last_commit_us: AtomicU64,
}

impl Tally {
    fn count_commit(&self, took_us: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_us.fetch_add(took_us, Ordering::Relaxed);
        self.commit_us_max.fetch_max(took_us, Ordering::Relaxed);
        self.last_commit_us.store(took_us, Ordering::Relaxed);
    }

    fn count(&self, result: &Result<Vec<Appended>, AppendError>, events: usize) {
        let Ok(appended) = result else {
            self.failed.fetch_add(events as u64, Ordering::Relaxed);
            return;
        };
        let stored = appended.iter().filter(|a| a.outcome == Outcome::Stored).count() as u64;
        self.stored.fetch_add(stored, Ordering::Relaxed);
        self.duplicates.fetch_add(appended.len() as u64 - stored, Ordering::Relaxed);
    }
}

/// Works until it is told to close, or until nobody is left who could ask.
pub(crate) fn run(
    mut conn: Connection,
    commands: &Receiver<Command>,
    queue: &Queue,
    tally: &Arc<Tally>,
    ledger: LedgerOptions,
) {
    let mut memory = Memory::new(ledger.prices);
    memory.ledger.is_heard = ledger.listener.is_some();
    let hear = |changes: &[LedgerChange]| {
        if let (Some(LedgerListener(listener)), false) = (&ledger.listener, changes.is_empty()) {
            listener(changes);
        }
    };
    let mut held = Held::default();
    let mut next = commands.recv().ok();
    while let Some(command) = next.take() {
        if !matches!(command, Command::Held(_)) {
            held.commit(&conn, &mut memory.ledger, &hear);
        }
        match command {
            Command::Append(first) => {
                let (group, rest) = gather(first, commands);
                queue.leave(group.iter().map(Submission::rows).sum(), group.iter().map(|s| s.bytes).sum());
                commit_group(&conn, &mut memory, group, tally, &hear);
                next = rest;
            }
            Command::Change(change) => change(&mut conn),
            Command::Ledger(LedgerWork { places, bytes, work }) => {
                queue.leave(places, bytes);
                work(&conn, &mut memory.ledger, &hear);
            }
            Command::Held(LedgerWork { places, bytes, work }) => {
                queue.leave(places, bytes);
                work(&mut held, &conn, &mut memory.ledger, &hear);
            }
            Command::Close => break,
        }
        if next.is_none() {
            next = commands.recv().ok();
        }
    }
    held.commit(&conn, &mut memory.ledger, &hear);
    // An orderly end leaves one file. A failure to fold the WAL loses nothing: it is read at the next opening.
    if let Err((_, e)) = conn.close() {
        tracing::warn!(error = %e, "the database did not close cleanly");
    }
}

/// What the ledger needs of the options.
pub(crate) struct LedgerOptions {
    pub(crate) prices: Arc<PriceTable>,
    pub(crate) listener: Option<LedgerListener>,
}

/// What waits, up to the bounds, and the command after it that is no append.
fn gather(first: Submission, commands: &Receiver<Command>) -> (Vec<Submission>, Option<Command>) {
    let (mut events, mut bytes) = (first.rows(), first.bytes);
    let mut group = vec![first];
    while events < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
        match commands.try_recv() {
            Ok(Command::Append(more))
                if events + more.rows() <= BATCH_EVENTS_MAX && bytes + more.bytes <= BATCH_BYTES_MAX =>
            {
                events += more.rows();
                bytes += more.bytes;
                group.push(more);
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

fn commit_group(
    conn: &Connection,
    memory: &mut Memory,
    group: Vec<Submission>,
    tally: &Tally,
    hear: &dyn Fn(&[LedgerChange]),
) {
    let parts: Vec<&Submission> = group.iter().collect();
    let results: Vec<Result<Vec<Appended>, AppendError>> = match commit(conn, memory, &parts, tally, hear) {
        Ok(appended) => appended.into_iter().map(Ok).collect(),
        Err(error @ AppendError::DiskFull(_)) => parts.iter().map(|_| Err(error.clone())).collect(),
        Err(error) if parts.len() == 1 => vec![Err(error)],
        Err(error) => {
            tracing::warn!(error = %error, submissions = parts.len(), "a group failed; each submission is tried alone");
            parts
                .iter()
                .map(|part| {
                    commit(conn, memory, &[part], tally, hear).map(|mut one| one.pop().unwrap_or_default())
                })
                .collect()
        }
    };
    for (submission, result) in group.into_iter().zip(results) {
        tally.count(&result, submission.rows());
        if let Err(error) = &result {
            tracing::error!(error = %error, events = submission.rows(), "events were not stored");
        }
        (submission.done)(result);
    }
}

/// One transaction: all of the parts, or none of them.
fn commit(
    conn: &Connection,
    memory: &mut Memory,
    parts: &[&Submission],
    tally: &Tally,
    hear: &dyn Fn(&[LedgerChange]),
) -> Result<Vec<Vec<Appended>>, AppendError> {
    let begun = Instant::now();
    match try_commit(conn, memory, parts) {
        Ok((appended, changes)) => {
            tally.count_commit(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
            hear(&changes);
            Ok(appended)
        }
        Err(error) => {
            memory.forget();
            Err(append_error(&error))
        }
    }
}

fn try_commit(
    conn: &Connection,
    memory: &mut Memory,
    parts: &[&Submission],
) -> rusqlite::Result<(Vec<Vec<Appended>>, Vec<LedgerChange>)> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut recorder = Recorder::new(&tx, memory, now_ms());
    let mut appended = Vec::with_capacity(parts.len());
    for part in parts {
        let mut rows = Vec::with_capacity(part.rows());
        for event in &part.events {
            rows.push(recorder.add(event)?);
        }
        for row in &part.telemetry {
            rows.push(recorder.add_telemetry(row)?);
        }
        appended.push(rows);
    }
    let changes = recorder.finish()?;
    tx.commit()?;
    Ok((appended, changes))
}

/// Now, for the latency from an event's own time to its commit.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
