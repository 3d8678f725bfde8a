//! The context of each agent: size over time, compactions, what filled it, and when the next compaction comes.

//!
//! The size of a context is what the API says a request of the conversation read. From one request to the next it grows by the
//! model's own answer and by what came between; that growth, `next.context - (previous.context + previous.output)`, is attributed in
//! tokens to the tool results that ended between in proportion to their bytes. A prompt between (its size is not known) gets what is over
//! when the results had [`BYTES_PER_TOKEN`]; without one the results get all, but no more than a token a byte, and the rest
//! is `other`. So the parts add up to what was measured: for each stretch without a compaction,
//! last size = first size (`initial`, `after_compaction`) + `model_output` + `tool_result` + `prompt` + `other` - shrunk.
//! Provisional output counts make `model_output` too small and the rest too large; output that does not stay (thinking) shows in `shrunk`.
//!
//! An agent without requests has sizes estimated from the bytes of its tool results alone, and marked so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::book::Book;
use crate::digest::view::{View, figure, keep_top, time};
use crate::digest::{Cut, Kind, Limits, compaction, fill, quality};
use crate::trace::{MarkKind, Request};

/// Bytes of a tool result for a token, where nothing is measured: a common rule of thumb for English and code.
pub const BYTES_PER_TOKEN: i64 = 4;

/// Where the client compacts by itself, as a share of the window, while no compaction was observed: the automatic compactions of
/// the open transcripts lie at 0.78 to 0.84 of 200,000 tokens.
pub const COMPACTION_SHARE: f64 = 0.80;

/// Requests that the prediction goes by at most, and at least.
pub const GROWTH_REQUESTS: (usize, usize) = (20, 3);

/// Longer pauses count as this, in milliseconds.
pub const PAUSE_MS: i64 = 5 * 60_000;

/// Contexts of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ContextFacts {
    /// Agents with a context, the main agent first, then by peak.
    pub agents: Vec<AgentContext>,
    pub compactions: u64,
    /// Over all agents.
    pub fill: Vec<FillFact>,
}

/// One agent's context; sizes in tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentContext {
    /// Empty for the main agent.
    pub agent_id: String,
    /// Its type.
    pub agent_type: String,
    /// The model of its last request; empty where there is none.
    pub model: String,
    /// The model's window, where it is known.
    pub window: Option<i64>,
    /// Whether sizes are estimated from bytes (no request is known), else measured by the API.
    pub estimated: bool,
    /// The last and the largest size.
    pub size: i64,
    /// See `size`.
    pub peak: i64,
    /// `size / window`.
    pub utilization: Option<f64>,
    /// By time.
    pub curve: Vec<ContextPoint>,
    /// By time.
    pub compactions: Vec<CompactionFact>,
    /// What filled it, the most first; see `fill_of` for how they add up.
    pub fill: Vec<FillFact>,
    /// Tokens that left it other than by a compaction.
    pub shrunk: i64,
    /// None where it does not grow, or the point of compaction is not known.
    pub next_compaction: Option<NextCompaction>,
}

/// A size at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct ContextPoint {
    pub ts_ms: i64,
    pub tokens: i64,
}

/// A compaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CompactionFact {
    pub ts_ms: i64,
    pub trigger: Option<String>,
    pub pre_tokens: Option<i64>,
    pub post_tokens: Option<i64>,
}

/// Tokens of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillFact {
    /// `initial`, `model_output`, `tool_result`, `prompt`, `after_compaction`, `other`.
    pub source: String,
    /// Of a tool result.
    pub tool: Option<String>,
    /// Tokens.
    pub tokens: i64,
    /// Bytes of the tool results.
    pub bytes: i64,
    /// Results, prompts or requests.
    pub count: u64,
    /// Estimated from bytes.
    pub estimated: bool,
}

/// When the context will be compacted if it goes on growing as it lately did. Ranges are from the 75th to the 25th percentile of growth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NextCompaction {
    /// At this size, in tokens.
    pub at_tokens: i64,
    /// `observed` in this session, `history` of the model, `assumed` share of the window.
    pub basis: String,
    /// Tokens left; 0 where it is over.
    pub tokens_left: i64,
    /// Growth from request to request, in tokens.
    pub growth_per_request: f64,
    /// Requests left at the mean growth, and the range; an open end is none.
    pub requests: f64,
    /// See `requests`.
    pub requests_range: [Option<f64>; 2],
    /// Minutes left of work (pauses over five minutes left out), where the times tell.
    pub minutes: Option<f64>,
    /// See `minutes`.
    pub minutes_range: [Option<f64>; 2],
    /// How many requests it goes by.
    pub samples: u64,
}

