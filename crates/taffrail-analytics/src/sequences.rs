//! Sequences of calls: n-grams, transitions, repetition, cycles, thrash, parallelism.
//!
//! All but thrash look at one agent's calls in the order of their begin. An n-gram is [`CHAIN_MIN`] to [`CHAIN_MAX`]
//! tools in a row. A repetition is the same tool and input again. A cycle is a maximal repetition (a "run": Kolpakov
//! and Kucherov 1999) over (tool, input, result): a stretch in which every call equals the one `period` before it, at
//! least two periods long, whose period is not itself a repetition of a shorter one; periods up to [`PERIOD_MAX`].
//! Thrash is a file that flips back to an earlier change, or changes hands. A call is parallel where it comes of the
//! same response as its neighbour, or its span overlaps another's.
//!
//! A call is *wasted* when nothing was learned from it: it gave the same result as the same call before and no file
//! changed between; or it is a cycle's call after the first period; or a change that flips back. [`SequenceWatch`] sees
//! the same in a stream.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::book::Book;
use crate::digest::view::{View, bounded, keep_top, label, share};
use crate::digest::{
    Cut, Histogram, KEY_MAX_BYTES, Kind, Limits, OTHER, chain, cycle, quality, repetition, thrash, transition,
};
use crate::trace::{Call, FileAction, Outcome};

/// The shortest n-gram.
pub const CHAIN_MIN: usize = 2;

/// The longest n-gram.
pub const CHAIN_MAX: usize = 5;

/// The longest period of a cycle.
pub const PERIOD_MAX: usize = 8;

/// A change by another agent within this of the one before is a turn, in milliseconds.
pub const TURN_MS: i64 = 10 * 60_000;

/// Turns from which a file is thrashed, where no change flips back.
pub const TURNS_MIN: u64 = 3;

/// Patterns of a session, the most wasteful first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Sequences {
    pub chains: Vec<ChainFact>,
    pub repetitions: Vec<RepetitionFact>,
    pub cycles: Vec<CycleFact>,
    pub thrash: Vec<ThrashFact>,
    pub parallel: Parallelism,
    /// What all patterns together wasted, each call counted once.
    pub wasted: Waste,
}

/// What a pattern took without effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waste {
    /// Calls.
    pub calls: u64,
    /// Time the tools worked, in milliseconds.
    pub ms: i64,
    /// Tokens that the calls' results put into the context, and the output tokens that asked for them.
    pub tokens: i64,
    /// Money of the requests that asked for them, shared evenly among each request's calls; none where nothing is priced.
    pub nano_usd: Option<i64>,
    /// `tokens` as a share of those of all calls, 0 to 1; none where they have none.
    pub token_share: Option<f64>,
}

/// A tool n-gram.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ChainFact {
    pub tools: Vec<String>,
    pub count: u64,
    pub failed: u64,
    /// Median of the sums of the calls' durations, in milliseconds.
    pub median_ms: Option<i64>,
}

/// The same tool and input more than once by one agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RepetitionFact {
    pub agent_id: String,
    pub tool: String,
    /// 16 hex digits.
    pub input_hash: String,
    pub summary: String,
    /// Calls in all.
    pub count: u64,
    pub failed: u64,
    /// Calls with the result of the one before.
    pub same_result: u64,
    /// Stretches of two or more directly after another, and the longest.
    pub runs: u64,
    pub longest_run: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    /// Rows of the first and the last call.
    pub first_call: i64,
    pub last_call: i64,
    pub waste: Waste,
}

/// A period of calls that came again and again with the same inputs and results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CycleFact {
    pub agent_id: String,
    /// The tools of one period, as they came.
    pub tools: Vec<String>,
    pub summaries: Vec<String>,
    pub period: u64,
    /// Whole periods, the first counted.
    pub repeats: u64,
    pub calls: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub first_call: i64,
    pub last_call: i64,
    pub waste: Waste,
}

/// Alternating edits of one file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ThrashFact {
    pub path: String,
    pub changes: u64,
    pub flips: u64,
    pub turns: u64,
    /// Ids of the agents that changed it; empty for the main agent.
    pub agents: Vec<String>,
    pub first_ms: i64,
    pub last_ms: i64,
    pub waste: Waste,
}

