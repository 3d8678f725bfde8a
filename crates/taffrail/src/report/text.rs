//! Figures and tables for people.
//!
//! A table that is wider than the terminal loses the columns it can spare and says so; then text wraps. Without a
//! terminal the width is that of `COLUMNS`, else unlimited, so that a filter sees whole lines.

use std::fmt::Write;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use crate::print::Colours;

const NANO_PER_USD: u64 = 1_000_000_000;
/// Nano-dollars of a cent.
const NANO_PER_CENT: u64 = 10_000_000;
/// From here on four digits after the point say enough of a single request.
const FINE_MIN_NANO: u64 = 1_000_000;
/// Digits after the leading zeros of an amount below a cent.
const SMALL_DIGITS: u32 = 2;
/// Narrower than this nothing can be shown; a terminal that says so is not believed.
const WIDTH_MIN: u16 = 20;

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// As [`thousands`], for a count that SQL gives signed.
pub(crate) fn count(n: i64) -> String {
    thousands(u64::try_from(n).unwrap_or(0))
}

/// Nano-dollars as dollars: `$1,234.57`; below a cent with two digits that count, `$0.00042`.
pub(crate) fn usd(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let nano = nano.unsigned_abs();
    if nano == 0 || nano >= NANO_PER_CENT {
        let cents = (nano + NANO_PER_CENT / 2) / NANO_PER_CENT;
        return format!("{sign}${}.{:02}", thousands(cents / 100), cents % 100);
    }
    // Rounded to the first digits that say something.
    let unit = 10_u64.pow(nano.ilog10().saturating_sub(SMALL_DIGITS - 1));
    let digits = format!("{:09}", (nano + unit / 2) / unit * unit);
    format!("{sign}$0.{}", digits.trim_end_matches('0'))
}

/// As [`usd`], for single requests and small differences: four digits from a thousandth of a dollar on.
pub(crate) fn usd_fine(nano: i64) -> String {
    let magnitude = nano.unsigned_abs();
    if magnitude < FINE_MIN_NANO {
        return usd(nano);
    }
    let sign = if nano < 0 { "-" } else { "" };
    let parts = (magnitude + NANO_PER_USD / 20_000) / (NANO_PER_USD / 10_000);
    format!("{sign}${}.{:04}", thousands(parts / 10_000), parts % 10_000)
}

/// Nano-dollars as the number of dollars that JSON has.
#[allow(
    clippy::cast_precision_loss,
    reason = "a sum of money stays far below 2^53 nano-dollars, or is rounded there"
)]
pub(crate) fn usd_number(nano: i64) -> f64 {
    nano as f64 / 1e9
}

