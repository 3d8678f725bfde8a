//! Where things are: the workspace, its target directory, the binaries, the host's triple.

use crate::process;
use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Command;

/// The workspace root: this crate's directory is one below it. `cargo run` says where it is now,
/// which may be elsewhere than it was built, as with a target directory shared by checkouts.
pub(crate) fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().expect("the crate lies inside the workspace").to_owned()
}

/// The page's sources.
pub(crate) fn web() -> PathBuf {
    root().join("web")
}

/// `cargo` itself, the one that started this program where there is one.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Which of the two builds of the product is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; dependencies are optimized all the same.
    Dev,
    /// What is shipped and measured.
    Release,
}

impl Profile {
    /// The arguments that select it on cargo's command line.
    pub(crate) fn args(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// A package as `cargo metadata --no-deps` tells it, with what the checks need.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    /// The crate's name.
    pub(crate) name: String,
    /// What it declares, of every kind.
    pub(crate) dependencies: Vec<Dependency>,
}

/// One declared dependency.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    /// The package's name, not its rename.
    pub(crate) name: String,
    /// `None` is a normal one; else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// The part of `cargo metadata` in use here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    /// The workspace's own packages.
    pub(crate) packages: Vec<Package>,
    /// Honours `CARGO_TARGET_DIR` and configuration.
    pub(crate) target_directory: PathBuf,
}

/// Asks cargo about the workspace without resolving, so that it needs no network.
pub(crate) fn metadata() -> Result<Metadata> {
    let json = process::read(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    serde_json::from_slice(&json).context("cargo metadata printed something unexpected")
}

/// The folder that holds `taffrail` and, beside it, `taffrail-hook`.
pub(crate) fn bin_dir(metadata: &Metadata, profile: Profile) -> PathBuf {
    metadata.target_directory.join(profile.dir())
}

/// `rustc`'s host triple.
pub(crate) fn host_triple() -> Result<String> {
    let version = process::read(Command::new("rustc").arg("-vV"))?;
    let version = String::from_utf8(version).context("rustc -vV is not UTF-8")?;
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("rustc -vV names no host"))
}

/// The file name of an executable on this platform.
pub(crate) fn exe(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn metadata_knows_this_crate() {
        let metadata = metadata().unwrap();
        assert!(metadata.packages.iter().any(|p| p.name == "xtask"));
    }

    #[test]
    fn the_host_has_a_triple() {
        assert!(host_triple().unwrap().contains('-'));
    }
}
