//! `taffrail detect`: history once more through the detectors, with the thresholds of now. Nothing is changed.
//!
//! Sources: the database (`database`), transcripts as the client wrote them, or recorded hook payloads (`files`). Each
//! becomes traces, all traces one stream in the order of time (`replay`), and what fired a table (`show`).
//! Limits: [`CALLS_MAX`] calls and requests at once; beyond that a shorter span has to be asked for.

mod database;
mod files;
mod replay;
mod show;
mod traces;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use taffrail_analytics::trace::Trace;
use taffrail_engine::{Config, Detector};
use taffrail_event::TimestampMs;

use crate::home::Home;
use crate::report;

/// The most calls and requests of one replay.
const CALLS_MAX: usize = 3_000_000;
/// How far back the database is replayed where nothing is said.
const DEFAULT_DAYS: i64 = 7;

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DetectArgs {
    /// Replay these transcripts, files or folders, instead of the database
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "hooks")]
    pub(crate) transcripts: Vec<PathBuf>,
    /// Replay these recorded hook payloads, files or folders
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) hooks: Vec<PathBuf>,
    /// First day: 2026-11-01 or 20261101 [default: of the database the last seven days, of files all]
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Last day
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Where days begin: a name such as Europe/Berlin, UTC, or local
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub(crate) timezone: String,
    /// Only these detectors
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) detector: Vec<String>,
    /// File with `[detectors.NAME]` tables to try [default: config.toml of the data directory, where it has some]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which findings are shown: those that fired in this span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    from_ms: i64,
    to_ms: i64,
}

impl Span {
    fn holds(self, at_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&at_ms)
    }
}

pub(crate) fn run(home: &Home, args: &DetectArgs) -> Result<()> {
    let config = config(home, args)?;
    let only = detectors(args)?;
    let zone = report::zone(&args.timezone)?;
    let (from, to) = report::span(&zone, args.since.as_deref(), args.until.as_deref())?;
    let of_files = !args.transcripts.is_empty() || !args.hooks.is_empty();
    let usual = (!of_files).then(|| report::now().get() - DEFAULT_DAYS * 86_400_000);
    let span = Span {
        from_ms: from.map(TimestampMs::get).or(usual).unwrap_or(i64::MIN),
        to_ms: to.map_or(i64::MAX, TimestampMs::get),
    };
    let found = if of_files { files::read(home, args)? } else { database::read(&report::open(home)?, span)? };
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    let replayed = replay::replay(config, &found.traces, |finding| {
        span.holds(finding.at_ms) && (only.is_empty() || only.contains(&finding.detector))
    });
    show::show(&replayed, &zone, args.json)
}

/// What a source gave.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) traces: Vec<Trace>,
    pub(crate) warnings: Vec<String>,
}

/// The thresholds: of the file named, else of the data directory's configuration, else the defaults.
fn config(home: &Home, args: &DetectArgs) -> Result<Config> {
    let (path, named) = match &args.config {
        Some(path) => (path.clone(), true),
        None => (home.dir().join("config.toml"), false),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if !named && e.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    Config::from_toml(&text).with_context(|| format!("{} cannot be used", path.display()))
}

fn detectors(args: &DetectArgs) -> Result<Vec<Detector>> {
    let named = |name: &String| {
        let names = || Detector::ALL.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
        Detector::from_name(name)
            .with_context(|| format!("there is no detector {name}\nhint: there are {}", names()))
    };
    args.detector.iter().map(named).collect()
}

/// Refuses what would not fit into memory.
fn bounded(rows: usize) -> Result<()> {
    if rows > CALLS_MAX {
        bail!(
            "more than {CALLS_MAX} calls and requests at once\nhint: a shorter span with --since and --until"
        );
    }
    Ok(())
}