/// How much went on at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Parallelism {
    pub calls: u64,
    pub parallel: u64,
    /// `parallel / calls`; none without calls.
    pub share: Option<f64>,
    /// Most calls in flight at once, over all agents.
    pub max: u64,
}

// ---- batch ----

/// What is found so far.
struct Found {
    sequences: Sequences,
    /// Whether each call was wasted, by its place in the trace.
    wasted: Vec<bool>,
}

/// Finds the patterns of a trace. `context` is what each call's result put into the context, in tokens, by its place in the trace.
pub(crate) fn analyze(
    view: &View<'_>,
    context: &[i64],
    limits: &Limits,
    book: &mut Book,
    cut: &mut Cut,
) -> Sequences {
    let mut found = Found { sequences: Sequences::default(), wasted: vec![false; view.trace.calls.len()] };
    let costs = Costs::new(view, context);
    found.sequences.chains = chains(view, limits, book, cut);
    transitions(view, book);
    for lane in 0..view.lanes.len() {
        repetitions(&costs, lane, book, &mut found);
        cycles(&costs, lane, book, &mut found);
    }
    thrashes(&costs, book, &mut found);
    found.sequences.parallel = parallelism(view, book);
    let all: Vec<usize> = (0..found.wasted.len()).filter(|&i| found.wasted[i]).collect();
    found.sequences.wasted = costs.waste(all.iter().copied());
    let place = book.key(Kind::Quality, "", "", "", "");
    for i in all {
        let cell = book.cell(place, view.end(i));
        cell.add(quality::WASTED_CALLS, 1);
        cell.add(quality::WASTED_MS, costs.ms(i));
        cell.add(quality::WASTED_TOKENS, costs.tokens(i));
        cell.add(quality::WASTED_NANO_USD, costs.nano_usd(i).unwrap_or(0));
    }
    let sequences = &mut found.sequences;
    sequences.repetitions.sort_by(|a, b| {
        let order = |r: &RepetitionFact| (r.waste.ms, r.waste.tokens, r.count);
        order(b).cmp(&order(a)).then_with(|| (a.first_ms, a.first_call).cmp(&(b.first_ms, b.first_call)))
    });
    sequences.cycles.sort_by(|a, b| {
        let order = |c: &CycleFact| (c.waste.calls, c.waste.ms);
        order(b)
            .cmp(&order(a))
            .then_with(|| (a.first_ms, a.first_call, a.period).cmp(&(b.first_ms, b.first_call, b.period)))
    });
    sequences
        .thrash
        .sort_by(|a, b| (b.flips + b.turns).cmp(&(a.flips + a.turns)).then_with(|| a.path.cmp(&b.path)));
    keep_top(&mut sequences.repetitions, limits.facts, &mut cut.facts);
    keep_top(&mut sequences.cycles, limits.facts, &mut cut.facts);
    keep_top(&mut sequences.thrash, limits.facts, &mut cut.facts);
    found.sequences
}

/// What calls took.
struct Costs<'v, 't> {
    view: &'v View<'t>,
    context: &'v [i64],
    /// Tokens of all calls.
    total: i64,
}

impl<'v, 't> Costs<'v, 't> {
    fn new(view: &'v View<'t>, context: &'v [i64]) -> Self {
        let mut costs = Self { view, context, total: 0 };
        costs.total = (0..context.len()).fold(0i64, |sum, i| sum.saturating_add(costs.tokens(i)));
        costs
    }

    fn ms(&self, i: usize) -> i64 {
        self.view.duration(i).unwrap_or(0)
    }

    fn tokens(&self, i: usize) -> i64 {
        self.context[i].saturating_add(self.view.share[i].output)
    }

    fn nano_usd(&self, i: usize) -> Option<i64> {
        self.view.share[i].nano_usd
    }

    fn waste(&self, calls: impl Iterator<Item = usize>) -> Waste {
        let mut waste = Waste::default();
        for i in calls {
            waste.calls += 1;
            waste.ms = waste.ms.saturating_add(self.ms(i));
            waste.tokens = waste.tokens.saturating_add(self.tokens(i));
            if let Some(nano_usd) = self.nano_usd(i) {
                waste.nano_usd = Some(waste.nano_usd.unwrap_or(0).saturating_add(nano_usd));
            }
        }
        waste.token_share = share(waste.tokens as u64, self.total as u64);
        waste
    }
}

