//! The few fields of a payload that the hook client itself needs, found without building a tree of it.
//!
//! Never fails: a payload that is not valid JSON is searched as text, since the event must be recorded and the guard
//! asked all the same.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::input::Input;

/// Part of an unreadable payload that is searched as text.
const SEARCH_LIMIT_BYTES: usize = 1024 * 1024;

/// Tools whose input is text for a file, however large and whatever it says.
const FILE_TOOLS: [&str; 7] = ["Write", "Edit", "MultiEdit", "NotebookEdit", "Read", "Grep", "Glob"];

/// What the guard has to look at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The tool runs no command.
    None,
    /// A shell command line.
    Line(String),
    /// An argument list.
    Arguments(Vec<String>),
    /// There may be a command, but only text of the payload is known.
    Unreadable(String),
    /// A command that does not fit the payload's limit.
    TooLarge,
}

/// What the hook client knows about its event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) event: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) command: Command,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    hook_event_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    cwd: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolInput<'a> {
    #[serde(borrow, default)]
    command: Option<&'a RawValue>,
}

impl Facts {
    /// Finds the fields; `argument` is the event's name from the command line, for payloads that do not tell.
    pub(crate) fn find(input: &Input, argument: Option<&str>) -> Self {
        let parsed = if input.is_truncated() { None } else { parse(input.head()) };
        let mut facts = parsed.unwrap_or_else(|| search(input));
        facts.event = facts.event.or_else(|| argument.map(str::to_owned));
        facts
    }
}

fn parse(payload: &[u8]) -> Option<Facts> {
    let envelope: Envelope<'_> = serde_json::from_slice(payload).ok()?;
    // Only a tool call has a command, and only before it runs does it matter.
    let before_call = envelope.hook_event_name.as_deref().is_none_or(|event| event == "PreToolUse");
    let command = envelope.tool_input.filter(|_| before_call).map_or(Command::None, |raw| command(raw.get()));
    Some(Facts {
        event: envelope.hook_event_name.map(Cow::into_owned),
        cwd: envelope.cwd.map(Cow::into_owned),
        command,
    })
}

fn command(tool_input: &str) -> Command {
    if !tool_input.starts_with('{') {
        return Command::None;
    }
    let raw = match serde_json::from_str::<ToolInput<'_>>(tool_input) {
        Ok(ToolInput { command: None }) => return Command::None,
        Ok(ToolInput { command: Some(raw) }) => raw.get(),
        // Two fields of that name, for one.
        Err(_) => return Command::Unreadable(tool_input.to_owned()),
    };
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map(Command::Line),
        Some(b'[') => serde_json::from_str(raw).map(Command::Arguments),
        _ => return Command::None,
    }
    .unwrap_or_else(|_| Command::Unreadable(raw.to_owned()))
}

fn search(input: &Input) -> Facts {
    let start = &input.head()[..input.head().len().min(SEARCH_LIMIT_BYTES)];
    let text = String::from_utf8_lossy(start);
    let event = string_field(&text, "hook_event_name");
    let writes_file =
        string_field(&text, "tool_name").is_some_and(|tool| FILE_TOOLS.contains(&tool.as_str()));
    let command = match (writes_file, input.is_truncated()) {
        (true, _) => Command::None,
        (false, true) if string_field(&text, "tool_name").as_deref() == Some("Bash") => Command::TooLarge,
        (false, _) if event.as_deref().is_none_or(|event| event == "PreToolUse") => {
            Command::Unreadable(text.replace("\\n", "\n").replace("\\t", "\t"))
        }
        (false, _) => Command::None,
    };
    Facts { cwd: string_field(&text, "cwd"), event, command }
}

/// The value of the first `"name": "value"` in a text that need not be JSON; values with escapes are not taken.
fn string_field(text: &str, name: &str) -> Option<String> {
    let key = format!("\"{name}\"");
    text.match_indices(&key).find_map(|(at, _)| {
        let rest = text[at + key.len()..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        let value = &rest[..rest.find('"')?];
        (!value.contains('\\')).then(|| value.to_owned())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn find(payload: &[u8]) -> Facts {
        Facts::find(&Input::read(payload), Some("FromArgument"))
    }

    #[test]
    fn fields_of_a_tool_call() {
        let facts = find(
            br#"{"session_id":"s","cwd":"/w","hook_event_name":"PreToolUse","tool_name":"Bash",
                "tool_input":{"command":"ls \u00e9\n","description":"x"},"tool_use_id":"t"}"#,
        );
        assert_eq!(facts.event.as_deref(), Some("PreToolUse"));
        assert_eq!(facts.cwd.as_deref(), Some("/w"));
        assert_eq!(facts.command, Command::Line("ls \u{e9}\n".to_owned()));
    }

    #[test]
    fn other_inputs_have_no_command() {
        for input in ["null", "[1]", "3", "{}", r#"{"file_path":"x"}"#, r#"{"command":7}"#] {
            let payload = format!(r#"{{"hook_event_name":"PreToolUse","tool_input":{input}}}"#);
            assert_eq!(find(payload.as_bytes()).command, Command::None, "{input}");
        }
        let argv = br#"{"hook_event_name":"PreToolUse","tool_input":{"command":["a","b"]}}"#;
        assert_eq!(find(argv).command, Command::Arguments(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_thousand_levels_do_not_matter() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let payload = format!(
            r#"{{"hook_event_name":"PreToolUse","x":{deep},"tool_input":{{"command":"rm","y":{deep}}}}}"#
        );
        assert_eq!(find(payload.as_bytes()).command, Command::Line("rm".to_owned()));
    }

    #[test]
    fn broken_payloads_are_searched() {
        let facts =
            find(b"{\"hook_event_name\" : \"PreToolUse\", \"tool_input\":{\"command\":\"rm -rf \xff/");
        assert_eq!(facts.event.as_deref(), Some("PreToolUse"));
        assert!(matches!(facts.command, Command::Unreadable(text) if text.contains("rm -rf")));
        assert_eq!(find(b"").event.as_deref(), Some("FromArgument"));
        assert_eq!(find(b"nonsense").command, Command::Unreadable("nonsense".to_owned()));
        let lone_surrogate =
            br#"{"hook_event_name":"PreToolUse","tool_input":{"command":"rm -rf / \ud800"}}"#;
        assert!(matches!(find(lone_surrogate).command, Command::Unreadable(_)));
    }

    #[test]
    fn commands_over_the_limit_are_known_to_be_so() {
        let large = |tool: &str| {
            let mut payload =
                format!(r#"{{"hook_event_name":"PreToolUse","tool_name":"{tool}","tool_input":{{"x":""#);
            payload.push_str(&"y".repeat(crate::input::PAYLOAD_LIMIT_BYTES));
            find(payload.as_bytes()).command
        };
        assert_eq!(large("Bash"), Command::TooLarge);
        assert_eq!(large("Write"), Command::None);
    }
}