/// Follows each agent's context. Gives also what each call's result put into it, in tokens, by its place in the trace; estimated
/// where no request came after it.
pub(crate) fn analyze(
    view: &View<'_>,
    limits: &Limits,
    book: &mut Book,
    cut: &mut Cut,
) -> (ContextFacts, Vec<i64>) {
    let mut tokens: Vec<i64> = view.trace.calls.iter().map(|call| estimate(call.output_bytes)).collect();
    let mut facts = ContextFacts::default();
    let mut all = Fills::default();
    for lane in 0..view.lanes.len() {
        let mut walk = Walk { view, lane, fills: Fills::default(), tokens: &mut tokens, shrunk: 0 };
        let events = walk.events();
        let (curve, compactions) =
            if view.requests[lane].is_empty() { walk.estimated(&events) } else { walk.measured(&events) };
        let Walk { fills, shrunk, .. } = walk;
        facts.compactions += compactions.len() as u64;
        count_compactions(&compactions, book);
        fills.count(view, book);
        if !curve.is_empty() {
            facts.agents.push(agent(view, lane, limits, &curve, compactions, &fills, shrunk, cut));
        }
        all.add(&fills);
    }
    facts.fill = all.facts(view);
    let order = |agent: &AgentContext| (!agent.agent_id.is_empty(), std::cmp::Reverse(agent.peak));
    facts.agents.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.agent_id.cmp(&b.agent_id)));
    keep_top(&mut facts.agents, limits.agents, &mut cut.facts);
    (facts, tokens)
}

fn estimate(bytes: Option<i64>) -> i64 {
    tokens_of_bytes(figure(bytes.unwrap_or(0)))
}

fn tokens_of_bytes(bytes: i64) -> i64 {
    bytes / BYTES_PER_TOKEN + i64::from(bytes % BYTES_PER_TOKEN > 0)
}

/// Where tokens came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Initial,
    ModelOutput,
    ToolResult(u32),
    Prompt,
    AfterCompaction,
    Other,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::ModelOutput => "model_output",
            Self::ToolResult(_) => "tool_result",
            Self::Prompt => "prompt",
            Self::AfterCompaction => "after_compaction",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Fill {
    tokens: i64,
    bytes: i64,
    count: i64,
}

/// By (source, whether estimated, hour).
#[derive(Default)]
struct Fills(BTreeMap<(Source, bool, i64), Fill>);

impl Fills {
    fn put(&mut self, source: Source, estimated: bool, at_ms: i64, fill: Fill) {
        let sum = self.0.entry((source, estimated, crate::digest::view::hour_of(at_ms))).or_default();
        sum.tokens = sum.tokens.saturating_add(fill.tokens);
        sum.bytes = sum.bytes.saturating_add(fill.bytes);
        sum.count += fill.count;
    }

    fn add(&mut self, other: &Self) {
        for (&(source, estimated, hour), &fill) in &other.0 {
            self.put(source, estimated, hour, fill);
        }
    }

    fn count(&self, view: &View<'_>, book: &mut Book) {
        for (&(source, estimated, hour), sum) in &self.0 {
            let detail = if estimated { "estimated" } else { "measured" };
            let tool = tool_of(view, source).unwrap_or_default();
            let place = book.key(Kind::Fill, tool, source.name(), detail, "");
            book.add(place, hour, fill::COUNT, sum.count);
            book.add(place, hour, fill::TOKENS, sum.tokens);
            book.add(place, hour, fill::BYTES, sum.bytes);
        }
    }

    fn facts(&self, view: &View<'_>) -> Vec<FillFact> {
        let mut sums: BTreeMap<(Source, bool), Fill> = BTreeMap::new();
        for (&(source, estimated, _), fill) in &self.0 {
            let sum = sums.entry((source, estimated)).or_default();
            sum.tokens = sum.tokens.saturating_add(fill.tokens);
            sum.bytes = sum.bytes.saturating_add(fill.bytes);
            sum.count += fill.count;
        }
        let mut facts: Vec<FillFact> = sums
            .into_iter()
            .map(|((source, estimated), sum)| FillFact {
                source: source.name().to_owned(),
                tool: tool_of(view, source).map(str::to_owned),
                tokens: sum.tokens,
                bytes: sum.bytes,
                count: sum.count as u64,
                estimated,
            })
            .collect();
        facts.sort_by(|a, b| {
            b.tokens.cmp(&a.tokens).then_with(|| (&a.source, &a.tool).cmp(&(&b.source, &b.tool)))
        });
        facts.truncate(FILLS_MAX);
        facts
    }
}

