//! Sums of the ledger, folded to the lines of a report. Pure.

use std::collections::{BTreeMap, BTreeSet};

use taffrail_event::ledger::Confidence;
use taffrail_store::{CostBy, CostRow, CostTotals, LedgerRow};

/// What a line stands for beside its place in time; what was not asked for is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Keys {
    pub(crate) session: Option<String>,
    pub(crate) app: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) model: Option<String>,
}

impl Keys {
    fn of(row: &CostRow, by: &CostBy) -> Self {
        // What is not known is no name.
        let key =
            |asked: bool, value: &Option<String>| value.clone().filter(|name| asked && !name.is_empty());
        Self {
            session: key(by.session, &row.session),
            app: key(by.app, &row.app),
            user: key(by.user, &row.user),
            agent: key(by.agent, &row.agent),
            label: key(by.label.is_some(), &row.label),
            model: key(by.model, &row.model),
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Line {
    /// Index of the slice of time.
    pub(crate) bucket: usize,
    pub(crate) keys: Keys,
    pub(crate) totals: CostTotals,
    /// What the line sums, by model.
    pub(crate) models: BTreeMap<String, CostTotals>,
    /// And by the subagent's type, where the sums tell it.
    pub(crate) agents: BTreeMap<String, CostTotals>,
    /// And the projects, where the sums tell them.
    pub(crate) apps: BTreeSet<String>,
}

/// Models, dearest first.
pub(crate) fn by_cost(models: &BTreeMap<String, CostTotals>) -> Vec<&str> {
    let mut models: Vec<(&String, &CostTotals)> = models.iter().collect();
    models.sort_by_key(|(name, t)| (std::cmp::Reverse(t.cost_nano_usd), name.as_str()));
    models.into_iter().map(|(name, _)| name.as_str()).collect()
}

/// Folds sums that are by model (and by whatever else) to lines by `by`: by time, then dearest first.
pub(crate) fn fold(rows: &[CostRow], by: &CostBy) -> Vec<Line> {
    let mut lines: BTreeMap<(usize, Keys), Line> = BTreeMap::new();
    for row in rows {
        let keys = Keys::of(row, by);
        let line = lines.entry((row.bucket, keys)).or_insert_with_key(|(bucket, keys)| Line {
            bucket: *bucket,
            keys: keys.clone(),
            ..Line::default()
        });
        line.totals.add(&row.totals);
        line.models.entry(row.model.clone().unwrap_or_default()).or_default().add(&row.totals);
        if let Some(agent) = &row.agent {
            line.agents.entry(agent.clone()).or_default().add(&row.totals);
        }
        line.apps.extend(row.app.clone());
    }
    let mut lines: Vec<Line> = lines.into_values().collect();
    // Stable: lines of one cost stay in the order of their keys.
    lines.sort_by_key(|line| (line.bucket, std::cmp::Reverse(line.totals.cost_nano_usd)));
    lines
}

/// All of it.
pub(crate) fn sum<'a>(totals: impl IntoIterator<Item = &'a CostTotals>) -> CostTotals {
    let mut all = CostTotals::default();
    for part in totals {
        all.add(part);
    }
    all
}

/// Adds one request; what is only derived from the client's total is money without a request.
pub(crate) fn add_request(totals: &mut CostTotals, row: &LedgerRow) {
    let requests = i64::from(row.sources != 0);
    let cost = row.cost_nano_usd.unwrap_or(0);
    let mut one = CostTotals {
        requests,
        usage: row.usage,
        cost_nano_usd: cost,
        first: Some(row.ts),
        last: Some(row.ts),
        ..CostTotals::default()
    };
    let confidence = confidence(row);
    if let Some(at) = Confidence::ALL.iter().position(|c| *c == confidence) {
        one.by_confidence[at].requests = requests;
        one.by_confidence[at].cost_nano_usd = cost;
    }
    totals.add(&one);
}

/// How sure a row is; a row that does not say is as sure as its cost is known.
pub(crate) fn confidence(row: &LedgerRow) -> Confidence {
    row.confidence.unwrap_or(if row.cost_nano_usd.is_some() {
        Confidence::Estimated
    } else {
        Confidence::Unpriced
    })
}

/// A model without a price, and what was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpriced {
    pub(crate) model: String,
    pub(crate) requests: i64,
    pub(crate) tokens: u64,
}

/// Models of which some request has no price, most requests first.
pub(crate) fn unpriced<'a>(models: impl IntoIterator<Item = (&'a str, &'a CostTotals)>) -> Vec<Unpriced> {
    let mut found: BTreeMap<&str, Unpriced> = BTreeMap::new();
    for (model, totals) in models {
        let requests = totals.of(Confidence::Unpriced).requests;
        if requests > 0 {
            let entry = found.entry(model).or_insert_with(|| Unpriced {
                model: model.to_owned(),
                requests: 0,
                tokens: 0,
            });
            entry.requests += requests;
            entry.tokens = entry.tokens.saturating_add(totals.usage.total());
        }
    }
    let mut found: Vec<Unpriced> = found.into_values().collect();
    found.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.model.cmp(&b.model)));
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use taffrail_event::ledger::Usage;

    fn cell(bucket: usize, keys: [u8; 3], cost: i64, at: usize) -> CostRow {
        let name = |kind: &str, n: u8| Some(format!("{kind}{n}"));
        let mut totals = CostTotals {
            requests: 1,
            usage: Usage { input: cost.unsigned_abs(), output: 1, ..Usage::default() },
            cost_nano_usd: cost,
            ..CostTotals::default()
        };
        totals.by_confidence[at].requests = 1;
        totals.by_confidence[at].cost_nano_usd = cost;
        CostRow {
            bucket,
            app: name("app", keys[0]),
            model: name("model", keys[1]),
            agent: name("agent", keys[2]),
            totals,
            ..CostRow::default()
        }
    }

    proptest! {
        #[test]
        fn no_split_loses_or_doubles_anything(
            cells in prop::collection::vec((0usize..4, [0u8..3, 0u8..3, 0u8..3], 0i64..1_000, 0usize..4), 0..60),
            by in (any::<bool>(), any::<bool>(), any::<bool>()),
        ) {
            let cells: Vec<CostRow> = cells.into_iter().map(|(b, k, c, at)| cell(b, k, c, at)).collect();
            let by = CostBy { app: by.0, model: by.1, agent: by.2, ..CostBy::default() };
            let lines = fold(&cells, &by);
            let all = sum(cells.iter().map(|cell| &cell.totals));
            prop_assert_eq!(sum(lines.iter().map(|line| &line.totals)), all);
            prop_assert_eq!(sum(lines.iter().flat_map(|line| line.models.values())), all);
            prop_assert_eq!(sum(lines.iter().flat_map(|line| line.agents.values())), all);
            let mut keys: Vec<_> = lines.iter().map(|line| (line.bucket, line.keys.clone())).collect();
            let places = keys.len();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(keys.len(), places, "each line stands once");
            prop_assert!(lines.iter().all(|line| line.keys.app.is_some() == by.app));
            prop_assert!(lines.is_sorted_by_key(|line| (line.bucket, std::cmp::Reverse(line.totals.cost_nano_usd))));
        }
    }

    #[test]
    fn models_without_a_price_are_counted_over_all_lines() {
        let one = |model: u8, at: usize| cell(0, [0, model, 0], 7, at);
        let cells = [one(1, 4), one(1, 4), one(2, 0), one(0, 4)];
        let found = unpriced(cells.iter().map(|c| (c.model.as_deref().unwrap(), &c.totals)));
        let found: Vec<_> = found.iter().map(|u| (u.model.as_str(), u.requests, u.tokens)).collect();
        assert_eq!(found, [("model1", 2, 16), ("model0", 1, 8)]);
    }
}
