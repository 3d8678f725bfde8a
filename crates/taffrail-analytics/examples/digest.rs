//! Digests a made-up session of `CALLS` calls `TIMES` times, for a stopwatch outside: `digest CALLS TIMES`.

use taffrail_analytics::digest::{Limits, digest};
use taffrail_analytics::trace::{Call, Failure, FileAction, FileTouch, Outcome, Request, Trace};

fn main() {
    let number = |n: usize, or: usize| std::env::args().nth(n).and_then(|arg| arg.parse().ok()).unwrap_or(or);
    let trace = session(number(1, 1_000));
    let mut rows = 0;
    for _ in 0..number(2, 1) {
        rows += digest(&trace, &Limits::default()).contributions.len();
    }
    eprintln!("{rows} contributions");
}

/// A thousand calls an hour by 12 tools over 200 files, a fifth of them failing; a request for every call.
fn session(calls: usize) -> Trace {
    let mut trace = Trace::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |of: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % of
    };
    const TOOLS: [&str; 12] = [
        "Bash",
        "Read",
        "Edit",
        "Grep",
        "Glob",
        "Write",
        "Task",
        "TodoWrite",
        "WebFetch",
        "WebSearch",
        "mcp__a__b",
        "mcp__a__c",
    ];
    for n in 0..calls {
        let at_ms = 1_790_000_000_000 + n as i64 * 3_600;
        let tool = TOOLS[draw(12).min(draw(12)) as usize];
        let path = format!("/srv/app/src/file_{}.rs", draw(200).min(draw(200)));
        let failed = draw(5) == 0;
        let summary = if tool == "Bash" {
            format!("cd /srv/app && cargo test case_{}", draw(50))
        } else {
            path.clone()
        };
        let action = match tool {
            "Read" => Some(FileAction::Read),
            "Edit" => Some(FileAction::Edit),
            "Write" => Some(FileAction::Write),
            _ => None,
        };
        let touch = |action| FileTouch {
            action,
            path: path.as_str().into(),
            lines_added: Some(3),
            ..FileTouch::default()
        };
        let failure = || Failure {
            class: "exit_code".into(),
            fingerprint: format!("{:016x}", n % 40),
            message: "Exit code 1".to_owned(),
        };
        let took = draw(3_000) as i64;
        trace.requests.push(Request {
            id: n as i64,
            ts_ms: at_ms - 10,
            model: "opus".into(),
            cache_read: 20_000 + (n as i64 * 300) % 150_000,
            output: 200,
            cost_nano_usd: Some(30_000_000),
            context_window: Some(200_000),
            ..Request::default()
        });
        trace.calls.push(Call {
            id: n as i64,
            tool_use_id: Some(format!("toolu_{n}")),
            tool: tool.into(),
            at_ms,
            ended_ms: Some(at_ms + took),
            duration_ms: Some(took),
            outcome: if failed { Outcome::Failed } else { Outcome::Succeeded },
            input_hash: draw(2_000) as i64 + 1,
            result_hash: Some(draw(3) as i64),
            output_bytes: Some(draw(20_000) as i64),
            summary,
            error: failed.then(failure),
            files: action.filter(|_| !failed).map(touch).into_iter().collect(),
            ..Call::default()
        });
    }
    trace
}
