//! Sums by equal steps of time, oldest first: what forecasts are made from. Read from rollups and the ledger's sums alone.

use rusqlite::{Connection, params};
use taffrail_event::TimestampMs;

use crate::error::ReadError;
use crate::filter::Scope;
use crate::reader::Reader;

const QUARTER_MS: i64 = 15 * 60_000;
const HOUR_MS: i64 = 4 * QUARTER_MS;

/// Steps of one reading, at most: it is cut at its older end.
pub const SUM_STEPS_MAX: usize = 10_000;

/// The length of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumStep {
    /// 15 minutes UTC.
    Quarter,
    /// An hour UTC.
    Hour,
}

impl SumStep {
    /// In milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Quarter => QUARTER_MS,
            Self::Hour => HOUR_MS,
        }
    }
}

/// One value for each step, of a span that ends at a step's end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepSums {
    /// Tool calls that ended. Begins with the first step that has a record of the scope, as the others do with theirs: what lies
    /// before is not known, what lies behind and has no record is 0, for hooks wait in the spool and transcripts in their files
    /// while no server runs.
    pub calls: Vec<f64>,
    /// Tokens of all kinds.
    pub tokens: Vec<f64>,
    /// Nano-dollars of the requests with a price. Begins with the first step that has one.
    pub cost_nano_usd: Vec<f64>,
    /// Requests of the span without a price: they are in no sum of money.
    pub unpriced_requests: i64,
}

impl Reader {
    /// Sums of `steps` steps before the one that `now` lies in. `scope.session` is not looked at.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn step_sums(
        &self,
        scope: &Scope,
        step: SumStep,
        steps: usize,
        now: TimestampMs,
    ) -> Result<StepSums, ReadError> {
        let length = step.ms();
        let to = now.get() - now.get().rem_euclid(length);
        let steps = i64::try_from(steps.min(SUM_STEPS_MAX)).unwrap_or(0);
        let span = Span { from: to.saturating_sub(steps.saturating_mul(length)), to, step };
        self.at_once(|conn| read(conn, scope, span))
    }
}

#[derive(Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    step: SumStep,
}

impl Span {
    /// Values by step, without the steps before the first that was told.
    fn values(self, told: &[(i64, f64)]) -> Vec<f64> {
        let Some(first) = told.iter().map(|(bucket, _)| *bucket).min() else { return Vec::new() };
        let place = |bucket: i64| usize::try_from((bucket - first) / self.step.ms()).ok();
        let mut values = vec![0.0; place(self.to).unwrap_or(0)];
        for (bucket, value) in told {
            if let Some(sum) = place(*bucket).and_then(|place| values.get_mut(place)) {
                *sum += value;
            }
        }
        values
    }
}

fn read(conn: &Connection, scope: &Scope, span: Span) -> Result<StepSums, ReadError> {
    let (app, user) = (scope.app.as_deref().unwrap_or(""), scope.user.as_deref().unwrap_or(""));
    let length = span.step.ms();
    let table = match span.step {
        SumStep::Quarter => "rollup_minute",
        SumStep::Hour => "rollup_hour",
    };
    let sql = format!(
        "SELECT bucket - bucket % ?5 AS step, total(calls) FROM {table}
            WHERE app = ?1 AND user = ?2 AND bucket >= ?3 AND bucket < ?4 GROUP BY step"
    );
    let mut calls = Vec::new();
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![app, user, span.from, span.to, length])?;
    while let Some(row) = rows.next()? {
        calls.push((row.get(0)?, row.get(1)?));
    }
    // `total` adds as floating point: a sum of anything a file told does not overflow.
    let mut statement = conn.prepare_cached(
        "SELECT bucket - bucket % ?5 AS step,
                total(input) + total(output) + total(cache_read) + total(cache_write_5m) + total(cache_write_1h),
                total(cost), sum(requests + estimated_requests > unpriced_requests), sum(unpriced_requests)
            FROM cost_quarters
            WHERE bucket >= ?3 AND bucket < ?4 AND (?1 IS NULL OR app = ?1) AND (?2 IS NULL OR user = ?2) GROUP BY step",
    )?;
    let mut sums = StepSums { calls: span.values(&calls), ..StepSums::default() };
    let (mut tokens, mut cost) = (Vec::new(), Vec::new());
    let mut rows = statement.query(params![scope.app, scope.user, span.from, span.to, length])?;
    while let Some(row) = rows.next()? {
        let bucket: i64 = row.get(0)?;
        tokens.push((bucket, row.get::<_, f64>(1)?));
        if row.get::<_, i64>(3)? > 0 {
            cost.push((bucket, row.get::<_, f64>(2)?));
        }
        sums.unpriced_requests = sums.unpriced_requests.saturating_add(row.get(4)?);
    }
    sums.tokens = span.values(&tokens);
    sums.cost_nano_usd = span.values(&cost);
    Ok(sums)
}
