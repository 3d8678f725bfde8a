//! `taffrail doctor`: what is wrong, and how to mend it.
//!
//! Three steps: `gather` looks (and changes nothing but a probe file that it removes), `judge` decides, on facts alone,
//! and the findings are printed. Exit code 0 when nothing fails, 1 when something does.

mod gather;
mod judge;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// Arguments of `taffrail doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a check came out, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Events are lost or nothing is seen.
    Fail,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, for scripts.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// What is the case.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// Opens the database for a look; the error says what is wrong with it.
pub(crate) type DatabaseProbe<'a> = &'a dyn Fn(&Path) -> Result<String>;

/// Runs the command. `open_database` looks at the database file when there is one.
///
/// # Errors
/// When the findings cannot be printed.
pub(crate) fn run(
    args: &DoctorArgs,
    data_dir: Option<&Path>,
    open_database: Option<DatabaseProbe<'_>>,
) -> Result<ExitCode> {
    let facts = gather::facts(data_dir, open_database);
    let findings = judge::findings(&facts);
    let mut stdout = io::stdout().lock();
    if args.json {
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let report = serde_json::json!({"status": worst, "findings": findings});
        writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        for finding in &findings {
            write!(stdout, "{}", shown(finding))?;
        }
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn shown(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok  ",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let hint = finding.hint.iter().map(|hint| format!("      hint: {hint}\n")).collect::<String>();
    format!("{level}  {}\n{hint}", finding.message)
}
