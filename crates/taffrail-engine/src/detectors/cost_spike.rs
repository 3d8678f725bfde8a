//! Cost spike: a session spends far more in five minutes than sessions of its project do.
//!
//! What a session spent in the last [`WINDOW_MS`] is held against the ninetieth percentile of what sessions of the same app
//! spent in such windows (those in which they spent at all, the last [`WINDOWS_MAX`]). It fires from `factor` times that on,
//! and from `floor_usd`, once `history` windows are known; and is over below half of that. Spending that all carries one time,
//! as in records whose times were lost, is no rate: it has to be spread over [`SPREAD_MS`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::{Lru, Ring};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit, usd};

/// What it is.
pub const NOUN: &str = "cost spike";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Throttle, Action::Investigate],
    person: "The session spends far more than is usual for its project. Look at what it asks and with which model.",
    agent: "This session spends far more than usual. Read less at once, and finish or ask before you start more.",
};

/// Five minutes: long enough for several requests, short enough to act.
pub const WINDOW_MS: i64 = 300_000;
/// The requests of a window have to lie so far apart, the first from the last.
pub const SPREAD_MS: i64 = 5_000;
/// Windows that are remembered of one app.
pub const WINDOWS_MAX: usize = 96;
/// Apps that are remembered.
pub const APPS_MAX: usize = 256;

/// `[detectors.cost_spike]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Least spending in five minutes, in US dollars. 5: below it nobody needs to be called.
    pub floor_usd: f64,
    /// Times the ninetieth percentile. 3: work comes in bursts, of twice the usual often enough.
    pub factor: f64,
    /// Windows that must be known. 12: an hour of work.
    pub history: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, floor_usd: 5.0, factor: 3.0, history: 12 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.number("floor_usd", self.floor_usd, 0.0, 1e6)?;
        check.number("factor", self.factor, 1.0, 1e3)?;
        check.count("history", self.history, 1, WINDOWS_MAX as u32)
    }
}

/// What sessions of each app usually spend in a window, in nano-dollars.
#[derive(Clone, Debug)]
pub(crate) struct Usual {
    apps: Lru<Arc<str>, Ring<i64>>,
}

impl Default for Usual {
    fn default() -> Self {
        Self { apps: Lru::new(APPS_MAX) }
    }
}

impl Usual {
    fn add(&mut self, app: &Arc<str>, nano_usd: i64) {
        self.apps.entry(app.clone(), || Ring::new(WINDOWS_MAX)).0.push(nano_usd);
    }

    /// The ninetieth percentile (nearest rank), where so many windows are known.
    fn ninetieth(&self, app: &Arc<str>, history: u32) -> Option<i64> {
        let known = self.apps.get(app).filter(|known| known.len() >= history as usize)?;
        let mut sorted: Vec<i64> = known.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 9).div_ceil(10).max(1);
        sorted.get(rank - 1).copied()
    }
}

/// The state of one session: the window it is in, and what it spent in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CostSpike {
    window: Option<i64>,
    nano_usd: i64,
}

impl CostSpike {
    /// After the request was added to what the session spent.
    pub(crate) fn spent(&mut self, scene: &Scene<'_>, nano_usd: i64, usual: &mut Usual, out: &mut Out<'_>) {
        let options = &scene.config.cost_spike;
        if !options.enabled {
            return;
        }
        let window = scene.at_ms.div_euclid(WINDOW_MS);
        if self.window.is_none_or(|current| current < window) {
            if self.nano_usd > 0 {
                usual.add(&scene.key.app, self.nano_usd);
            }
            (self.window, self.nano_usd) = (Some(window), 0);
        }
        self.nano_usd = self.nano_usd.saturating_add(nano_usd);
        let cost = scene.session_spend.since(scene.at_ms.saturating_sub(WINDOW_MS));
        let is_open = out.episodes.is_open(Detector::CostSpike);
        if cost.known_usd() < options.floor_usd && !is_open {
            return;
        }
        let first_ms = scene.session_spend.first_after(scene.at_ms.saturating_sub(WINDOW_MS));
        if first_ms.is_none_or(|first_ms| scene.at_ms.saturating_sub(first_ms) < SPREAD_MS) && !is_open {
            return;
        }
        let Some(ninetieth) = usual.ninetieth(&scene.key.app, options.history) else { return };
        let threshold = (usd(ninetieth) * options.factor).max(options.floor_usd);
        let spent = cost.known_usd();
        if spent >= threshold {
            let reading = Reading {
                pattern: 0,
                level: spent,
                severity: if spent >= 3.0 * threshold { Severity::Critical } else { Severity::Warning },
                began_ms: scene.at_ms.saturating_sub(WINDOW_MS),
                summary: format!(
                    "${spent:.2} in five minutes; sessions of this project spend ${:.2} at most as a rule",
                    usd(ninetieth)
                ),
                evidence: Evidence::default()
                    .against("spent_in_5_minutes", spent, Unit::Usd, threshold)
                    .figure("usual_p90", usd(ninetieth), Unit::Usd)
                    .figure("rate", spent * 12.0, Unit::UsdPerHour),
                cost,
            };
            out.holds_for_session(scene, Detector::CostSpike, reading);
        } else if is_open && spent < threshold / 2.0 {
            out.over_for_session(scene, Detector::CostSpike);
        }
    }

    pub(crate) fn tick(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let idle =
            self.window.is_none_or(|window| scene.at_ms.div_euclid(WINDOW_MS) > window.saturating_add(2));
        if idle && out.episodes.is_open(Detector::CostSpike) {
            out.over_for_session(scene, Detector::CostSpike);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ninetieth_percentile_is_of_the_nearest_rank() {
        let app: Arc<str> = Arc::from("a");
        let mut usual = Usual::default();
        for n in 1..=20 {
            usual.add(&app, n);
        }
        assert_eq!(usual.ninetieth(&app, 12), Some(18));
        assert_eq!(usual.ninetieth(&app, 21), None);
        assert_eq!(usual.ninetieth(&Arc::from("b"), 1), None);
    }
}
