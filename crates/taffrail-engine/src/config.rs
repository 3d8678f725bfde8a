//! Thresholds: one table `[detectors.NAME]` for each detector, all with defaults. Units are last in their names.
//!
//! What each means, and why its default is what it is, stands beside the detector and in `docs/ANALYTICS.md`.

use serde::{Deserialize, Serialize};

use crate::detectors::{
    anomaly, api_degraded, behaviour_drift, budget_threshold, compaction_churn, context_exhaustion,
    cost_spike, cycle_loop, edit_thrash, error_burst, hook_silence, permission_stall, retry_loop,
    runaway_session, silent_spend, stalled_agent, subagent_storm, unpriced_model,
};

/// Every detector's table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the detectors of those names")]
pub struct Config {
    pub retry_loop: retry_loop::Options,
    pub cycle_loop: cycle_loop::Options,
    pub edit_thrash: edit_thrash::Options,
    pub error_burst: error_burst::Options,
    pub cost_spike: cost_spike::Options,
    pub budget_threshold: budget_threshold::Options,
    pub runaway_session: runaway_session::Options,
    pub subagent_storm: subagent_storm::Options,
    pub context_exhaustion: context_exhaustion::Options,
    pub compaction_churn: compaction_churn::Options,
    pub stalled_agent: stalled_agent::Options,
    pub permission_stall: permission_stall::Options,
    pub silent_spend: silent_spend::Options,
    pub api_degraded: api_degraded::Options,
    pub unpriced_model: unpriced_model::Options,
    pub hook_silence: hook_silence::Options,
    pub behaviour_drift: behaviour_drift::Options,
    pub anomaly: anomaly::Options,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no such table: the parser's own words, with the line.
    #[error("[detectors]: {0}")]
    Syntax(String),
    /// A value is out of its range.
    #[error(
        "[detectors.{detector}] {field} is {value}, and must be {range}\nhint: leave it out for the default"
    )]
    Range {
        /// The table.
        detector: &'static str,
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        range: String,
    },
}

/// The file that holds `[detectors.NAME]` tables; what else it holds is not looked at.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    detectors: Config,
}

impl Config {
    /// Of a configuration file's text.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        file.detectors.checked()
    }

    /// Every value is in its range, or the first that is not.
    pub fn checked(self) -> Result<Self, ConfigError> {
        self.retry_loop.check(&Check("retry_loop"))?;
        self.cycle_loop.check(&Check("cycle_loop"))?;
        self.edit_thrash.check(&Check("edit_thrash"))?;
        self.error_burst.check(&Check("error_burst"))?;
        self.cost_spike.check(&Check("cost_spike"))?;
        self.budget_threshold.check(&Check("budget_threshold"))?;
        self.runaway_session.check(&Check("runaway_session"))?;
        self.subagent_storm.check(&Check("subagent_storm"))?;
        self.context_exhaustion.check(&Check("context_exhaustion"))?;
        self.compaction_churn.check(&Check("compaction_churn"))?;
        self.stalled_agent.check(&Check("stalled_agent"))?;
        self.permission_stall.check(&Check("permission_stall"))?;
        self.silent_spend.check(&Check("silent_spend"))?;
        self.api_degraded.check(&Check("api_degraded"))?;
        self.unpriced_model.check(&Check("unpriced_model"))?;
        self.hook_silence.check(&Check("hook_silence"))?;
        self.behaviour_drift.check(&Check("behaviour_drift"))?;
        self.anomaly.check(&Check("anomaly"))?;
        Ok(self)
    }
}

/// Holds values of one table against their ranges.
pub(crate) struct Check(&'static str);

impl Check {
    /// A count between two others, both allowed.
    pub(crate) fn count(
        &self,
        field: &'static str,
        value: u32,
        least: u32,
        most: u32,
    ) -> Result<(), ConfigError> {
        self.held((least..=most).contains(&value), field, value.to_string(), || format!("{least} to {most}"))
    }

    /// A number between two others, both allowed.
    pub(crate) fn number(
        &self,
        field: &'static str,
        value: f64,
        least: f64,
        most: f64,
    ) -> Result<(), ConfigError> {
        self.held((least..=most).contains(&value), field, value.to_string(), || format!("{least} to {most}"))
    }

    pub(crate) fn held(
        &self,
        is_held: bool,
        field: &'static str,
        value: String,
        range: impl FnOnce() -> String,
    ) -> Result<(), ConfigError> {
        if is_held {
            return Ok(());
        }
        Err(ConfigError::Range { detector: self.0, field, value, range: range() })
    }
}

/// Minutes of a table as milliseconds.
pub(crate) fn minutes_ms(minutes: u32) -> i64 {
    i64::from(minutes) * 60_000
}
