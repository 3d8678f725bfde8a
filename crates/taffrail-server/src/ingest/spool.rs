//! Drains the spool: frames in order, stored once each, unlinked after their commit.
//!
//! Woken by the hook client's poke, by a question, and by a clock; without a poke the directory is listed only when it
//! changed since the last time. A crash between commit and unlink makes a duplicate, which the store counts and drops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use taffrail_event::frame::Frame;
use taffrail_event::{Event, EventId, TimestampMs};
use taffrail_hook::spool::{ReadError, SpoolDir};
use taffrail_store::AppendError;
use tokio::sync::{Notify, watch};

use super::{Incoming, Raw, Refused, Verdict};
use crate::clock;
use crate::state::{App, stopped};

const SOURCE: &str = "spool";
/// Events of one transaction.
const BATCH_EVENTS: usize = 1_000;
/// Payload bytes of one transaction.
const BATCH_BYTES: usize = 8 << 20;
/// How often the directory is looked at without a poke.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// How often frames of dead writers are looked for.
const SALVAGE_EVERY: Duration = Duration::from_secs(30);
/// Pause before a store that refused is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Frames in a row that one drain leaves for the next when the store refuses them one by one.
const REJECTS_MAX: usize = 100;

/// Runs until `stop`, and once more then, so that a stop leaves nothing that was there.
pub(crate) async fn run(app: App, spool: SpoolDir, poke: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    let spool = Arc::new(spool);
    let mut seen: Option<SystemTime> = None;
    let mut salvaged = tokio::time::Instant::now() - SALVAGE_EVERY;
    let mut poked = true;
    loop {
        if salvaged.elapsed() >= SALVAGE_EVERY {
            salvaged = tokio::time::Instant::now();
            poked |= salvage(&app, &spool).await;
        }
        // Taken before the listing: what is renamed into it meanwhile changes it again.
        let changed = modified(spool.path());
        if poked || changed.is_none() || changed != seen || is_recent(changed) {
            seen = changed;
            while drain_once(&app, &spool).await == Drained::More {}
        }
        if *stop.borrow() {
            break;
        }
        poked = tokio::select! {
            () = poke.notified() => true,
            () = tokio::time::sleep(SCAN_EVERY) => false,
            () = stopped(&mut stop) => true,
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    /// Nothing was left, or it must wait.
    Done,
    /// There may be more.
    More,
}

/// Coarse file times could hide a change within the same tick.
fn is_recent(changed: Option<SystemTime>) -> bool {
    changed.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < 3 * SCAN_EVERY))
}

fn modified(dir: &Path) -> Option<SystemTime> {
    std::fs::metadata(dir).and_then(|meta| meta.modified()).ok()
}

async fn salvage(app: &App, spool: &Arc<SpoolDir>) -> bool {
    let dir = Arc::clone(spool);
    match tokio::task::spawn_blocking(move || dir.salvage(SystemTime::now())).await {
        Ok(Ok(found)) => {
            app.metrics.spool_torn.inc_by(found.torn);
            found.recovered > 0
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot look after unfinished spool frames");
            false
        }
        Err(_) => false,
    }
}

/// One batch: read, understand, store, unlink.
async fn drain_once(app: &App, spool: &Arc<SpoolDir>) -> Drained {
    let (worker, dir) = (app.clone(), Arc::clone(spool));
    let read = tokio::task::spawn_blocking(move || read_batch(&worker, &dir)).await;
    let Ok(Ok(batch)) = read else {
        tracing::warn!("the spool cannot be listed");
        tokio::time::sleep(RETRY_PAUSE).await;
        return Drained::Done;
    };
    if batch.events.is_empty() {
        return if batch.more { Drained::More } else { Drained::Done };
    }
    let more = batch.more;
    match store(app, batch.events).await {
        Stored::All => {
            let (dir, limit) = (Arc::clone(spool), app.spool_limit_bytes);
            let unlinked = tokio::task::spawn_blocking(move || unlink(&dir, &batch.paths, limit)).await;
            if more && unlinked.is_ok_and(|ok| ok) { Drained::More } else { Drained::Done }
        }
        Stored::Rejected if batch.paths.len() > 1 => one_by_one(app, spool, &batch.paths).await,
        Stored::Rejected => {
            quarantine(app, spool, &batch.paths[0]);
            Drained::More
        }
        Stored::NotNow => {
            tokio::time::sleep(RETRY_PAUSE).await;
            Drained::Done
        }
    }
}

