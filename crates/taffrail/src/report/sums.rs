//! `taffrail report daily|weekly|monthly`.
//!
//! Without `--by` the table has a line for each period, JSON and CSV a row for each period, project and model.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;
use jiff::ToSpan;
use jiff::civil::Date;
use serde::Serialize;
use taffrail_event::TimestampMs;
use taffrail_server::calendar::{Cut, Slice, Zone};
use taffrail_store::{CostBy, CostQuery, CostRow, CostTotals, Reader};

use crate::home::Home;
use crate::print::{out, written};

use super::args::{HowArgs, Order, SumArgs};
use super::fold::{self, Line, Unpriced};
use super::show::{self, SumsJson, TotalsJson};
use super::text::{self, Column, CsvCell, Grid, Look, Tone};
use super::{told, which};

/// Days from a week's first day to the one that names the week: that of ISO 8601 is named by its Thursday.
const DAYS_TO_MIDWEEK: [(jiff::civil::Weekday, i64); 2] =
    [(jiff::civil::Weekday::Monday, 3), (jiff::civil::Weekday::Sunday, 4)];
/// Characters of a key from outside, in a table.
const KEY_MAX_CHARS: usize = 40;

/// A report by time.
#[derive(Debug)]
pub(crate) struct Report {
    cut: Cut,
    zone: String,
    slices: Vec<Slice>,
    /// The keys asked for.
    by: CostBy,
    /// Sums by time, model and the finest of what is shown.
    cells: Vec<CostRow>,
    totals: CostTotals,
    unpriced: Vec<Unpriced>,
}

pub(crate) fn run(home: &Home, reader: &Reader, cut: Cut, args: &SumArgs) -> Result<()> {
    let by = super::args::cost_by(&args.by)?;
    let (zone, query) = which(reader, &args.which)?;
    let report = gather(reader, cut, &zone, query, by)?;
    if args.how.json {
        out(&serde_json::to_string_pretty(&report.json(args.how.order)?)?)?;
    } else if args.how.csv {
        written(std::io::stdout().lock().write_all(report.csv(args.how.order).as_bytes()))?;
    } else {
        written(std::io::stdout().lock().write_all(report.table(args.how, Look::of_stdout()).as_bytes()))?;
    }
    show::warn_unpriced(home, &report.unpriced);
    Ok(())
}

fn gather(reader: &Reader, cut: Cut, zone: &Zone, query: CostQuery, by: CostBy) -> Result<Report> {
    let all = reader.costs(&query)?;
    let all = fold::sum(all.iter().map(|row| &row.totals));
    let slices = match bounds(&query, &all) {
        Some((from, to)) => zone.cuts(cut, from, to).map_err(|e| told(&e))?,
        None => Vec::new(),
    };
    let cells = if slices.is_empty() {
        Vec::new()
    } else {
        let finest = CostBy { model: true, app: by.app || by == CostBy::default(), ..by.clone() };
        let cuts = slices.iter().map(|slice| slice.from).collect();
        reader.costs(&CostQuery { cuts, by: finest, ..query })?
    };
    Ok(Report::new(cut, zone.name().to_owned(), slices, by, cells))
}

/// The time that has something in it.
fn bounds(query: &CostQuery, all: &CostTotals) -> Option<(TimestampMs, TimestampMs)> {
    let first = all.first.into_iter().chain(query.from).max()?;
    let past = TimestampMs::clamped(all.last?.get().saturating_add(1));
    Some((first, query.to.map_or(past, |to| to.min(past))))
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    report: &'static str,
    timezone: &'a str,
    rows: Vec<RowJson<'a>>,
    totals: TotalsJson,
}

/// A row; a key that was not asked for is null, and so is one that is not known.
#[derive(Debug, Serialize)]
struct RowJson<'a> {
    date: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    week: Option<String>,
    app: Option<&'a str>,
    model: Option<&'a str>,
    user: Option<&'a str>,
    agent: Option<&'a str>,
    label: Option<&'a str>,
    #[serde(flatten)]
    sums: SumsJson,
}

impl Report {
    fn new(cut: Cut, zone: String, slices: Vec<Slice>, by: CostBy, cells: Vec<CostRow>) -> Self {
        let totals = fold::sum(cells.iter().map(|row| &row.totals));
        let models = cells.iter().map(|row| (row.model.as_deref().unwrap_or_default(), &row.totals));
        let unpriced = fold::unpriced(models);
        Self { cut, zone, slices, by, cells, totals, unpriced }
    }

    /// The lines, in the order asked for; of one period dearest first.
    fn lines(&self, by: &CostBy, order: Order) -> Vec<Line> {
        let mut lines = fold::fold(&self.cells, by);
        if order == Order::Desc {
            lines.sort_by_key(|line| std::cmp::Reverse(line.bucket));
        }
        lines
    }

    /// As [`Self::lines`] for a program: by project and model where nothing else was asked for.
    fn data_lines(&self, order: Order) -> Vec<Line> {
        if self.by == CostBy::default() {
            return self.lines(&CostBy { app: true, model: true, ..CostBy::default() }, order);
        }
        self.lines(&self.by, order)
    }

    fn date(&self, line: &Line) -> &str {
        self.slices.get(line.bucket).map_or("", |slice| slice.label.as_str())
    }

    fn week(&self, line: &Line) -> Option<String> {
        let Cut::Week(first) = self.cut else { return None };
        let (_, days) = DAYS_TO_MIDWEEK.iter().find(|(day, _)| *day == first)?;
        let date: Date = self.date(line).parse().ok()?;
        let week = date.saturating_add(days.days()).iso_week_date();
        Some(format!("{}-W{:02}", week.year(), week.week()))
    }

