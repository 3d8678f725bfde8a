//! Rows against a slow reading of their definition, and odd sessions.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::trace::Request;

/// The lead of a call by its definition: looks at everything, every time.
fn lead_of(trace: &Trace, at: usize) -> Lead {
    let call = &trace.calls[at];
    let is_before = |other: usize| (trace.calls[other].at_ms, other) < (call.at_ms, at);
    let own: Vec<usize> =
        (0..trace.calls.len()).filter(|&other| trace.calls[other].agent == call.agent).collect();
    let mut earlier: Vec<usize> = own.iter().copied().filter(|&other| is_before(other)).collect();
    earlier.sort_by_key(|&other| (trace.calls[other].at_ms, other));
    let begun = earlier.iter().map(|&other| trace.calls[other].at_ms);
    let ended = own.iter().map(|&other| &trace.calls[other]).filter_map(|other| {
        other.ended_ms.filter(|&ended_ms| ended_ms <= call.at_ms && ended_ms > other.at_ms)
    });
    let active_ms = begun.chain(ended).max();
    let window = &earlier[earlier.len().saturating_sub(REPETITION_CALLS)..];
    let same = window.iter().filter(|&&other| trace.calls[other].input_hash == call.input_hash).count();
    let asked =
        trace.requests.iter().filter(|request| request.agent == call.agent && request.ts_ms <= call.at_ms);
    let asked = asked.max_by_key(|request| request.ts_ms);
    Lead {
        gap_ms: active_ms.map(|active_ms| call.at_ms - active_ms),
        repetitions: (call.input_hash != 0).then_some(same as u32),
        output_tokens: asked
            .filter(|request| call.at_ms - request.ts_ms <= REQUEST_AGE_MAX_MS)
            .map(|request| request.output),
    }
}

prop_compose! {
    fn any_call()(
        agent in 0_u32..3,
        at_ms in prop_oneof![0_i64..40, 0_i64..2_000_000],
        lasts_ms in proptest::option::of(0_i64..30),
        input_hash in 0_i64..3,
        output_bytes in proptest::option::of(0_i64..10_000),
        outcome in prop_oneof![
            Just(Outcome::Running), Just(Outcome::Abandoned), Just(Outcome::Ended), Just(Outcome::Denied),
            Just(Outcome::Interrupted), Just(Outcome::Failed), Just(Outcome::Succeeded)
        ],
    ) -> Call {
        Call {
            agent, at_ms, ended_ms: lasts_ms.map(|lasts_ms| at_ms + lasts_ms), input_hash, output_bytes, outcome,
            tool: "Bash".into(), ..Call::default()
        }
    }
}

prop_compose! {
    fn any_trace()(
        mut calls in proptest::collection::vec(any_call(), 0..150),
        requests in proptest::collection::vec((0_u32..3, 0_i64..2_000_000, 0_i64..900), 0..20),
    ) -> Trace {
        calls.sort_by_key(|call| call.at_ms);
        for (id, call) in calls.iter_mut().enumerate() {
            call.id = id as i64;
        }
        let requests = requests.into_iter().map(|(agent, ts_ms, output)| Request { agent, ts_ms, output, ..Request::default() });
        Trace { calls, requests: requests.collect(), ..Trace::default() }
    }
}

proptest! {
    #[test]
    fn rows_are_those_of_the_definition(trace in any_trace()) {
        let rows = rows(&trace, 0);
        let judged: Vec<&Call> = trace
            .calls
            .iter()
            .filter(|call| matches!(call.outcome, Outcome::Ended | Outcome::Failed | Outcome::Succeeded))
            .collect();
        prop_assert_eq!(rows.len(), judged.len());
        for (found, call) in rows.iter().zip(judged) {
            prop_assert_eq!(found.call_id, call.id);
            let lead = lead_of(&trace, call.id as usize);
            let check = |feature: Feature, want: Option<i64>| {
                let value = feature.value(&found.row);
                let is_near = match (value, want) {
                    (Some(value), Some(want)) => (value - want as f64).abs() <= 1e-4 * (1.0 + want as f64),
                    (None, None) => true,
                    _ => false,
                };
                prop_assert!(is_near, "{}: {value:?}, should be {want:?}", feature.name());
                Ok(())
            };
            check(Feature::Duration, call.ended_ms.map(|ended_ms| ended_ms - call.at_ms))?;
            check(Feature::Tokens, lead.output_tokens)?;
            check(Feature::OutputBytes, call.output_bytes)?;
            check(Feature::Error, Some(i64::from(call.outcome == Outcome::Failed)))?;
            check(Feature::Gap, lead.gap_ms)?;
            check(Feature::Repetition, lead.repetitions.map(i64::from))?;
            let hour = Feature::Hour.value(&found.row).unwrap();
            let want = (call.at_ms % (24 * HOUR_MS)) as f64 / HOUR_MS as f64;
            prop_assert!((hour - want).abs() < 1e-3 || (hour - want).abs() > 23.999);
        }
    }

    #[test]
    fn no_numbers_make_a_row_fail(
        at_ms: i64, ended_ms: Option<i64>, duration_ms: Option<i64>, bytes: Option<i64>, tokens: Option<i64>, offset: i64,
    ) {
        let call = Call {
            at_ms, ended_ms, duration_ms, output_bytes: bytes, outcome: Outcome::Ended, ..Call::default()
        };
        let mut tracker = Tracker::default();
        tracker.begin(0, ended_ms.unwrap_or(0), 7);
        tracker.request(0, ended_ms.unwrap_or(0), tokens.unwrap_or(0));
        let row = row(&call, tracker.begin(0, at_ms, 7), offset).unwrap();
        prop_assert!(row.iter().all(|value| !value.is_infinite()));
        prop_assert!(row.iter().all(|&value| value.is_nan() || value >= -1.0));
    }
}

