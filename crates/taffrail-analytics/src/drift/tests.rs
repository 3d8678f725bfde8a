//! Distances by hand, changes that are there and that are not, and odd profiles.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::forest::random::Random;
use crate::trace::{Agent, Mark, Request};

fn profile(sessions: u64, tools: &[(&str, u64)], errors: [u64; 2]) -> Profile {
    Profile {
        sessions,
        tools: tools.iter().map(|&(tool, count)| (tool.to_owned(), count)).collect(),
        succeeded: errors[0],
        failed: errors[1],
        ..Profile::default()
    }
}

fn of(comparisons: &[Comparison], dimension: Dimension) -> &Comparison {
    comparisons.iter().find(|comparison| comparison.dimension == dimension).unwrap()
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} {b}");
}

#[test]
fn the_index_is_that_of_its_definition() {
    // With a half more in each group: 60 and 40 of 100 against 30 and 70.
    let baseline = profile(59, &[], [119, 79]);
    let recent = profile(59, &[], [59, 139]);
    let found = compare(&baseline, &recent);
    let errors = of(&found, Dimension::ErrorRate);
    let (p, q) = ([119.5_f64 / 199.0, 79.5 / 199.0], [59.5_f64 / 199.0, 139.5 / 199.0]);
    let want = (q[0] - p[0]) * (q[0] / p[0]).ln() + (q[1] - p[1]) * (q[1] / p[1]).ln();
    near(errors.index, want);
    near(errors.index, 0.379793257815);
    assert_eq!((errors.baseline_count, errors.recent_count), (198, 198));
    // ln(0.3 / 0.6) is further from 0 than ln(0.7 / 0.4).
    assert_eq!([&errors.parts[0].group, &errors.parts[1].group], [&Group::Succeeded, &Group::Failed]);
    near(errors.parts[1].baseline_share, 79.0 / 198.0);
    near(errors.parts[1].recent_share, 139.0 / 198.0);
    // 198 calls in 59 sessions.
    let told = 198.0 / (1.0 + (198.0 / 59.0 - 1.0) * 0.1);
    near(errors.chance_index, 2.0 / told * chi_squared(1));
    assert!(errors.is_changed());
    // Two sides without anything in common.
    let apart = compare(&profile(9, &[("A", 1_000_000)], [0, 0]), &profile(9, &[("B", 1_000_000)], [0, 0]));
    assert!(apart[0].divergence > 0.999 && apart[0].is_changed());
}

#[test]
fn quantiles_of_chi_squared_are_near_the_tables() {
    for (degrees, want) in [(1, 10.828), (2, 13.816), (5, 20.515), (9, 27.877), (20, 45.315), (60, 99.607)] {
        assert!((chi_squared(degrees) / want - 1.0).abs() < 0.04, "{degrees}: {}", chi_squared(degrees));
    }
    near(chi_squared(0), 0.0);
}

/// A session whose calls are alike: each copies an earlier one with the share that gives the correlation (Polya's urn).
fn session(
    random: &mut Random,
    tools: &[(&str, f64)],
    error_share: f64,
    duration_ms: f64,
    calls: usize,
) -> Trace {
    let agent = Agent { agent_type: "main".to_owned(), ..Agent::default() };
    let mut trace = Trace { agents: vec![agent], ..Trace::default() };
    let fresh = 1.0 / SAME_SESSION_CORRELATION - 1.0;
    for id in 0..calls {
        let at_ms = id as i64 * 1_000;
        let is_copy = random.unit() * (fresh + id as f64) >= fresh;
        let mut call = if is_copy {
            trace.calls[random.below(id)].clone()
        } else {
            let mut left = random.unit() * tools.iter().map(|(_, weight)| weight).sum::<f64>();
            let tool = tools.iter().find(|(_, weight)| {
                left -= weight;
                left < 0.0
            });
            let spread = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
            Call {
                tool: tool.unwrap_or(&tools[0]).0.into(),
                outcome: if random.unit() < error_share { Outcome::Failed } else { Outcome::Succeeded },
                duration_ms: Some((duration_ms * spread.exp()) as i64),
                ..Call::default()
            }
        };
        (call.id, call.at_ms) = (id as i64, at_ms);
        if id % 10 == 0 {
            trace.marks.push(Mark { ts_ms: at_ms, agent: 0, kind: MarkKind::Prompt { human: true } });
        }
        trace.requests.push(Request {
            ts_ms: at_ms,
            output: 200 + random.below(800) as i64,
            ..Request::default()
        });
        trace.calls.push(call);
    }
    trace
}

