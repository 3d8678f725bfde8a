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

use crate::BATCH_EVENTS_MAX;
use crate::connect::append_error;
use crate::error::AppendError;
use crate::queue::Queue;
use crate::record::{Memory, Recorder};
use crate::store::{Appended, Done, Outcome};

/// Payload bytes in one transaction, at most, unless one submission alone has more.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A change other than an append; it opens its own transaction.
pub(crate) type Change = Box<dyn FnOnce(&mut Connection) + Send>;

/// What the writer is asked to do.
pub(crate) enum Command {
    Append(Submission),
    Change(Change),
    Close,
}

/// Events that are stored together or not at all.
pub(crate) struct Submission {
    pub(crate) events: Vec<Event>,
    pub(crate) bytes: usize,
    pub(crate) done: Done,
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
pub(crate) fn run(mut conn: Connection, commands: &Receiver<Command>, queue: &Queue, tally: &Arc<Tally>) {
    let mut memory = Memory::default();
    let mut next = commands.recv().ok();
    while let Some(command) = next.take() {
        match command {
            Command::Append(first) => {
                let (group, rest) = gather(first, commands);
                queue.leave(group.iter().map(|s| s.events.len()).sum(), group.iter().map(|s| s.bytes).sum());
                commit_group(&conn, &mut memory, group, tally);
                next = rest;
            }
            Command::Change(change) => change(&mut conn),
            Command::Close => break,
        }
        if next.is_none() {
            next = commands.recv().ok();
        }
    }
    // An orderly end leaves one file. A failure to fold the WAL loses nothing: it is read at the next opening.
    if let Err((_, e)) = conn.close() {
        tracing::warn!(error = %e, "the database did not close cleanly");
    }
}

/// What waits, up to the bounds, and the command after it that is no append.
fn gather(first: Submission, commands: &Receiver<Command>) -> (Vec<Submission>, Option<Command>) {
    let (mut events, mut bytes) = (first.events.len(), first.bytes);
    let mut group = vec![first];
    while events < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
        match commands.try_recv() {
            Ok(Command::Append(more))
                if events + more.events.len() <= BATCH_EVENTS_MAX
                    && bytes + more.bytes <= BATCH_BYTES_MAX =>
            {
                events += more.events.len();
                bytes += more.bytes;
                group.push(more);
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

fn commit_group(conn: &Connection, memory: &mut Memory, group: Vec<Submission>, tally: &Tally) {
    let parts: Vec<&[Event]> = group.iter().map(|s| s.events.as_slice()).collect();
    let results: Vec<Result<Vec<Appended>, AppendError>> = match commit(conn, memory, &parts, tally) {
        Ok(appended) => appended.into_iter().map(Ok).collect(),
        Err(error @ AppendError::DiskFull(_)) => parts.iter().map(|_| Err(error.clone())).collect(),
        Err(error) if parts.len() == 1 => vec![Err(error)],
        Err(error) => {
            tracing::warn!(error = %error, submissions = parts.len(), "a group failed; each submission is tried alone");
            parts
                .iter()
                .map(|part| commit(conn, memory, &[part], tally).map(|mut one| one.pop().unwrap_or_default()))
                .collect()
        }
    };
    for (submission, result) in group.into_iter().zip(results) {
        tally.count(&result, submission.events.len());
        if let Err(error) = &result {
            tracing::error!(error = %error, events = submission.events.len(), "events were not stored");
        }
        (submission.done)(result);
    }
}

/// One transaction: all of the parts, or none of them.
fn commit(
    conn: &Connection,
    memory: &mut Memory,
    parts: &[&[Event]],
    tally: &Tally,
) -> Result<Vec<Vec<Appended>>, AppendError> {
    let begun = Instant::now();
    let result = try_commit(conn, memory, parts);
    if result.is_ok() {
        tally.count_commit(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    } else {
        memory.forget();
    }
    result.map_err(|e| append_error(&e))
}

fn try_commit(
    conn: &Connection,
    memory: &mut Memory,
    parts: &[&[Event]],
) -> rusqlite::Result<Vec<Vec<Appended>>> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut recorder = Recorder::new(&tx, memory, now_ms());
    let mut appended = Vec::with_capacity(parts.len());
    for part in parts {
        appended.push(part.iter().map(|event| recorder.add(event)).collect::<rusqlite::Result<Vec<_>>>()?);
    }
    recorder.finish()?;
    tx.commit()?;
    Ok(appended)
}

/// Now, for the latency from an event's own time to its commit.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
