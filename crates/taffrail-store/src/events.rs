//! The tables `events`, `payloads`, `event_metrics`, `event_errors`, `file_operations` and `git_operations`.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};
use taffrail_event::event::{Arrival, ClosesCalls, Fact, FileOperation, GitOperation, PromptOrigin};
use taffrail_event::ledger::RequestSighting;
use taffrail_event::normalize::calls;
use taffrail_event::prices::PriceTable;
use taffrail_event::{Event, EventId, RowId, TimestampMs};

use crate::codec;
use crate::error::ReadError;
use crate::facets;
use crate::filter::{EventFilter, Payloads};
use crate::rows::{
    Page, StoredError, StoredEvent, StoredFileOperation, StoredGitOperation, StoredMetrics, StoredPayload,
    StoredWarning, ToolChain,
};
use crate::scan;

/// In `events.flags`: it ends its agent's open calls.
pub(crate) const CLOSES_AGENT: i64 = 1;
/// In `events.flags`: it ends its session's open calls.
pub(crate) const CLOSES_SESSION: i64 = 2;
/// In `events.flags`: a prompt by a person.
pub(crate) const HUMAN_PROMPT: i64 = 4;
/// In `events.flags`: from a recording, its delay is none of ours.
pub(crate) const RECORDED: i64 = 8;

const INSERT_EVENT: &str = "INSERT INTO events (
    id, event_id, dedup_key, timestamp, received, source, source_app, session_id, agent_id, agent_type, prompt_id,
    tool_use_id, user, host, model_name, hook_event_type, tool_name, summary, flags, warnings, issues,
    humanInTheLoop, humanInTheLoopStatus)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)
    ON CONFLICT (dedup_key) DO NOTHING";

/// Inserts the event's own row; false where its fact is stored already.
pub(crate) fn insert(conn: &Connection, id: RowId, event: &Event) -> rusqlite::Result<bool> {
    let warnings = json_or_null(&event.warnings);
    let issues = json_or_null(&event.issues);
    let question = legacy_field(event, "humanInTheLoop");
    let status = question.map(|_| match legacy_field(event, "humanInTheLoopStatus") {
        Some(status) => status.to_string(),
        None => r#"{"status":"pending"}"#.to_owned(),
    });
    let rows = conn.prepare_cached(INSERT_EVENT)?.execute(params![
        id.0,
        event.event_id.uuid().as_bytes(),
        event.dedup_key.0,
        event.ts.get(),
        event.received.get(),
        event.source.name(),
        event.app,
        event.session_id,
        event.agent_id,
        event.agent_type,
        event.prompt_id,
        event.tool_use_id,
        event.user,
        event.host,
        event.model,
        event.type_name,
        event.tool_name,
        event.summary,
        flags(event),
        warnings,
        issues,
        question.map(Value::to_string),
        status,
    ])?;
    Ok(rows == 1)
}

/// The row of the event with that key.
pub(crate) fn row_of_key(conn: &Connection, event: &Event) -> rusqlite::Result<RowId> {
    conn.prepare_cached("SELECT id FROM events WHERE dedup_key = ?1")?
        .query_row([event.dedup_key.0], |row| row.get(0).map(RowId))
}

/// The highest row id in that half-open range.
pub(crate) fn last_in(conn: &Connection, from: RowId, to: RowId) -> rusqlite::Result<Option<RowId>> {
    conn.prepare_cached("SELECT max(id) FROM events WHERE id >= ?1 AND id < ?2")?
        .query_row([from.0, to.0], |row| row.get::<_, Option<i64>>(0))
        .map(|id| id.map(RowId))
}

