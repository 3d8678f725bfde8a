//! However large, long or wrong a session is, its digest is bounded and there is no panic.

use std::sync::Arc;

use proptest::prelude::*;
use taffrail_analytics::digest::*;
use taffrail_analytics::trace::*;

use crate::random::trace;

const MANY: usize = 100_000;

fn call(n: usize, of: impl FnOnce(&mut Call)) -> Call {
    let mut call = Call {
        id: n as i64 + 1,
        tool: "Bash".into(),
        at_ms: 1_790_000_000_000 + n as i64 * 1_000,
        ended_ms: Some(1_790_000_000_500 + n as i64 * 1_000),
        duration_ms: Some(500),
        outcome: Outcome::Succeeded,
        input_hash: n as i64 + 1,
        result_hash: Some(n as i64),
        output_bytes: Some(400),
        tool_use_id: Some(format!("use-{n}")),
        ..Call::default()
    };
    of(&mut call);
    call
}

fn session(calls: impl Iterator<Item = Call>) -> Trace {
    Trace { calls: calls.collect(), ..Trace::default() }
}

#[track_caller]
fn check(what: &str, trace: &Trace) -> Digest {
    let limits = Limits::default();
    let digest = digest(trace, &limits);
    for kind in Kind::ALL {
        let own: Vec<&Contribution> =
            digest.contributions.iter().filter(|one| one.key.kind == *kind).collect();
        // Over the limit there are the rows of "(other)", of which a chain has one for each length.
        assert!(own.len() <= limits.rows + 4 * limits.hours, "{what}: {} rows of {kind:?}", own.len());
        let keys: std::collections::BTreeSet<&Key> = own.iter().map(|one| &one.key).collect();
        assert!(keys.len() <= limits.keys + 4, "{what}: {} keys of {kind:?}", keys.len());
    }
    for key in digest.contributions.iter().map(|one| &one.key) {
        assert!(
            key.tool.len() <= TOOL_MAX_BYTES
                && key.name.len() <= KEY_MAX_BYTES
                && key.detail.len() <= KEY_MAX_BYTES
        );
    }
    let grams = |n: usize| (trace.calls.len() + 1).saturating_sub(n) as i64;
    let chains = digest.contributions.iter().filter(|one| one.key.kind == Kind::Chain);
    let counted: i64 = chains.map(|one| one.get(chain::COUNT)).sum();
    if trace.agents.is_empty() {
        assert_eq!(counted, (2..=5).map(grams).sum::<i64>(), "{what}");
    }
    let json = serde_json::to_vec(&digest.facts).unwrap();
    assert!(json.len() < 1 << 20, "{what}: {} bytes of facts", json.len());
    digest
}