fn behaviour(
    random: &mut Random,
    sessions: usize,
    tools: &[(&str, f64)],
    error_share: f64,
    duration_ms: f64,
) -> Profile {
    let mut all = Profile::default();
    for _ in 0..sessions {
        let calls = 20 + random.below(180);
        all.merge(&profiles(&session(random, tools, error_share, duration_ms, calls))["main"]);
    }
    all
}

const USUAL: &[(&str, f64)] = &[("Bash", 4.0), ("Read", 3.0), ("Edit", 2.0), ("Grep", 1.0), ("Write", 0.5)];

fn changed(baseline: &Profile, recent: &Profile) -> Vec<Dimension> {
    let comparisons = compare(baseline, recent).into_iter().filter(Comparison::is_changed);
    comparisons.map(|comparison| comparison.dimension).collect()
}

#[test]
fn nothing_changes_where_nothing_changed() {
    let mut random = Random::new(3);
    let mut false_changes = 0;
    for sessions in [5, 10, 40] {
        for _ in 0..100 {
            let baseline = behaviour(&mut random, 40, USUAL, 0.05, 300.0);
            let recent = behaviour(&mut random, sessions, USUAL, 0.05, 300.0);
            false_changes += changed(&baseline, &recent).len();
        }
    }
    // Of 1,500 distributions.
    assert!(false_changes <= 3, "{false_changes}");
}

#[test]
fn each_change_is_found_and_named() {
    let mut random = Random::new(4);
    let runs = 20;
    let mut found = [0; 3];
    for _ in 0..runs {
        let baseline = behaviour(&mut random, 60, USUAL, 0.03, 300.0);
        let tools = [("Bash", 2.0), ("Read", 1.0), ("Edit", 1.0), ("WebFetch", 4.0)];
        let recent = behaviour(&mut random, 30, &tools, 0.03, 300.0);
        let comparisons = compare(&baseline, &recent);
        let mix = of(&comparisons, Dimension::ToolMix);
        let is_named = mix.parts[0].group == Group::Tool("WebFetch".to_owned());
        found[0] += usize::from(is_named && changed(&baseline, &recent) == [Dimension::ToolMix]);

        let recent = behaviour(&mut random, 30, USUAL, 0.25, 300.0);
        found[1] += usize::from(changed(&baseline, &recent) == [Dimension::ErrorRate]);

        let recent = behaviour(&mut random, 30, USUAL, 0.03, 1_500.0);
        let comparisons = compare(&baseline, &recent);
        let (before, after) = of(&comparisons, Dimension::Duration).medians.unwrap();
        let is_told = (before / 300.0).log2().abs() <= 1.0 && (after / 1_500.0).log2().abs() <= 1.0;
        found[2] += usize::from(is_told && changed(&baseline, &recent) == [Dimension::Duration]);
    }
    assert!(found.iter().all(|&found| found >= runs - 1), "{found:?}");
}

#[test]
fn a_profile_counts_by_agent_type_and_by_prompt() {
    let agent = |agent_type: &str| Agent { agent_type: agent_type.to_owned(), ..Agent::default() };
    let call = |agent, at_ms, outcome| Call {
        agent,
        at_ms,
        outcome,
        tool: Arc::from("Bash"),
        duration_ms: Some(100),
        ..Call::default()
    };
    let prompt = |ts_ms, human| Mark { ts_ms, agent: 0, kind: MarkKind::Prompt { human } };
    let request = |agent, ts_ms, tokens| Request {
        agent,
        ts_ms,
        input: tokens,
        cache_read: 9_999,
        ..Request::default()
    };
    let trace = Trace {
        agents: vec![agent("main"), agent("Explore"), agent("Explore"), agent("idle")],
        calls: vec![
            call(0, 10, Outcome::Succeeded),
            call(0, 11, Outcome::Failed),
            call(0, 12, Outcome::Running),
            call(0, 25, Outcome::Denied),
            call(1, 11, Outcome::Succeeded),
            call(1, 30, Outcome::Succeeded),
            call(2, 11, Outcome::Succeeded),
            call(77, 11, Outcome::Succeeded),
        ],
        requests: vec![request(0, 10, 5), request(0, 11, 3), request(1, 11, 64), request(0, 26, 40)],
        marks: vec![prompt(10, true), prompt(11, false), prompt(20, true), prompt(30, true)],
        ..Trace::default()
    };
    let profiles = profiles(&trace);
    assert_eq!(profiles.keys().collect::<Vec<_>>(), ["Explore", "main"]);
    let sizes = |values: &[i64]| {
        let mut sizes = Sizes::default();
        values.iter().for_each(|&value| sizes.add(value));
        sizes
    };
    let main = &profiles["main"];
    assert_eq!((main.calls(), main.succeeded, main.failed, main.sessions), (3, 1, 1, 1));
    assert_eq!(main.calls_per_prompt, sizes(&[2, 1, 0]));
    assert_eq!(main.tokens_per_call, sizes(&[4, 40]));
    assert_eq!(main.durations, sizes(&[100, 100, 100]));
    assert_eq!(profiles["Explore"].calls_per_prompt, sizes(&[2, 1]));
    assert_eq!(profiles["Explore"].tokens_per_call, sizes(&[32]));
}

