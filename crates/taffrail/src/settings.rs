//! Claude Code's settings files: where they are, what of ours stands in them, and how to put it in and take it out.
//! Hooks stand here, telemetry and status line in `extras`.
//!
//! All on text and pure but [`write_atomically`]: foreign hooks, unknown keys, their order and their formatting keep
//! their bytes. Comments and trailing commas are refused, since the client refuses them too.

pub(crate) mod extras;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use taffrail_event::HookEvent;

use taffrail_event::json_text::{Document, Step};

/// Events that are never registered: an empty answer to the first makes the creation fail, the second delays text.
pub(crate) const UNREGISTERED_EVENTS: [HookEvent; 2] = [HookEvent::WorktreeCreate, HookEvent::MessageDisplay];
/// Events for which the client skips http hooks.
pub(crate) const COMMAND_ONLY_EVENTS: [HookEvent; 2] = [HookEvent::SessionStart, HookEvent::Setup];
/// Files that `FileChanged` is told of; without a matcher the client watches none.
const WATCHED_FILES: &str = ".env|.envrc";
/// Time-out of each hook: far above its budget, far below the client's default of 600.
const HOOK_TIMEOUT_S: u64 = 10;
/// Path of the http hook on the server.
pub(crate) const HTTP_HOOK_PATH: &str = "/v1/hooks/claude-code";
/// Largest settings file that is edited.
const SETTINGS_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Which of Claude Code's settings files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// All of the user's projects: `~/.claude/settings.json`.
    User,
    /// This project, shared with others: `.claude/settings.json`.
    Project,
    /// This project, for this user only: `.claude/settings.local.json`.
    Local,
}

impl Scope {
    pub(crate) const ALL: [Self; 3] = [Self::User, Self::Project, Self::Local];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Project => "project",
            Self::Local => "local",
        }
    }
}

/// Directories that settings are looked for in.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// `CLAUDE_CONFIG_DIR`, or `.claude` in the home directory.
    pub(crate) user: Option<PathBuf>,
    /// The project's directory.
    pub(crate) project: PathBuf,
}

impl Places {
    /// From the environment and the working directory.
    ///
    /// # Errors
    /// When there is no working directory.
    pub(crate) fn of_process() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME").or_else(|| set("USERPROFILE"));
        let user = set("CLAUDE_CONFIG_DIR").or_else(|| home.map(|home| home.join(".claude")));
        let project = std::env::current_dir().context("cannot tell the working directory")?;
        Ok(Self { user, project })
    }

    /// The settings file of a scope.
    ///
    /// # Errors
    /// When the user's home is not known.
    pub(crate) fn file(&self, scope: Scope) -> Result<PathBuf> {
        Ok(match scope {
            Scope::User => self
                .user
                .as_ref()
                .context("cannot tell the home directory\nhint: set HOME or CLAUDE_CONFIG_DIR")?
                .join("settings.json"),
            Scope::Project => self.project.join(".claude/settings.json"),
            Scope::Local => self.project.join(".claude/settings.local.json"),
        })
    }
}

/// How events reach Taffrail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wiring {
    /// The hook client.
    pub(crate) program: String,
    /// Its arguments before the event's name.
    pub(crate) arguments: Vec<String>,
    /// Set for http hooks, for the events where the client honours them.
    pub(crate) http_url: Option<String>,
}

impl Wiring {
    /// The group of hooks for each event, in the client's order.
    pub(crate) fn groups(&self) -> Vec<(&'static str, Value)> {
        HookEvent::KNOWN
            .iter()
            .filter(|event| !UNREGISTERED_EVENTS.contains(event))
            .map(|event| (event.name(), self.group(event)))
            .collect()
    }

    fn group(&self, event: &HookEvent) -> Value {
        let hook = match &self.http_url {
            Some(url) if !COMMAND_ONLY_EVENTS.contains(event) => {
                json!({"type": "http", "url": url, "timeout": HOOK_TIMEOUT_S})
            }
            _ => {
                let mut arguments = self.arguments.clone();
                arguments.push(event.name().to_owned());
                json!({"type": "command", "command": self.program, "args": arguments, "timeout": HOOK_TIMEOUT_S})
            }
        };
        match event {
            HookEvent::FileChanged => json!({"matcher": WATCHED_FILES, "hooks": [hook]}),
            _ => json!({"hooks": [hook]}),
        }
    }
}

