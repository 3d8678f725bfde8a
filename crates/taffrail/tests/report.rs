//! Reports and the ledger's commands with the real binary, on small ledgers whose figures are reckoned by hand.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{Home, stderr};
use taffrail_event::event::{Arrival, Fact, Metrics, Payload};
use taffrail_event::ledger::{
    ClientModelTotal, ClientTotal, FailureSighting, RequestSighting, Terms, Usage, Witness,
};
use taffrail_event::prices::PriceTable;
use taffrail_event::transcript::{Facts, Mark, MarkKind, SessionSighting};
use taffrail_event::{DedupKey, Event, EventId, Source, TimestampMs};
use taffrail_store::{Options, Store, TranscriptChunk, TranscriptFile};

/// Round prices: a million tokens of alpha cost 10, 50, 1, 12.5 and 20 dollars, of beta a tenth.
const PRICES: &str = r#"
[[price]]
model = "claude-alpha-1"
effective_from = 2020-01-01
input = 10
output = 50
cache_read = 1
cache_write_5m = 12.5
cache_write_1h = 20

[[price]]
model = "claude-beta-1"
effective_from = 2020-01-01
input = 1
output = 5
cache_read = 0.1
cache_write_5m = 1.25
cache_write_1h = 2
"#;

const ALPHA: &str = "claude-alpha-1";
const BETA: &str = "claude-beta-1-20260101";