/// A gram, padded.
type Gram = [u32; CHAIN_MAX];

const PAD: u32 = u32::MAX;

/// An n-gram's sums over the session.
struct GramSum {
    gram: Gram,
    count: u64,
    failed: u64,
    durations: Histogram,
}

/// Counts all n-grams first, and then keeps figures of the most frequent alone: most of the long ones come once.
fn chains(view: &View<'_>, limits: &Limits, book: &mut Book, cut: &mut Cut) -> Vec<ChainFact> {
    let (grams, of_windows) = count_grams(view);
    let mut ranked: Vec<usize> = (0..grams.len()).collect();
    let rank = |&at: &usize| (std::cmp::Reverse(grams[at].1), grams[at].0);
    if ranked.len() > limits.keys {
        ranked.select_nth_unstable_by_key(limits.keys, rank);
        cut.keys += (ranked.len() - limits.keys) as u64;
        ranked.truncate(limits.keys);
    }
    let mut place_of = vec![None; grams.len()];
    let mut sums: Vec<GramSum> = Vec::new();
    for at in ranked {
        let gram = grams[at].0;
        let tools: Vec<&str> = tools_of(view, &gram).collect();
        let place = book.key(Kind::Chain, "", &tools.join(" > "), &tools.len().to_string(), "");
        place_of[at] = Some((place, sums.len()));
        sums.push(GramSum { gram, count: 0, failed: 0, durations: Histogram::default() });
    }
    let mut others = [None; CHAIN_MAX - CHAIN_MIN + 1];
    for (calls, gram) in windows_of(view).zip(of_windows) {
        let work: Option<i64> = calls.iter().map(|&i| view.duration(i)).sum();
        let failed = calls.iter().any(|&i| view.failed(i));
        let place = match place_of[gram as usize] {
            Some((place, sum)) => {
                let sum = &mut sums[sum];
                sum.count += 1;
                sum.failed += u64::from(failed);
                work.iter().for_each(|work| sum.durations.record(*work));
                place
            }
            None => *others[calls.len() - CHAIN_MIN]
                .get_or_insert_with(|| book.key(Kind::Chain, "", OTHER, &calls.len().to_string(), "")),
        };
        let cell = book.cell(place, view.end(calls[calls.len() - 1]));
        cell.add(chain::COUNT, 1);
        cell.add(chain::FAILED, i64::from(failed));
        cell.add(chain::WORK_MS, calls.iter().filter_map(|&i| view.duration(i)).sum());
        work.iter().for_each(|work| cell.histogram.record(*work));
    }
    let mut facts: Vec<GramSum> = sums.into_iter().filter(|sum| sum.count > 1).collect();
    facts.sort_unstable_by_key(|sum| (std::cmp::Reverse(sum.count), sum.gram));
    keep_top(&mut facts, limits.facts, &mut cut.facts);
    let fact = |sum: GramSum| ChainFact {
        tools: tools_of(view, &sum.gram).map(str::to_owned).collect(),
        count: sum.count,
        failed: sum.failed,
        median_ms: sum.durations.median(),
    };
    facts.into_iter().map(fact).collect()
}

/// Every window of two to five calls in a row of one agent.
fn windows_of<'v>(view: &'v View<'_>) -> impl Iterator<Item = &'v [usize]> {
    view.lanes.iter().flat_map(|lane| {
        (1..=lane.len())
            .flat_map(move |end| (CHAIN_MIN..=CHAIN_MAX.min(end)).map(move |n| &lane[end - n..end]))
    })
}

/// The distinct n-grams with their counts, and of each window which it is.
fn count_grams(view: &View<'_>) -> (Vec<(Gram, u64)>, Vec<u32>) {
    let mut grams: Vec<(Gram, u64)> = Vec::new();
    let mut places: HashMap<Gram, u32> = HashMap::new();
    let of_windows = windows_of(view).map(|calls| {
        let mut gram = [PAD; CHAIN_MAX];
        for (place, &i) in gram.iter_mut().zip(calls) {
            *place = view.tool[i];
        }
        let at = *places.entry(gram).or_insert_with(|| {
            grams.push((gram, 0));
            grams.len() as u32 - 1
        });
        grams[at as usize].1 += 1;
        at
    });
    let of_windows = of_windows.collect();
    (grams, of_windows)
}

