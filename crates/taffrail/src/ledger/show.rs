//! `taffrail ledger show`: one line for each API request.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Confidence, Witness};
use taffrail_event::transcript::{Mark, MarkKind};
use taffrail_server::calendar::Zone;
use taffrail_store::{CostTotals, LedgerRow, Reader, StoredFailure, StoredMark};

use crate::home::Home;
use crate::print::{out, written};
use crate::report::fold;
use crate::report::show::{self as sums, SumsJson};
use crate::report::text::{self, Column, Grid, Look, Tone};
use crate::report::{rfc3339, session_of, zone};

use super::ShowArgs;

/// Characters of a message or a prompt in the table.
const SUMMARY_MAX_CHARS: usize = 80;
/// Characters of a subagent's type in the table.
const AGENT_MAX_CHARS: usize = 20;
/// Our cost and the client's differ when they do by more than this, in nano-dollars: it counts in floats.
const TOLD_TOLERANCE_NANO_USD: i64 = 1;

/// What is known of a session.
#[derive(Debug)]
struct Page {
    session: String,
    rows: Vec<LedgerRow>,
    failures: Vec<StoredFailure>,
    marks: Vec<StoredMark>,
}

pub(crate) fn run(home: &Home, reader: &Reader, args: &ShowArgs) -> Result<()> {
    let zone = zone(&args.timezone)?;
    let session = session_of(reader, &args.session)?;
    let mut page = Page { rows: reader.ledger(&session)?, failures: Vec::new(), marks: Vec::new(), session };
    if args.all {
        page.failures = reader.api_failures(&page.session)?;
        page.marks = reader.transcript_marks(&page.session)?;
    }
    if args.json {
        out(&serde_json::to_string_pretty(&page.json(args.all)?)?)?;
    } else {
        written(std::io::stdout().lock().write_all(page.text(&zone, Look::of_stdout()).as_bytes()))?;
    }
    sums::warn_unpriced(home, &page.unpriced());
    Ok(())
}

#[derive(Debug, Serialize)]
struct PageJson<'a> {
    session_id: &'a str,
    rows: Vec<RowJson<'a>>,
    totals: SumsJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<Vec<FailureJson<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marks: Option<Vec<MarkJson<'a>>>,
}

/// One request; without `sources` it is money that only the client's own total tells of.
#[derive(Debug, Serialize)]
struct RowJson<'a> {
    ts: String,
    ts_ms: i64,
    message_id: Option<&'a str>,
    request_id: Option<&'a str>,
    session_id: &'a str,
    agent_id: Option<&'a str>,
    agent_type: Option<&'a str>,
    prompt_id: Option<&'a str>,
    app: &'a str,
    user: Option<&'a str>,
    model: &'a str,
    speed: &'static str,
    service_tier: Option<&'a str>,
    inference_geo: Option<&'a str>,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_5m_tokens: u64,
    cache_write_1h_tokens: u64,
    web_searches: u64,
    /// What the transcript gave, where another source gave the final figure.
    provisional_output_tokens: Option<u64>,
    cost_usd: Option<f64>,
    /// What the client says it cost.
    told_cost_usd: Option<f64>,
    confidence: &'static str,
    sources: Vec<&'static str>,
    query_source: Option<&'a str>,
    effort: Option<&'a str>,
    stop_reason: Option<&'a str>,
    duration_ms: Option<i64>,
    ttft_ms: Option<i64>,
    attempts: Option<i64>,
}

impl<'a> From<&'a LedgerRow> for RowJson<'a> {
    fn from(row: &'a LedgerRow) -> Self {
        Self {
            ts: rfc3339(row.ts),
            ts_ms: row.ts.get(),
            message_id: row.message_id.as_deref(),
            request_id: row.request_id.as_deref(),
            session_id: &row.session_id,
            agent_id: row.agent_id.as_deref(),
            agent_type: row.agent_type.as_deref(),
            prompt_id: row.prompt_id.as_deref(),
            app: &row.app,
            user: row.user.as_deref(),
            model: &row.model,
            speed: row.terms.speed.name(),
            service_tier: row.terms.service_tier.as_deref(),
            inference_geo: row.terms.inference_geo.as_deref(),
            input_tokens: row.usage.input,
            output_tokens: row.usage.output,
            cache_read_tokens: row.usage.cache_read,
            cache_write_5m_tokens: row.usage.cache_write_5m,
            cache_write_1h_tokens: row.usage.cache_write_1h,
            web_searches: row.usage.web_searches,
            provisional_output_tokens: row.provisional_output,
            cost_usd: row.cost_nano_usd.map(text::usd_number),
            told_cost_usd: row.told_cost_nano_usd.map(text::usd_number),
            confidence: fold::confidence(row).name(),
            sources: sources(row),
            query_source: row.query_source.as_deref(),
            effort: row.effort.as_deref(),
            stop_reason: row.stop_reason.as_deref(),
            duration_ms: row.duration_ms,
            ttft_ms: row.ttft_ms,
            attempts: row.attempts,
        }
    }
}

