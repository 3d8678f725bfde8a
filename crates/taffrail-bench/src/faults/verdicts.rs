//! Sixteen hooks at once: every verdict the same as alone, and every event kept, whether the server is up, down, hung
//! (something accepts and never answers) or frozen (the server itself, stopped, so that its queues fill up).

use std::path::Path;
use std::process::Command;
use std::sync::Barrier;

use anyhow::{Result, ensure};

use super::kill::drain;
use super::{Faults, Row};
use crate::bench::{frames, hang, hook_command};
use crate::check::count_events;
use crate::process::{self, Ended};
use crate::server::{self, Server};
use crate::stats::Samples;

const AT_ONCE: usize = 16;
const ROUNDS: (u64, u64, u64) = (1, 10, 100);

/// Commands that an agent may run and commands that no agent may; which is which, the guard alone decides.
const COMMANDS: [&str; AT_ONCE] = [
    "ls -la",
    "rm -rf /",
    "git status --short",
    "rm -rf ~",
    "cargo test -p parser",
    "sudo rm -rf /usr",
    "cat README.md | head -20",
    "rm -rf $HOME",
    "rm -rf target/debug",
    "cd / && rm -rf *",
    "grep -rn TODO src",
    "rm -fr --no-preserve-root /",
    "python3 -m pytest -q",
    "bash -c 'rm -rf /etc'",
    "echo 'rm -rf /'",
    "npm run build",
];

pub(super) fn run(faults: &Faults, row: &mut Row) -> Result<()> {
    let rounds = faults.size.of(ROUNDS.0, ROUNDS.1, ROUNDS.2);
    for peer in ["up", "down", "hung", "frozen"] {
        let dir = faults.scratch.dir(&format!("verdicts-{peer}"))?;
        let log = faults.scratch.path().join(format!("verdicts-{peer}.log"));
        let runs = peer == "up" || peer == "frozen";
        let server = runs.then(|| Server::start(&faults.binaries.taffrail, &dir, &log)).transpose()?;
        let hung = (peer == "hung").then(|| hang(&dir)).transpose()?;
        let frozen = server.as_ref().filter(|_| peer == "frozen");
        if let Some(server) = frozen {
            server.freeze()?;
        }
        let ran = crowd(faults, row, peer, &dir, rounds)?;
        if let Some(server) = frozen {
            server.thaw()?;
        }
        if let Some(server) = server {
            drain(&dir)?;
            server.stop()?;
        } else {
            let spooled = frames(&dir.join("spool")).len() as u64;
            note_difference(row, &format!("server {peer}: events in the spool"), ran, spooled);
            // Gone with the harness's sockets, so that a real server can take the place.
            drop(hung);
            for socket in ["hook.sock", "poke.sock"] {
                let _ = std::fs::remove_file(dir.join(socket));
            }
            let server = Server::start(&faults.binaries.taffrail, &dir, &log)?;
            drain(&dir)?;
            server.stop()?;
        }
        let stored = count_events(&dir)?;
        note_difference(row, &format!("server {peer}: events stored"), ran, stored);
        row.acknowledged += ran;
        row.stored += stored;
        row.panics += server::panics_in(&log) as u64;
    }
    Ok(())
}

fn note_difference(row: &mut Row, what: &str, expected: u64, found: u64) {
    row.lost += expected.saturating_sub(found);
    row.doubled += found.saturating_sub(expected);
    if expected != found {
        row.failures.push(format!("{what}: {found} instead of {expected}"));
    }
}

/// Runs each command alone, then all at once, again and again; returns how many hooks ran.
fn crowd(faults: &Faults, row: &mut Row, peer: &str, dir: &Path, rounds: u64) -> Result<u64> {
    let hook = &faults.binaries.hook;
    let mut ran = 0;
    let mut alone = Vec::new();
    for (n, command) in COMMANDS.iter().enumerate() {
        alone.push(said(&judge(&mut hook_command(hook, dir), peer, command, 0, n)?));
        ran += 1;
    }
    let denied = alone.iter().filter(|said| said.0 == Some(2)).count();
    ensure!(
        denied > 0 && denied < AT_ONCE,
        "the guard denies {denied} of {AT_ONCE}: nothing can be compared"
    );
    let mut took = Samples::default();
    for round in 1..=rounds {
        let barrier = Barrier::new(AT_ONCE);
        let ended: Vec<Result<Ended>> = std::thread::scope(|scope| {
            let threads: Vec<_> = COMMANDS
                .iter()
                .enumerate()
                .map(|(n, command)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut hook = hook_command(hook, dir);
                        barrier.wait();
                        judge(&mut hook, peer, command, round, n)
                    })
                })
                .collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                t.join().unwrap_or_else(|_| anyhow::bail!("panicked"))
            };
            threads.into_iter().map(join).collect()
        });
        for ((ended, alone), command) in ended.into_iter().zip(&alone).zip(COMMANDS) {
            let ended = ended?;
            took.push_ms(ended.took);
            if said(&ended) != *alone && row.failures.len() < super::FAILURES_KEPT_MAX {
                row.failures.push(format!(
                    "server {peer}: {command:?} alone {alone:?}, in the crowd {:?}",
                    said(&ended)
                ));
            }
            ran += 1;
        }
        row.trials += 1;
    }
    if let Some(spread) = took.spread() {
        row.notes.push(format!(
            "server {peer}: {denied} of {AT_ONCE} denied, alone and in {rounds} crowds; a call in the crowd p50 {:.1} ms, \
             p99 {:.1} ms, max {:.1} ms",
            spread.p50, spread.p99, spread.max
        ));
    }
    Ok(ran)
}

fn said(ended: &Ended) -> (Option<i32>, String) {
    (ended.code, String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn judge(hook: &mut Command, peer: &str, command: &str, round: u64, n: usize) -> Result<Ended> {
    let payload = serde_json::json!({
        "session_id": format!("crowd-{peer}"),
        "cwd": "/home/dev/src/atlas",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": command},
        "tool_use_id": format!("toolu_crowd_{round}_{n}"),
    });
    Ok(process::run(hook, payload.to_string().as_bytes())?)
}