fn at(text: &str) -> TimestampMs {
    TimestampMs::clamped(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// A final request of 1,000 tokens in and 100 out: of alpha 1.5 cents.
fn request(session: &str, ts: &str, model: &str) -> RequestSighting {
    RequestSighting {
        witness: Witness::Transcript,
        ts: at(ts),
        message_id: Some(format!("msg-{session}-{ts}-{model}")),
        request_id: None,
        session_id: session.to_owned(),
        born: at("2020-01-02T00:00:00Z"),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        app: None,
        user: None,
        model: model.to_owned(),
        usage: Some(Usage { input: 1_000, output: 100, ..Usage::default() }),
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

/// The log record by which the client tells of a request, with the sender's labels.
fn log_record(request: RequestSighting, user: &str, labels: &[(&str, &str)]) -> Event {
    let event_id = EventId::derived(&[request.session_id.as_bytes(), &request.ts.get().to_le_bytes()]);
    Event {
        event_id,
        dedup_key: DedupKey::of_delivery(&request.session_id, event_id),
        ts: request.ts,
        received: request.ts,
        source: Source::Otlp,
        arrival: Arrival::Live,
        app: request.session_id.split('-').next().unwrap().to_owned(),
        session_id: request.session_id.clone(),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        tool_use_id: None,
        user: Some(user.to_owned()),
        host: None,
        cwd: None,
        model: None,
        type_name: "claude_code.api_request".to_owned(),
        tool_name: None,
        summary: String::new(),
        fact: Fact::Telemetry,
        metrics: Metrics::default(),
        error: None,
        file_operations: Vec::new(),
        git_operations: Vec::new(),
        warnings: Vec::new(),
        issues: Vec::new(),
        payload: Payload::default(),
        request: Some(Box::new(RequestSighting { witness: Witness::OtlpLog, is_final: true, ..request })),
        failure: None,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        legacy: None,
    }
}

/// A ledger of these facts, with the prices above; each session's project is what stands before its first `-`.
struct Ledger {
    home: Home,
    facts: Facts,
    telemetry: Vec<Event>,
    prices: &'static str,
}

impl Ledger {
    fn new() -> Self {
        Self { home: Home::new(), facts: Facts::default(), telemetry: Vec::new(), prices: PRICES }
    }

    fn with(mut self, requests: impl IntoIterator<Item = RequestSighting>) -> Self {
        self.facts.requests.extend(requests);
        self
    }

    /// Commits it, with `prices.toml` beside it.
    fn stored(mut self) -> Filled {
        let mut sessions: BTreeMap<String, SessionSighting> = BTreeMap::new();
        for request in &self.facts.requests {
            let session = sessions.entry(request.session_id.clone()).or_insert_with(|| SessionSighting {
                session_id: request.session_id.clone(),
                app: request.session_id.split('-').next().map(str::to_owned),
                title: Some(format!("Work on {}", request.session_id)),
                first: request.ts,
                last: request.ts,
                ..SessionSighting::default()
            });
            session.first = session.first.min(request.ts);
            session.last = session.last.max(request.ts);
        }
        self.facts.sessions = sessions.into_values().collect();
        self.home.write("prices.toml", self.prices);
        let prices = PriceTable::builtin().with_overrides(self.prices).unwrap();
        let mut options = Options::new(self.home.path().join("taffrail.db"));
        options.prices = Arc::new(prices);
        let store = Store::open(&options).unwrap();
        let file = TranscriptFile {
            path: PathBuf::from("/h/.claude/projects/p/s.jsonl"),
            session_id: "s".to_owned(),
            modified_ns: 1_000_000_000_000,
            ..TranscriptFile::default()
        };
        store.record_transcripts(vec![TranscriptChunk { file, facts: self.facts }]).unwrap();
        store.append(self.telemetry).unwrap();
        store.close();
        Filled { home: self.home }
    }
}

/// A data directory with a ledger, and no transcripts of the caller's in sight.
struct Filled {
    home: Home,
}

impl Filled {
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = self.home.command(arguments);
        command
            .env("CLAUDE_CONFIG_DIR", self.home.path().join("none"))
            .env_remove("COLUMNS")
            .env("TZ", "UTC");
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = stderr(&output);
        assert!(!output.status.success() && said.starts_with("error: ") && said.contains("hint: "), "{said}");
        said
    }

    /// Each row's date and requests.
    #[track_caller]
    fn dates(&self, arguments: &[&str]) -> Vec<(String, i64)> {
        let report = self.json(arguments);
        rows(&report)
            .iter()
            .map(|row| (row["date"].as_str().unwrap().to_owned(), row["requests"].as_i64().unwrap()))
            .collect()
    }
}

#[track_caller]
fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

/// Holds a table against the one in the repository; with `UPDATE_SNAPSHOTS` set it is written anew, to be looked at.
#[track_caller]
fn check_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
}

#[track_caller]
fn check_dates(zone: &str, times: &[&str], expected: &[(&str, i64)]) {
    let filled = Ledger::new().with(times.iter().map(|ts| request("api-1", ts, ALPHA))).stored();
    let found = filled.dates(&["report", "daily", "--timezone", zone]);
    let expected: Vec<(String, i64)> = expected.iter().map(|(date, n)| ((*date).to_owned(), *n)).collect();
    assert_eq!(found, expected, "{zone}");
}

#[test]
fn days_are_those_of_the_zone_also_when_its_clock_changes() {
    // 23 hours: from 05:00Z to 04:00Z.
    check_dates(
        "America/New_York",
        &[
            "2026-03-08T04:59:59.999Z",
            "2026-03-08T05:00:00Z",
            "2026-03-09T03:59:59.999Z",
            "2026-03-09T04:00:00Z",
        ],
        &[("2026-03-07", 1), ("2026-03-08", 2), ("2026-03-09", 1)],
    );
    // 25 hours: from 04:00Z to 05:00Z.
    check_dates(
        "America/New_York",
        &[
            "2026-11-01T03:59:59.999Z",
            "2026-11-01T04:00:00Z",
            "2026-11-02T04:59:59.999Z",
            "2026-11-02T05:00:00Z",
        ],
        &[("2026-10-31", 1), ("2026-11-01", 2), ("2026-11-02", 1)],
    );
    // 24 and a half: from 13:00Z to 13:30Z.
    check_dates(
        "Australia/Lord_Howe",
        &[
            "2026-04-04T12:59:59.999Z",
            "2026-04-04T13:00:00Z",
            "2026-04-05T13:29:59.999Z",
            "2026-04-05T13:30:00Z",
        ],
        &[("2026-04-04", 1), ("2026-04-05", 2), ("2026-04-06", 1)],
    );
    // Thirteen hours ahead.
    check_dates(
        "Pacific/Apia",
        &["2026-11-20T10:59:59.999Z", "2026-11-20T11:00:00Z", "2026-11-21T10:59:59.999Z"],
        &[("2026-11-20", 1), ("2026-11-21", 2)],
    );
    check_dates(
        "UTC",
        &["2026-11-20T23:59:59.999Z", "2026-11-21T00:00:00Z"],
        &[("2026-11-20", 1), ("2026-11-21", 1)],
    );
}

#[test]
fn since_and_until_are_whole_days_of_the_zone_in_either_spelling() {
    let times =
        ["2026-11-01T03:59:59Z", "2026-11-01T04:00:00Z", "2026-11-02T04:59:59Z", "2026-11-02T05:00:00Z"];
    let filled = Ledger::new().with(times.iter().map(|ts| request("api-1", ts, ALPHA))).stored();
    let zone = ["report", "daily", "--timezone", "America/New_York"];
    for day in ["2026-11-01", "20261101"] {
        let dates = filled.dates(&[&zone[..], &["--since", day, "--until", day]].concat());
        assert_eq!(dates, [("2026-11-01".to_owned(), 2)]);
    }
    let dates = filled.dates(&[&zone[..], &["--since", "2026-11-02"]].concat());
    assert_eq!(dates, [("2026-11-02".to_owned(), 1)]);
    let dates = filled.dates(&[&zone[..], &["--order", "desc"]].concat());
    assert_eq!(dates.first().unwrap().0, "2026-11-02");
    assert_eq!(dates.last().unwrap().0, "2026-10-31");
}

#[test]
fn weeks_begin_on_the_day_asked_for_and_months_are_the_calendars() {
    // 2026-11-22 is a Sunday.
    let times =
        ["2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z", "2026-11-23T12:00:00Z", "2027-01-01T00:00:00Z"];
    let filled = Ledger::new().with(times.iter().map(|ts| request("api-1", ts, ALPHA))).stored();
    let weeks = |arguments: &[&str]| -> Vec<Value> {
        let report = filled.json(&[&["report", "weekly", "--timezone", "UTC"], arguments].concat());
        rows(&report).iter().map(|row| json!([row["date"], row["week"], row["requests"]])).collect()
    };
    assert_eq!(
        weeks(&[]),
        [
            json!(["2026-11-16", "2026-W47", 2]),
            json!(["2026-11-23", "2026-W48", 1]),
            json!(["2026-12-28", "2026-W53", 1])
        ]
    );
    assert_eq!(
        weeks(&["--start-of-week", "sunday"]),
        [
            json!(["2026-11-15", "2026-W47", 1]),
            json!(["2026-11-22", "2026-W48", 2]),
            json!(["2026-12-27", "2026-W53", 1])
        ]
    );
    let months = filled.dates(&["report", "monthly", "--timezone", "UTC"]);
    assert_eq!(months, [("2026-11".to_owned(), 3), ("2027-01".to_owned(), 1)]);
    // In Honolulu the year is not over yet.
    let months = filled.dates(&["report", "monthly", "--timezone", "Pacific/Honolulu"]);
    assert_eq!(months, [("2026-11".to_owned(), 3), ("2026-12".to_owned(), 1)]);
}

/// Two projects, two models, a subagent, cache, a lower bound, a model without a price.
fn mixed() -> Ledger {
    let usage = Usage {
        input: 1_000,
        output: 200,
        cache_read: 100_000,
        cache_write_5m: 10_000,
        cache_write_1h: 1_000,
        web_searches: 0,
    };
    let first = request("api-1", "2026-11-20T10:00:00Z", ALPHA);
    let second = RequestSighting { usage: Some(usage), ..request("api-1", "2026-11-20T11:00:00Z", ALPHA) };
    let agent = RequestSighting {
        agent_id: Some("a1".to_owned()),
        agent_type: Some("Explore".to_owned()),
        ..request("api-1", "2026-11-20T11:30:00Z", BETA)
    };
    let provisional = RequestSighting {
        is_final: false,
        stop_reason: None,
        usage: Some(Usage { input: 1_000, output: 1, ..Usage::default() }),
        ..request("web-1", "2026-11-20T12:00:00Z", ALPHA)
    };
    let unknown = request("web-2", "2026-11-21T09:00:00Z", "claude-mystery-9");
    Ledger::new().with([first, second, agent, provisional, unknown])
}

#[test]
fn the_json_has_the_promised_shape_and_the_figures_reckoned_by_hand() {
    let filled = mixed().stored();
    let report = filled.json(&["report", "daily", "--timezone", "UTC"]);
    let rows = rows(&report);
    let keys: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "date",
            "app",
            "model",
            "user",
            "agent",
            "label",
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_5m_tokens",
            "cache_write_1h_tokens",
            "total_tokens",
            "web_searches",
            "requests",
            "cost_usd",
            "confidence",
            "cost_by_confidence"
        ]
    );
    let short: Vec<Value> =
        rows.iter().map(|r| json!([r["date"], r["app"], r["model"], r["requests"], r["cost_usd"]])).collect();
    // alpha: 0.01 + 0.005; and 0.01 + 0.01 + 0.1 + 0.125 + 0.02. beta: 0.001 + 0.0005. web: 0.01 + 0.00005.
    assert_eq!(
        short,
        [
            json!(["2026-11-20", "api", ALPHA, 2, 0.28]),
            json!(["2026-11-20", "web", ALPHA, 1, 0.01005]),
            json!(["2026-11-20", "api", BETA, 1, 0.0015]),
            json!(["2026-11-21", "web", "claude-mystery-9", 1, null])
        ]
    );
    assert_eq!(
        rows[0]["confidence"],
        json!({"exact": 2, "repaired": 0, "lower_bound": 0, "estimated": 0, "unpriced": 0})
    );
    assert_eq!(rows[1]["confidence"]["lower_bound"], 1);
    assert_eq!(
        rows[1]["cost_by_confidence"],
        json!({"exact": 0.0, "repaired": 0.0, "lower_bound": 0.01005, "estimated": 0.0})
    );
    let totals = &report["totals"];
    let sums = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "requests"];
    assert_eq!(sums.map(|name| totals[name].as_i64().unwrap()), [5_000, 501, 100_000, 10_000, 5]);
    assert_eq!((&totals["cost_usd"], &totals["unpriced_requests"]), (&json!(0.29155), &json!(1)));
    assert_eq!(totals["unpriced_models"][0]["model"], "claude-mystery-9");
    assert_eq!(report["timezone"], "UTC");
}

