//! One session as the engine sees it: its agents, what they are at, what they spent, and the detectors' state.

use std::sync::Arc;

use taffrail_analytics::trace::{Call, MarkKind, Outcome, Request};

use crate::bounded::{Lru, Ring, key_of};
use crate::config::Config;
use crate::detectors::compaction_churn::CompactionChurn;
use crate::detectors::context_exhaustion::ContextExhaustion;
use crate::detectors::cycle_loop::CycleLoop;
use crate::detectors::retry_loop::RetryLoop;
use crate::detectors::stalled_agent::{self, Doing};
use crate::detectors::{Detector, Out, Scene, call_ref, named};
use crate::detectors::{
    anomaly::Anomaly, api_degraded::ApiDegraded, behaviour_drift::BehaviourDrift, budget_threshold::Budgets,
    cost_spike::CostSpike, cost_spike::Usual, edit_thrash::EditThrash, error_burst::ErrorBurst,
    hook_silence::Heard, hook_silence::HookSilence, permission_stall::PermissionStall,
    runaway_session::RunawaySession, silent_spend::SilentSpend, subagent_storm::SubagentStorm,
    unpriced_model::UnpricedModel,
};
use crate::engine::Stats;
use crate::episode::Episodes;
use crate::finding::{CallRef, Finding};
use crate::nature::Nature;
use crate::signal::{ScoreKind, SessionKey, Told, Via, What};
use crate::spend::{Change, Spend};

/// Agents of one session whose state is kept; the one heard of longest ago makes room.
pub const AGENTS_PER_SESSION_MAX: usize = 64;
/// Open calls of one agent.
pub const OPEN_CALLS_MAX: usize = 64;
/// Ended calls of one agent that are known again when they are told twice.
pub const ENDED_CALLS_MAX: usize = 256;
/// Requests of one session that are known again.
pub const REQUESTS_MAX: usize = 256;
/// A call that ended so long before another of its agent that was told already is not judged in a sequence.
pub const LATE_MS: i64 = 600_000;

/// A call that began and was not seen to end.
#[derive(Clone, Debug)]
pub(crate) struct OpenCall {
    pub(crate) named: String,
    pub(crate) call: CallRef,
    spawns: bool,
}

/// What all sessions share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) usual: Usual,
    pub(crate) budgets: Budgets,
    pub(crate) api: ApiDegraded,
    pub(crate) unpriced: UnpricedModel,
    pub(crate) heard: Heard,
    pub(crate) episodes: Episodes,
}

/// One agent.
#[derive(Clone, Debug)]
struct Agent {
    agent_type: Arc<str>,
    spend: Spend,
    open: Lru<u64, OpenCall>,
    ended: Ring<u64>,
    newest_ended_ms: i64,
    last_ms: i64,
    last_awake_ms: i64,
    /// In a turn: not after Stop.
    busy: bool,
    stopped_ms: i64,
    retry: RetryLoop,
    cycle: CycleLoop,
    context: ContextExhaustion,
    churn: CompactionChurn,
}

impl Agent {
    fn new(agent_type: Arc<str>) -> Self {
        Self {
            agent_type,
            spend: Spend::default(),
            open: Lru::new(OPEN_CALLS_MAX),
            ended: Ring::new(ENDED_CALLS_MAX),
            newest_ended_ms: i64::MIN,
            last_ms: 0,
            last_awake_ms: 0,
            busy: false,
            stopped_ms: i64::MIN,
            retry: RetryLoop::default(),
            cycle: CycleLoop::default(),
            context: ContextExhaustion::default(),
            churn: CompactionChurn::default(),
        }
    }

    fn stops(&mut self, at_ms: i64) {
        self.busy = false;
        self.stopped_ms = self.stopped_ms.max(at_ms);
        self.open.drain().for_each(drop);
    }

    fn works(&mut self, at_ms: i64) {
        self.busy |= at_ms > self.stopped_ms;
    }
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    key: SessionKey,
    /// When it was used last, in steps of the engine.
    pub(crate) used: u64,
    spend: Spend,
    agents: Lru<Arc<str>, Agent>,
    requests: Lru<i64, Option<i64>>,
    last_ms: i64,
    pub(crate) last_awake_ms: i64,
    /// Whether its source says when an agent waits.
    tells_waits: bool,
    episodes: Episodes,
    detectors: Detectors,
}

