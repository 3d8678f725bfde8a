//! OTLP/JSON, read tolerantly: a number may be text, a list null, an enum its name, and one bad record does not cost
//! the others. What is no JSON at all is an error; what is no record is rejected and counted.
//!
//! The crates' own JSON form refuses whole requests for less (null lists, names of enums) and loses data without a
//! word (`aggregationTemporality` as a name gives a metric without data, `"NaN"` a point without a value).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Attributes, Export, Group, LogRecord, MetricInfo, Point, Scope, Span, SpanEvent, Temporality, Value,
};

/// Log records of an `ExportLogsServiceRequest`.
///
/// # Errors
/// It is no JSON, or no object.
pub fn logs(text: &[u8]) -> serde_json::Result<Export<LogRecord>> {
    let request: LogsRequest = object(text)?;
    Ok(export(request.resource_logs, "log record", |resource| {
        let (attributes, scopes) = (resource.resource, resource.scope_logs);
        (attributes, scopes.map(|scope| (scope.scope, scope.log_records.map(LogWire::record))))
    }))
}

/// Data points of an `ExportMetricsServiceRequest`.
///
/// # Errors
/// It is no JSON, or no object.
pub fn metrics(text: &[u8]) -> serde_json::Result<Export<Point>> {
    let request: MetricsRequest = object(text)?;
    let mut rejected = super::Rejected::default();
    let mut exported = export(request.resource_metrics, "metric", |resource| {
        let (attributes, scopes) = (resource.resource, resource.scope_metrics);
        (attributes, scopes.map(|scope| (scope.scope, scope.metrics)))
    });
    let odd = std::mem::take(&mut exported.odd);
    let bad = std::mem::take(&mut exported.rejected);
    rejected.add(bad.records, bad.reason.as_deref().unwrap_or_default());
    let mut points = Export { groups: Vec::new(), rejected, odd };
    for group in exported.groups {
        let mut records = Vec::new();
        for metric in group.records {
            metric.points(&mut records, &mut points.rejected);
        }
        points.groups.push(Group { resource: group.resource, scope: group.scope, records });
    }
    Ok(points)
}

/// Spans of an `ExportTraceServiceRequest`.
///
/// # Errors
/// It is no JSON, or no object.
pub fn spans(text: &[u8]) -> serde_json::Result<Export<Span>> {
    let request: SpansRequest = object(text)?;
    Ok(export(request.resource_spans, "span", |resource| {
        let (attributes, scopes) = (resource.resource, resource.scope_spans);
        (attributes, scopes.map(|scope| (scope.scope, scope.spans.map(SpanWire::span))))
    }))
}

/// A request is an object, whatever is in it.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> serde_json::Result<T> {
    let request: Slot<T> = serde_json::from_slice(text)?;
    request.0.ok_or_else(|| serde::de::Error::custom("the request is no JSON object"))
}

type Scopes<T> = List<(Slot<ScopeWire>, List<T>)>;

fn export<R, T>(
    resources: List<R>,
    what: &str,
    open: impl Fn(R) -> (Slot<ResourceWire>, Scopes<T>),
) -> Export<T> {
    let mut export = Export { odd: resources.bad, ..Export::default() };
    for resource in resources.items {
        let (resource, scopes) = open(resource);
        let attributes = resource.0.unwrap_or_default().attributes;
        export.odd += scopes.bad + attributes.bad;
        let resource = attributes.attributes();
        for (scope, records) in scopes.items {
            export.rejected.add(records.bad, &format!("a {what} is no JSON object"));
            let scope = scope.0.unwrap_or_default();
            export.groups.push(Group {
                resource: resource.clone(),
                scope: Scope { name: scope.name.into_text(), version: scope.version.into_text() },
                records: records.items,
            });
        }
    }
    export
}

