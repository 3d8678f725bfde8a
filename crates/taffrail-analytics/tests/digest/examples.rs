//! Sessions made by hand, of shapes that real ones have.

use taffrail_analytics::digest::*;
use taffrail_analytics::failures::Next;
use taffrail_analytics::trace::*;

const MINUTE: i64 = 60_000;

/// Builds a session call by call.
#[derive(Default)]
struct Session(Trace);

impl Session {
    fn new() -> Self {
        let main = Agent { agent_type: "main".to_owned(), ..Agent::default() };
        Self(Trace { agents: vec![main], ..Trace::default() })
    }

    /// A call of the main agent that begins at `at_ms` and takes a second.
    fn call(&mut self, at_ms: i64, tool: &str, summary: &str, of: impl FnOnce(&mut Call)) -> &mut Self {
        let id = self.0.calls.len() as i64 + 1;
        let input_hash = summary
            .bytes()
            .chain(tool.bytes())
            .fold(17i64, |hash, byte| hash.wrapping_mul(31) + i64::from(byte));
        let mut call = Call {
            id,
            tool_use_id: Some(format!("use-{id}")),
            tool: tool.into(),
            at_ms,
            ended_ms: Some(at_ms + 1_000),
            duration_ms: Some(1_000),
            outcome: Outcome::Succeeded,
            input_hash,
            result_hash: Some(id),
            output_bytes: Some(100),
            summary: summary.to_owned(),
            ..Call::default()
        };
        of(&mut call);
        self.0.calls.push(call);
        self
    }

    fn mark(&mut self, ts_ms: i64, kind: MarkKind) -> &mut Self {
        self.0.marks.push(Mark { ts_ms, agent: 0, kind });
        self
    }

    fn request(&mut self, ts_ms: i64, context: i64, output: i64) -> &mut Self {
        let id = self.0.requests.len() as i64 + 1;
        self.0.requests.push(Request {
            id,
            ts_ms,
            model: "opus".into(),
            cache_read: context,
            output,
            cost_nano_usd: Some(1_000_001),
            context_window: Some(200_000),
            ..Request::default()
        });
        self
    }

    fn facts(&self) -> SessionFacts {
        digest(&self.0, &Limits::default()).facts
    }
}

fn failed(call: &mut Call) {
    call.outcome = Outcome::Failed;
    call.error = Some(Failure {
        class: "exit_code".into(),
        fingerprint: "f".repeat(16),
        message: "Exit code 101".to_owned(),
    });
}

fn edit(path: &str) -> impl FnOnce(&mut Call) {
    let touch = FileTouch {
        action: FileAction::Edit,
        path: path.into(),
        lines_added: Some(3),
        lines_removed: Some(1),
        ..FileTouch::default()
    };
    move |call| call.files.push(touch)
}

/// `fixtures` of the real client have this one: a test fails, the code is mended, the test passes.
#[test]
fn a_failing_test_that_is_mended() {
    let mut session = Session::new();
    session
        .call(0, "Bash", "cd app && cargo test", failed)
        .call(MINUTE, "Edit", "src/lib.rs", edit("/app/src/lib.rs"))
        .call(2 * MINUTE, "Bash", "cd app && cargo test", failed)
        .call(3 * MINUTE, "Edit", "src/lib.rs:2", edit("/app/src/lib.rs"))
        .call(4 * MINUTE, "Bash", "cd app && cargo test -- --nocapture", |_| {});
    let facts = session.facts();
    let quality = &facts.quality;
    assert_eq!((quality.test_runs, quality.tests_passed, quality.tests_failed), (3, 1, 2));
    assert_eq!(quality.last_test_passed, Some(true));
    // The tests were tried first once, and the two edits each.
    assert_eq!((quality.first_tries, quality.first_try_succeeded), (3, 2));
    assert_eq!((quality.changes, quality.rework), (2, 1));
    let group = &facts.failures.groups[0];
    assert_eq!((group.count, group.retried, group.resolved, group.resolved_same_input), (2, 1, 2, 0));
    assert_eq!(
        group.next.iter().map(|next| (next.what, next.count)).collect::<Vec<_>>(),
        [(Next::OtherTool, 2)]
    );
    // A test run again after an edit is no waste.
    assert_eq!(facts.sequences.wasted.calls, 0);
    assert_eq!((facts.files.hot[0].edits, facts.files.hot[0].lines_added), (2, 6));
}

