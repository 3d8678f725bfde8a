//! Episodes, decisions, models.

use proptest::prelude::*;
use serde_json::json;
use taffrail_event::RowId;

use super::*;
use crate::{Finding, FindingFilter, FindingSeverity, FindingState, MODELS_KEPT, Model};

fn at(ms: i64) -> TimestampMs {
    TimestampMs::clamped(T0 + ms)
}

fn found(key: &str, ms: i64) -> Finding {
    Finding {
        key: key.to_owned(),
        detector: "retry_loop".to_owned(),
        severity: FindingSeverity::Warning,
        app: "app".to_owned(),
        user: Some("ann".to_owned()),
        session_id: Some("s".to_owned()),
        agent_id: None,
        agent_type: None,
        tool_name: Some("Bash".to_owned()),
        started: at(ms),
        last: at(ms),
        ended: None,
        score: None,
        title: "the same command failed 5 times".to_owned(),
        evidence: json!({"repeats": 5}),
        reasons: json!([]),
        calls: vec![RowId(1), RowId(2)],
        cost_nano_usd: Some(7),
        action: "pause".to_owned(),
        advice: "look at it".to_owned(),
        model_version: None,
    }
}

fn list(bed: &Bed, filter: &FindingFilter) -> Vec<String> {
    let page = bed.store.reader().unwrap().findings(filter, None, 100).unwrap();
    page.rows.into_iter().map(|row| row.finding.key).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_episode_is_one_row_in_any_order(
        tellings in prop::collection::vec((0usize..3, 0i64..50, 0usize..3), 1..30),
    ) {
        let bed = Bed::new();
        for &(key, ms, severity) in &tellings {
            let mut finding = found(&key.to_string(), ms);
            finding.severity = FindingSeverity::ALL[severity];
            bed.store.record_findings(vec![finding], at(99)).unwrap();
        }
        let reader = bed.store.reader().unwrap();
        for key in 0..3 {
            let of_key: Vec<_> = tellings.iter().filter(|telling| telling.0 == key).collect();
            let rows = reader.findings(&FindingFilter::default(), None, 100).unwrap().rows;
            let row = rows.iter().find(|row| row.finding.key == key.to_string());
            prop_assert_eq!(row.is_some(), !of_key.is_empty());
            if let Some(row) = row {
                prop_assert_eq!(row.told, of_key.len() as i64);
                prop_assert_eq!(Some(row.finding.started), of_key.iter().map(|t| at(t.1)).min());
                prop_assert_eq!(Some(row.finding.last), of_key.iter().map(|t| at(t.1)).max());
                let worst = of_key.iter().map(|t| FindingSeverity::ALL[t.2]).max();
                prop_assert_eq!(Some(row.finding.severity), worst);
            }
        }
    }
}

#[test]
fn a_finding_comes_back_as_it_went_in_and_keeps_what_a_person_said() {
    let bed = Bed::new();
    let finding = found("a", 5);
    let told = bed.store.record_findings(vec![finding.clone()], at(9)).unwrap();
    assert!(told[0].is_new && !told[0].is_escalated);
    let id = told[0].id;
    let reader = bed.store.reader().unwrap();
    let row = reader.finding(id).unwrap().unwrap();
    assert_eq!(
        (row.finding, row.detected, row.told, row.state),
        (finding.clone(), at(9), 1, FindingState::Open)
    );

    let said =
        |state| bed.store.decide_finding(id, state, Some("ann".to_owned()), Some("noise".to_owned()), at(10));
    assert!(said(FindingState::Dismissed).unwrap());
    assert!(!bed.store.decide_finding(RowId(1), FindingState::Dismissed, None, None, at(10)).unwrap());
    let worse = Finding { severity: FindingSeverity::Critical, last: at(20), ended: Some(at(20)), ..finding };
    let told = bed.store.record_findings(vec![worse], at(21)).unwrap();
    assert!(!told[0].is_new && told[0].is_escalated);
    let row = reader.finding(id).unwrap().unwrap();
    assert_eq!((row.state, row.decided, row.told), (FindingState::Dismissed, Some(at(10)), 2));
    assert_eq!((row.decided_by.as_deref(), row.note.as_deref()), (Some("ann"), Some("noise")));
    assert_eq!(row.finding.ended, Some(at(20)));

    assert!(!row.has_bundle && bed.store.keep_bundle(id, &json!({"calls": [1]})).unwrap());
    assert!(!bed.store.keep_bundle(id, &json!("x".repeat(crate::BUNDLE_MAX_BYTES))).unwrap());
    let row = reader.finding(id).unwrap().unwrap();
    assert_eq!((row.has_bundle, row.bundle), (true, Some(json!({"calls": [1]}))));
}

