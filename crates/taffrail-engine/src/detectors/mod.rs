//! The detectors by name: what each is called, what it means, what it prescribes.

pub mod anomaly;
pub mod api_degraded;
pub mod behaviour_drift;
pub mod budget_threshold;
pub mod compaction_churn;
pub mod context_exhaustion;
pub mod cost_spike;
pub mod cycle_loop;
pub mod edit_thrash;
pub mod error_burst;
pub mod hook_silence;
pub mod permission_stall;
pub mod retry_loop;
pub mod runaway_session;
pub mod silent_spend;
pub mod stalled_agent;
pub mod subagent_storm;
pub mod unpriced_model;

use std::sync::Arc;

use serde::Serialize;
use taffrail_analytics::trace::Call;

use crate::config::Config;
use crate::episode::{About, Episodes, Reading};
use crate::finding::{CallRef, Finding, Response};
use crate::signal::{SessionKey, Via};
use crate::spend::Spend;

macro_rules! detectors {
    ($($variant:ident $module:ident),* $(,)?) => {
        /// A named detector.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs, reason = "the modules of those names say it")]
        pub enum Detector { $($variant),* }

        impl Detector {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in JSON, in the database, in rules and in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($module)),* }
            }

            /// What it is, as a noun.
            pub const fn noun(self) -> &'static str {
                match self { $(Self::$variant => $module::NOUN),* }
            }

            /// What it prescribes.
            pub const fn response(self) -> &'static Response {
                match self { $(Self::$variant => &$module::RESPONSE),* }
            }

            /// The one of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|detector| detector.name() == name)
            }
        }
    };
}

detectors! {
    RetryLoop retry_loop,
    CycleLoop cycle_loop,
    EditThrash edit_thrash,
    ErrorBurst error_burst,
    CostSpike cost_spike,
    BudgetThreshold budget_threshold,
    RunawaySession runaway_session,
    SubagentStorm subagent_storm,
    ContextExhaustion context_exhaustion,
    CompactionChurn compaction_churn,
    StalledAgent stalled_agent,
    PermissionStall permission_stall,
    SilentSpend silent_spend,
    ApiDegraded api_degraded,
    UnpricedModel unpriced_model,
    HookSilence hook_silence,
    BehaviourDrift behaviour_drift,
    Anomaly anomaly,
}

/// What a detector may look at beside its own state.
pub(crate) struct Scene<'a> {
    /// When the signal happened.
    pub(crate) at_ms: i64,
    /// Awake time of the engine: silence is measured in it.
    pub(crate) awake_ms: i64,
    pub(crate) key: &'a SessionKey,
    pub(crate) agent_id: &'a Arc<str>,
    pub(crate) agent_type: &'a Arc<str>,
    pub(crate) via: Via,
    /// What the agent spent.
    pub(crate) spend: &'a Spend,
    /// What its session spent.
    pub(crate) session_spend: &'a Spend,
    pub(crate) config: &'a Config,
}

/// Where detectors put what they find.
pub(crate) struct Out<'a> {
    pub(crate) episodes: &'a mut Episodes,
    pub(crate) findings: &'a mut Vec<Finding>,
}

impl Out<'_> {
    /// The trigger holds, for the scene's agent.
    pub(crate) fn holds(&mut self, scene: &Scene<'_>, detector: Detector, reading: Reading) {
        let about = About { key: scene.key, agent_id: scene.agent_id, agent_type: scene.agent_type };
        self.episodes.holds(about, detector, scene.at_ms, reading, self.findings);
    }

    /// The trigger holds, for the session as a whole.
    pub(crate) fn holds_for_session(&mut self, scene: &Scene<'_>, detector: Detector, reading: Reading) {
        let nobody: Arc<str> = Arc::from("");
        let about = About { key: scene.key, agent_id: &nobody, agent_type: &nobody };
        self.episodes.holds(about, detector, scene.at_ms, reading, self.findings);
    }

    /// One pattern of the scene's agent is over.
    pub(crate) fn over(&mut self, scene: &Scene<'_>, detector: Detector, pattern: u64) {
        self.episodes.over(detector, scene.agent_id, pattern, scene.at_ms, self.findings);
    }

    /// Every pattern of the scene's agent is over.
    pub(crate) fn over_all(&mut self, scene: &Scene<'_>, detector: Detector) {
        self.episodes.over_all(detector, Some(scene.agent_id), scene.at_ms, self.findings);
    }

    /// Every pattern of the session is over, of whatever agent.
    pub(crate) fn over_for_session(&mut self, scene: &Scene<'_>, detector: Detector) {
        self.episodes.over_all(detector, None, scene.at_ms, self.findings);
    }
}

pub(crate) fn call_ref(call: &Call) -> CallRef {
    CallRef { id: call.id, tool_use_id: call.tool_use_id.clone() }
}

/// `Bash cargo test`: a call as a person knows it, for the end of a sentence.
pub(crate) fn named(call: &Call) -> String {
    crate::finding::capped(&format!("{} {}", call.tool, call.summary))
}
