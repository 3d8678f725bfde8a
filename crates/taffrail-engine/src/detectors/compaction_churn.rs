//! Compaction churn: an agent's context is compacted again and again, so what it just read is gone before it is used.
//!
//! So many compactions of one agent within `window_minutes`. Two tellings within [`SAME_MS`] are one compaction.

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::Ring;
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "compaction churn";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "The context fills up and is compacted again and again. Split the task, or keep long outputs out of the context.",
    agent: "Your context was compacted several times in a short while. Read smaller parts, and leave long outputs in files.",
};

/// Tellings of one compaction (a hook before, one after, a line of the transcript) lie this close.
pub const SAME_MS: i64 = 120_000;
/// Compactions that are remembered of one agent.
const REMEMBERED_MAX: usize = 32;

/// `[detectors.compaction_churn]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Compactions. 3: two can follow a person's own `/compact`.
    pub compactions: u32,
    /// Within so many minutes. 30: a full context usually takes longer to fill than ten.
    pub window_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, compactions: 3, window_minutes: 30 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("compactions", self.compactions, 2, REMEMBERED_MAX as u32)?;
        check.count("window_minutes", self.window_minutes, 1, 10_000)
    }
}

/// The state of one agent.
#[derive(Clone, Debug)]
pub(crate) struct CompactionChurn {
    at: Ring<i64>,
}

impl Default for CompactionChurn {
    fn default() -> Self {
        Self { at: Ring::new(REMEMBERED_MAX) }
    }
}

impl CompactionChurn {
    pub(crate) fn compacted(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let options = &scene.config.compaction_churn;
        let again = self.at.iter().any(|at_ms| at_ms.abs_diff(scene.at_ms) < SAME_MS.unsigned_abs());
        if !options.enabled || again {
            return;
        }
        self.at.push(scene.at_ms);
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(options.window_minutes));
        let recent: Vec<i64> = self.at.iter().copied().filter(|at_ms| *at_ms >= since_ms).collect();
        let count = u32::try_from(recent.len()).unwrap_or(u32::MAX);
        if count < options.compactions {
            return out.over_all(scene, Detector::CompactionChurn);
        }
        let began_ms = recent.iter().copied().min().unwrap_or(scene.at_ms);
        let reading = Reading {
            pattern: 0,
            level: f64::from(count),
            severity: if count >= 2 * options.compactions { Severity::Critical } else { Severity::Warning },
            began_ms,
            summary: format!(
                "the context was compacted {count} times within {} minutes",
                options.window_minutes
            ),
            evidence: Evidence::default().against(
                "compactions",
                f64::from(count),
                Unit::Count,
                f64::from(options.compactions),
            ),
            cost: scene.spend.since(began_ms),
        };
        out.holds(scene, Detector::CompactionChurn, reading);
    }

    pub(crate) fn tick(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(scene.config.compaction_churn.window_minutes));
        if self.at.back(0).is_some_and(|at_ms| *at_ms < since_ms) {
            out.over_all(scene, Detector::CompactionChurn);
        }
    }
}
