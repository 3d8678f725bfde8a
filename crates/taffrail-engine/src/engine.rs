//! The engine: all sessions, their shared state, and the limits of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::detectors::Detector;
use crate::finding::Finding;
use crate::session::{Moment, Session, Shared};
use crate::signal::{Signal, Told};

/// Sessions whose state is kept; the one heard of longest ago makes room.
pub const SESSIONS_MAX: usize = 8_192;
/// Agents of all sessions together.
pub const AGENTS_MAX: usize = 16_384;
/// A session of which nothing was heard for a day of awake time is forgotten.
pub const SESSION_IDLE_MS: i64 = 86_400_000;

/// What was forgotten or left out, since the engine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Signals taken.
    pub signals: u64,
    /// Findings given.
    pub findings: u64,
    /// Calls and requests that were told again and told nothing new.
    pub duplicates: u64,
    /// Calls told too late to be judged in a sequence.
    pub late: u64,
    /// Sessions forgotten for want of room.
    pub sessions_forgotten: u64,
    /// Sessions forgotten because nothing was heard of them.
    pub sessions_idle: u64,
    /// Agents forgotten within sessions.
    pub agents_forgotten: u64,
    /// Open calls forgotten.
    pub calls_forgotten: u64,
    /// Jumps of the clock.
    pub clock_jumps: u64,
}

/// See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Engine {
    config: Config,
    clock: Clock,
    sessions: BTreeMap<Arc<str>, Session>,
    /// Sessions by when they were used last.
    order: BTreeMap<u64, Arc<str>>,
    uses: u64,
    agents: usize,
    shared: Shared,
    stats: Stats,
}

impl Engine {
    /// With nothing known. The configuration is taken as it is: see [`Config::checked`].
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clock: Clock::default(),
            sessions: BTreeMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            agents: 0,
            shared: Shared::default(),
            stats: Stats::default(),
        }
    }

    /// Takes one signal at `now_ms` (the engine's clock, in milliseconds since the epoch) and gives what is found by it.
    ///
    /// Signals may come late, twice or never; the clock may jump. Ticks should come every few seconds.
    pub fn step(&mut self, now_ms: i64, signal: &Signal) -> Vec<Finding> {
        let awake_ms = self.clock.step(now_ms);
        self.stats.clock_jumps = self.clock.jumps;
        self.stats.signals += 1;
        let mut findings = Vec::new();
        match signal {
            Signal::Tick => self.tick(now_ms, awake_ms, &mut findings),
            Signal::Told(told) => self.told(now_ms, awake_ms, told, &mut findings),
        }
        self.stats.findings += findings.len() as u64;
        findings
    }

    /// Takes what happened before a restart, newest rows in the order of time, and tells nothing of it: what fired then was
    /// told then, and is not told again unless it grows. Feed what is newer than the last judged row to [`Engine::step`].
    pub fn warm(&mut self, signals: impl IntoIterator<Item = (i64, Signal)>) {
        for (now_ms, signal) in signals {
            let found = self.step(now_ms, &signal).len() as u64;
            self.stats.findings -= found;
        }
    }

    /// Nothing more will come, as at the end of a replay: every open episode is told to be over.
    pub fn finish(&mut self, now_ms: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.shared.episodes.over_for(None, now_ms, &mut findings);
        for session in self.sessions.values_mut() {
            session.forget(now_ms, &mut findings);
        }
        self.stats.findings += findings.len() as u64;
        findings
    }

    /// Judges by other thresholds from now on; open episodes go on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// What was forgotten or left out.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Sessions and agents whose state is kept.
    pub fn size(&self) -> (usize, usize) {
        (self.sessions.len(), self.agents)
    }

    fn told(&mut self, now_ms: i64, awake_ms: i64, told: &Told, findings: &mut Vec<Finding>) {
        let id = &told.key.session_id;
        if !self.sessions.contains_key(id) {
            while self.sessions.len() >= SESSIONS_MAX {
                self.forget_oldest(now_ms, findings);
            }
            self.sessions.insert(id.clone(), Session::new(told.key.clone()));
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        self.order.remove(&session.used);
        self.uses += 1;
        session.used = self.uses;
        self.order.insert(self.uses, id.clone());
        let before = session.agents();
        let moment = Moment { at_ms: clock::moment(told.at_ms, now_ms), awake_ms, config: &self.config };
        session.told(moment, told, &mut self.shared, &mut self.stats, findings);
        self.agents = (self.agents + session.agents()).saturating_sub(before);
        while self.agents > AGENTS_MAX && self.sessions.len() > 1 {
            self.forget_oldest(now_ms, findings);
        }
    }

    fn tick(&mut self, now_ms: i64, awake_ms: i64, findings: &mut Vec<Finding>) {
        let config = &self.config;
        self.shared.api.passed(now_ms, &config.api_degraded, &mut self.shared.episodes, findings);
        for session in self.sessions.values_mut() {
            session.tick(Moment { at_ms: now_ms, awake_ms, config }, findings);
        }
        while let Some((_, id)) = self.order.first_key_value() {
            let idle = self
                .sessions
                .get(id)
                .is_none_or(|s| awake_ms.saturating_sub(s.last_awake_ms) > SESSION_IDLE_MS);
            if !idle {
                break;
            }
            self.stats.sessions_idle += 1;
            self.remove_oldest(now_ms, findings);
        }
    }

    fn forget_oldest(&mut self, now_ms: i64, findings: &mut Vec<Finding>) {
        self.stats.sessions_forgotten += 1;
        self.remove_oldest(now_ms, findings);
    }

    fn remove_oldest(&mut self, now_ms: i64, findings: &mut Vec<Finding>) {
        let Some((_, id)) = self.order.pop_first() else { return };
        if let Some(mut session) = self.sessions.remove(&id) {
            self.agents = self.agents.saturating_sub(session.agents());
            session.forget(now_ms, findings);
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

/// How many findings of each detector have begun, for a report.
pub fn fired(findings: &[Finding]) -> BTreeMap<Detector, usize> {
    let mut counts = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.phase == crate::finding::Phase::Fired) {
        *counts.entry(finding.detector).or_default() += 1;
    }
    counts
}
