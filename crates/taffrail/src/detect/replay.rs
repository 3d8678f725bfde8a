//! All traces as one stream in the order of time, through an engine.

use std::collections::BTreeMap;

use serde::Serialize;
use taffrail_analytics::trace::Trace;
use taffrail_engine::signal::{Told, paced, told};
use taffrail_engine::{Config, Engine, Finding, Phase, Stats};

/// One episode: from its first finding to its last.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Replayed {
    /// As it fired.
    pub(super) fired: Finding,
    /// As it was known at its end.
    pub(super) last: Finding,
    /// How often it was told as worse.
    pub(super) escalations: u32,
    /// When it was over.
    pub(super) resolved_ms: i64,
    /// What was spent on the pattern after it had fired: what stopping it then would have saved; none where nothing is
    /// priced.
    pub(super) saved_nano_usd: Option<i64>,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    #[serde(rename = "items")]
    pub(super) episodes: Vec<Replayed>,
    pub(super) totals: Totals,
    pub(super) engine: Stats,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) sessions: usize,
    /// Sessions of which nothing fired.
    pub(super) silent_sessions: usize,
    pub(super) calls: usize,
    pub(super) requests: usize,
    pub(super) cost_nano_usd: i64,
    pub(super) saved_nano_usd: i64,
    /// Episodes by detector.
    pub(super) fired: BTreeMap<&'static str, usize>,
}

/// Episodes of which `is_wanted` held when they fired.
pub(super) fn replay(config: Config, traces: &[Trace], is_wanted: impl Fn(&Finding) -> bool) -> Outcome {
    let mut stream: Vec<Told> = traces.iter().flat_map(told).collect();
    // The order within a session stays: the sort is stable.
    stream.sort_by_key(|told| told.at_ms);
    let end_ms = stream.last().map_or(0, |told| told.at_ms);
    let mut engine = Engine::new(config);
    let mut open: BTreeMap<String, Replayed> = BTreeMap::new();
    let mut episodes = Vec::new();
    for (now_ms, signal) in paced(stream.into_iter()) {
        for finding in engine.step(now_ms, &signal) {
            take(finding, &mut open, &mut episodes, &is_wanted);
        }
    }
    for finding in engine.finish(end_ms) {
        take(finding, &mut open, &mut episodes, &is_wanted);
    }
    episodes.extend(open.into_values());
    episodes.sort_by(|a: &Replayed, b| (a.fired.at_ms, &a.fired.id).cmp(&(b.fired.at_ms, &b.fired.id)));
    let totals = totals(traces, &episodes);
    Outcome { episodes, totals, engine: engine.stats() }
}

fn take(
    finding: Finding,
    open: &mut BTreeMap<String, Replayed>,
    done: &mut Vec<Replayed>,
    is_wanted: &impl Fn(&Finding) -> bool,
) {
    match finding.phase {
        Phase::Fired if is_wanted(&finding) => {
            let id = finding.id.clone();
            let resolved_ms = finding.at_ms;
            let saved_nano_usd = finding.cost.nano_usd.map(|_| 0);
            let last = finding.clone();
            open.insert(id, Replayed { fired: finding, last, escalations: 0, resolved_ms, saved_nano_usd });
        }
        Phase::Fired => {}
        phase => {
            let Some(mut known) = open.remove(&finding.id) else { return };
            known.resolved_ms = finding.at_ms;
            let before = known.fired.cost.nano_usd.unwrap_or(0);
            known.saved_nano_usd = finding.cost.nano_usd.map(|after| after.saturating_sub(before).max(0));
            known.last = finding;
            if phase == Phase::Resolved {
                return done.push(known);
            }
            known.escalations += 1;
            open.insert(known.fired.id.clone(), known);
        }
    }
}

fn totals(traces: &[Trace], episodes: &[Replayed]) -> Totals {
    let loud: std::collections::BTreeSet<&str> =
        episodes.iter().map(|e| &*e.fired.scope.session_id).collect();
    let mut totals = Totals { sessions: traces.len(), ..Totals::default() };
    for trace in traces {
        totals.silent_sessions += usize::from(!loud.contains(trace.session_id.as_str()));
        totals.calls += trace.calls.len();
        totals.requests += trace.requests.len();
        let costs = trace.requests.iter().filter_map(|request| request.cost_nano_usd);
        totals.cost_nano_usd = costs.fold(totals.cost_nano_usd, i64::saturating_add);
    }
    for episode in episodes {
        *totals.fired.entry(episode.fired.detector.name()).or_default() += 1;
        totals.saved_nano_usd = totals.saved_nano_usd.saturating_add(episode.saved_nano_usd.unwrap_or(0));
    }
    totals
}
