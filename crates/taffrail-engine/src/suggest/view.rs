//! A session as the rules look at it: the rows of the span, by agent, with the prices of their requests.

use std::collections::{BTreeMap, HashMap, HashSet};

use taffrail_analytics::trace::{Call, Mark, MarkKind, Request, Trace};
use taffrail_event::ledger::{Terms, Usage};
use taffrail_event::prices::PriceTable;

use super::at;
use super::kind::Kind;
use super::tally::Sight;

/// Subjects of one session that are kept.
const SIGHTS_MAX: usize = 2_000;
/// Bytes of a token, about: what a tool gave back is not tokenized.
pub(super) const BYTES_PER_TOKEN: i64 = 4;
/// A context that falls below this share of the one before was compacted or cleared.
pub(super) const SHRUNK_PERCENT: i64 = 50;
const PICO_PER_NANO: i128 = 1_000;

/// What is seen in one session, by kind and subject.
#[derive(Debug, Default)]
pub(super) struct Sights(BTreeMap<(Kind, String), Sight>);

impl Sights {
    /// The sight of a subject; one too many is thrown away.
    pub(super) fn of(&mut self, kind: Kind, subject: &str) -> &mut Sight {
        let key = (kind, subject.to_owned());
        if self.0.len() >= SIGHTS_MAX && !self.0.contains_key(&key) {
            // Taken out again in `into_iter`.
            return self.0.entry((kind, String::from(OVERFLOW))).or_default();
        }
        self.0.entry(key).or_default()
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = ((Kind, String), Sight)> {
        self.0.into_iter().filter(|((_, subject), _)| subject != OVERFLOW)
    }
}

/// No subject: subjects are cut from what tools were told, which has no such character in front.
const OVERFLOW: &str = "\u{0}";

/// Rates in pico-dollars a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) input: i64,
    pub(super) read: i64,
    pub(super) write_5m: i64,
    pub(super) write_1h: i64,
}

impl Rates {
    /// What a cache write of a request cost a token: by what it wrote mostly; without any it is fresh input.
    pub(super) fn write_of(&self, request: &Request) -> i64 {
        match (request.cache_write_5m, request.cache_write_1h) {
            (0, 0) => self.input,
            (short, long) if short >= long => self.write_5m,
            _ => self.write_1h,
        }
    }
}

/// Tokens at a rate, in nano-dollars.
pub(super) fn cost(tokens: i64, pico_per_token: i64) -> i64 {
    let nano = i128::from(tokens) * i128::from(pico_per_token) / PICO_PER_NANO;
    i64::try_from(nano).unwrap_or(if nano < 0 { i64::MIN } else { i64::MAX })
}

/// One agent's requests in order.
pub(super) struct Asked<'t> {
    pub(super) requests: Vec<(&'t Request, Option<Rates>)>,
    /// Sums of the read rates before each request; unknown ones count in `unknown`.
    read_before: Vec<i64>,
    unknown_before: Vec<u32>,
    /// Places at which the context begins anew.
    breaks: Vec<usize>,
}

impl Asked<'_> {
    /// What a text of `tokens` that came at `at_ms` cost: it is written once, and read by every later request up to the next
    /// compaction. None where a price is not known.
    pub(super) fn carried(&self, at_ms: i64, tokens: i64) -> Option<i64> {
        let first = self.requests.partition_point(|(request, _)| request.ts_ms <= at_ms);
        // What was never sent on cost nothing.
        let Some((request, rates)) = self.requests.get(first) else { return Some(0) };
        let write = rates.as_ref()?.write_of(request);
        let next_break = self.breaks.partition_point(|place| *place <= first);
        let end = self.breaks.get(next_break).copied().unwrap_or(self.requests.len());
        if self.unknown_before[end] != self.unknown_before[first] {
            return None;
        }
        let reads = self.read_before[end].saturating_sub(self.read_before[first + 1]);
        Some(cost(tokens, write).saturating_add(cost(tokens, reads)))
    }

    /// The request that asked for a call: the last one at or before it, else the next.
    pub(super) fn request_of(&self, call: &Call) -> Option<&Request> {
        let after = self.requests.partition_point(|(request, _)| request.ts_ms <= call.at_ms);
        self.requests.get(after.saturating_sub(1)).map(|(request, _)| *request)
    }
}

/// A session in a span.
pub(super) struct View<'t> {
    pub(super) trace: &'t Trace,
    pub(super) prices: &'t PriceTable,
    pub(super) calls: Vec<&'t Call>,
    pub(super) marks: Vec<&'t Mark>,
    /// By agent.
    pub(super) asked: BTreeMap<u32, Asked<'t>>,
}

