//! Token totals of real transcripts, as another program counted them when they were recorded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::shared_dir;
use serde_json::Value;
use taffrail_event::ledger::{Usage, Witness};
use taffrail_event::transcript::{Facts, FileFacts, FileKind, Parser};

/// The bytes from the given line on, counted from 0.
fn from_line(bytes: &[u8], line: usize) -> &[u8] {
    let mut rest = bytes;
    for _ in 0..line {
        let newline = rest.iter().position(|&byte| byte == b'\n').unwrap();
        rest = &rest[newline + 1..];
    }
    rest
}

fn facts(path: &str, bytes: &[u8]) -> Facts {
    let mut parser = Parser::new(&FileFacts::of_path(path).unwrap());
    let taken = parser.feed(bytes);
    parser.finish(&bytes[taken..]);
    parser.take()
}

/// Of each message the sighting with the highest output, summed; and how many messages.
fn totals(facts: &Facts) -> (Usage, usize) {
    let mut best: BTreeMap<&str, (u64, Usage)> = BTreeMap::new();
    for request in facts.requests.iter().filter(|request| request.witness == Witness::Transcript) {
        let usage = request.usage.unwrap();
        let rank = (usage.output, usage);
        let known = best.entry(request.message_id.as_deref().unwrap()).or_insert(rank);
        *known = rank.max(*known);
    }
    let sum = best.values().fold(Usage::default(), |mut sum, (_, usage)| {
        sum.input += usage.input;
        sum.output += usage.output;
        sum.cache_read += usage.cache_read;
        sum.cache_write_5m += usage.cache_write_5m;
        sum.cache_write_1h += usage.cache_write_1h;
        sum
    });
    (sum, best.len())
}

#[test]
fn every_total_of_the_oracle_is_reproduced() {
    let Some(shared) = shared_dir() else { return };
    let table = std::fs::read_to_string(shared.join("data/ORACLE_TOKEN_USAGE.tsv")).unwrap();
    let mut rows = 0;
    for row in table.lines().filter(|row| !row.starts_with('#')).skip(1) {
        let cells: Vec<&str> = row.split('\t').collect();
        let [path, agent, start_line, input, cache_creation, cache_read, output, calls, ..] = cells[..]
        else {
            panic!("{row}")
        };
        let bytes = std::fs::read(shared.join("data").join(path)).unwrap();
        let (sum, messages) = match agent {
            "Claude Code" => {
                let lines = from_line(&bytes, start_line.parse().unwrap());
                let (sum, requests) = totals(&facts(path, lines));
                (sum, requests + synthetic(lines))
            }
            "Gemini CLI" => gemini(&bytes, start_line.parse().unwrap()),
            other => panic!("{other}"),
        };
        let shown = format!(
            "{}\t{}\t{}\t{}\t{messages}",
            sum.input,
            sum.cache_write_5m + sum.cache_write_1h,
            sum.cache_read,
            sum.output
        );
        assert_eq!(shown, [input, cache_creation, cache_read, output, calls].join("\t"), "{path}");
        rows += 1;
    }
    assert_eq!(rows, 18);
}

/// Messages that the client wrote itself: no requests, and without tokens, but the oracle counts them as calls.
fn synthetic(lines: &[u8]) -> usize {
    let ids = String::from_utf8_lossy(lines)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record["message"]["model"] == "<synthetic>")
        .filter_map(|record| record["message"]["id"].as_str().map(str::to_owned))
        .collect::<BTreeSet<_>>();
    ids.len()
}

/// A Gemini chat is one document: here the oracle counts from a message on, not from a line. It shows the vendor's own
/// counts, where input includes what was cached and output leaves out the thoughts; the ledger shows what is billed.
fn gemini(bytes: &[u8], start_message: usize) -> (Usage, usize) {
    let mut document: Value = serde_json::from_slice(bytes).unwrap();
    document["messages"].as_array_mut().unwrap().drain(..start_message);
    let file = FileFacts { kind: FileKind::Gemini, ..FileFacts::default() };
    let mut parser = Parser::new(&file);
    parser.finish(document.to_string().as_bytes());
    let thoughts: u64 = document["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["tokens"]["thoughts"].as_u64())
        .sum();
    let (mut sum, messages) = totals(&parser.take());
    sum.input += sum.cache_read;
    sum.output -= thoughts;
    (sum, messages)
}
