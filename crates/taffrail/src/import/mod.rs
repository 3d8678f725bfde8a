//! `taffrail import`: what was recorded elsewhere, read as a stream and stored once.

mod disler;
pub(crate) mod hooks;
mod identity;
pub(crate) mod progress;
pub(crate) mod sink;
pub(crate) mod stream;
mod transcripts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cli::{Global, ImportArgs, ImportCommand};
use crate::home::Home;
use crate::print::{self, out};
use progress::{Progress, Unit};
use sink::{Server, Sink, Stored};

/// What a source held.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    deliveries: u64,
    malformed: u64,
}

/// What an import did.
#[derive(Clone, Debug, Default, Serialize)]
struct Totals {
    files: u64,
    /// Events found.
    deliveries: u64,
    /// Of them, new.
    stored: u64,
    /// Of them, there already.
    duplicates: u64,
    /// Of them, no JSON object: stored as what they are.
    malformed: u64,
    /// Themes that are new.
    #[serde(skip_serializing_if = "Option::is_none")]
    themes: Option<u64>,
    duration_ms: u64,
    dry_run: bool,
}

impl Totals {
    fn add(&mut self, found: &Found) {
        self.deliveries += found.deliveries;
        self.malformed += found.malformed;
    }
}

/// What is read, and how.
enum Source {
    Hooks(Vec<PathBuf>),
    Disler(Vec<PathBuf>),
}

pub(crate) fn run(global: &Global, command: &ImportCommand) -> Result<ExitCode> {
    let home = || Home::new(global);
    let done = match command {
        ImportCommand::Hooks(args) => {
            run_events(&home()?, Source::Hooks(hooks::files_of(&args.paths)?), args)
        }
        ImportCommand::Disler(args) => run_events(&home()?, Source::Disler(args.paths.clone()), args),
        ImportCommand::Transcripts(args) => return transcripts::run(global, args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[allow(clippy::needless_pass_by_value, reason = "made for this call")]
fn run_events(home: &Home, source: Source, args: &ImportArgs) -> Result<()> {
    let began = Instant::now();
    let mut totals = if args.dry_run { dry_run(&source, args)? } else { import(home, &source, args)? };
    totals.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    totals.dry_run = args.dry_run;
    report(&totals, args)
}

fn dry_run(source: &Source, args: &ImportArgs) -> Result<Totals> {
    let mut sink = Sink::nowhere();
    read(source, args, &mut sink)
}

fn import(home: &Home, source: &Source, args: &ImportArgs) -> Result<Totals> {
    let server = Server::of(home)?;
    let result = import_to(&server, source, args);
    let stopped = server.stop();
    let totals = result?;
    stopped.context("everything was stored, but the server did not stop well")?;
    Ok(totals)
}

fn import_to(server: &Server, source: &Source, args: &ImportArgs) -> Result<Totals> {
    let mut sink = Sink::to(server.client.clone());
    let mut totals = read(source, args, &mut sink)?;
    let Stored { stored, duplicates } = sink.finish()?;
    totals.stored = stored;
    totals.duplicates = duplicates;
    if let Source::Disler(paths) = source {
        totals.themes = Some(disler::import_themes(paths, &server.client)?);
    }
    Ok(totals)
}

fn read(source: &Source, args: &ImportArgs, sink: &mut Sink) -> Result<Totals> {
    let (work, unit) = match source {
        Source::Hooks(files) => {
            (files.iter().filter_map(|f| Some(std::fs::metadata(f).ok()?.len())).sum(), Unit::Bytes)
        }
        Source::Disler(paths) => (disler::count(paths)?, Unit::Rows),
    };
    let progress = Progress::new(work, unit);
    let app = args.app.as_deref();
    let totals = match source {
        Source::Hooks(files) => hooks::import(files, app, sink, &progress),
        Source::Disler(paths) => disler::import(paths, app, sink, &progress),
    };
    progress.finish();
    totals
}

fn report(totals: &Totals, args: &ImportArgs) -> Result<()> {
    if args.json {
        return out(&serde_json::to_string(totals)?);
    }
    let Totals { files, deliveries, stored, duplicates, malformed, .. } = totals;
    let files = print::count(*files, "file");
    if totals.dry_run {
        return out(&format!("{files}: {deliveries} events ({malformed} malformed); nothing was stored"));
    }
    let themes = totals.themes.map_or(String::new(), |n| format!(", {}", print::count(n, "new theme")));
    out(&format!(
        "{files}: {deliveries} events, {stored} stored, {duplicates} already there, {malformed} malformed{themes}"
    ))
}
