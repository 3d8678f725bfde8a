//! Drift: whether agents of one type behave otherwise than they used to, and in what.
//!
//! A [`Profile`] holds the distributions of one (app, agent type) over some sessions: which tools, how often they fail, how long
//! they take, how many calls a prompt leads to, how many new tokens a call costs. [`compare`] sets recent sessions beside the
//! baseline, each distribution by itself.
//!
//! The distance is the population stability index, `sum (p - q) ln(p / q)` over groups: Jeffreys' divergence (H. Jeffreys, 1946),
//! known by that name from N. Siddiqi, "Credit Risk Scorecards" (2006), where over 0.25 is a change and 0.1 to 0.25 a small one.
//! Under no change it is not 0 but about `(1/n + 1/m)` times chi-squared with one degree less than there are groups (B. Yurdakul,
//! J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation 14(4), 2020). So a
//! change is one that is large and that chance does not make: both bounds must be passed.
//!
//! Calls of one session are alike, so `n` calls tell less than `n` independent ones would: counts are divided by the design effect
//! `1 + (calls a session - 1) * rho` (L. Kish, "Survey Sampling", 1965) with [`SAME_SESSION_CORRELATION`].
//!
//! Limits: [`TOOLS_MAX`] tools, sizes in powers of two, [`AGENT_TYPES_MAX`] agent types of a session. What is cut is counted
//! with the rest.

use std::collections::{BTreeMap, BTreeSet};

use crate::forest::codec::{self, CodecError, Reader, Writer};
use crate::trace::{Call, MarkKind, Outcome, Trace};

/// Tools that a profile knows by name; beyond, the rarest are one group.
pub const TOOLS_MAX: usize = 64;

/// Characters of a tool's or agent type's name.
pub const NAME_CHARS_MAX: usize = 120;

/// Agent types of a session; the calls of more are left out, the last names first.
pub const AGENT_TYPES_MAX: usize = 32;

/// Sessions that a baseline and what is set beside it need.
pub const SESSIONS_MIN: u64 = 5;

/// Observations that a distribution needs on each side.
pub const OBSERVATIONS_MIN: u64 = 30;

/// Index over which a distribution changed; see the head of the file.
pub const CHANGED_INDEX: f64 = 0.25;

/// Index over which the share of failures changed. It has two groups, one of them small: from 2 % to 10 % is 0.14.
pub const CHANGED_INDEX_OF_ERRORS: f64 = 0.1;

/// How much alike calls of one session are: the intraclass correlation that is assumed.
pub const SAME_SESSION_CORRELATION: f64 = 0.1;

/// Standard normal quantile of 99.9 %: chance alone makes one false change in a thousand distributions.
const CHANCE_Z: f64 = 3.090_232_306_167_813;

/// A tool with less than this share of both sides together is one with the others.
const TOOL_SHARE_MIN: f64 = 0.02;

/// Neighbouring sizes are one group up to this share of both sides together.
const SIZE_SHARE_MIN: f64 = 0.05;

/// Groups named as what changed.
const PARTS_MAX: usize = 3;

/// Powers of two up to 2^62, and zero.
const SIZES: usize = 64;

const NAME_BYTES_MAX: usize = 4 * NAME_CHARS_MAX;
const KIND: [u8; 4] = *b"TFDP";
const FORMAT_VERSION: u8 = 1;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// Which tools are called.
    ToolMix,
    /// Whether calls fail.
    ErrorRate,
    /// How long calls take, in milliseconds.
    Duration,
    /// How many calls a person's prompt leads to; of a subagent how many it makes at all.
    CallsPerPrompt,
    /// New tokens (input, output, cache writes; no cache reads) for each call, prompt by prompt.
    TokensPerCall,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ToolMix, Self::ErrorRate, Self::Duration, Self::CallsPerPrompt, Self::TokensPerCall];

    /// Its name in the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToolMix => "tool_mix",
            Self::ErrorRate => "error_rate",
            Self::Duration => "duration_ms",
            Self::CallsPerPrompt => "calls_per_prompt",
            Self::TokensPerCall => "tokens_per_call",
        }
    }

    /// The index over which it changed.
    pub const fn changed_index(self) -> f64 {
        match self {
            Self::ErrorRate => CHANGED_INDEX_OF_ERRORS,
            _ => CHANGED_INDEX,
        }
    }
}