#[test]
fn by_splits_by_what_was_asked_for_and_leaves_the_rest_null() {
    let filled = mixed().stored();
    let split = |by: &[&str], keys: &[&str]| -> Vec<Value> {
        let report = filled.json(&[&["report", "monthly", "--timezone", "UTC"], by].concat());
        rows(&report)
            .iter()
            .map(|row| {
                assert_eq!(row["app"].is_null(), !keys.contains(&"app"), "{by:?}: {row}");
                assert_eq!(row["model"].is_null(), !keys.contains(&"model"), "{by:?}: {row}");
                let mut found: Vec<Value> = keys.iter().map(|key| row[key].clone()).collect();
                found.push(row["requests"].clone());
                Value::Array(found)
            })
            .collect()
    };
    assert_eq!(split(&["--by", "app"], &["app"]), [json!(["api", 3]), json!(["web", 2])]);
    assert_eq!(split(&["--by", "agent"], &["agent"]), [json!(["main", 4]), json!(["Explore", 1])]);
    assert_eq!(
        split(&["--by", "app,agent"], &["app", "agent"]),
        [json!(["api", "main", 2]), json!(["web", "main", 2]), json!(["api", "Explore", 1])]
    );
    assert_eq!(split(&["--by", "app", "--by", "model"], &["app", "model"]).len(), 4);
    assert_eq!(split(&["--by", "user"], &["user"]), [json!([null, 5])]);
}

