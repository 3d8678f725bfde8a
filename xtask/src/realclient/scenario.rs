//! Scenario files: what the project looks like, what the person asks, what the model answers,
//! and what must then have happened. See `xtask/scenarios/`.
//!
//! Strings may hold `${PROJECT}`, `${HOME}` and `${REPEAT:c:n}` (n times the character c, so
//! that a big payload needs no big file). Unknown fields are errors.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The most characters `${REPEAT:c:n}` makes.
const REPEAT_MAX: usize = 8 << 20;

/// One scripted session, or several in the same project.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    #[serde(skip)]
    pub(crate) name: String,
    /// What it shows, in a line.
    pub(crate) about: String,
    /// Shell lines that make the project, run in its folder.
    #[serde(default)]
    pub(crate) setup: Vec<String>,
    /// Merged into the client's user settings.
    #[serde(default)]
    pub(crate) settings: Map<String, Value>,
    /// Added to the client's environment.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The client is started once for each.
    pub(crate) runs: Vec<Run>,
    /// The main conversation's answers, in order, over all runs.
    pub(crate) turns: Vec<Turn>,
    /// Conversations of subagents, told apart by their prompt.
    #[serde(default)]
    pub(crate) agents: Vec<Agent>,
    /// Commands that hold one of these are denied by the recorder when Taffrail is not there
    /// to deny them, so that a recording without it has the same shape and the same safety.
    #[serde(default)]
    pub(crate) deny_without_taffrail: Vec<String>,
    /// What must have happened.
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// One start of the client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// What the person types.
    pub(crate) prompt: String,
    /// More arguments, such as `--continue`.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Tools that need no permission.
    #[serde(default = "usual_tools")]
    pub(crate) allowed_tools: Vec<String>,
    #[serde(default = "usual_mode")]
    pub(crate) permission_mode: String,
    /// How the client must end.
    #[serde(default)]
    pub(crate) exit: Exit,
    /// Send an interrupt as soon as this many events of a kind were recorded.
    pub(crate) interrupt_at: Option<Until>,
    /// Keys for an interactive session in tmux; without them the client runs with `-p`.
    pub(crate) keys: Option<Vec<Key>>,
}

/// How a run of the client must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    #[default]
    Ok,
    Error,
    Any,
}

/// A number of events of one kind, over the whole scenario.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Until {
    pub(crate) event: String,
    pub(crate) count: usize,
}

/// One step at the keyboard: text, then a key, then wait.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// Typed as it is.
    #[serde(default)]
    pub(crate) text: String,
    /// A key by tmux's name, such as `Enter`.
    #[serde(default)]
    pub(crate) key: String,
    /// Press the key again, now and then, until the screen shows this.
    #[serde(default)]
    pub(crate) shows: String,
    /// Wait for events.
    pub(crate) until: Option<Until>,
    /// Then wait this long.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// A subagent's conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    /// Stands in the first message of the conversation.
    #[serde(rename = "match")]
    pub(crate) matching: String,
    pub(crate) turns: Vec<Turn>,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    #[serde(default)]
    pub(crate) thinking: String,
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) tools: Vec<ToolUse>,
    /// input, output, cache read, cache write (5 minutes); missing ones are 0.
    #[serde(default)]
    pub(crate) usage: [u64; 4],
    /// Between pieces of text.
    #[serde(default)]
    pub(crate) piece_delay_ms: u64,
    /// Instead of an answer.
    pub(crate) failure: Option<Failure>,
}

/// A tool that the model asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolUse {
    pub(crate) name: String,
    pub(crate) input: Value,
}

/// How a request fails.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) how: How,
    /// The API's name of the error.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// How many requests fail like this before the next turn.
    #[serde(default = "once")]
    pub(crate) times: usize,
}

/// The ways to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// An answer with this HTTP status.
    Status(u16),
    /// Hang up without an answer.
    HangUp,
    /// Begin to stream, then send an error.
    BreakOff,
}

