//! `taffrail report blocks`.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use taffrail_event::TimestampMs;
use taffrail_server::calendar::Zone;
use taffrail_store::{CostQuery, CostTotals, Reader};

use crate::home::Home;
use crate::print::{out, written};

use super::args::{BlocksArgs, Order, TokenLimit};
use super::blocks::{BLOCK_MS, Block, Blocks};
use super::fold::{self, Unpriced};
use super::show::{self, SumsJson, TotalsJson};
use super::text::{self, Column, CsvCell, Grid, Look, Tone};
use super::{rfc3339, sums, which};

/// What `--recent` shows, in milliseconds.
const RECENT_MS: i64 = 3 * DAY_MS;
/// What is read before the first block asked for: a pause in it settles where blocks begin.
const LEAD_MS: i64 = 3 * DAY_MS;
const DAY_MS: i64 = 24 * 3_600_000;
/// From this part of its limit on a block is shown as near it.
const LIMIT_WARN_PERCENT: f64 = 80.0;

#[derive(Debug)]
struct Report {
    zone: Zone,
    now: TimestampMs,
    blocks: Vec<Block>,
    limit: Option<u64>,
    totals: CostTotals,
    unpriced: Vec<Unpriced>,
}

pub(crate) fn run(home: &Home, reader: &Reader, args: &BlocksArgs, now: TimestampMs) -> Result<()> {
    let (zone, mut query) = which(reader, &args.which)?;
    if args.recent || args.active {
        let recent = if args.active { BLOCK_MS } else { RECENT_MS };
        let since = TimestampMs::clamped(now.get() - recent);
        query.from = Some(query.from.map_or(since, |from| from.max(since)));
    }
    // The largest block is looked for in all of history.
    let limit = match args.token_limit {
        Some(TokenLimit::Tokens(tokens)) => Some(tokens),
        Some(TokenLimit::Max) => largest(reader, &query, now)?,
        None => None,
    };
    let blocks = gather(reader, &query)?;
    let report = Report::new(zone, now, blocks, limit, args);
    if args.how.json {
        out(&serde_json::to_string_pretty(&report.json()?)?)?;
    } else {
        let text = if args.how.csv { report.csv() } else { report.text(Look::of_stdout()) };
        written(std::io::stdout().lock().write_all(text.as_bytes()))?;
    }
    show::warn_unpriced(home, &report.unpriced);
    Ok(())
}

/// The tokens of the largest block that is over; none where none is.
fn largest(reader: &Reader, query: &CostQuery, now: TimestampMs) -> Result<Option<u64>> {
    let all = read(reader, &CostQuery { from: None, to: None, ..query.clone() })?;
    Ok(all.iter().filter(|block| !block.is_gap && block.end <= now).map(Block::tokens).max())
}

/// The blocks that begin in the time asked for, each whole. Where one begins depends on those before it, so requests before
/// that time are read, too: some days of them, or all where those days have no pause.
fn gather(reader: &Reader, query: &CostQuery) -> Result<Vec<Block>> {
    let whole = CostQuery {
        // A request at exactly five hours is the block's last.
        to: query.to.map(|to| TimestampMs::clamped(to.get() + BLOCK_MS + 1)),
        ..query.clone()
    };
    let mut blocks = match query.from {
        None => read(reader, &whole)?,
        Some(from) => {
            let lead = TimestampMs::clamped(from.get() - LEAD_MS);
            let near = read(reader, &CostQuery { from: Some(lead), ..whole.clone() })?;
            if is_settled(&near, lead, from) {
                near
            } else {
                read(reader, &CostQuery { from: None, ..whole })?
            }
        }
    };
    blocks.retain(|block| {
        query.from.is_none_or(|from| block.start >= from) && query.to.is_none_or(|to| block.start < to)
    });
    // A gap at an end leads from nothing, or to nothing.
    let real = blocks.iter().position(|block| !block.is_gap).unwrap_or(blocks.len());
    blocks.drain(..real);
    blocks.truncate(blocks.iter().rposition(|block| !block.is_gap).map_or(0, |last| last + 1));
    Ok(blocks)
}

/// Whether the blocks that reach beyond `from` are the same with everything before `lead`.
fn is_settled(blocks: &[Block], lead: TimestampMs, from: TimestampMs) -> bool {
    let first = blocks.first().and_then(|block| block.totals.first);
    let after_pause = first.is_none_or(|first| first.get() - lead.get() > BLOCK_MS);
    after_pause || blocks.iter().any(|block| block.is_gap && block.end <= from)
}

