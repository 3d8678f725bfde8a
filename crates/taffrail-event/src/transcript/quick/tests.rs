//! The quick reader against serde: of whatever lines, the same facts.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::record::Record;
use super::super::{FileFacts, Parser};
use crate::ids::TimestampMs;

/// Keys that mean something, and some that do not.
const KEYS: &[&str] = &[
    "type",
    "subtype",
    "uuid",
    "sessionId",
    "session_id",
    "agentId",
    "isSidechain",
    "isMeta",
    "isCompactSummary",
    "isApiErrorMessage",
    "timestamp",
    "cwd",
    "gitBranch",
    "version",
    "promptId",
    "requestId",
    "effort",
    "attributionAgent",
    "origin",
    "message",
    "costUSD",
    "toolUseResult",
    "compactMetadata",
    "error",
    "apiErrorStatus",
    "retryInMs",
    "retryAttempt",
    "maxRetries",
    "data",
    "parentToolUseID",
    "summary",
    "aiTitle",
    "customTitle",
    "totalCostUSD",
    "modelUsage",
    "hasUnknownModelCost",
    "querySource",
    "id",
    "model",
    "stop_reason",
    "usage",
    "content",
    "input_tokens",
    "output_tokens",
    "cache_creation",
    "iterations",
    "kind",
    "name",
    "input",
    "text",
    "tool_use_id",
    "subagent_type",
    "description",
    "agentType",
    "trigger",
    "preTokens",
    "parentUuid",
    "",
    "else",
    r"agent\u0049d",
    r"typ\u0065",
    r"me\u0073sage",
    "t\\\\ype",
];

/// Strings, as they stand between quotes.
const STRINGS: &[&str] = &[
    "user",
    "assistant",
    "system",
    "progress",
    "cost-state",
    "summary",
    "custom-title",
    "attachment",
    "tool_result",
    "tool_use",
    "text",
    "image",
    "Task",
    "Agent",
    "human",
    "api_error",
    "compact_boundary",
    "agent_progress",
    "claude-x",
    "<synthetic>",
    "end_turn",
    "2026-11-22T07:44:01.5Z",
    "2026-11-22T07:44:02.345Z",
    "s1",
    "s2",
    "m1",
    "r1",
    "u1",
    "",
    "a",
    r"tool\u005fresult",
    r"us\u0065r",
    r"\ud83d\ude00",
    r"half \ud83d",
    r"\udc00",
    r"\uD83D\uDE00",
    r#"{\"type\":\"user\"}"#,
    r#"\"agentId\":\"x\""#,
    r"C:\\path\\",
    r"\\",
    r#"\""#,
    r"line\nline\ttab",
    r"bad \x escape",
    r"\u12",
    "\u{e9}\u{1f600} wide",
    "raw\ttab",
    "seven77",
    "eight888",
    "nine 9999",
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0",
    "12",
    "-1",
    "API Error: 529 overloaded",
    "a long text that goes on for more than the words looked at first and has no end that one could see from here",
];

const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "7",
    "12345",
    "-3",
    "1.5",
    "1e3",
    "1E-2",
    "-0",
    "0.25",
    "1e999",
    "-1e400",
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "1e",
    "1e+",
    "nul",
    "truex",
    "{}",
    "[]",
    "{ }",
    "[ ]",
    "1767225600",
    "1767225600123",
    "123456789012345678901234567890",
    "1234567890123456789012345678901234567890123",
    "NaN",
];

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(STRINGS).prop_map(|text| format!("\"{text}\"")),
        1 => r#"[a-z"\\u{}\[\],:\x00-\x20é]{0,12}"#.prop_map(|text| format!("\"{text}\"")),
        1 => "[ -!#-\\[\\]-~]{0,80}".prop_map(|text| format!("\"{text}\"")),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![3 => string(), 1 => proptest::sample::select(SCALARS).prop_map(str::to_owned)]
}

/// JSON as a rule.
fn value() -> impl Strategy<Value = String> {
    let space = || proptest::sample::select(&["", "", "", "", " ", "  ", "\t"][..]);
    let leaf = scalar();
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let pair = (proptest::sample::select(KEYS), inner.clone(), space(), space());
        let pair = pair.prop_map(|(key, value, a, b)| format!("{a}\"{key}\"{b}:{a}{value}{b}"));
        prop_oneof![
            3 => proptest::collection::vec(pair, 0..8).prop_map(|pairs| format!("{{{}}}", pairs.join(","))),
            1 => proptest::collection::vec(inner, 0..5).prop_map(|list| format!("[{}]", list.join(","))),
        ]
    })
}

