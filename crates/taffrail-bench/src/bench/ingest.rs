//! Ingest: one by one over keep-alive beside an echo server, and in batches beside raw SQLite.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use taffrail_store::{Options, Store};

use super::Bench;
use super::raw::Rows;
use crate::check::count_events;
use crate::fill;
use crate::http::{Connection, EchoServer, Request};
use crate::report::Section;
use crate::server::Server;
use crate::stats::Samples;
use crate::workload::{APPS, Fleet, FleetOptions, Step};

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Batch ingest, as a share of raw SQLite.
const TARGET_SHARE_PERCENT: f64 = 60.0;
const BATCH_SIZES: [usize; 2] = [100, 1_000];
/// A busy fleet: 50 events a second.
const BATCH_GAP_US: u64 = 20_000;

/// A request, made before the clock runs.
struct Post {
    path: &'static str,
    event_id: String,
    body: String,
}

/// Old contract or native.
#[derive(Clone, Copy, Debug)]
enum Route {
    Native,
    Legacy,
}

impl Route {
    const fn path(self) -> &'static str {
        match self {
            Self::Native => "/v1/hooks/claude-code",
            Self::Legacy => "/events",
        }
    }
}

/// One request an event, over 1 and over 8 connections.
pub(super) fn one_by_one(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "",
        "How many events a second go in one request each, and how long does one wait until it is committed and synced?",
        "Keep-alive over loopback, requests made beforehand, rounds in turn with the same requests to an echo server. \
         The echo server is this program's own (blocking std sockets, a thread a connection, answers `{}`): the HTTP \
         library of the server is not in this program. One request after the other waits for one sync each, so beside \
         it stands raw SQLite with one transaction an event.",
    );
    let echo = EchoServer::start()?;
    for route in [Route::Native, Route::Legacy] {
        for connections in [1, 8] {
            rounds(bench, &echo, route, connections, &mut section)?;
        }
    }
    raw_one_by_one(bench, &mut section)?;
    Ok(section)
}

fn rounds(
    bench: &Bench,
    echo: &EchoServer,
    route: Route,
    connections: usize,
    section: &mut Section,
) -> Result<()> {
    let (rounds, per_round) = bench.size.of((1, 40), (3, 500), (7, 4_000));
    let (dir, log) = bench.data_dir(&format!("ingest-{route:?}-{connections}"))?;
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    let mut fleet = Fleet::new(FleetOptions::load(11));
    let (mut floor, mut measured) = (Load::default(), Load::default());
    for _ in 0..rounds {
        let posts: Vec<Post> = (0..per_round).map(|_| post(&fleet.step(), 11, route)).collect();
        floor.add(send_all(echo.addr(), &posts, connections)?);
        measured.add(send_all(server.addr(), &posts, connections)?);
    }
    server.stop()?;
    let (sent, stored) = ((rounds * per_round) as u64, count_events(&dir)?);
    ensure!(stored == sent, "{sent} acknowledged over {}, {stored} stored", route.path());
    let case = format!(
        "`POST {}`, {connections} connection{}",
        route.path(),
        if connections == 1 { "" } else { "s" }
    );
    section.spread(format!("{case}: latency"), "ms", &measured.latency);
    section.spread(format!("{case}: floor, echo server"), "ms", &floor.latency);
    section.spread(format!("{case}: rate"), "events/s", &measured.rate);
    section.spread(format!("{case}: floor, echo server"), "requests/s", &floor.rate);
    Ok(())
}

/// What one side of a comparison did.
#[derive(Default)]
struct Load {
    latency: Samples,
    rate: Samples,
}

impl Load {
    fn add(&mut self, (latency, rate): (Samples, f64)) {
        self.latency.extend(&latency);
        self.rate.push(rate);
    }
}

fn send_all(addr: SocketAddr, posts: &[Post], connections: usize) -> Result<(Samples, f64)> {
    let begun = Instant::now();
    let done: Vec<Result<Samples>> = std::thread::scope(|scope| {
        let parts = posts.chunks(posts.len().div_ceil(connections));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || send(addr, part))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a sender panicked"))).collect()
    });
    let rate = posts.len() as f64 / begun.elapsed().as_secs_f64();
    let mut all = Samples::default();
    for samples in done {
        all.extend(&samples?);
    }
    Ok((all, rate))
}

