//! Whatever comes, in whatever order: the same findings for the same signals, bounded state, no panic.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use support::*;
use taffrail_analytics::trace::{Agent, Call, Mark, MarkKind, Outcome, Request, Trace};
use taffrail_engine::engine::{AGENTS_MAX, SESSIONS_MAX};
use taffrail_engine::session::AGENTS_PER_SESSION_MAX;
use taffrail_engine::signal::{Score, ScoreKind, SessionKey, Via, signals, told};
use taffrail_engine::{Config, ConfigError, Detector, Engine, Finding, Phase, Signal, Told, What};

fn any_ms() -> impl Strategy<Value = i64> {
    prop_oneof![8 => START..START + HOUR, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()]
}

fn any_call() -> impl Strategy<Value = Call> {
    (
        prop::sample::select(vec![
            "Bash",
            "Read",
            "Edit",
            "TodoWrite",
            "ExitPlanMode",
            "Agent",
            "mcp__x__get",
        ]),
        -2i64..3,
        prop::sample::select(vec![
            Outcome::Running,
            Outcome::Abandoned,
            Outcome::Ended,
            Outcome::Denied,
            Outcome::Interrupted,
            Outcome::Failed,
            Outcome::Succeeded,
        ]),
        prop::option::of(any::<i64>()),
        prop::option::of(any_ms()),
        0i64..20,
    )
        .prop_map(|(tool, input_hash, outcome, duration_ms, ended_ms, id)| Call {
            id,
            tool: Arc::from(tool),
            input_hash,
            outcome,
            duration_ms,
            ended_ms,
            at_ms: ended_ms.unwrap_or(START),
            result_hash: Some(input_hash),
            tool_use_id: (id % 2 == 0).then(|| id.to_string()),
            ..edit("/p/é", "x")
        })
}

fn any_what() -> impl Strategy<Value = What> {
    let tokens = prop_oneof![0i64..300_000, Just(i64::MAX), any::<i64>()];
    let cost = prop::option::of(prop_oneof![0i64..USD, Just(i64::MAX), any::<i64>()]);
    let request =
        (0i64..30, tokens, cost, prop::option::of(any::<i64>())).prop_map(|(id, tokens, cost, window)| {
            Request {
                id,
                model: Arc::from("m"),
                input: tokens,
                cache_read: tokens,
                cost_nano_usd: cost,
                context_window: window,
                ..Request::default()
            }
        });
    let tool: Arc<str> = Arc::from("Bash");
    let marks = vec![
        MarkKind::SessionStart,
        MarkKind::SessionEnd,
        MarkKind::Prompt { human: true },
        MarkKind::Prompt { human: false },
        MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None },
        MarkKind::PermissionRequest { tool: tool.clone(), input_hash: 1 },
        MarkKind::PermissionDenied { tool, input_hash: 1 },
        MarkKind::Stop,
        MarkKind::StopFailure { class: Arc::from("overloaded") },
        MarkKind::SubagentStart,
        MarkKind::SubagentStop,
        MarkKind::ApiFailure { model: None, status_code: None, retry_in_ms: None, exhausted: true },
        MarkKind::Notification { kind: Some("permission_prompt".to_owned()) },
    ];
    let score = (any::<f64>(), any::<bool>(), 0i64..4).prop_map(|(score, drift, id)| {
        let kind = if drift { ScoreKind::Drift } else { ScoreKind::Anomaly };
        let call = Some(taffrail_engine::finding::CallRef { id, tool_use_id: None });
        What::Score(Box::new(Score {
            kind,
            score,
            subject: Arc::from("s"),
            call,
            reasons: Vec::new(),
            model_version: None,
        }))
    });
    prop_oneof![
        1 => Just(What::AgentStarted),
        1 => Just(What::AgentEnded),
        4 => any_call().prop_map(|call| What::CallStarted(Box::new(call))),
        8 => any_call().prop_map(|call| What::CallEnded(Box::new(call))),
        4 => request.prop_map(|request| What::Request(Box::new(request))),
        4 => prop::sample::select(marks).prop_map(What::Mark),
        1 => score,
    ]
}