/// How often each size came: 0, 1, 2 to 3, 4 to 7, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes([u64; SIZES]);

/// The behaviour of one (app, agent type) over some sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Sessions that it is from.
    pub sessions: u64,
    tools: BTreeMap<String, u64>,
    other_tools: u64,
    succeeded: u64,
    failed: u64,
    durations: Sizes,
    calls_per_prompt: Sizes,
    tokens_per_call: Sizes,
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// A tool, by name.
    Tool(String),
    /// All tools that are rare.
    OtherTools,
    /// Calls that succeeded.
    Succeeded,
    /// Calls that failed.
    Failed,
    /// Sizes from the first to the last.
    #[allow(missing_docs, reason = "the names say it")]
    Range { from: u64, to: u64 },
}

/// A group's part in a change.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Part {
    pub group: Group,
    /// Share of the observations, 0 to 1.
    pub baseline_share: f64,
    pub recent_share: f64,
    /// What it adds to the index.
    pub index: f64,
}

/// One distribution of the recent sessions beside that of the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Which.
    pub dimension: Dimension,
    /// The population stability index: 0 where both are the same, no upper end.
    pub index: f64,
    /// Jensen-Shannon divergence (J. Lin, 1991), 0 to 1: for showing, it has an upper end.
    pub divergence: f64,
    /// What chance alone stays under, 999 times of 1,000.
    pub chance_index: f64,
    /// Observations of the baseline.
    pub baseline_count: u64,
    /// Observations of the recent sessions.
    pub recent_count: u64,
    /// The medians, where the distribution is one of sizes; exact to a factor of the square root of 2.
    pub medians: Option<(f64, f64)>,
    /// The groups that changed most, the first most; at most three.
    pub parts: Vec<Part>,
}

impl Comparison {
    /// Whether it changed: by much, and not by chance.
    pub fn is_changed(&self) -> bool {
        self.index > self.dimension.changed_index() && self.index > self.chance_index
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self([0; SIZES])
    }
}

impl Sizes {
    /// Adds one; what is negative counts as 0.
    pub fn add(&mut self, size: i64) {
        let place = u64::BITS - size.max(0).cast_unsigned().leading_zeros();
        self.0[place as usize] += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The middle of the sizes in which the median lies; none while empty.
    pub fn median(&self) -> Option<f64> {
        let half = self.count().div_ceil(2);
        let mut seen = 0_u64;
        let place = self.0.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= half && half > 0
        })?;
        Some(match place {
            0 | 1 => place as f64,
            _ => (first_of(place) as f64 * last_of(place) as f64).sqrt(),
        })
    }

    fn merge(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other);
        }
    }

    fn write(&self, writer: &mut Writer) {
        let used = SIZES - self.0.iter().rev().take_while(|count| **count == 0).count();
        writer.uint(used as u64);
        self.0[..used].iter().for_each(|count| writer.uint(*count));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut sizes = Self::default();
        let used = reader.count(SIZES)?;
        for count in &mut sizes.0[..used] {
            *count = reader.uint()?;
        }
        Ok(sizes)
    }
}

