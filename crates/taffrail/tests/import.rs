//! Import with the real binary: everything goes in, and nothing twice.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Home, shared};

fn payload(event: &str, n: u32) -> String {
    json!({"session_id": "s1", "cwd": "/home/user/api", "hook_event_name": event, "prompt": format!("p{n}")})
        .to_string()
}

#[track_caller]
fn check_totals(totals: &Value, deliveries: u64, stored: u64, malformed: u64) {
    let figures =
        ["deliveries", "stored", "duplicates", "malformed"].map(|name| totals[name].as_u64().unwrap());
    assert_eq!(figures, [deliveries, stored, deliveries - stored, malformed], "{totals}");
}

#[test]
fn a_file_goes_in_once_and_its_growth_later() {
    let home = Home::new();
    let (a, b) = (payload("UserPromptSubmit", 1), payload("UserPromptSubmit", 2));
    let file = home.write("hooks.jsonl", &format!("{a}\n{b}\n{b}\nno json\n"));
    let import = ["import", "hooks", &file, "--json"];
    let dry = home.json(&["import", "hooks", &file, "--json", "--dry-run"]);
    assert_eq!((&dry["deliveries"], &dry["stored"], &dry["malformed"]), (&json!(4), &json!(0), &json!(1)));
    check_totals(&home.json(&import), 4, 4, 1);
    check_totals(&home.json(&import), 4, 0, 1);

    home.write("hooks.jsonl", &format!("{a}\n{b}\n{b}\nno json\n{a}\n{b}"));
    check_totals(&home.json(&import), 6, 2, 1);
    assert_eq!(home.events().len(), 6);
    let again = home.ok(&["import", "hooks", &file]);
    assert_eq!(again, "1 file: 6 events, 0 stored, 6 already there, 1 malformed\n");
}

#[test]
fn an_import_takes_the_running_server_and_keeps_times_and_bytes() {
    let home = Home::new();
    home.up();
    let body = r#"{"session_id":"s1","hook_event_name":"Stop","odd":[1.50,{"deep":null}]}"#;
    let file =
        home.write("rec.jsonl", &format!("{{\"t\":1795333438.402,\"event\":\"Stop\",\"body\":{body}}}\n"));
    check_totals(&home.json(&["import", "hooks", &file, "--json"]), 1, 1, 0);
    let events = home.events();
    assert_eq!((&events[0]["ts_ms"], &events[0]["type"]), (&json!(1_795_333_438_402_i64), &json!("Stop")));
    assert_eq!(events[0]["payload"], serde_json::from_str::<Value>(body).unwrap());
}

#[test]
fn every_recorded_payload_goes_in_and_a_second_time_adds_nothing() {
    let folders = [shared("data/hook-payloads"), shared("realclient/captures")];
    for folder in folders.into_iter().flatten() {
        let home = Home::new();
        let mut files: Vec<String> = Vec::new();
        if folder.ends_with("captures") {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let file = entry.unwrap().path().join("hooks.jsonl");
                files.extend(file.is_file().then(|| file.to_str().unwrap().to_owned()));
            }
        } else {
            files.push(folder.to_str().unwrap().to_owned());
        }
        let mut arguments = vec!["import", "hooks", "--json"];
        arguments.extend(files.iter().map(String::as_str));
        let first = home.json(&arguments);
        let deliveries = first["deliveries"].as_u64().unwrap();
        assert!(deliveries > 200, "{first}");
        check_totals(&first, deliveries, deliveries, 0);
        let second = home.json(&arguments);
        check_totals(&second, deliveries, 0, 0);
        assert_eq!(home.events().len() as u64, deliveries);
    }
}

fn old_database(home: &Home, name: &str, rows: u32) -> String {
    let path = home.path().join(name);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, source_app TEXT NOT NULL, session_id TEXT NOT NULL,
            hook_event_type TEXT NOT NULL, payload TEXT NOT NULL, chat TEXT, summary TEXT, timestamp INTEGER NOT NULL,
            humanInTheLoop TEXT, humanInTheLoopStatus TEXT, model_name TEXT);
         CREATE TABLE themes (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, displayName TEXT NOT NULL, description TEXT,
            colors TEXT NOT NULL, isPublic INTEGER NOT NULL DEFAULT 0, authorId TEXT, authorName TEXT,
            createdAt INTEGER NOT NULL, updatedAt INTEGER NOT NULL, tags TEXT, downloadCount INTEGER, rating REAL,
            ratingCount INTEGER);",
    )
    .unwrap();
    for n in 0..rows {
        // Every third row is the one before it once more.
        let at = n - n % 3 / 2;
        let payload = json!({"hook_event_name": "Stop", "n": at}).to_string();
        db.execute(
            "INSERT INTO events (source_app, session_id, hook_event_type, payload, chat, summary, timestamp, humanInTheLoop,
                humanInTheLoopStatus, model_name) VALUES ('app', 's1', 'Stop', ?1, '[{\"type\":\"user\"}]', 'did it', ?2,
                '{\"question\":\"ok?\"}', '{\"status\":\"responded\",\"respondedAt\":5}', 'opus')",
            (payload, 1_795_333_438_000_i64 + i64::from(at)),
        )
        .unwrap();
    }
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_old_database_and_a_grown_copy_go_in_once_with_all_they_hold() {
    let home = Home::new();
    let old = old_database(&home, "events.db", 6);
    check_totals(&home.json(&["import", "disler", &old, "--json"]), 6, 6, 0);
    check_totals(&home.json(&["import", "disler", &old, "--json"]), 6, 0, 0);
    let grown = old_database(&home, "copy.db", 8);
    check_totals(&home.json(&["import", "disler", &grown, "--json"]), 8, 2, 0);

    let url = home.up();
    let token = home.ok(&["token"]);
    let recent = ureq::get(format!("{url}/events/recent"))
        .header("authorization", format!("Bearer {}", token.trim()))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    let recent: Vec<Value> = serde_json::from_str(&recent).unwrap();
    assert_eq!(recent.len(), 8);
    let event = &recent[0];
    assert_eq!(event["chat"], json!([{"type": "user"}]));
    assert_eq!((&event["summary"], &event["model_name"]), (&json!("did it"), &json!("opus")));
    assert_eq!(event["humanInTheLoopStatus"], json!({"status": "responded", "respondedAt": 5}));
    assert_eq!((&event["timestamp"], &event["source_app"]), (&json!(1_795_333_438_000_i64), &json!("app")));
    assert_eq!(event["payload"], json!({"hook_event_name": "Stop", "n": 0}));
}

#[test]
fn what_cannot_be_imported_is_said_with_a_hint() {
    let home = Home::new();
    assert!(home.fails(&["import", "hooks", "/nonexistent/x.jsonl"]).contains("/nonexistent/x.jsonl"));
    let text = home.write("events.db", &"no database, but long enough to look like one. ".repeat(30));
    assert!(home.fails(&["import", "disler", &text]).contains("events.db"));
}
