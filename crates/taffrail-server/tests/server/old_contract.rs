//! Every route of the old server: statuses, bodies, order of fields.

use serde_json::{Value, json};

use crate::harness::Server;

fn post(server: &Server, body: &Value) -> crate::harness::Answer {
    server.post("/events", body.to_string())
}

fn event(session: &str) -> Value {
    json!({"source_app": "demo", "session_id": session, "hook_event_type": "UserPromptSubmit", "payload": {"prompt": "hi"}})
}

#[test]
fn an_event_comes_back_with_id_and_time_and_is_read_again() {
    let server = Server::start();
    let mut sent = event("s1");
    sent["timestamp"] = json!(1_790_000_000_123_i64);
    sent["odd_field"] = json!({"kept": [1, 2.5, null]});
    sent["chat"] = json!([{"role": "user"}]);
    sent["summary"] = json!("said hi");
    sent["model_name"] = json!("some-model");
    let answer = post(&server, &sent);
    assert_eq!(answer.status, 200, "{answer:?}");
    let stored = answer.json();
    let id = stored["id"].as_i64().unwrap();
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&stored[name], value, "{name}");
    }
    let names: Vec<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.last(), Some(&"id"), "a posted timestamp stays where it stood");

    let recent = server.get("/events/recent").json();
    assert_eq!(recent.as_array().unwrap().len(), 1);
    assert_eq!(recent[0]["id"], id);
    for (name, value) in sent.as_object().unwrap() {
        assert_eq!(&recent[0][name], value, "{name} survives a reload");
    }
    assert!(recent[0].get("humanInTheLoop").is_none(), "null columns are left out");
    let names: Vec<&str> = recent[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "id",
            "source_app",
            "session_id",
            "hook_event_type",
            "payload",
            "chat",
            "summary",
            "timestamp",
            "model_name",
            "odd_field"
        ]
    );
}

