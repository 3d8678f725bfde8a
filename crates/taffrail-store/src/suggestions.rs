//! Suggestions: what would save money or time, what a person decided, which file was changed, what it brought.
//!
//! One row per kind, project and subject. Computing again changes words and figures of a row, never what a person decided, and
//! nothing of one that was applied: its evidence is that of the day it was applied. Open rows whose evidence has not held for
//! [`OPEN_KEPT_MS`] go; at most [`SUGGESTIONS_MAX`] rows are kept.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use taffrail_event::{RowId, TimestampMs};

use crate::error::{ReadError, WriteError};
use crate::reader::Reader;
use crate::rows::Page;
use crate::scan;
use crate::store::Store;

/// Rows that are kept.
pub const SUGGESTIONS_MAX: usize = 10_000;
/// How long an open row is kept when its evidence holds no more, in milliseconds.
pub const OPEN_KEPT_MS: i64 = 2 * 24 * 3_600_000;
/// The longest text of a row, in bytes.
const TEXT_MAX_BYTES: usize = 4 * 1024;
/// The longest JSON of a row, in bytes.
const JSON_MAX_BYTES: usize = 64 * 1024;

/// What became of a suggestion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SuggestionState {
    /// Nothing yet.
    #[default]
    Open,
    /// Its file was changed.
    Applied,
    /// And changed back.
    Undone,
    /// A person does not want it.
    Dismissed,
}

impl SuggestionState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Applied, Self::Undone, Self::Dismissed];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Applied => "applied",
            Self::Undone => "undone",
            Self::Dismissed => "dismissed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    fn from_row(value: i64) -> Self {
        usize::try_from(value).ok().and_then(|n| Self::ALL.get(n).copied()).unwrap_or_default()
    }
}

/// What is suggested.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Suggestion {
    pub kind: String,
    pub app: String,
    pub subject: String,
    pub title: String,
    pub advice: String,
    /// Figures with units, parts.
    pub evidence: Value,
    pub sessions: Vec<String>,
    pub calls: Vec<RowId>,
    /// The change of a file; none where it is advice only.
    pub edit: Option<Value>,
    /// A week; none where it is not known.
    pub saving_nano_usd: Option<i64>,
    pub saving_ms: Option<i64>,
    pub basis: String,
}

impl Suggestion {
    fn key(&self) -> String {
        // Parts that may hold anything are told apart by their lengths.
        format!("{}|{}|{}|{}", self.kind, self.app.len(), self.app, self.subject)
    }
}

/// A stored suggestion.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct StoredSuggestion {
    pub id: RowId,
    pub suggestion: Suggestion,
    pub state: SuggestionState,
    pub suggested: TimestampMs,
    /// When its evidence last held.
    pub seen: TimestampMs,
    pub decided: Option<TimestampMs>,
    pub decided_by: Option<String>,
    /// Which file was changed and how; stays after an undo.
    pub change: Option<Value>,
    /// The metric before and after.
    pub effect: Option<Value>,
}

/// Which suggestions; every given part must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SuggestionFilter {
    pub kind: Option<String>,
    pub app: Option<String>,
    pub state: Option<SuggestionState>,
}

/// A decision on a suggestion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SuggestionMove {
    /// From which states; from any other nothing is done.
    pub from: Vec<SuggestionState>,
    /// To which.
    pub to: SuggestionState,
    /// By whom.
    pub by: Option<String>,
    /// Replaces what is known of the changed file, where it is told.
    pub change: Option<Value>,
}

impl Store {
    /// Stores what was computed; how many are new. See the module for what stays as it was.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing is stored then.
    pub fn record_suggestions(&self, found: Vec<Suggestion>, now: TimestampMs) -> Result<usize, WriteError> {
        self.change(move |conn| {
            let mut new = 0;
            for suggestion in &found {
                new += usize::from(record(conn, suggestion, now)?);
            }
            conn.execute(
                "DELETE FROM suggestions WHERE state = 0 AND seen < ?1",
                [now.get().saturating_sub(OPEN_KEPT_MS)],
            )?;
            prune(conn, SUGGESTIONS_MAX)?;
            Ok(new)
        })
    }

