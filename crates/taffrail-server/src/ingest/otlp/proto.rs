//! Protobuf to the records that the mapping takes. Fields move; nothing is interpreted here.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1 as logs;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;
use taffrail_event::normalize::otlp::{
    Attributes, Export, Group, LogRecord, MetricInfo, Point, Rejected, Scope, Signal, Span, SpanEvent,
    Temporality, VALUE_DEPTH_MAX, Value,
};

use super::Brought;

/// A request's message.
pub(super) fn decode(signal: Signal, bytes: &[u8]) -> Result<Brought, prost::DecodeError> {
    Ok(match signal {
        Signal::Log => Brought::Logs(of_logs(ExportLogsServiceRequest::decode(bytes)?)),
        Signal::Metric => Brought::Metrics(of_metrics(ExportMetricsServiceRequest::decode(bytes)?)),
        Signal::Span => Brought::Spans(of_spans(ExportTraceServiceRequest::decode(bytes)?)),
    })
}

fn of_logs(request: ExportLogsServiceRequest) -> Export<LogRecord> {
    let mut export = Export::default();
    for resource in request.resource_logs {
        let about = of_resource(resource.resource);
        for scope in resource.scope_logs {
            let records = scope.log_records.into_iter().map(of_log).collect();
            export.groups.push(Group { resource: about.clone(), scope: of_scope(scope.scope), records });
        }
    }
    export
}

fn of_metrics(request: ExportMetricsServiceRequest) -> Export<Point> {
    let mut export = Export::default();
    for resource in request.resource_metrics {
        let about = of_resource(resource.resource);
        for scope in resource.scope_metrics {
            let mut records = Vec::new();
            for metric in scope.metrics {
                of_metric(metric, &mut records, &mut export.rejected);
            }
            export.groups.push(Group { resource: about.clone(), scope: of_scope(scope.scope), records });
        }
    }
    export
}

fn of_spans(request: ExportTraceServiceRequest) -> Export<Span> {
    let mut export = Export::default();
    for resource in request.resource_spans {
        let about = of_resource(resource.resource);
        for scope in resource.scope_spans {
            let records = scope.spans.into_iter().map(of_span).collect();
            export.groups.push(Group { resource: about.clone(), scope: of_scope(scope.scope), records });
        }
    }
    export
}

fn of_resource(resource: Option<Resource>) -> Attributes {
    of_attributes(resource.map(|resource| resource.attributes).unwrap_or_default())
}

fn of_scope(scope: Option<InstrumentationScope>) -> Scope {
    let scope = scope.unwrap_or_default();
    Scope { name: scope.name, version: scope.version }
}

fn of_attributes(pairs: Vec<KeyValue>) -> Attributes {
    attributes_at(pairs, 0)
}

fn attributes_at(pairs: Vec<KeyValue>, depth: usize) -> Attributes {
    Attributes(pairs.into_iter().map(|pair| (pair.key, of_value(pair.value, depth))).collect())
}

fn of_value(value: Option<AnyValue>, depth: usize) -> Value {
    let Some(value) = value.and_then(|value| value.value) else { return Value::Empty };
    match value {
        Any::StringValue(text) => Value::Text(text),
        Any::BoolValue(b) => Value::Bool(b),
        Any::IntValue(n) => Value::Int(n),
        Any::DoubleValue(d) => Value::Double(d),
        Any::BytesValue(bytes) => Value::Text(base64(&bytes)),
        Any::ArrayValue(_) | Any::KvlistValue(_) if depth >= VALUE_DEPTH_MAX => {
            Value::Text("[nested too deeply]".to_owned())
        }
        Any::ArrayValue(list) => {
            Value::List(list.values.into_iter().map(|value| of_value(Some(value), depth + 1)).collect())
        }
        Any::KvlistValue(list) => Value::Map(attributes_at(list.values, depth + 1)),
        // A reference into a table that this kind of request does not have.
        Any::StringValueStrindex(_) => Value::Empty,
    }
}

/// Base64 as OTLP/JSON writes bytes (RFC 4648, with padding).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            out.push(if at <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