/// A record whose important fields are what they are as a rule.
fn record() -> impl Strategy<Value = String> {
    let block = prop_oneof![
        Just(r#"{"type":"tool_result","tool_use_id":"t1","content":"long"}"#.to_owned()),
        Just(
            r#"{"tool_use_id":"t1","type":"tool_result","content":[{"type":"text","text":"x"}]}"#.to_owned()
        ),
        Just(r#"{"type":"tool_result","type":"text","text":"not a result"}"#.to_owned()),
        Just(r#"{"type":"text","type":"tool_result","text":"a result"}"#.to_owned()),
        Just(r#"{"type":"text","text":"says \"type\":\"tool_result\""}"#.to_owned()),
        Just(
            r#"{"type":"tool_use","id":"t2","name":"Task","input":{"subagent_type":"a","description":"d"}}"#
                .to_owned()
        ),
        string().prop_map(|text| format!(r#"{{"type":"text","text":{text}}}"#)),
        value(),
    ];
    let content = prop_oneof![
        2 => proptest::collection::vec(block, 0..4).prop_map(|blocks| format!("[{}]", blocks.join(","))),
        1 => string(),
        1 => value(),
    ];
    let usage = prop_oneof![
        3 => (0..4u8, 0..4u8).prop_map(|(a, b)| format!(r#"{{"input_tokens":{a},"output_tokens":{b},"cache_creation_input_tokens":9,"cache_creation":{{"ephemeral_1h_input_tokens":4}},"service_tier":"standard"}}"#)),
        1 => value(),
    ];
    let message = (content, usage, scalar(), 0..4u8).prop_map(|(content, usage, stop, id)| {
        format!(
            r#"{{"id":"m{id}","model":"claude-x","stop_reason":{stop},"usage":{usage},"content":{content}}}"#
        )
    });
    let message = prop_oneof![5 => message, 1 => value()];
    let kinds: &[&str] =
        &["user", "user", "assistant", "assistant", "system", "progress", "summary", "cost-state", "x"];
    let extras = proptest::collection::vec((proptest::sample::select(KEYS), value()), 0..4);
    (proptest::sample::select(kinds), message, extras, 0..60u8, any::<bool>(), value()).prop_map(
        |(kind, message, extras, second, is_first, result)| {
            let mut line = String::from("{");
            if is_first {
                let _ = write!(line, r#""type":"{kind}","#);
            }
            let _ = write!(line, r#""message":{message},"timestamp":"2026-11-22T07:44:{second:02}.123Z""#);
            for (key, value) in extras {
                let _ = write!(line, r#","{key}":{value}"#);
            }
            if !is_first {
                let _ = write!(line, r#","toolUseResult":{result},"type":"{kind}""#);
            }
            line.push('}');
            line
        },
    )
}

/// What a file's mishaps do to bytes.
fn mutate(bytes: &mut Vec<u8>, mishaps: &[(u8, usize, u8)]) {
    for &(kind, at, byte) in mishaps {
        if bytes.is_empty() {
            return;
        }
        let at = at % bytes.len();
        let long = 1 + usize::from(byte) % 40;
        match kind {
            0 => bytes[at] = byte,
            1 => {
                bytes.remove(at);
            }
            2 => bytes.insert(at, byte),
            3 => bytes.truncate(at),
            4 => bytes[at] = b"\"\\{}[],:\n"[usize::from(byte) % 9],
            // Another record, or a piece of this one, in the midst of it.
            5 => drop(bytes.splice(at..at, br#"{"type":"user","message":{"content":"hi"}}"#.iter().copied())),
            6 => drop(bytes.splice(at..at, br#""type":"tool_result","#.iter().copied())),
            _ => {
                let piece: Vec<u8> = bytes[at..bytes.len().min(at + long)].to_vec();
                let to = usize::from(byte) * 7 % bytes.len();
                drop(bytes.splice(to..to, piece));
            }
        }
    }
}

fn mishaps() -> impl Strategy<Value = Vec<(u8, usize, u8)>> {
    prop_oneof![
        2 => Just(Vec::new()),
        1 => proptest::collection::vec((0..8u8, any::<usize>(), any::<u8>()), 1..3),
    ]
}

/// All that a parser gives of a file, and what it would go on with.
fn told(mut parser: Parser, bytes: &[u8]) -> String {
    let taken = parser.feed(bytes);
    let context = parser.context();
    parser.finish(&bytes[taken..]);
    format!("{taken} {context} {:?} {} {:#?}", parser.born(), parser.context(), parser.take())
}

fn read(line: &[u8]) -> Option<()> {
    super::Reader::default().read(line, &mut Record::default())
}

#[track_caller]
fn check(bytes: &[u8]) {
    let modified = Some(TimestampMs::clamped(1_795_333_000_000));
    let file = FileFacts { modified, ..FileFacts::of_path("-p/s0.jsonl").unwrap() };
    let (quick, plain) = (told(Parser::new(&file), bytes), told(Parser::plain(&file), bytes));
    assert!(quick == plain, "of {:?}:\n{quick}\nby serde:\n{plain}", String::from_utf8_lossy(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn records_tell_the_same(lines in proptest::collection::vec((record(), mishaps()), 1..4)) {
        let mut all = Vec::new();
        for (line, mishaps) in lines {
            let mut line = line.into_bytes();
            mutate(&mut line, &mishaps);
            all.extend_from_slice(&line);
            all.push(b'\n');
        }
        check(&all);
    }

    #[test]
    fn any_json_tells_the_same(value in value(), mishaps in mishaps()) {
        let mut line = value.into_bytes();
        mutate(&mut line, &mishaps);
        line.push(b'\n');
        check(&line);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    /// Where serde finds no JSON there is none for the quick reader either, so that a torn line is looked through.
    #[test]
    fn nothing_passes_that_is_no_json(value in value(), mishaps in mishaps()) {
        let mut line = value.into_bytes();
        mutate(&mut line, &mishaps);
        if read(&line).is_some() {
            let serde = serde_json::from_slice::<serde::de::IgnoredAny>(&line);
            prop_assert!(serde.is_ok(), "{:?}", String::from_utf8_lossy(&line));
        }
    }
}

#[test]
fn ordinary_lines_are_read_quickly_and_odd_ones_are_left() {
    let quick = |line: &str| read(line.as_bytes()).is_some();
    assert!(quick(
        r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"a\nb \"c\" \u001b[0m"}]}}"#
    ));
    assert!(quick(
        r#"{"type": "assistant", "message": {"usage": {"input_tokens": 1}}, "x": [1, -2.5e3, {}, [ ]]}"#
    ));
    assert!(!quick(r#"{"type":"user","text":"half \ud83d"}"#));
    assert!(!quick("{\"type\":\"user\",\"text\":\"a\tb\"}"));
    assert!(!quick(r#"{"typ\u0065":"user"}"#) && !quick(r#"{"x":1e999}"#) && !quick(r#"{"type":"user"} {}"#));
    let deep = |depth: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(quick(&deep(64)) && !quick(&deep(66)));
}

/// serde does not read a line with half a surrogate pair, wherever it stands; then the line is repaired, prompt and all.
#[test]
fn half_a_pair_in_what_is_passed_over_tells_the_same() {
    for half in [r"\ud83d", r"\uDC00", r"\ud83d\n", r"\uDBFF\uDBFF", r"\ud83d\ude00", r"\u12g4", r"\x"] {
        for line in [
            r#"{"type":"user","uuid":"u","toolUseResult":"HALF","message":{"content":"say HALF"}}"#,
            r#"{"type":"user","uuid":"u","toolUseResult":{"stdout":"HALF"},"message":{"content":"say HALF"}}"#,
            r#"{"type":"user","uuid":"u","else":["HALF"],"message":{"content":[{"type":"text","text":"HALF"}]}}"#,
        ] {
            check(format!("{}\n", line.replace("HALF", half)).as_bytes());
        }
    }
}

/// Every real transcript at hand, whole, and its lines with mishaps.
#[test]
fn real_transcripts_tell_the_same() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths = Vec::new();
    for folder in ["fixtures", "../shared/data/claude-transcripts", "../shared/realclient/captures"] {
        let folder = repository.join(folder);
        if !folder.is_dir() {
            eprintln!("NOT READ, for it is not here: {}", folder.display());
        }
        walk(&folder, &mut paths);
    }
    assert!(!paths.is_empty(), "there are fixtures at least");
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        check(&bytes);
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| line.len() < 20_000).step_by(3) {
            let mut line = line.to_vec();
            let random = next();
            let mishap = ((random % 8) as u8, (random >> 8) as usize % 1_000_003, (random >> 40) as u8);
            mutate(&mut line, &[mishap]);
            line.push(b'\n');
            check(&line);
        }
    }
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "jsonl") {
            paths.push(path);
        }
    }
}
