//! The rule on recursive deletes: which targets nobody wants gone.
//!
//! All on text: paths are joined, `.` and `..` resolved, symbolic links not followed.

use crate::walk::{ANY_NAME, UNKNOWN};
use crate::{Context, Decision, Severity, Verdict, is_recursive_option, rule};

/// Most of a path that is repeated in a reason.
const SHOWN_PATH_CHARS: usize = 120;

/// Directories whose loss breaks the machine, or every user's work on it.
const SYSTEM_DIRECTORIES: [&str; 26] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "lib32",
    "lib64",
    "mnt",
    "media",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "usr",
    "var",
    "Applications",
    "Library",
    "System",
    "Users",
    "Volumes",
    "private",
    "nix",
];

/// Directories in a home that hold what cannot be made again.
const HOME_DIRECTORIES: [&str; 17] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".config",
    ".local",
    ".kube",
    ".docker",
    ".claude",
    ".mozilla",
    "Desktop",
    "Documents",
    "Downloads",
    "Library",
    "Movies",
    "Music",
    "Pictures",
    "Videos",
];

/// What an `rm` was told to do.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) paths: Vec<String>,
    /// `--no-preserve-root` was given.
    pub(crate) root_allowed: bool,
    pub(crate) recursive: bool,
    /// An option may hide in a value that is not known here.
    pub(crate) may_be_recursive: bool,
    /// The command is `rm` for sure, not a name that is not known here.
    pub(crate) certain: bool,
}

impl Targets {
    /// Reads `rm`'s arguments; options may stand anywhere before `--`.
    pub(crate) fn read(arguments: &[String]) -> Self {
        let mut targets = Self { certain: true, ..Self::default() };
        let mut options_end = false;
        for argument in arguments {
            if options_end || argument == "-" || !argument.starts_with('-') {
                targets.may_be_recursive |= !options_end && *argument == UNKNOWN.to_string();
                targets.paths.push(argument.clone());
            } else if argument == "--" {
                options_end = true;
            } else {
                targets.recursive |= is_recursive_option(argument);
                targets.root_allowed |=
                    argument.len() > 4 && "--no-preserve-root".starts_with(argument.as_str());
                targets.may_be_recursive |= argument.contains(UNKNOWN);
            }
        }
        targets
    }
}

/// The strictest verdict over all targets.
pub(crate) fn judge(targets: &Targets, cwd: Option<&str>, context: &Context<'_>) -> Verdict {
    if !(targets.recursive || targets.may_be_recursive) {
        return Verdict::allow();
    }
    let certain = targets.certain && targets.recursive;
    let worst = targets
        .paths
        .iter()
        .filter_map(|path| Some((path, judge_path(path, cwd, context)?)))
        .max_by_key(|(_, (decision, ..))| *decision);
    let Some((path, (decision, severity, what))) = worst else {
        if targets.root_allowed && certain {
            let reason = "Taffrail asks: a recursive delete with --no-preserve-root.".to_owned();
            return Verdict::new(Decision::Ask, rule::RECURSIVE_DELETE, Severity::High, reason);
        }
        return Verdict::allow();
    };
    let decision = if certain { decision } else { decision.min(Decision::Ask) };
    let verb = match decision {
        Decision::Deny => "refused",
        Decision::Ask => "asks about",
        Decision::Allow | Decision::Warn => "warns of",
    };
    let reason = format!("Taffrail {verb} a recursive delete of {what}: {}", shown(path));
    Verdict::new(decision, rule::RECURSIVE_DELETE, severity, reason)
}