#[test]
fn filters_leave_out_what_does_not_fit() {
    let filled = mixed().stored();
    let total = |filter: &[&str]| {
        let report = filled.json(&[&["report", "daily", "--timezone", "UTC"], filter].concat());
        report["totals"]["requests"].as_i64().unwrap()
    };
    assert_eq!(total(&[]), 5);
    assert_eq!(total(&["--app", "web"]), 2);
    assert_eq!(total(&["--model", ALPHA]), 3);
    assert_eq!(total(&["--session", "api-1"]), 3);
    assert_eq!(total(&["--session", "a"]), 3, "a prefix that fits one session is enough");
    assert_eq!(total(&["--app", "nobody"]), 0);
    let said = filled.fails(&["report", "daily", "--session", "web"]);
    assert!(said.contains("web-1, web-2"), "{said}");
    assert!(filled.fails(&["report", "daily", "--session", "zzz"]).contains("no session `zzz`"));
}

#[test]
fn a_model_without_a_price_is_unknown_and_loudly_so() {
    let filled = mixed().stored();
    let output = filled.run(&["report", "daily", "--timezone", "UTC"]);
    let said = stderr(&output);
    assert!(
        said.contains("warning: no price is known for `claude-mystery-9`: 1 request with 1,100 tokens")
            && said.contains("prices.toml"),
        "{said}"
    );
    let output = filled.run(&["report", "daily", "--app", "api", "--json"]);
    assert_eq!(stderr(&output), "");
}

#[test]
fn tables_are_for_people() {
    let filled = mixed().stored();
    let daily = filled.ok(&["report", "daily", "--timezone", "UTC"]);
    check_snapshot("daily", &daily);
    let weekly = filled.ok(&["report", "weekly", "--timezone", "UTC", "--by", "app,agent"]);
    check_snapshot("weekly", &weekly);
    let monthly = filled.ok(&["report", "monthly", "--timezone", "UTC", "--by", "model", "--app", "api"]);
    check_snapshot("monthly", &monthly);
    let session = filled.ok(&["report", "session", "--timezone", "UTC"]);
    check_snapshot("session", &session);
    let blocks = filled.ok(&["report", "blocks", "--timezone", "UTC", "--token-limit", "max"]);
    check_snapshot("blocks", &blocks);
}

