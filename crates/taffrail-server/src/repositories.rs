//! What git itself tells of local projects: `git log --numstat` in the directories of sessions, to read only.
//!
//! Nothing of a repository is run: hooks, the file system monitor, external diffs, text conversions, signature programs and
//! lazy fetches are off, the system's configuration is not read, no lock is taken. Whose repository it may be is git's own
//! decision (`safe.directory`). It runs when someone asks, on a blocking thread, and is remembered for [`FRESH`].
//!
//! Limits: [`TIMEOUT`] and [`OUTPUT_MAX_BYTES`] for a command, [`COMMITS_MAX`] commits, [`REMEMBERED_MAX`] repositories
//! remembered, one command at a time.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How long an answer is remembered.
const FRESH: Duration = Duration::from_secs(60);
/// How long git may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much git may say, in bytes.
const OUTPUT_MAX_BYTES: usize = 8 << 20;
/// How many commits are read.
const COMMITS_MAX: usize = 5_000;
/// Files named, those with most lines.
const FILES_MAX: usize = 10;
/// Repositories remembered.
const REMEMBERED_MAX: usize = 64;
/// Between two looks at a running command.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the log of a repository comes to, over its local branches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct RepositoryLog {
    /// The top of the working tree.
    pub(crate) directory: String,
    /// The branch that is checked out; null where none is.
    pub(crate) branch: Option<String>,
    /// Commits in the window.
    pub(crate) commits: i64,
    /// Lines added by them.
    pub(crate) insertions: i64,
    /// Lines removed by them.
    pub(crate) deletions: i64,
    /// Distinct files changed by them.
    pub(crate) files_changed: i64,
    /// When the newest of them was made.
    pub(crate) last_commit_ms: Option<i64>,
    /// Those with most lines changed.
    pub(crate) hot_files: Vec<HotFile>,
    /// Whether older commits were left out.
    pub(crate) cut: bool,
}

/// A file by its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct HotFile {
    /// From the top of the working tree.
    pub(crate) path: String,
    /// Commits that changed it.
    pub(crate) commits: i64,
    /// Lines added.
    pub(crate) insertions: i64,
    /// Lines removed.
    pub(crate) deletions: i64,
}

/// What was read lately, by directory and begin.
#[derive(Default)]
pub(crate) struct Repositories(Mutex<HashMap<(String, i64), Remembered>>);

struct Remembered {
    at: Instant,
    /// None where there is no repository, or it cannot be read.
    log: Option<RepositoryLog>,
}

impl Repositories {
    /// The log of a directory's repository since a moment; none where it has none. Blocks.
    pub(crate) fn log(&self, directory: &str, since_ms: i64) -> Option<RepositoryLog> {
        // Held while git runs: one command at a time, and none twice.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, one| one.at.elapsed() < FRESH);
        let key = (directory.to_owned(), since_ms);
        if let Some(one) = known.get(&key) {
            return one.log.clone();
        }
        let log = read(Path::new(directory), since_ms);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(key, Remembered { at: Instant::now(), log: log.clone() });
        log
    }
}