/// The detectors' state of a session as a whole.
#[derive(Clone, Debug, Default)]
struct Detectors {
    thrash: EditThrash,
    burst: ErrorBurst,
    spike: CostSpike,
    runaway: RunawaySession,
    storm: SubagentStorm,
    permission: PermissionStall,
    silent: SilentSpend,
    hooks: HookSilence,
    drift: BehaviourDrift,
    anomaly: Anomaly,
}

/// The time and the rules of one step.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) at_ms: i64,
    pub(crate) awake_ms: i64,
    pub(crate) config: &'a Config,
}

impl Session {
    pub(crate) fn new(key: SessionKey) -> Self {
        Self {
            key,
            used: 0,
            spend: Spend::default(),
            agents: Lru::new(AGENTS_PER_SESSION_MAX),
            requests: Lru::new(REQUESTS_MAX),
            last_ms: 0,
            last_awake_ms: 0,
            tells_waits: false,
            episodes: Episodes::default(),
            detectors: Detectors::default(),
        }
    }

    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Takes one signal of this session.
    pub(crate) fn told(
        &mut self,
        moment: Moment<'_>,
        told: &Told,
        shared: &mut Shared,
        stats: &mut Stats,
        findings: &mut Vec<Finding>,
    ) {
        self.key.clone_from(&told.key);
        self.last_ms = self.last_ms.max(moment.at_ms);
        self.last_awake_ms = moment.awake_ms;
        self.tells_waits |= told.via == Via::Hook;
        self.room_for_agent(moment, told, stats, findings);
        let (agent, _) = self.agents.entry(told.agent_id.clone(), || Agent::new(told.agent_type.clone()));
        if !told.agent_type.is_empty() {
            agent.agent_type.clone_from(&told.agent_type);
        }
        agent.last_ms = agent.last_ms.max(moment.at_ms);
        agent.last_awake_ms = moment.awake_ms;
        let mut step = Step {
            key: &self.key,
            agent_id: &told.agent_id,
            via: told.via,
            moment,
            agent,
            spend: &mut self.spend,
            requests: &mut self.requests,
            tells_waits: &mut self.tells_waits,
            episodes: &mut self.episodes,
            detectors: &mut self.detectors,
            shared,
            stats,
            findings,
        };
        step.heard(matches!(told.what, What::CallEnded(_) | What::CallStarted(_) | What::Request(_)));
        match &told.what {
            What::AgentStarted => step.subagent(false),
            What::AgentEnded => step.subagent(true),
            What::CallStarted(call) => step.call_started(call),
            What::CallEnded(call) => step.call_ended(call),
            What::Request(request) => step.request(request),
            What::Mark(mark) => step.mark(mark),
            What::Score(score) => step.session(|scene, detectors, out| match score.kind {
                ScoreKind::Anomaly => detectors.anomaly.scored(scene, score, out),
                ScoreKind::Drift => detectors.drift.scored(scene, score, out),
            }),
        }
    }