    /// Stores a decision; false where there is no such row or it is in another state than those told.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn move_suggestion(
        &self,
        id: RowId,
        decision: SuggestionMove,
        now: TimestampMs,
    ) -> Result<bool, WriteError> {
        self.change(move |conn| {
            let state: Option<i64> = conn
                .prepare_cached("SELECT state FROM suggestions WHERE id = ?1")?
                .query_row([id.0], |row| row.get(0))
                .optional()?;
            if !state.is_some_and(|state| decision.from.contains(&SuggestionState::from_row(state))) {
                return Ok(false);
            }
            let decided = (decision.to != SuggestionState::Open).then_some(now.get());
            // An effect is that of the last application.
            conn.prepare_cached(
                "UPDATE suggestions SET state = ?2, decided = ?3, decided_by = ?4, change = coalesce(?5, change),
                    effect = iif(?2 = 1, NULL, effect) WHERE id = ?1",
            )?
            .execute(params![
                id.0,
                decision.to as i64,
                decided,
                decision.by.as_deref().map(cut),
                decision.change.as_ref().map(bounded)
            ])?;
            Ok(true)
        })
    }

    /// Keeps measured effects of applied suggestions.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn keep_effects(&self, effects: Vec<(RowId, Value)>) -> Result<(), WriteError> {
        self.change(move |conn| {
            let mut statement =
                conn.prepare_cached("UPDATE suggestions SET effect = ?2 WHERE id = ?1 AND state = 1")?;
            for (id, effect) in &effects {
                statement.execute(params![id.0, bounded(effect)])?;
            }
            Ok(())
        })
    }
}

impl Reader {
    /// Suggestions that match, newest first; `cursor` is the last page's `next`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn suggestions(
        &self,
        filter: &SuggestionFilter,
        cursor: Option<RowId>,
        limit: usize,
    ) -> Result<Page<StoredSuggestion>, ReadError> {
        self.at_once(|conn| {
            let (below, from) = scan::id_range(None, None, cursor);
            let sql =
                format!("SELECT {COLUMNS} FROM suggestions WHERE id < ?1 AND id >= ?2 ORDER BY id DESC");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query(params![below.0, from.0])?;
            scan::page(rows, limit, |row| {
                let found = from_row(row)?;
                let of_it = &found.suggestion;
                let matches = filter.kind.as_ref().is_none_or(|kind| *kind == of_it.kind)
                    && filter.app.as_ref().is_none_or(|app| *app == of_it.app)
                    && filter.state.is_none_or(|state| state == found.state);
                Ok((found.id, matches.then_some(found)))
            })
        })
    }

    /// One suggestion.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn suggestion(&self, id: RowId) -> Result<Option<StoredSuggestion>, ReadError> {
        let conn = self.conn();
        let mut statement =
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM suggestions WHERE id = ?1"))?;
        let mut rows = statement.query([id.0])?;
        rows.next()?.map(from_row).transpose()
    }
}

/// Columns of [`from_row`].
const COLUMNS: &str = "id, kind, source_app, subject, title, advice, evidence, sessions, calls, edit, saving_nano_usd, saving_ms,
    basis, state, suggested, seen, decided, decided_by, change, effect";

