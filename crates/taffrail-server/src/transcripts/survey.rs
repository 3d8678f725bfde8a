//! What lies in the client's folders, against what is known of it: nothing is opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use taffrail_store::TranscriptFile;

use super::place::{Plan, plan};
use super::walk::{Pick, folder};
use super::{FileError, roots};

/// What lies in one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The root as it was told.
    pub root: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// Transcripts in it.
    pub files: u64,
    /// Of them, those with something that is not in the ledger.
    pub unread_files: u64,
    /// Roughly how much that is, in bytes.
    pub unread_bytes: u64,
    /// What cannot be looked at.
    pub errors: Vec<FileError>,
}

/// Looks at each root; `known` is [`taffrail_store::Reader::transcript_files`]. Takes milliseconds for thousands of files.
#[must_use]
pub fn survey(roots: &[PathBuf], known: &[TranscriptFile]) -> Vec<Survey> {
    let known: HashMap<&Path, &TranscriptFile> =
        known.iter().map(|file| (file.path.as_path(), file)).collect();
    roots.iter().map(|root| look(root, &known)).collect()
}

fn look(root: &Path, known: &HashMap<&Path, &TranscriptFile>) -> Survey {
    let place = roots::folder_of(root);
    let walk = folder(&place, Pick::Client);
    let mut survey = Survey {
        root: root.to_owned(),
        exists: place.is_dir(),
        files: walk.files.len() as u64,
        ..Survey::default()
    };
    survey.errors = walk.errors.into_iter().map(|(path, error)| FileError { path, error }).collect();
    for found in &walk.files {
        let known = known.get(found.path.as_path()).copied();
        let from = match plan(known, found) {
            Plan::Unchanged => continue,
            Plan::GoOn => known.map_or(0, |known| known.offset),
            Plan::Whole => 0,
        };
        survey.unread_files += 1;
        survey.unread_bytes += found.size_bytes.saturating_sub(from);
    }
    survey
}
