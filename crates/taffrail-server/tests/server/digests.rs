//! What the digests of sessions tell by API: a session of known calls, and what it must come to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server};

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// One session that is told by hooks, in a directory.
struct Session<'s> {
    server: &'s Server,
    id: &'s str,
    cwd: String,
    at_ms: i64,
    calls: usize,
}

impl<'s> Session<'s> {
    fn new(server: &'s Server, id: &'s str, cwd: &Path) -> Self {
        // Some minutes ago, so that every window from an hour on has it.
        Self { server, id, cwd: cwd.display().to_string(), at_ms: now_ms() - 300_000, calls: 0 }
    }

    fn hook(&mut self, after_ms: i64, mut body: Value) {
        self.at_ms += after_ms;
        body["session_id"] = json!(self.id);
        body["cwd"] = json!(self.cwd);
        let answer = self
            .server
            .request("POST", "/v1/hooks/claude-code")
            .header("x-taffrail-captured-ms", &self.at_ms.to_string())
            .body(body.to_string())
            .send();
        assert_eq!(answer.status, 200);
    }

    /// A call that takes `ms`; a failure where the outcome is text.
    fn call(&mut self, tool: &str, input: &Value, outcome: Value, ms: i64) {
        self.calls += 1;
        let id = format!("{}-{}", self.id, self.calls);
        let mut body = json!({"hook_event_name": "PreToolUse", "tool_name": tool, "tool_use_id": id, "tool_input": input});
        self.hook(100, body.clone());
        match outcome {
            Value::String(error) => {
                body["hook_event_name"] = json!("PostToolUseFailure");
                body["error"] = json!(error);
            }
            response => {
                body["hook_event_name"] = json!("PostToolUse");
                body["tool_response"] = response;
            }
        }
        body["duration_ms"] = json!(ms);
        self.hook(ms, body);
    }

    fn bash(&mut self, command: &str, outcome: Value, ms: i64) {
        self.call("Bash", &json!({"command": command}), outcome, ms);
    }
}

fn stdout(text: &str) -> Value {
    json!({"stdout": text, "stderr": "", "interrupted": false, "isImage": false})
}

