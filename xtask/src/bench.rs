//! `cargo xtask bench` and `faults`: release builds, then `taffrail-bench` with the rest of
//! the command line.

use crate::workspace::{self, Profile, exe};
use crate::{process, run};
use anyhow::Result;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Which of the two campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Measures, each number beside its floor.
    Bench,
    /// Kills and power cuts.
    Faults,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Bench => "bench",
            Self::Faults => "faults",
        }
    }
}

/// Builds everything in release mode and runs the campaign.
pub(crate) fn run(tool: Tool, args: &[OsString]) -> Result<()> {
    let metadata = workspace::metadata()?;
    run::build_taffrail(&metadata, Profile::Release)?;
    run::build_hook(&metadata, Profile::Release)?;
    process::run(workspace::cargo().args(["build", "-p", "taffrail-bench", "--release"]))?;
    process::run(command(&workspace::bin_dir(&metadata, Profile::Release), tool).args(args))
}

/// `taffrail-bench TOOL`, told where the binaries under test are.
pub(crate) fn command(bin_dir: &Path, tool: Tool) -> Command {
    let mut command = Command::new(bin_dir.join(exe("taffrail-bench")));
    command.arg(tool.name()).current_dir(workspace::root());
    command.env("TAFFRAIL_BIN", bin_dir.join(exe("taffrail")));
    command.env("TAFFRAIL_HOOK_BIN", bin_dir.join(exe("taffrail-hook")));
    command
}
