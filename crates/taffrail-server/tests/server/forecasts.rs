//! Forecasts by API, over a history that the ledger has.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{RequestSighting, Terms, Usage, Witness};
use taffrail_event::transcript::{Facts, SessionSighting};
use taffrail_server::Config;
use taffrail_store::{Options, Store, TranscriptChunk, TranscriptFile};

use crate::harness::Server;

const HOUR_MS: i64 = 3_600_000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A request of the main agent: 4 dollars a million tokens in.
fn request(id: usize, ts: i64, input: u64) -> RequestSighting {
    RequestSighting {
        witness: Witness::Transcript,
        ts: TimestampMs::clamped(ts),
        message_id: Some(format!("msg_{id}")),
        request_id: Some(format!("req_{id}")),
        session_id: "s1".to_owned(),
        born: TimestampMs::clamped(ts),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        app: Some("harbour".to_owned()),
        user: None,
        model: "claude-opus-5-5".to_owned(),
        usage: Some(Usage { input, ..Usage::default() }),
        is_final: true,
        terms: Terms::default(),
        query_source: None,
        effort: None,
        stop_reason: Some("end_turn".to_owned()),
        duration_ms: None,
        ttft_ms: None,
        attempts: None,
        told_cost_nano_usd: None,
    }
}

/// A server whose ledger has a request of a million tokens in each quarter of an hour of the last `hours` hours.
fn server_with(hours: i64, change: impl FnOnce(&mut Config)) -> Server {
    Server::start_with(|config| {
        let store = Store::open(&Options::new(config.data_dir.join("taffrail.db"))).unwrap();
        let quarter = HOUR_MS / 4;
        let last = now_ms() / quarter;
        let requests: Vec<RequestSighting> = (last - 4 * hours..last)
            .enumerate()
            .map(|(id, at)| request(id, at * quarter + 1_000, 1_000_000))
            .collect();
        let session = SessionSighting {
            session_id: "s1".to_owned(),
            app: Some("harbour".to_owned()),
            first: TimestampMs::clamped(now_ms() - hours * HOUR_MS),
            last: TimestampMs::clamped(now_ms()),
            ..SessionSighting::default()
        };
        let file = TranscriptFile { path: config.data_dir.join("t.jsonl"), ..TranscriptFile::default() };
        let facts = Facts { requests, sessions: vec![session], ..Facts::default() };
        store.record_transcripts(vec![TranscriptChunk { file, facts }]).unwrap();
        store.close();
        change(config);
    })
}

fn item<'j>(json: &'j Value, metric: &str, horizon: &str) -> &'j Value {
    let items = json["items"].as_array().unwrap();
    items.iter().find(|item| item["metric"] == metric && item["horizon"] == horizon).unwrap()
}

fn near(found: &Value, expected: f64) -> bool {
    found.as_f64().is_some_and(|found| (found - expected).abs() <= 1e-6 * expected.abs().max(1.0))
}

#[test]
fn without_history_there_is_no_figure_and_it_says_what_it_takes() {
    let server = Server::start_with(|config| config.budget.daily_usd = Some(5.0));
    let json = server.get("/api/v1/forecasts").json();
    assert!(json["computed_at"].is_i64(), "{json}");
    assert_eq!(json["items"].as_array().unwrap().len(), 6);
    for one in json["items"].as_array().unwrap() {
        assert_eq!((&one["enough_data"], &one["reason"]), (&json!(false), &json!("too_little_history")));
        assert_eq!((&one["total"], &one["path"], &one["backtest"]), (&Value::Null, &json!([]), &Value::Null));
        assert_eq!(one["history_steps"], 0);
    }
    assert_eq!(item(&json, "calls", "24h")["history_steps_needed"], 52);
    let overrun = &json["cost_overrun"];
    assert_eq!((&overrun["burn_rate_usd_per_hour"], &overrun["will_overrun"]), (&Value::Null, &Value::Null));
    assert_eq!(overrun["recommended_actions"][0]["reason"], "too_little_history");
    let scaling = &json["recommended_scaling"];
    assert_eq!(
        (&scaling["recommendation"], &scaling["reason"]),
        (&Value::Null, &json!("too_little_history"))
    );
}

