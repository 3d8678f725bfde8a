//! `taffrail report session`: a line for each session, with its models and agents.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use taffrail_event::TimestampMs;
use taffrail_server::calendar::Zone;
use taffrail_store::{CostBy, CostQuery, CostTotals, Reader};

use crate::home::Home;
use crate::print::{out, written};

use super::args::{Order, SumArgs};
use super::fold::{self, Line, Unpriced};
use super::show::{self, SumsJson, TotalsJson};
use super::sums;
use super::text::{self, Column, CsvCell, Grid, Look};
use super::{rfc3339, which};

/// Characters of a session's id in the table: enough to tell sessions apart, and other commands take a prefix.
const ID_CHARS: usize = 8;
/// Characters of a title in the table.
const TITLE_MAX_CHARS: usize = 36;

/// A session, or the part of it that `--by` tells apart.
#[derive(Debug)]
struct Row {
    line: Line,
    title: Option<String>,
}

#[derive(Debug)]
struct Report {
    zone: Zone,
    by: CostBy,
    rows: Vec<Row>,
    totals: CostTotals,
    unpriced: Vec<Unpriced>,
}

pub(crate) fn run(home: &Home, reader: &Reader, args: &SumArgs) -> Result<()> {
    let by = super::args::cost_by(&args.by)?;
    let (zone, query) = which(reader, &args.which)?;
    let report = gather(reader, zone, query, by, args.how.order)?;
    if args.how.json {
        out(&serde_json::to_string_pretty(&report.json()?)?)?;
    } else {
        let text = if args.how.csv { report.csv() } else { report.table(Look::of_stdout()) };
        written(std::io::stdout().lock().write_all(text.as_bytes()))?;
    }
    show::warn_unpriced(home, &report.unpriced);
    Ok(())
}

fn gather(reader: &Reader, zone: Zone, query: CostQuery, by: CostBy, order: Order) -> Result<Report> {
    let finest = CostBy { session: true, app: true, model: true, agent: true, ..by.clone() };
    let cells = reader.costs(&CostQuery { by: finest, ..query })?;
    let mut rows = Vec::new();
    for line in fold::fold(&cells, &CostBy { session: true, ..by.clone() }) {
        let title = title_of(reader, line.keys.session.as_deref().unwrap_or_default())?;
        rows.push(Row { line, title });
    }
    rows.sort_by(|a, b| (a.line.totals.last, &a.line.keys).cmp(&(b.line.totals.last, &b.line.keys)));
    if order == Order::Desc {
        rows.reverse();
    }
    let totals = fold::sum(cells.iter().map(|row| &row.totals));
    let unpriced =
        fold::unpriced(cells.iter().map(|row| (row.model.as_deref().unwrap_or_default(), &row.totals)));
    Ok(Report { zone, by, rows, totals, unpriced })
}

/// What the client calls the session, else its newest prompt.
fn title_of(reader: &Reader, session: &str) -> Result<Option<String>> {
    Ok(reader.session(session)?.and_then(|stored| stored.title.or(stored.last_prompt)))
}

#[derive(Debug, Serialize)]
struct ReportJson<'a> {
    report: &'static str,
    timezone: &'a str,
    rows: Vec<RowJson<'a>>,
    totals: TotalsJson,
}

/// A row. `model` is null where the session used several; `models` and `agents` have their parts.
#[derive(Debug, Serialize)]
struct RowJson<'a> {
    /// The day of its last request.
    date: Option<String>,
    session_id: Option<&'a str>,
    title: Option<&'a str>,
    first: Option<String>,
    last: Option<String>,
    app: Option<&'a str>,
    model: Option<&'a str>,
    user: Option<&'a str>,
    agent: Option<&'a str>,
    label: Option<&'a str>,
    #[serde(flatten)]
    sums: SumsJson,
    models: Vec<ModelJson<'a>>,
    agents: Vec<AgentJson<'a>>,
}

#[derive(Debug, Serialize)]
struct ModelJson<'a> {
    model: &'a str,
    #[serde(flatten)]
    sums: SumsJson,
}

#[derive(Debug, Serialize)]
struct AgentJson<'a> {
    agent: &'a str,
    #[serde(flatten)]
    sums: SumsJson,
}

impl Report {
    fn day(&self, at: Option<TimestampMs>) -> Option<String> {
        at.map(|at| self.zone.day_of(at))
    }

