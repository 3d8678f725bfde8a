//! `cargo xtask tidy`: what the compiler and clippy do not check, checked by a machine.
//!
//! Arrows between crates (`arrows`) and the text of the sources (`source`). Every check has a
//! test with an example that must fail; the whole also runs as a test of this crate, so that
//! plain `cargo test` covers it.

mod arrows;
mod scan;
mod source;

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are results, or others' text.
const NOT_OURS: [&str; 8] =
    ["target", "node_modules", "dist", ".git", ".client", ".cache", "test-results", "coverage"];

/// Endings of the texts that are read.
const TEXTS: [&str; 12] =
    ["rs", "toml", "md", "vue", "ts", "js", "mjs", "css", "html", "json", "jsonl", "sh"];

/// A rule that does not hold somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Where: a path from the root, perhaps with `:line`.
    place: String,
    /// What is wrong and what would be right.
    message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Prints what was checked, or fails with every finding.
pub(crate) fn run() -> Result<()> {
    println!("tidy: {}", check_tree()?);
    Ok(())
}

/// Checks the whole tree; the note says how much that was.
pub(crate) fn check_tree() -> Result<String> {
    let root = workspace::root();
    let mut findings = arrows::check(&workspace::metadata()?);
    findings.extend(arrows::check_hook_closure(&arrows::hook_closure()?));
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("could not read Cargo.lock")?;
    findings.extend(arrows::check_lock(&lock));
    let files = texts(&root)?;
    let machine = source::machine_paths(&root);
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else {
            findings.push(Finding::new(file.display().to_string(), "is not UTF-8"));
            continue;
        };
        findings.extend(source::check(file, &text, &machine));
    }
    if findings.is_empty() {
        return Ok(format!("{} files", files.len()));
    }
    let list: Vec<String> = findings.iter().map(Finding::to_string).collect();
    bail!("{} findings\n  {}", list.len(), list.join("\n  "))
}

/// Every text file of the tree, as paths from the root.
fn texts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("could not list {}", dir.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.iter().any(|skip| name == *skip) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| TEXTS.iter().any(|known| e == *known)) {
                files.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        if let Err(findings) = super::check_tree() {
            panic!("{findings:#}");
        }
    }
}
