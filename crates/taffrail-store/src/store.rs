//! The handle: opens the database, takes events in, hands readers out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, unbounded};
use rusqlite::Connection;
use serde_json::Value;
use taffrail_event::normalize::otlp::Telemetry;
use taffrail_event::prices::PriceTable;
use taffrail_event::{Event, RowId};

use crate::connect::{self, WriterLock, write_error};
use crate::error::{AppendError, OpenError, QueueFull, ReadError, WriteError};
use crate::filter::Payloads;
use crate::ledger::LedgerChange;
use crate::ledger::held::Held;
use crate::ledger::names::Memory as LedgerMemory;
use crate::options::Options;
use crate::queue::{Queue, Refused};
use crate::reader::{Pool, Reader};
use crate::rows::{StoredEvent, WriterStats};
use crate::writer::{self, Command, HeldJob, LedgerJob, LedgerOptions, LedgerWork, Submission, Tally};
use crate::{QUEUE_BYTES_MAX, events};

/// The most of the queue that one piece of work on the ledger takes, as a part: a larger one would wait for an empty
/// queue.
const LEDGER_QUEUE_PART: usize = 4;

/// Called on the writer's thread once the events are committed and synced, or were not; keep it short.
pub type Done = Box<dyn FnOnce(Result<Vec<Appended>, AppendError>) + Send>;

/// What became of one submitted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its row; of a duplicate, the row of the one that came first.
    pub row_id: RowId,
    /// Whether it is new.
    pub outcome: Outcome,
}

/// Whether an event was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a new row.
    Stored,
    /// It was there already, and counted.
    Duplicate,
}

