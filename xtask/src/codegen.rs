//! `cargo xtask codegen`: the API description from the server, the page's types from that.
//!
//! Both files are committed, so that a change of the API shows in review and the page builds
//! without the server; `--check` fails when they are not what the code says.

use crate::workspace::{self, Profile, exe};
use crate::{process, run, tools, web};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of `cargo xtask codegen`.
#[derive(Args)]
pub(crate) struct CodegenArgs {
    /// Only compare; fail when a file is not up to date
    #[arg(long)]
    check: bool,
}

/// Writes the generated files, or compares them.
pub(crate) fn codegen(args: &CodegenArgs) -> Result<()> {
    tools::check_node()?;
    web::install()?;
    let metadata = workspace::metadata()?;
    run::build_taffrail(&metadata, Profile::Dev)?;
    let scratch = metadata.target_directory.join("xtask/codegen");
    let taffrail = workspace::bin_dir(&metadata, Profile::Dev).join(exe("taffrail"));
    println!("{}", if args.check { check(&taffrail, &scratch)? } else { write(&taffrail, &scratch)? });
    Ok(())
}

fn write(taffrail: &Path, scratch: &Path) -> Result<String> {
    let api = generated_dir();
    fs::create_dir_all(&api)?;
    for fresh in generate(taffrail, scratch)? {
        let name = fresh.file_name().context("a generated file has a name")?;
        fs::copy(&fresh, api.join(name))?;
    }
    Ok(format!("written: {}", api.display()))
}

/// Compares the committed files with what `taffrail` says now.
pub(crate) fn check(taffrail: &Path, scratch: &Path) -> Result<String> {
    let mut stale = Vec::new();
    for fresh in generate(taffrail, scratch)? {
        let name = fresh.file_name().context("a generated file has a name")?;
        if !same(&fresh, &generated_dir().join(name)) {
            stale.push(format!("web/src/api/{}", name.to_string_lossy()));
        }
    }
    if !stale.is_empty() {
        bail!("not up to date: {}\nhint: run `cargo xtask codegen` and commit the result", stale.join(", "));
    }
    Ok("up to date".into())
}

fn generated_dir() -> PathBuf {
    workspace::web().join("src/api")
}

fn generate(taffrail: &Path, scratch: &Path) -> Result<[PathBuf; 2]> {
    fs::create_dir_all(scratch)?;
    let openapi = scratch.join("openapi.json");
    let schema = scratch.join("schema.d.ts");
    fs::write(&openapi, pretty(&process::read(Command::new(taffrail).arg("openapi"))?)?)?;
    let tool = workspace::web().join("node_modules/.bin/openapi-typescript");
    if !tool.exists() {
        bail!("openapi-typescript is missing\nhint: add it to web/package.json's devDependencies");
    }
    process::read(Command::new(tool).arg(&openapi).arg("--output").arg(&schema))?;
    Ok([openapi, schema])
}

/// One layout whatever the server prints, so that diffs show the API and nothing else.
fn pretty(json: &[u8]) -> Result<String> {
    let value: serde_json::Value =
        serde_json::from_slice(json).context("`taffrail openapi` did not print JSON")?;
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

fn same(fresh: &Path, committed: &Path) -> bool {
    matches!((fs::read(fresh), fs::read(committed)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_stable_and_keeps_the_order() {
        assert_eq!(pretty(br#"{"b":1,"a":[2]}"#).unwrap(), "{\n  \"b\": 1,\n  \"a\": [\n    2\n  ]\n}\n");
        assert!(pretty(b"oops").unwrap_err().to_string().contains("did not print JSON"));
    }

    #[test]
    fn a_missing_file_is_not_the_same() {
        assert!(!same(Path::new("/nonexistent/a"), Path::new("/nonexistent/b")));
    }
}
