//! What the engine costs: time per signal and memory, for one very long session and for very many at once.
//!
//! `cargo run --release -p taffrail-engine --example speed`

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::time::Instant;

use taffrail_analytics::trace::{Call, FileAction, FileTouch, Outcome, Request};
use taffrail_engine::signal::{SessionKey, Via};
use taffrail_engine::{Engine, Signal, Told, What};

const START: i64 = 1_795_334_400_000;

/// A request, a call's beginning and its end, of session `session` and its `nth` step.
fn step(session: usize, nth: i64) -> [Signal; 3] {
    let key = SessionKey {
        session_id: Arc::from(format!("session-{session}")),
        app: Arc::from("shop"),
        user: Arc::from("ada"),
    };
    let at_ms = START + nth * 7_000;
    let told = |at_ms, what| {
        let (agent_id, agent_type) = (Arc::from(""), Arc::from("main"));
        Signal::Told(Told { key: key.clone(), agent_id, agent_type, at_ms, via: Via::Hook, what })
    };
    let id = nth + 1_000_000 * session as i64;
    let edits = nth % 4 == 0;
    let call = Call {
        id,
        tool_use_id: Some(format!("toolu_{id}")),
        tool: Arc::from(if edits { "Edit" } else { "Bash" }),
        at_ms,
        ended_ms: Some(at_ms + 3_000),
        duration_ms: Some(3_000),
        outcome: if nth % 9 == 1 { Outcome::Failed } else { Outcome::Succeeded },
        input_hash: 1 + nth % 50,
        result_hash: Some(nth % 70),
        summary: "cd /p && cargo test -p shop 2>&1 | tail -20".to_owned(),
        files: if edits {
            vec![FileTouch {
                action: FileAction::Edit,
                path: Arc::from(format!("/p/{}.rs", nth % 200)),
                ..FileTouch::default()
            }]
        } else {
            Vec::new()
        },
        ..Call::default()
    };
    let request = Request {
        id,
        ts_ms: at_ms,
        model: Arc::from("claude-opus-4-6"),
        input: 900,
        cache_read: 60_000,
        output: 300,
        cost_nano_usd: Some(20_000_000),
        context_window: Some(200_000),
        ..Request::default()
    };
    let started = Call { outcome: Outcome::Running, ended_ms: None, ..call.clone() };
    [
        told(at_ms, What::Request(Box::new(request))),
        told(at_ms, What::CallStarted(Box::new(started))),
        told(at_ms + 3_000, What::CallEnded(Box::new(call))),
    ]
}

fn measure(name: &str, sessions: usize, steps: i64) {
    let mut engine = Engine::default();
    let (mut signals, mut findings, mut spent) = (0u64, 0, std::time::Duration::ZERO);
    let before = resident_kib();
    for nth in 0..steps {
        for session in 0..sessions {
            let made = step(session, nth);
            let began = Instant::now();
            for signal in &made {
                let Signal::Told(told) = signal else { continue };
                findings += engine.step(told.at_ms, signal).len();
            }
            spent += began.elapsed();
            signals += 3;
        }
    }
    let began = Instant::now();
    engine.step(START + steps * 7_000, &Signal::Tick);
    let tick = began.elapsed();
    let per_signal = spent.as_nanos() as u64 / signals.max(1);
    let grown = resident_kib().saturating_sub(before);
    println!(
        "{name}: {signals} signals, {per_signal} ns each, {findings} findings, {grown} KiB more resident, one tick {} us",
        tick.as_micros()
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn main() {
    measure("one session of 100,000 calls", 1, 100_000);
    measure("5,000 sessions at once, 100 calls each", 5_000, 100);
    measure("8,192 sessions, 200 calls each", 8_192, 200);
}
