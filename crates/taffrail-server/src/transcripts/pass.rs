//! Takes many files into the ledger: readers parse on their own threads while this one commits.
//!
//! A batch has about [`BATCH_FACTS`] facts, of one file or of many; [`BATCHES_WAITING`] wait at most. Many batches share a
//! transaction of about [`HELD_FACTS`]; a gentle pass commits each. A file is claimed from the look at what is known of it
//! to the commit of its last piece. A reader that must wait for a claim first hands on what it holds, and while one
//! waits each batch is committed, so that two passes never wait for each other.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use taffrail_event::ids::hash_parts;
use taffrail_store::{AppendError, Import, TranscriptChunk, TranscriptFile, TranscriptOutcome};

use super::claims::Claim;
use super::place::{Plan, plan};
use super::read::{Buffer, Reading};
use super::secrets;
use super::walk::{Found, Pick, facts_of};
use super::{Progress, Totals, Transcripts, apps};
use crate::clock;

/// Facts that a reader hands on together, about: few, so that the writer begins early and ends soon after the readers.
const BATCH_FACTS: usize = 1_000;
/// Facts of one transaction, about: many, for each transaction of an import touches the same pages again.
const HELD_FACTS: usize = 48_000;
/// Files of one transaction that has so many facts. Fewer than the sessions whose projects are remembered.
const HELD_FILES: usize = 4_000;
/// Facts of one transaction while others want the writer, too.
const BATCH_FACTS_GENTLE: usize = 500;
/// Files that a reader hands on together.
const BATCH_FILES: usize = 256;
/// Batches that wait for the writer.
const BATCHES_WAITING: usize = 4;
/// Threads that parse, at most.
const READERS_MAX: usize = 4;
/// A pass with less to read than this needs no thread, in bytes.
const ALONE_BYTES: u64 = 2 << 20;
/// Events before the writer at which a gentle pass waits.
const QUEUE_DEEP: usize = 200;
/// How long it waits then.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of the machine a pass may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All of it: somebody waits.
    Full,
    /// One reader, small transactions, pauses, and none at all while the queue is deep.
    Gentle,
}

/// What a pass is to do.
pub(crate) struct Pass<'a> {
    pub(crate) app: Option<&'a str>,
    pub(crate) dry_run: bool,
    pub(crate) pace: Pace,
    /// Turns true when it is to end after what is under way.
    pub(crate) cancel: &'a AtomicBool,
}

/// Why a pass did not go to its end. What was committed stays; the rest is found again the next time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error(transparent)]
    Store(#[from] AppendError),
    #[error("stopped before its end\nhint: import again; it goes on where it was")]
    Cancelled,
}

/// Pieces that are committed together.
#[derive(Default)]
struct Batch {
    chunks: Vec<TranscriptChunk>,
    /// Held until the commit.
    claims: Vec<Claim>,
    errors: Vec<(Found, io::Error)>,
    facts: usize,
    bytes: u64,
    files_done: u64,
}

/// What the store was told and has not committed.
#[derive(Default)]
struct Held {
    files: Vec<TranscriptFile>,
    claims: Vec<Claim>,
    facts: usize,
    outcome: TranscriptOutcome,
}

/// Where a reader's batches go; false where nobody takes them any more.
type Deliver<'a> = dyn FnMut(Batch) -> bool + 'a;

impl Transcripts {
    /// Takes in what is new in `files`.
    ///
    /// # Errors
    /// The store refused, or it was cancelled. A file that cannot be read is none: `totals` names it.
    pub(crate) fn pass(
        &self,
        files: Vec<Found>,
        pass: &Pass<'_>,
        totals: &mut Totals,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(), PassError> {
        let found_files = files.len() as u64;
        totals.files += found_files;
        let changed: Vec<Found> = files.into_iter().filter(|found| !self.is_unchanged(found)).collect();
        totals.unchanged += found_files - changed.len() as u64;
        let bytes = changed.iter().map(|found| self.bytes_of(found)).sum();
        let mut course = Course {
            transcripts: self,
            pass,
            progress: Progress {
                files: found_files,
                files_done: found_files - changed.len() as u64,
                bytes,
                bytes_done: 0,
            },
            totals,
            sessions: HashSet::new(),
            rejected: HashSet::new(),
            retrying: false,
            import: self.store.import_transcripts(),
            held: Held::default(),
            on_progress,
        };
        (course.on_progress)(course.progress);
        let read = if bytes <= ALONE_BYTES { course.alone(changed) } else { course.with_readers(changed) };
        let result = read.and_then(|()| course.retry_rejected());
        course.totals.sessions += course.sessions.len() as u64;
        result
    }

    fn is_unchanged(&self, found: &Found) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&found.path);
        // One that was gone and is back has its state to be told.
        known.is_some_and(|known| known.gone.is_none()) && plan(known, found) == Plan::Unchanged
    }

    /// Bytes that there are to read, for the progress bar.
    fn bytes_of(&self, found: &Found) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&found.path) {
            Some(known) if plan(Some(known), found) != Plan::Whole => {
                found.size_bytes.saturating_sub(known.offset)
            }
            _ => found.size_bytes,
        }
    }
}