fn read(directory: &Path, since_ms: i64) -> Option<RepositoryLog> {
    if !directory.is_absolute() || !directory.is_dir() {
        return None;
    }
    let deadline = Instant::now() + TIMEOUT;
    let top = output(git(directory).args(["rev-parse", "--show-toplevel"]), deadline)?;
    let branch = output(git(directory).args(["symbolic-ref", "--quiet", "--short", "HEAD"]), deadline);
    let log = output(
        git(directory).args([
            "log",
            "--branches",
            "HEAD",
            "--no-show-signature",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--no-mailmap",
            "--numstat",
            "-z",
            "--format=%x01%ct",
            &format!("--max-count={}", COMMITS_MAX + 1),
            &format!("--since=@{}", since_ms.div_euclid(1_000)),
        ]),
        deadline,
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
    let mut found = parse(&log.unwrap_or_default());
    found.directory = text(top);
    found.branch = branch.map(text).filter(|branch| !branch.is_empty());
    Some(found)
}

/// A git that reads and runs nothing of the repository's.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        // GIT_DIR, GIT_CONFIG_*, GIT_EXTERNAL_DIFF and the like would say otherwise.
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command
        .arg("-C")
        .arg(directory)
        .args(["--no-optional-locks", "--no-pager", "--no-replace-objects"])
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "gpg.program=false"])
        .args([
            "-c",
            "log.showSignature=false",
            "-c",
            "core.untrackedCache=false",
            "-c",
            "protocol.allow=never",
        ])
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// What the command says, at most [`OUTPUT_MAX_BYTES`] of it; none where it fails or takes too long.
fn output(command: &mut Command, deadline: Instant) -> Option<Vec<u8>> {
    let mut child = command.spawn().ok()?;
    let stdout = child.stdout.take()?;
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let cap = u64::try_from(OUTPUT_MAX_BYTES).unwrap_or(u64::MAX);
        stdout.take(cap).read_to_end(&mut bytes).ok().map(|_| bytes)
    });
    let ended_well = wait(&mut child, deadline);
    let bytes = reading.join().ok().flatten()?;
    // Cut output ends the command by a closed pipe: what came is used.
    (ended_well || bytes.len() >= OUTPUT_MAX_BYTES).then_some(bytes)
}

