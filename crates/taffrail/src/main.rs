//! The command line. stdout is data; logs, progress and errors go to stderr.
//!
//! `taffrail hook` is the hook client: it is started once per hook event, so it is told apart before anything else.

mod cli;
mod client;
mod demo;
mod detect;
mod doctor;
mod export;
mod health;
mod home;
mod import;
mod install;
mod ledger;
mod local;
mod migrate;
mod prices;
mod print;
mod report;
mod serve;
mod settings;
mod statusline;
mod tail;
mod uninstall;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use cli::{Cli, Command, JsonArgs};
use home::Home;
use print::out;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "hook") {
        return taffrail_hook::run(arguments);
    }
    let line: Vec<_> = std::env::args_os().skip(1).collect();
    let done = if report::ccusage::is_meant(&line) {
        report::ccusage::run(&line).map(|()| ExitCode::SUCCESS)
    } else {
        run(&Cli::parse())
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let home = || Home::new(&cli.global);
    let data_dir = cli.global.data_dir.as_deref();
    let done = match &cli.command {
        Command::Install(args) => install::run(args, data_dir),
        Command::Uninstall(args) => uninstall::run(args),
        Command::Doctor(args) => return doctor::run(args, data_dir, Some(&migrate::probe)),
        Command::Up(args) => up::up(&cli.global, args),
        Command::Down => up::down(&home()?),
        Command::Serve(args) => serve::run(&cli.global, args),
        Command::Statusline(args) => statusline::run(&cli.global, args),
        Command::Tail(args) => tail::run(&home()?, args),
        Command::Export(command) => export::run(&home()?, command),
        Command::Import(command) => return import::run(&cli.global, command),
        Command::Report(command) => report::run(&home()?, command),
        Command::Ledger(command) => return ledger::run(&home()?, command),
        Command::Prices(command) => return prices::run(&home()?, command),
        Command::Demo(args) => demo::run(&home()?, args),
        Command::Detect(args) => detect::run(&home()?, args),
        Command::Health(args) => health::health(&home()?, args),
        Command::Token => out(&home()?.token()?),
        Command::Migrate(command) => migrate::run(&home()?, command),
        Command::Openapi => out(&serde_json::to_string_pretty(&taffrail_server::openapi())?),
        Command::Version(args) => version(args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn version(args: &JsonArgs) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        return out(&serde_json::json!({ "version": version }).to_string());
    }
    out(&format!("taffrail {version}"))
}

/// What happened and why, one cause after the other, then what to do: hints come last.
fn explained(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (said, hint) = text.split_once("\nhint: ").map_or((text.as_str(), None), |(s, h)| (s, Some(h)));
        // A cause is often part of what the error above it says already.
        if !words.iter().any(|word| word.contains(said)) {
            words.push(said.to_owned());
        }
        hints.extend(hint.map(str::to_owned).filter(|h| !hints.contains(h)));
    }
    let mut report = words.join(": ");
    for hint in hints {
        report.push_str("\nhint: ");
        report.push_str(&hint);
    }
    report
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use anyhow::Context;
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_report_says_each_cause_once_and_the_hint_last() {
        let error = anyhow::anyhow!("no room\nhint: make some").context("cannot write\nhint: look");
        let error: Result<()> = Err(error).context("cannot write");
        assert_eq!(explained(&error.unwrap_err()), "cannot write: no room\nhint: look\nhint: make some");
    }
}
