//! The project a working directory belongs to: the name in its git remote, else the name of the repository's directory.
//!
//! Only `.git` and its `config` are read, at most [`DEPTH_MAX`] directories up and [`CONFIG_MAX_BYTES`] of the file.
//! Answers are kept for [`TTL`]; a session keeps the project it began with, wherever its agent goes later.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many directories up a repository is looked for.
const DEPTH_MAX: usize = 32;
/// How much of a git config is read.
const CONFIG_MAX_BYTES: u64 = 64 * 1024;
/// How long an answer about a directory is believed.
const TTL: Duration = Duration::from_secs(300);
/// Directories remembered.
const DIRS_MAX: usize = 1_024;
/// Sessions remembered.
const SESSIONS_MAX: usize = 8_192;
/// Longest project name, in bytes.
const NAME_MAX_BYTES: usize = 128;

/// The project of a session whose sources do not know it; any other is better.
pub(crate) const NO_APP: &str = "unknown";

/// Finds and remembers projects.
#[derive(Default)]
pub(crate) struct AppResolver {
    dirs: Mutex<Recent<String, (Instant, Option<String>)>>,
    sessions: Mutex<Recent<String, String>>,
}

impl AppResolver {
    /// The project of a local directory; none outside any repository, or where there is nothing to read.
    pub(crate) fn of_dir(&self, cwd: &str) -> Option<String> {
        let now = Instant::now();
        {
            let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, app)) = dirs.get(cwd)
                && now.duration_since(*at) < TTL
            {
                return app.clone();
            }
        }
        let app = find(Path::new(cwd));
        let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        dirs.insert(cwd.to_owned(), (now, app.clone()), DIRS_MAX);
        app
    }

    /// The project the session began with: as remembered, else as `stored` knows it, else `found`.
    pub(crate) fn of_session(
        &self,
        session_id: &str,
        found: &str,
        stored: impl FnOnce() -> Option<String>,
    ) -> String {
        let known = || self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(session_id).cloned();
        if let Some(app) = known() {
            return app;
        }
        let app = stored().filter(|app| app != NO_APP).unwrap_or_else(|| found.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(session_id.to_owned(), app.clone(), SESSIONS_MAX);
        app
    }
}

/// A bounded map that forgets in two generations: what was not asked for since the last turn goes first.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.young.insert(key, value);
        }
        self.young.get(key)
    }

    fn insert(&mut self, key: K, value: V, max: usize) {
        if self.young.len() >= max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

fn find(cwd: &Path) -> Option<String> {
    let plain = cwd.is_absolute() && !cwd.components().any(|c| matches!(c, Component::ParentDir));
    if !plain {
        return None;
    }
    cwd.ancestors().take(DEPTH_MAX).find_map(|dir| {
        let git = common_git_dir(&dir.join(".git"))?;
        let remote = read_bounded(&git.join("config")).and_then(|config| remote_name(&config));
        remote.or_else(|| worktree_name(&git, dir))
    })
}

/// The `.git` directory that holds the config: of a linked worktree, that of its repository.
fn common_git_dir(dot_git: &Path) -> Option<PathBuf> {
    let meta = std::fs::symlink_metadata(dot_git).ok()?;
    if meta.is_dir() {
        return Some(dot_git.to_owned());
    }
    if !meta.is_file() {
        return None;
    }
    let text = read_bounded(dot_git)?;
    let target = text.strip_prefix("gitdir:")?.trim();
    let git_dir = dot_git.parent()?.join(target);
    let Some(common) = read_bounded(&git_dir.join("commondir")) else { return Some(git_dir) };
    let common = git_dir.join(common.trim());
    Some(std::fs::canonicalize(&common).unwrap_or(common))
}

/// Without a remote: the directory that holds `.git`, for a worktree that of its repository.
fn worktree_name(git: &Path, dir: &Path) -> Option<String> {
    let root = if git.file_name().is_some_and(|name| name == ".git") { git.parent()? } else { dir };
    clean(root.file_name()?.to_str()?)
}

/// The last part of the URL of `origin`, else of the first remote.
fn remote_name(config: &str) -> Option<String> {
    let mut section = "";
    let mut first = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        if !section.starts_with("[remote ") || !key.trim().eq_ignore_ascii_case("url") {
            continue;
        }
        let name = url_name(value.trim().trim_matches('"'));
        if section == "[remote \"origin\"]" && name.is_some() {
            return name;
        }
        first = first.or(name);
    }
    first
}

fn url_name(url: &str) -> Option<String> {
    let url = url.trim_end_matches('/');
    let last = url.rsplit(['/', ':', '\\']).next()?;
    clean(last.strip_suffix(".git").unwrap_or(last))
}

fn clean(name: &str) -> Option<String> {
    let fits = !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

/// The beginning of a regular file; anything else, a pipe above all, is not opened.
fn read_bounded(path: &Path) -> Option<String> {
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(CONFIG_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs;

    fn repo(root: &Path, config: &str) {
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(root.join(".git/config"), config).unwrap();
    }

    #[test]
    fn the_remote_names_the_project_from_any_directory_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("checkout");
        repo(
            &root,
            "[core]\n\tbare = false\n[remote \"up\"]\n\turl = x/y.git\n[remote \"origin\"]\n\turl = git@example.com:team/lighthouse.git\n",
        );
        fs::create_dir_all(root.join("a/b")).unwrap();
        let apps = AppResolver::default();
        assert_eq!(apps.of_dir(root.join("a/b").to_str().unwrap()).as_deref(), Some("lighthouse"));
        assert_eq!(apps.of_dir(dir.path().to_str().unwrap()), None);
        assert_eq!(apps.of_dir("relative/path"), None);
    }

    #[test]
    fn without_a_remote_the_directory_names_it_and_a_worktree_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("harbour");
        repo(&root, "[core]\n");
        assert_eq!(find(&root).as_deref(), Some("harbour"));

        let inner = root.join(".git/worktrees/fix");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("commondir"), "../..\n").unwrap();
        let worktree = dir.path().join("fix");
        fs::create_dir_all(&worktree).unwrap();
        fs::write(worktree.join(".git"), format!("gitdir: {}\n", inner.display())).unwrap();
        assert_eq!(find(&worktree).as_deref(), Some("harbour"));
    }

    #[test]
    fn urls_of_every_form_give_the_last_part() {
        for (url, name) in [
            ("https://example.com/team/app.git", Some("app")),
            ("https://example.com/team/app/", Some("app")),
            ("git@example.com:app", Some("app")),
            ("/srv/git/app.git", Some("app")),
            ("", None),
        ] {
            assert_eq!(url_name(url).as_deref(), name, "{url}");
        }
    }

    #[test]
    fn a_session_keeps_its_project_and_memory_is_bounded() {
        let apps = AppResolver::default();
        assert_eq!(apps.of_session("s", "one", || None), "one");
        assert_eq!(apps.of_session("s", "two", || Some("three".to_owned())), "one");
        assert_eq!(apps.of_session("t", "two", || Some("three".to_owned())), "three");
        let mut recent = Recent::default();
        for i in 0..10_000 {
            recent.insert(i, (), 100);
        }
        assert!(recent.young.len() + recent.old.len() <= 100);
    }
}
