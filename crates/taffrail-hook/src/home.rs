//! Where Taffrail keeps its data: `--data-dir`, else `TAFFRAIL_HOME`, else the platform's data directory.

use std::path::PathBuf;

pub use crate::settings::Environment;
use crate::settings::env_vars;

/// The data directory; `None` where nothing says where it could be.
///
/// Linux and other Unix: `$XDG_DATA_HOME/taffrail` or `~/.local/share/taffrail`; macOS: `~/Library/Application
/// Support/taffrail`; Windows: `%LOCALAPPDATA%\taffrail`. A relative path is taken from the working directory.
#[must_use]
pub fn data_dir(argument: Option<PathBuf>, environment: &Environment<'_>) -> Option<PathBuf> {
    let chosen = argument
        .filter(|path| !path.as_os_str().is_empty())
        .or_else(|| environment.get(env_vars::HOME).map(PathBuf::from))
        .or_else(|| platform_dir(environment).map(|path| path.join("taffrail")))?;
    if chosen.is_absolute() {
        return Some(chosen);
    }
    std::env::current_dir().ok().map(|cwd| cwd.join(chosen))
}

/// The user's home directory, as the environment says.
#[must_use]
pub fn user_home(environment: &Environment<'_>) -> Option<PathBuf> {
    environment
        .get(env_vars::USER_HOME)
        .or_else(|| environment.get(env_vars::USER_PROFILE))
        .map(PathBuf::from)
}

fn platform_dir(environment: &Environment<'_>) -> Option<PathBuf> {
    if cfg!(windows) {
        return environment.get(env_vars::LOCAL_APP_DATA).map(PathBuf::from);
    }
    let home = user_home(environment);
    if cfg!(target_os = "macos") {
        return home.map(|home| home.join("Library/Application Support"));
    }
    environment
        .get(env_vars::XDG_DATA_HOME)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| home.map(|home| home.join(".local/share")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn dir(argument: Option<&str>, variables: &[(&str, &str)]) -> Option<PathBuf> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).into());
        data_dir(argument.map(PathBuf::from), &Environment::new(lookup))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn argument_then_variable_then_platform() {
        let all = [("TAFFRAIL_HOME", "/t"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(dir(Some("/a"), &all), Some("/a".into()));
        assert_eq!(dir(None, &all), Some("/t".into()));
        assert_eq!(dir(None, &all[1..]), Some("/x/taffrail".into()));
        assert_eq!(dir(None, &all[2..]), Some("/h/.local/share/taffrail".into()));
        assert_eq!(
            dir(None, &[("TAFFRAIL_HOME", ""), ("HOME", "/h")]),
            Some("/h/.local/share/taffrail".into())
        );
        assert_eq!(dir(None, &[]), None);
    }

    #[test]
    fn a_relative_directory_is_made_absolute() {
        let cwd = std::env::current_dir().unwrap();
        assert_eq!(dir(Some("data"), &[]), Some(cwd.join("data")));
    }
}