/// Inserts what hangs on the event.
pub(crate) fn insert_details(
    conn: &Connection,
    id: RowId,
    event: &Event,
    prices: &PriceTable,
) -> rusqlite::Result<()> {
    insert_payload(conn, id, event)?;
    match &event.request {
        None => insert_metrics(conn, id, event)?,
        Some(request) => insert_request_metrics(conn, id, event, request, prices)?,
    }
    if let Some(error) = own_error(event) {
        conn.prepare_cached(
            "INSERT INTO event_errors (event_id, error_type, error_message, stack_trace, recoverable, retry_count,
                fingerprint) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            id.0,
            error.class,
            error.message,
            error.stack_trace,
            error.recoverable,
            error.retry_count,
            error.fingerprint
        ])?;
    }
    for (position, operation) in event.file_operations.iter().enumerate() {
        insert_file_operation(conn, id, position, operation, event.ts)?;
    }
    for (position, operation) in event.git_operations.iter().enumerate() {
        insert_git_operation(conn, id, position, operation, event.ts)?;
    }
    Ok(())
}

fn insert_payload(conn: &Connection, id: RowId, event: &Event) -> rusqlite::Result<()> {
    let payload = &event.payload;
    let data = codec::encode(&payload.text);
    let legacy_text = match &event.legacy {
        Some(legacy) if !legacy.fields.is_empty() => Some(json_text(&legacy.fields)),
        _ => None,
    };
    let legacy = legacy_text.as_deref().map(codec::encode);
    conn.prepare_cached(
        "INSERT INTO payloads (event_id, original_bytes, raw_bytes, truncated, redactions, is_json, codec, legacy_codec,
            legacy_bytes, data, legacy) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        id.0,
        to_i64(payload.original_bytes),
        to_i64(data.raw_bytes),
        payload.truncated,
        payload.redactions,
        payload.is_json,
        data.codec,
        legacy.as_ref().map(|l| l.codec),
        legacy.as_ref().map(|l| to_i64(l.raw_bytes)),
        data.data,
        legacy.as_ref().map(|l| &l.data),
    ])?;
    Ok(())
}

fn insert_metrics(conn: &Connection, id: RowId, event: &Event) -> rusqlite::Result<()> {
    let m = &event.metrics;
    if *m == taffrail_event::event::Metrics::default() {
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT INTO event_metrics (event_id, execution_time, compression_events, output_bytes, hook_wall_us,
            agent_rss_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        id.0,
        m.execution_time_ms.map(to_i64),
        m.compression_events,
        m.output_bytes.map(to_i64),
        m.hook_wall_us.map(to_i64),
        m.agent_rss_bytes.map(to_i64),
    ])?;
    Ok(())
}

/// With the tokens of the request that the event tells of, as it tells them, and their price.
fn insert_request_metrics(
    conn: &Connection,
    id: RowId,
    event: &Event,
    request: &RequestSighting,
    prices: &PriceTable,
) -> rusqlite::Result<()> {
    let Some(usage) = &request.usage else { return insert_metrics(conn, id, event) };
    let m = &event.metrics;
    let cost = prices.quote(&request.model, usage, &request.terms, request.ts);
    let window = prices.context_window(&request.model).filter(|window| *window > 0);
    conn.prepare_cached(
        "INSERT INTO event_metrics (event_id, execution_time, compression_events, output_bytes, hook_wall_us,
            agent_rss_bytes, input_tokens, output_tokens, total_tokens, cost, context_size, context_utilization,
            cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        id.0,
        m.execution_time_ms.map(to_i64),
        m.compression_events,
        m.output_bytes.map(to_i64),
        m.hook_wall_us.map(to_i64),
        m.agent_rss_bytes.map(to_i64),
        to_i64(usage.input),
        to_i64(usage.output),
        to_i64(usage.total()),
        cost.map(|cost| cost.total_nano_usd),
        to_i64(usage.context()),
        window.map(|window| usage.context() as f64 / window as f64),
        to_i64(usage.cache_read),
        to_i64(usage.cache_write_5m),
        to_i64(usage.cache_write_1h),
    ])?;
    Ok(())
}

fn insert_file_operation(
    conn: &Connection,
    id: RowId,
    position: usize,
    operation: &FileOperation,
    ts: TimestampMs,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO file_operations (event_id, position, operation_type, file_path, file_size, duration, timestamp,
            lines_added, lines_removed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        id.0,
        to_i64(position),
        operation.kind.name(),
        operation.path,
        operation.size_bytes.map(to_i64),
        operation.duration_ms.map(to_i64),
        ts.get(),
        operation.lines_added,
        operation.lines_removed,
    ])?;
    Ok(())
}