fn read(reader: &Reader, query: &CostQuery) -> Result<Vec<Block>> {
    let mut blocks = Blocks::default();
    reader.each_request(query, &mut |row| blocks.add(row))?;
    Ok(blocks.into_blocks())
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    report: &'static str,
    timezone: &'a str,
    rows: Vec<BlockJson<'a>>,
    totals: TotalsJson,
}

#[derive(Debug, Serialize)]
struct BlockJson<'a> {
    /// The day it begins.
    date: String,
    start: String,
    end: String,
    first: Option<String>,
    last: Option<String>,
    is_active: bool,
    is_gap: bool,
    #[serde(flatten)]
    sums: SumsJson,
    models: Vec<&'a str>,
    /// Of the running block only, and so are the rest.
    burn_rate: Option<BurnJson>,
    projection: Option<ProjectionJson>,
    minutes_left: Option<i64>,
    token_limit: Option<LimitJson>,
}

#[derive(Debug, Serialize)]
struct BurnJson {
    tokens_per_minute: f64,
    tokens_per_minute_without_cache: f64,
    cost_usd_per_hour: f64,
}

#[derive(Debug, Serialize)]
struct ProjectionJson {
    total_tokens: u64,
    cost_usd: f64,
}

#[derive(Debug, Serialize)]
struct LimitJson {
    limit: u64,
    used_percent: f64,
    /// By the end of the block, where it runs.
    projected_percent: Option<f64>,
    status: &'static str,
}

impl Report {
    fn new(zone: Zone, now: TimestampMs, blocks: Vec<Block>, limit: Option<u64>, args: &BlocksArgs) -> Self {
        let mut blocks = blocks;
        if args.active {
            blocks.retain(|block| block.is_active(now));
        }
        if args.how.order == Order::Desc {
            blocks.reverse();
        }
        let totals = fold::sum(blocks.iter().map(|block| &block.totals));
        let models = blocks.iter().flat_map(|block| &block.models);
        let unpriced = fold::unpriced(models.map(|(model, totals)| (model.as_str(), totals)));
        Self { zone, now, blocks, limit, totals, unpriced }
    }

    fn json(&self) -> serde_json::Result<serde_json::Value> {
        let report = ReportJson {
            report: "blocks",
            timezone: self.zone.name(),
            rows: self.blocks.iter().map(|block| self.block_json(block)).collect(),
            totals: TotalsJson::new(&self.totals, &self.unpriced),
        };
        serde_json::to_value(report)
    }

