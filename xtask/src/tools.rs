//! The programs that have to be there: Node, npm, Chromium. Missing ones are installed where
//! that is possible without asking, and named with a hint where it is not.

use crate::process;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The page's tools need this much.
const NODE_MAJOR_MIN: u32 = 20;

/// Names under which distributions ship Chromium or Chrome.
const CHROMIUM_NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Checks Node and npm; returns their versions in a few words.
pub(crate) fn check_node() -> Result<String> {
    let hint = format!(
        "hint: install Node.js {NODE_MAJOR_MIN} or newer with npm (Debian: `apt-get install nodejs npm`)"
    );
    let Some(node) = find("node") else { bail!("node is not on the PATH\n{hint}") };
    if find("npm").is_none() {
        bail!("npm is not on the PATH\n{hint}");
    }
    let version = process::read(Command::new(node).arg("--version"))?;
    let version = String::from_utf8_lossy(&version).trim().to_owned();
    match major(&version) {
        Some(found) if found >= NODE_MAJOR_MIN => Ok(format!("node {version}")),
        _ => bail!("node is {version}, which is too old\n{hint}"),
    }
}

/// `npm` in the page's folder, quiet about all but errors.
pub(crate) fn npm() -> Command {
    let mut command = Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" });
    command.current_dir(crate::workspace::web());
    command.env("NPM_CONFIG_FUND", "false").env("NPM_CONFIG_AUDIT", "false");
    command.env("NPM_CONFIG_UPDATE_NOTIFIER", "false").env("NPM_CONFIG_LOGLEVEL", "error");
    command
}

/// Finds Chromium, or installs it by apt-get as root or with a sudo that does not ask.
pub(crate) fn ensure_chromium() -> Result<PathBuf> {
    if let Some(found) = find_chromium()? {
        return Ok(found);
    }
    install_chromium()?;
    find_chromium()?.context("chromium was installed, but is not on the PATH")
}

fn find_chromium() -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        let path = PathBuf::from(named);
        if !path.is_file() {
            bail!("CHROMIUM names {}, which is not there", path.display());
        }
        return Ok(Some(path));
    }
    Ok(CHROMIUM_NAMES.iter().find_map(|name| find(name)))
}

fn install_chromium() -> Result<()> {
    let hint = "hint: install Chromium and run again, name one with CHROMIUM=/path, or leave the browser \
                tests out with --no-browser";
    if find("apt-get").is_none() {
        bail!("the browser tests need Chromium, and there is no apt-get to install it with\n{hint}");
    }
    let Some(prefix) = root_prefix() else {
        bail!("the browser tests need Chromium; installing it needs root or a sudo without password\n{hint}");
    };
    process::run(&mut apt(prefix, &["update", "-qq"])).context(hint)?;
    process::run(&mut apt(prefix, &["install", "-y", "-qq", "--no-install-recommends", "chromium"]))
        .context(hint)
}

/// What to put before a command that needs root: nothing, or sudo; `None` when there is no way.
fn root_prefix() -> Option<&'static [&'static str]> {
    let uid = process::read(Command::new("id").arg("-u")).unwrap_or_default();
    if uid.trim_ascii() == b"0" {
        return Some(&[]);
    }
    process::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str], args: &[&str]) -> Command {
    let words: Vec<&str> =
        prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(args);
    command
}

/// Looks a program up on the PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let name = crate::workspace::exe(name);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(&name)).find(|p| is_executable(p))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_read_from_node_versions() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("v22.0.0"), Some(22));
        assert_eq!(major("twenty"), None);
    }

    #[test]
    fn the_path_is_searched() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
    }

    #[test]
    fn apt_is_asked_without_questions() {
        let shown = process::describe(&apt(&["sudo", "-n"], &["update"]));
        assert_eq!(shown, "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update");
    }
}
