//! Spans: one lean row each; that of a request to the model also tells the ledger of its attempts and how it ended.

use super::log::terms;
use super::{
    About, Attributes, Class, Context, Mapped, Record, Signal, Span, Telemetry, Value, clean_name, cut,
    record_id, time_of, to_json,
};
use crate::ids::{DedupKey, TimestampMs};
use crate::ledger::{FailureSighting, RequestSighting, Usage, Witness};

/// The span of one request to the model, with all its attempts.
const LLM_REQUEST: &str = "claude_code.llm_request";
/// The event inside it that each attempt leaves.
const ATTEMPT: &str = "gen_ai.request.attempt";
/// The longest message of a failed request, in characters.
const FAILURE_MESSAGE_MAX_CHARS: usize = 512;

impl Record for Span {
    fn map(mut self, about: &About, context: Context<'_>, mapped: &mut Mapped) {
        if self.name.is_empty() && self.span_id.is_empty() {
            mapped.rejected.add(1, "a span has neither name nor id");
            return;
        }
        mapped.count(Class::Span);
        let name = clean_name(&self.name);
        let (ts, _) = time_of(self.start_time_unix_nano, context.received);
        let duration_us = self.end_time_unix_nano.checked_sub(self.start_time_unix_nano).map(|ns| ns / 1_000);
        let session_id = about.session(&self.attributes);
        let text = to_json(&self.attributes);
        let whole = if self.span_id.is_empty() { text.as_str() } else { "" };
        let id = record_id(&[
            b"otlp span",
            self.trace_id.as_bytes(),
            self.span_id.as_bytes(),
            name.as_bytes(),
            &self.start_time_unix_nano.to_le_bytes(),
            whole.as_bytes(),
        ]);
        let detail = context.clean_json(&self.described());
        self.attributes = context.clean(std::mem::take(&mut self.attributes));
        let (request, failure) = match &session_id {
            Some(session) if name == LLM_REQUEST => self.sighting(session, about, context),
            _ => (None, None),
        };
        mapped.telemetry.push(Telemetry {
            dedup_key: DedupKey::of_delivery(session_id.as_deref().unwrap_or_default(), id),
            ts,
            received: context.received,
            signal: Signal::Span,
            name,
            session_id,
            value: None,
            temporality: None,
            duration_us,
            attributes: to_json(&self.attributes),
            detail: Some(detail),
            resource: about.text.clone(),
            request,
            failure,
        });
    }
}

impl Span {
    fn described(&self) -> Attributes {
        let mut out = Attributes::default();
        let mut put = |key: &str, value: Value| out.0.push((key.to_owned(), value));
        for (key, text) in [
            ("trace_id", &self.trace_id),
            ("span_id", &self.span_id),
            ("parent_span_id", &self.parent_span_id),
            ("status_message", &self.status_message),
        ] {
            if !text.is_empty() {
                put(key, Value::Text(text.clone()));
            }
        }
        for (key, number) in [("kind", self.kind), ("status_code", self.status_code)] {
            if number != 0 {
                put(key, Value::Int(number));
            }
        }
        if !self.events.is_empty() {
            let event = |event: &super::SpanEvent| {
                let mut fields = vec![
                    ("name".to_owned(), Value::Text(event.name.clone())),
                    ("time_unix_nano".to_owned(), Value::Text(event.time_unix_nano.to_string())),
                ];
                fields.extend(event.attributes.0.iter().cloned());
                Value::Map(Attributes(fields))
            };
            put("events", Value::List(self.events.iter().map(event).collect()));
        }
        if !self.links.is_empty() {
            let link = |(trace, span, attributes): &(String, String, Attributes)| {
                Value::Map(Attributes(vec![
                    ("trace_id".to_owned(), Value::Text(trace.clone())),
                    ("span_id".to_owned(), Value::Text(span.clone())),
                    ("attributes".to_owned(), Value::Map(attributes.clone())),
                ]))
            };
            put("links", Value::List(self.links.iter().map(link).collect()));
        }
        out
    }

    /// Attempts by the span's own count and by the events that they leave, whichever is more.
    fn attempts(&self) -> Option<u32> {
        let marks = self.events.iter().filter(|event| event.name == ATTEMPT);
        let (mut seen, mut highest) = (0u32, 0u32);
        for mark in marks {
            seen = seen.saturating_add(1);
            highest = highest.max(mark.attributes.u32("attempt").unwrap_or(0));
        }
        let most = self.attributes.u32("attempt").unwrap_or(0).max(seen).max(highest);
        (most > 0).then_some(most)
    }

    #[allow(clippy::type_complexity, reason = "one of each, at most one there")]
    fn sighting(
        &self,
        session_id: &str,
        about: &About,
        context: Context<'_>,
    ) -> (Option<Box<RequestSighting>>, Option<Box<FailureSighting>>) {
        let attributes = &self.attributes;
        let Some(request_id) = attributes.id("request_id").or_else(|| attributes.id("gen_ai.response.id"))
        else {
            return (None, None);
        };
        let nanos =
            if self.end_time_unix_nano > 0 { self.end_time_unix_nano } else { self.start_time_unix_nano };
        let (ts, _) = time_of(nanos, context.received);
        if attributes.bool("success") == Some(false) {
            return (None, Some(Box::new(self.failed(session_id, request_id, ts))));
        }
        let request = RequestSighting {
            witness: Witness::OtlpSpan,
            ts,
            message_id: None,
            request_id: Some(request_id),
            session_id: session_id.to_owned(),
            born: TimestampMs::MIN,
            agent_id: attributes.id("agent_id"),
            agent_type: None,
            prompt_id: attributes.id("prompt.id"),
            app: None,
            user: about.user(attributes),
            model: attributes.id("model").unwrap_or_default(),
            usage: usage(attributes),
            is_final: true,
            terms: terms(attributes),
            query_source: attributes.id("query_source").or_else(|| attributes.id("query_source_safe")),
            effort: attributes.id("effort"),
            stop_reason: attributes.id("stop_reason"),
            duration_ms: attributes.u64("duration_ms"),
            ttft_ms: attributes.u64("ttft_ms"),
            attempts: self.attempts(),
            told_cost_nano_usd: None,
        };
        (Some(Box::new(request)), None)
    }

    fn failed(&self, session_id: &str, request_id: String, ts: TimestampMs) -> FailureSighting {
        let attributes = &self.attributes;
        let attempts = self.attempts();
        FailureSighting {
            witness: Witness::OtlpSpan,
            ts,
            key: request_id,
            session_id: session_id.to_owned(),
            agent_id: attributes.id("agent_id"),
            model: attributes.id("model"),
            status_code: attributes.u64("status_code").and_then(|code| u16::try_from(code).ok()),
            message: cut(attributes.text("error").unwrap_or(&self.status_message), FAILURE_MESSAGE_MAX_CHARS),
            attempt: attempts,
            attempts_max: attempts,
            retry_in_ms: None,
            exhausted: true,
        }
    }
}

/// A span does not tell how long what it wrote stays in the cache: all of it counts as five-minute.
fn usage(attributes: &Attributes) -> Option<Usage> {
    let output = attributes.u64("output_tokens")?;
    let count = |key: &str| attributes.u64(key).unwrap_or(0);
    Some(Usage {
        input: count("input_tokens"),
        output,
        cache_read: count("cache_read_tokens"),
        cache_write_5m: count("cache_creation_tokens"),
        cache_write_1h: 0,
        web_searches: 0,
    })
}