    fn json(&self) -> serde_json::Result<serde_json::Value> {
        let rows = self.rows.iter().map(|Row { line, title }| RowJson {
            date: self.day(line.totals.last),
            session_id: line.keys.session.as_deref(),
            title: title.as_deref(),
            first: line.totals.first.map(rfc3339),
            last: line.totals.last.map(rfc3339),
            app: app(line),
            model: model(line),
            user: line.keys.user.as_deref(),
            agent: line.keys.agent.as_deref(),
            label: line.keys.label.as_deref(),
            sums: SumsJson::from(&line.totals),
            models: line
                .models
                .iter()
                .map(|(model, totals)| ModelJson { model, sums: SumsJson::from(totals) })
                .collect(),
            agents: line
                .agents
                .iter()
                .map(|(agent, totals)| AgentJson { agent, sums: SumsJson::from(totals) })
                .collect(),
        });
        let report = ReportJson {
            report: "session",
            timezone: self.zone.name(),
            rows: rows.collect(),
            totals: TotalsJson::new(&self.totals, &self.unpriced),
        };
        serde_json::to_value(report)
    }

    fn csv(&self) -> String {
        let names = [
            "date",
            "session_id",
            "title",
            "first",
            "last",
            "app",
            "models",
            "user",
            "agent",
            "label",
            "agents",
        ];
        let mut csv = text::csv_line(
            names.into_iter().chain(show::CSV_SUMS).map(|name| CsvCell::Ours(name.to_owned())),
        );
        for Row { line, title } in &self.rows {
            let time = |at: Option<TimestampMs>| CsvCell::Ours(at.map(rfc3339).unwrap_or_default());
            let key = |value: Option<&'_ str>| value.unwrap_or_default().to_owned();
            let (models, agents) = (fold::by_cost(&line.models).join(" "), line.agents.len().to_string());
            let (session, title) = (key(line.keys.session.as_deref()), key(title.as_deref()));
            let cells = [
                CsvCell::Ours(self.day(line.totals.last).unwrap_or_default()),
                CsvCell::Text(&session),
                CsvCell::Text(&title),
                time(line.totals.first),
                time(line.totals.last),
                CsvCell::Text(app(line).unwrap_or_default()),
                CsvCell::Text(&models),
                CsvCell::Text(line.keys.user.as_deref().unwrap_or_default()),
                CsvCell::Text(line.keys.agent.as_deref().unwrap_or_default()),
                CsvCell::Text(line.keys.label.as_deref().unwrap_or_default()),
                CsvCell::Ours(agents),
            ];
            csv.push_str(&text::csv_line(cells.into_iter().chain(show::csv_sums(&line.totals))));
        }
        csv
    }

    fn table(&self, look: Look) -> String {
        if self.rows.is_empty() {
            return "no requests in that time\n".to_owned();
        }
        // The project and the models have columns anyway.
        let by = CostBy { app: false, model: false, ..self.by.clone() };
        let keys = sums::key_columns(&by);
        let mut columns = vec![
            Column::left("session"),
            Column::left("last"),
            Column::left("app"),
            Column::left("title").spare(5),
        ];
        columns.extend(keys.iter().map(|(column, _)| *column));
        columns.push(Column::left("models"));
        columns.push(Column::right("agents").spare(6));
        columns.extend(sums::SUM_COLUMNS);
        let mut grid = Grid::new(columns);
        for Row { line, title } in &self.rows {
            let session = line.keys.session.as_deref().unwrap_or_default();
            let mut cells = vec![
                session.chars().take(ID_CHARS).collect(),
                self.day(line.totals.last).unwrap_or_default(),
                sums::shown_key(app(line)),
                text::plain(title.as_deref().unwrap_or_default(), TITLE_MAX_CHARS),
            ];
            cells.extend(keys.iter().map(|(_, value)| sums::shown_key(value(line))));
            cells.push(sums::models(&line.models));
            cells.push(line.agents.len().to_string());
            cells.extend(sums::sum_cells(&line.totals));
            grid.row(sums::tone(&line.totals), cells);
        }
        let mut totals = vec!["total".to_owned()];
        totals.resize(4 + keys.len() + 2, String::new());
        totals.extend(sums::sum_cells(&self.totals));
        grid.totals(totals);
        format!("{}{}", grid.render(look), show::legend(&self.totals))
    }
}

/// The session's project: that of its requests, of several the first by name.
fn app(line: &Line) -> Option<&str> {
    line.keys.app.as_deref().or_else(|| line.apps.first().map(String::as_str))
}

/// Its model, where it used one only.
fn model(line: &Line) -> Option<&str> {
    let only = || line.models.keys().next().filter(|_| line.models.len() == 1).map(String::as_str);
    line.keys.model.as_deref().or_else(only)
}
