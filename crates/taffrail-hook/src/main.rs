//! The hook client as its own small binary; `taffrail hook` is the same client as a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    taffrail_hook::run(std::env::args_os().skip(1))
}
