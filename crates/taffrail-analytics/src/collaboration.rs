//! How the agents of a session work together: tree, hand-offs, waiting, shares.
//!
//! An agent's parent is the agent of the call that started it; where that call is not known, the main agent is assumed.
//! A hand-off is the start of a subagent and its seen end. An agent *waits* while a call that started a subagent is
//! open and none of its other calls is. A subagent lives from its start to its end, or to when it was last heard of.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::digest::book::{Book, Place};
use crate::digest::view::{View, figure, keep_top, share, time};
use crate::digest::{Cut, Kind, Limits, agent, quality};
use crate::trace::Request;

/// The agents of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct Collaboration {
    /// The main agent first, then by start.
    pub agents: Vec<AgentFact>,
    pub agents_total: u64,
    pub depth_max: u64,
    /// Work given over to a subagent, and given back.
    pub handoffs: u64,
    /// The first of them, by time.
    pub handoff_list: Vec<Handoff>,
    /// Time in which agents had nothing running but subagents.
    pub waiting_ms: i64,
    /// Time in which two or more subagents lived at once, and how many at most.
    pub subagents_parallel_ms: i64,
    pub subagents_max: u64,
}

/// One agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct AgentFact {
    /// Empty for the main agent.
    pub agent_id: String,
    pub agent_type: String,
    /// Its parent's place in the list; none for the main agent and where it was cut.
    pub parent: Option<u32>,
    /// Whether the parent is known from the call that started it; else the main agent is assumed.
    pub parent_known: bool,
    /// The row of the call that started it.
    pub parent_call: Option<i64>,
    pub depth: u64,
    pub children: u64,
    pub started_ms: i64,
    pub ended_ms: Option<i64>,
    pub last_ms: i64,
    pub calls: u64,
    pub failed: u64,
    pub work_ms: i64,
    pub waiting_ms: i64,
    pub requests: u64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    /// None where no request has a price.
    pub cost_nano_usd: Option<i64>,
    pub unpriced_requests: u64,
    /// Shares of the session's, 0 to 1; none where the session has none.
    pub call_share: Option<f64>,
    pub token_share: Option<f64>,
    pub cost_share: Option<f64>,
}

/// Work that changes hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Handoff {
    pub ts_ms: i64,
    /// Agent ids.
    pub from: String,
    pub to: String,
}

/// A stretch of time, in milliseconds; begins before it ends, or is empty.
type Span = (i64, i64);

/// Who worked with whom.
pub(crate) fn analyze(view: &View<'_>, limits: &Limits, book: &mut Book, cut: &mut Cut) -> Collaboration {
    let tree = Tree::new(view);
    let mut facts: Vec<AgentFact> = (0..view.agents.len()).map(|lane| fact(view, &tree, lane)).collect();
    let places: Vec<Place> =
        facts.iter().map(|fact| book.key(Kind::Agent, "", &fact.agent_type, "", "")).collect();
    for (lane, fact) in facts.iter_mut().enumerate() {
        calls_of(view, &tree, lane, fact, places[lane], book);
    }
    for request in &view.trace.requests {
        let lane = view.lane_of(request.agent);
        take_request(request, &mut facts[lane], places[lane], book);
    }
    let mut all = Collaboration::default();
    shares(&mut facts);
    for (lane, fact) in facts.iter().enumerate().filter(|(lane, _)| tree.is_told[*lane]) {
        let place = places[lane];
        book.add(place, fact.started_ms, agent::COUNT, 1);
        all.agents_total += 1;
        all.depth_max = all.depth_max.max(fact.depth);
        all.waiting_ms = all.waiting_ms.saturating_add(fact.waiting_ms);
        let Some(parent) = tree.parent[lane] else { continue };
        let handoffs = [Some((fact.started_ms, parent, lane)), fact.ended_ms.map(|end| (end, lane, parent))];
        for (ts_ms, from, to) in handoffs.into_iter().flatten() {
            book.add(place, ts_ms, agent::HANDOFFS, 1);
            all.handoffs += 1;
            let (from, to) = (view.agents[from].id.clone(), view.agents[to].id.clone());
            all.handoff_list.push(Handoff { ts_ms, from, to });
        }
        if let Some(end) = fact.ended_ms {
            book.cell(place, end).histogram.record(end - fact.started_ms);
        }
    }
    all.handoff_list.sort_by(|a, b| (a.ts_ms, &a.from, &a.to).cmp(&(b.ts_ms, &b.from, &b.to)));
    keep_top(&mut all.handoff_list, limits.facts, &mut cut.facts);
    parallel(&tree, &facts, &mut all, book);
    all.agents = listed(&tree, facts, limits, cut);
    all
}