type Judgement = (Decision, Severity, &'static str);

fn judge_path(path: &str, cwd: Option<&str>, context: &Context<'_>) -> Option<Judgement> {
    if path.is_empty() {
        return None;
    }
    let (base, children) = split_catch_all(path);
    if let Some(rest) = base.strip_prefix(UNKNOWN) {
        return judge_unknown_prefix(rest, path, children);
    }
    let unresolved = normalized(base);
    let Some(target) = absolute(base, cwd) else {
        return judge_relative(&unresolved);
    };
    judge_system(&target, children)
        .or_else(|| judge_home(&target, context))
        .or_else(|| judge_recorder(&target, context))
        .or_else(|| judge_project(&target, children, base, context))
}

/// `$UNSET/` and `$UNSET/*` are the root when the variable is empty.
fn judge_unknown_prefix(rest: &str, path: &str, children: bool) -> Option<Judgement> {
    let parts = normalized(rest.trim_start_matches('/'));
    let nothing_left = parts.is_empty() && (children || path.ends_with('/'));
    if nothing_left {
        return Some((
            Decision::Warn,
            Severity::Medium,
            "a variable's directory, which is the root when it is unset",
        ));
    }
    if parts.first() == Some(&"..") {
        return Some((
            Decision::Ask,
            Severity::High,
            "a path that climbs out of a directory that is not known",
        ));
    }
    (parts.last() == Some(&".git")).then_some((Decision::Ask, Severity::High, "a repository's .git"))
}

/// A relative path in a directory that is not known.
fn judge_relative(parts: &[&str]) -> Option<Judgement> {
    match parts {
        [] => None,
        parts if parts.iter().all(|part| *part == "..") => {
            Some((Decision::Deny, Severity::Critical, "a parent directory"))
        }
        ["..", ..] => Some((Decision::Ask, Severity::High, "something outside the working directory")),
        [.., ".git"] => Some((Decision::Ask, Severity::High, "a repository's .git")),
        _ => None,
    }
}

fn judge_system(target: &str, children: bool) -> Option<Judgement> {
    let parts = normalized(target);
    match parts.as_slice() {
        [] => Some((Decision::Deny, Severity::Critical, "the root directory")),
        ["home" | "Users", user] if !is_pattern(user) && *user != "Shared" => {
            Some((Decision::Deny, Severity::Critical, "a home directory"))
        }
        [directory] if SYSTEM_DIRECTORIES.contains(directory) => {
            Some((Decision::Deny, Severity::Critical, "a system directory"))
        }
        [directory] if is_pattern(directory) => {
            Some((Decision::Ask, Severity::High, "a pattern in the root directory"))
        }
        ["home" | "Users", _] => Some((Decision::Deny, Severity::Critical, "home directories")),
        ["var", "tmp" | "folders", ..] | ["private", ..] => None,
        ["bin" | "boot" | "dev" | "etc" | "lib" | "lib64" | "proc" | "sbin" | "sys" | "System", ..] => {
            Some((Decision::Ask, Severity::High, "a part of the system"))
        }
        ["usr" | "var" | "Library", _] => Some((Decision::Ask, Severity::High, "a part of the system")),
        _ => {
            debug_assert!(!(children && parts.is_empty()));
            None
        }
    }
}

fn judge_home(target: &str, context: &Context<'_>) -> Option<Judgement> {
    let home = context.home.filter(|home| home.len() > 1)?;
    if is_within(home, target) {
        return Some((Decision::Deny, Severity::Critical, "the home directory"));
    }
    let inside = target.strip_prefix(home.trim_end_matches('/'))?.strip_prefix('/')?;
    HOME_DIRECTORIES.contains(&inside).then_some((
        Decision::Deny,
        Severity::Critical,
        "a directory of the home that cannot be made again",
    ))
}

fn judge_recorder(target: &str, context: &Context<'_>) -> Option<Judgement> {
    let data = context.taffrail_home.filter(|data| data.len() > 1)?;
    (is_within(data, target) || is_within(target, data)).then_some((
        Decision::Deny,
        Severity::High,
        "the flight recorder's own data",
    ))
}

fn judge_project(target: &str, children: bool, written: &str, context: &Context<'_>) -> Option<Judgement> {
    let name = target.rsplit('/').next();
    let project = context.cwd.map(|cwd| format!("/{}", normalized(cwd).join("/")));
    let project = project.as_deref();
    if name == Some(".git") {
        let repository = target.strip_suffix("/.git").unwrap_or_default();
        return match project {
            Some(project) if is_within(project, repository) => {
                Some((Decision::Deny, Severity::Critical, "the repository's .git"))
            }
            _ if is_temporary(target) => None,
            _ => Some((Decision::Ask, Severity::High, "a repository's .git")),
        };
    }
    let project = project?;
    if target == project {
        let judgement = if children {
            (Decision::Warn, Severity::Medium, "everything in the working directory")
        } else {
            (Decision::Ask, Severity::High, "the working directory itself")
        };
        return Some(judgement);
    }
    if is_within(project, target) {
        return Some((Decision::Deny, Severity::Critical, "a directory above the working directory"));
    }
    let climbs = normalized(written).first() == Some(&"..");
    (climbs && !is_within(target, project) && !is_temporary(target)).then_some((
        Decision::Ask,
        Severity::High,
        "something outside the working directory",
    ))
}

fn is_temporary(path: &str) -> bool {
    ["/tmp", "/var/tmp", "/private/tmp", "/var/folders", "/private/var/folders"]
        .into_iter()
        .any(|temporary| path != temporary && is_within(path, temporary))
}

/// Whether `path` is `directory` or inside it; both absolute.
fn is_within(path: &str, directory: &str) -> bool {
    let (path, directory) = (normalized(path), normalized(directory));
    path.starts_with(&directory)
}

/// Takes off a tail that matches everything: `/x/*`, `/x/.*`, `/x/*/*` are the children of `/x`.
fn split_catch_all(path: &str) -> (&str, bool) {
    let mut base = path.trim_end_matches('/');
    let mut children = false;
    loop {
        let (directory, name) =
            base.rsplit_once('/').map_or(("", base), |(directory, name)| (directory, name));
        let catches_all = name.contains(ANY_NAME) && name.chars().all(|c| matches!(c, ANY_NAME | '.'));
        if !catches_all {
            break;
        }
        children = true;
        let is_absolute = base.starts_with('/');
        base = directory.trim_end_matches('/');
        if base.is_empty() {
            return (if is_absolute { "/" } else { "." }, true);
        }
    }
    if base.is_empty() && path.starts_with('/') { ("/", children) } else { (base, children) }
}

fn is_pattern(name: &str) -> bool {
    name.contains(ANY_NAME)
}

/// The path as seen from the root; `None` for a relative path in a directory that is not known.
pub(crate) fn absolute(path: &str, cwd: Option<&str>) -> Option<String> {
    if path.contains(UNKNOWN) && path.starts_with(UNKNOWN) {
        return None;
    }
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", cwd?) };
    Some(format!("/{}", normalized(&joined).join("/")))
}

/// The names of a path with `.` and `..` resolved; a relative path may start with `..`, an absolute one cannot.
fn normalized(path: &str) -> Vec<&str> {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            _ => parts.push(part),
        }
    }
    parts
}

/// A path for a message: marks as the patterns they stand for, nothing that could steer a terminal, capped.
fn shown(path: &str) -> String {
    let mut shown: String = path
        .chars()
        .take(SHOWN_PATH_CHARS)
        .map(|c| match c {
            ANY_NAME => '*',
            UNKNOWN => '$',
            c if c.is_control() => '?',
            c => c,
        })
        .collect();
    if path.chars().nth(SHOWN_PATH_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}