impl Profile {
    /// Adds everything that the other holds: sessions of another day.
    pub fn merge(&mut self, other: &Self) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        for (tool, count) in &other.tools {
            self.add_tool(tool, *count);
        }
        self.other_tools = self.other_tools.saturating_add(other.other_tools);
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        self.durations.merge(&other.durations);
        self.calls_per_prompt.merge(&other.calls_per_prompt);
        self.tokens_per_call.merge(&other.tokens_per_call);
        self.cut_tools();
    }

    /// Calls that ended.
    pub fn calls(&self) -> u64 {
        self.tools.values().fold(self.other_tools, |sum, count| sum.saturating_add(*count))
    }

    /// Bytes for the database.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        [self.sessions, self.other_tools, self.succeeded, self.failed]
            .into_iter()
            .for_each(|count| writer.uint(count));
        writer.uint(self.tools.len() as u64);
        for (tool, count) in &self.tools {
            writer.text(tool);
            writer.uint(*count);
        }
        for sizes in [&self.durations, &self.calls_per_prompt, &self.tokens_per_call] {
            sizes.write(&mut writer);
        }
        codec::seal(KIND, FORMAT_VERSION, &writer.0)
    }

    /// Reads what [`Profile::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = codec::open(KIND, FORMAT_VERSION, bytes)?;
        let mut profile = Self {
            sessions: reader.uint()?,
            other_tools: reader.uint()?,
            succeeded: reader.uint()?,
            failed: reader.uint()?,
            ..Self::default()
        };
        for _ in 0..reader.count(TOOLS_MAX)? {
            let tool = reader.text(NAME_BYTES_MAX)?.to_owned();
            profile.tools.insert(tool, reader.uint()?);
        }
        profile.durations = Sizes::read(&mut reader)?;
        profile.calls_per_prompt = Sizes::read(&mut reader)?;
        profile.tokens_per_call = Sizes::read(&mut reader)?;
        reader.end()?;
        Ok(profile)
    }

    fn add_call(&mut self, call: &Call) {
        self.add_tool(&cut_name(&call.tool), 1);
        match call.outcome {
            Outcome::Succeeded => self.succeeded += 1,
            Outcome::Failed => self.failed += 1,
            _ => {}
        }
        if let Some(duration_ms) = call.duration_ms {
            self.durations.add(duration_ms);
        }
    }

    fn add_tool(&mut self, tool: &str, count: u64) {
        match self.tools.get_mut(tool) {
            Some(known) => *known = known.saturating_add(count),
            None => {
                self.tools.insert(tool.to_owned(), count);
            }
        }
    }

    /// Puts the rarest tools to the others, the last names first.
    fn cut_tools(&mut self) {
        if self.tools.len() <= TOOLS_MAX {
            return;
        }
        let mut order: Vec<(u64, String)> =
            std::mem::take(&mut self.tools).into_iter().map(|(tool, count)| (count, tool)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (count, _) in order.drain(TOOLS_MAX..) {
            self.other_tools = self.other_tools.saturating_add(count);
        }
        self.tools = order.into_iter().map(|(count, tool)| (tool, count)).collect();
    }
}

/// The profile of each agent type of a session.
pub fn profiles(trace: &Trace) -> BTreeMap<String, Profile> {
    let types: Vec<String> = trace.agents.iter().map(|agent| cut_name(&agent.agent_type)).collect();
    let mut kept: Vec<&String> = types.iter().collect();
    kept.sort_unstable();
    kept.dedup();
    kept.truncate(AGENT_TYPES_MAX);
    let mut profiles: BTreeMap<String, Profile> =
        kept.into_iter().map(|name| (name.clone(), Profile::default())).collect();
    for call in trace.calls.iter().filter(|call| call.outcome.has_ended()) {
        if let Some(profile) = types.get(call.agent as usize).and_then(|name| profiles.get_mut(name)) {
            profile.add_call(call);
        }
    }
    for (agent, turns) in turns(trace).into_iter().enumerate() {
        let Some(profile) = types.get(agent).and_then(|name| profiles.get_mut(name)) else { continue };
        for turn in turns {
            profile.calls_per_prompt.add(turn.calls);
            if turn.calls > 0 && turn.requests > 0 {
                profile.tokens_per_call.add(turn.tokens / turn.calls);
            }
        }
    }
    profiles.retain(|_, profile| profile.calls() > 0);
    for profile in profiles.values_mut() {
        profile.sessions = 1;
        profile.cut_tools();
    }
    profiles
}

/// What an agent did from one prompt to the next.
#[derive(Clone, Copy, Default)]
struct Turn {
    calls: i64,
    requests: i64,
    tokens: i64,
}