fn any_signal() -> impl Strategy<Value = (i64, Signal)> {
    let via = prop::sample::select(vec![Via::Hook, Via::Witness, Via::Recording]);
    let told = (0u8..3, 0u8..4, any_ms(), via, any_what()).prop_map(|(session, agent, at_ms, via, what)| {
        let key = SessionKey { session_id: Arc::from(session.to_string()), ..SessionKey::default() };
        let agent_id: Arc<str> = if agent == 0 { Arc::from("") } else { Arc::from(agent.to_string()) };
        Signal::Told(Told { key, agent_id, agent_type: Arc::from("t"), at_ms, via, what })
    });
    (any_ms(), prop_oneof![9 => told, 1 => Just(Signal::Tick)])
}

/// Limits low enough that everything happens.
fn low() -> Config {
    let text = "[detectors.budget_threshold]\nday_usd = 0.5\nhour_usd = 0.1\napp_day_usd = 1\nsession_usd = 2\n\
        [detectors.retry_loop]\nfailures = 2\nsame_error = 2\nsame_result = 2\nwaits = 2\n\
        [detectors.cycle_loop]\ncycles = 2\nblind_cycles = 2\nwaits = 2\n\
        [detectors.edit_thrash]\nreturns = 1\nturns = 2\nfutile = 2\n\
        [detectors.cost_spike]\nfloor_usd = 0.001\nhistory = 1\nfactor = 1\n\
        [detectors.error_burst]\nfailures = 2\nshare_percent = 1\n\
        [detectors.hook_silence]\nsigns = 2\nminutes = 1\n\
        [detectors.stalled_agent]\ncall_minutes = 1\nturn_minutes = 1\n[detectors.permission_stall]\nminutes = 1\n\
        [detectors.runaway_session]\nunattended_minutes = 1\ncalls = 1\nusd = 0.01\n\
        [detectors.subagent_storm]\nalive = 2\nstarted = 2\n[detectors.silent_spend]\nusd = 0\ncalls = 1\nfresh_percent = 100";
    Config::from_toml(text).unwrap()
}

fn run(signals: &[(i64, Signal)]) -> (Vec<Finding>, Engine) {
    let mut engine = Engine::new(low());
    let mut findings: Vec<Finding> =
        signals.iter().flat_map(|(now, signal)| engine.step(*now, signal)).collect();
    findings.extend(engine.finish(START + HOUR));
    (findings, engine)
}

/// Between firing and its end an episode is only told as worse; nothing is told of what did not fire.
fn check_episodes(findings: &[Finding]) {
    let mut open: BTreeMap<String, f64> = BTreeMap::new();
    for finding in findings {
        match finding.phase {
            Phase::Fired => {
                assert!(open.insert(finding.id.clone(), 0.0).is_none(), "{} fired twice", finding.id);
            }
            Phase::Escalated => assert!(open.contains_key(&finding.id), "{}", finding.id),
            Phase::Resolved => assert!(open.remove(&finding.id).is_some(), "{}", finding.id),
        }
        assert!(finding.evidence.figures.iter().all(|figure| figure.value.is_finite()));
        serde_json::to_string(finding).unwrap();
    }
    assert!(open.is_empty(), "everything ends: {open:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_signals_give_the_same_findings_again(signals in prop::collection::vec(any_signal(), 0..150)) {
        let (findings, engine) = run(&signals);
        check_episodes(&findings);
        prop_assert_eq!(&run(&signals).0, &findings);
        prop_assert_eq!(engine.stats().signals, signals.len() as u64);
    }

    #[test]
    fn every_signal_twice_gives_the_findings_of_once(
        // A clock that goes on: what comes twice comes at once.
        whats in prop::collection::vec(any_call().prop_map(|call| What::CallEnded(Box::new(call))), 0..60),
    ) {
        let once: Vec<(i64, Signal)> = (0i64..)
            .zip(whats)
            .map(|(nth, mut what)| {
                let at_ms = START + nth * SECOND;
                if let What::CallEnded(call) = &mut what {
                    (call.id, call.tool_use_id) = (nth, None);
                    call.at_ms = at_ms;
                }
                let key = SessionKey { session_id: Arc::from("s"), ..SessionKey::default() };
                let agent: Arc<str> = Arc::from("");
                (at_ms, Signal::Told(Told { key, agent_id: agent.clone(), agent_type: agent, at_ms, via: Via::Hook, what }))
            })
            .filter(|(_, signal)| matches!(signal, Signal::Told(Told { what: What::CallEnded(c), .. }) if c.outcome.has_ended()))
            .collect();
        let twice: Vec<_> = once.iter().flat_map(|signal| [signal.clone(), signal.clone()]).collect();
        prop_assert_eq!(run(&once).0, run(&twice).0);
    }
}

