//! The server's commands with the real binary: start, stop, follow, export, and what they say when something is wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{Home, stderr};

fn post(url: &str, payload: &Value) {
    let answer = ureq::post(format!("{url}/v1/hooks/claude-code"))
        .header("content-type", "application/json")
        .send(payload.to_string())
        .unwrap();
    assert_eq!(answer.status(), 200);
}

fn prompt(session: &str, text: &str) -> Value {
    json!({"session_id": session, "cwd": "/home/user/api", "hook_event_name": "UserPromptSubmit", "prompt": text})
}

#[test]
fn up_is_idempotent_and_so_is_down() {
    let home = Home::new();
    let first = home.json(&["up", "--listen", "127.0.0.1:0", "--json"]);
    let second = home.json(&["up", "--json"]);
    assert_eq!((&first["started"], &second["started"]), (&json!(true), &json!(false)));
    assert_eq!((&first["url"], &first["pid"]), (&second["url"], &second["pid"]));
    assert_ne!(first["link"], second["link"]);
    let line = home.ok(&["up"]);
    assert!(
        line.starts_with("taffrail is running at http://127.0.0.1:") && line.contains("/auth?code="),
        "{line}"
    );
    assert!(home.ok(&["health"]).contains("status"));

    assert!(home.run(&["down"]).status.success());
    let address = first["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
    assert!(TcpStream::connect(address).is_err(), "the server still listens");
    assert!(home.run(&["down"]).status.success());
    assert!(home.fails(&["health"]).contains("taffrail up"));
}

#[test]
fn two_ups_at_once_agree_on_one_server() {
    let home = Home::new();
    let start =
        || home.command(&["up", "--listen", "127.0.0.1:0", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let pids: Vec<Value> = [start(), start()]
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["pid"].clone()
        })
        .collect();
    assert_eq!(pids[0], pids[1]);
}

#[test]
fn a_port_in_use_is_said_with_what_to_do() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = home.fails(&["up", "--listen", &address]);
    assert!(said.contains(&address), "{said}");
    let said = home.fails(&["serve", "--listen", &address]);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn an_unusable_data_directory_is_said_with_what_to_do() {
    let home = Home::new();
    let file = home.write("file", "");
    for command in [["serve", "--data-dir", &file], ["up", "--data-dir", &file]] {
        let said = home.fails(&command);
        assert!(said.contains(&file) && said.contains("--data-dir"), "{said}");
    }
}

#[test]
fn a_corrupt_database_and_a_newer_one_are_refused_and_left_alone() {
    let home = Home::new();
    let database = home.path().join("taffrail.db");
    let garbage = "this is no database. ".repeat(1_000);
    std::fs::write(&database, &garbage).unwrap();
    home.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(std::fs::read_to_string(&database).unwrap(), garbage);

    std::fs::remove_file(&database).unwrap();
    home.ok(&["migrate", "up"]);
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 9_999).unwrap();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["up", "--listen", "127.0.0.1:0"]] {
        assert!(home.fails(command).contains("9999"));
    }
}

#[test]
fn migrations_go_up_and_down() {
    let home = Home::new();
    assert_eq!(home.json(&["migrate", "status", "--json"])["current"], 0);
    let up = home.json(&["migrate", "up", "--json"]);
    assert_eq!(up["current"], up["known"]);
    assert_eq!(home.json(&["migrate", "down", "--to", "0", "--json"])["current"], 0);
    home.up();
    assert!(home.fails(&["migrate", "down", "--to", "0"]).contains("taffrail down"));
}

/// Ends the child whatever becomes of the test.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tail_shows_what_is_stored_and_then_what_comes() {
    let home = Home::new();
    let url = home.up();
    post(&url, &prompt("s1", "before"));
    let mut follower = Follower(
        home.command(&["tail", "--session", "s1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().ends_with("UserPromptSubmit before"));
    post(&url, &prompt("s2", "another session"));
    post(
        &url,
        &json!({"session_id": "s1", "cwd": "/home/user/api", "hook_event_name": "PostToolUse", "tool_name": "Bash",
            "tool_input": {"command": "make"}, "tool_response": {"stdout": ""}, "tool_use_id": "t1", "duration_ms": 1500}),
    );
    let line = lines.next().unwrap();
    assert!(line.contains("PostToolUse Bash 1.5s") && line.contains("make"), "{line}");
    let stored = home.ok(&["tail", "--no-follow", "--json", "--since", "2"]);
    assert_eq!(stored.lines().count(), 2);
}

#[test]
fn export_writes_native_events_with_and_without_a_server() {
    let home = Home::new();
    let url = home.up();
    for n in 0..3 {
        post(&url, &prompt(&format!("s{n}"), "a \"quoted\", line"));
    }
    let running = home.ok(&["export", "events"]);
    assert_eq!(running.lines().count(), 3);
    let first: Value = serde_json::from_str(running.lines().next().unwrap()).unwrap();
    assert_eq!((&first["app"], &first["payload"]["prompt"]), (&json!("api"), &json!("a \"quoted\", line")));
    home.run(&["down"]);
    assert_eq!(home.ok(&["export", "events"]), running);
    assert_eq!(home.ok(&["export", "events", "--session", "s1"]).lines().count(), 1);
    let csv = home.ok(&["export", "events", "--format", "csv", "--no-payload"]);
    assert!(csv.starts_with("id,event_id,ts_ms,") && csv.contains("\"a \"\"quoted\"\", line\""), "{csv}");
}

#[test]
fn a_closed_pipe_ends_an_export_quietly() {
    let home = Home::new();
    let url = home.up();
    let long = "x".repeat(200_000);
    for n in 0..4 {
        post(&url, &prompt(&format!("s{n}"), &long));
    }
    let mut child =
        home.command(&["export", "events"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
}

#[test]
fn the_hook_is_told_apart_before_anything_else() {
    let home = Home::new();
    let mut child = home.command(&["hook"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(prompt("s1", "spooled").to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    home.up();
    let deadline = Instant::now() + Duration::from_secs(10);
    let events = loop {
        let events = home.events();
        if !events.is_empty() || Instant::now() > deadline {
            break events;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((events.len(), &events[0]["summary"]), (1, &json!("spooled")));
}

#[test]
fn version_token_and_description_are_data_on_stdout() {
    let home = Home::new();
    assert_eq!(home.ok(&["version"]), format!("taffrail {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(home.json(&["openapi"])["info"]["title"], "Taffrail");
    assert!(home.fails(&["token"]).contains("taffrail up"));
    home.up();
    assert!(home.ok(&["token"]).trim().len() >= 16);
}

#[test]
fn the_demo_fills_its_own_database_once() {
    let home = Home::new();
    let demo = ["demo", "--once", "--history", "2h", "--agents", "3", "--listen", "127.0.0.1:0"];
    assert!(home.ok(&demo).contains("/auth?code="));
    let at = home.path().join("demo");
    let events = || home.ok(&["export", "events", "--no-payload", "--data-dir", at.to_str().unwrap()]);
    let ids = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["event_id"].to_string()).collect()
    };
    let first = events();
    assert!(first.lines().count() > 200, "{} events", first.lines().count());
    home.ok(&demo);
    let second = events();
    // Time went on between the two; nothing of the first is there twice.
    assert_eq!(ids(&second).len(), second.lines().count());
    assert!(ids(&second).is_superset(&ids(&first)));
    home.run(&["down", "--data-dir", at.to_str().unwrap()]);
    assert!(!home.path().join("taffrail.db").exists());
}