#[derive(Debug, Serialize)]
struct FailureJson<'a> {
    ts: String,
    source: &'static str,
    agent_id: Option<&'a str>,
    model: Option<&'a str>,
    status_code: Option<u16>,
    message: &'a str,
    attempt: Option<u32>,
    attempts_max: Option<u32>,
    retry_in_ms: Option<u64>,
    exhausted: bool,
}

#[derive(Debug, Serialize)]
struct MarkJson<'a> {
    ts: String,
    kind: &'static str,
    agent_id: Option<&'a str>,
    summary: &'a str,
}

/// The names of those who told of a request.
fn sources(row: &LedgerRow) -> Vec<&'static str> {
    Witness::ALL.into_iter().filter(|witness| row.sources & witness.bit() != 0).map(Witness::name).collect()
}

fn kind(mark: &Mark) -> &'static str {
    match mark.kind {
        MarkKind::Prompt { .. } => "prompt",
        MarkKind::Compaction { .. } => "compaction",
        MarkKind::Spawn { .. } => "subagent",
    }
}

impl Page {
    fn totals(&self) -> CostTotals {
        let mut totals = CostTotals::default();
        for row in &self.rows {
            fold::add_request(&mut totals, row);
        }
        totals
    }

    fn unpriced(&self) -> Vec<fold::Unpriced> {
        let each = self.rows.iter().map(|row| {
            let mut one = CostTotals::default();
            fold::add_request(&mut one, row);
            (row.model.as_str(), one)
        });
        let each: Vec<_> = each.collect();
        fold::unpriced(each.iter().map(|(model, totals)| (*model, totals)))
    }

    fn json(&self, all: bool) -> serde_json::Result<serde_json::Value> {
        let failures = self.failures.iter().map(|StoredFailure { failure: f }| FailureJson {
            ts: rfc3339(f.ts),
            source: f.witness.name(),
            agent_id: f.agent_id.as_deref(),
            model: f.model.as_deref(),
            status_code: f.status_code,
            message: &f.message,
            attempt: f.attempt,
            attempts_max: f.attempts_max,
            retry_in_ms: f.retry_in_ms,
            exhausted: f.exhausted,
        });
        let marks = self.marks.iter().map(|StoredMark { mark }| MarkJson {
            ts: rfc3339(mark.ts),
            kind: kind(mark),
            agent_id: mark.agent_id.as_deref(),
            summary: &mark.summary,
        });
        let page = PageJson {
            session_id: &self.session,
            rows: self.rows.iter().map(RowJson::from).collect(),
            totals: SumsJson::from(&self.totals()),
            failures: all.then(|| failures.collect()),
            marks: all.then(|| marks.collect()),
        };
        serde_json::to_value(page)
    }

    fn text(&self, zone: &Zone, look: Look) -> String {
        let totals = self.totals();
        let session = text::plain(&self.session, SUMMARY_MAX_CHARS);
        let mut text = format!("session {session}, {}\n", sums::requests(totals.requests));
        if self.rows.is_empty() {
            text.push_str("no API request of it is known\n");
        } else {
            text.push_str(&self.grid(zone, &totals).render(look));
            text.push_str(&sums::legend(&totals));
        }
        text.push_str(&self.happened(zone));
        text
    }

