//! `taffrail report daily --compat ccusage`: what ccusage 20.0.24 prints, for those who come from it.
//!
//! It reads the transcripts themselves, by ccusage's rules and with ccusage's prices, and neither the ledger nor the server:
//! so the two can be compared, and `docs/CCUSAGE.md` says where and why the ledger differs. `--json` is the same document byte
//! for byte; the tables hold the same figures in a frame of their own. `--compat ccusage` is `ccusage daily`, which counts all
//! agents (here only Claude Code is read), `--compat ccusage-claude` is `ccusage claude daily`.

mod args;
mod blocks;
mod copies;
mod document;
mod entry;
mod files;
mod line;
mod load;
mod prices;
mod rows;
mod table;
mod time;

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::Parser;
use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::print::out;
use args::{BlocksArgs, DailyArgs, Flavour, Line, Order, Report, SessionArgs, Shared};
use document::text;
use entry::{Key, Pricing};
use files::{Environment, File};
use line::Reader;
use load::Loaded;
use rows::{Range, Row};
use table::Title;

/// Whether the command line, without the program's name, is for [`run`].
pub(crate) fn is_meant(line: &[OsString]) -> bool {
    args::is_meant(line)
}

/// Prints what ccusage would.
///
/// # Errors
/// No transcripts where they should be, an option that is not taken, a time zone or limit that is none.
pub(crate) fn run(line: &[OsString]) -> Result<()> {
    let parsed = Line::parse_from(args::after_report(line));
    let shared = parsed.report.shared();
    if let Some((option, instead)) = shared.refused() {
        bail!("{option} is not taken with --compat ccusage\nhint: {instead}");
    }
    let context = Context {
        flavour: shared.compat,
        zone: time::zone(shared.timezone.as_deref())?,
        files: files::all(&Environment::of_process().directories()?),
        now_ms: Timestamp::now().as_millisecond(),
    };
    match &parsed.report {
        Report::Daily(args) => context.daily(&parsed.report, args),
        Report::Weekly(args) => {
            let first = match (context.flavour, args.start_of_week) {
                (Flavour::All, Some(_)) => {
                    bail!("--start-of-week is only of ccusage claude\nhint: --compat ccusage-claude")
                }
                (Flavour::All, None) => Weekday::Monday,
                (Flavour::Claude, first) => first.map_or(Weekday::Sunday, Weekday::from),
            };
            context.buckets(&parsed.report, "weekly", Some(first))
        }
        Report::Monthly(_) => context.buckets(&parsed.report, "monthly", None),
        Report::Session(args) => context.session(&parsed.report, args),
        Report::Blocks(args) => context.blocks(&parsed.report, args),
    }
}

/// What every report needs.
#[derive(Debug)]
struct Context {
    flavour: Flavour,
    zone: TimeZone,
    files: Vec<File>,
    now_ms: i64,
}

fn range(shared: &Shared) -> Range<'_> {
    Range { since: shared.since.as_deref(), until: shared.until.as_deref() }
}

impl Context {
    fn load(&self, reader: Reader, shared: &Shared, project: Option<&str>) -> Result<Loaded> {
        load::load(&self.files, reader, Pricing::new(shared.mode), project)
    }

    fn daily(&self, report: &Report, args: &DailyArgs) -> Result<()> {
        let by_project = args.instances || args.project.is_some();
        if self.flavour == Flavour::All && by_project {
            bail!("--instances and --project are only of ccusage claude\nhint: --compat ccusage-claude");
        }
        let loaded = self.load(Reader::Days, &args.shared, args.project.as_deref())?;
        let mut rows = self.days(&loaded, &args.shared, by_project);
        self.order(&mut rows, &args.shared);
        if args.shared.json && args.instances && !rows.is_empty() {
            return print(document::projects(&rows), &args.shared);
        }
        self.print_rows(report, "daily", &rows)
    }

    fn days(&self, loaded: &Loaded, shared: &Shared, by_project: bool) -> Vec<Row> {
        let mut rows = rows::by_day(loaded, &self.files, &self.zone, range(shared), by_project);
        if self.flavour == Flavour::All {
            // A day without tokens does not show, nor does what was told to be its cost.
            rows.retain(|row| row.counts.total() > 0);
        }
        rows
    }

