//! Whether there is more to count than the ledger has: transcripts on disk that are newer than its newest read.
//!
//! Only looked at where no server runs, since a running one follows them. The look is cheap and bounded: it reads no
//! file, and where there are more than [`ENTRIES_MAX`] entries it says nothing rather than take its time.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use taffrail_server::config::Flags;

use crate::client::Client;
use crate::home::Home;

/// Folders and files that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// Folders below a root; the client's own nesting is four deep.
const DEPTH_MAX: usize = 8;
/// A file's time may differ by this from what was noted of it: some file systems round.
const SLACK_NS: i64 = 1_000_000;

/// A look that is under way beside the report.
pub(crate) struct Look(JoinHandle<Result<bool>>);

impl Look {
    /// Begins to look; it takes as long as the report itself where there are thousands of files.
    pub(crate) fn begin(home: &Home) -> Result<Self> {
        let home = home.clone();
        let look = move || is_stale(&home);
        let thread = thread::Builder::new().name("taffrail-stale".to_owned()).spawn(look);
        Ok(Self(thread.context("cannot start a thread")?))
    }

    /// Says on stderr that transcripts wait to be imported, if so.
    pub(crate) fn finish(self) -> Result<()> {
        let stale = self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if stale? {
            eprintln!(
                "note: transcripts on disk are newer than the ledger; `taffrail import transcripts` reads them"
            );
        }
        Ok(())
    }
}

fn is_stale(home: &Home) -> Result<bool> {
    let flags = Flags { data_dir: Some(home.dir().to_owned()), ..Flags::default() };
    let Some(newest) = newest_ns(&crate::home::load(&flags)?.transcripts.roots) else { return Ok(false) };
    let read = super::open(home)?.transcript_files()?.into_iter().map(|file| file.modified_ns).max();
    let is_newer = read.is_none_or(|read| newest > read.saturating_add(SLACK_NS));
    Ok(is_newer && Client::find(home).is_none())
}

/// Modification time of the newest transcript, in nanoseconds since the Unix epoch; none where there is none, or where
/// there is too much to look at.
fn newest_ns(roots: &[PathBuf]) -> Option<i64> {
    let mut newest = None;
    let mut left = ENTRIES_MAX;
    for root in roots {
        if !walk(root, DEPTH_MAX, &mut left, &mut newest) {
            return None;
        }
    }
    newest
}

/// False where there is too much. What cannot be read is passed over: the importer says why.
fn walk(dir: &Path, depth: usize, left: &mut usize, newest: &mut Option<i64>) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return true };
    for entry in entries.flatten() {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        // Links are not followed, so that a folder that holds itself ends.
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            if depth > 0 && !walk(&path, depth - 1, left, newest) {
                return false;
            }
        } else if path.extension() == Some(OsStr::new("jsonl")) {
            let modified = entry.metadata().ok().and_then(|meta| meta.modified().ok());
            let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            *newest = (*newest).max(since.and_then(|since| i64::try_from(since.as_nanos()).ok()));
        }
    }
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_newest_transcript_of_any_depth_counts_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, seconds: u64| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(&path).unwrap();
            file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        let newest = || newest_ns(&[dir.path().to_owned(), dir.path().join("none")]);
        assert_eq!(newest(), None);
        write("a/s.jsonl", 1_000);
        write("a/s/subagents/agent-1.jsonl", 2_000);
        write("a/s/subagents/agent-1.meta.json", 9_000);
        assert_eq!(newest(), Some(2_000_000_000_000));
        let mut left = 3;
        assert!(!walk(dir.path(), DEPTH_MAX, &mut left, &mut None), "the look is bounded");
    }
}
