//! The tables: ccusage's titles, columns and figures. The frame is this program's own.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;

use super::args::{Flavour, Report, Shared};
use super::blocks::Block;
use super::document::period;
use super::rows::{Counts, Label, ModelShare, Row};
use super::time;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// What a table is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Title {
    /// Of the first column.
    column: &'static str,
    name: &'static str,
}

impl Title {
    pub(super) fn of(report: &Report, flavour: Flavour) -> Self {
        let (column, name) = match (report, flavour) {
            (Report::Daily(_), _) => ("Date", "Daily"),
            (Report::Weekly(_), _) => ("Week", "Weekly"),
            (Report::Monthly(_), _) => ("Month", "Monthly"),
            (Report::Session(_), Flavour::All) => ("Session", "Session"),
            (Report::Session(_), Flavour::Claude) => ("Session", "By Session"),
            (Report::Blocks(_), _) => ("Block Start", "Session Blocks"),
        };
        Self { column, name }
    }

    fn line(self, flavour: Flavour) -> String {
        match flavour {
            Flavour::All => format!("Coding (Agent) CLI Usage Report - {}\nDetected: Claude", self.name),
            Flavour::Claude => format!("Claude Code Token Usage Report - {}", self.name),
        }
    }
}

/// The table of days, weeks, months or sessions.
pub(super) fn rows(title: Title, rows: &[Row], flavour: Flavour, shared: &Shared) -> String {
    let is_session = rows.iter().any(|row| matches!(row.label, Label::Session { .. }));
    let mut headers = vec![title.column, "Models", "Input", "Output"];
    if !shared.compact {
        headers.extend(["Cache Create", "Cache Read", "Total Tokens"]);
    }
    if !shared.no_cost {
        headers.push("Cost (USD)");
    }
    if is_session && flavour == Flavour::Claude {
        headers.push("Last Activity");
    }
    let mut table = framed(&headers, 2);
    let width = headers.len();
    for row in rows {
        let mut cells = vec![period(&row.label), models(&row.models)];
        cells.extend(figures(row.counts, row.cost, shared));
        if let (Label::Session { last_ms, .. }, true) = (&row.label, width > cells.len()) {
            cells.push(time::rfc3339(*last_ms).get(..10).unwrap_or_default().to_owned());
        }
        table.add_row(padded(cells, width));
        if shared.breakdown {
            for share in &row.shares {
                table.add_row(padded(share_cells(share, shared), width));
            }
        }
    }
    let mut sum = Counts::default();
    rows.iter().for_each(|row| sum.add(row.counts));
    let mut cells = vec!["Total".to_owned(), String::new()];
    cells.extend(figures(sum, rows.iter().map(|row| row.cost).sum(), shared));
    table.add_row(padded(cells, width));
    format!("{}\n\n{table}", title.line(flavour))
}

fn share_cells(share: &ModelShare, shared: &Shared) -> Vec<String> {
    let mut cells = vec![format!("  - {}", short(&share.model)), String::new()];
    cells.extend(figures(share.counts, share.cost, shared));
    cells
}

fn figures(counts: Counts, cost: f64, shared: &Shared) -> Vec<String> {
    let mut cells = vec![number(counts.input), number(counts.output)];
    if !shared.compact {
        cells.extend([counts.cache_write, counts.cache_read, counts.total()].map(number));
    }
    if !shared.no_cost {
        cells.push(dollars(cost));
    }
    cells
}

/// One session in four lines.
pub(super) fn session(id: &str, cost: f64, tokens: u64, entries: usize, shared: &Shared) -> String {
    let cost = if shared.no_cost { String::new() } else { format!("Total Cost: {}\n", dollars(cost)) };
    let tokens = number(tokens);
    format!("Claude Code Session Usage - {id}\n{cost}Total Tokens: {tokens}\nTotal Entries: {entries}")
}

