//! Anomaly: a call unlike those of its kind.
//!
//! Scores come from an isolation forest (Liu, Ting, Zhou 2008: 0 to 1). A call scored at least `score` begins an episode of
//! its agent and tool family, for information; `several` of them within `window_minutes`, or one of at least
//! `warning_score`, make it a warning. It is over when a window has passed without one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::{Lru, Ring, key_of};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, CALLS_MAX, CallRef, Evidence, Response, Severity, Unit};
use crate::signal::Score;

/// What it is.
pub const NOUN: &str = "anomaly";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Investigate],
    person: "A call is unlike those of its kind. The reasons say in what; confirm or dismiss it, so that precision is known.",
    agent: "Your last call was unlike usual ones of its kind. Check that it did what you meant.",
};

/// Reasons of a score that are kept.
pub const REASONS_MAX: usize = 4;
/// Agents and tool families of one session that are followed.
pub const SUBJECTS_MAX: usize = 16;

/// `[detectors.anomaly]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// The score. 0.7: scores near 0.5 are usual, of outliers they are close to 1.
    pub score: f64,
    /// From this score on one call is a warning.
    pub warning_score: f64,
    /// So many within the window are a warning.
    pub several: u32,
    /// The window, in minutes.
    pub window_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, score: 0.7, warning_score: 0.85, several: 3, window_minutes: 10 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.number("score", self.score, 0.5, 1.0)?;
        check.number("warning_score", self.warning_score, self.score, 1.0)?;
        check.count("several", self.several, 2, CALLS_MAX as u32)?;
        check.count("window_minutes", self.window_minutes, 1, 1_440)
    }
}

#[derive(Clone, Debug)]
struct Odd {
    at_ms: i64,
    call: Option<CallRef>,
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct Anomaly {
    subjects: Lru<(Arc<str>, Arc<str>), Ring<Odd>>,
}

impl Default for Anomaly {
    fn default() -> Self {
        Self { subjects: Lru::new(SUBJECTS_MAX) }
    }
}

impl Anomaly {
    pub(crate) fn scored(&mut self, scene: &Scene<'_>, score: &Score, out: &mut Out<'_>) {
        let options = &scene.config.anomaly;
        if !options.enabled || !score.score.is_finite() || score.score < options.score {
            return;
        }
        let key = (scene.agent_id.clone(), score.subject.clone());
        let (odd, _) = self.subjects.entry(key, || Ring::new(CALLS_MAX));
        let again = score.call.is_some() && odd.iter().any(|known| known.call == score.call);
        if again {
            return;
        }
        odd.push(Odd { at_ms: scene.at_ms, call: score.call.clone() });
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(options.window_minutes));
        odd.drop_while(|known| known.at_ms < since_ms);
        let count = u32::try_from(odd.len()).unwrap_or(u32::MAX);
        let began_ms = odd.first().map_or(scene.at_ms, |known| known.at_ms);
        let warns = count >= options.several || score.score >= options.warning_score;
        let mut evidence = Evidence::default()
            .against("score", score.score, Unit::Score, options.score)
            .figure("calls_in_the_window", f64::from(count), Unit::Count)
            .text("subject", &score.subject)
            .calls(odd.iter().filter_map(|known| known.call.clone()));
        if let Some(version) = score.model_version {
            evidence = evidence.figure("model_version", f64::from(version), Unit::Count);
        }
        for reason in score.reasons.iter().take(REASONS_MAX) {
            evidence = evidence.text("reason", reason);
        }
        let reason = score.reasons.first().map_or("", String::as_str);
        let reading = Reading {
            pattern: key_of(&[score.subject.as_bytes()]),
            level: f64::from(count),
            severity: if warns { Severity::Warning } else { Severity::Info },
            began_ms,
            summary: crate::finding::capped(&format!(
                "a call unlike those of its kind ({:.2}): {} {reason}",
                score.score, score.subject
            )),
            evidence,
            cost: scene.spend.since(began_ms),
        };
        out.holds(scene, Detector::Anomaly, reading);
    }

    pub(crate) fn tick(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(scene.config.anomaly.window_minutes));
        self.subjects.retain(|(agent_id, subject), odd| {
            let keep = odd.back(0).is_some_and(|known| known.at_ms >= since_ms);
            if !keep {
                let pattern = key_of(&[subject.as_bytes()]);
                out.episodes.over(Detector::Anomaly, agent_id, pattern, scene.at_ms, out.findings);
            }
            keep
        });
    }
}