    fn block_json<'a>(&self, block: &'a Block) -> BlockJson<'a> {
        let is_active = block.is_active(self.now);
        let burn = block.burn(self.now);
        let projection = block.projection(self.now);
        BlockJson {
            date: self.zone.day_of(block.start),
            start: rfc3339(block.start),
            end: rfc3339(block.end),
            first: block.totals.first.map(rfc3339),
            last: block.totals.last.map(rfc3339),
            is_active,
            is_gap: block.is_gap,
            sums: SumsJson::from(&block.totals),
            models: fold::by_cost(&block.models),
            burn_rate: burn.map(|burn| BurnJson {
                tokens_per_minute: burn.tokens_per_minute,
                tokens_per_minute_without_cache: burn.tokens_per_minute_without_cache,
                cost_usd_per_hour: burn.usd_per_hour,
            }),
            projection: projection.map(|p| ProjectionJson {
                total_tokens: p.tokens,
                cost_usd: text::usd_number(p.cost_nano_usd),
            }),
            minutes_left: is_active.then(|| block.minutes_left(self.now)),
            token_limit: self.limit.filter(|_| !block.is_gap).map(|limit| LimitJson {
                limit,
                used_percent: percent(block.tokens(), limit),
                projected_percent: projection.map(|p| percent(p.tokens, limit)),
                status: self.status(block, limit),
            }),
        }
    }

    /// By what it has, or will have if it goes on like this.
    fn status(&self, block: &Block, limit: u64) -> &'static str {
        let tokens = block.projection(self.now).map_or(block.tokens(), |p| p.tokens);
        match percent(tokens, limit) {
            p if p > 100.0 => "exceeds",
            p if p >= LIMIT_WARN_PERCENT => "warning",
            _ => "ok",
        }
    }

    fn csv(&self) -> String {
        let names = ["date", "start", "end", "first", "last", "is_active", "is_gap", "models"];
        let mut csv = text::csv_line(
            names.into_iter().chain(show::CSV_SUMS).map(|name| CsvCell::Ours(name.to_owned())),
        );
        for block in &self.blocks {
            let time = |at: Option<TimestampMs>| CsvCell::Ours(at.map(rfc3339).unwrap_or_default());
            let models = fold::by_cost(&block.models).join(" ");
            let cells = [
                CsvCell::Ours(self.zone.day_of(block.start)),
                time(Some(block.start)),
                time(Some(block.end)),
                time(block.totals.first),
                time(block.totals.last),
                CsvCell::Ours(block.is_active(self.now).to_string()),
                CsvCell::Ours(block.is_gap.to_string()),
                CsvCell::Text(&models),
            ];
            csv.push_str(&text::csv_line(cells.into_iter().chain(show::csv_sums(&block.totals))));
        }
        csv
    }

    fn text(&self, look: Look) -> String {
        if self.blocks.is_empty() {
            return "no block in that time\n".to_owned();
        }
        let running = self.blocks.iter().find(|block| block.is_active(self.now));
        let running = running.map(|block| format!("\n{}", self.running(block))).unwrap_or_default();
        format!("{}{}{running}", self.grid().render(look), show::legend(&self.totals))
    }

    fn grid(&self) -> Grid {
        let mut columns =
            vec![Column::left("block"), Column::left("length"), Column::left("models").spare(5)];
        columns.extend(sums::SUM_COLUMNS);
        if self.limit.is_some() {
            columns.push(Column::right("of limit"));
        }
        let mut grid = Grid::new(columns);
        for block in &self.blocks {
            let (tone, cells) = self.row(block);
            grid.row(tone, cells);
        }
        let mut totals = vec!["total".to_owned(), String::new(), String::new()];
        totals.extend(sums::sum_cells(&self.totals));
        totals.extend(self.limit.map(|_| String::new()));
        grid.totals(totals);
        grid
    }

    fn row(&self, block: &Block) -> (Tone, Vec<String>) {
        let mut cells = vec![self.minute(block.start)];
        if block.is_gap {
            cells.push(format!("{} gap", span_text(block.end.get() - block.start.get())));
            cells.resize(3 + sums::SUM_COLUMNS.len() + usize::from(self.limit.is_some()), String::new());
            return (Tone::Faint, cells);
        }
        let is_active = block.is_active(self.now);
        let used = block.totals.first.zip(block.totals.last).map_or(0, |(a, b)| b.get() - a.get());
        cells.push(match is_active {
            true => format!("active, {} left", span_text(block.end.get() - self.now.get())),
            false => span_text(used),
        });
        cells.push(sums::models(&block.models));
        cells.extend(sums::sum_cells(&block.totals));
        cells.extend(self.limit.map(|limit| format!("{:.0} %", percent(block.tokens(), limit))));
        let is_over = self.limit.is_some_and(|limit| self.status(block, limit) != "ok");
        (if is_active || is_over { Tone::Loud } else { sums::tone(&block.totals) }, cells)
    }

    /// What to know of the running block.
    fn running(&self, block: &Block) -> String {
        let mut lines = vec![format!(
            "active block: {} to {}, {} left",
            self.minute(block.start),
            self.minute(block.end),
            span_text(block.end.get() - self.now.get())
        )];
        if let Some(burn) = block.burn(self.now) {
            lines.push(format!(
                "  burn rate   {} tokens/min, {} without the cache, {}/h",
                whole(burn.tokens_per_minute),
                whole(burn.tokens_per_minute_without_cache),
                text::usd(taffrail_event::ledger::nano_usd(burn.usd_per_hour).unwrap_or(i64::MAX))
            ));
        }
        if let Some(projection) = block.projection(self.now) {
            lines.push(format!(
                "  at its end  {} tokens, {}, if it goes on like this",
                text::thousands(projection.tokens),
                text::usd(projection.cost_nano_usd)
            ));
        }
        if let Some(limit) = self.limit {
            let words = match self.status(block, limit) {
                "exceeds" => "it will exceed the limit",
                "warning" => "it comes near the limit",
                _ => "below the limit",
            };
            lines.push(format!(
                "  limit       {} of {} tokens used ({:.0} %): {words}",
                text::thousands(block.tokens()),
                text::thousands(limit),
                percent(block.tokens(), limit)
            ));
        }
        lines.join("\n") + "\n"
    }

    fn minute(&self, at: TimestampMs) -> String {
        self.zone.minute_of(at)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share")]
fn percent(tokens: u64, limit: u64) -> f64 {
    tokens as f64 * 100.0 / limit.max(1) as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, above 0")]
fn whole(rate: f64) -> String {
    text::thousands(rate.round() as u64)
}

/// Milliseconds as `2h 05m`.
fn span_text(ms: i64) -> String {
    let minutes = ms.max(0) / 60_000;
    if minutes < 60 { format!("{minutes}m") } else { format!("{}h {:02}m", minutes / 60, minutes % 60) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use taffrail_event::ledger::{Confidence, Usage};
    use taffrail_store::LedgerRow;

    fn at(text: &str) -> TimestampMs {
        TimestampMs::clamped(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn report(now: &str, limit: Option<u64>, args: &BlocksArgs) -> Report {
        let mut blocks = Blocks::default();
        for time in
            ["2026-11-21T08:10:00Z", "2026-11-21T09:40:00Z", "2026-11-22T10:20:00Z", "2026-11-22T10:40:00Z"]
        {
            blocks.add(&LedgerRow {
                ts: at(time),
                model: "claude-opus-5-5".to_owned(),
                usage: Usage { input: 1_000, output: 200, cache_read: 8_800, ..Usage::default() },
                cost_nano_usd: Some(1_000_000_000),
                confidence: Some(Confidence::Exact),
                sources: 1,
                ..LedgerRow::default()
            });
        }
        Report::new(super::super::zone("UTC").unwrap(), at(now), blocks.into_blocks(), limit, args)
    }

    fn args(flags: &[&str]) -> BlocksArgs {
        use clap::Parser;
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            args: BlocksArgs,
        }
        Only::try_parse_from([&["x"], flags].concat()).unwrap().args
    }

    const PLAIN: Look = Look { width: None, colours: crate::print::Colours::Off };

    #[test]
    fn the_running_block_is_shown_with_where_it_leads() {
        let text = report("2026-11-22T11:20:00Z", Some(40_000), &args(&[])).text(PLAIN);
        let expected = " block             length               models    requests  input  output  cache write  cache read   cost  of limit
 2026-11-21 08:00  1h 30m               opus-5-5         2  2,000     400            0      17,600  $2.00      50 %
 2026-11-21 14:40  19h 40m gap
 2026-11-22 10:00  active, 3h 40m left  opus-5-5         2  2,000     400            0      17,600  $2.00      50 %
 ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 total                                                   4  4,000     800            0      35,200  $4.00

active block: 2026-11-22 10:00 to 2026-11-22 15:00, 3h 40m left
  burn rate   333 tokens/min, 40 without the cache, $2.00/h
  at its end  93,333 tokens, $9.33, if it goes on like this
  limit       20,000 of 40,000 tokens used (50 %): it will exceed the limit
";
        assert_eq!(text, expected);
    }

    #[test]
    fn active_and_newest_first_are_what_they_say() {
        let report_of = |flags: &[&str]| report("2026-11-22T11:20:00Z", None, &args(flags)).json().unwrap();
        let active = report_of(&["--active"]);
        assert_eq!(active["rows"].as_array().unwrap().len(), 1);
        assert_eq!(active["rows"][0]["is_active"], true);
        assert_eq!(active["rows"][0]["minutes_left"], 220);
        assert_eq!(active["totals"]["cost_usd"], 2.0);
        let newest = report_of(&["--order", "desc"]);
        assert_eq!(newest["rows"][0]["start"], "2026-11-22T10:00:00Z");
        assert_eq!(newest["rows"][1]["is_gap"], true);
        assert_eq!(newest["rows"][1]["burn_rate"], serde_json::Value::Null);
    }

    #[test]
    fn blocks_are_settled_by_a_pause_only() {
        let all = report("2026-11-22T11:20:00Z", None, &args(&[])).blocks;
        let lead = at("2026-11-21T08:00:00Z");
        assert!(is_settled(&all, lead, at("2026-11-22T10:30:00Z")), "a gap lies before it");
        assert!(!is_settled(&all, lead, at("2026-11-22T00:00:00Z")), "the gap ends after it");
        assert!(is_settled(&all, at("2026-11-21T03:00:00Z"), lead), "a pause lies before the first");
        assert!(is_settled(&[], lead, lead));
    }
}
