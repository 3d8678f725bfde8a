//! What transcripts tell of sessions and agents, beside their requests.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};
use taffrail_event::ledger::{ClientModelTotal, ClientTotal, Usage, Witness};
use taffrail_event::transcript::{AgentSighting, Facts, SessionSighting};

use crate::ledger::TranscriptFile;
use crate::ledger::names::Memory;

/// Takes in what lines tell of a session: its row, and whether it is new. Its begin is that of its file: a fork's lines
/// are older than the fork.
pub(crate) fn see_session(
    conn: &Connection,
    memory: &mut Memory,
    told: &SessionSighting,
    file: &TranscriptFile,
) -> rusqlite::Result<(i64, bool)> {
    let born = file.born.filter(|_| file.session_id == told.session_id).unwrap_or(told.first);
    let started = told.first.max(born).get();
    let last = told.last.get().max(started);
    let is_new = conn
        .prepare_cached("SELECT 1 FROM sessions WHERE session_id = ?1")?
        .query_row([&told.session_id], |_| Ok(()))
        .optional()?
        .is_none();
    let id = memory.session(conn, &told.session_id, started)?;
    let app = told.app.as_deref().filter(|app| !crate::sessions::is_unknown(app));
    conn.prepare_cached(
        "UPDATE sessions SET
            source_app = iif(?2 IS NOT NULL AND (source_app IN ('', 'unknown')
                OR (?3, ?2) < (coalesce(app_at, started), source_app)), ?2, source_app),
            app_at = iif(?2 IS NOT NULL AND (source_app IN ('', 'unknown')
                OR (?3, ?2) < (coalesce(app_at, started), source_app)), ?3, app_at),
            cwd = coalesce(cwd, ?5),
            git_branch = iif(coalesce(told_at, 0) <= ?4, coalesce(?6, git_branch), coalesce(git_branch, ?6)),
            client_version = iif(coalesce(told_at, 0) <= ?4, coalesce(?7, client_version), coalesce(client_version, ?7)),
            title = iif(coalesce(told_at, 0) <= ?4, coalesce(?8, title), coalesce(title, ?8)),
            model = iif(max(coalesce(told_at, 0), iif(events > 0, last_event, 0)) <= ?4, coalesce(?9, model),
                coalesce(model, ?9)),
            told_at = max(coalesce(told_at, 0), ?4),
            started = iif(started = 1577836800000, ?3, min(started, ?3)),
            last_event = max(last_event, ?4),
            last_prompt = iif(?10 >= coalesce(prompted, 0), ?11, last_prompt),
            prompted = nullif(max(coalesce(prompted, 0), coalesce(?10, 0)), 0)
        WHERE id = ?1",
    )?
    .execute(params![
        id,
        app,
        started,
        last,
        told.cwd,
        told.git_branch,
        told.client_version,
        told.title,
        told.model,
        told.prompted.filter(|_| told.last_prompt.is_some()).map(taffrail_event::TimestampMs::get),
        told.last_prompt
    ])?;
    see_main_agent(conn, &told.session_id, started, last)?;
    Ok((id, is_new))
}

fn see_main_agent(conn: &Connection, session_id: &str, started: i64, last: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO agents (session_id, agent_id, started, last_event, worked, events, calls, failed_calls)
            VALUES (?1, '', ?2, ?3, 0, 0, 0, 0)
            ON CONFLICT DO UPDATE SET started = iif(started = 1577836800000, excluded.started, min(started, excluded.started)),
                last_event = max(last_event, excluded.last_event)",
    )?
    .execute(params![session_id, started, last])?;
    Ok(())
}

/// When each session's file was begun, by what its lines' facts say: the rows of those where that is news.
pub(crate) fn see_births(
    conn: &Connection,
    memory: &mut Memory,
    facts: &Facts,
) -> rusqlite::Result<Vec<i64>> {
    let mut news = Vec::new();
    let by_requests = facts
        .requests
        .iter()
        .filter(|request| matches!(request.witness, Witness::Transcript | Witness::Progress))
        .map(|request| (request.session_id.as_str(), request.born.get()));
    let by_marks = facts.marks.iter().map(|mark| (mark.session_id.as_str(), mark.born.get()));
    let mut births: Vec<(&str, i64)> = by_requests.chain(by_marks).collect();
    // Most lie side by side.
    births.dedup();
    births.sort_unstable();
    births.dedup_by_key(|(session, _)| *session);
    for (session_id, born) in births {
        let id = memory.session(conn, session_id, born)?;
        let rows = conn
            .prepare_cached("UPDATE sessions SET born = ?2 WHERE id = ?1 AND coalesce(born > ?2, 1)")?
            .execute([id, born])?;
        if rows > 0 {
            news.push(id);
        }
    }
    Ok(news)
}

