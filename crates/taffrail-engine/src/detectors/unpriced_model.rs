//! Unpriced model: requests whose price nobody knows, so that no budget holds against them.
//!
//! Once for each model, over all sessions; told again when the requests have doubled. A price for the model ends it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use taffrail_analytics::trace::Request;

use super::{Detector, Scene};
use crate::bounded::{Lru, key_of};
use crate::config::{Check, ConfigError};
use crate::episode::{About, Episodes, Reading};
use crate::finding::{Action, Cost, Evidence, Finding, Response, Severity, Unit};
use crate::signal::SessionKey;

/// What it is.
pub const NOUN: &str = "model without a price";
/// What it prescribes.
pub const RESPONSE: Response = Response {
    actions: &[Action::Notify],
    person: "What this model costs is not known, and no budget holds against it. Give it a price in prices.toml, then reprice.",
    agent: "What this model costs is not known. Use a model of the price table where you have the choice.",
};

/// Models that are remembered.
pub const MODELS_MAX: usize = 64;
/// The name the client gives to messages of its own.
const SYNTHETIC: &str = "<synthetic>";

/// `[detectors.unpriced_model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether it judges.
    pub enabled: bool,
    /// Requests of a model. 1: the first already escapes every budget.
    pub requests: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, requests: 1 }
    }
}

impl Options {
    pub(crate) fn check(&self, check: &Check) -> Result<(), ConfigError> {
        check.count("requests", self.requests, 1, 100_000)
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    requests: u32,
    tokens: i64,
    began_ms: i64,
}

/// Models without a price, of all sessions.
#[derive(Clone, Debug)]
pub(crate) struct UnpricedModel {
    models: Lru<Arc<str>, Asked>,
}

impl Default for UnpricedModel {
    fn default() -> Self {
        Self { models: Lru::new(MODELS_MAX) }
    }
}

impl UnpricedModel {
    pub(crate) fn asked(
        &mut self,
        scene: &Scene<'_>,
        request: &Request,
        new: bool,
        episodes: &mut Episodes,
        out: &mut Vec<Finding>,
    ) {
        let options = &scene.config.unpriced_model;
        if !options.enabled || request.model.is_empty() || &*request.model == SYNTHETIC {
            return;
        }
        let all = SessionKey::default();
        let pattern = key_of(&[request.model.as_bytes()]);
        if request.cost_nano_usd.is_some() {
            if self.models.len() > 0 && self.models.remove(&request.model).is_some() {
                episodes.over(Detector::UnpricedModel, &all.session_id, pattern, scene.at_ms, out);
            }
            return;
        }
        let tokens = [
            request.input,
            request.output,
            request.cache_read,
            request.cache_write_5m,
            request.cache_write_1h,
        ]
        .iter()
        .fold(0i64, |sum, tokens| sum.saturating_add(*tokens));
        if !new || tokens <= 0 {
            return;
        }
        let first = || Asked { requests: 0, tokens: 0, began_ms: scene.at_ms };
        let (asked, _) = self.models.entry(request.model.clone(), first);
        asked.requests = asked.requests.saturating_add(1);
        asked.tokens = asked.tokens.saturating_add(tokens);
        if asked.requests < options.requests {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "tokens")]
        let tokens = asked.tokens as f64;
        let requests = f64::from(asked.requests);
        let reading = Reading {
            pattern,
            level: requests,
            severity: Severity::Warning,
            began_ms: asked.began_ms,
            summary: crate::finding::capped(&format!(
                "{requests:.0} requests of a model without a price: {}",
                request.model
            )),
            evidence: Evidence::default()
                .against("requests", requests, Unit::Count, f64::from(options.requests))
                .figure("tokens", tokens, Unit::Tokens)
                .text("model", &request.model),
            cost: Cost::of(0, u64::from(asked.requests), u64::from(asked.requests)),
        };
        let about = About { key: &all, agent_id: &all.session_id, agent_type: &all.session_id };
        episodes.holds(about, Detector::UnpricedModel, scene.at_ms, reading, out);
    }
}
