//! A trace made ready for the analyses: rows by agent and in order, times and figures within bounds, what each call cost.

use std::collections::{BTreeSet, HashMap};

use super::contribution::{FIGURE_MAX, HOUR_MS};
use super::shell;
use super::{KEY_MAX_BYTES, LABEL_MAX_BYTES, TOOL_MAX_BYTES};
use crate::trace::{Agent, Call, FileAction, MarkKind, Outcome, Request, Trace};

/// The years 1 to 9999, in milliseconds.
const TIME_RANGE_MS: (i64, i64) = (-62_135_596_800_000, 253_402_300_799_999);

/// What the client asks for beside the conversation: it says nothing about an agent's context.
const BESIDE: [&str; 2] = ["auxiliary", "compact"];

/// Calls that one response asked for start within this of each other's end: no model answers faster.
const BATCH_GAP_MS: i64 = 1_000;

pub(crate) struct View<'t> {
    pub(crate) trace: &'t Trace,
    pub(crate) agents: Vec<AgentName>,
    /// Calls by (begin, id), as places in the trace.
    pub(crate) order: Vec<usize>,
    /// The same for each agent.
    pub(crate) lanes: Vec<Vec<usize>>,
    /// The requests of each agent's conversation by (time, id), as places in the trace.
    pub(crate) requests: Vec<Vec<usize>>,
    /// The marks of each agent by time.
    pub(crate) marks: Vec<Vec<usize>>,
    /// Each call's tool, as a place in `tools`.
    pub(crate) tool: Vec<u32>,
    /// The distinct tools' names, cut.
    pub(crate) tools: Vec<String>,
    /// The request that asked for each call.
    pub(crate) asked_by: Vec<Option<usize>>,
    /// Each call's even share of that request's output tokens and money.
    pub(crate) share: Vec<Share>,
    /// What each call works on, where its kind of tool has such a thing.
    pub(crate) target: Vec<Option<Box<str>>>,
    /// Calls of one batch or whose spans overlap.
    pub(crate) parallel: Vec<bool>,
    /// How many calls before this one in `order` changed files, and how many up to it.
    pub(crate) changes: Vec<(u32, u32)>,
}

pub(crate) struct AgentName {
    pub(crate) id: String,
    pub(crate) kind: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) output: i64,
    pub(crate) nano_usd: Option<i64>,
}

impl<'t> View<'t> {
    pub(crate) fn new(trace: &'t Trace) -> Self {
        let agents = agent_names(&trace.agents);
        let lanes_count = agents.len();
        let lane = |agent: u32| (agent as usize).min(lanes_count - 1);
        let mut order: Vec<usize> = (0..trace.calls.len()).collect();
        order.sort_by_key(|&i| (time(trace.calls[i].at_ms), trace.calls[i].id, i));
        let lanes = by_lane(lanes_count, order.iter().map(|&i| (lane(trace.calls[i].agent), i)));
        let mut requests: Vec<usize> =
            (0..trace.requests.len()).filter(|&i| is_conversation(&trace.requests[i])).collect();
        requests.sort_by_key(|&i| (time(trace.requests[i].ts_ms), trace.requests[i].id, i));
        let mut marks: Vec<usize> = (0..trace.marks.len()).collect();
        marks.sort_by_key(|&i| (time(trace.marks[i].ts_ms), i));
        let (tool, tools) = intern_tools(&trace.calls);
        let mut view = Self {
            trace,
            requests: by_lane(lanes_count, requests.iter().map(|&i| (lane(trace.requests[i].agent), i))),
            marks: by_lane(lanes_count, marks.iter().map(|&i| (lane(trace.marks[i].agent), i))),
            agents,
            order,
            lanes,
            tool,
            tools,
            asked_by: vec![None; trace.calls.len()],
            share: vec![Share::default(); trace.calls.len()],
            target: trace.calls.iter().map(shell::target).collect(),
            parallel: vec![false; trace.calls.len()],
            changes: vec![(0, 0); trace.calls.len()],
        };
        view.find_askers();
        view.find_parallel();
        view.count_changes();
        view
    }

    pub(crate) fn lane_of(&self, agent: u32) -> usize {
        (agent as usize).min(self.agents.len() - 1)
    }

