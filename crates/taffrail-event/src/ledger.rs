//! The ledger's vocabulary: what a source tells about one API request, and what is known once all have told.
//!
//! A request is known by its `message.id` (transcripts) and its request id (OTLP, and transcripts as `requestId`).
//! Sources may tell in any order, twice, or never; [`crate::ledger`] types carry what each said, and the merge in the
//! store gives the same row for every order and repetition.

mod merge;

use crate::ids::TimestampMs;

pub use merge::{ApiRequest, LineUsage, Settled, Told, authority};

/// Tokens of one request, by how they are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Usage {
    /// Fresh input: neither read from the cache nor written to it.
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    /// Written to the five-minute cache.
    pub cache_write_5m: u64,
    /// Written to the one-hour cache.
    pub cache_write_1h: u64,
    /// Web searches run by the vendor (`server_tool_use.web_search_requests`).
    pub web_searches: u64,
}

impl Usage {
    /// Everything the model read: the size of the context at this request, in tokens.
    pub const fn context(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write_5m)
            .saturating_add(self.cache_write_1h)
    }

    /// All tokens.
    pub const fn total(&self) -> u64 {
        self.context().saturating_add(self.output)
    }
}

/// How fast a request was to be served; fast mode costs more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Speed {
    #[default]
    Standard,
    Fast,
}

impl Speed {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Fast => "fast",
        }
    }

    /// What a source calls it: `fast`, or anything else (`standard`, `normal`, nothing).
    pub fn of(name: Option<&str>) -> Self {
        if name == Some("fast") { Self::Fast } else { Self::Standard }
    }
}

/// What beside the tokens decides the price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Fast mode or not.
    pub speed: Speed,
    /// `standard`, `priority`, `batch`, ...
    pub service_tier: Option<String>,
    /// Where inference was bound to run: `us`, `global`, ...
    pub inference_geo: Option<String>,
}

/// How sure a row's cost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// The client's own final usage, priced.
    Exact,
    /// Seen with provisional usage, completed from another source.
    Repaired,
    /// Provisional usage only: the true cost is at least this.
    LowerBound,
    /// Derived from the client's running total, not from a request.
    Estimated,
    /// The model has no known price: the cost is not known, and not 0.
    Unpriced,
}

impl Confidence {
    /// Every one, surest first.
    pub const ALL: [Self; 5] =
        [Self::Exact, Self::Repaired, Self::LowerBound, Self::Estimated, Self::Unpriced];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Repaired => "repaired",
            Self::LowerBound => "lower_bound",
            Self::Estimated => "estimated",
            Self::Unpriced => "unpriced",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

/// Who tells about a request. The number is its bit in a row's `sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Witness {
    /// A line of a transcript.
    Transcript = 1,
    /// The client's `claude_code.api_request` log record: final usage and the client's own cost.
    OtlpLog = 2,
    /// The client's `claude_code.llm_request` span: usage without the split of cache writes, and the attempts.
    OtlpSpan = 4,
    /// A subagent's message inside the parent's transcript (`progress` records).
    Progress = 8,
}

impl Witness {
    /// Every one, by bit.
    pub const ALL: [Self; 4] = [Self::Transcript, Self::OtlpLog, Self::OtlpSpan, Self::Progress];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transcript => "transcript",
            Self::OtlpLog => "otlp",
            Self::OtlpSpan => "span",
            Self::Progress => "progress",
        }
    }

    /// Its bit in a row's `sources`.
    pub const fn bit(self) -> u8 {
        self as u8
    }
}

