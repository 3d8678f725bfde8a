//! Where the client keeps its transcripts.
//!
//! `CLAUDE_CONFIG_DIR` names one or more configuration folders, with commas between them; without it they are
//! `$XDG_CONFIG_HOME/claude` (or `~/.config/claude`) and `~/.claude`. Transcripts lie in `projects` of each.

use std::path::{Path, PathBuf};

/// The folder of transcripts in a configuration folder.
const PROJECTS: &str = "projects";

/// The client's folders of transcripts, whether they exist or not; `var` looks up the environment.
pub(crate) fn of_client(var: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = var("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let mut roots = Vec::new();
    let mut add = |dir: PathBuf| {
        let root = if dir.ends_with(PROJECTS) { dir } else { dir.join(PROJECTS) };
        if root.is_absolute() && !roots.contains(&root) {
            roots.push(root);
        }
    };
    let told = var("CLAUDE_CONFIG_DIR").unwrap_or_default();
    let told: Vec<&str> = told.split(',').map(str::trim).filter(|dir| !dir.is_empty()).collect();
    if !told.is_empty() {
        for dir in told {
            add(from_home(dir, home.as_deref()));
        }
        return roots;
    }
    let xdg = var("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    if let Some(config) = xdg.or_else(|| home.as_ref().map(|home| home.join(".config"))) {
        add(config.join("claude"));
    }
    if let Some(home) = &home {
        add(home.join(".claude"));
    }
    roots
}

/// A folder from the configuration file: `~/` is the user's home.
pub(crate) fn from_home(dir: &str, home: Option<&Path>) -> PathBuf {
    match (dir.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(dir),
    }
}

/// Where the transcripts of a root lie now: a configuration folder may be named as well as its `projects`.
pub(crate) fn folder_of(root: &Path) -> PathBuf {
    let projects = root.join(PROJECTS);
    if !root.ends_with(PROJECTS) && projects.is_dir() { projects } else { root.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(vars: &[(&str, &str)], expected: &[&str]) {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(of_client(&var), expected);
    }

    #[test]
    #[cfg(unix)]
    fn the_roots_are_those_of_the_client() {
        check(&[("HOME", "/h")], &["/h/.config/claude/projects", "/h/.claude/projects"]);
        check(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")], &["/x/claude/projects", "/h/.claude/projects"]);
        check(
            &[("HOME", "/h"), ("CLAUDE_CONFIG_DIR", "/a, ~/b ,/a,/c/projects,")],
            &["/a/projects", "/h/b/projects", "/c/projects"],
        );
        check(&[("CLAUDE_CONFIG_DIR", " , ")], &[]);
        check(&[("XDG_CONFIG_HOME", "relative")], &[]);
    }
}
