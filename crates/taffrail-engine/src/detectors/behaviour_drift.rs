//! Behaviour drift: an agent works otherwise than it used to.
//!
//! Scores come from elsewhere (how far an agent's last while lies from its own baseline, 0 to 1). `sustained` of them in a
//! row, each at least `score`, make a drift; one below `score` - [`HYSTERESIS`] ends it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::{Lru, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};
use crate::signal::Score;

/// What it is.
pub const NOUN: &str = "drift of behaviour";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Investigate],
    person: "The agent works otherwise than it used to. Look at what changed: model, prompt, tools, project.",
    agent: "Your way of working has changed from the usual. Check that you still follow the task and its rules.",
};

/// By so much lower than the threshold it is over.
pub const HYSTERESIS: f64 = 0.1;
/// Aspects that are followed of one session.
pub const SUBJECTS_MAX: usize = 16;

/// `[detectors.behaviour_drift]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// The score.
    pub score: f64,
    /// So many in a row. 3: one odd while is no drift.
    pub sustained: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, score: 0.7, sustained: 3 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.number("score", self.score, HYSTERESIS, 1.0)?;
        check.count("sustained", self.sustained, 1, 1_000)
    }
}

/// Scores in a row, when they began, and the highest.
#[derive(Clone, Copy, Debug)]
struct Drifted {
    count: u32,
    began_ms: i64,
    highest: f64,
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct BehaviourDrift {
    subjects: Lru<(Arc<str>, Arc<str>), Drifted>,
}

impl Default for BehaviourDrift {
    fn default() -> Self {
        Self { subjects: Lru::new(SUBJECTS_MAX) }
    }
}

impl BehaviourDrift {
    pub(crate) fn scored(&mut self, scene: &Scene<'_>, score: &Score, out: &mut Out<'_>) {
        let options = &scene.config.behaviour_drift;
        if !options.enabled || !score.score.is_finite() {
            return;
        }
        let key = (scene.agent_id.clone(), score.subject.clone());
        let pattern = key_of(&[score.subject.as_bytes()]);
        if score.score < options.score {
            let over = score.score < options.score - HYSTERESIS
                || self.subjects.get(&key).is_none_or(|d| d.count < options.sustained);
            if over {
                self.subjects.remove(&key);
                out.over(scene, Detector::BehaviourDrift, pattern);
            }
            return;
        }
        let first = || Drifted { count: 0, began_ms: scene.at_ms, highest: 0.0 };
        let (drifted, _) = self.subjects.entry(key, first);
        drifted.count = drifted.count.saturating_add(1);
        drifted.highest = drifted.highest.max(score.score);
        if drifted.count < options.sustained {
            return;
        }
        let mut evidence = Evidence::default()
            .against("score", score.score, Unit::Score, options.score)
            .figure("highest", drifted.highest, Unit::Score)
            .against("in_a_row", f64::from(drifted.count), Unit::Count, f64::from(options.sustained))
            .text("subject", &score.subject);
        for reason in score.reasons.iter().take(super::anomaly::REASONS_MAX) {
            evidence = evidence.text("reason", reason);
        }
        let reason = score.reasons.first().map_or("", String::as_str);
        let reading = Reading {
            pattern,
            level: f64::from(drifted.count),
            severity: Severity::Warning,
            began_ms: drifted.began_ms,
            summary: crate::finding::capped(&format!(
                "works otherwise than it used to ({:.2}): {} {reason}",
                score.score, score.subject
            )),
            evidence,
            cost: scene.spend.since(drifted.began_ms),
        };
        out.holds(scene, Detector::BehaviourDrift, reading);
    }
}
