//! The native API over one small session.

use serde_json::{Value, json};

use crate::harness::Server;

const T0: i64 = 1_790_000_000_000;

/// A session: start, prompt, a Read that succeeds, a Bash that fails, stop, end.
fn session(server: &Server, id: &str) {
    let hook = |offset: i64, mut body: Value| {
        body["session_id"] = json!(id);
        body["cwd"] = json!("/nonexistent/harbour");
        let answer = server
            .request("POST", "/v1/hooks/claude-code")
            .header("x-taffrail-captured-ms", &(T0 + offset).to_string())
            .body(body.to_string())
            .send();
        assert_eq!(answer.status, 200);
    };
    hook(0, json!({"hook_event_name": "SessionStart", "source": "startup"}));
    hook(10, json!({"hook_event_name": "UserPromptSubmit", "prompt": "fix the light"}));
    let read = json!({"file_path": "/x/lamp.rs"});
    hook(
        20,
        json!({"hook_event_name": "PreToolUse", "tool_name": "Read", "tool_use_id": "t1", "tool_input": read}),
    );
    hook(
        50,
        json!({"hook_event_name": "PostToolUse", "tool_name": "Read", "tool_use_id": "t1", "tool_input": read,
        "tool_response": {"type": "text", "file": {"filePath": "/x/lamp.rs", "content": "x", "numLines": 1}}, "duration_ms": 29}),
    );
    let bash = json!({"command": "cargo test"});
    hook(
        60,
        json!({"hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_use_id": "t2", "tool_input": bash}),
    );
    hook(
        90,
        json!({"hook_event_name": "PostToolUseFailure", "tool_name": "Bash", "tool_use_id": "t2", "tool_input": bash,
        "error": "Exit code 101\nboom", "duration_ms": 30}),
    );
    hook(95, json!({"hook_event_name": "Stop"}));
    hook(99, json!({"hook_event_name": "SessionEnd", "reason": "other"}));
}

#[test]
fn events_page_by_cursor_and_filter() {
    let server = Server::start();
    session(&server, "s1");
    session(&server, "s2");
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/api/v1/events?limit=5&payload=false&cursor={cursor}")).json();
        let items = page["items"].as_array().unwrap().clone();
        assert!(items.iter().all(|e| e.get("payload").is_none()));
        seen.extend(items.iter().map(|e| e["id"].as_i64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen.len(), 16);
    assert!(seen.windows(2).all(|w| w[0] > w[1]), "newest first, each once");

    let count = |query: &str| {
        server.get(&format!("/api/v1/events?{query}")).json()["items"].as_array().unwrap().len()
    };
    assert_eq!(count("session=s1"), 8);
    assert_eq!(count("type=PreToolUse"), 4);
    assert_eq!(count("tool=Bash&session=s1"), 2);
    assert_eq!(count("q=lamp&session=s1"), 2);
    assert_eq!(count("agent="), 16);
    assert_eq!(count(&format!("from={}&to={}", T0 + 60, T0 + 95)), 4);
    assert_eq!(count("app=harbour"), 16);
    assert_eq!(count("app=nowhere"), 0);
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=x", "from=yesterday", "payload=maybe"] {
        let answer = server.get(&format!("/api/v1/events?{bad}"));
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{bad}");
    }
    for missing in [
        "/api/v1/events/1",
        "/api/v1/events/x",
        "/api/v1/calls/1",
        "/api/v1/sessions/none",
        "/api/v1/sessions/none/timeline",
        "/api/v1/sessions/none/agents",
    ] {
        assert_eq!(
            (server.get(missing).status, server.get(missing).problem().as_str()),
            (404, "not_found"),
            "{missing}"
        );
    }
}