    fn buckets(&self, report: &Report, name: &str, first: Option<Weekday>) -> Result<()> {
        let shared = report.shared();
        // `ccusage weekly` adds up the daily report, `ccusage claude weekly` what sessions are made of.
        let reader = match self.flavour {
            Flavour::All => Reader::Days,
            Flavour::Claude => Reader::Entries,
        };
        let loaded = self.load(reader, shared, None)?;
        let mut days = self.days(&loaded, shared, false);
        if self.flavour == Flavour::Claude {
            // Costs are added in the order of the rows.
            self.order(&mut days, shared);
        }
        let mut rows = rows::by_bucket(&days, first);
        self.order(&mut rows, shared);
        self.print_rows(report, name, &rows)
    }

    fn session(&self, report: &Report, args: &SessionArgs) -> Result<()> {
        let loaded = self.load(Reader::Entries, &args.shared, None)?;
        if let Some(id) = &args.id {
            return self.one_session(id, &loaded, &args.shared);
        }
        let order = match self.flavour {
            Flavour::All => args.shared.order.unwrap_or(Order::Desc),
            Flavour::Claude => Order::Desc,
        };
        let range = range(&args.shared);
        let rows = rows::by_session(&loaded, &self.files, &self.zone, range, self.flavour, order);
        let name = if self.flavour == Flavour::All { "session" } else { "sessions" };
        self.print_rows(report, name, &rows)
    }

    /// All entries of a session, which is that of the line or that of the path.
    fn one_session(&self, id: &str, loaded: &Loaded, shared: &Shared) -> Result<()> {
        let key = Key::of(id);
        let of_path = |index: u32| self.files.get(index as usize).is_some_and(|file| file.session == id);
        let mut entries: Vec<_> =
            loaded.entries.iter().filter(|e| e.session == key || of_path(e.file)).copied().collect();
        entries.sort_by_key(|entry| entry.at_ms);
        if shared.json {
            return print(document::session(id, &entries, loaded), shared);
        }
        if entries.is_empty() {
            eprintln!("No session found with ID: {id}");
            return Ok(());
        }
        let cost: f64 = entries.iter().map(|entry| entry.cost).sum();
        let tokens = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.usage.total()));
        out(&table::session(id, cost, tokens, entries.len(), shared))
    }

    fn blocks(&self, report: &Report, args: &BlocksArgs) -> Result<()> {
        if args.session_length.is_nan() || args.session_length <= 0.0 {
            bail!("the session length is a positive number of hours\nhint: --session-length 5");
        }
        let loaded = self.load(Reader::Entries, &args.shared, None)?;
        let mut blocks = blocks::all(loaded.entries, args.session_length, self.now_ms);
        let range = range(&args.shared);
        blocks.retain(|block| {
            block.is_in(range, &self.zone)
                && (!args.recent || block.start_ms >= self.now_ms - blocks::RECENT_MS || block.is_active())
                && (!args.active || block.is_active())
        });
        // A short pause's gap can begin after the full hour at which the next block does.
        blocks.sort_by_key(|block| block.start_ms);
        if args.shared.order == Some(Order::Desc) {
            blocks.reverse();
        }
        let most = blocks::most_tokens(&blocks);
        let limit = match args.token_limit.as_deref() {
            None => None,
            Some("" | "max") => Some(most).filter(|most| *most > 0),
            Some(limit) => limit.parse().ok(),
        };
        if args.shared.json {
            return print(document::blocks(&blocks, &loaded.models, limit, self.now_ms), &args.shared);
        }
        if blocks.is_empty() {
            let what =
                if args.active { "No active session block found." } else { "No Claude usage data found." };
            eprintln!("{what}");
            return Ok(());
        }
        // The table compares with the largest block also where no limit was asked for.
        let limit = if args.token_limit.is_some() { limit } else { Some(most) };
        let title = Title::of(report, self.flavour);
        out(&table::blocks(title, &blocks, &loaded.models, limit, &TimeZone::system(), self.now_ms))
    }

    fn order(&self, rows: &mut [Row], shared: &Shared) {
        if shared.order == Some(Order::Desc) {
            rows.reverse();
        }
    }

    fn print_rows(&self, report: &Report, name: &str, rows: &[Row]) -> Result<()> {
        let shared = report.shared();
        if shared.json {
            return print(document::rows(name, rows, self.flavour), shared);
        }
        if rows.is_empty() {
            eprintln!("No usage data found.");
            return Ok(());
        }
        out(&table::rows(Title::of(report, self.flavour), rows, self.flavour, shared))?;
        for model in document::unpriced(rows) {
            eprintln!("warning: ccusage {} has no price for {model}: its cost is left out", prices::VERSION);
        }
        Ok(())
    }
}

fn print(value: Value, shared: &Shared) -> Result<()> {
    out(&text(value, shared.no_cost)?)
}
