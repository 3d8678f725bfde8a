//! What a detector found: the noun, the evidence, the money, and what to do about it.

use std::sync::Arc;

use serde::Serialize;
pub use taffrail_event::event::Severity;

use crate::detectors::Detector;

/// The most calls that a finding names; the newest, since the oldest are in its count.
pub const CALLS_MAX: usize = 8;
/// The longest text of a finding that comes from outside, in characters.
pub const TEXT_MAX_CHARS: usize = 160;

/// Where an episode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It begins: the trigger holds for the first time.
    Fired,
    /// It goes on, and its level doubled since it was told last, or its severity rose.
    Escalated,
    /// It is over.
    Resolved,
}

impl Phase {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
        }
    }
}

/// One detector's word on one episode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The same for all findings of one episode, and for the same episode after a restart: detector, scope, pattern, and
    /// when it began.
    pub id: String,
    /// Which detector.
    pub detector: Detector,
    /// Begun, worse, over.
    pub phase: Phase,
    /// How much it matters.
    pub severity: Severity,
    /// Whom it is about.
    pub scope: Scope,
    /// When the pattern began, in milliseconds since the epoch: the first of the calls or requests that make it.
    pub began_ms: i64,
    /// When it was found, or found to be over.
    pub at_ms: i64,
    /// One line for a person: a fixed sentence with figures and, at its end, a capped text of the agent's.
    pub summary: String,
    /// What it rests on.
    pub evidence: Evidence,
    /// What was spent since the pattern began.
    pub cost: Cost,
    /// What to do.
    #[serde(serialize_with = "response")]
    pub response: &'static Response,
}

fn response<S: serde::Serializer>(response: &&'static Response, serializer: S) -> Result<S::Ok, S::Error> {
    (**response).serialize(serializer)
}

/// Whom a finding is about; empty where it is about more than one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Scope {
    #[serde(serialize_with = "text")]
    pub session_id: Arc<str>,
    #[serde(serialize_with = "text")]
    pub app: Arc<str>,
    #[serde(serialize_with = "text")]
    pub user: Arc<str>,
    /// Empty for the main agent, and where the whole session is meant.
    #[serde(serialize_with = "text")]
    pub agent_id: Arc<str>,
    #[serde(serialize_with = "text")]
    pub agent_type: Arc<str>,
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// What a finding rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// Figures, the deciding one first.
    pub figures: Vec<Figure>,
    /// The newest of the calls that make the pattern, at most [`CALLS_MAX`].
    pub calls: Vec<CallRef>,
    /// Words of the agent or its tools: a command, a path, a model. At most [`TEXT_MAX_CHARS`] characters each.
    pub texts: Vec<Text>,
}

/// One figure with its name and unit, and the threshold it was held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: Unit,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// One text with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Text {
    pub name: &'static str,
    pub value: String,
}

/// The unit of a [`Figure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Unit {
    Count,
    Ms,
    Usd,
    UsdPerHour,
    Percent,
    Tokens,
    Ratio,
    Score,
}

/// A call by its row and by the client's own id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CallRef {
    pub id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
}

/// Money, and how much of it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Nano-dollars of the priced requests; none where no request was priced, or none was seen.
    pub nano_usd: Option<i64>,
    /// Requests counted.
    pub requests: u64,
    /// Those among them without a price: the true cost is more.
    pub unpriced: u64,
}

impl Cost {
    /// Of so many requests, some without a price.
    pub fn of(nano_usd: i64, requests: u64, unpriced: u64) -> Self {
        Self { nano_usd: (requests > unpriced || nano_usd > 0).then_some(nano_usd), requests, unpriced }
    }

    /// Known dollars; 0 where none are known: for comparisons with a floor, never for showing.
    pub(crate) fn known_usd(self) -> f64 {
        usd(self.nano_usd.unwrap_or(0))
    }
}

/// Nano-dollars as dollars.
#[allow(clippy::cast_precision_loss, reason = "cents matter here, not nano-dollars")]
pub(crate) fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

/// What is prescribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Response {
    /// What a rule built on the detector does by default, the mildest first.
    pub actions: &'static [Action],
    /// For the person.
    pub person: &'static str,
    /// For the agent, as context.
    pub agent: &'static str,
}

/// The vocabulary of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Notify,
    Pause,
    Throttle,
    Stop,
    Investigate,
}

/// A text from outside, cut at [`TEXT_MAX_CHARS`], without control characters.
pub(crate) fn capped(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut head: String = chars.by_ref().take(TEXT_MAX_CHARS).collect();
    if chars.next().is_some() {
        head.pop();
        head.push('…');
    }
    head
}

impl Evidence {
    pub(crate) fn figure(mut self, name: &'static str, value: f64, unit: Unit) -> Self {
        debug_assert!(value.is_finite(), "{name}");
        self.figures.push(Figure { name, value, unit, threshold: None });
        self
    }

    pub(crate) fn against(mut self, name: &'static str, value: f64, unit: Unit, threshold: f64) -> Self {
        debug_assert!(value.is_finite() && threshold.is_finite(), "{name}");
        self.figures.push(Figure { name, value, unit, threshold: Some(threshold) });
        self
    }

    pub(crate) fn text(mut self, name: &'static str, value: &str) -> Self {
        self.texts.push(Text { name, value: capped(value) });
        self
    }

    pub(crate) fn calls(mut self, calls: impl IntoIterator<Item = CallRef>) -> Self {
        self.calls = calls.into_iter().take(CALLS_MAX).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_price_is_no_zero() {
        assert_eq!(Cost::of(0, 0, 0).nano_usd, None);
        assert_eq!(Cost::of(0, 2, 2).nano_usd, None);
        assert_eq!(Cost::of(0, 2, 1).nano_usd, Some(0));
    }

    #[test]
    fn a_text_from_outside_is_cut_and_tame() {
        let long = capped(&"é\n".repeat(5_000));
        assert_eq!(long.chars().count(), TEXT_MAX_CHARS);
        assert!(long.ends_with('…') && !long.contains('\n'));
        assert_eq!(capped("short"), "short");
    }
}
