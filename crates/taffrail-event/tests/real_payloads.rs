//! All real payloads that are at hand: one session a file, clients of 2025-07 to 2026-05.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{calls_of, capture, normalize, real_payloads, scenarios, shared_dir, statuses};
use taffrail_event::event::{Fact, Issue};
use taffrail_event::redact::Redactor;

/// How many there are.
const REAL_PAYLOADS: usize = 2223;

/// Events that in old payloads say nothing a person could read.
const QUIET: &[&str] = &["Stop", "SubagentStop"];

#[test]
fn every_real_payload_is_understood() {
    let Some(shared) = shared_dir() else { return };
    let payloads = real_payloads(&shared);
    assert_eq!(payloads.len(), REAL_PAYLOADS);
    let events: Vec<_> = payloads.iter().map(|payload| normalize(payload.as_bytes())).collect();
    for (event, payload) in events.iter().zip(&payloads) {
        assert!(!matches!(event.fact, Fact::Unknown | Fact::Malformed), "{payload}");
        assert_eq!(event.issues, [] as [Issue; 0], "{payload}");
        assert_eq!(&event.payload.text, payload);
        assert!(event.session_id != "unknown" && event.app != "unknown");
    }
    let calls = calls_of(&events);
    // Old payloads have no id: calls with the same input count once. Most have no Post, for not every log had them.
    let expected = BTreeMap::from([("abandoned", 1169), ("running", 14), ("succeeded", 508)]);
    assert_eq!(statuses(&calls), expected);
    let files: usize = events.iter().map(|event| event.file_operations.len()).sum();
    let git: usize = events.iter().map(|event| event.git_operations.len()).sum();
    assert_eq!((files, git), (205, 22));
    assert!(events.iter().all(|event| event.warnings.is_empty() && event.error.is_none()));
    assert!(
        events.iter().all(|event| !event.summary.is_empty() || QUIET.contains(&event.type_name.as_str()))
    );
}

#[test]
fn redaction_leaves_real_payloads_alone() {
    let Some(shared) = shared_dir() else { return };
    for payload in real_payloads(&shared) {
        let redacted = Redactor::builtin().redact(&payload);
        assert_eq!(redacted.text, payload, "{:?}", redacted.counts);
    }
    for scenario in scenarios() {
        for recorded in capture(&scenario) {
            let payload = recorded.body.to_string();
            assert_eq!(Redactor::builtin().redact(&payload).text, payload);
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "it measures")]
fn throughput_over_real_payloads() {
    let Some(shared) = shared_dir() else { return };
    let payloads = real_payloads(&shared);
    let bytes: usize = payloads.iter().map(String::len).sum();
    let (mut redacting, mut normalizing) = (Duration::ZERO, Duration::ZERO);
    for payload in &payloads {
        let begun = Instant::now();
        let redacted = Redactor::builtin().redact(payload);
        redacting += begun.elapsed();
        let begun = Instant::now();
        let event = normalize(redacted.text.as_bytes());
        normalizing += begun.elapsed();
        assert!(!event.payload.text.is_empty());
    }
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    eprintln!(
        "{} payloads, {:.1} MB: redact {:.0} MB/s, normalize {:.0} MB/s",
        payloads.len(),
        bytes as f64 / 1e6,
        rate(redacting),
        rate(normalizing)
    );
}
