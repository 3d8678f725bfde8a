//! Suggestions: what would save money or time, from sessions as they were. Pure; what each means and what its saving is
//! stands in `docs/ANALYTICS.md`, section Suggestions.
//!
//! A [`Collector`] takes one session after the other, in any order, and keeps a [`tally`] for each (kind, project, subject): how
//! often it happened, how often it could have, what it cost. [`Collector::suggestions`] gives what is above the [`Floor`] of its
//! kind; [`Collector::metric`] tells the same figure of two spans, so that what was applied can be measured.
//!
//! A saving is what the sessions seen would have cost less; nothing is extrapolated. Give it the last seven days, and it is a
//! saving a week. Limits: [`SUBJECTS_MAX`], `PARTS_MAX` and `SAMPLES_MAX` of each subject, [`SHOWN_MAX`].

mod agents;
mod cache;
mod commands;
mod conclude;
mod context;
mod edit;
mod kind;
mod permissions;
mod tally;
mod view;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use taffrail_analytics::trace::Trace;
use taffrail_event::TimestampMs;
use taffrail_event::prices::PriceTable;

pub use edit::{Edit, RuleList, is_plain_command, is_plain_name, is_plain_path};
pub use kind::{Floor, Kind};
pub use tally::Metric;
use tally::Tally;
use view::View;

/// Subjects that are kept, over all kinds; further ones are counted in [`Collector::left_out`].
pub const SUBJECTS_MAX: usize = 50_000;
/// Sessions, calls, and parts that a suggestion names, at most.
pub const SHOWN_MAX: usize = 20;
/// Suggestions of one kind and project, most saving first.
pub const SUGGESTIONS_PER_KIND_MAX: usize = 10;

/// Of what a suggestion is: stable over recomputations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Key {
    pub kind: Kind,
    pub app: String,
    /// The command, the agent's type, the tool; empty where it is about the whole project.
    pub subject: String,
}

/// One figure of the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// `count`, `tokens`, `bytes`, `ms`, `usd`, `percent`.
    pub unit: &'static str,
}

/// What would have been saved in the span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// Nano-dollars; none where it is not known.
    pub nano_usd: Option<i64>,
    /// Milliseconds of waiting; none where it is not known.
    pub ms: Option<i64>,
    /// How it is computed, in one sentence.
    pub basis: &'static str,
}

/// One suggestion.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Suggestion {
    pub key: Key,
    /// One line for a person.
    pub title: String,
    /// What to do.
    pub advice: String,
    pub figures: Vec<Figure>,
    /// What it is made of, the most frequent first: paths, commands, models.
    pub parts: Vec<(String, u64)>,
    /// Sessions that show it most.
    pub sessions: Vec<String>,
    /// Calls that show it, newest first.
    pub calls: Vec<i64>,
    pub saving: Saving,
    /// None where it is advice only.
    pub edit: Option<Edit>,
}

/// An MCP server that a project's `.mcp.json` configures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub struct McpServer {
    pub app: String,
    pub server: String,
}

/// What a project's sessions come to.
#[derive(Clone, Copy, Debug, Default)]
struct Project {
    sessions: u64,
    calls: u64,
    commands: u64,
    command_sessions: u64,
    tests: u64,
    test_sessions: u64,
}

/// Gathers what sessions show. See the module.
#[derive(Debug)]
pub struct Collector<'p> {
    prices: &'p PriceTable,
    /// First and one past the last millisecond.
    from_ms: i64,
    to_ms: i64,
    tallies: BTreeMap<Key, Tally>,
    /// By project.
    apps: BTreeMap<String, Project>,
    left_out: u64,
}

impl<'p> Collector<'p> {
    /// For what happened in a span: `from_ms` to before `to_ms`.
    pub const fn new(prices: &'p PriceTable, from_ms: i64, to_ms: i64) -> Self {
        Self { prices, from_ms, to_ms, tallies: BTreeMap::new(), apps: BTreeMap::new(), left_out: 0 }
    }

