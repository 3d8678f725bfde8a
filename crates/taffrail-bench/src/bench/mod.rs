//! `taffrail-bench bench`: every figure beside its floor, measured in turn in the same run.
//!
//! A section is one question. It measures, checks the logical result (counts, answers), and returns its figures; wall
//! time is reported, never asserted. Sections that a report already holds are not measured again (`--resume`).

mod hook;
mod ingest;
mod memory;
mod otlp;
mod raw;
mod reads;
mod startup;
mod transcripts;
mod windows;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) use hook::{frames, hang, hook_command};
pub(crate) use memory::{PeakArgs, peak};
pub(crate) use transcripts::{TookArgs, took};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::binaries::Binaries;
use crate::fill;
use crate::machine::Machine;
use crate::report::{self, Report, Section};
use crate::scratch::Scratch;

/// Events of the large database at full size.
const LARGE_EVENTS: u64 = 10_000_000;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A smoke test: seconds, logical results only.
    Tiny,
    /// Minutes: figures to compare by, not to quote.
    Quick,
    /// What is quoted.
    Full,
}

impl Size {
    pub(crate) fn of<T>(self, tiny: T, quick: T, full: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Quick => quick,
            Self::Full => full,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    pub(crate) const fn from_flags(tiny: bool, quick: bool) -> Self {
        match (tiny, quick) {
            (true, _) => Self::Tiny,
            (false, true) => Self::Quick,
            (false, false) => Self::Full,
        }
    }
}

/// The command line of `bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// A smoke test of seconds that checks logical results only.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// Minutes instead of the better part of an hour.
    #[arg(long)]
    quick: bool,
    /// Only this section; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Name>,
    /// Write the figures here as JSON, after every section.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Go on from the `--json` file: sections it already holds are kept.
    #[arg(long, requires = "json")]
    resume: bool,
    /// Write the figures into this Markdown file.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Keep the large database here and use it again (see `fill`); without it a temporary one is made.
    #[arg(long)]
    db: Option<PathBuf>,
    /// Events of the large database, if not the size's own.
    #[arg(long)]
    db_events: Option<u64>,
    /// Also read with a cold disk cache (root only: drops the system's caches, which slows everything else down).
    #[arg(long)]
    drop_caches: bool,
    /// Megabytes of transcripts to grow, if not the size's own.
    #[arg(long)]
    transcripts_mb: Option<u64>,
    /// Grow them from the transcripts below this directory [default: ../shared/data/claude-transcripts, else the fixtures].
    #[arg(long)]
    transcripts: Option<PathBuf>,
    /// The native program of ccusage 20.0.24 [default: installed by npm into the temporary directory].
    #[arg(long, env = "TAFFRAIL_CCUSAGE")]
    ccusage: Option<PathBuf>,
    /// Where `taffrail` and `taffrail-hook` are.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The hook client beside a process that does nothing.
    Hook,
    /// Events one by one over keep-alive beside an echo server.
    Ingest,
    /// Batches beside raw SQLite.
    Batch,
    /// Log records of the client's telemetry beside an echo server.
    Otlp,
    /// Reads on the large database.
    Reads,
    /// The reads of the windows on the large database, without the server.
    Windows,
    /// Start to ready.
    Startup,
    /// Resident memory and sizes on disk.
    Memory,
    /// A quarter's transcripts beside ccusage.
    Transcripts,
}

impl Name {
    const fn title(self) -> &'static str {
        match self {
            Self::Hook => "Hook client",
            Self::Ingest => "Ingest, one by one",
            Self::Batch => "Ingest, in batches",
            Self::Otlp => "Telemetry",
            Self::Reads => "Reads",
            Self::Windows => "Windows",
            Self::Startup => "Start-up",
            Self::Memory => "Memory and size",
            Self::Transcripts => "Transcripts",
        }
    }
}