/// Shapes in which something that is looked up or scanned grows with the session: linear, or this does not come to an end.
#[test]
fn a_hundred_thousand_calls_of_every_shape() {
    let path =
        |path: &str, action: FileAction| FileTouch { action, path: path.into(), ..FileTouch::default() };
    let failure =
        || Some(Failure { class: "exit_code".into(), fingerprint: "0".repeat(16), message: String::new() });

    check("all different", &session((0..MANY).map(|n| call(n, |_| {}))));
    let same = check(
        "all the same",
        &session((0..MANY).map(|n| call(n, |c| (c.input_hash, c.result_hash) = (7, Some(7))))),
    );
    assert_eq!(same.facts.sequences.wasted.calls, MANY as u64 - 1);
    assert_eq!(same.facts.sequences.cycles.len(), 1);
    let eight =
        session((0..MANY).map(|n| call(n, |c| (c.input_hash, c.result_hash) = (n as i64 % 8 + 1, Some(1)))));
    assert_eq!(check("a long cycle", &eight).facts.sequences.cycles[0].repeats, MANY as u64 / 8);
    let failing = session((0..MANY).map(|n| {
        call(n, |c| {
            (c.outcome, c.error, c.input_hash, c.summary) =
                (Outcome::Failed, failure(), 7, "make test".to_owned());
        })
    }));
    let failing = check("all failing", &failing);
    assert_eq!((failing.facts.failures.failed, failing.resolutions.len()), (MANY as u64, MANY));
    let file = session((0..MANY).map(|n| {
        call(n, |c| {
            let action = if n % 2 == 0 { FileAction::Edit } else { FileAction::Read };
            (c.files, c.input_hash) = (vec![path("a.rs", action)], n as i64 % 6 + 1);
        })
    }));
    assert_eq!(check("one file", &file).facts.files.paths, 1);
    let files = session(
        (0..MANY).map(|n| call(n, |c| c.files = vec![path(&format!("src/{n}.rs"), FileAction::Write)])),
    );
    let files = check("as many files", &files);
    assert_eq!(files.facts.files.paths, MANY as u64);
    let written = files.contributions.iter().filter(|one| one.key.kind == Kind::File);
    assert_eq!(written.map(|one| one.get(file::WRITES)).sum::<i64>(), MANY as i64);
    assert!(files.facts.cut.keys > 0);
    let tools = session((0..MANY).map(|n| call(n, |c| c.tool = format!("tool-{}", n * n % 977).into())));
    check("many tools", &tools);
    let open =
        session((0..MANY).map(|n| {
            call(n, |c| (c.ended_ms, c.outcome) = (Some(c.at_ms + 1_000_000_000), Outcome::Failed))
        }));
    assert_eq!(check("all at once", &open).facts.sequences.parallel.max, MANY as u64);
}

#[test]
fn a_hundred_thousand_agents_and_requests() {
    let agents = (0..MANY).map(|n| Agent {
        agent_id: if n == 0 { String::new() } else { format!("agent-{n}") },
        agent_type: format!("type-{}", n % 5_000),
        started_ms: n as i64,
        last_ms: n as i64 + 1_000_000,
        ended_ms: None,
        // A chain as deep as there are agents.
        parent_tool_use_id: n.checked_sub(1).map(|parent| format!("use-{parent}")),
    });
    let requests = (0..MANY).map(|n| Request {
        id: n as i64,
        agent: n as u32 % 3,
        ts_ms: 1_790_000_000_000 + n as i64 * 900,
        input: 10,
        cache_read: n as i64,
        output: 5,
        cost_nano_usd: Some(1_000),
        ..Request::default()
    });
    let calls = (0..MANY).map(|n| call(n, |c| c.agent = n as u32));
    let trace = Trace {
        agents: agents.collect(),
        requests: requests.collect(),
        calls: calls.collect(),
        ..Trace::default()
    };
    let digest = check("many agents", &trace);
    assert_eq!(digest.facts.collaboration.agents_total, MANY as u64);
    assert_eq!(digest.facts.collaboration.depth_max, MANY as u64 - 1);
    assert_eq!(digest.facts.collaboration.agents.len(), Limits::default().agents);
}

#[test]
fn a_jumping_clock_is_bounded_and_nothing_is_lost() {
    let jumps = session((0..MANY).map(|n| {
        call(n, |c| {
            c.at_ms = (n as i64).wrapping_mul(6_364_136_223_846_793_005) / 100_000;
            c.ended_ms = Some(c.at_ms.wrapping_mul(7));
        })
    }));
    let digest = check("jumps", &jumps);
    let hours: std::collections::BTreeSet<i64> = digest.contributions.iter().map(|one| one.hour_ms).collect();
    assert!(hours.len() <= Limits::default().hours);
    assert!(digest.facts.cut.hours > 0);
    let ended = digest.contributions.iter().filter(|one| one.key.kind == Kind::Quality);
    assert_eq!(ended.map(|one| one.get(quality::COUNT)).sum::<i64>(), MANY as i64);
}

