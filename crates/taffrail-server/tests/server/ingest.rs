//! What goes in is stored, once, whatever it is; what cannot be is refused and says so.

use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{Server, prompt};

fn events(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/api/v1/events?{query}")).json();
    page["items"].as_array().unwrap().clone()
}

#[test]
fn a_hook_is_stored_and_answered_with_nothing_to_say() {
    let server = Server::start();
    let answer = server.hook(prompt("s1", "hello"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let stored = events(&server, "");
    assert_eq!(stored.len(), 1);
    assert_eq!((&stored[0]["type"], &stored[0]["source"]), (&json!("UserPromptSubmit"), &json!("hook")));
    assert_eq!(stored[0]["payload"]["prompt"], "hello");
}

#[test]
fn the_same_event_id_counts_once() {
    let server = Server::start();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for _ in 0..3 {
        let again = server.request("POST", "/v1/hooks/claude-code").header("x-taffrail-event-id", id);
        assert_eq!(again.body(prompt("s1", "hello")).send().status, 200);
    }
    let stored = events(&server, "");
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["event_id"], id);
    assert_eq!(server.figure("taffrail_ingest_events_total{source=\"hook\",outcome=\"duplicate\"}"), 2.0);
}

#[test]
fn headers_set_project_and_time_and_are_checked() {
    let server = Server::start();
    let answer = server
        .request("POST", "/v1/hooks/claude-code")
        .header("x-taffrail-app", "lighthouse")
        .header("x-taffrail-captured-ms", "1790000000123")
        .body(prompt("s1", "hello"))
        .send();
    assert_eq!(answer.status, 200);
    let stored = events(&server, "app=lighthouse");
    assert_eq!(stored[0]["ts_ms"], 1_790_000_000_123_i64);
    for (name, value) in [("x-taffrail-event-id", "no-uuid"), ("x-taffrail-captured-ms", "soon")] {
        let bad = server.request("POST", "/v1/hooks/claude-code").header(name, value).body("{}").send();
        assert_eq!((bad.status, bad.problem().as_str()), (400, "bad_request"), "{name}");
    }
}

#[test]
fn a_session_keeps_its_project_wherever_the_agent_goes_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let hook = |server: &Server, cwd: &str| {
        let body = json!({"session_id": "s", "hook_event_name": "Stop", "cwd": cwd});
        assert_eq!(server.hook(body.to_string()).status, 200);
    };
    let server = Server::start_in(dir.path());
    hook(&server, "/nonexistent/harbour");
    hook(&server, "/nonexistent/harbour/deep/below");
    server.stop();
    let server = Server::start_in(dir.path());
    hook(&server, "/elsewhere");
    assert_eq!(events(&server, "app=harbour").len(), 3);
}

#[test]
fn what_is_no_json_is_stored_as_what_it_is() {
    let server = Server::start();
    let deep = format!(
        "{{\"session_id\":\"s\",\"hook_event_name\":\"Stop\",\"x\":{}{}}}",
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    let bodies: [&[u8]; 7] = [
        b"not json",
        b"[1,2]",
        b"null",
        b"{\"a\":",
        b"\xff\xfe{\"session_id\":\"s\"}",
        b"{\"a\":\"\0\"}\0",
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = server.hook(body);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "{}"),
            "{:?}",
            String::from_utf8_lossy(body)
        );
    }
    let stored = events(&server, "");
    assert_eq!(stored.len(), bodies.len());
    assert!(
        stored.iter().all(|e| !e["issues"].as_array().unwrap().is_empty()),
        "each is marked: {stored:#?}"
    );
    let empty = server.hook("");
    assert_eq!((empty.status, empty.problem().as_str()), (400, "bad_request"));
}

