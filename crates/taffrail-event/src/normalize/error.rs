//! Failures: their class, whether trying again can help, the stack trace, the fingerprint.
//!
//! [`CLASSES`] is the closed set. The class is read from what the client says (`is_interrupt`, the error names of
//! StopFailure, `Exit code N`) and else from phrases of operating systems, git and interpreters; only the first and
//! last [`PHRASE_WINDOW_BYTES`] of a message are searched, since a long output quotes all sorts of phrases.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::build::View;
use super::fields::{Fields, string_of};
use crate::HookEvent;
use crate::event::{CallStatus, ERROR_MESSAGE_MAX_BYTES, ErrorInfo};
use crate::ids::hash_parts;

/// A class of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The name in JSON, the database and rules.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether trying again, or a repair that is not a person's, can help.
    pub recoverable: bool,
}

const fn class(name: &'static str, recoverable: bool, meaning: &'static str) -> Class {
    Class { name, meaning, recoverable }
}

/// Every class.
pub const CLASSES: &[Class] = &[
    INTERRUPTED,
    NETWORK,
    RATE_LIMIT,
    OVERLOADED,
    SERVER_ERROR,
    TIMEOUT,
    AUTH,
    BILLING,
    CONTEXT_LIMIT,
    INVALID_INPUT,
    PERMISSION,
    NOT_FOUND,
    FILE_SYSTEM,
    GIT_LOCK,
    GIT,
    EXIT_CODE,
    TOOL,
    UNKNOWN,
];

const INTERRUPTED: Class = class("interrupted", false, "a person stopped it");
const NETWORK: Class = class("network", true, "no connection: name, route, refusal, reset, certificate");
const RATE_LIMIT: Class = class("rate_limit", true, "too many requests or tokens in a time");
const OVERLOADED: Class = class("overloaded", true, "the API has no capacity at the moment");
const SERVER_ERROR: Class = class("server_error", true, "the API or a server failed");
const TIMEOUT: Class = class("timeout", true, "it took longer than it was given");
const AUTH: Class = class("auth", false, "credentials are missing, wrong or expired");
const BILLING: Class = class("billing", false, "the account has no credit or plan for it");
const CONTEXT_LIMIT: Class = class("context_limit", true, "more tokens than the model or the tool takes");
const INVALID_INPUT: Class = class("invalid_input", true, "the tool or the API refused what it was given");
const PERMISSION: Class = class("permission", false, "the operating system or a policy forbids it");
const NOT_FOUND: Class = class("not_found", true, "a file, command or module does not exist");
const FILE_SYSTEM: Class =
    class("file_system", false, "disk full, read-only, too many files, wrong kind of file");
const GIT_LOCK: Class =
    class("git_lock", true, "another git process holds the index, or left its lock behind");
const GIT: Class = class("git", false, "git refused: conflict, rejected push, no such revision");
const EXIT_CODE: Class =
    class("exit_code", true, "a command ended with a code other than 0, for its own reasons");
const TOOL: Class = class("tool", true, "the tool failed and its message names no other class");
const UNKNOWN: Class = class("unknown", false, "an API failure that names no known class");

/// How the client marks a tool result it made itself, before the tool ran.
pub(super) const TOOL_USE_ERROR: &str = "<tool_use_error>";

/// How much of each end of a message is searched for phrases.
const PHRASE_WINDOW_BYTES: usize = 2 * 1024;

/// How many lines of a message without a stack trace go into its fingerprint.
const FINGERPRINT_LINES: usize = 8;

/// The longest stack trace kept beside the payload, in bytes.
const STACK_TRACE_MAX_BYTES: usize = 8 * 1024;