/// Nano-dollars as an exact decimal number of dollars, as CSV has it.
pub(crate) fn usd_decimal(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let nano = nano.unsigned_abs();
    let text = format!("{}.{:09}", nano / NANO_PER_USD, nano % NANO_PER_USD);
    format!("{sign}{}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A model's name without what all have in common: `claude-opus-5-5-20260901` is `opus-5-5`.
pub(crate) fn short_model(model: &str) -> &str {
    let name = model.strip_prefix("claude-").unwrap_or(model);
    match name.rsplit_once('-') {
        Some((stem, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => name,
    }
}

/// Text from outside on one line of a terminal: control characters could move its cursor.
pub(crate) fn plain(text: &str, max_chars: usize) -> String {
    let mut out: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max_chars).collect();
    if text.chars().nth(max_chars).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// A column of a [`Grid`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) align: Align,
    /// The column with the highest number goes first where the width is short; 0 stays.
    pub(crate) spare: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl Column {
    pub(crate) const fn left(name: &'static str) -> Self {
        Self { name, align: Align::Left, spare: 0 }
    }

    pub(crate) const fn right(name: &'static str) -> Self {
        Self { name, align: Align::Right, spare: 0 }
    }

    pub(crate) const fn spare(self, rank: u8) -> Self {
        Self { spare: rank, ..self }
    }
}

/// How a row stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// Something to look at.
    Loud,
    /// Less than the others.
    Faint,
}

/// A table for people.
#[derive(Debug)]
pub(crate) struct Grid {
    columns: Vec<Column>,
    rows: Vec<(Tone, Vec<String>)>,
    totals: Option<Vec<String>>,
}

/// How wide, and whether in colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) width: Option<u16>,
    pub(crate) colours: Colours,
}

impl Look {
    /// Of stdout: `COLUMNS` where it is set, else the terminal's width.
    pub(crate) fn of_stdout() -> Self {
        let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let width = asked.or_else(|| Table::new().width()).filter(|width| *width >= WIDTH_MIN);
        Self { width, colours: Colours::of_stdout() }
    }
}

impl Grid {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new(), totals: None }
    }

    pub(crate) fn row(&mut self, tone: Tone, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push((tone, cells));
    }

    /// The last line, below a rule.
    pub(crate) fn totals(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.totals = Some(cells);
    }

    /// The table, and below it which columns had to be left out.
    pub(crate) fn render(&self, look: Look) -> String {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let mut left_out = Vec::new();
        if let Some(width) = look.width {
            while self.natural_width(&shown) > usize::from(width) {
                let spare = shown.iter().copied().max_by_key(|at| self.columns[*at].spare);
                let Some(spare) = spare.filter(|at| self.columns[*at].spare > 0) else { break };
                shown.retain(|at| *at != spare);
                left_out.push(spare);
            }
            // A wide column may have made room for others that went before it.
            for column in left_out.clone().into_iter().rev() {
                let at = shown.partition_point(|at| *at < column);
                shown.insert(at, column);
                if self.natural_width(&shown) > usize::from(width) {
                    shown.remove(at);
                } else {
                    left_out.retain(|at| *at != column);
                }
            }
        }
        let mut text = self.lines(&shown, look).join("\n");
        text.push('\n');
        if !left_out.is_empty() {
            let names: Vec<&str> = left_out.iter().map(|at| self.columns[*at].name).collect();
            let _ = writeln!(text, "left out for the width: {}", names.join(", "));
        }
        text
    }

    fn natural_width(&self, shown: &[usize]) -> usize {
        let table = self.table(shown, Colours::Off);
        table.column_max_content_widths().iter().map(|width| usize::from(*width) + 2).sum()
    }

    fn lines(&self, shown: &[usize], look: Look) -> Vec<String> {
        let mut table = self.table(shown, look.colours);
        if let Some(width) = look.width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        if self.totals.is_some() {
            let rule = usize::from(look.width.unwrap_or(u16::MAX)).min(self.natural_width(shown));
            let at = lines.len().saturating_sub(1);
            lines.insert(at, format!(" {}", "─".repeat(rule.saturating_sub(2))));
        }
        lines
    }

    fn table(&self, shown: &[usize], colours: Colours) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match colours {
            Colours::On => table.enforce_styling(),
            Colours::Off => table.force_no_tty(),
        };
        let bold = |text: &str| Cell::new(text).add_attribute(Attribute::Bold);
        table.set_header(shown.iter().map(|at| bold(self.columns[*at].name)));
        for (tone, cells) in &self.rows {
            table.add_row(shown.iter().map(|at| toned(*tone, &cells[*at])));
        }
        if let Some(totals) = &self.totals {
            table.add_row(shown.iter().map(|at| bold(&totals[*at])));
        }
        for (place, at) in shown.iter().enumerate() {
            if let (Align::Right, Some(column)) = (self.columns[*at].align, table.column_mut(place)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

fn toned(tone: Tone, text: &str) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Loud => cell.fg(Color::Yellow),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
    }
}

/// One line of RFC 4180, with its line end.
pub(crate) fn csv_line<'a>(cells: impl IntoIterator<Item = CsvCell<'a>>) -> String {
    let cells: Vec<String> = cells.into_iter().map(CsvCell::text).collect();
    format!("{}\r\n", cells.join(","))
}

