//! `taffrail uninstall`: takes our hooks, telemetry and status line out of a settings file and leaves the rest byte for byte.
//!
//! When nothing but what is ours differs from the backup, the backup's bytes come back; else only our entries are cut out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::install::{is_empty_object, print_diff, say, write_unless_changed};
use crate::settings::{self, Places, Scope};

/// Arguments of `taffrail uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Which settings file
    #[arg(long, value_enum, default_value_t = Scope::User)]
    pub(crate) scope: Scope,
    /// Show the change as a diff and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What becomes of the file.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// None of our hooks are there.
    Nothing,
    /// These bytes are the backup's.
    Restored(String),
    /// Our hooks are cut out of what it is now.
    Cut(String),
    /// There was no file before.
    Removed,
}

/// Runs the command.
///
/// # Errors
/// When the settings cannot be read, understood or written; they are untouched then.
pub(crate) fn run(args: &UninstallArgs) -> Result<()> {
    let path = Places::of_process()?.file(args.scope)?;
    // A settings file may be a link; its backups lie beside the file itself.
    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let Some(before) = settings::read(&path)? else {
        return say(&format!("nothing to do: there is no {}", path.display()));
    };
    let backup_path = settings::backups(&real).pop();
    let backup = backup_path.as_deref().map(settings::read).transpose()?.flatten();
    let outcome = decide(&before, backup.as_deref())
        .with_context(|| format!("cannot uninstall from {}", path.display()))?;
    let after = match &outcome {
        Outcome::Nothing => {
            return say(&format!("nothing to do: nothing of ours is in {}", path.display()));
        }
        Outcome::Restored(text) | Outcome::Cut(text) => text.as_str(),
        Outcome::Removed => "",
    };
    if args.dry_run {
        return print_diff(&path, &before, after);
    }
    if outcome == Outcome::Removed {
        fs::remove_file(&real).with_context(|| format!("cannot remove {}", real.display()))?;
        return say(&format!("removed {}, which install had made", path.display()));
    }
    write_unless_changed(&path, Some(&before), after)?;
    if let Outcome::Restored(_) = outcome {
        for backup in settings::backups(&real) {
            let _ = fs::remove_file(backup);
        }
        return say(&format!("restored {} as it was before install", path.display()));
    }
    say(&format!(
        "took what is ours out of {}; it had changed since install, the rest stays",
        path.display()
    ))?;
    tell_backup(backup_path.as_deref())
}

fn tell_backup(backup: Option<&Path>) -> Result<()> {
    backup.map_or(Ok(()), |backup| say(&format!("the settings from before install: {}", backup.display())))
}

fn decide(before: &str, backup: Option<&str>) -> Result<Outcome> {
    if !settings::has_ours(before)? {
        return Ok(Outcome::Nothing);
    }
    let clean_backup = backup.filter(|text| settings::has_ours(text).is_ok_and(|has| !has));
    let rest = settings::without_ours(before, clean_backup)?;
    Ok(match clean_backup {
        Some(backup) if value(backup) == value(&rest) => Outcome::Restored(backup.to_owned()),
        Some(_) => Outcome::Cut(rest),
        None if backup.is_none() && is_empty_object(&rest) => Outcome::Removed,
        None => Outcome::Cut(rest),
    })
}

fn value(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::settings::Wiring;

    fn installed(text: &str) -> String {
        let wiring = Wiring { program: "/t/taffrail-hook".to_owned(), arguments: Vec::new(), http_url: None };
        settings::with_hooks(text, &wiring).unwrap()
    }

    #[test]
    fn an_unchanged_file_gets_its_backup_back() {
        let original = "{ \"a\" :1 , \"hooks\":{ \"Stop\" : [ ] } }";
        assert_eq!(
            decide(&installed(original), Some(original)).unwrap(),
            Outcome::Restored(original.to_owned())
        );
    }

    #[test]
    fn a_changed_file_keeps_its_changes() {
        let now = installed("{\n  \"a\": 2\n}\n");
        assert_eq!(
            decide(&now, Some("{\n  \"a\": 1\n}\n")).unwrap(),
            Outcome::Cut("{\n  \"a\": 2\n}\n".to_owned())
        );
    }

    #[test]
    fn a_file_that_install_made_goes() {
        assert_eq!(decide(&installed("{}"), None).unwrap(), Outcome::Removed);
        assert_eq!(decide(&installed("{ }"), Some("{ }")).unwrap(), Outcome::Restored("{ }".to_owned()));
    }

    #[test]
    fn a_backup_with_our_hooks_in_it_is_not_restored() {
        let now = installed("{\"a\":1}");
        assert_eq!(decide(&now, Some(&now)).unwrap(), Outcome::Cut("{\"a\":1}".to_owned()));
    }

    #[test]
    fn without_our_hooks_there_is_nothing_to_do() {
        assert_eq!(decide("{\"hooks\":{}}", None).unwrap(), Outcome::Nothing);
    }
}
