//! One row of the table: what a model costs from one day on.

use crate::ids::TimestampMs;

/// A rate in pico-dollars a token: 1 dollar per million tokens is 1,000,000 of it. So every rate with up to six decimals
/// is an exact integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub(super) u64);

impl Rate {
    /// Pico-dollars a token.
    pub const fn pico_usd_per_token(self) -> u64 {
        self.0
    }

    /// Dollars per million tokens, for showing.
    #[allow(clippy::cast_precision_loss, reason = "bounded by RATE_MAX, far below 2^53")]
    pub fn usd_per_million(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// A multiplier in thousandths: 1.1 is 1,100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(pub(super) u32);

impl Factor {
    /// Changes nothing.
    pub const ONE: Self = Self(1_000);

    /// As a number, for showing.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1e3
    }
}

/// What each kind of token costs. A rate that is none is not sold or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Rates {
    pub input: Rate,
    pub output: Rate,
    pub cache_read: Option<Rate>,
    pub cache_write_5m: Option<Rate>,
    pub cache_write_1h: Option<Rate>,
}

/// How long prompts are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TierKind {
    /// Every token of a request whose prompt is over the threshold, its output too.
    WholeRequest,
    /// Of each kind of token only those over the threshold.
    Marginal,
}

impl TierKind {
    /// The name in the file and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WholeRequest => "whole_request",
            Self::Marginal => "marginal",
        }
    }
}

/// Other rates for long prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tier {
    /// The threshold, in tokens; the tier holds for more than so many.
    pub above: u64,
    /// The rates beyond it.
    pub rates: Rates,
}

/// Who wrote a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// It came with this version.
    #[default]
    Builtin,
    /// The user's own file.
    User,
}

impl Origin {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::User => "user",
        }
    }
}

/// A day, UTC, as the file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    /// What is compared, so it stands first.
    begin: TimestampMs,
    date: jiff::civil::Date,
}

impl Day {
    pub(super) fn of(date: jiff::civil::Date) -> Self {
        let began = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
        let begin = TimestampMs::clamped(began.map_or(i64::MAX, jiff::Timestamp::as_millisecond));
        Self { begin, date }
    }

    /// Its first millisecond.
    pub const fn begin(self) -> TimestampMs {
        self.begin
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.date.fmt(f)
    }
}

/// What a model costs from one day on.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceRow {
    /// The model's exact name, without date.
    pub model: String,
    /// Further exact names.
    pub aliases: Vec<String>,
    /// First day.
    pub effective_from: Day,
    /// First day on which it no longer holds; none: until the next row of the model.
    pub effective_until: Option<Day>,
    /// When the vendor stopped serving the model; says nothing about the price.
    pub retired: Option<Day>,
    /// Rates up to the first tier.
    pub rates: Rates,
    /// How the tiers apply; meaningless without any.
    pub tier_kind: TierKind,
    /// Tiers for long prompts, lowest threshold first.
    pub tiers: Vec<Tier>,
    /// Pico-dollars a web search; none where it is not sold or not known.
    pub web_search_pico_usd: Option<u64>,
    /// Multiplier of fast mode; none where it is not sold or not known.
    pub fast: Option<Factor>,
    /// Multiplier of the batch API; none where it is not sold or not known.
    pub batch: Option<Factor>,
    /// Multipliers by `inference_geo`; a place that is not named costs the same.
    pub geo: Vec<(String, Factor)>,
    /// Multiplier of Bedrock's ids that are bound to a region.
    pub bedrock_regional: Option<Factor>,
    /// Multiplier of Bedrock's ids for government regions; none where it is not sold or not known.
    pub bedrock_gov: Option<Factor>,
    /// Tokens that the client lets into the context.
    pub context_window: Option<u64>,
    /// As `context_window`, where the model's name ends with `[1m]`.
    pub context_window_1m: Option<u64>,
    /// Where the figures were read.
    pub source: Option<String>,
    /// When they were read.
    pub checked: Option<Day>,
    /// What else there is to say.
    pub note: Option<String>,
    /// Who wrote the row.
    pub origin: Origin,
}

impl PriceRow {
    /// Dollars per 1,000 web searches, for showing.
    #[allow(clippy::cast_precision_loss, reason = "bounded by RATE_MAX, far below 2^53")]
    pub fn web_search_usd_per_1000(&self) -> Option<f64> {
        self.web_search_pico_usd.map(|pico| pico as f64 / 1e9)
    }
}
