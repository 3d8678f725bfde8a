//! Suggestions: told again, decided, applied, forgotten.

use proptest::prelude::*;
use serde_json::json;
use taffrail_event::RowId;

use super::*;
use crate::suggestions::OPEN_KEPT_MS;
use crate::{Suggestion, SuggestionFilter, SuggestionMove, SuggestionState};

fn at(ms: i64) -> TimestampMs {
    TimestampMs::clamped(T0 + ms)
}

fn suggestion(subject: &str, title: &str) -> Suggestion {
    Suggestion {
        kind: "failing_command".to_owned(),
        app: "app".to_owned(),
        subject: subject.to_owned(),
        title: title.to_owned(),
        advice: "look".to_owned(),
        evidence: json!({"figures": [{"name": "failures", "value": 4.0, "unit": "count"}]}),
        sessions: vec!["s1".to_owned()],
        calls: vec![RowId(1)],
        edit: Some(json!({"type": "note", "lines": ["x"]})),
        saving_nano_usd: None,
        saving_ms: Some(5),
        basis: "time".to_owned(),
    }
}

fn rows(bed: &Bed, filter: &SuggestionFilter) -> Vec<crate::StoredSuggestion> {
    bed.store.reader().unwrap().suggestions(filter, None, 100).unwrap().rows
}

fn decide(bed: &Bed, id: RowId, from: &[SuggestionState], to: SuggestionState, ms: i64) -> bool {
    let decision = SuggestionMove {
        from: from.to_vec(),
        to,
        by: Some("ann".to_owned()),
        change: Some(json!({"file": "/f"})),
    };
    bed.store.move_suggestion(id, decision, at(ms)).unwrap()
}

#[test]
fn a_suggestion_comes_back_as_it_went_in() {
    let bed = Bed::new();
    let one = suggestion("make", "a");
    assert_eq!(bed.store.record_suggestions(vec![one.clone(), suggestion("x", "b")], at(1)).unwrap(), 2);
    let found = rows(&bed, &SuggestionFilter::default());
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].suggestion, one);
    assert_eq!((found[1].suggested, found[1].seen, found[1].state), (at(1), at(1), SuggestionState::Open));
    let one_again = bed.store.reader().unwrap().suggestion(found[1].id).unwrap();
    assert_eq!(one_again.as_ref(), Some(&found[1]));
    assert_eq!(rows(&bed, &SuggestionFilter { kind: Some("no".to_owned()), ..Default::default() }), []);
    assert_eq!(rows(&bed, &SuggestionFilter { app: Some("app".to_owned()), ..Default::default() }).len(), 2);
}

#[test]
fn what_a_person_decided_stays_and_what_was_applied_keeps_its_evidence() {
    let bed = Bed::new();
    let subjects = ["a", "b", "c"];
    bed.store.record_suggestions(subjects.map(|s| suggestion(s, "old")).to_vec(), at(1)).unwrap();
    let ids: Vec<RowId> = rows(&bed, &SuggestionFilter::default()).iter().rev().map(|row| row.id).collect();
    use SuggestionState::{Applied, Dismissed, Open, Undone};
    assert!(decide(&bed, ids[0], &[Open], Applied, 2));
    assert!(decide(&bed, ids[1], &[Open, Undone], Dismissed, 2));
    assert!(!decide(&bed, ids[1], &[Open, Undone], Applied, 3), "a dismissed one is not applied");
    assert!(!decide(&bed, RowId(5), &[Open], Applied, 3), "there is none of that id");
    bed.store
        .keep_effects(vec![(ids[0], json!({"state": "too_early"})), (ids[2], json!({"state": "x"}))])
        .unwrap();
    assert_eq!(
        bed.store.record_suggestions(subjects.map(|s| suggestion(s, "new")).to_vec(), at(9)).unwrap(),
        0
    );
    let found = rows(&bed, &SuggestionFilter::default());
    let told: Vec<(&str, SuggestionState)> =
        found.iter().rev().map(|row| (row.suggestion.title.as_str(), row.state)).collect();
    assert_eq!(told, [("old", Applied), ("new", Dismissed), ("new", Open)]);
    assert_eq!(found[2].effect, Some(json!({"state": "too_early"})));
    assert_eq!(found[0].effect, None, "only what is applied has an effect");
    assert_eq!(
        (found[2].seen, found[2].decided, found[2].decided_by.as_deref()),
        (at(9), Some(at(2)), Some("ann"))
    );
    assert_eq!(found[2].change, Some(json!({"file": "/f"})));
    // Undone and applied again: the effect begins anew.
    assert!(decide(&bed, ids[0], &[Applied], Undone, 10) && decide(&bed, ids[0], &[Undone], Applied, 11));
    assert_eq!(bed.store.reader().unwrap().suggestion(ids[0]).unwrap().unwrap().effect, None);
}

#[test]
fn open_ones_go_when_their_evidence_holds_no_more() {
    let bed = Bed::new();
    bed.store.record_suggestions(vec![suggestion("a", "t"), suggestion("b", "t")], at(0)).unwrap();
    let dismissed = rows(&bed, &SuggestionFilter::default())[0].id;
    assert!(decide(&bed, dismissed, &[SuggestionState::Open], SuggestionState::Dismissed, 1));
    bed.store.record_suggestions(vec![], at(OPEN_KEPT_MS)).unwrap();
    assert_eq!(rows(&bed, &SuggestionFilter::default()).len(), 2);
    bed.store.record_suggestions(vec![], at(OPEN_KEPT_MS + 1)).unwrap();
    let left: Vec<RowId> = rows(&bed, &SuggestionFilter::default()).iter().map(|row| row.id).collect();
    assert_eq!(left, [dismissed], "a dismissed one stays dismissed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn one_row_per_kind_project_and_subject(
        told in prop::collection::vec(("[a|]{0,3}", "[a|]{0,3}", 0i64..100), 1..20),
    ) {
        let bed = Bed::new();
        for (app, subject, ms) in &told {
            let one = Suggestion { app: app.clone(), ..suggestion(subject, "t") };
            bed.store.record_suggestions(vec![one], at(*ms)).unwrap();
        }
        let found = rows(&bed, &SuggestionFilter::default());
        let distinct: std::collections::BTreeSet<_> = told.iter().map(|(app, subject, _)| (app, subject)).collect();
        prop_assert_eq!(found.len(), distinct.len());
        for row in &found {
            let last = told.iter().rev().find(|(app, subject, _)| {
                (app, subject) == (&row.suggestion.app, &row.suggestion.subject)
            });
            prop_assert_eq!(Some(row.seen), last.map(|told| at(told.2)));
        }
    }
}
