//! The captures of real sessions: hooks, telemetry and transcripts of one run, taken in in every order, give one ledger.
//!
//! What must come out is read from the captures here, independently of the product's parsers.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::Home;

/// Runs that were recorded with telemetry and transcripts.
const JOINED: [&str; 11] = [
    "api-overload",
    "auto-mode",
    "failing-tests",
    "git-work",
    "interactive-session",
    "parallel-tools",
    "permission-denied",
    "quick-edit",
    "resume-compact",
    "slash-and-skill",
    "subagents-parallel",
];

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/captures").join(name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Hooks,
    Otlp,
    Transcripts,
}

const ORDERS: [[Source; 3]; 6] = {
    use Source::{Hooks, Otlp, Transcripts};
    [
        [Hooks, Otlp, Transcripts],
        [Hooks, Transcripts, Otlp],
        [Otlp, Hooks, Transcripts],
        [Otlp, Transcripts, Hooks],
        [Transcripts, Hooks, Otlp],
        [Transcripts, Otlp, Hooks],
    ]
};

/// A server of its own for one run.
struct House {
    home: Home,
    url: String,
    token: String,
}

impl House {
    fn new() -> Self {
        let home = Home::new();
        let url = home.up();
        let token = home.ok(&["token"]).trim().to_owned();
        Self { home, url, token }
    }

    fn take(&self, name: &str, source: Source) {
        let dir = capture(name);
        match source {
            Source::Hooks => {
                self.home.ok(&["import", "hooks", dir.join("hooks.jsonl").to_str().unwrap()]);
            }
            Source::Transcripts => {
                self.home.ok(&["import", "transcripts", dir.join("transcripts").to_str().unwrap()]);
            }
            Source::Otlp => self.post_otlp(&dir.join("otlp.jsonl")),
        }
    }

    fn post_otlp(&self, file: &Path) {
        for line in fs::read_to_string(file).unwrap().lines() {
            let export: Value = serde_json::from_str(line).unwrap();
            let url = format!("{}{}", self.url, export["path"].as_str().unwrap());
            let body = export["body"].to_string();
            let answer = ureq::post(&url).header("content-type", "application/json").send(body.as_bytes());
            assert_eq!(answer.unwrap().status().as_u16(), 200);
        }
    }

    fn get(&self, path: &str) -> Value {
        let request = ureq::get(format!("{}{path}", self.url));
        let mut answer = request.header("authorization", format!("Bearer {}", self.token)).call().unwrap();
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Every session's ledger.
    fn ledgers(&self) -> BTreeMap<String, Value> {
        let sessions = self.get("/api/v1/sessions?limit=1000");
        let ids = sessions["items"].as_array().unwrap().iter().map(|s| s["session_id"].as_str().unwrap());
        ids.map(|id| (id.to_owned(), self.get(&format!("/api/v1/sessions/{id}/ledger")))).collect()
    }
}

/// What the captures say.
#[derive(Debug, Default)]
struct Truth {
    /// By request id: the client's own cost in nano-dollars, and the session that asked.
    paid: BTreeMap<String, (i64, String)>,
    /// Request ids of the transcripts' messages.
    written: BTreeSet<String>,
    /// By request id: how many attempts the span tells.
    attempts: BTreeMap<String, i64>,
}

fn nano(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

fn attributes(record: &Value) -> BTreeMap<String, Value> {
    let all = record["attributes"].as_array().unwrap().iter();
    let first = |value: &Value| value.as_object().unwrap().values().next().cloned().unwrap_or_default();
    all.map(|a| (a["key"].as_str().unwrap().to_owned(), first(&a["value"]))).collect()
}

fn each<'a>(export: &'a Value, path: [&str; 3]) -> Vec<&'a Value> {
    let list = |value: &'a Value, key: &str| value[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let resources = list(&export["body"], path[0]).iter();
    let scopes = resources.flat_map(|resource| list(resource, path[1]));
    scopes.flat_map(|scope| list(scope, path[2])).collect()
}

fn truth(name: &str) -> Truth {
    let mut truth = Truth::default();
    for line in fs::read_to_string(capture(name).join("otlp.jsonl")).unwrap().lines() {
        let export: Value = serde_json::from_str(line).unwrap();
        for record in each(&export, ["resourceLogs", "scopeLogs", "logRecords"]) {
            let a = attributes(record);
            if a["event.name"] == "api_request" {
                let paid =
                    (nano(a["cost_usd"].as_f64().unwrap()), a["session.id"].as_str().unwrap().to_owned());
                truth.paid.insert(a["request_id"].as_str().unwrap().to_owned(), paid);
            }
        }
        for span in each(&export, ["resourceSpans", "scopeSpans", "spans"]) {
            let a = attributes(span);
            if span["name"] == "claude_code.llm_request" && a["success"] == true {
                let id = a["request_id"].as_str().unwrap().to_owned();
                // The attribute begins again at 1 when the client falls back to an answer in one piece.
                let tried = span["events"].as_array().unwrap().iter();
                let tried = tried.filter(|event| event["name"] == "gen_ai.request.attempt").count();
                let attempts = a["attempt"].as_i64().unwrap().max(i64::try_from(tried).unwrap());
                truth.attempts.insert(id, attempts);
            }
        }
    }
    for file in files(&capture(name).join("transcripts")) {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let is_message = record["type"] == "assistant" && record["message"]["model"] != "<synthetic>";
            if let Some(id) = record["requestId"].as_str().filter(|_| is_message) {
                truth.written.insert(id.to_owned());
            }
        }
    }
    truth
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "jsonl") {
            found.push(path);
        }
    }
    found
}