    /// An agent that is new may need the room of one that has been silent for long: its episodes end with it.
    fn room_for_agent(
        &mut self,
        moment: Moment<'_>,
        told: &Told,
        stats: &mut Stats,
        findings: &mut Vec<Finding>,
    ) {
        if self.agents.len() < AGENTS_PER_SESSION_MAX || self.agents.get(&told.agent_id).is_some() {
            return;
        }
        // The main agent stays.
        let gone = self.agents.iter().map(|(id, _)| id).find(|id| !id.is_empty()).cloned();
        if let Some(gone) = gone {
            self.agents.remove(&gone);
            self.episodes.over_for(Some(&gone), moment.at_ms, findings);
            stats.agents_forgotten += 1;
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, moment: Moment<'_>, findings: &mut Vec<Finding>) {
        let nobody: Arc<str> = Arc::from("");
        let (last_ms, last_awake_ms) = (self.last_ms, self.last_awake_ms);
        let out = &mut Out { episodes: &mut self.episodes, findings };
        let detectors = &mut self.detectors;
        for (agent_id, agent) in self.agents.iter() {
            let scene = Scene {
                at_ms: moment.at_ms,
                awake_ms: moment.awake_ms,
                key: &self.key,
                agent_id,
                agent_type: &agent.agent_type,
                via: Via::Recording,
                spend: &agent.spend,
                session_spend: &self.spend,
                config: moment.config,
            };
            agent.churn.tick(&scene, out);
            if self.tells_waits && agent.busy && !detectors.permission.waits(agent_id) {
                let open = agent.open.iter().last().map(|(_, open)| open);
                // One that waits for a subagent is as silent as the session is.
                let waits = agent.open.iter().any(|(_, open)| open.spawns);
                let (last_ms, last_awake) =
                    if waits { (last_ms, last_awake_ms) } else { (agent.last_ms, agent.last_awake_ms) };
                let silent_ms = moment.awake_ms.saturating_sub(last_awake);
                stalled_agent::tick(&scene, &Doing { open, silent_ms, last_ms }, out);
            }
        }
        let scene = Scene {
            at_ms: moment.at_ms,
            awake_ms: moment.awake_ms,
            key: &self.key,
            agent_id: &nobody,
            agent_type: &nobody,
            via: Via::Recording,
            spend: &self.spend,
            session_spend: &self.spend,
            config: moment.config,
        };
        detectors.burst.tick(&scene, out);
        detectors.spike.tick(&scene, out);
        detectors.storm.tick(&scene, out);
        detectors.permission.tick(&scene, out);
        detectors.anomaly.tick(&scene, out);
    }

    /// It is forgotten: what was open is told to be over.
    pub(crate) fn forget(&mut self, at_ms: i64, findings: &mut Vec<Finding>) {
        self.episodes.over_for(None, at_ms, findings);
    }
}

/// One signal of one agent, with all it may touch.
struct Step<'a> {
    key: &'a SessionKey,
    agent_id: &'a Arc<str>,
    via: Via,
    moment: Moment<'a>,
    agent: &'a mut Agent,
    spend: &'a mut Spend,
    requests: &'a mut Lru<i64, Option<i64>>,
    tells_waits: &'a mut bool,
    episodes: &'a mut Episodes,
    detectors: &'a mut Detectors,
    shared: &'a mut Shared,
    stats: &'a mut Stats,
    findings: &'a mut Vec<Finding>,
}

/// The scene of a step, with the parts that detectors may change left free.
macro_rules! scene {
    ($step:ident) => {
        Scene {
            at_ms: $step.moment.at_ms,
            awake_ms: $step.moment.awake_ms,
            key: $step.key,
            agent_id: $step.agent_id,
            agent_type: &$step.agent.agent_type,
            via: $step.via,
            spend: &$step.agent.spend,
            session_spend: &*$step.spend,
            config: $step.moment.config,
        }
    };
}

