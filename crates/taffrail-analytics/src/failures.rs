//! Failed calls: groups, retries, what resolved them, what followed.
//!
//! A failure is a call that failed; denied and interrupted calls are none. *After* it means: the same agent, begun at
//! or after its end. It was *retried* when the same tool and input was called after it. It is *resolved* by the first
//! call after it that succeeded with the same tool and input, or else with the same tool on the same target: the path
//! of a file tool, program and first argument of a shell command (other tools have no target). What *followed* is the
//! first thing after it: a call, or the end of the turn, or the person's word.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::digest::book::Book;
use crate::digest::view::{View, bounded, ends_turn, figure, keep_top, label, time};
use crate::digest::{
    Cut, Histogram, KEY_MAX_BYTES, Kind, Limits, Resolution, api_failure, error, error_next,
};
use crate::trace::{Call, MarkKind, Outcome};

/// The failures of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Failures {
    pub failed: u64,
    pub resolved: u64,
    /// Median time from a failure to the end of the call that resolved it, in milliseconds.
    pub resolution_median_ms: Option<i64>,
    /// By fingerprint, the most frequent first.
    pub groups: Vec<FailureGroup>,
}

/// Failures of one fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct FailureGroup {
    pub fingerprint: String,
    pub class: String,
    pub tool: String,
    pub message: String,
    pub count: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Rows of the first calls, at most [`EXEMPLARS_MAX`].
    pub exemplars: Vec<i64>,
    /// Failures after which the same tool and input was called again.
    pub retried: u64,
    pub resolved: u64,
    pub resolved_same_input: u64,
    pub resolution_median_ms: Option<i64>,
    /// What followed, the most frequent first.
    pub next: Vec<NextFact>,
}

/// Rows told of a group.
pub const EXEMPLARS_MAX: usize = 5;

/// What followed a failure, how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NextFact {
    pub what: Next,
    /// The next tool, where a call followed.
    pub tool: Option<String>,
    pub count: u64,
}

/// What followed a failed call: the first thing of the same agent after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// The same tool and input again.
    Retry,
    /// The same tool on the same target with another input.
    Adjusted,
    /// Another tool, or another target.
    OtherTool,
    /// A question to the person.
    AskedUser,
    /// The person spoke first.
    UserPrompt,
    /// The agent's turn ended.
    GaveUp,
    /// Nothing is known to have followed.
    #[default]
    Nothing,
}

impl Next {
    /// The name in JSON and in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Adjusted => "adjusted",
            Self::OtherTool => "other_tool",
            Self::AskedUser => "asked_user",
            Self::UserPrompt => "user_prompt",
            Self::GaveUp => "gave_up",
            Self::Nothing => "nothing",
        }
    }
}

/// Tools that ask the person.
const ASKING_TOOLS: [&str; 2] = ["AskUserQuestion", "ask_user"];

/// The fingerprint of a failure that has none.
const UNKNOWN: &str = "unknown";

#[derive(Default)]
struct Group {
    fact: FailureGroup,
    resolution: Histogram,
    next: HashMap<(Next, Option<u32>), u64>,
}

/// Groups the failures of a trace, and says what became of each.
pub(crate) fn analyze(
    view: &View<'_>,
    limits: &Limits,
    book: &mut Book,
    cut: &mut Cut,
) -> (Failures, Vec<Resolution>) {
    let mut groups: HashMap<(String, u32), Group> = HashMap::new();
    let mut resolutions = Vec::new();
    let mut all = Histogram::default();
    let mut failures = Failures::default();
    for lane in 0..view.lanes.len() {
        let index = LaneIndex::new(view, lane);
        for (at, &i) in view.lanes[lane].iter().enumerate().filter(|(_, i)| view.failed(**i)) {
            let told = Told::of(view, &index, lane, at);
            failures.failed += 1;
            failures.resolved += u64::from(told.by.is_some());
            told.resolution_ms.iter().for_each(|ms| all.record(*ms));
            count(view, i, &told, book);
            resolutions.push(Resolution {
                call: view.call(i).id,
                by: told.by.map(|by| view.call(by).id),
                resolution_ms: told.resolution_ms,
            });
            groups
                .entry((fingerprint(view.call(i)).to_owned(), view.tool[i]))
                .or_default()
                .push(view, i, &told);
        }
    }
    api_failures(view, book);
    failures.resolution_median_ms = all.median();
    failures.groups = groups.into_values().map(|group| group.finish(view)).collect();
    failures.groups.sort_by(|a, b| {
        b.count.cmp(&a.count).then_with(|| (&a.fingerprint, &a.tool).cmp(&(&b.fingerprint, &b.tool)))
    });
    keep_top(&mut failures.groups, limits.facts, &mut cut.facts);
    resolutions.sort_by_key(|resolution| (resolution.call, resolution.by));
    (failures, resolutions)
}

