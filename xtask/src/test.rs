//! `cargo xtask test`: everything that has to hold, on a machine with only Rust and Node.
//!
//! What is missing is installed or named; nothing is left out silently. A failed step lets
//! the independent ones go on, so one run shows all there is to mend.

use crate::bench::{self, Tool};
use crate::report::Steps;
use crate::workspace::{self, Metadata, Profile, exe};
use crate::{codegen, process, tidy, tools, web};
use anyhow::Result;
use clap::Args;

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave the browser tests out (they need Chromium)
    #[arg(long)]
    no_browser: bool,
    /// Run only the Rust tests whose names contain this
    filter: Option<String>,
}

/// Runs the whole list, or the Rust tests that match the filter.
pub(crate) fn test(args: &TestArgs) -> Result<()> {
    if let Some(filter) = &args.filter {
        return rust_tests(Some(filter)).map(|note| println!("{note}"));
    }
    let metadata = workspace::metadata()?;
    let mut steps = Steps::new(if args.no_browser { 13 } else { 15 });
    check_sources(&mut steps);
    check_page(&mut steps, &metadata);
    check_rust(&mut steps, &metadata);
    if !args.no_browser {
        check_in_browser(&mut steps, &metadata);
    }
    steps.finish()
}

/// The quick ones first: what they find costs seconds, not minutes.
fn check_sources(steps: &mut Steps) {
    steps.step("formatting", &[], || done(workspace::cargo().args(["fmt", "--all", "--check"])));
    steps.step("tidy", &[], tidy::check_tree);
}

fn check_page(steps: &mut Steps, metadata: &Metadata) {
    steps.step("node", &[], tools::check_node);
    steps.step("page packages", &["node"], web::install);
    steps.step("page types", &["page packages"], || done(tools::npm().args(["run", "typecheck"])));
    steps.step("page unit tests", &["page packages"], || {
        done(tools::npm().args(["run", "test"]).env("CI", "true"))
    });
    steps.step("page build", &["page packages"], || web::build(&metadata.target_directory));
}

fn check_rust(steps: &mut Steps, metadata: &Metadata) {
    steps.step("clippy", &[], || {
        let flags = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        done(workspace::cargo().args(flags))
    });
    steps.step("binaries", &[], || done(workspace::cargo().args(["build", "--workspace", "--bins"])));
    steps.step("rust tests", &[], || rust_tests(None));
    let bin_dir = workspace::bin_dir(metadata, Profile::Dev);
    steps.step("generated files", &["page packages", "binaries"], || {
        codegen::check(&bin_dir.join(exe("taffrail")), &metadata.target_directory.join("xtask/codegen"))
    });
    steps.step("bench, tiny", &["binaries"], || done(bench::command(&bin_dir, Tool::Bench).arg("--tiny")));
    steps.step("faults, tiny", &["binaries"], || done(bench::command(&bin_dir, Tool::Faults).arg("--tiny")));
}

fn check_in_browser(steps: &mut Steps, metadata: &Metadata) {
    steps.step("chromium", &[], || Ok(tools::ensure_chromium()?.display().to_string()));
    let taffrail = workspace::bin_dir(metadata, Profile::Dev).join(exe("taffrail"));
    steps.step("browser tests", &["chromium", "page build", "binaries"], || {
        let mut npm = tools::npm();
        npm.args(["run", "e2e"]).env("CI", "true").env("TAFFRAIL_BIN", &taffrail);
        done(npm.env("CHROMIUM", tools::ensure_chromium()?))
    });
}

/// cargo-nextest where it is installed (it runs no documentation tests, so those follow).
fn rust_tests(filter: Option<&str>) -> Result<String> {
    if !process::succeeds(workspace::cargo().args(["nextest", "--version"])) {
        process::run(workspace::cargo().args(["test", "--workspace"]).args(filter))?;
        return Ok("cargo test".into());
    }
    process::run(workspace::cargo().args(["nextest", "run", "--workspace"]).args(filter))?;
    if filter.is_none() {
        process::run(workspace::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok("cargo nextest".into())
}

fn done(command: &mut std::process::Command) -> Result<String> {
    process::run(command)?;
    Ok(String::new())
}
