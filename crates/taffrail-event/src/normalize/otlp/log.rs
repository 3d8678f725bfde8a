//! Log records of the client, by name: what tells of the work is an event, what tells of the client itself a lean row.

use serde::Serialize;

use super::{
    About, Attributes, Class, Context, LogRecord, Mapped, NO_APP, NO_SESSION, Record, Signal, Telemetry,
    Value, clean_name, cut, grouped, push_part, record_id, reread, time_of, to_json,
};
use crate::event::{
    Arrival, CallStatus, ErrorInfo, Event, Fact, Issue, Metrics, Payload, Source, ToolOutcome, ToolRef,
};
use crate::ids::{DedupKey, EventId, TimestampMs, bounded_id};
use crate::ledger::{FailureSighting, RequestSighting, Speed, Terms, Usage, Witness, nano_usd};
use crate::normalize::{error, summary};

/// What the client's event names begin with.
const PREFIX: &str = "claude_code.";
/// Events about the client itself: many, and of no session's work.
const CHATTER: &[&str] = &[
    "hook_registered",
    "hook_execution_start",
    "hook_execution_complete",
    "plugin_loaded",
    "managed_settings_resolved",
    "retention_sweep",
];
/// Events this version knows by name, beside those with a meaning of their own below.
const KNOWN: &[&str] = &[
    "user_prompt",
    "assistant_response",
    "compaction",
    "subagent_completed",
    "skill_activated",
    "tool_decision",
];
/// The longest message of a failed request, in characters.
const FAILURE_MESSAGE_MAX_CHARS: usize = 512;
/// What the client puts in place of text it was not told to send.
const CLIENT_REDACTED: &str = "<REDACTED>";
/// Attributes that every record has: no part of a line for a person.
const STANDARD: &[&str] = &[
    "user.id",
    "user.email",
    "user.account_uuid",
    "user.account_id",
    "organization.id",
    "session.id",
    "anthropic.provider",
    "anthropic.custom_base_url",
    "terminal.type",
    "app.version",
    "event.name",
    "event.timestamp",
    "event.sequence",
    "prompt.id",
    "message.uuid",
    "request_id",
];

/// A log record as payload: flat, so that a person and `jq` can read it.
#[derive(Serialize)]
struct PayloadJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_zero")]
    observed_time_unix_nano: u64,
    #[serde(skip_serializing_if = "is_nothing")]
    severity_number: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    severity_text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a Value>,
    attributes: &'a Attributes,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    span_id: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u64,
    resource: &'a Attributes,
    scope: &'a str,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_nothing(n: &i64) -> bool {
    *n == 0
}

impl Record for LogRecord {
    fn map(mut self, about: &About, context: Context<'_>, mapped: &mut Mapped) {
        if self.says_nothing() {
            mapped.rejected.add(1, "a log record has neither time, body, name nor attributes");
            return;
        }
        let name = self.name(about);
        let chatter = name.strip_prefix(PREFIX).is_some_and(|own| CHATTER.contains(&own));
        let session = about.session(&self.attributes);
        let id = self.id(session.as_deref(), &name);
        if chatter || (session.is_none() && !name.starts_with(PREFIX)) {
            mapped.count(if chatter { Class::Chatter } else { Class::Unknown });
            mapped.telemetry.push(self.row(about, context, name, session, id));
            return;
        }
        let payload = self.redact(about, context, &name);
        let event =
            Mapping { record: &self, about, context, name: &name }.event(session, id, payload, mapped);
        mapped.events.push(event);
    }
}

impl LogRecord {
    fn says_nothing(&self) -> bool {
        self.body == Value::Empty
            && self.attributes.0.is_empty()
            && self.event_name.is_empty()
            && self.time_unix_nano == 0
    }