#[test]
fn state_is_bounded_and_what_is_forgotten_is_counted() {
    let mut engine = Engine::default();
    let agent: Arc<str> = Arc::from("");
    let sessions = SESSIONS_MAX + 100;
    for nth in 0..sessions {
        let key = SessionKey { session_id: Arc::from(nth.to_string()), ..SessionKey::default() };
        let what = What::CallEnded(Box::new(failed(bash("x", ""), "y")));
        let told = Told {
            key,
            agent_id: agent.clone(),
            agent_type: agent.clone(),
            at_ms: START,
            via: Via::Hook,
            what,
        };
        engine.step(START, &Signal::Told(told));
    }
    assert_eq!((engine.size(), engine.stats().sessions_forgotten), ((SESSIONS_MAX, SESSIONS_MAX), 100));
    let mut engine = Engine::default();
    for nth in 0..40_000 {
        let session = nth / 200;
        let key = SessionKey { session_id: Arc::from(session.to_string()), ..SessionKey::default() };
        let agent_id: Arc<str> = Arc::from(nth.to_string());
        let told = Told {
            key,
            agent_id,
            agent_type: agent.clone(),
            at_ms: START,
            via: Via::Hook,
            what: What::AgentStarted,
        };
        engine.step(START, &Signal::Told(told));
    }
    let (sessions, agents) = engine.size();
    assert!(agents <= AGENTS_MAX && agents == sessions * AGENTS_PER_SESSION_MAX, "{sessions} {agents}");
    assert!(engine.stats().agents_forgotten > 0);
}

#[test]
fn a_session_of_which_nothing_is_heard_for_a_day_is_forgotten() {
    let mut story = Story::new("old");
    story.does(edit("/p/a", "x"));
    let mut engine = Engine::default();
    replay(&mut engine, story.told.clone());
    for minute in 1..=24 * 60 + 5 {
        engine.step(story.now + minute * MINUTE, &Signal::Tick);
    }
    assert_eq!((engine.size().0, engine.stats().sessions_idle), (0, 1));
}

#[test]
fn long_names_do_no_harm() {
    let long = "x".repeat(10_000);
    let mut story = Story::new(&long);
    for _ in 0..4 {
        story.does(failed(call(&long, &long), &long));
    }
    let finding = only(&story.findings(), Detector::RetryLoop);
    assert!(finding.summary.len() < 400 && finding.evidence.texts.iter().all(|text| text.value.len() < 400));
}

#[test]
fn a_restart_tells_nothing_twice() {
    let mut story = Story::new("restart");
    for _ in 0..4 {
        story.does(failed(bash("npm install", ""), "unreachable"));
    }
    let warm: Vec<_> = taffrail_engine::signal::paced(story.told.clone().into_iter()).collect();
    let mut engine = Engine::default();
    engine.warm(warm);
    assert_eq!(engine.stats().findings, 0);
    let before = story.told.len();
    for _ in 0..2 {
        story.does(failed(bash("npm install", ""), "unreachable"));
    }
    let findings = replay(&mut engine, story.told[before..].to_vec());
    assert_eq!(findings.iter().map(|f| f.phase).collect::<Vec<_>>(), [Phase::Escalated], "{findings:#?}");
    assert_eq!(findings[0].id, story.findings()[0].id, "the same episode");
}

