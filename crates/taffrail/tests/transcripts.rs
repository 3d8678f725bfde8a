//! `taffrail import transcripts` with the real binary, with and without a server.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;

use serde_json::{Value, json};
use support::{Home, stderr};

fn line(n: u32) -> String {
    json!({
        "type": "assistant", "uuid": format!("u{n}"), "sessionId": "s1", "cwd": "/nonexistent/api",
        "timestamp": format!("2026-03-01T00:00:{n:02}.000Z"), "requestId": format!("req_{n}"),
        "message": {
            "id": format!("msg_{n}"), "type": "message", "role": "assistant", "model": "claude-opus-4-5", "content": [],
            "stop_reason": "end_turn", "usage": {"input_tokens": n, "output_tokens": 2},
        },
    })
    .to_string()
        + "\n"
}

/// The client's folder that the tests' commands know.
fn transcript(home: &Home, lines: &[u32]) -> std::path::PathBuf {
    let folder = home.path().join("claude/projects/-api");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s1.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    lines.iter().for_each(|n| file.write_all(line(*n).as_bytes()).unwrap());
    path
}

#[track_caller]
fn check(totals: &Value, files: u64, unchanged: u64, new: u64) {
    let figures = ["files", "unchanged", "requests_new"].map(|name| totals[name].as_u64().unwrap());
    assert_eq!(figures, [files, unchanged, new], "{totals}");
}

#[test]
fn the_clients_own_folders_go_in_once_and_what_is_appended_later() {
    let home = Home::new();
    transcript(&home, &[1, 2]);
    let import = ["import", "transcripts", "--json"];
    let dry = home.json(&["import", "transcripts", "--json", "--dry-run"]);
    assert_eq!(
        (&dry["requests"], &dry["requests_new"], &dry["dry_run"]),
        (&json!(2), &json!(0), &json!(true))
    );
    check(&home.json(&import), 1, 0, 2);
    check(&home.json(&import), 1, 1, 0);
    transcript(&home, &[3]);
    let said = home.ok(&["import", "transcripts"]);
    assert_eq!(
        said,
        "1 file (0 unchanged): 1 records (0 bad, 0 of an unknown type), 1 new API requests, 0 changed, in 1 session\n"
    );
    assert!(!home.path().join("server.json").exists(), "no server was started for it");
}

#[test]
fn a_running_server_takes_the_import_and_knows_what_it_took() {
    let home = Home::new();
    fs::write(home.path().join("config.toml"), "[transcripts]\ntail = false\n").unwrap();
    home.up();
    let path = transcript(&home, &[1, 2]);
    check(&home.json(&["import", "transcripts", "--json"]), 1, 0, 2);
    check(&home.json(&["import", "transcripts", path.to_str().unwrap(), "--json"]), 1, 1, 0);
    home.ok(&["down"]);
    check(&home.json(&["import", "transcripts", "--json"]), 1, 1, 0);
}

#[test]
fn a_started_server_follows_by_itself() {
    let home = Home::new();
    transcript(&home, &[1]);
    home.up();
    for _ in 0..200 {
        let health = home.json(&["health", "--json"]);
        if health["data_ingestion"]["evidence"]["transcripts"]["caught_up"] == true {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    check(&home.json(&["import", "transcripts", "--json"]), 1, 1, 0);
}

#[test]
fn a_file_that_fails_is_named_and_the_exit_code_says_so() {
    let home = Home::new();
    let path = transcript(&home, &[1]);
    let output =
        home.run(&["import", "transcripts", path.to_str().unwrap(), "/nonexistent/x.jsonl", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("/nonexistent/x.jsonl") && said.contains("hint: "), "{said}");
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    check(&totals, 1, 0, 1);

    let empty = Home::new();
    assert!(empty.fails(&["import", "transcripts"]).contains("CLAUDE_CONFIG_DIR"));
}

#[test]
fn an_archive_is_made_when_asked_for() {
    let home = Home::new();
    transcript(&home, &[1]);
    assert_eq!(home.json(&["import", "transcripts", "--archive", "--json"])["archived"], 1);
    assert!(home.path().join("archive/transcripts/-api/s1.jsonl.gz").is_file());
    assert_eq!(home.json(&["import", "transcripts", "--archive", "--json"])["archived"], 0);
}