#[test]
fn a_narrow_terminal_gets_fewer_columns() {
    let filled = mixed().stored();
    let mut command = filled.home.command(&["report", "daily", "--timezone", "UTC"]);
    let output = command.env("COLUMNS", "60").env("CLAUDE_CONFIG_DIR", "/none").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let table: Vec<&str> = text.lines().take_while(|line| !line.starts_with("left out")).collect();
    assert!(table.iter().all(|line| line.chars().count() <= 60), "{text}");
    assert!(text.contains("left out for the width: cache read, cache write"), "{text}");
}

#[test]
fn csv_is_quoted_has_a_header_and_runs_no_formula() {
    let evil =
        RequestSighting { app: None, ..request("=cmd|' /C calc'!A0,\"x\"", "2026-11-20T10:00:00Z", ALPHA) };
    let filled = Ledger::new().with([evil, request("api-1", "2026-11-20T11:00:00Z", ALPHA)]).stored();
    let csv = filled.ok(&["report", "daily", "--timezone", "UTC", "--csv"]);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert!(lines[0].starts_with("date,week,app,model,user,agent,label,input_tokens,"), "{csv}");
    assert_eq!(
        lines[1..],
        [
            "2026-11-20,,\"'=cmd|' /C calc'!A0,\"\"x\"\"\",claude-alpha-1,,,,1000,100,0,0,0,0,1,0.015,1,0,0,0,0",
            "2026-11-20,,api,claude-alpha-1,,,,1000,100,0,0,0,0,1,0.015,1,0,0,0,0",
            ""
        ]
    );
    let columns = lines[0].split(',').count();
    assert_eq!(lines[2].split(',').count(), columns);
    for report in ["weekly", "monthly", "session", "blocks"] {
        let csv = filled.ok(&["report", report, "--csv", "--app", "api"]);
        let counts: Vec<usize> = csv.trim_end().split("\r\n").map(|line| line.split(',').count()).collect();
        assert!(counts.len() == 2 && counts[0] == counts[1], "{report}: {csv}");
    }
}

