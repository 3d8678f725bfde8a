//! Whose project a session of a transcript is.

use std::path::Path;

use taffrail_event::transcript::Facts;
use taffrail_store::Store;

use crate::ingest::app::AppResolver;

/// What a session without a directory is counted under.
const UNKNOWN: &str = "unknown";

/// Sets the project of every session and request: the one told, else the one the session began with, else what its
/// directory says.
pub(crate) fn assign(facts: &mut Facts, told: Option<&str>, apps: &AppResolver, store: &Store) {
    let stored = |session_id: &str| Some(store.reader().ok()?.session(session_id).ok()??.app);
    for session in &mut facts.sessions {
        let cwd = session.cwd.as_deref().filter(|cwd| !cwd.is_empty());
        session.app = match (told, cwd) {
            (Some(told), _) => Some(told.to_owned()),
            (None, Some(cwd)) => {
                let id = &session.session_id;
                Some(apps.of_session(id, &of_dir(cwd, apps), || stored(id)))
            }
            (None, None) => None,
        };
    }
    for request in facts.requests.iter_mut().filter(|request| request.app.is_none()) {
        let session = facts.sessions.iter().find(|session| session.session_id == request.session_id);
        request.app = session.and_then(|session| session.app.clone()).or_else(|| told.map(str::to_owned));
    }
}

/// The project of a directory: its repository's where the directory is on this machine, else its own name.
fn of_dir(cwd: &str, apps: &AppResolver) -> String {
    let local = Path::new(cwd).is_absolute() && Path::new(cwd).is_dir();
    let found = if local { apps.of_dir(cwd) } else { None };
    let name =
        || cwd.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().filter(|name| !name.is_empty());
    found.or_else(|| name().map(str::to_owned)).unwrap_or_else(|| UNKNOWN.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_gives_its_repository_and_a_foreign_one_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("repo/.git")).unwrap();
        std::fs::write(dir.path().join("repo/.git/config"), "[core]\n").unwrap();
        std::fs::create_dir_all(dir.path().join("repo/sub")).unwrap();
        let apps = AppResolver::default();
        assert_eq!(of_dir(dir.path().join("repo/sub").to_str().unwrap(), &apps), "repo");
        for (cwd, app) in [("/nonexistent/a/demo/", "demo"), (r"C:\work\demo", "demo"), ("/", "unknown")] {
            assert_eq!(of_dir(cwd, &apps), app, "{cwd}");
        }
    }
}