#[test]
fn a_command_that_fails_again_and_again_is_wasted_with_its_money() {
    let mut session = Session::new();
    for n in 0..6 {
        session.request(n * MINUTE, 10_000 + n * 100, 50).call(
            n * MINUTE + 5,
            "Bash",
            "npm run build",
            |call| {
                failed(call);
                call.result_hash = Some(1);
            },
        );
    }
    session.mark(7 * MINUTE, MarkKind::Stop);
    let facts = session.facts();
    let found = &facts.sequences;
    assert_eq!((found.cycles.len(), found.cycles[0].period, found.cycles[0].repeats), (1, 1, 6));
    assert_eq!(
        (found.repetitions[0].runs, found.repetitions[0].longest_run, found.repetitions[0].same_result),
        (1, 6, 5)
    );
    assert_eq!((found.wasted.calls, found.wasted.ms, found.wasted.nano_usd), (5, 5_000, Some(5 * 1_000_001)));
    // 50 tokens of growth each beside the 50 of the model; what came after the last request is estimated from 100 bytes.
    assert_eq!(found.wasted.tokens, 4 * (50 + 50) + 25 + 50);
    let group = &facts.failures.groups[0];
    assert_eq!((group.retried, group.resolved), (5, 0));
    assert_eq!(
        group.next.iter().map(|next| (next.what, next.count)).collect::<Vec<_>>(),
        [(Next::Retry, 5), (Next::GaveUp, 1)]
    );
}

#[test]
fn polling_that_hears_something_new_is_no_waste() {
    let mut session = Session::new();
    for n in 0..6 {
        session.call(n * MINUTE, "Bash", "sleep 30 && gh run view", |_| {});
    }
    let facts = session.facts();
    assert_eq!(facts.sequences.repetitions[0].count, 6);
    assert_eq!((facts.sequences.wasted.calls, facts.sequences.cycles.len()), (0, 0));
}

#[test]
fn an_edit_and_its_revert_in_turn_are_thrash() {
    let mut session = Session::new();
    for n in 0..4 {
        let summary = ["a to b", "b to a"][n as usize % 2];
        session.call(n * MINUTE, "Edit", summary, edit("a.rs"));
    }
    let facts = session.facts();
    let thrash = &facts.sequences.thrash[0];
    assert_eq!((thrash.path.as_str(), thrash.changes, thrash.flips, thrash.turns), ("a.rs", 4, 2, 0));
    assert_eq!(thrash.waste.calls, 2);
    // Editing on is none.
    let mut session = Session::new();
    for n in 0..4 {
        session.call(n * MINUTE, "Edit", &format!("step {n}"), edit("a.rs"));
    }
    assert!(session.facts().sequences.thrash.is_empty());
}

fn read(call: &mut Call) {
    (call.result_hash, call.output_bytes) = (Some(5), Some(4_000));
    call.files.push(FileTouch { action: FileAction::Read, path: "a.rs".into(), ..FileTouch::default() });
}

#[test]
fn a_file_read_again_without_need_is_told_and_one_read_in_pieces_is_not() {
    let mut session = Session::new();
    session
        .call(0, "Read", "a.rs", read)
        .call(MINUTE, "Read", "a.rs", read)
        .call(2 * MINUTE, "Read", "a.rs from 100", read)
        .call(3 * MINUTE, "Edit", "a.rs", edit("a.rs"))
        .call(4 * MINUTE, "Read", "a.rs", read)
        .mark(5 * MINUTE, MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None })
        .call(6 * MINUTE, "Read", "a.rs", read);
    let facts = session.facts();
    let file = &facts.files.hot[0];
    assert_eq!((file.reads, file.repeated_reads, file.repeated_read_bytes), (5, 1, 4_000));
}

/// The shape of the real client's parallel subagents: two calls of one response, each the parent of an agent.
#[test]
fn two_subagents_at_once_while_the_main_agent_waits() {
    let mut session = Session::new();
    session
        .call(1_000, "Task", "look here", |call| call.ended_ms = Some(61_000))
        .call(1_100, "Task", "look there", |call| call.ended_ms = Some(91_000))
        .call(2_000, "Edit", "shared.rs", |call| {
            call.agent = 1;
            edit("shared.rs")(call);
        })
        .call(30_000, "Edit", "shared.rs:9", |call| {
            call.agent = 2;
            edit("shared.rs")(call);
        });
    for (n, parent) in ["use-1", "use-2"].into_iter().enumerate() {
        session.0.agents.push(Agent {
            agent_id: format!("a{n}"),
            agent_type: "Explore".to_owned(),
            started_ms: 1_500,
            last_ms: 60_000 + n as i64 * 30_000,
            ended_ms: Some(60_000 + n as i64 * 30_000),
            parent_tool_use_id: Some(parent.to_owned()),
        });
    }
    let facts = session.facts();
    let found = &facts.collaboration;
    assert_eq!((found.agents_total, found.depth_max, found.handoffs), (3, 1, 4));
    assert_eq!((found.waiting_ms, found.subagents_parallel_ms, found.subagents_max), (90_000, 58_500, 2));
    assert_eq!(found.agents[1].parent_call, Some(1));
    assert!(found.agents[2].parent_known);
    let order: Vec<(&str, &str)> =
        found.handoff_list.iter().map(|h| (h.from.as_str(), h.to.as_str())).collect();
    assert_eq!(order, [("", "a0"), ("", "a1"), ("a0", ""), ("a1", "")]);
    assert_eq!(
        found.agents.iter().map(|a| a.call_share).collect::<Vec<_>>(),
        [Some(0.5), Some(0.25), Some(0.25)]
    );
    assert_eq!((facts.sequences.parallel.parallel, facts.sequences.parallel.max), (2, 3));
    let shared = &facts.files.shared[0];
    assert_eq!((shared.path.as_str(), shared.changes), ("shared.rs", 1));
    assert_eq!(shared.agents, ["a0", "a1"]);
}

