//! `cargo xtask run`: from a checkout to a running server with its page, in numbered steps.

use crate::report::Steps;
use crate::workspace::{self, Metadata, Profile, exe};
use crate::{process, tools, web};
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Dev builds with optimized dependencies: the quickest first run that still feels quick.
const RUN_PROFILE: Profile = Profile::Dev;

/// Arguments of `cargo xtask run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Start with a fleet of simulated agents in a database of its own
    #[arg(long)]
    demo: bool,
    /// Handed on to `taffrail up` (or `taffrail demo`)
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds what changed and starts the server.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let metadata = workspace::metadata()?;
    let mut steps = Steps::new(5);
    steps.step("tools", &[], tools::check_node);
    steps.step("page packages", &["tools"], web::install);
    steps.step("page", &["page packages"], || web::build(&metadata.target_directory));
    steps.step("taffrail", &["page"], || build_taffrail(&metadata, RUN_PROFILE));
    steps.step("taffrail-hook", &["taffrail"], || build_hook(&metadata, RUN_PROFILE));
    steps.finish()?;
    let taffrail = workspace::bin_dir(&metadata, RUN_PROFILE).join(exe("taffrail"));
    let verb = if args.demo { "demo" } else { "up" };
    process::run(Command::new(taffrail).arg(verb).args(&args.args))
}

/// The command line and server.
pub(crate) fn build_taffrail(metadata: &Metadata, profile: Profile) -> Result<String> {
    process::run(workspace::cargo().args(["build", "-p", "taffrail"]).args(profile.args()))?;
    size_note(&workspace::bin_dir(metadata, profile).join(exe("taffrail")))
}

/// The hook client: optimized and, on Linux, static, because it starts once per hook event.
/// It is put beside `taffrail`, where `taffrail install` looks for it.
pub(crate) fn build_hook(metadata: &Metadata, profile: Profile) -> Result<String> {
    let host = workspace::host_triple()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "-p", "taffrail-hook", "--profile", "hook", "--target", &host]);
    if host.ends_with("linux-gnu") {
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    process::run(&mut cargo)?;
    let built = metadata.target_directory.join(&host).join("hook").join(exe("taffrail-hook"));
    let placed = workspace::bin_dir(metadata, profile).join(exe("taffrail-hook"));
    place(&built, &placed)?;
    size_note(&placed)
}

/// Replaces the file in one step: a running hook keeps its own, and cargo's hard link to the
/// old one is not written through.
fn place(built: &Path, placed: &Path) -> Result<()> {
    if let (Ok(new), Ok(old)) = (fs::read(built), fs::read(placed))
        && new == old
    {
        return Ok(());
    }
    let beside = PathBuf::from(format!("{}.new", placed.display()));
    fs::copy(built, &beside).with_context(|| format!("could not copy {}", built.display()))?;
    fs::rename(&beside, placed).with_context(|| format!("could not replace {}", placed.display()))
}

fn size_note(binary: &Path) -> Result<String> {
    let bytes = binary.metadata().with_context(|| format!("{} was not built", binary.display()))?.len();
    Ok(format!("{:.1} MB", bytes as f64 / 1e6))
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn placing_does_not_write_through_a_hard_link() {
        let dir = std::env::temp_dir().join(format!("xtask-place-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [new, placed, cargos] = ["new", "placed", "cargos"].map(|name| dir.join(name));
        fs::write(&new, "static").unwrap();
        fs::write(&cargos, "dynamic").unwrap();
        fs::hard_link(&cargos, &placed).unwrap();
        place(&new, &placed).unwrap();
        assert_eq!(fs::read(&placed).unwrap(), b"static");
        assert_eq!(fs::read(&cargos).unwrap(), b"dynamic");
        fs::remove_dir_all(dir).unwrap();
    }
}