#[test]
fn a_name_of_ten_kilobytes_is_cut_and_stays_itself() {
    let name = |last: char| Arc::<str>::from("ü".repeat(5_000) + &last.to_string());
    let touch = |last: char| FileTouch { path: name(last), action: FileAction::Edit, ..FileTouch::default() };
    let named = session(['a', 'b', 'a'].into_iter().enumerate().map(|(n, last)| {
        call(n, |c| {
            (c.tool, c.summary, c.files) = (name(last), name(last).to_string(), vec![touch(last)]);
            c.error = Some(Failure {
                class: name(last),
                fingerprint: name(last).to_string(),
                message: name(last).to_string(),
            });
            c.outcome = Outcome::Failed;
        })
    }));
    let digest = check("long names", &named);
    assert_eq!(digest.facts.files.paths, 2);
    let tools: std::collections::BTreeSet<&str> =
        digest.facts.failures.groups.iter().map(|g| g.tool.as_str()).collect();
    assert_eq!(tools.len(), 2);
}

#[test]
fn nothing_comes_of_nothing() {
    let empty = digest(&Trace::default(), &Limits::default());
    assert_eq!((empty.facts.first_ms, empty.facts.last_ms), (None, None));
    assert_eq!(empty.facts.quality.success_share, None);
    assert_eq!(empty.facts.sequences.parallel.share, None);
    assert_eq!(empty.contributions, []);
}

fn extreme() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-1), Just(0), any::<i64>()]
}

proptest! {
    #[test]
    fn no_figure_is_too_wrong(mut trace in trace(20), wrong in prop::collection::vec(extreme(), 64), limit in 0..4usize) {
        let mut next = wrong.into_iter().cycle();
        let mut put = |value: &mut i64, which: usize| {
            let wrong = next.next().unwrap_or(0);
            if wrong.rem_euclid(3) as usize == which % 3 {
                *value = wrong;
            }
        };
        for (n, call) in trace.calls.iter_mut().enumerate() {
            put(&mut call.at_ms, n);
            put(call.ended_ms.get_or_insert(0), n);
            put(call.duration_ms.get_or_insert(0), n + 1);
            put(call.output_bytes.get_or_insert(0), n + 2);
            if n % 7 == 0 {
                call.agent = u32::MAX;
            }
            call.files.iter_mut().for_each(|touch| touch.lines_added = Some(u32::MAX));
        }
        for (n, request) in trace.requests.iter_mut().enumerate() {
            let tokens = [&mut request.input, &mut request.output, &mut request.cache_read, &mut request.cache_write_1h];
            for value in tokens.into_iter().chain([&mut request.ts_ms]) {
                put(value, n);
            }
            put(request.cost_nano_usd.get_or_insert(0), n);
            put(request.context_window.get_or_insert(0), n);
        }
        for (n, mark) in trace.marks.iter_mut().enumerate() {
            put(&mut mark.ts_ms, n);
        }
        for agent in &mut trace.agents {
            put(&mut agent.started_ms, 0);
            put(agent.ended_ms.get_or_insert(0), 1);
        }
        let points = vec![("model".to_owned(), i64::MAX)];
        let [keys, rows, hours, facts, agents, curve] = [limit; 6];
        let limits = Limits { keys, rows, hours, facts, agents, curve, compaction_points: points };
        for limits in [Limits::default(), limits] {
            let digest = digest(&trace, &limits);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap().contributions, digest.contributions);
        }
    }

    #[test]
    fn limits_cut_keys_and_lose_no_count(trace in trace(10), keys in 0..5usize, rows in 0..9usize, hours in 1..3usize) {
        let all = digest(&trace, &Limits::default());
        let cut = digest(&trace, &Limits { keys, rows, hours, ..Limits::default() });
        for kind in Kind::ALL {
            for slot in (0..kind.counters().len()).filter(|slot| *slot != 1) {
                let own = |digest: &Digest| digest.contributions.iter().filter(|one| one.key.kind == *kind).cloned().collect::<Vec<_>>();
                let sum = |digest: &Digest| own(digest).iter().map(|one| one.get(slot)).sum::<i64>();
                prop_assert_eq!(sum(&cut), sum(&all), "{:?} {}", kind, kind.counters()[slot]);
            }
            let named = cut.contributions.iter().filter(|one| one.key.kind == *kind && one.key.name != OTHER);
            prop_assert!(named.count() <= rows.min(keys * hours));
        }
        prop_assert_eq!(all.facts.quality, cut.facts.quality);
    }
}