/// Start, two reads of one file, tests that fail, an edit, tests that pass, a commit.
fn work(server: &Server, id: &str, cwd: &Path) {
    let mut session = Session::new(server, id, cwd);
    let lamp = cwd.join("lamp.rs").display().to_string();
    session.hook(0, json!({"hook_event_name": "SessionStart", "source": "startup"}));
    session.hook(10, json!({"hook_event_name": "UserPromptSubmit", "prompt": "fix the light"}));
    for _ in 0..2 {
        let file = json!({"type": "text", "file": {"filePath": lamp, "content": "x", "numLines": 1}});
        session.call("Read", &json!({"file_path": lamp}), file, 20);
    }
    session.bash("cargo test", json!("Exit code 101\ntest light ... FAILED"), 500);
    let patch =
        json!([{"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 2, "lines": ["-x", "+y", "+z"]}]);
    session.call(
        "Edit",
        &json!({"file_path": lamp, "old_string": "x", "new_string": "y\nz"}),
        json!({"filePath": lamp, "oldString": "x", "newString": "y\nz", "structuredPatch": patch}),
        30,
    );
    session.bash("cargo test", stdout("test result: ok. 1 passed"), 700);
    session.bash(
        "git commit -qam 'fix the light' && git status",
        stdout("[trunk 1a2b3c4] fix the light\n 1 file changed, 2 insertions(+), 1 deletion(-)\n"),
        40,
    );
    session.hook(5, json!({"hook_event_name": "Stop"}));
}

/// Waits until every session is digested.
fn settled(server: &Server) {
    let began = Instant::now();
    loop {
        let answer = server.get("/api/v1/errors?window=1h").json();
        if answer["freshness"]["pending_sessions"] == 0 {
            let as_of = answer["freshness"]["as_of_ms"].as_i64().unwrap();
            assert!((now_ms() - as_of).abs() < 60_000, "nothing waits: as fresh as now");
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not digested: {answer}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let status = Command::new("git")
            .arg("-C")
            .arg(dir.path())
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "git {args:?}");
    };
    git(&["init", "-q", "-b", "trunk"]);
    std::fs::write(dir.path().join("lamp.rs"), "y\nz\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "fix the light"]);
    dir
}

#[test]
fn a_session_of_known_calls_comes_to_known_figures() {
    let server = Server::start();
    let dir = repository();
    let cwd = dir.path().canonicalize().unwrap();
    work(&server, "s1", &cwd);
    work(&server, "s2", &cwd);
    settled(&server);
    let app = server.get("/api/v1/sessions/s1").json()["app"].as_str().unwrap().to_owned();
    for scope in ["", "&app=APP", "&session=s1", "&user=nobody"] {
        let scope = scope.replace("APP", &app);
        let times = match scope.as_str() {
            "&session=s1" => 1,
            "&user=nobody" => 0,
            _ => 2,
        };
        for window in ["1h", "24h", "7d", "30d"] {
            check_errors(&server, &format!("window={window}{scope}"), times);
            check_files(&server, &format!("window={window}{scope}"), times, &cwd);
            check_patterns(&server, &format!("window={window}{scope}"), times);
            check_git(&server, &format!("window={window}{scope}"), times, &app);
        }
    }
    check_repositories(&server, &cwd, &app);
    check_session(&server);
}

fn check_errors(server: &Server, query: &str, times: i64) {
    let errors = server.get(&format!("/api/v1/errors?{query}")).json();
    assert_eq!(errors["totals"]["count"], times, "{query}: {errors}");
    let items = errors["items"].as_array().unwrap();
    assert_eq!(items.len() as i64, times.min(1), "{query}: {errors}");
    let Some(group) = items.first() else { return };
    let expected = json!({"class": "exit_code", "tool": "Bash", "count": times, "sessions": times, "retried": times,
        "resolved": times, "resolved_percent": 100.0, "on_retry": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&group[name], value, "{query}: {name} of {group}");
    }
    // From the failure to the end of the run that passed: 100 + 30 + 100 + 700.
    let resolution = group["resolution_ms_p50"].as_f64().unwrap();
    assert!((resolution - 930.0).abs() <= 930.0 * 0.01, "{query}: {group}");
    assert!(group["message"].as_str().unwrap().contains("FAILED"));
    assert_eq!(group["next"][0]["what"], "other_tool");
    assert_eq!(group["next"][0]["tool"], "Edit");
    assert!(group["first_seen_ms"].as_i64().unwrap() <= group["last_seen_ms"].as_i64().unwrap());
    let fingerprint = group["fingerprint"].as_str().unwrap();
    for (filter, count) in [
        (format!("fingerprint={fingerprint}"), 1),
        ("fingerprint=0000".to_owned(), 0),
        ("class=exit_code".to_owned(), 1),
        ("class=timeout".to_owned(), 0),
        ("tool=Read".to_owned(), 0),
    ] {
        let found = server.get(&format!("/api/v1/errors?{query}&{filter}")).json();
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{query}&{filter}");
    }
    let detail = server.get(&format!("/api/v1/errors/{fingerprint}?{query}")).json();
    assert_eq!(detail["group"]["count"], times);
    let examples = detail["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 2, "of every scope");
    assert!(examples.iter().all(|one| one["resolved"] == true && one["tool"] == "Bash"), "{examples:?}");
    let event = examples[0]["event"].as_i64().unwrap();
    assert_eq!(server.get(&format!("/api/v1/events/{event}")).json()["error"]["fingerprint"], fingerprint);
}

fn check_files(server: &Server, query: &str, times: i64, cwd: &Path) {
    let files = server.get(&format!("/api/v1/files?{query}")).json();
    assert_eq!(files["totals"]["touches"], 3 * times, "{query}: {files}");
    let items = files["items"].as_array().unwrap();
    assert_eq!(items.len() as i64, times.min(1), "{query}");
    let Some(file) = items.first() else { return };
    let expected = json!({"path": cwd.join("lamp.rs").display().to_string(), "reads": 2 * times, "edits": times,
        "writes": 0, "deletes": 0, "lines_added": 2 * times, "lines_removed": times, "churn_lines": 3 * times,
        "repeated_reads": times, "sessions": times});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&file[name], value, "{query}: {name} of {file}");
    }
    assert_eq!(files["shared"].is_array(), query.contains("session="));
    for sort in ["reads", "rework", "shared_changes", "lines_added"] {
        assert_eq!(server.get(&format!("/api/v1/files?{query}&sort={sort}&q=lamp")).status, 200);
    }
    let none = server.get(&format!("/api/v1/files?{query}&q=nowhere")).json();
    assert_eq!(none["items"], json!([]));
}

fn check_patterns(server: &Server, query: &str, times: i64) {
    let chains = server.get(&format!("/api/v1/patterns/chains?{query}&n=2")).json();
    let items = chains["items"].as_array().unwrap();
    if times == 0 {
        assert_eq!(items.len(), 0, "{query}");
        return;
    }
    let find = |tools: [&str; 2]| items.iter().find(|one| one["tools"] == json!(tools)).unwrap();
    // Read Read Bash Edit Bash Bash: five pairs.
    assert_eq!(items.len(), 5, "{query}: {items:?}");
    assert_eq!(find(["Read", "Bash"])["count"], times);
    assert_eq!(find(["Read", "Bash"])["failed"], times);
    assert_eq!(find(["Read", "Read"])["failed"], 0);
    let median = find(["Edit", "Bash"])["duration_ms_p50"].as_f64().unwrap();
    assert!((median - 730.0).abs() <= 7.3, "{query}: {median}");
    assert!(items.iter().all(|one| one["n"] == 2 && one["sessions"] == times));
    let page = server.get(&format!("/api/v1/patterns/chains?{query}&limit=3")).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/patterns/chains?{query}&limit=1000&cursor={cursor}")).json();
    let whole = server.get(&format!("/api/v1/patterns/chains?{query}&limit=1000")).json();
    let joined: Vec<&Value> =
        page["items"].as_array().unwrap().iter().chain(rest["items"].as_array().unwrap()).collect();
    assert_eq!(joined, whole["items"].as_array().unwrap().iter().collect::<Vec<_>>());
    // 5 + 4 + 3 + 2 of six calls.
    assert_eq!((whole["chains"].as_i64().unwrap(), joined.len()), (14 * times, 14));

    let repeated = server.get(&format!("/api/v1/patterns/repetitions?{query}")).json();
    let read =
        repeated["items"].as_array().unwrap().iter().find(|one| one["tools"] == json!(["Read"])).unwrap();
    assert_eq!(
        (&read["kind"], &read["count"], &read["same_result"]),
        (&json!("repetition"), &json!(times), &json!(times))
    );
    assert_eq!(read["wasted"]["seconds"], json!(0.02 * times as f64), "{query}: {read}");
    assert_eq!(repeated["wasted"]["calls"], times, "{query}: {repeated}");
    let cycles = server.get(&format!("/api/v1/patterns/repetitions?{query}&kind=thrash")).json();
    assert_eq!(cycles["items"], json!([]));
}

fn check_git(server: &Server, query: &str, times: i64, app: &str) {
    let git = server.get(&format!("/api/v1/git?{query}&repositories=false")).json();
    assert_eq!(git["totals"]["commits"], times, "{query}: {git}");
    assert_eq!(
        (&git["totals"]["insertions"], &git["totals"]["deletions"]),
        (&json!(2 * times), &json!(times))
    );
    assert_eq!(git["repositories"], json!([]));
    if times > 0 {
        let item = &git["items"][0];
        assert_eq!(
            (&item["app"], &item["branch"], &item["commits"]),
            (&json!(app), &json!("trunk"), &json!(times))
        );
    }
}

fn check_repositories(server: &Server, cwd: &Path, app: &str) {
    let git = server.get("/api/v1/git?window=24h").json();
    let repositories = git["repositories"].as_array().unwrap();
    assert_eq!(repositories.len(), 1, "{git}");
    let expected = json!({"app": app, "directory": cwd.display().to_string(), "branch": "trunk", "commits": 1,
        "insertions": 2, "deletions": 0, "files_changed": 1, "cut": false});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&repositories[0][name], value, "{name} of {}", repositories[0]);
    }
    assert_eq!(server.get("/api/v1/git?session=s1").json()["repositories"], json!([]));
}

fn check_session(server: &Server) {
    let quality = server.get("/api/v1/sessions/s1/quality").json();
    let expected = json!({"calls": 6, "succeeded": 5, "failed": 1, "test_runs": 2, "tests_passed": 1, "tests_failed": 1,
        "last_test_passed": true, "failures_resolved": 1, "changes": 1, "rework": 0, "denied": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&quality[name], value, "{name} of {quality}");
    }
    assert_eq!(quality["digest"]["is_pending"], false);
    let context = server.get("/api/v1/sessions/s1/context").json();
    let main = &context["agents"][0];
    assert_eq!((&main["agent_type"], &main["agent_id"]), (&json!("main"), &Value::Null), "{context}");
    assert_eq!(main["estimated"], true, "no request is known: {context}");
    assert_eq!(
        main["curve"]["t"].as_array().unwrap().len(),
        main["curve"]["tokens"].as_array().unwrap().len()
    );
    for path in ["context", "quality"] {
        let answer = server.get(&format!("/api/v1/sessions/unknown/{path}"));
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"));
    }
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let server = Server::start();
    for bad in [
        "errors?window=2h",
        "errors?limit=0",
        "errors?cursor=x",
        "errors?cursor=-1",
        "errors/0000?window=x",
        "files?sort=size",
        "git?repositories=maybe",
        "patterns/chains?n=6",
        "patterns/chains?n=x",
        "patterns/chains?sort=x",
        "patterns/repetitions?kind=loop",
    ] {
        let answer = server.get(&format!("/api/v1/{bad}"));
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{bad}");
    }
    let answer = server.get("/api/v1/errors/0000");
    assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"));
    for path in ["errors", "files", "git", "patterns/chains", "patterns/repetitions", "sessions/s/context"] {
        let answer = server.request("GET", &format!("/api/v1/{path}")).send();
        assert_eq!(answer.status, 401, "{path}");
    }
    for path in ["errors", "files", "git", "patterns/chains", "patterns/repetitions"] {
        let empty = server.get(&format!("/api/v1/{path}")).json();
        assert_eq!((&empty["items"], &empty["next_cursor"]), (&json!([]), &Value::Null), "{path}");
    }
}

#[test]
fn git_is_left_alone_where_that_is_configured() {
    let server = Server::start_with(|config| config.git.read = false);
    let dir = repository();
    work(&server, "s1", dir.path());
    settled(&server);
    let git = server.get("/api/v1/git").json();
    assert_eq!((&git["repositories"], &git["totals"]["commits"]), (&json!([]), &json!(1)));
}

#[test]
fn late_events_reach_the_digests_and_a_restart_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let cwd = dir.path().join("nowhere");
    let server = Server::start_in(dir.path());
    work(&server, "s1", &cwd);
    // Stopped before it is digested: the marks are on disk.
    server.stop();
    let server = Server::start_in(dir.path());
    settled(&server);
    assert_eq!(server.get("/api/v1/sessions/s1/quality").json()["calls"], 6);
    assert_eq!(server.get("/api/v1/files").json()["totals"]["touches"], 3);
    let mut late = Session::new(&server, "s1", &cwd);
    late.calls = 100;
    late.at_ms -= 60_000;
    late.bash("cargo build", json!("Exit code 1\nno such crate"), 10);
    let began = Instant::now();
    while server.get("/api/v1/sessions/s1/quality").json()["calls"] != 7 {
        assert!(began.elapsed() < PATIENCE, "the late call is not digested");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    settled(&server);
    assert_eq!(server.get("/api/v1/errors").json()["totals"]["count"], 2);
    assert_eq!(server.figure("taffrail_digest_pending_sessions"), 0.0);
    assert!(server.figure("taffrail_digest_sessions") >= 2.0);
    let health = server.get("/api/v1/health").json();
    assert_eq!(health["analytics"]["evidence"]["digest_pending_sessions"], 0);
}