fn tools_of<'v>(view: &'v View<'_>, gram: &Gram) -> impl Iterator<Item = &'v str> {
    gram.iter()
        .copied()
        .take_while(|tool| *tool != PAD)
        .map(|tool| view.tools[tool as usize].as_str())
        .collect::<Vec<_>>()
        .into_iter()
}

fn transitions(view: &View<'_>, book: &mut Book) {
    let mut places = HashMap::new();
    for lane in &view.lanes {
        for pair in lane.windows(2) {
            let (before, next) = (pair[0], pair[1]);
            let place = *places.entry((view.tool[before], view.tool[next])).or_insert_with(|| {
                book.key(Kind::Transition, view.tool_name(next), view.tool_name(before), "", "")
            });
            let cell = book.cell(place, view.end(next));
            cell.add(transition::COUNT, 1);
            cell.add(transition::FAILED, i64::from(view.failed(next)));
            cell.add(transition::PARALLEL, i64::from(view.are_parallel(before, next)));
            if view.call(before).outcome.has_ended() {
                cell.histogram.record((view.begin(next) - view.end(before)).max(0));
            }
        }
    }
}

/// Equal calls of one agent.
struct Group {
    fact: RepetitionFact,
    run: u64,
    last: usize,
    last_at: usize,
    place: Option<crate::digest::book::Place>,
    wasted: Vec<usize>,
}

fn repetitions(costs: &Costs<'_, '_>, lane: usize, book: &mut Book, found: &mut Found) {
    let view = costs.view;
    let mut groups: HashMap<(u32, i64), Group> = HashMap::new();
    for (at, &i) in view.lanes[lane].iter().enumerate() {
        let call = view.call(i);
        if call.input_hash == 0 {
            continue;
        }
        match groups.entry((view.tool[i], call.input_hash)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Group::new(view, i, at));
            }
            std::collections::hash_map::Entry::Occupied(mut occupied) => {
                occupied.get_mut().push(costs, i, at, book);
            }
        }
    }
    let repeated = groups.into_values().filter(|group| group.fact.count > 1);
    for group in repeated {
        for &i in &group.wasted {
            found.wasted[i] = true;
        }
        found.sequences.repetitions.push(RepetitionFact {
            agent_id: view.agents[lane].id.clone(),
            tool: view.tool_name(group.last).to_owned(),
            input_hash: hex(view.call(group.last).input_hash),
            summary: label(&view.call(group.last).summary),
            waste: costs.waste(group.wasted.iter().copied()),
            ..group.fact
        });
    }
}

impl Group {
    fn new(view: &View<'_>, i: usize, at: usize) -> Self {
        let call = view.call(i);
        let fact = RepetitionFact {
            count: 1,
            failed: u64::from(view.failed(i)),
            first_ms: view.begin(i),
            last_ms: view.begin(i),
            first_call: call.id,
            last_call: call.id,
            ..RepetitionFact::default()
        };
        Self { fact, run: 1, last: i, last_at: at, place: None, wasted: Vec::new() }
    }

    fn push(&mut self, costs: &Costs<'_, '_>, i: usize, at: usize, book: &mut Book) {
        let view = costs.view;
        let call = view.call(i);
        let in_row = self.last_at + 1 == at;
        let same = same_result(view.call(self.last), call);
        let wasted = same && !view.changed_between(self.last, i);
        let place = *self.place.get_or_insert_with(|| {
            book.key(Kind::Repetition, view.tool_name(i), &hex(call.input_hash), "", &call.summary)
        });
        let cell = book.cell(place, view.end(i));
        cell.add(repetition::COUNT, 1);
        cell.add(repetition::IN_ROW, i64::from(in_row));
        cell.add(repetition::SAME_RESULT, i64::from(same));
        cell.add(repetition::FAILED, i64::from(view.failed(i)));
        if wasted {
            cell.add(repetition::WASTED_MS, costs.ms(i));
            cell.add(repetition::WASTED_TOKENS, costs.tokens(i));
            cell.add(repetition::WASTED_NANO_USD, costs.nano_usd(i).unwrap_or(0));
            self.wasted.push(i);
        }
        self.run = if in_row { self.run + 1 } else { 1 };
        let fact = &mut self.fact;
        fact.count += 1;
        fact.failed += u64::from(view.failed(i));
        fact.same_result += u64::from(same);
        fact.runs += u64::from(self.run == 2);
        fact.longest_run = fact.longest_run.max(self.run);
        fact.last_ms = view.begin(i);
        fact.last_call = call.id;
        (self.last, self.last_at) = (i, at);
    }
}