/// What must have happened in the end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// At least this many events of a kind, by the independent recorder.
    #[serde(default)]
    pub(crate) events: BTreeMap<String, usize>,
    /// Files that must be there.
    #[serde(default)]
    pub(crate) present: Vec<PathBuf>,
    /// Files that must not be there.
    #[serde(default)]
    pub(crate) absent: Vec<PathBuf>,
    /// Main turns that the client never asks for.
    #[serde(default)]
    pub(crate) unused_turns: usize,
}

fn usual_tools() -> Vec<String> {
    ["Bash", "Read", "Edit", "Write", "Agent", "Grep", "Glob"].map(str::to_owned).to_vec()
}

fn usual_mode() -> String {
    "acceptEdits".to_owned()
}

fn once() -> usize {
    1
}

impl Scenario {
    /// Whether it needs a terminal.
    pub(crate) fn is_interactive(&self) -> bool {
        self.runs.iter().any(|run| run.keys.is_some())
    }
}

/// The names of all scenarios, sorted.
pub(crate) fn names() -> Result<Vec<String>> {
    let dir = workspace::root().join("xtask/scenarios");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("could not list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a scenario for a sandbox.
pub(crate) fn load(name: &str, home: &Path, project: &Path) -> Result<Scenario> {
    let path = workspace::root().join("xtask/scenarios").join(format!("{name}.json"));
    if !path.is_file() {
        bail!("there is no scenario {name}\nhint: `cargo xtask realclient --list` names them");
    }
    let text = fs::read_to_string(&path)?;
    let mut value: Value = serde_json::from_str(&text).with_context(|| format!("scenario {name}"))?;
    let variables = [("${HOME}", home.display().to_string()), ("${PROJECT}", project.display().to_string())];
    fill(&mut value, &variables)?;
    let mut scenario: Scenario = serde_json::from_value(value).with_context(|| format!("scenario {name}"))?;
    name.clone_into(&mut scenario.name);
    Ok(scenario)
}

fn fill(value: &mut Value, variables: &[(&str, String)]) -> Result<()> {
    match value {
        Value::String(text) => {
            for (name, with) in variables {
                *text = text.replace(name, with);
            }
            *text = repeat(text)?;
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, variables))?,
        Value::Object(fields) => fields.values_mut().try_for_each(|item| fill(item, variables))?,
        _ => {}
    }
    Ok(())
}

fn repeat(text: &str) -> Result<String> {
    let Some((before, rest)) = text.split_once("${REPEAT:") else { return Ok(text.to_owned()) };
    let (spec, after) = rest.split_once('}').context("${REPEAT: without its end")?;
    let (what, count) = spec.split_once(':').context("${REPEAT:c:n} needs a count")?;
    let count: usize = count.parse().context("${REPEAT:c:n} needs a count")?;
    if count > REPEAT_MAX {
        bail!("${{REPEAT}} makes at most {REPEAT_MAX} characters");
    }
    Ok(format!("{before}{}{}", what.repeat(count), repeat(after)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_well_formed() {
        let names = names().unwrap();
        assert!(names.len() >= 14, "{names:?}");
        for name in names {
            let scenario = load(&name, Path::new("/home/user"), Path::new("/home/user/project")).unwrap();
            assert!(!scenario.about.is_empty() && !scenario.runs.is_empty(), "{name}");
            assert!(scenario.expect.events.contains_key("SessionStart"), "{name} expects no session");
        }
    }

    #[test]
    fn variables_and_repeats_are_filled_in() {
        let mut value = serde_json::json!({"a": ["${HOME}/x", "<${REPEAT:z:3}${REPEAT:-:2}>"]});
        fill(&mut value, &[("${HOME}", "/h".to_owned())]).unwrap();
        assert_eq!(value, serde_json::json!({"a": ["/h/x", "<zzz-->"]}));
        assert!(repeat("${REPEAT:x:99999999999}").is_err());
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let text = r#"{"about": "x", "runs": [], "turns": [], "extra": 1}"#;
        assert!(serde_json::from_str::<Scenario>(text).is_err());
    }
}