#[test]
fn a_session_its_calls_and_its_timeline() {
    let server = Server::start();
    session(&server, "s1");
    let one = server.get("/api/v1/sessions/s1").json();
    assert_eq!(
        (&one["state"], &one["events"], &one["calls"], &one["failed_calls"]),
        (&json!("ended"), &json!(8), &json!(2), &json!(1))
    );
    assert_eq!((&one["last_prompt"], &one["end_reason"]), (&json!("fix the light"), &json!("other")));
    let list = server.get("/api/v1/sessions").json();
    assert_eq!((&list["items"][0], &list["next_cursor"]), (&one, &Value::Null));

    let calls = server.get("/api/v1/calls?session=s1").json();
    let calls = calls["items"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    let failed = calls.iter().find(|c| c["tool_name"] == "Bash").unwrap();
    assert_eq!((&failed["status"], &failed["duration_ms"]), (&json!("failed"), &json!(30)));
    assert_eq!(&server.get(&format!("/api/v1/calls/{}", failed["id"])).json(), failed);
    assert_eq!(server.get("/api/v1/calls?status=failed").json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/api/v1/calls?status=odd").status, 400);

    let timeline = server.get("/api/v1/sessions/s1/timeline").json();
    assert_eq!(timeline["session"], one);
    assert_eq!(timeline["calls"].as_array().unwrap().len(), 2);
    let marks: Vec<&str> =
        timeline["marks"].as_array().unwrap().iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(marks, ["SessionStart", "UserPromptSubmit", "Stop", "SessionEnd"]);
    let agents = server.get("/api/v1/sessions/s1/agents").json();
    assert_eq!(
        (agents["items"].as_array().unwrap().len(), &agents["items"][0]["agent_id"]),
        (1, &Value::Null)
    );
}

#[test]
fn a_summary_has_every_section_and_windows_are_checked() {
    let server = Server::start();
    // Now, so that it lies in every window.
    for (kind, extra) in
        [("PreToolUse", json!({})), ("PostToolUse", json!({"tool_response": {}, "duration_ms": 40}))]
    {
        let mut body = json!({"session_id": "s", "hook_event_name": kind, "tool_name": "Glob", "tool_use_id": "t", "tool_input": {"pattern": "*"}});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(server.hook(body.to_string()).status, 200);
    }
    for window in ["1m", "5m", "15m", "1h", "6h", "24h", "7d", "30d"] {
        let summary = server.get(&format!("/api/v1/summary?window={window}")).json();
        assert_eq!((&summary["window"]["name"], &summary["window"]["events"]), (&json!(window), &json!(2)));
        assert_eq!(summary["performance"]["calls"], 1, "{window}");
        assert_eq!(summary["performance"]["history"].as_array().unwrap().len(), 30, "{window}");
        let p50 = summary["performance"]["execution_ms"]["p50"].as_f64().unwrap();
        assert!((p50 - 40.0).abs() <= 0.4, "{window}: {p50}");
        assert_eq!((&summary["errors"]["status"], &summary["tokens"]), (&json!("healthy"), &Value::Null));
    }
    assert_eq!(server.get("/api/v1/summary?session=none").json()["window"]["events"], 0);
    let bad = server.get("/api/v1/summary?window=2h");
    assert_eq!((bad.status, bad.problem().as_str()), (400, "bad_request"));
    let filters = server.get("/api/v1/filters").json();
    assert_eq!(filters["tools"], json!([{"value": "Glob", "count": 2}]));
    assert_eq!(filters["sessions"][0]["session_id"], "s");
}

#[test]
fn health_gives_evidence_and_says_what_it_does_not_do() {
    let server = Server::start();
    let alive = server.request("GET", "/health").send().json();
    assert_eq!((&alive["status"], &alive["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))));
    let health = server.get("/api/v1/health").json();
    for check in ["data_ingestion", "processing", "storage", "analytics"] {
        assert!(
            ["ok", "degraded"].contains(&health[check]["status"].as_str().unwrap()),
            "{check}: {health:#}"
        );
        assert!(!health[check]["evidence"].as_object().unwrap().is_empty(), "{check}");
    }
    assert_eq!(health["alerts"]["status"], "not_configured");
    assert_eq!(server.hook("{}").status, 200);
    assert_eq!(server.request("GET", "/metrics").send().status, 401);
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = metrics.text();
    for name in [
        "taffrail_ingest_events",
        "taffrail_queue_events",
        "taffrail_ingest_commit_seconds",
        "taffrail_spool_frames",
        "taffrail_live_clients",
        "taffrail_db_bytes",
        "taffrail_http_requests",
        "taffrail_http_refused",
    ] {
        assert!(text.contains(name), "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_description_names_every_route() {
    let server = Server::start();
    let api = server.get("/openapi.json").json();
    let paths = api["paths"].as_object().unwrap();
    for path in [
        "/events",
        "/events/recent",
        "/events/filter-options",
        "/events/{id}/respond",
        "/api/themes",
        "/api/themes/{id}",
        "/api/themes/{id}/export",
        "/api/themes/import",
        "/api/themes/stats",
        "/stream",
        "/v1/hooks/claude-code",
        "/v1/hooks/claude-code/batch",
        "/api/v1/events",
        "/api/v1/events/{id}",
        "/api/v1/sessions",
        "/api/v1/sessions/{id}",
        "/api/v1/sessions/{id}/timeline",
        "/api/v1/sessions/{id}/agents",
        "/api/v1/calls",
        "/api/v1/calls/{id}",
        "/api/v1/summary",
        "/api/v1/filters",
        "/api/v1/health",
        "/health",
        "/ready",
        "/metrics",
        "/api/v1/auth/link",
        "/api/v1/auth/session",
        "/api/v1/auth/login",
        "/api/v1/auth/logout",
        "/auth",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for schema in
        ["EventJson", "CallJson", "SessionJson", "SummaryJson", "FiltersJson", "FrameJson", "ProblemJson"]
    {
        assert!(api["components"]["schemas"].get(schema).is_some(), "{schema}");
    }
    assert_eq!(serde_json::to_value(taffrail_server::openapi()).unwrap(), api);
}
