//! The old server's database: each row goes in as the post that once made it.
//!
//! A row's identity is what it says (project, session, type, time, payload) and how many of the same stood before it, so
//! that importing again, or a grown copy, adds nothing twice.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use taffrail_event::ids::hash_parts;
use taffrail_store::disler::{OldDatabase, OldEvent};

use super::identity::Identity;
use super::progress::Progress;
use super::sink::{BatchLine, Body, Sink};
use super::{Found, Totals};
use crate::client::Client;

/// Columns that hold JSON as text.
const JSON_COLUMNS: [&str; 4] = ["payload", "chat", "humanInTheLoop", "humanInTheLoopStatus"];
/// What the old server asked of every post.
const REQUIRED: [&str; 4] = ["source_app", "session_id", "hook_event_type", "payload"];

/// Rows of all databases, for the progress bar.
pub(crate) fn count(paths: &[PathBuf]) -> Result<u64> {
    paths.iter().map(|path| open(path)?.count().map_err(anyhow::Error::from)).sum()
}

fn open(path: &PathBuf) -> Result<OldDatabase> {
    std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    OldDatabase::open(path).with_context(|| format!("cannot import {}", path.display()))
}

/// Reads every database in order into the sink.
pub(crate) fn import(
    paths: &[PathBuf],
    app: Option<&str>,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Totals> {
    let mut totals = Totals::default();
    for path in paths {
        progress.name(path);
        let database = open(path)?;
        let found = import_events(&database, app, sink, progress)
            .with_context(|| format!("while importing {}", path.display()))?;
        totals.files += 1;
        totals.add(&found);
    }
    Ok(totals)
}

fn import_events(
    database: &OldDatabase,
    app: Option<&str>,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<Found> {
    let mut identity = Identity::of_rows();
    let mut found = Found::default();
    let mut last = i64::MIN;
    loop {
        let events = database.events_after(last)?;
        let Some(newest) = events.last() else { return Ok(found) };
        last = newest.id;
        for event in &events {
            let event_id = identity.of(&fact_of(event));
            let post = post_of(&event.columns, app)?;
            let captured_ms = event.columns.get("timestamp").and_then(Value::as_i64);
            let whole = REQUIRED.iter().all(|name| post.iter().any(|(n, v)| n == name && is_truthy(v)));
            let text = serde_json::to_string(&Object(&post))?;
            // What the old contract would refuse is kept as what it is.
            let body = if whole { Body::Post(&text) } else { Body::Payload(text.as_bytes()) };
            sink.push(&BatchLine { event_id, captured_ms, app: None, user: None, host: None, body })?;
            found.deliveries += 1;
            found.malformed += u64::from(!whole);
        }
        progress.advance(events.len() as u64);
    }
}

/// What makes a row the same in another copy of the database.
fn fact_of(event: &OldEvent) -> [u8; 32] {
    let text = |name: &str| match event.columns.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let parts = ["source_app", "session_id", "hook_event_type", "timestamp", "payload"].map(text);
    hash_parts(&parts.each_ref().map(|part| part.as_bytes()))
}

/// The post that made the row: columns of JSON are JSON again, as they were written.
fn post_of(columns: &Map<String, Value>, app: Option<&str>) -> Result<Vec<(String, Box<RawValue>)>> {
    let mut post = Vec::with_capacity(columns.len());
    for (name, value) in columns {
        let raw = match (name.as_str(), value) {
            ("source_app", _) if app.is_some() => serde_json::value::to_raw_value(&app)?,
            (name, Value::String(text)) if JSON_COLUMNS.contains(&name) => {
                match RawValue::from_string(text.clone()) {
                    Ok(raw) => raw,
                    Err(_) => serde_json::value::to_raw_value(text)?,
                }
            }
            (_, value) => serde_json::value::to_raw_value(value)?,
        };
        post.push((name.clone(), raw));
    }
    Ok(post)
}

fn is_truthy(raw: &RawValue) -> bool {
    !matches!(raw.get().trim(), "null" | "false" | "\"\"" | "0")
}

struct Object<'a>(&'a [(String, Box<RawValue>)]);

impl serde::Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Stores the old page's own themes; one whose name is taken is there already. Says how many are new.
pub(crate) fn import_themes(paths: &[PathBuf], client: &Client) -> Result<u64> {
    let mut stored = 0;
    for path in paths {
        for theme in open(path)?.themes()? {
            let answer =
                client.post("/api/themes", "application/json", &serde_json::to_vec(&theme_of(&theme))?)?;
            let name = theme.get("name").map(Value::to_string).unwrap_or_default();
            match answer.status {
                200 | 201 => stored += 1,
                400 | 409 if answer.body.contains("DUPLICATE") => {}
                status => eprintln!("warning: theme {name} was not taken ({status}): {}", answer.body),
            }
        }
    }
    Ok(stored)
}

fn theme_of(columns: &Map<String, Value>) -> Value {
    let mut theme = Map::new();
    for (name, value) in columns {
        let value = match (name.as_str(), value) {
            ("colors" | "tags", Value::String(text)) => {
                serde_json::from_str(text).unwrap_or_else(|_| json!(text))
            }
            ("isPublic", Value::Number(n)) => json!(n.as_i64() != Some(0)),
            (_, value) => value.clone(),
        };
        theme.insert(name.clone(), value);
    }
    Value::Object(theme)
}
