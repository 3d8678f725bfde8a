//! `cargo xtask realclient`: the real client, driven by a scripted model, with Taffrail
//! installed as a person installs it; then what was stored is held against what the client
//! sent, as an independent recorder saw it.
//!
//! Not part of `cargo xtask test`: it needs the client's package. Its recordings
//! (`--record`) are fixtures of the tests. Everything stays on loopback.

mod client;
mod compare;
mod ledger;
mod model;
mod record;
pub(crate) mod recorder;
mod scenario;
mod taffrail;
mod terminal;

use crate::report::seconds;
use crate::run as build;
use crate::workspace::{self, Profile, exe};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use client::Sandbox;
use compare::Comparison;
use ledger::{Paid, Watch};
use model::Model;
use recorder::Recorded;
use scenario::Scenario;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use taffrail::Taffrail;

/// With a hung server a hook may cost its budget; this much a hook is certainly a fault.
const HUNG_HOOK_COST_MAX: Duration = Duration::from_millis(500);
const HUNG_RUN_BASE: Duration = Duration::from_secs(20);

/// Arguments of `cargo xtask realclient`.
#[derive(Args)]
pub(crate) struct RealclientArgs {
    /// Names of scenarios; all of them when none is named
    scenarios: Vec<String>,
    /// How the client reaches Taffrail
    #[arg(long, value_enum, default_value = "command")]
    transport: Transport,
    /// What the server does meanwhile
    #[arg(long, value_enum, default_value = "up")]
    server: ServerMode,
    /// Write recordings to fixtures/realclient
    #[arg(long)]
    record: bool,
    /// Run the client with the recorder alone
    #[arg(long)]
    no_taffrail: bool,
    /// Use this binary, with taffrail-hook beside it, instead of building both
    #[arg(long, value_name = "FILE", conflicts_with = "no_taffrail")]
    taffrail: Option<PathBuf>,
    /// Name the scenarios and end
    #[arg(long)]
    list: bool,
    /// Leave the sandboxes for a look
    #[arg(long)]
    keep: bool,
}

/// How hooks are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// `taffrail-hook`, started by the client
    Command,
    /// http hooks, where the client honours them
    Http,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Http => "http",
        }
    }
}

/// What the server does while the client works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServerMode {
    /// It runs
    Up,
    /// It is started after the client has ended
    Stopped,
    /// It accepts and never answers; a working one is started after the client has ended
    Hung,
}

/// What a run of scenarios is done with.
struct Setup<'a> {
    client: PathBuf,
    taffrail: Option<PathBuf>,
    args: &'a RealclientArgs,
}

/// One line of the table.
struct Row {
    scenario: String,
    took: Duration,
    comparison: Option<Comparison>,
    paid: Option<Paid>,
    sent: usize,
    problems: Vec<String>,
}

/// Runs the scenarios and fails when one differs.
pub(crate) fn run(args: &RealclientArgs) -> Result<()> {
    let names = if args.scenarios.is_empty() { scenario::names()? } else { args.scenarios.clone() };
    if args.list {
        return list(&names);
    }
    if args.transport == Transport::Http && args.server != ServerMode::Up {
        bail!("http hooks need a running server: the client drops what it cannot deliver\nhint: --server up");
    }
    let setup = Setup { client: client::ensure()?, taffrail: build_taffrail(args)?, args };
    let mut rows = Vec::new();
    for (at, name) in names.iter().enumerate() {
        eprintln!("[{}/{}] {name}", at + 1, names.len());
        rows.push(run_scenario(&setup, name)?);
    }
    report(&rows)
}

/// Serves one scenario's model until killed, for a client that is driven by hand.
pub(crate) fn serve_model(name: &Path) -> Result<()> {
    let home = std::env::home_dir().unwrap_or_default();
    let scenario = scenario::load(&name.to_string_lossy(), &home, &std::env::current_dir()?)?;
    let model = Model::start(&scenario)?;
    println!("ANTHROPIC_BASE_URL=http://{}", model.address);
    loop {
        std::thread::park();
    }
}

fn list(names: &[String]) -> Result<()> {
    for name in names {
        let scenario = scenario::load(name, Path::new("~"), Path::new("~/project"))?;
        println!("{name:<20} {}", scenario.about);
    }
    Ok(())
}

fn build_taffrail(args: &RealclientArgs) -> Result<Option<PathBuf>> {
    if args.no_taffrail {
        return Ok(None);
    }
    if let Some(given) = &args.taffrail {
        return Ok(Some(given.canonicalize().with_context(|| format!("no binary at {}", given.display()))?));
    }
    let metadata = workspace::metadata()?;
    build::build_taffrail(&metadata, Profile::Dev)?;
    build::build_hook(&metadata, Profile::Dev)?;
    Ok(Some(workspace::bin_dir(&metadata, Profile::Dev).join(exe("taffrail"))))
}

