//! Random sessions: few tools, inputs and files, so that everything meets everything.

use std::sync::Arc;

use proptest::prelude::*;
use taffrail_analytics::trace::*;

/// Commands with what they are: runner of tests, and whether their end tells that tests passed and that they failed.
pub(crate) const COMMANDS: &[(&str, Option<&str>, bool, bool)] = &[
    ("cargo test", Some("cargo test"), true, true),
    ("cargo build && npm test", Some("npm test"), true, false),
    ("pytest | tail", Some("pytest"), false, false),
    ("ls src", None, false, false),
    ("cargo build", None, false, false),
];

pub(crate) const PATHS: &[&str] = &["a.rs", "b.rs", "c.rs"];
const TOOLS: &[&str] = &["Bash", "Read", "Edit", "Write", "Task", "AskUserQuestion"];
const OUTCOMES: &[Outcome] = &[
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Succeeded,
    Outcome::Denied,
    Outcome::Interrupted,
    Outcome::Running,
    Outcome::Abandoned,
    Outcome::Ended,
];

/// A span in which ten minutes and an hour both matter.
const SPAN_MS: i64 = 3 * 3_600_000;

fn at() -> impl Strategy<Value = i64> {
    prop_oneof![0..SPAN_MS, 0..60_000i64, (0..20i64).prop_map(|n| n * 1_000)]
}

prop_compose! {
    fn call()(
        agent in 0..4u32,
        tool in 0..TOOLS.len(),
        at_ms in at(),
        took in prop::option::weighted(0.9, prop_oneof![0..3_000i64, 0..SPAN_MS]),
        timed in any::<bool>(),
        outcome in 0..OUTCOMES.len(),
        input in 0..4i64,
        result in prop::option::of(0..2i64),
        output_bytes in prop::option::of(0..9_000i64),
        touches in prop::collection::vec((0..PATHS.len(), 0..4usize, 0..9u32), 0..3),
        commits in prop::collection::vec((0..2usize, any::<bool>()), 0..2),
    ) -> Call {
        let outcome = OUTCOMES[outcome];
        let tool = TOOLS[tool];
        let summary = match tool {
            "Bash" => COMMANDS[input as usize + usize::from(agent == 1)].0.to_owned(),
            "Read" | "Edit" | "Write" => PATHS[input as usize % PATHS.len()].to_owned(),
            _ => String::new(),
        };
        let failure = Failure { class: "exit_code".into(), fingerprint: format!("{:016x}", input / 2), message: "bad".to_owned() };
        let succeeded = outcome == Outcome::Succeeded;
        let touches = touches.into_iter().filter(|_| succeeded).map(|(path, action, lines)| FileTouch {
            action: [FileAction::Read, FileAction::Write, FileAction::Edit, FileAction::Delete][action],
            path: PATHS[path].into(),
            size_bytes: None,
            lines_added: Some(lines),
            lines_removed: (lines > 4).then_some(1),
        });
        let commits = commits.into_iter().map(|(subcommand, told)| GitTouch {
            subcommand: ["commit", "status"][subcommand].to_owned(),
            branch: told.then(|| "main".to_owned()),
            insertions: Some(3),
            commit: told.then(|| "abc1234".to_owned()),
            ..GitTouch::default()
        });
        Call {
            id: 0,
            agent,
            tool_use_id: None,
            tool: Arc::from(tool),
            at_ms,
            ended_ms: took.map(|took| at_ms + took),
            duration_ms: took.filter(|_| timed),
            outcome,
            input_hash: input,
            result_hash: result,
            output_bytes,
            summary,
            error: (outcome == Outcome::Failed && input != 3).then_some(failure),
            files: touches.collect(),
            git: commits.collect(),
        }
    }
}

prop_compose! {
    fn request()(agent in 0..4u32, ts_ms in at(), input in 0..500i64, output in 0..900i64, cache_read in 0..9_000i64,
        cost in prop::option::of(0..10_000_000i64), beside in 0..9u8) -> Request {
        Request {
            agent,
            ts_ms,
            model: "model".into(),
            input,
            output,
            cache_read,
            cost_nano_usd: cost,
            context_window: Some(20_000),
            query_source: if beside == 0 { "auxiliary" } else { "" }.to_owned(),
            ..Request::default()
        }
    }
}

fn mark() -> impl Strategy<Value = Mark> {
    let kind = prop_oneof![
        any::<bool>().prop_map(|human| MarkKind::Prompt { human }),
        Just(MarkKind::Stop),
        Just(MarkKind::SubagentStop),
        Just(MarkKind::StopFailure { class: "overloaded".into() }),
        (prop::option::of(0..9_000i64), prop::option::of(0..900i64)).prop_map(|(pre_tokens, post_tokens)| {
            MarkKind::Compaction { trigger: Some("auto".to_owned()), pre_tokens, post_tokens }
        }),
        prop::option::of(1..9i64).prop_map(|retry| MarkKind::ApiFailure {
            model: Some("model".to_owned()),
            status_code: Some(529),
            retry_in_ms: retry,
            exhausted: retry.is_none(),
        }),
    ];
    (0..4u32, at(), kind).prop_map(|(agent, ts_ms, kind)| Mark { ts_ms, agent, kind })
}

prop_compose! {
    fn agent()(started_ms in at(), lived in 0..SPAN_MS, ended in any::<bool>(), parent in prop::option::of(0..40u32),
        kind in 0..2usize) -> Agent {
        Agent {
            agent_id: String::new(),
            agent_type: ["Explore", "Plan"][kind].to_owned(),
            started_ms,
            last_ms: started_ms + lived,
            ended_ms: ended.then_some(started_ms + lived),
            parent_tool_use_id: parent.map(|n| format!("use-{n}")),
        }
    }
}

/// A session of up to four agents, one of which may not be listed. Rows are sorted, as the trace promises.
pub(crate) fn trace(requests_max: usize) -> impl Strategy<Value = Trace> {
    let rows = (
        prop::collection::vec(agent(), 0..4),
        prop::collection::vec(call(), 0..50),
        prop::collection::vec(request(), 0..=requests_max),
        prop::collection::vec(mark(), 0..12),
    );
    rows.prop_map(|(mut agents, mut calls, mut requests, mut marks)| {
        for (n, agent) in agents.iter_mut().enumerate() {
            agent.agent_id = if n == 0 { String::new() } else { format!("agent-{n}") };
            if n == 0 {
                agent.agent_type = "main".to_owned();
                agent.parent_tool_use_id = None;
            }
        }
        calls.sort_by_key(|call| call.at_ms);
        for (n, call) in calls.iter_mut().enumerate() {
            call.id = n as i64 + 1;
            call.tool_use_id = Some(format!("use-{n}"));
        }
        requests.sort_by_key(|request| request.ts_ms);
        for (n, request) in requests.iter_mut().enumerate() {
            request.id = n as i64 + 1;
        }
        marks.sort_by_key(|mark| mark.ts_ms);
        Trace {
            session_id: "s".to_owned(),
            app: "app".to_owned(),
            user: String::new(),
            agents,
            calls,
            requests,
            marks,
        }
    })
}
