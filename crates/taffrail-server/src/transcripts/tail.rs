//! Follows the client's folders: what is written to a transcript is in the ledger a moment later.
//!
//! Three threads. `watch` hears of changes from the system and reads what changed, [`COALESCE`] after the first word of
//! it. `scan` looks at every file now and then, because a watch can be lost, refused or too late for a new folder; its
//! first look takes in all history, gently. `archive` keeps what has been quiet. A file is read by one of them at a time,
//! and all go by what the store knows of it, so none of them needs the others to be right.
//!
//! Limits: [`DIRTY_MAX`] paths wait for `watch`, beyond that `scan` finds them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::archive::Haste;
use super::pass::{Pace, Pass, PassError, age_ms};
use super::status::RootStatus;
use super::walk::{Found, Pick, Walk, facts_of, folder, identity};
use super::{Totals, Transcripts, roots};
use crate::config::TranscriptsConfig;

/// From the first word of a change to the reading of it.
const COALESCE: Duration = Duration::from_millis(40);
/// How often it is looked whether the roots are there, and still the same.
const ROOTS_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at every file, where a watch could not be set.
const SCAN_EVERY_UNWATCHED: Duration = Duration::from_secs(1);
/// A look at every file may take this part of the time at most: one in so many.
const SCAN_SHARE: u32 = 40;
/// Before a store that refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Paths that wait to be read.
const DIRTY_MAX: usize = 10_000;
/// From the start to the first look for what is to be archived.
const ARCHIVE_FIRST: Duration = Duration::from_secs(20);
/// Between two looks for what is to be archived.
const ARCHIVE_EVERY: Duration = Duration::from_secs(15 * 60);
/// More than this to read in one look is history: it is taken in gently, in bytes.
const HISTORY_BYTES: u64 = 4 << 20;

/// The running threads.
pub(crate) struct Tail {
    shared: Arc<Tailing>,
    wake_watch: Sender<Word>,
    threads: Vec<JoinHandle<()>>,
}

/// What they share.
struct Tailing {
    transcripts: Arc<Transcripts>,
    config: TranscriptsConfig,
    cancel: AtomicBool,
    scan: Mutex<ScanWish>,
    scan_wished: Condvar,
    /// Whether every root that exists is watched.
    watched: AtomicBool,
}

#[derive(Default)]
struct ScanWish {
    now: bool,
}

/// What `watch` hears.
enum Word {
    Changed(notify::Result<notify::Event>),
    Stop,
}

impl Tail {
    /// Starts to follow the roots of `config`.
    pub(crate) fn start(transcripts: Arc<Transcripts>, config: TranscriptsConfig) -> Self {
        transcripts.status.tailing.store(config.tail, Ordering::Relaxed);
        let archive = config.archive;
        let tail = config.tail;
        let shared = Arc::new(Tailing {
            transcripts,
            config,
            cancel: AtomicBool::new(false),
            scan: Mutex::new(ScanWish { now: true }),
            scan_wished: Condvar::new(),
            watched: AtomicBool::new(false),
        });
        let (wake_watch, words) = mpsc::channel();
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce(&Tailing) + Send>| {
            let shared = Arc::clone(&shared);
            match std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared)) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::error!(%error, name, "a thread cannot be started"),
            }
        };
        if tail {
            let heard = wake_watch.clone();
            spawn("taffrail-watch", Box::new(move |shared| shared.watch(&words, &heard)));
            spawn("taffrail-scan", Box::new(Tailing::scan));
        }
        if archive && tail {
            spawn("taffrail-keep", Box::new(Tailing::archive));
        }
        Self { shared, wake_watch, threads }
    }

    /// Ends after what is under way; waits for it.
    pub(crate) fn stop(self) {
        self.shared.cancel.store(true, Ordering::Relaxed);
        self.shared.scan_wished.notify_all();
        // The thread may have ended already.
        let _ = self.wake_watch.send(Word::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread that followed transcripts had panicked");
            }
        }
    }
}

