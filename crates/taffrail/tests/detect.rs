//! `taffrail detect` over recordings: small ones made here, the captures of the real client, and every open transcript and
//! payload. What fires on the last is the table of `docs/DETECTORS.md`, pinned here.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Home, stderr};

/// The folder of real recordings, which is not part of the repository. Says loudly when it is absent.
fn shared_dir() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let dir = std::env::var_os("TAFFRAIL_SHARED").map(PathBuf::from).unwrap_or_else(beside);
    if dir.join("data/claude-transcripts").is_dir() {
        return Some(dir);
    }
    eprintln!("!!! NOT TESTED: no real recordings in {}; set TAFFRAIL_SHARED", dir.display());
    None
}

/// `detector session second` of everything that fired, and the totals.
fn fired(home: &Home, arguments: &[&str]) -> (Vec<String>, Value) {
    let mut line = vec!["detect", "--json"];
    line.extend_from_slice(arguments);
    let answer = home.json(&line);
    let items = answer["items"].as_array().unwrap().iter().map(|item| {
        let fired = &item["fired"];
        let session: String = fired["scope"]["session_id"].as_str().unwrap().chars().take(8).collect();
        format!(
            "{} {session} {}",
            fired["detector"].as_str().unwrap(),
            fired["at_ms"].as_i64().unwrap() / 1_000
        )
    });
    (items.collect(), answer["totals"].clone())
}

fn write(home: &Home, name: &str, text: &str) {
    std::fs::create_dir_all(home.path().join(name).parent().unwrap()).unwrap();
    home.write(name, text);
}

/// A transcript of an agent that runs the same failing command, so many times.
fn looping(times: usize) -> String {
    let mut text = String::new();
    for n in 0..times {
        let at = |second: usize| format!("2026-03-01T10:{n:02}:{second:02}.000Z");
        let line = |kind: &str, at: String, message: Value, extra: Value| {
            let mut line = json!({"type": kind, "sessionId": "loop", "cwd": "/w/shop", "uuid": at, "timestamp": at, "message": message});
            line.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            format!("{line}\n")
        };
        let id = format!("toolu_{n}");
        let usage = json!({"input_tokens": 1_000_000, "output_tokens": 1_000, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0});
        let call = json!({"id": format!("msg_{n}"), "model": "claude-opus-4-6", "usage": usage, "stop_reason": "tool_use",
            "content": [{"type": "tool_use", "id": id, "name": "Bash", "input": {"command": "npm install"}}]});
        text.push_str(&line("assistant", at(0), call, json!({"requestId": format!("req_{n}")})));
        let result = json!({"content": [{"type": "tool_result", "tool_use_id": id, "is_error": true, "content": "Exit code 1\nno registry"}]});
        text.push_str(&line("user", at(5), result, json!({})));
    }
    text
}

#[test]
fn a_recorded_loop_is_found_with_its_time_its_cost_and_what_it_would_have_saved() {
    let home = Home::new();
    write(&home, "t/loop.jsonl", &looping(10));
    let path = home.path().join("t").display().to_string();
    let answer = home.json(&["detect", "--json", "--transcripts", &path]);
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{answer}");
    let (first, last) = (&items[0]["fired"], &items[0]["last"]);
    assert_eq!((&first["detector"], &first["scope"]["app"]), (&json!("retry_loop"), &json!("shop")));
    assert_eq!(first["at_ms"], 1_772_359_325_000_i64, "at the end of the third attempt");
    assert_eq!((first["cost"]["requests"].as_u64(), last["cost"]["requests"].as_u64()), (Some(2), Some(9)));
    let saved = items[0]["saved_nano_usd"].as_i64().unwrap();
    let each = first["cost"]["nano_usd"].as_i64().unwrap() / 2;
    assert_eq!(saved, 7 * each, "the seven requests after it had fired");
    assert_eq!(answer["totals"]["saved_nano_usd"], saved);
    let table = home.ok(&["detect", "--timezone", "UTC", "--transcripts", &path]);
    assert!(
        table.contains("2026-03-01 10:02:05")
            && table.contains("retry_loop")
            && table.contains("npm install"),
        "{table}"
    );
}

