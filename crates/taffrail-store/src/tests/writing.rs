//! What is written: identity, groups, bounds, merging, errors.

use std::sync::mpsc;

use rusqlite::Connection;
use serde_json::json;
use taffrail_event::event::{CallStatus, Fact};

use super::*;
use crate::{AppendError, CallFilter, Outcome, Payloads, StoredCall};

fn calls(store: &Store) -> Vec<StoredCall> {
    let mut calls = store.reader().unwrap().calls(&CallFilter::default(), None, 100).unwrap().rows;
    calls.reverse();
    calls
}

#[test]
fn an_event_comes_back_as_it_went_in() {
    let bed = Bed::new();
    let mut sent = failure(0, Some("t1"), "Bash");
    sent.payload.text = "{\"a\":\"é\u{1F600}\"}".repeat(50);
    sent.payload.is_json = false;
    sent.payload.redactions = 2;
    sent.metrics.output_bytes = Some(12);
    let row = bed.store.append(vec![sent.clone()]).unwrap()[0].row_id;
    let bed = bed.reopen();
    let stored = bed.store.reader().unwrap().event(row).unwrap().unwrap();
    assert_eq!((stored.row_id, stored.event_id, stored.ts), (row, sent.event_id, sent.ts));
    assert_eq!(stored.row_id.ts(), sent.ts);
    let payload = stored.payload.unwrap();
    assert_eq!((payload.text.as_str(), payload.is_json), (sent.payload.text.as_str(), false));
    assert_eq!((stored.redactions, stored.payload_bytes, stored.payload_truncated), (2, 40, false));
    assert_eq!(stored.metrics.output_bytes, Some(12));
    assert_eq!(stored.error.unwrap().class, "timeout");
    assert_eq!(stored.summary, sent.summary);
    assert_eq!(stored.tool_chain, Some(crate::ToolChain::default()));
}

#[test]
fn a_duplicate_is_counted_and_names_the_first_row() {
    let bed = Bed::new();
    let first = bed.store.append(vec![pre(0, Some("t1"), "Bash"), pre(0, Some("t1"), "Bash")]).unwrap();
    assert_eq!((first[0].outcome, first[1].outcome), (Outcome::Stored, Outcome::Duplicate));
    let mut again = pre(0, Some("t1"), "Bash");
    again.event_id = EventId::derived(&[b"another delivery"]);
    let bed = bed.reopen();
    let second = bed.store.append(vec![again]).unwrap();
    assert_eq!((second[0].outcome, second[0].row_id), (Outcome::Duplicate, first[0].row_id));
    assert_eq!(bed.store.stats().duplicates, 1);
    assert_eq!(bed.store.reader().unwrap().size().unwrap().events, 1);
}

#[test]
fn one_millisecond_holds_more_events_than_its_row_ids() {
    let bed = Bed::new();
    let many = |from: usize, to: usize| -> Vec<Event> {
        let one = |n: usize| {
            let mut event = event(0, "Notification", Fact::Notification { notification_type: None });
            event.event_id = EventId::derived(&[&n.to_le_bytes()]);
            event.dedup_key = DedupKey::of_delivery("s", event.event_id);
            event
        };
        (from..to).map(one).collect()
    };
    let first = bed.store.append(many(0, 3_000)).unwrap();
    let bed = bed.reopen();
    let second = bed.store.append(many(3_000, 5_000)).unwrap();
    let ids: std::collections::BTreeSet<_> = first.iter().chain(&second).map(|a| a.row_id).collect();
    assert_eq!(ids.len(), 5_000);
    assert_eq!(ids.last().unwrap().ts().get(), T0 + 1);
}