#[test]
fn six_megabytes_go_in_whole() {
    let server = Server::start();
    let text = "word ".repeat(6 * 1024 * 1024 / 5);
    assert_eq!(server.hook(prompt("big", &text)).status, 200);
    let stored = events(&server, "session=big");
    assert_eq!(stored[0]["payload"]["prompt"].as_str().unwrap().len(), text.len());
}

#[test]
fn bodies_have_bounds() {
    let server = Server::start_with(|c| {
        c.limits.body_bytes = 100_000;
        c.limits.decompressed_bytes = 2 << 20;
    });
    let large = server.hook(vec![b'x'; 100_001]);
    assert_eq!((large.status, large.problem().as_str()), (413, "too_large"));
    let odd =
        server.request("POST", "/v1/hooks/claude-code").header("content-encoding", "br").body("x").send();
    assert_eq!((odd.status, odd.problem().as_str()), (415, "encoding"));

    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = |body: Vec<u8>| {
        server.request("POST", "/v1/hooks/claude-code").header("content-encoding", "gzip").body(body).send()
    };
    let bomb = send(gzip(&vec![b' '; 50 << 20]));
    assert_eq!((bomb.status, bomb.problem().as_str()), (413, "too_large"));
    let steep = send(gzip(&vec![b' '; (1 << 20) + 1]));
    assert_eq!((steep.status, steep.problem().as_str()), (413, "too_compressed"));
    assert_eq!(send(b"no gzip".to_vec()).status, 400);
    assert_eq!(server.stored(), 0);
    assert_eq!(send(gzip(prompt("s", "packed").as_bytes())).status, 200);
    assert_eq!(events(&server, "")[0]["payload"]["prompt"], "packed");
}

#[test]
fn secrets_do_not_reach_the_disk() {
    let server = Server::start();
    // Put together here, so that no scanner takes this file for a leak.
    let secret = format!("ghp_{}", "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8");
    assert_eq!(server.hook(prompt("s", &format!("use {secret} now"))).status, 200);
    let old = json!({"source_app": "a", "session_id": "s", "hook_event_type": "Notification", "payload": {"message": secret}});
    let echoed = server.post("/events", old.to_string());
    assert!(!echoed.text().contains(&secret));
    let stored = events(&server, "");
    assert!(stored.iter().all(|e| e["redactions"].as_i64().unwrap() > 0), "{stored:#?}");
    assert!(!Value::from(stored).to_string().contains(&secret));
}

#[test]
fn the_guard_answers_http_hooks() {
    let server = Server::start();
    let call = |command: &str| {
        json!({"session_id": "s", "hook_event_name": "PreToolUse", "tool_name": "Bash", "cwd": "/home/user/project",
            "tool_use_id": format!("toolu_{}", command.len()), "tool_input": {"command": command}})
        .to_string()
    };
    let denied = server.hook(call("rm -rf /"));
    assert_eq!(denied.status, 200);
    let said = denied.json();
    let said = &said["hookSpecificOutput"];
    assert_eq!((&said["hookEventName"], &said["permissionDecision"]), (&json!("PreToolUse"), &json!("deny")));
    assert!(said["permissionDecisionReason"].as_str().is_some_and(|r| !r.is_empty()));
    assert_eq!(server.hook(call("ls -la")).text(), "{}");
    let stored = events(&server, "type=PreToolUse");
    assert_eq!(stored.len(), 2, "a denied call is recorded like any other");
    let warned = stored.iter().filter(|e| e["warnings"].to_string().contains("guard.")).count();
    assert_eq!(warned, 1);
}

#[test]
fn a_burst_of_ten_thousand_is_stored_to_the_last() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for sender in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut stream = std::net::TcpStream::connect(server.addr).unwrap();
                stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
                for n in 0..1_250 {
                    keep_alive_hook(
                        &mut stream,
                        server,
                        &prompt(&format!("s{sender}"), &format!("number {n}")),
                    );
                }
            });
        }
    });
    assert_eq!(server.stored(), 10_000);
    assert_eq!(server.figure("taffrail_ingest_events_total{source=\"hook\",outcome=\"stored\"}"), 10_000.0);
}

