//! Computes suggestions in the background, and what applied ones brought. Bounded by [`SESSIONS_MAX`] and [`ROWS_MAX`]: the
//! newest sessions come first, and what was left out is told.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use taffrail_engine::suggest::{Collector, Key, Kind, McpServer, Metric, Suggestion as Found};
use taffrail_event::prices::PriceTable;
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{
    ReadError, Reader, SessionFilter, Store, StoredSuggestion, Suggestion, SuggestionFilter, SuggestionState,
};
use tokio::sync::watch;

use super::{ChangeJson, file};
use crate::clock;
use crate::state::App;

/// After the start, when the first are computed: not while the spool is drained.
const START_DELAY: Duration = Duration::from_secs(60);
/// How often they are computed at most.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// What the evidence is from, in milliseconds: a saving is a saving a week.
const SPAN_MS: i64 = 7 * 24 * 3_600_000;
/// Sessions that are read for the suggestions.
const SESSIONS_MAX: usize = 500;
/// Calls, requests and marks that are read for the suggestions; the session that exceeds it is the last.
const ROWS_MAX: usize = 1_000_000;
/// The same for one side of one effect.
const EFFECT_SESSIONS_MAX: usize = 100;
/// See [`EFFECT_SESSIONS_MAX`].
const EFFECT_ROWS_MAX: usize = 200_000;
/// Effects that are measured in one run, those of the newest applications first.
const EFFECTS_MAX: usize = 20;
/// Directories whose configured MCP servers are looked up.
const DIRECTORIES_MAX: usize = 20;
/// MCP servers of one directory.
const SERVERS_MAX: usize = 50;
/// Sessions of one page.
const PAGE: usize = 100;

/// What the last computation was.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Computed {
    /// When.
    pub(crate) at_ms: i64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: i64,
    /// Sessions that were read.
    pub(crate) sessions: u64,
    /// Their calls, requests and marks.
    pub(crate) rows: u64,
    /// Whether there were more than are read: the oldest were left out.
    pub(crate) is_cut: bool,
    /// Commands, tools and agents that were left out.
    pub(crate) subjects_left_out: u64,
    /// Suggestions found.
    pub(crate) found: u64,
    /// Why it failed; null where it did not.
    pub(crate) error: Option<String>,
}

/// Computes again and again until the server stops.
pub(crate) async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let mut wait = START_DELAY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = crate::state::stopped(&mut stop) => return,
        }
        wait = EVERY;
        refresh(&app).await;
    }
}

/// Computes now, unless it is being done, and says what came of it.
pub(crate) async fn refresh(app: &App) -> Option<Computed> {
    let shared = app.clone();
    let work = tokio::task::spawn_blocking(move || {
        let Ok(_computing) = shared.suggest.computing.try_lock() else { return };
        let computed =
            compute(&shared.store, &shared.prices.current(), clock::now(), &|| shared.is_stopping());
        if let Some(error) = &computed.error {
            tracing::warn!(error, "suggestions were not computed");
        }
        *shared.suggest.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(computed);
    });
    if work.await.is_err() {
        tracing::error!("computing suggestions panicked");
    }
    app.suggest.last()
}

/// Computes and stores.
fn compute(store: &Store, prices: &PriceTable, now: TimestampMs, is_stopping: &dyn Fn() -> bool) -> Computed {
    let began = Instant::now();
    let mut computed = Computed {
        at_ms: now.get(),
        took_ms: 0,
        sessions: 0,
        rows: 0,
        is_cut: false,
        subjects_left_out: 0,
        found: 0,
        error: None,
    };
    let result = compute_into(&mut computed, store, prices, now, is_stopping);
    computed.error = result.err();
    computed.took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    computed
}

