//! What kind of thing a call is, from its tool, its line and what it touched: whether it waits, whether it is mere
//! bookkeeping, whether it may have changed something.

use taffrail_analytics::trace::{Call, FileAction, Outcome};

/// Tools that wait for something by design; calling them again is what they are for.
const WAITING_TOOLS: &[&str] = &[
    "AgentOutputTool",
    "BashOutput",
    "Monitor",
    "ScheduleWakeup",
    "SendMessage",
    "Sleep",
    "TaskOutput",
    "Wait",
    "wait_agent",
    "write_stdin",
];
/// Tools that keep the agent's own notes, or ask a person.
const BOOKKEEPING_TOOLS: &[&str] = &[
    "AskUserQuestion",
    "EnterPlanMode",
    "ExitPlanMode",
    "Skill",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskUpdate",
    "TodoRead",
    "TodoWrite",
    "ToolSearch",
    "exit_plan_mode",
    "update_plan",
];
/// Tools that only look.
const LOOKING_TOOLS: &[&str] = &[
    "Glob",
    "Grep",
    "LS",
    "LSP",
    "ListMcpResourcesTool",
    "NotebookRead",
    "Read",
    "ReadMcpResourceTool",
    "WebFetch",
    "WebSearch",
];
/// Tools that start a subagent, which does as it likes.
const SPAWNING_TOOLS: &[&str] = &["Agent", "Task"];
/// Words of commands that wait.
const WAITING_WORDS: &[&str] = &[
    "sleep ",
    "wait ",
    "watch ",
    " --watch",
    "--wait",
    "tail -f",
    "inotifywait",
    "until ",
    "while ",
    "Start-Sleep",
];
/// Programs that only look, by the first word or two of a command.
const LOOKING_PROGRAMS: &[&str] = &[
    "[",
    "awk",
    "base64",
    "basename",
    "bat",
    "cal",
    "cat",
    "cd",
    "cksum",
    "cmp",
    "column",
    "comm",
    "cut",
    "date",
    "df",
    "diff",
    "dig",
    "dirname",
    "du",
    "echo",
    "env",
    "exa",
    "expr",
    "false",
    "fd",
    "file",
    "find",
    "fold",
    "free",
    "grep",
    "egrep",
    "fgrep",
    "head",
    "hexdump",
    "hostname",
    "id",
    "jq",
    "less",
    "ls",
    "lsof",
    "man",
    "md5sum",
    "more",
    "nl",
    "nproc",
    "od",
    "pgrep",
    "ping",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rg",
    "sed",
    "seq",
    "sha256sum",
    "sort",
    "stat",
    "strings",
    "tail",
    "test",
    "top",
    "tr",
    "tree",
    "true",
    "type",
    "uname",
    "uniq",
    "uptime",
    "wc",
    "which",
    "who",
    "whoami",
    "xxd",
    "yq",
];
/// Words after `git` that only look.
const LOOKING_GIT: &[&str] = &[
    "blame",
    "branch",
    "cat-file",
    "config",
    "describe",
    "diff",
    "grep",
    "log",
    "ls-files",
    "ls-remote",
    "ls-tree",
    "reflog",
    "remote",
    "rev-list",
    "rev-parse",
    "shortlog",
    "show",
    "status",
    "worktree",
];
/// Second words of clients such as `gh`, `kubectl` and `docker` that only look.
const LOOKING_SECOND: &[&str] =
    &["describe", "get", "info", "inspect", "list", "logs", "ls", "ps", "show", "status", "version", "view"];
/// Parts of an MCP tool's name that only look.
const LOOKING_PARTS: &[&str] = &[
    "describe",
    "fetch",
    "find",
    "get",
    "list",
    "logs",
    "query",
    "read",
    "screenshot",
    "search",
    "snapshot",
    "status",
    "view",
];

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nature {
    /// It waits, so that the same again is polling.
    pub(crate) waits: bool,
    /// It keeps notes or asks: no step of the work.
    pub(crate) bookkeeping: bool,
    /// It changed a file, or something in git.
    pub(crate) changed: bool,
    /// It succeeded, and is not known only to look: what failed before may succeed now.
    pub(crate) may_have_changed: bool,
    /// It starts a subagent.
    pub(crate) spawns: bool,
}

impl Nature {
    pub(crate) fn of(call: &Call) -> Self {
        let tool = &*call.tool;
        let worked = matches!(call.outcome, Outcome::Succeeded | Outcome::Ended);
        let touched = call.files.iter().any(|file| file.action != FileAction::Read);
        let in_git = call.git.iter().any(|git| !LOOKING_GIT.contains(&git.subcommand.as_str()));
        let bookkeeping = BOOKKEEPING_TOOLS.contains(&tool);
        let waits = WAITING_TOOLS.contains(&tool)
            || is_waiting_name(tool)
            || (is_shell(tool) && waits(&call.summary));
        Self {
            waits,
            bookkeeping,
            changed: worked && (touched || in_git),
            may_have_changed: worked && !bookkeeping && !waits && (touched || in_git || !only_looks(call)),
            spawns: SPAWNING_TOOLS.contains(&tool),
        }
    }
}

/// Whether the tool runs commands.
pub(crate) fn is_shell(tool: &str) -> bool {
    matches!(tool, "Bash" | "PowerShell" | "shell" | "exec_command" | "run_shell_command")
}

