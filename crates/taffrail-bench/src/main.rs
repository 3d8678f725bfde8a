//! `taffrail-bench`: measures the shipped programs and tries to break them.
//!
//! Three commands: `bench` (every figure beside its floor), `fill` (a large database to read from) and `faults` (kills,
//! power cuts, crowds, odd input). All of them drive `taffrail` and `taffrail-hook` as processes; only the raw store is
//! also called in place. Everything temporary lies under the system's temporary directory and is taken back, on Ctrl-C
//! too.

mod bench;
mod binaries;
mod check;
mod clock;
mod faults;
mod fill;
mod http;
mod machine;
mod process;
mod report;
mod rng;
mod scratch;
mod server;
mod stats;
mod sys;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "taffrail-bench", about = "Measures taffrail and tries to break it", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, each figure beside its floor.
    Bench(bench::BenchArgs),
    /// Make a large, realistic database; goes on where it was broken off.
    Fill(fill::FillArgs),
    /// Kill, cut the power, crowd, feed odd input; look whether anything promised was lost.
    Faults(faults::FaultArgs),
    /// Run a program and print what it took as JSON.
    #[command(hide = true)]
    Took(bench::TookArgs),
    /// Start a program with 6 MB on stdin and print its peak of resident memory.
    #[command(hide = true)]
    Peak(bench::PeakArgs),
}

fn main() -> ExitCode {
    scratch::watch_for_interrupts();
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Fill(args) => fill::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Faults(args) => faults::run(&args),
        Command::Took(args) => bench::took(&args).map(|()| ExitCode::SUCCESS),
        Command::Peak(args) => bench::peak(&args).map(|()| ExitCode::SUCCESS),
    };
    scratch::wait_if_interrupted();
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
