//! OpenTelemetry records to events, ledger sightings and lean telemetry rows.
//!
//! The records come as [`LogRecord`], [`Point`] and [`Span`]: [`json`] reads OTLP/JSON into them, the server reads
//! protobuf; from here on the encodings are one. Mapping never fails: a record of the client that tells of the work is
//! an [`Event`], everything else a [`Telemetry`] row; only what says nothing at all is rejected, and counted.
//! Secrets are replaced here, before anything is derived from a record.
//!
//! Limits: nesting of values [`VALUE_DEPTH_MAX`], [`LABELS_MAX`] labels of [`LABEL_MAX_CHARS`] characters, names of
//! [`NAME_MAX_CHARS`].

pub mod json;

mod log;
mod metric;
mod span;

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use crate::event::{Event, Issue};
use crate::ids::{DedupKey, EventId, TimestampMs, bounded_id};
use crate::ledger::{FailureSighting, RequestSighting};
use crate::redact::Redactor;

/// Deeper values of an attribute are left out and marked.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Labels kept of a resource.
pub const LABELS_MAX: usize = 32;
/// The longest label, key and value each, in characters.
pub const LABEL_MAX_CHARS: usize = 256;
/// The longest name of an event, metric or span, in characters.
pub const NAME_MAX_CHARS: usize = 200;

/// The session of records that name none.
const NO_SESSION: &str = "unknown";
/// The project of a session that no other source knows.
const NO_APP: &str = "unknown";

/// What an attribute holds. Bytes are base64 text, as JSON has them.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are OTLP's own")]
pub enum Value {
    #[default]
    Empty,
    Text(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(Vec<Value>),
    Map(Attributes),
}

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative, also where a sender writes it as text or as a float.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(n) => u64::try_from(*n).ok(),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded here")]
            Self::Double(d) if (0.0..9e18).contains(d) => Some(*d as u64),
            Self::Text(text) => {
                let text = text.trim();
                text.parse().ok().or_else(|| Self::Double(text.parse().ok()?).as_u64())
            }
            _ => None,
        }
    }

    /// A finite number, also where a sender writes it as text.
    pub fn as_f64(&self) -> Option<f64> {
        let number = match self {
            Self::Int(n) => *n as f64,
            Self::Double(d) => *d,
            Self::Text(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        number.is_finite().then_some(number)
    }

    /// A truth value, also where a sender writes it as text.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            Self::Text(text) if text == "true" => Some(true),
            Self::Text(text) if text == "false" => Some(false),
            _ => None,
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => to.serialize_unit(),
            Self::Text(text) => to.serialize_str(text),
            Self::Bool(b) => to.serialize_bool(*b),
            Self::Int(n) => to.serialize_i64(*n),
            Self::Double(d) => match odd_number(*d) {
                Some(name) => to.serialize_str(name),
                None => to.serialize_f64(*d),
            },
            Self::List(values) => {
                let mut list = to.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Self::Map(attributes) => attributes.serialize(to),
        }
    }
}

/// The name of a number that JSON has no form for.
fn odd_number(number: f64) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// Attributes in the order sent; of two with one key the last counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes(pub Vec<(String, Value)>);

