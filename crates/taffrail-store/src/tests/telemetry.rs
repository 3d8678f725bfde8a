//! The lean table: once each, in order of time, counted by name, and added up for a session.

use std::sync::Arc;

use taffrail_event::normalize::otlp::{self, Context, Mapped, Signal, json};
use taffrail_event::redact::Redactor;

use super::*;
use crate::TelemetryFilter;

const NANOS: u64 = T0 as u64 * 1_000_000;

/// Points of the client's metrics: name, session, model, type, nanoseconds after `T0`, value.
fn points(temporality: u8, points: &[(&str, &str, &str, &str, u64, f64)]) -> Mapped {
    let metrics: Vec<Value> = points
        .iter()
        .map(|(name, session, model, kind, after, value)| {
            let attributes: Vec<Value> = [("session.id", session), ("model", model), ("type", kind)]
                .iter()
                .map(|(key, value)| serde_json::json!({"key": key, "value": {"stringValue": value}}))
                .collect();
            serde_json::json!({"name": name, "sum": {"aggregationTemporality": temporality, "dataPoints": [
                {"attributes": attributes, "startTimeUnixNano": NANOS.to_string(),
                    "timeUnixNano": (NANOS + after).to_string(), "asDouble": value}]}})
        })
        .collect();
    let body = serde_json::json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).to_string();
    let context = Context { received: TimestampMs::clamped(T0 + 9), redactor: Redactor::builtin() };
    otlp::metrics(json::metrics(body.as_bytes()).unwrap(), context)
}

fn put(bed: &Bed, mapped: &Mapped) -> usize {
    let (sender, received) = std::sync::mpsc::channel();
    let done: crate::Done = Box::new(move |result| sender.send(result).unwrap());
    bed.store.submit_with(mapped.events.clone(), mapped.telemetry.clone(), done).unwrap();
    let appended = received.recv().unwrap().unwrap();
    assert_eq!(appended.len(), mapped.events.len() + mapped.telemetry.len());
    appended.iter().filter(|a| a.outcome == crate::Outcome::Stored).count()
}

const COST: &str = "claude_code.cost.usage";
const TOKENS: &str = "claude_code.token.usage";

#[test]
fn a_row_is_stored_once_and_no_session_is_made() {
    let bed = Bed::new();
    let mapped = points(
        1,
        &[(COST, "s", "m", "", 1, 0.5), (COST, "s", "m", "", 2, 0.25), (COST, "t", "m", "", 1, 1.0)],
    );
    assert_eq!((put(&bed, &mapped), put(&bed, &mapped)), (3, 0));
    let bed = bed.reopen();
    assert_eq!(put(&bed, &mapped), 0);
    let reader = bed.store.reader().unwrap();
    assert_eq!(reader.size().unwrap().sessions, 0);
    let names = reader.telemetry_names().unwrap();
    assert_eq!((names.len(), names[0].name.as_str(), names[0].records), (1, COST, 3));
    let filter = TelemetryFilter { session: Some("s".to_owned()), ..TelemetryFilter::default() };
    let page = reader.telemetry(&filter, None, 10).unwrap();
    assert_eq!(page.rows.len(), 2);
    assert!(page.rows[0].id > page.rows[1].id && page.rows.iter().all(|row| row.ts.get() == T0));
}

#[test]
fn pages_follow_each_other_and_filters_hold() {
    let bed = Bed::new();
    let many: Vec<_> =
        (0..5_000).map(|n| (if n % 2 == 0 { COST } else { TOKENS }, "s", "m", "input", n, 1.0)).collect();
    // More than a millisecond has room for: the rest spills into the next one.
    assert_eq!(put(&bed, &points(1, &many)), 5_000);
    let reader = bed.store.reader().unwrap();
    for (filter, rows) in [
        (TelemetryFilter::default(), 5_000),
        (TelemetryFilter { name: Some(COST.to_owned()), ..TelemetryFilter::default() }, 2_500),
        (TelemetryFilter { signal: Some(Signal::Span), ..TelemetryFilter::default() }, 0),
        (TelemetryFilter { to: Some(TimestampMs::clamped(T0)), ..TelemetryFilter::default() }, 0),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = reader.telemetry(&filter, cursor, 999).unwrap();
            seen.extend(page.rows.iter().map(|row| row.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(seen.is_sorted_by(|a, b| a > b));
        assert_eq!(seen.len(), rows, "{filter:?}");
    }
}

#[test]
fn deltas_are_summed_and_of_a_cumulative_series_the_highest_counts() {
    let bed = Bed::new();
    put(
        &bed,
        &points(
            1,
            &[
                (COST, "s", "opus", "", 1, 0.07104),
                (COST, "s", "opus", "", 2, 0.005_451_999_999_999_999),
                (COST, "s", "haiku", "", 2, 0.0002),
                (COST, "other", "opus", "", 2, 9.0),
                (TOKENS, "s", "opus", "input", 1, 10.0),
                (TOKENS, "s", "opus", "input", 2, 7.0),
                (TOKENS, "s", "opus", "cacheRead", 2, 14_000.0),
                (TOKENS, "s", "opus", "cacheCreation", 2, 200.0),
                (TOKENS, "s", "opus", "output", 2, 50.0),
            ],
        ),
    );
    let totals = bed.store.reader().unwrap().telemetry_totals("s").unwrap();
    assert_eq!(totals.cost_nano_usd(), 71_040_000 + 5_452_000 + 200_000);
    let opus = totals.models["opus"];
    assert_eq!((opus.cost_nano_usd, opus.usage.input, opus.usage.output), (76_492_000, 17, 50));
    assert_eq!((opus.usage.cache_read, opus.usage.cache_write_5m), (14_000, 200));
    assert_eq!(totals.models["haiku"].cost_nano_usd, 200_000);

    let series =
        [(COST, "c", "opus", "", 1, 1.0), (COST, "c", "opus", "", 2, 3.0), (COST, "c", "opus", "", 3, 2.0)];
    put(&bed, &points(2, &series));
    let reader = bed.store.reader().unwrap();
    assert_eq!(reader.telemetry_totals("c").unwrap().cost_nano_usd(), 3_000_000_000);
    assert_eq!(reader.telemetry_totals("nobody").unwrap(), crate::TelemetryTotals::default());
}

#[test]
fn many_rows_share_one_resource() {
    let bed = Bed::new();
    let mut mapped = points(1, &[(COST, "s", "m", "", 1, 0.5), (COST, "s", "m", "", 2, 0.25)]);
    put(&bed, &mapped);
    mapped = points(1, &[(COST, "s", "m", "", 3, 0.5)]);
    mapped.telemetry[0].resource = Arc::from("{\"resource\":{\"department\":\"web\"}}");
    put(&bed, &mapped);
    let conn = rusqlite::Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    let resources: i64 =
        conn.query_row("SELECT count(*) FROM telemetry_resources", [], |row| row.get(0)).unwrap();
    assert_eq!(resources, 2);
    let newest = bed.store.reader().unwrap().telemetry(&TelemetryFilter::default(), None, 1).unwrap();
    assert!(newest.rows[0].resource.contains("department"));
}
