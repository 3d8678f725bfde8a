//! Hook silence: a session is at work, and its hooks say nothing.
//!
//! Telemetry or a transcript tells of `signs` requests or calls of a session over `minutes` of awake time, and no hook
//! event of it came since; while hooks did come from this session before, or from another of the same app within
//! [`APP_MS`]. Then the hooks were taken out, fail, or cannot reach this house: neither guard nor pause works there.
//! Recordings are not judged.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::bounded::Lru;
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};
use crate::signal::Via;

/// What it is.
pub const NOUN: &str = "hook silence";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Investigate],
    person: "The session works and its hooks say nothing: neither guard nor pause reaches it. Run `taffrail doctor`.",
    agent: "The hooks of this session do not work. Do nothing that cannot be undone until a person has looked.",
};

/// For so long a hook of the app says that its sessions have hooks, in awake time: a day.
pub const APP_MS: i64 = 86_400_000;
/// Apps that are remembered.
pub const APPS_MAX: usize = 256;

/// `[detectors.hook_silence]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Requests and calls told by others. 10: a long answer is told by a few requests without any hook.
    pub signs: u32,
    /// Over so many minutes. 3: the spool is drained within seconds.
    pub minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, signs: 10, minutes: 3 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("signs", self.signs, 2, 100_000)?;
        check.count("minutes", self.minutes, 1, 10_000)
    }
}

/// When hooks of each app were last heard, in awake time.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    apps: Lru<Arc<str>, i64>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { apps: Lru::new(APPS_MAX) }
    }
}

/// The state of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookSilence {
    hooked: bool,
    signs: u32,
    /// Of the first sign since the last hook.
    since_awake_ms: i64,
    since_ms: i64,
}

impl HookSilence {
    /// Any signal; `is_sign` of a request or call.
    pub(crate) fn told(&mut self, scene: &Scene<'_>, is_sign: bool, heard: &mut Heard, out: &mut Out<'_>) {
        let options = &scene.config.hook_silence;
        if !options.enabled {
            return;
        }
        match scene.via {
            Via::Recording => {}
            Via::Hook => {
                *heard.apps.entry(scene.key.app.clone(), || 0).0 = scene.awake_ms;
                (self.hooked, self.signs) = (true, 0);
                out.over_for_session(scene, Detector::HookSilence);
            }
            Via::Witness if is_sign => {
                if self.signs == 0 {
                    (self.since_awake_ms, self.since_ms) = (scene.awake_ms, scene.at_ms);
                }
                self.signs = self.signs.saturating_add(1);
                self.judge(scene, heard, out);
            }
            Via::Witness => {}
        }
    }

    fn judge(&self, scene: &Scene<'_>, heard: &Heard, out: &mut Out<'_>) {
        let options = &scene.config.hook_silence;
        let app =
            heard.apps.get(&scene.key.app).is_some_and(|at| scene.awake_ms.saturating_sub(*at) <= APP_MS);
        let silent_ms = scene.awake_ms.saturating_sub(self.since_awake_ms);
        if self.signs < options.signs || silent_ms < minutes_ms(options.minutes) || !(self.hooked || app) {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of silence")]
        let (silent, threshold) = (silent_ms as f64, minutes_ms(options.minutes) as f64);
        let reading = Reading {
            pattern: 0,
            level: f64::from(self.signs),
            severity: Severity::Warning,
            began_ms: self.since_ms,
            summary: format!(
                "{} requests and calls in {:.0} minutes, and no hook told of any",
                self.signs,
                silent / 60_000.0
            ),
            evidence: Evidence::default()
                .against("signs", f64::from(self.signs), Unit::Count, f64::from(options.signs))
                .against("silent", silent, Unit::Ms, threshold),
            cost: scene.session_spend.since(self.since_ms),
        };
        out.holds_for_session(scene, Detector::HookSilence, reading);
    }
}
