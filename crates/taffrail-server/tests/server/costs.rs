//! The ledger by API: known requests in a real store, and figures computed by hand.
//!
//! Prices per million tokens: claude-opus-5-5 4 in, 20 out, 0.20 read, 5 written (5 m); claude-haiku-4-5 1, 5, 0.10, 2
//! written (1 h).

use serde_json::{Value, json};
use taffrail_event::TimestampMs;
use taffrail_event::ledger::{ClientModelTotal, ClientTotal, RequestSighting, Terms, Usage, Witness};
use taffrail_event::transcript::{AgentSighting, Facts, Mark, MarkKind, SessionSighting};
use taffrail_store::{Options, Store, TranscriptChunk, TranscriptFile};

use crate::harness::Server;

const OPUS: &str = "claude-opus-5-5";
const HAIKU: &str = "claude-haiku-4-5";
const UNKNOWN: &str = "made-up-model-1";

/// `2026-11-20T10:00:00Z` in milliseconds since the Unix epoch.
fn at(text: &str) -> TimestampMs {
    let digits: Vec<i64> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let &[year, month, day, hour, minute, second, ..] = &digits[..] else { panic!("{text} is no time") };
    // Days from the civil calendar, by Howard Hinnant's formula: no calendar of the code under test is used.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era_day = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    TimestampMs::clamped(((era_day * 24 + hour) * 60 + minute) * 60_000 + second * 1_000)
}