    fn name(&self, about: &About) -> String {
        let named = |name: &str| {
            let own = about.is_claude_code && !name.contains('.');
            clean_name(&if own { format!("{PREFIX}{name}") } else { name.to_owned() })
        };
        let body = self
            .body
            .as_text()
            .filter(|body| body.starts_with(PREFIX) && !body.contains(char::is_whitespace));
        if let Some(body) = body {
            return clean_name(body);
        }
        let told = Some(self.event_name.as_str()).filter(|name| !name.is_empty());
        let name = told.or_else(|| self.attributes.text("event.name")).map(named);
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| "log".to_owned())
    }

    fn nanos(&self) -> u64 {
        if self.time_unix_nano == 0 { self.observed_time_unix_nano } else { self.time_unix_nano }
    }

    /// The same for an exporter's retry and different for anything else: the sequence restarts with each process, so
    /// the time counts as well; a record without a sequence is known by all it says.
    fn id(&self, session: Option<&str>, name: &str) -> EventId {
        let attributes = &self.attributes;
        let own = |key: &str| attributes.id(key).unwrap_or_default();
        let sequence = own("event.sequence");
        let rest = if sequence.is_empty() { to_json(&(&self.body, attributes)) } else { String::new() };
        record_id(&[
            b"otlp log",
            session.unwrap_or_default().as_bytes(),
            name.as_bytes(),
            &self.nanos().to_le_bytes(),
            sequence.as_bytes(),
            own("request_id").as_bytes(),
            own("tool_use_id").as_bytes(),
            self.span_id.as_bytes(),
            rest.as_bytes(),
        ])
    }

    fn row(
        self,
        about: &About,
        context: Context<'_>,
        name: String,
        session: Option<String>,
        id: EventId,
    ) -> Telemetry {
        let (ts, _) = time_of(self.nanos(), context.received);
        let mut detail = Attributes::default();
        let mut put = |key: &str, value: Value| detail.0.push((key.to_owned(), value));
        if self.body.as_text() != Some(&name) && self.body != Value::Empty {
            put("body", self.body);
        }
        for (key, text) in
            [("severity", self.severity_text), ("trace_id", self.trace_id), ("span_id", self.span_id)]
        {
            if !text.is_empty() {
                put(key, Value::Text(text));
            }
        }
        Telemetry {
            dedup_key: DedupKey::of_delivery(session.as_deref().unwrap_or_default(), id),
            ts,
            received: context.received,
            signal: Signal::Log,
            name,
            session_id: session,
            value: None,
            temporality: None,
            duration_us: None,
            attributes: context.clean_json(&self.attributes),
            detail: (!detail.0.is_empty()).then(|| context.clean_json(&detail)),
            resource: about.text.clone(),
            request: None,
            failure: None,
        }
    }

    /// Replaces secrets in body and attributes, and gives the payload without them.
    fn redact(&mut self, about: &About, context: Context<'_>, name: &str) -> Payload {
        let text = self.payload(about, name);
        let redacted = context.redactor.redact(&text);
        let redactions = redacted.total();
        let original_bytes = text.len() as u64;
        if redactions == 0 {
            return Payload { text, is_json: true, original_bytes, truncated: false, redactions };
        }
        let clean = redacted.text.into_owned();
        let mut fields = reread(&clean).unwrap_or_default();
        let mut take = |key: &str| {
            let at = fields.0.iter().position(|(k, _)| k == key)?;
            Some(fields.0.swap_remove(at).1)
        };
        if let Some(body) = take("body") {
            self.body = body;
        }
        self.attributes = match take("attributes") {
            Some(Value::Map(attributes)) => attributes,
            _ => Attributes::default(),
        };
        Payload { text: clean, is_json: true, original_bytes, truncated: false, redactions }
    }

    fn payload(&self, about: &About, name: &str) -> String {
        let is_name = self.body.as_text() == Some(name);
        to_json(&PayloadJson {
            name,
            time_unix_nano: self.time_unix_nano,
            observed_time_unix_nano: if self.observed_time_unix_nano == self.time_unix_nano {
                0
            } else {
                self.observed_time_unix_nano
            },
            severity_number: self.severity_number,
            severity_text: &self.severity_text,
            body: (!is_name && self.body != Value::Empty).then_some(&self.body),
            attributes: &self.attributes,
            trace_id: &self.trace_id,
            span_id: &self.span_id,
            dropped_attributes_count: self.dropped_attributes_count,
            resource: &about.resource,
            scope: &about.scope.name,
        })
    }
}

/// One record on its way to an event, its secrets already replaced.
struct Mapping<'a> {
    record: &'a LogRecord,
    about: &'a About,
    context: Context<'a>,
    name: &'a str,
}

/// What a name means.
struct Meaning {
    class: Class,
    fact: Fact,
    summary: String,
    error: Option<ErrorInfo>,
    request: Option<Box<RequestSighting>>,
    failure: Option<Box<FailureSighting>>,
}

impl Meaning {
    fn of(class: Class, summary: String) -> Self {
        Self { class, fact: Fact::Telemetry, summary, error: None, request: None, failure: None }
    }
}