#[test]
fn thresholds_spans_and_detectors_can_be_chosen() {
    let home = Home::new();
    write(&home, "t/loop.jsonl", &looping(4));
    home.write("high.toml", "[detectors.retry_loop]\nfailures = 5\n");
    home.write("bad.toml", "[detectors.retry_loop]\nfailures = 0\n");
    let path = home.path().join("t").display().to_string();
    let file = |name: &str| home.path().join(name).display().to_string();
    let count = |arguments: &[&str]| {
        let mut line = vec!["--transcripts", path.as_str()];
        line.extend_from_slice(arguments);
        fired(&home, &line).0.len()
    };
    assert_eq!(count(&[]), 1);
    assert_eq!(count(&["--config", &file("high.toml")]), 0);
    assert_eq!(count(&["--detector", "cycle_loop,error_burst"]), 0);
    assert_eq!(count(&["--since", "2026-03-02", "--timezone", "UTC"]), 0);
    assert_eq!(count(&["--since", "2026-03-01", "--until", "2026-03-01", "--timezone", "UTC"]), 1);
    assert!(
        home.fails(&["detect", "--transcripts", &path, "--config", &file("bad.toml")]).contains("2 to 1000")
    );
    assert!(home.fails(&["detect", "--transcripts", &path, "--detector", "x"]).contains("retry_loop"));
}

#[test]
fn the_database_is_replayed_as_its_transcripts_are() {
    let home = Home::new();
    write(&home, "t/loop.jsonl", &looping(4));
    let path = home.path().join("t").display().to_string();
    home.ok(&["import", "transcripts", &path]);
    // The ledger is there; the calls of transcripts are not taken in by an import yet, so nothing loops.
    let (_, totals) = fired(&home, &["--since", "2026-03-01"]);
    assert_eq!((&totals["sessions"], &totals["requests"]), (&json!(1), &json!(4)));
    let hooks: String = (0..4)
        .map(|n| {
            let body = |name: &str, extra: &str| {
                format!(
                    "{{\"t\":{}.0,\"body\":{{\"session_id\":\"hooked\",\"cwd\":\"/w/shop\",\"hook_event_name\":\"{name}\",\
                     \"tool_name\":\"Bash\",\"tool_use_id\":\"t{n}\",\"tool_input\":{{\"command\":\"npm install\"}}{extra}}}}}\n",
                    1_772_359_200 + 60 * n
                )
            };
            body("PreToolUse", "") + &body("PostToolUseFailure", ",\"error\":\"Exit code 1\\nno registry\"")
        })
        .collect();
    write(&home, "h/hooks.jsonl", &hooks);
    let file = home.path().join("h/hooks.jsonl").display().to_string();
    let (by_files, _) = fired(&home, &["--hooks", &file]);
    assert_eq!(by_files.len(), 1);
    home.ok(&["import", "hooks", &file]);
    home.ok(&["down"]);
    let (by_database, _) = fired(&home, &["--since", "2026-03-01"]);
    assert_eq!(by_database, by_files);
}

#[test]
fn nothing_is_there_to_replay() {
    let home = Home::new();
    assert!(home.fails(&["detect"]).contains("nothing is recorded"));
    let output = home.run(&["detect", "--transcripts", "/nowhere"]);
    assert!(!output.status.success() && stderr(&output).contains("hint:"));
}

#[test]
fn the_captures_of_the_real_client_are_healthy_but_for_the_overload() {
    let home = Home::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/captures");
    let (found, totals) = fired(&home, &["--transcripts", &dir.display().to_string()]);
    assert_eq!(found, ["api_degraded  1795333572"]);
    assert_eq!(totals["silent_sessions"], totals["sessions"], "it is nobody's session");
    for entry in std::fs::read_dir(dir).unwrap() {
        let hooks = entry.unwrap().path().join("hooks.jsonl");
        if hooks.exists() {
            assert_eq!(
                fired(&home, &["--hooks", &hooks.display().to_string()]).0,
                [""; 0],
                "{}",
                hooks.display()
            );
        }
    }
}

/// What fires on the open transcripts; each is labelled in `docs/DETECTORS.md`.
const TABLE: &[&str] = &[
    "api_degraded  1768387638",
    "permission_stall 48f428f9 1769050719",
    "permission_stall 48f428f9 1769051982",
    "api_degraded  1772037378",
];

#[test]
fn what_fires_on_every_open_transcript_and_payload_is_the_table() {
    let Some(shared) = shared_dir() else { return };
    let home = Home::new();
    let (found, totals) =
        fired(&home, &["--transcripts", &shared.join("data/claude-transcripts").display().to_string()]);
    assert_eq!(found, TABLE);
    let of = |name: &str| totals[name].as_u64().unwrap();
    assert_eq!((of("sessions"), of("silent_sessions")), (93, 92));
    assert!(of("calls") >= 2_500 && of("requests") >= 2_400, "{totals}");
    let (found, totals) =
        fired(&home, &["--hooks", &shared.join("data/hook-payloads").display().to_string()]);
    assert_eq!(found, [""; 0]);
    assert_eq!((totals["sessions"].as_u64(), totals["calls"].as_u64()), (Some(109), Some(1_982)));
}