/// Whether two calls are known to have given the same.
fn same_result(a: &Call, b: &Call) -> bool {
    a.result_hash.is_some() && a.result_hash == b.result_hash && a.outcome == b.outcome
}

fn hex(hash: i64) -> String {
    format!("{:016x}", hash as u64)
}

/// What makes two calls the same for a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Symbol<T> {
    tool: T,
    input_hash: i64,
    result_hash: Option<i64>,
    outcome: Outcome,
}

impl<T> Symbol<T> {
    /// None where the input is not known or the call has not ended: it equals no other.
    fn of(tool: T, call: &Call) -> Option<Self> {
        let known = call.input_hash != 0 && call.outcome.has_ended();
        known.then_some(Self {
            tool,
            input_hash: call.input_hash,
            result_hash: call.result_hash,
            outcome: call.outcome,
        })
    }
}

/// A stretch of calls with a period, as places in the order they were pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Its first call.
    pub start: u64,
    /// Length of one period, in calls.
    pub period: u64,
    /// Calls in all: at least two periods.
    pub calls: u64,
}

/// Follows a sequence and finds its runs; [`PERIOD_MAX`] symbols of memory, and as much work for each.
struct RunTracker<S> {
    recent: VecDeque<Option<S>>,
    /// For each period, how many symbols up to the last equal the one a period before.
    streaks: [u64; PERIOD_MAX + 1],
    pushed: u64,
}

impl<S: PartialEq> RunTracker<S> {
    fn new() -> Self {
        Self { recent: VecDeque::with_capacity(PERIOD_MAX), streaks: [0; PERIOD_MAX + 1], pushed: 0 }
    }

    /// Takes the next symbol; `ended` hears of the runs that it breaks. None equals nothing.
    fn push(&mut self, symbol: Option<S>, mut ended: impl FnMut(Run)) {
        let mut next = self.streaks;
        for (period, streak) in next.iter_mut().enumerate().skip(1) {
            let before = self.recent.len().checked_sub(period).and_then(|at| self.recent[at].as_ref());
            if before.is_some() && before == symbol.as_ref() {
                *streak += 1;
            } else {
                self.run(period).into_iter().for_each(&mut ended);
                *streak = 0;
            }
        }
        self.streaks = next;
        if self.recent.len() == PERIOD_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(symbol);
        self.pushed += 1;
    }

    /// The run of that period that ends with the last symbol.
    fn run(&self, period: usize) -> Option<Run> {
        let streak = self.streaks[period];
        let calls = streak + period as u64;
        let shorter = |d: usize| period.is_multiple_of(d) && self.streaks[d] + d as u64 >= calls;
        let is_run = streak >= period as u64 && !(1..period).any(shorter);
        is_run.then(|| Run { start: self.pushed - calls, period: period as u64, calls })
    }

    /// The run of the shortest period that ends with the last symbol.
    fn current(&self) -> Option<Run> {
        (1..=PERIOD_MAX).find_map(|period| self.run(period))
    }

    fn finish(&self, ended: impl FnMut(Run)) {
        (1..=PERIOD_MAX).filter_map(|period| self.run(period)).for_each(ended);
    }
}

