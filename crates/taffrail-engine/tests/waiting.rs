//! Silence and scores: the sessions that fire, and those that nearly do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::Arc;

use support::*;
use taffrail_analytics::trace::MarkKind;
use taffrail_engine::finding::{CallRef, Severity};
use taffrail_engine::signal::{Score, ScoreKind, Via};
use taffrail_engine::{Detector, Engine, Phase, Signal, What};

#[test]
fn a_call_that_never_ends_is_a_stall() {
    let mut story = Story::new("hangs");
    story.mark(MarkKind::SessionStart).prompt().asks(10).begins(bash("npm run dev", ""));
    story.wait(25 * MINUTE).by("other").tell(What::AgentStarted);
    let finding = only(&story.findings(), Detector::StalledAgent);
    assert!(finding.summary.contains("npm run dev") && finding.evidence.calls.len() == 1);
    story.by("").ends(bash("npm run dev", ""));
    assert!(resolved(&story.findings(), Detector::StalledAgent));
}

#[test]
fn an_agent_that_waits_for_a_person_does_not_stall() {
    let mut story = Story::new("waits");
    story.mark(MarkKind::SessionStart).prompt().does(bash("ls", "a"));
    story.mark(MarkKind::Stop).wait(3 * HOUR).prompt().does(bash("ls b", "a"));
    story.mark(MarkKind::Notification { kind: Some("idle_prompt".to_owned()) }).wait(50 * MINUTE).prompt();
    silent(&story.findings());
}

#[test]
fn an_agent_whose_subagent_works_does_not_stall() {
    let mut story = Story::new("delegates");
    story.mark(MarkKind::SessionStart).prompt().begins(call("Agent", "look around"));
    story.by("sub");
    for n in 0..12 {
        story.wait(4 * MINUTE).calls(read("/p/a", n));
    }
    silent(&story.findings());
}

#[test]
fn a_transcript_does_not_tell_who_waits() {
    let mut story = Story::new("transcript");
    story.via = Via::Recording;
    story.prompt().begins(bash("npm run dev", "")).wait(HOUR).prompt();
    silent(&story.findings());
}

#[test]
fn a_machine_that_slept_did_not_stall() {
    let mut engine = Engine::default();
    let mut story = Story::new("sleeps");
    story.mark(MarkKind::SessionStart).prompt().begins(bash("npm test", ""));
    let mut findings = replay(&mut engine, story.told.clone());
    for (after, back) in
        [(0, 0), (8 * HOUR, 0), (8 * HOUR + MINUTE, 0), (9 * HOUR, 12 * HOUR), (9 * HOUR + MINUTE, 0)]
    {
        findings.extend(engine.step(story.now + after - back, &Signal::Tick));
    }
    silent(&findings);
    assert!(engine.stats().clock_jumps >= 3);
}

#[test]
fn a_question_without_an_answer_is_a_permission_stall() {
    let tool: Arc<str> = Arc::from("Bash");
    let asked =
        || MarkKind::PermissionRequest { tool: tool.clone(), input_hash: call("Bash", "rm x").input_hash };
    let mut story = Story::new("asks");
    story.mark(MarkKind::SessionStart).prompt().begins(call("Bash", "rm x")).mark(asked());
    story.wait(6 * MINUTE).by("other").tell(What::AgentStarted);
    let finding = only(&story.findings(), Detector::PermissionStall);
    assert_eq!(finding.scope.agent_id.as_ref(), "");
    story.by("").ends(call("Bash", "rm x"));
    assert!(resolved(&story.findings(), Detector::PermissionStall));

    let mut story = Story::new("answers");
    for _ in 0..5 {
        story.begins(call("Bash", "rm x")).mark(asked()).wait(4 * MINUTE);
        story.ends(call("Bash", "rm x")).prompt();
    }
    silent(&story.findings());
}

#[test]
fn a_call_beside_the_one_that_waits_does_not_answer_for_it() {
    let tool: Arc<str> = Arc::from("Bash");
    let asked = MarkKind::PermissionRequest { tool, input_hash: call("Bash", "rm x").input_hash };
    let mut story = Story::new("parallel");
    story.mark(MarkKind::SessionStart).prompt().begins(call("Bash", "rm x")).mark(asked);
    story.calls(read("/p/a", 1)).wait(6 * MINUTE).by("other").tell(What::AgentStarted);
    only(&story.findings(), Detector::PermissionStall);
}

