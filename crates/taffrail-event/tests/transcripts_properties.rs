//! What holds for every transcript: how it is cut into pieces does not matter, and nothing in it is a danger.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::transcripts::{Union, read, read_in_pieces};
use proptest::prelude::*;
use taffrail_event::TimestampMs;
use taffrail_event::transcript::decode::{Decoder, Found};
use taffrail_event::transcript::{FileFacts, Parser};

fn file() -> FileFacts {
    let modified = Some(TimestampMs::clamped(1_795_333_000_000));
    FileFacts { modified, ..FileFacts::of_path("-p/s0.jsonl").unwrap() }
}

/// Records of every kind that goes from line to line.
fn record() -> impl Strategy<Value = String> {
    let place = (0..3u8, 0..60u32, any::<bool>()).prop_map(|(session, second, timed)| {
        let time =
            if timed { format!(r#","timestamp":"2026-11-22T07:44:{second:02}.5Z""#) } else { String::new() };
        let session = if session == 0 { String::new() } else { format!(r#","sessionId":"s{session}""#) };
        format!("{session}{time}")
    });
    let text = prop_oneof![
        Just("Fix it".to_owned()),
        Just("} { [ ] , ,".to_owned()),
        Just(r#"quote \" brace \\"#.to_owned()),
        Just(r"half \ud83d of a pair".to_owned()),
        Just("{\\\"type\\\":\\\"user\\\"}".to_owned()),
        "[a-zé ]{0,40}",
    ];
    (0..12u8, place, 0..4u32, 0..5u32, text).prop_map(|(kind, place, id, output, text)| match kind {
        0..=3 => {
            let stop = if output == 4 { r#""end_turn""# } else { "null" };
            let side = if kind == 3 { r#","isSidechain":true"# } else { "" };
            format!(
                r#"{{"type":"assistant","uuid":"u{id}{output}"{side},"message":{{"id":"m{id}","model":"claude-x","stop_reason":{stop},"usage":{{"input_tokens":3,"output_tokens":{output},"cache_creation_input_tokens":9,"cache_creation":{{"ephemeral_1h_input_tokens":4}}}},"content":[{{"type":"text","text":"{text}"}},{{"type":"tool_use","id":"t{id}","name":"Task","input":{{"subagent_type":"a"}}}}]}},"requestId":"r{id}"{place}}}"#
            )
        }
        4 => format!(r#"{{"type":"user","uuid":"p{id}","promptId":"q{id}","message":{{"content":"{text}"}}{place}}}"#),
        5 => format!(r#"{{"type":"system","subtype":"compact_boundary","uuid":"c{id}","compactMetadata":{{"preTokens":{output}}}{place}}}"#),
        6 => format!(r#"{{"type":"user","uuid":"y{id}","isCompactSummary":true,"message":{{"content":"{text}"}}{place}}}"#),
        7 => format!(
            r#"{{"type":"progress","data":{{"type":"agent_progress","agentId":"a{id}","message":{{"type":"assistant","requestId":"r9{id}","message":{{"id":"n{id}","model":"claude-y","usage":{{"input_tokens":1,"output_tokens":{output}}}}}}}}},"parentToolUseID":"t{id}"{place}}}"#
        ),
        8 => format!(r#"{{"type":"summary","summary":"{text}"{place}}}"#),
        9 => format!(r#"{{"type":"custom-title","customTitle":"title {id}"{place}}}"#),
        10 => format!(r#"{{"type":"cost-state","totalCostUSD":0.{output}5,"modelUsage":{{"claude-x":{{"inputTokens":3}}}}{place}}}"#),
        _ => format!(r#"{{"type":"what-is-this","x":[1,2,{{"y":"{text}"}}]{place}}}"#),
    })
}

/// What stands between two records.
fn between() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => Just("\n"),
        1 => Just("\r\n"),
        1 => Just(""),
        1 => Just(",\n"),
        1 => Just("\n\n  \n"),
        1 => Just("\nnot json {at all\n"),
        1 => Just("\n{\"type\":\"user\",\"mess"),
        1 => Just("\n{\"type\":\"assistant\",\"message\":{\"id\":\n"),
        1 => Just(" \u{feff}"),
        1 => Just("\n{\"loglines\": [\n"),
        1 => Just("]}\n[\n"),
        1 => Just("}\n"),
    ]
}

fn document() -> impl Strategy<Value = String> {
    proptest::collection::vec((record(), between()), 0..14).prop_map(|records| {
        records.into_iter().fold(String::new(), |mut all, (record, between)| {
            all.push_str(&record);
            all.push_str(between);
            all
        })
    })
}

fn indented(records: &[String]) -> Option<String> {
    let records: Result<Vec<serde_json::Value>, _> =
        records.iter().map(|record| serde_json::from_str(record)).collect();
    serde_json::to_string_pretty(&records.ok()?).ok()
}

#[track_caller]
fn check_pieces(bytes: &[u8], cuts: &[usize], sits: &[bool]) {
    let whole = read(&file(), bytes);
    let pieces = read_in_pieces(&file(), bytes, cuts, sits);
    assert_eq!(pieces, whole, "{}", String::from_utf8_lossy(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_pieces_and_sittings_give_the_same_facts(
        text in document(),
        cuts in proptest::collection::vec(0..4000usize, 0..12),
        sits in proptest::collection::vec(any::<bool>(), 12),
    ) {
        check_pieces(text.as_bytes(), &cuts, &sits);
    }

    #[test]
    fn an_array_or_a_wrapper_tells_what_lines_tell(records in proptest::collection::vec(record(), 1..8)) {
        let lines = read(&file(), records.join("\n").as_bytes());
        prop_assert_eq!(lines.counts.bad, 0);
        let compact = format!("[{}]", records.join(","));
        prop_assert_eq!(&read(&file(), compact.as_bytes()), &lines);
        let wrapped = format!("{{\"loglines\":[{}]}}", records.join(", "));
        prop_assert_eq!(&read(&file(), wrapped.as_bytes()), &lines);
        let together = records.concat();
        prop_assert_eq!(&read(&file(), together.as_bytes()), &lines);
        if let Some(pretty) = indented(&records) {
            prop_assert_eq!(&read(&file(), pretty.as_bytes()), &lines);
            prop_assert_eq!(&read(&file(), pretty.replace('\n', "\r\n").as_bytes()), &lines);
        }
    }

    #[test]
    fn bytes_changed_anywhere_do_no_harm(
        text in document(),
        changes in proptest::collection::vec((0..4000usize, any::<u8>()), 1..20),
        cuts in proptest::collection::vec(0..4000usize, 0..6),
        sits in proptest::collection::vec(any::<bool>(), 6),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            let length = bytes.len();
            if length > 0 {
                bytes[at % length] = byte;
            }
        }
        check_pieces(&bytes, &cuts, &sits);
    }

    #[test]
    fn garbage_does_no_harm(
        bytes in proptest::collection::vec(prop_oneof![
            proptest::sample::select(&b"{}[]\",:\\\n\r\t tfn0-.eE1"[..]), any::<u8>()
        ], 0..400),
        cuts in proptest::collection::vec(0..400usize, 0..6),
        sits in proptest::collection::vec(any::<bool>(), 6),
    ) {
        check_pieces(&bytes, &cuts, &sits);
    }

    #[test]
    fn objects_over_the_limit_are_skipped_the_same_in_any_pieces(
        lengths in proptest::collection::vec(0..120usize, 1..8),
        between in proptest::collection::vec(proptest::sample::select(vec!["\n", "", "\njunk that is long enough to be over the limit, too ...........................\n"]), 8),
        cuts in proptest::collection::vec(0..700usize, 0..10),
    ) {
        let text: String = lengths.iter().zip(&between)
            .map(|(length, between)| format!("{{\"a\":[\"{}\"]}}{between}", "x".repeat(*length)))
            .collect();
        let whole = objects(text.as_bytes(), &[]);
        prop_assert_eq!(&objects(text.as_bytes(), &cuts), &whole);
        let small = lengths.iter().filter(|length| *length + r#"{"a":[""]}"#.len() <= LIMIT_BYTES).count();
        prop_assert_eq!(whole.0.len(), small);
    }

    #[test]
    fn a_saved_context_that_was_damaged_is_refused_or_harmless(
        text in document(), at in 0..400usize, byte in any::<u8>(), cut in 0..2000usize,
    ) {
        let bytes = text.as_bytes();
        let mut parser = Parser::new(&file());
        let taken = parser.feed(&bytes[..cut.min(bytes.len())]);
        let mut context = parser.context().into_bytes();
        let length = context.len();
        context[at % length] = byte;
        if let Some(mut parser) = Parser::resume(&file(), &String::from_utf8_lossy(&context)) {
            parser.finish(&bytes[taken..]);
        }
    }
}

const LIMIT_BYTES: usize = 64;

/// The objects a decoder with a small limit finds, and how many runs of junk.
fn objects(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let (mut found, mut junk, mut at) = (Vec::new(), 0, 0);
    let mut decoder = Decoder::with_limit(LIMIT_BYTES);
    for (n, &end) in ends.iter().enumerate() {
        let at_end = n + 1 == ends.len();
        loop {
            let view = &bytes[at.min(end)..end];
            let (taken, what) = decoder.next(view, at_end, |line| {
                serde_json::from_slice::<serde_json::Value>(line).ok().filter(serde_json::Value::is_object)
            });
            at += taken;
            match what {
                Found::Line(_, range) | Found::Object(range) => found.push(view[range].to_vec()),
                Found::Junk(_) => junk += 1,
                Found::More => break,
            }
        }
        // No more is ever kept waiting than an object may hold.
        assert!(end - at <= LIMIT_BYTES + 16, "{} bytes wait", end - at);
    }
    (found, junk)
}

const SMALL: &str = concat!(
    r#"{"type":"user","uuid":"p1","promptId":"q1","sessionId":"s1","timestamp":"2026-11-22T07:44:01.000Z","message":{"content":"Say \"é\""}}"#,
    "\n",
    r#"{"type":"assistant","uuid":"u1","requestId":"r1","sessionId":"s1","timestamp":"2026-11-22T07:44:02.000Z","message":{"id":"m1","model":"claude-x","stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":7}}}"#,
    "\n",
    r#"{"type":"cost-state","sessionId":"s1","totalCostUSD":0.5}"#,
);

#[test]
fn a_file_cut_at_any_byte_tells_its_whole_records_and_waits_for_the_rest() {
    let whole = read(&file(), SMALL.as_bytes());
    assert_eq!((whole.counts.records, whole.counts.bad), (3, 0));
    for cut in 0..SMALL.len() {
        let head = &SMALL.as_bytes()[..cut];
        let mut parser = Parser::new(&file());
        let taken = parser.feed(head);
        let mut waiting = Union::default();
        waiting.add(parser.take());
        // A torn line is not bad while the file may grow, and a whole one needs no newline.
        let whole_records = head.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let ended = SMALL.as_bytes().get(cut) == Some(&b'\n');
        assert_eq!(waiting.counts.bad, 0, "cut at {cut}");
        assert_eq!(waiting.counts.records, whole_records + u64::from(ended), "cut at {cut}");
        // In one go the torn rest is counted, once.
        parser.finish(&head[taken..]);
        let rest = head[taken..].trim_ascii();
        assert_eq!(parser.take().counts.bad, u64::from(!rest.is_empty()), "cut at {cut}");
        check_pieces(SMALL.as_bytes(), &[cut], &[true]);
    }
}

#[test]
fn a_torn_line_with_a_record_behind_it_loses_only_itself() {
    let torn = SMALL.replacen(
        "\"timestamp\":\"2026-11-22T07:44:01.000Z\",\"message\":{\"content\":\"Say \\\"é\\\"\"}}\n",
        "\"tim",
        1,
    );
    assert!(torn.contains("\"tim{\"type\":\"assistant\""));
    let union = read(&file(), torn.as_bytes());
    assert_eq!((union.counts.records, union.counts.bad), (2, 1));
    assert_eq!(union.usage().output, 7);
    // Torn after a colon or a bracket, where the next line could be taken for its value.
    for tail in ["\"x\":\n", "\"x\":[\n", "\"x\":[1,\n", "\"x\":{\n", "\"x\":\"\n"] {
        let text = format!("{{\"type\":\"user\",{tail}{SMALL}\n");
        let union = read(&file(), text.as_bytes());
        assert_eq!((union.counts.records, union.counts.bad), (3, 1), "{tail:?}");
    }
}

#[test]
fn deep_nesting_and_odd_bytes_are_read_or_counted() {
    let deep = format!("{{\"type\":\"user\",\"x\":{}{}}}\n{SMALL}", "[".repeat(400_000), "]".repeat(400_000));
    let union = read(&file(), deep.as_bytes());
    assert_eq!((union.counts.records, union.counts.bad), (4, 0));
    let open = format!("{{\"type\":\"user\",\"x\":{}\n{SMALL}", "[{\"a\":".repeat(400_000));
    let union = read(&file(), open.as_bytes());
    assert_eq!((union.counts.records, union.counts.bad), (3, 1));
    let mut odd = b"\xEF\xBB\xBF".to_vec();
    odd.extend_from_slice(SMALL.replace('é', "?").as_bytes());
    let at = odd.iter().position(|&byte| byte == b'?').unwrap();
    odd[at] = 0xC3;
    let union = read(&file(), &odd);
    assert_eq!((union.counts.records, union.counts.bad), (3, 0));
    assert_eq!(union.marks[0].summary, "Say \"\u{fffd}\"");
}

#[test]
fn many_broken_lines_cost_no_more_than_reading_them() {
    // Each line begins an object that the lines behind it could go on with: looking anew at each would be quadratic.
    let lines: String = (0..3_000).map(|n| format!("{}{{\"a\":[\n", " ".repeat(n % 7))).collect();
    let nested: String = (0..2_000).map(|n| format!("{}{{\"a\":[\n", " ".repeat(n))).collect();
    let marked = format!("{{\"x\":{}\n", "{\"type\":".repeat(100_000));
    for text in [lines, nested, marked] {
        let union = read(&file(), format!("{text}{SMALL}").as_bytes());
        assert_eq!(union.usage().output, 7);
        assert!(union.counts.bad > 0);
    }
}
