//! Data points: one lean row each. They cross-check the ledger and are never added to it.

use super::{
    About, Attributes, Class, Context, Mapped, Point, Record, Signal, Telemetry, Value, clean_name,
    odd_number, record_id, time_of, to_json,
};
use crate::ids::DedupKey;

/// OTLP's flag for a point without a value on purpose.
const NO_RECORDED_VALUE: u64 = 1;
/// Whole numbers up to here are exact as a float.
const EXACT_MAX: i64 = 1 << 53;

impl Record for Point {
    fn map(self, about: &About, context: Context<'_>, mapped: &mut Mapped) {
        let name = clean_name(&self.metric.name);
        if name.is_empty() {
            mapped.rejected.add(1, "a metric has no name");
            return;
        }
        if self.value.is_none() && self.detail.0.is_empty() && self.flags & NO_RECORDED_VALUE == 0 {
            mapped.rejected.add(1, "a data point has no value");
            return;
        }
        mapped.count(Class::Metric);
        let session_id = about.session(&self.attributes);
        let (ts, _) = time_of(self.time_unix_nano, context.received);
        let attributes = to_json(&self.attributes);
        let id = record_id(&[
            b"otlp metric",
            session_id.as_deref().unwrap_or_default().as_bytes(),
            name.as_bytes(),
            &self.start_time_unix_nano.to_le_bytes(),
            &self.time_unix_nano.to_le_bytes(),
            attributes.as_bytes(),
        ]);
        let detail = context.clean_json(&self.described());
        mapped.telemetry.push(Telemetry {
            dedup_key: DedupKey::of_delivery(session_id.as_deref().unwrap_or_default(), id),
            ts,
            received: context.received,
            signal: Signal::Metric,
            name,
            session_id,
            value: self.value.filter(|value| value.is_finite()),
            temporality: self.metric.temporality,
            duration_us: None,
            attributes: context.redactor.redact(&attributes).text.into_owned(),
            detail: Some(detail),
            resource: about.text.clone(),
            request: None,
            failure: None,
        });
    }
}

impl Point {
    /// What the columns do not hold.
    fn described(&self) -> Attributes {
        let mut out = Attributes::default();
        let mut put = |key: &str, value: Value| out.0.push((key.to_owned(), value));
        put("kind", Value::Text(self.metric.kind.to_owned()));
        if !self.metric.unit.is_empty() {
            put("unit", Value::Text(self.metric.unit.clone()));
        }
        if self.metric.is_monotonic {
            put("monotonic", Value::Bool(true));
        }
        if self.start_time_unix_nano > 0 {
            put("start_time_unix_nano", Value::Text(self.start_time_unix_nano.to_string()));
        }
        if let Some(odd) = self.value.and_then(odd_number) {
            put("value", Value::Text(odd.to_owned()));
        }
        if let Some(exact) = self.int.filter(|n| n.abs() > EXACT_MAX) {
            put("value", Value::Int(exact));
        }
        if self.flags != 0 {
            put("flags", Value::Text(self.flags.to_string()));
        }
        out.0.extend(self.detail.0.iter().cloned());
        out
    }
}