fn from_row(row: &rusqlite::Row<'_>) -> Result<StoredSuggestion, ReadError> {
    let json = |column| -> Result<Option<Value>, ReadError> {
        let text: Option<String> = row.get(column)?;
        text.map(|text| parse(&text)).transpose()
    };
    let calls: Vec<i64> = parse(&row.get::<_, String>(8)?)?;
    Ok(StoredSuggestion {
        id: RowId(row.get(0)?),
        suggestion: Suggestion {
            kind: row.get(1)?,
            app: row.get(2)?,
            subject: row.get(3)?,
            title: row.get(4)?,
            advice: row.get(5)?,
            evidence: json(6)?.unwrap_or_default(),
            sessions: parse(&row.get::<_, String>(7)?)?,
            calls: calls.into_iter().map(RowId).collect(),
            edit: json(9)?,
            saving_nano_usd: row.get(10)?,
            saving_ms: row.get(11)?,
            basis: row.get(12)?,
        },
        state: SuggestionState::from_row(row.get(13)?),
        suggested: TimestampMs::clamped(row.get(14)?),
        seen: TimestampMs::clamped(row.get(15)?),
        decided: row.get::<_, Option<i64>>(16)?.map(TimestampMs::clamped),
        decided_by: row.get(17)?,
        change: json(18)?,
        effect: json(19)?,
    })
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ReadError> {
    serde_json::from_str(text).map_err(|e| ReadError::BadRow(e.to_string()))
}

/// Stores one; whether it is new.
fn record(conn: &Connection, found: &Suggestion, now: TimestampMs) -> rusqlite::Result<bool> {
    let key = found.key();
    let known: Option<(i64, i64)> = conn
        .prepare_cached("SELECT id, state FROM suggestions WHERE key = ?1")?
        .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((id, state)) = known
        && SuggestionState::from_row(state) == SuggestionState::Applied
    {
        conn.prepare_cached("UPDATE suggestions SET seen = ?2 WHERE id = ?1")?
            .execute(params![id, now.get()])?;
        return Ok(false);
    }
    let id = match known {
        Some((id, _)) => id,
        None => free_id(conn, now)?,
    };
    let calls: Vec<i64> = found.calls.iter().map(|id| id.0).collect();
    conn.prepare_cached(
        "INSERT INTO suggestions (id, key, kind, source_app, subject, title, advice, evidence, sessions, calls, edit,
            saving_nano_usd, saving_ms, basis, suggested, seen)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)
            ON CONFLICT (key) DO UPDATE SET title = excluded.title, advice = excluded.advice, evidence = excluded.evidence,
            sessions = excluded.sessions, calls = excluded.calls, edit = excluded.edit,
            saving_nano_usd = excluded.saving_nano_usd, saving_ms = excluded.saving_ms, basis = excluded.basis,
            seen = excluded.seen",
    )?
    .execute(params![
        id,
        key,
        found.kind,
        found.app,
        found.subject,
        cut(&found.title),
        cut(&found.advice),
        bounded(&found.evidence),
        bounded(&Value::from(found.sessions.clone())),
        bounded(&Value::from(calls)),
        found.edit.as_ref().map(bounded),
        found.saving_nano_usd,
        found.saving_ms,
        cut(&found.basis),
        now.get(),
    ])?;
    Ok(known.is_none())
}

/// The first id from that moment on that no row has.
fn free_id(conn: &Connection, now: TimestampMs) -> rusqlite::Result<i64> {
    let first = RowId::first_of(now).0;
    let last: Option<i64> = conn
        .prepare_cached("SELECT max(id) FROM suggestions WHERE id >= ?1")?
        .query_row([first], |row| row.get(0))?;
    Ok(last.map_or(first, |last| last.saturating_add(1)))
}

/// Lets the oldest that nobody applied go, where there are more than `max`.
fn prune(conn: &Connection, max: usize) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "DELETE FROM suggestions WHERE id IN (SELECT id FROM suggestions ORDER BY state = 1, id
            LIMIT max(0, (SELECT count(*) FROM suggestions) - ?1))",
    )?
    .execute([crate::events::to_i64(max)])?;
    Ok(())
}

/// At most [`TEXT_MAX_BYTES`] of a text, whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// JSON of at most [`JSON_MAX_BYTES`]; a longer one is null.
fn bounded(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= JSON_MAX_BYTES { text } else { if value.is_array() { "[]" } else { "null" }.to_owned() }
}
