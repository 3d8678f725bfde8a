//! Subagents: on too strong a model, or too many of them.

use std::collections::BTreeMap;

use taffrail_analytics::trace::{Call, Request};

use super::at;
use super::kind::Kind;
use super::view::{Sights, View, context};
use crate::nature::{Nature, is_lookup};

/// The family that is proposed: the client's alias of its newest model.
pub(super) const CHEAP_FAMILY: &str = "haiku";
/// A model is expensive when a request costs more than so many times what it would on the cheap one.
const EXPENSIVE_TIMES: i64 = 2;
/// A subagent with at most so many calls is small.
const SMALL_CALLS: usize = 2;

pub(super) fn see(view: &View<'_>, sights: &mut Sights) {
    let mut calls: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    for call in &view.calls {
        calls.entry(call.agent).or_default().push(call);
    }
    for (agent, asked) in &view.asked {
        if view.is_main(*agent) {
            continue;
        }
        let name = view.agent_type(*agent);
        let requests: Vec<&Request> = asked.requests.iter().map(|(request, _)| *request).collect();
        let of_agent = calls.get(agent).map(Vec::as_slice).unwrap_or_default();
        see_strength(view, name, &requests, of_agent, sights);
        see_size(view, *agent, name, &requests, of_agent, sights);
    }
}

fn see_strength(view: &View<'_>, name: &str, requests: &[&Request], calls: &[&Call], sights: &mut Sights) {
    let sight = sights.of(Kind::ModelTooStrong, name);
    sight.chances += requests.len() as u64;
    let work: Vec<&&Call> = calls.iter().filter(|call| !Nature::of(call).bookkeeping).collect();
    if work.is_empty() || !work.iter().all(|call| is_lookup(call)) {
        sight.against += u64::from(!work.is_empty());
        return;
    }
    for request in requests {
        let Some(cheap) = cheap_model(view, request) else { continue };
        let (Some(cost), Some(quoted)) = (request.cost_nano_usd, view.quote(&cheap, request)) else {
            sight.unpriced += 1;
            continue;
        };
        if cost > quoted.saturating_mul(EXPENSIVE_TIMES) {
            sight.hits += 1;
            sight.cost(Some(cost.saturating_sub(quoted)));
            sight.part(&request.model);
        }
    }
    if let Some(call) = work.last() {
        sight.call(call.id);
    }
}

/// The newest model of the cheap family on sale at the time.
fn cheap_model(view: &View<'_>, request: &Request) -> Option<String> {
    let now = at(request.ts_ms);
    view.prices
        .rows()
        .filter(|row| row.model.contains(CHEAP_FAMILY) && row.effective_from.begin() <= now)
        .filter(|row| row.retired.is_none_or(|day| now < day.begin()))
        .max_by_key(|row| row.effective_from)
        .map(|row| row.model.clone())
}

/// A small subagent pays for its own beginning, the tokens of its first request, which its parent would not have.
fn see_size(
    view: &View<'_>,
    agent: u32,
    name: &str,
    requests: &[&Request],
    calls: &[&Call],
    sights: &mut Sights,
) {
    let ended = view.trace.agents.get(agent as usize).is_some_and(|agent| agent.ended_ms.is_some());
    let Some(first) = requests.first().filter(|_| ended) else { return };
    let sight = sights.of(Kind::SubagentOveruse, name);
    sight.chances += 1;
    if calls.len() > SMALL_CALLS {
        return;
    }
    sight.hits += 1;
    sight.tokens = sight.tokens.saturating_add(context(first));
    let start = Request { output: 0, ..(*first).clone() };
    sight.cost(view.quote(&first.model, &start));
}
