//! Read latencies on the large database, through HTTP, with the token.
//!
//! Two looks at each route: the first request to a server that was just started (its caches are empty, the system's are
//! not, unless they were dropped), and many requests, all routes in turn.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bench;
use crate::clock::now_ms;
use crate::fill;
use crate::http::{Connection, EchoServer, Request};
use crate::report::{Section, group};
use crate::server::Server;
use crate::stats::Samples;
use crate::workload::{Fleet, FleetOptions, RARE_TOOL, RARE_WORD};

const SUMMARY_TARGET_MS: f64 = 10.0;
const FIRST_READ_TARGET_MS: f64 = 50.0;
const WINDOWS: [&str; 8] = ["1m", "5m", "15m", "1h", "6h", "24h", "7d", "30d"];
/// Events posted just before, so that the short windows hold something.
const FRESH_EVENTS: u64 = 2_000;
const HOUR_MS: i64 = 3_600_000;

/// A route and what its answer must hold.
pub(super) struct Route {
    name: String,
    path: String,
    expect: Expect,
}

/// The logical result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A page with at least one row.
    Rows,
    /// Any page.
    Page,
    /// An object with this key.
    Key(&'static str),
    /// A bare array with at least one element.
    Array,
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let dir = bench.large_db()?;
    let log = bench.scratch.path().join("reads.log");
    let events = group(bench.db_events as f64);
    let mut section = Section::new(
        "",
        &format!("How long does a read take on {events} events, the first time and later?"),
        "Keep-alive over loopback with the token; every answer is checked for rows. `first` is the first request to a \
         server that was just started, one start for each. Floors: the echo server, `/ready`, and for the first page of \
         events the same rows by plain SQL without payloads.",
    );
    let server = Server::start(&bench.binaries.taffrail, &dir, &log)?;
    top_up(&server)?;
    let routes = routes(&server, bench)?;
    warm(bench, &server, &routes, &dir, &mut section)?;
    server.stop()?;
    first(bench, &routes, &dir, &log, &mut section)?;
    Ok(section)
}

