//! How the server is: in one word for a script, in five checks with evidence for a person, in figures for Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::PoisonError;
use taffrail_event::TimestampMs;
use taffrail_hook::spool::{Backlog, SpoolDir};
use taffrail_store::{StoreSize, WriterStats};

use crate::clock;
use crate::metrics::resident_bytes;
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

/// Less free space than this is a warning, in bytes.
const DISK_LOW_BYTES: i64 = 1 << 30;
/// Less free space than this is an error, in bytes.
const DISK_OUT_BYTES: i64 = 64 << 20;
/// A queue this full is a warning, in percent.
const QUEUE_HIGH_PERCENT: u64 = 80;
/// So many spooled frames mean that the drain does not keep up.
const SPOOL_HIGH: u64 = 10_000;

/// How something is. The order is from well to ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Not part of this version, or not set up; says nothing about the rest.
    NotConfigured,
    /// As it should be.
    Ok,
    /// Works, but needs a look.
    Degraded,
    /// Does not work.
    Failing,
}

/// The short answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AliveJson {
    /// `ok`, `degraded` or `failing`.
    pub(crate) status: Status,
    /// The program's version.
    pub(crate) version: &'static str,
    /// Since the start.
    pub(crate) uptime_ms: i64,
    /// What a person should know that is no illness; absent where there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// One check.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CheckJson {
    /// How it is.
    pub(crate) status: Status,
    /// One sentence.
    pub(crate) detail: String,
    /// The figures behind it.
    #[schema(value_type = Object)]
    pub(crate) evidence: serde_json::Value,
}

/// The five checks, and the worst of them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct HealthJson {
    /// The worst check.
    pub(crate) status: Status,
    /// The program's version.
    pub(crate) version: &'static str,
    /// Since the start.
    pub(crate) uptime_ms: i64,
    /// Do events come in?
    pub(crate) data_ingestion: CheckJson,
    /// Are they worked off?
    pub(crate) processing: CheckJson,
    /// Are they kept?
    pub(crate) storage: CheckJson,
    /// Can they be read as figures?
    pub(crate) analytics: CheckJson,
    /// Does somebody hear of trouble?
    pub(crate) alerts: CheckJson,
}

/// Whether the server lives.
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = AliveJson)))]
pub(crate) async fn alive(State(app): State<App>) -> Json<AliveJson> {
    Json(AliveJson {
        status: quick_status(&app),
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: uptime_ms(&app),
        notes: app.doors.complaints(),
    })
}

/// Whether it takes events now.
#[utoipa::path(
    get, path = "/ready", tag = "service",
    responses((status = 200, body = AliveJson), (status = 503, body = AliveJson))
)]
pub(crate) async fn ready(State(app): State<App>) -> (StatusCode, Json<AliveJson>) {
    let code = if app.is_stopping() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, alive(State(app)).await)
}

/// What memory alone tells; no disk is touched.
fn quick_status(app: &App) -> Status {
    if app.is_stopping() {
        return Status::Failing;
    }
    let full = queue_percent(app, &app.store.stats()) >= QUEUE_HIGH_PERCENT;
    if full { Status::Degraded } else { Status::Ok }
}

fn uptime_ms(app: &App) -> i64 {
    clock::now_ms() - app.started_ms
}

fn queue_percent(app: &App, stats: &WriterStats) -> u64 {
    stats.queue_events * 100 / app.config.limits.queue_events.max(1) as u64
}

/// What the disk knows.
struct Seen {
    size: StoreSize,
    backlog_of_digests: taffrail_store::Backlog,
    newest: Option<TimestampMs>,
    backlog: Backlog,
    disk_free_bytes: Option<i64>,
}

async fn look(app: &App) -> Result<Seen, Problem> {
    let home = app.home.clone();
    let (size, newest, backlog_of_digests) = app
        .read(|reader| {
            let newest = reader.events(
                &taffrail_store::EventFilter::default(),
                None,
                1,
                taffrail_store::Payloads::Without,
            )?;
            Ok((reader.size()?, newest.rows.first().map(|e| e.received), reader.digest_backlog()?))
        })
        .await?;
    tokio::task::spawn_blocking(move || {
        let backlog = SpoolDir::look(home.dir()).backlog().unwrap_or_default();
        let disk_free_bytes = disk_free_bytes(home.dir());
        Seen { size, backlog_of_digests, newest, backlog, disk_free_bytes }
    })
    .await
    .map_err(|_| Problem::Internal)
}

#[cfg(unix)]
fn disk_free_bytes(dir: &std::path::Path) -> Option<i64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    i64::try_from(stat.f_bavail.saturating_mul(stat.f_frsize)).ok()
}

