//! Aggregates of every open transcript, as an independent script counted them.
//!
//! Token figures come from the parser, the descriptive ones from the decoder's objects. Three definitions are the
//! script's own and are rebuilt here: a line with two objects on it is one bad line and neither object counts (the
//! decoder gives both); a `loglines` wrapper is one record without a type; and messages that the client wrote itself
//! (`<synthetic>`, no tokens) count as messages, which for the parser are no requests.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use common::shared_dir;
use serde_json::{Map, Value, json};
use taffrail_event::ledger::Witness;
use taffrail_event::transcript::decode::{Decoder, Found};
use taffrail_event::transcript::{FileFacts, Parser};

/// How many files there are.
const FILES: usize = 95;

/// Every object of a file, with its place.
fn objects(bytes: &[u8]) -> (Vec<(Range<usize>, Value)>, usize) {
    let (mut found, mut junk, mut at) = (Vec::new(), 0, 0);
    let mut decoder = Decoder::new();
    loop {
        let (taken, what) = decoder.next(&bytes[at..], true, |line| {
            serde_json::from_slice::<Value>(line).ok().filter(Value::is_object)
        });
        let from = at;
        at += taken;
        match what {
            Found::Line(value, range) => found.push((from + range.start..from + range.end, value)),
            Found::Object(range) => {
                let range = from + range.start..from + range.end;
                let text = String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
                found.push((range, serde_json::from_str(&text).unwrap()));
            }
            Found::Junk(_) => junk += 1,
            Found::More => return (found, junk),
        }
    }
}

/// The kinds of file, as the script calls them.
fn format_of(bytes: &[u8]) -> &'static str {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(_)) => "json-array",
        Ok(Value::Object(object)) if object.contains_key("loglines") => "json-object",
        _ => "jsonl",
    }
}

/// The records as the script saw them, with their bytes, and how many lines it could not read.
fn as_the_script<'b>(bytes: &'b [u8], format: &str) -> (Vec<(&'b [u8], Value)>, u64) {
    if format == "json-object" {
        return (vec![(bytes, serde_json::from_slice(bytes).unwrap())], 0);
    }
    let (found, junk) = objects(bytes);
    assert_eq!(junk, 0, "every byte of the open transcripts belongs to a record");
    let mut lines: BTreeMap<usize, Vec<(Range<usize>, Value)>> = BTreeMap::new();
    let newlines: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
    for (range, value) in found {
        lines
            .entry(newlines.partition_point(|&newline| newline < range.start))
            .or_default()
            .push((range, value));
    }
    let bad = lines.values().filter(|line| format == "jsonl" && line.len() > 1).count() as u64;
    let good = lines.into_values().filter(|line| format != "jsonl" || line.len() == 1).flatten();
    (good.map(|(range, value)| (&bytes[range], value)).collect(), bad)
}

/// A text as Python's `str` shows it.
fn python(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { "None".to_owned() } else { value.to_string() }, str::to_owned)
}

fn count<T: Into<String>>(names: impl Iterator<Item = T>) -> Value {
    let mut counts: Map<String, Value> = Map::new();
    for name in names {
        let entry = counts.entry(name.into()).or_insert(json!(0));
        *entry = json!(entry.as_u64().unwrap() + 1);
    }
    Value::Object(counts)
}

fn distinct(values: impl Iterator<Item = String>) -> Value {
    json!(values.collect::<BTreeSet<_>>())
}

fn texts<'v>(records: &'v [(&[u8], Value)], key: &'v str) -> impl Iterator<Item = String> + 'v {
    records
        .iter()
        .filter_map(move |(_, record)| record[key].as_str())
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
}

fn has_type(record: &Value, kind: &str) -> bool {
    record["type"] == kind
}

