//! What the fleet's API requests cost: the telemetry that the real client would send of them, as OTLP log records.
//!
//! A function of the session alone, like everything in the demo: its deliveries tell when the model must have answered
//! (before a call, at a stop, at a compaction), and the sizes of what was read and written tell the tokens. So a demo that
//! is started again bills nothing twice.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::{Value, json};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{Terms, Usage};
use taffrail_event::prices::PriceTable;

use super::rng::Rng;
use super::script::{Session, Tick};
use crate::client::Client;

/// Records of one export.
const EXPORT_RECORDS: usize = 500;
/// Bytes of JSON to a token, about.
const BYTES_A_TOKEN: u64 = 4;
/// System prompt and tools: what every context begins with, in tokens.
const FIRST_TOKENS: (u64, u64) = (13_500, 19_000);
/// What a compaction leaves of a context, in tokens.
const COMPACTED_TOKENS: (u64, u64) = (8_000, 12_000);
/// The answer to a tool call thinks and talks beside the call itself, in tokens.
const TALK_TOKENS: (u64, u64) = (60, 900);

/// Records that wait to be sent.
pub(crate) struct Bill<'a> {
    client: &'a Client,
    seed: u64,
    records: Vec<Value>,
}

/// One agent's context.
#[derive(Default)]
struct Context {
    /// Tokens that the next request reads from the cache.
    cached: u64,
    /// Tokens that came since.
    fresh: u64,
    calling: bool,
}

/// One API request of the demo.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    ts_ms: i64,
    model: &'static str,
    usage: Usage,
    source: &'static str,
    agent: Option<(String, String)>,
    prompt_id: String,
}

impl<'a> Bill<'a> {
    pub(crate) fn new(client: &'a Client, seed: u64) -> Self {
        Self { client, seed, records: Vec::new() }
    }

    /// Bills the session's requests after `after_ms`, up to `to_ms`.
    pub(crate) fn add(&mut self, session: &Session, after_ms: i64, to_ms: i64) -> Result<()> {
        for (number, asked) in requests(self.seed, session).into_iter().enumerate() {
            if asked.ts_ms > after_ms && asked.ts_ms <= to_ms {
                self.records.push(record(session, number, &asked));
            }
        }
        if self.records.len() >= EXPORT_RECORDS { self.send() } else { Ok(()) }
    }

    /// Sends what waits.
    pub(crate) fn send(&mut self) -> Result<()> {
        while !self.records.is_empty() {
            let rest = self.records.split_off(self.records.len().min(EXPORT_RECORDS));
            let records = std::mem::replace(&mut self.records, rest);
            let export = json!({"resourceLogs": [{
                "resource": {"attributes": [text("service.name", "claude-code")]},
                "scopeLogs": [{"scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": records}],
            }]});
            let answer = self.client.post("/v1/logs", "application/json", export.to_string().as_bytes())?;
            answer.expect_success("/v1/logs")?;
        }
        Ok(())
    }
}

/// The requests behind a session's deliveries, oldest first.
fn requests(seed: u64, session: &Session) -> Vec<Asked> {
    let mut rng = Rng::new(&[seed, 0x6269_6c6c, first_bytes(&session.session_id)]);
    // Most work on the large model; who does not keeps to the other one.
    let main_model = if rng.chance(0.75) { "claude-opus-5-5" } else { "claude-sonnet-5-5" };
    let mut contexts: HashMap<String, Context> = HashMap::new();
    let mut asked = Vec::new();
    for tick in &session.ticks {
        let word = |key: &str| tick.payload[key].as_str().unwrap_or_default();
        let agent = (word("agent_id").to_owned(), word("agent_type").to_owned());
        let context = contexts.entry(agent.0.clone()).or_insert_with(|| Context {
            fresh: rng.between(FIRST_TOKENS.0, FIRST_TOKENS.1),
            ..Context::default()
        });
        let model = if agent.0.is_empty() { main_model } else { "claude-haiku-5-5" };
        let usage = match word("hook_event_name") {
            // Calls of one answer begin together.
            "PreToolUse" if context.calling => {
                context.fresh += tokens(&tick.payload["tool_input"]);
                None
            }
            "PreToolUse" => {
                context.calling = true;
                Some((context.ask(&mut rng, tokens(&tick.payload["tool_input"])), "repl_main_thread", model))
            }
            "Stop" | "SubagentStop" => {
                context.calling = false;
                let answer = tokens(&tick.payload["last_assistant_message"]);
                Some((context.ask(&mut rng, answer), "repl_main_thread", model))
            }
            "PreCompact" => {
                let usage = context.ask(&mut rng, 900);
                *context = Context {
                    fresh: rng.between(COMPACTED_TOKENS.0, COMPACTED_TOKENS.1),
                    ..Context::default()
                };
                Some((usage, "compact", "claude-haiku-5-5"))
            }
            "UserPromptSubmit" => {
                context.calling = false;
                context.fresh += tokens(&tick.payload["prompt"]);
                None
            }
            _ => {
                context.calling &= word("hook_event_name") != "PostToolBatch";
                context.fresh += tokens(&tick.payload["tool_response"]);
                None
            }
        };
        if let Some((usage, source, model)) = usage {
            asked.push(Asked {
                ts_ms: before(tick, &mut rng),
                model,
                usage,
                source,
                agent: (!agent.0.is_empty()).then_some(agent),
                prompt_id: word("prompt_id").to_owned(),
            });
        }
    }
    asked
}