struct Tree {
    /// None of the main agent.
    parent: Vec<Option<usize>>,
    known: Vec<bool>,
    depth: Vec<u64>,
    children: Vec<u64>,
    /// Whether the agent is one of the trace's, or has rows.
    is_told: Vec<bool>,
    /// The call that started each.
    started_by: Vec<Option<usize>>,
    /// Calls that started a subagent, with the latest life among those.
    starts: HashMap<usize, i64>,
}

impl Tree {
    fn new(view: &View<'_>) -> Self {
        let count = view.agents.len();
        let mut calls: HashMap<&str, usize> = HashMap::new();
        for &i in &view.order {
            if let Some(id) = view.call(i).tool_use_id.as_deref() {
                calls.entry(id).or_insert(i);
            }
        }
        let mut tree = Self {
            parent: vec![None; count],
            known: vec![false; count],
            depth: vec![0; count],
            children: vec![0; count],
            is_told: (0..count).map(|lane| is_told(view, lane)).collect(),
            started_by: vec![None; count],
            starts: HashMap::new(),
        };
        for lane in 1..count {
            let told = view.trace.agents.get(lane).and_then(|agent| agent.parent_tool_use_id.as_deref());
            let call = told
                .and_then(|id| calls.get(id))
                .copied()
                .filter(|&i| view.lane_of(view.call(i).agent) != lane);
            tree.parent[lane] = Some(call.map_or(0, |i| view.lane_of(view.call(i).agent)));
            tree.known[lane] = call.is_some();
            tree.started_by[lane] = call;
        }
        tree.break_loops();
        for lane in (1..count).filter(|lane| tree.is_told[*lane]) {
            if let Some(parent) = tree.parent[lane] {
                tree.children[parent] += 1;
            }
            if let Some(call) = tree.started_by[lane] {
                let (_, end, _) = life(view, lane);
                let latest = tree.starts.entry(call).or_insert(end);
                *latest = end.max(*latest);
            }
        }
        tree
    }

    /// Gives every agent its depth; one that is its own ancestor becomes a child of the main agent.
    fn break_loops(&mut self) {
        let mut done = vec![false; self.parent.len()];
        done[0] = true;
        for lane in 1..self.parent.len() {
            let mut path = Vec::new();
            let mut on_path = BTreeSet::new();
            let mut at = lane;
            while !done[at] {
                if !on_path.insert(at) {
                    self.parent[at] = Some(0);
                    self.known[at] = false;
                    self.started_by[at] = None;
                    break;
                }
                path.push(at);
                at = self.parent[at].unwrap_or(0);
            }
            // From the root's side on: a parent's depth is known before its children's.
            let from = path.iter().position(|node| *node == at && !done[at]);
            let (outer, inner) = path.split_at(from.unwrap_or(path.len()));
            let looped = inner.first().copied().into_iter().chain(inner.iter().skip(1).rev().copied());
            for node in looped.chain(outer.iter().rev().copied()) {
                self.depth[node] = self.depth[self.parent[node].unwrap_or(0)] + 1;
                done[node] = true;
            }
        }
    }
}

/// Every agent of the trace is; the main agent where there is anything; the unlisted where they have rows.
fn is_told(view: &View<'_>, lane: usize) -> bool {
    let trace = view.trace;
    if lane < trace.agents.len() {
        return true;
    }
    let counts = |agent: u32| lane == 0 || view.lane_of(agent) == lane;
    trace.calls.iter().any(|call| counts(call.agent))
        || trace.requests.iter().any(|request| counts(request.agent))
        || trace.marks.iter().any(|mark| counts(mark.agent))
}