#[test]
fn an_agent_that_asks_its_model_again_has_its_answer() {
    let mut story = Story::new("goes on");
    story.begins(call("ExitPlanMode", "the plan")).wait(SECOND).asks(10);
    story.wait(6 * MINUTE).by("other").tell(What::AgentStarted);
    silent(&story.findings());
}

#[test]
fn a_plan_that_nobody_approves_is_a_permission_stall() {
    let mut story = Story::new("plan");
    story.begins(call("ExitPlanMode", "the plan")).wait(6 * MINUTE).by("other").tell(What::AgentStarted);
    only(&story.findings(), Detector::PermissionStall);
}

/// Hooks first, then so many requests told by telemetry alone.
fn hooks_go(requests: u32, hooks_go_on: bool) -> Vec<taffrail_engine::Finding> {
    let mut story = Story::new("hooks");
    story.mark(MarkKind::SessionStart).prompt().does(edit("/p/a", "x"));
    for n in 0..requests {
        story.via = Via::Witness;
        story.asks(10).wait(25 * SECOND);
        story.via = Via::Hook;
        if hooks_go_on {
            story.calls(edit("/p/a", &format!("x {n}")));
        }
    }
    story.findings()
}

#[test]
fn hooks_that_say_nothing_while_the_session_works_are_told() {
    only(&hooks_go(12, false), Detector::HookSilence);
    silent(&hooks_go(9, false));
    silent(&hooks_go(60, true));
}

#[test]
fn a_session_without_hooks_among_such_is_nothing_to_tell() {
    let mut story = Story::new("never");
    story.via = Via::Witness;
    story.key.app = Arc::from("hookless");
    for _ in 0..40 {
        story.asks(10).wait(25 * SECOND);
    }
    silent(&story.findings());
    story.via = Via::Recording;
    for _ in 0..40 {
        story.asks(10).wait(25 * SECOND);
    }
    silent(&story.findings());
}

fn score(kind: ScoreKind, score: f64, id: i64) -> Score {
    let reasons = vec!["duration 94 s, usually 0.2 to 3 s".to_owned()];
    Score {
        kind,
        score,
        subject: Arc::from("shell"),
        call: Some(CallRef { id, tool_use_id: None }),
        reasons,
        model_version: None,
    }
}

#[test]
fn a_drift_that_lasts_is_told() {
    let mut story = Story::new("drifts");
    for (n, value) in [0.72, 0.4, 0.75, 0.8, 0.71, 0.65, 0.9].into_iter().enumerate() {
        story.score(score(ScoreKind::Drift, value, n as i64)).wait(MINUTE);
    }
    let findings = story.findings();
    only(&findings, Detector::BehaviourDrift);
    assert!(!resolved(&findings, Detector::BehaviourDrift), "just below the threshold is not over");
    story.score(score(ScoreKind::Drift, 0.5, 9));
    assert!(resolved(&story.findings(), Detector::BehaviourDrift));
    let mut story = Story::new("wavers");
    for (n, value) in [0.9, 0.9, 0.3, 0.9, 0.9, f64::NAN, 0.69].into_iter().enumerate() {
        story.score(score(ScoreKind::Drift, value, n as i64)).wait(MINUTE);
    }
    silent(&story.findings());
}

#[test]
fn an_anomaly_is_information_and_several_are_a_warning() {
    let mut story = Story::new("odd");
    for n in 0..3 {
        story
            .score(score(ScoreKind::Anomaly, 0.72, n))
            .score(score(ScoreKind::Anomaly, 0.72, n))
            .wait(MINUTE);
        story.score(score(ScoreKind::Anomaly, 0.69, 100 + n));
    }
    let findings = story.findings();
    assert_eq!(only(&findings, Detector::Anomaly).severity, Severity::Info);
    let last = findings.last().unwrap();
    assert_eq!(
        (last.phase, last.severity, last.evidence.calls.len()),
        (Phase::Escalated, Severity::Warning, 3)
    );
    story.wait(30 * MINUTE).prompt();
    assert!(resolved(&story.findings(), Detector::Anomaly));
    let mut story = Story::new("usual");
    for n in 0..50 {
        story.score(score(ScoreKind::Anomaly, 0.65, n)).wait(SECOND);
    }
    silent(&story.findings());
}