/// Any scalar; a list or an object is [`Scalar::Other`].
#[derive(Debug, Default, PartialEq)]
enum Scalar {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(String),
    Other,
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Bool(b) => b.to_string(),
            Self::Int(n) => n.to_string(),
            Self::UInt(n) => n.to_string(),
            Self::Float(n) => n.to_string(),
            Self::Null | Self::Other => String::new(),
        }
    }

    /// A fixed64 or uint64: a number, or text with one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded here")]
    fn u64(&self) -> u64 {
        match self {
            Self::UInt(n) => *n,
            Self::Int(n) => u64::try_from(*n).unwrap_or(0),
            Self::Float(f) if (0.0..1.8e19).contains(f) => *f as u64,
            Self::Text(text) => text.trim().parse().unwrap_or(0),
            _ => 0,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "bounded here")]
    fn i64(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::UInt(n) => i64::try_from(*n).ok(),
            Self::Float(f) if f.fract() == 0.0 && f.abs() < 9e18 => Some(*f as i64),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A double: a number, text with one, or one of the names JSON has no number for.
    fn f64(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::UInt(n) => Some(*n as f64),
            Self::Float(f) => Some(*f),
            Self::Text(text) => match text.trim() {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                text => text.parse().ok(),
            },
            _ => None,
        }
    }

    /// An enum by its number or by the end of its name.
    fn named(&self, names: &[&str]) -> i64 {
        let by_name = |text: &str| {
            let at = names.iter().rposition(|name| text.ends_with(name));
            at.and_then(|at| i64::try_from(at).ok())
        };
        match self {
            Self::Text(text) => text.parse().ok().or_else(|| by_name(text)).unwrap_or(0),
            other => other.i64().unwrap_or(0),
        }
    }

    /// An id: hexadecimal in any case.
    fn id(self) -> String {
        let mut id = self.into_text();
        id.make_ascii_lowercase();
        if id.bytes().all(|b| b == b'0') { String::new() } else { id }
    }
}

macro_rules! scalars {
    () => {
        fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
            self.scalar(Scalar::Bool(b))
        }
        fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
            self.scalar(Scalar::Int(n))
        }
        fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
            self.scalar(i64::try_from(n).map_or(Scalar::UInt(n), Scalar::Int))
        }
        fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
            self.scalar(Scalar::Float(n))
        }
        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            self.scalar(Scalar::Text(text.to_owned()))
        }
        fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
            self.scalar(Scalar::Text(text))
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            self.scalar(Scalar::Null)
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON")
        }
    };
}

fn drain_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Any {
            #[allow(clippy::unnecessary_wraps, reason = "the shape the macro calls")]
            fn scalar<E>(self, scalar: Scalar) -> Result<Scalar, E> {
                Ok(scalar)
            }
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;
            scalars!();
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Scalar, A::Error> {
                drain_seq(seq).map(|()| Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar, A::Error> {
                drain_map(map).map(|()| Scalar::Other)
            }
        }
        from.deserialize_any(Any)
    }
}

/// An object; anything else is none.
#[derive(Debug)]
struct Slot<T>(Option<T>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Slot<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<T> Any<T> {
            #[allow(clippy::unnecessary_wraps, reason = "the shape the macro calls")]
            fn scalar<E>(self, _: Scalar) -> Result<Slot<T>, E> {
                Ok(Slot(None))
            }
        }
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Slot<T>;
            scalars!();
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Slot<T>, A::Error> {
                drain_seq(seq).map(|()| Slot(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Slot<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|value| Slot(Some(value)))
            }
        }
        from.deserialize_any(Any(PhantomData))
    }
}

/// A list of objects; null is an empty one. What is no object is counted.
#[derive(Debug)]
struct List<T> {
    items: Vec<T>,
    bad: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), bad: 0 }
    }
}

impl<T> List<T> {
    fn map<U>(self, f: impl FnMut(T) -> U) -> List<U> {
        List { items: self.items.into_iter().map(f).collect(), bad: self.bad }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);
        impl<T> Any<T> {
            #[allow(clippy::unnecessary_wraps, reason = "the shape the macro calls")]
            fn scalar<E>(self, scalar: Scalar) -> Result<List<T>, E> {
                let bad = usize::from(!matches!(scalar, Scalar::Null));
                drop(scalar);
                Ok(List { items: Vec::new(), bad })
            }
        }
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = List<T>;
            scalars!();
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut list = List::default();
                while let Some(slot) = seq.next_element::<Slot<T>>()? {
                    match slot.0 {
                        Some(item) => list.items.push(item),
                        None => list.bad += 1,
                    }
                }
                Ok(list)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List<T>, A::Error> {
                drain_map(map).map(|()| List { items: Vec::new(), bad: 1 })
            }
        }
        from.deserialize_any(Any(PhantomData))
    }
}