#[test]
fn filters_narrow_and_pages_follow_each_other() {
    let bed = Bed::new();
    let mut all: Vec<Finding> = (0..7).map(|n| found(&format!("k{n}"), n)).collect();
    all[1].detector = "cost_spike".to_owned();
    all[2].session_id = None;
    all[3].app = "other".to_owned();
    all[4].severity = FindingSeverity::Critical;
    all[5].ended = Some(at(6));
    all[6].started = all[5].started;
    bed.store.record_findings(all, at(9)).unwrap();
    let any = FindingFilter::default;
    assert_eq!(list(&bed, &any()), ["k6", "k5", "k4", "k3", "k2", "k1", "k0"]);
    assert_eq!(list(&bed, &FindingFilter { detector: Some("cost_spike".to_owned()), ..any() }), ["k1"]);
    assert_eq!(list(&bed, &FindingFilter { session: Some("s".to_owned()), ..any() }).len(), 6);
    assert_eq!(list(&bed, &FindingFilter { app: Some("other".to_owned()), ..any() }), ["k3"]);
    assert_eq!(list(&bed, &FindingFilter { severity: Some(FindingSeverity::Critical), ..any() }), ["k4"]);
    assert_eq!(list(&bed, &FindingFilter { ongoing: Some(false), ..any() }), ["k5"]);
    assert_eq!(list(&bed, &FindingFilter { from: Some(at(1)), to: Some(at(3)), ..any() }), ["k2", "k1"]);
    assert!(list(&bed, &FindingFilter { state: Some(FindingState::Confirmed), ..any() }).is_empty());

    let reader = bed.store.reader().unwrap();
    let mut cursor = None;
    let mut keys = Vec::new();
    loop {
        let page = reader.findings(&any(), cursor, 3).unwrap();
        keys.extend(page.rows.into_iter().map(|row| row.finding.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(keys, list(&bed, &any()));
    let counts = reader.finding_counts(at(0), at(100)).unwrap();
    assert_eq!((counts[0].detector.as_str(), counts[0].found, counts[0].ongoing), ("retry_loop", 6, 5));
    assert_eq!(bed.store.end_stale_findings(at(3)).unwrap(), 3);
}

#[test]
fn long_texts_are_cut_and_long_evidence_is_named_by_its_size() {
    let bed = Bed::new();
    let mut finding = found("a", 0);
    finding.title = "é".repeat(10_000);
    finding.evidence = json!("x".repeat(100_000));
    let told = bed.store.record_findings(vec![finding], at(0)).unwrap();
    let row = bed.store.reader().unwrap().finding(told[0].id).unwrap().unwrap();
    assert_eq!(row.finding.title.len(), 4 * 1024);
    assert_eq!(row.finding.evidence, json!({"left_out_bytes": 100_002}));
}

#[test]
fn models_have_versions_and_the_newest_are_kept() {
    let bed = Bed::new();
    let model = |family: &str, byte| Model {
        kind: "isolation_forest".to_owned(),
        family: family.to_owned(),
        version: 0,
        trained: at(0),
        rows: 10,
        about: json!({"seed": 1}),
        data: vec![byte],
    };
    for byte in 1..=5u8 {
        assert_eq!(bed.store.save_model(&model("shell", byte)).unwrap(), i64::from(byte));
    }
    assert_eq!(bed.store.save_model(&model("web", 9)).unwrap(), 1);
    let bed = bed.reopen();
    let models = bed.store.reader().unwrap().newest_models("isolation_forest").unwrap();
    let told: Vec<_> = models.iter().map(|m| (m.family.as_str(), m.version, m.data.clone())).collect();
    assert_eq!(told, [("shell", 5, vec![5]), ("web", 1, vec![9])]);
    let conn = rusqlite::Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    let kept: i64 =
        conn.query_row("SELECT count(*) FROM models WHERE family = 'shell'", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, MODELS_KEPT as i64);
}

#[test]
fn the_oldest_that_are_over_go_first() {
    let bed = Bed::new();
    let mut all: Vec<Finding> = (0..6).map(|n| found(&format!("k{n}"), n)).collect();
    for finding in &mut all[2..5] {
        finding.ended = Some(finding.last);
    }
    bed.store.record_findings(all, at(9)).unwrap();
    let prune = |max: usize| bed.store.change(move |conn| crate::findings::prune(conn, max)).unwrap();
    prune(6);
    assert_eq!(list(&bed, &FindingFilter::default()).len(), 6);
    prune(3);
    assert_eq!(list(&bed, &FindingFilter::default()), ["k5", "k1", "k0"]);
}
