//! Small sessions, made by hand.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "tests; each test file uses its own part")]

use std::sync::Arc;

use taffrail_analytics::trace::{Call, Failure, FileAction, FileTouch, GitTouch, MarkKind, Outcome, Request};
use taffrail_engine::finding::Severity;
use taffrail_engine::signal::{Score, SessionKey, Via, paced};
use taffrail_engine::{Config, Detector, Engine, Finding, Phase, Told, What};

pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
/// A dollar.
pub const USD: i64 = 1_000_000_000;
/// 2026-11-22T08:00:00Z
pub const START: i64 = 1_795_334_400_000;

/// A session as it goes: a clock, and what was told so far.
pub struct Story {
    pub now: i64,
    pub told: Vec<Told>,
    pub key: SessionKey,
    pub agent: &'static str,
    pub via: Via,
    rows: i64,
}

impl Story {
    pub fn new(session: &str) -> Self {
        let key =
            SessionKey { session_id: Arc::from(session), app: Arc::from("shop"), user: Arc::from("ada") };
        Self { now: START, told: Vec::new(), key, agent: "", via: Via::Hook, rows: START / 1_000 }
    }

    pub fn tell(&mut self, what: What) -> &mut Self {
        self.told.push(Told {
            key: self.key.clone(),
            agent_id: Arc::from(self.agent),
            agent_type: Arc::from(if self.agent.is_empty() { "main" } else { "general-purpose" }),
            at_ms: self.now,
            via: self.via,
            what,
        });
        self
    }

    pub fn wait(&mut self, ms: i64) -> &mut Self {
        self.now += ms;
        self
    }

    pub fn by(&mut self, agent: &'static str) -> &mut Self {
        self.agent = agent;
        self
    }

    pub fn mark(&mut self, kind: MarkKind) -> &mut Self {
        self.tell(What::Mark(kind))
    }

    pub fn prompt(&mut self) -> &mut Self {
        self.mark(MarkKind::Prompt { human: true })
    }

    pub fn row(&mut self) -> i64 {
        self.rows += 1;
        self.rows
    }

    /// A request of so many dollars (thousandths), and two seconds.
    pub fn asks(&mut self, milli_usd: i64) -> &mut Self {
        self.asks_with(|request| request.cost_nano_usd = Some(milli_usd * USD / 1_000))
    }

    pub fn asks_with(&mut self, change: impl FnOnce(&mut Request)) -> &mut Self {
        let mut request = Request {
            id: self.row(),
            ts_ms: self.now,
            model: Arc::from("claude-opus-4-6"),
            input: 1_000,
            output: 200,
            cost_nano_usd: Some(10_000_000),
            context_window: Some(200_000),
            ..Request::default()
        };
        change(&mut request);
        self.tell(What::Request(Box::new(request))).wait(2 * SECOND)
    }

    pub fn score(&mut self, score: Score) -> &mut Self {
        self.tell(What::Score(Box::new(score)))
    }

    /// A call that begins now and ends five seconds later.
    pub fn calls(&mut self, call: Call) -> &mut Self {
        self.begins(call.clone());
        self.wait(5 * SECOND);
        self.ends(call)
    }

    /// A request of five cents, then the call.
    pub fn does(&mut self, call: Call) -> &mut Self {
        self.asks(50);
        self.calls(call)
    }

    pub fn begins(&mut self, mut call: Call) -> &mut Self {
        call.id = self.row();
        call.at_ms = self.now;
        call.tool_use_id = Some(format!("toolu_{}", call.id));
        call.outcome = Outcome::Running;
        self.tell(What::CallStarted(Box::new(call)))
    }

    pub fn ends(&mut self, mut call: Call) -> &mut Self {
        call.id = self.rows;
        call.tool_use_id = Some(format!("toolu_{}", call.id));
        call.at_ms = self.now - 5 * SECOND;
        call.ended_ms = Some(self.now);
        call.duration_ms = call.duration_ms.or(Some(5 * SECOND));
        self.tell(What::CallEnded(Box::new(call)))
    }

    pub fn findings(&self) -> Vec<Finding> {
        self.findings_with(Config::default())
    }

    /// What a replay finds, with ten minutes of ticks behind it.
    pub fn findings_with(&self, config: Config) -> Vec<Finding> {
        replay(&mut Engine::new(config), self.told.clone())
    }
}

pub fn replay(engine: &mut Engine, told: Vec<Told>) -> Vec<Finding> {
    paced(told.into_iter()).flat_map(|(now, signal)| engine.step(now, &signal)).collect()
}

/// A hash of a text that is never 0.
pub fn hash(text: &str) -> i64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash | 1) as i64
}

pub fn call(tool: &str, input: &str) -> Call {
    Call {
        tool: Arc::from(tool),
        input_hash: hash(&format!("{tool} {input}")),
        summary: input.to_owned(),
        outcome: Outcome::Succeeded,
        result_hash: Some(hash(&format!("result of {input}"))),
        ..Call::default()
    }
}

pub fn bash(command: &str, output: &str) -> Call {
    Call { result_hash: Some(hash(output)), ..call("Bash", command) }
}

pub fn failed(mut call: Call, message: &str) -> Call {
    call.outcome = Outcome::Failed;
    call.result_hash = Some(hash(message));
    let fingerprint = format!("{:016x}", hash(message));
    call.error = Some(Failure { class: Arc::from("exit_code"), fingerprint, message: message.to_owned() });
    call
}

pub fn denied(mut call: Call) -> Call {
    call.outcome = Outcome::Denied;
    call.result_hash = None;
    call
}

pub fn read(path: &str, from: u32) -> Call {
    let mut call = call("Read", &format!("{path} {from}"));
    call.files = vec![touch(FileAction::Read, path)];
    call
}

pub fn edit(path: &str, change: &str) -> Call {
    let mut call = call("Edit", &format!("{path} {change}"));
    call.files = vec![touch(FileAction::Edit, path)];
    call
}

pub fn commit(message: &str) -> Call {
    let mut call = bash(&format!("git commit -m {message}"), message);
    call.git = vec![GitTouch { subcommand: "commit".to_owned(), ..GitTouch::default() }];
    call
}

fn touch(action: FileAction, path: &str) -> FileTouch {
    FileTouch { action, path: Arc::from(path), ..FileTouch::default() }
}

pub fn fired(findings: &[Finding]) -> Vec<Detector> {
    findings.iter().filter(|finding| finding.phase == Phase::Fired).map(|finding| finding.detector).collect()
}

/// Exactly this fired, once; the finding as it fired.
#[track_caller]
pub fn only(findings: &[Finding], detector: Detector) -> Finding {
    assert_eq!(fired(findings), [detector], "{findings:#?}");
    let finding = findings.iter().find(|finding| finding.phase == Phase::Fired).expect("it fired").clone();
    assert!(!finding.summary.is_empty() && !finding.evidence.figures.is_empty());
    assert!(finding.began_ms <= finding.at_ms);
    assert!(finding.severity >= Severity::Info && !finding.response.actions.is_empty());
    finding
}

#[track_caller]
pub fn silent(findings: &[Finding]) {
    assert!(findings.is_empty(), "{findings:#?}");
}

pub fn resolved(findings: &[Finding], detector: Detector) -> bool {
    findings.iter().any(|finding| finding.phase == Phase::Resolved && finding.detector == detector)
}