fn send(addr: SocketAddr, posts: &[Post]) -> Result<Samples> {
    let mut connection = Connection::open(addr, REQUEST_LIMIT)?;
    let mut latency = Samples::default();
    for post in posts {
        let headers = [("x-taffrail-event-id", post.event_id.as_str())];
        let begun = Instant::now();
        let answer = connection.send(&Request::post(post.path, &headers, post.body.as_bytes()))?;
        latency.push_ms(begun.elapsed());
        ensure!(answer.is_success(), "{} said {}: {}", post.path, answer.status, answer.text());
    }
    Ok(latency)
}

fn post(step: &Step, seed: u64, route: Route) -> Post {
    let payload = step.payload(seed);
    let body = match route {
        Route::Native => payload,
        Route::Legacy => legacy_body(step, &payload),
    };
    Post { path: route.path(), event_id: step.event_id(seed).hyphenated().to_string(), body }
}

fn legacy_body(step: &Step, payload: &str) -> String {
    let payload: Value = serde_json::from_str(payload).unwrap_or(Value::Null);
    let body = json!({
        "source_app": APPS[step.app],
        "session_id": payload["session_id"],
        "hook_event_type": step.type_name(),
        "timestamp": step.ts_ms,
        "payload": payload,
    });
    body.to_string()
}

fn raw_one_by_one(bench: &Bench, section: &mut Section) -> Result<()> {
    let events = bench.size.of(20, 300, 2_000);
    let (dir, _) = bench.data_dir("ingest-raw")?;
    let batch = Batch::new(events);
    batch.store(&dir.join("store.db"), events)?;
    let rows = Rows::read(&dir.join("store.db"))?;
    let took = rows.insert(&dir.join("raw.db"), events)?;
    let rate = events as f64 / took.as_secs_f64();
    section.value("floor: raw SQLite, one transaction an event, one writer", "events/s", rate);
    Ok(())
}

/// Events for the batch comparison, in all three forms.
struct Batch {
    steps: Vec<Step>,
    events: Vec<taffrail_event::Event>,
}

const BATCH_SEED: u64 = 12;

impl Batch {
    fn new(n: usize) -> Self {
        let options = FleetOptions { gap_us: BATCH_GAP_US, ..FleetOptions::load(BATCH_SEED) };
        let mut fleet = Fleet::new(options);
        let steps: Vec<Step> = (0..n).map(|_| fleet.step()).collect();
        let events = steps.iter().map(|step| fill::event(step, BATCH_SEED)).collect();
        Self { steps, events }
    }

    /// Appends all to a new database, `size` at a time; the time of that alone.
    fn store(&self, path: &Path, size: usize) -> Result<Duration> {
        let store = Store::open(&Options::new(path))?;
        let parts: Vec<Vec<_>> = self.events.chunks(size).map(<[_]>::to_vec).collect();
        let begun = Instant::now();
        for part in parts {
            store.append(part)?;
        }
        let took = begun.elapsed();
        store.close();
        Ok(took)
    }

    fn bodies(&self, size: usize) -> Vec<String> {
        self.steps.chunks(size).map(lines).collect()
    }

    /// The pure part of the work before the store: rendering left out, understanding left in.
    fn normalize(&self) -> Duration {
        let begun = Instant::now();
        for step in &self.steps {
            std::hint::black_box(fill::event(step, BATCH_SEED));
        }
        let with_rendering = begun.elapsed();
        let begun = Instant::now();
        for step in &self.steps {
            std::hint::black_box(step.payload(BATCH_SEED));
        }
        with_rendering.saturating_sub(begun.elapsed())
    }
}

fn lines(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        let _ = writeln!(
            out,
            r#"{{"event_id":"{}","captured_ms":{},"app":"{}","user":"dev","host":"bench","payload":{}}}"#,
            step.event_id(BATCH_SEED).hyphenated(),
            step.ts_ms,
            APPS[step.app],
            step.payload(BATCH_SEED)
        );
    }
    out
}