/// Phrases in lower case, most telling first.
const PHRASES: &[(Class, &[&str])] = &[
    (
        GIT_LOCK,
        &["index.lock", ".lock': file exists", "another git process seems to be running", "cannot lock ref"],
    ),
    (
        CONTEXT_LIMIT,
        &[
            "prompt is too long",
            "maximum context length",
            "context window",
            "exceeds maximum allowed tokens",
            "context_length_exceeded",
        ],
    ),
    (TIMEOUT, &["timed out", "deadline exceeded", "timeout expired", "etimedout", "timeout of "]),
    (
        RATE_LIMIT,
        &["rate limit", "rate_limit", "too many requests", "http 429", "error: 429", "429 too many"],
    ),
    (OVERLOADED, &["overloaded", "error: 529"]),
    (BILLING, &["credit balance", "billing", "quota exceeded", "insufficient_quota"]),
    (
        AUTH,
        &[
            "authentication failed",
            "invalid api key",
            "unauthorized",
            "error: 401",
            "could not read username",
            "permission denied (publickey",
            "token has expired",
            "please run /login",
        ],
    ),
    (
        NETWORK,
        &[
            "could not resolve host",
            "name or service not known",
            "temporary failure in name resolution",
            "connection refused",
            "econnrefused",
            "connection reset",
            "econnreset",
            "network is unreachable",
            "no route to host",
            "enotfound",
            "eai_again",
            "getaddrinfo",
            "socket hang up",
            "fetch failed",
            "connection error",
            "certificate verify failed",
            "unable to get local issuer certificate",
        ],
    ),
    (
        FILE_SYSTEM,
        &[
            "no space left on device",
            "enospc",
            "read-only file system",
            "erofs",
            "too many open files",
            "emfile",
            "disk quota exceeded",
            "is a directory",
            "eisdir",
            "not a directory",
            "enotdir",
            "directory not empty",
            "input/output error",
            "file name too long",
            "file exists",
        ],
    ),
    (
        PERMISSION,
        &[
            "permission denied",
            "eacces",
            "operation not permitted",
            "eperm",
            "access is denied",
            "permission to use",
            "denied by your permission settings",
            "not allowed",
        ],
    ),
    (
        NOT_FOUND,
        &[
            "no such file or directory",
            "enoent",
            "command not found",
            "does not exist",
            "cannot find module",
            "modulenotfounderror",
            "no module named",
            "not recognized as an internal or external command",
            "file not found",
        ],
    ),
    (
        GIT,
        &[
            "fatal: ",
            "merge conflict",
            "automatic merge failed",
            "[rejected]",
            "error: failed to push",
            "error: pathspec",
        ],
    ),
    (
        SERVER_ERROR,
        &[
            "internal server error",
            "bad gateway",
            "service unavailable",
            "server_error",
            "error: 500",
            "error: 502",
            "error: 503",
        ],
    ),
    (
        INVALID_INPUT,
        &[
            "inputvalidationerror",
            "invalid_request",
            "required parameter",
            "string to replace not found",
            "has not been read yet",
            "file has been modified since",
            "found multiple matches",
            "no changes to make",
            "invalid arguments",
        ],
    ),
];

/// The names that StopFailure and API errors use.
const API_ERRORS: &[(&str, Class)] = &[
    ("rate_limit", RATE_LIMIT),
    ("rate_limit_error", RATE_LIMIT),
    ("overloaded", OVERLOADED),
    ("overloaded_error", OVERLOADED),
    ("server_error", SERVER_ERROR),
    ("api_error", SERVER_ERROR),
    ("authentication_failed", AUTH),
    ("authentication_error", AUTH),
    ("oauth_org_not_allowed", AUTH),
    ("permission_error", AUTH),
    ("billing_error", BILLING),
    ("invalid_request", INVALID_INPUT),
    ("invalid_request_error", INVALID_INPUT),
    ("model_not_found", NOT_FOUND),
    ("not_found_error", NOT_FOUND),
    ("request_too_large", CONTEXT_LIMIT),
    ("max_output_tokens", CONTEXT_LIMIT),
    ("timeout", TIMEOUT),
    ("timeout_error", TIMEOUT),
    ("connection_error", NETWORK),
    ("unknown", UNKNOWN),
];

/// The class of that name.
pub fn class_named(name: &str) -> Option<Class> {
    CLASSES.iter().copied().find(|class| class.name == name)
}

