//! Arguments and environment of the hook client, parsed once. Nothing here fails: a bad value means its default.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use crate::home;

/// Every environment variable that the hook client reads.
pub mod env_vars {
    /// Data directory, see [`crate::home`].
    pub const HOME: &str = "TAFFRAIL_HOME";
    /// Application name that events are filed under, instead of the project's.
    pub const APP: &str = "TAFFRAIL_APP";
    /// `1` turns the hook client off.
    pub const DISABLE: &str = "TAFFRAIL_DISABLE";
    /// Longest wait for the server's answer, in milliseconds.
    pub const BUDGET_MS: &str = "TAFFRAIL_HOOK_BUDGET_MS";
    /// Bound of the spool in bytes.
    pub const SPOOL_LIMIT_BYTES: &str = "TAFFRAIL_SPOOL_LIMIT_BYTES";
    /// The user's home directory, for the guard and the default data directory.
    pub const USER_HOME: &str = "HOME";
    /// Where the user keeps data, for the default data directory.
    pub const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
    /// The same on Windows.
    pub const LOCAL_APP_DATA: &str = "LOCALAPPDATA";
    /// The user's home on Windows.
    pub const USER_PROFILE: &str = "USERPROFILE";
    /// The user's name; the first that is set counts.
    pub const USER: [&str; 3] = ["USER", "LOGNAME", "USERNAME"];
}

/// Wait for the server's answer where none is configured.
const DEFAULT_BUDGET: Duration = Duration::from_millis(50);
/// Longest wait that may be configured: the client's own default time-out for a hook.
const BUDGET_LIMIT: Duration = Duration::from_mins(10);
/// Bound of the spool where none is configured.
pub const DEFAULT_SPOOL_LIMIT_BYTES: u64 = 1024 * 1024 * 1024;
/// Longest name that is recorded.
const NAME_LIMIT_CHARS: usize = 200;

/// Looks up environment variables; a closure in tests.
pub struct Environment<'a>(Box<Lookup<'a>>);

type Lookup<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

impl<'a> Environment<'a> {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(|name| std::env::var_os(name))
    }

    /// An environment that answers from a function.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString> + 'a) -> Self {
        Self(Box::new(lookup))
    }

    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?.to_string_lossy().into_owned();
        Some(value.chars().take(NAME_LIMIT_CHARS).collect())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.to_str()?.trim().parse().ok()
    }
}

/// All that configures one run.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `None` where neither a data directory nor a home is known: nothing can be recorded then.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) event: Option<String>,
    pub(crate) disabled: bool,
    pub(crate) shows_version: bool,
    pub(crate) app: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) user_home: Option<String>,
    pub(crate) budget: Duration,
    pub(crate) spool_limit_bytes: u64,
}

impl Settings {
    pub(crate) fn new(arguments: impl IntoIterator<Item = OsString>, environment: &Environment<'_>) -> Self {
        let mut arguments = arguments.into_iter();
        let mut data_dir = None;
        let mut event = None;
        let mut shows_version = false;
        while let Some(argument) = arguments.next() {
            if argument == OsStr::new("--data-dir") {
                data_dir = arguments.next().map(PathBuf::from);
            } else if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--data-dir=")) {
                data_dir = Some(PathBuf::from(path));
            } else if argument == OsStr::new("--version") {
                shows_version = true;
            } else if !argument.to_string_lossy().starts_with('-') {
                event = argument.into_string().ok();
            }
        }
        let budget = environment.number(env_vars::BUDGET_MS).map_or(DEFAULT_BUDGET, Duration::from_millis);
        Self {
            data_dir: home::data_dir(data_dir, environment),
            event,
            shows_version,
            disabled: environment.get(env_vars::DISABLE).is_some_and(|value| value == OsStr::new("1")),
            app: environment.text(env_vars::APP),
            user: env_vars::USER.iter().find_map(|name| environment.text(name)),
            user_home: home::user_home(environment).and_then(|path| path.into_os_string().into_string().ok()),
            budget: budget.min(BUDGET_LIMIT),
            spool_limit_bytes: environment
                .number(env_vars::SPOOL_LIMIT_BYTES)
                .unwrap_or(DEFAULT_SPOOL_LIMIT_BYTES),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn settings(arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(*v));
        Settings::new(arguments.iter().map(OsString::from), &Environment::new(lookup))
    }

    #[test]
    fn arguments_win_over_the_environment() {
        let found = settings(&["--data-dir", "/a", "Stop"], &[("TAFFRAIL_HOME", "/b"), ("HOME", "/home/u")]);
        assert_eq!(found.data_dir, Some(PathBuf::from("/a")));
        assert_eq!(found.event.as_deref(), Some("Stop"));
        let found = settings(&["--data-dir=/a"], &[]);
        assert_eq!(found.data_dir, Some(PathBuf::from("/a")));
    }

    #[test]
    fn bad_values_mean_defaults() {
        let found = settings(&["--what"], &[("TAFFRAIL_HOOK_BUDGET_MS", "soon"), ("TAFFRAIL_DISABLE", "0")]);
        assert_eq!(found.budget, DEFAULT_BUDGET);
        assert_eq!(found.spool_limit_bytes, DEFAULT_SPOOL_LIMIT_BYTES);
        assert!(!found.disabled);
        assert_eq!(found.data_dir, None);
        assert_eq!(settings(&[], &[("TAFFRAIL_HOOK_BUDGET_MS", "99999999999")]).budget, BUDGET_LIMIT);
    }

    #[test]
    fn the_first_user_name_counts_and_is_capped() {
        assert_eq!(settings(&[], &[("LOGNAME", "b"), ("USER", "a")]).user.as_deref(), Some("a"));
        let long = "x".repeat(10_000);
        assert_eq!(settings(&[], &[("TAFFRAIL_APP", &long)]).app.unwrap().len(), NAME_LIMIT_CHARS);
    }
}
