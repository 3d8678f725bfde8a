//! Stalled agent: in the middle of its work, and nothing is heard of it.
//!
//! An agent has an open call (`call_minutes`), or is between calls (`turn_minutes`), and no signal of it came for that long
//! in awake time: a machine that slept, or a clock that jumped, does not count. Only where the source tells when an agent
//! waits for a person (hooks do, transcripts do not), and not while it waits: after Stop, during a question or a
//! permission prompt. An agent whose open call runs a subagent is silent only when the whole session is.

use serde::{Deserialize, Serialize};

use super::{Detector, Out, Scene};
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};
use crate::session::OpenCall;

/// What it is.
pub const NOUN: &str = "stalled agent";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Investigate],
    person: "Nothing is heard of the agent in the middle of its work. See whether a command hangs or waits for input.",
    agent: "Your last call hung. Run it in the background or with a time-out, and without questions to a terminal.",
};

/// `[detectors.stalled_agent]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Silence of an open call, in minutes. 20: twice the longest time-out of the client's shell.
    pub call_minutes: u32,
    /// Silence between calls. 10: the client's own time-out of a request.
    pub turn_minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, call_minutes: 20, turn_minutes: 10 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("call_minutes", self.call_minutes, 1, 10_000)?;
        check.count("turn_minutes", self.turn_minutes, 1, 10_000)
    }
}

/// What an agent is at.
pub(crate) struct Doing<'a> {
    /// Its newest open call.
    pub(crate) open: Option<&'a OpenCall>,
    /// Awake time since it was heard of; of one that waits for a subagent, since the session was.
    pub(crate) silent_ms: i64,
    pub(crate) last_ms: i64,
}

pub(crate) fn tick(scene: &Scene<'_>, doing: &Doing<'_>, out: &mut Out<'_>) {
    let options = &scene.config.stalled_agent;
    let minutes = if doing.open.is_some() { options.call_minutes } else { options.turn_minutes };
    let threshold_ms = minutes_ms(minutes);
    if !options.enabled || doing.silent_ms < threshold_ms {
        return;
    }
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of silence")]
    let (silent_ms, threshold_ms) = (doing.silent_ms as f64, threshold_ms as f64);
    let minutes = silent_ms / 60_000.0;
    let mut evidence = Evidence::default().against("silent", silent_ms, Unit::Ms, threshold_ms);
    let summary = match doing.open {
        Some(open) => {
            evidence = evidence.text("call", &open.named).calls([open.call.clone()]);
            format!("nothing heard for {minutes:.0} minutes, in the middle of {}", open.named)
        }
        None => format!("nothing heard for {minutes:.0} minutes, in the middle of a turn"),
    };
    let reading = Reading {
        pattern: 0,
        level: silent_ms,
        severity: if silent_ms >= 4.0 * threshold_ms { Severity::Critical } else { Severity::Warning },
        began_ms: doing.last_ms,
        summary,
        evidence,
        cost: scene.spend.since(doing.last_ms),
    };
    out.holds(scene, Detector::StalledAgent, reading);
}
