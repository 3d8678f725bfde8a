//! Pricing history anew, in pages: live events go on between them. The fingerprint of history moves with the last page,
//! so that a repricing that was interrupted is seen to be unfinished, and is done again from the start without harm.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use taffrail_event::ledger::{Confidence, Settled};

use crate::digest::dirty;
use crate::events::to_i64;
use crate::ledger::names::Memory;
use crate::ledger::requests::{Stored, page};
use crate::ledger::sums::{Deltas, Part};
use crate::ledger::{LedgerChange, RepriceEffect, batch, derived};
use crate::writer::now_ms;

/// Rows of one page.
const PAGE_ROWS: usize = 4_000;

/// Sessions whose derived rows are written anew in one transaction.
const PAGE_SESSIONS: usize = 500;

/// What a price table changes, by model and month.
#[derive(Default)]
pub(crate) struct Effects(BTreeMap<(String, String), RepriceEffect>);

impl Effects {
    fn add(&mut self, stored: &Stored, settled: &Settled) {
        let key = (stored.state.model_name().to_owned(), month_of(stored.part.ts));
        let effect = self.0.entry(key.clone()).or_insert_with(|| RepriceEffect {
            model: key.0,
            month: key.1,
            ..RepriceEffect::default()
        });
        effect.requests += 1;
        effect.changed += i64::from(stored.part.cost != settled.cost_nano_usd);
        effect.before_nano_usd += stored.part.cost.unwrap_or(0);
        effect.after_nano_usd += settled.cost_nano_usd.unwrap_or(0);
        effect.unpriced_before += i64::from(stored.part.confidence == Confidence::Unpriced);
        effect.unpriced_after += i64::from(settled.confidence == Confidence::Unpriced);
    }

    /// By model, then month.
    pub(crate) fn into_vec(self) -> Vec<RepriceEffect> {
        self.0.into_values().collect()
    }
}

/// Adds the effect of the memory's table on the rows after `after`; the last row looked at, none where there are no more.
pub(crate) fn look(
    conn: &Connection,
    memory: &mut Memory,
    after: i64,
    effects: &mut Effects,
) -> rusqlite::Result<Option<i64>> {
    let rows = page(conn, memory, after, PAGE_ROWS)?;
    for stored in &rows {
        effects.add(stored, &stored.state.settle(&memory.prices));
    }
    Ok(rows.last().map(|row| row.id))
}

/// Prices the rows after `after` anew by the memory's table, in one transaction.
pub(crate) fn apply(
    conn: &Connection,
    memory: &mut Memory,
    after: i64,
    effects: &mut Effects,
) -> rusqlite::Result<(Option<i64>, Vec<LedgerChange>)> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let rows = page(&tx, memory, after, PAGE_ROWS)?;
    let mut deltas = Deltas::default();
    let mut changes = Vec::new();
    let mut changed = BTreeSet::new();
    let fingerprint = memory.prices.fingerprint();
    let priced_by = memory.name(&tx, &fingerprint)?;
    for stored in &rows {
        let settled = stored.state.settle(&memory.prices);
        effects.add(stored, &settled);
        let new = Part { cost: settled.cost_nano_usd, confidence: settled.confidence, ..stored.part };
        if new == stored.part {
            continue;
        }
        tx.prepare_cached(
            "UPDATE api_requests SET cost = ?2, confidence = ?3, context_window = ?4, priced_by = ?5 WHERE id = ?1",
        )?
        .execute(params![
            stored.id,
            new.cost,
            new.confidence as i64,
            memory.prices.context_window(stored.state.model_name()).map(to_i64),
            priced_by
        ])?;
        deltas.change(Some(&stored.part), Some(&new));
        changed.insert(new.session);
        changes.push(LedgerChange {
            session_id: stored.state.session_id.clone(),
            agent_id: stored.state.agent_id.clone(),
            app: String::new(),
            user: None,
            model: stored.state.model_name().to_owned(),
            ts: stored.state.ts,
            is_new: false,
            cost_before_nano_usd: stored.part.cost.unwrap_or(0),
            cost_nano_usd: new.cost.unwrap_or(0),
            tokens: new.usage.total(),
            confidence: new.confidence,
            request: None,
        });
    }
    deltas.flush(&tx)?;
    dirty::mark(&tx, memory, changed, now_ms())?;
    batch::place(&tx, &mut changes)?;
    tx.commit()?;
    Ok((rows.last().map(|row| row.id), changes))
}

/// Writes the derived rows of the sessions after `after` anew; with the last page the fingerprint of history moves.
pub(crate) fn finish(
    conn: &Connection,
    memory: &mut Memory,
    after: i64,
) -> rusqlite::Result<(Option<i64>, Vec<LedgerChange>)> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let sessions = tx
        .prepare_cached("SELECT session FROM client_totals WHERE session > ?1 ORDER BY session LIMIT ?2")?
        .query_map(params![after, to_i64(PAGE_SESSIONS)], |row| row.get(0))?
        .collect::<rusqlite::Result<BTreeSet<i64>>>()?;
    let last = sessions.last().copied();
    let mut deltas = Deltas::default();
    let mut changes = Vec::new();
    derived::refresh(&tx, memory, sessions, &mut deltas, &mut changes)?;
    batch::place(&tx, &mut changes)?;
    if last.is_none() {
        tx.execute(
            "INSERT OR REPLACE INTO ledger_settings (key, value) VALUES ('priced_by', ?1)",
            [memory.prices.fingerprint()],
        )?;
    }
    tx.commit()?;
    Ok((last, changes))
}

/// The month of a moment, UTC, as `2026-11`: by Howard Hinnant's `civil_from_days`.
fn month_of(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}")
}

#[cfg(test)]
mod tests {
    use super::month_of;

    #[test]
    fn months_begin_where_the_calendar_says() {
        let day = 86_400_000;
        for (days, month) in
            [(0, "1970-01"), (58, "1970-02"), (59, "1970-03"), (19_782, "2024-02"), (19_783, "2024-03")]
        {
            assert_eq!(month_of(days * day), month);
        }
        assert_eq!(month_of(1_796_083_200_000 - 1), "2026-11");
        assert_eq!(month_of(1_796_083_200_000), "2026-12");
    }
}
