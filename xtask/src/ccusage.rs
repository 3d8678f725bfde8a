//! `cargo xtask ccusage --record`: asks ccusage itself, from npm, and keeps its answers as what the tests compare with.
//!
//! Each folder of `fixtures/ccusage` is a case: `projects/` is what is read, `commands.txt` what is asked (a line each),
//! `recorded/` what was answered. The case `open` has no files of its own: it reads the open transcripts of the shared
//! folder, which are no part of the repository.

use crate::{process, workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "ccusage@20.0.24";
/// Where it is installed, below `target`.
const PLACE: &str = "ccusage-20.0.24";
const OPEN: &str = "open";

#[derive(Args)]
pub(crate) struct CcusageArgs {
    /// Ask ccusage and write its answers (needs npm)
    #[arg(long)]
    record: bool,
    /// The open transcripts, for the case `open` [default: ../shared/data/claude-transcripts]
    #[arg(long, value_name = "DIR")]
    transcripts: Option<PathBuf>,
}

pub(crate) fn run(args: &CcusageArgs) -> Result<()> {
    if !args.record {
        bail!(
            "nothing to do\nhint: --record asks ccusage anew; `cargo test -p taffrail --test ccusage` compares"
        );
    }
    let program = install()?;
    let cases = workspace::root().join("fixtures/ccusage");
    for case in sorted(&cases)? {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(commands) = fs::read_to_string(case.join("commands.txt")) else { continue };
        let open = args
            .transcripts
            .clone()
            .unwrap_or_else(|| workspace::root().join("../shared/data/claude-transcripts"));
        let config_dir = if name == OPEN { laid_out(&open)? } else { case.clone() };
        let recorded = case.join("recorded");
        if recorded.is_dir() {
            fs::remove_dir_all(&recorded)?;
        }
        fs::create_dir_all(&recorded)?;
        for command in commands.lines().filter(|line| !line.is_empty()) {
            let answer = ask(&program, &config_dir, command)?;
            fs::write(
                recorded.join(format!("{}.json", command.replace(' ', "+").replace('/', "~"))),
                answer,
            )?;
        }
        println!("{name}: {} answers", commands.lines().count());
    }
    Ok(())
}

/// The document that ccusage prints, in UTC and with nothing of this user's settings.
fn ask(program: &Path, config_dir: &Path, command: &str) -> Result<Vec<u8>> {
    let nobody = workspace::root().join("target").join(PLACE).join("nobody");
    fs::create_dir_all(&nobody)?;
    let output = Command::new(program)
        .args(command.split(' '))
        .args(["--json", "--offline"])
        .env_clear()
        .env("HOME", nobody)
        .env("PATH", "/usr/bin:/bin")
        .env("TZ", "UTC")
        .env("CLAUDE_CONFIG_DIR", config_dir)
        .output()?;
    ensure!(output.status.success(), "ccusage {command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn install() -> Result<PathBuf> {
    let dir = workspace::root().join("target").join(PLACE);
    if native(&dir).is_none() {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("package.json"), "{}")?;
        process::run(
            Command::new("npm").args(["install", "--no-audit", "--no-fund", PACKAGE]).current_dir(&dir),
        )?;
    }
    let program = native(&dir).context("npm brought no native program of ccusage for this machine")?;
    executable(&program)?;
    Ok(program)
}

fn native(dir: &Path) -> Option<PathBuf> {
    let packages = fs::read_dir(dir.join("node_modules/@ccusage")).ok()?;
    packages.flatten().map(|package| package.path().join("bin/ccusage")).find(|path| path.is_file())
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

/// The open transcripts as the client would have them: `projects/<folder>/<session>.jsonl`.
fn laid_out(open: &Path) -> Result<PathBuf> {
    let dir = workspace::root().join("target").join(PLACE).join("open");
    if dir.is_dir() {
        fs::remove_dir_all(&dir)?;
    }
    copy(open, &dir.join("projects")).with_context(|| format!("cannot copy {}", open.display()))?;
    Ok(dir)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for path in sorted(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else if path.extension().is_some_and(|ext| ext == "jsonl") {
            fs::write(target, fs::read(&path)?)?;
        }
    }
    Ok(())
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
