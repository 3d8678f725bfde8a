//! Loops: the sessions that fire, and those that nearly do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use support::*;
use taffrail_analytics::trace::{MarkKind, Outcome};
use taffrail_engine::finding::{Severity, Unit};
use taffrail_engine::{Config, Detector, Phase};

#[test]
fn the_same_failing_call_is_caught_at_its_third_time() {
    let mut story = Story::new("loop");
    story.prompt();
    for _ in 0..9 {
        story.does(failed(bash("npm install", ""), "Exit code 1: registry unreachable"));
    }
    let findings = story.findings();
    let finding = only(&findings, Detector::RetryLoop);
    assert_eq!((finding.severity, finding.scope.session_id.as_ref()), (Severity::Warning, "loop"));
    let figure = finding.evidence.figures[0];
    assert_eq!(
        (figure.name, figure.value, figure.unit, figure.threshold),
        ("repetitions", 3.0, Unit::Count, Some(3.0))
    );
    // The requests behind the second and third attempt, not the one behind the first.
    assert_eq!((finding.cost.nano_usd, finding.cost.requests), (Some(2 * USD / 20), 2));
    assert_eq!(finding.evidence.calls.len(), 3);
    assert!(finding.summary.contains("npm install"), "{}", finding.summary);
    let told: Vec<_> = findings.iter().map(|f| (f.phase, f.evidence.figures[0].value)).collect();
    assert_eq!(
        told,
        [(Phase::Fired, 3.0), (Phase::Escalated, 6.0), (Phase::Escalated, 9.0)],
        "doubled, then critical"
    );
    assert_eq!(findings[2].severity, Severity::Critical);
}

#[test]
fn a_loop_that_costs_much_is_critical_at_once() {
    let mut story = Story::new("dear");
    for _ in 0..3 {
        story.asks(4_000).calls(failed(bash("make", ""), "no rule"));
    }
    assert_eq!(only(&story.findings(), Detector::RetryLoop).severity, Severity::Critical);
}

#[test]
fn a_denied_call_asked_for_again_and_again_is_a_loop() {
    let mut story = Story::new("denied");
    for _ in 0..3 {
        story.does(denied(bash("git push --force", "")));
    }
    only(&story.findings(), Detector::RetryLoop);
}

#[test]
fn the_same_error_by_other_words_is_a_loop_later() {
    let mut story = Story::new("variants");
    for lines in 1..=5 {
        story.does(failed(bash(&format!("cargo test 2>&1 | tail -{lines}"), ""), "error: no Cargo.toml"));
    }
    let finding = only(&story.findings(), Detector::RetryLoop);
    assert_eq!(finding.evidence.figures[0].value, 5.0);
}

#[test]
fn the_same_result_five_times_is_a_loop() {
    let mut story = Story::new("looks");
    for _ in 0..5 {
        story.does(bash("git status", "nothing to commit"));
    }
    only(&story.findings(), Detector::RetryLoop);
}

#[test]
fn two_failures_and_a_success_are_no_loop_and_a_success_ends_one() {
    let mut story = Story::new("recovers");
    for _ in 0..2 {
        story.does(failed(bash("curl -sf localhost", ""), "connection refused"));
    }
    story.does(bash("curl -sf localhost", "ok"));
    silent(&story.findings());
    let mut story = Story::new("recovers late");
    for _ in 0..4 {
        story.does(failed(bash("curl -sf localhost", ""), "connection refused"));
    }
    story.does(bash("curl -sf localhost", "ok"));
    let findings = story.findings();
    only(&findings, Detector::RetryLoop);
    assert!(resolved(&findings, Detector::RetryLoop));
}

#[test]
fn a_test_that_fails_between_different_edits_is_work() {
    let mut story = Story::new("tdd");
    for round in 0..12 {
        story.does(edit("/p/src/lib.rs", &format!("try {round}")));
        story.does(failed(bash("cargo test", ""), &format!("assertion {round} failed")));
    }
    silent(&story.findings());
}

#[test]
fn polling_is_no_loop() {
    let mut story = Story::new("polls");
    for _ in 0..19 {
        story.asks(5).wait(30 * SECOND);
        story.calls(bash("sleep 30 && gh run view 7 --json status", "in_progress"));
    }
    story.asks(5).calls(bash("sleep 30 && gh run view 7 --json status", "completed"));
    for _ in 0..15 {
        story.asks(5).calls(call("BashOutput", "bash_1"));
    }
    silent(&story.findings());
}

