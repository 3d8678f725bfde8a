//! The hook client: reads stdin, decides, appends to the spool, leaves.
//!
//! Started once per hook event by the coding agent, which waits for it: so no runtime, no locks, no fsync, and no step
//! that can wait longer than its named budget. In order:
//!
//! 1. read the payload ([`input`], bounded) and the few fields that matter (`facts`);
//! 2. on `PreToolUse`, judge the call with the static guard, which depends on nothing;
//! 3. append one frame to the spool ([`spool`]), whether or not a server runs;
//! 4. where an answer can come, ask the server within the budget, else only poke it (`server`);
//! 5. say the verdict.
//!
//! Anything unexpected ends with exit code 0 and nothing on stdout. The one exception is the guard: a deny is said as
//! JSON and by exit code 2, and what the guard could not finish becomes an `ask`.
//!
//! Limits: [`input::PAYLOAD_LIMIT_BYTES`] kept whole, under 32 MB resident. Of the environment only the variables named
//! in [`env_vars`] are read, and none but `TAFFRAIL_APP` and the user's name is recorded.

mod facts;
pub mod home;
pub mod input;
mod say;
mod server;
mod settings;
pub mod spool;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use taffrail_event::frame::{FrameHeader, FrameVerdict, encode_head};
use taffrail_guard::{Context, Decision, Verdict};
use uuid::Uuid;

use facts::{Command, Facts};
use input::Input;
pub use server::{ANSWER_LIMIT_BYTES, ASK_PAYLOAD_LIMIT_BYTES, HOOK_SOCKET, POKE_SOCKET};
pub use settings::env_vars;
use settings::{Environment, Settings};

/// Events on which the server may answer, so that the client waits for it within its budget.
pub const ANSWERED_EVENTS: [&str; 5] =
    ["PreToolUse", "UserPromptSubmit", "PermissionRequest", "Stop", "SubagentStop"];

/// Runs one hook with the arguments behind the program's name: `[--data-dir D] [EVENT]`, or `--version`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = Instant::now();
    let captured_ms = unix_ms(SystemTime::now());
    say::fail_open_on_panic();
    let settings = Settings::new(arguments, &Environment::of_process());
    if settings.shows_version {
        return say::version();
    }
    if settings.disabled {
        return ExitCode::SUCCESS;
    }

    let input = Input::read(io::stdin().lock());
    let facts = Facts::find(&input, settings.event.as_deref());
    let verdict = judge(&facts, &settings);
    let header = header(&facts, &input, &verdict, &settings, started, captured_ms);
    let answer = record(&facts, &input, header, &verdict, &settings);
    say::verdict(&verdict, answer.as_deref())
}

fn judge(facts: &Facts, settings: &Settings) -> Verdict {
    if facts.event.as_deref() != Some("PreToolUse") {
        return Verdict::allow();
    }
    let context = Context {
        cwd: facts.cwd.as_deref(),
        home: settings.user_home.as_deref(),
        taffrail_home: settings.data_dir.as_deref().and_then(|path| path.to_str()),
    };
    let _judging = say::Judging::begin();
    match &facts.command {
        Command::None => Verdict::allow(),
        Command::Line(line) => taffrail_guard::check_command(line, &context),
        Command::Arguments(argv) => {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            taffrail_guard::check_argv(&argv, &context)
        }
        Command::Unreadable(text) if taffrail_guard::mentions_recursive_delete(text) => {
            Verdict::unparsed_delete("its payload is not readable")
        }
        Command::Unreadable(_) => Verdict::allow(),
        Command::TooLarge => Verdict::unparsed_delete("it is too large to look into"),
    }
}

fn header(
    facts: &Facts,
    input: &Input,
    verdict: &Verdict,
    settings: &Settings,
    started: Instant,
    captured_ms: i64,
) -> FrameHeader {
    let said = (verdict.decision != Decision::Allow).then(|| FrameVerdict {
        decision: verdict.decision.as_str().to_owned(),
        rule: verdict.rule.clone().unwrap_or_default(),
        reason: verdict.reason.clone(),
    });
    FrameHeader {
        hook_event_name: facts.event.clone(),
        client_pid: client_pid(),
        app: settings.app.clone(),
        user: settings.user.clone(),
        host: host(),
        verdict: said,
        truncated: input.is_truncated(),
        payload_sha256: input.sha256().map(str::to_owned),
        payload_head_bytes: input.is_truncated().then_some(input.head().len() as u64),
        hook_wall_us: u64::try_from(started.elapsed().as_micros()).ok(),
        ..FrameHeader::new(Uuid::now_v7(), captured_ms, input.total_bytes())
    }
}

/// Appends the frame, then asks or pokes the server; returns what the server wants said.
fn record(
    facts: &Facts,
    input: &Input,
    mut header: FrameHeader,
    verdict: &Verdict,
    settings: &Settings,
) -> Option<String> {
    let home = settings.data_dir.as_deref()?;
    let parts = input.parts();
    let head = encode_head(&header, &parts).ok()?;
    // A frame that could not be appended is counted there; the agent must not notice, and a question still makes sense.
    let _ = spool::append(home, header.event_id, &head, &parts, settings.spool_limit_bytes);

    let answerable = facts.event.as_deref().is_some_and(|event| ANSWERED_EVENTS.contains(&event));
    if !answerable || verdict.decision == Decision::Deny {
        server::poke(home);
        return None;
    }
    let whole: &[&[u8]] = &parts;
    if input.kept_bytes() <= ASK_PAYLOAD_LIMIT_BYTES && !input.is_truncated() {
        return server::ask(home, &head, whole, settings.budget);
    }
    // The server finds a large payload in the spool by the event's id; the question carries the header alone.
    header.truncated = true;
    let head = encode_head(&header, &[]).ok()?;
    server::ask(home, &head, &[], settings.budget)
}

fn unix_ms(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

#[cfg(unix)]
fn client_pid() -> Option<u32> {
    rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

#[cfg(not(unix))]
fn client_pid() -> Option<u32> {
    None
}

#[cfg(unix)]
fn host() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(unix))]
fn host() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