/// A cell of CSV.
#[derive(Clone, Debug)]
pub(crate) enum CsvCell<'a> {
    /// Text from outside. A spreadsheet would run what begins like a formula: such text gets an apostrophe in front.
    Text(&'a str),
    /// A number or a date of ours.
    Ours(String),
}

impl CsvCell<'_> {
    fn text(self) -> String {
        let text = match self {
            Self::Text(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) => {
                format!("'{text}")
            }
            Self::Text(text) => text.to_owned(),
            Self::Ours(text) => text,
        };
        if text.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn dollars_have_cents_and_below_a_cent_two_digits_that_count() {
        let shown =
            [0, 1, 420_000, 9_999_999, 10_000_000, 14_999_999, 15_000_000, 1_234_567_890_000, -2_500_000]
                .map(usd);
        let expected = [
            "$0.00",
            "$0.000000001",
            "$0.00042",
            "$0.01",
            "$0.01",
            "$0.01",
            "$0.02",
            "$1,234.57",
            "-$0.0025",
        ];
        assert_eq!(shown, expected);
        let fine = [0, 420_000, 5_000_000, 15_000_000, 14_999_949_999, 1_234_567_890_000, -265_000_000]
            .map(usd_fine);
        assert_eq!(fine, ["$0.00", "$0.00042", "$0.0050", "$0.0150", "$14.9999", "$1,234.5679", "-$0.2650"]);
        assert_eq!(usd_decimal(74_144_000), "0.074144");
        assert_eq!(usd_decimal(-3_000_000_000), "-3");
        assert_eq!(usd_decimal(0), "0");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_model_is_shortened_by_what_all_have_in_common_only() {
        let short =
            ["claude-opus-5-5-20260901", "claude-haiku-5-5", "gpt-7", "claude-x-2026"].map(short_model);
        assert_eq!(short, ["opus-5-5", "haiku-5-5", "gpt-7", "x-2026"]);
    }

    #[test]
    fn csv_is_quoted_and_runs_no_formula() {
        let line = csv_line([
            CsvCell::Text("=HYPERLINK(\"http://x\",\"y\")"),
            CsvCell::Text("a,b"),
            CsvCell::Text("two\nlines"),
            CsvCell::Text("@x"),
            CsvCell::Ours("-1".to_owned()),
        ]);
        assert_eq!(line, "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\",\"a,b\",\"two\nlines\",'@x,-1\r\n");
    }

    fn grid() -> Grid {
        let mut grid = Grid::new(vec![
            Column::left("date"),
            Column::right("requests").spare(1),
            Column::right("cache").spare(2),
            Column::right("cost"),
        ]);
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        grid.row(Tone::Plain, row(["2026-11-01", "3", "1,000", "$0.50"]));
        grid.row(Tone::Loud, row(["2026-11-02", "12", "20", "$10.00"]));
        grid.totals(row(["total", "15", "1,020", "$10.50"]));
        grid
    }

    #[test]
    fn a_table_loses_the_columns_it_can_spare() {
        let look = |width| Look { width, colours: Colours::Off };
        let whole = " date        requests  cache    cost
 2026-11-01         3  1,000   $0.50
 2026-11-02        12     20  $10.00
 ───────────────────────────────────
 total             15  1,020  $10.50
";
        assert_eq!(grid().render(look(None)), whole);
        let narrow = grid().render(look(Some(31)));
        assert!(
            narrow.contains("requests") && narrow.ends_with("left out for the width: cache\n"),
            "{narrow}"
        );
        let narrower = grid().render(look(Some(22)));
        assert!(narrower.ends_with("left out for the width: cache, requests\n"), "{narrower}");
        assert!(grid().render(Look { width: None, colours: Colours::On }).contains("\x1b["));
        assert!(!whole.contains('\x1b'));
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(plain("a\x1b[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(plain("abcdef", 4), "abc…");
    }
}