#[cfg(not(unix))]
fn disk_free_bytes(_dir: &std::path::Path) -> Option<i64> {
    None
}

/// The five checks with their evidence.
#[utoipa::path(
    get, path = "/api/v1/health", tag = "service",
    responses((status = 200, body = HealthJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn checks(State(app): State<App>) -> Result<Json<HealthJson>, Problem> {
    let stats = app.store.stats();
    let seen = look(&app).await;
    let data_ingestion = ingestion(&app, seen.as_ref().ok());
    let processing = processing(&app, &stats, seen.as_ref().ok());
    let storage = match &seen {
        Ok(seen) => storage(&stats, seen),
        Err(problem) => failing(format!("the database cannot be read: {problem}")),
    };
    let analytics = analytics(&app, seen.as_ref().ok()).await;
    let alerts = CheckJson {
        status: Status::NotConfigured,
        detail: "alert rules are not part of this version".to_owned(),
        evidence: serde_json::json!({}),
    };
    let all = [&data_ingestion, &processing, &storage, &analytics, &alerts];
    let status = all.iter().map(|c| c.status).max().unwrap_or(Status::Ok);
    Ok(Json(HealthJson {
        status,
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: uptime_ms(&app),
        data_ingestion,
        processing,
        storage,
        analytics,
        alerts,
    }))
}

fn failing(detail: String) -> CheckJson {
    CheckJson { status: Status::Failing, detail, evidence: serde_json::json!({}) }
}

fn ingestion(app: &App, seen: Option<&Seen>) -> CheckJson {
    let (stored, duplicates) = (app.metrics.events_with("stored"), app.metrics.events_with("duplicate"));
    let refused = app.metrics.events_with("queue_full") + app.metrics.events_with("failed");
    let newest_ms = seen.and_then(|s| s.newest).map(TimestampMs::get);
    let dropped = seen.map_or(0, |s| s.backlog.dropped);
    let age_s = newest_ms.map(|ms| (clock::now_ms() - ms) / 1000);
    let (unreadable, transcripts) = app.transcripts.status.report();
    let (status, detail) = if dropped > 0 {
        (Status::Degraded, format!("{dropped} hook events were dropped while the spool was full"))
    } else if refused > 0 {
        (Status::Degraded, format!("{refused} events were refused since the start; their senders were told"))
    } else if let Some(unreadable) = unreadable {
        (Status::Degraded, unreadable)
    } else if let Some(complaint) = app.doors.complaints().first() {
        // Not ill: OTLP over HTTP is taken on the main port as well.
        (Status::Ok, format!("{complaint}; the main port takes OTLP over HTTP"))
    } else if let Some(age_s) = age_s {
        (Status::Ok, format!("the newest event came {age_s} s ago"))
    } else {
        (Status::Ok, "no event yet; `taffrail install` wires Claude Code".to_owned())
    };
    CheckJson {
        status,
        detail,
        evidence: serde_json::json!({
            "stored_since_start": stored, "duplicates_since_start": duplicates, "refused_since_start": refused,
            "dropped_by_hooks": dropped, "newest_received_ms": newest_ms,
            "transcripts": transcripts, "otlp": app.doors,
        }),
    }
}

fn processing(app: &App, stats: &WriterStats, seen: Option<&Seen>) -> CheckJson {
    let backlog = seen.map(|s| s.backlog).unwrap_or_default();
    let percent = queue_percent(app, stats);
    let (status, detail) = if backlog.full {
        (Status::Failing, "the spool is full: hooks drop events".to_owned())
    } else if percent >= QUEUE_HIGH_PERCENT {
        (Status::Degraded, format!("the queue before the database is {percent} % full"))
    } else if backlog.frames > SPOOL_HIGH {
        (Status::Degraded, format!("{} frames wait in the spool", backlog.frames))
    } else if backlog.torn > 0 {
        (Status::Degraded, format!("{} spool files hold no whole frame; see spool/torn", backlog.torn))
    } else {
        (Status::Ok, format!("{} events in the queue, {} in the spool", stats.queue_events, backlog.frames))
    };
    CheckJson {
        status,
        detail,
        evidence: serde_json::json!({
            "queue_events": stats.queue_events, "queue_limit": app.config.limits.queue_events,
            "queue_bytes": stats.queue_bytes, "spool_frames": backlog.frames, "spool_bytes": backlog.bytes,
            "spool_torn": backlog.torn, "live_clients": app.hub.clients(),
            "live_dropped": app.metrics.live_dropped.get(),
        }),
    }
}

fn storage(stats: &WriterStats, seen: &Seen) -> CheckJson {
    let free = seen.disk_free_bytes;
    let (status, detail) = if free.is_some_and(|free| free < DISK_OUT_BYTES) {
        (Status::Failing, "the disk of the data directory is full".to_owned())
    } else if stats.failed > 0 {
        (Status::Degraded, format!("{} events could not be stored since the start", stats.failed))
    } else if free.is_some_and(|free| free < DISK_LOW_BYTES) {
        (Status::Degraded, "the disk of the data directory is nearly full".to_owned())
    } else {
        let mib = (seen.size.db_bytes + seen.size.wal_bytes) >> 20;
        (Status::Ok, format!("{} events in {mib} MiB", seen.size.events))
    };
    let mean_us = stats.commit_us / stats.commits.max(1);
    CheckJson {
        status,
        detail,
        evidence: serde_json::json!({
            "events": seen.size.events, "sessions": seen.size.sessions, "db_bytes": seen.size.db_bytes,
            "wal_bytes": seen.size.wal_bytes, "free_bytes": seen.size.free_bytes, "disk_free_bytes": free,
            "schema_version": seen.size.schema_version, "commits": stats.commits,
            "commit_us_avg": mean_us, "commit_us_max": stats.commit_us_max, "failed_events": stats.failed,
        }),
    }
}

/// Reads what the page reads, and says how long it took.
async fn analytics(app: &App, seen: Option<&Seen>) -> CheckJson {
    let background = app.analytics.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let began = std::time::Instant::now();
    let read =
        super::summary::read(app, taffrail_analytics::window::Window::H1, taffrail_store::Scope::default())
            .await;
    let took_ms = began.elapsed().as_secs_f64() * 1000.0;
    let digests = app.digests.get();
    let waiting = seen.map(|seen| seen.backlog_of_digests).unwrap_or_default();
    let oldest_s = age_s(&waiting);
    let evidence = serde_json::json!({
        "summary_ms": took_ms, "events_1h": read.as_ref().ok().map(|summary| summary.window.events),
        "digest_pending_sessions": waiting.pending_sessions, "digest_oldest_s": oldest_s,
        "digested_since_start": digests.digested, "digest_failures_since_start": digests.failed,
    });
    let (status, detail) = match (&read, &background, &digests.error) {
        (Err(problem), _, _) => (Status::Failing, format!("the summary cannot be read: {problem}")),
        (Ok(_), Err(error), _) => (Status::Degraded, format!("the last live summary failed: {error}")),
        (Ok(_), Ok(()), Some(error)) => {
            (Status::Degraded, format!("the last try to digest a session failed: {error}"))
        }
        (Ok(_), Ok(()), None) => {
            let digests = match waiting.pending_sessions {
                0 => "no session waits to be digested".to_owned(),
                sessions => format!("{sessions} sessions wait to be digested, the oldest for {oldest_s} s"),
            };
            (Status::Ok, format!("the summary of the last hour took {took_ms:.1} ms; {digests}"))
        }
    };
    CheckJson { status, detail, evidence }
}

/// How old the oldest change is that no digest has, in seconds.
fn age_s(backlog: &taffrail_store::Backlog) -> i64 {
    backlog.oldest_ms.map_or(0, |oldest| clock::now_ms().saturating_sub(oldest).max(0) / 1_000)
}

/// The server's own figures, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"), (status = 401, body = ProblemJson))
)]
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let seen = look(&app).await?;
    let stats = app.store.stats();
    let now = &app.metrics.now;
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    now.queue_events.set(int(stats.queue_events));
    now.queue_bytes.set(int(stats.queue_bytes));
    now.spool_frames.set(int(seen.backlog.frames));
    now.spool_dropped.set(int(seen.backlog.dropped));
    now.live_clients.set(int(app.hub.clients() as u64));
    now.db_bytes.set(int(seen.size.db_bytes));
    now.wal_bytes.set(int(seen.size.wal_bytes));
    now.disk_free_bytes.set(seen.disk_free_bytes.unwrap_or(-1));
    now.events.set(seen.size.events);
    now.commits.set(int(stats.commits));
    now.commit_seconds_max.set(std::time::Duration::from_micros(stats.commit_us_max).as_secs_f64());
    now.uptime_seconds.set(std::time::Duration::from_millis(uptime_ms(&app).unsigned_abs()).as_secs_f64());
    now.resident_bytes.set(resident_bytes().unwrap_or(-1));
    let digests = app.digests.get();
    now.digest_pending_sessions.set(seen.backlog_of_digests.pending_sessions);
    now.digest_oldest_seconds.set(age_s(&seen.backlog_of_digests) as f64);
    now.digest_sessions.set(int(digests.digested));
    now.digest_failures.set(int(digests.failed));
    now.digest_seconds.set(std::time::Duration::from_micros(digests.busy_us).as_secs_f64());
    app.transcripts.status.set_gauges(now);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], app.metrics.text()).into_response())
}
