//! Suggestions: computed in the background (`worker`), shown as a change of a file (`text`, `file`), applied and undone here.
//!
//! Applying: the file's place and text are looked up anew; the hash of the preview must still hold. Its former text is kept in
//! `backups/suggestions` of the data directory, readable by its owner only and never in the database, which holds no secrets.
//! Then the decision is committed, then the file is replaced: whatever is cut short, an undo finds the file either as it was
//! before or as it was made.

pub(crate) mod file;
pub(crate) mod text;
pub(crate) mod worker;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use similar::TextDiff;
use taffrail_engine::suggest::{Edit, Kind};
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{Reader, Store, StoredSuggestion, SuggestionMove, SuggestionState};

use file::Refusal;
use text::Edited;

/// Sessions whose directories are looked at to find a project's.
const DIRECTORIES_SESSIONS_MAX: usize = 50;
/// Where former texts are kept, in the data directory.
const BACKUPS: &str = "backups/suggestions";

/// What the server keeps of suggestions between requests.
#[derive(Debug, Default)]
pub(crate) struct Suggest {
    /// One computation at a time.
    computing: Mutex<()>,
    /// One change of a file at a time.
    changing: Mutex<()>,
    last: Mutex<Option<worker::Computed>>,
}

impl Suggest {
    pub(crate) fn last(&self) -> Option<worker::Computed> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a suggestion would change.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PreviewJson {
    /// Unified diff; empty where nothing can be changed.
    pub(crate) diff: String,
    /// The file; null where there is none.
    pub(crate) file: Option<String>,
    /// What `apply` must name; null where nothing can be changed.
    pub(crate) hash: Option<String>,
    /// Whether it can be applied.
    pub(crate) can_apply: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
}

/// Which file was changed and how, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ChangeJson {
    /// The file.
    pub(crate) file: String,
    /// SHA-256 of its text before; null where it was not there.
    pub(crate) before_sha256: Option<String>,
    /// SHA-256 of its text after.
    pub(crate) after_sha256: String,
    /// Where its former text is kept; null where it was not there.
    pub(crate) backup: Option<String>,
    /// When.
    pub(crate) applied_ms: i64,
}

/// What a change would be, with the texts.
struct Plan {
    path: PathBuf,
    before: Option<String>,
    after: String,
}

impl Plan {
    /// Holds as long as neither the file nor what would be made of it changes.
    fn hash(&self) -> String {
        file::hash(&[self.path.to_str(), self.before.as_deref(), Some(&self.after)])
    }

    fn diff(&self) -> String {
        diff(&self.path, self.before.as_deref().unwrap_or_default(), &self.after)
    }
}

fn diff(path: &Path, before: &str, after: &str) -> String {
    let name = path.display().to_string();
    TextDiff::from_lines(before, after).unified_diff().header(&name, &name).to_string()
}

/// Directories that a suggestion may change files of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Working directories of the project's sessions, newest first.
    pub(crate) projects: Vec<String>,
    /// The user's home.
    pub(crate) home: Option<String>,
}

impl Places {
    /// Of a suggestion's project.
    pub(crate) fn of(
        reader: &Reader,
        app: &str,
        home: Option<String>,
    ) -> Result<Self, taffrail_store::ReadError> {
        let found = reader.directories(Some(app), DIRECTORIES_SESSIONS_MAX)?;
        Ok(Self { projects: found.into_iter().map(|(_, directory)| directory).collect(), home })
    }