/// What became of a call by its own Post event, and why, if it failed.
pub(super) fn of_call(view: &View<'_>) -> (CallStatus, Option<ErrorInfo>) {
    let tool = view.tool_name.unwrap_or("");
    if *view.kind == HookEvent::PostToolUseFailure {
        let message = view.error_text.map(Cow::Borrowed).or_else(|| view.fields.str("tool_response"));
        let message = message.as_deref().unwrap_or("");
        if view.fields.bool("is_interrupt") == Some(true) {
            return (CallStatus::Interrupted, Some(info(INTERRUPTED, tool, message)));
        }
        return (CallStatus::Failed, Some(info(classify(message), tool, message)));
    }
    of_response(tool, view.response.unwrap_or(""))
}

/// A PostToolUse normally stands for success; old clients send it for failures too, told by the response alone.
/// Output on stderr is no failure.
fn of_response(tool: &str, raw: &str) -> (CallStatus, Option<ErrorInfo>) {
    if raw.starts_with('"') {
        return match string_of(raw) {
            Some(text) if text.starts_with(TOOL_USE_ERROR) => {
                (CallStatus::Failed, Some(of_tool_use_error(tool, &text)))
            }
            _ => (CallStatus::Succeeded, None),
        };
    }
    let response = Fields::nested(raw);
    let is = |name: &str| response.raw(name) == Some("true");
    if is("interrupted") || is("wasInterrupted") {
        let message = response.str("stderr").filter(|text| !text.is_empty());
        return (
            CallStatus::Interrupted,
            Some(info(INTERRUPTED, tool, message.as_deref().unwrap_or("interrupted"))),
        );
    }
    if is("is_error") || is("isError") || response.raw("success") == Some("false") {
        let message = ["error", "message", "stderr", "content", "stdout"]
            .iter()
            .find_map(|name| response.str(name).filter(|text| !text.is_empty()));
        let message = message.as_deref().unwrap_or("the tool's response says that it failed");
        return (CallStatus::Failed, Some(info(classify(message), tool, message)));
    }
    (CallStatus::Succeeded, None)
}

/// A call that failed with that message, where nothing but the message tells.
pub(super) fn of_message(tool: &str, message: &str) -> ErrorInfo {
    info(classify(message), tool, message)
}

/// A turn that ended on an API error.
pub(super) fn of_stop(view: &View<'_>) -> ErrorInfo {
    let name = view.error_text.unwrap_or("");
    let details = view.fields.str("error_details").or_else(|| view.fields.str("last_assistant_message"));
    let message = details.as_deref().filter(|text| !text.is_empty()).unwrap_or(name);
    let known = API_ERRORS.iter().find(|(known, _)| *known == name).map(|(_, class)| *class);
    // "unknown" and "server_error" are the client's words for what it has no word for: the text may say more.
    let class = match known {
        Some(class) if class != UNKNOWN && class != SERVER_ERROR => class,
        _ => phrase(message).or(known).unwrap_or(UNKNOWN),
    };
    info(class, name, message)
}

/// A call that the client refused before the tool ran.
pub(super) fn of_tool_use_error(tool: &str, text: &str) -> ErrorInfo {
    let inner = text.strip_prefix(TOOL_USE_ERROR).unwrap_or(text);
    let inner = inner.strip_suffix("</tool_use_error>").unwrap_or(inner).trim();
    let class = match phrase(inner) {
        Some(class @ (NOT_FOUND | PERMISSION | CONTEXT_LIMIT | INTERRUPTED)) => class,
        _ => INVALID_INPUT,
    };
    info(class, tool, inner)
}