    fn name(&self) -> &'static str {
        match self.cut {
            Cut::Hour => "hourly",
            Cut::Day => "daily",
            Cut::Week(_) => "weekly",
            Cut::Month => "monthly",
        }
    }

    fn json(&self, order: Order) -> serde_json::Result<serde_json::Value> {
        let lines = self.data_lines(order);
        let rows = lines.iter().map(|line| RowJson {
            date: self.date(line),
            week: self.week(line),
            app: line.keys.app.as_deref(),
            model: line.keys.model.as_deref(),
            user: line.keys.user.as_deref(),
            agent: line.keys.agent.as_deref(),
            label: line.keys.label.as_deref(),
            sums: SumsJson::from(&line.totals),
        });
        let report = ReportJson {
            report: self.name(),
            timezone: &self.zone,
            rows: rows.collect(),
            totals: TotalsJson::new(&self.totals, &self.unpriced),
        };
        serde_json::to_value(report)
    }

    fn csv(&self, order: Order) -> String {
        let keys = ["date", "week", "app", "model", "user", "agent", "label"];
        let mut text =
            text::csv_line(keys.into_iter().chain(show::CSV_SUMS).map(|name| CsvCell::Ours(name.to_owned())));
        for line in self.data_lines(order) {
            let key = |value: &Option<String>| value.clone().unwrap_or_default();
            let keys = [
                key(&line.keys.app),
                key(&line.keys.model),
                key(&line.keys.user),
                key(&line.keys.agent),
                key(&line.keys.label),
            ];
            let time = [self.date(&line).to_owned(), self.week(&line).unwrap_or_default()];
            let cells = time.into_iter().map(CsvCell::Ours);
            let cells = cells.chain(keys.iter().map(|key| CsvCell::Text(key)));
            text.push_str(&text::csv_line(cells.chain(show::csv_sums(&line.totals))));
        }
        text
    }

    fn table(&self, how: HowArgs, look: Look) -> String {
        let lines = self.lines(&self.by, how.order);
        if lines.is_empty() {
            return "no requests in that time\n".to_owned();
        }
        let keys = key_columns(&self.by);
        let mut columns = vec![Column::left(self.cut.name())];
        columns.extend(keys.iter().map(|(column, _)| *column));
        let has_models = !self.by.model;
        if has_models {
            columns.push(Column::left("models"));
        }
        columns.extend(SUM_COLUMNS);
        let mut grid = Grid::new(columns);
        for line in &lines {
            let mut cells = vec![self.date(line).to_owned()];
            cells.extend(keys.iter().map(|(_, value)| shown_key(value(line))));
            if has_models {
                cells.push(models(&line.models));
            }
            cells.extend(sum_cells(&line.totals));
            grid.row(tone(&line.totals), cells);
        }
        let mut totals = vec!["total".to_owned()];
        totals.resize(1 + keys.len() + usize::from(has_models), String::new());
        totals.extend(sum_cells(&self.totals));
        grid.totals(totals);
        format!("{}{}", grid.render(look), show::legend(&self.totals))
    }
}

/// Columns of a sum in a table.
pub(crate) const SUM_COLUMNS: [Column; 6] = [
    Column::right("requests").spare(1),
    Column::right("input").spare(2),
    Column::right("output"),
    Column::right("cache write").spare(3),
    Column::right("cache read").spare(4),
    Column::right("cost"),
];

/// Its cells.
pub(crate) fn sum_cells(totals: &CostTotals) -> Vec<String> {
    let usage = &totals.usage;
    vec![
        text::count(totals.requests),
        text::thousands(usage.input),
        text::thousands(usage.output),
        text::thousands(usage.cache_write_5m.saturating_add(usage.cache_write_1h)),
        text::thousands(usage.cache_read),
        show::cost(totals),
    ]
}

/// A sum with something unpriced in it is to be looked at.
pub(crate) fn tone(totals: &CostTotals) -> Tone {
    let unpriced = totals.of(taffrail_event::ledger::Confidence::Unpriced).requests;
    if unpriced > 0 { Tone::Loud } else { Tone::Plain }
}

/// The value of a key in a line.
pub(crate) type KeyOf = fn(&Line) -> Option<&str>;

/// The columns of the keys asked for.
pub(crate) fn key_columns(by: &CostBy) -> Vec<(Column, KeyOf)> {
    let all: [(bool, &'static str, KeyOf); 5] = [
        (by.app, "app", |line| line.keys.app.as_deref()),
        (by.user, "user", |line| line.keys.user.as_deref()),
        (by.label.is_some(), "label", |line| line.keys.label.as_deref()),
        (by.agent, "agent", |line| line.keys.agent.as_deref()),
        (by.model, "model", |line| line.keys.model.as_deref().map(text::short_model)),
    ];
    all.into_iter().filter(|(asked, ..)| *asked).map(|(_, name, key)| (Column::left(name), key)).collect()
}

/// A key for people.
pub(crate) fn shown_key(value: Option<&str>) -> String {
    match value {
        None | Some("") => "(none)".to_owned(),
        Some(value) => text::plain(value, KEY_MAX_CHARS),
    }
}

/// Models, dearest first, by their short names.
pub(crate) fn models(models: &BTreeMap<String, CostTotals>) -> String {
    let mut names: Vec<String> = Vec::new();
    for model in fold::by_cost(models) {
        let name = shown_key(Some(text::short_model(model)));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
