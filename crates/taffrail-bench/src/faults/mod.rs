//! `taffrail-bench faults`: kills, power cuts, crowds and odd input, seeded and repeatable.
//!
//! A campaign is a row of the table: what was tried how often, what was promised, what of it was lost or doubled. Any
//! loss, double, damage or panic ends the program with exit code 1; a campaign that could not run here says so loudly
//! and ends it with [`EXIT_SKIPPED`].

mod image;
mod kill;
mod load;
mod odd;
mod powercut;
mod verdicts;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::bench::{Size, command_line};
use crate::binaries::Binaries;
use crate::machine::Machine;
use crate::report;
use crate::scratch::Scratch;

/// Exit code where every campaign that ran was clean but one could not run.
pub(crate) const EXIT_SKIPPED: u8 = 3;

/// The command line of `faults`.
#[derive(Args, Debug)]
pub(crate) struct FaultArgs {
    /// A smoke test: few trials.
    #[arg(long, conflicts_with = "quick")]
    tiny: bool,
    /// A tenth of the trials.
    #[arg(long)]
    quick: bool,
    /// The same seed gives the same kills, cuts and payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this campaign; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Name>,
    /// Run the power cuts with `durability = "process"` instead: shows that the harness can see a loss.
    #[arg(long)]
    control: bool,
    /// Keep the state of the run here as JSON, after every round.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Go on from the `--json` file of a run with the same seed.
    #[arg(long, requires = "json")]
    resume: bool,
    /// Write the table into this Markdown file.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Where `taffrail` and `taffrail-hook` are.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// A campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    /// `kill -9` of the server under load.
    Kill,
    /// Power cuts: the image of the file system as it is at that moment.
    Powercut,
    /// The same with `durability = "process"`, which must lose something.
    #[value(skip)]
    Control,
    /// Many hooks at once: the verdicts of each alone.
    Verdicts,
    /// Odd input and odd places.
    Odd,
}

/// One row: what was tried, promised and found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: Name,
    pub(crate) trials: u64,
    pub(crate) acknowledged: u64,
    pub(crate) stored: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) broken: u64,
    pub(crate) panics: u64,
    /// Other failures, one line each.
    pub(crate) failures: Vec<String>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
    pub(crate) skipped: Option<String>,
    pub(crate) done: bool,
    pub(crate) seconds: f64,
}

impl Row {
    fn new(name: Name) -> Self {
        Self {
            name,
            trials: 0,
            acknowledged: 0,
            stored: 0,
            lost: 0,
            doubled: 0,
            broken: 0,
            panics: 0,
            failures: Vec::new(),
            notes: Vec::new(),
            skipped: None,
            done: false,
            seconds: 0.0,
        }
    }

    /// Adds what a check found; returns whether it was clean.
    pub(crate) fn add(&mut self, findings: &crate::check::Findings, what: &str) -> bool {
        self.lost += findings.lost.len() as u64;
        self.doubled += findings.doubled.len() as u64;
        self.broken += u64::from(!findings.broken.is_empty());
        if !findings.is_clean() {
            eprintln!("{what}:\n{}", findings.describe());
            if self.failures.len() < FAILURES_KEPT_MAX {
                self.failures.push(format!("{what}: {}", findings.describe().replace('\n', " ")));
            }
        }
        findings.is_clean()
    }

    fn is_clean(&self) -> bool {
        let bad = self.lost + self.doubled + self.broken + self.panics;
        match self.name {
            // The control shows that a loss is seen: there, losing is right and anything else is not.
            Name::Control => self.skipped.is_some() || self.lost + self.broken > 0,
            _ => bad == 0 && self.failures.is_empty(),
        }
    }
}

/// Failures that are written down; all are counted.
const FAILURES_KEPT_MAX: usize = 20;

/// The state of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    seed: u64,
    size: String,
    rows: Vec<Row>,
}

/// What every campaign is given.
pub(crate) struct Faults {
    pub(crate) size: Size,
    pub(crate) seed: u64,
    pub(crate) binaries: Binaries,
    pub(crate) scratch: Scratch,
    state: std::cell::RefCell<State>,
    json: Option<PathBuf>,
}

impl Faults {
    /// The row of a campaign as an earlier run left it, or a new one.
    pub(crate) fn row(&self, name: Name) -> Row {
        self.state
            .borrow()
            .rows
            .iter()
            .find(|row| row.name == name)
            .cloned()
            .unwrap_or_else(|| Row::new(name))
    }

