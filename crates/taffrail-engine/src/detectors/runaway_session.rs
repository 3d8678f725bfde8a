//! Runaway session: nobody has said anything for long, and it works on.
//!
//! Since a person's last prompt (or the first that is known of the session): at work for `unattended_minutes` and `calls`
//! calls, or `usd` dollars spent and [`WORK_MIN_MS`] of work. Pauses longer than [`PAUSE_MS`] are no work. A person's prompt ends it.

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "runaway session";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "The session has long worked without a word from anybody. See whether it is still at what you asked for.",
    agent: "You have worked for long without a word from a person. Say where you stand and whether to go on.",
};

/// Much money in less time than this is a spike, not a runaway.
pub const WORK_MIN_MS: i64 = 600_000;
/// A gap between two signals up to which the time counts as work.
pub const PAUSE_MS: i64 = 300_000;

/// `[detectors.runaway_session]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// At work without a prompt, in minutes. 120: long tasks take an hour.
    pub unattended_minutes: u32,
    /// And so many calls.
    pub calls: u32,
    /// Or so much spent, in US dollars.
    pub usd: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, unattended_minutes: 120, calls: 300, usd: 25.0 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("unattended_minutes", self.unattended_minutes, 1, 100_000)?;
        check.count("calls", self.calls, 0, 1_000_000)?;
        check.number("usd", self.usd, 0.01, 1e6)
    }
}

/// The state of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunawaySession {
    began_ms: Option<i64>,
    last_ms: i64,
    work_ms: i64,
    calls: u32,
}

impl RunawaySession {
    /// A call ended, or a request was answered.
    pub(crate) fn worked(&mut self, scene: &Scene<'_>, calls: u32, out: &mut Out<'_>) {
        let options = &scene.config.runaway_session;
        if !options.enabled {
            return;
        }
        let began_ms = *self.began_ms.get_or_insert(scene.at_ms);
        let gap_ms = if began_ms == scene.at_ms { 0 } else { scene.at_ms.saturating_sub(self.last_ms) };
        if (0..=PAUSE_MS).contains(&gap_ms) {
            self.work_ms = self.work_ms.saturating_add(gap_ms);
        }
        self.last_ms = self.last_ms.max(scene.at_ms);
        self.calls = self.calls.saturating_add(calls);
        let cost = scene.session_spend.since(began_ms);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of one session")]
        let (work_ms, long_ms) = (self.work_ms as f64, minutes_ms(options.unattended_minutes) as f64);
        let long = if self.calls >= options.calls { work_ms / long_ms } else { 0.0 };
        let dear = if self.work_ms >= WORK_MIN_MS { cost.known_usd() / options.usd } else { 0.0 };
        let level = long.max(dear);
        if level >= 1.0 {
            let reading = Reading {
                pattern: 0,
                level,
                severity: if level >= 4.0 { Severity::Critical } else { Severity::Warning },
                began_ms,
                summary: format!(
                    "at work for {:.0} minutes and {} calls without a word from a person",
                    work_ms / 60_000.0,
                    self.calls
                ),
                evidence: Evidence::default()
                    .against("at_work", work_ms, Unit::Ms, long_ms)
                    .against("calls", f64::from(self.calls), Unit::Count, f64::from(options.calls))
                    .against("spent", cost.known_usd(), Unit::Usd, options.usd),
                cost,
            };
            out.holds_for_session(scene, Detector::RunawaySession, reading);
        }
    }

    /// A person is there.
    pub(crate) fn attended(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        *self = Self { began_ms: Some(scene.at_ms), last_ms: scene.at_ms, ..Self::default() };
        out.over_for_session(scene, Detector::RunawaySession);
    }
}