/// Sources told of one context.
const FILLS_MAX: usize = 40;

fn tool_of<'v>(view: &'v View<'_>, source: Source) -> Option<&'v str> {
    match source {
        Source::ToolResult(tool) => Some(&view.tools[tool as usize]),
        _ => None,
    }
}

/// What changes a context, in the order of time; at one time results first, then prompts and compactions, then requests.
/// Each by its place in the lists of the agent, so that those of one time keep their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Result(usize),
    Prompt,
    Compaction(usize),
    Request(usize),
}

struct Walk<'v, 't, 'o> {
    view: &'v View<'t>,
    lane: usize,
    fills: Fills,
    tokens: &'o mut [i64],
    shrunk: i64,
}

/// What came since the last request.
#[derive(Default)]
struct Between {
    results: Vec<usize>,
    prompts: i64,
    /// Places in the list of compactions.
    compactions: Vec<usize>,
}

type Curve = Vec<ContextPoint>;

impl Walk<'_, '_, '_> {
    fn events(&self) -> Vec<(i64, Event)> {
        let view = self.view;
        let calls =
            view.lanes[self.lane].iter().enumerate().filter(|(_, i)| view.call(**i).outcome.has_ended());
        let results = calls.map(|(at, &i)| (view.end(i), Event::Result(at)));
        let requests = view.requests[self.lane].iter().enumerate();
        let requests = requests.map(|(at, &r)| (time(view.trace.requests[r].ts_ms), Event::Request(at)));
        let marks = view.marks[self.lane].iter().enumerate().filter_map(|(at, &m)| {
            let mark = &view.trace.marks[m];
            let event = match mark.kind {
                MarkKind::Prompt { .. } => Event::Prompt,
                MarkKind::Compaction { .. } => Event::Compaction(at),
                _ => return None,
            };
            Some((time(mark.ts_ms), event))
        });
        let mut events: Vec<_> = results.chain(requests).chain(marks).collect();
        events.sort_unstable();
        events
    }

    fn result(&self, at: usize) -> usize {
        self.view.lanes[self.lane][at]
    }

    fn measured(&mut self, events: &[(i64, Event)]) -> (Curve, Vec<CompactionFact>) {
        let mut curve = Curve::new();
        let mut compactions = Vec::new();
        let mut between = Between::default();
        let mut before: Option<(i64, i64)> = None;
        for &(at_ms, event) in events {
            match event {
                Event::Result(at) => between.results.push(self.result(at)),
                Event::Prompt => between.prompts += 1,
                Event::Compaction(at) => {
                    between.compactions.push(compactions.len());
                    compactions.push(self.compaction(at, before.map(|(size, _)| size)));
                }
                Event::Request(at) => {
                    let request = &self.view.trace.requests[self.view.requests[self.lane][at]];
                    let size = context_of(request);
                    if size == 0 {
                        continue;
                    }
                    let between = std::mem::take(&mut between);
                    for &place in &between.compactions {
                        let fact: &mut CompactionFact = &mut compactions[place];
                        fact.post_tokens = fact.post_tokens.or(Some(size));
                    }
                    self.step(at_ms, before, size, &between);
                    before = Some((size, figure(request.output)));
                    curve.push(ContextPoint { ts_ms: at_ms, tokens: size });
                }
            }
        }
        (curve, compactions)
    }

    /// Accounts for the size of a request by what came since the one before, which had `(size, output)`.
    fn step(&mut self, at_ms: i64, before: Option<(i64, i64)>, size: i64, between: &Between) {
        let whole = |tokens: i64| Fill { tokens, bytes: 0, count: 1 };
        let base = match before {
            None => Some(Source::Initial),
            Some(_) if !between.compactions.is_empty() => Some(Source::AfterCompaction),
            Some(_) => None,
        };
        if let Some(base) = base {
            self.fills.put(base, false, at_ms, whole(size));
            return;
        }
        let (before, output) = before.unwrap_or_default();
        self.fills.put(Source::ModelOutput, false, at_ms, whole(output));
        let growth = size - before - output;
        self.shrunk = self.shrunk.saturating_add((-growth).max(0));
        self.attribute(at_ms, growth.max(0), between);
    }

    fn attribute(&mut self, at_ms: i64, growth: i64, between: &Between) {
        let bytes_of = |&i: &usize| figure(self.view.call(i).output_bytes.unwrap_or(0));
        let total = between.results.iter().map(bytes_of).fold(0i64, i64::saturating_add);
        let with_prompt = between.prompts > 0;
        let for_results = growth.min(if with_prompt { tokens_of_bytes(total) } else { total });
        let rest = growth - for_results;
        let mut seen = 0i64;
        for i in &between.results {
            let bytes = bytes_of(i);
            let until =
                |bytes: i64| (i128::from(for_results) * i128::from(bytes) / i128::from(total.max(1))) as i64;
            let tokens = until(seen.saturating_add(bytes)) - until(seen);
            seen = seen.saturating_add(bytes);
            self.tokens[*i] = tokens;
            let tool = Source::ToolResult(self.view.tool[*i]);
            self.fills.put(tool, false, at_ms, Fill { tokens, bytes, count: 1 });
        }
        let source = if with_prompt { Source::Prompt } else { Source::Other };
        let count = if with_prompt { between.prompts } else { 1 };
        if rest > 0 {
            self.fills.put(source, false, at_ms, Fill { tokens: rest, bytes: 0, count });
        }
    }

    fn estimated(&mut self, events: &[(i64, Event)]) -> (Curve, Vec<CompactionFact>) {
        let mut curve = Curve::new();
        let mut compactions = Vec::new();
        let mut size = 0i64;
        for &(at_ms, event) in events {
            match event {
                Event::Result(at) => {
                    let i = self.result(at);
                    let bytes = figure(self.view.call(i).output_bytes.unwrap_or(0));
                    let tokens = self.tokens[i];
                    if bytes == 0 {
                        continue;
                    }
                    size = size.saturating_add(tokens);
                    let tool = Source::ToolResult(self.view.tool[i]);
                    self.fills.put(tool, true, at_ms, Fill { tokens, bytes, count: 1 });
                    curve.push(ContextPoint { ts_ms: at_ms, tokens: size });
                }
                Event::Compaction(at) => {
                    let fact = self.compaction(at, None);
                    size = fact.post_tokens.unwrap_or(0);
                    compactions.push(fact);
                }
                Event::Prompt | Event::Request(_) => {}
            }
        }
        (curve, compactions)
    }

    /// What is told of a compaction, else the size of the request before it.
    fn compaction(&self, at: usize, before: Option<i64>) -> CompactionFact {
        let mark = &self.view.trace.marks[self.view.marks[self.lane][at]];
        let MarkKind::Compaction { trigger, pre_tokens, post_tokens } = &mark.kind else {
            return CompactionFact::default();
        };
        CompactionFact {
            ts_ms: time(mark.ts_ms),
            trigger: trigger.as_deref().map(crate::digest::view::label),
            pre_tokens: pre_tokens.map(figure).or(before),
            post_tokens: post_tokens.map(figure),
        }
    }
}