/// A hook of ours that stands in a settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OurHook {
    pub(crate) event: String,
    pub(crate) target: Target,
    group: usize,
    index: usize,
    alone: bool,
}

impl OurHook {
    /// The program that it calls, unless it is an http hook.
    pub(crate) fn program(&self) -> Option<&str> {
        match &self.target {
            Target::Program { path, .. } => Some(path),
            Target::Url(_) => None,
        }
    }
}

/// What a hook calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A program and its arguments.
    Program { path: String, arguments: Vec<String> },
    /// A server's address.
    Url(String),
}

/// Puts our hooks into settings text; the same text comes back when they are there already.
///
/// # Errors
/// When the text is not JSON or its hooks are not what the client takes.
pub(crate) fn with_hooks(text: &str, wiring: &Wiring) -> Result<String> {
    let mut document = parse(text)?;
    check_shape(&document)?;
    let wanted = wiring.groups();
    let events: Vec<String> = our_hooks(&document).into_iter().map(|hook| hook.event).collect();
    for event in events {
        let keep = wanted.iter().find(|(name, _)| *name == event).map(|(_, group)| group);
        remove_hooks_of(&mut document, &event, keep)?;
    }
    if document.get(&[Step::Key("hooks")]).is_none() {
        let hooks: serde_json::Map<String, Value> =
            wanted.iter().map(|(event, group)| ((*event).to_owned(), json!([group]))).collect();
        document.append(&[], Some("hooks"), &Value::Object(hooks))?;
        return Ok(document.text().to_owned());
    }
    for (event, group) in &wanted {
        let path = [Step::Key("hooks"), Step::Key(event)];
        match document.get(&path) {
            None => document.append(&path[..1], Some(event), &json!([group]))?,
            Some(Value::Array(groups)) if groups.contains(group) => {}
            Some(_) => document.append(&path, None, group)?,
        }
    }
    Ok(document.text().to_owned())
}

/// Takes our hooks out of settings text. Lists that become empty go too, unless `original` (a backup) has them.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn without_hooks(text: &str, original: Option<&str>) -> Result<String> {
    let mut document = parse(text)?;
    let original =
        original.and_then(|text| serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')).ok());
    let had = |event: Option<&str>| {
        let hooks = original.as_ref().and_then(|settings| settings.get("hooks"));
        hooks.is_some_and(|hooks| event.is_none_or(|event| hooks.get(event).is_some()))
    };
    let ours = our_hooks(&document);
    let mut events: Vec<&str> = ours.iter().map(|hook| hook.event.as_str()).collect();
    events.dedup();
    for event in events.into_iter().rev() {
        remove_hooks_of(&mut document, event, None)?;
        let path = [Step::Key("hooks"), Step::Key(event)];
        let is_empty = document.get(&path).is_some_and(|groups| groups == json!([]));
        if is_empty && !had(Some(event)) {
            document.remove(&path)?;
        }
    }
    let path = [Step::Key("hooks")];
    if !ours.is_empty() && document.get(&path).is_some_and(|hooks| hooks == json!({})) && !had(None) {
        document.remove(&path)?;
    }
    Ok(document.text().to_owned())
}

/// Removes our hooks of one event, but one group that is exactly `keep`.
fn remove_hooks_of(document: &mut Document, event: &str, keep: Option<&Value>) -> Result<()> {
    let mut kept = false;
    let hooks: Vec<OurHook> = our_hooks(document).into_iter().filter(|hook| hook.event == event).collect();
    for hook in hooks.iter().rev() {
        let group = [Step::Key("hooks"), Step::Key(event), Step::Index(hook.group)];
        if !kept && keep.is_some() && document.get(&group).as_ref() == keep {
            kept = true;
        } else if hook.alone {
            document.remove(&group)?;
        } else {
            let [hooks, event, group] = group;
            document.remove(&[hooks, event, group, Step::Key("hooks"), Step::Index(hook.index)])?;
        }
    }
    Ok(())
}

/// Takes everything of ours out of settings text, as [`without_hooks`] does the hooks.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn without_ours(text: &str, original: Option<&str>) -> Result<String> {
    let settings =
        original.and_then(|text| serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')).ok());
    extras::without_extras(&without_hooks(text, original)?, settings.as_ref())
}

/// Whether anything of ours stands in settings text.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn has_ours(text: &str) -> Result<bool> {
    Ok(!hooks_in(text)?.is_empty() || !extras::extras_in(text)?.is_empty())
}