#[test]
fn a_trace_is_told_in_the_order_of_time() {
    let mut first = failed(bash("a", ""), "b");
    (first.at_ms, first.ended_ms, first.id) = (START, Some(START + SECOND), 1);
    let mut open = bash("b", "");
    (open.at_ms, open.outcome, open.id) = (START + SECOND, Outcome::Running, 2);
    let trace = Trace {
        session_id: "s".to_owned(),
        agents: vec![
            Agent { agent_type: "main".to_owned(), ..Agent::default() },
            Agent {
                agent_id: "x".to_owned(),
                started_ms: START,
                ended_ms: Some(START + SECOND),
                ..Agent::default()
            },
        ],
        calls: vec![first, open],
        requests: vec![Request { ts_ms: START, agent: 1, ..Request::default() }],
        marks: vec![Mark { ts_ms: START, agent: 9, kind: MarkKind::Prompt { human: true } }],
        ..Trace::default()
    };
    let order: Vec<String> = told(&trace)
        .map(|told| {
            let what = match told.what {
                What::AgentStarted => "begins",
                What::AgentEnded => "ends",
                What::CallStarted(_) => "call",
                What::CallEnded(_) => "done",
                What::Request(_) => "asks",
                What::Mark(_) => "mark",
                What::Score(_) => "score",
            };
            format!("{}{what}", told.agent_id)
        })
        .collect();
    assert_eq!(order, ["xbegins", "mark", "xasks", "call", "call", "done", "xends"]);
    assert_eq!(signals(&trace).count(), order.len());
}

#[test]
fn a_bad_threshold_says_which_and_what_it_may_be() {
    let check = |text: &str, words: &[&str]| {
        let said = Config::from_toml(text).unwrap_err().to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    check(
        "[detectors.retry_loop]\nfailures = 1",
        &["[detectors.retry_loop] failures is 1", "2 to 1000", "hint:"],
    );
    check("[detectors.cost_spike]\nfactor = nan", &["factor", "1 to 1000"]);
    check("[detectors.budget_threshold]\npercents = [80, 50]", &["percents", "ascending"]);
    check("[detectors.retry_loop]\nfailure = 3", &["failure", "line 2"]);
    check("[detectors.retry_lop]\nfailures = 3", &["retry_lop"]);
    check("[detectors.retry_loop]\nfailures = \"3\"", &["failures", "invalid type"]);
    assert!(matches!(Config::from_toml("["), Err(ConfigError::Syntax(_))));
    assert_eq!(Config::from_toml("[budget]\ndaily_usd = 3").unwrap(), Config::default());
    let all = toml_of(&Config::default());
    assert_eq!(Config::from_toml(&all).unwrap(), Config::default(), "the defaults are themselves in range");
}

fn toml_of(config: &Config) -> String {
    let tables = serde_json::to_value(config).unwrap();
    let mut text = String::new();
    for (name, table) in tables.as_object().unwrap() {
        text.push_str(&format!("[detectors.{name}]\n"));
        for (field, value) in table.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            text.push_str(&format!("{field} = {value}\n"));
        }
    }
    text
}

#[test]
fn every_detector_has_a_name_and_a_prescription() {
    for detector in Detector::ALL {
        assert_eq!(Detector::from_name(detector.name()), Some(*detector));
        assert_eq!(serde_json::to_value(detector).unwrap(), detector.name());
        let response = detector.response();
        assert!(
            !response.actions.is_empty() && response.person.ends_with('.') && response.agent.ends_with('.')
        );
        assert!(!detector.noun().is_empty());
    }
    assert_eq!(Detector::ALL.len(), 18);
}