fn run_scenario(setup: &Setup<'_>, name: &str) -> Result<Row> {
    let sandbox = Sandbox::create(name, setup.args.keep)?;
    let scenario = scenario::load(name, &sandbox.home(), &sandbox.project())?;
    if scenario.is_interactive() && !terminal::is_available() {
        bail!("{name} needs tmux\nhint: install it, or name the scenarios that should run");
    }
    sandbox.set_up(&scenario)?;
    let start = Instant::now();
    let (mut problems, stored, paid) = match &setup.taffrail {
        Some(binary) => {
            let (problems, stored, paid) = with_taffrail(setup, binary, &sandbox, &scenario)?;
            (problems, Some(stored), paid)
        }
        None => {
            sandbox.add_recorder(&scenario, &scenario.deny_without_taffrail, &["MessageDisplay"])?;
            (drive(&setup.client, &sandbox, &scenario, &Model::start(&scenario)?)?, None, None)
        }
    };
    let truth = recorder::read(&sandbox.recording())?;
    if setup.args.record && problems.is_empty() {
        let file = record::write(name, &sandbox.home(), &truth)?;
        eprintln!("      recorded: {}", file.display());
    }
    problems.extend(stored.iter().flat_map(Comparison::differences));
    problems.extend(paid.iter().flat_map(|paid| paid.differences.iter().map(|d| format!("ledger: {d}"))));
    if setup.args.keep {
        eprintln!("      kept: {}", sandbox.root().display());
    }
    Ok(Row {
        scenario: name.to_owned(),
        took: start.elapsed(),
        comparison: stored,
        paid,
        sent: truth.len(),
        problems,
    })
}

/// Installs, drives the client with the server up, stopped or hung, and compares.
fn with_taffrail(
    setup: &Setup<'_>,
    binary: &Path,
    sandbox: &Sandbox,
    scenario: &Scenario,
) -> Result<(Vec<String>, Comparison, Option<Paid>)> {
    let taffrail = Taffrail::new(binary, sandbox)?;
    let mut running = None;
    let mut hung = None;
    match setup.args.server {
        ServerMode::Up => running = Some(taffrail.serve()?),
        ServerMode::Hung => hung = Some(taffrail.hang()?),
        ServerMode::Stopped => {}
    }
    taffrail.install(setup.args.transport)?;
    sandbox.add_recorder(scenario, &[], &[])?;
    let watch = match running {
        Some(_) => Some(Watch::start(taffrail.address(), taffrail.token()?)),
        None => None,
    };
    let model = Model::start(scenario)?;
    let start = Instant::now();
    let mut problems = drive(&setup.client, sandbox, scenario, &model)?;
    let took = start.elapsed();
    let truth: Vec<Recorded> = recorder::read(&sandbox.recording())?;
    if hung.take().is_some() {
        problems.extend(too_slow(took, truth.len()));
    }
    if running.is_none() {
        running = Some(taffrail.serve()?);
    }
    let paid = ledger::compare(watch, &model, taffrail.address(), &taffrail.token()?)?;
    let stored = taffrail.settled_events(truth.len())?;
    drop(running);
    Ok((problems, compare::compare(&truth, &stored), Some(paid)))
}

fn too_slow(took: Duration, hooks: usize) -> Option<String> {
    let limit = HUNG_RUN_BASE + HUNG_HOOK_COST_MAX * u32::try_from(hooks).unwrap_or(u32::MAX);
    (took > limit).then(|| format!("{} with a hung server, at most {}", seconds(took), seconds(limit)))
}

/// Runs the client as often as the scenario says; returns what went wrong.
fn drive(client: &Path, sandbox: &Sandbox, scenario: &Scenario, model: &Model) -> Result<Vec<String>> {
    let env = sandbox.client_env(scenario, model.address);
    let mut problems = Vec::new();
    for (at, run) in scenario.runs.iter().enumerate() {
        problems.extend(match run.keys {
            Some(_) => terminal::run(client, sandbox, run, at, &env)?,
            None => client::run_headless(client, sandbox, run, at, &env)?,
        });
    }
    let truth = recorder::read(&sandbox.recording())?;
    problems.extend(compare::unmet(&scenario.expect, &truth, model.unused_turns()));
    Ok(problems)
}

fn report(rows: &[Row]) -> Result<()> {
    let head = ("scenario", "sent", "stored", "missing", "extra", "durations", "time");
    let (a, b, c, d, e, f, g) = head;
    let (h, i, j, k) = ("served", "paid", "cost", "seen ms");
    println!("\n{a:<20} {b:>6} {c:>7} {d:>8} {e:>6} {f:>10} {h:>7} {i:>5} {j:>10} {k:>8} {g:>8}  result");
    for row in rows {
        let cell = |get: fn(&Comparison) -> usize| {
            row.comparison.as_ref().map_or("-".into(), |c| get(c).to_string())
        };
        let result = if row.problems.is_empty() { "ok" } else { "FAILED" };
        let money = |get: fn(&Paid) -> String| row.paid.as_ref().map_or("-".into(), get);
        println!(
            "{:<20} {:>6} {:>7} {:>8} {:>6} {:>10} {:>7} {:>5} {:>10} {:>8} {:>8}  {result}",
            row.scenario,
            row.comparison.as_ref().map_or(row.sent, |c| c.truth),
            cell(|c| c.stored),
            cell(|c| c.missing.len()),
            cell(|c| c.extra.len()),
            cell(|c| c.durations.len()),
            money(|p| p.served.to_string()),
            money(|p| p.requests.to_string()),
            money(|p| format!("${:.6}", p.cost_nano_usd as f64 / 1e9)),
            money(|p| p.seen_ms_max.to_string()),
            seconds(row.took),
        );
    }
    for row in rows {
        for problem in &row.problems {
            println!("{}: {problem}", row.scenario);
        }
    }
    let failed = rows.iter().filter(|row| !row.problems.is_empty()).count();
    println!("realclient: {} passed, {failed} failed", rows.len() - failed);
    if failed > 0 {
        bail!(
            "{failed} of {} scenarios differ\nhint: run one with --keep and look into its sandbox",
            rows.len()
        );
    }
    Ok(())
}
