//! Permission stall: an agent asked a person, and nobody answers.
//!
//! A permission request, a question or a plan for approval is open for `minutes` of awake time, and nothing was heard of
//! the agent since. A call that was allowed and then runs for that long looks the same to hooks.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::Call;

use super::{Detector, Out, Scene};
use crate::bounded::Lru;
use crate::config::{Check, ConfigError, minutes_ms};
use crate::episode::Reading;
use crate::finding::{Action, Evidence, Response, Severity, Unit};

/// What it is.
pub const NOUN: &str = "permission stall";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify],
    person: "The agent waits for your answer. Give it, or make a rule so that it need not ask.",
    agent: "Nobody answered your question. Go on with what needs no permission, or say what you would do.",
};

/// Tools whose call is a question to a person.
const ASKING_TOOLS: &[&str] = &["AskUserQuestion", "ExitPlanMode", "exit_plan_mode"];
/// Agents of one session that may wait at once.
const WAITING_MAX: usize = 32;

/// `[detectors.permission_stall]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// So long without an answer, in minutes. 5: the prompt cache is lost then, and the next request pays for it.
    pub minutes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, minutes: 5 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("minutes", self.minutes, 1, 10_000)
    }
}

#[derive(Clone, Debug)]
struct Asked {
    agent_type: Arc<str>,
    tool: Arc<str>,
    /// Hash of tool and input; 0 where it is not known which call waits.
    input_hash: i64,
    at_ms: i64,
    awake_ms: i64,
}

/// The state of one session: by agent, what it asked.
#[derive(Clone, Debug)]
pub(crate) struct PermissionStall {
    asked: Lru<Arc<str>, Asked>,
}

impl Default for PermissionStall {
    fn default() -> Self {
        Self { asked: Lru::new(WAITING_MAX) }
    }
}

impl PermissionStall {
    pub(crate) fn asked(&mut self, scene: &Scene<'_>, tool: &Arc<str>, input_hash: i64) {
        let asked = Asked {
            agent_type: scene.agent_type.clone(),
            tool: tool.clone(),
            input_hash,
            at_ms: scene.at_ms,
            awake_ms: scene.awake_ms,
        };
        self.asked.remove(scene.agent_id);
        self.asked.entry(scene.agent_id.clone(), || asked);
    }

    /// A call that is itself a question.
    pub(crate) fn started(&mut self, scene: &Scene<'_>, call: &Call) {
        if ASKING_TOOLS.contains(&&*call.tool) {
            self.asked(scene, &call.tool, call.input_hash);
        }
    }

    /// The agent goes on; a call of it that ended answers only for itself, since others may run beside the one that waits.
    pub(crate) fn answered(&mut self, scene: &Scene<'_>, ended: Option<&Call>, out: &mut Out<'_>) {
        let is_answer = |asked: &Asked| {
            ended.is_none_or(|call| asked.input_hash == 0 || call.input_hash == asked.input_hash)
        };
        if self.asked.get(scene.agent_id).is_some_and(is_answer) {
            self.asked.remove(scene.agent_id);
            out.over_all(scene, Detector::PermissionStall);
        }
    }

    /// The agent asked its model again, which it can only with every result in hand. The request that led to the question may
    /// be told after it.
    pub(crate) fn went_on(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        if self.asked.get(scene.agent_id).is_some_and(|asked| asked.at_ms < scene.at_ms) {
            self.answered(scene, None, out);
        }
    }

    /// Whether the agent waits for a person.
    pub(crate) fn waits(&self, agent_id: &Arc<str>) -> bool {
        self.asked.get(agent_id).is_some()
    }

    pub(crate) fn tick(&self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let options = &scene.config.permission_stall;
        let threshold_ms = minutes_ms(options.minutes);
        if !options.enabled {
            return;
        }
        for (agent_id, asked) in self.asked.iter() {
            let waited_ms = scene.awake_ms.saturating_sub(asked.awake_ms);
            if waited_ms < threshold_ms {
                continue;
            }
            #[allow(clippy::cast_precision_loss, reason = "milliseconds of waiting")]
            let (waited, threshold) = (waited_ms as f64, threshold_ms as f64);
            let reading = Reading {
                pattern: 0,
                level: waited,
                severity: if waited >= 6.0 * threshold { Severity::Critical } else { Severity::Warning },
                began_ms: asked.at_ms,
                summary: crate::finding::capped(&format!(
                    "waits for a person's answer for {:.0} minutes: {}",
                    waited / 60_000.0,
                    asked.tool
                )),
                evidence: Evidence::default()
                    .against("waited", waited, Unit::Ms, threshold)
                    .text("tool", &asked.tool),
                cost: scene.session_spend.since(asked.at_ms),
            };
            let theirs = Scene { agent_id, agent_type: &asked.agent_type, ..*scene };
            out.holds(&theirs, Detector::PermissionStall, reading);
        }
    }
}