impl Step<'_> {
    /// With the session's detectors.
    fn session(&mut self, see: impl FnOnce(&Scene<'_>, &mut Detectors, &mut Out<'_>)) {
        let scene = scene!(self);
        let mut out = Out { episodes: &mut *self.episodes, findings: &mut *self.findings };
        see(&scene, self.detectors, &mut out);
    }

    /// Any signal shows that the agent, the session and perhaps its hooks live.
    fn heard(&mut self, is_sign: bool) {
        let scene = scene!(self);
        let out = &mut Out { episodes: &mut *self.episodes, findings: &mut *self.findings };
        out.over(&scene, Detector::StalledAgent, 0);
        self.detectors.hooks.told(&scene, is_sign, &mut self.shared.heard, out);
    }

    fn subagent(&mut self, ended: bool) {
        self.session(|scene, detectors, out| detectors.storm.heard(scene, ended, out));
        if ended {
            self.agent.stops(self.moment.at_ms);
            self.session(|scene, detectors, out| detectors.permission.answered(scene, None, out));
        } else {
            self.agent.works(self.moment.at_ms);
        }
    }

    fn call_started(&mut self, call: &Call) {
        let key = key_of_call(call);
        if self.agent.ended.iter().any(|ended| *ended == key) || self.agent.open.get(&key).is_some() {
            self.stats.duplicates += 1;
            return;
        }
        let open = OpenCall { named: named(call), call: call_ref(call), spawns: Nature::of(call).spawns };
        let (_, gone) = self.agent.open.entry(key, || open);
        self.stats.calls_forgotten += u64::from(gone.is_some());
        self.agent.works(self.moment.at_ms);
        self.session(|scene, detectors, out| {
            detectors.storm.heard(scene, false, out);
            detectors.permission.started(scene, call);
        });
    }

    fn call_ended(&mut self, call: &Call) {
        let key = key_of_call(call);
        self.agent.open.remove(&key);
        if self.agent.ended.iter().any(|ended| *ended == key) {
            self.stats.duplicates += 1;
            return;
        }
        if call.outcome.has_ended() {
            self.agent.ended.push(key);
        }
        self.agent.works(self.moment.at_ms);
        self.session(|scene, detectors, out| {
            detectors.storm.heard(scene, false, out);
            detectors.permission.answered(scene, Some(call), out);
        });
        if !call.outcome.has_ended() {
            return;
        }
        let nature = Nature::of(call);
        self.session(|scene, detectors, out| {
            detectors.silent.ended(scene, call, nature, out);
            detectors.burst.ended(scene, call, out);
            detectors.runaway.worked(scene, 1, out);
        });
        let at_ms = self.moment.at_ms;
        if at_ms.saturating_add(LATE_MS) < self.agent.newest_ended_ms {
            self.stats.late += 1;
            return;
        }
        self.agent.newest_ended_ms = self.agent.newest_ended_ms.max(at_ms);
        self.session(|scene, detectors, out| detectors.thrash.ended(scene, call, nature, out));
        let Self { agent, episodes, findings, .. } = self;
        let Agent { spend, retry, cycle, agent_type, .. } = &mut **agent;
        let scene = Scene {
            at_ms,
            awake_ms: self.moment.awake_ms,
            key: self.key,
            agent_id: self.agent_id,
            agent_type,
            via: self.via,
            spend,
            session_spend: self.spend,
            config: self.moment.config,
        };
        let out = &mut Out { episodes, findings };
        retry.ended(&scene, call, nature, out);
        cycle.ended(&scene, call, nature, out);
        if call.outcome == Outcome::Interrupted {
            self.attended();
        }
    }

    fn request(&mut self, request: &Request) {
        let before = self.requests.get(&request.id).copied();
        let change = Change::of(before, request.cost_nano_usd);
        let now = request.cost_nano_usd.or(before.flatten());
        *self.requests.entry(request.id, || now).0 = now;
        self.agent.spend.add(self.moment.at_ms, change);
        self.spend.add(self.moment.at_ms, change);
        self.stats.duplicates += u64::from(!change.is_new && change.nano_usd == 0);
        let shared = &mut *self.shared;
        let scene = scene!(self);
        let cost = request.cost_nano_usd.map(|_| change.nano_usd);
        shared.budgets.spent(&scene, cost, change.is_new, &mut shared.episodes, self.episodes, self.findings);
        shared.unpriced.asked(&scene, request, change.is_new, &mut shared.episodes, self.findings);
        let out = &mut Out { episodes: &mut *self.episodes, findings: &mut *self.findings };
        self.detectors.spike.spent(&scene, change.nano_usd, &mut shared.usual, out);
        if !change.is_new {
            return;
        }
        self.session(|scene, detectors, out| {
            detectors.storm.heard(scene, false, out);
            // Titles and other requests beside the conversation do not wait for it.
            if request.query_source != "auxiliary" {
                detectors.permission.went_on(scene, out);
            }
            detectors.runaway.worked(scene, 0, out);
            detectors.silent.spent(scene, out);
        });
        self.agents_own(|scene, agent, out| agent.context.asked(scene, request, out));
    }

    /// With the detectors of the agent itself.
    fn agents_own(&mut self, see: impl FnOnce(&Scene<'_>, &mut Own<'_>, &mut Out<'_>)) {
        let Agent { spend, retry, cycle, context, churn, agent_type, .. } = &mut *self.agent;
        let scene = Scene {
            at_ms: self.moment.at_ms,
            awake_ms: self.moment.awake_ms,
            key: self.key,
            agent_id: self.agent_id,
            agent_type,
            via: self.via,
            spend,
            session_spend: self.spend,
            config: self.moment.config,
        };
        let mut out = Out { episodes: &mut *self.episodes, findings: &mut *self.findings };
        see(&scene, &mut Own { retry, cycle, context, churn }, &mut out);
    }

    /// A person said something.
    fn attended(&mut self) {
        self.session(|scene, detectors, out| {
            detectors.thrash.attended(scene, out);
            detectors.runaway.attended(scene, out);
            detectors.silent.attended(scene, out);
        });
        self.agents_own(|scene, agent, out| {
            agent.retry.attended(scene, out);
            agent.cycle.attended(scene, out);
        });
    }

    fn mark(&mut self, mark: &MarkKind) {
        let at_ms = self.moment.at_ms;
        match mark {
            MarkKind::SessionStart => *self.tells_waits = true,
            MarkKind::SessionEnd => {
                self.agent.stops(at_ms);
                self.episodes.over_for(None, at_ms, self.findings);
            }
            MarkKind::Prompt { human } => {
                self.agent.works(at_ms);
                self.session(|scene, detectors, out| detectors.permission.answered(scene, None, out));
                if *human {
                    self.attended();
                }
            }
            MarkKind::Compaction { .. } => self.agents_own(|scene, agent, out| {
                agent.context.compacted(scene, out);
                agent.churn.compacted(scene, out);
            }),
            MarkKind::PermissionRequest { tool, input_hash } => {
                *self.tells_waits = true;
                self.session(|scene, detectors, _| detectors.permission.asked(scene, tool, *input_hash));
            }
            MarkKind::PermissionDenied { .. } => {
                self.session(|scene, detectors, out| detectors.permission.answered(scene, None, out));
            }
            MarkKind::Stop | MarkKind::StopFailure { .. } => {
                *self.tells_waits = true;
                self.agent.stops(at_ms);
                self.session(|scene, detectors, out| detectors.permission.answered(scene, None, out));
                if let MarkKind::StopFailure { class } = mark {
                    let scene = scene!(self);
                    self.shared.api.turn(&scene, class, &mut self.shared.episodes, self.findings);
                }
            }
            MarkKind::SubagentStart => self.subagent(false),
            MarkKind::SubagentStop => self.subagent(true),
            MarkKind::ApiFailure { status_code, exhausted, .. } => {
                let scene = scene!(self);
                let episodes = &mut self.shared.episodes;
                self.shared.api.attempt(&scene, *status_code, *exhausted, episodes, self.findings);
            }
            MarkKind::Notification { kind } => self.notified(kind.as_deref()),
        }
    }

    /// The client's own words to a person.
    fn notified(&mut self, kind: Option<&str>) {
        *self.tells_waits = true;
        match kind {
            Some("idle_prompt") => self.agent.stops(self.moment.at_ms),
            Some("permission_prompt") => {
                let tool: Arc<str> = Arc::from("a permission prompt");
                self.session(|scene, detectors, _| {
                    if !detectors.permission.waits(scene.agent_id) {
                        detectors.permission.asked(scene, &tool, 0);
                    }
                });
            }
            _ => {}
        }
    }
}

/// The detectors of one agent.
struct Own<'a> {
    retry: &'a mut RetryLoop,
    cycle: &'a mut CycleLoop,
    context: &'a mut ContextExhaustion,
    churn: &'a mut CompactionChurn,
}

/// The client's id of a call, else its row.
fn key_of_call(call: &Call) -> u64 {
    match &call.tool_use_id {
        Some(id) => key_of(&[b"use", id.as_bytes()]),
        None => key_of(&[b"row", &call.id.to_le_bytes()]),
    }
}