    pub(crate) fn call(&self, i: usize) -> &'t Call {
        &self.trace.calls[i]
    }

    pub(crate) fn begin(&self, i: usize) -> i64 {
        time(self.trace.calls[i].at_ms)
    }

    /// Where the call ended; its begin where no end is known.
    pub(crate) fn end(&self, i: usize) -> i64 {
        let begin = self.begin(i);
        self.trace.calls[i].ended_ms.map_or(begin, |end| time(end).max(begin))
    }

    pub(crate) fn duration(&self, i: usize) -> Option<i64> {
        self.trace.calls[i].duration_ms.map(figure)
    }

    pub(crate) fn tool_name(&self, i: usize) -> &str {
        &self.tools[self.tool[i] as usize]
    }

    pub(crate) fn failed(&self, i: usize) -> bool {
        self.trace.calls[i].outcome == Outcome::Failed
    }

    /// The first place in the lane behind `at` where a call begins at or after that time.
    pub(crate) fn next_in_lane(&self, lane: usize, at: usize, from_ms: i64) -> usize {
        let calls = &self.lanes[lane];
        calls.partition_point(|&i| self.begin(i) < from_ms).max(at + 1)
    }

    fn find_askers(&mut self) {
        for lane in 0..self.lanes.len() {
            let requests = &self.requests[lane];
            let mut next = 0;
            let mut asked: Vec<Vec<usize>> = vec![Vec::new(); requests.len()];
            for &i in &self.lanes[lane] {
                let begin = time(self.trace.calls[i].at_ms);
                while next < requests.len() && time(self.trace.requests[requests[next]].ts_ms) <= begin {
                    next += 1;
                }
                if next > 0 {
                    self.asked_by[i] = Some(requests[next - 1]);
                    asked[next - 1].push(i);
                }
            }
            for (place, calls) in asked.iter().enumerate().filter(|(_, calls)| !calls.is_empty()) {
                let request = &self.trace.requests[requests[place]];
                let count = calls.len() as i64;
                for (n, &i) in calls.iter().enumerate() {
                    self.share[i] = Share {
                        output: part(figure(request.output), count, n as i64),
                        nano_usd: request.cost_nano_usd.map(|cost| part(figure(cost), count, n as i64)),
                    };
                }
            }
        }
    }

    fn find_parallel(&mut self) {
        let mut parallel = vec![false; self.parallel.len()];
        for lane in &self.lanes {
            let mut latest_end = i64::MIN;
            let mut before: Option<usize> = None;
            for &i in lane {
                if let Some(before) = before {
                    let pair = self.are_parallel(before, i);
                    parallel[before] |= pair;
                    parallel[i] |= pair || self.begin(i) < latest_end;
                }
                before = Some(i);
                latest_end = latest_end.max(self.end(i));
            }
        }
        self.parallel = parallel;
    }

    /// Whether two calls of one agent, in their order, come of one response or overlap.
    pub(crate) fn are_parallel(&self, earlier: usize, later: usize) -> bool {
        let (begin, end) = (self.begin(later), self.end(earlier));
        let batch = self.asked_by[later].is_some() && self.asked_by[later] == self.asked_by[earlier];
        begin < end || (batch && begin - end <= BATCH_GAP_MS)
    }

    fn count_changes(&mut self) {
        let mut count = 0u32;
        for &i in &self.order {
            let before = count;
            count +=
                u32::from(self.trace.calls[i].files.iter().any(|touch| touch.action != FileAction::Read));
            self.changes[i] = (before, count);
        }
    }

    /// Whether a call between these two changed a file.
    pub(crate) fn changed_between(&self, earlier: usize, later: usize) -> bool {
        self.changes[earlier].1 < self.changes[later].0
    }
}

fn agent_names(agents: &[Agent]) -> Vec<AgentName> {
    let mut names: Vec<AgentName> = agents
        .iter()
        .map(|agent| AgentName {
            id: bounded(&agent.agent_id, KEY_MAX_BYTES),
            kind: bounded(&agent.agent_type, TOOL_MAX_BYTES),
        })
        .collect();
    if names.is_empty() {
        names.push(AgentName { id: String::new(), kind: "main".to_owned() });
    }
    // Rows of an agent that the trace does not list.
    names.push(AgentName { id: "unknown".to_owned(), kind: "unknown".to_owned() });
    names
}

fn by_lane(lanes: usize, rows: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); lanes];
    for (lane, row) in rows {
        all[lane].push(row);
    }
    all
}

/// The tools' names, cut and sorted, and each call's place among them: the order of places is that of names.
fn intern_tools(calls: &[Call]) -> (Vec<u32>, Vec<String>) {
    let mut names: HashMap<&str, String> = HashMap::new();
    for call in calls {
        names.entry(&call.tool).or_insert_with(|| bounded(&call.tool, TOOL_MAX_BYTES));
    }
    let tools: Vec<String> = names.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let place = |name: &String| tools.partition_point(|tool| tool < name) as u32;
    let places: HashMap<&str, u32> = names.iter().map(|(tool, name)| (*tool, place(name))).collect();
    (calls.iter().map(|call| places[&*call.tool]).collect(), tools)
}

fn is_conversation(request: &Request) -> bool {
    !BESIDE.contains(&request.query_source.as_str())
}

/// The n-th of `count` even parts, which add up to the whole.
pub(crate) fn part(whole: i64, count: i64, n: i64) -> i64 {
    whole / count + i64::from(n < whole % count)
}

pub(crate) fn time(ms: i64) -> i64 {
    ms.clamp(TIME_RANGE_MS.0, TIME_RANGE_MS.1)
}

pub(crate) fn hour_of(ms: i64) -> i64 {
    let ms = time(ms);
    ms - ms.rem_euclid(HOUR_MS)
}

pub(crate) fn figure(value: i64) -> i64 {
    value.clamp(0, FIGURE_MAX)
}

pub(crate) fn ends_turn(kind: &MarkKind) -> bool {
    matches!(
        kind,
        MarkKind::Stop | MarkKind::StopFailure { .. } | MarkKind::SubagentStop | MarkKind::SessionEnd
    )
}

/// The text, where it is longer than `max` bytes its head, `~` and the hash of the whole.
pub(crate) fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let head = floor_char(text, max.saturating_sub(17));
    format!("{}~{:016x}", &text[..head], fnv(text.as_bytes()))
}

/// The text cut for a person.
pub(crate) fn label(text: &str) -> String {
    text[..floor_char(text, LABEL_MAX_BYTES)].to_owned()
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// FNV-1a, 64 bits: names what was cut, judges nothing.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `part / whole`; none of nothing.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Cuts a list that is already sorted, and counts what was cut.
pub(crate) fn keep_top<T>(items: &mut Vec<T>, max: usize, cut: &mut u64) {
    *cut += items.len().saturating_sub(max) as u64;
    items.truncate(max);
}