fn cycles(costs: &Costs<'_, '_>, lane: usize, book: &mut Book, found: &mut Found) {
    let view = costs.view;
    let calls = &view.lanes[lane];
    let mut runs = Vec::new();
    let mut tracker = RunTracker::new();
    for &i in calls {
        tracker.push(Symbol::of(view.tool[i], view.call(i)), |run| runs.push(run));
    }
    tracker.finish(|run| runs.push(run));
    for run in runs {
        let calls = &calls[run.start as usize..(run.start + run.calls) as usize];
        let (first, again) = calls.split_at(run.period as usize);
        let (start, end) = (calls[0], calls[calls.len() - 1]);
        let tools: Vec<&str> = first.iter().map(|&i| view.tool_name(i)).collect();
        let repeats = run.calls / run.period;
        let place = book.key(Kind::Cycle, "", &rotation(&tools).join(" > "), &run.period.to_string(), "");
        book.add(place, view.end(end), cycle::COUNT, 1);
        book.add(place, view.end(end), cycle::REPEATS, repeats as i64 - 1);
        for &i in again {
            found.wasted[i] = true;
            let cell = book.cell(place, view.end(i));
            cell.add(cycle::WASTED_CALLS, 1);
            cell.add(cycle::WASTED_MS, costs.ms(i));
            cell.add(cycle::WASTED_TOKENS, costs.tokens(i));
            cell.add(cycle::WASTED_NANO_USD, costs.nano_usd(i).unwrap_or(0));
        }
        found.sequences.cycles.push(CycleFact {
            agent_id: view.agents[lane].id.clone(),
            tools: tools.iter().map(|tool| (*tool).to_owned()).collect(),
            summaries: first.iter().map(|&i| label(&view.call(i).summary)).collect(),
            period: run.period,
            repeats,
            calls: run.calls,
            first_ms: view.begin(start),
            last_ms: view.end(end),
            first_call: view.call(start).id,
            last_call: view.call(end).id,
            waste: costs.waste(again.iter().copied()),
        });
    }
}

/// The rotation that comes first, so that a cycle has one name wherever it was entered.
fn rotation<'a>(tools: &[&'a str]) -> Vec<&'a str> {
    let rotated = |by: usize| [&tools[by..], &tools[..by]].concat();
    (0..tools.len()).map(rotated).min().unwrap_or_default()
}

fn thrashes(costs: &Costs<'_, '_>, book: &mut Book, found: &mut Found) {
    let view = costs.view;
    let mut changes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &i in &view.order {
        for touch in view.call(i).files.iter().filter(|touch| touch.action != FileAction::Read) {
            let calls = changes.entry(&touch.path).or_default();
            if calls.last() != Some(&i) {
                calls.push(i);
            }
        }
    }
    for (path, calls) in changes {
        let (flips, turns) = flips_and_turns(view, &calls);
        let count = |marked: &[bool]| marked.iter().filter(|is| **is).count() as u64;
        if count(&flips) == 0 && count(&turns) < TURNS_MIN {
            continue;
        }
        let place = book.key(Kind::Thrash, "", path, "", "");
        for (at, &i) in calls.iter().enumerate().filter(|(at, _)| flips[*at] || turns[*at]) {
            let cell = book.cell(place, view.end(i));
            cell.add(thrash::COUNT, 1);
            cell.add(thrash::FLIPS, i64::from(flips[at]));
            cell.add(thrash::TURNS, i64::from(turns[at]));
            if flips[at] {
                found.wasted[i] = true;
                cell.add(thrash::WASTED_MS, costs.ms(i));
                cell.add(thrash::WASTED_TOKENS, costs.tokens(i));
                cell.add(thrash::WASTED_NANO_USD, costs.nano_usd(i).unwrap_or(0));
            }
        }
        let mut lanes: Vec<usize> = calls.iter().map(|&i| view.lane_of(view.call(i).agent)).collect();
        lanes.sort_unstable();
        lanes.dedup();
        found.sequences.thrash.push(ThrashFact {
            path: bounded(path, KEY_MAX_BYTES),
            changes: calls.len() as u64,
            flips: count(&flips),
            turns: count(&turns),
            agents: lanes.iter().take(AGENTS_TOLD_MAX).map(|&lane| view.agents[lane].id.clone()).collect(),
            first_ms: view.begin(calls[0]),
            last_ms: view.end(calls[calls.len() - 1]),
            waste: costs.waste(calls.iter().zip(&flips).filter(|(_, flip)| **flip).map(|(&i, _)| i)),
        });
    }
}

/// Agents told of a thrashed file.
const AGENTS_TOLD_MAX: usize = 20;

