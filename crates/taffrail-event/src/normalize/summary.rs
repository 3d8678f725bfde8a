//! One line for a person: the prompt, the command, the path, the error.
//!
//! Limits: [`SUMMARY_MAX_CHARS`](crate::event::SUMMARY_MAX_CHARS) characters; control characters become spaces and
//! runs of space one.

use std::borrow::Cow;

use serde_json::Value;

use super::build::View;
use super::error::prefix;
use crate::HookEvent;
use crate::event::{CallStatus, ErrorInfo, Fact, SUMMARY_MAX_CHARS};

/// More than any line can need, however much of it is space.
const LOOKED_AT_BYTES: usize = 8 * 1024;

/// The line of an event.
pub(super) fn summary(view: &View<'_>, fact: &Fact, error: Option<&ErrorInfo>) -> String {
    line(&text(view, fact, error))
}

/// Any text as one line: no control characters, no format characters that reorder it, cut with an ellipsis.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    let mut space = false;
    for c in prefix(text, LOOKED_AT_BYTES).chars() {
        if c.is_whitespace() || c.is_control() || is_bidi_control(c) {
            space = chars > 0;
            continue;
        }
        // The space before this one, this one, and the ellipsis that may follow.
        if chars + usize::from(space) + 2 > SUMMARY_MAX_CHARS {
            line.push('…');
            break;
        }
        if space {
            line.push(' ');
            chars += 1;
            space = false;
        }
        line.push(c);
        chars += 1;
    }
    line
}

/// Characters that show text in another order than it has.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
}

fn text<'a>(view: &'a View<'a>, fact: &Fact, error: Option<&ErrorInfo>) -> Cow<'a, str> {
    let field = |name: &str| view.fields.str(name).unwrap_or_default();
    match view.kind {
        HookEvent::PreToolUse | HookEvent::PostToolUse | HookEvent::PermissionRequest => {
            with_error(tool(view), error)
        }
        HookEvent::PermissionDenied => joined(&tool(view), &field("reason")),
        HookEvent::PostToolUseFailure => with_error(tool(view), error),
        HookEvent::PostToolBatch => batch(fact, error),
        HookEvent::UserPromptSubmit | HookEvent::UserPromptExpansion => field("prompt"),
        HookEvent::Notification | HookEvent::Elicitation => joined(&field("title"), &field("message")),
        HookEvent::MessageDisplay => field("delta"),
        HookEvent::Stop => field("last_assistant_message"),
        HookEvent::SubagentStop => joined(&field("agent_type"), &field("last_assistant_message")),
        HookEvent::SubagentStart => field("agent_type"),
        HookEvent::StopFailure => joined(&field("error"), error.map_or("", |error| error.message.as_str())),
        HookEvent::TaskCreated | HookEvent::TaskCompleted => field("task_subject"),
        HookEvent::TeammateIdle => field("teammate_name"),
        HookEvent::SessionStart => joined(&field("source"), &field("model")),
        HookEvent::ConfigChange => joined(&field("source"), relative(view, &field("file_path"))),
        HookEvent::InstructionsLoaded => joined(&field("load_reason"), relative(view, &field("file_path"))),
        HookEvent::FileChanged => joined(&field("event"), relative(view, &field("file_path"))),
        HookEvent::CwdChanged => joined_by(&field("old_cwd"), " → ", &field("new_cwd")),
        HookEvent::DirectoryAdded => field("directory"),
        HookEvent::WorktreeCreate => joined(&field("name"), &field("worktree_name")),
        HookEvent::WorktreeRemove => field("worktree_path"),
        HookEvent::PreCompact => joined(&field("trigger"), &field("custom_instructions")),
        HookEvent::PostCompact => joined(&field("trigger"), &field("compact_summary")),
        HookEvent::ElicitationResult => joined(&field("mcp_server_name"), &field("action")),
        HookEvent::Setup => field("trigger"),
        HookEvent::SessionEnd => field("reason"),
        HookEvent::Unknown(_) => unknown(view),
    }
}