#[test]
fn a_session_has_its_title_its_agents_and_its_models() {
    let filled = mixed().stored();
    let report = filled.json(&["report", "session", "--timezone", "UTC"]);
    let rows = rows(&report);
    let ids: Vec<&str> = rows.iter().map(|row| row["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["api-1", "web-1", "web-2"], "by the last request");
    let first = &rows[0];
    assert_eq!(first["date"], "2026-11-20");
    assert_eq!(first["title"], "Work on api-1");
    assert_eq!(first["app"], "api");
    assert_eq!(first["model"], Value::Null, "there were two");
    assert_eq!(
        (&first["first"], &first["last"]),
        (&json!("2026-11-20T10:00:00Z"), &json!("2026-11-20T11:30:00Z"))
    );
    let models: Vec<&Value> = first["models"].as_array().unwrap().iter().map(|m| &m["cost_usd"]).collect();
    assert_eq!(models, [&json!(0.28), &json!(0.0015)]);
    let agents: Vec<Value> = first["agents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| json!([agent["agent"], agent["requests"]]))
        .collect();
    assert_eq!(agents, [json!(["Explore", 1]), json!(["main", 2])]);
    assert_eq!(rows[1]["model"], ALPHA);
    assert_eq!(report["totals"]["requests"], 5);
}

#[test]
fn blocks_last_five_hours_and_what_lies_between_is_a_gap() {
    let times =
        ["2026-11-20T10:20:00Z", "2026-11-20T15:00:00Z", "2026-11-20T15:00:00.001Z", "2026-11-21T03:00:00Z"];
    let filled = Ledger::new().with(times.iter().map(|ts| request("api-1", ts, ALPHA))).stored();
    let blocks = |arguments: &[&str]| -> Vec<Value> {
        let report = filled.json(&[&["report", "blocks", "--timezone", "UTC"], arguments].concat());
        rows(&report)
            .iter()
            .map(|row| json!([row["start"], row["end"], row["requests"], row["is_gap"]]))
            .collect()
    };
    let last = json!(["2026-11-21T03:00:00Z", "2026-11-21T08:00:00Z", 1, false]);
    assert_eq!(
        blocks(&[]),
        [
            json!(["2026-11-20T10:00:00Z", "2026-11-20T15:00:00Z", 2, false]),
            json!(["2026-11-20T15:00:00Z", "2026-11-20T20:00:00Z", 1, false]),
            json!(["2026-11-20T20:00:00.001Z", "2026-11-21T03:00:00Z", 0, true]),
            last.clone()
        ]
    );
    assert_eq!(blocks(&["--since", "2026-11-21"]), [last]);
    let first_day = blocks(&["--until", "2026-11-20"]);
    assert_eq!(first_day.len(), 2, "no gap at the end: {first_day:?}");
    assert_eq!(blocks(&["--active"]), Vec::<Value>::new());
}

#[test]
fn a_block_asked_for_by_day_is_the_one_that_all_of_history_has() {
    // A request every four hours for nine days: no pause settles where blocks begin, so all is read.
    let start = at("2026-11-01T00:30:00Z").get();
    let times: Vec<String> = (0..54)
        .map(|n| jiff::Timestamp::from_millisecond(start + n * 4 * 3_600_000).unwrap().to_string())
        .collect();
    let filled = Ledger::new().with(times.iter().map(|ts| request("api-1", ts, ALPHA))).stored();
    let starts = |arguments: &[&str]| -> Vec<String> {
        let report = filled.json(&[&["report", "blocks", "--timezone", "UTC"], arguments].concat());
        rows(&report).iter().map(|row| row["start"].as_str().unwrap().to_owned()).collect()
    };
    let all = starts(&[]);
    let expected: Vec<String> = all.iter().filter(|start| start.as_str() >= "2026-11-08").cloned().collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(starts(&["--since", "2026-11-08"]), expected);
}

#[test]
fn the_block_that_runs_now_has_a_rate_and_an_end() {
    let now = jiff::Timestamp::now().as_millisecond();
    let ago = |minutes: i64| jiff::Timestamp::from_millisecond(now - minutes * 60_000).unwrap().to_string();
    let requests = [request("api-1", &ago(10), ALPHA), request("api-1", &ago(5), ALPHA)];
    let filled = Ledger::new().with(requests).stored();
    let report = filled.json(&["report", "blocks", "--active", "--token-limit", "1000000000"]);
    let block = &rows(&report)[0];
    assert_eq!((&block["is_active"], &block["requests"]), (&json!(true), &json!(2)));
    let rate = block["burn_rate"]["tokens_per_minute"].as_f64().unwrap();
    assert!(rate > 0.0 && rate <= 220.0, "2,200 tokens in ten minutes or a little more: {rate}");
    assert!(block["projection"]["total_tokens"].as_u64().unwrap() >= 2_200);
    assert!((0..=300).contains(&block["minutes_left"].as_i64().unwrap()));
    assert_eq!(block["token_limit"]["status"], "ok");
    assert!(filled.ok(&["report", "blocks", "--active"]).contains("burn rate"));
}

#[test]
fn nothing_recorded_yet_is_said_with_what_to_do() {
    let home = Home::new();
    for command in [&["report", "daily"][..], &["ledger", "check"], &["ledger", "show", "--session", "x"]] {
        let said = home.fails(command);
        assert!(said.contains("nothing is recorded") && said.contains("import transcripts"), "{said}");
    }
    let empty = Ledger::new().stored();
    for report in ["daily", "weekly", "monthly", "session"] {
        assert_eq!(empty.ok(&["report", report]), "no requests in that time\n");
        let json = empty.json(&["report", report]);
        assert_eq!((rows(&json).len(), &json["totals"]["requests"]), (0, &json!(0)));
        assert_eq!(json["totals"]["cost_usd"], json!(0.0));
    }
    assert_eq!(empty.ok(&["report", "blocks"]), "no block in that time\n");
    assert!(empty.ok(&["ledger", "check"]).contains("no session"));
}

#[test]
fn what_cannot_be_understood_is_said_with_what_to_do() {
    let filled = mixed().stored();
    let said = filled.fails(&["report", "daily", "--timezone", "Mars/Olympus"]);
    assert!(said.contains("Mars/Olympus") && said.contains("Europe/Berlin"), "{said}");
    assert!(filled.fails(&["report", "daily", "--since", "yesterday"]).contains("2026-11-22"));
    filled.fails(&["report", "daily", "--since", "2026-11-22", "--until", "2026-11-21"]);
    filled.fails(&["report", "daily", "--by", "label:team,label:floor"]);
    let output = filled.run(&["report", "daily", "--by", "colour"]);
    assert!(!output.status.success() && stderr(&output).contains("label:KEY"), "{}", stderr(&output));
    let output = filled.run(&["report", "daily", "--json", "--csv"]);
    assert!(!output.status.success());
}

#[test]
fn transcripts_newer_than_the_ledger_are_pointed_out_unless_a_server_reads_them() {
    let filled = mixed().stored();
    let config = filled.home.path().join("config");
    let project = config.join("projects/p");
    std::fs::create_dir_all(&project).unwrap();
    let file = std::fs::File::create(project.join("s.jsonl")).unwrap();
    let said = |seconds: u64| {
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        let mut command = filled.home.command(&["report", "daily", "--app", "api"]);
        stderr(&command.env("CLAUDE_CONFIG_DIR", &config).output().unwrap())
    };
    // The ledger's newest read was of second 1,000.
    assert_eq!(said(1_000), "");
    assert!(said(1_001).contains("`taffrail import transcripts`"));
    filled.home.up();
    assert_eq!(said(1_001), "");
}

#[test]
fn a_report_reads_beside_a_running_server() {
    let filled = mixed().stored();
    filled.home.up();
    assert_eq!(filled.json(&["report", "daily"])["totals"]["requests"], 5);
}

#[test]
fn ledger_show_has_every_request_with_who_told_of_it() {
    let mut ledger = mixed();
    ledger.facts.failures.push(FailureSighting {
        witness: Witness::Transcript,
        ts: at("2026-11-20T10:30:00Z"),
        key: "f1".to_owned(),
        session_id: "api-1".to_owned(),
        agent_id: None,
        model: Some(ALPHA.to_owned()),
        status_code: Some(529),
        message: "Overloaded\x1b[2J".to_owned(),
        attempt: Some(2),
        attempts_max: Some(10),
        retry_in_ms: Some(1_000),
        exhausted: false,
    });
    ledger.facts.marks.push(Mark {
        key: "m1".to_owned(),
        session_id: "api-1".to_owned(),
        born: at("2020-01-02T00:00:00Z"),
        agent_id: None,
        ts: at("2026-11-20T09:59:00Z"),
        kind: MarkKind::Prompt { prompt_id: None },
        summary: "Find the bug".to_owned(),
    });
    let filled = ledger.stored();
    let text = filled.ok(&["ledger", "show", "--session", "api", "--all", "--timezone", "UTC"]);
    check_snapshot("ledger_show", &text);

    let page = filled.json(&["ledger", "show", "--session", "api-1"]);
    assert_eq!(page["session_id"], "api-1");
    let second = &rows(&page)[1];
    assert_eq!(
        (&second["ts"], &second["cost_usd"], &second["confidence"], &second["sources"]),
        (&json!("2026-11-20T11:00:00Z"), &json!(0.265), &json!("exact"), &json!(["transcript"]))
    );
    assert_eq!(rows(&page)[2]["agent_type"], "Explore");
    assert_eq!(page["totals"]["cost_usd"], json!(0.2815));
    assert_eq!(page["failures"], Value::Null);
    let page = filled.json(&["ledger", "show", "--session", "api-1", "--all"]);
    assert_eq!(page["failures"][0]["status_code"], 529);
    assert_eq!(page["marks"][0]["kind"], "prompt");
    let unpriced = filled.json(&["ledger", "show", "--session", "web-2"]);
    assert_eq!(
        (&rows(&unpriced)[0]["cost_usd"], &rows(&unpriced)[0]["confidence"]),
        (&Value::Null, &json!("unpriced"))
    );
    assert!(filled.fails(&["ledger", "show", "--session", "zzz"]).contains("zzz"));
}

#[test]
fn telemetry_completes_a_request_and_its_labels_split_a_report() {
    let provisional = RequestSighting {
        is_final: false,
        stop_reason: None,
        usage: Some(Usage { input: 1_000, output: 1, ..Usage::default() }),
        ..request("api-1", "2026-11-20T10:00:00Z", ALPHA)
    };
    let complete = RequestSighting {
        usage: Some(Usage { input: 1_000, output: 100, ..Usage::default() }),
        told_cost_nano_usd: Some(15_000_000),
        ..provisional.clone()
    };
    let mut ledger = Ledger::new().with([provisional, request("web-1", "2026-11-20T12:00:00Z", ALPHA)]);
    ledger.telemetry = vec![log_record(complete, "ann", &[("team", "core")])];
    let filled = ledger.stored();
    let page = filled.json(&["ledger", "show", "--session", "api-1"]);
    let row = &rows(&page)[0];
    assert_eq!(
        (&row["confidence"], &row["sources"], &row["told_cost_usd"], &row["cost_usd"]),
        (&json!("repaired"), &json!(["transcript", "otlp"]), &json!(0.015), &json!(0.015))
    );
    assert_eq!((&row["provisional_output_tokens"], &row["output_tokens"]), (&json!(1), &json!(100)));
    let text = filled.ok(&["ledger", "show", "--session", "api-1", "--timezone", "UTC"]);
    assert!(text.contains("1 -> 100"), "{text}");

    let split = |by: &str, key: &str| -> Vec<Value> {
        let report = filled.json(&["report", "daily", "--by", by]);
        rows(&report).iter().map(|row| json!([row[key], row["requests"]])).collect()
    };
    let mut labels = split("label:team", "label");
    labels.sort_by_key(ToString::to_string);
    assert_eq!(labels, [json!(["core", 1]), json!([null, 1])]);
    let mut users = split("user", "user");
    users.sort_by_key(ToString::to_string);
    assert_eq!(users, [json!(["ann", 1]), json!([null, 1])]);
    assert_eq!(filled.json(&["report", "daily", "--user", "ann"])["totals"]["requests"], 1);
    assert!(filled.ok(&["report", "daily", "--by", "label:team"]).contains("(none)"));
}

/// A session of one request of 1.5 cents, whose client told that total of dollars and of output.
fn told(dollars: f64, output: u64) -> Ledger {
    let cost_nano_usd = (dollars * 1e9) as i64;
    let mut ledger = Ledger::new().with([request("api-1", "2026-11-20T10:00:00Z", ALPHA)]);
    ledger.facts.totals.push(ClientTotal {
        session_id: "api-1".to_owned(),
        cost_nano_usd,
        models: vec![ClientModelTotal {
            model: ALPHA.to_owned(),
            usage: Usage { input: 1_000, output, ..Usage::default() },
            cost_nano_usd,
        }],
        has_unknown_model: false,
    });
    ledger
}

#[test]
fn money_that_only_the_client_counts_is_an_estimate_and_no_request() {
    // 19,700 tokens of output beyond the request's 100, at 50 dollars a million.
    let filled = told(1.0, 19_800).stored();
    let report = filled.json(&["report", "daily", "--timezone", "UTC"]);
    let totals = &report["totals"];
    assert_eq!((&totals["requests"], &totals["cost_usd"]), (&json!(1), &json!(1.0)));
    assert_eq!(totals["cost_by_confidence"]["estimated"], json!(0.985));
    let text = filled.ok(&["report", "daily", "--timezone", "UTC"]);
    assert!(text.contains("~$1.00") && text.contains("~ about this: $0.99 of it"), "{text}");
    let page = filled.json(&["ledger", "show", "--session", "api-1"]);
    let derived: Vec<&Value> = rows(&page).iter().filter(|row| row["confidence"] == "estimated").collect();
    assert_eq!(
        (derived.len(), &derived[0]["sources"], &derived[0]["cost_usd"]),
        (1, &json!([]), &json!(0.985))
    );
    let output = filled.run(&["ledger", "check", "--json"]);
    let check: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(check["findings"][0]["check"], "estimated");
}

#[test]
fn a_database_of_an_older_version_is_told_with_what_to_do() {
    let home = Home::new();
    home.ok(&["migrate", "up"]);
    home.ok(&["migrate", "down", "--to", "1"]);
    for command in [&["report", "daily"][..], &["ledger", "check"]] {
        assert!(home.fails(command).contains("taffrail migrate up"));
    }
}

#[test]
fn ledger_check_ends_well_where_all_adds_up() {
    let filled = told(0.015, 100).stored();
    let output = filled.run(&["ledger", "check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("everything adds up"), "{text}");
    let check = filled.json(&["ledger", "check"]);
    assert_eq!((&check["status"], &check["findings"]), (&json!("ok"), &json!([])));
    let session = &check["sessions"][0];
    assert_eq!(
        (&session["ledger_usd"], &session["client_usd"], &session["drift_usd"], &session["adds_up"]),
        (&json!(0.015), &json!(0.015), &json!(0.0), &json!(true))
    );
}

#[test]
fn ledger_check_ends_with_1_where_the_client_counts_less_or_more_than_the_ledger() {
    let filled = told(0.001, 100).stored();
    let output = filled.run(&["ledger", "check", "--session", "api"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let filled_more = told(1.0, 100).stored();
    let output = filled_more.run(&["ledger", "check"]);
    let more = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && more.contains("the client counts $0.9850 more"), "{more}");
    assert!(text.contains("FAULT") && text.contains("the ledger has $0.0140 more"), "{text}");
    assert!(text.contains("cause: ") && text.contains("hint: "), "{text}");
}

#[test]
fn ledger_check_names_unpriced_models_and_a_changed_price_table() {
    let filled = mixed().stored();
    let output = filled.run(&["ledger", "check", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let check: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = |check: &Value| -> Vec<String> {
        check["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["check"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(found(&check), ["unpriced", "lower_bound"]);
    assert_eq!(check["findings"][1]["level"], "note");

    filled.home.write("prices.toml", &PRICES.replace("input = 10\n", "input = 11\n"));
    let output = filled.run(&["ledger", "check", "--json", "--until", "2026-11-20"]);
    let check: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found(&check), ["prices", "lower_bound"]);
    filled.home.write("prices.toml", "[[price]]\nmodel = 7\n");
    assert!(filled.fails(&["ledger", "check"]).contains("prices.toml"));
}
