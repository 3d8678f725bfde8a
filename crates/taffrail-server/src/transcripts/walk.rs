//! Finds transcript files: a bounded walk that follows links and never goes in circles.
//!
//! Limits: [`DEPTH_MAX`] folders deep, [`ENTRIES_MAX`] entries of one walk. What cannot be looked at is named, not
//! hidden, and does not end the walk.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use taffrail_event::TimestampMs;
use taffrail_event::transcript::{FileFacts, FileKind};

/// Folders inside folders are followed this deep.
const DEPTH_MAX: usize = 24;
/// Entries of folders that one walk looks at.
const ENTRIES_MAX: usize = 500_000;
/// Endings after `.jsonl` that a rotated transcript may have.
const ROTATED: [&str; 4] = ["old", "bak", "orig", "prev"];

/// A file and what its directory entry says.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
    pub(crate) modified_ns: i64,
    /// What its path tells the parser.
    pub(crate) facts: FileFacts,
}

/// Which files of a folder are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// Those that the client writes.
    Client,
    /// All that may hold a transcript.
    Any,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) files: Vec<Found>,
    /// What could not be looked at, and why.
    pub(crate) errors: Vec<(PathBuf, String)>,
    seen_dirs: HashSet<(u64, u64)>,
    seen_files: HashSet<(u64, u64)>,
    links: Vec<(PathBuf, usize)>,
    entries: usize,
    pick: Option<Pick>,
}

impl Found {
    /// The file at `path`, links followed.
    pub(crate) fn at(path: &Path, facts: FileFacts) -> io::Result<Self> {
        Self::of(path, facts, &fs::metadata(path)?)
    }

    fn of(path: &Path, mut facts: FileFacts, meta: &Metadata) -> io::Result<Self> {
        if !meta.is_file() {
            // A pipe would hold whoever opens it.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let modified_ns = modified_ns(meta);
        facts.modified = Some(TimestampMs::clamped(modified_ns / 1_000_000));
        let (device, inode) = identity(meta);
        Ok(Self { path: path.to_owned(), device, inode, size_bytes: meta.len(), modified_ns, facts })
    }

    /// The same file as it is now that it is open.
    pub(crate) fn opened(&self, meta: &Metadata) -> io::Result<Self> {
        Self::of(&self.path, self.facts.clone(), meta)
    }
}

/// What the path of a file tells, if this is a file to take.
pub(crate) fn facts_of(path: &Path, pick: Pick) -> Option<FileFacts> {
    let text = path.to_string_lossy();
    let facts = FileFacts::of_path(unrotated(&text))?;
    let plain_json = facts.kind != FileKind::AgentMeta && text.ends_with(".json");
    (pick == Pick::Any || !plain_json).then_some(facts)
}

/// `x.jsonl.1` and `x.jsonl.old` are what `x.jsonl` once was.
fn unrotated(path: &str) -> &str {
    let Some((front, ending)) = path.rsplit_once('.') else { return path };
    let number = !ending.is_empty() && ending.len() <= 4 && ending.bytes().all(|b| b.is_ascii_digit());
    if front.ends_with(".jsonl") && (number || ROTATED.contains(&ending)) { front } else { path }
}

/// Every file of a folder that `pick` takes, by path. A folder that does not exist has none.
pub(crate) fn folder(dir: &Path, pick: Pick) -> Walk {
    let mut walk = Walk { pick: Some(pick), ..Walk::default() };
    walk.enter(dir, 0);
    // Links last: a file that is reached both ways goes by its own path.
    while let Some((link, depth)) = walk.links.pop() {
        walk.follow(&link, depth);
    }
    walk.files.sort_by(|a, b| a.path.cmp(&b.path));
    walk
}

impl Walk {
    fn enter(&mut self, dir: &Path, depth: usize) {
        let meta = match fs::metadata(dir) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => return,
            Err(error) => return self.cannot(dir, &error),
        };
        if !self.seen_dirs.insert(identity(&meta)) && cfg!(unix) {
            return;
        }
        if depth > DEPTH_MAX {
            return self.cannot(dir, &"it lies too deep");
        }
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return self.cannot(dir, &error),
        };
        for entry in entries {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                if self.entries == ENTRIES_MAX + 1 {
                    self.cannot(dir, &format!("the walk ends here: {ENTRIES_MAX} entries were looked at"));
                }
                return;
            }
            match entry {
                Ok(entry) => self.look(&entry, depth),
                Err(error) => self.cannot(dir, &error),
            }
        }
    }

    fn look(&mut self, entry: &fs::DirEntry, depth: usize) {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => self.enter(&path, depth + 1),
            Ok(kind) if kind.is_symlink() => self.links.push((path, depth + 1)),
            Ok(kind) if kind.is_file() => self.take(&path, entry.metadata()),
            // A pipe or a socket holds no transcript.
            Ok(_) => {}
            Err(error) => self.cannot(&path, &error),
        }
    }

    fn follow(&mut self, link: &Path, depth: usize) {
        match fs::metadata(link) {
            Ok(meta) if meta.is_dir() && cfg!(unix) => self.enter(link, depth),
            Ok(meta) => self.take(link, Ok(meta)),
            Err(error) if self.wants(link).is_some() => self.cannot(link, &error),
            Err(_) => {}
        }
    }

    fn wants(&self, path: &Path) -> Option<FileFacts> {
        facts_of(path, self.pick?)
    }

    fn take(&mut self, path: &Path, meta: io::Result<Metadata>) {
        let Some(facts) = self.wants(path) else { return };
        match meta.and_then(|meta| Found::of(path, facts, &meta)) {
            Ok(found) => {
                if self.seen_files.insert((found.device, found.inode)) || !cfg!(unix) {
                    self.files.push(found);
                }
            }
            // It went between the listing and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.cannot(path, &error),
        }
    }

    fn cannot(&mut self, path: &Path, why: &dyn std::fmt::Display) {
        self.errors.push((path.to_owned(), why.to_string()));
    }
}

