//! Transcripts: found, read, followed, archived.
//!
//! Flow: `roots` says where the client keeps them, `walk` finds the files, `place` decides what of a file is new,
//! `read` reads it, `pass` takes many files into the ledger, `tail` does so as they grow, `archive` keeps them beyond the
//! client's own sweep. Facts and the place up to which a file is read are committed together, so that a crash loses
//! nothing and doubles nothing; and since the ledger merges, reading anew is always safe.

pub(crate) mod apps;
pub(crate) mod archive;
mod claims;
mod direct;
pub(crate) mod pass;
pub(crate) mod place;
mod read;
pub(crate) mod roots;
mod secrets;
pub(crate) mod status;
mod survey;
pub(crate) mod tail;
pub(crate) mod walk;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use taffrail_store::{ReadError, Store, TranscriptFile, WriteError};
use tokio::sync::Semaphore;

use crate::clock;
use crate::ingest::app::AppResolver;
use claims::Claims;
use status::Status;
use walk::{Found, Pick};

pub use archive::{TranscriptText, files_of_session};
pub use direct::import;
pub use survey::{Survey, survey};

/// Errors that an import names one by one.
const ERRORS_MAX: usize = 100;

/// What is to be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImportRequest {
    /// Files and folders, absolute; none: the client's own folders.
    #[schema(value_type = Vec<String>)]
    pub paths: Vec<PathBuf>,
    /// The client's own folders as the caller knows them, absolute; none: as the server does.
    #[schema(value_type = Vec<String>)]
    pub roots: Vec<PathBuf>,
    /// The project of everything in them; none: what each session's directory says.
    pub app: Option<String>,
    /// Read and count only.
    pub dry_run: bool,
    /// Archive every one of the files at once.
    pub archive: bool,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Progress {
    pub files_done: u64,
    pub files: u64,
    pub bytes_done: u64,
    pub bytes: u64,
}

/// A file that could not be read, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FileError {
    #[schema(value_type = String)]
    pub path: PathBuf,
    pub error: String,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Totals {
    /// Files found.
    pub files: u64,
    /// Of them, as they were the last time: not opened.
    pub unchanged: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records taken in.
    pub records: u64,
    /// Text that was no JSON object.
    pub bad: u64,
    /// Records of an unknown type.
    pub unknown: u64,
    /// API requests told of, those of one file counted once.
    pub requests: u64,
    /// Of them, new in the ledger.
    pub requests_new: u64,
    /// Of them, known before and changed.
    pub requests_changed: u64,
    /// Sessions told of.
    pub sessions: u64,
    /// Files archived.
    pub archived: u64,
    /// Files that failed; the rest was imported. At most 100 are named.
    pub errors: Vec<FileError>,
    /// How many failed.
    pub failed: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether nothing was stored because nothing should be.
    pub dry_run: bool,
}

impl Totals {
    pub(crate) fn fail(&mut self, path: &Path, error: impl std::fmt::Display) {
        self.failed += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(FileError { path: path.to_owned(), error: error.to_string() });
        }
    }
}

/// One line of an import's answer: how far it is, or at its end what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImportLine {
    /// How far it is.
    Progress(Progress),
    /// The last line of an import that went to its end.
    Totals(Totals),
    /// The last line of one that did not: what is stored stays stored.
    Error(String),
}

/// Every transcript that is known, and the way of all of them into the ledger; shared by imports and the tail.
pub(crate) struct Transcripts {
    store: Store,
    apps: Arc<AppResolver>,
    data_dir: PathBuf,
    /// As stored, so that a look at all files costs no read of the database.
    known: Mutex<HashMap<PathBuf, TranscriptFile>>,
    claims: Claims,
    /// One import at a time; those that wait hold no thread.
    pub(crate) importing: Arc<Semaphore>,
    pub(crate) status: Status,
}

impl Transcripts {
    pub(crate) fn open(store: Store, apps: Arc<AppResolver>, data_dir: &Path) -> Result<Self, ReadError> {
        let files = store.reader()?.transcript_files()?;
        Ok(Self {
            store,
            apps,
            data_dir: data_dir.to_owned(),
            known: Mutex::new(files.into_iter().map(|file| (file.path.clone(), file)).collect()),
            claims: Claims::default(),
            importing: Arc::new(Semaphore::new(1)),
            status: Status::default(),
        })
    }

    pub(crate) fn known(&self, path: &Path) -> Option<TranscriptFile> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn remember(&self, file: TranscriptFile) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(file.path.clone(), file);
    }

    /// Stores a file's state alone.
    pub(crate) fn note(&self, file: TranscriptFile) -> Result<(), WriteError> {
        self.store.note_transcript(file.clone())?;
        self.remember(file);
        Ok(())
    }

    /// Keeps in mind that a file could not be read; it is tried again.
    pub(crate) fn note_error(&self, found: &Found, error: &str) {
        self.status.failed(&found.path, error);
        let known = self.known(&found.path);
        if known.as_ref().is_some_and(|known| known.error.as_deref() == Some(error)) {
            return;
        }
        tracing::warn!(path = %found.path.display(), error, "a transcript cannot be read; it is tried again");
        let state = known.unwrap_or_else(|| TranscriptFile {
            path: found.path.clone(),
            session_id: found.facts.session_id.clone().unwrap_or_default(),
            agent_id: found.facts.agent_id.clone(),
            device: found.device,
            inode: found.inode,
            ..TranscriptFile::default()
        });
        if let Err(error) = self.note(TranscriptFile { error: Some(error.to_owned()), ..state }) {
            tracing::warn!(%error, "that a transcript cannot be read is not stored");
        }
    }

    /// Keeps in mind that a file is gone, or there again. What it told stays.
    pub(crate) fn note_presence(&self, path: &Path, there: bool) {
        let Some(known) = self.known(path) else { return };
        if known.gone.is_some() != there {
            return;
        }
        if !there {
            self.status.mended(path);
        }
        let gone = (!there).then(clock::now);
        if let Err(error) = self.note(TranscriptFile { gone, ..known }) {
            tracing::warn!(%error, "that a transcript is gone is not stored");
        }
    }

    /// Paths known below a folder.
    pub(crate) fn known_below(&self, folder: &Path) -> Vec<PathBuf> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().filter(|path| path.starts_with(folder)).cloned().collect()
    }

    /// Every file known, as it was stored.
    pub(crate) fn all_known(&self) -> Vec<TranscriptFile> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// The files of what was asked for; a path that is not there, or no file or folder, is an error of its own.
pub(crate) fn find(paths: &[PathBuf], client_roots: &[PathBuf], totals: &mut Totals) -> Vec<Found> {
    let mut files = Vec::new();
    for root in if paths.is_empty() { client_roots } else { &[] } {
        let walk = walk::folder(&roots::folder_of(root), Pick::Client);
        walk.errors.iter().for_each(|(path, error)| totals.fail(path, error));
        files.extend(walk.files);
    }
    for path in paths {
        if path.is_dir() {
            let walk = walk::folder(path, Pick::Any);
            walk.errors.iter().for_each(|(path, error)| totals.fail(path, error));
            files.extend(walk.files);
            continue;
        }
        // A file that was named is read, whatever its name.
        let facts = walk::facts_of(path, Pick::Any).unwrap_or_default();
        match Found::at(path, facts) {
            Ok(found) => files.push(found),
            Err(error) => totals.fail(path, error),
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    files
}