/// What can be told by looking at the records.
fn descriptive(records: &[(&[u8], Value)]) -> Map<String, Value> {
    let assistants =
        || records.iter().map(|(_, record)| record).filter(|record| has_type(record, "assistant"));
    let blocks: Vec<&Value> = records
        .iter()
        .filter_map(|(_, record)| record["message"]["content"].as_array())
        .flatten()
        .filter(|block| block.is_object())
        .collect();
    let of_type = |kind: &'static str| blocks.iter().filter(move |block| block["type"] == kind);
    let flagged = |key: &str| records.iter().filter(|(_, record)| record[key] == true).count();
    let stamps: Vec<&str> = records.iter().filter_map(|(_, record)| record["timestamp"].as_str()).collect();
    let uuids: Vec<String> = texts(records, "uuid").collect();
    let compactions = records
        .iter()
        .filter(|(_, record)| record["isCompactSummary"] == true || record["subtype"] == "compact_boundary");
    let usages: Vec<&Value> =
        assistants().map(|record| &record["message"]["usage"]).filter(|u| u.is_object()).collect();
    let told = json!({
        "types": count(records.iter().map(|(_, record)| python(&record["type"]))),
        "versions": distinct(texts(records, "version")),
        "models": count(assistants().map(|record| python(&record["message"]["model"]))),
        "tools": count(of_type("tool_use").map(|block| python(&block["name"]))),
        "subtypes": count(texts(records, "subtype")),
        "null_usage": assistants().count() - usages.len(),
        "tool_err": of_type("tool_result").filter(|block| block["is_error"] == true).count(),
        "api_err": flagged("isApiErrorMessage"),
        "sidechain": flagged("isSidechain"),
        "compact": compactions.count(),
        "sessions": texts(records, "sessionId").collect::<BTreeSet<_>>().len(),
        "agents": texts(records, "agentId").collect::<BTreeSet<_>>().len(),
        "ts_min": stamps.iter().min(),
        "ts_max": stamps.iter().max(),
        "ts_backwards": stamps.windows(2).filter(|pair| pair[1] < pair[0]).count(),
        "dup_uuid": uuids.len() - uuids.iter().collect::<BTreeSet<_>>().len(),
        "blocks": count(blocks.iter().map(|block| python(&block["type"]))),
        "stop": count(assistants().map(|record| python(&record["message"]["stop_reason"]))),
        "usagekeys": count(usages.iter().flat_map(|usage| usage.as_object().unwrap().keys().cloned())),
        "attachments": count(
            records.iter().filter(|(_, r)| has_type(r, "attachment")).map(|(_, r)| python(&r["attachment"]["type"]))
        ),
        "permmodes": distinct(texts(records, "permissionMode")),
        "entry": distinct(texts(records, "entrypoint")),
        "keys": distinct(records.iter().flat_map(|(_, record)| record.as_object().unwrap().keys().cloned())),
    });
    told.as_object().unwrap().clone()
}

/// The token figures, from what the parser tells of each record alone: messages by (message.id, requestId), of each
/// count the maximum.
fn tokens(path: &str, records: &[(&[u8], Value)]) -> Map<String, Value> {
    let mut parser = Parser::new(&FileFacts::of_path(path).unwrap());
    let mut messages: BTreeMap<(Option<String>, Option<String>), [u64; 4]> = BTreeMap::new();
    let (mut sightings, mut changed) = (0, 0);
    let mut add = |key, counts: [u64; 4]| {
        sightings += 1;
        let known = messages.entry(key).or_insert(counts);
        changed += usize::from(*known != counts);
        for (known, count) in known.iter_mut().zip(counts) {
            *known = count.max(*known);
        }
    };
    for (bytes, record) in records {
        parser.finish(bytes);
        for request in parser.take().requests.into_iter().filter(|r| r.witness == Witness::Transcript) {
            let usage = request.usage.unwrap();
            let writes = usage.cache_write_5m + usage.cache_write_1h;
            add(
                (request.message_id, request.request_id),
                [usage.input, usage.output, writes, usage.cache_read],
            );
        }
        if has_type(record, "assistant") && record["message"]["model"] == "<synthetic>" {
            let usage = &record["message"]["usage"];
            assert_eq!(usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap(), 0);
            let id = |value: &Value| value.as_str().map(str::to_owned);
            add((id(&record["message"]["id"]), id(&record["requestId"])), [0; 4]);
        }
    }
    let sum = |n: usize| messages.values().map(|counts| counts[n]).sum::<u64>();
    let told = json!({
        "assistant_usage": sightings,
        "uniq_msgs": messages.len(),
        "dup_msg": sightings - messages.len(),
        "dup_changed": changed,
        "tok_in": sum(0),
        "tok_out": sum(1),
        "tok_cc": sum(2),
        "tok_cr": sum(3),
    });
    told.as_object().unwrap().clone()
}

