//! The calls of transcripts, held against what the hooks of the same sessions of the real client told of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{capture, scenarios, shared_dir, workspace_root};
use taffrail_event::event::{Arrival, CallStatus};
use taffrail_event::ids::DedupKey;
use taffrail_event::normalize::{Delivery, hook};
use taffrail_event::redact::Redactor;
use taffrail_event::transcript::calls::{Calls, Context, Counts, OPEN_CALLS_MAX};
use taffrail_event::transcript::{FileFacts, FileKind};
use taffrail_event::{Event, EventId, Fact, Source, TimestampMs};

fn calls(path: &str, bytes: &[u8], chunk: usize) -> (Vec<Event>, Counts) {
    let mut calls = Calls::new(&FileFacts::of_path(path).unwrap(), context());
    let mut at = 0;
    let mut until = 0;
    while until < bytes.len() {
        until = (until + chunk).min(bytes.len());
        at += calls.feed(&bytes[at..until]);
    }
    calls.finish(&bytes[at..]);
    (calls.take(), calls.counts())
}

fn context() -> Context<'static> {
    let redactor = Redactor::builtin();
    Context { received: TimestampMs::MAX, redactor, app: None, user: None, resolve_app: &|_| None }
}

fn transcripts(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            transcripts(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "jsonl") {
            files.push(path);
        }
    }
}

fn by_key(events: Vec<Event>) -> BTreeMap<DedupKey, Event> {
    let mut known = BTreeMap::new();
    for event in events {
        known.entry(event.dedup_key).or_insert(event);
    }
    known
}

fn is_of_a_call(event: &Event) -> bool {
    matches!(event.fact, Fact::ToolStart(_) | Fact::ToolEnd(..) | Fact::PermissionDenied(_))
}

#[test]
fn every_call_of_a_capture_is_the_event_that_its_hook_sent() {
    let (mut both, mut ends, mut same_result) = (0, 0, 0);
    for scenario in scenarios() {
        let dir = workspace_root().join("fixtures/captures").join(&scenario);
        let mut files = Vec::new();
        transcripts(&dir.join("transcripts"), &mut files);
        let mut told = Vec::new();
        for file in files {
            if FileFacts::of_path(file.to_str().unwrap()).unwrap().kind == FileKind::Transcript {
                told.extend(calls(file.to_str().unwrap(), &std::fs::read(&file).unwrap(), usize::MAX / 2).0);
            }
        }
        let told = by_key(told);
        for recorded in capture(&scenario) {
            let payload = recorded.body.to_string();
            let at = TimestampMs::clamped(recorded.at_ms);
            let delivery = Delivery {
                event_id: EventId::derived(&[payload.as_bytes()]),
                source: Source::Hook,
                captured: Some(at),
                received: at,
                app: None,
                user: None,
                host: None,
                payload: payload.as_bytes(),
                payload_bytes: payload.len() as u64,
                truncated: false,
                redactions: 0,
                hook_wall_us: None,
            };
            let by_hook = hook(&delivery, &|_| None);
            let Some(ours) = told.get(&by_hook.dedup_key).filter(|_| is_of_a_call(&by_hook)) else {
                continue;
            };
            both += 1;
            assert_eq!((ours.source, ours.arrival), (Source::Transcript, Arrival::Recorded));
            assert_eq!(ours.type_name, by_hook.type_name);
            assert_eq!(ours.agent_id, by_hook.agent_id, "{scenario}");
            let (Fact::ToolStart(a) | Fact::ToolEnd(a, _) | Fact::PermissionDenied(a)) = &ours.fact else {
                panic!()
            };
            let (Fact::ToolStart(b) | Fact::ToolEnd(b, _) | Fact::PermissionDenied(b)) = &by_hook.fact else {
                panic!()
            };
            assert_eq!(a, b, "{scenario}: the call, with the hash of its input");
            assert_eq!(ours.error, by_hook.error, "{scenario}: {}", by_hook.summary);
            assert!((ours.ts.get() - by_hook.ts.get()).abs() < 5_000, "{scenario}: {}", by_hook.summary);
            if let (Fact::ToolEnd(_, a), Fact::ToolEnd(_, b)) = (&ours.fact, &by_hook.fact) {
                ends += 1;
                assert_eq!(a.status, b.status, "{scenario}: {}", by_hook.summary);
                assert_eq!(ours.git_operations, by_hook.git_operations);
                if ours.metrics.result_hash == by_hook.metrics.result_hash {
                    same_result += 1;
                    let paths = |event: &Event| -> Vec<_> {
                        event
                            .file_operations
                            .iter()
                            .map(|f| (f.kind, f.path.clone(), f.lines_added))
                            .collect()
                    };
                    assert_eq!(paths(ours), paths(&by_hook));
                } else {
                    assert!(
                        by_hook.agent_id.is_some(),
                        "{scenario}: the main agent's results are the hook's own"
                    );
                }
            }
        }
    }
    assert!(
        both >= 60 && ends >= 30 && same_result >= 25,
        "{both} events, {ends} ends, {same_result} same results"
    );
}

fn line(kind: &str, session: &str, content: &str) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"sessionId\":\"{session}\",\"cwd\":\"/p\",\"timestamp\":\"2026-01-02T03:04:05.678Z\",\
         \"message\":{{\"content\":{content}}}}}\n"
    )
}