fn wait(child: &mut Child, deadline: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            _ => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

/// Reads `\x01<time>` and numstat fields, with NUL between them. A renamed file is its new name.
fn parse(log: &[u8]) -> RepositoryLog {
    let mut found = RepositoryLog::default();
    let mut files: BTreeMap<String, HotFile> = BTreeMap::new();
    let mut fields = log.split(|byte| *byte == 0);
    while let Some(field) = fields.next() {
        let text = String::from_utf8_lossy(field);
        let mut text = text.trim_start_matches('\n');
        if let Some(rest) = text.strip_prefix('\u{1}') {
            if usize::try_from(found.commits).unwrap_or(usize::MAX) >= COMMITS_MAX {
                found.cut = true;
                break;
            }
            found.commits += 1;
            let (time, rest) = rest.split_once('\n').unwrap_or((rest, ""));
            let ms = time.trim().parse::<i64>().ok().map(|s| s.saturating_mul(1_000));
            found.last_commit_ms = found.last_commit_ms.max(ms);
            text = rest.trim_start_matches('\n');
        }
        let mut columns = text.splitn(3, '\t');
        let (Some(added), Some(removed), Some(path)) = (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        let path = if path.is_empty() {
            // A rename: the old and the new name follow.
            fields.next();
            fields.next().map(|new| String::from_utf8_lossy(new).into_owned()).unwrap_or_default()
        } else {
            path.to_owned()
        };
        // A binary file has `-` for both.
        let (added, removed) = (added.parse().unwrap_or(0), removed.parse().unwrap_or(0));
        found.insertions += added;
        found.deletions += removed;
        let file = files.entry(path.clone()).or_insert_with(|| HotFile { path, ..HotFile::default() });
        file.commits += 1;
        file.insertions += added;
        file.deletions += removed;
    }
    found.files_changed = i64::try_from(files.len()).unwrap_or(i64::MAX);
    found.hot_files = files.into_values().collect();
    found.hot_files.sort_by_key(|file| std::cmp::Reverse(file.insertions + file.deletions));
    found.hot_files.truncate(FILES_MAX);
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Runs git as a user would, in a repository of its own.
    fn run(directory: &Path, args: &[&str]) {
        let status = Command::new("git")
            .arg("-C")
            .arg(directory)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(args)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "git {args:?}");
    }

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &["init", "-q", "-b", "trunk"]);
        std::fs::write(dir.path().join("a file.txt"), "1\n2\n3\n").unwrap();
        run(dir.path(), &["add", "."]);
        run(dir.path(), &["commit", "-qm", "first"]);
        std::fs::write(dir.path().join("a file.txt"), "1\n2\n").unwrap();
        std::fs::write(dir.path().join("b"), "x\n").unwrap();
        run(dir.path(), &["add", "."]);
        run(dir.path(), &["commit", "-qm", "second"]);
        run(dir.path(), &["mv", "b", "c"]);
        run(dir.path(), &["commit", "-qm", "third"]);
        run(dir.path(), &["checkout", "-q", "-b", "side"]);
        std::fs::write(dir.path().join("d"), "1\n2\n").unwrap();
        run(dir.path(), &["add", "."]);
        run(dir.path(), &["commit", "-qm", "fourth"]);
        run(dir.path(), &["checkout", "-q", "trunk"]);
        dir
    }

    #[test]
    fn the_log_of_every_local_branch_is_counted_once() {
        let dir = repository();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let log = read(&sub, 0).unwrap();
        assert_eq!((log.commits, log.insertions, log.deletions, log.files_changed), (4, 6, 1, 4));
        assert_eq!(log.branch.as_deref(), Some("trunk"));
        assert_eq!(Path::new(&log.directory), dir.path().canonicalize().unwrap());
        assert_eq!(
            log.hot_files[0],
            HotFile { path: "a file.txt".to_owned(), commits: 2, insertions: 3, deletions: 1 }
        );
        assert!(log.last_commit_ms.is_some() && !log.cut);
        // A window that begins after the last commit has none.
        let later = log.last_commit_ms.unwrap() + 10_000;
        assert_eq!(read(dir.path(), later).unwrap().commits, 0);
    }

    #[test]
    #[cfg(unix)]
    fn nothing_that_a_repository_names_is_run() {
        use std::os::unix::fs::PermissionsExt;
        let dir = repository();
        let evil = dir.path().join("evil.sh");
        let mark = dir.path().join("was-run");
        std::fs::write(&evil, format!("#!/bin/sh\ntouch '{}'\ncat\n", mark.display())).unwrap();
        std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755)).unwrap();
        let evil = evil.to_str().unwrap();
        for key in [
            "core.fsmonitor",
            "core.pager",
            "core.editor",
            "gpg.program",
            "diff.external",
            "diff.t.textconv",
            "diff.t.command",
            "filter.t.clean",
            "filter.t.smudge",
            "core.sshCommand",
            "core.askPass",
            "pager.log",
        ] {
            run(dir.path(), &["config", key, evil]);
        }
        run(dir.path(), &["config", "log.showSignature", "true"]);
        std::fs::write(dir.path().join(".gitattributes"), "* diff=t filter=t\n").unwrap();
        assert_eq!(read(dir.path(), 0).unwrap().commits, 4);
        assert!(!mark.exists());
        // It would have been.
        run(dir.path(), &["log", "-p", "--ext-diff"]);
        assert!(mark.exists());
    }

    #[test]
    fn a_directory_without_a_repository_has_no_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 0), None);
        assert_eq!(read(&dir.path().join("gone"), 0), None);
        assert_eq!(read(Path::new("relative"), 0), None);
    }

    #[test]
    fn a_command_that_hangs_or_talks_without_end_is_ended() {
        let soon = || Instant::now() + Duration::from_millis(100);
        let piped = |name: &str, arg: &str| {
            let mut command = Command::new(name);
            command.arg(arg).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            command
        };
        assert_eq!(output(&mut piped("sleep", "60"), soon()), None);
        assert_eq!(output(&mut piped("false", ""), soon()), None);
        let long = Instant::now() + Duration::from_secs(60);
        assert_eq!(output(&mut piped("yes", "x"), long).unwrap().len(), OUTPUT_MAX_BYTES);
    }

    #[test]
    fn an_answer_is_remembered_for_a_while() {
        let dir = repository();
        let known = Repositories::default();
        let log = |known: &Repositories| known.log(dir.path().to_str().unwrap(), 0);
        let commits = log(&known).unwrap().commits;
        run(dir.path(), &["commit", "-q", "--allow-empty", "-m", "more"]);
        assert_eq!(log(&known).unwrap().commits, commits);
        assert_eq!(log(&Repositories::default()).unwrap().commits, commits + 1);
    }

    #[test]
    fn other_text_is_no_log_and_harms_nothing() {
        for text in [
            &b""[..],
            b"\0\0",
            b"\x01\0",
            b"x\ty\tz",
            b"\x01 99999999999999999999\n1\t2\t",
            b"\xff\xfe\t\t\0",
        ] {
            let found = parse(text);
            assert!(found.commits <= 1, "{text:?}");
        }
    }
}