fn compute_into(
    computed: &mut Computed,
    store: &Store,
    prices: &PriceTable,
    now: TimestampMs,
    is_stopping: &dyn Fn() -> bool,
) -> Result<(), String> {
    let reader = store.reader().map_err(|e| e.to_string())?;
    let from = now.get().saturating_sub(SPAN_MS);
    let mut collector = Collector::new(prices, from, now.get().saturating_add(1));
    let bounds = Bounds { app: None, from, to: now.get(), sessions: SESSIONS_MAX, rows: ROWS_MAX };
    let read = gather(&reader, &mut collector, &bounds, is_stopping).map_err(|e| e.to_string())?;
    (computed.sessions, computed.rows, computed.is_cut) = (read.sessions, read.rows, read.is_cut);
    computed.subjects_left_out = collector.left_out();
    if is_stopping() {
        return Ok(());
    }
    let directories = reader.directories(None, SESSIONS_MAX).map_err(|e| e.to_string())?;
    let found = collector.suggestions(&configured(&directories));
    computed.found = found.len() as u64;
    let effects = effects(&reader, prices, now, is_stopping).map_err(|e| e.to_string())?;
    drop(reader);
    store.record_suggestions(found.into_iter().map(stored).collect(), now).map_err(|e| e.to_string())?;
    store.keep_effects(effects).map_err(|e| e.to_string())
}

/// Which sessions are read.
struct Bounds {
    app: Option<String>,
    from: i64,
    to: i64,
    sessions: usize,
    rows: usize,
}

/// What was read.
#[derive(Default)]
struct Read {
    sessions: u64,
    rows: u64,
    is_cut: bool,
}

