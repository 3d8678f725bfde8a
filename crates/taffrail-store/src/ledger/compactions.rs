//! A compaction told by a hook and by a transcript is one.
//!
//! The rule: a hook's PostCompact always counts; a transcript's boundary counts in the rollups unless a hook's compaction of
//! the same session lies within [`SAME_MS`] of it. What is counted is noted in the mark, so that it is taken back when
//! the hook's event comes late. A session's own row shows the greater of both counts.

use rusqlite::{Connection, params};
use taffrail_event::{RowId, TimestampMs};

use crate::rollup::{Deltas, minute_of};

/// How far apart hook and transcript can tell of one compaction, in milliseconds.
const SAME_MS: i64 = 30_000;

/// Counts the session's compactions anew: those that only its transcript tells.
pub(crate) fn settle(conn: &Connection, session: i64, deltas: &mut Deltas) -> rusqlite::Result<()> {
    type Place = (i64, String, String);
    let (session_id, app, user): (String, String, String) = conn
        .prepare_cached("SELECT session_id, source_app, coalesce(user, '') FROM sessions WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let marks = conn
        .prepare_cached(
            "SELECT id, ts, counted, counted_app, counted_user
                FROM transcript_marks INDEXED BY transcript_marks_session
                WHERE session = ?1 AND kind = 'compaction'",
        )?
        .query_map([session], |row| {
            let at: Option<i64> = row.get(2)?;
            let place = match at {
                Some(at) => Some((at, row.get(3)?, row.get(4)?)),
                None => None,
            };
            Ok((row.get(0)?, row.get(1)?, place))
        })?
        .collect::<rusqlite::Result<Vec<(i64, i64, Option<Place>)>>>()?;
    for (id, ts, before) in marks {
        let now: Option<Place> = if is_told_by_hook(conn, &session_id, ts)? {
            None
        } else {
            Some((minute_of(ts), app.clone(), user.clone()))
        };
        if before == now {
            continue;
        }
        for (place, by) in [(&before, -1), (&now, 1)] {
            if let Some((minute, app, user)) = place {
                deltas.add_compactions((app, user), *minute, by);
            }
        }
        let (at, app, user) =
            now.map_or((None, None, None), |(at, app, user)| (Some(at), Some(app), Some(user)));
        conn.prepare_cached(
            "UPDATE transcript_marks SET counted = ?2, counted_app = ?3, counted_user = ?4 WHERE id = ?1",
        )?
        .execute(params![id, at, app, user])?;
    }
    Ok(())
}

fn is_told_by_hook(conn: &Connection, session_id: &str, ts: i64) -> rusqlite::Result<bool> {
    let id = |ms| RowId::first_of(TimestampMs::clamped(ms)).0;
    conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM events e INDEXED BY events_session
            CROSS JOIN event_metrics m ON m.event_id = e.id
            WHERE e.session_id = ?1 AND e.id >= ?2 AND e.id < ?3 AND m.compression_events > 0)",
    )?
    .query_row(params![session_id, id(ts - SAME_MS), id(ts + SAME_MS)], |row| row.get(0))
}
