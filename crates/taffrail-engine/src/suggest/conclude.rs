//! From a tally to a suggestion, where there is evidence enough.

use taffrail_guard::{Context, Decision, check_command};

use super::agents::CHEAP_FAMILY;
use super::context::{KEPT_BYTES, SHELL_KEPT_BYTES};
use super::edit::{Edit, RuleList, is_plain_command, is_plain_name, is_plain_path};
use super::kind::Kind;
use super::tally::Tally;
use super::view::BYTES_PER_TOKEN;
use super::{Figure, Key, Saving, Suggestion};

/// Paths that a note names, at most.
const NAMED_PATHS_MAX: usize = 5;
/// How often another command must have worked to be named.
const INSTEAD_MIN: u64 = 2;
/// Sessions and calls of a project before a server counts as unused.
const UNUSED_MIN_CALLS: u64 = 100;
/// The longest subject in a title, in characters.
const TITLE_SUBJECT_CHARS: usize = 80;

/// Programs that may be allowed for good, by how their command begins. What is not here is never proposed.
const HARMLESS: &[&str] = &[
    "bun run build",
    "bun run lint",
    "bun run test",
    "bun test",
    "cargo build",
    "cargo check",
    "cargo clippy",
    "cargo doc",
    "cargo fmt",
    "cargo metadata",
    "cargo nextest",
    "cargo test",
    "cargo tree",
    "date",
    "eslint",
    "git blame",
    "git diff",
    "git log",
    "git ls-files",
    "git rev-parse",
    "git show",
    "git status",
    "go build",
    "go test",
    "go vet",
    "ls",
    "make build",
    "make check",
    "make lint",
    "make test",
    "mypy",
    "npm run build",
    "npm run lint",
    "npm run test",
    "npm run typecheck",
    "npm test",
    "npx eslint",
    "npx jest",
    "npx tsc",
    "npx vitest run",
    "pnpm build",
    "pnpm lint",
    "pnpm test",
    "pwd",
    "pytest",
    "python -m pytest",
    "python3 -m pytest",
    "ruff check",
    "tox",
    "tsc",
    "uname",
    "wc",
    "which",
    "yarn build",
    "yarn lint",
    "yarn test",
];
/// Options that make a harmless program write where it likes, or run what it likes.
const HARMFUL_OPTIONS: &[&str] =
    &["--output", "-o", "--ext-diff", "--config", "--exec", "--upload", "--pre", "--git-dir"];