impl Attributes {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// A text that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text().filter(|text| !text.is_empty())
    }

    /// A text or number as an identifier.
    pub fn id(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::Text(text) if !text.is_empty() => Some(bounded_id(text)),
            Value::Int(n) => Some(n.to_string()),
            _ => None,
        }
    }

    fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    fn f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    fn u32(&self, key: &str) -> Option<u32> {
        self.u64(key).and_then(|n| u32::try_from(n).ok())
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (at, (key, value)) in self.0.iter().enumerate() {
            // A few dozen keys at most in practice; the bound keeps a hostile record linear.
            let later = &self.0[at + 1..(at + 1 + UNIQUE_WITHIN).min(self.0.len())];
            if !later.iter().any(|(k, _)| k == key) {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

/// How far ahead a key is looked for again.
const UNIQUE_WITHIN: usize = 128;

/// The instrumentation scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are OTLP's own")]
pub struct Scope {
    pub name: String,
    pub version: String,
}

/// Records of one resource and scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<T> {
    /// Who sends.
    pub resource: Attributes,
    /// What made the records.
    pub scope: Scope,
    /// The records.
    pub records: Vec<T>,
}

/// What one request brings.
#[derive(Clone, Debug, PartialEq)]
pub struct Export<T> {
    /// By resource and scope.
    pub groups: Vec<Group<T>>,
    /// What could not be read at all.
    pub rejected: Rejected,
    /// Fields that were read although they are not as OTLP has them, or left out of a record that was kept.
    pub odd: usize,
}

impl<T> Default for Export<T> {
    fn default() -> Self {
        Self { groups: Vec::new(), rejected: Rejected::default(), odd: 0 }
    }
}

impl<T> Export<T> {
    /// How many records there are.
    pub fn records(&self) -> usize {
        self.groups.iter().map(|group| group.records.len()).sum()
    }
}

/// Records that nothing can be made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub records: usize,
    /// Why the first of them was.
    pub reason: Option<String>,
}

impl Rejected {
    /// Counts some more.
    pub fn add(&mut self, records: usize, reason: &str) {
        if records > 0 {
            self.records += records;
            self.reason.get_or_insert_with(|| reason.to_owned());
        }
    }
}

/// A log record.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    missing_docs,
    reason = "the names are OTLP's own; ids are lower-case hexadecimal, empty where there is none"
)]
pub struct LogRecord {
    pub time_unix_nano: u64,
    pub observed_time_unix_nano: u64,
    pub severity_number: i64,
    pub severity_text: String,
    pub body: Value,
    pub attributes: Attributes,
    pub event_name: String,
    pub trace_id: String,
    pub span_id: String,
    pub dropped_attributes_count: u64,
}

/// How values of a metric relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Each point is what came since the last one.
    Delta,
    /// Each point is the sum since its start.
    Cumulative,
}

impl Temporality {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Cumulative => "cumulative",
        }
    }

    /// By OTLP's number.
    pub const fn of_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Delta),
            2 => Some(Self::Cumulative),
            _ => None,
        }
    }
}

/// One data point with its metric's description.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The metric.
    pub metric: Arc<MetricInfo>,
    /// Begin of the interval.
    pub start_time_unix_nano: u64,
    /// End of the interval.
    pub time_unix_nano: u64,
    /// The value; of a distribution its sum.
    pub value: Option<f64>,
    /// The exact value where it is a whole number.
    pub int: Option<i64>,
    /// OTLP's flags; bit 0 says that there is no value on purpose.
    pub flags: u64,
    /// What it is the value of.
    pub attributes: Attributes,
    /// Of a distribution: counts, bounds, quantiles.
    pub detail: Attributes,
}

/// A metric without its points.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are OTLP's own")]
pub struct MetricInfo {
    pub name: String,
    pub unit: String,
    /// `sum`, `gauge`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: &'static str,
    pub temporality: Option<Temporality>,
    pub is_monotonic: bool,
}

/// A span.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    missing_docs,
    reason = "the names are OTLP's own; ids are lower-case hexadecimal, empty where there is none"
)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: String,
    pub name: String,
    pub kind: i64,
    pub start_time_unix_nano: u64,
    pub end_time_unix_nano: u64,
    pub attributes: Attributes,
    pub events: Vec<SpanEvent>,
    pub links: Vec<(String, String, Attributes)>,
    pub status_code: i64,
    pub status_message: String,
}