impl Tailing {
    fn stopped(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn wish_scan(&self) {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner).now = true;
        self.scan_wished.notify_all();
    }

    /// Waits until a scan is wished, stopped, or the time is over.
    fn wait(&self, time: Duration, heed_wish: bool) {
        let until = Instant::now() + time;
        let mut wish = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.stopped() {
            if heed_wish && wish.now {
                wish.now = false;
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            wish = self.scan_wished.wait_timeout(wish, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    // ---- watch

    fn watch(&self, words: &Receiver<Word>, heard: &Sender<Word>) {
        let mut watches = Watches::new(heard, self.config.roots.clone());
        let mut dirty = BTreeSet::new();
        let mut due: Option<Instant> = None;
        let mut look_at_roots = Instant::now();
        loop {
            if Instant::now() >= look_at_roots {
                look_at_roots = Instant::now() + ROOTS_EVERY;
                self.renew(&mut watches);
            }
            let wake = due.unwrap_or(look_at_roots).min(look_at_roots);
            match words.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Word::Changed(Ok(event))) => {
                    if self.note_event(&event, &mut dirty) && due.is_none() {
                        due = Some(Instant::now() + COALESCE);
                    }
                }
                Ok(Word::Changed(Err(error))) => {
                    tracing::warn!(%error, "the watch on transcripts had a fault; all files are looked at");
                    watches.forget();
                    self.wish_scan();
                }
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if due.is_some_and(|due| Instant::now() >= due) {
                due = None;
                self.read_changed(std::mem::take(&mut dirty));
            }
        }
    }

    /// Sets watches where roots have come or changed, and says how it stands.
    fn renew(&self, watches: &mut Watches) {
        if watches.renew() {
            self.wish_scan();
        }
        self.watched.store(watches.all_set(), Ordering::Relaxed);
        *self.transcripts.status.roots.lock().unwrap_or_else(PoisonError::into_inner) = watches.report();
    }

    /// Takes the paths of an event that says that something was written; whether there was one.
    fn note_event(&self, event: &notify::Event, dirty: &mut BTreeSet<PathBuf>) -> bool {
        if event.need_rescan() {
            // The system's queue ran over.
            self.wish_scan();
        }
        let written = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        if !written {
            return false;
        }
        for path in &event.paths {
            if dirty.len() >= DIRTY_MAX {
                self.wish_scan();
                break;
            }
            dirty.insert(path.clone());
        }
        !dirty.is_empty()
    }

    fn read_changed(&self, dirty: BTreeSet<PathBuf>) {
        let mut files = Vec::new();
        let mut gone = Vec::new();
        for path in dirty {
            if path.is_dir() {
                // New, or moved here: what it holds came before the watch on it.
                let walk = folder(&path, Pick::Client);
                self.note_walk_errors(&walk);
                files.extend(walk.files);
                continue;
            }
            let Some(facts) = facts_of(&path, Pick::Client) else {
                if !path.exists() {
                    gone.push(path);
                }
                continue;
            };
            match Found::at(&path, facts) {
                Ok(found) => files.push(found),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => gone.push(path),
                Err(error) => self.transcripts.status.failed(&path, &error.to_string()),
            }
        }
        for path in gone {
            self.note_gone(&path);
        }
        if !files.is_empty() {
            self.follow(files);
        }
    }

    /// A file that is gone, or every file of a folder that is.
    fn note_gone(&self, path: &Path) {
        for path in self.transcripts.known_below(path) {
            self.transcripts.note_presence(&path, false);
        }
    }

    fn follow(&self, files: Vec<Found>) {
        let times: Vec<i64> = files.iter().map(|found| found.modified_ns).collect();
        if self.take_in(files, Pace::Full).is_err() {
            // Nothing is lost: the next look finds the same.
            self.wish_scan();
            return;
        }
        if let Some(newest) = times.into_iter().max() {
            self.transcripts.status.lag_ms.store(age_ms(newest), Ordering::Relaxed);
        }
    }

    fn take_in(&self, files: Vec<Found>, pace: Pace) -> Result<Totals, PassError> {
        let mut totals = Totals::default();
        let pass = Pass { app: None, dry_run: false, pace, cancel: &self.cancel };
        let result = self.transcripts.pass(files, &pass, &mut totals, &mut |_| {});
        let refused = result.as_ref().err().filter(|_| !self.stopped()).map(ToString::to_string);
        if self.transcripts.status.pass_ended(refused.clone())
            && let Some(error) = refused
        {
            tracing::warn!(error, "transcripts cannot be taken in; they are tried again");
        }
        result.map(|()| totals)
    }

    // ---- scan

    fn scan(&self) {
        while !self.stopped() {
            let Some(looked) = self.look_at_all() else {
                self.wait(RETRY_PAUSE, false);
                continue;
            };
            let every = if self.watched.load(Ordering::Relaxed) {
                Duration::from_secs(self.config.rescan_seconds)
            } else {
                SCAN_EVERY_UNWATCHED
            };
            self.wait(every.max(looked * SCAN_SHARE), true);
        }
    }

    /// Takes in what is new in any file; how long the look took without the reading, none where it failed.
    fn look_at_all(&self) -> Option<Duration> {
        let began = Instant::now();
        let mut files = Vec::new();
        for root in &self.config.roots {
            let root = roots::folder_of(root);
            let walk = folder(&root, Pick::Client);
            self.note_absent(&root, &walk);
            self.note_walk_errors(&walk);
            files.extend(walk.files);
        }
        let status = &self.transcripts.status;
        status.files.store(files.len() as u64, Ordering::Relaxed);
        let new_bytes: u64 = files.iter().map(|found| self.new_bytes(found)).sum();
        let pace = if new_bytes > HISTORY_BYTES { Pace::Gentle } else { Pace::Full };
        let looked = began.elapsed();
        let totals = self.take_in(files, pace).ok()?;
        if !status.caught_up.swap(true, Ordering::Relaxed) {
            let (files, ms) = (totals.files, began.elapsed().as_millis());
            let Totals { bytes, requests_new, .. } = totals;
            tracing::info!(files, bytes, requests_new, ms, "transcripts are taken in");
        }
        Some(looked)
    }

    fn new_bytes(&self, found: &Found) -> u64 {
        let known = self.transcripts.known(&found.path);
        found.size_bytes.saturating_sub(known.map_or(0, |known| known.offset))
    }

    /// Files that are known below a root and were not met there.
    fn note_absent(&self, root: &Path, walk: &Walk) {
        let met: std::collections::HashSet<&Path> = walk.files.iter().map(|f| f.path.as_path()).collect();
        let unseen = |path: &Path| walk.errors.iter().any(|(at, _)| path.starts_with(at));
        for path in self.transcripts.known_below(root) {
            if !met.contains(path.as_path()) && !unseen(&path) && !path.exists() {
                self.transcripts.note_presence(&path, false);
            }
        }
        let known_bad = |path: &Path| {
            met.contains(path) && self.transcripts.known(path).is_some_and(|known| known.error.is_some())
        };
        let still = |path: &Path| walk.errors.iter().any(|(at, _)| at == path) || known_bad(path);
        self.transcripts.status.keep_unreadable(root, &still);
    }

    fn note_walk_errors(&self, walk: &Walk) {
        for (path, error) in &walk.errors {
            self.transcripts.status.failed(path, error);
        }
    }

    // ---- archive

    fn archive(&self) {
        be_nice();
        self.wait(ARCHIVE_FIRST, false);
        while !self.stopped() {
            for root in &self.config.roots {
                self.archive_root(&roots::folder_of(root));
            }
            self.wait(ARCHIVE_EVERY, false);
        }
    }

    fn archive_root(&self, root: &Path) {
        let quiet = Duration::from_secs(self.config.archive_after_hours.saturating_mul(3600));
        for found in folder(root, Pick::Client).files {
            let known = self.transcripts.known(&found.path);
            if self.stopped() {
                return;
            }
            if !self.transcripts.is_due(&found, known.as_ref(), quiet) {
                continue;
            }
            if let Err(error) = self.transcripts.archive(&found, root, Haste::Slow, &self.cancel) {
                let path = found.path.display();
                tracing::warn!(%error, %path, "a transcript cannot be archived; it is tried again");
            }
        }
    }
}

/// The system's watches on the roots.
struct Watches {
    watcher: Option<RecommendedWatcher>,
    heard: Sender<Word>,
    roots: Vec<WatchedRoot>,
    limit_named: bool,
}

struct WatchedRoot {
    told: PathBuf,
    /// Path and identity of the folder that is watched.
    set_on: Option<(PathBuf, (u64, u64))>,
    state: &'static str,
}

const WATCHED: &str = "watched";
const POLLED: &str = "polled";
const MISSING: &str = "missing";

impl Watches {
    fn new(heard: &Sender<Word>, roots: Vec<PathBuf>) -> Self {
        let root = |told| WatchedRoot { told, set_on: None, state: MISSING };
        Self {
            watcher: None,
            heard: heard.clone(),
            roots: roots.into_iter().map(root).collect(),
            limit_named: false,
        }
    }

    /// Lets all go; the next look sets them anew.
    fn forget(&mut self) {
        self.watcher = None;
        for root in &mut self.roots {
            root.set_on = None;
        }
    }

    /// Sets what is not set; whether something changed, so that all files are to be looked at.
    fn renew(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.roots.len() {
            let path = roots::folder_of(&self.roots[at].told);
            let now = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_dir).map(|m| identity(&m));
            let wanted = now.map(|identity| (path, identity));
            if wanted == self.roots[at].set_on {
                continue;
            }
            changed = true;
            if let (Some((old, _)), Some(watcher)) = (self.roots[at].set_on.take(), &mut self.watcher) {
                // It may be gone with its folder.
                let _ = watcher.unwatch(&old);
            }
            self.roots[at].state = match &wanted {
                Some((path, _)) if self.set(path) => WATCHED,
                Some(_) => POLLED,
                None => MISSING,
            };
            self.roots[at].set_on = wanted;
        }
        changed
    }

    fn set(&mut self, path: &Path) -> bool {
        if self.watcher.is_none() {
            let heard = self.heard.clone();
            // Nobody listens any more only when the server stops.
            let handler = move |event| drop(heard.send(Word::Changed(event)));
            self.watcher = notify::recommended_watcher(handler).map_err(|error| self.explain(&error)).ok();
        }
        let Some(watcher) = &mut self.watcher else { return false };
        match watcher.watch(path, RecursiveMode::Recursive) {
            Ok(()) => true,
            Err(error) => {
                self.explain(&error);
                false
            }
        }
    }

    fn explain(&mut self, error: &notify::Error) {
        if std::mem::replace(&mut self.limit_named, true) {
            return;
        }
        let hint = "raise the limits fs.inotify.max_user_watches and fs.inotify.max_user_instances";
        tracing::warn!(%error, hint, "transcripts cannot be watched; they are looked at every second instead");
    }

    fn all_set(&self) -> bool {
        self.roots.iter().all(|root| root.state != POLLED)
    }

    fn report(&self) -> Vec<RootStatus> {
        self.roots.iter().map(|root| RootStatus { path: root.told.clone(), state: root.state }).collect()
    }
}

/// Lowers this thread's claim on the processor, where the system lets a thread have its own.
fn be_nice() {
    #[cfg(target_os = "linux")]
    {
        const NICENESS: i32 = 15;
        // Without it the archive is written at the usual priority.
        let _ = rustix::process::nice(NICENESS);
    }
}
