//! The stream beside the digest of the same calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use taffrail_analytics::digest::{Limits, digest};
use taffrail_analytics::sequences::{Run, SequenceWatch, WatchLimits};
use taffrail_analytics::trace::*;

use crate::random::trace;

/// Calls of one agent over few symbols, so that there are cycles of every period.
pub(crate) fn symbols() -> impl Strategy<Value = Trace> {
    let word = prop::collection::vec(0..3i64, 1..7);
    let piece = (word, 1..5usize).prop_map(|(word, times)| word.repeat(times));
    prop::collection::vec(piece, 0..6).prop_map(|pieces| {
        let call = |(n, symbol): (usize, i64)| Call {
            id: n as i64 + 1,
            tool: ["Read", "Bash"][symbol as usize % 2].into(),
            at_ms: n as i64 * 10,
            outcome: Outcome::Succeeded,
            input_hash: symbol + 1,
            result_hash: Some(symbol),
            ..Call::default()
        };
        Trace { calls: pieces.concat().into_iter().enumerate().map(call).collect(), ..Trace::default() }
    })
}

fn check(trace: &Trace) -> Result<(), TestCaseError> {
    let limits = Limits { facts: 10_000, ..Limits::default() };
    let facts = digest(trace, &limits).facts;
    let lanes = trace.agents.len().max(1) as u32 + 1;
    let mut chains: BTreeMap<Vec<String>, (u64, u64)> = BTreeMap::new();
    let mut cycles = Vec::new();
    let mut repeated = Vec::new();
    for lane in 0..lanes {
        let calls: Vec<&Call> = trace.calls.iter().filter(|call| call.agent.min(lanes - 1) == lane).collect();
        let mut watch = SequenceWatch::default();
        let mut runs: Vec<Run> = Vec::new();
        let mut last = BTreeMap::new();
        for (at, call) in calls.iter().enumerate() {
            let seen = watch.push(call);
            prop_assert_eq!(seen.at as usize, at);
            prop_assert_eq!(
                seen.previous_tool.clone(),
                at.checked_sub(1).map(|at| Arc::clone(&calls[at].tool))
            );
            if let Some(cycle) = seen.cycle {
                // It is the end of what came, and has the period that it says.
                prop_assert_eq!(cycle.start + cycle.calls, seen.at + 1);
                let start = cycle.start as usize;
                for place in start + cycle.period as usize..=at {
                    let before = calls[place - cycle.period as usize];
                    prop_assert_eq!(
                        (&before.tool, before.input_hash),
                        (&calls[place].tool, calls[place].input_hash)
                    );
                }
            }
            runs.extend(&seen.ended);
            if call.input_hash != 0 {
                last.insert((Arc::clone(&call.tool), call.input_hash), (seen, call.id));
            }
        }
        runs.extend(watch.finish());
        cycles.extend(runs.iter().map(|run| (calls[run.start as usize].id, run.period, run.calls)));
        for (tools, count) in watch.chains() {
            let sum = chains.entry(tools.iter().map(|tool| tool.to_string()).collect()).or_default();
            *sum = (sum.0 + count.count, sum.1 + count.failed);
        }
        for ((tool, hash), (seen, id)) in last.into_iter().filter(|(_, (seen, _))| seen.count > 1) {
            repeated.push((
                id,
                tool.to_string(),
                format!("{hash:016x}"),
                seen.count,
                seen.failed,
                seen.same_result,
            ));
        }
        prop_assert_eq!((watch.forgotten, watch.chains_other), (0, 0));
    }
    let mut found: Vec<_> = facts.cycles_of();
    found.sort_unstable();
    cycles.sort_unstable();
    prop_assert_eq!(cycles, found);
    let mut found: Vec<_> = facts
        .sequences
        .repetitions
        .into_iter()
        .map(|r| (r.last_call, r.tool, r.input_hash, r.count, r.failed, r.same_result))
        .collect();
    found.sort_unstable();
    repeated.sort_unstable();
    prop_assert_eq!(repeated, found);
    chains.retain(|_, count| count.0 > 1);
    let found: BTreeMap<_, _> =
        facts.sequences.chains.into_iter().map(|c| (c.tools, (c.count, c.failed))).collect();
    prop_assert_eq!(chains, found);
    Ok(())
}

trait Cycles {
    fn cycles_of(&self) -> Vec<(i64, u64, u64)>;
}

impl Cycles for taffrail_analytics::digest::SessionFacts {
    fn cycles_of(&self) -> Vec<(i64, u64, u64)> {
        self.sequences.cycles.iter().map(|cycle| (cycle.first_call, cycle.period, cycle.calls)).collect()
    }
}

proptest! {
    #[test]
    fn a_stream_sees_what_the_digest_finds(trace in trace(0)) {
        check(&trace)?;
    }

    #[test]
    fn a_stream_sees_the_cycles_that_the_digest_finds(trace in symbols()) {
        check(&trace)?;
    }

    #[test]
    fn a_stream_holds_no_more_than_its_limits(trace in symbols(), inputs in 1..4usize, chains in 0..4usize) {
        let mut watch = SequenceWatch::new(WatchLimits { inputs, chains });
        for (n, call) in trace.calls.iter().enumerate() {
            let seen = watch.push(call);
            prop_assert!(watch.held().0 <= 2 * inputs && watch.held().1 <= chains);
            prop_assert!(seen.count <= n as u64 + 1);
        }
        let counted: u64 = watch.chains().map(|(_, count)| count.count).sum();
        let all: usize = (2..=5usize).map(|n| (trace.calls.len() + 1).saturating_sub(n)).sum();
        prop_assert_eq!(counted + watch.chains_other, all as u64);
    }
}

#[test]
fn an_input_is_remembered_while_fewer_others_than_the_limit_came_since() {
    let mut watch = SequenceWatch::new(WatchLimits { inputs: 100, chains: 10 });
    let call = |input_hash: i64| Call {
        tool: "Bash".into(),
        input_hash,
        outcome: Outcome::Succeeded,
        ..Call::default()
    };
    for round in 0..50 {
        for n in 1..100 {
            assert_eq!(watch.push(&call(n)).count, round + 1);
        }
    }
    for n in 1_000..1_000_000 {
        watch.push(&call(n));
    }
    assert!(watch.held().0 <= 200);
    assert!(watch.forgotten > 900_000);
    assert_eq!(watch.push(&call(1)).count, 1);
}

#[test]
fn a_loop_of_failures_is_seen_as_it_goes_on() {
    let failing = Call {
        tool: "Bash".into(),
        input_hash: 7,
        result_hash: Some(1),
        outcome: Outcome::Failed,
        ..Call::default()
    };
    let other = Call {
        tool: "Read".into(),
        input_hash: 8,
        result_hash: Some(2),
        outcome: Outcome::Succeeded,
        ..Call::default()
    };
    let mut watch = SequenceWatch::default();
    let mut seen = watch.push(&failing);
    for _ in 0..4 {
        watch.push(&other);
        seen = watch.push(&failing);
    }
    assert_eq!((seen.count, seen.failed_run, seen.same_run, seen.run), (5, 5, 5, 1));
    assert_eq!(seen.cycle, Some(Run { start: 0, period: 2, calls: 9 }));
    // Another result breaks it.
    let seen = watch.push(&Call { outcome: Outcome::Succeeded, result_hash: Some(9), ..failing });
    assert_eq!((seen.count, seen.failed_run, seen.same_run), (6, 0, 1));
    assert_eq!(seen.ended, [Run { start: 0, period: 2, calls: 9 }]);
    assert_eq!(seen.cycle, None);
}
