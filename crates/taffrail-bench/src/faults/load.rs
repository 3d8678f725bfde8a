//! The writers of a campaign, and the ledger of what they were promised.
//!
//! Every delivery is a tool fact, so that its key is known before it is sent and a delivery that got no answer can be
//! sent again: the same key must then be stored once. Two kinds of promise are kept apart: `synced` (a 2xx, or a frame
//! that the server took from the spool) must survive a power cut, `spooled` (a hook client that ended with 0) the death
//! of the server.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use taffrail_event::DedupKey;
use taffrail_event::frame::{self, FrameHeader};
use uuid::Uuid;

use crate::clock::now_ms;
use crate::http::{Connection, Request};
use crate::process;
use crate::scratch;
use crate::workload::{Fleet, FleetOptions, Kind, Step};

/// A dead server answers within this, too: the kernel refuses.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const SPOOL_PAUSE: Duration = Duration::from_millis(2);
/// Frames of one spool writer that may wait: it writes no faster than the server drains.
const FRAMES_WAITING_MAX: usize = 200;

/// What was promised.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    synced: Mutex<Vec<DedupKey>>,
    spooled: Mutex<Vec<DedupKey>>,
    sent: Mutex<HashSet<DedupKey>>,
    refused: Mutex<Vec<String>>,
}

impl Ledger {
    fn sending(&self, key: DedupKey) {
        lock(&self.sent).insert(key);
    }

    /// Promised so far: to survive a power cut.
    pub(crate) fn synced(&self) -> Vec<DedupKey> {
        lock(&self.synced).clone()
    }

    /// Promised so far: to survive the death of the server.
    pub(crate) fn promised(&self) -> Vec<DedupKey> {
        let mut all = self.synced();
        all.extend_from_slice(&lock(&self.spooled));
        all
    }

    /// Every key that was ever sent.
    pub(crate) fn sent(&self) -> HashSet<DedupKey> {
        lock(&self.sent).clone()
    }

    /// Answers that were neither yes nor "later": a fault of the server or of this program.
    pub(crate) fn refused(&self) -> Vec<String> {
        lock(&self.refused).clone()
    }
}

/// Where the server is now; it moves with every restart.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) addr: RwLock<SocketAddr>,
    pub(crate) data_dir: PathBuf,
    pub(crate) hook: PathBuf,
}

/// Writers at work until dropped or stopped.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) target: Arc<Target>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// How many writers of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writers {
    /// `POST /v1/hooks/claude-code`, one event a request.
    pub(crate) native: usize,
    /// `POST /events` of the old contract.
    pub(crate) legacy: usize,
    /// Frames written straight into the spool.
    pub(crate) frames: usize,
    /// Real `taffrail-hook` processes.
    pub(crate) hooks: usize,
}

impl Load {
    pub(crate) fn start(seed: u64, target: Target, writers: Writers) -> Self {
        let (ledger, target) = (Arc::new(Ledger::default()), Arc::new(target));
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { ledger, target, stop, threads: Vec::new() };
        let mut lane = 0;
        let kinds = [
            (writers.native, Writer::native as fn(&mut Writer) -> Result<()>),
            (writers.legacy, Writer::legacy),
            (writers.frames, Writer::frames),
            (writers.hooks, Writer::hooks),
        ];
        for (count, run) in kinds {
            for _ in 0..count {
                lane += 1;
                let mut writer = load.writer(seed.wrapping_mul(1_000).wrapping_add(lane));
                load.threads.push(std::thread::spawn(move || run(&mut writer)));
            }
        }
        load
    }

    fn writer(&self, seed: u64) -> Writer {
        Writer {
            seed,
            fleet: Fleet::new(FleetOptions::load(seed)),
            ledger: Arc::clone(&self.ledger),
            target: Arc::clone(&self.target),
            stop: Arc::clone(&self.stop),
        }
    }

    pub(crate) fn moved(&self, addr: SocketAddr) {
        *self.target.addr.write().unwrap_or_else(PoisonError::into_inner) = addr;
    }

