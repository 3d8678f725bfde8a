//! What real clients sent: every delivery goes in, and a second delivery adds nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, shared};

/// Every delivery of a recording: JSON lines, an array, or one object; of a capture, the body of each. A file that is
/// none of that, there are two, is one delivery of text.
fn payloads(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let Ok(values) = values else { return vec![Value::String(text)] };
    let mut found = Vec::new();
    for value in values {
        match value {
            Value::Array(list) => found.extend(list),
            other => found.push(other),
        }
    }
    if is_capture(path) {
        found.into_iter().map(|delivery| delivery["body"].clone()).collect()
    } else {
        found
    }
}

fn is_capture(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "hooks.jsonl")
}

fn files(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_delivery_of_the_fixtures_is_stored_once() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/realclient");
    let captures = files(&fixtures, &is_capture);
    assert!(captures.len() >= 10, "{} captures in {}", captures.len(), fixtures.display());
    go_in_once(&captures, &fixtures);
}

#[test]
fn every_delivery_of_the_shared_recordings_is_stored_once() {
    let Some(shared) = shared() else { return };
    let is_json = |path: &Path| path.extension().is_some_and(|e| e == "json" || e == "jsonl");
    let mut paths = files(&shared.join("data/hook-payloads"), &is_json);
    let captures = files(&shared.join("realclient/captures"), &is_capture);
    assert!(paths.len() > 20 && captures.len() > 5, "the recordings are there");
    paths.extend(captures);
    go_in_once(&paths, &shared);
}

fn go_in_once(paths: &[PathBuf], root: &Path) {
    let server = Server::start();
    let mut all = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        for (n, payload) in payloads(path).into_iter().enumerate() {
            all.push(item(&name, n, &payload));
        }
    }
    let lines: String = all.iter().map(|item| format!("{item}\n")).collect();
    let batch = "/v1/hooks/claude-code/batch";
    let first = server.post(batch, lines.clone()).json();
    let again = server.post(batch, lines).json();
    let (stored, twins) = (first["stored"].as_u64().unwrap(), first["duplicates"].as_u64().unwrap());
    assert_eq!(stored + twins, all.len() as u64);
    assert_eq!((again["stored"].as_u64(), again["duplicates"].as_u64()), (Some(0), Some(all.len() as u64)));
    assert_eq!(server.stored(), stored);
    assert_eq!(twins, expected_twins(&all), "only a tool's own event can come twice");
}

fn item(file: &str, n: usize, payload: &Value) -> Value {
    let id = taffrail_event::EventId::derived(&[file.as_bytes(), &n.to_le_bytes()]);
    json!({"event_id": id.to_string(), "payload": payload})
}

/// Deliveries that name the same call and kind as an earlier one.
fn expected_twins(all: &[Value]) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let facts = all.iter().filter_map(|item| {
        let p = &item["payload"];
        let tool_use_id = p["tool_use_id"].as_str()?;
        Some(json!([p["session_id"], p["agent_id"], tool_use_id, p["hook_event_name"]]).to_string())
    });
    facts.filter(|fact| !seen.insert(fact.clone())).count() as u64
}