    /// Keeps a row as it is now: a run that is broken off goes on from here.
    pub(crate) fn keep(&self, row: &Row) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.rows.retain(|old| old.name != row.name);
        state.rows.push(row.clone());
        match &self.json {
            Some(path) => {
                std::fs::write(path, serde_json::to_string_pretty(&*state)?).context("cannot keep the state")
            }
            None => Ok(()),
        }
    }
}

/// Runs the campaigns asked for and tells how it went.
pub(crate) fn run(args: &FaultArgs) -> Result<ExitCode> {
    let size = Size::from_flags(args.tiny, args.quick);
    let faults = Faults {
        size,
        seed: args.seed,
        binaries: Binaries::find(args.bin_dir.as_deref())?,
        scratch: Scratch::new("faults")?,
        state: std::cell::RefCell::new(resumed(args, size)?),
        json: args.json.clone(),
    };
    let machine = Machine::read(faults.scratch.path());
    let mut rows = Vec::new();
    for name in chosen(args) {
        let mut row = faults.row(name);
        if !row.done {
            eprintln!("{name:?} ({} size, seed {}) ...", size.name(), args.seed);
            let begun = Instant::now();
            run_one(&faults, name, &mut row).with_context(|| format!("campaign {name:?}"))?;
            row.seconds += begun.elapsed().as_secs_f64();
            row.done = true;
            faults.keep(&row)?;
        }
        rows.push(row);
    }
    let text = markdown(&rows, args.seed, size, &machine);
    std::io::stdout().lock().write_all(text.as_bytes())?;
    if let Some(path) = &args.markdown {
        report::write_markdown(path, &text)?;
    }
    Ok(verdict(&rows))
}

fn run_one(faults: &Faults, name: Name, row: &mut Row) -> Result<()> {
    match name {
        Name::Kill => kill::run(faults, row),
        Name::Powercut => powercut::run(faults, row, powercut::Durability::Commit),
        Name::Control => powercut::run(faults, row, powercut::Durability::Process),
        Name::Verdicts => verdicts::run(faults, row),
        Name::Odd => odd::run(faults, row),
    }
}

fn chosen(args: &FaultArgs) -> Vec<Name> {
    if args.control {
        return vec![Name::Control];
    }
    let all = [Name::Kill, Name::Powercut, Name::Verdicts, Name::Odd];
    all.into_iter().filter(|name| args.only.is_empty() || args.only.contains(name)).collect()
}

fn resumed(args: &FaultArgs, size: Size) -> Result<State> {
    let new = State { seed: args.seed, size: size.name().to_owned(), rows: Vec::new() };
    let (Some(path), true) = (&args.json, args.resume) else { return Ok(new) };
    if !path.exists() {
        return Ok(new);
    }
    let state: State = serde_json::from_slice(&std::fs::read(path)?).context("not the state of a run")?;
    anyhow::ensure!(
        state.seed == new.seed && state.size == new.size,
        "{} is of seed {} and {} size\nhint: give the same --seed and size, or leave out --resume",
        path.display(),
        state.seed,
        state.size
    );
    Ok(state)
}

fn verdict(rows: &[Row]) -> ExitCode {
    if rows.iter().any(|row| !row.is_clean()) {
        return ExitCode::FAILURE;
    }
    if rows.iter().any(|row| row.skipped.is_some()) {
        return ExitCode::from(EXIT_SKIPPED);
    }
    ExitCode::SUCCESS
}

fn markdown(rows: &[Row], seed: u64, size: Size, machine: &Machine) -> String {
    let mut out = format!(
        "Command: `{}`, seed {seed}, {} size, {}.\n\nMachine: {}, {} cores, {} MB memory, Linux {}, {}; load average {} \
         when the run began.\n\n\
         | Campaign | Trials | Acknowledged | Stored | Lost | Doubled | Damaged | Panics | Seconds | |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
        command_line(),
        size.name(),
        crate::clock::today(),
        machine.cpu,
        machine.cores,
        machine.memory_mb,
        machine.kernel,
        machine.filesystem,
        machine.load,
    );
    for row in rows {
        let state = match (&row.skipped, row.is_clean()) {
            (Some(_), _) => "**skipped**",
            (None, true) => "ok",
            (None, false) => "**failed**",
        };
        let _ = writeln!(
            out,
            "| {:?} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {state} |",
            row.name,
            row.trials,
            row.acknowledged,
            row.stored,
            row.lost,
            row.doubled,
            row.broken,
            row.panics,
            row.seconds
        );
    }
    for row in rows {
        let lines = row.notes.iter().chain(&row.failures).chain(&row.skipped);
        for line in lines {
            let _ = write!(out, "\n- {:?}: {line}", row.name);
        }
    }
    out.push('\n');
    out
}
