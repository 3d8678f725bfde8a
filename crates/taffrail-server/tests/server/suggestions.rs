//! From hooks to a suggestion, to a changed file and back, to its effect.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::Server;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A command that a session ran, as hooks tell it.
fn run(server: &Server, cwd: &Path, session: &str, id: &str, at: i64, command: &str, fails: bool) {
    let send = |event: &str, at: i64, rest: Value| {
        let mut body = json!({"hook_event_name": event, "session_id": session, "cwd": cwd, "tool_name": "Bash",
            "tool_use_id": format!("{session}-{id}"), "tool_input": {"command": command}});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let sent = server
            .request("POST", "/v1/hooks/claude-code")
            .header("x-taffrail-captured-ms", &at.to_string())
            .body(body.to_string())
            .send();
        assert_eq!(sent.status, 200);
    };
    send("PreToolUse", at, json!({}));
    let (event, rest) = match fails {
        true => ("PostToolUseFailure", json!({"error": "Exit code 1\nno such script", "duration_ms": 900})),
        false => ("PostToolUse", json!({"tool_response": {"stdout": "ok"}, "duration_ms": 900})),
    };
    send(event, at + 900, rest);
}

/// Sessions in which a command fails and another one works.
fn fill(server: &Server, cwd: &Path, first: usize, begin: i64) {
    for session in first..first + 3 {
        let session = format!("session-{session}");
        for n in 0..20i64 {
            let (at, id) = (begin + n * 10_000, n.to_string());
            run(server, cwd, &session, &format!("a{id}"), at, "npm test", true);
            run(server, cwd, &session, &format!("b{id}"), at + 2_000, "npm run test:unit", false);
        }
    }
}

fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let answer = server.request("POST", path).token().body(body.to_string()).send();
    (answer.status, answer.json())
}