    /// Takes one session; rows outside of the span do not count.
    pub fn add(&mut self, trace: &Trace) {
        let view = View::of(trace, self.prices, self.from_ms, self.to_ms);
        if view.is_empty() {
            return;
        }
        let app = self.apps.entry(trace.app.clone()).or_default();
        let (commands, tests) = commands::counts(&view);
        app.sessions += 1;
        app.calls += view.calls.len() as u64;
        app.commands += commands;
        app.command_sessions += u64::from(commands > 0);
        app.tests += tests;
        app.test_sessions += u64::from(tests > 0);
        let mut sights = view::Sights::default();
        cache::see(&view, &mut sights);
        agents::see(&view, &mut sights);
        context::see(&view, &mut sights);
        permissions::see(&view, &mut sights);
        commands::see(&view, &mut sights);
        for ((kind, subject), sight) in sights.into_iter() {
            let key = Key { kind, app: trace.app.clone(), subject };
            if self.tallies.len() >= SUBJECTS_MAX && !self.tallies.contains_key(&key) {
                self.left_out += 1;
                continue;
            }
            self.tallies.entry(key).or_default().add(&trace.session_id, sight);
        }
    }

    /// Subjects that were not kept.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What is worth suggesting, by kind and project, most saving first.
    pub fn suggestions(&self, configured: &[McpServer]) -> Vec<Suggestion> {
        let mut found: Vec<Suggestion> = self
            .tallies
            .iter()
            .filter_map(|(key, tally)| conclude::conclude(key, &self.settled(key, tally)))
            .chain(self.unused_servers(configured))
            .collect();
        let order = |s: &Suggestion| {
            let saving = (s.saving.nano_usd.unwrap_or(0), s.saving.ms.unwrap_or(0));
            (s.key.kind, s.key.app.clone(), std::cmp::Reverse(saving), s.key.subject.clone())
        };
        found.sort_by_cached_key(order);
        let mut place = 0;
        let mut before: Option<(Kind, String)> = None;
        found.retain(|s| {
            let group = (s.key.kind, s.key.app.clone());
            place = if before.as_ref() == Some(&group) { place + 1 } else { 0 };
            before = Some(group);
            place < SUGGESTIONS_PER_KIND_MAX
        });
        found
    }

    fn unused_servers(&self, configured: &[McpServer]) -> Vec<Suggestion> {
        let servers: BTreeSet<&McpServer> = configured.iter().collect();
        let unused = servers.into_iter().filter_map(|McpServer { app, server }| {
            let Project { sessions, calls, .. } = *self.apps.get(app)?;
            let key = Key { kind: Kind::UnusedMcp, app: app.clone(), subject: server.clone() };
            let used = self.tallies.get(&key).map_or(0, |tally| tally.chances);
            conclude::unused_server(key, sessions, calls, used)
        });
        unused.collect()
    }

    /// A tally with what can be told only at the end. Commands that are not run any more had every chance: what they are
    /// compared with are all commands of the project.
    fn settled(&self, key: &Key, tally: &Tally) -> Tally {
        let mut tally = tally.settled(key.kind);
        let project = self.apps.get(&key.app).copied().unwrap_or_default();
        match key.kind {
            Kind::FailingCommand | Kind::PermissionDeniedRepeat => {
                (tally.chances, tally.seen) = (project.commands, project.command_sessions);
            }
            Kind::FullTestRuns => (tally.chances, tally.seen) = (project.tests, project.test_sessions),
            _ => {}
        }
        tally
    }

    /// The figure that a suggestion is about, in this span.
    pub fn metric(&self, key: &Key) -> Metric {
        let none = Tally::default();
        let mut metric = self.settled(key, self.tallies.get(key).unwrap_or(&none)).metric();
        if key.kind == Kind::UnusedMcp {
            metric.sessions = self.apps.get(&key.app).map_or(0, |project| project.sessions);
            (metric.hits, metric.chances) = (metric.chances, metric.sessions);
        }
        metric
    }
}

/// A moment for the price table.
fn at(ms: i64) -> TimestampMs {
    TimestampMs::clamped(ms)
}