#[track_caller]
fn check(data: &Path, expected: &Map<String, Value>) {
    let path = expected["path"].as_str().unwrap();
    let bytes = std::fs::read(data.join(path)).unwrap();
    let format = format_of(&bytes);
    let (records, bad) = as_the_script(&bytes, format);
    let lines = bytes.split(|&byte| byte == b'\n');
    let longest = lines.map(<[u8]>::len).max().filter(|_| format == "jsonl").unwrap_or(0);
    let told = json!({
        "path": path,
        "bytes": bytes.len(),
        "lines": records.len() as u64 + bad,
        "bad": bad,
        "maxline": longest,
        "fmt": format,
        "final_nl": bytes.ends_with(b"\n"),
    });
    let mut told = told.as_object().unwrap().clone();
    told.extend(descriptive(&records));
    told.extend(tokens(path, &records));
    for (field, expected) in expected {
        assert_eq!(&told[field], expected, "{field} of {path}");
    }
    assert_eq!(told.len(), expected.len(), "{path}");
}

#[test]
fn every_aggregate_of_every_open_transcript_is_reproduced() {
    let Some(shared) = shared_dir() else { return };
    let data = shared.join("data");
    let rows = std::fs::read_to_string(data.join("EXPECTED_TRANSCRIPTS.jsonl")).unwrap();
    let rows: Vec<Map<String, Value>> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), FILES);
    for row in &rows {
        check(&data, row);
    }
}

#[test]
fn what_the_script_could_not_read_is_read() {
    let Some(shared) = shared_dir() else { return };
    // (file, records, records that share a line)
    let files = [
        ("entireio-cli/bd_7375936c5c_0.full.jsonl", 346, 2),
        ("entireio-cli/5a_c45bc32212_0.full.jsonl", 242, 2),
        ("simonw-transcripts/sample_session.json", 33, 0),
    ];
    for (file, records, together) in files {
        let path = shared.join("data/claude-transcripts").join(file);
        let bytes = std::fs::read(&path).unwrap();
        let (found, junk) = objects(&bytes);
        assert_eq!((found.len(), junk), (records, 0), "{file}");
        let touching =
            found.windows(2).filter(|pair| !bytes[pair[0].0.end..pair[1].0.start].contains(&b'\n'));
        assert_eq!(touching.count() * 2, together, "{file}");
        let mut parser = Parser::new(&FileFacts::of_path(path.to_str().unwrap()).unwrap());
        parser.finish(&bytes);
        let counts = parser.take().counts;
        assert_eq!((counts.records, counts.bad), (records as u64, 0), "{file}");
    }
}

#[test]
fn every_type_of_record_in_the_open_transcripts_is_known_or_known_to_be_drift() {
    let Some(shared) = shared_dir() else { return };
    let data = shared.join("data");
    let rows = std::fs::read_to_string(data.join("EXPECTED_TRANSCRIPTS.jsonl")).unwrap();
    let mut unknown = BTreeMap::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let path = row["path"].as_str().unwrap();
        let mut parser = Parser::new(&FileFacts::of_path(path).unwrap());
        parser.finish(&std::fs::read(data.join(path)).unwrap());
        let counts = parser.take().counts;
        assert_eq!(counts.bad, 0, "{path}");
        if counts.unknown > 0 {
            unknown.insert(path.to_owned(), counts.unknown);
        }
    }
    // A made-up file: its `tool_use` and `tool_result` are no records of any client.
    let drift = "claude-transcripts/agent-sessions-fixtures/schema_drift.jsonl".to_owned();
    assert_eq!(unknown, BTreeMap::from([(drift, 2)]));
}