/// The calls of one agent by what makes them the same; places in the lane, in order.
struct LaneIndex {
    by_input: HashMap<(u32, i64), Vec<usize>>,
    succeeded_by_input: HashMap<(u32, i64), Vec<usize>>,
    succeeded_by_target: HashMap<(u32, Box<str>), Vec<usize>>,
}

impl LaneIndex {
    fn new(view: &View<'_>, lane: usize) -> Self {
        let mut index = Self {
            by_input: HashMap::new(),
            succeeded_by_input: HashMap::new(),
            succeeded_by_target: HashMap::new(),
        };
        for (at, &i) in view.lanes[lane].iter().enumerate() {
            let (tool, call) = (view.tool[i], view.call(i));
            let succeeded = call.outcome == Outcome::Succeeded;
            if call.input_hash != 0 {
                index.by_input.entry((tool, call.input_hash)).or_default().push(at);
                if succeeded {
                    index.succeeded_by_input.entry((tool, call.input_hash)).or_default().push(at);
                }
            }
            if let Some(target) = view.target[i].as_ref().filter(|_| succeeded) {
                index.succeeded_by_target.entry((tool, target.clone())).or_default().push(at);
            }
        }
        index
    }
}

/// The first of these places at or behind `from`.
fn first_from(places: Option<&Vec<usize>>, from: usize) -> Option<usize> {
    let places = places?;
    places.get(places.partition_point(|at| *at < from)).copied()
}

/// What is told of one failure.
struct Told {
    on_retry: bool,
    retried: bool,
    /// The call that resolved it.
    by: Option<usize>,
    same_input: bool,
    resolution_ms: Option<i64>,
    next: Next,
    /// The next call, where one followed.
    next_call: Option<usize>,
}

impl Told {
    fn of(view: &View<'_>, index: &LaneIndex, lane: usize, at: usize) -> Self {
        let calls = &view.lanes[lane];
        let i = calls[at];
        let call = view.call(i);
        let end = view.end(i);
        let from = view.next_in_lane(lane, at, end);
        let same = (view.tool[i], call.input_hash);
        let equal = index.by_input.get(&same);
        let before = equal.and_then(|places| places[..places.partition_point(|place| *place < at)].last());
        let by_input = first_from(index.succeeded_by_input.get(&same), from);
        let by_target = view.target[i].as_ref().and_then(|target| {
            first_from(index.succeeded_by_target.get(&(view.tool[i], target.clone())), from)
        });
        let by = by_input.into_iter().chain(by_target).min().map(|at| calls[at]);
        let (next, next_call) = next(view, lane, i, calls.get(from).copied());
        Self {
            on_retry: before.is_some_and(|before| view.failed(calls[*before])),
            retried: first_from(equal, from).is_some(),
            by,
            same_input: by_input.is_some() && by_input.map(|at| calls[at]) == by,
            resolution_ms: by.map(|by| (view.end(by) - end).max(0)),
            next,
            next_call,
        }
    }
}

/// The first thing after a failure: `after` is the first call, if there is one.
fn next(view: &View<'_>, lane: usize, i: usize, after: Option<usize>) -> (Next, Option<usize>) {
    let end = view.end(i);
    let marks = &view.marks[lane];
    let from = marks.partition_point(|&mark| time(view.trace.marks[mark].ts_ms) < end);
    let until = after.map_or(i64::MAX, |call| view.begin(call));
    let said = marks[from..]
        .iter()
        .map(|&mark| &view.trace.marks[mark])
        .take_while(|mark| time(mark.ts_ms) < until)
        .find_map(|mark| match &mark.kind {
            MarkKind::Prompt { human: true } => Some(Next::UserPrompt),
            kind if ends_turn(kind) => Some(Next::GaveUp),
            _ => None,
        });
    match (said, after) {
        (Some(said), _) => (said, None),
        (None, None) => (Next::Nothing, None),
        (None, Some(call)) => (of_call(view, i, call), Some(call)),
    }
}