/// The table of blocks.
pub(super) fn blocks(
    title: Title,
    blocks: &[Block],
    names: &[String],
    limit: Option<u64>,
    zone: &TimeZone,
    now_ms: i64,
) -> String {
    let mut headers = vec![title.column, "Duration/Status", "Models", "Tokens"];
    let limit = limit.filter(|limit| *limit > 0);
    if limit.is_some() {
        headers.push("%");
    }
    headers.push("Cost");
    let mut table = framed(&headers, 3);
    let share = |tokens: u64| limit.map(|limit| format!("{:.1}%", tokens as f64 / limit as f64 * 100.0));
    for block in blocks {
        let Some(of) = &block.of else {
            let mut cells = vec![block_time(block, zone, now_ms), "(inactive)".to_owned()];
            cells.resize(headers.len(), "-".to_owned());
            table.add_row(cells);
            continue;
        };
        let own: Vec<String> =
            of.models.iter().filter_map(|model| names.get(*model as usize).cloned()).collect();
        let status = if of.is_active { "ACTIVE" } else { "" };
        let line = |label: String, status: &str, models: String, tokens: u64, cost: String| {
            let mut cells = vec![label, status.to_owned(), models, number(tokens)];
            cells.extend(share(tokens));
            cells.push(cost);
            cells
        };
        let tokens = of.counts.total();
        table.add_row(line(block_time(block, zone, now_ms), status, models(&own), tokens, dollars(of.cost)));
        if let Some(limit) = limit.filter(|_| of.is_active) {
            let label = format!("(assuming {} token limit)", number(limit));
            table.add_row(line(
                label,
                "REMAINING",
                String::new(),
                limit.saturating_sub(tokens),
                String::new(),
            ));
        }
        if let Some(projection) = block.projection(now_ms) {
            let (tokens, cost) = (projection.tokens, dollars(projection.cost));
            let label = "(assuming current burn rate)".to_owned();
            table.add_row(line(label, "PROJECTED", String::new(), tokens, cost));
        }
    }
    format!("{}\n\n{table}", title.line(Flavour::Claude))
}

fn block_time(block: &Block, zone: &TimeZone, now_ms: i64) -> String {
    let start = clock(block.start_ms, zone);
    let span = |ms: i64| format!("{}h {}m", ms / HOUR_MS, ms.rem_euclid(HOUR_MS) / MINUTE_MS);
    match &block.of {
        None => {
            let hours = (block.end_ms - block.start_ms) / HOUR_MS;
            format!("{start} - {} ({hours}h gap)", clock(block.end_ms, zone))
        }
        Some(of) if of.is_active => {
            let (elapsed, remaining) = (now_ms - block.start_ms, block.end_ms - now_ms);
            format!("{start} ({} elapsed, {} remaining)", span(elapsed), span(remaining))
        }
        Some(of) => match of.last_ms - block.start_ms {
            ms if ms >= HOUR_MS => format!("{start} ({})", span(ms)),
            ms => format!("{start} ({}m)", ms / MINUTE_MS),
        },
    }
}

fn clock(at_ms: i64, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    zone.to_datetime(at).strftime("%-m/%-d/%Y, %-I:%M:%S %p").to_string()
}

fn framed(headers: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headers);
    for (n, column) in table.column_iter_mut().enumerate() {
        if n >= left && headers[n] != "Last Activity" {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn padded(mut cells: Vec<String>, width: usize) -> Vec<String> {
    cells.resize(width, String::new());
    cells
}

/// A line for each model, the short name of several spellings once.
fn models(models: &[String]) -> String {
    let mut names: Vec<String> = models.iter().map(|model| short(model)).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().map(|name| format!("- {name}")).collect::<Vec<_>>().join("\n")
}

/// `claude-opus-4-5-20251101` is `opus-4-5`.
fn short(model: &str) -> String {
    let own = model.rsplit('/').next().unwrap_or(model);
    let own = own.strip_prefix("claude-").unwrap_or(own);
    match own.rsplit_once('-') {
        Some((name, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
        _ => own.to_owned(),
    }
}

/// `1,234,567`
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn dollars(value: f64) -> String {
    format!("${value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let found = [0, 999, 1_000, 69_344_257].map(number);
        assert_eq!(found, ["0", "999", "1,000", "69,344,257"]);
    }

    #[test]
    fn models_are_short_and_once() {
        let names = ["claude-opus-4-5-20251101", "claude-opus-4-5", "anthropic/claude-sonnet-4", "m9"];
        assert_eq!(models(&names.map(str::to_owned)), "- m9\n- opus-4-5\n- sonnet-4");
    }
}