impl<'t> View<'t> {
    pub(super) fn of(trace: &'t Trace, prices: &'t PriceTable, from_ms: i64, to_ms: i64) -> Self {
        let within = |ms: i64| (from_ms..to_ms).contains(&ms);
        let calls = trace.calls.iter().filter(|call| within(call.at_ms)).collect();
        let marks: Vec<&Mark> = trace.marks.iter().filter(|mark| within(mark.ts_ms)).collect();
        let mut by_agent: BTreeMap<u32, Vec<&Request>> = BTreeMap::new();
        for request in
            trace.requests.iter().filter(|request| within(request.ts_ms) && is_of_the_work(request))
        {
            by_agent.entry(request.agent).or_default().push(request);
        }
        let asked = by_agent.into_iter().map(|(agent, requests)| (agent, asked(requests, prices))).collect();
        Self { trace, prices, calls, marks, asked }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.asked.is_empty() && self.marks.is_empty()
    }

    pub(super) fn agent_type(&self, agent: u32) -> &'t str {
        self.trace.agents.get(agent as usize).map_or("", |agent| agent.agent_type.as_str())
    }

    pub(super) fn is_main(&self, agent: u32) -> bool {
        self.trace.agents.get(agent as usize).is_none_or(|agent| agent.agent_id.is_empty())
    }

    /// What `tokens` that came with a call cost; see [`Asked::carried`].
    pub(super) fn carried(&self, call: &Call, tokens: i64) -> Option<i64> {
        self.asked.get(&call.agent)?.carried(call.ended_ms.unwrap_or(call.at_ms), tokens)
    }

    /// What the request that asked for a call cost; 0 where it is among those counted already.
    pub(super) fn asked_for(&self, call: &Call, counted: &mut HashSet<i64>) -> Option<i64> {
        let request = self.asked.get(&call.agent)?.request_of(call)?;
        if counted.insert(request.id) { request.cost_nano_usd } else { Some(0) }
    }

    /// What a request would cost on another model, in nano-dollars.
    pub(super) fn quote(&self, model: &str, request: &Request) -> Option<i64> {
        let usage = Usage {
            input: count(request.input),
            output: count(request.output),
            cache_read: count(request.cache_read),
            cache_write_5m: count(request.cache_write_5m),
            cache_write_1h: count(request.cache_write_1h),
            web_searches: 0,
        };
        self.prices
            .quote(model, &usage, &Terms::default(), at(request.ts_ms))
            .map(|quote| quote.total_nano_usd)
    }

    /// When an agent's context was compacted.
    pub(super) fn compactions(&self) -> HashMap<u32, Vec<i64>> {
        let mut found: HashMap<u32, Vec<i64>> = HashMap::new();
        for mark in &self.marks {
            if matches!(mark.kind, MarkKind::Compaction { .. }) {
                found.entry(mark.agent).or_default().push(mark.ts_ms);
            }
        }
        found
    }
}

fn count(tokens: i64) -> u64 {
    u64::try_from(tokens).unwrap_or(0)
}

/// Requests of the client's own (titles, summaries) have another prompt: they say nothing about the agent's cache.
fn is_of_the_work(request: &Request) -> bool {
    !matches!(request.query_source.as_str(), "auxiliary" | "compact") && &*request.model != "<synthetic>"
}

fn asked<'t>(requests: Vec<&'t Request>, prices: &PriceTable) -> Asked<'t> {
    let priced: Vec<(&Request, Option<Rates>)> =
        requests.into_iter().map(|request| (request, rates(request, prices))).collect();
    let (mut read_before, mut unknown_before, mut breaks) = (vec![0i64], vec![0u32], Vec::new());
    let (mut read, mut unknown) = (0i64, 0u32);
    for (place, (request, rates)) in priced.iter().enumerate() {
        read = read.saturating_add(rates.map_or(0, |rates| rates.read));
        unknown += u32::from(rates.is_none());
        read_before.push(read);
        unknown_before.push(unknown);
        let before = place.checked_sub(1).and_then(|before| priced.get(before));
        if before.is_some_and(|(before, _)| has_shrunk(before, request)) {
            breaks.push(place);
        }
    }
    Asked { requests: priced, read_before, unknown_before, breaks }
}

/// Tokens that a request was asked with, whatever its rows say.
pub(super) const fn context(request: &Request) -> i64 {
    request
        .input
        .saturating_add(request.cache_read)
        .saturating_add(request.cache_write_5m)
        .saturating_add(request.cache_write_1h)
}

/// Whether the context of a request is another one than that of the request before.
pub(super) fn has_shrunk(before: &Request, request: &Request) -> bool {
    i128::from(context(request)) * 100 < i128::from(context(before)) * i128::from(SHRUNK_PERCENT)
}

fn rates(request: &Request, prices: &PriceTable) -> Option<Rates> {
    let rates = prices.row_at(&request.model, at(request.ts_ms))?.rates;
    let pico = |rate: taffrail_event::prices::Rate| i64::try_from(rate.pico_usd_per_token()).ok();
    Some(Rates {
        input: pico(rates.input)?,
        read: pico(rates.cache_read?)?,
        write_5m: pico(rates.cache_write_5m?)?,
        write_1h: pico(rates.cache_write_1h?)?,
    })
}
