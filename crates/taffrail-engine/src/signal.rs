//! What the engine is told, and how a recorded session is told again.

use std::sync::Arc;

use taffrail_analytics::trace::{Call, MarkKind, Request, Trace};

/// One thing the engine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// Time passes; every few seconds.
    Tick,
    /// Something of a session.
    Told(Told),
}

/// Whose a signal is: a session and its scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SessionKey {
    pub session_id: Arc<str>,
    pub app: Arc<str>,
    /// Empty where it is not known.
    pub user: Arc<str>,
}

/// Something of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Whose.
    pub key: SessionKey,
    /// Which agent; empty for the main agent.
    pub agent_id: Arc<str>,
    /// Its type.
    pub agent_type: Arc<str>,
    /// When it happened, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Who told of it.
    pub via: Via,
    /// What.
    pub what: What,
}

/// Who told of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Via {
    Hook,
    /// Telemetry or a transcript: witnesses that know nothing of hooks.
    Witness,
    /// A recording: its silence says nothing.
    #[default]
    Recording,
}

/// See [`Told`]. The rows are those of a [`Trace`]; their own `agent` is not looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A subagent began.
    AgentStarted,
    /// It ended.
    AgentEnded,
    /// A call began.
    CallStarted(Box<Call>),
    /// A call ended, with all that is known of it.
    CallEnded(Box<Call>),
    /// A request, or more of one told before (the same `id`).
    Request(Box<Request>),
    /// A mark.
    Mark(MarkKind),
    /// A score computed elsewhere.
    Score(Box<Score>),
}

/// What a model of normal behaviour says of a call, or of an agent's last while.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Of what.
    pub kind: ScoreKind,
    /// 0 (usual) to 1 (never seen).
    pub score: f64,
    /// What was scored: a tool family, or the aspect of behaviour.
    pub subject: Arc<str>,
    /// The call, where it is about one.
    pub call: Option<crate::finding::CallRef>,
    /// The features that decide it, most telling first, in words: `duration 94 s, usually 0.2-3 s`.
    pub reasons: Vec<String>,
    /// The version of the model that scored it, where it has one.
    pub model_version: Option<u32>,
}

/// See [`Score`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    /// The isolation forest's score of one call (Liu, Ting, Zhou 2008).
    Anomaly,
    /// How far an agent's behaviour is from its own baseline.
    Drift,
}

/// The signals of a recorded session in the order of time. At one moment: beginnings, requests and prompts before calls,
/// ends last. A call whose end nobody saw stays open, as it would live.
pub fn signals(trace: &Trace) -> impl Iterator<Item = Signal> {
    told(trace).map(Signal::Told)
}

/// As [`signals`], as what they hold.
pub fn told(trace: &Trace) -> impl Iterator<Item = Told> {
    let key = SessionKey {
        session_id: Arc::from(trace.session_id.as_str()),
        app: Arc::from(trace.app.as_str()),
        user: Arc::from(trace.user.as_str()),
    };
    let names: Vec<(Arc<str>, Arc<str>)> = trace
        .agents
        .iter()
        .map(|agent| (Arc::from(agent.agent_id.as_str()), Arc::from(agent.agent_type.as_str())))
        .collect();
    let nobody = (Arc::from(""), Arc::from("main"));
    let mut told: Vec<(i64, u8, Told)> = Vec::new();
    let mut tell = |at_ms: i64, order: u8, agent: u32, what: What| {
        let (agent_id, agent_type) = names.get(agent as usize).unwrap_or(&nobody).clone();
        told.push((
            at_ms,
            order,
            Told { key: key.clone(), agent_id, agent_type, at_ms, via: Via::Recording, what },
        ));
    };
    for (place, agent) in (0u32..).zip(&trace.agents) {
        if !agent.agent_id.is_empty() {
            tell(agent.started_ms, 0, place, What::AgentStarted);
        }
        if let Some(ended_ms) = agent.ended_ms.filter(|_| !agent.agent_id.is_empty()) {
            tell(ended_ms, 6, place, What::AgentEnded);
        }
    }
    for request in &trace.requests {
        tell(request.ts_ms, 2, request.agent, What::Request(Box::new(request.clone())));
    }
    for call in &trace.calls {
        tell(call.at_ms, 3, call.agent, What::CallStarted(Box::new(call.clone())));
        if call.outcome.has_ended() {
            let ended_ms = call.ended_ms.unwrap_or(call.at_ms).max(call.at_ms);
            tell(ended_ms, 4, call.agent, What::CallEnded(Box::new(call.clone())));
        }
    }
    for mark in &trace.marks {
        let order = match mark.kind {
            MarkKind::SessionStart | MarkKind::SubagentStart | MarkKind::Prompt { .. } => 1,
            _ => 5,
        };
        tell(mark.ts_ms, order, mark.agent, What::Mark(mark.kind.clone()));
    }
    told.sort_by_key(|(at_ms, order, _)| (*at_ms, *order));
    told.into_iter().map(|(_, _, told)| told)
}

/// How often a replay ticks between two signals, in milliseconds.
pub const REPLAY_TICK_MS: i64 = 30_000;
/// How long it goes on ticking where nothing happens; the rest of a gap is one jump, as if the machine slept.
pub const REPLAY_TICKS_MS: i64 = 3_600_000;

/// Signals with the ticks that lie between them, each with its time: what a replay steps through.
pub fn paced(told: impl Iterator<Item = Told>) -> impl Iterator<Item = (i64, Signal)> {
    let mut last: Option<i64> = None;
    told.flat_map(move |told| {
        let at_ms = told.at_ms;
        let from = last.replace(at_ms).unwrap_or(at_ms);
        let until = at_ms.min(from.saturating_add(REPLAY_TICKS_MS));
        let ticks =
            (1..).map_while(move |nth| from.checked_add(REPLAY_TICK_MS * nth).filter(|tick| *tick < until));
        ticks.map(|tick| (tick, Signal::Tick)).chain([(at_ms, Signal::Told(told))])
    })
}