/// What every section is given.
pub(crate) struct Bench {
    pub(crate) size: Size,
    pub(crate) binaries: Binaries,
    pub(crate) scratch: Scratch,
    pub(crate) db: Option<PathBuf>,
    pub(crate) db_events: u64,
    pub(crate) drop_caches: bool,
    pub(crate) transcripts_bytes: u64,
    pub(crate) transcripts: Option<PathBuf>,
    pub(crate) ccusage: Option<PathBuf>,
}

impl Bench {
    /// The data directory with the large database, filled on first use.
    pub(crate) fn large_db(&self) -> Result<PathBuf> {
        let dir = match &self.db {
            Some(dir) => dir.clone(),
            None => self.scratch.path().join("large"),
        };
        fill::fill(&dir, self.db_events)?;
        Ok(dir)
    }

    /// An empty data directory and a place for the server's log.
    pub(crate) fn data_dir(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let dir = self.scratch.path().join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
        }
        let dir = self.scratch.dir(name)?;
        Ok((dir, self.scratch.path().join(format!("{name}.log"))))
    }
}

/// Runs the sections asked for and reports them.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let size = Size::from_flags(args.tiny, args.quick);
    let context = Bench {
        size,
        binaries: Binaries::find(args.bin_dir.as_deref())?,
        scratch: Scratch::new("bench")?,
        db: args.db.clone(),
        db_events: args.db_events.unwrap_or(size.of(2_000, 200_000, LARGE_EVENTS)),
        drop_caches: args.drop_caches,
        transcripts_bytes: args.transcripts_mb.unwrap_or(size.of(2, 100, 1_000)) * 1_000_000,
        transcripts: args.transcripts.clone(),
        ccusage: args.ccusage.clone(),
    };
    let mut report = resumed(args)?.unwrap_or_else(|| new_report(size, context.scratch.path()));
    for name in chosen(&args.only) {
        if report.has(name.title()) {
            eprintln!("{}: kept from the report", name.title());
            continue;
        }
        let section = measure(name, &context).with_context(|| format!("section {name:?}"))?;
        show(&section)?;
        report.sections.push(section);
        if let Some(path) = &args.json {
            report.save(path)?;
        }
    }
    if let Some(path) = &args.markdown {
        report::write_markdown(path, &report.markdown())?;
    }
    Ok(())
}

fn measure(name: Name, context: &Bench) -> Result<Section> {
    eprintln!("{} ({} size) ...", name.title(), context.size.name());
    let begun = Instant::now();
    let mut section = match name {
        Name::Hook => hook::measure(context)?,
        Name::Ingest => ingest::one_by_one(context)?,
        Name::Batch => ingest::batches(context)?,
        Name::Otlp => otlp::measure(context)?,
        Name::Reads => reads::measure(context)?,
        Name::Windows => windows::measure(context)?,
        Name::Startup => startup::measure(context)?,
        Name::Memory => memory::measure(context)?,
        Name::Transcripts => transcripts::measure(context)?,
    };
    name.title().clone_into(&mut section.name);
    section.seconds = begun.elapsed().as_secs_f64();
    Ok(section)
}

fn chosen(only: &[Name]) -> Vec<Name> {
    Name::value_variants().iter().copied().filter(|name| only.is_empty() || only.contains(name)).collect()
}

fn resumed(args: &BenchArgs) -> Result<Option<Report>> {
    match (&args.json, args.resume) {
        (Some(path), true) => Report::load(path),
        _ => Ok(None),
    }
}

fn new_report(size: Size, data: &Path) -> Report {
    Report {
        title: "Benchmarks".to_owned(),
        command: command_line(),
        size: size.name().to_owned(),
        date: crate::clock::today(),
        machine: Machine::read(data),
        sections: Vec::new(),
    }
}

/// The command as a reader would type it.
pub(crate) fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

/// Prints a table to stdout: it is what was asked for.
pub(crate) fn show(section: &Section) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(section.markdown().as_bytes())?;
    Ok(out.flush()?)
}
