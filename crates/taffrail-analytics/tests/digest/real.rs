//! Sessions of others: the open transcripts, read in place by a small reader of this test's own.
//!
//! What the digest says of all of them together is written down below, so that a change of a definition is seen. Every cycle, every wasted
//! call and every group of errors was looked at in the sessions when it was written down.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use taffrail_analytics::digest::*;
use taffrail_analytics::trace::*;

fn shared_dir() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let dir = std::env::var_os("TAFFRAIL_SHARED").map_or(beside, PathBuf::from);
    if dir.join("data/claude-transcripts").is_dir() {
        return Some(dir);
    }
    eprintln!("!!! NOT TESTED: no real transcripts in {}; set TAFFRAIL_SHARED", dir.display());
    None
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(path);
        }
    }
}

fn hash(text: &str) -> i64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        as i64
        | 1
}

/// Milliseconds of `2026-01-31T12:34:56.789Z`; days are those of Howard Hinnant's `days_from_civil`.
fn time(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    Some((days * 86_400 + seconds) * 1_000 + number(20, 23).unwrap_or(0))
}

/// A transcript as a session; lines of side chains are one more agent.
fn read(text: &str) -> Trace {
    let mut trace = Trace::default();
    for (id, kind) in [("", "main"), ("side", "subagent")] {
        trace.agents.push(Agent { agent_id: id.to_owned(), agent_type: kind.to_owned(), ..Agent::default() });
    }
    let mut calls: HashMap<String, usize> = HashMap::new();
    let mut requests: BTreeMap<String, Request> = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(at_ms) = line["timestamp"].as_str().and_then(time) else { continue };
        let agent = u32::from(line["isSidechain"].as_bool().unwrap_or(false));
        let message = &line["message"];
        if line["subtype"] == "compact_boundary" {
            let told = &line["compactMetadata"];
            let kind = MarkKind::Compaction {
                trigger: told["trigger"].as_str().map(str::to_owned),
                pre_tokens: told["preTokens"].as_i64(),
                post_tokens: told["postTokens"].as_i64(),
            };
            trace.marks.push(Mark { ts_ms: at_ms, agent, kind });
        }
        if let Some(usage) = message["usage"].as_object() {
            let figure = |name: &str| usage.get(name).and_then(Value::as_i64).unwrap_or(0);
            let request = requests.entry(message["id"].to_string()).or_default();
            (request.agent, request.ts_ms) = (agent, if request.id == 0 { at_ms } else { request.ts_ms });
            request.id = 1;
            request.model = message["model"].as_str().unwrap_or("").into();
            request.input = figure("input_tokens");
            request.output = request.output.max(figure("output_tokens"));
            request.cache_read = figure("cache_read_input_tokens");
            request.cache_write_5m = figure("cache_creation_input_tokens");
            request.context_window = Some(200_000);
        }
        let blocks = message["content"].as_array().cloned().unwrap_or_default();
        if message["role"] == "user" && !blocks.iter().any(|block| block["type"] == "tool_result") {
            trace.marks.push(Mark { ts_ms: at_ms, agent, kind: MarkKind::Prompt { human: true } });
        }
        for block in blocks {
            let id = |name: &str| block[name].as_str().unwrap_or("").to_owned();
            match block["type"].as_str() {
                Some("tool_use") if !calls.contains_key(&id("id")) => {
                    calls.insert(id("id"), trace.calls.len());
                    trace.calls.push(begun(&block, at_ms, agent, trace.calls.len()));
                }
                Some("tool_result") => {
                    if let Some(&call) = calls.get(&id("tool_use_id")) {
                        end(&mut trace.calls[call], &block, at_ms);
                    }
                }
                _ => {}
            }
        }
    }
    trace.requests = requests.into_values().collect();
    for (n, request) in trace.requests.iter_mut().enumerate() {
        request.id = n as i64;
    }
    trace
}

fn begun(block: &Value, at_ms: i64, agent: u32, nth: usize) -> Call {
    let input = &block["input"];
    let text = |name: &str| input[name].as_str();
    let summary =
        text("command").or(text("file_path")).or(text("pattern")).or(text("description")).unwrap_or("");
    Call {
        id: nth as i64,
        agent,
        tool_use_id: block["id"].as_str().map(str::to_owned),
        tool: block["name"].as_str().unwrap_or("").into(),
        at_ms,
        input_hash: hash(&format!("{}{input}", block["name"])),
        summary: summary.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(240).collect(),
        ..Call::default()
    }
}

fn end(call: &mut Call, block: &Value, at_ms: i64) {
    let content = block["content"].to_string();
    let failed = block["is_error"].as_bool().unwrap_or(false);
    call.ended_ms = Some(at_ms);
    call.duration_ms = Some((at_ms - call.at_ms).max(0));
    call.result_hash = Some(hash(&content));
    call.output_bytes = Some(content.len() as i64);
    call.outcome = match failed {
        true if content.contains("user doesn't want") => Outcome::Denied,
        true => Outcome::Failed,
        false => Outcome::Succeeded,
    };
    let head: String = content.chars().take(40).collect();
    call.error = (call.outcome == Outcome::Failed).then(|| Failure {
        class: "tool".into(),
        fingerprint: format!("{:016x}", hash(&head)),
        message: head,
    });
    let action = match &*call.tool {
        "Read" => FileAction::Read,
        "Write" => FileAction::Write,
        "Edit" | "MultiEdit" => FileAction::Edit,
        _ => return,
    };
    if !failed {
        call.files.push(FileTouch { action, path: call.summary.as_str().into(), ..FileTouch::default() });
    }
}