impl Mapping<'_> {
    fn event(&self, session: Option<String>, id: EventId, payload: Payload, mapped: &mut Mapped) -> Event {
        let attributes = &self.record.attributes;
        let mut issues = Vec::new();
        let session_id = session.unwrap_or_else(|| {
            issues.push(Issue::BadField("session.id".to_owned()));
            NO_SESSION.to_owned()
        });
        let (ts, odd) = time_of(self.record.nanos(), self.context.received);
        issues.extend(odd);
        let meaning = self.meaning(&session_id, ts, &mut issues);
        mapped.count(meaning.class);
        let outcome = match &meaning.fact {
            Fact::ToolTold(_, outcome) => Some(outcome),
            _ => None,
        };
        Event {
            event_id: id,
            dedup_key: DedupKey::of_delivery(&session_id, id),
            ts,
            received: self.context.received,
            source: Source::Otlp,
            // Exporters batch for seconds: the time until the commit says nothing about this house.
            arrival: Arrival::Recorded,
            app: NO_APP.to_owned(),
            session_id,
            agent_id: attributes.id("agent_id"),
            agent_type: self.agent_type(),
            prompt_id: attributes.id("prompt.id"),
            tool_use_id: attributes.id("tool_use_id"),
            user: self.about.user(attributes),
            host: self.about.host.clone(),
            cwd: None,
            model: self.model(),
            type_name: self.name.to_owned(),
            tool_name: attributes.id("tool_name"),
            summary: summary::line(&meaning.summary),
            metrics: Metrics {
                execution_time_ms: outcome.and_then(|outcome| outcome.duration_ms),
                output_bytes: outcome.and_then(|_| attributes.u64("tool_result_size_bytes")),
                ..Metrics::default()
            },
            fact: meaning.fact,
            error: meaning.error,
            file_operations: Vec::new(),
            git_operations: Vec::new(),
            warnings: Vec::new(),
            issues,
            payload,
            request: meaning.request,
            failure: meaning.failure,
            labels: self.about.labels.clone(),
            legacy: None,
        }
    }

    fn agent_type(&self) -> Option<String> {
        let attributes = &self.record.attributes;
        attributes.id("agent.name").or_else(|| attributes.id("agent_type"))
    }

    /// The session's model; what a subagent or the client's own side questions ask is not it.
    fn model(&self) -> Option<String> {
        let attributes = &self.record.attributes;
        let main =
            attributes.text("query_source").is_none_or(is_main) && attributes.get("agent_id").is_none();
        attributes.id("model").filter(|_| main && !self.name.ends_with("subagent_completed"))
    }

    fn meaning(&self, session_id: &str, ts: TimestampMs, issues: &mut Vec<Issue>) -> Meaning {
        let attributes = &self.record.attributes;
        let text = |key: &str| attributes.text(key).unwrap_or_default();
        match self.name.strip_prefix(PREFIX).unwrap_or_default() {
            "api_request" => self.request(session_id, ts, issues),
            "api_error" => self.failure(session_id, ts),
            "api_retries_exhausted" => {
                // The same failure as the api_error before it, without its request id: no second one.
                let attempts = attributes.u64("total_attempts").unwrap_or(0);
                let waited_ms = attributes.u64("total_retry_duration_ms").unwrap_or(0);
                let line = format!("gave up after {attempts} attempts in {waited_ms} ms: {}", text("error"));
                Meaning::of(Class::Failure, line)
            }
            "tool_result" => self.tool_result(),
            "tool_decision" => self.tool_decision(),
            "user_prompt" => {
                let length = attributes.u64("prompt_length").unwrap_or(0);
                Meaning::of(Class::Event, spoken("prompt", length, text("prompt")))
            }
            "assistant_response" => {
                let length = attributes.u64("response_length").unwrap_or(0);
                Meaning::of(Class::Event, spoken("response", length, text("response")))
            }
            "compaction" => {
                let tokens = |key: &str| grouped(attributes.u64(key).unwrap_or(0));
                let line = format!(
                    "{}: {} to {} tokens",
                    text("trigger"),
                    tokens("pre_tokens"),
                    tokens("post_tokens")
                );
                Meaning::of(Class::Event, line)
            }
            "subagent_completed" => {
                let count = |key: &str| grouped(attributes.u64(key).unwrap_or(0));
                let line = format!(
                    "{}: {} tokens, {} tool calls, {} ms",
                    text("agent_type"),
                    count("total_tokens"),
                    count("total_tool_uses"),
                    count("duration_ms")
                );
                Meaning::of(Class::Event, line)
            }
            "skill_activated" => {
                Meaning::of(Class::Event, format!("{} ({})", text("skill.name"), text("invocation_trigger")))
            }
            own => {
                if !KNOWN.contains(&own) {
                    issues.push(Issue::UnknownEvent(self.name.to_owned()));
                }
                Meaning::of(Class::Unknown, self.anything())
            }
        }
    }

    fn request(&self, session_id: &str, ts: TimestampMs, issues: &mut Vec<Issue>) -> Meaning {
        let attributes = &self.record.attributes;
        let usage = usage(attributes);
        let told_cost_nano_usd = told_cost(attributes);
        let request_id = attributes.id("request_id");
        let model = attributes.id("model").unwrap_or_default();
        let mut line = model.clone();
        // First what it cost: a narrow column cuts the end off.
        if let Some(nano) = told_cost_nano_usd {
            push_part(&mut line, format_args!("${:.4}", nano as f64 / 1e9));
        }
        push_part(&mut line, format_args!("{} in", grouped(usage.input)));
        push_part(&mut line, format_args!("{} out", grouped(usage.output)));
        push_part(&mut line, format_args!("{} cached", grouped(usage.cache_read)));
        push_part(
            &mut line,
            format_args!("{} written", grouped(usage.cache_write_5m + usage.cache_write_1h)),
        );
        let mut meaning = Meaning::of(Class::Request, line);
        if request_id.is_none() {
            // Nothing to join it by: kept as an event, and marked.
            issues.push(Issue::BadField("request_id".to_owned()));
        }
        meaning.request = request_id.map(|request_id| {
            Box::new(RequestSighting {
                witness: Witness::OtlpLog,
                ts,
                message_id: None,
                request_id: Some(request_id),
                session_id: session_id.to_owned(),
                born: TimestampMs::MIN,
                agent_id: attributes.id("agent_id"),
                agent_type: self.agent_type(),
                prompt_id: attributes.id("prompt.id"),
                app: None,
                user: self.about.user(attributes),
                model,
                usage: Some(usage),
                is_final: true,
                terms: terms(attributes),
                query_source: attributes.id("query_source"),
                effort: attributes.id("effort"),
                stop_reason: attributes.id("stop_reason"),
                duration_ms: attributes.u64("duration_ms"),
                ttft_ms: attributes.u64("ttft_ms"),
                attempts: attributes.u32("attempt"),
                told_cost_nano_usd,
            })
        });
        meaning
    }

    fn failure(&self, session_id: &str, ts: TimestampMs) -> Meaning {
        let attributes = &self.record.attributes;
        let message = attributes.text("error").unwrap_or_default();
        let attempt = attributes.u32("attempt");
        let status = attributes.u64("status_code").and_then(|code| u16::try_from(code).ok());
        let mut line = String::new();
        if let Some(status) = status {
            push_part(&mut line, format_args!("{status}"));
        }
        push_part(&mut line, format_args!("{message}"));
        if let Some(attempt) = attempt {
            push_part(&mut line, format_args!("attempt {attempt}"));
        }
        let mut meaning = Meaning::of(Class::Failure, line);
        meaning.failure = Some(Box::new(FailureSighting {
            witness: Witness::OtlpLog,
            ts,
            key: attributes
                .id("request_id")
                .unwrap_or_else(|| self.record.id(Some(session_id), self.name).to_string()),
            session_id: session_id.to_owned(),
            agent_id: attributes.id("agent_id"),
            model: attributes.id("model"),
            status_code: status,
            message: cut(message, FAILURE_MESSAGE_MAX_CHARS),
            attempt,
            attempts_max: attempt,
            retry_in_ms: None,
            // The client says nothing of attempts that it repeats.
            exhausted: true,
        }));
        meaning
    }

    fn tool(&self) -> ToolRef {
        let attributes = &self.record.attributes;
        ToolRef {
            tool_name: attributes.id("tool_name").unwrap_or_else(|| "unknown".to_owned()),
            tool_use_id: attributes.id("tool_use_id"),
            // The input is cut or missing here: the call's own events have it.
            input_hash: 0,
        }
    }

    /// A call without an id cannot be paired with its own events: it stays a line, and no second call.
    fn told(&self, outcome: ToolOutcome) -> Fact {
        let tool = self.tool();
        if tool.tool_use_id.is_some() { Fact::ToolTold(tool, outcome) } else { Fact::Telemetry }
    }

    fn tool_result(&self) -> Meaning {
        let attributes = &self.record.attributes;
        let failed = attributes.bool("success") == Some(false);
        let message = attributes.text("error").or_else(|| attributes.text("error_type"));
        let name = attributes.text("tool_name").unwrap_or("unknown");
        let mut line = format!("{name} {}", self.subject());
        let mut meaning = Meaning::of(Class::Tool, String::new());
        let mut status = if failed { CallStatus::Failed } else { CallStatus::Succeeded };
        if failed {
            let info = error::of_message(name, message.unwrap_or("the tool failed"));
            if info.class == "interrupted" {
                status = CallStatus::Interrupted;
            }
            push_part(&mut line, format_args!("{}", info.message));
            meaning.error = Some(info);
        }
        let duration_ms = attributes.u64("duration_ms");
        meaning.fact = self.told(ToolOutcome { status, duration_ms });
        meaning.summary = line;
        meaning
    }

    fn tool_decision(&self) -> Meaning {
        let attributes = &self.record.attributes;
        let text = |key: &str| attributes.text(key).unwrap_or_default();
        let decision = text("decision");
        let line = format!("{} {}: {decision} ({})", text("tool_name"), self.subject(), text("source"));
        let mut meaning = Meaning::of(Class::Tool, line);
        if decision == "reject" {
            let status =
                if text("source") == "user_abort" { CallStatus::Interrupted } else { CallStatus::Denied };
            meaning.fact = self.told(ToolOutcome { status, duration_ms: None });
        }
        meaning
    }

    /// What a tool was called with, where the client tells: the command, the path, the description.
    fn subject(&self) -> String {
        let attributes = &self.record.attributes;
        let told = ["tool_parameters", "tool_input"].iter().find_map(|key| {
            let input: serde_json::Value = serde_json::from_str(attributes.text(key)?).ok()?;
            [
                "full_command",
                "command",
                "file_path",
                "path",
                "pattern",
                "url",
                "query",
                "description",
                "subagent_type",
            ]
            .iter()
            .find_map(|field| input.get(field)?.as_str().map(str::to_owned))
        });
        told.unwrap_or_default()
    }

    /// Any record as a line: its body, else its own attributes.
    fn anything(&self) -> String {
        if let Some(body) = self.record.body.as_text().filter(|body| *body != self.name) {
            return body.to_owned();
        }
        let mut line = String::new();
        for (key, value) in
            self.record.attributes.0.iter().filter(|(key, _)| !STANDARD.contains(&key.as_str()))
        {
            match value {
                Value::Text(text) => push_part(&mut line, format_args!("{key}={text}")),
                Value::Empty => {}
                other => push_part(&mut line, format_args!("{key}={}", to_json(other))),
            }
            if line.len() > crate::event::SUMMARY_MAX_CHARS {
                break;
            }
        }
        line
    }
}