/// Lower-case hexadecimal; an id of zeros is none.
fn hex(id: &[u8]) -> String {
    if id.iter().all(|b| *b == 0) {
        return String::new();
    }
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn of_log(record: logs::LogRecord) -> LogRecord {
    LogRecord {
        time_unix_nano: record.time_unix_nano,
        observed_time_unix_nano: record.observed_time_unix_nano,
        severity_number: i64::from(record.severity_number),
        severity_text: record.severity_text,
        body: of_value(record.body, 0),
        attributes: of_attributes(record.attributes),
        event_name: record.event_name,
        trace_id: hex(&record.trace_id),
        span_id: hex(&record.span_id),
        dropped_attributes_count: u64::from(record.dropped_attributes_count),
    }
}

fn of_metric(metric: metrics::Metric, points: &mut Vec<Point>, rejected: &mut Rejected) {
    let info = |kind, temporality: i32, is_monotonic| {
        Arc::new(MetricInfo {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            kind,
            temporality: Temporality::of_number(i64::from(temporality)),
            is_monotonic,
        })
    };
    match metric.data {
        None => rejected.add(1, "a metric has no data"),
        Some(Data::Gauge(data)) => {
            let info = info("gauge", 0, false);
            points.extend(data.data_points.into_iter().map(|point| of_number(point, Arc::clone(&info))));
        }
        Some(Data::Sum(data)) => {
            let info = info("sum", data.aggregation_temporality, data.is_monotonic);
            points.extend(data.data_points.into_iter().map(|point| of_number(point, Arc::clone(&info))));
        }
        Some(Data::Histogram(data)) => {
            let info = info("histogram", data.aggregation_temporality, false);
            points.extend(data.data_points.into_iter().map(|point| of_histogram(point, Arc::clone(&info))));
        }
        Some(Data::ExponentialHistogram(data)) => {
            let info = info("exponential_histogram", data.aggregation_temporality, false);
            points.extend(data.data_points.into_iter().map(|point| of_exponential(point, Arc::clone(&info))));
        }
        Some(Data::Summary(data)) => {
            let info = info("summary", 0, false);
            points.extend(data.data_points.into_iter().map(|point| of_summary(point, Arc::clone(&info))));
        }
    }
}

fn of_number(point: metrics::NumberDataPoint, metric: Arc<MetricInfo>) -> Point {
    let (value, int) = match point.value {
        Some(Number::AsDouble(d)) => (Some(d), None),
        Some(Number::AsInt(n)) => (Some(n as f64), Some(n)),
        None => (None, None),
    };
    Point {
        metric,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value,
        int,
        flags: u64::from(point.flags),
        attributes: of_attributes(point.attributes),
        detail: Attributes::default(),
    }
}

fn whole(n: u64) -> Value {
    i64::try_from(n).map_or_else(|_| Value::Text(n.to_string()), Value::Int)
}

fn counts(list: Vec<u64>) -> Value {
    Value::List(list.into_iter().map(whole).collect())
}

/// What is there, in the order and by the names of the JSON form.
fn detail(parts: Vec<(&str, Option<Value>)>) -> Attributes {
    let there = parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Attributes(there.filter(|(_, value)| *value != Value::List(Vec::new())).collect())
}

fn of_histogram(point: metrics::HistogramDataPoint, metric: Arc<MetricInfo>) -> Point {
    Point {
        metric,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: point.sum,
        int: None,
        flags: u64::from(point.flags),
        attributes: of_attributes(point.attributes),
        detail: detail(vec![
            ("count", Some(whole(point.count))),
            ("min", point.min.map(Value::Double)),
            ("max", point.max.map(Value::Double)),
            ("bucket_counts", Some(counts(point.bucket_counts))),
            (
                "explicit_bounds",
                Some(Value::List(point.explicit_bounds.into_iter().map(Value::Double).collect())),
            ),
        ]),
    }
}

fn of_exponential(point: metrics::ExponentialHistogramDataPoint, metric: Arc<MetricInfo>) -> Point {
    let buckets = |buckets: metrics::exponential_histogram_data_point::Buckets| {
        Value::Map(Attributes(vec![
            ("offset".to_owned(), Value::Int(i64::from(buckets.offset))),
            ("bucket_counts".to_owned(), counts(buckets.bucket_counts)),
        ]))
    };
    Point {
        metric,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: point.sum,
        int: None,
        flags: u64::from(point.flags),
        attributes: of_attributes(point.attributes),
        detail: detail(vec![
            ("count", Some(whole(point.count))),
            ("min", point.min.map(Value::Double)),
            ("max", point.max.map(Value::Double)),
            ("scale", Some(Value::Int(i64::from(point.scale)))),
            ("zero_count", Some(whole(point.zero_count))),
            ("positive", point.positive.map(buckets)),
            ("negative", point.negative.map(buckets)),
        ]),
    }
}

fn of_summary(point: metrics::SummaryDataPoint, metric: Arc<MetricInfo>) -> Point {
    let quantiles = point.quantile_values.into_iter();
    let quantiles = quantiles.map(|q| Value::List(vec![Value::Double(q.quantile), Value::Double(q.value)]));
    Point {
        metric,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: Some(point.sum),
        int: None,
        flags: u64::from(point.flags),
        attributes: of_attributes(point.attributes),
        detail: detail(vec![
            ("count", Some(whole(point.count))),
            ("quantiles", Some(Value::List(quantiles.collect()))),
        ]),
    }
}

fn of_span(span: trace::Span) -> Span {
    let status = span.status.unwrap_or_default();
    Span {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_span_id: hex(&span.parent_span_id),
        name: span.name,
        kind: i64::from(span.kind),
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes: of_attributes(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|event| SpanEvent {
                time_unix_nano: event.time_unix_nano,
                name: event.name,
                attributes: of_attributes(event.attributes),
            })
            .collect(),
        links: span
            .links
            .into_iter()
            .map(|link| (hex(&link.trace_id), hex(&link.span_id), of_attributes(link.attributes)))
            .collect(),
        status_code: i64::from(status.code),
        status_message: status.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