fn only(server: &Server, query: &str) -> Value {
    let page = server.get(&format!("/api/v1/suggestions?{query}")).json();
    let items = page["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 1, "{page}");
    items[0].clone()
}

#[test]
fn a_suggestion_is_found_shown_applied_measured_and_undone() {
    let server = Server::start();
    let project = tempfile::tempdir().unwrap();
    let notes = project.path().join("CLAUDE.md");
    fs::write(&notes, "# Harbour\r\n").unwrap();
    fill(&server, project.path(), 0, now_ms() - HOUR_MS);
    let (status, computed) = post(&server, "/api/v1/suggestions/refresh", &json!({}));
    assert_eq!(
        (status, computed["found"].as_i64(), &computed["error"]),
        (200, Some(1), &Value::Null),
        "{computed}"
    );
    let item = only(&server, "state=open&kind=failing_command");
    assert_eq!(item["title"], "`npm test` failed all 60 times");
    assert_eq!(item["evidence"]["figures"][0], json!({"name": "failures", "value": 60.0, "unit": "count"}));
    assert_eq!(item["saving"]["seconds_per_week"], 54.0);
    assert_eq!(item["saving"]["usd_per_week"], Value::Null, "no request is known");
    assert_eq!(
        (item["sessions"].as_array().unwrap().len(), item["calls"].as_array().unwrap().len()),
        (3, 20)
    );
    assert_eq!(server.get("/api/v1/suggestions?state=applied").json()["items"], json!([]));

    let path = format!("/api/v1/suggestions/{}", item["id"]);
    let (_, shown) = post(&server, &format!("{path}/preview"), &json!({}));
    assert_eq!(shown["can_apply"], true, "{shown}");
    assert!(
        shown["diff"]
            .as_str()
            .unwrap()
            .contains("+`npm test` fails in this project; `npm run test:unit` works.")
    );
    assert_eq!(post(&server, &format!("{path}/apply"), &json!({})).0, 400);
    assert_eq!(post(&server, &format!("{path}/apply"), &json!({"hash": "x"})).0, 400);
    assert_eq!(fs::read_to_string(&notes).unwrap(), "# Harbour\r\n");
    let (status, applied) =
        post(&server, &format!("{path}/apply"), &json!({"hash": shown["hash"], "by": "ann"}));
    assert_eq!(
        (status, &applied["state"], &applied["decided_by"]),
        (200, &json!("applied"), &json!("ann")),
        "{applied}"
    );
    let text = fs::read_to_string(&notes).unwrap();
    assert!(
        text.starts_with("# Harbour\r\n\r\n<!-- taffrail:failing_command-") && text.ends_with(" -->\r\n"),
        "{text}"
    );

    post(&server, "/api/v1/suggestions/refresh", &json!({}));
    let effect = server.get(&path).json()["effect"].clone();
    assert_eq!((&effect["state"], &effect["metric"]), (&json!("too_early"), &json!("failures")), "{effect}");

    let (status, undone) = post(&server, &format!("{path}/undo"), &json!({}));
    assert_eq!((status, &undone["state"]), (200, &json!("undone")));
    assert_eq!(fs::read_to_string(&notes).unwrap(), "# Harbour\r\n");
    assert_eq!(post(&server, &format!("{path}/dismiss"), &json!({})).1["state"], "dismissed");
    post(&server, "/api/v1/suggestions/refresh", &json!({}));
    assert_eq!(only(&server, "")["state"], "dismissed", "it stays dismissed when it is found again");
}

#[test]
fn the_effect_is_the_same_figure_before_and_after() {
    use taffrail_event::TimestampMs;
    use taffrail_store::{Options, Store, Suggestion, SuggestionFilter, SuggestionMove, SuggestionState};

    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("harbour");
    fs::create_dir(&project).unwrap();
    let applied_at = now_ms() - 24 * HOUR_MS;
    let server = Server::start_in(dir.path());
    fill(&server, &project, 0, applied_at - HOUR_MS);
    // Older than a day before it: not of the same length of time.
    fill(&server, &project, 9, applied_at - 30 * HOUR_MS);
    for session in 20..23 {
        for n in 0..20i64 {
            let at = applied_at + HOUR_MS + n * 10_000;
            run(
                &server,
                &project,
                &format!("session-{session}"),
                &n.to_string(),
                at,
                "npm run test:unit",
                false,
            );
        }
    }
    run(&server, &project, "session-22", "late", applied_at + 2 * HOUR_MS, "npm test", true);
    let app = server.get("/api/v1/sessions?limit=1").json()["items"][0]["app"].as_str().unwrap().to_owned();
    server.stop();
    let store = Store::open(&Options::new(dir.path().join("taffrail.db"))).unwrap();
    let row = Suggestion {
        kind: "failing_command".to_owned(),
        app,
        subject: "npm test".to_owned(),
        ..Suggestion::default()
    };
    store.record_suggestions(vec![row], TimestampMs::clamped(applied_at)).unwrap();
    let id = store.reader().unwrap().suggestions(&SuggestionFilter::default(), None, 1).unwrap().rows[0].id;
    let change = json!({"file": "/f", "before_sha256": null, "after_sha256": "", "backup": null, "applied_ms": applied_at});
    let decision = SuggestionMove {
        from: vec![SuggestionState::Open],
        to: SuggestionState::Applied,
        by: None,
        change: Some(change),
    };
    assert!(store.move_suggestion(id, decision, TimestampMs::clamped(applied_at)).unwrap());
    store.close();
    let server = Server::start_in(dir.path());
    post(&server, "/api/v1/suggestions/refresh", &json!({}));
    let effect = server.get(&format!("/api/v1/suggestions/{}", id.0)).json()["effect"].clone();
    assert_eq!(effect["state"], "measured", "{effect}");
    let side = |name: &str| {
        [&effect[name]["hits"], &effect[name]["chances"], &effect[name]["sessions"]].map(Value::as_i64)
    };
    assert_eq!(side("before"), [Some(60), Some(120), Some(3)]);
    assert_eq!(side("after"), [Some(1), Some(61), Some(3)]);
    assert!(effect["change_percent"].as_f64().unwrap() < -90.0, "{effect}");
    assert_eq!(effect["is_final"], false);
}

#[test]
fn it_needs_the_token_and_says_what_is_wrong() {
    let server = Server::start();
    assert_eq!(server.request("GET", "/api/v1/suggestions").send().status, 401);
    for verb in ["preview", "apply", "undo", "dismiss"] {
        let path = format!("/api/v1/suggestions/7/{verb}");
        assert_eq!(server.request("POST", &path).body("{}").send().status, 401);
        assert_eq!(post(&server, &path, &json!({"hash": "x"})).0, 404);
        assert_eq!(post(&server, &path.replace('7', "x"), &json!({})).0, 404);
    }
    assert_eq!(server.request("POST", "/api/v1/suggestions/refresh").body("{}").send().status, 401);
    for query in ["state=lost", "kind=lost", "limit=0", "cursor=x"] {
        assert_eq!(server.get(&format!("/api/v1/suggestions?{query}")).status, 400, "{query}");
    }
}