/// (start, end or last sign of life, seen end) of an agent.
fn life(view: &View<'_>, lane: usize) -> (i64, i64, Option<i64>) {
    match view.trace.agents.get(lane) {
        Some(agent) => {
            let start = time(agent.started_ms);
            let ended = agent.ended_ms.map(|end| time(end).max(start));
            (start, ended.unwrap_or(time(agent.last_ms).max(start)), ended)
        }
        None => {
            let trace = view.trace;
            let own = |agent: u32| view.lane_of(agent) == lane;
            let calls = trace.calls.iter().map(|call| (own(call.agent), time(call.at_ms)));
            let requests = trace.requests.iter().map(|request| (own(request.agent), time(request.ts_ms)));
            let marks = trace.marks.iter().map(|mark| (own(mark.agent), time(mark.ts_ms)));
            // Its own first row, else the session's.
            let rows = calls.chain(requests).chain(marks);
            let start = rows.min_by_key(|(own, at_ms)| (!own, *at_ms)).map_or(0, |(_, at_ms)| at_ms);
            let last = view.lanes[lane].iter().map(|&i| view.end(i)).max().unwrap_or(start);
            (start, last.max(start), None)
        }
    }
}

fn fact(view: &View<'_>, tree: &Tree, lane: usize) -> AgentFact {
    let (started_ms, last_ms, ended_ms) = life(view, lane);
    AgentFact {
        agent_id: view.agents[lane].id.clone(),
        agent_type: view.agents[lane].kind.clone(),
        parent_known: tree.known[lane],
        parent_call: tree.started_by[lane].map(|i| view.call(i).id),
        depth: tree.depth[lane],
        children: tree.children[lane],
        started_ms,
        ended_ms,
        last_ms,
        ..AgentFact::default()
    }
}

fn calls_of(view: &View<'_>, tree: &Tree, lane: usize, fact: &mut AgentFact, place: Place, book: &mut Book) {
    let (mut waits, mut works) = (Vec::new(), Vec::new());
    for &i in &view.lanes[lane] {
        let failed = view.failed(i);
        let work = view.duration(i).unwrap_or(0);
        fact.calls += 1;
        fact.failed += u64::from(failed);
        fact.work_ms = fact.work_ms.saturating_add(work);
        let cell = book.cell(place, view.end(i));
        cell.add(agent::CALLS, 1);
        cell.add(agent::FAILED, i64::from(failed));
        cell.add(agent::WORK_MS, work);
        match tree.starts.get(&i) {
            // An open call waits as long as the agent that it started lives.
            Some(&life_end) => {
                let end = if view.call(i).ended_ms.is_some() { view.end(i) } else { life_end };
                waits.push((view.begin(i), end.max(view.begin(i))));
            }
            None => works.push((view.begin(i), view.end(i))),
        }
    }
    for (from, to) in without(&union(waits), &union(works)) {
        fact.waiting_ms = fact.waiting_ms.saturating_add(to - from);
        book.add(place, to, agent::WAITING_MS, to - from);
    }
}

fn take_request(request: &Request, fact: &mut AgentFact, place: Place, book: &mut Book) {
    let cell = book.cell(place, request.ts_ms);
    let written = figure(request.cache_write_5m).saturating_add(figure(request.cache_write_1h));
    let (input, output, read) = (figure(request.input), figure(request.output), figure(request.cache_read));
    fact.requests += 1;
    cell.add(agent::REQUESTS, 1);
    for (slot, sum, tokens) in [
        (agent::INPUT_TOKENS, &mut fact.input_tokens, input),
        (agent::OUTPUT_TOKENS, &mut fact.output_tokens, output),
        (agent::CACHE_READ_TOKENS, &mut fact.cache_read_tokens, read),
        (agent::CACHE_WRITE_TOKENS, &mut fact.cache_write_tokens, written),
    ] {
        *sum = sum.saturating_add(tokens);
        cell.add(slot, tokens);
    }
    match request.cost_nano_usd.map(figure) {
        Some(cost) => {
            fact.cost_nano_usd = Some(fact.cost_nano_usd.unwrap_or(0).saturating_add(cost));
            cell.add(agent::NANO_USD, cost);
        }
        None => {
            fact.unpriced_requests += 1;
            cell.add(agent::UNPRICED_REQUESTS, 1);
        }
    }
}