    fn grid(&self, zone: &Zone, totals: &CostTotals) -> Grid {
        // Only OTLP tells what the client thinks that a request costs.
        let has_told = self.rows.iter().any(|row| row.told_cost_nano_usd.is_some());
        let mut columns = vec![
            Column::left("time"),
            Column::left("model"),
            Column::left("agent").spare(2),
            Column::right("input").spare(4),
            Column::right("output"),
            Column::right("cache write").spare(6),
            Column::right("cache read").spare(5),
            Column::right("cost"),
        ];
        columns.extend(has_told.then_some(Column::right("client's").spare(1)));
        columns.extend([Column::left("confidence"), Column::left("sources").spare(3)]);
        let mut grid = Grid::new(columns);
        for row in &self.rows {
            grid.row(tone(row), cells(row, zone, has_told));
        }
        let usage = &totals.usage;
        let told: i64 = self.rows.iter().filter_map(|row| row.told_cost_nano_usd).sum();
        let mut cells = vec![
            "total".to_owned(),
            String::new(),
            String::new(),
            text::thousands(usage.input),
            text::thousands(usage.output),
            text::thousands(usage.cache_write_5m.saturating_add(usage.cache_write_1h)),
            text::thousands(usage.cache_read),
            sums::cost(totals),
        ];
        cells.extend(has_told.then(|| text::usd_fine(told)));
        cells.extend([String::new(), String::new()]);
        grid.totals(cells);
        grid
    }

    /// Failures and marks, oldest first.
    fn happened(&self, zone: &Zone) -> String {
        let failures = self.failures.iter().map(|StoredFailure { failure: f }| {
            let attempt = match (f.attempt, f.attempts_max) {
                (Some(n), Some(max)) => Some(format!("attempt {n} of {max}")),
                (Some(n), None) => Some(format!("attempt {n}")),
                _ => None,
            };
            let status = f.status_code.map(|code| code.to_string());
            let end = f.exhausted.then(|| "gave up".to_owned());
            let told: Vec<String> = [status, attempt, end].into_iter().flatten().collect();
            let said = text::plain(&f.message, SUMMARY_MAX_CHARS);
            let colon = if told.is_empty() { "" } else { ": " };
            (f.ts, format!("{:<10} {}{colon}{said}", "failed", told.join(", ")))
        });
        let marks = self.marks.iter().map(|StoredMark { mark }| {
            (mark.ts, format!("{:<10} {}", kind(mark), text::plain(&mark.summary, SUMMARY_MAX_CHARS)))
        });
        let mut lines: Vec<(TimestampMs, String)> = failures.chain(marks).collect();
        lines.sort_by_key(|(ts, _)| *ts);
        let lines: Vec<String> =
            lines.into_iter().map(|(ts, line)| format!(" {}  {line}\n", zone.second_of(ts))).collect();
        if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
    }
}

fn tone(row: &LedgerRow) -> Tone {
    let differs = row.cost_nano_usd.zip(row.told_cost_nano_usd);
    let differs = differs.is_some_and(|(ours, told)| (ours - told).abs() > TOLD_TOLERANCE_NANO_USD);
    if differs || fold::confidence(row) == Confidence::Unpriced { Tone::Loud } else { Tone::Plain }
}

fn cells(row: &LedgerRow, zone: &Zone, has_told: bool) -> Vec<String> {
    let usage = &row.usage;
    let output = match row.provisional_output.filter(|provisional| *provisional != usage.output) {
        Some(provisional) => format!("{} -> {}", text::thousands(provisional), text::thousands(usage.output)),
        None => text::thousands(usage.output),
    };
    let agent = row.agent_type.as_deref().or(row.agent_id.as_deref()).unwrap_or("main");
    let sources = sources(row);
    let mut cells = vec![
        zone.second_of(row.ts),
        text::plain(text::short_model(&row.model), AGENT_MAX_CHARS * 2),
        text::plain(agent, AGENT_MAX_CHARS),
        text::thousands(usage.input),
        output,
        text::thousands(usage.cache_write_5m.saturating_add(usage.cache_write_1h)),
        text::thousands(usage.cache_read),
        row.cost_nano_usd.map_or_else(|| "unknown".to_owned(), text::usd_fine),
    ];
    cells.extend(has_told.then(|| row.told_cost_nano_usd.map(text::usd_fine).unwrap_or_default()));
    cells.push(fold::confidence(row).name().to_owned());
    cells.push(if sources.is_empty() { "client's total".to_owned() } else { sources.join(" ") });
    cells
}