#[test]
fn growth_goes_to_results_by_bytes_and_to_prompts_what_is_over() {
    let mut session = Session::new();
    session
        .request(1_000, 20_000, 100)
        .call(1_500, "Read", "big", |call| (call.ended_ms, call.output_bytes) = (Some(1_600), Some(6_000)))
        .call(1_700, "Bash", "small", |call| (call.ended_ms, call.output_bytes) = (Some(1_800), Some(2_000)))
        .request(3_000, 22_100, 200)
        .mark(3_500, MarkKind::Prompt { human: true })
        .call(4_000, "Bash", "tiny", |call| (call.ended_ms, call.output_bytes) = (Some(4_100), Some(400)))
        .request(6_000, 25_000, 10)
        .mark(
            6_500,
            MarkKind::Compaction { trigger: Some("auto".to_owned()), pre_tokens: None, post_tokens: None },
        )
        .request(7_000, 5_000, 10);
    let facts = session.facts();
    let context = &facts.context.agents[0];
    let fill: Vec<(&str, Option<&str>, i64)> =
        context.fill.iter().map(|fill| (fill.source.as_str(), fill.tool.as_deref(), fill.tokens)).collect();
    assert_eq!(
        fill,
        [
            ("initial", None, 20_000),
            ("after_compaction", None, 5_000),
            ("prompt", None, 2_600),
            ("tool_result", Some("Read"), 1_500),
            ("tool_result", Some("Bash"), 500 + 100),
            ("model_output", None, 300),
        ]
    );
    assert_eq!((context.size, context.peak, context.shrunk), (5_000, 25_000, 0));
    let compaction = &context.compactions[0];
    assert_eq!((compaction.pre_tokens, compaction.post_tokens), (Some(25_000), Some(5_000)));
    assert_eq!(context.next_compaction, None);
}

#[test]
fn the_next_compaction_is_told_with_a_range_and_only_while_it_grows() {
    let mut session = Session::new();
    // 4,000 tokens a request and minute, every fourth time 12,000: 6,000 on average.
    let mut size = 20_000;
    for n in 0..=8 {
        session.request(n * MINUTE, size, 10);
        size += if n % 4 == 3 { 12_000 } else { 4_000 };
    }
    let next = session.facts().context.agents[0].next_compaction.clone().unwrap();
    assert_eq!(
        (next.at_tokens, next.basis.as_str(), next.tokens_left),
        (160_000, "assumed", 160_000 - 68_000)
    );
    assert_eq!((next.growth_per_request, next.samples), (6_000.0, 8));
    let requests = 92_000.0 / 6_000.0;
    assert_eq!((next.requests, next.requests_range), (requests, [Some(requests), Some(23.0)]));
    assert_eq!(next.minutes, Some(requests));
    // What was observed beats what is assumed, and history comes between.
    let limits = Limits { compaction_points: vec![("opus".to_owned(), 150_000)], ..Limits::default() };
    let known = digest(&session.0, &limits).facts.context.agents[0].next_compaction.clone().unwrap();
    assert_eq!((known.at_tokens, known.basis.as_str()), (150_000, "history"));
    session.mark(
        -1,
        MarkKind::Compaction {
            trigger: Some("auto".to_owned()),
            pre_tokens: Some(155_000),
            post_tokens: None,
        },
    );
    let known = digest(&session.0, &limits).facts.context.agents[0].next_compaction.clone().unwrap();
    assert_eq!((known.at_tokens, known.basis.as_str()), (155_000, "observed"));
    // Standing still, or shrinking, there is none.
    let mut still = Session::new();
    for n in 0..9 {
        still.request(n * MINUTE, 30_000 - n, 10);
    }
    assert_eq!(still.facts().context.agents[0].next_compaction, None);
}

#[test]
fn without_requests_the_context_is_estimated_and_says_so() {
    let mut session = Session::new();
    session.call(0, "Read", "a", |call| call.output_bytes = Some(4_001)).call(MINUTE, "Bash", "b", |_| {});
    let facts = session.facts();
    let context = &facts.context.agents[0];
    assert!(context.estimated && context.fill.iter().all(|fill| fill.estimated));
    assert_eq!((context.size, context.window, context.utilization), (1_001 + 25, None, None));
    assert_eq!(context.next_compaction, None);
}