/// The turns of each agent. What was before the first prompt is one too, if there was anything.
fn turns(trace: &Trace) -> Vec<Vec<Turn>> {
    let mut prompts: Vec<Vec<i64>> = vec![Vec::new(); trace.agents.len()];
    for mark in &trace.marks {
        if let (MarkKind::Prompt { human: true }, Some(prompts)) =
            (&mark.kind, prompts.get_mut(mark.agent as usize))
        {
            prompts.push(mark.ts_ms);
        }
    }
    prompts.iter_mut().for_each(|prompts| prompts.sort_unstable());
    let mut turns: Vec<Vec<Turn>> =
        prompts.iter().map(|prompts| vec![Turn::default(); prompts.len() + 1]).collect();
    let place = |agent: u32, ts_ms: i64| {
        let prompts = prompts.get(agent as usize)?;
        Some((agent as usize, prompts.partition_point(|&prompt_ms| prompt_ms <= ts_ms)))
    };
    for call in trace.calls.iter().filter(|call| call.outcome.has_ended()) {
        if let Some((agent, turn)) = place(call.agent, call.at_ms) {
            turns[agent][turn].calls += 1;
        }
    }
    for request in &trace.requests {
        if let Some((agent, turn)) = place(request.agent, request.ts_ms) {
            let parts = [request.input, request.output, request.cache_write_5m, request.cache_write_1h];
            let turn = &mut turns[agent][turn];
            turn.requests += 1;
            turn.tokens = parts.into_iter().fold(turn.tokens, i64::saturating_add);
        }
    }
    for turns in &mut turns {
        if turns[0].calls == 0 {
            turns.remove(0);
        }
    }
    turns
}

/// Every distribution that both sides have enough observations of; none where one has too few sessions.
pub fn compare(baseline: &Profile, recent: &Profile) -> Vec<Comparison> {
    if baseline.sessions.min(recent.sessions) < SESSIONS_MIN {
        return Vec::new();
    }
    let sizes = |profile: fn(&Profile) -> &Sizes| (profile(baseline), profile(recent));
    let comparisons = Dimension::ALL.into_iter().filter_map(|dimension| {
        let sizes = match dimension {
            Dimension::Duration => Some(sizes(|profile| &profile.durations)),
            Dimension::CallsPerPrompt => Some(sizes(|profile| &profile.calls_per_prompt)),
            Dimension::TokensPerCall => Some(sizes(|profile| &profile.tokens_per_call)),
            Dimension::ToolMix | Dimension::ErrorRate => None,
        };
        let groups = match (dimension, sizes) {
            (_, Some((baseline, recent))) => size_groups(baseline, recent),
            (Dimension::ErrorRate, None) => error_groups(baseline, recent),
            (_, None) => tool_groups(baseline, recent),
        };
        let medians = sizes.and_then(|(baseline, recent)| Some((baseline.median()?, recent.median()?)));
        compare_groups(dimension, &groups, [baseline.sessions, recent.sessions], medians)
    });
    comparisons.collect()
}

/// A group, and how often it came on each side.
type Counted = (Group, [u64; 2]);

fn error_groups(baseline: &Profile, recent: &Profile) -> Vec<Counted> {
    vec![
        (Group::Failed, [baseline.failed, recent.failed]),
        (Group::Succeeded, [baseline.succeeded, recent.succeeded]),
    ]
}

fn tool_groups(baseline: &Profile, recent: &Profile) -> Vec<Counted> {
    let calls = [baseline.calls(), recent.calls()];
    let mut others = [baseline.other_tools, recent.other_tools];
    let mut groups = Vec::new();
    let names: BTreeSet<&String> = baseline.tools.keys().chain(recent.tools.keys()).collect();
    for name in names {
        let counts = [baseline, recent].map(|side| side.tools.get(name).copied().unwrap_or(0));
        if mean_share(counts, calls) < TOOL_SHARE_MIN {
            others = [0, 1].map(|side| others[side].saturating_add(counts[side]));
        } else {
            groups.push((Group::Tool(name.clone()), counts));
        }
    }
    if others != [0, 0] {
        groups.push((Group::OtherTools, others));
    }
    groups
}