/// A final request of the main agent by its transcript.
fn request(id: &str, session: &str, app: &str, model: &str, when: &str, usage: Usage) -> RequestSighting {
    RequestSighting {
        witness: Witness::Transcript,
        ts: at(when),
        message_id: Some(format!("msg_{id}")),
        request_id: Some(format!("req_{id}")),
        session_id: session.to_owned(),
        born: at("2026-01-01T00:00:00Z"),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        app: Some(app.to_owned()),
        user: None,
        model: model.to_owned(),
        usage: Some(usage),
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

fn usage(input: u64, output: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64) -> Usage {
    Usage { input, output, cache_read, cache_write_5m, cache_write_1h, web_searches: 0 }
}

fn session(id: &str, app: &str) -> SessionSighting {
    SessionSighting {
        session_id: id.to_owned(),
        app: Some(app.to_owned()),
        title: Some(format!("Title of {id}")),
        git_branch: Some("main".to_owned()),
        first: at("2026-01-01T00:00:00Z"),
        last: at("2026-11-22T00:10:00Z"),
        ..SessionSighting::default()
    }
}

/// Two sessions of two projects, a subagent, every confidence but one, and a fork that shows a request again.
///
/// | request | when             | model   | nano-dollars | confidence  |
/// |---------|------------------|---------|--------------|-------------|
/// | a       | 20th, 10:00 UTC  | opus    |   71,040,000 | exact       |
/// | b       | 20th, 23:30 UTC  | opus    |    3,340,000 | lower_bound |
/// | c       | 21st, 01:00 UTC  | haiku   |    5,500,000 | exact       |
/// | d       | 21st, 12:00 UTC  | unknown |            - | unpriced    |
/// | e       | 22nd, 00:10 UTC  | opus    |    4,040,000 | repaired    |
fn fleet() -> Facts {
    let a = request("a", "s1", "harbour", OPUS, "2026-11-20T10:00:00Z", usage(10, 50, 0, 14_000, 0));
    let b = RequestSighting {
        is_final: false,
        stop_reason: None,
        ..request("b", "s1", "harbour", OPUS, "2026-11-20T23:30:00Z", usage(100, 7, 14_000, 0, 0))
    };
    let c = RequestSighting {
        agent_id: Some("agent-1".to_owned()),
        agent_type: Some("Explore".to_owned()),
        ..request("c", "s1", "harbour", HAIKU, "2026-11-21T01:00:00Z", usage(1_000, 100, 0, 0, 2_000))
    };
    let d = request("d", "s2", "quay", UNKNOWN, "2026-11-21T12:00:00Z", usage(5, 6, 0, 0, 0));
    let e = RequestSighting {
        is_final: false,
        stop_reason: None,
        ..request("e", "s2", "quay", OPUS, "2026-11-22T00:10:00Z", usage(10, 3, 0, 0, 0))
    };
    let e_by_otlp = RequestSighting {
        witness: Witness::OtlpLog,
        message_id: None,
        is_final: true,
        usage: Some(usage(10, 200, 0, 0, 0)),
        told_cost_nano_usd: Some(4_040_000),
        duration_ms: Some(2_500),
        ..e.clone()
    };
    let copy = RequestSighting { session_id: "s3".to_owned(), born: at("2026-11-21T00:00:00Z"), ..a.clone() };
    Facts {
        requests: vec![a, b, c, d, e, e_by_otlp, copy],
        sessions: vec![session("s1", "harbour"), session("s2", "quay"), session("s3", "harbour")],
        agents: vec![AgentSighting {
            session_id: "s1".to_owned(),
            agent_id: "agent-1".to_owned(),
            agent_type: Some("Explore".to_owned()),
            description: Some("Look for the lamp".to_owned()),
            tool_use_id: Some("toolu_spawn".to_owned()),
            first: Some(at("2026-11-21T01:00:00Z")),
            last: Some(at("2026-11-21T01:00:00Z")),
        }],
        marks: vec![Mark {
            key: "mark-1".to_owned(),
            session_id: "s1".to_owned(),
            born: at("2026-01-01T00:00:00Z"),
            agent_id: None,
            ts: at("2026-11-20T09:59:00Z"),
            kind: MarkKind::Prompt { prompt_id: Some("prompt-1".to_owned()) },
            summary: "light the lamp".to_owned(),
        }],
        totals: vec![ClientTotal {
            session_id: "s2".to_owned(),
            cost_nano_usd: 4_040_000,
            models: vec![ClientModelTotal {
                model: OPUS.to_owned(),
                usage: usage(10, 200, 0, 0, 0),
                cost_nano_usd: 4_040_000,
            }],
            has_unknown_model: true,
        }],
        ..Facts::default()
    }
}

/// A server over a database that holds these facts.
fn server_with(facts: Facts) -> Server {
    Server::start_with(|config| {
        let store = Store::open(&Options::new(config.data_dir.join("taffrail.db"))).unwrap();
        let path = config.data_dir.join("t.jsonl");
        let file = TranscriptFile { path, session_id: "s1".to_owned(), ..TranscriptFile::default() };
        store.record_transcripts(vec![TranscriptChunk { file, facts }]).unwrap();
        store.close();
    })
}

fn nano(value: &Value) -> Option<i64> {
    value.as_f64().map(|usd| (usd * 1e9).round() as i64)
}

/// The rows of an answer: keys, requests and nano-dollars.
#[track_caller]
fn check(server: &Server, query: &str, keys: &[&str], expected: &[(&[&str], i64, Option<i64>)]) {
    let answer = server.get(&format!("/api/v1/costs?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let answer = answer.json();
    let rows = answer["rows"].as_array().unwrap();
    let found: Vec<(Vec<&str>, i64, Option<i64>)> = rows
        .iter()
        .map(|row| {
            let of = keys.iter().map(|key| row[key].as_str().unwrap_or("null")).collect();
            (of, row["requests"].as_i64().unwrap(), nano(&row["cost_usd"]))
        })
        .collect();
    let expected: Vec<(Vec<&str>, i64, Option<i64>)> =
        expected.iter().map(|(of, requests, cost)| (of.to_vec(), *requests, *cost)).collect();
    assert_eq!(found, expected, "{query}");
    let sum = |pick: &dyn Fn(&Value) -> i64| rows.iter().map(pick).sum::<i64>();
    assert_eq!(
        sum(&|row| nano(&row["cost_usd"]).unwrap_or(0)),
        nano(&answer["totals"]["cost_usd"]).unwrap_or(0)
    );
    for key in ["requests", "input_tokens", "output_tokens", "cache_read_tokens", "total_tokens"] {
        assert_eq!(
            sum(&|row| row[key].as_i64().unwrap()),
            answer["totals"][key].as_i64().unwrap(),
            "{query} {key}"
        );
    }
}

#[test]
fn sums_by_every_key_are_those_of_the_rows() {
    let server = server_with(fleet());
    let totals = server.get("/api/v1/costs").json();
    assert_eq!(
        (&totals["currency"], &totals["cut"], totals["rows"].as_array().unwrap().len()),
        (&json!("USD"), &json!(false), 1)
    );
    let totals = &totals["totals"];
    assert_eq!(nano(&totals["cost_usd"]), Some(83_920_000));
    assert_eq!(
        totals["confidence"],
        json!({"exact": 2, "repaired": 1, "lower_bound": 1, "estimated": 0, "unpriced": 1})
    );
    assert_eq!(
        totals["cost_by_confidence"],
        json!({"exact": 0.07654, "repaired": 0.00404, "lower_bound": 0.00334, "estimated": 0.0})
    );
    assert_eq!((&totals["input_tokens"], &totals["output_tokens"]), (&json!(1_125), &json!(363)));
    assert_eq!(
        (&totals["cache_write_5m_tokens"], &totals["cache_write_1h_tokens"]),
        (&json!(14_000), &json!(2_000))
    );
    assert_eq!(totals["first_ms"], at("2026-11-20T10:00:00Z").get());
    assert_eq!(totals["last_ms"], at("2026-11-22T00:10:00Z").get());

    check(
        &server,
        "group_by=model",
        &["model"],
        &[(&[OPUS], 3, Some(78_420_000)), (&[HAIKU], 1, Some(5_500_000)), (&[UNKNOWN], 1, None)],
    );
    check(
        &server,
        "group_by=app",
        &["app"],
        &[(&["harbour"], 3, Some(79_880_000)), (&["quay"], 2, Some(4_040_000))],
    );
    check(
        &server,
        "group_by=agent",
        &["agent"],
        &[(&["main"], 4, Some(78_420_000)), (&["Explore"], 1, Some(5_500_000))],
    );
    check(
        &server,
        "group_by=session",
        &["session_id"],
        &[(&["s1"], 3, Some(79_880_000)), (&["s2"], 2, Some(4_040_000))],
    );
    check(
        &server,
        "group_by=confidence",
        &["sureness"],
        &[
            (&["exact"], 2, Some(76_540_000)),
            (&["repaired"], 1, Some(4_040_000)),
            (&["lower_bound"], 1, Some(3_340_000)),
            (&["unpriced"], 1, None),
        ],
    );
    check(
        &server,
        "group_by=app,confidence&model=claude-opus-5-5",
        &["app", "sureness"],
        &[
            (&["harbour", "exact"], 1, Some(71_040_000)),
            (&["quay", "repaired"], 1, Some(4_040_000)),
            (&["harbour", "lower_bound"], 1, Some(3_340_000)),
        ],
    );
    check(&server, "group_by=user", &["user"], &[(&["null"], 5, Some(83_920_000))]);
    check(&server, "group_by=label:team", &["label"], &[(&["null"], 5, Some(83_920_000))]);
    check(
        &server,
        "app=quay&group_by=model",
        &["model"],
        &[(&[OPUS], 1, Some(4_040_000)), (&[UNKNOWN], 1, None)],
    );
    check(&server, "session=s1", &[], &[(&[], 3, Some(79_880_000))]);
    check(&server, "session=s3", &[], &[]);
    let from = at("2026-11-20T23:30:00Z").get();
    check(&server, &format!("from={from}&to={}", from + 1), &[], &[(&[], 1, Some(3_340_000))]);
    check(&server, &format!("from={}", from + 1), &[], &[(&[], 3, Some(9_540_000))]);
    check(&server, &format!("to={from}&group_by=month"), &["date"], &[(&["2026-11"], 1, Some(71_040_000))]);
}

#[test]
fn days_are_those_of_the_zone_that_is_asked_for() {
    let server = server_with(fleet());
    check(
        &server,
        "group_by=day&timezone=UTC",
        &["date"],
        &[
            (&["2026-11-20"], 2, Some(74_380_000)),
            (&["2026-11-21"], 2, Some(5_500_000)),
            (&["2026-11-22"], 1, Some(4_040_000)),
        ],
    );
    check(
        &server,
        "group_by=day&timezone=Europe/Berlin",
        &["date"],
        &[
            (&["2026-11-20"], 1, Some(71_040_000)),
            (&["2026-11-21"], 3, Some(8_840_000)),
            (&["2026-11-22"], 1, Some(4_040_000)),
        ],
    );
    check(
        &server,
        "group_by=day,app&timezone=America/New_York",
        &["date", "app"],
        &[(&["2026-11-20", "harbour"], 3, Some(79_880_000)), (&["2026-11-21", "quay"], 2, Some(4_040_000))],
    );
    // The 20th is a Friday, the 22nd a Sunday.
    check(&server, "group_by=week&timezone=UTC", &["date"], &[(&["2026-11-16"], 5, Some(83_920_000))]);
    check(
        &server,
        "group_by=week&timezone=UTC&week_start=sunday",
        &["date"],
        &[(&["2026-11-15"], 4, Some(79_880_000)), (&["2026-11-22"], 1, Some(4_040_000))],
    );
    check(
        &server,
        "group_by=hour,confidence&timezone=Asia/Kathmandu&session=s2",
        &["date", "sureness"],
        &[
            (&["2026-11-21T17:00+05:45", "unpriced"], 1, None),
            (&["2026-11-22T05:00+05:45", "repaired"], 1, Some(4_040_000)),
        ],
    );
    assert_eq!(server.get("/api/v1/costs?timezone=europe/berlin").json()["timezone"], "Europe/Berlin");
}

#[test]
fn a_day_of_23_or_25_hours_holds_its_own_requests_and_no_others() {
    // Each costs 1,000,000 nano-dollars: 1,000 fresh tokens of haiku.
    let times = [
        "2026-03-28T22:59:59Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:59Z",
        "2026-03-29T22:00:00Z",
        "2026-10-24T21:59:59Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T22:59:59Z",
        "2026-10-25T23:00:00Z",
    ];
    let of = |(i, when): (usize, &&str)| {
        request(&i.to_string(), "s1", "harbour", HAIKU, when, usage(1_000, 0, 0, 0, 0))
    };
    let facts = Facts {
        requests: times.iter().enumerate().map(of).collect(),
        sessions: vec![session("s1", "harbour")],
        ..Facts::default()
    };
    let server = server_with(facts);
    let one = |date: &'static str, n: i64| (date, n);
    for (date, n) in [
        one("2026-03-28", 1),
        one("2026-03-29", 2),
        one("2026-03-30", 1),
        one("2026-10-24", 1),
        one("2026-10-25", 2),
        one("2026-10-26", 1),
    ] {
        let rows = server.get("/api/v1/costs?group_by=day&timezone=Europe/Berlin").json()["rows"].clone();
        assert_eq!(rows.as_array().unwrap().len(), 6);
        let row = rows.as_array().unwrap().iter().find(|row| row["date"] == date).unwrap().clone();
        assert_eq!(
            (row["requests"].as_i64(), nano(&row["cost_usd"])),
            (Some(n), Some(n * 1_000_000)),
            "{date}"
        );
        let hours = (row["date_to_ms"].as_i64().unwrap() - row["date_from_ms"].as_i64().unwrap()) / 3_600_000;
        let expected = match date {
            "2026-03-29" => 23,
            "2026-10-25" => 25,
            _ => 24,
        };
        assert_eq!(hours, expected, "{date}");
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_hint() {
    let server = server_with(fleet());
    for (query, told) in [
        ("timezone=Mars/Olympus", "Europe/Berlin"),
        ("group_by=colour", "label:KEY"),
        ("group_by=day,week", "each key once"),
        ("group_by=app,app", "each key once"),
        ("group_by=label:a,label:b", "each key once"),
        ("group_by=label:", "label:KEY"),
        ("group_by=hour&from=0&timezone=UTC", ""),
        ("window=2h", ""),
        ("window=1h&from=5", ""),
        ("from=yesterday", ""),
        ("week_start=friday", ""),
    ] {
        let answer = server.get(&format!("/api/v1/costs?{query}"));
        // The ledger begins in November: its hours can be cut, however early the question begins.
        if query.starts_with("group_by=hour") {
            assert_eq!(answer.status, 200, "{query}");
            continue;
        }
        assert_eq!((answer.status, answer.problem().as_str()), (400, "bad_request"), "{query}");
        let body = answer.json();
        let hint = body["hint"].as_str().unwrap_or("");
        assert!(hint.contains(told), "{query}: {body}");
        assert!(!body["detail"].as_str().unwrap().contains("hint:"), "{query}: {body}");
    }
    assert_eq!(server.request("GET", "/api/v1/costs").send().status, 401);
}

#[test]
fn an_empty_database_has_no_cost_and_no_tokens() {
    let server = Server::start();
    let costs = server.get("/api/v1/costs?group_by=day,model,confidence").json();
    assert_eq!((&costs["rows"], &costs["unpriced"]), (&json!([]), &json!([])));
    assert_eq!((&costs["totals"]["requests"], &costs["totals"]["cost_usd"]), (&json!(0), &json!(0.0)));
    let summary = server.get("/api/v1/summary?window=30d").json();
    assert_eq!((&summary["tokens"], &summary["cost"]), (&Value::Null, &Value::Null));
    let missing = server.get("/api/v1/sessions/none/ledger");
    assert_eq!((missing.status, missing.problem().as_str()), (404, "not_found"));
}

#[test]
fn a_model_without_a_price_costs_null_and_is_named() {
    let server = server_with(fleet());
    let answer = server.get("/api/v1/costs?model=made-up-model-1").json();
    assert_eq!(answer["totals"]["cost_usd"], Value::Null);
    assert_eq!(answer["unpriced"], json!([{"model": UNKNOWN, "requests": 1, "total_tokens": 11}]));
    let all = server.get("/api/v1/costs?group_by=day&timezone=UTC").json();
    assert_eq!(all["unpriced"], answer["unpriced"]);
    assert_eq!(server.get("/api/v1/costs?app=harbour").json()["unpriced"], json!([]));
}

#[test]
fn the_ledger_of_a_session_has_each_request_once_with_its_sources() {
    let server = server_with(fleet());
    let ledger = server.get("/api/v1/sessions/s1/ledger").json();
    let items = ledger["items"].as_array().unwrap();
    let costs: Vec<Option<i64>> = items.iter().map(|item| nano(&item["cost_usd"])).collect();
    assert_eq!(costs, [Some(71_040_000), Some(3_340_000), Some(5_500_000)], "oldest first");
    assert_eq!((&items[0]["message_id"], &items[0]["sources"]), (&json!("msg_a"), &json!(["transcript"])));
    assert_eq!((&items[1]["confidence"], &items[1]["context_size"]), (&json!("lower_bound"), &json!(14_100)));
    assert_eq!((&items[2]["agent_id"], &items[2]["agent_type"]), (&json!("agent-1"), &json!("Explore")));
    assert_eq!(nano(&ledger["totals"]["cost_usd"]), Some(79_880_000));
    assert_eq!(
        (&ledger["marks"][0]["kind"], &ledger["marks"][0]["summary"]),
        (&json!("prompt"), &json!("light the lamp"))
    );
    assert_eq!(ledger["cut"], false);

    let ledger = server.get("/api/v1/sessions/s2/ledger").json();
    let repaired = &ledger["items"][1];
    assert_eq!(
        (&repaired["confidence"], &repaired["sources"], &repaired["provisional_output_tokens"]),
        (&json!("repaired"), &json!(["transcript", "otlp"]), &json!(3))
    );
    assert_eq!(
        (nano(&repaired["told_cost_usd"]), &repaired["duration_ms"]),
        (Some(4_040_000), &json!(2_500))
    );
    let reconciliation = &ledger["reconciliation"];
    assert_eq!(nano(&reconciliation["client_usd"]), Some(4_040_000));
    assert_eq!(nano(&reconciliation["otlp_usd"]), Some(4_040_000));
    assert_eq!(
        (&reconciliation["otlp_requests"], &reconciliation["drift_usd"]),
        (&json!(1), &Value::Null),
        "unpriced"
    );
}

#[test]
fn sessions_and_agents_carry_what_they_cost() {
    let server = server_with(fleet());
    let one = server.get("/api/v1/sessions/s1").json();
    assert_eq!(
        (nano(&one["cost_usd"]), &one["requests"], &one["unpriced_requests"]),
        (Some(79_880_000), &json!(3), &json!(0))
    );
    assert_eq!(
        (&one["title"], &one["git_branch"], &one["confidence"]),
        (&json!("Title of s1"), &json!("main"), &json!("lower_bound"))
    );
    assert_eq!((&one["tokens"]["total"], &one["tokens"]["cache_read"]), (&json!(31_267), &json!(14_000)));
    // The main agent's newest request: 14,100 of a million.
    assert_eq!((&one["context_size"], &one["context_utilization"]), (&json!(14_100), &json!(0.0141)));
    let list = server.get("/api/v1/sessions").json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.iter().find(|item| item["session_id"] == "s1").unwrap(), &one);
    let s2 = items.iter().find(|item| item["session_id"] == "s2").unwrap();
    assert_eq!(
        (nano(&s2["cost_usd"]), &s2["unpriced_requests"], &s2["confidence"]),
        (Some(4_040_000), &json!(1), &json!("unpriced"))
    );
    let s3 = items.iter().find(|item| item["session_id"] == "s3").unwrap();
    assert_eq!(
        (&s3["cost_usd"], &s3["tokens"], &s3["requests"]),
        (&Value::Null, &Value::Null, &json!(0)),
        "a copy costs nothing"
    );

    let agents = server.get("/api/v1/sessions/s1/agents").json();
    let explore =
        agents["items"].as_array().unwrap().iter().find(|a| a["agent_id"] == "agent-1").unwrap().clone();
    assert_eq!((nano(&explore["cost_usd"]), &explore["requests"]), (Some(5_500_000), &json!(1)));
    assert_eq!(
        (&explore["description"], &explore["tool_use_id"]),
        (&json!("Look for the lamp"), &json!("toolu_spawn"))
    );
    let timeline = server.get("/api/v1/sessions/s1/timeline").json();
    assert_eq!(timeline["session"], one);
    assert_eq!(timeline["agents"], agents["items"]);
    assert_eq!(timeline["transcript_marks"][0]["prompt_id"], "prompt-1");
}

#[test]
fn a_summary_sums_the_window_and_compares_it_with_the_one_before() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let ago = |minutes: i64| TimestampMs::clamped(now - minutes * 60_000);
    let of = |id: &str, minutes: i64, model: &str| RequestSighting {
        ts: ago(minutes),
        ..request(id, "s1", "harbour", model, "2026-11-20T10:00:00Z", usage(1_000, 100, 3_000, 0, 0))
    };
    // 1,000 in, 100 out and 3,000 read of haiku: 1,800,000 nano-dollars. In the last day three, in the day before one.
    let facts = Facts {
        requests: vec![
            of("a", 2, HAIKU),
            of("b", 90, HAIKU),
            of("c", 600, HAIKU),
            of("d", 36 * 60, HAIKU),
            of("e", 3, UNKNOWN),
        ],
        sessions: vec![session("s1", "harbour")],
        ..Facts::default()
    };
    let server = server_with(facts);
    let day = server.get("/api/v1/summary?window=24h").json();
    let cost = &day["cost"];
    assert_eq!(
        (nano(&cost["total_cost_usd"]), &cost["requests"], &cost["unpriced_requests"]),
        (Some(5_400_000), &json!(4), &json!(1))
    );
    let hours = (day["window"]["to_ms"].as_i64().unwrap() - day["window"]["from_ms"].as_i64().unwrap())
        as f64
        / 3.6e6;
    assert!((cost["cost_hourly_usd"].as_f64().unwrap() - 0.0054 / hours).abs() < 1e-12);
    let trend = cost["trend_percent"].as_f64().unwrap();
    assert!(
        (trend - 200.0).abs() < 1.0,
        "three times as much, in windows that differ by less than a minute: {trend}"
    );
    assert_eq!(
        day["tokens"],
        json!({
            "input": 4_000, "output": 400, "cache_read": 12_000, "cache_write_5m": 0, "cache_write_1h": 0, "total": 16_400,
            "cache_hit_percent": 75.0,
        })
    );
    for window in ["15m", "1h", "6h", "24h", "7d", "30d"] {
        let summary = server.get(&format!("/api/v1/summary?window={window}")).json();
        let history = summary["cost"]["history"].as_array().unwrap();
        assert_eq!(history.len(), 30, "{window}");
        let sum = |key: &str| history.iter().filter_map(|step| step[key].as_f64()).sum::<f64>();
        let cost = &summary["cost"];
        assert_eq!(sum("requests"), cost["requests"].as_f64().unwrap(), "{window}");
        assert_eq!(
            (sum("cost_usd") * 1e9).round() as i64,
            nano(&cost["total_cost_usd"]).unwrap(),
            "{window}"
        );
        assert_eq!(sum("tokens"), summary["tokens"]["total"].as_f64().unwrap(), "{window}");
        let unpriced = history.iter().filter(|step| step["requests"].as_i64() > Some(0)).count();
        assert!(unpriced > 0, "{window}");
    }
    let other = server.get("/api/v1/summary?window=24h&app=elsewhere").json();
    assert_eq!((&other["cost"]["requests"], &other["cost"]["total_cost_usd"]), (&json!(0), &json!(0.0)));
    assert_eq!(server.get("/api/v1/costs?window=24h").json()["totals"]["requests"], 4);
}