/// Something with a moment inside a span.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are OTLP's own")]
pub struct SpanEvent {
    pub time_unix_nano: u64,
    pub name: String,
    pub attributes: Attributes,
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Signal {
    Log,
    Metric,
    Span,
}

impl Signal {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Log, Self::Metric, Self::Span];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Metric => "metric",
            Self::Span => "span",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// A record kept in the lean table: chatter of the client about itself, metrics, spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// What makes an exporter's retry the same record.
    pub dedup_key: DedupKey,
    /// When; of a span its begin.
    pub ts: TimestampMs,
    /// When this house received it.
    pub received: TimestampMs,
    /// What kind of record.
    pub signal: Signal,
    /// The event's, metric's or span's name.
    pub name: String,
    /// The session, where it is told.
    pub session_id: Option<String>,
    /// A metric's value.
    pub value: Option<f64>,
    /// A metric's temporality.
    pub temporality: Option<Temporality>,
    /// A span's duration, in microseconds.
    pub duration_us: Option<u64>,
    /// The attributes as JSON, redacted.
    pub attributes: String,
    /// What else the record has (unit, ids, events, distribution) as JSON, redacted.
    pub detail: Option<String>,
    /// Resource and scope as JSON, redacted; one text for a whole group.
    pub resource: Arc<str>,
    /// The API request a span tells of.
    pub request: Option<Box<RequestSighting>>,
    /// The failed API request a span tells of.
    pub failure: Option<Box<FailureSighting>>,
}

/// What a record turned out to be, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Class {
    Request,
    Failure,
    Tool,
    Event,
    Chatter,
    Metric,
    Span,
    Unknown,
}

impl Class {
    /// The label of the counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Failure => "failure",
            Self::Tool => "tool",
            Self::Event => "event",
            Self::Chatter => "chatter",
            Self::Metric => "metric",
            Self::Span => "span",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of a request's records.
#[derive(Clone, Debug, Default)]
pub struct Mapped {
    /// Events. Their project is `unknown`: telemetry does not tell it, the session's other sources do.
    pub events: Vec<Event>,
    /// Lean rows.
    pub telemetry: Vec<Telemetry>,
    /// What nothing could be made of.
    pub rejected: Rejected,
    /// Fields that were not as OTLP has them.
    pub odd: usize,
    /// Records by class.
    pub classes: std::collections::BTreeMap<Class, usize>,
}

impl Mapped {
    fn count(&mut self, class: Class) {
        *self.classes.entry(class).or_default() += 1;
    }
}

/// What mapping needs beside the records.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Now.
    pub received: TimestampMs,
    /// What replaces secrets.
    pub redactor: &'a Redactor,
}

/// What a kind of record does to a [`Mapped`].
trait Record: Sized {
    fn map(self, group: &About, context: Context<'_>, mapped: &mut Mapped);
}

/// Maps log records.
pub fn logs(export: Export<LogRecord>, context: Context<'_>) -> Mapped {
    all(export, context)
}

/// Maps data points.
pub fn metrics(export: Export<Point>, context: Context<'_>) -> Mapped {
    all(export, context)
}

/// Maps spans.
pub fn spans(export: Export<Span>, context: Context<'_>) -> Mapped {
    all(export, context)
}

fn all<T: Record>(export: Export<T>, context: Context<'_>) -> Mapped {
    let mut mapped = Mapped { rejected: export.rejected, odd: export.odd, ..Mapped::default() };
    for group in export.groups {
        let about = About::of(group.resource, group.scope, context);
        for record in group.records {
            record.map(&about, context, &mut mapped);
        }
    }
    mapped
}

/// What holds for all records of a group.
struct About {
    resource: Attributes,
    scope: Scope,
    /// Resource and scope as redacted JSON.
    text: Arc<str>,
    labels: Vec<(String, String)>,
    host: Option<String>,
    is_claude_code: bool,
}

#[derive(Serialize)]
struct AboutJson<'a> {
    resource: &'a Attributes,
    scope: &'a str,
    scope_version: &'a str,
}

impl About {
    fn of(resource: Attributes, scope: Scope, context: Context<'_>) -> Self {
        let json = AboutJson { resource: &resource, scope: &scope.name, scope_version: &scope.version };
        let text: Arc<str> = context.redactor.redact(&to_json(&json)).text.into();
        let resource = context.clean(resource);
        let is_claude_code = resource.text("service.name") == Some("claude-code")
            || scope.name.starts_with("com.anthropic.claude_code");
        Self {
            labels: labels(&resource),
            host: resource.id("host.name"),
            is_claude_code,
            resource,
            scope,
            text,
        }
    }