/// Whether the main conversation asked, and not a subagent or the client for itself.
fn is_main(query_source: &str) -> bool {
    query_source == "sdk" || query_source.starts_with("repl_main_thread")
}

fn spoken(what: &str, length: u64, text: &str) -> String {
    if text.is_empty() || text == CLIENT_REDACTED {
        format!("{what} of {} characters", grouped(length))
    } else {
        text.to_owned()
    }
}

/// The five-minute and one-hour parts of what was written; what the parts leave of the whole was five-minute.
fn usage(attributes: &Attributes) -> Usage {
    let count = |key: &str| attributes.u64(key).unwrap_or(0);
    let cache_write_1h = count("cache_creation_1h_tokens");
    let cache_write_5m = count("cache_creation_5m_tokens");
    let rest = count("cache_creation_tokens").saturating_sub(cache_write_1h.saturating_add(cache_write_5m));
    Usage {
        input: count("input_tokens"),
        output: count("output_tokens"),
        cache_read: count("cache_read_tokens"),
        cache_write_5m: cache_write_5m.saturating_add(rest),
        cache_write_1h,
        web_searches: count("web_search_requests"),
    }
}

/// The client's own cost: dollars as a float, else whole micro-dollars.
fn told_cost(attributes: &Attributes) -> Option<i64> {
    let exact = attributes.f64("cost_usd").and_then(nano_usd);
    exact.or_else(|| i64::try_from(attributes.u64("cost_usd_micros")?).ok()?.checked_mul(1_000))
}

pub(super) fn terms(attributes: &Attributes) -> Terms {
    Terms {
        speed: Speed::of(attributes.text("speed")),
        service_tier: attributes.id("service_tier").map(|tier| bounded_id(&tier)),
        inference_geo: attributes.id("inference_geo"),
    }
}