/// Which changes of a file equal the one before the last with another between, and which came by another agent soon after.
fn flips_and_turns(view: &View<'_>, calls: &[usize]) -> (Vec<bool>, Vec<bool>) {
    let hash = |at: usize| view.call(calls[at]).input_hash;
    let flip = |at: usize| at >= 2 && hash(at) != 0 && hash(at) == hash(at - 2) && hash(at) != hash(at - 1);
    let turn = |at: usize| {
        at >= 1
            && view.lane_of(view.call(calls[at]).agent) != view.lane_of(view.call(calls[at - 1]).agent)
            && view.begin(calls[at]) - view.end(calls[at - 1]) <= TURN_MS
    };
    ((0..calls.len()).map(flip).collect(), (0..calls.len()).map(turn).collect())
}

fn parallelism(view: &View<'_>, book: &mut Book) -> Parallelism {
    let place = book.key(Kind::Quality, "", "", "", "");
    let mut in_flight = std::collections::BinaryHeap::new();
    let mut all = Parallelism { calls: view.order.len() as u64, ..Parallelism::default() };
    for &i in &view.order {
        let begin = view.begin(i);
        while in_flight.peek().is_some_and(|std::cmp::Reverse(end)| *end <= begin) {
            in_flight.pop();
        }
        in_flight.push(std::cmp::Reverse(view.end(i)));
        all.max = all.max.max(in_flight.len() as u64);
        if view.parallel[i] {
            all.parallel += 1;
            book.add(place, view.end(i), quality::PARALLEL, 1);
        }
    }
    all.share = share(all.parallel, all.calls);
    all
}

// ---- stream ----

/// Distinct (tool, input) pairs that a [`SequenceWatch`] remembers for certain; it holds at most twice as many.
pub const WATCH_INPUTS_MAX: usize = 4_096;

/// Distinct n-grams that a [`SequenceWatch`] counts; later ones are counted together.
pub const WATCH_CHAINS_MAX: usize = 4_096;

/// The sequences of one agent as its calls come, each pushed once, when its outcome is known, in the order of begin (or of end: then
/// the answers are those of that order). Memory is bounded by the limits above, work per call by [`PERIOD_MAX`] and [`CHAIN_MAX`].
///
/// While no more than [`WATCH_INPUTS_MAX`] distinct inputs came, all it says is what the digest finds in the same calls.
pub struct SequenceWatch {
    runs: RunTracker<Symbol<Arc<str>>>,
    /// Two generations: when the young is full it becomes the old, and the old is forgotten.
    young: HashMap<(Arc<str>, i64), Memory>,
    old: HashMap<(Arc<str>, i64), Memory>,
    tools: VecDeque<(Arc<str>, bool)>,
    chains: HashMap<Vec<Arc<str>>, ChainCount>,
    limits: WatchLimits,
    pushed: u64,
    /// Inputs that were forgotten.
    pub forgotten: u64,
    /// N-grams that came when no new ones were counted any more.
    pub chains_other: u64,
}

/// Bounds of a [`SequenceWatch`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "see the constants")]
pub struct WatchLimits {
    pub inputs: usize,
    pub chains: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { inputs: WATCH_INPUTS_MAX, chains: WATCH_CHAINS_MAX }
    }
}

#[derive(Clone, Copy)]
struct Memory {
    count: u64,
    failed: u64,
    same_result: u64,
    run: u64,
    same_run: u64,
    failed_run: u64,
    at: u64,
    result: (Option<i64>, Outcome),
}

/// An n-gram's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainCount {
    /// How often it came.
    pub count: u64,
    /// How often with a failed call in it.
    pub failed: u64,
}

/// What a call is in its sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its place, from 0.
    pub at: u64,
    /// Calls with this tool and input so far, this one counted; 1 where the input is not known.
    pub count: u64,
    /// Of these, the ones that failed.
    pub failed: u64,
    /// Of these, the ones with the result of the one before.
    pub same_result: u64,
    /// How many of them directly in a row, up to this one.
    pub run: u64,
    /// How many of them in succession (others between do not matter) with the same result, up to this one.
    pub same_run: u64,
    /// How many of them in succession that failed, up to this one; 0 where it did not fail.
    pub failed_run: u64,
    /// The cycle that it goes on, of the shortest period.
    pub cycle: Option<Run>,
    /// The cycles that it broke off.
    pub ended: Vec<Run>,
    /// The tool before.
    pub previous_tool: Option<Arc<str>>,
}