fn gather(
    reader: &Reader,
    collector: &mut Collector<'_>,
    bounds: &Bounds,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Read, ReadError> {
    let filter = SessionFilter {
        app: bounds.app.clone(),
        from: Some(TimestampMs::clamped(bounds.from)),
        to: Some(TimestampMs::clamped(bounds.to.saturating_add(1))),
        ..SessionFilter::default()
    };
    let (mut read, mut cursor) = (Read::default(), None);
    loop {
        let page = reader.sessions(&filter, cursor, PAGE)?;
        for session in page.rows {
            if read.sessions >= bounds.sessions as u64 || read.rows >= bounds.rows as u64 || is_stopping() {
                read.is_cut = true;
                return Ok(read);
            }
            let Some(found) = reader.trace(&session.session_id)? else { continue };
            read.sessions += 1;
            read.rows +=
                (found.trace.calls.len() + found.trace.requests.len() + found.trace.marks.len()) as u64;
            collector.add(&found.trace);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(read);
        }
    }
}

/// MCP servers that projects configure and have not disabled.
fn configured(directories: &[(String, String)]) -> Vec<McpServer> {
    let mut found = Vec::new();
    for (app, directory) in directories.iter().take(DIRECTORIES_MAX) {
        let Ok(root) = file::root(Path::new(directory)) else { continue };
        let json = |relative: &str| -> Option<Value> {
            let text = file::read(&file::file(&root, relative).ok()?).ok()??;
            serde_json::from_str(&text).ok()
        };
        let disabled: BTreeSet<String> = [".claude/settings.json", ".claude/settings.local.json"]
            .iter()
            .filter_map(|name| Some(json(name)?.get("disabledMcpjsonServers")?.as_array()?.clone()))
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        let Some(Value::Object(servers)) =
            json(".mcp.json").and_then(|known| known.get("mcpServers").cloned())
        else {
            continue;
        };
        let names = servers.keys().take(SERVERS_MAX).filter(|name| !disabled.contains(*name));
        found.extend(names.map(|server| McpServer { app: app.clone(), server: server.clone() }));
    }
    found
}

/// A suggestion as it is stored.
fn stored(found: Found) -> Suggestion {
    let figures: Vec<Value> = found
        .figures
        .iter()
        .map(|figure| json!({"name": figure.name, "value": figure.value, "unit": figure.unit}))
        .collect();
    let parts: Vec<Value> =
        found.parts.iter().map(|(name, count)| json!({"name": name, "count": count})).collect();
    Suggestion {
        kind: found.key.kind.name().to_owned(),
        app: found.key.app,
        subject: found.key.subject,
        title: found.title,
        advice: found.advice,
        evidence: json!({"span_ms": SPAN_MS, "figures": figures, "parts": parts}),
        sessions: found.sessions,
        calls: found.calls.into_iter().map(RowId).collect(),
        edit: found.edit.and_then(|edit| serde_json::to_value(edit).ok()),
        saving_nano_usd: found.saving.nano_usd,
        saving_ms: found.saving.ms,
        basis: found.saving.basis.to_owned(),
    }
}

/// What applied suggestions brought: the same figure before and after, over the same length of time.
fn effects(
    reader: &Reader,
    prices: &PriceTable,
    now: TimestampMs,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Vec<(RowId, Value)>, ReadError> {
    let filter = SuggestionFilter { state: Some(SuggestionState::Applied), ..SuggestionFilter::default() };
    let applied = reader.suggestions(&filter, None, PAGE)?.rows;
    let is_final =
        |row: &&StoredSuggestion| row.effect.as_ref().is_some_and(|effect| effect["is_final"] == json!(true));
    let mut measured = Vec::new();
    for row in applied.iter().filter(|row| !is_final(row)).take(EFFECTS_MAX) {
        if is_stopping() {
            break;
        }
        if let Some(effect) = effect(reader, prices, row, now, is_stopping)? {
            measured.push((row.id, effect));
        }
    }
    Ok(measured)
}

fn effect(
    reader: &Reader,
    prices: &PriceTable,
    row: &StoredSuggestion,
    now: TimestampMs,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Option<Value>, ReadError> {
    let change: Option<ChangeJson> =
        row.change.clone().and_then(|change| serde_json::from_value(change).ok());
    let (Some(change), Some(kind)) = (change, Kind::from_name(&row.suggestion.kind)) else { return Ok(None) };
    let at = change.applied_ms;
    let length = now.get().saturating_sub(at).clamp(0, SPAN_MS);
    let key = Key { kind, app: row.suggestion.app.clone(), subject: row.suggestion.subject.clone() };
    let side = |from: i64, to: i64| -> Result<(Metric, bool), ReadError> {
        let mut collector = Collector::new(prices, from, to);
        let app = Some(key.app.clone());
        let bounds = Bounds { app, from, to: to - 1, sessions: EFFECT_SESSIONS_MAX, rows: EFFECT_ROWS_MAX };
        let read = gather(reader, &mut collector, &bounds, is_stopping)?;
        Ok((collector.metric(&key), read.is_cut))
    };
    let (before, before_cut) = side(at.saturating_sub(length), at)?;
    let (after, after_cut) = side(at, at.saturating_add(length))?;
    let enough = before.chances >= kind.enough() && after.chances >= kind.enough();
    let is_final = length >= SPAN_MS;
    let (metric, of) = kind.metric();
    let change_percent = match (before.share(), after.share()) {
        (Some(before), Some(after)) if enough && before > 0.0 => Some((after - before) / before * 100.0),
        _ => None,
    };
    let state = match (enough, is_final) {
        (true, _) => "measured",
        (false, false) => "too_early",
        (false, true) => "too_little_seen",
    };
    Ok(Some(json!({
        "state": state, "metric": metric, "of": of, "length_ms": length, "needed": kind.enough(),
        "before": side_json(&before), "after": side_json(&after), "change_percent": change_percent,
        "is_cut": before_cut || after_cut, "is_final": is_final, "measured_ms": now.get(),
    })))
}

fn side_json(metric: &Metric) -> Value {
    json!({
        "hits": metric.hits, "chances": metric.chances, "sessions": metric.sessions, "share": metric.share(),
        "cost_usd": metric.nano_usd.map(crate::api::money::usd), "time_ms": metric.ms,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) fn compute_now(store: &Store, prices: &PriceTable, now: TimestampMs) -> Computed {
    compute(store, prices, now, &|| false)
}
