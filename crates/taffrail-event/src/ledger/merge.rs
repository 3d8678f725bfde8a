//! From what many sources say of one API request to what is known of it.
//!
//! [`ApiRequest`] is a join-semilattice: every field keeps the greatest (or the smallest) of what was said, by an order
//! that leaves no ties, so that joining is commutative, associative and idempotent, and a row is the same for every
//! order, batching and repetition of its sightings. What depends on prices is not part of it: see
//! [`ApiRequest::settle`].

use crate::ids::TimestampMs;
use crate::ledger::{Confidence, RequestSighting, Speed, Terms, Usage, Witness};
use crate::prices::PriceTable;

/// Something told, with how much the teller's word counts; the greater word wins, then the greater value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told<T> {
    /// How much the teller's word counts: see [`authority`].
    pub rank: u8,
    /// What was told.
    pub value: T,
}

/// How much a witness's word counts where several name the same thing: 1 to 4, so that 0 is nobody's.
pub const fn authority(witness: Witness) -> u8 {
    match witness {
        Witness::OtlpLog => 4,
        Witness::Transcript => 3,
        Witness::Progress => 2,
        Witness::OtlpSpan => 1,
    }
}

/// The best usage that lines of transcripts show: the one with the most output; among equals the greatest of all
/// counts, then a final one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineUsage {
    /// The tokens.
    pub usage: Usage,
    /// Whether a stop reason stood beside it. A copy whose counts were zeroed has one, too, and is not final.
    pub is_final: bool,
}

impl LineUsage {
    const fn order(&self) -> (u64, Usage, bool) {
        (self.usage.output, self.usage, self.is_final)
    }
}

/// What is known of one API request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// Ids of the vendor's answer, ascending. There is one; more where sources contradict each other.
    pub message_ids: Vec<String>,
    /// The vendor's request ids, ascending.
    pub request_ids: Vec<String>,
    /// The earliest time any source gives.
    pub ts: TimestampMs,
    /// When the session's file was begun that begins first of those that show it; the smallest time by OTLP.
    pub born: TimestampMs,
    /// That session: the request is its.
    pub session_id: String,
    /// Other sessions that show it (forks and resumes copy lines), ascending.
    pub copies: Vec<String>,
    /// The subagent; whoever names one knows better than who names none.
    pub agent_id: Option<String>,
    /// The subagent's type.
    pub agent_type: Option<Told<String>>,
    /// The prompt.
    pub prompt_id: Option<Told<String>>,
    /// The model.
    pub model: Option<Told<String>>,
    /// Fast where any source says so.
    pub speed: Speed,
    /// The service tier.
    pub service_tier: Option<Told<String>>,
    /// Where inference was bound to run.
    pub inference_geo: Option<Told<String>>,
    /// Why the client asked.
    pub query_source: Option<Told<String>>,
    /// Reasoning effort.
    pub effort: Option<Told<String>>,
    /// Why the answer ended.
    pub stop_reason: Option<Told<String>>,
    /// Wall time, in milliseconds.
    pub duration_ms: Option<Told<u64>>,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: Option<Told<u64>>,
    /// Attempts it took.
    pub attempts: Option<u32>,
    /// What the client says it cost, in nano-dollars.
    pub told_cost_nano_usd: Option<i64>,
    /// Bits of [`Witness`].
    pub sources: u8,
    /// Usage by OTLP: a log record's word counts more than a span's.
    pub otlp: Option<Told<Usage>>,
    /// Usage by lines of transcripts.
    pub line: Option<LineUsage>,
}

/// What a request comes to, once prices are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The tokens that are billed, as far as they are known.
    pub usage: Usage,
    /// What they cost, in nano-dollars; none where the model has no known price.
    pub cost_nano_usd: Option<i64>,
    /// How sure that is.
    pub confidence: Confidence,
    /// The output that the transcript gave, where another source gave the final one.
    pub provisional_output: Option<u64>,
}

impl ApiRequest {
    /// What one sighting alone tells.
    pub fn of(sighting: &RequestSighting) -> Self {
        Self::from(sighting.clone())
    }

    /// Takes in another sighting of the same request.
    pub fn see(&mut self, sighting: &RequestSighting) {
        self.join(Self::of(sighting));
    }