    /// The newest directory that is there.
    fn project(&self) -> Result<PathBuf, Refusal> {
        let mut refused = Refusal("no directory of this project is known".to_owned());
        for directory in &self.projects {
            match file::root(Path::new(directory)) {
                Ok(root) => return Ok(root),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }
}

/// The mark of a suggestion's note in a file.
fn mark(of: &StoredSuggestion) -> String {
    let key = file::hash(&[Some(&of.suggestion.app), Some(&of.suggestion.subject)]);
    let kind = Kind::from_name(&of.suggestion.kind).map_or("suggestion", Kind::name);
    format!("{kind}-{}", &key[..8])
}

fn plan(of: &StoredSuggestion, places: &Places) -> Result<Plan, Refusal> {
    let Some(edit) = &of.suggestion.edit else {
        return Err(Refusal("this is advice: there is no safe change of a file".to_owned()));
    };
    let edit: Edit = serde_json::from_value(edit.clone())
        .map_err(|_| Refusal("the change was suggested by another version".to_owned()))?;
    let relative =
        text::relative_path(&edit).ok_or_else(|| Refusal("the file's name is not plain".to_owned()))?;
    let project = places.project()?;
    let mut path = file::file(&project, &relative)?;
    let mut before = file::read(&path)?;
    if let (None, Edit::AgentModel { .. }, Some(home)) = (&before, &edit, &places.home) {
        path = file::file(&file::root(Path::new(home))?, &relative)?;
        before = file::read(&path)?;
    }
    match text::edited(before.as_deref(), &edit, &mark(of)) {
        Edited::To(after) if after.len() as u64 <= file::FILE_MAX_BYTES => Ok(Plan { path, before, after }),
        Edited::To(_) => Err(Refusal(format!("{} would become too large", path.display()))),
        Edited::Already => Err(Refusal(format!("{} says so already", path.display()))),
        Edited::Refused(why) => Err(Refusal(format!("{}: {why}", path.display()))),
    }
}

/// What a suggestion would change now.
pub(crate) fn preview(of: &StoredSuggestion, places: &Places) -> PreviewJson {
    let is_open = matches!(of.state, SuggestionState::Open | SuggestionState::Undone);
    let planned = match is_open {
        true => plan(of, places),
        false => Err(Refusal(format!("it is {}", of.state.name()))),
    };
    match planned {
        Ok(plan) => PreviewJson {
            diff: plan.diff(),
            file: Some(plan.path.display().to_string()),
            hash: Some(plan.hash()),
            can_apply: true,
            reason: None,
        },
        Err(Refusal(why)) => {
            PreviewJson { diff: String::new(), file: None, hash: None, can_apply: false, reason: Some(why) }
        }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The file or the suggestion is not as it must be.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Write(#[from] taffrail_store::WriteError),
}

impl From<Refusal> for ChangeError {
    fn from(Refusal(why): Refusal) -> Self {
        Self::Refused(why)
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, ChangeError> {
    Err(ChangeError::Refused(why.into()))
}

/// Where changes are made and kept.
pub(crate) struct Desk<'a> {
    pub(crate) suggest: &'a Suggest,
    pub(crate) store: &'a Store,
    pub(crate) data_dir: &'a Path,
    pub(crate) now: TimestampMs,
    pub(crate) by: Option<String>,
}

impl Desk<'_> {
    fn decide(
        &self,
        id: RowId,
        from: &[SuggestionState],
        to: SuggestionState,
        change: Option<&ChangeJson>,
    ) -> Result<bool, ChangeError> {
        let change = change.and_then(|change| serde_json::to_value(change).ok());
        let decision = SuggestionMove { from: from.to_vec(), to, by: self.by.clone(), change };
        Ok(self.store.move_suggestion(id, decision, self.now)?)
    }

    /// Changes the file as the preview with that hash said.
    pub(crate) fn apply(
        &self,
        of: &StoredSuggestion,
        places: &Places,
        hash: &str,
    ) -> Result<(), ChangeError> {
        let _changing = self.suggest.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan(of, places)?;
        if plan.hash() != hash {
            return refused("the file changed since the preview: look at it again");
        }
        let path = plan
            .path
            .to_str()
            .ok_or_else(|| ChangeError::Refused("the file's name is no UTF-8".to_owned()))?;
        let backup = self.data_dir.join(BACKUPS).join(format!("{}-{}.txt", of.id.0, self.now.get()));
        if let Some(before) = &plan.before {
            file::keep(&backup, before)?;
        }
        let change = ChangeJson {
            file: path.to_owned(),
            before_sha256: plan.before.as_deref().map(|text| file::hash(&[Some(text)])),
            after_sha256: file::hash(&[Some(&plan.after)]),
            backup: plan.before.as_ref().map(|_| backup.display().to_string()),
            applied_ms: self.now.get(),
        };
        if !self.decide(
            of.id,
            &[SuggestionState::Open, SuggestionState::Undone],
            SuggestionState::Applied,
            Some(&change),
        )? {
            return refused("it is not open any more");
        }
        if let Err(Refusal(why)) = file::replace(&plan.path, plan.before.as_deref(), Some(&plan.after)) {
            self.decide(of.id, &[SuggestionState::Applied], of.state, None)?;
            return refused(why);
        }
        Ok(())
    }

    /// Puts the former text back, byte for byte, unless the file has changed since.
    pub(crate) fn undo(&self, of: &StoredSuggestion) -> Result<(), ChangeError> {
        let _changing = self.suggest.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let change: Option<ChangeJson> =
            of.change.clone().and_then(|change| serde_json::from_value(change).ok());
        let (SuggestionState::Applied, Some(change)) = (of.state, change) else {
            return refused(format!("it is {}, not applied", of.state.name()));
        };
        let path = Path::new(&change.file);
        let now = file::read(path)?;
        let sha = now.as_deref().map(|text| file::hash(&[Some(text)]));
        if sha != change.before_sha256 {
            let before = former(&change)?;
            if sha.as_ref() != Some(&change.after_sha256) {
                let left =
                    diff(path, now.as_deref().unwrap_or_default(), before.as_deref().unwrap_or_default());
                return refused(format!("{} changed since: undo it by hand\n{left}", change.file));
            }
            file::replace(path, now.as_deref(), before.as_deref())?;
        }
        if !self.decide(of.id, &[SuggestionState::Applied], SuggestionState::Undone, None)? {
            return refused("it is not applied any more");
        }
        Ok(())
    }

    /// Says that a suggestion is not wanted.
    pub(crate) fn dismiss(&self, of: &StoredSuggestion) -> Result<(), ChangeError> {
        let from = [SuggestionState::Open, SuggestionState::Undone, SuggestionState::Dismissed];
        match self.decide(of.id, &from, SuggestionState::Dismissed, None)? {
            true => Ok(()),
            false => refused("it is applied: undo it first"),
        }
    }
}

/// The text before a change, as it was kept.
fn former(change: &ChangeJson) -> Result<Option<String>, Refusal> {
    let (Some(backup), Some(sha)) = (&change.backup, &change.before_sha256) else { return Ok(None) };
    let text = file::read(Path::new(backup))?;
    match text {
        Some(text) if file::hash(&[Some(&text)]) == *sha => Ok(Some(text)),
        _ => Err(Refusal(format!("the former text in {backup} is gone or changed"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