/// Whether the call can only have looked: it neither changes nor starts anything, whatever became of it.
pub(crate) fn is_lookup(call: &Call) -> bool {
    !SPAWNING_TOOLS.contains(&&*call.tool)
        && call.files.iter().all(|file| file.action == FileAction::Read)
        && call.git.iter().all(|git| LOOKING_GIT.contains(&git.subcommand.as_str()))
        && only_looks(call)
}

fn is_waiting_name(tool: &str) -> bool {
    tool.starts_with("mcp__") && (tool.contains("wait") || tool.contains("sleep"))
}

fn waits(command: &str) -> bool {
    WAITING_WORDS.iter().any(|word| command.contains(word))
        || command.split_whitespace().next() == Some("wait")
}

fn only_looks(call: &Call) -> bool {
    let tool = &*call.tool;
    if let Some(name) = tool.strip_prefix("mcp__").and_then(|rest| rest.rsplit("__").next()) {
        return LOOKING_PARTS.iter().any(|part| name.contains(part));
    }
    if !is_shell(tool) {
        return LOOKING_TOOLS.contains(&tool);
    }
    // A cut command, or one that writes somewhere, may do anything.
    if call.summary.ends_with('…') || writes(&call.summary) {
        return false;
    }
    commands(&call.summary).all(|words| looks(&words))
}

/// A `>` that goes neither to `/dev/null` nor to another stream.
fn writes(command: &str) -> bool {
    command.split('>').skip(1).any(|rest| {
        let to = rest.trim_start();
        !(to.is_empty() || to.starts_with('&') || to.starts_with("/dev/null"))
    })
}

/// The words of each command of a line, without variables set in front. Quotes are not followed: a wrong split makes a
/// command that is not known only to look.
fn commands(line: &str) -> impl Iterator<Item = Vec<&str>> {
    line.split(['|', ';', '&', '\n']).map(|command| {
        command.split_whitespace().skip_while(|word| word.contains('=') && !word.starts_with('-')).collect()
    })
}

fn looks(words: &[&str]) -> bool {
    let Some(program) = words.first().and_then(|word| word.rsplit('/').next()) else { return true };
    // What is left of `2>&1` by the split.
    if program.chars().all(|c| c.is_ascii_digit()) {
        return true;
    }
    let second = words[1..].iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    match program {
        "sed" => !words.iter().any(|word| word.starts_with("-i") || *word == "--in-place"),
        "find" => !words.iter().any(|word| matches!(*word, "-delete" | "-exec" | "-execdir")),
        "git" => LOOKING_GIT.contains(&second),
        "gh" | "docker" | "kubectl" | "podman" | "systemctl" | "npm" | "pip" | "cargo" | "gcloud" | "aws" => {
            words[1..].iter().any(|word| LOOKING_SECOND.contains(word))
        }
        _ => LOOKING_PROGRAMS.contains(&program),
    }
}

/// What a call aims at: the path of a file tool, the program and its first word of a command.
pub(crate) fn target(call: &Call) -> String {
    if !is_shell(&call.tool) {
        return call.files.first().map_or_else(|| call.summary.clone(), |file| file.path.to_string());
    }
    let aimed = commands(&call.summary).find(|words| !matches!(words.first().copied(), None | Some("cd")));
    aimed
        .unwrap_or_default()
        .into_iter()
        .filter(|word| !word.starts_with('-'))
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn call(tool: &str, summary: &str) -> Call {
        Call {
            tool: Arc::from(tool),
            summary: summary.to_owned(),
            outcome: Outcome::Succeeded,
            ..Call::default()
        }
    }

    #[track_caller]
    fn check(tool: &str, summary: &str, waits: bool, may_have_changed: bool) {
        let nature = Nature::of(&call(tool, summary));
        assert_eq!((nature.waits, nature.may_have_changed), (waits, may_have_changed), "{tool}: {summary}");
    }

    #[test]
    fn a_call_waits_looks_or_may_change() {
        check("Bash", "sleep 30 && gh run view 123", true, false);
        check("Bash", "gh run view 123 --json status", false, false);
        check("Bash", "cd /p && git status --short | head -5", false, false);
        check("Bash", "git commit -m x", false, true);
        check("Bash", "ls -la 2>/dev/null; cat a 2>&1 | grep b", false, false);
        check("Bash", "grep a b > c", false, true);
        check("Bash", "sed -i s/a/b/ f", false, true);
        check("Bash", "sed -n 1,5p f", false, false);
        check("Bash", "find . -name x -delete", false, true);
        check("Bash", "npm test", false, true);
        check("Bash", "NODE_ENV=x npm install", false, true);
        check("BashOutput", "bash_1", true, false);
        check("Read", "/a", false, false);
        check("mcp__github__get_issue", "", false, false);
        check("mcp__browser__click", "", false, true);
        check("mcp__browser__wait_for", "", true, false);
        check("TodoWrite", "", false, false);
        check("Task", "look around", false, true);
    }

    #[test]
    fn the_target_of_a_command_is_its_program() {
        assert_eq!(
            target(&call("Bash", "cd /p && RUST_LOG=1 cargo test -p x 2>&1 | tail -20")),
            "cargo test"
        );
        assert_eq!(target(&call("Read", "/a/b")), "/a/b");
        assert_eq!(target(&call("Bash", "")), "");
    }
}