#[test]
fn polling_without_an_end_is_one() {
    let mut story = Story::new("polls for ever");
    for _ in 0..25 {
        story.asks(5).calls(bash("sleep 30 && gh run view 7", "in_progress"));
    }
    let finding = only(&story.findings(), Detector::RetryLoop);
    assert_eq!(finding.evidence.figures[0].value, 20.0);
}

#[test]
fn reading_a_file_in_pieces_is_no_loop() {
    let mut story = Story::new("reads");
    for from in 0..40 {
        story.does(read("/p/big.log", from * 2_000));
    }
    silent(&story.findings());
}

#[test]
fn notes_are_no_loop() {
    let mut story = Story::new("notes");
    for _ in 0..20 {
        story.does(call("TodoWrite", "the same list"));
    }
    silent(&story.findings());
}

#[test]
fn a_person_who_says_try_again_makes_no_loop() {
    let mut story = Story::new("attended");
    for _ in 0..6 {
        story.prompt().does(failed(bash("npm install", ""), "registry unreachable"));
    }
    silent(&story.findings());
}

#[test]
fn a_failure_now_and_then_among_much_else_is_no_loop() {
    let mut story = Story::new("rare");
    for round in 0..4 {
        story.does(failed(call("Read", "/p/missing"), "no such file"));
        for n in 0..15 {
            story.does(read("/p/other", round * 100 + n));
        }
    }
    silent(&story.findings());
}

#[test]
fn the_same_call_in_one_batch_is_no_repetition() {
    let mut story = Story::new("batch");
    let one = failed(bash("make lint", ""), "exit code 2");
    for _ in 0..6 {
        story.begins(one.clone());
    }
    let first = story.now;
    story.wait(5 * SECOND);
    for nth in 0..6 {
        let mut call = one.clone();
        call.id = nth;
        call.tool_use_id = Some(format!("t{nth}"));
        (call.at_ms, call.ended_ms) = (first, Some(story.now));
        story.tell(taffrail_engine::What::CallEnded(Box::new(call)));
    }
    silent(&story.findings());
}

#[test]
fn two_calls_in_turn_are_a_cycle() {
    let mut story = Story::new("cycle");
    story.prompt();
    for _ in 0..4 {
        story.does(bash("rm -rf node_modules", ""));
        story.does(failed(bash("npm install", ""), "peer dependency"));
    }
    let findings = story.findings();
    let finding = only(&findings, Detector::CycleLoop);
    assert_eq!(finding.evidence.figures[0].value, 3.0);
    assert_eq!(finding.evidence.figures[1].value, 2.0, "the shortest period");
    assert_eq!(finding.cost.requests, 5, "from the first call of the cycle on");
}

#[test]
fn a_cycle_that_a_person_ends_is_over() {
    let mut story = Story::new("cycle ends");
    for _ in 0..3 {
        for step in ["grep a", "grep b", "grep c"] {
            story.does(bash(step, "none"));
        }
    }
    story.prompt();
    let findings = story.findings();
    assert_eq!(only(&findings, Detector::CycleLoop).evidence.figures[1].value, 3.0);
    assert!(resolved(&findings, Detector::CycleLoop));
}

#[test]
fn the_same_commands_with_other_results_are_work() {
    let mut story = Story::new("builds");
    for round in 0..5 {
        story.does(bash("cargo build", &format!("warnings: {round}")));
        story.does(bash("cargo test", &format!("passed: {round}")));
    }
    silent(&story.findings());
}

#[test]
fn a_cycle_that_waits_is_polling() {
    let mut story = Story::new("waits");
    for _ in 0..15 {
        story.asks(5).calls(bash("sleep 20", ""));
        story.asks(5).calls(bash("gh run list", "in_progress"));
    }
    let findings = story.findings();
    assert!(!fired(&findings).contains(&Detector::CycleLoop), "{findings:#?}");
}

#[test]
fn an_edit_made_again_after_it_was_undone_is_thrash() {
    let mut story = Story::new("thrash");
    story.prompt();
    for round in 0..2 {
        story.does(edit("/p/a.rs", "x to y"));
        story.does(failed(bash("cargo test", ""), &format!("a {round}")));
        story.does(edit("/p/a.rs", "y to x"));
        story.does(failed(bash("cargo test", ""), &format!("b {round}")));
    }
    let finding = only(&story.findings(), Detector::EditThrash);
    assert_eq!(finding.evidence.figures[0].value, 2.0);
    assert_eq!(finding.evidence.texts[0].value, "/p/a.rs");
    assert_eq!(finding.began_ms, story.told[4].at_ms, "from the end of the first edit on");
}

