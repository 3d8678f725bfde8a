//! Which files ccusage reads, in which order, and what their paths say.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Directories below each other; the client makes no more than six.
const DEPTH_MAX: usize = 64;

/// A transcript and what its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// First directory below `projects`.
    pub(super) project: String,
    pub(super) session: String,
    pub(super) project_path: String,
}

/// What decides where the transcripts are.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) config_dir: Option<OsString>,
    pub(super) xdg_config_home: Option<OsString>,
    pub(super) home: Option<OsString>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let var = |name| std::env::var_os(name);
        Self {
            config_dir: var("CLAUDE_CONFIG_DIR"),
            xdg_config_home: var("XDG_CONFIG_HOME"),
            home: var("HOME").or_else(|| var("USERPROFILE")),
        }
    }

    /// The configuration directories that hold transcripts.
    pub(super) fn directories(&self) -> Result<Vec<PathBuf>> {
        let home = self.home.as_ref().map(PathBuf::from);
        let candidates: Vec<PathBuf> = match self.config_dir.as_ref().and_then(|dir| dir.to_str()) {
            Some(list) => list
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(|entry| config_dir(entry, home.as_deref()))
                .collect(),
            None => {
                let Some(home) = &home else {
                    bail!("the home directory is not known\nhint: set HOME or CLAUDE_CONFIG_DIR")
                };
                let xdg = self.xdg_config_home.as_ref().map_or_else(|| home.join(".config"), PathBuf::from);
                vec![xdg.join("claude"), home.join(".claude")]
            }
        };
        let mut seen = HashSet::new();
        let found: Vec<_> = candidates
            .into_iter()
            .filter(|dir| dir.join("projects").is_dir() && seen.insert(dir.clone()))
            .collect();
        if let (true, Some(list)) = (found.is_empty(), &self.config_dir) {
            bail!(
                "CLAUDE_CONFIG_DIR names no directory with transcripts: {}\nhint: a directory that holds `projects`, or several with commas between",
                list.to_string_lossy()
            );
        }
        Ok(found)
    }
}

/// An entry of the list: `~` is the home directory, and `projects` itself means the directory it is in.
fn config_dir(entry: &str, home: Option<&Path>) -> PathBuf {
    let path = match (entry.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(entry),
    };
    match path.parent() {
        Some(parent) if path.ends_with("projects") && path.is_dir() => parent.to_owned(),
        _ => path,
    }
}

/// Every `.jsonl` file below the directories' `projects`, ordered by path.
pub(super) fn all(directories: &[PathBuf]) -> Vec<File> {
    let mut paths = Vec::new();
    for directory in directories {
        walk(&directory.join("projects"), DEPTH_MAX, &mut paths);
    }
    paths.sort_by_cached_key(|path| path.to_string_lossy().into_owned());
    paths.into_iter().map(named).collect()
}

/// A directory that cannot be read holds nothing, as for ccusage. Symbolic links are not followed.
fn walk(directory: &Path, depth: usize, into: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && depth > 0 {
            walk(&path, depth - 1, into);
        } else if kind.is_file() && path.extension().is_some_and(|ext| ext == "jsonl") {
            into.push(path);
        }
    }
}

fn named(path: PathBuf) -> File {
    let parts: Vec<&str> = path.components().filter_map(|part| part.as_os_str().to_str()).collect();
    let below = parts.iter().position(|part| *part == "projects").map_or(&parts[..], |at| &parts[at + 1..]);
    let project = below.first().filter(|part| !part.trim().is_empty()).map_or("unknown", |part| *part);
    let (session, project_path) = session_of(below);
    let (project, session) = (project.to_owned(), session.to_owned());
    File { project, session, project_path, path }
}

/// Session and project path: of a file in the project's directory its name, of one deeper the directory it is in, of a
/// subagent's the one above `subagents`.
fn session_of<'a>(below: &[&'a str]) -> (&'a str, String) {
    let joined = |parts: &[&str]| match parts {
        [] => "Unknown Project".to_owned(),
        parts => parts.join(std::path::MAIN_SEPARATOR_STR),
    };
    match *below {
        [project, name] if name.len() > ".jsonl".len() => {
            (name.strip_suffix(".jsonl").unwrap_or(name), project.to_owned())
        }
        [ref above @ .., session, "subagents", _] if !above.is_empty() => (session, joined(above)),
        [ref above @ .., session, _] => (session, joined(above)),
        [only] => (only, joined(&[])),
        [] => ("unknown", joined(&[])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn paths_say_project_and_session() {
        let check = |path: &str, project: &str, session: &str, project_path: &str| {
            let file = named(PathBuf::from(format!("/home/me/.claude/projects/{path}")));
            let found = (file.project.as_str(), file.session.as_str(), file.project_path.as_str());
            assert_eq!(found, (project, session, project_path), "{path}");
        };
        check("a.jsonl", "a.jsonl", "a.jsonl", "Unknown Project");
        check("p/a.jsonl", "p", "a", "p");
        check("p/.hidden.jsonl", "p", ".hidden", "p");
        check("p/s/a.jsonl", "p", "s", "p");
        check("p/s/subagents/agent-1.jsonl", "p", "s", "p");
        check("p/s/subagents/workflows/w/agent.jsonl", "p", "w", "p/s/subagents/workflows");
        check("p/s/t/u/v.jsonl", "p", "u", "p/s/t");
    }

    #[test]
    fn directories_come_from_the_list_or_from_the_two_places() {
        let scratch = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let dir = scratch.path().join(name);
            std::fs::create_dir_all(dir.join("projects")).unwrap();
            dir
        };
        let (a, b) = (make("a"), make("b"));
        let (xdg, dot) = (make("xdg/claude"), make("home/.claude"));
        let list = format!("{}, {},,{},/nowhere", a.display(), b.join("projects").display(), a.display());
        let environment = Environment {
            config_dir: Some(list.into()),
            xdg_config_home: Some(scratch.path().join("xdg").into()),
            home: Some(scratch.path().join("home").into()),
        };
        assert_eq!(environment.directories().unwrap(), [a, b]);
        let default = Environment { config_dir: None, ..environment.clone() };
        assert_eq!(default.directories().unwrap(), [xdg, dot]);
        let wrong = Environment { config_dir: Some("/nowhere".into()), ..environment };
        assert!(wrong.directories().unwrap_err().to_string().contains("CLAUDE_CONFIG_DIR"));
    }
}
