//! What was found: listed, judged, investigated.

use serde_json::{Value, json};
use taffrail_event::{RowId, TimestampMs};
use taffrail_store::{Finding, FindingSeverity, Options, Store};

use crate::harness::{Server, eventually};

const T0: i64 = 1_790_000_000_000;

fn found(key: &str, session: Option<&str>, at: i64, severity: FindingSeverity) -> Finding {
    Finding {
        key: key.to_owned(),
        detector: "retry_loop".to_owned(),
        severity,
        app: "harbour".to_owned(),
        user: None,
        session_id: session.map(str::to_owned),
        agent_id: None,
        agent_type: None,
        tool_name: Some("Bash".to_owned()),
        started: TimestampMs::clamped(at),
        last: TimestampMs::clamped(at + 60_000),
        ended: Some(TimestampMs::clamped(at + 60_000)),
        score: None,
        title: "`cargo test` failed 6 times".to_owned(),
        evidence: json!({"repeats": 6}),
        reasons: json!([]),
        calls: vec![RowId(7)],
        cost_nano_usd: Some(1_500_000_000),
        action: "pause".to_owned(),
        advice: "look at it".to_owned(),
        model_version: None,
    }
}

/// A server whose database has findings, and some calls of a session around them.
fn server(findings: Vec<Finding>) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Options::new(dir.path().join("taffrail.db"))).unwrap();
    store.record_findings(findings, TimestampMs::clamped(T0 + 70_000)).unwrap();
    store.close();
    let server = Server::start_in(dir.path());
    for n in 0..8i64 {
        let call = |event: &str, at: i64, rest: Value| {
            let mut body = json!({"hook_event_name": event, "session_id": "s1", "cwd": "/nonexistent/harbour", "tool_name": "Bash",
                "tool_use_id": format!("t{n}"), "tool_input": {"command": format!("cargo test -p part{n}")}});
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            let sent = server
                .request("POST", "/v1/hooks/claude-code")
                .header("x-taffrail-captured-ms", &at.to_string())
                .body(body.to_string())
                .send();
            assert_eq!(sent.status, 200);
        };
        let at = T0 + n * 8_000;
        call("PreToolUse", at, json!({}));
        if n % 4 == 0 {
            call("PostToolUseFailure", at + 500, json!({"error": "Exit code 101\nboom", "duration_ms": 500}));
        } else {
            call("PostToolUse", at + 500, json!({"tool_response": {"stdout": "ok"}, "duration_ms": 500}));
        }
    }
    (server, dir)
}

#[test]
fn findings_are_listed_filtered_and_paged() {
    let (server, _dir) = server(vec![
        found("a", Some("s1"), T0, FindingSeverity::Critical),
        found("b", None, T0 + 1, FindingSeverity::Info),
        found("c", Some("s2"), T0 + 2, FindingSeverity::Warning),
    ]);
    let titles = |query: &str| -> Vec<i64> {
        let page = server.get(&format!("/api/v1/anomalies?{query}")).json();
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["started_ms"].as_i64().unwrap() - T0)
            .collect()
    };
    assert_eq!(titles(""), [2, 1, 0]);
    assert_eq!(titles("severity=warning"), [2, 0]);
    assert_eq!(titles("session=s1"), [0]);
    assert_eq!(titles("detector=cost_spike"), Vec::<i64>::new());
    assert_eq!(titles("ongoing=true&state=open"), Vec::<i64>::new());
    let page = server.get("/api/v1/anomalies?limit=2").json();
    assert_eq!(titles(&format!("cursor={}", page["next_cursor"].as_str().unwrap())), [0]);
    for bad in ["severity=worse", "state=closed", "ongoing=yes", "limit=0", "from=now"] {
        let answer = server.get(&format!("/api/v1/anomalies?{bad}"));
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{bad}");
    }
    assert_eq!(server.request("GET", "/api/v1/anomalies").send().status, 401);
}