#[test]
fn without_a_timestamp_it_is_now() {
    let server = Server::start();
    let stored = post(&server, &event("s")).json();
    let names: Vec<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["source_app", "session_id", "hook_event_type", "payload", "id", "timestamp"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(now.abs_diff(u128::from(stored["timestamp"].as_u64().unwrap())) < 60_000);
}

#[test]
fn refusals_have_the_old_words() {
    let server = Server::start();
    let missing = json!({"error": "Missing required fields"});
    let invalid = json!({"error": "Invalid request"});
    for (body, expected) in [
        (json!({"source_app": "a"}).to_string(), &missing),
        (
            json!({"source_app": "a", "session_id": "s", "hook_event_type": "", "payload": {}}).to_string(),
            &missing,
        ),
        (
            json!({"source_app": "a", "session_id": "s", "hook_event_type": "X", "payload": null})
                .to_string(),
            &missing,
        ),
        ("[]".to_owned(), &missing),
        ("null".to_owned(), &invalid),
        ("{not json".to_owned(), &invalid),
        (String::new(), &invalid),
    ] {
        let answer = server.post("/events", body.clone());
        assert_eq!((answer.status, &answer.json()), (400, expected), "{body}");
    }
    assert_eq!(server.get("/events/recent").json(), json!([]));
}

#[test]
fn recent_is_the_newest_oldest_first() {
    let server = Server::start();
    for i in 0..5 {
        let mut e = event("s");
        e["timestamp"] = json!(1_790_000_000_000_i64 + i * 10);
        e["n"] = json!(i);
        assert_eq!(post(&server, &e).status, 200);
    }
    let order = |path: &str| -> Vec<i64> {
        let list = server.get(path).json();
        list.as_array().unwrap().iter().map(|e| e["n"].as_i64().unwrap()).collect()
    };
    assert_eq!(order("/events/recent"), [0, 1, 2, 3, 4]);
    assert_eq!(order("/events/recent?limit=2"), [3, 4]);
    assert_eq!(order("/events/recent?limit=nonsense"), [0, 1, 2, 3, 4]);
}

#[test]
fn filter_options_list_what_is_there() {
    let server = Server::start();
    for session in ["b", "c", "a"] {
        post(&server, &event(session));
    }
    let options = server.get("/events/filter-options").json();
    assert_eq!(
        options,
        json!({"source_apps": ["demo"], "session_ids": ["c", "b", "a"], "hook_event_types": ["UserPromptSubmit"]})
    );
}

#[test]
fn an_answer_is_stored_and_reaches_the_agent() {
    let server = Server::start();
    let (agent, heard) = crate::live::listen_as_agent();
    let mut asks = event("s");
    asks["humanInTheLoop"] =
        json!({"question": "Go on?", "responseWebSocketUrl": agent, "type": "permission"});
    let stored = post(&server, &asks).json();
    assert_eq!(stored["humanInTheLoopStatus"], json!({"status": "pending"}));

    let path = format!("/events/{}/respond", stored["id"]);
    let answer =
        server.request("POST", &path).token().body(r#"{"permission":true,"hookEvent":{"x":1}}"#).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let updated = answer.json();
    assert_eq!(updated["humanInTheLoopStatus"]["status"], "responded");
    assert_eq!(updated["humanInTheLoopStatus"]["response"]["permission"], true);
    let told: Value = serde_json::from_str(&heard.recv_timeout(crate::harness::PATIENCE).unwrap()).unwrap();
    assert_eq!(told["permission"], true);
    assert_eq!(told["respondedAt"], updated["humanInTheLoopStatus"]["respondedAt"]);
    assert_eq!(server.get("/events/recent").json()[0]["humanInTheLoopStatus"]["status"], "responded");

    let unknown = server.request("POST", "/events/1/respond").token().body("{}").send();
    assert_eq!((unknown.status, unknown.json()), (404, json!({"error": "Event not found"})));
    let bad = server.request("POST", &path).token().body("5").send();
    assert_eq!((bad.status, bad.json()), (400, json!({"error": "Invalid request"})));
}

#[test]
fn an_answer_never_leaves_this_machine() {
    let server = Server::start();
    let mut asks = event("s");
    asks["humanInTheLoop"] = json!({"question": "?", "responseWebSocketUrl": "ws://192.0.2.1:80/x"});
    let id = post(&server, &asks).json()["id"].clone();
    let began = std::time::Instant::now();
    let answer = server.request("POST", &format!("/events/{id}/respond")).token().body("{}").send();
    assert_eq!(answer.status, 200);
    assert!(began.elapsed().as_secs() < 3, "nothing was dialled");
}

#[test]
fn the_same_tool_event_twice_is_one() {
    let server = Server::start();
    let mut e = event("s");
    e["hook_event_type"] = json!("PreToolUse");
    e["payload"] = json!({"session_id": "s", "hook_event_name": "PreToolUse", "tool_name": "Read", "tool_use_id": "toolu_1",
        "tool_input": {"file_path": "/x"}});
    let first = post(&server, &e).json();
    let second = post(&server, &e);
    assert_eq!((second.status, &second.json()["id"]), (200, &first["id"]));
    assert_eq!(server.get("/events/recent").json().as_array().unwrap().len(), 1);
}

#[test]
fn a_question_about_a_call_is_not_taken_for_the_call() {
    let server = Server::start();
    let mut e = event("s");
    e["hook_event_type"] = json!("PreToolUse");
    e["payload"] = json!({"session_id": "s", "hook_event_name": "PreToolUse", "tool_name": "Bash", "tool_use_id": "toolu_1",
        "tool_input": {"command": "ls"}});
    let call = post(&server, &e).json();
    e["humanInTheLoop"] = json!({"question": "Go on?", "responseWebSocketUrl": "ws://localhost:9"});
    let question = post(&server, &e).json();
    assert_ne!(call["id"], question["id"]);
    assert_eq!(server.get("/events/recent").json()[1]["humanInTheLoopStatus"]["status"], "pending");
}

fn colors() -> Value {
    let names = [
        "primary",
        "primaryHover",
        "primaryLight",
        "primaryDark",
        "bgPrimary",
        "bgSecondary",
        "bgTertiary",
        "bgQuaternary",
        "textPrimary",
        "textSecondary",
        "textTertiary",
        "textQuaternary",
        "borderPrimary",
        "borderSecondary",
        "borderTertiary",
        "accentSuccess",
        "accentWarning",
        "accentError",
        "accentInfo",
        "shadow",
        "shadowLg",
        "hoverBg",
        "activeBg",
        "focusRing",
    ];
    names.iter().map(|n| ((*n).to_owned(), json!("#aabbcc"))).collect()
}

fn with_token(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = server.request(method, path).token().body(body).send();
    (answer.status, answer.json())
}

#[test]
fn themes_live_and_die_as_on_the_old_server() {
    let server = Server::start();
    let theme = json!({"name": "Night", "displayName": "Night", "colors": colors(), "isPublic": true, "authorId": "me", "tags": ["dark"]});
    let (status, created) = with_token(&server, "POST", "/api/themes", &theme);
    assert_eq!(
        (status, &created["success"], &created["message"]),
        (201, &json!(true), &json!("Theme created successfully"))
    );
    assert_eq!(created["data"]["name"], "night");
    let id = created["data"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/themes/{id}");

    let (status, again) = with_token(&server, "POST", "/api/themes", &theme);
    assert_eq!((status, &again["error"]), (400, &json!("Theme name already exists")));
    assert_eq!(again["validationErrors"][0]["code"], "DUPLICATE");

    let (status, got) = with_token(&server, "GET", &path, &Value::Null);
    assert_eq!((status, &got["data"]["downloadCount"], &got["data"]["rating"]), (200, &json!(0), &json!(0)));
    let (_, got) = with_token(&server, "GET", &path, &Value::Null);
    assert_eq!(got["data"]["downloadCount"], 1, "a public theme counts its downloads");

    let (status, changed) = with_token(
        &server,
        "PUT",
        &path,
        &json!({"name": "other", "displayName": "Noon", "colors": colors()}),
    );
    assert_eq!(
        (status, &changed["data"]["name"], &changed["data"]["displayName"]),
        (200, &json!("night"), &json!("Noon"))
    );
    let (status, bad) = with_token(&server, "PUT", &path, &json!({"displayName": "x"}));
    assert_eq!(
        (status, &bad["error"], bad["validationErrors"].as_array().unwrap().len()),
        (400, &json!("Validation failed"), 24)
    );
    let (status, none) = with_token(&server, "PUT", "/api/themes/none", &json!({}));
    assert_eq!((status, none), (400, json!({"success": false, "error": "Theme not found"})));

    let (status, stats) = with_token(&server, "GET", "/api/themes/stats", &Value::Null);
    assert_eq!(
        (status, &stats["data"]["totalThemes"], &stats["data"]["privateThemes"]),
        (200, &json!(1), &json!(1))
    );

    let export = server.get(&format!("{path}/export"));
    assert_eq!(export.header("content-disposition"), Some("attachment; filename=\"night.json\""));
    assert!(export.json()["theme"].get("id").is_none());
    let (status, imported) = with_token(&server, "POST", "/api/themes/import?authorId=you", &export.json());
    assert_eq!((status, &imported["error"]), (400, &json!("Theme name already exists")));

    let (status, denied) = with_token(&server, "DELETE", &format!("{path}?authorId=you"), &Value::Null);
    assert_eq!((status, &denied["success"]), (403, &json!(false)));
    let (status, gone) = with_token(&server, "DELETE", &format!("{path}?authorId=me"), &Value::Null);
    assert_eq!((status, gone), (200, json!({"success": true, "message": "Theme deleted successfully"})));
    let (status, gone) = with_token(&server, "DELETE", &path, &Value::Null);
    assert_eq!((status, gone), (404, json!({"success": false, "error": "Theme not found"})));

    let (status, imported) = with_token(&server, "POST", "/api/themes/import?authorId=you", &export.json());
    assert_eq!(
        (status, &imported["data"]["isPublic"], &imported["data"]["authorId"]),
        (201, &json!(false), &json!("you"))
    );
    let (_, public) = with_token(&server, "GET", "/api/themes", &Value::Null);
    assert_eq!(public["data"], json!([]), "private themes are their author's");
    let (_, own) = with_token(
        &server,
        "GET",
        "/api/themes?authorId=you&sortBy=name&sortOrder=asc&limit=5",
        &Value::Null,
    );
    assert_eq!(own["data"].as_array().unwrap().len(), 1);

    let (status, bad) = with_token(&server, "POST", "/api/themes", &json!({}));
    assert_eq!((status, bad["validationErrors"].as_array().unwrap().len()), (400, 26));
    let (status, bad) = with_token(&server, "POST", "/api/themes/import", &json!({}));
    assert_eq!((status, &bad["error"]), (400, &json!("Invalid import data - missing theme")));
    let (status, bad) = with_token(&server, "GET", "/api/themes/", &Value::Null);
    assert_eq!((status, bad), (400, json!({"success": false, "error": "Theme ID is required"})));
    let (status, none) = with_token(&server, "GET", "/api/themes/none/export", &Value::Null);
    assert_eq!((status, &none["error"]), (404, &json!("Theme not found")));
}