fn insert_git_operation(
    conn: &Connection,
    id: RowId,
    position: usize,
    operation: &GitOperation,
    ts: TimestampMs,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO git_operations (event_id, position, command, subcommand, branch, files_changed, insertions,
            deletions, timestamp, commit_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        id.0,
        to_i64(position),
        operation.command,
        operation.subcommand,
        operation.branch,
        operation.files_changed,
        operation.insertions,
        operation.deletions,
        ts.get(),
        operation.commit,
    ])?;
    Ok(())
}

fn flags(event: &Event) -> i64 {
    let closes = match calls::closes(event) {
        ClosesCalls::None => 0,
        ClosesCalls::OfAgent => CLOSES_AGENT,
        ClosesCalls::OfSession => CLOSES_SESSION,
    };
    let prompt = if is_human_prompt(event) { HUMAN_PROMPT } else { 0 };
    let recorded = if event.arrival == Arrival::Recorded { RECORDED } else { 0 };
    closes | prompt | recorded
}

/// The failure that counts as one: what telemetry tells of a call is that of the call's own Post, told again.
pub(crate) fn own_error(event: &Event) -> Option<&taffrail_event::event::ErrorInfo> {
    event.error.as_ref().filter(|_| !matches!(event.fact, Fact::ToolTold(..)))
}

/// Whether a person wrote it.
pub(crate) fn is_human_prompt(event: &Event) -> bool {
    matches!(event.fact, Fact::Prompt { origin: PromptOrigin::Human })
}

fn legacy_field<'e>(event: &'e Event, name: &str) -> Option<&'e Value> {
    let value = event.legacy.as_ref()?.fields.get(name)?;
    (!value.is_null()).then_some(value)
}

fn json_or_null<T: serde::Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { Some(json_text(list)) }
}