/// Neighbouring sizes together, until they are common enough.
fn size_groups(baseline: &Sizes, recent: &Sizes) -> Vec<Counted> {
    let all = [baseline.count(), recent.count()];
    let mut groups: Vec<(usize, usize, [u64; 2])> = Vec::new();
    let mut open: Option<(usize, [u64; 2])> = None;
    for place in 0..SIZES {
        let here = [baseline.0[place], recent.0[place]];
        if here == [0, 0] && open.is_none() {
            continue;
        }
        let (first, before) = open.unwrap_or((place, [0, 0]));
        let counts = [0, 1].map(|side: usize| here[side].saturating_add(before[side]));
        open = if mean_share(counts, all) < SIZE_SHARE_MIN {
            Some((first, counts))
        } else {
            groups.push((first, place, counts));
            None
        };
    }
    // What is left at the end is too rare for a group of its own.
    if let (Some((_, rest)), Some((_, last, counts))) = (open, groups.last_mut()) {
        *last = SIZES - 1;
        *counts = [0, 1].map(|side: usize| counts[side].saturating_add(rest[side]));
    }
    let named = |(first, last, counts)| (Group::Range { from: first_of(first), to: last_of(last) }, counts);
    groups.into_iter().map(named).collect()
}

fn mean_share(counts: [u64; 2], all: [u64; 2]) -> f64 {
    [0, 1].map(|side: usize| counts[side] as f64 / all[side].max(1) as f64).iter().sum::<f64>() / 2.0
}

fn compare_groups(
    dimension: Dimension,
    groups: &[Counted],
    sessions: [u64; 2],
    medians: Option<(f64, f64)>,
) -> Option<Comparison> {
    let all = [0, 1]
        .map(|side: usize| groups.iter().fold(0_u64, |sum, (_, counts)| sum.saturating_add(counts[side])));
    if all.into_iter().min()? < OBSERVATIONS_MIN {
        return None;
    }
    // Half an observation more in each group (Jeffreys' prior): a group that is new on one side has no infinite part.
    let share =
        |count: u64, side: usize| (count as f64 + 0.5) / (all[side] as f64 + 0.5 * groups.len() as f64);
    let mut divergence = 0.0;
    let mut parts: Vec<Part> = Vec::with_capacity(groups.len());
    for (group, counts) in groups {
        let (p, q) = (share(counts[0], 0), share(counts[1], 1));
        let middle = (p + q) / 2.0;
        divergence += (p * (p / middle).log2() + q * (q / middle).log2()) / 2.0;
        let [baseline_share, recent_share] = [0, 1].map(|side: usize| counts[side] as f64 / all[side] as f64);
        parts.push(Part {
            group: group.clone(),
            baseline_share,
            recent_share,
            index: (q - p) * (q / p).ln(),
        });
    }
    let index = parts.iter().map(|part| part.index).sum();
    parts.sort_by(|a, b| b.index.total_cmp(&a.index));
    parts.truncate(PARTS_MAX);
    let chance = [0, 1].map(|side: usize| 1.0 / independent(all[side], sessions[side])).iter().sum::<f64>();
    Some(Comparison {
        dimension,
        index,
        divergence: divergence.clamp(0.0, 1.0),
        chance_index: chance * chi_squared(groups.len().saturating_sub(1)),
        baseline_count: all[0],
        recent_count: all[1],
        medians,
        parts,
    })
}

/// How many independent observations these tell as much as; see the head of the file.
fn independent(count: u64, sessions: u64) -> f64 {
    let in_session = (count as f64 / sessions.max(1) as f64).max(1.0);
    count as f64 / (1.0 + (in_session - 1.0) * SAME_SESSION_CORRELATION)
}

/// The quantile of [`CHANCE_Z`] of chi-squared (E. B. Wilson, M. M. Hilferty, 1931): within 4 % of the exact one.
fn chi_squared(degrees: usize) -> f64 {
    if degrees == 0 {
        return 0.0;
    }
    let k = degrees as f64;
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + CHANCE_Z * spread.sqrt()).powi(3)
}

/// The smallest size of a place.
fn first_of(place: usize) -> u64 {
    if place == 0 { 0 } else { 1 << (place - 1) }
}

/// The largest size of a place.
fn last_of(place: usize) -> u64 {
    (1_u64 << place) - 1
}

fn cut_name(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
