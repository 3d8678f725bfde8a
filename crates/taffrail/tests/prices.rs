//! `taffrail prices` with the real binary, with and without a server.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{Home, stderr};

const OWN: &str = "[[price]]\nmodel = \"in-house\"\neffective_from = 2026-01-01\ninput = 1.5\noutput = 6\n";

fn check(home: &Home) -> (Option<i32>, Value) {
    let output = home.run(&["prices", "check", "--json"]);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
    (output.status.code(), said)
}

fn kinds(checked: &Value) -> Vec<&str> {
    checked["problems"].as_array().unwrap().iter().map(|p| p["kind"].as_str().unwrap()).collect()
}

#[test]
fn the_table_is_listed_by_any_name_of_a_model() {
    let home = Home::new();
    let all = home.json(&["prices", "list", "--json"]);
    assert!(all["rows"].as_array().unwrap().len() > 40);
    assert_eq!((all["fingerprint"].as_str().unwrap().len(), &all["user_file"]), (16, &Value::Null));
    for name in ["claude-sonnet-5-5", "us.anthropic.claude-sonnet-5-5[1m]", "claude-sonnet-5-5-20260928"] {
        let one = home.json(&["prices", "list", "--json", "--model", name]);
        let reads: Vec<&Value> =
            one["rows"].as_array().unwrap().iter().map(|row| &row["cache_read"]).collect();
        assert_eq!(reads, [&json!(0.2), &json!(0.1)], "{name}");
    }
    let shown = home.ok(&["prices", "list", "--model", "claude-haiku-5-5"]);
    assert!(shown.contains("prompt over 100000") && shown.contains("genai-prices"), "{shown}");
    assert!(home.fails(&["prices", "list", "--model", "claude-opus-99"]).contains("prices.toml"));
}

#[test]
fn own_prices_are_listed_and_a_broken_file_is_said_with_its_line() {
    let home = Home::new();
    let path = home.write("prices.toml", OWN);
    let one = home.json(&["prices", "list", "--json", "--model", "in-house"]);
    assert_eq!((&one["rows"][0]["origin"], &one["user_file"]), (&json!("user"), &json!(path)));
    assert_eq!(check(&home).0, Some(0));

    home.write("prices.toml", &OWN.replace("input", "inptu"));
    for command in
        [&["prices", "list"][..], &["serve", "--listen", "127.0.0.1:0"], &["up", "--listen", "127.0.0.1:0"]]
    {
        let said = home.fails(command);
        assert!(said.contains("prices.toml") && said.contains("line 4") && said.contains("inptu"), "{said}");
    }
    let (code, checked) = check(&home);
    assert_eq!((code, kinds(&checked)), (Some(1), vec!["user_file"]));
    assert!(checked["user_file"]["error"].as_str().unwrap().contains("line 4"));
}

#[test]
fn a_file_that_changed_under_a_server_needs_attention_until_it_is_taken_over() {
    let home = Home::new();
    home.up();
    assert_eq!(check(&home), (Some(0), check(&home).1));
    home.write("prices.toml", OWN);
    let (code, checked) = check(&home);
    assert_eq!((code, kinds(&checked)), (Some(1), vec!["server"]));
    assert_ne!(checked["server_fingerprint"], checked["fingerprint"]);

    let shown = home.json(&["prices", "reprice", "--json"]);
    assert_eq!((&shown["dry_run"], &shown["fingerprint"]), (&json!(true), &checked["fingerprint"]));
    assert_eq!(check(&home).0, Some(1), "a dry run changes nothing");
    assert!(home.ok(&["prices", "reprice"]).contains("--apply"));
    assert!(home.ok(&["prices", "reprice", "--apply"]).contains(checked["fingerprint"].as_str().unwrap()));
    let (code, after) = check(&home);
    assert_eq!((code, &after["server_fingerprint"]), (Some(0), &checked["fingerprint"]), "{after}");

    home.write("prices.toml", "[[price]]\n");
    assert!(home.fails(&["prices", "reprice", "--apply"]).contains("line 1"));
}

#[test]
fn history_is_repriced_without_a_server_too_and_not_without_a_database() {
    let home = Home::new();
    assert!(home.fails(&["prices", "reprice"]).contains("--data-dir"));
    home.ok(&["migrate", "up"]);
    let done = home.json(&["prices", "reprice", "--apply", "--json"]);
    assert_eq!((&done["dry_run"], &done["totals"]["requests"]), (&json!(false), &json!(0)));
    assert!(home.ok(&["prices", "check"]).contains("nothing needs attention"));

    home.ok(&["migrate", "down", "--to", "0"]);
    assert!(home.fails(&["prices", "check"]).contains("migrate up"), "an older schema is said as such");
}