    /// Ends the writers; their ledger stays.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        match self.ledger.refused().as_slice() {
            [] => Ok(()),
            [first, ..] => bail!("the server refused a delivery: {first}"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Writer {
    seed: u64,
    fleet: Fleet,
    ledger: Arc<Ledger>,
    target: Arc<Target>,
    stop: Arc<AtomicBool>,
}

/// One tool fact, rendered.
struct Delivery {
    key: DedupKey,
    event_id: Uuid,
    step: Step,
    payload: String,
}

impl Writer {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn next(&mut self) -> Delivery {
        scratch::wait_if_interrupted();
        loop {
            let mut step = self.fleet.step();
            if !matches!(step.kind, Kind::Pre | Kind::Post | Kind::Failure) {
                continue;
            }
            // Agents come and go between the Pre and the Post of a call only in the real world.
            step.agent = None;
            let payload = step.payload(self.seed);
            let key = key_of(payload.as_bytes()).unwrap_or(DedupKey([0; 16]));
            self.ledger.sending(key);
            return Delivery { key, event_id: step.event_id(self.seed), step, payload };
        }
    }

    fn native(&mut self) -> Result<()> {
        let mut connection = None;
        while !self.stopped() {
            let delivery = self.next();
            let id = delivery.event_id.hyphenated().to_string();
            let headers = [("x-taffrail-event-id", id.as_str())];
            let request = Request::post("/v1/hooks/claude-code", &headers, delivery.payload.as_bytes());
            if self.deliver(&mut connection, &request) {
                lock(&self.ledger.synced).push(delivery.key);
            }
        }
        Ok(())
    }

    fn legacy(&mut self) -> Result<()> {
        let mut connection = None;
        while !self.stopped() {
            let delivery = self.next();
            let body = legacy_body(&delivery)?;
            if self.deliver(&mut connection, &Request::post("/events", &[], body.as_bytes())) {
                lock(&self.ledger.synced).push(delivery.key);
            }
        }
        Ok(())
    }

    /// Sends until there is an answer; false where the writers were stopped first or the server said no.
    fn deliver(&self, connection: &mut Option<Connection>, request: &Request<'_>) -> bool {
        while !self.stopped() {
            if connection.is_none() {
                let addr = *self.target.addr.read().unwrap_or_else(PoisonError::into_inner);
                *connection = Connection::open(addr, REQUEST_LIMIT).ok();
            }
            let Some(open) = connection else {
                std::thread::sleep(RETRY_PAUSE);
                continue;
            };
            match open.send(request) {
                Ok(answer) if answer.is_success() => return true,
                Ok(answer) if answer.status == 503 || answer.status == 429 => std::thread::sleep(RETRY_PAUSE),
                Ok(answer) => {
                    lock(&self.ledger.refused).push(format!(
                        "{} {}: {}",
                        request.path,
                        answer.status,
                        answer.text()
                    ));
                    return false;
                }
                Err(_) => *connection = None,
            }
        }
        false
    }

    fn frames(&mut self) -> Result<()> {
        let spool = self.target.data_dir.join("spool");
        fs::create_dir_all(&spool)?;
        let poke = UnixDatagram::unbound()?;
        let mut waiting: Vec<(PathBuf, DedupKey)> = Vec::new();
        while !self.stopped() {
            if waiting.len() < FRAMES_WAITING_MAX {
                let delivery = self.next();
                let path = write_frame(&spool, delivery.event_id, delivery.payload.as_bytes())?;
                waiting.push((path, delivery.key));
                let _ = poke.send_to(b"!", self.target.data_dir.join("poke.sock"));
            } else {
                std::thread::sleep(SPOOL_PAUSE);
            }
            self.taken(&mut waiting);
        }
        // What still lies there at the end was spooled, and must be drained later.
        lock(&self.ledger.spooled).extend(waiting.into_iter().map(|(_, key)| key));
        Ok(())
    }

    /// Frames that are gone were committed before: so the server says by deleting them.
    fn taken(&self, waiting: &mut Vec<(PathBuf, DedupKey)>) {
        let mut synced = Vec::new();
        waiting.retain(|(path, key)| {
            let there = path.exists();
            if !there {
                synced.push(*key);
            }
            there
        });
        lock(&self.ledger.synced).extend(synced);
    }

    fn hooks(&mut self) -> Result<()> {
        let mut command = crate::bench::hook_command(&self.target.hook, &self.target.data_dir);
        while !self.stopped() {
            let delivery = self.next();
            let ended = process::run(&mut command, delivery.payload.as_bytes())?;
            if ended.code != Some(0) {
                bail!(
                    "taffrail-hook ended with {:?}: {}",
                    ended.code,
                    String::from_utf8_lossy(&ended.stderr)
                );
            }
            lock(&self.ledger.spooled).push(delivery.key);
        }
        Ok(())
    }
}

/// The key that the server gives a tool fact, computed from its payload; none for any other payload.
pub(crate) fn key_of(payload: &[u8]) -> Option<DedupKey> {
    let payload: Value = serde_json::from_slice(payload).ok()?;
    let text = |name: &str| payload.get(name).and_then(Value::as_str);
    Some(DedupKey::of_tool_fact(
        text("session_id")?,
        text("agent_id"),
        text("tool_use_id")?,
        text("hook_event_name")?,
    ))
}

/// Keys of the frames that lie in a spool now. One that vanishes while it is read was committed.
pub(crate) fn keys_in_spool(data_dir: &Path) -> HashSet<DedupKey> {
    let frames = crate::bench::frames(&data_dir.join("spool"));
    let decoded = frames.iter().filter_map(|path| frame::decode(&fs::read(path).ok()?).ok());
    decoded.filter_map(|frame| key_of(&frame.payload)).collect()
}

fn legacy_body(delivery: &Delivery) -> Result<String> {
    let payload: Value = serde_json::from_str(&delivery.payload).context("own payload")?;
    let body = json!({
        "source_app": crate::workload::APPS[delivery.step.app],
        "session_id": payload["session_id"],
        "hook_event_type": delivery.step.type_name(),
        "tool_use_id": payload["tool_use_id"],
        "payload": payload,
        "timestamp": now_ms(),
    });
    Ok(body.to_string())
}

pub(super) fn write_frame(spool: &Path, event_id: Uuid, payload: &[u8]) -> Result<PathBuf> {
    let header = FrameHeader::new(event_id, now_ms(), payload.len() as u64);
    let bytes =
        frame::encode(&header, payload).map_err(|error| anyhow::anyhow!("cannot encode a frame: {error}"))?;
    let name = event_id.hyphenated().to_string();
    let draft = spool.join(format!("{name}.tmp"));
    let path = spool.join(format!("{name}.frame"));
    fs::write(&draft, bytes)?;
    fs::rename(&draft, &path)?;
    Ok(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