/// What one source tells about one API request. At least one of `message_id` and `request_id` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSighting {
    /// Who tells.
    pub witness: Witness,
    /// When the response came, as this source says.
    pub ts: TimestampMs,
    /// `message.id` of the vendor's answer.
    pub message_id: Option<String>,
    /// The vendor's request id.
    pub request_id: Option<String>,
    /// The session it was seen in. A fork or resume shows the same request in another one, too.
    pub session_id: String,
    /// When that session's file was begun (its first time stamp in file order); for OTLP the smallest time, since it
    /// comes from the session that really asked. Of several sessions that show a request, the one begun first made it.
    pub born: TimestampMs,
    /// The subagent; none for the main agent.
    pub agent_id: Option<String>,
    /// The subagent's type.
    pub agent_type: Option<String>,
    /// The prompt it belongs to.
    pub prompt_id: Option<String>,
    /// The project, where the source knows it.
    pub app: Option<String>,
    /// Who ran the agent, where the source knows it.
    pub user: Option<String>,
    /// The model as the source names it; empty where it does not.
    pub model: String,
    /// Tokens, where the source tells them.
    pub usage: Option<Usage>,
    /// Whether the usage is the request's last word (a stop reason was there, or it comes by OTLP).
    pub is_final: bool,
    /// Speed, tier and place.
    pub terms: Terms,
    /// Why the client asked: `sdk`, `repl_main_thread`, `compact`, `auxiliary`, ...
    pub query_source: Option<String>,
    /// Reasoning effort.
    pub effort: Option<String>,
    /// Why the answer ended.
    pub stop_reason: Option<String>,
    /// Wall time of the request, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: Option<u64>,
    /// Attempts it took, this one included.
    pub attempts: Option<u32>,
    /// What the client says it cost, in nano-dollars.
    pub told_cost_nano_usd: Option<i64>,
}

/// A request, or an attempt at one, that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureSighting {
    /// Who tells.
    pub witness: Witness,
    /// When.
    pub ts: TimestampMs,
    /// What makes another telling the same: the vendor's request id, else the transcript line's `uuid`, else a hash.
    pub key: String,
    /// The session.
    pub session_id: String,
    /// The subagent; none for the main agent.
    pub agent_id: Option<String>,
    /// The model, where it is told.
    pub model: Option<String>,
    /// HTTP status, where there was one.
    pub status_code: Option<u16>,
    /// The message, cut at 512 characters.
    pub message: String,
    /// Which attempt this was, from 1.
    pub attempt: Option<u32>,
    /// How many the client makes at most, or has made.
    pub attempts_max: Option<u32>,
    /// How long the client then waits, in milliseconds.
    pub retry_in_ms: Option<u64>,
    /// Whether the client gave up after it.
    pub exhausted: bool,
}

/// The client's own running total of a session (`cost-state`): cumulative over resumes, a fork's begins with its parent's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTotal {
    /// The session.
    pub session_id: String,
    /// The total, in nano-dollars.
    pub cost_nano_usd: i64,
    /// By model, as the client names it.
    pub models: Vec<ClientModelTotal>,
    /// Whether the client itself did not know a price.
    pub has_unknown_model: bool,
}

/// One model's part of a [`ClientTotal`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and units say it")]
pub struct ClientModelTotal {
    pub model: String,
    pub usage: Usage,
    pub cost_nano_usd: i64,
}

/// Dollars as a source's float, in nano-dollars, rounded to the nearest; none where it is no number or too large.
pub fn nano_usd(dollars: f64) -> Option<i64> {
    let nano = (dollars * 1e9).round();
    #[allow(clippy::cast_possible_truncation, reason = "bounded here")]
    (nano.is_finite() && nano.abs() < 9e18).then_some(nano as i64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_float_of_dollars_is_rounded_to_the_nano_dollar() {
        assert_eq!(nano_usd(0.074_144_000_000_000_02), Some(74_144_000));
        assert_eq!(nano_usd(0.007_549_999_999_999_999), Some(7_550_000));
        assert_eq!(nano_usd(f64::NAN), None);
        assert_eq!(nano_usd(1e40), None);
    }

    #[test]
    fn the_context_is_all_that_was_read() {
        let usage = Usage {
            input: 1,
            output: 2,
            cache_read: 4,
            cache_write_5m: 8,
            cache_write_1h: 16,
            web_searches: 32,
        };
        assert_eq!((usage.context(), usage.total()), (29, 31));
    }
}