/// A pass under way, on the thread that commits.
struct Course<'a> {
    transcripts: &'a Transcripts,
    pass: &'a Pass<'a>,
    totals: &'a mut Totals,
    progress: Progress,
    /// Hashes of the sessions told of.
    sessions: HashSet<[u8; 8]>,
    /// Files of which the store refused something.
    rejected: HashSet<PathBuf>,
    retrying: bool,
    import: Import<'a>,
    held: Held,
    on_progress: &'a mut dyn FnMut(Progress),
}

impl Course<'_> {
    /// For little: read, commit, read on.
    fn alone(&mut self, files: Vec<Found>) -> Result<(), PassError> {
        let (transcripts, pass) = (self.transcripts, self.pass);
        let (files, waiting) = (Mutex::new(files.into_iter()), AtomicUsize::new(0));
        let mut result = Ok(());
        Reader { transcripts, pass, files: &files, waiting: &waiting }.run(&mut |mut batch| {
            batch.assign(transcripts, pass);
            result = self.take(batch, &waiting);
            result.is_ok()
        });
        result.and_then(|()| self.end())
    }

    /// For much: other threads read and parse while this one commits.
    fn with_readers(&mut self, mut files: Vec<Found>) -> Result<(), PassError> {
        match self.pass.pace {
            // The largest first, so that the readers end together.
            Pace::Full => files.sort_by_key(|found| std::cmp::Reverse(found.size_bytes)),
            // What somebody may be looking at first.
            Pace::Gentle => files.sort_by_key(|found| std::cmp::Reverse(found.modified_ns)),
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let readers = if self.pass.pace == Pace::Full { cores.clamp(1, READERS_MAX) } else { 1 };
        let (transcripts, pass) = (self.transcripts, self.pass);
        let (files, waiting) = (&Mutex::new(files.into_iter()), &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (to, read) = mpsc::sync_channel::<Batch>(BATCHES_WAITING);
            // One thread alone finds the projects: a session's is the same for all of its files. The writer need not
            // wait for it.
            let (ready, batches) = mpsc::sync_channel::<Batch>(1);
            scope.spawn(move || {
                for mut batch in read {
                    batch.assign(transcripts, pass);
                    if ready.send(batch).is_err() {
                        return;
                    }
                }
            });
            for _ in 0..readers {
                let to: SyncSender<Batch> = to.clone();
                scope.spawn(move || {
                    Reader { transcripts, pass, files, waiting }.run(&mut |batch| to.send(batch).is_ok());
                });
            }
            drop(to);
            for batch in batches {
                // Leaving drops the receiver, and with it the readers' wish to go on.
                self.take(batch, waiting)?;
            }
            self.end()
        })
    }

    fn end(&mut self) -> Result<(), PassError> {
        self.commit()?;
        if self.pass.cancel.load(Ordering::Relaxed) { Err(PassError::Cancelled) } else { Ok(()) }
    }

    fn take(&mut self, batch: Batch, waiting: &AtomicUsize) -> Result<(), PassError> {
        let Batch { mut chunks, claims, errors, facts, bytes, files_done } = batch;
        // Of a file that the store refused nothing later may go in: it would hide what is missing.
        chunks.retain(|chunk| !self.rejected.contains(&chunk.file.path));
        self.count(&chunks);
        self.held.claims.extend(claims);
        self.held.facts += facts;
        if !self.pass.dry_run && !chunks.is_empty() {
            self.store(chunks)?;
        }
        let is_much = self.held.facts >= HELD_FACTS || self.held.claims.len() >= HELD_FILES;
        // What is noted of a file that failed builds on what was remembered of it.
        let is_due = is_much || !errors.is_empty() || self.pass.pace == Pace::Gentle;
        if is_due || waiting.load(Ordering::SeqCst) > 0 {
            self.commit()?;
        }
        for (found, error) in errors {
            self.refused(&found, &error);
        }
        self.totals.bytes += bytes;
        self.progress.files_done += files_done;
        self.progress.bytes_done += bytes;
        self.transcripts.status.bytes.fetch_add(bytes, Ordering::Relaxed);
        (self.on_progress)(self.progress);
        Ok(())
    }

    fn refused(&mut self, found: &Found, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound {
            // It went between the look and the opening: that is no error.
            self.transcripts.note_presence(&found.path, false);
            return;
        }
        self.totals.fail(&found.path, error);
        if !self.pass.dry_run {
            self.transcripts.note_error(found, &error.to_string());
        }
    }

    fn count(&mut self, chunks: &[TranscriptChunk]) {
        for TranscriptChunk { facts, .. } in chunks {
            self.totals.records += facts.counts.records;
            self.totals.bad += facts.counts.bad;
            self.totals.unknown += facts.counts.unknown;
            self.totals.requests += facts.requests.len() as u64;
            self.transcripts.status.count(&facts.counts);
            for session in &facts.sessions {
                let hash = hash_parts(&[session.session_id.as_bytes()]);
                let mut short = [0; 8];
                short.copy_from_slice(&hash[..8]);
                self.sessions.insert(short);
            }
        }
    }

    fn store(&mut self, chunks: Vec<TranscriptChunk>) -> Result<(), PassError> {
        self.held.files.extend(chunks.iter().map(|chunk| chunk.file.clone()));
        let began = Instant::now();
        match self.import.add(chunks) {
            Ok(outcome) => {
                self.held.outcome.requests_new += outcome.requests_new;
                self.held.outcome.requests_changed += outcome.requests_changed;
            }
            Err(error) => self.lose(error)?,
        }
        if self.pass.pace == Pace::Gentle {
            self.commit()?;
            // As long again for everybody else.
            std::thread::sleep(began.elapsed().min(PAUSE * 10));
        }
        Ok(())
    }

    /// Commits what is held, and gives its files free.
    fn commit(&mut self) -> Result<(), PassError> {
        if let Err(error) = self.import.commit() {
            return self.lose(error);
        }
        let Held { files, claims, outcome, .. } = std::mem::take(&mut self.held);
        self.totals.requests_new += outcome.requests_new;
        self.totals.requests_changed += outcome.requests_changed;
        for file in files {
            self.transcripts.status.mended(&file.path);
            self.transcripts.remember(file);
        }
        drop(claims);
        Ok(())
    }

    /// What is held is not stored.
    fn lose(&mut self, error: AppendError) -> Result<(), PassError> {
        let held = std::mem::take(&mut self.held);
        match error {
            AppendError::Rejected(error) => {
                self.reject(held.files.into_iter().map(|file| file.path).collect(), &error);
                Ok(())
            }
            error => Err(error.into()),
        }
    }
}