#[test]
fn the_hour_is_local_and_a_circle() {
    let hour = |at_ms: i64, utc_offset_ms: i64| {
        let call = Call { at_ms, outcome: Outcome::Ended, ..Call::default() };
        row(&call, Lead::default(), utc_offset_ms).unwrap()
    };
    for (at_ms, offset_hours, want) in
        [(0, 0, 0.0), (6 * HOUR_MS, 0, 6.0), (23 * HOUR_MS, 2, 1.0), (HOUR_MS, -2, 23.0)]
    {
        let value = Feature::Hour.value(&hour(at_ms, offset_hours * HOUR_MS)).unwrap();
        assert!((value - want).abs() < 1e-5 || (value - want).abs() > 23.999_99, "{value} {want}");
    }
    let distance = |a: Row, b: Row| (a[6] - b[6]).hypot(a[7] - b[7]);
    let midnight = hour(0, 0);
    assert!(distance(midnight, hour(-60_000, 0)) < 0.01 && distance(midnight, hour(12 * HOUR_MS, 0)) > 1.99);
}

#[test]
fn features_and_families_have_their_places_and_names() {
    let columns: Vec<usize> = Feature::ALL.into_iter().flat_map(Feature::columns).collect();
    assert_eq!(columns, (0..COLUMNS).collect::<Vec<_>>());
    for (place, family) in Family::ALL.into_iter().enumerate() {
        assert_eq!((family as usize, Family::of_name(family.name())), (place, Some(family)));
    }
    for (tool, family) in [
        ("Bash", Family::Shell),
        ("Read", Family::FileRead),
        ("MultiEdit", Family::FileWrite),
        ("Grep", Family::Search),
        ("WebFetch", Family::Web),
        ("Task", Family::Agent),
        ("Agent", Family::Agent),
        ("mcp__github__get_issue", Family::Mcp),
        ("TodoWrite", Family::Other),
        ("TaskUpdate", Family::Other),
        ("", Family::Other),
    ] {
        assert_eq!(Family::of(tool), family, "{tool}");
    }
    assert_eq!(Family::of(&"x".repeat(10_000)), Family::Other);
}

#[test]
fn a_tracker_forgets_the_quiet_agents() {
    let mut tracker = Tracker::default();
    for agent in 0..5_000 {
        tracker.begin(agent, 1_000, 7);
        assert!(tracker.begin(0, 2_000, 8).gap_ms.is_some(), "the busy one is known");
        assert!(tracker.agents.len() <= AGENTS_MAX);
    }
    assert_eq!(
        tracker.begin(4_999, 3_000, 7),
        Lead { gap_ms: Some(2_000), repetitions: Some(1), output_tokens: None }
    );
    assert_eq!(tracker.begin(1, 3_000, 7).gap_ms, None);
    for _ in 0..REPETITION_CALLS {
        tracker.begin(7, 3_000, 9);
    }
    assert_eq!(tracker.begin(7, 3_000, 7).repetitions, Some(0));
    assert_eq!(tracker.begin(7, 3_000, 9).repetitions, Some(REPETITION_CALLS as u32 - 1));
}

#[test]
fn a_session_of_a_hundred_thousand_calls_has_its_rows() {
    let tool: Arc<str> = "Read".into();
    let calls = (0..100_000).map(|id| Call {
        id,
        agent: (id % 3) as u32,
        at_ms: id * 1_000,
        ended_ms: Some(id * 1_000 + 500),
        outcome: Outcome::Succeeded,
        input_hash: 1 + id % 5,
        tool: tool.clone(),
        ..Call::default()
    });
    let trace = Trace { calls: calls.collect(), ..Trace::default() };
    let rows = rows(&trace, 0);
    assert_eq!(rows.len(), 100_000);
    // Every third call is the agent's own; its last 64 have each of five inputs in turn.
    let last = rows.last().unwrap().row;
    assert!((Feature::Gap.value(&last).unwrap() - 2_500.0).abs() < 1.0);
    assert!((Feature::Repetition.value(&last).unwrap() - 12.0).abs() < 1.0);
}
