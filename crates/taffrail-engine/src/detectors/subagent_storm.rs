//! Subagent storm: a session starts subagents faster than anybody can follow.
//!
//! So many subagents of one session at once (`alive`: begun, not seen to end, heard of within [`SILENT_MS`]), or so many
//! begun within `window_minutes` (`started`). It is over when less than half of `alive` are at work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::{Lru, Ring};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "subagent storm";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Throttle, Action::Pause],
    person: "The session runs very many subagents. See whether each has a task of its own; throttle the session if not.",
    agent: "You run very many subagents. Wait for those at work before you start more, and give each a task of its own.",
};

/// Subagents that are remembered of one session.
pub const AGENTS_MAX: usize = 256;
/// After so long without a sign a subagent counts as gone.
pub const SILENT_MS: i64 = 300_000;

/// `[detectors.subagent_storm]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// At once. 16: ten at once is what the client runs by itself.
    pub alive: u32,
    /// Begun within the window. 40: waves of eight, one every two minutes.
    pub started: u32,
    /// The window, in minutes.
    pub window_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, alive: 16, started: 40, window_minutes: 10 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("alive", self.alive, 2, AGENTS_MAX as u32)?;
        check.count("started", self.started, 2, AGENTS_MAX as u32)?;
        check.count("window_minutes", self.window_minutes, 1, 1_440)
    }
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    last_ms: i64,
    ended: bool,
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct SubagentStorm {
    agents: Lru<Arc<str>, Seen>,
    started: Ring<i64>,
}

impl Default for SubagentStorm {
    fn default() -> Self {
        Self { agents: Lru::new(AGENTS_MAX), started: Ring::new(AGENTS_MAX) }
    }
}

impl SubagentStorm {
    /// Something was heard of the scene's subagent.
    pub(crate) fn heard(&mut self, scene: &Scene<'_>, ended: bool, out: &mut Out<'_>) {
        if !scene.config.subagent_storm.enabled || scene.agent_id.is_empty() {
            return;
        }
        let known = self.agents.get_mut(scene.agent_id);
        let is_new = known.is_none();
        match known {
            Some(seen) => {
                seen.last_ms = seen.last_ms.max(scene.at_ms);
                seen.ended |= ended;
            }
            None => {
                self.agents.entry(scene.agent_id.clone(), || Seen { last_ms: scene.at_ms, ended });
                self.started.push(scene.at_ms);
            }
        }
        if is_new {
            self.judge(scene, out);
        } else if ended {
            self.calm(scene, out);
        }
    }

    pub(crate) fn tick(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.calm(scene, out);
    }

    fn calm(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        if out.episodes.is_open(Detector::SubagentStorm)
            && self.alive(scene.at_ms) * 2 < scene.config.subagent_storm.alive
        {
            out.over_for_session(scene, Detector::SubagentStorm);
        }
    }

    fn alive(&self, at_ms: i64) -> u32 {
        let since_ms = at_ms.saturating_sub(SILENT_MS);
        let alive = self.agents.iter().filter(|(_, seen)| !seen.ended && seen.last_ms >= since_ms).count();
        u32::try_from(alive).unwrap_or(u32::MAX)
    }

    fn judge(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let options = &scene.config.subagent_storm;
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(options.window_minutes));
        let recent: Vec<i64> = self.started.iter().copied().filter(|at_ms| *at_ms >= since_ms).collect();
        let started = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        let alive = self.alive(scene.at_ms);
        if alive < options.alive && started < options.started {
            return;
        }
        let began_ms = recent.iter().copied().min().unwrap_or(scene.at_ms);
        let level = (f64::from(alive) / f64::from(options.alive))
            .max(f64::from(started) / f64::from(options.started));
        let reading = Reading {
            pattern: 0,
            level,
            severity: if level >= 2.0 { Severity::Critical } else { Severity::Warning },
            began_ms,
            summary: format!(
                "{alive} subagents at once, {started} begun within {} minutes",
                options.window_minutes
            ),
            evidence: Evidence::default()
                .against("alive", f64::from(alive), Unit::Count, f64::from(options.alive))
                .against("started", f64::from(started), Unit::Count, f64::from(options.started)),
            cost: scene.session_spend.since(began_ms),
        };
        out.holds_for_session(scene, Detector::SubagentStorm, reading);
    }
}