/// One request on a connection that stays.
fn keep_alive_hook(stream: &mut std::net::TcpStream, server: &Server, body: &str) {
    let request = format!(
        "POST /v1/hooks/claude-code HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
        server.addr,
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut got = Vec::new();
    let mut chunk = [0; 4096];
    while !got.ends_with(b"\r\n\r\n{}") {
        let n = std::io::Read::read(stream, &mut chunk).unwrap();
        assert!(n > 0, "closed after {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&chunk[..n]);
    }
    assert!(got.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_full_queue_refuses_and_counts() {
    let server = Server::start_with(|c| c.limits.queue_events = 1);
    let refused = std::sync::atomic::AtomicU64::new(0);
    let stored = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for sender in 0..16 {
            let (server, refused, stored) = (&server, &refused, &stored);
            scope.spawn(move || {
                for n in 0..60 {
                    let answer = server.hook(prompt(&format!("s{sender}"), &format!("{n}")));
                    match answer.status {
                        200 => stored.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                        503 => {
                            assert_eq!(
                                (answer.problem().as_str(), answer.header("retry-after")),
                                ("queue_full", Some("1"))
                            );
                            refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                        }
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    let (refused, stored) = (refused.into_inner(), stored.into_inner());
    assert!(refused > 0, "sixteen senders fill a queue of one");
    assert_eq!(server.stored(), stored, "what was acknowledged is there, what was refused is not");
    #[allow(clippy::cast_precision_loss, reason = "small")]
    let counted = refused as f64;
    assert_eq!(
        server.figure("taffrail_ingest_events_total{source=\"hook\",outcome=\"queue_full\"}"),
        counted
    );
}

#[test]
fn a_batch_is_lines_or_an_array_and_counts_duplicates() {
    let server = Server::start();
    let item = |n: u32| {
        json!({"event_id": format!("01890a5d-ac96-774b-bcce-{n:012}"), "captured_ms": 1_790_000_000_000_i64 + i64::from(n),
        "app": "demo", "payload": {"session_id": "s", "hook_event_name": "Stop", "n": n}})
    };
    let lines: String = (0..2_500).map(|n| format!("{}\n", item(n))).collect();
    let batch = "/v1/hooks/claude-code/batch";
    let first = server.post(batch, lines.clone());
    assert_eq!((first.status, first.json()), (200, json!({"stored": 2_500, "duplicates": 0})));
    let streamed =
        server.request("POST", batch).header("content-type", "application/x-ndjson").body(lines).send();
    assert_eq!(streamed.json(), json!({"stored": 0, "duplicates": 2_500}));
    let array = Value::from(vec![item(1), item(9_999), json!({"payload": "not json"})]);
    assert_eq!(server.post(batch, array.to_string()).json(), json!({"stored": 2, "duplicates": 1}));
    assert_eq!(server.stored(), 2_502);
    let post = json!({"event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "post": {"source_app": "old", "session_id": "o",
        "hook_event_type": "Notification", "payload": {"message": "hi"}, "timestamp": 1_750_000_000_000_i64, "odd": 1}});
    assert_eq!(server.post(batch, post.to_string()).json(), json!({"stored": 1, "duplicates": 0}));
    assert_eq!(server.post(batch, post.to_string()).json(), json!({"stored": 0, "duplicates": 1}));
    assert_eq!(events(&server, "app=old")[0]["ts_ms"], 1_750_000_000_000_i64);
    assert_eq!(server.post(batch, r#"{"payload": null}"#).json(), json!({"stored": 1, "duplicates": 0}));
    for bad in ["{\"payload\":", "[{}]", "{\"post\":{}}", "{\"event_id\":\"x\",\"payload\":{}}"] {
        assert_eq!(server.post(batch, bad).status, 400, "{bad}");
    }
}