/// Whether a command may be allowed for good: plain, known, and nothing that the guard warns of.
pub(super) fn is_harmless(command: &str) -> bool {
    let begins = |known: &&&str| {
        command.strip_prefix(**known).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    is_plain_command(command)
        && HARMLESS.iter().any(|known| begins(&known))
        && !command.split(' ').any(|word| HARMFUL_OPTIONS.iter().any(|option| word.starts_with(option)))
        && check_command(command, &Context::default()).decision == Decision::Allow
}

/// What stands in a suggestion beside its evidence.
struct Words {
    title: String,
    advice: String,
    basis: &'static str,
    edit: Option<Edit>,
}

/// The suggestion of a tally, where it is above the floor of its kind.
pub(super) fn conclude(key: &Key, tally: &Tally) -> Option<Suggestion> {
    let floor = key.kind.floor();
    let saving = (known_nano(tally), tally.ms);
    let pays = floor.saving.is_none_or(|(nano, ms)| {
        saving.0.is_some_and(|known| known >= nano) || saving.1.is_some_and(|known| known >= ms)
    });
    if tally.hits < floor.hits || (tally.sessions.len() as u64) < floor.sessions || !pays {
        return None;
    }
    let words = words(key, tally)?;
    Some(Suggestion {
        figures: figures(key.kind, tally),
        parts: tally.top_parts(),
        sessions: tally.top_sessions(),
        calls: tally.calls.iter().rev().copied().collect(),
        saving: Saving { nano_usd: saving.0.map(|nano| nano.max(0)), ms: tally.ms, basis: words.basis },
        title: words.title,
        advice: words.advice,
        edit: words.edit,
        key: key.clone(),
    })
}

/// What is known of the cost; where some hits have no price it is a lower bound, and the figures say how many.
fn known_nano(tally: &Tally) -> Option<i64> {
    (tally.nano != 0 || tally.unpriced == 0).then_some(tally.nano)
}

fn figures(kind: Kind, tally: &Tally) -> Vec<Figure> {
    let (hits, chances) = kind.metric();
    let count = |name, value: u64| Figure { name, value: float(value), unit: "count" };
    let mut figures = vec![count(hits, tally.hits), count("sessions", tally.sessions.len() as u64)];
    figures.push(count(chances, tally.chances));
    if tally.tokens > 0 {
        figures.push(Figure { name: "tokens", value: float(tally.tokens.unsigned_abs()), unit: "tokens" });
    }
    if tally.bytes > 0 {
        figures.push(Figure { name: "output", value: float(tally.bytes.unsigned_abs()), unit: "bytes" });
    }
    if let Some(median) = tally.median_ms {
        figures.push(Figure { name: "median", value: float(median.unsigned_abs()), unit: "ms" });
    }
    if tally.nano != 0 && tally.unpriced > 0 {
        figures.push(count("without_price", tally.unpriced));
    }
    figures
}

#[allow(clippy::cast_precision_loss, reason = "figures for a person")]
fn float(value: u64) -> f64 {
    value as f64
}

/// A subject in a title.
fn short(subject: &str) -> String {
    let line: String = subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(TITLE_SUBJECT_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn words(key: &Key, tally: &Tally) -> Option<Words> {
    let hits = tally.hits;
    let sessions = tally.sessions.len();
    let subject = short(&key.subject);
    let words = |title: String, advice: &str, basis: &'static str, edit: Option<Edit>| {
        Some(Words { title, advice: advice.to_owned(), basis, edit })
    };
    match key.kind {
        Kind::CacheShortTtl => words(
            format!("{hits} contexts were written to the cache again after pauses of 5 to 60 minutes"),
            "Let cache writes live for an hour (ENABLE_PROMPT_CACHING_1H).",
            "rewritten tokens x (5-minute write - read rate) - other 5-minute writes x (1-hour - 5-minute write rate)",
            env("ENABLE_PROMPT_CACHING_1H", "1"),
        ),
        Kind::CachePrefixChange => words(
            format!("{hits} contexts were written to the cache again without a pause"),
            "Something at the beginning of the prompt changes while a session runs: an MCP server that comes and goes, tools or \
             instructions that are edited, a plug-in that writes the time. Keep it stable. There is no edit that does it safely.",
            "rewritten tokens x (write rate - read rate)",
            None,
        ),
        Kind::IdleCacheLoss => words(
            format!("{hits} sessions went on after more than an hour with their whole context"),
            "Before a long pause use /compact, or begin the next task with /clear: the cache is gone by then. This is a habit; no \
             file changes it.",
            "at most: rewritten tokens x (write rate - read rate)",
            None,
        ),
        Kind::ModelTooStrong if tally.against == 0 => words(
            format!("the subagent {subject} only looks, on an expensive model"),
            "Give it a smaller model in its front matter. A subagent without a file of its own keeps the model of its parent.",
            "cost of its requests - the same tokens at the prices of the newest haiku",
            is_plain_name(&key.subject).then(|| Edit::AgentModel {
                agent_type: key.subject.clone(),
                model: CHEAP_FAMILY.to_owned(),
            }),
        ),
        Kind::SubagentOveruse if tally.hits.saturating_mul(2) >= tally.chances => {
            let tokens = tally.tokens / i64::try_from(hits.max(1)).unwrap_or(i64::MAX);
            let line = format!(
                "Do small look-ups yourself: each subagent of type `{}` begins with about {tokens} tokens of its own.",
                key.subject
            );
            words(
                format!("{hits} subagents {subject} made at most two calls each"),
                "Let the agent do small look-ups itself; a subagent pays for its own beginning.",
                "at most: input side of each small subagent's first request",
                is_plain_name(&key.subject).then(|| Edit::Note { lines: vec![line] }),
            )
        }
        Kind::RepeatedReads => {
            let paths =
                tally.top_parts().into_iter().filter(|(path, _)| is_plain_path(path)).take(NAMED_PATHS_MAX);
            let mut lines = vec![
                "A file that was read and not changed since need not be read again. Most often read again unchanged:"
                    .to_owned(),
            ];
            lines.extend(paths.map(|(path, _)| format!("- `{path}`")));
            words(
                format!("files were read again unchanged {hits} times in {sessions} sessions"),
                "Tell the agent in CLAUDE.md which files it need not read again.",
                "tokens (bytes / 4) x (write rate + read rate of each later request up to the next compaction); time of the reads",
                (lines.len() > 1).then_some(Edit::Note { lines }),
            )
        }
        Kind::OutputFlood => output_flood(key, tally),
        Kind::OversizedContext => words(
            format!("{hits} prompts were given in a context more than 70 % full"),
            "Begin a new task with /clear, or /compact first. This is a habit; no file changes it.",
            "per request up to the next prompt: tokens read from the cache above half of the window x read rate",
            None,
        ),
        Kind::CompactionChurn => words(
            format!("{hits} compactions came within half an hour of another"),
            "Split the task, let subagents read what is large, or clear the context between tasks. No file changes it safely.",
            "cost of the compactions' own requests, where telemetry tells it; what was read again is not known",
            None,
        ),
        Kind::PermissionStall if tally.against == 0 => permission_stall(key, tally),
        Kind::PermissionDeniedRepeat if tally.against == 0 => words(
            format!("`{subject}` was denied {hits} times and never allowed"),
            "Deny it by a rule, so that nobody waits for the same answer.",
            "at most: cost of the requests that asked for it",
            is_plain_command(&key.subject).then(|| Edit::SettingsList {
                list: RuleList::Deny,
                value: format!("Bash({})", key.subject),
            }),
        ),
        Kind::FailingCommand if tally.against == 0 => failing_command(key, tally),
        Kind::FullTestRuns => {
            let seconds = tally.ms.unwrap_or(0) / 1_000 / i64::try_from(hits.max(1)).unwrap_or(i64::MAX);
            let line = format!(
                "`{}` takes about {seconds} seconds. While working, run only the tests of what changed; run it whole once at the end.",
                key.subject
            );
            words(
                format!("`{subject}` ran {hits} times more than once a session"),
                "Run the tests of what changed while working, the whole suite once at the end.",
                "at most: time of all runs but the last of each session",
                is_plain_command(&key.subject).then(|| Edit::Note { lines: vec![line] }),
            )
        }
        Kind::SlowTool => words(
            format!("{hits} calls of {subject} took more than four times its median"),
            "Look at what those calls have in common; give the tool a time-out, or narrower questions. No file changes it safely.",
            "time above four times the median, of calls over ten seconds",
            None,
        ),
        _ => None,
    }
}

fn env(name: &str, value: &str) -> Option<Edit> {
    Some(Edit::SettingsEnv { name: name.to_owned(), value: value.to_owned() })
}

fn output_flood(key: &Key, tally: &Tally) -> Option<Words> {
    let edit = match key.subject.as_str() {
        "Bash" => env("BASH_MAX_OUTPUT_LENGTH", &SHELL_KEPT_BYTES.to_string()),
        tool if tool.starts_with("mcp__") => {
            env("MAX_MCP_OUTPUT_TOKENS", &(KEPT_BYTES / BYTES_PER_TOKEN).to_string())
        }
        _ => None,
    };
    let advice = match edit {
        Some(_) => "Bound what one call may put into the context.",
        None => {
            "Ask for parts (offset and limit, narrower patterns). The client has no setting for this tool."
        }
    };
    Some(Words {
        title: format!("{} outputs of {} filled the context", tally.hits, short(&key.subject)),
        advice: advice.to_owned(),
        basis: "tokens (bytes / 4) above the bound x (write rate + read rate of each later request up to the next compaction)",
        edit,
    })
}

fn permission_stall(key: &Key, tally: &Tally) -> Option<Words> {
    let basis = "time from the question to the answer, at most 10 minutes each";
    if let Some(tool) = key.subject.strip_prefix("tool:") {
        return Some(Words {
            title: format!("{} was approved {} times", short(tool), tally.hits),
            advice: "If it is harmless to you, allow it in the permissions yourself: what it does is not known here, so there is \
                     no edit."
                .to_owned(),
            basis,
            edit: None,
        });
    }
    // Exactly this command: a pattern would allow what nobody approved.
    is_harmless(&key.subject).then(|| Words {
        title: format!("`{}` was approved {} times and never denied", short(&key.subject), tally.hits),
        advice: "Allow exactly this command.".to_owned(),
        basis,
        edit: Some(Edit::SettingsList { list: RuleList::Allow, value: format!("Bash({})", key.subject) }),
    })
}

fn failing_command(key: &Key, tally: &Tally) -> Option<Words> {
    let instead =
        tally.top_parts().into_iter().find(|(_, count)| *count >= INSTEAD_MIN).map(|(command, _)| command);
    let both = instead.as_ref().filter(|instead| is_plain_command(&key.subject) && is_plain_command(instead));
    let edit = both.map(|instead| Edit::Note {
        lines: vec![format!("`{}` fails in this project; `{instead}` works.", key.subject)],
    });
    let advice = match &instead {
        Some(instead) => format!("Tell the agent what works: `{}`.", short(instead)),
        None => "Tell the agent what to run instead; nothing that worked afterwards is known.".to_owned(),
    };
    Some(Words {
        title: format!("`{}` failed all {} times", short(&key.subject), tally.hits),
        advice,
        basis: "at most: cost of the requests that asked for it, time of the runs",
        edit,
    })
}

/// A configured server whose tools nobody called.
pub(super) fn unused_server(key: Key, sessions: u64, calls: u64, used: u64) -> Option<Suggestion> {
    if used > 0 || sessions < key.kind.floor().sessions || calls < UNUSED_MIN_CALLS {
        return None;
    }
    let count = |name, value| Figure { name, value: float(value), unit: "count" };
    let edit = is_plain_name(&key.subject)
        .then(|| Edit::SettingsList { list: RuleList::DisabledMcp, value: key.subject.clone() });
    Some(Suggestion {
        title: format!("no tool of the MCP server {} was called in {sessions} sessions", short(&key.subject)),
        advice: "Disable it in this project. How large its tools' descriptions are, and whether the client loads them only when \
                 they are searched for, is not known here."
            .to_owned(),
        figures: vec![count("calls", used), count("sessions", sessions), count("calls_of_all_tools", calls)],
        parts: Vec::new(),
        sessions: Vec::new(),
        calls: Vec::new(),
        saving: Saving { nano_usd: None, ms: None, basis: "not known: the size of its tools' descriptions is not recorded" },
        edit,
        key,
    })
}
