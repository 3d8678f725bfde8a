//! Money, context and subagents: the sessions that fire, and those that nearly do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::Arc;

use support::*;
use taffrail_analytics::trace::MarkKind;
use taffrail_engine::finding::Severity;
use taffrail_engine::signal::Via;
use taffrail_engine::{Config, Detector, Finding, Phase, What};

fn compaction() -> MarkKind {
    MarkKind::Compaction { trigger: Some("auto".to_owned()), pre_tokens: Some(160_000), post_tokens: None }
}

/// Two hours of work at twenty cents a window.
fn usual(story: &mut Story) {
    for n in 0..24 {
        story.does(read("/p/a", n)).asks(150);
        story.does(edit("/p/a", &format!("edit {n}")));
        story.wait(5 * MINUTE);
    }
}

#[test]
fn far_more_than_usual_is_a_spike() {
    let mut story = Story::new("spike");
    usual(&mut story);
    story.prompt();
    for n in 0..6 {
        story.asks(1_000).calls(edit("/p/a", &format!("more {n}")));
    }
    story.mark(MarkKind::Stop).wait(20 * MINUTE).does(edit("/p/a", "later"));
    let findings = story.findings();
    let finding = only(&findings, Detector::CostSpike);
    assert!(finding.evidence.figures[0].value >= 5.0 && finding.cost.nano_usd >= Some(5 * USD));
    assert!(resolved(&findings, Detector::CostSpike));
}

#[test]
fn a_dear_project_is_no_spike_nor_is_a_first_hour() {
    let mut story = Story::new("dear");
    for n in 0..24 {
        story.asks(3_000).calls(edit("/p/a", &format!("edit {n}"))).wait(5 * MINUTE).prompt();
    }
    story.asks(4_000).asks(4_000).calls(edit("/p/a", "b"));
    silent(&story.findings());
    let mut story = Story::new("first");
    for n in 0..8 {
        story.asks(1_500).calls(edit("/p/a", &format!("edit {n}")));
    }
    silent(&story.findings());
}

fn budgets() -> Config {
    Config::from_toml(
        "[detectors.budget_threshold]\nday_usd = 10\nsession_usd = 100\napp_day_usd = 1000\nhour_usd = 1000",
    )
    .unwrap()
}

#[test]
fn a_budget_tells_at_each_of_its_parts_once_a_day() {
    let mut story = Story::new("budget");
    for n in 0..11 {
        story.asks(1_000).calls(edit("/p/a", &format!("e {n}"))).wait(MINUTE);
    }
    let findings = story.findings_with(budgets());
    let told: Vec<_> = findings.iter().map(|f| (f.phase, f.severity, f.evidence.figures[0].value)).collect();
    assert_eq!(
        told,
        [
            (Phase::Fired, Severity::Info, 50.0),
            (Phase::Escalated, Severity::Warning, 80.0),
            (Phase::Escalated, Severity::Critical, 100.0)
        ]
    );
    assert!(findings[0].scope.session_id.is_empty() && findings[0].id == findings[2].id);
    story.wait(24 * HOUR).asks(1_000);
    let findings = story.findings_with(budgets());
    assert!(resolved(&findings, Detector::BudgetThreshold), "another day");
}

#[test]
fn just_under_half_a_budget_is_silent_and_no_budget_too() {
    let mut story = Story::new("under");
    for n in 0..49 {
        story.asks(100).calls(edit("/p/a", &format!("e {n}")));
    }
    silent(&story.findings_with(budgets()));
    story.asks(100_000);
    assert!(!fired(&story.findings()).contains(&Detector::BudgetThreshold));
}

#[test]
fn a_request_told_again_costs_once_and_its_better_price_counts() {
    let mut story = Story::new("twice");
    for milli in [4_000, 4_900, 4_900, 4_900] {
        let id = 7;
        story.asks_with(|request| {
            request.id = id;
            request.cost_nano_usd = Some(milli * USD / 1_000);
        });
    }
    silent(&story.findings_with(budgets()));
    story.asks(100);
    only(&story.findings_with(budgets()), Detector::BudgetThreshold);
}