fn of_call(view: &View<'_>, failed: usize, next: usize) -> Next {
    if ASKING_TOOLS.contains(&view.tool_name(next)) {
        return Next::AskedUser;
    }
    if view.tool[failed] != view.tool[next] {
        return Next::OtherTool;
    }
    let (a, b) = (view.call(failed), view.call(next));
    if a.input_hash != 0 && a.input_hash == b.input_hash {
        return Next::Retry;
    }
    let same_target = view.target[failed].is_some() && view.target[failed] == view.target[next];
    if same_target { Next::Adjusted } else { Next::OtherTool }
}

fn fingerprint(call: &Call) -> &str {
    call.error
        .as_ref()
        .map_or(UNKNOWN, |error| if error.fingerprint.is_empty() { UNKNOWN } else { &error.fingerprint })
}

fn count(view: &View<'_>, i: usize, told: &Told, book: &mut Book) {
    let call = view.call(i);
    let (class, message) =
        call.error.as_ref().map_or((UNKNOWN, ""), |error| (&*error.class, error.message.as_str()));
    let place = book.key(Kind::Error, view.tool_name(i), fingerprint(call), class, message);
    let cell = book.cell(place, view.end(i));
    cell.add(error::COUNT, 1);
    cell.add(error::ON_RETRY, i64::from(told.on_retry));
    cell.add(error::RETRIED, i64::from(told.retried));
    cell.add(error::RESOLVED, i64::from(told.by.is_some()));
    cell.add(error::RESOLVED_SAME_INPUT, i64::from(told.same_input));
    told.resolution_ms.iter().for_each(|ms| cell.histogram.record(*ms));
    let next_tool = told.next_call.map_or("", |next| view.tool_name(next));
    let place = book.key(Kind::ErrorNext, next_tool, fingerprint(call), told.next.name(), "");
    book.add(place, view.end(i), error_next::COUNT, 1);
}

fn api_failures(view: &View<'_>, book: &mut Book) {
    for mark in &view.trace.marks {
        let (name, model, wait, exhausted) = match &mark.kind {
            MarkKind::ApiFailure { model, status_code, retry_in_ms, exhausted } => {
                let name = status_code.map_or_else(|| UNKNOWN.to_owned(), |code| code.to_string());
                (name, model.as_deref().unwrap_or(""), retry_in_ms.unwrap_or(0), *exhausted)
            }
            MarkKind::StopFailure { class } => (class.to_string(), "", 0, true),
            _ => continue,
        };
        let place = book.key(Kind::ApiFailure, "", &name, model, "");
        let cell = book.cell(place, mark.ts_ms);
        cell.add(api_failure::COUNT, 1);
        cell.add(api_failure::EXHAUSTED, i64::from(exhausted));
        cell.add(api_failure::RETRY_WAIT_MS, figure(wait));
    }
}

impl Group {
    fn push(&mut self, view: &View<'_>, i: usize, told: &Told) {
        let call = view.call(i);
        let at = view.end(i);
        let fact = &mut self.fact;
        if fact.count == 0 {
            let (class, message) =
                call.error.as_ref().map_or((UNKNOWN, ""), |error| (&*error.class, error.message.as_str()));
            fact.fingerprint = bounded(fingerprint(call), KEY_MAX_BYTES);
            fact.class = bounded(class, KEY_MAX_BYTES);
            fact.tool = view.tool_name(i).to_owned();
            fact.message = label(message);
            (fact.first_ms, fact.last_ms) = (at, at);
        }
        fact.count += 1;
        fact.first_ms = fact.first_ms.min(at);
        fact.last_ms = fact.last_ms.max(at);
        fact.exemplars.push(call.id);
        fact.exemplars.sort_unstable();
        fact.exemplars.truncate(EXEMPLARS_MAX);
        fact.retried += u64::from(told.retried);
        fact.resolved += u64::from(told.by.is_some());
        fact.resolved_same_input += u64::from(told.same_input);
        told.resolution_ms.iter().for_each(|ms| self.resolution.record(*ms));
        *self.next.entry((told.next, told.next_call.map(|next| view.tool[next]))).or_default() += 1;
    }

    fn finish(self, view: &View<'_>) -> FailureGroup {
        let tool = |tool: Option<u32>| tool.map(|tool| view.tools[tool as usize].clone());
        let mut next: Vec<NextFact> = self
            .next
            .into_iter()
            .map(|((what, by), count)| NextFact { what, tool: tool(by), count })
            .collect();
        next.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.what, &a.tool).cmp(&(b.what, &b.tool))));
        next.truncate(NEXT_MAX);
        FailureGroup { resolution_median_ms: self.resolution.median(), next, ..self.fact }
    }
}

/// Things told that followed a group's failures.
const NEXT_MAX: usize = 10;
