//! The table `transcript_marks`: prompts, compactions and starts of subagents, each once by its key.
//!
//! A fork copies lines: of the sessions that show one, the one begun first has it, and counts it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use taffrail_event::TimestampMs;
use taffrail_event::transcript::{Mark, MarkKind};

use crate::error::ReadError;
use crate::events::to_i64;
use crate::ledger::StoredMark;
use crate::ledger::names::Memory;
use crate::ledger::requests::unsigned;

/// What marks add to the counts of sessions' rows.
#[derive(Default)]
pub(crate) struct Counts {
    prompts: BTreeMap<i64, i64>,
    compactions: BTreeMap<i64, i64>,
}

impl Counts {
    fn add(&mut self, session: i64, mark: &Mark, by: i64) {
        let counts = match (&mark.kind, &mark.agent_id) {
            (MarkKind::Prompt { .. }, None) => &mut self.prompts,
            (MarkKind::Compaction { .. }, _) => &mut self.compactions,
            _ => return,
        };
        *counts.entry(session).or_default() += by;
    }

    /// Writes them.
    pub(crate) fn flush(self, conn: &Connection) -> rusqlite::Result<()> {
        for (sql, counts) in [
            ("UPDATE sessions SET told_prompts = told_prompts + ?2 WHERE id = ?1", self.prompts),
            ("UPDATE sessions SET told_compactions = told_compactions + ?2 WHERE id = ?1", self.compactions),
        ] {
            for (session, by) in counts.into_iter().filter(|(_, by)| *by != 0) {
                conn.prepare_cached(sql)?.execute([session, by])?;
            }
        }
        Ok(())
    }
}

/// Takes in a mark; true where it is new. `told` hears of the sessions whose marks changed.
pub(crate) fn see(
    conn: &Connection,
    memory: &mut Memory,
    mark: &Mark,
    counts: &mut Counts,
    told: &mut BTreeSet<i64>,
) -> rusqlite::Result<bool> {
    let session = memory.session(conn, &mark.session_id, mark.ts.get())?;
    if insert(conn, session, mark)? {
        told.insert(session);
        counts.add(session, mark, 1);
        return Ok(true);
    }
    let (owner, born): (i64, i64) = conn
        .prepare_cached("SELECT session, born FROM transcript_marks WHERE key = ?1")?
        .query_row([&mark.key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let owner_id = memory.session_text(conn, owner)?;
    if (mark.born.get(), &mark.session_id) < (born, &owner_id) {
        conn.prepare_cached("UPDATE transcript_marks SET session = ?2, born = ?3 WHERE key = ?1")?
            .execute(params![mark.key, session, mark.born.get()])?;
        if owner != session {
            told.extend([owner, session]);
            counts.add(owner, mark, -1);
            counts.add(session, mark, 1);
        }
    }
    Ok(false)
}

/// A new row; false where its key is known.
fn insert(conn: &Connection, session: i64, mark: &Mark) -> rusqlite::Result<bool> {
    let (mut prompt, mut trigger, mut pre, mut post, mut use_id, mut agent_type) =
        (None, None, None, None, None, None);
    let kind = match &mark.kind {
        MarkKind::Prompt { prompt_id } => {
            prompt = prompt_id.as_deref();
            "prompt"
        }
        MarkKind::Compaction { trigger: by, pre_tokens, post_tokens } => {
            (trigger, pre, post) = (by.as_deref(), pre_tokens.map(to_i64), post_tokens.map(to_i64));
            "compaction"
        }
        MarkKind::Spawn { tool_use_id, agent_type: kind } => {
            (use_id, agent_type) = (Some(tool_use_id.as_str()), kind.as_deref());
            "spawn"
        }
    };
    let rows = conn
        .prepare_cached(
        "INSERT INTO transcript_marks (key, session, born, ts, agent_id, kind, prompt_id, trigger, pre_tokens,
            post_tokens, tool_use_id, agent_type, summary)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (key) DO NOTHING",
    )?
    .execute(params![
        mark.key,
        session,
        mark.born.get(),
        mark.ts.get(),
        mark.agent_id,
        kind,
        prompt,
        trigger,
        pre,
        post,
        use_id,
        agent_type,
        mark.summary
    ])?;
    Ok(rows == 1)
}

/// Those of a session, oldest first.
pub(crate) fn of_session(conn: &Connection, session_id: &str) -> Result<Vec<StoredMark>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT m.key, m.born, m.ts, m.agent_id, m.kind, m.prompt_id, m.trigger, m.pre_tokens, m.post_tokens,
            m.tool_use_id, m.agent_type, m.summary
        FROM sessions s CROSS JOIN transcript_marks m INDEXED BY transcript_marks_session ON m.session = s.id
        WHERE s.session_id = ?1 ORDER BY m.ts, m.key",
    )?;
    let rows = statement.query_map([session_id], |row| {
        let kind: String = row.get(4)?;
        let tokens = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
        let kind = match kind.as_str() {
            "compaction" => {
                MarkKind::Compaction { trigger: row.get(6)?, pre_tokens: tokens(7)?, post_tokens: tokens(8)? }
            }
            "spawn" => MarkKind::Spawn {
                tool_use_id: row.get::<_, Option<String>>(9)?.unwrap_or_default(),
                agent_type: row.get(10)?,
            },
            _ => MarkKind::Prompt { prompt_id: row.get(5)? },
        };
        Ok(StoredMark {
            mark: Mark {
                key: row.get(0)?,
                session_id: session_id.to_owned(),
                born: TimestampMs::clamped(row.get(1)?),
                agent_id: row.get(3)?,
                ts: TimestampMs::clamped(row.get(2)?),
                kind,
                summary: row.get(11)?,
            },
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
