//! The independent recorder: a command hook of its own that the client starts beside
//! Taffrail's, so that what Taffrail stored can be held against what the client sent.
//!
//! It shares no code and no file with Taffrail. One event is one line, appended with one
//! write, so that hooks that run at once do not mix.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of the hidden command `record-hook`.
#[derive(Args)]
pub(crate) struct RecordHookArgs {
    /// Where to append
    file: PathBuf,
    /// Deny Bash commands that hold this text
    #[arg(long)]
    deny: Vec<String>,
}

/// One recorded delivery.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    /// When the hook was started, by the wall clock.
    pub(crate) captured_ms: u64,
    /// What the client wrote to the hook's stdin.
    pub(crate) body: Value,
}

impl Recorded {
    /// A string field of the body; empty where there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// The kind of event.
    pub(crate) fn event(&self) -> &str {
        self.text("hook_event_name")
    }

    /// The line of a recording.
    pub(crate) fn to_line(&self) -> String {
        json!({"captured_ms": self.captured_ms, "body": self.body}).to_string() + "\n"
    }
}

/// Records stdin; says nothing unless it was told to deny.
pub(crate) fn run(args: &RecordHookArgs) -> Result<()> {
    let captured_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let mut raw = Vec::new();
    std::io::stdin().read_to_end(&mut raw)?;
    let body: Value = serde_json::from_slice(&raw).context("the client sent something that is no JSON")?;
    let recorded = Recorded { captured_ms: u64::try_from(captured_ms)?, body };
    let mut file = OpenOptions::new().append(true).create(true).open(&args.file)?;
    file.write_all(recorded.to_line().as_bytes())?;
    if let Some(answer) = denial(&recorded, &args.deny) {
        println!("{answer}");
    }
    Ok(())
}

fn denial(recorded: &Recorded, deny: &[String]) -> Option<Value> {
    let command = recorded.body["tool_input"]["command"].as_str()?;
    if recorded.event() != "PreToolUse" || !deny.iter().any(|text| command.contains(text)) {
        return None;
    }
    Some(json!({"hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason": "denied by the scenario",
    }}))
}

/// Reads a recording; no file is no events.
pub(crate) fn read(file: &Path) -> Result<Vec<Recorded>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("could not read {}", file.display())),
    };
    text.lines().map(|line| parse(line).with_context(|| format!("in {}", file.display()))).collect()
}

fn parse(line: &str) -> Result<Recorded> {
    let mut line: Value = serde_json::from_str(line)?;
    let captured_ms = line["captured_ms"].as_u64().context("a line without captured_ms")?;
    Ok(Recorded { captured_ms, body: line["body"].take() })
}

/// How many events of a kind were recorded so far. A line that is being written is left out.
pub(crate) fn count(file: &Path, event: &str) -> usize {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| parse(line).ok()).filter(|recorded| recorded.event() == event).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn bash(event: &str, command: &str) -> Recorded {
        let body = json!({"hook_event_name": event, "tool_input": {"command": command}});
        Recorded { captured_ms: 7, body }
    }

    #[test]
    fn a_line_reads_back_as_it_was() {
        let recorded = bash("PreToolUse", "echo \"a\nb\"");
        let line = recorded.to_line();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(parse(&line).unwrap(), recorded);
    }

    #[test]
    fn only_matching_commands_are_denied_and_only_before_they_run() {
        let deny = ["rm -rf".to_owned()];
        assert!(denial(&bash("PreToolUse", "rm -rf ~"), &deny).is_some());
        assert!(denial(&bash("PreToolUse", "ls"), &deny).is_none());
        assert!(denial(&bash("PostToolUse", "rm -rf ~"), &deny).is_none());
    }
}