impl Course<'_> {
    /// One of these files says what cannot be stored: each is tried on its own once all else is done.
    fn reject(&mut self, paths: HashSet<PathBuf>, error: &str) {
        tracing::warn!(files = paths.len(), error, "facts of transcripts cannot be stored together");
        if self.retrying {
            for path in &paths {
                self.totals.fail(path, error);
                let facts = facts_of(path, Pick::Any).unwrap_or_default();
                if let Ok(found) = Found::at(path, facts) {
                    self.transcripts.note_error(&found, error);
                }
            }
        }
        self.rejected.extend(paths);
    }

    fn retry_rejected(&mut self) -> Result<(), PassError> {
        self.retrying = true;
        for path in std::mem::take(&mut self.rejected) {
            let facts = facts_of(&path, Pick::Any).unwrap_or_default();
            if let Ok(found) = Found::at(&path, facts) {
                self.alone(vec![found])?;
            }
        }
        Ok(())
    }
}

/// What one reader's thread does.
struct Reader<'a> {
    transcripts: &'a Transcripts,
    pass: &'a Pass<'a>,
    files: &'a Mutex<std::vec::IntoIter<Found>>,
    /// Of the readers, those that wait for a claim.
    waiting: &'a AtomicUsize,
}

impl Reader<'_> {
    fn run(&self, deliver: &mut Deliver<'_>) {
        let (mut batch, mut buffer) = (Batch::default(), Buffer::default());
        while let Some(found) = self.next_file() {
            if self.stopped() || !self.file(found, &mut buffer, &mut batch, deliver) {
                return;
            }
        }
        if !batch.is_empty() {
            deliver(batch);
        }
    }

    fn next_file(&self) -> Option<Found> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn stopped(&self) -> bool {
        self.pass.cancel.load(Ordering::Relaxed)
    }

    /// Reads one file into the batch; false where nobody wants more.
    fn file(&self, found: Found, buffer: &mut Buffer, batch: &mut Batch, deliver: &mut Deliver<'_>) -> bool {
        let claim = match self.transcripts.claims.take(&found.path) {
            Some(claim) => claim,
            None => {
                // Who takes this batch, even an empty one, sees that somebody waits.
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let went_on = deliver(std::mem::take(batch));
                let claim = went_on.then(|| self.transcripts.claims.wait_for(&found.path));
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                let Some(claim) = claim else { return false };
                claim
            }
        };
        batch.claims.push(claim);
        let known = self.transcripts.known(&found.path);
        let went_on = match Reading::open(&found, known.as_ref(), buffer) {
            Ok(Some(mut reading)) => {
                let outcome = self.pieces(&mut reading, batch, deliver);
                *buffer = reading.into_buffer();
                outcome.unwrap_or_else(|error| {
                    batch.errors.push((found, error));
                    true
                })
            }
            Ok(None) => {
                if known.is_some_and(|known| known.gone.is_some()) {
                    self.transcripts.note_presence(&found.path, true);
                }
                true
            }
            Err(error) => {
                batch.errors.push((found, error));
                true
            }
        };
        batch.files_done += 1;
        went_on && (!batch.is_full(self.limit()) || self.hand_on(batch, deliver))
    }

    fn pieces(
        &self,
        reading: &mut Reading,
        batch: &mut Batch,
        deliver: &mut Deliver<'_>,
    ) -> io::Result<bool> {
        let mut left = reading.bytes_left();
        while let Some(mut chunk) = reading.next()? {
            secrets::redact(&mut chunk.facts);
            let now_left = reading.bytes_left();
            batch.bytes += left - now_left;
            left = now_left;
            batch.facts += chunk.facts.requests.len() + chunk.facts.marks.len() + chunk.facts.failures.len();
            batch.chunks.push(chunk);
            if reading.is_done() {
                break;
            }
            if batch.is_full(self.limit()) {
                // The claim stays with the file, the pieces go.
                let claim = batch.claims.pop();
                let went_on = self.hand_on(batch, deliver);
                batch.claims.extend(claim);
                if !went_on {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn limit(&self) -> usize {
        if self.pass.pace == Pace::Full { BATCH_FACTS } else { BATCH_FACTS_GENTLE }
    }

    fn hand_on(&self, batch: &mut Batch, deliver: &mut Deliver<'_>) -> bool {
        while self.pass.pace == Pace::Gentle
            && self.transcripts.store.queue_depth() > QUEUE_DEEP
            && !self.stopped()
        {
            std::thread::sleep(PAUSE);
        }
        deliver(std::mem::take(batch)) && !self.stopped()
    }
}

impl Batch {
    /// Finds the projects of its sessions.
    fn assign(&mut self, transcripts: &Transcripts, pass: &Pass<'_>) {
        for chunk in &mut self.chunks {
            apps::assign(&mut chunk.facts, pass.app, &transcripts.apps, &transcripts.store);
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.errors.is_empty() && self.files_done == 0
    }

    fn is_full(&self, facts: usize) -> bool {
        self.facts >= facts || self.chunks.len() >= BATCH_FILES
    }
}

/// How long ago a file was written, in milliseconds; 0 where the clock says it is yet to come.
pub(crate) fn age_ms(modified_ns: i64) -> u64 {
    u64::try_from(clock::now_ms().saturating_sub(modified_ns / 1_000_000)).unwrap_or(0)
}
