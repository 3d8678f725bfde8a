//! Error burst: most of a session's calls fail.
//!
//! Of the calls that ended within the last `window_minutes` (at most [`CALLS_KEPT_MAX`], denied and interrupted ones left
//! out as in the error rate), at least `failures` failed, by [`INPUTS_MIN`] inputs or more (fewer are
//! a retry loop), and they are at least `share_percent`. It is over when the last
//! [`CALM_CALLS`] calls have less than half that share, or a whole window has passed.

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::{Call, Outcome};

use super::{Detector, Out, Scene, call_ref, named};
use crate::bounded::Ring;
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, CALLS_MAX, CallRef, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "error burst";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Investigate],
    person: "Most of the session's calls fail. Look at the errors: often one missing tool, path or credential is behind all of them.",
    agent: "Most of your recent calls failed. Stop and look for the common cause before you go on.",
};

/// Calls that are remembered of one session.
pub const CALLS_KEPT_MAX: usize = 64;
/// Inputs that must have failed.
pub const INPUTS_MIN: usize = 3;
/// Calls by which it is seen to be over.
pub const CALM_CALLS: usize = 10;

/// `[detectors.error_burst]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Failed calls. 8: fewer are an agent finding its way.
    pub failures: u32,
    /// Their share of the calls that ended, in percent. 60: more failed than worked, clearly.
    pub share_percent: u32,
    /// Within so many minutes.
    pub window_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, failures: 8, share_percent: 60, window_minutes: 10 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("failures", self.failures, 2, CALLS_KEPT_MAX as u32)?;
        check.count("share_percent", self.share_percent, 1, 100)?;
        check.count("window_minutes", self.window_minutes, 1, 1_440)
    }
}

#[derive(Clone, Debug)]
struct Ended {
    at_ms: i64,
    failed: bool,
    input_hash: i64,
    call: CallRef,
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct ErrorBurst {
    ended: Ring<Ended>,
}

impl Default for ErrorBurst {
    fn default() -> Self {
        Self { ended: Ring::new(CALLS_KEPT_MAX) }
    }
}

impl ErrorBurst {
    pub(crate) fn ended(&mut self, scene: &Scene<'_>, call: &Call, out: &mut Out<'_>) {
        let options = &scene.config.error_burst;
        let counts = matches!(call.outcome, Outcome::Failed | Outcome::Succeeded | Outcome::Ended);
        if !options.enabled || !counts {
            return;
        }
        let failed = call.outcome == Outcome::Failed;
        self.ended.push(Ended {
            at_ms: scene.at_ms,
            failed,
            input_hash: call.input_hash,
            call: call_ref(call),
        });
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(options.window_minutes));
        self.ended.drop_while(|ended| ended.at_ms < since_ms);
        let failures = count(self.ended.iter().filter(|ended| ended.failed));
        let share = f64::from(failures) * 100.0 / f64::from(count(self.ended.iter()));
        let threshold = f64::from(options.share_percent);
        let mut inputs: Vec<i64> = self.ended.iter().filter(|e| e.failed).map(|e| e.input_hash).collect();
        inputs.sort_unstable();
        inputs.dedup();
        if failed && failures >= options.failures && share >= threshold && inputs.len() >= INPUTS_MIN {
            let began_ms =
                self.ended.iter().find(|ended| ended.failed).map_or(scene.at_ms, |ended| ended.at_ms);
            let calls = self.ended.iter().rev().filter(|ended| ended.failed).take(CALLS_MAX);
            let mut evidence = Evidence::default()
                .against("failed_calls", f64::from(failures), Unit::Count, f64::from(options.failures))
                .against("failed_share", share, Unit::Percent, threshold)
                .text("newest", &named(call))
                .calls(calls.map(|ended| ended.call.clone()));
            if let Some(error) = &call.error {
                evidence = evidence.text("error", &error.message);
            }
            let severity = if share >= 80.0 && failures >= 2 * options.failures {
                Severity::Critical
            } else {
                Severity::Warning
            };
            let summary = format!(
                "{failures} calls failed, {share:.0} % of those that ended; the newest: {}",
                named(call)
            );
            let cost = scene.session_spend.since(began_ms);
            let reading = Reading {
                pattern: 0,
                level: f64::from(failures),
                severity,
                began_ms,
                summary,
                evidence,
                cost,
            };
            out.holds_for_session(scene, Detector::ErrorBurst, reading);
        } else if out.episodes.is_open(Detector::ErrorBurst) && self.is_calm(threshold) {
            out.over_for_session(scene, Detector::ErrorBurst);
        }
    }

    pub(crate) fn tick(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let since_ms = scene.at_ms.saturating_sub(minutes_ms(scene.config.error_burst.window_minutes));
        if out.episodes.is_open(Detector::ErrorBurst)
            && self.ended.back(0).is_none_or(|ended| ended.at_ms < since_ms)
        {
            out.over_for_session(scene, Detector::ErrorBurst);
        }
    }

    fn is_calm(&self, threshold: f64) -> bool {
        let last = self.ended.iter().rev().take(CALM_CALLS);
        let failures = count(last.clone().filter(|ended| ended.failed));
        last.len() == CALM_CALLS && f64::from(failures) * 100.0 / CALM_CALLS as f64 <= threshold / 2.0
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