impl Default for SequenceWatch {
    fn default() -> Self {
        Self::new(WatchLimits::default())
    }
}

impl SequenceWatch {
    /// Nothing seen yet.
    pub fn new(limits: WatchLimits) -> Self {
        Self {
            runs: RunTracker::new(),
            young: HashMap::new(),
            old: HashMap::new(),
            tools: VecDeque::with_capacity(CHAIN_MAX),
            chains: HashMap::new(),
            limits,
            pushed: 0,
            forgotten: 0,
            chains_other: 0,
        }
    }

    /// Takes the next call.
    pub fn push(&mut self, call: &Call) -> Seen {
        let mut seen = Seen { at: self.pushed, count: 1, run: 1, same_run: 1, ..Seen::default() };
        seen.previous_tool = self.tools.back().map(|(tool, _)| Arc::clone(tool));
        let tool = short(&call.tool);
        self.runs.push(Symbol::of(Arc::clone(&tool), call), |run| seen.ended.push(run));
        seen.cycle = self.runs.current();
        self.remember(&tool, call, &mut seen);
        self.count_chains(tool, call.outcome == Outcome::Failed);
        self.pushed += 1;
        seen
    }

    /// The cycles that go on to the last call.
    pub fn finish(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        self.runs.finish(|run| runs.push(run));
        runs
    }

    /// The n-grams counted, in no order.
    pub fn chains(&self) -> impl Iterator<Item = (&[Arc<str>], ChainCount)> {
        self.chains.iter().map(|(tools, count)| (tools.as_slice(), *count))
    }

    /// Distinct inputs and n-grams held: never more than twice `inputs`, and `chains`.
    pub fn held(&self) -> (usize, usize) {
        (self.young.len() + self.old.len(), self.chains.len())
    }

    fn remember(&mut self, tool: &Arc<str>, call: &Call, seen: &mut Seen) {
        let failed = call.outcome == Outcome::Failed;
        (seen.failed, seen.failed_run) = (u64::from(failed), u64::from(failed));
        if call.input_hash == 0 {
            return;
        }
        let key = (Arc::clone(tool), call.input_hash);
        let known = self.young.get(&key).copied().or_else(|| self.old.remove(&key));
        if let Some(known) = known {
            let same = known.result.0.is_some() && known.result == (call.result_hash, call.outcome);
            seen.count = known.count + 1;
            seen.failed += known.failed;
            seen.same_result = known.same_result + u64::from(same);
            seen.run = if known.at + 1 == self.pushed { known.run + 1 } else { 1 };
            seen.same_run = if same { known.same_run + 1 } else { 1 };
            seen.failed_run = if failed { known.failed_run + 1 } else { 0 };
        }
        let memory = Memory {
            count: seen.count,
            failed: seen.failed,
            same_result: seen.same_result,
            run: seen.run,
            same_run: seen.same_run,
            failed_run: seen.failed_run,
            at: self.pushed,
            result: (call.result_hash, call.outcome),
        };
        self.young.insert(key, memory);
        if self.young.len() >= self.limits.inputs.max(1) {
            self.forgotten += self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
        }
    }

    fn count_chains(&mut self, tool: Arc<str>, failed: bool) {
        if self.tools.len() == CHAIN_MAX {
            self.tools.pop_front();
        }
        self.tools.push_back((tool, failed));
        let tools = self.tools.make_contiguous();
        for n in CHAIN_MIN..=tools.len() {
            let last = &tools[tools.len() - n..];
            let gram: Vec<Arc<str>> = last.iter().map(|(tool, _)| Arc::clone(tool)).collect();
            let full = self.chains.len() >= self.limits.chains;
            let count = match self.chains.entry(gram) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) if !full => new.insert(ChainCount::default()),
                std::collections::hash_map::Entry::Vacant(_) => {
                    self.chains_other += 1;
                    continue;
                }
            };
            count.count += 1;
            count.failed += u64::from(last.iter().any(|(_, failed)| *failed));
        }
    }
}

/// The tool's name, cut where it is too long to keep.
fn short(tool: &Arc<str>) -> Arc<str> {
    if tool.len() <= crate::digest::TOOL_MAX_BYTES {
        Arc::clone(tool)
    } else {
        bounded(tool, crate::digest::TOOL_MAX_BYTES).into()
    }
}