/// Takes in what lines, or a `.meta.json`, tell of a subagent.
pub(crate) fn see_agent(
    conn: &Connection,
    memory: &mut Memory,
    told: &AgentSighting,
) -> rusqlite::Result<Option<(String, String)>> {
    let seen: Option<i64> = conn
        .prepare_cached("SELECT started FROM agents WHERE session_id = ?1 AND agent_id = ?2")?
        .query_row([&told.session_id, &told.agent_id], |row| row.get(0))
        .optional()?;
    let session_started = |id: i64| {
        conn.prepare_cached("SELECT started FROM sessions WHERE id = ?1")?
            .query_row([id], |row| row.get::<_, i64>(0))
    };
    let at = told.first.or(told.last).map(taffrail_event::TimestampMs::get);
    let session =
        memory.session(conn, &told.session_id, at.unwrap_or(taffrail_event::TimestampMs::MIN.get()))?;
    let started = match at.or(seen) {
        Some(at) => at,
        None => session_started(session)?,
    };
    let last = told.last.map_or(started, taffrail_event::TimestampMs::get).max(started);
    if seen.is_none() {
        conn.prepare_cached("UPDATE sessions SET subagents = subagents + 1 WHERE id = ?1")?
            .execute([session])?;
    }
    let typed = conn
        .prepare_cached(
            "INSERT INTO agents (session_id, agent_id, agent_type, started, last_event, worked, events, calls,
                failed_calls, description, tool_use_id) VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, 0, 0, ?6, ?7)
            ON CONFLICT DO UPDATE SET
                agent_type = coalesce(nullif(agent_type, ''), excluded.agent_type),
                started = iif(started = 1577836800000, excluded.started, min(started, excluded.started)),
                last_event = max(last_event, excluded.last_event),
                description = coalesce(description, excluded.description),
                tool_use_id = coalesce(tool_use_id, excluded.tool_use_id)
            RETURNING untyped AND coalesce(agent_type, '') <> ''",
        )?
        .query_row(
            params![
                told.session_id,
                told.agent_id,
                told.agent_type,
                started,
                last,
                told.description,
                told.tool_use_id
            ],
            |row| row.get::<_, bool>(0),
        )?;
    Ok(typed.then(|| (told.session_id.clone(), told.agent_id.clone())))
}

/// Takes in the client's own total of a session: the greatest wins, for it only grows.
pub(crate) fn see_total(
    conn: &Connection,
    memory: &mut Memory,
    total: &ClientTotal,
) -> rusqlite::Result<i64> {
    let session = memory.session(conn, &total.session_id, taffrail_event::TimestampMs::MIN.get())?;
    let models: Vec<Value> = total
        .models
        .iter()
        .map(|model| {
            let u = &model.usage;
            let usage = [u.input, u.output, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.web_searches];
            json!([model.model, model.cost_nano_usd, usage])
        })
        .collect();
    conn.prepare_cached(
        "INSERT INTO client_totals (session, cost, has_unknown, models) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET cost = excluded.cost, has_unknown = excluded.has_unknown, models = excluded.models
            WHERE (excluded.cost, excluded.models) > (cost, models)",
    )?
    .execute(params![session, total.cost_nano_usd, total.has_unknown_model, Value::Array(models).to_string()])?;
    Ok(session)
}

/// A session's stored total; what is no total of ours is none.
pub(crate) fn total_of(conn: &Connection, session: i64) -> rusqlite::Result<Option<ClientTotal>> {
    let found = conn
        .prepare_cached("SELECT cost, has_unknown, models FROM client_totals WHERE session = ?1")?
        .query_row([session], |row| {
            let models: String = row.get(2)?;
            Ok(ClientTotal {
                session_id: String::new(),
                cost_nano_usd: row.get(0)?,
                has_unknown_model: row.get(1)?,
                models: models_of(&models),
            })
        })
        .optional()?;
    Ok(found)
}

fn models_of(text: &str) -> Vec<ClientModelTotal> {
    let list: Vec<(String, i64, [u64; 6])> = serde_json::from_str(text).unwrap_or_default();
    let models = list.into_iter().map(|(model, cost_nano_usd, u)| ClientModelTotal {
        model,
        cost_nano_usd,
        usage: Usage {
            input: u[0],
            output: u[1],
            cache_read: u[2],
            cache_write_5m: u[3],
            cache_write_1h: u[4],
            web_searches: u[5],
        },
    });
    models.collect()
}