#[test]
fn everything_that_waits_is_one_group_and_every_submitter_hears() {
    let bed = Bed::new();
    let (hold, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    // A callback that waits keeps the writer busy while more is submitted.
    let wait: crate::Done = Box::new(move |_| {
        begun.send(()).unwrap();
        held.recv().unwrap();
    });
    bed.store.submit(vec![prompt(0)], wait).unwrap();
    has_begun.recv().unwrap();
    let (heard, hears) = mpsc::channel();
    for n in 1..=50 {
        let heard = heard.clone();
        let done: crate::Done = Box::new(move |result| heard.send((n, result.unwrap().len())).unwrap());
        bed.store.submit(vec![prompt(n), prompt(n + 1_000)], done).unwrap();
    }
    assert_eq!(bed.store.queue_depth(), 100);
    hold.send(()).unwrap();
    let order: Vec<_> = (0..50).map(|_| hears.recv().unwrap()).collect();
    assert_eq!(order, (1..=50).map(|n| (n, 2)).collect::<Vec<_>>());
    assert_eq!(bed.store.stats().commits, 2);
    assert_eq!((bed.store.stats().stored, bed.store.queue_depth()), (101, 0));
}

#[test]
fn a_full_queue_gives_the_events_back() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&Options { queue_events: 3, ..options(&dir) }).unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let wait: crate::Done = Box::new(move |_| {
        begun.send(()).unwrap();
        held.recv().unwrap();
    });
    store.submit(vec![prompt(0)], wait).unwrap();
    has_begun.recv().unwrap();
    store.submit(vec![prompt(1), prompt(2)], Box::new(|_| ())).unwrap();
    let full = store.submit(vec![prompt(3), prompt(4)], Box::new(|_| panic!("refused"))).unwrap_err();
    assert_eq!(full.events.len(), 2);
    assert_eq!(store.stats().refused, 2);
    hold.send(()).unwrap();
    // A blocking append waits for room instead.
    assert_eq!(store.append(full.events).unwrap().len(), 2);
    store.close();
    assert!(store.submit(vec![prompt(9)], Box::new(|_| panic!("closed"))).is_err());
    assert_eq!(store.append(vec![prompt(9)]), Err(AppendError::Closed));
}

#[test]
fn one_bad_event_fails_only_its_own_submission() {
    let bed = Bed::new();
    let other = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON payloads WHEN NEW.redactions = 666
                BEGIN SELECT RAISE(ABORT, 'poison'); END",
        )
        .unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let wait: crate::Done = Box::new(move |_| {
        begun.send(()).unwrap();
        held.recv().unwrap();
    });
    bed.store.submit(vec![prompt(0)], wait).unwrap();
    has_begun.recv().unwrap();
    let (heard, hears) = mpsc::channel();
    for n in 1..=3 {
        let mut event = pre(n, Some(&format!("t{n}")), "Bash");
        event.payload.redactions = if n == 2 { 666 } else { 0 };
        let heard = heard.clone();
        bed.store.submit(vec![event], Box::new(move |result| heard.send((n, result)).unwrap())).unwrap();
    }
    hold.send(()).unwrap();
    let results: Vec<_> = (0..3).map(|_| hears.recv().unwrap().1).collect();
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(&results[1], Err(AppendError::Rejected(why)) if why.contains("poison")), "{results:?}");
    assert_eq!((bed.store.stats().stored, bed.store.stats().failed), (3, 1));
    assert_eq!(calls(&bed.store).len(), 2);
    // The sums have the same idea.
    assert_eq!(bed.store.reader().unwrap().size().unwrap().events, 3);
}

#[test]
fn a_pre_and_its_post_are_one_call_in_any_order() {
    for crossed in [false, true] {
        let bed = Bed::new();
        let (a, b) = (pre(100, Some("t1"), "Bash"), post(400, Some("t1"), "Bash", Some(250)));
        let order = if crossed { vec![b, a] } else { vec![a, b] };
        for event in order {
            bed.store.append(vec![event]).unwrap();
        }
        let call = &calls(&bed.store)[0];
        assert_eq!((call.status, call.duration_ms), (CallStatus::Succeeded, Some(250)));
        assert_eq!((call.started.unwrap().get(), call.ended.unwrap().get()), (T0 + 100, T0 + 400));
        assert_eq!(call.summary, "PreToolUse at 100");
        assert!(call.start_event.unwrap() < call.end_event.unwrap());
    }
}