#[test]
fn few_sessions_and_few_observations_are_not_judged() {
    let many = profile(50, &[("Bash", 5_000)], [5_000, 0]);
    assert!(compare(&many, &profile(SESSIONS_MIN - 1, &[("Read", 5_000)], [0, 5_000])).is_empty());
    assert!(compare(&many, &profile(50, &[("Read", OBSERVATIONS_MIN - 1)], [0, 0])).is_empty());
    assert_eq!(compare(&many, &profile(50, &[("Read", OBSERVATIONS_MIN)], [0, 0])).len(), 1);
}

#[test]
fn tools_and_names_are_bounded() {
    let call = |tool: String| Call { tool: tool.into(), outcome: Outcome::Ended, ..Call::default() };
    let long = "x".repeat(10_000);
    let calls =
        (0..500).map(|tool| call(format!("tool-{tool:03}"))).chain((0..9).map(|_| call(long.clone())));
    let agents = (0..100).map(|at| Agent { agent_type: format!("{at:03}{long}"), ..Agent::default() });
    let trace = Trace { agents: agents.collect(), calls: calls.collect(), ..Trace::default() };
    let mut profiles = profiles(&trace);
    let (name, mut profile) = profiles.pop_first().unwrap();
    assert_eq!((name.chars().count(), profile.tools.len()), (NAME_CHARS_MAX, TOOLS_MAX));
    assert_eq!((profile.tools[&"x".repeat(NAME_CHARS_MAX)], profile.calls()), (9, 509));
    profile.merge(&profile.clone());
    assert_eq!((profile.calls(), profile.sessions), (1_018, 2));
    assert!(profile.to_bytes().len() < 4_000);
}

prop_compose! {
    fn any_sizes()(values in proptest::collection::vec((any::<i64>(), 0_u32..63), 0..60)) -> Sizes {
        let mut sizes = Sizes::default();
        values.into_iter().for_each(|(value, shift)| sizes.add(value >> shift));
        sizes
    }
}

prop_compose! {
    fn any_profile()(
        sessions in 0_u64..20,
        tools in proptest::collection::btree_map("[a-d]{1,2}", prop_oneof![0_u64..90, any::<u64>()], 0..9),
        counts in proptest::array::uniform3(prop_oneof![0_u64..90, any::<u64>()]),
        sizes in proptest::array::uniform3(any_sizes()),
    ) -> Profile {
        let [durations, calls_per_prompt, tokens_per_call] = sizes;
        let [other_tools, succeeded, failed] = counts;
        Profile { sessions, tools, other_tools, succeeded, failed, durations, calls_per_prompt, tokens_per_call }
    }
}

proptest! {
    #[test]
    fn every_comparison_is_finite_and_even(a in any_profile(), b in any_profile()) {
        for (one, other) in compare(&a, &b).iter().zip(compare(&b, &a)) {
            prop_assert!(one.index.is_finite() && one.index >= 0.0 && one.chance_index.is_finite());
            prop_assert!((0.0..=1.0).contains(&one.divergence));
            prop_assert!((one.index - other.index).abs() <= 1e-9 * (1.0 + one.index));
            prop_assert!(one.parts.len() <= PARTS_MAX);
        }
        for same in compare(&a, &a) {
            prop_assert!(same.index == 0.0 && !same.is_changed());
        }
    }

    #[test]
    fn a_profile_comes_back_from_its_bytes(profile in any_profile()) {
        let bytes = profile.to_bytes();
        prop_assert_eq!(Profile::from_bytes(&bytes).unwrap(), profile);
        prop_assert!(Profile::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn merging_is_adding_up(a in any_profile(), b in any_profile()) {
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        prop_assert_eq!(&ab, &ba);
        prop_assert_eq!(ab.sessions, a.sessions + b.sessions);
        prop_assert_eq!(ab.durations.count(), a.durations.count() + b.durations.count());
    }

    #[test]
    fn a_median_is_within_its_sizes(mut values in proptest::collection::vec(0_i64..1_000_000, 1..50)) {
        let mut sizes = Sizes::default();
        values.iter().for_each(|&value| sizes.add(value));
        values.sort_unstable();
        let exact = values[(values.len() - 1) / 2] as f64;
        let median = sizes.median().unwrap();
        prop_assert!(median == exact || (median / exact).log2().abs() <= 0.5 + 1e-9, "{median} {exact}");
    }
}
