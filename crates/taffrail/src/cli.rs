//! The command line's shape. What a command does stands in the module of its name.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::detect::DetectArgs;
use crate::doctor::DoctorArgs;
use crate::install::InstallArgs;
use crate::ledger::LedgerCommand;
use crate::report::args::ReportCommand;
use crate::statusline::StatuslineArgs;
use crate::uninstall::UninstallArgs;

/// A flight recorder and circuit breaker for coding agents.
#[derive(Debug, Parser)]
#[command(name = "taffrail", version, disable_help_subcommand = true, propagate_version = false)]
#[command(after_help = "Environment: TAFFRAIL_HOME is the data directory, NO_COLOR turns colours off.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where all data is kept [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "TAFFRAIL_HOME")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server in the background if none runs, and print the link to its page
    Up(UpArgs),
    /// Stop the server of the data directory
    Down,
    /// Run the server in the foreground
    Serve(ServeArgs),
    /// Wire Claude Code's hooks into its settings
    Install(InstallArgs),
    /// Take the hooks out again
    Uninstall(UninstallArgs),
    /// Say what is wrong, and how to mend it
    Doctor(DoctorArgs),
    /// Print one line for the client's status line, from its JSON on stdin and the ledger
    Statusline(StatuslineArgs),
    /// Follow events as they come, one line each
    Tail(TailArgs),
    /// Write stored events to stdout
    #[command(subcommand)]
    Export(ExportCommand),
    /// Take in what was recorded elsewhere; importing again adds nothing twice
    #[command(subcommand)]
    Import(ImportCommand),
    /// Show what it cost, by day, week, month, session or five-hour block
    #[command(subcommand)]
    #[command(
        after_help = "--compat ccusage prints what ccusage 20 would, from the transcripts themselves: `taffrail report daily --compat ccusage --json`."
    )]
    Report(ReportCommand),
    /// Show the ledger behind the figures, or check that it adds up
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// What models cost, and what a change of it does to history
    #[command(subcommand)]
    Prices(PricesCommand),
    /// Replay history through the detectors: what would have fired, when, and what it would have saved; changes nothing
    Detect(DetectArgs),
    /// Run a fleet of simulated agents in a database of its own, for a look around
    Demo(DemoArgs),
    /// Show whether the server is well
    Health(JsonArgs),
    /// Print the token that the API asks for
    Token,
    /// Show or change the version of the database's schema
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Print the OpenAPI description of the API
    Openapi,
    /// Print the version
    Version(JsonArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeOptions {
    /// Address and port to listen on [default: 127.0.0.1:4000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Configuration file [default: config.toml of the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Open the old read routes to the old page at this origin, such as http://localhost:5173
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) legacy_origin: Vec<String>,
    /// When an event counts as accepted: commit (survives a power cut) or process (survives a crash)
    #[arg(long, value_name = "WHEN")]
    pub(crate) durability: Option<String>,
    /// A name that a Host header may have beside the loopback ones
    #[arg(long, value_name = "HOST")]
    pub(crate) allowed_host: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) options: ServeOptions,
    /// Log filter: error, warn, info, debug, trace, or by module
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Leave the terminal's session, as `up` wants it
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) options: ServeOptions,
    /// Print JSON: url, link, pid, started
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EventFilterArgs {
    /// Only this project
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only this event type, such as PreToolUse
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) type_name: Option<String>,
    /// Only events of this tool
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// Only this subagent; "" is the main agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) filter: EventFilterArgs,
    /// Print native events as JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Begin with the newest N stored events
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) since: usize,
    /// Print what is stored and end
    #[arg(long)]
    pub(crate) no_follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// Events, oldest first, one native event per line
    Events(ExportEventsArgs),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object per line
    #[default]
    Jsonl,
    /// Comma-separated, with a header line
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct ExportEventsArgs {
    /// The format
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ExportFormat,
    #[command(flatten)]
    pub(crate) filter: EventFilterArgs,
    /// Only events whose summary, type, tool or app has this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) q: Option<String>,
    /// From this time on: RFC 3339, a date, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Leave the payloads out
    #[arg(long)]
    pub(crate) no_payload: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// The database (events.db) of the old server
    Disler(ImportArgs),
    /// Recorded hook payloads: JSON lines, arrays, recorder lines; folders are walked
    Hooks(ImportArgs),
    /// The client's transcripts: what each session really cost
    Transcripts(ImportTranscriptsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ImportTranscriptsArgs {
    /// Files or folders [default: the client's own folders of transcripts]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Project of all of them [default: what each session's directory says]
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Read and count only
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the totals as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Archive the files at once, before the client deletes them
    #[arg(long)]
    pub(crate) archive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files or folders
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Project of the events [default: what the payload's directory says]
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Read and count only
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the totals as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Show the price table: this version's, with the prices.toml of the data directory in front
    List(PricesListArgs),
    /// Say what needs attention: a broken prices.toml, models without a price, history priced otherwise
    ///
    /// Fails (exit code 1) where something does.
    Check(JsonArgs),
    /// Show what the present prices change in history, and with --apply change it
    Reprice(RepriceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PricesListArgs {
    /// Only this model, by any name that a request may have
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RepriceArgs {
    /// Change history; without it only what would change is shown
    #[arg(long)]
    pub(crate) apply: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Address and port of the demo's server [default: 127.0.0.1:4000, or a free port where that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Agents at work at once
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) agents: u16,
    /// Make the history and end; the server stays
    #[arg(long)]
    pub(crate) once: bool,
    /// How far back the history goes: 30m, 24h, 7d
    #[arg(long, default_value = "24h", value_name = "SPAN")]
    pub(crate) history: String,
    /// Another number is another fleet
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show the schema's version and what is pending
    Status(JsonArgs),
    /// Apply what is pending
    Up(JsonArgs),
    /// Go back to a version
    Down {
        /// The version to go back to
        #[arg(long, value_name = "VERSION")]
        to: u32,
        #[command(flatten)]
        json: JsonArgs,
    },
}