    /// Takes in what another state knows of the same request.
    pub fn join(&mut self, other: Self) {
        unite(&mut self.message_ids, other.message_ids);
        unite(&mut self.request_ids, other.request_ids);
        self.ts = self.ts.min(other.ts);
        self.join_owner(other.born, other.session_id, other.copies);
        self.agent_id = match (self.agent_id.take(), other.agent_id) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        greater(&mut self.agent_type, other.agent_type);
        greater(&mut self.prompt_id, other.prompt_id);
        greater(&mut self.model, other.model);
        self.speed = self.speed.max(other.speed);
        greater(&mut self.service_tier, other.service_tier);
        greater(&mut self.inference_geo, other.inference_geo);
        greater(&mut self.query_source, other.query_source);
        greater(&mut self.effort, other.effort);
        greater(&mut self.stop_reason, other.stop_reason);
        greater(&mut self.duration_ms, other.duration_ms);
        greater(&mut self.ttft_ms, other.ttft_ms);
        greater(&mut self.attempts, other.attempts);
        greater(&mut self.told_cost_nano_usd, other.told_cost_nano_usd);
        self.sources |= other.sources;
        greater(&mut self.otlp, other.otlp);
        if self.line.as_ref().map(LineUsage::order) < other.line.as_ref().map(LineUsage::order) {
            self.line = other.line;
        }
    }

    fn join_owner(&mut self, born: TimestampMs, session_id: String, copies: Vec<String>) {
        let is_before = (born, &session_id) < (self.born, &self.session_id);
        let other = if is_before {
            self.born = born;
            std::mem::replace(&mut self.session_id, session_id)
        } else {
            session_id
        };
        if other == self.session_id && copies.is_empty() && !self.copies.contains(&other) {
            return;
        }
        unite(&mut self.copies, copies);
        unite(&mut self.copies, vec![other]);
        let owner = &self.session_id;
        self.copies.retain(|copy| copy != owner);
    }

    /// The model; empty where no source names it.
    pub fn model_name(&self) -> &str {
        self.model.as_ref().map_or("", |told| told.value.as_str())
    }

    /// What beside the tokens decides the price.
    pub fn terms(&self) -> Terms {
        let text = |told: &Option<Told<String>>| told.as_ref().map(|told| told.value.clone());
        Terms {
            speed: self.speed,
            service_tier: text(&self.service_tier),
            inference_geo: text(&self.inference_geo),
        }
    }

    /// The tokens: those of OTLP, else those of the transcript. How cache writes divide, and web searches, OTLP does not
    /// always tell; the transcript does.
    pub fn usage(&self) -> Usage {
        let line = self.line.map(|line| line.usage);
        let Some(otlp) = self.otlp.as_ref().map(|told| told.value) else { return line.unwrap_or_default() };
        let Some(line) = line else { return otlp };
        let mut usage = Usage { web_searches: otlp.web_searches.max(line.web_searches), ..otlp };
        if written(&otlp) == written(&line) {
            usage.cache_write_5m = line.cache_write_5m;
            usage.cache_write_1h = line.cache_write_1h;
        }
        usage
    }

    /// Usage, cost and confidence by a price table.
    pub fn settle(&self, prices: &PriceTable) -> Settled {
        let usage = self.usage();
        let quote = prices.quote(self.model_name(), &usage, &self.terms(), self.ts);
        let differs = |line: &LineUsage| {
            let counts = |u: &Usage| (u.input, u.output, u.cache_read, written(u));
            counts(&line.usage) != counts(&usage)
        };
        let confidence = match (&quote, &self.otlp, &self.line) {
            (None, ..) => Confidence::Unpriced,
            (_, Some(_), Some(line)) if differs(line) => Confidence::Repaired,
            (_, Some(_), _) => Confidence::Exact,
            (_, None, Some(line)) if line.is_final => Confidence::Exact,
            (_, None, _) => Confidence::LowerBound,
        };
        let provisional = self.line.filter(|line| self.otlp.is_some() && line.usage.output != usage.output);
        Settled {
            usage,
            cost_nano_usd: quote.map(|quote| quote.total_nano_usd),
            confidence,
            provisional_output: provisional.map(|line| line.usage.output),
        }
    }
}

impl From<RequestSighting> for ApiRequest {
    fn from(s: RequestSighting) -> Self {
        let rank = authority(s.witness);
        let told = |value: Option<String>| value.filter(|v| !v.is_empty()).map(|value| Told { rank, value });
        let number = |value: Option<u64>| value.map(|value| Told { rank, value });
        let by_otlp = matches!(s.witness, Witness::OtlpLog | Witness::OtlpSpan);
        let (otlp, line) = match s.usage {
            Some(value) if by_otlp => (Some(Told { rank, value }), None),
            Some(usage) => (None, Some(LineUsage { usage, is_final: s.is_final && usage.output > 0 })),
            None => (None, None),
        };
        Self {
            message_ids: s.message_id.into_iter().collect(),
            request_ids: s.request_id.into_iter().collect(),
            ts: s.ts,
            born: s.born,
            session_id: s.session_id,
            copies: Vec::new(),
            agent_id: s.agent_id.filter(|id| !id.is_empty()),
            agent_type: told(s.agent_type),
            prompt_id: told(s.prompt_id),
            model: told(Some(s.model)),
            speed: s.terms.speed,
            service_tier: told(s.terms.service_tier),
            inference_geo: told(s.terms.inference_geo),
            query_source: told(s.query_source),
            effort: told(s.effort),
            stop_reason: told(s.stop_reason),
            duration_ms: number(s.duration_ms),
            ttft_ms: number(s.ttft_ms),
            attempts: s.attempts,
            told_cost_nano_usd: s.told_cost_nano_usd,
            sources: s.witness.bit(),
            otlp,
            line,
        }
    }
}

