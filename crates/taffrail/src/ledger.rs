//! `taffrail ledger`: the rows behind the figures, and whether they add up.

mod check;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::home::Home;

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Hold the ledger against what transcripts, OTLP and the client itself say; ends with 1 where it does not add up
    Check(CheckArgs),
    /// Show each API request of a session, who told of it, and how sure its cost is
    Show(ShowArgs),
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// First day: 2026-11-01 or 20261101
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
    /// Last day
    #[arg(long, value_name = "DATE")]
    pub(crate) until: Option<String>,
    /// Where days begin: a name such as Europe/Berlin, UTC, or local
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub(crate) timezone: String,
    /// Only this session; the beginning of its id is enough
    #[arg(long, value_name = "ID", conflicts_with_all = ["since", "until"])]
    pub(crate) session: Option<String>,
    /// List every session, not only those with something to say
    #[arg(long)]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ShowArgs {
    /// The session; the beginning of its id is enough
    #[arg(long, value_name = "ID")]
    pub(crate) session: String,
    /// Also failed attempts, prompts, compactions and starts of subagents
    #[arg(long)]
    pub(crate) all: bool,
    /// Time zone of the table: a name such as Europe/Berlin, UTC, or local
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub(crate) timezone: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(home: &Home, command: &LedgerCommand) -> Result<ExitCode> {
    let reader = crate::report::open(home)?;
    match command {
        LedgerCommand::Check(args) => check::run(home, &reader, args),
        LedgerCommand::Show(args) => show::run(home, &reader, args).map(|()| ExitCode::SUCCESS),
    }
}