/// Maps with string keys and plain structs always have a JSON form.
fn json_text<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// SQLite's integers are signed; sizes and times beyond that do not occur and are cut.
pub(crate) fn to_i64(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

const SELECT: &str = "SELECT e.id, e.event_id, e.timestamp, e.received, e.source, e.source_app, e.session_id, e.agent_id,
    e.agent_type, e.prompt_id, e.tool_use_id, e.user, e.host, e.model_name, e.hook_event_type, e.tool_name, e.summary,
    e.warnings, e.issues, e.humanInTheLoopStatus, p.original_bytes, p.truncated, p.redactions
    FROM events e JOIN payloads p ON p.event_id = e.id WHERE e.id = ?1";

/// One event with all that hangs on it but its tool chain.
pub(crate) fn read(
    conn: &Connection,
    id: RowId,
    payloads: Payloads,
) -> Result<Option<StoredEvent>, ReadError> {
    let row = conn.prepare_cached(SELECT)?.query_row([id.0], from_row).optional()?;
    let Some(row) = row else { return Ok(None) };
    let mut event = row?;
    event.metrics = read_metrics(conn, id)?;
    event.error = read_error(conn, id)?;
    event.file_operations = read_file_operations(conn, id)?;
    event.git_operations = read_git_operations(conn, id)?;
    if payloads == Payloads::With {
        read_payload(conn, &mut event)?;
    }
    Ok(Some(event))
}

/// The outer error is SQLite's, the inner says that the row is not one of ours.
fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<StoredEvent, ReadError>> {
    let warnings: Option<String> = row.get(17)?;
    let issues: Option<String> = row.get(18)?;
    let status: Option<String> = row.get(19)?;
    let parse = || -> serde_json::Result<(Vec<StoredWarning>, Vec<Value>, Option<Value>)> {
        Ok((
            warnings.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
            issues.as_deref().map(serde_json::from_str).transpose()?.unwrap_or_default(),
            status.as_deref().map(serde_json::from_str).transpose()?,
        ))
    };
    let (warnings, issues, human_in_the_loop_status) = match parse() {
        Ok(parsed) => parsed,
        Err(e) => return Ok(Err(ReadError::BadRow(e.to_string()))),
    };
    let event_id: [u8; 16] = row.get(1)?;
    Ok(Ok(StoredEvent {
        row_id: RowId(row.get(0)?),
        event_id: EventId::from_uuid(uuid::Uuid::from_bytes(event_id)),
        ts: TimestampMs::clamped(row.get(2)?),
        received: TimestampMs::clamped(row.get(3)?),
        source: row.get(4)?,
        app: row.get(5)?,
        session_id: row.get(6)?,
        agent_id: row.get(7)?,
        agent_type: row.get(8)?,
        prompt_id: row.get(9)?,
        tool_use_id: row.get(10)?,
        user: row.get(11)?,
        host: row.get(12)?,
        model: row.get(13)?,
        type_name: row.get(14)?,
        tool_name: row.get(15)?,
        summary: row.get(16)?,
        metrics: StoredMetrics::default(),
        error: None,
        file_operations: Vec::new(),
        git_operations: Vec::new(),
        tool_chain: None,
        warnings,
        issues,
        payload: None,
        payload_bytes: row.get(20)?,
        payload_truncated: row.get(21)?,
        redactions: row.get(22)?,
        legacy: None,
        human_in_the_loop_status,
    }))
}

fn read_metrics(conn: &Connection, id: RowId) -> Result<StoredMetrics, ReadError> {
    let found = conn
        .prepare_cached(
            "SELECT execution_time, input_tokens, output_tokens, total_tokens, cost, context_size, context_utilization,
                compression_events, output_bytes, hook_wall_us, agent_rss_bytes, cache_read_tokens, cache_write_5m_tokens,
                cache_write_1h_tokens FROM event_metrics WHERE event_id = ?1",
        )?
        .query_row([id.0], |row| {
            Ok(StoredMetrics {
                execution_time_ms: row.get(0)?,
                input_tokens: row.get(1)?,
                output_tokens: row.get(2)?,
                total_tokens: row.get(3)?,
                cost_nano_usd: row.get(4)?,
                context_size: row.get(5)?,
                context_utilization: row.get(6)?,
                compression_events: row.get(7)?,
                output_bytes: row.get(8)?,
                hook_wall_us: row.get(9)?,
                agent_rss_bytes: row.get(10)?,
                cache_read_tokens: row.get(11)?,
                cache_write_5m_tokens: row.get(12)?,
                cache_write_1h_tokens: row.get(13)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

fn read_error(conn: &Connection, id: RowId) -> Result<Option<StoredError>, ReadError> {
    let found = conn
        .prepare_cached(
            "SELECT error_type, error_message, stack_trace, recoverable, retry_count, fingerprint
                FROM event_errors WHERE event_id = ?1",
        )?
        .query_row([id.0], |row| {
            Ok(StoredError {
                class: row.get(0)?,
                message: row.get(1)?,
                stack_trace: row.get(2)?,
                recoverable: row.get(3)?,
                retry_count: row.get(4)?,
                fingerprint: row.get(5)?,
            })
        })
        .optional()?;
    Ok(found)
}

fn read_file_operations(conn: &Connection, id: RowId) -> Result<Vec<StoredFileOperation>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT operation_type, file_path, file_size, duration, lines_added, lines_removed
            FROM file_operations WHERE event_id = ?1 ORDER BY position",
    )?;
    let rows = statement.query_map([id.0], |row| {
        Ok(StoredFileOperation {
            kind: row.get(0)?,
            path: row.get(1)?,
            size_bytes: row.get(2)?,
            duration_ms: row.get(3)?,
            lines_added: row.get(4)?,
            lines_removed: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read_git_operations(conn: &Connection, id: RowId) -> Result<Vec<StoredGitOperation>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT command, subcommand, branch, files_changed, insertions, deletions, commit_id
            FROM git_operations WHERE event_id = ?1 ORDER BY position",
    )?;
    let rows = statement.query_map([id.0], |row| {
        Ok(StoredGitOperation {
            command: row.get(0)?,
            subcommand: row.get(1)?,
            branch: row.get(2)?,
            files_changed: row.get(3)?,
            insertions: row.get(4)?,
            deletions: row.get(5)?,
            commit: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read_payload(conn: &Connection, event: &mut StoredEvent) -> Result<(), ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT is_json, codec, raw_bytes, data, legacy_codec, legacy_bytes, legacy FROM payloads WHERE event_id = ?1",
    )?;
    let mut rows = statement.query([event.row_id.0])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let blob = |codec: u8, bytes: i64, column: usize| -> Result<String, ReadError> {
        let bytes = usize::try_from(bytes).map_err(|e| ReadError::BadRow(e.to_string()))?;
        let data = row.get_ref(column)?.as_blob().map_err(|e| ReadError::BadRow(e.to_string()))?;
        codec::decode(codec, bytes, data).map_err(|e| ReadError::BadRow(e.to_string()))
    };
    let text = blob(row.get(1)?, row.get(2)?, 3)?;
    event.payload = Some(StoredPayload { text, is_json: row.get(0)? });
    if let Some(legacy_codec) = row.get::<_, Option<u8>>(4)? {
        let legacy = blob(legacy_codec, row.get(5)?, 6)?;
        let fields: Map<String, Value> =
            serde_json::from_str(&legacy).map_err(|e| ReadError::BadRow(e.to_string()))?;
        event.legacy = Some(fields);
    }
    Ok(())
}

/// An event's payload alone; none where there is none.
pub(crate) fn read_payload_text(conn: &Connection, id: RowId) -> Result<Option<String>, ReadError> {
    let mut statement =
        conn.prepare_cached("SELECT codec, raw_bytes, data FROM payloads WHERE event_id = ?1")?;
    let mut rows = statement.query([id.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let bad = |e: &dyn std::fmt::Display| ReadError::BadRow(e.to_string());
    let bytes = usize::try_from(row.get::<_, i64>(1)?).map_err(|e| bad(&e))?;
    let data = row.get_ref(2)?.as_blob().map_err(|e| bad(&e))?;
    codec::decode(row.get(0)?, bytes, data).map(Some).map_err(|e| bad(&e))
}

/// Stores the answer to an event's question; false where there is no such event.
pub(crate) fn set_human_in_the_loop_status(
    conn: &Connection,
    id: RowId,
    status: &Value,
) -> rusqlite::Result<bool> {
    let rows = conn
        .prepare_cached("UPDATE events SET humanInTheLoopStatus = ?2 WHERE id = ?1")?
        .execute(params![id.0, status.to_string()])?;
    Ok(rows == 1)
}

/// The index a listing walks: the rarest of what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Session,
    Agent,
    App,
    Type,
    Tool,
    /// The table itself, by time.
    All,
}

impl Walk {
    fn choose(conn: &Connection, filter: &EventFilter) -> Result<Self, ReadError> {
        if filter.session.is_some() {
            return Ok(Self::Session);
        }
        if filter.agent.as_deref().is_some_and(|agent| !agent.is_empty()) {
            return Ok(Self::Agent);
        }
        let candidates = [
            (Self::App, facets::Kind::App, &filter.app),
            (Self::Type, facets::Kind::Type, &filter.type_name),
            (Self::Tool, facets::Kind::Tool, &filter.tool),
        ];
        let mut rarest = (i64::MAX, Self::All);
        for (walk, kind, value) in candidates {
            if let Some(value) = value {
                let count = facets::count(conn, kind, value)?;
                if count < rarest.0 {
                    rarest = (count, walk);
                }
            }
        }
        Ok(rarest.1)
    }

    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Session => ("INDEXED BY events_session", "session_id = ?1 AND"),
            Self::Agent => ("INDEXED BY events_agent", "agent_id = ?1 AND"),
            Self::App => ("INDEXED BY events_app", "source_app = ?1 AND"),
            Self::Type => ("INDEXED BY events_type", "hook_event_type = ?1 AND"),
            Self::Tool => ("INDEXED BY events_tool", "tool_name = ?1 AND"),
            Self::All => ("NOT INDEXED", "?1 IS NULL AND"),
        }
    }

    fn value(self, filter: &EventFilter) -> Option<&str> {
        match self {
            Self::Session => filter.session.as_deref(),
            Self::Agent => filter.agent.as_deref(),
            Self::App => filter.app.as_deref(),
            Self::Type => filter.type_name.as_deref(),
            Self::Tool => filter.tool.as_deref(),
            Self::All => None,
        }
    }
}

/// Which way a listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

/// Events that match with `from <= id < below`.
pub(crate) fn list(
    conn: &Connection,
    filter: &EventFilter,
    range: (RowId, RowId),
    order: Order,
    limit: usize,
    payloads: Payloads,
) -> Result<Page<StoredEvent>, ReadError> {
    let walk = Walk::choose(conn, filter)?;
    let (by, value) = walk.source();
    let order = match order {
        Order::NewestFirst => "DESC",
        Order::OldestFirst => "ASC",
    };
    let sql = format!(
        "SELECT id, source_app, session_id, hook_event_type, tool_name, agent_id, summary FROM events {by}
            WHERE {value} id < ?2 AND id >= ?3 ORDER BY id {order}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query(params![walk.value(filter), range.0.0, range.1.0])?;
    let page = scan::page(rows, limit, |row| {
        let id = RowId(row.get(0)?);
        Ok((id, matches(filter, row)?.then_some(id)))
    })?;
    let mut events = Vec::with_capacity(page.rows.len());
    for id in page.rows {
        let mut event = read(conn, id, payloads)?;
        if let Some(event) = &mut event {
            event.tool_chain = tool_chain(conn, event)?;
        }
        events.extend(event);
    }
    Ok(Page { rows: events, next: page.next })
}

/// Looks at the columns in the order of the listing; text is borrowed, so that a scan allocates nothing.
fn matches(filter: &EventFilter, row: &rusqlite::Row<'_>) -> Result<bool, ReadError> {
    let text = |column: usize| -> Result<&str, ReadError> {
        Ok(row.get_ref(column)?.as_str_or_null().map_err(|e| ReadError::BadRow(e.to_string()))?.unwrap_or(""))
    };
    let wanted = [
        (1, &filter.app),
        (2, &filter.session),
        (3, &filter.type_name),
        (4, &filter.tool),
        (5, &filter.agent),
    ];
    for (column, value) in wanted {
        if let Some(value) = value
            && text(column)? != value
        {
            return Ok(false);
        }
    }
    let Some(q) = &filter.q else { return Ok(true) };
    for column in [6, 3, 4, 1] {
        if scan::contains(text(column)?, q) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The neighbours of the call that the event speaks of.
pub(crate) fn tool_chain(conn: &Connection, event: &StoredEvent) -> Result<Option<ToolChain>, ReadError> {
    match &event.tool_use_id {
        Some(id) => crate::calls::chain_of_use(conn, &event.session_id, event.agent_id.as_deref(), id),
        None => Ok(None),
    }
}

/// The newest events, oldest first.
pub(crate) fn recent(conn: &Connection, limit: usize) -> Result<Vec<StoredEvent>, ReadError> {
    let mut statement = conn.prepare_cached("SELECT id FROM events ORDER BY id DESC LIMIT ?1")?;
    let ids = statement
        .query_map([to_i64(limit)], |row| row.get(0).map(RowId))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut events = Vec::with_capacity(ids.len());
    for id in ids.into_iter().rev() {
        events.extend(read(conn, id, Payloads::With)?);
    }
    Ok(events)
}

/// The newest `limit` events of a session that speak of no tool, without payload, oldest first.
pub(crate) fn marks_of_session(
    conn: &Connection,
    session_id: &str,
    limit: usize,
) -> Result<Vec<StoredEvent>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT id FROM events INDEXED BY events_session WHERE session_id = ?1 AND tool_name IS NULL
            AND hook_event_type <> 'PostToolBatch' ORDER BY id DESC LIMIT ?2",
    )?;
    let ids = statement
        .query_map(params![session_id, to_i64(limit)], |row| row.get(0).map(RowId))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut events = Vec::with_capacity(ids.len());
    for id in ids.into_iter().rev() {
        events.extend(read(conn, id, Payloads::Without)?);
    }
    Ok(events)
}