#[test]
fn long_work_without_a_word_is_a_runaway() {
    let mut story = Story::new("runaway");
    story.prompt();
    for n in 0..290 {
        story.asks(10).calls(edit(&format!("/p/{n}"), "x")).wait(20 * SECOND);
    }
    silent(&story.findings());
    for n in 0..30 {
        story.asks(10).calls(edit(&format!("/q/{n}"), "x")).wait(4 * MINUTE);
    }
    let finding = only(&story.findings(), Detector::RunawaySession);
    assert_eq!(finding.began_ms, START);
    story.prompt();
    assert!(resolved(&story.findings(), Detector::RunawaySession));
}

#[test]
fn a_word_now_and_then_is_no_runaway_nor_are_pauses() {
    let mut story = Story::new("attended");
    for n in 0..500 {
        if n % 100 == 0 {
            story.prompt();
        }
        story.asks(40).calls(edit(&format!("/p/{n}"), "x")).wait(20 * SECOND);
    }
    silent(&story.findings());
    let mut story = Story::new("pauses");
    for n in 0..310 {
        story.asks(10).calls(edit(&format!("/p/{n}"), "x")).wait(6 * MINUTE);
    }
    silent(&story.findings());
}

#[test]
fn very_many_subagents_are_a_storm() {
    let agents: Vec<String> = (0..20).map(|n| format!("agent-{n}")).collect();
    let of = |count: usize, ends: bool| {
        let mut story = Story::new("storm");
        for agent in &agents[..count] {
            story.by(Box::leak(agent.clone().into_boxed_str())).tell(What::AgentStarted).asks(20);
            if ends {
                story.wait(SECOND).tell(What::AgentEnded);
            }
        }
        story.findings()
    };
    let finding = only(&of(20, false), Detector::SubagentStorm);
    assert_eq!(finding.evidence.figures[0].value, 16.0);
    silent(&of(15, false));
    silent(&of(20, true));
}

fn full(story: &mut Story, tokens: i64) {
    story.asks_with(|request| request.cache_read = tokens - request.input);
}

#[test]
fn a_context_that_stays_full_is_exhausted() {
    let mut story = Story::new("full");
    for tokens in [150_000, 170_000, 183_000, 186_000, 190_000, 195_000] {
        full(&mut story, tokens);
    }
    let findings = story.findings();
    let finding = only(&findings, Detector::ContextExhaustion);
    assert_eq!(finding.evidence.figures[0].value, 95.0, "the second that was that full");
    assert_eq!(findings.last().map(|f| (f.phase, f.severity)), Some((Phase::Escalated, Severity::Critical)));
    story.mark(compaction());
    assert!(resolved(&story.findings(), Detector::ContextExhaustion));
}

#[test]
fn a_context_that_is_compacted_in_time_is_not() {
    let mut story = Story::new("compacts");
    for _ in 0..3 {
        for tokens in [100_000, 150_000, 167_000, 184_500] {
            full(&mut story, tokens);
        }
        story.mark(compaction());
        full(&mut story, 30_000);
        story.wait(40 * MINUTE);
    }
    // A longer window than the table knows.
    full(&mut story, 400_000);
    full(&mut story, 420_000);
    silent(&story.findings());
}

#[test]
fn compaction_upon_compaction_is_churn() {
    let mut story = Story::new("churn");
    for n in 0..4 {
        // Hook and transcript tell of each.
        story
            .asks(500)
            .mark(compaction())
            .wait(3 * SECOND)
            .mark(compaction())
            .calls(read("/p/a", n))
            .wait(8 * MINUTE);
    }
    let finding = only(&story.findings(), Detector::CompactionChurn);
    assert_eq!((finding.evidence.figures[0].value, finding.cost.nano_usd), (3.0, Some(USD)));
    let mut story = Story::new("long");
    for n in 0..6 {
        story.asks(500).mark(compaction()).calls(read("/p/a", n)).mark(MarkKind::Stop).wait(16 * MINUTE);
    }
    silent(&story.findings());
}