/// Scalars in a list; what is none is left out.
#[derive(Debug, Default)]
struct Scalars(Vec<Scalar>);

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Any {
            #[allow(clippy::unnecessary_wraps, reason = "the shape the macro calls")]
            fn scalar<E>(self, _: Scalar) -> Result<Scalars, E> {
                Ok(Scalars::default())
            }
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Scalars;
            scalars!();
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalars, A::Error> {
                let mut all = Vec::new();
                while let Some(scalar) = seq.next_element::<Scalar>()? {
                    all.push(scalar);
                }
                Ok(Scalars(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalars, A::Error> {
                drain_map(map).map(|()| Scalars::default())
            }
        }
        from.deserialize_any(Any)
    }
}

/// An `AnyValue`; a bare JSON value is taken, too.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Any {
            #[allow(clippy::unnecessary_wraps, reason = "the shape the macro calls")]
            fn scalar<E>(self, scalar: Scalar) -> Result<Value, E> {
                Ok(bare(scalar))
            }
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            scalars!();
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut value = Value::Empty;
                while let Some(key) = map.next_key::<Key>()? {
                    let next = match key {
                        Key::Text => text_value(map.next_value()?),
                        Key::Bool | Key::Bytes => bare(map.next_value()?),
                        Key::Int => int_value(map.next_value()?),
                        Key::Double => double_value(map.next_value()?),
                        Key::Array => {
                            let list: Slot<ArrayWire> = map.next_value()?;
                            list.0.map_or(Value::Empty, |list| Value::List(list.values))
                        }
                        Key::Map => {
                            let list: Slot<MapWire> = map.next_value()?;
                            list.0.map_or(Value::Empty, |list| Value::Map(list.values.attributes()))
                        }
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if next != Value::Empty {
                        value = next;
                    }
                }
                Ok(value)
            }
        }
        from.deserialize_any(Any)
    }
}

#[derive(Clone, Copy, Deserialize)]
enum Key {
    #[serde(rename = "stringValue", alias = "string_value")]
    Text,
    #[serde(rename = "boolValue", alias = "bool_value")]
    Bool,
    #[serde(rename = "intValue", alias = "int_value")]
    Int,
    #[serde(rename = "doubleValue", alias = "double_value")]
    Double,
    #[serde(rename = "arrayValue", alias = "array_value")]
    Array,
    #[serde(rename = "kvlistValue", alias = "kvlist_value")]
    Map,
    #[serde(rename = "bytesValue", alias = "bytes_value")]
    Bytes,
    #[serde(other)]
    Other,
}

fn bare(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Null | Scalar::Other => Value::Empty,
        Scalar::Bool(b) => Value::Bool(b),
        Scalar::Int(n) => Value::Int(n),
        Scalar::UInt(n) => Value::Text(n.to_string()),
        Scalar::Float(f) => Value::Double(f),
        Scalar::Text(text) => Value::Text(text),
    }
}

fn text_value(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Null | Scalar::Other => Value::Empty,
        other => Value::Text(other.into_text()),
    }
}

/// An integer is text in OTLP/JSON; Claude Code's own exporter writes a number.
fn int_value(scalar: Scalar) -> Value {
    match scalar.i64() {
        Some(n) => Value::Int(n),
        None => bare(scalar),
    }
}