/// Our hooks in settings text, in the order in which they stand there.
///
/// # Errors
/// When the text is not JSON.
pub(crate) fn hooks_in(text: &str) -> Result<Vec<OurHook>> {
    Ok(our_hooks(&parse(text)?))
}

fn our_hooks(document: &Document) -> Vec<OurHook> {
    let Some(Value::Object(events)) = document.get(&[Step::Key("hooks")]) else { return Vec::new() };
    let mut found = Vec::new();
    for (event, groups) in &events {
        for (group, value) in groups.as_array().into_iter().flatten().enumerate() {
            let hooks = value.get("hooks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let targets: Vec<Option<Target>> = hooks.iter().map(our_target).collect();
            let alone = targets.iter().all(Option::is_some);
            for (index, target) in targets.into_iter().enumerate() {
                // A group that is ours alone is removed as a whole, once.
                if alone && index > 0 {
                    break;
                }
                found.extend(target.map(|target| OurHook {
                    event: event.clone(),
                    target,
                    group,
                    index,
                    alone,
                }));
            }
        }
    }
    found
}

/// What a hook of ours calls; `None` for anybody else's.
fn our_target(hook: &Value) -> Option<Target> {
    if let Some(url) = hook.get("url").and_then(Value::as_str) {
        let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
        return path
            .is_some_and(|path| path.starts_with(HTTP_HOOK_PATH))
            .then(|| Target::Url(url.to_owned()));
    }
    let command = hook.get("command").and_then(Value::as_str)?;
    let arguments = hook.get("args").and_then(Value::as_array);
    // Shell form: somebody wrote it by hand.
    let (path, arguments): (&str, Vec<String>) = match arguments {
        Some(list) => (command, list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        None => {
            let mut words = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
            (words.next()?, words.map(str::to_owned).collect())
        }
    };
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path).trim_end_matches(".exe");
    let is_ours =
        name == "taffrail-hook" || (name == "taffrail" && arguments.first().is_some_and(|a| a == "hook"));
    is_ours.then(|| Target::Program { path: path.to_owned(), arguments })
}

fn parse(text: &str) -> Result<Document> {
    Document::parse(text).context(
        "the settings are not valid JSON\nhint: mend them first (comments and trailing commas are not allowed); \
         nothing was changed",
    )
}

/// Refuses what an edit would make worse.
fn check_shape(document: &Document) -> Result<()> {
    let Some(Value::Object(settings)) = document.get(&[]) else {
        bail!("the settings are not a JSON object\nhint: mend them first; nothing was changed");
    };
    let Some(hooks) = settings.get("hooks") else { return Ok(()) };
    let Value::Object(events) = hooks else {
        bail!("\"hooks\" in the settings is not an object\nhint: mend it first; nothing was changed");
    };
    if let Some((event, _)) = events.iter().find(|(_, groups)| !groups.is_array()) {
        bail!("\"hooks.{event}\" in the settings is not a list\nhint: mend it first; nothing was changed");
    }
    Ok(())
}

/// Reads a settings file; `None` where there is none.
///
/// # Errors
/// When it cannot be read, is too large, or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot read {}", path.display()))?.len(),
    };
    if size > SETTINGS_LIMIT_BYTES {
        bail!("{} is larger than any settings file should be", path.display());
    }
    fs::read_to_string(path).map(Some).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces a file in one step: a reader sees the old bytes or the new ones. Follows a symbolic link and keeps the mode;
/// a new file is the user's alone.
///
/// # Errors
/// When it cannot be written; the old file is untouched then.
pub(crate) fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().context("a file needs a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let temporary = directory.join(format!(".taffrail-{}.tmp", std::process::id()));
    let written = write_new(&temporary, text).and_then(|()| {
        if let Ok(old) = fs::metadata(&path) {
            fs::set_permissions(&temporary, old.permissions())?;
        }
        fs::rename(&temporary, &path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| {
        format!("cannot write {}\nhint: check that its directory is writable", path.display())
    })
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Backups of a settings file, the oldest first.
pub(crate) fn backups(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let prefix = format!("{name}{BACKUP_MARK}");
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
        })
        .collect();
    found.sort();
    found
}

/// Stands between a settings file's name and the time of its backup.
pub(crate) const BACKUP_MARK: &str = ".taffrail-backup-";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
