//! Writing digests: the session's row, what moves in the aggregates, what became of its failures.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::codec;
use crate::digest::contributions::{self, Entry};
use crate::digest::tables::{self, Deltas, EVERYWHERE};
use crate::digest::{Content, SessionDigest, dirty};
use crate::events::to_i64;
use crate::ledger::names::Memory;

/// One transaction: all of them, or none.
pub(crate) fn write(
    conn: &Connection,
    memory: &mut Memory,
    digests: Vec<SessionDigest>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut deltas = Deltas::default();
    for one in digests {
        replace(&tx, memory, &mut deltas, &one, now_ms)?;
        dirty::clear(&tx, memory, one.session, one.version, now_ms)?;
    }
    deltas.flush(&tx, &mut memory.digest_keys)?;
    tx.commit()
}

/// Puts one session's contributions in the place of its former ones.
fn replace(
    conn: &Connection,
    memory: &mut Memory,
    deltas: &mut Deltas,
    one: &SessionDigest,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let old = standing(conn, one.session)?;
    let new = match &one.content {
        None => None,
        Some(content) => {
            let place = tables::place_of(conn, &content.app, &content.user)?;
            let entries = memory.digest_keys.entries(conn, &content.digest.contributions)?;
            Some((place, contributions::settle(entries)))
        }
    };
    let nothing = Vec::new();
    let (old_place, old_entries) =
        old.as_ref().map_or((None, &nothing), |(place, list)| (Some(*place), list));
    let (new_place, new_entries) =
        new.as_ref().map_or((None, &nothing), |(place, list)| (Some(*place), list));
    let change = contributions::difference(new_entries, old_entries);
    deltas.add(EVERYWHERE, &change);
    match (old_place, new_place) {
        (Some(old), Some(new)) if old == new => deltas.add(new, &change),
        _ => {
            if let Some(old) = old_place {
                deltas.add(old, &old_entries.iter().map(Entry::negated).collect::<Vec<_>>());
            }
            if let Some(new) = new_place {
                deltas.add(new, new_entries);
            }
        }
    }
    match (&one.content, &new) {
        (Some(content), Some((place, entries))) => {
            put(conn, one.session, content, *place, entries, now_ms)?;
            resolve(conn, content)
        }
        _ => {
            conn.prepare_cached("DELETE FROM session_digests WHERE session = ?1")?.execute([one.session])?;
            Ok(())
        }
    }
}

/// What of a session stands in the aggregates, and at which place.
fn standing(conn: &Connection, session: i64) -> rusqlite::Result<Option<(i64, Vec<Entry>)>> {
    let found: Option<(i64, Vec<u8>)> = conn
        .prepare_cached("SELECT place, contributions FROM session_digests WHERE session = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((place, bytes)) = found else { return Ok(None) };
    let entries = contributions::decode(&bytes).ok_or(rusqlite::Error::InvalidQuery)?;
    Ok(Some((place, entries)))
}

fn put(
    conn: &Connection,
    session: i64,
    content: &Content,
    place: i64,
    entries: &[Entry],
    now_ms: i64,
) -> rusqlite::Result<()> {
    let facts = &content.digest.facts;
    let text =
        serde_json::to_string(facts).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let packed = codec::encode(&text);
    conn.prepare_cached(
        "INSERT OR REPLACE INTO session_digests (session, session_id, place, version, digested, took, cut, first, last,
            facts_codec, facts_bytes, facts, contributions)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        session,
        content.session_id,
        place,
        content.digest.version,
        now_ms,
        content.took_us,
        content.cut,
        facts.first_ms,
        facts.last_ms,
        packed.codec,
        to_i64(packed.raw_bytes),
        packed.data,
        contributions::encode(entries),
    ])?;
    Ok(())
}

/// Notes what became of each failed call, where that is news.
fn resolve(conn: &Connection, content: &Content) -> rusqlite::Result<()> {
    let mut update = conn.prepare_cached(
        "UPDATE event_errors SET resolved = ?2, resolution_time = ?3
            WHERE event_id = (SELECT end_event FROM tool_calls WHERE id = ?1)
                AND (resolved <> ?2 OR resolution_time IS NOT ?3)",
    )?;
    for one in &content.digest.resolutions {
        update.execute(params![one.call, one.by.is_some(), one.resolution_ms])?;
    }
    Ok(())
}
