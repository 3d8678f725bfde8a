//! Prices: the table that is served, the user's file in front of it, and pricing history anew.

use serde_json::{Value, json};
use taffrail_server::Config;

use crate::harness::{Answer, Server};

const OWN: &str =
    "[[price]]\nmodel = \"claude-opus-5-5\"\neffective_from = 2026-09-22\ninput = 1\noutput = 2\n";

fn reprice(server: &Server, body: &str) -> Answer {
    server
        .request("POST", "/api/v1/prices/reprice")
        .token()
        .header("content-type", "application/json")
        .body(body)
        .send()
}

fn inputs(prices: &Value, model: &str) -> Vec<f64> {
    let rows = prices["rows"].as_array().unwrap().iter();
    rows.filter(|row| row["model"] == model).map(|row| row["input"].as_f64().unwrap()).collect()
}

#[test]
fn the_table_is_served_to_whoever_has_the_token() {
    let server = Server::start();
    let prices = server.get("/api/v1/prices").json();
    assert_eq!(inputs(&prices, "claude-opus-5-5"), [4.0]);
    assert_eq!(
        (&prices["user_file"]["exists"], &prices["user_file"]["error"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(prices["user_file"]["fingerprint"], prices["fingerprint"]);
    assert_eq!(prices["unpriced"], json!([]));
    assert_eq!(server.request("GET", "/api/v1/prices").send().status, 401);
    assert_eq!(server.post("/api/v1/prices/reprice", "{}").status, 401);
}

#[test]
fn a_users_file_goes_in_front_and_a_broken_one_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prices.toml");
    std::fs::write(&file, OWN).unwrap();
    let server = Server::start_in(dir.path());
    assert_eq!(inputs(&server.get("/api/v1/prices").json(), "claude-opus-5-5"), [1.0]);
    server.stop();

    std::fs::write(&file, OWN.replace("input = 1", "input = -1")).unwrap();
    let said = Server::try_start(Config::for_dir(dir.path())).err().unwrap();
    assert!(said.contains("prices.toml, line 4: `input` cannot be -1") && said.contains("hint: "), "{said}");
}

#[test]
fn a_changed_file_counts_once_history_is_priced_anew() {
    let server = Server::start();
    let before = server.get("/api/v1/prices").json();
    let file = server.dir().join("prices.toml");
    std::fs::write(&file, OWN).unwrap();

    let seen = server.get("/api/v1/prices").json();
    assert_eq!(seen["fingerprint"], before["fingerprint"], "the table in use is as it was");
    assert_ne!(seen["user_file"]["fingerprint"], seen["fingerprint"]);

    for body in ["", "{}", "{\"dry_run\":true}"] {
        let dry = reprice(&server, body).json();
        assert_eq!((&dry["dry_run"], &dry["fingerprint"]), (&json!(true), &seen["user_file"]["fingerprint"]));
        assert_eq!((&dry["effects"], &dry["totals"]["changed"]), (&json!([]), &json!(0)));
    }
    assert_eq!(inputs(&server.get("/api/v1/prices").json(), "claude-opus-5-5"), [4.0]);

    assert_eq!(reprice(&server, "{\"dry_run\":false}").json()["dry_run"], false);
    let after = server.get("/api/v1/prices").json();
    assert_eq!(after["fingerprint"], seen["user_file"]["fingerprint"]);
    assert_eq!(inputs(&after, "claude-opus-5-5"), [1.0]);
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let server = Server::start();
    for body in ["{\"dry_run\":1}", "{\"dryrun\":false}", "[", "null"] {
        let answer = reprice(&server, body);
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{body}");
    }
    std::fs::write(server.dir().join("prices.toml"), "[[price]]\nmodel = 1\n").unwrap();
    let answer = reprice(&server, "{\"dry_run\":false}");
    assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("line 2"));
    let prices = server.get("/api/v1/prices").json();
    assert!(prices["user_file"]["error"].as_str().unwrap().contains("line 2"));
    assert_eq!(
        (&prices["user_file"]["fingerprint"], inputs(&prices, "claude-opus-5-5").len()),
        (&Value::Null, 1)
    );
}