/// Posts events of the present.
fn top_up(server: &Server) -> Result<()> {
    let seed = u64::try_from(now_ms()).unwrap_or(1);
    let mut fleet = Fleet::new(FleetOptions::load(seed));
    let mut body = String::new();
    for _ in 0..FRESH_EVENTS {
        use std::fmt::Write as _;
        let step = fleet.step();
        let (id, now) = (step.event_id(seed).hyphenated(), now_ms());
        writeln!(body, r#"{{"event_id":"{id}","captured_ms":{now},"payload":{}}}"#, step.payload(seed))?;
    }
    let answer =
        server.connect()?.send(&Request::post("/v1/hooks/claude-code/batch", &[], body.as_bytes()))?;
    ensure!(answer.is_success(), "the fresh events were refused: {}", answer.text());
    Ok(())
}

/// Every read of the API and every kind of filter, common and rare.
pub(super) fn routes(server: &Server, bench: &Bench) -> Result<Vec<Route>> {
    let session = fill::session_id(bench.db_events / 4_000);
    let now = now_ms();
    let (from, to) = (now - 15 * 24 * HOUR_MS, now - 15 * 24 * HOUR_MS + HOUR_MS);
    let route = |name: &str, path: String, expect| Route { name: name.to_owned(), path, expect };
    let events = |name: &str, query: &str, expect| {
        route(&format!("events, {name}"), format!("/api/v1/events?limit=100&payload=false{query}"), expect)
    };
    // Rare rows need a large database to be there at all.
    let rare = if bench.db_events >= 1_000_000 { Expect::Rows } else { Expect::Page };
    let mut all = Vec::new();
    for window in WINDOWS {
        let path = format!("/api/v1/summary?window={window}");
        all.push(route(&format!("summary {window}"), path.clone(), Expect::Key("performance")));
        all.push(route(
            &format!("summary {window}, one app"),
            format!("{path}&app=atlas"),
            Expect::Key("performance"),
        ));
    }
    let scoped = format!("/api/v1/summary?window=30d&session={session}");
    all.push(route("summary 30d, one session", scoped, Expect::Key("performance")));
    let with_payloads = "/api/v1/events?limit=100".to_owned();
    all.push(route("events, first page with payloads", with_payloads, Expect::Rows));
    all.extend([
        events("first page", "", Expect::Rows),
        events("app", "&app=atlas", Expect::Rows),
        events("app, rarest", "&app=warehouse", Expect::Page),
        events("session", &format!("&session={session}"), Expect::Rows),
        events("type", "&type=PostToolUse", Expect::Rows),
        events("type, rare", "&type=SessionEnd", rare),
        events("type, never seen", "&type=WorktreeRemove", Expect::Page),
        events("tool", "&tool=Bash", Expect::Rows),
        events("tool, rare", &format!("&tool={RARE_TOOL}"), rare),
        events("app and tool, rare", &format!("&app=warehouse&tool={RARE_TOOL}"), Expect::Page),
        events("session and type", &format!("&session={session}&type=Stop"), Expect::Page),
        events("text, common", "&q=cargo", Expect::Rows),
        events("text, rare", &format!("&q={RARE_WORD}"), Expect::Page),
        events("text, nowhere", "&q=xyzzyxyzzy", Expect::Page),
        events("an hour two weeks ago", &format!("&from={from}&to={to}"), Expect::Rows),
        events("app in that hour", &format!("&from={from}&to={to}&app=atlas"), Expect::Page),
        events("rare tool in that hour", &format!("&from={from}&to={to}&tool={RARE_TOOL}"), Expect::Page),
    ]);
    all.extend([
        route("old contract: recent 300", "/events/recent?limit=300".to_owned(), Expect::Array),
        route(
            "old contract: filter options",
            "/events/filter-options".to_owned(),
            Expect::Key("source_apps"),
        ),
        route("filters", "/api/v1/filters".to_owned(), Expect::Key("apps")),
        route("sessions", "/api/v1/sessions?limit=100".to_owned(), Expect::Rows),
        route("sessions, one app", "/api/v1/sessions?limit=100&app=atlas".to_owned(), Expect::Rows),
        route("one session", format!("/api/v1/sessions/{session}"), Expect::Key("session_id")),
        route("its agents", format!("/api/v1/sessions/{session}/agents"), Expect::Page),
        route("its timeline", format!("/api/v1/sessions/{session}/timeline"), Expect::Page),
        route("calls", "/api/v1/calls?limit=100".to_owned(), Expect::Rows),
        route("calls of a session", format!("/api/v1/calls?limit=100&session={session}"), Expect::Rows),
        route("calls, one tool", "/api/v1/calls?limit=100&tool=Bash".to_owned(), Expect::Rows),
        route("calls, rare tool", format!("/api/v1/calls?limit=100&tool={RARE_TOOL}"), Expect::Page),
        route("calls, failed", "/api/v1/calls?limit=100&status=failed".to_owned(), Expect::Rows),
    ]);
    all.push(second_page(server)?);
    Ok(all)
}

/// The page after the first, by the cursor that the first gave.
fn second_page(server: &Server) -> Result<Route> {
    let first = get(&mut server.connect()?, "/api/v1/events?limit=100&payload=false", &server.bearer()?)?.1;
    let cursor = first["next_cursor"].as_str().context("the first page has no cursor")?;
    let path = format!("/api/v1/events?limit=100&payload=false&cursor={cursor}");
    Ok(Route { name: "events, second page".to_owned(), path, expect: Expect::Rows })
}

/// One read: how long it took, and its answer.
pub(super) fn read(connection: &mut Connection, route: &Route, bearer: &str) -> Result<Duration> {
    let (took, body) = get(connection, &route.path, bearer)?;
    let items = || body["items"].as_array().map_or(0, Vec::len);
    let ok = match route.expect {
        Expect::Rows => items() > 0,
        Expect::Page => body.is_object() || body.is_array(),
        Expect::Key(key) => body.get(key).is_some(),
        Expect::Array => body.as_array().is_some_and(|rows| !rows.is_empty()),
    };
    ensure!(ok, "{}: {:?} expected, got {}", route.path, route.expect, short(&body));
    Ok(took)
}

fn get(connection: &mut Connection, path: &str, bearer: &str) -> Result<(Duration, Value)> {
    let headers = [("Authorization", bearer)];
    let begun = Instant::now();
    let answer = connection.send(&Request::get(path, &headers)).with_context(|| path.to_owned())?;
    let took = begun.elapsed();
    ensure!(answer.status == 200, "{path} said {}: {}", answer.status, answer.text());
    let body = serde_json::from_slice(&answer.body).with_context(|| format!("{path}: no JSON"))?;
    Ok((took, body))
}

fn short(body: &Value) -> String {
    body.to_string().chars().take(200).collect()
}

fn warm(bench: &Bench, server: &Server, routes: &[Route], dir: &Path, section: &mut Section) -> Result<()> {
    let rounds = bench.size.of(2, 30, 300);
    let bearer = server.bearer()?;
    let mut connection = server.connect()?;
    let echo = EchoServer::start()?;
    let mut to_echo = Connection::open(echo.addr(), Duration::from_secs(10))?;
    let sql = rusqlite::Connection::open_with_flags(
        dir.join("taffrail.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let mut samples = vec![Samples::default(); routes.len()];
    let (mut floor, mut ready, mut plain) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        for (route, samples) in routes.iter().zip(&mut samples) {
            samples.push_ms(read(&mut connection, route, &bearer)?);
        }
        for (connection, samples) in [(&mut to_echo, &mut floor), (&mut connection, &mut ready)] {
            let begun = Instant::now();
            connection.send(&Request::get("/ready", &[]))?;
            samples.push_ms(begun.elapsed());
        }
        plain.push_ms(first_page_by_sql(&sql)?);
    }
    section.spread("floor: echo server", "ms", &floor);
    section.spread("floor: `/ready`", "ms", &ready);
    section.spread("floor: first page of events, plain SQL", "ms", &plain);
    let mut worst: f64 = 0.0;
    for (route, samples) in routes.iter().zip(&samples) {
        section.spread(&route.name, "ms", samples);
        if let (true, Some(spread)) = (route.name.starts_with("summary"), samples.spread()) {
            worst = worst.max(spread.p99);
        }
    }
    section.at_most("p99 of the slowest summary", "ms", SUMMARY_TARGET_MS, worst);
    Ok(())
}

fn first_page_by_sql(db: &rusqlite::Connection) -> Result<Duration> {
    let begun = Instant::now();
    let mut statement = db.prepare_cached("SELECT * FROM events ORDER BY id DESC LIMIT 100")?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut n = 0;
    while let Some(row) = rows.next()? {
        for at in 0..columns {
            std::hint::black_box(row.get_ref(at)?);
        }
        n += 1;
    }
    let took = begun.elapsed();
    ensure!(n > 0, "no events");
    Ok(took)
}

/// The first request to a fresh server, for every route.
fn first(bench: &Bench, routes: &[Route], dir: &Path, log: &Path, section: &mut Section) -> Result<()> {
    let starts = bench.size.of(1, 2, 5);
    let mut worst = (0.0, "");
    for route in routes {
        // The tiny size looks at a few kinds only: each look is a start.
        if bench.size == super::Size::Tiny && !route.name.ends_with("first page") {
            continue;
        }
        let (mut samples, mut cold) = (Samples::default(), Samples::default());
        for _ in 0..starts {
            samples.push_ms(read_first(bench, route, dir, log)?);
        }
        if bench.drop_caches {
            drop_caches()?;
            cold.push_ms(read_first(bench, route, dir, log)?);
            section.spread(format!("first, disk cold: {}", route.name), "ms", &cold);
        }
        section.spread(format!("first: {}", route.name), "ms", &samples);
        if let Some(spread) = samples.spread()
            && spread.max > worst.0
        {
            worst = (spread.max, &route.name);
        }
    }
    section.at_most(format!("slowest first read ({})", worst.1), "ms", FIRST_READ_TARGET_MS, worst.0);
    Ok(())
}

fn read_first(bench: &Bench, route: &Route, dir: &Path, log: &Path) -> Result<Duration> {
    let server = Server::start(&bench.binaries.taffrail, dir, log)?;
    let took = read(&mut server.connect()?, route, &server.bearer()?)?;
    server.stop()?;
    Ok(took)
}

pub(super) fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    let mut file =
        fs::File::options().write(true).open("/proc/sys/vm/drop_caches").context("cannot drop caches")?;
    Ok(file.write_all(b"3")?)
}
