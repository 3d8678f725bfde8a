//! Commands and tools: what fails every time, what is run whole again and again, what is slow, what is called at all.

use std::collections::{BTreeMap, HashSet};

use taffrail_analytics::trace::{Call, Outcome};

use super::kind::Kind;
use super::view::{Sights, View};
use crate::nature::{Nature, is_shell, target};

/// Within how many further calls of the same agent another command counts as what worked instead.
const INSTEAD_CALLS: usize = 10;
/// A run of a suite shorter than this is no burden, in milliseconds.
const SUITE_MIN_MS: i64 = 60_000;
/// Commands that run a whole suite, without what selects tests.
pub(super) const FULL_SUITES: &[&str] = &[
    "./gradlew test",
    "bun test",
    "bundle exec rspec",
    "cargo nextest run",
    "cargo nextest run --workspace",
    "cargo test",
    "cargo test --all",
    "cargo test --workspace",
    "dotnet test",
    "go test ./...",
    "gradle test",
    "make check",
    "make test",
    "mix test",
    "mvn test",
    "npm run test",
    "npm t",
    "npm test",
    "npx jest",
    "npx vitest run",
    "phpunit",
    "pnpm test",
    "pytest",
    "python -m pytest",
    "python3 -m pytest",
    "rspec",
    "tox",
    "uv run pytest",
    "yarn test",
];

pub(super) fn see(view: &View<'_>, sights: &mut Sights) {
    let shell: Vec<&Call> =
        view.calls.iter().copied().filter(|call| is_shell(&call.tool) && !call.summary.is_empty()).collect();
    see_failures(view, &shell, sights);
    see_suites(&shell, sights);
    for call in &view.calls {
        if let Some(rest) = call.tool.strip_prefix("mcp__") {
            let server = rest.split_once("__").map_or(rest, |(server, _)| server);
            sights.of(Kind::UnusedMcp, server).chances += 1;
        }
        see_pace(call, sights);
    }
}

/// Commands, and those of them that run tests.
pub(super) fn counts(view: &View<'_>) -> (u64, u64) {
    let shell = view.calls.iter().filter(|call| is_shell(&call.tool) && !call.summary.is_empty());
    shell.fold((0, 0), |(commands, tests), call| {
        let command = bare_command(&call.summary);
        let is_test = FULL_SUITES.iter().any(|suite| command.starts_with(suite));
        (commands + 1, tests + u64::from(is_test))
    })
}

fn see_failures(view: &View<'_>, shell: &[&Call], sights: &mut Sights) {
    let mut counted = HashSet::new();
    for call in shell {
        let sight = sights.of(Kind::FailingCommand, &call.summary);
        match call.outcome {
            Outcome::Failed => {
                sight.hits += 1;
                sight.cost(view.asked_for(call, &mut counted));
                sight.time(call.duration_ms.unwrap_or(0));
                sight.call(call.id);
            }
            Outcome::Succeeded | Outcome::Ended => sight.against += 1,
            _ => {}
        }
    }
    // What worked instead: the next success of the same agent with the same program, written otherwise.
    let mut by_agent: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    for call in shell {
        by_agent.entry(call.agent).or_default().push(call);
    }
    for calls in by_agent.values() {
        for (place, failed) in calls.iter().enumerate().filter(|(_, call)| call.outcome == Outcome::Failed) {
            let instead = calls[place + 1..].iter().take(INSTEAD_CALLS).find(|call| {
                call.outcome == Outcome::Succeeded
                    && call.summary != failed.summary
                    && program(call).is_some_and(|of_it| program(failed) == Some(of_it))
            });
            if let Some(instead) = instead {
                sights.of(Kind::FailingCommand, &failed.summary).part(&instead.summary);
            }
        }
    }
}

/// The program that a command runs.
fn program(call: &Call) -> Option<String> {
    target(call).split_whitespace().next().map(str::to_owned)
}

/// The command without a `cd` in front and without what cuts its output.
pub(super) fn bare_command(command: &str) -> &str {
    let command = command.trim();
    let behind = match command.split_once("&&") {
        Some((first, rest)) if first.trim_start().starts_with("cd ") => rest,
        _ => command,
    };
    let head = behind.split('|').next().unwrap_or(behind).trim();
    head.strip_suffix("2>&1").unwrap_or(head).trim()
}

fn see_suites(shell: &[&Call], sights: &mut Sights) {
    let mut runs: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in shell {
        let command = bare_command(&call.summary);
        let is_long = call.duration_ms.is_some_and(|ms| ms >= SUITE_MIN_MS);
        if FULL_SUITES.contains(&command) && is_long {
            runs.entry(command).or_default().push(call);
        }
    }
    for (command, calls) in runs {
        let sight = sights.of(Kind::FullTestRuns, command);
        // The last one was needed.
        for call in &calls[..calls.len() - 1] {
            sight.hits += 1;
            sight.time(call.duration_ms.unwrap_or(0));
            sight.unpriced += 1;
            sight.call(call.id);
        }
    }
}

fn see_pace(call: &Call, sights: &mut Sights) {
    let nature = Nature::of(call);
    if is_shell(&call.tool) || nature.waits || nature.bookkeeping || nature.spawns {
        return;
    }
    if let Some(ms) = call.duration_ms.filter(|_| call.outcome.has_ended()) {
        let sight = sights.of(Kind::SlowTool, &call.tool);
        sight.sample(ms);
        sight.unpriced += 1;
        if ms > super::tally::SLOW_MIN_MS {
            sight.call(call.id);
        }
    }
}