#[test]
fn a_person_judges_a_finding_and_the_verdict_stays() {
    let (server, dir) = server(vec![found("a", Some("s1"), T0, FindingSeverity::Warning)]);
    let id = server.get("/api/v1/anomalies").json()["items"][0]["id"].as_i64().unwrap();
    let post = |what: &str, body: &str| {
        server.request("POST", &format!("/api/v1/anomalies/{id}/{what}")).token().body(body).send()
    };
    let answer = post("dismiss", r#"{"by": "ann", "note": "a test"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(
        (&told["state"], &told["decided_by"], &told["note"]),
        (&json!("dismissed"), &json!("ann"), &json!("a test"))
    );
    assert_eq!(post("confirm", "").json()["state"], "confirmed");
    assert_eq!(post("confirm", "5").problem(), "bad_request");
    assert_eq!(post("dismiss", &json!({"note": "x".repeat(2_000)}).to_string()).status, 400);
    let unknown = server.request("POST", "/api/v1/anomalies/5/dismiss").token().send();
    assert_eq!(unknown.problem(), "not_found");
    server.stop();
    let server = Server::start_in(dir.path());
    assert_eq!(server.get(&format!("/api/v1/anomalies/{id}")).json()["state"], "confirmed");
}

#[test]
fn an_investigation_freezes_what_was_around_it() {
    let earlier = found("earlier", Some("s0"), T0 - 86_400_000, FindingSeverity::Warning);
    let (server, _dir) = server(vec![earlier, found("a", Some("s1"), T0, FindingSeverity::Warning)]);
    let id = server.get("/api/v1/anomalies?session=s1").json()["items"][0]["id"].as_i64().unwrap();
    let path = format!("/api/v1/anomalies/{id}");
    assert_eq!(server.get(&path).json()["bundle"], Value::Null);
    let answer = server.request("POST", &format!("{path}/investigate")).token().send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bundle = answer.json();
    assert_eq!((&bundle["during"]["calls"], &bundle["during"]["failed"]), (&json!(8), &json!(2)));
    assert_eq!((&bundle["before"]["calls"], &bundle["during"]["execution_ms_p50"]), (&json!(0), &json!(500)));
    assert_eq!(
        (&bundle["tools"][0]["name"], &bundle["tools"][0]["share_percent"]),
        (&json!("Bash"), &json!(100.0))
    );
    assert_eq!(bundle["timeline"].as_array().unwrap().len(), 8);
    let changed: Vec<&str> =
        bundle["changes"].as_array().unwrap().iter().map(|c| c["metric"].as_str().unwrap()).collect();
    assert!(changed.contains(&"failed") && !changed.contains(&"cost_usd"), "{changed:?}");
    assert_eq!(bundle["similar"].as_array().unwrap().len(), 1);
    assert_eq!(server.get(&path).json()["bundle"], bundle, "it is kept as it was");
    assert_eq!(server.get("/api/v1/anomalies?session=s1").json()["items"][0]["has_bundle"], true);
}

/// A command that fails in the same way again and again while it happens: found, stored, announced, listed.
#[test]
fn a_loop_is_found_while_it_goes_on() {
    let server = Server::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let hook = |event: &str, n: i64, at: i64, rest: Value| {
        let mut body = json!({"hook_event_name": event, "session_id": "s1", "cwd": "/nonexistent/harbour", "tool_name": "Bash",
            "tool_use_id": format!("t{n}"), "tool_input": {"command": "make deploy"}});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let sent = server
            .request("POST", "/v1/hooks/claude-code")
            .header("x-taffrail-captured-ms", &at.to_string())
            .body(body.to_string())
            .send();
        assert_eq!(sent.status, 200);
    };
    for n in 0..20 {
        let at = now - 100_000 + n * 5_000;
        hook("PreToolUse", n, at, json!({}));
        hook(
            "PostToolUseFailure",
            n,
            at + 900,
            json!({"error": "Exit code 2\nno rule to make target", "duration_ms": 900}),
        );
    }
    let find = || server.get("/api/v1/anomalies?detector=retry_loop").json()["items"][0].clone();
    eventually("the loop is found", || !find().is_null());
    let found = find();
    assert_eq!(
        (&found["session_id"], &found["app"], &found["ended_ms"]),
        (&json!("s1"), &json!("harbour"), &Value::Null)
    );
    assert!(found["calls"].as_array().is_some_and(|calls| !calls.is_empty()), "{found}");
    let call = found["calls"][0].as_i64().unwrap();
    assert_eq!(server.get(&format!("/api/v1/calls/{call}")).json()["summary"], "make deploy");
    let told = server.get("/api/v1/detectors").json();
    let retry = told["items"].as_array().unwrap().iter().find(|d| d["name"] == "retry_loop").unwrap().clone();
    assert_eq!((&retry["found"], &retry["precision_percent"]), (&json!(1), &Value::Null));
    assert_eq!(told["items"].as_array().unwrap().len(), 18);
}
