//! API degraded: requests fail at the vendor's or on the way there.
//!
//! Over all sessions: `failures` attempts failed within `window_minutes` by rate limit, overload, server error or network
//! (status 408, 409, 429, 5xx, or none), or `given_up` were given up. Refusals of what was asked (400, 401, 403, ...) do
//! not count. It is over when a window has passed without one.

use serde::{Deserialize, Serialize};

use super::{Detector, Scene};
use crate::bounded::{Ring, key_of};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::{About, Episodes, Reading};
use crate::finding::{Action, Cost, Evidence, Finding, Response, Severity, Unit};
use crate::signal::SessionKey;

/// What it is.
pub const NOUN: &str = "degraded API";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Throttle],
    person: "The API refuses or fails many requests. Run fewer agents at once until it is over; nothing is wrong with their work.",
    agent: "The API is degraded. Keep steps small, so that a failed request loses little.",
};

/// Failures that are remembered.
pub const FAILURES_MAX: usize = 256;
/// Classes of StopFailure that count.
const CLASSES: &[&str] = &["network", "overloaded", "rate_limit", "server_error", "timeout"];

/// `[detectors.api_degraded]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Failed attempts. 5: the client's first retries succeed as a rule.
    pub failures: u32,
    /// Requests that were given up.
    pub given_up: u32,
    /// Within so many minutes.
    pub window_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, failures: 5, given_up: 2, window_minutes: 5 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("failures", self.failures, 2, FAILURES_MAX as u32)?;
        check.count("given_up", self.given_up, 1, FAILURES_MAX as u32)?;
        check.count("window_minutes", self.window_minutes, 1, 1_440)
    }
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    at_ms: i64,
    given_up: bool,
    session: u64,
    status: Option<i64>,
}

/// What failed of late, of all sessions.
#[derive(Clone, Debug)]
pub(crate) struct ApiDegraded {
    failed: Ring<Failed>,
}

impl Default for ApiDegraded {
    fn default() -> Self {
        Self { failed: Ring::new(FAILURES_MAX) }
    }
}

impl ApiDegraded {
    /// An attempt failed.
    pub(crate) fn attempt(
        &mut self,
        scene: &Scene<'_>,
        status: Option<i64>,
        given_up: bool,
        episodes: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        if matches!(status, None | Some(408 | 409 | 429 | 500..=599)) {
            self.failed(scene, status, given_up, episodes, out);
        }
    }

    /// A turn ended on a failure of the API.
    pub(crate) fn turn(
        &mut self,
        scene: &Scene<'_>,
        class: &str,
        episodes: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        if CLASSES.contains(&class) {
            self.failed(scene, None, true, episodes, out);
        }
    }

    fn failed(
        &mut self,
        scene: &Scene<'_>,
        status: Option<i64>,
        given_up: bool,
        episodes: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        let options = &scene.config.api_degraded;
        if !options.enabled {
            return;
        }
        let session = key_of(&[scene.key.session_id.as_bytes()]);
        self.failed.push(Failed { at_ms: scene.at_ms, given_up, session, status });
        let recent = self.recent(scene.at_ms, options);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (failures, lost) = (count(recent.len()), count(recent.iter().filter(|f| f.given_up).count()));
        if failures < options.failures && lost < options.given_up {
            return;
        }
        let mut sessions: Vec<u64> = recent.iter().map(|failed| failed.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let statuses: std::collections::BTreeSet<String> =
            recent.iter().map(|f| f.status.map_or_else(|| "none".to_owned(), |s| s.to_string())).collect();
        let began_ms = recent.first().map_or(scene.at_ms, |failed| failed.at_ms);
        let reading = Reading {
            pattern: 0,
            level: f64::from(failures),
            severity: if lost >= options.given_up { Severity::Critical } else { Severity::Warning },
            began_ms,
            summary: format!(
                "{failures} requests failed at the API within {} minutes, {lost} of them for good, in {} session(s)",
                options.window_minutes,
                sessions.len()
            ),
            evidence: Evidence::default()
                .against("failed_attempts", f64::from(failures), Unit::Count, f64::from(options.failures))
                .against("given_up", f64::from(lost), Unit::Count, f64::from(options.given_up))
                .figure("sessions", f64::from(count(sessions.len())), Unit::Count)
                .text("statuses", &statuses.into_iter().collect::<Vec<_>>().join(", ")),
            cost: Cost::default(),
        };
        let all = SessionKey::default();
        let about = About { key: &all, agent_id: &all.session_id, agent_type: &all.session_id };
        episodes.holds(about, Detector::ApiDegraded, scene.at_ms, reading, out);
    }

    /// Whether it is over.
    pub(crate) fn passed(
        &self,
        at_ms: i64,
        options: &Options,
        episodes: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        if episodes.is_open(Detector::ApiDegraded) && self.recent(at_ms, options).is_empty() {
            episodes.over_all(Detector::ApiDegraded, None, at_ms, out);
        }
    }

    fn recent(&self, at_ms: i64, options: &Options) -> Vec<Failed> {
        let since_ms = at_ms.saturating_sub(minutes_ms(options.window_minutes));
        self.failed.iter().copied().filter(|failed| failed.at_ms >= since_ms).collect()
    }
}
