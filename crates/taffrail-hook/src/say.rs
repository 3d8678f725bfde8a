//! Says the verdict in the client's terms, and fails open when this program itself breaks.
//!
//! A deny is said twice, as JSON on stdout and by exit code 2 with the reason on stderr: each alone stops the tool.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use taffrail_guard::{Decision, Verdict};

/// Exit code that blocks a tool call.
const EXIT_BLOCK: u8 = 2;

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "hookSpecificOutput")]
    output: PreToolUseOutput<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PreToolUseOutput<'a> {
    hook_event_name: &'static str,
    permission_decision: &'static str,
    permission_decision_reason: &'a str,
}

/// Writes the guard's verdict, or what the server said where the guard leaves room for it.
pub(crate) fn verdict(verdict: &Verdict, server_answer: Option<&str>) -> ExitCode {
    match verdict.decision {
        Decision::Deny => {
            print(&answer("deny", &verdict.reason));
            let _ = writeln!(io::stderr(), "{}", verdict.reason);
            ExitCode::from(EXIT_BLOCK)
        }
        Decision::Ask => {
            // The server can only tighten an ask, never lift it.
            match server_answer.filter(|answer| is_stricter_than_ask(answer)) {
                Some(stricter) => print(stricter),
                None => print(&answer("ask", &verdict.reason)),
            }
            ExitCode::SUCCESS
        }
        Decision::Allow | Decision::Warn => {
            if let Some(answer) = server_answer {
                print(answer);
            }
            ExitCode::SUCCESS
        }
    }
}

/// Says which version this is, for `doctor`.
pub(crate) fn version() -> ExitCode {
    print(concat!("taffrail-hook ", env!("CARGO_PKG_VERSION"), "\n"));
    ExitCode::SUCCESS
}

fn answer(decision: &'static str, reason: &str) -> String {
    let output = PreToolUseOutput {
        hook_event_name: "PreToolUse",
        permission_decision: decision,
        permission_decision_reason: reason,
    };
    serde_json::to_string(&Answer { output }).unwrap_or_default()
}

fn is_stricter_than_ask(answer: &str) -> bool {
    #[derive(Deserialize)]
    struct ServerAnswer {
        #[serde(rename = "hookSpecificOutput")]
        output: Option<ServerOutput>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ServerOutput {
        permission_decision: Option<String>,
    }
    serde_json::from_str::<ServerAnswer>(answer)
        .ok()
        .and_then(|answer| answer.output?.permission_decision)
        .is_some_and(|decision| matches!(decision.as_str(), "deny" | "defer"))
}

fn print(json: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(json.as_bytes()).and_then(|()| stdout.flush());
}

static JUDGING: AtomicBool = AtomicBool::new(false);

/// While it lives, a crash becomes an `ask`: the guard never allows by breaking.
pub(crate) struct Judging;

impl Judging {
    pub(crate) fn begin() -> Self {
        JUDGING.store(true, Ordering::Relaxed);
        Self
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        JUDGING.store(false, Ordering::Relaxed);
    }
}

/// Makes a panic anywhere end the process quietly with exit code 0, whatever the profile does on panic.
pub(crate) fn fail_open_on_panic() {
    std::panic::set_hook(Box::new(|_| {
        if JUDGING.load(Ordering::Relaxed) {
            print(&answer("ask", "Taffrail's guard failed on this call; please look at it."));
        }
        std::process::exit(0);
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_form_the_client_reads() {
        let value: serde_json::Value = serde_json::from_str(&answer("deny", "a \"quoted\" reason")).unwrap();
        let expected = serde_json::json!({"hookSpecificOutput": {"hookEventName": "PreToolUse",
            "permissionDecision": "deny", "permissionDecisionReason": "a \"quoted\" reason"}});
        assert_eq!(value, expected);
    }

    #[test]
    fn only_a_deny_or_defer_tightens_an_ask() {
        let decision = |d: &str| format!(r#"{{"hookSpecificOutput":{{"permissionDecision":"{d}"}}}}"#);
        assert!(is_stricter_than_ask(&decision("deny")));
        assert!(is_stricter_than_ask(&decision("defer")));
        assert!(!is_stricter_than_ask(&decision("allow")));
        assert!(!is_stricter_than_ask("{}"));
        assert!(!is_stricter_than_ask(r#"{"hookSpecificOutput":7}"#));
    }
}