/// Of an event unknown here, what most events would say.
fn unknown<'a>(view: &'a View<'a>) -> Cow<'a, str> {
    if view.tool_name.is_some() {
        return tool(view);
    }
    ["message", "prompt", "summary", "reason", "error"]
        .iter()
        .find_map(|name| view.fields.str(name))
        .unwrap_or_default()
}

fn with_error<'a>(what: Cow<'a, str>, error: Option<&ErrorInfo>) -> Cow<'a, str> {
    match error {
        Some(error) => joined(&what, first_line(&error.message)),
        None => what,
    }
}

/// The line that says most: the one after a bare `Exit code N`, else the first.
fn first_line(message: &str) -> &str {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("");
    if first.starts_with("Exit code") { prefix(message, 200) } else { first }
}

fn batch<'a>(fact: &Fact, error: Option<&ErrorInfo>) -> Cow<'a, str> {
    let Fact::ToolBatch(calls) = fact else { return Cow::Borrowed("") };
    let mut text = String::new();
    for call in calls.iter().take(16) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&call.tool.tool_name);
        if matches!(call.status, CallStatus::Denied | CallStatus::Failed | CallStatus::Interrupted) {
            text.push(' ');
            text.push_str(call.status.name());
        }
    }
    with_error(Cow::Owned(text), error)
}

/// What a call does: a command, a path, a pattern, else the first text of its input.
fn tool<'a>(view: &'a View<'a>) -> Cow<'a, str> {
    let Some(input) = view.input else { return Cow::Borrowed("") };
    let text = |name: &str| input.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    for name in ["command", "file_path", "notebook_path"] {
        if let Some(text) = text(name) {
            return Cow::Borrowed(relative(view, text));
        }
    }
    if let Some(pattern) = text("pattern") {
        return match text("path") {
            Some(path) => joined_by(pattern, " in ", relative(view, path)),
            None => Cow::Borrowed(pattern),
        };
    }
    if let Some(skill) = text("skill") {
        return joined_by(skill, " ", text("args").unwrap_or(""));
    }
    for name in ["description", "url", "query", "subject", "path", "prompt", "plan", "message"] {
        if let Some(text) = text(name) {
            return Cow::Borrowed(relative(view, text));
        }
    }
    if let Some(todos) = input.get("todos").and_then(Value::as_array) {
        let done =
            todos.iter().filter(|todo| todo.get("status").and_then(Value::as_str) == Some("completed"));
        return Cow::Owned(format!("{} of {} done", done.count(), todos.len()));
    }
    let first = input.as_object().and_then(|fields| fields.values().find_map(Value::as_str));
    Cow::Borrowed(first.unwrap_or(""))
}

/// A path as seen from the working directory.
fn relative<'a>(view: &View<'_>, path: &'a str) -> &'a str {
    let inside = view.cwd.and_then(|cwd| path.strip_prefix(cwd)?.strip_prefix(['/', '\\']));
    inside.filter(|path| !path.is_empty()).unwrap_or(path)
}

fn joined<'a>(a: &str, b: &str) -> Cow<'a, str> {
    joined_by(a, ": ", b)
}

fn joined_by<'a>(a: &str, separator: &str, b: &str) -> Cow<'a, str> {
    let (a, b) = (prefix(a, LOOKED_AT_BYTES), prefix(b, LOOKED_AT_BYTES));
    Cow::Owned(if a.is_empty() || b.is_empty() { format!("{a}{b}") } else { format!("{a}{separator}{b}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(line("  a\n\tb\u{1b}[31m\u{0}c \u{202e}d "), "a b [31m c d");
        assert_eq!(line(""), "");
        let long = line(&"é ".repeat(400));
        assert!(long.chars().count() <= SUMMARY_MAX_CHARS, "{}", long.chars().count());
        assert!(long.ends_with('…'));
        let uneven = line(&format!("x{}", "yy z".repeat(400)));
        assert!(uneven.chars().count() <= SUMMARY_MAX_CHARS, "{}", uneven.chars().count());
        let exact = "x".repeat(SUMMARY_MAX_CHARS - 1);
        assert_eq!(line(&exact), exact);
    }
}