fn context_of(request: &Request) -> i64 {
    [request.input, request.cache_read, request.cache_write_5m, request.cache_write_1h]
        .map(figure)
        .iter()
        .sum()
}

fn count_compactions(compactions: &[CompactionFact], book: &mut Book) {
    for fact in compactions {
        let of_session = book.key(Kind::Quality, "", "", "", "");
        book.add(of_session, fact.ts_ms, quality::COMPACTIONS, 1);
        let place = book.key(Kind::Compaction, "", fact.trigger.as_deref().unwrap_or("unknown"), "", "");
        let cell = book.cell(place, fact.ts_ms);
        cell.add(compaction::COUNT, 1);
        if let (Some(pre), Some(post)) = (fact.pre_tokens, fact.post_tokens) {
            cell.add(compaction::PRE_TOKENS, pre);
            cell.add(compaction::POST_TOKENS, post);
            cell.add(compaction::MEASURED, 1);
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "parts of one fact")]
fn agent(
    view: &View<'_>,
    lane: usize,
    limits: &Limits,
    curve: &[ContextPoint],
    mut compactions: Vec<CompactionFact>,
    fills: &Fills,
    shrunk: i64,
    cut: &mut Cut,
) -> AgentContext {
    let last =
        view.requests[lane].iter().map(|&r| &view.trace.requests[r]).rfind(|request| context_of(request) > 0);
    let size = curve.last().map_or(0, |point| point.tokens);
    let window = last.and_then(|request| request.context_window).filter(|window| *window > 0).map(figure);
    let model = last.map_or("", |request| &*request.model);
    let next_compaction =
        if last.is_some() { next_compaction(curve, &compactions, model, window, limits) } else { None };
    let late = compactions.len().saturating_sub(limits.facts);
    cut.facts += late as u64;
    compactions.drain(..late);
    AgentContext {
        agent_id: view.agents[lane].id.clone(),
        agent_type: view.agents[lane].kind.clone(),
        model: crate::digest::view::label(model),
        window,
        estimated: last.is_none(),
        size,
        peak: curve.iter().map(|point| point.tokens).max().unwrap_or(0),
        utilization: window.map(|window| size as f64 / window as f64),
        curve: thin(curve, limits.curve),
        compactions,
        fill: fills.facts(view),
        shrunk,
        next_compaction,
    }
}

/// At most `max` points: of each stretch the largest, and the last one as it is.
fn thin(curve: &[ContextPoint], max: usize) -> Curve {
    let max = max.max(2);
    let Some((last, rest)) = curve.split_last().filter(|_| curve.len() > max) else { return curve.to_vec() };
    let stretch = rest.len().div_ceil(max - 1);
    let largest =
        |points: &[ContextPoint]| points.iter().copied().max_by_key(|point| (point.tokens, -point.ts_ms));
    rest.chunks(stretch).filter_map(largest).chain([*last]).collect()
}

fn next_compaction(
    curve: &[ContextPoint],
    compactions: &[CompactionFact],
    model: &str,
    window: Option<i64>,
    limits: &Limits,
) -> Option<NextCompaction> {
    let size = curve.last()?.tokens;
    let (at_tokens, basis) = compaction_point(compactions, model, window, size, limits)?;
    let since = compactions.last().map_or(i64::MIN, |last| last.ts_ms);
    let recent = &curve[curve.partition_point(|point| point.ts_ms < since)..];
    let recent = &recent[recent.len().saturating_sub(GROWTH_REQUESTS.0 + 1)..];
    let growth: Vec<i64> = recent.windows(2).map(|pair| pair[1].tokens - pair[0].tokens).collect();
    let (first, last) = (recent.first()?, recent.last()?);
    if growth.len() < GROWTH_REQUESTS.1 || last.tokens <= first.tokens {
        return None;
    }
    let mean = (last.tokens - first.tokens) as f64 / growth.len() as f64;
    let mut sorted = growth.clone();
    sorted.sort_unstable();
    let quartile = |q: usize| sorted[(sorted.len() - 1) * q / 4] as f64;
    let tokens_left = (at_tokens - last.tokens).max(0);
    let left = |growth: f64| (growth > 0.0).then(|| tokens_left as f64 / growth);
    let requests_range = [left(quartile(3).max(mean)), left(quartile(1).min(mean))];
    let requests = tokens_left as f64 / mean;
    let worked: i64 = recent.windows(2).map(|pair| (pair[1].ts_ms - pair[0].ts_ms).clamp(0, PAUSE_MS)).sum();
    let minutes_each = worked as f64 / 60_000.0 / growth.len() as f64;
    let minutes = |requests: f64| (worked > 0).then_some(requests * minutes_each);
    Some(NextCompaction {
        at_tokens,
        basis: basis.to_owned(),
        tokens_left,
        growth_per_request: mean,
        requests,
        requests_range,
        minutes: minutes(requests),
        minutes_range: requests_range.map(|requests| requests.and_then(minutes)),
        samples: growth.len() as u64,
    })
}

/// Where the next compaction is expected: the median of the automatic ones here, else of the model before, else a share of the window.
fn compaction_point(
    compactions: &[CompactionFact],
    model: &str,
    window: Option<i64>,
    size: i64,
    limits: &Limits,
) -> Option<(i64, &'static str)> {
    let automatic = compactions.iter().filter(|fact| fact.trigger.as_deref() != Some("manual"));
    let mut seen: Vec<i64> =
        automatic.filter_map(|fact| fact.pre_tokens).filter(|tokens| *tokens > 0).collect();
    seen.sort_unstable();
    let history =
        limits.compaction_points.iter().find(|(known, _)| known == model).map(|(_, at)| figure(*at));
    match (seen.get(seen.len() / 2), history, window) {
        (Some(&at), _, _) => Some((at, "observed")),
        (None, Some(at), _) => Some((at, "history")),
        // A context larger than its window says that the window is not known.
        (None, None, Some(window)) if size <= window => {
            Some(((window as f64 * COMPACTION_SHARE) as i64, "assumed"))
        }
        (None, None, _) => None,
    }
}