fn double_value(scalar: Scalar) -> Value {
    match scalar.f64() {
        Some(n) => Value::Double(n),
        None => bare(scalar),
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ArrayWire {
    #[serde(deserialize_with = "values")]
    values: Vec<Value>,
}

fn values<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Value>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::List(list) => list,
        _ => Vec::new(),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MapWire {
    values: List<KeyValueWire>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeyValueWire {
    key: Scalar,
    value: Value,
}

impl List<KeyValueWire> {
    fn attributes(self) -> Attributes {
        Attributes(self.items.into_iter().map(|pair| (pair.key.into_text(), pair.value)).collect())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourceWire {
    attributes: List<KeyValueWire>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScopeWire {
    name: Scalar,
    version: Scalar,
}

macro_rules! envelope {
    ($request:ident.$resources:ident($resources_alias:literal), $resource:ident.$scopes:ident($scopes_alias:literal),
        $scope:ident.$records:ident($records_alias:literal): $record:ident) => {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $request {
            #[serde(alias = $resources_alias)]
            $resources: List<$resource>,
        }

        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $resource {
            resource: Slot<ResourceWire>,
            #[serde(alias = $scopes_alias)]
            $scopes: List<$scope>,
        }

        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $scope {
            scope: Slot<ScopeWire>,
            #[serde(alias = $records_alias)]
            $records: List<$record>,
        }
    };
}

envelope!(LogsRequest.resource_logs("resourceLogs"), ResourceLogs.scope_logs("scopeLogs"),
    ScopeLogs.log_records("logRecords"): LogWire);
envelope!(MetricsRequest.resource_metrics("resourceMetrics"), ResourceMetrics.scope_metrics("scopeMetrics"),
    ScopeMetrics.metrics("metric_list"): MetricWire);
envelope!(SpansRequest.resource_spans("resourceSpans"), ResourceSpans.scope_spans("scopeSpans"),
    ScopeSpans.spans("span_list"): SpanWire);

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LogWire {
    #[serde(alias = "time_unix_nano")]
    time_unix_nano: Scalar,
    #[serde(alias = "observed_time_unix_nano")]
    observed_time_unix_nano: Scalar,
    #[serde(alias = "severity_number")]
    severity_number: Scalar,
    #[serde(alias = "severity_text")]
    severity_text: Scalar,
    body: Value,
    attributes: List<KeyValueWire>,
    #[serde(alias = "event_name")]
    event_name: Scalar,
    #[serde(alias = "trace_id")]
    trace_id: Scalar,
    #[serde(alias = "span_id")]
    span_id: Scalar,
    #[serde(alias = "dropped_attributes_count")]
    dropped_attributes_count: Scalar,
}

/// The first of each four severities; the others end in their number.
const SEVERITIES: &[&str] = &[
    "UNSPECIFIED",
    "TRACE",
    "TRACE2",
    "TRACE3",
    "TRACE4",
    "DEBUG",
    "DEBUG2",
    "DEBUG3",
    "DEBUG4",
    "INFO",
    "INFO2",
    "INFO3",
    "INFO4",
    "WARN",
    "WARN2",
    "WARN3",
    "WARN4",
    "ERROR",
    "ERROR2",
    "ERROR3",
    "ERROR4",
    "FATAL",
    "FATAL2",
    "FATAL3",
    "FATAL4",
];

impl LogWire {
    fn record(self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.time_unix_nano.u64(),
            observed_time_unix_nano: self.observed_time_unix_nano.u64(),
            severity_number: self.severity_number.named(SEVERITIES),
            severity_text: self.severity_text.into_text(),
            body: self.body,
            attributes: self.attributes.attributes(),
            event_name: self.event_name.into_text(),
            trace_id: self.trace_id.id(),
            span_id: self.span_id.id(),
            dropped_attributes_count: self.dropped_attributes_count.u64(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetricWire {
    name: Scalar,
    unit: Scalar,
    sum: Slot<DataWire>,
    gauge: Slot<DataWire>,
    histogram: Slot<DataWire>,
    #[serde(alias = "exponential_histogram")]
    exponential_histogram: Slot<DataWire>,
    summary: Slot<DataWire>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DataWire {
    #[serde(alias = "data_points")]
    data_points: List<PointWire>,
    #[serde(alias = "aggregation_temporality")]
    aggregation_temporality: Scalar,
    #[serde(alias = "is_monotonic")]
    is_monotonic: Scalar,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PointWire {
    attributes: List<KeyValueWire>,
    #[serde(alias = "start_time_unix_nano")]
    start_time_unix_nano: Scalar,
    #[serde(alias = "time_unix_nano")]
    time_unix_nano: Scalar,
    #[serde(alias = "as_double")]
    as_double: Scalar,
    #[serde(alias = "as_int")]
    as_int: Scalar,
    flags: Scalar,
    count: Scalar,
    sum: Scalar,
    min: Scalar,
    max: Scalar,
    #[serde(alias = "bucket_counts")]
    bucket_counts: Scalars,
    #[serde(alias = "explicit_bounds")]
    explicit_bounds: Scalars,
    scale: Scalar,
    #[serde(alias = "zero_count")]
    zero_count: Scalar,
    positive: Slot<BucketsWire>,
    negative: Slot<BucketsWire>,
    #[serde(alias = "quantile_values")]
    quantile_values: List<QuantileWire>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BucketsWire {
    offset: Scalar,
    #[serde(alias = "bucket_counts")]
    bucket_counts: Scalars,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct QuantileWire {
    quantile: Scalar,
    value: Scalar,
}

impl MetricWire {
    fn points(self, points: &mut Vec<Point>, rejected: &mut super::Rejected) {
        let kinds = [
            ("sum", self.sum),
            ("gauge", self.gauge),
            ("histogram", self.histogram),
            ("exponential_histogram", self.exponential_histogram),
            ("summary", self.summary),
        ];
        let name = self.name.into_text();
        let Some((kind, data)) = kinds.into_iter().find_map(|(kind, data)| Some((kind, data.0?))) else {
            rejected.add(1, "a metric has no data");
            return;
        };
        let metric = Arc::new(MetricInfo {
            name,
            unit: self.unit.into_text(),
            kind,
            temporality: Temporality::of_number(data.aggregation_temporality.named(&[
                "UNSPECIFIED",
                "DELTA",
                "CUMULATIVE",
            ])),
            is_monotonic: matches!(data.is_monotonic, Scalar::Bool(true)),
        });
        rejected.add(data.data_points.bad, "a data point is no JSON object");
        points.extend(data.data_points.items.into_iter().map(|point| point.point(Arc::clone(&metric))));
    }
}

impl PointWire {
    fn point(self, metric: Arc<MetricInfo>) -> Point {
        let number = matches!(metric.kind, "sum" | "gauge");
        let int = self.as_int.i64().filter(|_| number);
        let value =
            if number { int.map(|n| n as f64).or_else(|| self.as_double.f64()) } else { self.sum.f64() };
        let mut detail = Attributes::default();
        if !number {
            let mut put = |key: &str, value: Value| {
                if !matches!(&value, Value::Empty) && value != Value::List(Vec::new()) {
                    detail.0.push((key.to_owned(), value));
                }
            };
            let count = |scalar: Scalar| match scalar {
                Scalar::Null => Value::Empty,
                other => int_value(other),
            };
            let number = |scalar: Scalar| match scalar {
                Scalar::Null => Value::Empty,
                other => double_value(other),
            };
            put("count", count(self.count));
            put("min", number(self.min));
            put("max", number(self.max));
            put("bucket_counts", Value::List(self.bucket_counts.0.into_iter().map(int_value).collect()));
            put(
                "explicit_bounds",
                Value::List(self.explicit_bounds.0.into_iter().map(double_value).collect()),
            );
            put("scale", count(self.scale));
            put("zero_count", count(self.zero_count));
            for (key, buckets) in [("positive", self.positive), ("negative", self.negative)] {
                if let Some(buckets) = buckets.0 {
                    let counts = buckets.bucket_counts.0.into_iter().map(int_value).collect();
                    let offset = Value::Int(buckets.offset.i64().unwrap_or(0));
                    put(
                        key,
                        Value::Map(Attributes(vec![
                            ("offset".to_owned(), offset),
                            ("bucket_counts".to_owned(), Value::List(counts)),
                        ])),
                    );
                }
            }
            let quantiles = self.quantile_values.items.into_iter().map(|pair| {
                Value::List(vec![
                    Value::Double(pair.quantile.f64().unwrap_or(0.0)),
                    Value::Double(pair.value.f64().unwrap_or(0.0)),
                ])
            });
            put("quantiles", Value::List(quantiles.collect()));
        }
        Point {
            metric,
            start_time_unix_nano: self.start_time_unix_nano.u64(),
            time_unix_nano: self.time_unix_nano.u64(),
            value,
            int,
            flags: self.flags.u64(),
            attributes: self.attributes.attributes(),
            detail,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpanWire {
    #[serde(alias = "trace_id")]
    trace_id: Scalar,
    #[serde(alias = "span_id")]
    span_id: Scalar,
    #[serde(alias = "parent_span_id")]
    parent_span_id: Scalar,
    name: Scalar,
    kind: Scalar,
    #[serde(alias = "start_time_unix_nano")]
    start_time_unix_nano: Scalar,
    #[serde(alias = "end_time_unix_nano")]
    end_time_unix_nano: Scalar,
    attributes: List<KeyValueWire>,
    events: List<SpanEventWire>,
    links: List<LinkWire>,
    status: Slot<StatusWire>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SpanEventWire {
    #[serde(alias = "time_unix_nano")]
    time_unix_nano: Scalar,
    name: Scalar,
    attributes: List<KeyValueWire>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LinkWire {
    #[serde(alias = "trace_id")]
    trace_id: Scalar,
    #[serde(alias = "span_id")]
    span_id: Scalar,
    attributes: List<KeyValueWire>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusWire {
    code: Scalar,
    message: Scalar,
}

impl SpanWire {
    fn span(self) -> Span {
        let status = self.status.0.unwrap_or_default();
        let event = |event: SpanEventWire| SpanEvent {
            time_unix_nano: event.time_unix_nano.u64(),
            name: event.name.into_text(),
            attributes: event.attributes.attributes(),
        };
        let link = |link: LinkWire| (link.trace_id.id(), link.span_id.id(), link.attributes.attributes());
        Span {
            trace_id: self.trace_id.id(),
            span_id: self.span_id.id(),
            parent_span_id: self.parent_span_id.id(),
            name: self.name.into_text(),
            kind: self.kind.named(&["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]),
            start_time_unix_nano: self.start_time_unix_nano.u64(),
            end_time_unix_nano: self.end_time_unix_nano.u64(),
            attributes: self.attributes.attributes(),
            events: self.events.items.into_iter().map(event).collect(),
            links: self.links.items.into_iter().map(link).collect(),
            status_code: status.code.named(&["UNSET", "OK", "ERROR"]),
            status_message: status.message.into_text(),
        }
    }
}