/// What the text of a tool result tells of its call; most texts tell no more than that it ended.
pub(crate) fn status_of_result(text: &str) -> CallStatus {
    let head = prefix(text, 400);
    let has = |phrase: &str| head.contains(phrase);
    if has("[Request interrupted") || has("Interrupted by user") {
        return CallStatus::Interrupted;
    }
    if head.starts_with(TOOL_USE_ERROR) || exit_code(head).is_some_and(|code| code != 0) {
        return CallStatus::Failed;
    }
    let by_hook = head.starts_with("PreToolUse:") && has("hook error");
    let denied = by_hook
        || head.starts_with("Claude requested permissions")
        || head.starts_with("The user doesn't want to")
        || head.starts_with("Permission to use ")
        || head.starts_with("Permission for this action has been denied")
        || head.starts_with("Auto mode is unavailable")
        || head.starts_with("This command requires approval")
        || (has("needs approval") && head.len() < 300);
    if denied { CallStatus::Denied } else { CallStatus::Ended }
}

/// The class that a message tells of.
pub fn classify(message: &str) -> Class {
    if let Some(text) = message.strip_prefix(TOOL_USE_ERROR) {
        return phrase(text).filter(|class| *class == NOT_FOUND).unwrap_or(INVALID_INPUT);
    }
    if message.contains("[Request interrupted") {
        return INTERRUPTED;
    }
    let Some(code) = exit_code(message) else { return phrase(message).unwrap_or(TOOL) };
    match (phrase(message), code) {
        (Some(class), _) => class,
        (None, 124) => TIMEOUT,
        (None, 127) => NOT_FOUND,
        (None, 126) => PERMISSION,
        (None, 130) => INTERRUPTED,
        (None, _) => EXIT_CODE,
    }
}