fn tokens_of(fact: &AgentFact) -> i64 {
    [fact.input_tokens, fact.output_tokens, fact.cache_read_tokens, fact.cache_write_tokens]
        .into_iter()
        .fold(0, i64::saturating_add)
}

fn shares(facts: &mut [AgentFact]) {
    let sum = |of: fn(&AgentFact) -> i64| facts.iter().map(of).fold(0i64, i64::saturating_add) as u64;
    let calls = sum(|fact| fact.calls as i64);
    let tokens = sum(tokens_of);
    let cost = sum(|fact| fact.cost_nano_usd.unwrap_or(0));
    for fact in facts {
        fact.call_share = share(fact.calls, calls);
        fact.token_share = share(tokens_of(fact) as u64, tokens);
        fact.cost_share = share(fact.cost_nano_usd.unwrap_or(0) as u64, cost);
    }
}

fn parallel(tree: &Tree, facts: &[AgentFact], all: &mut Collaboration, book: &mut Book) {
    let lives = |lane: usize| (facts[lane].started_ms, facts[lane].ended_ms.unwrap_or(facts[lane].last_ms));
    let mut lives: Vec<Span> = (1..facts.len()).filter(|lane| tree.is_told[*lane]).map(lives).collect();
    lives.sort_unstable();
    let place = book.key(Kind::Quality, "", "", "", "");
    for (from, to) in twice(&lives) {
        all.subagents_parallel_ms = all.subagents_parallel_ms.saturating_add(to - from);
        book.add(place, to, quality::SUBAGENTS_PARALLEL_MS, to - from);
    }
    let mut ends = std::collections::BinaryHeap::new();
    for (from, to) in lives {
        while ends.peek().is_some_and(|std::cmp::Reverse(end)| *end <= from) {
            ends.pop();
        }
        ends.push(std::cmp::Reverse(to));
        all.subagents_max = all.subagents_max.max(ends.len() as u64);
    }
}

/// The agents told, the main agent first, then by start; parents become places in the list.
fn listed(tree: &Tree, mut facts: Vec<AgentFact>, limits: &Limits, cut: &mut Cut) -> Vec<AgentFact> {
    let mut order: Vec<usize> = (0..facts.len()).filter(|lane| tree.is_told[*lane]).collect();
    order.sort_by_key(|&lane| (lane > 0, facts[lane].started_ms, lane));
    keep_top(&mut order, limits.agents.max(1), &mut cut.facts);
    let mut places = vec![None; facts.len()];
    for (place, &lane) in order.iter().enumerate() {
        places[lane] = Some(place as u32);
    }
    let take = |&lane: &usize| AgentFact {
        parent: tree.parent[lane].and_then(|parent| places[parent]),
        ..std::mem::take(&mut facts[lane])
    };
    order.iter().map(take).collect()
}

/// The spans without overlaps, in order.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|(from, to)| from < to);
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// What of the first is not in the second; both as [`union`] gives them.
fn without(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    let mut holes = holes.iter().copied().peekable();
    for &(mut from, to) in spans {
        while let Some(&(hole_from, hole_to)) = holes.peek() {
            if hole_to <= from {
                holes.next();
                continue;
            }
            if hole_from >= to {
                break;
            }
            if from < hole_from {
                left.push((from, hole_from));
            }
            from = hole_to;
            if from >= to {
                break;
            }
        }
        if from < to {
            left.push((from, to));
        }
    }
    left
}

/// Where at least two of the spans, sorted by their begin, overlap.
fn twice(spans: &[Span]) -> Vec<Span> {
    let mut overlaps = Vec::new();
    let mut reach = i64::MIN;
    for &(from, to) in spans {
        if from < reach {
            overlaps.push((from, to.min(reach)));
        }
        reach = reach.max(to);
    }
    union(overlaps)
}
