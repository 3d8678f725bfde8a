//! `cargo xtask`: the one door to building, testing, measuring and checking the project.
//!
//! It is built before everything else on a fresh machine, so it has few dependencies, no
//! runtime and no dependency on a crate of the project. It starts other programs and judges
//! what they did; it holds no product code.

#![allow(clippy::print_stdout, reason = "a tool for people and CI: its report is its output")]

mod bench;
mod ccusage;
mod codegen;
mod http;
mod process;
mod realclient;
mod report;
mod run;
mod test;
mod tidy;
mod tools;
mod web;
mod workspace;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The project's own build, test and check commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the page and the binaries, start Taffrail and print its URL
    Run(run::RunArgs),
    /// Run every check and every test, installing what they need
    Test(test::TestArgs),
    /// Run the benchmarks in release mode, each beside its floor
    Bench(PassThrough),
    /// Run the fault campaign in release mode: kill -9 and power cuts
    Faults(PassThrough),
    /// Write the files generated from the server's API description
    Codegen(codegen::CodegenArgs),
    /// Check what the compiler does not: dependency arrows, file headers, SQL's place
    Tidy,
    /// Ask ccusage, from npm, for the answers that the tests compare with
    Ccusage(ccusage::CcusageArgs),
    /// Drive the real client with a scripted model and compare what was stored with what it sent
    Realclient(realclient::RealclientArgs),
    /// (internal) the independent recorder that `realclient` installs as a hook
    #[command(hide = true)]
    RecordHook(realclient::recorder::RecordHookArgs),
    /// (internal) unpack nothing, serve one scenario of the scripted model until killed
    #[command(hide = true)]
    Model {
        /// The scenario's name or file
        scenario: PathBuf,
    },
}

/// Arguments handed on unchanged.
#[derive(Args)]
struct PassThrough {
    /// Handed on to `taffrail-bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::test(&args),
        Command::Bench(rest) => bench::run(bench::Tool::Bench, &rest.args),
        Command::Faults(rest) => bench::run(bench::Tool::Faults, &rest.args),
        Command::Codegen(args) => codegen::codegen(&args),
        Command::Tidy => tidy::run(),
        Command::Ccusage(args) => ccusage::run(&args),
        Command::Realclient(args) => realclient::run(&args),
        Command::RecordHook(args) => realclient::recorder::run(&args),
        Command::Model { scenario } => realclient::serve_model(&scenario),
    }
}