impl Context {
    /// One request over this context, which grows by what was answered.
    fn ask(&mut self, rng: &mut Rng, answer: u64) -> Usage {
        let output = answer + rng.between(TALK_TOKENS.0, TALK_TOKENS.1);
        let usage = Usage {
            input: rng.between(3, 12),
            output,
            cache_read: self.cached,
            cache_write_5m: self.fresh,
            ..Usage::default()
        };
        self.cached += self.fresh;
        self.fresh = output;
        usage
    }
}

/// The answer came a moment before what it led to.
fn before(tick: &Tick, rng: &mut Rng) -> i64 {
    tick.ts_ms - i64::try_from(rng.between(5, 40)).unwrap_or(5)
}

fn tokens(value: &Value) -> u64 {
    if value.is_null() { 0 } else { value.to_string().len() as u64 / BYTES_A_TOKEN }
}

fn first_bytes(id: &str) -> u64 {
    id.bytes().take(8).fold(0, |sum, byte| sum << 8 | u64::from(byte))
}

/// The log record of a request, as the client writes it.
fn record(session: &Session, number: usize, asked: &Asked) -> Value {
    let at = TimestampMs::clamped(asked.ts_ms);
    let cost = PriceTable::builtin().quote(asked.model, &asked.usage, &Terms::default(), at);
    let nano = cost.map_or(0, |quote| quote.total_nano_usd);
    let mut attributes = vec![
        text("event.name", "api_request"),
        text("session.id", &session.session_id),
        text("prompt.id", &asked.prompt_id),
        text("model", asked.model),
        text("request_id", &format!("req_demo_{}_{number}", session.session_id)),
        text("query_source", asked.source),
        text("speed", "normal"),
        count("event.sequence", number as u64),
        count("input_tokens", asked.usage.input),
        count("output_tokens", asked.usage.output),
        count("cache_read_tokens", asked.usage.cache_read),
        count("cache_creation_tokens", asked.usage.cache_write_5m),
        count("cache_creation_5m_tokens", asked.usage.cache_write_5m),
        count("cache_creation_1h_tokens", 0),
        // About 60 tokens a second, after a second of waiting.
        count("duration_ms", 1_000 + asked.usage.output * 1_000 / 60),
        json!({"key": "cost_usd", "value": {"doubleValue": usd(nano)}}),
    ];
    if let Some((id, kind)) = &asked.agent {
        attributes.push(text("agent_id", id));
        attributes.push(text("agent.name", kind));
    }
    json!({
        "timeUnixNano": (asked.ts_ms * 1_000_000).to_string(),
        "body": {"stringValue": "claude_code.api_request"},
        "attributes": attributes,
    })
}

#[allow(clippy::cast_precision_loss, reason = "what a source would write")]
fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn count(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::script;
    use super::*;

    fn one() -> Session {
        script::session(1, 0, 100, 1_795_000_000_000, 900_000)
    }

    #[test]
    fn the_same_session_is_billed_the_same_and_its_context_grows() {
        let asked = requests(1, &one());
        assert!(asked.len() > 5, "{}", asked.len());
        assert_eq!(asked, requests(1, &one()));
        let main: Vec<&Asked> = asked.iter().filter(|a| a.agent.is_none() && a.source != "compact").collect();
        assert!(main.windows(2).any(|pair| pair[1].usage.context() > pair[0].usage.context()));
        assert!(main[1].usage.cache_read >= FIRST_TOKENS.0, "{main:?}");
    }

    #[test]
    fn every_record_has_a_known_price() {
        for (number, asked) in requests(1, &one()).iter().enumerate() {
            let record = record(&one(), number, asked);
            let attributes = record["attributes"].as_array().unwrap();
            let cost = attributes.iter().find(|a| a["key"] == "cost_usd").unwrap();
            assert!(cost["value"]["doubleValue"].as_f64().unwrap() > 0.0);
        }
    }
}
