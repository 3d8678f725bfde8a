//! `taffrail-bench fill`: a large, realistic database, made by the store itself.
//!
//! Thirty days of a fleet: 20 projects, about 10,000 sessions, 15 tools, Pre and Post pairs, failures, subagents. Every
//! event is normalized and appended like any other, in batches of the writer's own size and with
//! `Durability::Process`, so that no commit waits for the disk; nothing is inserted past the store. Only redaction is
//! left out: the generated payloads hold no secrets. Events and ids follow from the seed, so that a fill that was
//! broken off goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use taffrail_event::event::Source;
use taffrail_event::normalize::{self, Delivery};
use taffrail_event::{Event, EventId, TimestampMs};
use taffrail_store::{Durability, Options, Store};

use crate::clock::now_ms;
use crate::workload::{APPS, Fleet, FleetOptions, Step};

const SEED: u64 = 20;
/// How far back the fleet goes.
const SPAN_MS: i64 = 30 * 24 * 3_600_000;
/// Sessions in all, for full size; a smaller database has fewer, of the same length.
const EVENTS_PER_SESSION: u64 = 1_000;
const SESSIONS_AT_ONCE: usize = 48;
const CHUNK_EVENTS: u64 = 1_000;
/// Threads that render and normalize; the writer is one more.
const WORKERS: usize = 2;
const CHUNKS_AHEAD: usize = 4;
/// How often the state file is written, in chunks.
const STATE_EVERY: u64 = 50;
const WRITER_CACHE_BYTES: usize = 256 << 20;
const STATE_FILE: &str = "fill.json";
/// From an event to its receipt.
const RECEIVED_AFTER_MS: i64 = 3;

/// The command line of `fill`.
#[derive(Args, Debug)]
pub(crate) struct FillArgs {
    /// How many events the database shall have.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// The data directory; its database is `taffrail.db` inside.
    #[arg(long)]
    dir: PathBuf,
}

/// How far a fill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    seed: u64,
    from_ms: i64,
    events: u64,
    done: u64,
}

pub(crate) fn run(args: &FillArgs) -> Result<()> {
    fill(&args.dir, args.events)
}

/// Makes the database in `dir`, or what is missing of it.
pub(crate) fn fill(dir: &Path, events: u64) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut state = load(dir, events)?;
    if state.done == state.events {
        return Ok(());
    }
    let begun = Instant::now();
    let first = state.done;
    append_all(dir, &mut state)?;
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!(
        "filled {} events in {seconds:.0} s ({:.0} a second)",
        events - first,
        (events - first) as f64 / seconds
    );
    Ok(())
}

/// The id of the fleet's session `n`: there is one for every `n` below the events over 2,000.
pub(crate) fn session_id(n: u64) -> String {
    crate::workload::session_id(SEED, n)
}

fn load(dir: &Path, events: u64) -> Result<State> {
    let path = dir.join(STATE_FILE);
    if !path.exists() {
        let state = State { seed: SEED, from_ms: now_ms() - SPAN_MS, events, done: 0 };
        save(dir, &state)?;
        return Ok(state);
    }
    let state: State = serde_json::from_slice(&fs::read(&path)?).context("not the state of a fill")?;
    if state.events != events || state.seed != SEED {
        bail!(
            "{} is a database of {} events, not {events}\nhint: choose another directory, or delete this one",
            dir.display(),
            state.events
        );
    }
    Ok(state)
}

fn save(dir: &Path, state: &State) -> Result<()> {
    let path = dir.join(STATE_FILE);
    let draft = path.with_extension("tmp");
    fs::write(&draft, serde_json::to_vec(state)?)?;
    Ok(fs::rename(draft, path)?)
}

fn append_all(dir: &Path, state: &mut State) -> Result<()> {
    let options = Options {
        durability: Durability::Process,
        cache_bytes: WRITER_CACHE_BYTES,
        ..Options::new(dir.join("taffrail.db"))
    };
    let store = Store::open(&options)?;
    let bar = progress(state);
    let todo = *state;
    let result = std::thread::scope(|scope| {
        let mut chunks: Vec<Receiver<Vec<Event>>> = Vec::new();
        for worker in 0..WORKERS {
            let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
            chunks.push(receiver);
            scope.spawn(move || produce(&todo, worker, &sender));
        }
        for chunk in 0_u64.. {
            // The workers take turns, so that events come in the order of their time.
            let at = usize::try_from(chunk).unwrap_or(0) % WORKERS;
            let Ok(events) = chunks[at].recv() else { break };
            let appended = events.len() as u64;
            store.append(events)?;
            state.done += appended;
            bar.inc(appended);
            if chunk.is_multiple_of(STATE_EVERY) {
                save(dir, state)?;
            }
        }
        Ok(())
    });
    store.close();
    bar.finish_and_clear();
    save(dir, state)?;
    result
}

/// Renders and normalizes this worker's chunks, oldest first.
fn produce(state: &State, worker: usize, chunks: &SyncSender<Vec<Event>>) {
    let mut fleet = Fleet::new(FleetOptions {
        seed: state.seed,
        at_once: SESSIONS_AT_ONCE,
        events_per_session: EVENTS_PER_SESSION,
        from_ms: state.from_ms,
        gap_us: u64::try_from(SPAN_MS * 1_000).unwrap_or(0) / state.events.max(1),
    });
    for _ in 0..state.done {
        fleet.step();
    }
    let mut at = state.done;
    for turn in 0.. {
        let size = CHUNK_EVENTS.min(state.events - at);
        if size == 0 {
            return;
        }
        let mine = turn % WORKERS == worker;
        let mut events = Vec::new();
        for _ in 0..size {
            let step = fleet.step();
            if mine {
                events.push(event(&step, state.seed));
            }
        }
        at += size;
        // The other end goes away when the store fails.
        if mine && chunks.send(events).is_err() {
            return;
        }
    }
}

/// A step as the event that the server would make of it.
pub(crate) fn event(step: &Step, seed: u64) -> Event {
    let payload = step.payload(seed);
    let delivery = Delivery {
        event_id: EventId::from_uuid(step.event_id(seed)),
        source: Source::Hook,
        captured: Some(TimestampMs::clamped(step.ts_ms)),
        received: TimestampMs::clamped(step.ts_ms + RECEIVED_AFTER_MS),
        app: Some(APPS[step.app]),
        user: Some("dev"),
        host: Some("bench"),
        payload: payload.as_bytes(),
        payload_bytes: payload.len() as u64,
        truncated: false,
        redactions: 0,
        hook_wall_us: None,
    };
    normalize::hook(&delivery, &|_| None)
}

fn progress(state: &State) -> ProgressBar {
    let bar = ProgressBar::new(state.events).with_position(state.done);
    let style =
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