#[test]
fn money_without_effect_is_silent_spend() {
    let mut story = Story::new("silent");
    story.prompt().does(edit("/p/a", "x"));
    for n in 0..40 {
        story.asks(200).calls(bash("sleep 60; cat state", "waiting")).wait(MINUTE);
        if n % 5 == 0 {
            story.asks(100).calls(read("/p/state", n));
        }
    }
    let findings = story.findings();
    let finding = findings.iter().find(|f| f.detector == Detector::SilentSpend).unwrap();
    assert!(
        finding.cost.nano_usd >= Some(3 * USD) && finding.evidence.figures[2].value <= 25.0,
        "{finding:#?}"
    );
    story.does(commit("done"));
    assert!(resolved(&story.findings(), Detector::SilentSpend));
}

#[test]
fn research_is_not_silent_nor_is_cheap_waiting() {
    let mut story = Story::new("research");
    for n in 0..80 {
        story.asks(150).calls(read("/p/a", n)).wait(10 * SECOND);
    }
    silent(&story.findings());
    let mut story = Story::new("cheap");
    for n in 0..19 {
        story.asks(20).calls(bash(&format!("sleep {n}"), "")).calls(call("BashOutput", "b")).wait(MINUTE);
    }
    silent(&story.findings());
}

#[test]
fn talk_without_a_call_is_silent_spend() {
    let of = |requests: i64, milli: i64| {
        let mut story = Story::new("talk");
        story.prompt();
        for _ in 0..requests {
            story.asks(milli).mark(MarkKind::Stop).wait(5 * SECOND).mark(MarkKind::Prompt { human: false });
        }
        story.findings()
    };
    let finding = only(&of(40, 50), Detector::SilentSpend);
    assert_eq!(finding.cost.requests, 25);
    silent(&of(24, 90));
    silent(&of(60, 10));
}

#[test]
fn who_sees_only_requests_says_nothing_of_calls() {
    let of = |is_heard: bool| {
        let mut story = Story::new("transcript");
        if is_heard {
            story.prompt();
        }
        story.via = Via::Witness;
        for _ in 0..40 {
            story.asks(50).wait(5 * SECOND);
        }
        story.findings()
    };
    silent(&of(false));
    assert!(of(true).iter().any(|finding| finding.detector == Detector::SilentSpend));
}

fn failure(status: i64, exhausted: bool) -> MarkKind {
    MarkKind::ApiFailure { model: None, status_code: Some(status), retry_in_ms: Some(500), exhausted }
}

#[test]
fn an_api_that_fails_much_is_degraded() {
    let mut story = Story::new("529");
    for _ in 0..5 {
        story.mark(failure(529, false)).wait(10 * SECOND);
    }
    let finding = only(&story.findings(), Detector::ApiDegraded);
    assert!(finding.scope.session_id.is_empty() && finding.cost.nano_usd.is_none());
    story.wait(20 * MINUTE).asks(10);
    assert!(resolved(&story.findings(), Detector::ApiDegraded));
    let mut story = Story::new("given up");
    story.mark(MarkKind::StopFailure { class: Arc::from("overloaded") }).wait(MINUTE);
    story.mark(failure(500, true));
    assert_eq!(only(&story.findings(), Detector::ApiDegraded).severity, Severity::Critical);
}

#[test]
fn retries_now_and_then_and_refusals_are_no_degraded_api() {
    let mut story = Story::new("retries");
    for _ in 0..12 {
        story.mark(failure(529, false)).wait(2 * MINUTE);
        story.mark(failure(400, true)).mark(failure(401, true));
        story.mark(MarkKind::StopFailure { class: Arc::from("billing") });
    }
    silent(&story.findings());
}

fn unpriced(model: &str) -> Vec<Finding> {
    let mut story = Story::new("unpriced");
    for _ in 0..3 {
        story.asks_with(|request| {
            request.model = Arc::from(model);
            request.cost_nano_usd = None;
        });
    }
    story.findings()
}

#[test]
fn a_model_without_a_price_is_told_once_and_again_when_doubled() {
    let findings = unpriced("claude-next-9");
    let finding = only(&findings, Detector::UnpricedModel);
    assert_eq!((finding.cost.nano_usd, finding.cost.unpriced), (None, 1));
    assert_eq!(findings.len(), 2);
    silent(&unpriced("<synthetic>"));
    silent(&unpriced(""));
}