/// A batch with an event that the store refuses for what it is: each on its own, the bad ones set aside.
async fn one_by_one(app: &App, spool: &Arc<SpoolDir>, paths: &[PathBuf]) -> Drained {
    let mut rejects = 0;
    for path in paths {
        let Ok(frame) = spool.read(path) else { continue };
        match store(app, vec![understand(app, &frame)]).await {
            Stored::All => {
                let _ = spool.remove(path);
            }
            Stored::Rejected => {
                quarantine(app, spool, path);
                rejects += 1;
                if rejects >= REJECTS_MAX {
                    return Drained::More;
                }
            }
            Stored::NotNow => return Drained::Done,
        }
    }
    Drained::More
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    All,
    /// One of the events cannot be stored, ever.
    Rejected,
    /// The store cannot take anything now; the frames stay.
    NotNow,
}

async fn store(app: &App, mut events: Vec<Event>) -> Stored {
    loop {
        let batch = events.into_iter().map(Incoming::from).collect();
        match app.ingest.commit(SOURCE, batch).await {
            Ok(_) => return Stored::All,
            Err(Refused::Full(back)) if !app.is_stopping() => {
                events = back;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(Refused::Failed(AppendError::Rejected(error))) => {
                tracing::error!(%error, "a spooled event cannot be stored");
                return Stored::Rejected;
            }
            Err(Refused::Full(_) | Refused::Failed(_)) => return Stored::NotNow,
        }
    }
}

struct Batch {
    events: Vec<Event>,
    paths: Vec<PathBuf>,
    more: bool,
}

fn read_batch(app: &App, spool: &SpoolDir) -> std::io::Result<Batch> {
    let pending = spool.pending()?;
    let mut batch = Batch { events: Vec::new(), paths: Vec::new(), more: false };
    let mut bytes = 0;
    for path in pending {
        if batch.events.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES {
            batch.more = true;
            break;
        }
        match spool.read(&path) {
            Ok(frame) => {
                bytes += frame.payload.len();
                batch.events.push(understand(app, &frame));
                batch.paths.push(path);
            }
            Err(ReadError::Frame(error)) => {
                tracing::warn!(%error, path = %path.display(), "a spool file holds no whole frame; set aside");
                quarantine(app, spool, &path);
            }
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(ReadError::Io(error)) => {
                tracing::warn!(%error, path = %path.display(), "a spool file cannot be read; left for later");
            }
        }
    }
    Ok(batch)
}

fn understand(app: &App, frame: &Frame) -> Event {
    let header = &frame.header;
    let verdict = header.verdict.as_ref();
    app.ingest.understand(&Raw {
        event_id: EventId::from_uuid(header.event_id),
        captured: Some(TimestampMs::clamped(header.captured_ms)),
        received: clock::now(),
        app: header.app.as_deref().filter(|app| !app.is_empty()),
        user: header.user.as_deref(),
        host: header.host.as_deref(),
        payload: &frame.payload,
        payload_bytes: header.payload_bytes.max(frame.payload.len() as u64),
        truncated: header.truncated,
        hook_wall_us: header.hook_wall_us,
        verdict: verdict.map(|v| Verdict { decision: &v.decision, rule: &v.rule, reason: &v.reason }),
    })
}

/// Whether every file went away; one that stays would be stored, and counted as a duplicate, again and again.
fn unlink(spool: &SpoolDir, paths: &[PathBuf], limit_bytes: u64) -> bool {
    let mut all = true;
    for path in paths {
        if let Err(error) = spool.remove(path) {
            tracing::error!(%error, path = %path.display(), "a drained spool frame cannot be removed");
            all = false;
        }
    }
    if spool.path().join("FULL").exists() {
        let _ = spool.refresh_bound(limit_bytes);
    }
    match spool.take_dropped() {
        Ok(0) => {}
        Ok(dropped) => tracing::warn!(dropped, "hook events were dropped while the spool was full"),
        Err(error) => tracing::warn!(%error, "dropped hook events cannot be counted"),
    }
    all
}

fn quarantine(app: &App, spool: &SpoolDir, path: &Path) {
    app.metrics.spool_torn.inc();
    if let Err(error) = spool.quarantine(path) {
        tracing::error!(%error, path = %path.display(), "a spool file cannot be set aside");
    }
}