#[test]
fn denials_interruptions_and_refusals_are_told_apart() {
    let result = |id: usize, text: &str| {
        let text = serde_json::to_string(text).unwrap();
        line(
            "user",
            "s",
            &format!(r#"[{{"type":"tool_result","tool_use_id":"t{id}","is_error":true,"content":{text}}}]"#),
        )
    };
    let texts = [
        ("The user doesn't want to proceed with this tool use.", CallStatus::Denied),
        ("[Request interrupted by user for tool use]", CallStatus::Interrupted),
        ("<tool_use_error>String to replace not found in file.</tool_use_error>", CallStatus::Failed),
        ("Exit code 2\nno such file", CallStatus::Failed),
    ];
    let mut text = String::new();
    for (id, (said, _)) in texts.iter().enumerate() {
        let tool = format!(r#"[{{"type":"tool_use","id":"t{id}","name":"Bash","input":{{"command":"x"}}}}]"#);
        text.push_str(&line("assistant", "s", &tool));
        text.push_str(&result(id, said));
    }
    let (events, counts) = calls("s.jsonl", text.as_bytes(), 17);
    assert_eq!((counts.started, counts.ended, counts.orphans), (4, 4, 0));
    let ends: Vec<CallStatus> = events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::ToolEnd(_, outcome) => Some(outcome.status),
            Fact::PermissionDenied(_) => Some(CallStatus::Denied),
            _ => None,
        })
        .collect();
    assert_eq!(ends, texts.map(|(_, status)| status));
    assert!(events.iter().all(|event| event.cwd.as_deref() == Some("/p") && event.app == "p"));
    assert_eq!(events[0].ts.get(), 1_767_323_045_678);
}

#[test]
fn subagents_in_progress_records_have_their_own_name() {
    let record = |kind: &str, content: &str| {
        format!(
            "{{\"type\":\"progress\",\"sessionId\":\"s\",\"timestamp\":\"2026-01-02T03:04:05Z\",\"data\":{{\"type\":\
             \"agent_progress\",\"agentId\":\"a1\",\"message\":{{\"type\":\"{kind}\",\"timestamp\":\
             \"2026-01-02T03:04:06Z\",\"message\":{{\"content\":{content}}}}}}}}}\n"
        )
    };
    let text =
        record("assistant", r#"[{"type":"tool_use","id":"t1","name":"Read","input":{"file_path":"/a"}}]"#)
            + &record(
                "user",
                r#"[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"x"}]}]"#,
            );
    let (events, _) = calls("s.jsonl", text.as_bytes(), usize::MAX / 2);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.agent_id.as_deref() == Some("a1")));
    assert_eq!(events[1].file_operations[0].path, "/a");
    assert_eq!(events[0].dedup_key, DedupKey::of_tool_fact("s", Some("a1"), "t1", "PreToolUse"));
}

#[test]
fn what_waits_is_bounded_and_what_is_forgotten_is_counted() {
    let mut text = String::new();
    for id in 0..OPEN_CALLS_MAX + 5 {
        let tool = format!(r#"[{{"type":"tool_use","id":"t{id}","name":"Bash","input":{{}}}}]"#);
        text.push_str(&line("assistant", "s", &tool));
    }
    text.push_str(&line("user", "s", r#"[{"type":"tool_result","tool_use_id":"t0","content":"x"}]"#));
    text.push_str("no json\n{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"tool_use\"}]}}\n");
    let (_, counts) = calls("s.jsonl", text.as_bytes(), 4_096);
    let started = OPEN_CALLS_MAX as u64 + 5;
    assert_eq!(counts, Counts { started, ended: 0, orphans: 1, forgotten: 5, bad: 1 });
}

#[test]
fn real_transcripts_give_the_same_however_they_are_cut() {
    let Some(shared) = shared_dir() else { return };
    let mut files = Vec::new();
    transcripts(&shared.join("data/claude-transcripts"), &mut files);
    let expected = std::fs::read_to_string(shared.join("data/EXPECTED_TRANSCRIPTS.jsonl")).unwrap();
    let expected: BTreeMap<String, u64> = expected
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let tools = line["tools"].as_object().unwrap().values();
            (line["path"].as_str().unwrap().to_owned(), tools.map(|count| count.as_u64().unwrap()).sum())
        })
        .collect();
    let (mut started, mut ended, mut compared) = (0, 0, 0);
    for file in files {
        let path = file.to_str().unwrap();
        let Some(facts) = FileFacts::of_path(path).filter(|facts| facts.kind == FileKind::Transcript) else {
            continue;
        };
        assert_eq!(facts.kind, FileKind::Transcript);
        let bytes = std::fs::read(&file).unwrap();
        let (whole, counts) = calls(path, &bytes, usize::MAX / 2);
        if bytes.len() < 400_000 {
            let (cut, again) = calls(path, &bytes, 9_973);
            assert_eq!((whole.len(), counts), (cut.len(), again), "{path}");
            assert!(
                whole
                    .iter()
                    .zip(&cut)
                    .all(|(a, b)| a.dedup_key == b.dedup_key && a.payload.text == b.payload.text)
            );
        }
        let name = file.strip_prefix(shared.join("data")).unwrap().to_str().unwrap();
        // The expected figures are of the records themselves, not of those inside `progress` records.
        if let Some(&said) = expected.get(name)
            && !String::from_utf8_lossy(&bytes).contains("\"agent_progress\"")
        {
            let unnamed = u64::from(counts.started < said) * (said - counts.started);
            assert!(counts.started <= said && unnamed <= 1, "{name}: {counts:?}, {said} expected");
            compared += 1;
        }
        started += counts.started;
        ended += counts.ended;
    }
    assert!(compared >= 60, "{compared} files compared");
    assert!(started >= 1_900 && ended * 100 >= started * 95, "{started} begun, {ended} ended");
}
