//! What a person should know of an event: few rules, each with a name that others may refer to.
//!
//! These observe; they stop nothing. Judging commands is the guard's work.

use serde_json::Value;

use super::build::View;
use super::shell::{self, Command, Separator};
use crate::HookEvent;
use crate::event::{Payload, Severity, Warning};

/// The payload was cut before it came here.
pub const PAYLOAD_TRUNCATED: &str = "payload_truncated";
/// Secrets were replaced in the payload.
pub const SECRET_REDACTED: &str = "secret_redacted";
/// An event of a name that this version does not know.
pub const UNKNOWN_EVENT: &str = "unknown_event";
/// The hook client held the agent up.
pub const SLOW_HOOK: &str = "slow_hook";
/// A command asked to run outside of the sandbox.
pub const SANDBOX_DISABLED: &str = "sandbox_disabled";
/// The session runs without permission checks.
pub const PERMISSIONS_BYPASSED: &str = "permissions_bypassed";
/// History of a branch is overwritten at the remote.
pub const FORCE_PUSH: &str = "force_push";
/// A download is run without being looked at.
pub const PIPE_TO_SHELL: &str = "pipe_to_shell";
/// A tree is deleted.
pub const RECURSIVE_DELETE: &str = "recursive_delete";

/// A hook call longer than this is slow.
pub const SLOW_HOOK_US: u64 = 1_000_000;

/// What is to be known of this event. Commands are warned of once, when they are to be run.
pub(super) fn warnings(view: &View<'_>, payload: &Payload, hook_wall_us: Option<u64>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |rule: &str, severity, message: String| {
        warnings.push(Warning { rule: rule.to_owned(), severity, message });
    };
    if payload.truncated {
        let message = format!("payload of {} bytes was cut", payload.original_bytes);
        warn(PAYLOAD_TRUNCATED, Severity::Info, message);
    }
    if payload.redactions > 0 {
        warn(SECRET_REDACTED, Severity::Warning, format!("secrets replaced: {}", payload.redactions));
    }
    if let HookEvent::Unknown(name) = view.kind {
        warn(UNKNOWN_EVENT, Severity::Info, format!("unknown event {name}: stored as it came"));
    }
    if let Some(wall_us) = hook_wall_us.filter(|us| *us > SLOW_HOOK_US) {
        warn(SLOW_HOOK, Severity::Warning, format!("the hook took {} ms", wall_us / 1000));
    }
    if *view.kind == HookEvent::UserPromptSubmit
        && view.fields.str("permission_mode").is_some_and(|mode| mode == "bypassPermissions")
    {
        warn(
            PERMISSIONS_BYPASSED,
            Severity::Warning,
            "the session runs without permission checks".to_owned(),
        );
    }
    if *view.kind == HookEvent::PreToolUse && view.tool_name == Some("Bash") {
        of_command(view, &mut warn);
    }
    warnings
}

fn of_command(view: &View<'_>, warn: &mut dyn FnMut(&str, Severity, String)) {
    let Some(input) = view.input else { return };
    if input.get("dangerouslyDisableSandbox").and_then(Value::as_bool) == Some(true) {
        warn(
            SANDBOX_DISABLED,
            Severity::Warning,
            "the command asks to run outside of the sandbox".to_owned(),
        );
    }
    let Some(script) = input.get("command").and_then(Value::as_str) else { return };
    let commands = shell::commands(script);
    if commands.iter().any(is_force_push) {
        warn(FORCE_PUSH, Severity::Warning, "a force push overwrites the branch at the remote".to_owned());
    }
    if commands.windows(2).any(is_pipe_to_shell) {
        warn(
            PIPE_TO_SHELL,
            Severity::Critical,
            "a download is run by a shell without being looked at".to_owned(),
        );
    }
    if commands.iter().any(is_recursive_delete) {
        warn(RECURSIVE_DELETE, Severity::Warning, "the command deletes a tree of files".to_owned());
    }
}

fn is_force_push(command: &Command<'_>) -> bool {
    let has = |option: &str| command.words.iter().any(|word| word.text == option);
    command.program() == "git"
        && has("push")
        && (has("--force")
            || has("-f")
            || command.words.iter().any(|word| word.text.starts_with("--force-with-lease"))
            || command.words.iter().skip(2).any(|word| word.text.len() > 1 && word.text.starts_with('+')))
}

fn is_pipe_to_shell(pair: &[Command<'_>]) -> bool {
    let [from, to] = pair else { return false };
    from.then == Separator::Pipe
        && matches!(from.program(), "curl" | "wget")
        && matches!(
            to.program(),
            "sh" | "bash" | "zsh" | "dash" | "fish" | "python" | "python3" | "node" | "perl" | "ruby"
        )
}

fn is_recursive_delete(command: &Command<'_>) -> bool {
    let is_recursive = |option: &str| {
        option == "--recursive"
            || option.starts_with('-') && !option.starts_with("--") && option.contains(['r', 'R'])
    };
    command.program() == "rm" && command.words.iter().skip(1).any(|word| is_recursive(&word.text))
}