#[test]
fn calls_without_an_id_are_paired_oldest_first() {
    let bed = Bed::new();
    let events = vec![
        pre(0, None, "Bash"),
        pre(10, None, "Bash"),
        post(50, None, "Bash", None),
        pre(60, None, "Bash"),
    ];
    bed.store.append(events).unwrap();
    let stored = calls(&bed.store);
    let states: Vec<_> = stored.iter().map(|c| (c.status, c.duration_ms)).collect();
    assert_eq!(
        states,
        [(CallStatus::Succeeded, Some(50)), (CallStatus::Running, None), (CallStatus::Running, None)]
    );
    // A Post that overtook its Pre waits for it.
    let bed = Bed::new();
    bed.store.append(vec![post(50, None, "Read", None)]).unwrap();
    bed.store.append(vec![pre(20, None, "Read")]).unwrap();
    assert_eq!(calls(&bed.store).iter().map(|c| c.duration_ms).collect::<Vec<_>>(), [Some(30)]);
}

#[test]
fn the_end_of_its_agent_abandons_a_call_and_a_late_post_corrects_that() {
    let bed = Bed::new();
    let stop = event(500, "Stop", Fact::Stop);
    let other_agent = of_agent(pre(120, Some("t2"), "Read"), "a1");
    bed.store.append(vec![pre(100, Some("t1"), "Bash"), other_agent]).unwrap();
    bed.store.append(vec![stop, pre(600, Some("t3"), "Bash")]).unwrap();
    let statuses = |store: &Store| calls(store).iter().map(|c| c.status).collect::<Vec<_>>();
    assert_eq!(statuses(&bed.store), [CallStatus::Abandoned, CallStatus::Running, CallStatus::Running]);
    bed.store.append(vec![post(900, Some("t1"), "Bash", Some(800))]).unwrap();
    bed.store.append(vec![event(1_000, "SessionEnd", Fact::SessionEnd { reason: None })]).unwrap();
    assert_eq!(statuses(&bed.store), [CallStatus::Succeeded, CallStatus::Abandoned, CallStatus::Abandoned]);
    // One that was begun before that end, and heard of only now, is abandoned at once.
    let bed = bed.reopen();
    bed.store.append(vec![pre(450, Some("t4"), "Glob")]).unwrap();
    let late = calls(&bed.store).into_iter().find(|c| c.tool_name == "Glob").unwrap();
    assert_eq!((late.status, late.ended.unwrap().get()), (CallStatus::Abandoned, T0 + 500));
}

#[test]
fn old_fields_and_answers_survive_a_reload() {
    let bed = Bed::new();
    let question = json!({"question": "go on?", "type": "permission"});
    let chat = json!(vec!["a long talk"; 400]);
    let sent =
        with_legacy(prompt(0), &[("chat", chat.clone()), ("odd", json!(1)), ("humanInTheLoop", question)]);
    let row = bed.store.append(vec![sent]).unwrap()[0].row_id;
    let answer = json!({"status": "responded", "response": {"permission": true}});
    let bed = bed.reopen();
    let stored = bed.store.reader().unwrap().recent(10).unwrap().remove(0);
    assert_eq!(stored.human_in_the_loop_status, Some(json!({"status": "pending"})));
    let fields = stored.legacy.unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["chat", "odd", "humanInTheLoop"]);
    assert_eq!(fields["chat"], chat);
    let answered = bed.store.respond(row, &answer).unwrap().unwrap();
    assert_eq!(answered.human_in_the_loop_status, Some(answer));
    assert!(answered.payload.is_some() && answered.legacy.is_some());
    assert!(bed.store.respond(taffrail_event::RowId(5), &json!({})).unwrap().is_none());
    let bare = bed
        .store
        .reader()
        .unwrap()
        .events(&crate::EventFilter::default(), None, 1, Payloads::Without)
        .unwrap();
    assert!(bare.rows[0].payload.is_none() && bare.rows[0].legacy.is_none());
}
