//! Shapes that all reports share: sums as JSON and CSV, marks of a figure's confidence, what is said beside a table.

use std::fmt::Write as _;

use serde::Serialize;
use taffrail_event::ledger::Confidence;
use taffrail_store::CostTotals;

use crate::home::Home;

use super::fold::Unpriced;
use super::text::{self, CsvCell};

/// Models without a price that are named on stderr; the rest is counted.
const UNPRICED_NAMED_MAX: usize = 10;
/// Characters of a model's name on stderr: it comes from outside.
const MODEL_MAX_CHARS: usize = 80;

/// A sum in JSON, in the API's shape.
#[derive(Debug, Serialize)]
pub(crate) struct SumsJson {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_5m_tokens: u64,
    cache_write_1h_tokens: u64,
    total_tokens: u64,
    web_searches: u64,
    requests: i64,
    /// Dollars; null where there were requests and not one has a price.
    cost_usd: Option<f64>,
    /// How many requests are how sure.
    confidence: CountsJson,
    /// How many dollars are how sure.
    cost_by_confidence: CostsJson,
}

#[derive(Debug, Serialize)]
struct CountsJson {
    exact: i64,
    repaired: i64,
    lower_bound: i64,
    estimated: i64,
    unpriced: i64,
}

#[derive(Debug, Serialize)]
struct CostsJson {
    exact: f64,
    repaired: f64,
    lower_bound: f64,
    estimated: f64,
}

impl From<&CostTotals> for SumsJson {
    fn from(totals: &CostTotals) -> Self {
        let requests = |confidence| totals.of(confidence).requests;
        let dollars = |confidence| text::usd_number(totals.of(confidence).cost_nano_usd);
        Self {
            input_tokens: totals.usage.input,
            output_tokens: totals.usage.output,
            cache_read_tokens: totals.usage.cache_read,
            cache_write_5m_tokens: totals.usage.cache_write_5m,
            cache_write_1h_tokens: totals.usage.cache_write_1h,
            total_tokens: totals.usage.total(),
            web_searches: totals.usage.web_searches,
            requests: totals.requests,
            cost_usd: totals.known_cost_nano_usd().map(text::usd_number),
            confidence: CountsJson {
                exact: requests(Confidence::Exact),
                repaired: requests(Confidence::Repaired),
                lower_bound: requests(Confidence::LowerBound),
                estimated: requests(Confidence::Estimated),
                unpriced: requests(Confidence::Unpriced),
            },
            cost_by_confidence: CostsJson {
                exact: dollars(Confidence::Exact),
                repaired: dollars(Confidence::Repaired),
                lower_bound: dollars(Confidence::LowerBound),
                estimated: dollars(Confidence::Estimated),
            },
        }
    }
}

/// The sum of a whole report in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct TotalsJson {
    #[serde(flatten)]
    sums: SumsJson,
    /// Requests whose cost is not in `cost_usd`.
    unpriced_requests: i64,
    unpriced_models: Vec<UnpricedJson>,
}

#[derive(Debug, Serialize)]
struct UnpricedJson {
    model: String,
    requests: i64,
    total_tokens: u64,
}

impl TotalsJson {
    pub(crate) fn new(totals: &CostTotals, unpriced: &[Unpriced]) -> Self {
        let models = unpriced.iter().map(|u| UnpricedJson {
            model: u.model.clone(),
            requests: u.requests,
            total_tokens: u.tokens,
        });
        Self {
            sums: SumsJson::from(totals),
            unpriced_requests: totals.of(Confidence::Unpriced).requests,
            unpriced_models: models.collect(),
        }
    }
}

/// Columns of a sum in CSV.
pub(crate) const CSV_SUMS: [&str; 13] = [
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "web_searches",
    "requests",
    "cost_usd",
    "exact_requests",
    "repaired_requests",
    "lower_bound_requests",
    "estimated_usd",
    "unpriced_requests",
];

/// Its cells; an unknown cost is empty.
pub(crate) fn csv_sums(totals: &CostTotals) -> Vec<CsvCell<'static>> {
    let usage = &totals.usage;
    let requests = |confidence| totals.of(confidence).requests.to_string();
    [
        usage.input.to_string(),
        usage.output.to_string(),
        usage.cache_read.to_string(),
        usage.cache_write_5m.to_string(),
        usage.cache_write_1h.to_string(),
        usage.web_searches.to_string(),
        totals.requests.to_string(),
        totals.known_cost_nano_usd().map(text::usd_decimal).unwrap_or_default(),
        requests(Confidence::Exact),
        requests(Confidence::Repaired),
        requests(Confidence::LowerBound),
        text::usd_decimal(totals.of(Confidence::Estimated).cost_nano_usd),
        requests(Confidence::Unpriced),
    ]
    .map(CsvCell::Ours)
    .to_vec()
}

/// A cost for people: `~` where part of it is a lower bound or an estimate, `!` where part of it is not known.
pub(crate) fn cost(totals: &CostTotals) -> String {
    let Some(nano) = totals.known_cost_nano_usd() else { return "unknown".to_owned() };
    let loud = if totals.of(Confidence::Unpriced).requests > 0 { "!" } else { "" };
    format!("{loud}{}{}", if is_unsure(totals) { "~" } else { "" }, text::usd(nano))
}

fn is_unsure(totals: &CostTotals) -> bool {
    let estimated = totals.of(Confidence::Estimated);
    totals.of(Confidence::LowerBound).requests > 0 || estimated.requests > 0 || estimated.cost_nano_usd != 0
}

/// What the marks of [`cost`] mean here; empty where there are none.
pub(crate) fn legend(totals: &CostTotals) -> String {
    let mut legend = String::new();
    let lower = totals.of(Confidence::LowerBound).requests;
    if lower > 0 {
        let _ = writeln!(
            legend,
            "~ at least this: provisional output only for {} of {}",
            text::count(lower),
            requests(totals.requests)
        );
    }
    let estimated = totals.of(Confidence::Estimated).cost_nano_usd;
    if estimated != 0 {
        let _ = writeln!(
            legend,
            "~ about this: {} of it is known by the client's own total only",
            text::usd(estimated)
        );
    }
    if !legend.is_empty() {
        legend.push_str("  final figures come by OTLP: `taffrail install --otel`\n");
    }
    let unpriced = totals.of(Confidence::Unpriced).requests;
    if unpriced > 0 {
        let _ = writeln!(
            legend,
            "! or unknown: no price is known for {}, whose cost is in no figure here",
            requests(unpriced)
        );
    }
    legend
}

/// Says loudly on stderr which models have no price.
pub(crate) fn warn_unpriced(home: &Home, unpriced: &[Unpriced]) {
    for model in unpriced.iter().take(UNPRICED_NAMED_MAX) {
        eprintln!(
            "warning: no price is known for `{}`: {} with {} tokens are in no dollar figure here",
            text::plain(&model.model, MODEL_MAX_CHARS),
            requests(model.requests),
            text::thousands(model.tokens)
        );
    }
    if unpriced.len() > UNPRICED_NAMED_MAX {
        eprintln!("warning: and {} more models without a price", unpriced.len() - UNPRICED_NAMED_MAX);
    }
    if !unpriced.is_empty() {
        eprintln!(
            "hint: give prices in {} and run `taffrail prices reprice`",
            home.dir().join("prices.toml").display()
        );
    }
}

/// "1 request", "1,234 requests".
pub(crate) fn requests(n: i64) -> String {
    format!("{} request{}", text::count(n), if n == 1 { "" } else { "s" })
}