/// The number of `Exit code N`, with which the client begins the message of a failed command.
fn exit_code(message: &str) -> Option<i32> {
    let rest = message.strip_prefix("Exit code ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn phrase(message: &str) -> Option<Class> {
    let head = prefix(message, PHRASE_WINDOW_BYTES).to_ascii_lowercase();
    let tail = if message.len() > PHRASE_WINDOW_BYTES {
        suffix(message, PHRASE_WINDOW_BYTES).to_ascii_lowercase()
    } else {
        String::new()
    };
    PHRASES
        .iter()
        .find(|(_, phrases)| phrases.iter().any(|phrase| head.contains(phrase) || tail.contains(phrase)))
        .map(|(class, _)| *class)
}

fn info(class: Class, tool: &str, message: &str) -> ErrorInfo {
    let message = prefix(message, ERROR_MESSAGE_MAX_BYTES);
    let stack_trace = stack_trace(message);
    ErrorInfo {
        class: class.name,
        message: message.to_owned(),
        recoverable: class.recoverable,
        retry_count: 0,
        fingerprint: fingerprint(class.name, tool, message, stack_trace.as_ref()),
        stack_trace: stack_trace.map(|trace| prefix(&trace.text, STACK_TRACE_MAX_BYTES).to_owned()),
    }
}

/// A stack trace and the line that names what was thrown.
#[derive(Debug, PartialEq, Eq)]
struct StackTrace {
    text: String,
    thrown: String,
}

/// The stack trace of Python, Rust, Go, Node or Java in a message, if there is one.
fn stack_trace(message: &str) -> Option<StackTrace> {
    let lines: Vec<&str> = message.lines().collect();
    python_trace(&lines)
        .or_else(|| rust_trace(&lines))
        .or_else(|| go_trace(&lines))
        .or_else(|| at_trace(&lines))
}

fn python_trace(lines: &[&str]) -> Option<StackTrace> {
    let start =
        lines.iter().position(|line| line.trim_start().starts_with("Traceback (most recent call last)"))?;
    let indent = lines[start].len() - lines[start].trim_start().len();
    let is_frame = |line: &&str| line.len() - line.trim_start().len() > indent || line.trim().is_empty();
    let length = lines[start + 1..].iter().take_while(|line| is_frame(line)).count();
    let end = (start + 1 + length).min(lines.len() - 1);
    Some(trace(&lines[start..=end], lines[end]))
}

fn rust_trace(lines: &[&str]) -> Option<StackTrace> {
    let start = lines.iter().position(|line| line.starts_with("thread '") && line.contains("panicked at"))?;
    let is_backtrace = |line: &str| {
        line.starts_with("stack backtrace:") || line.starts_with("note: ") || line.starts_with("   ")
    };
    // The panic's own message stands on the lines between its place and the backtrace.
    let message_lines =
        lines[start + 1..].iter().take_while(|line| !is_backtrace(line) && !line.is_empty()).count();
    let first = start + 1 + message_lines;
    let end = first + lines[first..].iter().take_while(|line| is_backtrace(line)).count();
    let thrown = lines.get(start + 1).filter(|_| message_lines > 0).unwrap_or(&lines[start]);
    Some(trace(&lines[start..end], thrown))
}

fn go_trace(lines: &[&str]) -> Option<StackTrace> {
    let is_goroutine = |line: &&str| line.starts_with("goroutine ") && line.contains('[');
    let goroutine = lines.iter().position(is_goroutine)?;
    let is_start = |line: &&str| line.starts_with("panic:") || line.starts_with("fatal error:");
    let start = lines[..goroutine].iter().rposition(is_start)?;
    let end = lines.iter().rposition(|line| line.starts_with('\t') || line.starts_with("exit status"));
    let end = end.filter(|end| *end > goroutine).unwrap_or(goroutine);
    Some(trace(&lines[start..=end], lines[start]))
}

/// Node and Java write frames alike: `    at name (place)`.
fn at_trace(lines: &[&str]) -> Option<StackTrace> {
    let is_frame = |line: &str| {
        let frame = line.trim_start();
        line.starts_with([' ', '\t'])
            && (frame.starts_with("at ") && (frame.contains('(') || frame.contains(':'))
                || frame.starts_with("... ") && frame.ends_with(" more"))
    };
    let first = lines.iter().position(|line| is_frame(line))?;
    let is_message = |line: &&&str| !line.trim().is_empty();
    let thrown = lines[..first].iter().rposition(|line| is_message(&line)).unwrap_or(first);
    let belongs = |line: &str| is_frame(line) || line.starts_with("Caused by:");
    let end = first + lines[first..].iter().take_while(|line| belongs(line)).count();
    Some(trace(&lines[thrown..end], lines[thrown]))
}

fn trace(lines: &[&str], thrown: &str) -> StackTrace {
    StackTrace { text: lines.join("\n"), thrown: thrown.trim().to_owned() }
}

/// What varies between two occurrences of one failure: colours, quoted text, times, ids, places, numbers.
static VARIABLE_PARTS: LazyLock<Regex> = LazyLock::new(|| {
    let parts = [
        r"(?P<ansi>\x1b\[[0-9;?]*[ -/]*[@-~])",
        r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?|\b\d\d:\d\d:\d\d(?:[.,]\d+)?)",
        r"(?P<uuid>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)",
        r#"(?P<quoted>"[^"\n]{0,400}"|'[^'\n]{0,400}'|`[^`\n]{0,400}`)"#,
        r"(?P<url>\b[a-z][a-z0-9+.-]{1,16}://[^\s)>\]]+)",
        r"(?P<path>(?:[A-Za-z]:\\|~?/|\.{1,2}/)[\w.@+~-]*(?:[/\\][\w.@+~-]+)*(?::\d+){0,2}|\b[\w.@+-]+(?:/[\w.@+-]+)+(?::\d+){0,2}|\b[\w-]+\.[a-z]{1,5}:\d+(?::\d+)?)",
        r"(?P<hex>\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{7,64}\b)",
        r"(?P<number>\d+(?:\.\d+)*)",
    ];
    Regex::new(&parts.join("|")).expect("a constant pattern that a test compiles")
});

