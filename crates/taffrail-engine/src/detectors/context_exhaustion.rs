//! Context exhaustion: an agent's context is nearly full, and nothing makes room.
//!
//! The context of two requests in a row (input, cache reads and cache writes) is at least `percent` of the model's window.
//! Where the client compacts by itself it does so well before. A context beyond [`BEYOND_PERCENT`] of the window says that
//! the window is another one (the long-context variant of a model), and nothing is judged. A compaction, or less than
//! [`OVER_PERCENT`], ends it.

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::Request;

use super::{Detector, Out, Scene};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "context exhaustion";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "The context is nearly full: the next long answer fails or is compacted away. Compact now, or start a new session.",
    agent: "Your context is nearly full. Write down what matters, then have it compacted before you read more.",
};

/// Below this share of the window it is over, in percent.
pub const OVER_PERCENT: f64 = 80.0;
/// Beyond this share of the window the window cannot be right, in percent.
pub const BEYOND_PERCENT: f64 = 101.0;

/// `[detectors.context_exhaustion]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Share of the window, in percent. 92: the client's own compaction comes between 77 and 92 by its settings.
    pub percent: f64,
    /// From this share on it is critical: an answer of usual length no longer fits.
    pub critical_percent: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, percent: 92.0, critical_percent: 97.0 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.number("percent", self.percent, OVER_PERCENT, 100.0)?;
        check.number("critical_percent", self.critical_percent, self.percent, 100.0)
    }
}

/// The state of one agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContextExhaustion {
    /// Requests in a row that were that full.
    full: u32,
    began_ms: i64,
}

impl ContextExhaustion {
    pub(crate) fn asked(&mut self, scene: &Scene<'_>, request: &Request, out: &mut Out<'_>) {
        let options = &scene.config.context_exhaustion;
        let Some(window) = request.context_window.filter(|window| *window > 0) else { return };
        let context = context(request);
        // Compactions, titles and other requests beside the conversation say nothing of its context.
        if !options.enabled
            || context <= 0
            || matches!(request.query_source.as_str(), "auxiliary" | "compact")
        {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "tokens")]
        let (tokens, window) = (context as f64, window as f64);
        let percent = tokens * 100.0 / window;
        if !(OVER_PERCENT..=BEYOND_PERCENT).contains(&percent) {
            return self.compacted(scene, out);
        }
        if percent < options.percent {
            return;
        }
        if self.full == 0 {
            self.began_ms = scene.at_ms;
        }
        self.full = self.full.saturating_add(1);
        if self.full < 2 {
            return;
        }
        let critical = percent >= options.critical_percent;
        let reading = Reading {
            pattern: 0,
            // It cannot double; only its severity rises.
            level: 1.0,
            severity: if critical { Severity::Critical } else { Severity::Warning },
            began_ms: self.began_ms,
            summary: format!("the context is {percent:.0} % full: {tokens:.0} of {window:.0} tokens"),
            evidence: Evidence::default()
                .against("utilization", percent, Unit::Percent, options.percent)
                .figure("context", tokens, Unit::Tokens)
                .figure("window", window, Unit::Tokens)
                .text("model", &request.model),
            cost: scene.spend.since(self.began_ms),
        };
        out.holds(scene, Detector::ContextExhaustion, reading);
    }

    /// There is room again.
    pub(crate) fn compacted(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.full = 0;
        out.over_all(scene, Detector::ContextExhaustion);
    }
}

fn context(request: &Request) -> i64 {
    [request.cache_read, request.cache_write_5m, request.cache_write_1h]
        .iter()
        .fold(request.input, |sum, tokens| sum.saturating_add(*tokens))
}