/// A handle on the open database; clones share one writer. The last one to go lets the writer finish what waits.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    commands: Sender<Command>,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    pool: Arc<Pool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the database, creating or migrating it where needed, and starts the writer. The directory must exist.
    ///
    /// # Errors
    /// See [`OpenError`]; the file is left as it was.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (conn, lock) = connect::writer(options)?;
        let pool = Arc::new(Pool::new(options));
        let queue = Arc::new(Queue::new(options.queue_events, QUEUE_BYTES_MAX));
        let tally = Arc::new(Tally::default());
        // The queue is what bounds it; the channel has no bound of its own so that a change is never refused.
        let (commands, received) = unbounded();
        let writer = {
            let (queue, tally) = (Arc::clone(&queue), Arc::clone(&tally));
            let ledger =
                LedgerOptions { prices: Arc::clone(&options.prices), listener: options.on_ledger.clone() };
            let work = move || {
                let _lock: WriterLock = lock;
                writer::run(conn, &received, &queue, &tally, ledger);
                queue.close();
            };
            std::thread::Builder::new().name("taffrail-store".to_owned()).spawn(work)
        }
        .map_err(|e| OpenError::Other { detail: e.to_string() })?;
        Ok(Self { inner: Arc::new(Inner { commands, queue, tally, pool, writer: Mutex::new(Some(writer)) }) })
    }

    /// Queues events to be stored, all or none; `done` hears of them after their commit, with one [`Appended`] for
    /// each, in order. Groups of up to [`BATCH_EVENTS_MAX`](crate::BATCH_EVENTS_MAX) events share a transaction.
    ///
    /// # Errors
    /// The queue is full or the store is closing: the events come back and `done` is not called.
    pub fn submit(&self, events: Vec<Event>, done: Done) -> Result<(), QueueFull> {
        self.submit_with(events, Vec::new(), done)
    }

    /// As [`Store::submit`], with telemetry rows in the same transaction: `done` hears of the events first, then of the
    /// rows. Rows that are refused are dropped: their sender repeats them.
    ///
    /// # Errors
    /// As [`Store::submit`].
    pub fn submit_with(
        &self,
        events: Vec<Event>,
        telemetry: Vec<Telemetry>,
        done: Done,
    ) -> Result<(), QueueFull> {
        let rows = events.len() + telemetry.len();
        if rows == 0 {
            done(Ok(Vec::new()));
            return Ok(());
        }
        let bytes = payload_bytes(&events) + telemetry_bytes(&telemetry);
        if self.inner.queue.enter(rows, bytes).is_err() {
            self.inner.tally.refused.fetch_add(rows as u64, Ordering::Relaxed);
            return Err(QueueFull { events });
        }
        match self.inner.commands.send(Command::Append(Submission { events, telemetry, bytes, done })) {
            Ok(()) => Ok(()),
            Err(refused) => match refused.into_inner() {
                Command::Append(submission) => Err(QueueFull { events: submission.events }),
                Command::Change(_) | Command::Ledger(_) | Command::Held(_) | Command::Close => {
                    Err(QueueFull { events: Vec::new() })
                }
            },
        }
    }

    /// Stores events and waits for their commit. Waits for room in the queue, too.
    pub fn append(&self, events: Vec<Event>) -> Result<Vec<Appended>, AppendError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = payload_bytes(&events);
        self.inner.queue.enter_when_room(events.len(), bytes).map_err(|refused| match refused {
            Refused::Full => AppendError::QueueFull,
            Refused::Closed => AppendError::Closed,
        })?;
        let (answer, answered) = bounded(1);
        // The receiver below waits, so the answer always has room and a reader.
        let done: Done = Box::new(move |result| drop(answer.send(result)));
        let command = Command::Append(Submission { events, telemetry: Vec::new(), bytes, done });
        self.inner.commands.send(command).map_err(|_| AppendError::Closed)?;
        answered.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// A read-only view, given back to the pool when dropped. Each call of it sees the newest commit.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        Reader::of_pool(&self.inner.pool)
    }

    /// Stores the `humanInTheLoopStatus` of an event and returns the event with its payload; none where there is no
    /// such event.
    pub fn respond(&self, row: RowId, status: &Value) -> Result<Option<StoredEvent>, WriteError> {
        let status = status.clone();
        self.change(move |conn| events::set_human_in_the_loop_status(conn, row, &status))?;
        let other = |e: ReadError| WriteError::Other(e.to_string());
        let reader = self.reader().map_err(other)?;
        crate::reader::event(reader.conn(), row, Payloads::With).map_err(other)
    }

    /// Events waiting for the writer.
    pub fn queue_depth(&self) -> usize {
        self.inner.queue.waiting().events
    }

    /// What the writer has done since it was opened.
    pub fn stats(&self) -> WriterStats {
        let tally = &self.inner.tally;
        let waiting = self.inner.queue.waiting();
        WriterStats {
            stored: tally.stored.load(Ordering::Relaxed),
            duplicates: tally.duplicates.load(Ordering::Relaxed),
            failed: tally.failed.load(Ordering::Relaxed),
            refused: tally.refused.load(Ordering::Relaxed),
            commits: tally.commits.load(Ordering::Relaxed),
            commit_us: tally.commit_us.load(Ordering::Relaxed),
            commit_us_max: tally.commit_us_max.load(Ordering::Relaxed),
            last_commit_us: tally.last_commit_us.load(Ordering::Relaxed),
            queue_events: waiting.events as u64,
            queue_bytes: waiting.bytes as u64,
        }
    }

    /// Commits what waits, folds the WAL into the database and stops the writer; later submissions are refused.
    /// Readers on loan stay usable, and the WAL is kept for them until they go.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Readers price by another table from now on.
    pub(crate) fn set_prices(&self, prices: &Arc<PriceTable>) {
        self.inner.pool.set_prices(prices);
    }

    /// Runs work on the ledger on the writer's thread and waits for it; it waits for its places in the queue as events
    /// do, so that neither starves the other.
    pub(crate) fn on_ledger<T: Send + 'static>(
        &self,
        places: usize,
        bytes: usize,
        work: impl FnOnce(&Connection, &mut LedgerMemory, &dyn Fn(&[LedgerChange])) -> T + Send + 'static,
    ) -> Result<T, AppendError> {
        let (answer, answered) = bounded(1);
        let work: Box<LedgerJob> = Box::new(move |conn, memory, hear| {
            // Nobody waits any more only where the caller's thread has died.
            drop(answer.send(work(conn, memory, hear)));
        });
        self.enter(places, bytes, work, Command::Ledger)?;
        answered.recv().map_err(|_| AppendError::Closed)
    }

    /// As [`Self::on_ledger`], for work that may leave its transaction open in what is held.
    pub(crate) fn on_held<T: Send + 'static>(
        &self,
        places: usize,
        bytes: usize,
        work: impl FnOnce(&mut Held, &Connection, &mut LedgerMemory, &dyn Fn(&[LedgerChange])) -> T
        + Send
        + 'static,
    ) -> Result<T, AppendError> {
        let (answer, answered) = bounded(1);
        let work: Box<HeldJob> = Box::new(move |held, conn, memory, hear| {
            drop(answer.send(work(held, conn, memory, hear)));
        });
        self.enter(places, bytes, work, Command::Held)?;
        answered.recv().map_err(|_| AppendError::Closed)
    }

    /// Sends work to the writer once it has its places in the queue.
    fn enter<Job: ?Sized>(
        &self,
        places: usize,
        bytes: usize,
        work: Box<Job>,
        command: impl FnOnce(LedgerWork<Job>) -> Command,
    ) -> Result<(), AppendError> {
        let places = places.min(self.inner.queue.events_max() / LEDGER_QUEUE_PART);
        let bytes = bytes.min(QUEUE_BYTES_MAX / LEDGER_QUEUE_PART);
        self.inner.queue.enter_when_room(places, bytes).map_err(|_| AppendError::Closed)?;
        let command = command(LedgerWork { places, bytes, work });
        self.inner.commands.send(command).map_err(|_| AppendError::Closed)
    }

    /// Runs a change in a transaction on the writer's thread and waits for it.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (answer, answered) = bounded(1);
        let work = move |conn: &mut Connection| {
            let result = conn.transaction().and_then(|tx| {
                let value = change(&tx)?;
                tx.commit()?;
                Ok(value)
            });
            // Nobody waits any more only where the caller's thread has died.
            drop(answer.send(result.map_err(|e| write_error(&e))));
        };
        self.inner.commands.send(Command::Change(Box::new(work))).map_err(|_| WriteError::Closed)?;
        answered.recv().unwrap_or(Err(WriteError::Closed))
    }
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        self.pool.clear();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        // It fails only where the writer has gone already.
        drop(self.commands.send(Command::Close));
        if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
            tracing::error!("the store's writer had panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn telemetry_bytes(rows: &[Telemetry]) -> usize {
    rows.iter().map(|row| row.attributes.len() + row.detail.as_ref().map_or(0, String::len)).sum()
}

fn payload_bytes(events: &[Event]) -> usize {
    events.iter().map(|event| event.payload.text.len()).sum()
}