/// Many events a transaction: raw SQLite, the store, the server.
pub(super) fn batches(bench: &Bench) -> Result<Section> {
    let mut section = Section::new(
        "",
        "How fast do batches go in, beside raw SQLite inserts of the same rows?",
        "Rounds in turn: (a) floor: every finished row of the same events, read back from a database that the store \
         wrote, inserted into the same schema with the same indexes, settings and `synchronous=FULL`, prepared \
         statements, as many transactions; (b) `Store::append` of normalized events; (c) `POST \
         /v1/hooks/claude-code/batch` over keep-alive, everything included: HTTP, JSON, redaction, normalization. The \
         floor does none of the work that makes an event into rows, and inserts each session and total once, finished.",
    );
    let (rounds, events) = bench.size.of((1, 300), (3, 10_000), (7, 100_000));
    let batch = Batch::new(events);
    for size in BATCH_SIZES {
        compare(bench, &batch, rounds, size, &mut section)?;
    }
    let seconds = batch.normalize().as_secs_f64();
    section.value("normalization alone, one thread", "events/s", events as f64 / seconds);
    Ok(section)
}

fn compare(bench: &Bench, batch: &Batch, rounds: usize, size: usize, section: &mut Section) -> Result<()> {
    let events = batch.events.len();
    let rate = |took: Duration| events as f64 / took.as_secs_f64();
    let (dir, _) = bench.data_dir("batch")?;
    batch.store(&dir.join("first.db"), size)?;
    let rows = Rows::read(&dir.join("first.db"))?;
    let bodies = batch.bodies(size);
    let (mut raw, mut store, mut http) = (Samples::default(), Samples::default(), Samples::default());
    let (mut store_share, mut http_share) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let (dir, _) = bench.data_dir("batch")?;
        let floor = rate(rows.insert(&dir.join("raw.db"), events.div_ceil(size))?);
        let stored = rate(batch.store(&dir.join("store.db"), size)?);
        let posted = rate(post_batches(bench, &bodies, events)?);
        for (samples, value) in [
            (&mut raw, floor),
            (&mut store, stored),
            (&mut http, posted),
            (&mut store_share, stored / floor * 100.0),
            (&mut http_share, posted / floor * 100.0),
        ] {
            samples.push(value);
        }
    }
    section.value(
        format!("{size} a batch: rows per event, all tables"),
        "rows",
        rows.len() as f64 / events as f64,
    );
    section.spread(format!("{size} a batch: floor, raw SQLite"), "events/s", &raw);
    section.spread(format!("{size} a batch: `Store::append`"), "events/s", &store);
    section.spread(format!("{size} a batch: batch request"), "events/s", &http);
    section.spread(format!("{size} a batch: `Store::append`, share of the floor"), "%", &store_share);
    section.spread(format!("{size} a batch: batch request, share of the floor"), "%", &http_share);
    for (what, share) in [("`Store::append`", &store_share), ("batch request", &http_share)] {
        let reached = share.spread().context("no rounds")?.p50;
        section.at_least(
            format!("{size} a batch, {what}: share of raw SQLite"),
            "%",
            TARGET_SHARE_PERCENT,
            reached,
        );
    }
    Ok(())
}

fn post_batches(bench: &Bench, bodies: &[String], events: usize) -> Result<Duration> {
    let (dir, log) = bench.data_dir("batch-server")?;
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    let mut connection = Connection::open(server.addr(), REQUEST_LIMIT)?;
    let begun = Instant::now();
    for body in bodies {
        let answer = connection.send(&Request::post("/v1/hooks/claude-code/batch", &[], body.as_bytes()))?;
        ensure!(answer.is_success(), "a batch was refused: {} {}", answer.status, answer.text());
    }
    let took = begun.elapsed();
    server.stop()?;
    let stored = count_events(&dir)?;
    ensure!(stored == events as u64, "{events} acknowledged in batches, {stored} stored");
    Ok(took)
}