/// What holds of every session.
fn check(path: &Path, trace: &Trace, digest: &Digest) {
    let facts = &digest.facts;
    let what = path.display();
    let quality = &facts.quality;
    assert_eq!(
        quality.calls,
        trace.calls.iter().filter(|call| call.outcome.has_ended()).count() as u64,
        "{what}"
    );
    assert!(
        quality.rework <= quality.changes && quality.first_try_succeeded <= quality.first_tries,
        "{what}"
    );
    assert!(facts.failures.resolved <= facts.failures.failed, "{what}");
    assert!(facts.sequences.wasted.calls <= facts.calls, "{what}");
    assert!(facts.sequences.wasted.token_share.is_none_or(|share| (0.0..=1.0).contains(&share)), "{what}");
    for context in &facts.context.agents {
        assert!(context.size <= context.peak && context.curve.len() <= Limits::default().curve, "{what}");
    }
}

#[test]
fn open_transcripts() {
    let Some(shared) = shared_dir() else { return };
    let mut paths = Vec::new();
    files(&shared.join("data/claude-transcripts"), &mut paths);
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    let verbose = std::env::var_os("TAFFRAIL_SHOW").is_some();
    for path in &paths {
        let trace = read(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        let digest = digest(&trace, &Limits::default());
        check(path, &trace, &digest);
        let facts = &digest.facts;
        let name = |name: &str| {
            facts.sequences.cycles.iter().filter(|c| name.is_empty() || c.period > 1).count() as u64
        };
        let figures = [
            ("calls", facts.calls),
            ("failed", facts.failures.failed),
            ("resolved", facts.failures.resolved),
            ("changes", facts.quality.changes),
            ("rework", facts.quality.rework),
            ("test_runs", facts.quality.test_runs),
            ("tests_passed", facts.quality.tests_passed),
            ("tests_failed", facts.quality.tests_failed),
            ("cycles", name("")),
            ("cycles_longer", name("longer")),
            ("thrashed_files", facts.sequences.thrash.len() as u64),
            ("wasted_calls", facts.sequences.wasted.calls),
            ("parallel_calls", facts.sequences.parallel.parallel),
            ("repeated_reads", facts.files.hot.iter().map(|file| file.repeated_reads).sum()),
            ("compactions", facts.context.compactions),
        ];
        for (name, figure) in figures {
            *all.entry(name).or_default() += figure;
        }
        if verbose && !trace.calls.is_empty() {
            show(path, facts);
        }
    }
    let want = BTreeMap::from([
        ("calls", 1_883),
        ("failed", 73),
        ("resolved", 50),
        ("changes", 349),
        ("rework", 194),
        ("test_runs", 118),
        ("tests_passed", 29),
        ("tests_failed", 6),
        ("cycles", 1),
        ("cycles_longer", 0),
        ("thrashed_files", 0),
        ("wasted_calls", 5),
        ("parallel_calls", 457),
        ("repeated_reads", 7),
        ("compactions", 6),
    ]);
    assert_eq!(all, want);
}

/// For looking at by eye: `TAFFRAIL_SHOW=1 cargo nextest run -p taffrail-analytics open_transcripts --no-capture`.
fn show(path: &Path, facts: &SessionFacts) {
    eprintln!("== {} {} calls", path.display(), facts.calls);
    for cycle in &facts.sequences.cycles {
        eprintln!("  cycle {} x {}: {:?}", cycle.period, cycle.repeats, cycle.summaries);
    }
    for repeated in facts.sequences.repetitions.iter().take(5) {
        eprintln!(
            "  {} {} same {} waste {:?}: {}",
            repeated.tool, repeated.count, repeated.same_result, repeated.waste, repeated.summary
        );
    }
    for thrash in &facts.sequences.thrash {
        eprintln!("  thrash {} changes {} flips {}", thrash.path, thrash.changes, thrash.flips);
    }
    for group in facts.failures.groups.iter().take(4) {
        eprintln!(
            "  error {} {} resolved {} ({} same) retried {}: {:?}",
            group.count, group.message, group.resolved, group.resolved_same_input, group.retried, group.next
        );
    }
    eprintln!("  {:?}", facts.quality);
    for context in &facts.context.agents {
        eprintln!(
            "  context {} peak {} shrunk {} next {:?}",
            context.size, context.peak, context.shrunk, context.next_compaction
        );
        for fill in &context.fill {
            eprintln!(
                "    {} {:?} {} tokens {} bytes {}",
                fill.source, fill.tool, fill.tokens, fill.bytes, fill.count
            );
        }
    }
}
