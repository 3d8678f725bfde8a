//! What the sources say of a session's total, side by side.

use rusqlite::{Connection, OptionalExtension};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Confidence, Speed, Terms, Witness};
use taffrail_event::prices::PriceTable;

use crate::error::ReadError;
use crate::filter::Scope;
use crate::ledger::names::Names;
use crate::ledger::requests::{decode_evidence, usage_from_row};
use crate::ledger::{CostQuery, Reconciliation, derived, read, told};

const BY_LINES: u8 = Witness::Transcript.bit() | Witness::Progress.bit();
const BY_OTLP: u8 = Witness::OtlpLog.bit() | Witness::OtlpSpan.bit();

/// One session's; none where it has neither a request nor a client's total.
pub(crate) fn session(
    conn: &Connection,
    prices: &PriceTable,
    session_id: &str,
) -> Result<Option<Reconciliation>, ReadError> {
    let found = conn
        .prepare_cached("SELECT id, source_app, last_event FROM sessions WHERE session_id = ?1")?
        .query_row([session_id], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let Some((id, app, last)) = found else { return Ok(None) };
    let scope = Scope { session: Some(session_id.to_owned()), ..Scope::default() };
    let ledger = read::costs(conn, &CostQuery { scope, ..CostQuery::default() })?.pop();
    let client = told::total_of(conn, id)?;
    if ledger.is_none() && client.is_none() {
        return Ok(None);
    }
    let ledger = ledger.map(|row| row.totals).unwrap_or_default();
    let mut told = Reconciliation {
        session_id: session_id.to_owned(),
        app,
        last: ledger.last.or(Some(TimestampMs::clamped(last))),
        ledger,
        client_nano_usd: client.map(|client| client.cost_nano_usd),
        inherited_nano_usd: derived::account(conn, prices, id)?.inherited_nano_usd(),
        ..Reconciliation::default()
    };
    let retries = add_rows(conn, prices, id, &mut told)?;
    if ledger.of(Confidence::Unpriced).requests == 0 {
        told.drift_nano_usd =
            told.client_nano_usd.map(|client| client - told.inherited_nano_usd - ledger.cost_nano_usd);
    }
    let failures: i64 = conn
        .prepare_cached("SELECT count(*) FROM api_failures WHERE session = ?1")?
        .query_row([id], |row| row.get(0))?;
    // Transcripts and spans tell of the same attempts.
    told.failed_attempts = failures.max(retries);
    Ok(Some(told))
}

/// Adds what transcript and OTLP each give alone; tells how many attempts came before those that succeeded.
fn add_rows(
    conn: &Connection,
    prices: &PriceTable,
    session: i64,
    told: &mut Reconciliation,
) -> Result<i64, ReadError> {
    let mut names = Names::new(conn);
    let mut retries = 0;
    let mut statement = conn.prepare_cached(
        "SELECT input, output, cache_read, cache_write_5m, cache_write_1h, web_searches, cost, told_cost, sources,
            evidence, speed, service_tier, inference_geo, model, ts, attempts
        FROM api_requests INDEXED BY api_requests_session WHERE session = ?1 AND sources <> 0",
    )?;
    let mut rows = statement.query([session])?;
    while let Some(row) = rows.next()? {
        let usage = usage_from_row(row, 0)?;
        let sources: u8 = row.get(8)?;
        let evidence: Option<Vec<u8>> = row.get(9)?;
        let (by_line, by_otlp) = evidence.as_deref().and_then(decode_evidence).unwrap_or((usage, usage));
        let terms = Terms {
            speed: if row.get::<_, i64>(10)? == 1 { Speed::Fast } else { Speed::Standard },
            service_tier: names.of(row.get(11)?)?,
            inference_geo: names.of(row.get(12)?)?,
        };
        let model = names.get(row.get(13)?)?.to_owned();
        let ts = TimestampMs::clamped(row.get(14)?);
        let stored: Option<i64> = row.get(6)?;
        let cost = |told| {
            let quote = || prices.quote(&model, &told, &terms, ts).map(|quote| quote.total_nano_usd);
            if told == usage { stored } else { quote() }
        };
        if sources & BY_LINES != 0 {
            told.transcript_requests += 1;
            add(&mut told.transcript_nano_usd, cost(by_line));
        }
        if sources & BY_OTLP != 0 {
            told.otlp_requests += 1;
            let by_client: Option<i64> = row.get(7)?;
            add(&mut told.otlp_nano_usd, by_client.or_else(|| cost(by_otlp)));
        }
        retries += (row.get::<_, Option<i64>>(15)?.unwrap_or(1) - 1).max(0);
    }
    Ok(retries)
}

fn add(sum: &mut Option<i64>, cost: Option<i64>) {
    if let Some(cost) = cost {
        *sum = Some(sum.unwrap_or(0) + cost);
    }
}

/// Every session with a request or a client's total that was at work in the span, newest first.
pub(crate) fn all(
    conn: &Connection,
    prices: &PriceTable,
    from: Option<TimestampMs>,
    to: Option<TimestampMs>,
) -> Result<Vec<Reconciliation>, ReadError> {
    let mut statement = conn.prepare_cached(
        "SELECT session_id FROM sessions WHERE last_event >= ?1 AND started < ?2
            AND (ledger_app IS NOT NULL OR id IN (SELECT session FROM client_totals))
            ORDER BY last_event DESC, session_id",
    )?;
    let span = [from.map_or(i64::MIN, TimestampMs::get), to.map_or(i64::MAX, TimestampMs::get)];
    let sessions = statement.query_map(span, |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let mut rows = Vec::with_capacity(sessions.len());
    for session_id in sessions {
        rows.extend(session(conn, prices, &session_id)?);
    }
    Ok(rows)
}
