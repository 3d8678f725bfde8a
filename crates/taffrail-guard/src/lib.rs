//! Shell and path analysis: from a tool call to a verdict. Pure: no file, no clock, no environment.
//!
//! The hook client asks before a tool runs and has about a millisecond, so everything here is linear in the command's
//! length and bounded by named limits. The first rule is [`rule::RECURSIVE_DELETE`]: a recursive delete of what nobody
//! wants gone. What cannot be parsed or afforded and looks like a recursive delete becomes `ask`; what cannot be parsed
//! and has nothing to do with deleting stays `allow`.
//!
//! Flow: [`shell`] splits a script into simple commands, `walk` follows variables, directories and wrappers such as
//! `sudo` or `sh -c` through them, `recursive_delete` judges the targets of each `rm`. A fuller grammar replaces
//! [`shell`] without touching the rest.
//!
//! Limits: symbolic links are not followed, other interpreters (`python -c`, `perl -e`) and `find -delete` are not
//! looked into, variables that the script does not set itself are unknown.

mod recursive_delete;
pub mod shell;
mod walk;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names of the rules, as they appear in verdicts.
pub mod rule {
    /// Recursive delete of the root, a home, a system directory, `.git`, a parent directory or the recorder's own data.
    pub const RECURSIVE_DELETE: &str = "recursive-delete";
    /// Contains a recursive delete but could not be analysed.
    pub const UNPARSED_DELETE: &str = "unparsed-delete";
}

/// What should happen to a tool call, from mildest to strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Nothing to say.
    Allow,
    /// Recorded and shown, the call runs.
    Warn,
    /// A person decides.
    Ask,
    /// The call does not run.
    Deny,
}

impl Decision {
    /// The name used in verdicts and by the client.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// How bad it would have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No harm.
    None,
    /// Work may be lost that can be made again.
    Medium,
    /// Work may be lost for good.
    High,
    /// The machine or a home may be lost.
    Critical,
}

/// The guard's answer to one tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What should happen.
    pub decision: Decision,
    /// The rule that fired, one of [`rule`]; absent when nothing did.
    pub rule: Option<String>,
    /// How bad it would have been.
    pub severity: Severity,
    /// One sentence for the agent and the person; empty when nothing fired. Names from the command are capped.
    pub reason: String,
}

impl Verdict {
    /// Nothing to say.
    #[must_use]
    pub fn allow() -> Self {
        Self { decision: Decision::Allow, rule: None, severity: Severity::None, reason: String::new() }
    }

    pub(crate) fn new(decision: Decision, rule: &str, severity: Severity, reason: String) -> Self {
        Self { decision, rule: Some(rule.to_owned()), severity, reason }
    }

    /// The verdict on a call whose input is too large or too broken to look into.
    #[must_use]
    pub fn unparsed_delete(why: &str) -> Self {
        let reason =
            format!("Taffrail could not analyse a command that contains a recursive delete ({why}).");
        Self::new(Decision::Ask, rule::UNPARSED_DELETE, Severity::High, reason)
    }
}

/// Where a call happens. Paths are absolute and textual; nothing is looked up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Working directory of the session, when the client told it.
    pub cwd: Option<&'a str>,
    /// The user's home directory.
    pub home: Option<&'a str>,
    /// The recorder's own data directory (`TAFFRAIL_HOME`).
    pub taffrail_home: Option<&'a str>,
}

/// Judges a call by its whole input. Calls without a `command` are allowed: this rule set looks at commands only.
#[must_use]
pub fn check(_tool_name: &str, tool_input: &Value, context: &Context<'_>) -> Verdict {
    match tool_input.get("command") {
        Some(Value::String(command)) => check_command(command, context),
        Some(Value::Array(argv)) => {
            let argv: Vec<&str> = argv.iter().filter_map(Value::as_str).collect();
            check_argv(&argv, context)
        }
        _ => Verdict::allow(),
    }
}

/// Judges a shell command line.
#[must_use]
pub fn check_command(command: &str, context: &Context<'_>) -> Verdict {
    // Almost every command ends here: without these two letters in order there is nothing to parse.
    if !may_name_rm(command) {
        return Verdict::allow();
    }
    match walk::judge_script(command, context) {
        Ok(verdict) => verdict,
        Err(unparsed) if mentions_recursive_delete(command) => Verdict::unparsed_delete(unparsed.as_str()),
        Err(_) => Verdict::allow(),
    }
}

/// Judges a command given as an argument list, as some agents do.
#[must_use]
pub fn check_argv(argv: &[&str], context: &Context<'_>) -> Verdict {
    let quoted: Vec<String> = argv.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect();
    check_command(&quoted.join(" "), context)
}

/// Whether a text that could not be parsed seems to hold a recursive delete: the word `rm` and, somewhere, a short
/// option cluster with `r` or `R`, or a long option that starts with `--r`. Quotes and backslashes are looked through.
#[must_use]
pub fn mentions_recursive_delete(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
    [text, bare.as_str()].into_iter().any(|text| {
        let mut words = text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.')));
        words.by_ref().any(|word| word == "rm") && words.any(is_recursive_option)
    })
}

/// Whether a word is an option that makes `rm` recursive: `-r`, `-Rf`, `-fr`, `--recursive` and its abbreviations.
pub(crate) fn is_recursive_option(word: &str) -> bool {
    if let Some(long) = word.strip_prefix("--") {
        return !long.is_empty() && "recursive".starts_with(long);
    }
    word.strip_prefix('-')
        .is_some_and(|short| short.contains(['r', 'R']) && short.chars().all(|c| c.is_ascii_alphabetic()))
}

/// A cheap necessary condition: the letters `r` and `m`, with at most quoting between them, or an escape or expansion
/// that could produce them.
fn may_name_rm(command: &str) -> bool {
    let bytes = command.as_bytes();
    let could_be_built = memchr_any(bytes, b"$`") && memchr_any(bytes, b"-");
    could_be_built
        || bytes.iter().enumerate().any(|(at, byte)| {
            *byte == b'r'
                && bytes[at + 1..].iter().find(|b| !matches!(b, b'\'' | b'"' | b'\\' | b'\n')) == Some(&b'm')
        })
}

fn memchr_any(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.iter().any(|byte| wanted.contains(byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