/// Device and inode; zeros where the system has none.
#[cfg(unix)]
pub(crate) fn identity(meta: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (meta.dev(), meta.ino())
}

#[cfg(not(unix))]
pub(crate) fn identity(_meta: &Metadata) -> (u64, u64) {
    (0, 0)
}

fn modified_ns(meta: &Metadata) -> i64 {
    let Ok(modified) = meta.modified() else { return 0 };
    let ns = match modified.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    };
    i64::try_from(ns.clamp(i64::MIN.into(), i64::MAX.into())).unwrap_or_default()
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(walk: &Walk, root: &Path) -> Vec<String> {
        let name = |f: &Found| f.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        walk.files.iter().map(name).collect()
    }

    #[test]
    fn the_clients_files_are_found_and_links_do_not_go_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("projects");
        let agents = root.join("p/s1/subagents/workflows/w");
        fs::create_dir_all(&agents).unwrap();
        for file in [
            "p/s1.jsonl",
            "p/s1.jsonl.1",
            "p/notes.txt",
            "p/settings.json",
            "p/s1/subagents/agent-a.jsonl",
            "p/s1/subagents/agent-a.meta.json",
            "p/s1/subagents/workflows/w/journal.jsonl",
        ] {
            fs::write(root.join(file), "{}\n").unwrap();
        }
        symlink(&root, root.join("p/loop")).unwrap();
        symlink("itself.jsonl", root.join("p/itself.jsonl")).unwrap();
        symlink(root.join("p/s1.jsonl"), root.join("p/again.jsonl")).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(elsewhere.join("s2.jsonl"), "{}\n").unwrap();
        symlink(&elsewhere, root.join("linked")).unwrap();

        let walk = folder(&root, Pick::Client);
        assert_eq!(
            names(&walk, &root),
            [
                "linked/s2.jsonl",
                "p/s1/subagents/agent-a.jsonl",
                "p/s1/subagents/agent-a.meta.json",
                "p/s1/subagents/workflows/w/journal.jsonl",
                "p/s1.jsonl",
                "p/s1.jsonl.1"
            ]
        );
        assert_eq!(walk.errors.len(), 1, "{:?}", walk.errors);
        assert!(walk.errors[0].0.ends_with("p/itself.jsonl"));
        assert!(folder(&root, Pick::Any).files.iter().any(|f| f.path.ends_with("p/settings.json")));
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_files_and_a_pipe_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let walk = folder(&dir.path().join("absent"), Pick::Client);
        assert!(walk.files.is_empty() && walk.errors.is_empty());
        let error = Found::at(dir.path(), FileFacts::default()).unwrap_err();
        assert!(error.to_string().contains("regular"));
    }
}