#[test]
fn an_even_load_goes_on_and_budgets_say_when_they_are_used_up() {
    let server = server_with(80, |config| {
        config.budget.daily_usd = Some(0.5);
        config.budget.monthly_usd = Some(1e6);
    });
    let json = server.get("/api/v1/forecasts").json();
    let tokens = item(&json, "tokens", "24h");
    assert_eq!((&tokens["enough_data"], &tokens["step_ms"]), (&json!(true), &json!(HOUR_MS)), "{tokens}");
    let path = tokens["path"].as_array().unwrap();
    assert_eq!(path.len(), 25);
    // The first hour of the history may be a part of one.
    assert!(path.iter().all(|point| near(&point["value"], 4e6)), "{tokens}");
    assert!(near(&tokens["total"]["value"], 96e6), "{}", tokens["total"]);
    assert_eq!(path[1]["t_ms"].as_i64().unwrap() - path[0]["t_ms"].as_i64().unwrap(), HOUR_MS);
    let computed_at = json["computed_at"].as_i64().unwrap();
    assert!((0..HOUR_MS).contains(&(computed_at - tokens["from_ms"].as_i64().unwrap())));
    assert!(near(&item(&json, "cost_usd", "1h")["total"]["value"], 16.0));
    assert!(tokens["backtest"]["origins"].as_u64().unwrap() >= 20);
    assert!(tokens["candidates"].as_array().unwrap().len() >= 5);
    // No hook has told of a call.
    assert_eq!(item(&json, "calls", "1h")["enough_data"], false);

    let overrun = &json["cost_overrun"];
    assert!(near(&overrun["burn_rate_usd_per_hour"], 16.0), "{overrun}");
    let [day, month] = &overrun["budgets"].as_array().unwrap()[..] else { panic!("{overrun}") };
    assert_eq!((&day["period"], &month["period"]), (&json!("day"), &json!("month")));
    // Whatever the clock says: what is not over yet today will be after two minutes.
    assert_eq!(day["will_overrun"], true, "{day}");
    assert!(day["estimated_overrun_at"].as_i64().unwrap() - computed_at <= HOUR_MS / 16 + HOUR_MS * 24);
    assert_eq!(overrun["will_overrun"], true);
    assert_eq!(month["will_overrun"], false, "{month}");
    let actions: Vec<&str> = overrun["recommended_actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["action"].as_str().unwrap())
        .collect();
    assert!(["pause", "throttle"].contains(&actions[0]), "{actions:?}");
}

#[test]
fn a_scope_has_its_own_forecast_and_no_budget_and_a_window_narrows() {
    let server = server_with(80, |config| config.budget.daily_usd = Some(0.5));
    let json = server.get("/api/v1/forecasts?app=harbour&window=24h").json();
    assert_eq!((&json["app"], json["items"].as_array().unwrap().len()), (&json!("harbour"), 3));
    assert!(near(&item(&json, "tokens", "24h")["total"]["value"], 96e6));
    assert_eq!(json["cost_overrun"]["budgets"], json!([]));
    let other = server.get("/api/v1/forecasts?app=nowhere&window=1h").json();
    assert_eq!(item(&other, "tokens", "1h")["history_steps"], 0);
    let again = server.get("/api/v1/forecasts?app=harbour").json();
    assert_eq!(again["computed_at"], json["computed_at"], "kept, not computed again");
    assert_eq!(again["items"].as_array().unwrap().len(), 6);
    assert_eq!(server.get("/api/v1/forecasts?window=2h").status, 400);
    assert_eq!(server.request("GET", "/api/v1/forecasts").send().status, 401);
}