#[test]
fn many_different_edits_of_one_file_are_work() {
    let mut story = Story::new("edits");
    for round in 0..40 {
        story.does(edit("/p/a.rs", &format!("change {round}")));
    }
    // One second thought.
    story.does(edit("/p/a.rs", "change 3"));
    silent(&story.findings());
}

#[test]
fn two_agents_in_turn_in_one_file_are_thrash() {
    let mut story = Story::new("two");
    for round in 0..3 {
        story.by("a1").does(edit("/p/a.rs", &format!("one {round}")));
        story.by("b2").does(edit("/p/a.rs", &format!("two {round}")));
    }
    let finding = only(&story.findings(), Detector::EditThrash);
    assert_eq!(finding.evidence.figures[0].name, "turns");
    let mut story = Story::new("after each other");
    for agent in ["a1", "b2", "c3"] {
        for round in 0..3 {
            story.by(agent).does(edit("/p/a.rs", &format!("{agent} {round}")));
        }
    }
    silent(&story.findings());
}

#[test]
fn mends_that_do_not_touch_the_failure_are_thrash() {
    let mut story = Story::new("futile");
    for round in 0..5 {
        story.does(failed(bash("tsc --noEmit", ""), "a.ts(3,1): error TS2304"));
        story.does(edit("/p/a.ts", &format!("try {round}")));
    }
    story.does(failed(bash("tsc --noEmit", ""), "a.ts(3,1): error TS2304"));
    let finding = only(&story.findings(), Detector::EditThrash);
    assert_eq!(finding.evidence.figures[0].value, 4.0);
    let mut story = Story::new("not quite futile");
    for round in 0..8 {
        story.does(failed(bash("tsc --noEmit", ""), &format!("a.ts({},1): error TS2304", round / 4)));
        story.does(edit("/p/a.ts", &format!("try {round}")));
    }
    silent(&story.findings());
}

#[test]
fn most_calls_failing_is_a_burst() {
    let mut story = Story::new("burst");
    for n in 0..8 {
        story.does(failed(call("WebFetch", &format!("https://x/{n}")), &format!("error {n}")));
    }
    let finding = only(&story.findings(), Detector::ErrorBurst);
    assert_eq!(finding.evidence.figures[0].value, 8.0);
    for n in 0..12 {
        story.does(read("/p/a", n));
    }
    assert!(resolved(&story.findings(), Detector::ErrorBurst));
}

#[test]
fn some_failures_among_successes_are_no_burst() {
    let mut story = Story::new("mixed");
    for n in 0..30 {
        story.does(failed(call("WebFetch", &format!("https://x/{n}")), &format!("error {n}")));
        story.does(read("/p/a", n));
    }
    for n in 0..20 {
        story.does(denied(bash(&format!("rm {n}"), "")));
    }
    silent(&story.findings());
    let mut story = Story::new("slow");
    for n in 0..20 {
        story
            .wait(3 * MINUTE)
            .does(failed(call("WebFetch", &format!("https://x/{n}")), &format!("error {n}")));
    }
    assert!(!fired(&story.findings()).contains(&Detector::ErrorBurst));
}

#[test]
fn an_interruption_shows_that_a_person_is_there() {
    let mut story = Story::new("escape");
    for _ in 0..2 {
        story.does(failed(bash("npm install", ""), "unreachable"));
    }
    let mut stopped = bash("npm install", "");
    stopped.outcome = Outcome::Interrupted;
    story.does(stopped);
    for _ in 0..2 {
        story.does(failed(bash("npm install", ""), "unreachable"));
    }
    story.mark(MarkKind::Stop);
    silent(&story.findings());
}

#[test]
fn a_detector_that_is_switched_off_says_nothing() {
    let mut story = Story::new("off");
    for _ in 0..9 {
        story.does(failed(bash("npm install", ""), "unreachable"));
    }
    let off = "[detectors.retry_loop]\nenabled = false\n[detectors.error_burst]\nenabled = false";
    silent(&story.findings_with(Config::from_toml(off).unwrap()));
}