fn fingerprint(class: &str, tool: &str, message: &str, trace: Option<&StackTrace>) -> String {
    let telling = match trace {
        Some(trace) => Cow::Borrowed(trace.thrown.as_str()),
        None => {
            let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
            Cow::Owned(lines.take(FINGERPRINT_LINES).collect::<Vec<_>>().join("\n"))
        }
    };
    let constant = without_variable_parts(prefix(&telling, PHRASE_WINDOW_BYTES));
    let digest = hash_parts(&[class.as_bytes(), tool.as_bytes(), constant.as_bytes()]);
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text with every variable part replaced by its kind.
fn without_variable_parts(text: &str) -> String {
    let replaced = VARIABLE_PARTS.replace_all(text, |captures: &regex::Captures<'_>| {
        let is = |name: &str| captures.name(name).is_some();
        match () {
            () if is("ansi") => "",
            () if is("time") => "<time>",
            () if is("uuid") || is("hex") => "<id>",
            () if is("quoted") => "<text>",
            () if is("url") => "<url>",
            () if is("path") => "<path>",
            () => "<n>",
        }
    });
    replaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The head of a text, cut at a character.
pub(super) fn prefix(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn suffix(text: &str, max_bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(max_bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn messages_have_these_classes() {
        let table = [
            ("Exit code 1", EXIT_CODE),
            ("Exit code 3", EXIT_CODE),
            ("Exit code 143\nCommand timed out after 1s", TIMEOUT),
            ("Exit code 124", TIMEOUT),
            ("Exit code 127\nbash: cargoo: command not found", NOT_FOUND),
            ("Exit code 127", NOT_FOUND),
            ("Exit code 130", INTERRUPTED),
            ("File does not exist. Note: your current working directory is /home/user/project.", NOT_FOUND),
            (
                "Exit code 128\nfatal: 'origin' does not appear to be a git repository\nfatal: Could not read from remote repository.",
                GIT,
            ),
            (
                "Exit code 128\nfatal: Unable to create '/p/.git/index.lock': File exists.\n\nAnother git process seems to be running",
                GIT_LOCK,
            ),
            (
                "Exit code 1\nCONFLICT (content): Merge conflict in a.txt\nAutomatic merge failed; fix conflicts",
                GIT,
            ),
            ("Exit code 6\ncurl: (6) Could not resolve host: example.com", NETWORK),
            ("connect ECONNREFUSED 127.0.0.1:5432", NETWORK),
            ("Exit code 1\ntouch: cannot touch '/etc/x': Permission denied", PERMISSION),
            ("Exit code 1\ncp: error writing 'x': No space left on device", FILE_SYSTEM),
            ("EISDIR: illegal operation on a directory, read", FILE_SYSTEM),
            ("File content (30000 tokens) exceeds maximum allowed tokens (25000).", CONTEXT_LIMIT),
            (
                "<tool_use_error>String to replace not found in file.\nString: x</tool_use_error>",
                INVALID_INPUT,
            ),
            (
                "<tool_use_error>InputValidationError: Write failed due to the following issue</tool_use_error>",
                INVALID_INPUT,
            ),
            ("<tool_use_error>File does not exist.</tool_use_error>", NOT_FOUND),
            ("Request failed with status code 429 Too Many Requests", RATE_LIMIT),
            ("API Error: 529 Overloaded", OVERLOADED),
            ("API Error: 500 Internal server error", SERVER_ERROR),
            ("[Request interrupted by user for tool use]", INTERRUPTED),
            ("something went wrong", TOOL),
            ("", TOOL),
        ];
        for (message, class) in table {
            assert_eq!(classify(message).name, class.name, "{message}");
        }
    }

    #[test]
    fn the_set_of_classes_is_closed_and_named_once() {
        for (index, class) in CLASSES.iter().enumerate() {
            assert_eq!(class_named(class.name), Some(*class));
            assert!(CLASSES[index + 1..].iter().all(|other| other.name != class.name));
        }
        for class in PHRASES.iter().map(|(class, _)| class).chain(API_ERRORS.iter().map(|(_, class)| class)) {
            assert!(CLASSES.contains(class), "{}", class.name);
        }
    }

    #[test]
    fn one_failure_has_one_fingerprint_and_another_has_another() {
        let print = |message: &str| info(classify(message), "Bash", message).fingerprint;
        let same = [
            (
                "Exit code 1\n/home/a/x.py:12:3: error 7 at 2026-11-22T09:00:00Z",
                "Exit code 1\n/srv/b/y.py:99:1: error 12 at 2025-01-02T03:04:05Z",
            ),
            ("cannot find 'foo' in 0xdeadbeef", "cannot find 'bar' in 0x1"),
            (
                "job 123e4567-e89b-12d3-a456-426614174000 failed",
                "job 00000000-e89b-12d3-a456-426614174999 failed",
            ),
            ("\u{1b}[31mred\u{1b}[0m alert", "red alert"),
            ("commit e7f7b7a is gone", "commit 0123abc is gone"),
        ];
        for (a, b) in same {
            assert_eq!(print(a), print(b), "{a} / {b}");
        }
        assert_ne!(print("Exit code 1\nlint failed"), print("Exit code 1\ntests failed"));
        assert_ne!(info(TOOL, "Read", "x").fingerprint, info(TOOL, "Write", "x").fingerprint);
        assert_eq!(print("x").len(), 16);
    }

    #[test]
    fn stack_traces_of_five_languages_are_found() {
        let table = [
            (
                "Exit code 1\nE.\nTraceback (most recent call last):\n  File \"a.py\", line 10, in f\n    x()\n    ^^^\nZeroDivisionError: division by zero\n\nRan 2 tests",
                "Traceback",
                "ZeroDivisionError: division by zero",
            ),
            (
                "thread 'main' panicked at src/main.rs:2:5:\nindex out of bounds: the len is 3\nstack backtrace:\n   0: rust_begin_unwind\n             at /rustc/x.rs:1:1\nnote: run with `RUST_BACKTRACE=full`\nmore",
                "thread 'main'",
                "index out of bounds: the len is 3",
            ),
            (
                "x\npanic: runtime error: nil map\n\ngoroutine 1 [running]:\nmain.main()\n\t/tmp/x.go:5 +0x1d\nexit status 2",
                "panic:",
                "panic: runtime error: nil map",
            ),
            (
                "node:internal/x:1\nTypeError: a is not a function\n    at f (/app/x.js:3:5)\n    at Module._compile (node:internal/modules:1:1)\n\nNode.js v20",
                "TypeError",
                "TypeError: a is not a function",
            ),
            (
                "Exception in thread \"main\" java.lang.IllegalStateException: bad\n\tat a.B.c(B.java:7)\n\tat a.B.main(B.java:3)\nCaused by: java.io.IOException: x\n\tat a.D.e(D.java:1)\n\t... 2 more",
                "Exception",
                "Exception in thread \"main\" java.lang.IllegalStateException: bad",
            ),
        ];
        for (message, begins, thrown) in table {
            let trace = stack_trace(message).unwrap();
            assert!(trace.text.starts_with(begins), "{trace:?}");
            assert_eq!(trace.thrown, thrown);
        }
        assert_eq!(stack_trace("Exit code 1\nlook at this: no trace"), None);
        assert_eq!(stack_trace(""), None);
    }

    #[test]
    fn results_of_a_batch_tell_the_status() {
        let table = [
            ("<tool_use_error>x</tool_use_error>", CallStatus::Failed),
            ("Exit code 1\nE.", CallStatus::Failed),
            ("PreToolUse:Bash hook error: Policy: data/ must not be removed", CallStatus::Denied),
            (
                "Claude requested permissions to write to /b.txt, but you haven't granted it yet.",
                CallStatus::Denied,
            ),
            ("The user doesn't want to proceed with this tool use.", CallStatus::Denied),
            ("This command requires approval", CallStatus::Denied),
            ("Auto mode is unavailable: its safety check does not run", CallStatus::Denied),
            ("[Request interrupted by user for tool use]", CallStatus::Interrupted),
            ("0ce9e45 Start", CallStatus::Ended),
            ("", CallStatus::Ended),
        ];
        for (text, status) in table {
            assert_eq!(status_of_result(text), status, "{text}");
        }
    }
}
