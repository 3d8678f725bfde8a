//! Silent spend: money goes out and nothing comes of it.
//!
//! Since the session last changed a file or something in git, and since a person's last prompt, two forms:
//! - at least `usd` dollars and `calls` calls, of which at most `fresh_percent` told anything new (a tool, input and
//!   result that this session has not had before, of the last [`REMEMBERED_MAX`]);
//! - at least `talk_requests` requests and `talk_usd` dollars without a single call: an agent that talks to itself, as one
//!   does whose Stop hook sends it back to work each time.
//!
//! Both over at least [`SPAN_MIN_MS`] from the first of those requests to the last: of what carries one and the same time
//! nothing can be said. An agent that reads much and changes nothing learns; it is not silent.

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::Call;

use super::{Detector, Out, Scene, call_ref};
use crate::bounded::{Lru, Ring, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::Reading;
use crate::finding::{Action, CALLS_MAX, CallRef, Evidence, Response, Severity, Unit};
use crate::nature::Nature;
use crate::signal::Via;

/// What it is.
pub const NOUN: &str = "silent spend";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify, Action::Pause],
    person: "Money goes out and nothing new comes of it. Pause the session and see what it waits for.",
    agent: "Your last calls told nothing new and changed nothing. Say what you wait for, and stop until it is there.",
};

/// Less time than this has no rate: records whose times were lost in a conversion all carry one.
pub const SPAN_MIN_MS: i64 = 60_000;
/// Calls that are remembered of one session.
pub const REMEMBERED_MAX: usize = 256;

/// `[detectors.silent_spend]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Spent without effect, in US dollars. 3: an hour of polling.
    pub usd: f64,
    /// Calls without effect.
    pub calls: u32,
    /// At most so much of them told anything new, in percent.
    pub fresh_percent: u32,
    /// Requests without a call.
    pub talk_requests: u32,
    /// Spent on those, in US dollars.
    pub talk_usd: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, usd: 3.0, calls: 20, fresh_percent: 25, talk_requests: 25, talk_usd: 1.0 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.number("usd", self.usd, 0.0, 1e6)?;
        check.count("calls", self.calls, 1, 100_000)?;
        check.count("fresh_percent", self.fresh_percent, 0, 100)?;
        check.count("talk_requests", self.talk_requests, 2, 100_000)?;
        check.number("talk_usd", self.talk_usd, 0.0, 1e6)
    }
}

/// The state of one session.
#[derive(Clone, Debug)]
pub(crate) struct SilentSpend {
    seen: Lru<u64, ()>,
    newest: Ring<CallRef>,
    began_ms: Option<i64>,
    calls: u32,
    fresh: u32,
    /// Whether a hook told of the session: who only sees its requests knows nothing of its calls.
    is_heard: bool,
}

impl Default for SilentSpend {
    fn default() -> Self {
        Self {
            seen: Lru::new(REMEMBERED_MAX),
            newest: Ring::new(CALLS_MAX),
            began_ms: None,
            calls: 0,
            fresh: 0,
            is_heard: false,
        }
    }
}

impl SilentSpend {
    pub(crate) fn ended(&mut self, scene: &Scene<'_>, call: &Call, nature: Nature, out: &mut Out<'_>) {
        self.is_heard = true;
        if !scene.config.silent_spend.enabled || nature.bookkeeping {
            return;
        }
        if nature.changed {
            return self.attended(scene, out);
        }
        self.began_ms.get_or_insert(scene.at_ms);
        self.calls = self.calls.saturating_add(1);
        self.newest.push(call_ref(call));
        let result = call.result_hash.unwrap_or_default();
        let what = key_of(&[
            &call.input_hash.to_le_bytes(),
            &result.to_le_bytes(),
            &[u8::from(call.error.is_some())],
        ]);
        let known = self.seen.get(&what).is_some();
        self.seen.entry(what, || ());
        // Of a call whose input is not known nothing can be said.
        if !known || call.input_hash == 0 {
            self.fresh = self.fresh.saturating_add(1);
        }
    }

    /// After the request was added to what the session spent.
    pub(crate) fn spent(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        let options = &scene.config.silent_spend;
        if !options.enabled {
            return;
        }
        let began_ms = *self.began_ms.get_or_insert(scene.at_ms);
        let first_ms = scene.session_spend.first_after(began_ms).unwrap_or(scene.at_ms);
        if scene.at_ms.saturating_sub(first_ms) < SPAN_MIN_MS {
            return;
        }
        let cost = scene.session_spend.since(began_ms);
        let spent = cost.known_usd();
        let requests = u32::try_from(cost.requests).unwrap_or(u32::MAX);
        let fresh_percent = f64::from(self.fresh) * 100.0 / f64::from(self.calls.max(1));
        let nothing_new = self.calls >= options.calls
            && fresh_percent <= f64::from(options.fresh_percent)
            && spent >= options.usd;
        let are_calls_told = self.is_heard || scene.via != Via::Witness;
        let talks = are_calls_told
            && self.calls == 0
            && requests >= options.talk_requests
            && spent >= options.talk_usd;
        if !nothing_new && !talks {
            return;
        }
        let floor = if talks { options.talk_usd } else { options.usd };
        let summary = if talks {
            format!("${spent:.2} spent on {requests} requests without a single call")
        } else {
            format!(
                "${spent:.2} spent on {} calls that changed nothing, {fresh_percent:.0} % of them told anything new",
                self.calls
            )
        };
        let reading = Reading {
            pattern: 0,
            level: spent.max(0.01),
            severity: if spent >= 4.0 * floor.max(0.01) { Severity::Critical } else { Severity::Warning },
            began_ms,
            summary,
            evidence: Evidence::default()
                .against("spent", spent, Unit::Usd, floor)
                .figure("calls", f64::from(self.calls), Unit::Count)
                .against("fresh", fresh_percent, Unit::Percent, f64::from(options.fresh_percent))
                .figure("requests", f64::from(requests), Unit::Count)
                .calls(self.newest.iter().cloned()),
            cost,
        };
        out.holds_for_session(scene, Detector::SilentSpend, reading);
    }

    /// Something came of it, or a person is there.
    pub(crate) fn attended(&mut self, scene: &Scene<'_>, out: &mut Out<'_>) {
        self.is_heard = true;
        self.began_ms = Some(scene.at_ms);
        (self.calls, self.fresh) = (0, 0);
        self.newest.clear();
        out.over_for_session(scene, Detector::SilentSpend);
    }
}