    /// The record's own attribute, else the resource's.
    fn session(&self, attributes: &Attributes) -> Option<String> {
        attributes
            .id("session.id")
            .or_else(|| self.resource.id("session.id"))
            .or_else(|| attributes.id("gen_ai.conversation.id"))
    }

    /// `user.email`: the name a person would look for. Account ids and hashes are no names; they stay in the payload.
    fn user(&self, attributes: &Attributes) -> Option<String> {
        attributes.id("user.email").or_else(|| self.resource.id("user.email"))
    }
}

impl Context<'_> {
    /// Replaces secrets in attributes; those without any come back as they were.
    fn clean(self, attributes: Attributes) -> Attributes {
        let text = to_json(&attributes);
        let redacted = self.redactor.redact(&text);
        if redacted.total() == 0 { attributes } else { reread(&redacted.text).unwrap_or_default() }
    }

    /// JSON without its secrets.
    fn clean_json(self, value: &impl Serialize) -> String {
        let text = to_json(value);
        match self.redactor.redact(&text).text {
            std::borrow::Cow::Borrowed(_) => text,
            std::borrow::Cow::Owned(clean) => clean,
        }
    }
}

/// Attributes from our own JSON of them.
fn reread(text: &str) -> Option<Attributes> {
    match value_of(serde_json::from_str(text).ok()?, 0) {
        Value::Map(attributes) => Some(attributes),
        _ => None,
    }
}

fn value_of(json: serde_json::Value, depth: usize) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Empty,
        _ if depth > 2 * VALUE_DEPTH_MAX => Value::Empty,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(list) => Value::List(list.into_iter().map(|v| value_of(v, depth + 1)).collect()),
        Json::Object(map) => {
            Value::Map(Attributes(map.into_iter().map(|(k, v)| (k, value_of(v, depth + 1))).collect()))
        }
    }
}

/// Our own values always have a JSON form.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// Namespaces of resource attributes that describe the sender's machine and software, not the work.
const NOT_LABELS: &[&str] = &[
    "service.",
    "os.",
    "telemetry.",
    "host.",
    "process.",
    "user.",
    "session.",
    "container.",
    "device.",
    "k8s.",
    "cloud.",
    "faas.",
    "wsl.",
    "organization.id",
    "terminal.",
];

/// What a resource says beside the known things: its labels, by key.
fn labels(resource: &Attributes) -> Vec<(String, String)> {
    let mut labels = std::collections::BTreeMap::new();
    for (key, value) in &resource.0 {
        let known = key.is_empty() || NOT_LABELS.iter().any(|name| key.starts_with(name));
        let text = match value {
            Value::Text(text) => text.clone(),
            Value::Bool(_) | Value::Int(_) | Value::Double(_) => to_json(value),
            Value::Empty | Value::List(_) | Value::Map(_) => continue,
        };
        if !known && labels.len() < LABELS_MAX {
            labels.insert(cut(key, LABEL_MAX_CHARS), cut(&text, LABEL_MAX_CHARS));
        }
    }
    labels.into_iter().collect()
}

fn cut(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// A name as it may stand in lists and filters: one line.
fn clean_name(name: &str) -> String {
    cut(&super::summary::line(name), NAME_MAX_CHARS)
}

/// Nanoseconds to the time of an event; what is wrong with it is an issue.
fn time_of(nanos: u64, received: TimestampMs) -> (TimestampMs, Option<Issue>) {
    if nanos == 0 {
        return (received, Some(Issue::NoTimestamp));
    }
    let ms = i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
    let ts = TimestampMs::clamped(ms);
    (ts, (ts.get() != ms).then_some(Issue::ClampedTimestamp(ms)))
}

/// The id of a record: the same parts give the same id, so an exporter's retry counts once.
fn record_id(parts: &[&[u8]]) -> EventId {
    EventId::derived(parts)
}

/// A whole number with thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Adds a part to a line, after a separator where something stands already.
fn push_part(line: &mut String, part: std::fmt::Arguments<'_>) {
    if !line.is_empty() {
        line.push_str(" · ");
    }
    // Writing into a string cannot fail.
    let _ = line.write_fmt(part);
}