/// Rows of all ledgers; what differs by the order of arrival must not be among what is compared.
fn rows(ledgers: &BTreeMap<String, Value>) -> Vec<Value> {
    let mut rows: Vec<Value> =
        ledgers.values().flat_map(|l| l["items"].as_array().unwrap().iter().cloned()).collect();
    rows.sort_by_key(|row| row["request_id"].to_string() + &row["model"].to_string());
    rows
}

#[track_caller]
fn check(name: &str, orders: &[[Source; 3]]) {
    let truth = truth(name);
    let mut first: Option<Vec<Value>> = None;
    for order in orders {
        let house = House::new();
        order.iter().for_each(|source| house.take(name, *source));
        let ledgers = house.ledgers();
        let rows = rows(&ledgers);
        check_rows(&format!("{name} {order:?}"), &truth, &rows);
        for ledger in ledgers.values() {
            let told = &ledger["reconciliation"];
            if told["client_usd"].is_number() {
                let drift = told["drift_usd"].as_f64().map(nano);
                assert_eq!(drift, Some(0), "{name} {order:?}: {told:#}");
            }
        }
        let before = first.get_or_insert_with(|| rows.clone());
        assert_eq!(before, &rows, "{name} {order:?}: another order, another ledger");
        house.home.ok(&["down"]);
    }
}

#[track_caller]
fn check_rows(which: &str, truth: &Truth, rows: &[Value]) {
    let ids: Vec<&str> = rows.iter().filter_map(|row| row["request_id"].as_str()).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{which}: a request twice");
    assert_eq!(ids.len(), rows.len(), "{which}: a row that is no request: {rows:#?}");
    let expected: BTreeSet<&str> = truth.paid.keys().chain(&truth.written).map(String::as_str).collect();
    assert_eq!(unique, expected, "{which}");
    for row in rows {
        let id = row["request_id"].as_str().unwrap();
        let (cost, session) = &truth.paid[id];
        assert_eq!(nano(row["cost_usd"].as_f64().unwrap()), *cost, "{which}: {row:#}");
        assert_eq!(nano(row["told_cost_usd"].as_f64().unwrap()), *cost, "{which}: {row:#}");
        assert_eq!(row["session_id"], session.as_str(), "{which}: {row:#}");
        assert_eq!(row["confidence"], "exact", "{which}: {row:#}");
        let mut sources: Vec<&str> =
            row["sources"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        sources.retain(|source| *source != "progress");
        let spoke =
            if truth.written.contains(id) { &["transcript", "otlp", "span"][..] } else { &["otlp", "span"] };
        assert_eq!(sources, spoke, "{which}: {row:#}");
        assert_eq!(row["attempts"].as_i64(), truth.attempts.get(id).copied(), "{which}: {row:#}");
    }
}

#[test]
fn every_order_gives_the_same_ledger() {
    check("resume-compact", &ORDERS);
    check("subagents-parallel", &ORDERS);
    check("api-overload", &ORDERS);
}

#[test]
fn each_request_of_every_capture_is_there_once_at_the_clients_price() {
    for name in JOINED {
        check(name, &ORDERS[..1]);
    }
}

/// Without telemetry a transcript misses what only telemetry tells; the client's own total tells how much that is.
#[test]
fn a_compaction_that_no_source_shows_is_estimated_from_the_clients_total() {
    let house = House::new();
    house.take("resume-compact", Source::Transcripts);
    let ledgers = house.ledgers();
    let derived: Vec<Value> =
        rows(&ledgers).into_iter().filter(|row| row["sources"].as_array().unwrap().is_empty()).collect();
    assert_eq!(derived.len(), 1, "{derived:#?}");
    assert_eq!(derived[0]["confidence"], "estimated");
    assert_eq!(nano(derived[0]["cost_usd"].as_f64().unwrap()), 6_680_000);
    let total: i64 = ledgers.values().map(|l| nano(l["totals"]["cost_usd"].as_f64().unwrap())).sum();
    assert_eq!(total, 106_440_000, "the fork's own total, which holds its parent's");
    // The telemetry arrives: the request itself takes the estimate's place.
    house.take("resume-compact", Source::Otlp);
    let after = rows(&house.ledgers());
    assert!(after.iter().all(|row| row["confidence"] == "exact"), "{after:#?}");
    house.home.ok(&["down"]);
}

#[test]
fn attempts_that_failed_are_told_once() {
    let house = House::new();
    for source in [Source::Transcripts, Source::Otlp, Source::Hooks] {
        house.take("api-overload", source);
    }
    let ledgers = house.ledgers();
    let failures: Vec<&Value> = ledgers.values().flat_map(|l| l["failures"].as_array().unwrap()).collect();
    // Two overloads before the first answer; a rate limit and a broken stream before the second; four server errors
    // with a retry after each, and the fifth with which the client gave up. Only the telemetry tells of that one.
    let mut statuses: Vec<i64> = failures.iter().map(|f| f["status_code"].as_i64().unwrap_or(0)).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [0, 429, 500, 500, 500, 500, 500, 529, 529], "{failures:#?}");
    assert_eq!(failures.iter().filter(|f| f["exhausted"] == true).count(), 1, "{failures:#?}");
    house.home.ok(&["down"]);
}