const fn written(usage: &Usage) -> u64 {
    usage.cache_write_5m.saturating_add(usage.cache_write_1h)
}

fn greater<T: Ord>(slot: &mut Option<T>, other: Option<T>) {
    if *slot < other {
        *slot = other;
    }
}

/// The union of two ascending lists.
fn unite(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if let Err(place) = list.binary_search(&item) {
            list.insert(place, item);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_sighting() -> impl Strategy<Value = RequestSighting> {
        let word = || prop::option::of(prop::sample::select(vec!["a", "b", "c"]));
        let counts = (0..3u64, prop::sample::select(vec![0, 1, 40]), 0..3u64, 0..2u64, 0..2u64, 0..2u64);
        (
            (0..4usize, 0..5i64, 0..3i64, 0..3usize, word(), word()),
            (word(), word(), word(), word(), prop::option::of(counts)),
            (any::<bool>(), any::<bool>(), prop::option::of(0..3u64), prop::option::of(0..3i64)),
        )
            .prop_map(|(a, b, c)| {
                let text = |word: Option<&str>| word.map(str::to_owned);
                RequestSighting {
                    witness: Witness::ALL[a.0],
                    ts: TimestampMs::clamped(1_795_342_500_000 + a.1),
                    born: TimestampMs::clamped(1_795_342_500_000 + a.2),
                    session_id: format!("session{}", a.3),
                    message_id: text(a.4),
                    request_id: text(a.5),
                    agent_id: text(b.0),
                    agent_type: text(b.1),
                    prompt_id: text(b.2),
                    app: None,
                    user: None,
                    model: text(b.3).unwrap_or_default(),
                    usage: b.4.map(|u| Usage {
                        input: u.0,
                        output: u.1,
                        cache_read: u.2,
                        cache_write_5m: u.3,
                        cache_write_1h: u.4,
                        web_searches: u.5,
                    }),
                    is_final: c.0,
                    terms: Terms { speed: Speed::of(c.1.then_some("fast")), ..Terms::default() },
                    query_source: text(b.0),
                    effort: text(b.1),
                    stop_reason: text(b.2),
                    duration_ms: c.2,
                    ttft_ms: c.2,
                    attempts: c.2.map(|n| n as u32),
                    told_cost_nano_usd: c.3,
                }
            })
    }

    fn joined<'s>(sightings: impl IntoIterator<Item = &'s RequestSighting>) -> ApiRequest {
        let mut states = sightings.into_iter().map(ApiRequest::of);
        let mut all = states.next().unwrap();
        states.for_each(|state| all.join(state));
        all
    }

    proptest! {
        #[test]
        fn joining_is_commutative_associative_and_idempotent(
            sightings in prop::collection::vec(any_sighting(), 3..8),
            cut in 1usize..3,
        ) {
            let forth = joined(&sightings);
            prop_assert_eq!(&joined(sightings.iter().rev()), &forth);
            let (left, right) = sightings.split_at(cut);
            let mut halves = joined(right);
            halves.join(joined(left));
            prop_assert_eq!(&halves, &forth);
            let mut twice = forth.clone();
            twice.join(forth.clone());
            prop_assert_eq!(&twice, &forth);
            for sighting in &sightings {
                twice.see(sighting);
            }
            prop_assert_eq!(twice, forth);
        }

        #[test]
        fn the_owner_is_begun_first_and_the_usage_is_by_the_best_witness(
            sightings in prop::collection::vec(any_sighting(), 1..8),
        ) {
            let request = joined(&sightings);
            let owner = sightings.iter().map(|s| (s.born, s.session_id.clone())).min().unwrap();
            prop_assert_eq!((request.born, request.session_id.clone()), owner);
            let by = |witness: Witness| {
                let told = sightings.iter().filter(move |s| s.witness == witness);
                told.filter_map(|s| s.usage).max()
            };
            let lines = sightings.iter().filter(|s| {
                matches!(s.witness, Witness::Transcript | Witness::Progress)
            });
            let line = lines.filter_map(|s| s.usage).max_by_key(|u| (u.output, *u));
            let output = by(Witness::OtlpLog).or(by(Witness::OtlpSpan)).or(line).map_or(0, |u| u.output);
            prop_assert_eq!(request.usage().output, output);
        }
    }

    #[test]
    fn a_zeroed_copy_is_never_final_and_never_wins() {
        let line = |output: u64, cache_write_5m: u64| LineUsage {
            usage: Usage { output, cache_write_5m, ..Usage::default() },
            is_final: output > 0,
        };
        assert!(line(0, 130).order() < line(1, 0).order());
    }
}
