//! Random streams, in any order, with repeats and in any groups, against a slow model that looks at all events at once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;
use taffrail_event::RowId;
use taffrail_event::event::{
    BatchedCall, CallUpdate, ClosesCalls, Fact, FileOperation, FileOperationKind, GitOperation,
};
use taffrail_event::normalize::calls as word;

use super::*;
use crate::calls::Call;

const AGENTS: [Option<&str>; 2] = [None, Some("a1")];
const TOOLS: [&str; 3] = ["Bash", "Read", "mcp__x__y"];

/// What a generated event is, before it has a time.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Pre(usize),
    Post(usize, Option<u64>),
    Failure(usize),
    Interrupt(usize),
    Denied(usize),
    Told(usize, CallStatus, Option<u64>),
    Batch(Vec<usize>),
    Stop,
    SessionEnd,
    Prompt,
    Compact,
    Edit(u32),
    Commit,
}

#[derive(Clone, Debug)]
pub(super) struct Spec {
    kind: Kind,
    session: usize,
    agent: usize,
    app: usize,
    user: Option<usize>,
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let call = 0usize..5;
    prop_oneof![
        6 => call.clone().prop_map(Kind::Pre),
        4 => (call.clone(), prop::option::of(0u64..5_000)).prop_map(|(c, ms)| Kind::Post(c, ms)),
        2 => call.clone().prop_map(Kind::Failure),
        1 => call.clone().prop_map(Kind::Interrupt),
        1 => call.clone().prop_map(Kind::Denied),
        3 => (call.clone(), prop::sample::select(vec![CallStatus::Succeeded, CallStatus::Failed, CallStatus::Denied]),
            prop::option::of(0u64..5_000)).prop_map(|(c, status, ms)| Kind::Told(c, status, ms)),
        2 => prop::collection::vec(call, 1..4).prop_map(Kind::Batch),
        1 => Just(Kind::Stop),
        1 => Just(Kind::SessionEnd),
        1 => Just(Kind::Prompt),
        1 => Just(Kind::Compact),
        1 => (0u32..9).prop_map(Kind::Edit),
        1 => Just(Kind::Commit),
    ]
}

pub(super) fn any_spec() -> impl Strategy<Value = Spec> {
    (any_kind(), 0usize..2, 0usize..2, 0usize..2, prop::option::of(0usize..2))
        .prop_map(|(kind, session, agent, app, user)| Spec { kind, session, agent, app, user })
}

/// A call's id tells its tool, as in life.
fn call_tool(call: usize) -> (String, &'static str) {
    (format!("toolu_{call}"), TOOLS[call % TOOLS.len()])
}

pub(super) fn build(spec: &Spec, ms: i64) -> Event {
    let mut built = match &spec.kind {
        Kind::Pre(call) => {
            let (id, name) = call_tool(*call);
            pre(ms, Some(&id), name)
        }
        Kind::Post(call, duration_ms) => {
            let (id, name) = call_tool(*call);
            post(ms, Some(&id), name, *duration_ms)
        }
        Kind::Failure(call) => {
            let (id, name) = call_tool(*call);
            failure(ms, Some(&id), name)
        }
        Kind::Interrupt(call) => {
            let (id, name) = call_tool(*call);
            let outcome = ToolOutcome { status: CallStatus::Interrupted, duration_ms: None };
            of_tool(
                event(ms, "PostToolUseFailure", Fact::ToolEnd(tool(Some(&id), name), outcome)),
                Some(&id),
                name,
            )
        }
        Kind::Denied(call) => {
            let (id, name) = call_tool(*call);
            of_tool(
                event(ms, "PermissionDenied", Fact::PermissionDenied(tool(Some(&id), name))),
                Some(&id),
                name,
            )
        }
        Kind::Told(call, status, duration_ms) => {
            let (id, name) = call_tool(*call);
            let outcome = ToolOutcome { status: *status, duration_ms: *duration_ms };
            let told = ToolRef { input_hash: 0, ..tool(Some(&id), name) };
            of_tool(event(ms, "claude_code.tool_result", Fact::ToolTold(told, outcome)), Some(&id), name)
        }
        Kind::Batch(calls) => {
            let batched = |call: &usize| {
                let (id, name) = call_tool(*call);
                BatchedCall { tool: tool(Some(&id), name), status: CallStatus::Ended }
            };
            event(ms, "PostToolBatch", Fact::ToolBatch(calls.iter().map(batched).collect()))
        }
        Kind::Stop if spec.agent > 0 => event(ms, "SubagentStop", Fact::SubagentStop { compaction: false }),
        Kind::Stop => event(ms, "Stop", Fact::Stop),
        Kind::SessionEnd => event(ms, "SessionEnd", Fact::SessionEnd { reason: None }),
        Kind::Prompt => prompt(ms),
        Kind::Compact => {
            let mut compact = event(ms, "PostCompact", Fact::PostCompact);
            compact.metrics.compression_events = Some(1);
            compact
        }
        Kind::Edit(lines) => {
            let mut edit = event(ms, "FileChanged", Fact::FileChanged);
            edit.file_operations = vec![FileOperation {
                kind: FileOperationKind::Edit,
                path: "/project/a.rs".to_owned(),
                size_bytes: None,
                duration_ms: None,
                lines_added: Some(*lines),
                lines_removed: None,
            }];
            edit
        }
        Kind::Commit => {
            let mut commit = event(ms, "CwdChanged", Fact::CwdChanged);
            commit.git_operations = vec![GitOperation {
                command: "git commit".to_owned(),
                subcommand: "commit".to_owned(),
                commit: Some("abc1234".to_owned()),
                insertions: Some(3),
                ..GitOperation::default()
            }];
            commit
        }
    };
    built.app = format!("app{}", spec.app);
    built.user = spec.user.map(|user| format!("user{user}"));
    if let Some(agent) = AGENTS[spec.agent] {
        built = of_agent(built, agent);
    }
    of_session(built, &format!("session{}", spec.session))
}

/// Events with times of their own, over some minutes, each of another fact. What repeats a fact at another time is
/// left out: which of the two came first is then no matter of order any more.
pub(super) fn stream(specs: &[Spec]) -> Vec<Event> {
    let mut known = std::collections::BTreeSet::new();
    let events = specs.iter().zip(0i64..).map(|(spec, n)| build(spec, n * 9_700));
    events.filter(|event| known.insert(event.dedup_key.0)).collect()
}

/// What of a call does not depend on row ids.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) app: String,
    pub(super) user: Option<String>,
    pub(super) tool: String,
    pub(super) status: CallStatus,
    pub(super) started: Option<i64>,
    pub(super) ended: Option<i64>,
    pub(super) duration_ms: Option<i64>,
    error: Option<String>,
}

pub(super) type CallKey = (String, String, String);

fn stored_calls(conn: &Connection) -> BTreeMap<CallKey, Known> {
    let known = |call: Call| {
        let key = (call.session_id.clone(), call.agent_id.clone(), call.tool_use_id.clone().unwrap());
        let duration_ms = call.duration_ms();
        let known = Known {
            app: call.app,
            user: call.user,
            tool: call.tool_name,
            status: call.status,
            started: call.started,
            ended: call.ended,
            duration_ms,
            error: call.error_type,
        };
        (key, known)
    };
    crate::calls::all(conn).unwrap().into_iter().map(known).collect()
}

/// The model: for each call, every word on it, weighed at once.
pub(super) fn model_calls(events: &[Event]) -> BTreeMap<CallKey, Known> {
    let mut words: BTreeMap<CallKey, Vec<(&Event, CallUpdate)>> = BTreeMap::new();
    for event in events {
        for update in word::updates(event) {
            let agent = event.agent_id.clone().unwrap_or_default();
            let key = (event.session_id.clone(), agent, update.tool.tool_use_id.clone().unwrap());
            words.entry(key).or_default().push((event, update));
        }
    }
    words.into_iter().map(|(key, words)| (key.clone(), weigh(&key, &words, events))).collect()
}

fn weigh(key: &CallKey, words: &[(&Event, CallUpdate)], events: &[Event]) -> Known {
    let seen = words.iter().map(|(event, _)| event.ts.get()).min().unwrap();
    let first = words.iter().min_by_key(|(event, _)| event.ts).unwrap();
    let strength = |status| CallStatus::ALL.iter().position(|s| *s == status);
    let best = words
        .iter()
        .max_by_key(|(event, update)| (update.rank, strength(update.status), std::cmp::Reverse(event.ts)))
        .unwrap();
    let started = words.iter().filter_map(|(_, update)| update.started).map(TimestampMs::get).min();
    let told = words.iter().filter_map(|(_, update)| update.duration_ms).max().map(|ms| ms as i64);
    let mut known = Known {
        app: first.0.app.clone(),
        user: first.0.user.clone(),
        tool: first.1.tool.tool_name.clone(),
        status: CallStatus::Running,
        started,
        ended: None,
        duration_ms: told,
        error: None,
    };
    if best.1.rank > word::RANK_CLOSED {
        known.app.clone_from(&best.0.app);
        known.user.clone_from(&best.0.user);
        known.status = best.1.status;
        known.ended = Some(best.0.ts.get());
        known.error = best.0.error.as_ref().map(|e| e.class.to_owned());
        if best.1.rank == word::RANK_POST && told.is_none() {
            known.duration_ms = started.map(|started| (best.0.ts.get() - started).max(0));
        }
        return known;
    }
    let closes = |event: &&Event| match word::closes(event) {
        ClosesCalls::None => false,
        ClosesCalls::OfAgent => event.agent_id.as_deref().unwrap_or("") == key.1,
        ClosesCalls::OfSession => true,
    };
    let of_session = events.iter().filter(|event| event.session_id == key.0 && event.ts.get() >= seen);
    if let Some(close) = of_session.filter(closes).map(|event| event.ts.get()).min() {
        known.status = CallStatus::Abandoned;
        known.ended = Some(close);
    }
    known
}

/// One rollup row's figures, by name.
type Figures = BTreeMap<&'static str, i64>;
/// Table or resolution, app, user, bucket, tool or class.
type RollupKey = (i64, String, String, i64, String);

fn add(
    rollups: &mut BTreeMap<RollupKey, Figures>,
    at: (i64, &str, Option<&str>, &str),
    figures: &[(&'static str, i64)],
) {
    let (ms, app, user, rest) = at;
    let user = user.unwrap_or("");
    let mut levels = vec![("", ""), (app, ""), ("", user), (app, user)];
    levels.sort_unstable();
    levels.dedup();
    for length in [60_000, 3_600_000] {
        for (app, user) in &levels {
            let key = (length, (*app).to_owned(), (*user).to_owned(), ms / length * length, rest.to_owned());
            let row = rollups.entry(key).or_default();
            for (name, value) in figures.iter().filter(|(_, value)| *value != 0) {
                *row.entry(name).or_default() += value;
            }
        }
    }
}

fn model_rollups(events: &[Event], calls: &BTreeMap<CallKey, Known>) -> BTreeMap<RollupKey, Figures> {
    let mut rollups = BTreeMap::new();
    for event in events {
        let at = |rest| (event.ts.get(), event.app.as_str(), event.user.as_deref(), rest);
        let lines: i64 = event.file_operations.iter().map(|f| i64::from(f.lines_added.unwrap_or(0))).sum();
        let figures = [
            ("events", 1),
            ("prompts", i64::from(matches!(event.fact, Fact::Prompt { .. }))),
            ("compactions", i64::from(event.metrics.compression_events.unwrap_or(0))),
            ("files_edited", event.file_operations.len() as i64),
            ("lines_added", lines),
            ("git_operations", event.git_operations.len() as i64),
            ("git_commits", event.git_operations.len() as i64),
            ("git_insertions", event.git_operations.len() as i64 * 3),
        ];
        add(&mut rollups, at("scope"), &figures);
        if let Some(error) = &event.error {
            add(&mut rollups, at(&format!("error {}", error.class)), &[("count", 1)]);
        }
    }
    for call in calls.values() {
        let Some(ended) = call.ended else { continue };
        let is = |status| i64::from(call.status == status);
        let counts = 1 - is(CallStatus::Abandoned);
        let figures = [
            ("calls", counts),
            ("succeeded", is(CallStatus::Succeeded)),
            ("failed", is(CallStatus::Failed)),
            ("denied", is(CallStatus::Denied)),
            ("interrupted", is(CallStatus::Interrupted)),
            ("abandoned", is(CallStatus::Abandoned)),
            ("duration_sum", counts * call.duration_ms.unwrap_or(0)),
            ("duration_count", counts * i64::from(call.duration_ms.is_some())),
        ];
        for rest in ["scope".to_owned(), format!("tool {}", call.tool)] {
            add(&mut rollups, (ended, &call.app, call.user.as_deref(), &rest), &figures);
        }
    }
    rollups.retain(|_, row| !row.is_empty());
    rollups
}

fn stored_rollups(conn: &Connection) -> BTreeMap<RollupKey, Figures> {
    let mut rollups = BTreeMap::new();
    let tables = [
        ("rollup_minute", 60_000, "'scope'"),
        ("rollup_hour", 3_600_000, "'scope'"),
        ("rollup_tool_minute", 60_000, "'tool ' || tool"),
        ("rollup_tool_hour", 3_600_000, "'tool ' || tool"),
        ("rollup_errors", 0, "'error ' || class"),
    ];
    for (table, length, rest) in tables {
        let length = if length == 0 { "resolution".to_owned() } else { length.to_string() };
        let mut statement = conn
            .prepare(&format!(
                "SELECT {length} AS l, app AS a, user AS u, bucket AS b, {rest} AS r, * FROM {table}"
            ))
            .unwrap();
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let key = (
                row.get(0).unwrap(),
                row.get(1).unwrap(),
                row.get(2).unwrap(),
                row.get(3).unwrap(),
                row.get(4).unwrap(),
            );
            let mut figures = Figures::new();
            for (index, name) in names.iter().enumerate().skip(5) {
                let is_key =
                    ["app", "user", "bucket", "tool", "class", "resolution"].contains(&name.as_str());
                let Ok(value) = row.get::<_, i64>(index) else { continue };
                if !is_key && value != 0 {
                    figures.insert(FIGURES.iter().find(|f| *f == name).unwrap(), value);
                }
            }
            if !figures.is_empty() {
                rollups.insert(key, figures);
            }
        }
    }
    rollups
}

const FIGURES: [&str; 22] = [
    "events",
    "calls",
    "succeeded",
    "failed",
    "denied",
    "interrupted",
    "abandoned",
    "duration_sum",
    "duration_count",
    "prompts",
    "compactions",
    "files_read",
    "files_written",
    "files_edited",
    "files_deleted",
    "lines_added",
    "lines_removed",
    "git_operations",
    "git_commits",
    "git_insertions",
    "git_deletions",
    "count",
];

/// Counts of sessions and agents, by the events and calls themselves.
fn check_sessions(conn: &Connection, events: &[Event], calls: &BTreeMap<CallKey, Known>) {
    let count = |sql: &str| -> BTreeMap<(String, String), (i64, i64, i64)> {
        let mut statement = conn.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |r| Ok(((r.get(0)?, r.get(1)?), (r.get(2)?, r.get(3)?, r.get(4)?))))
            .unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let mut agents: BTreeMap<(String, String), (i64, i64, i64)> = BTreeMap::new();
    for event in events {
        let key = (event.session_id.clone(), event.agent_id.clone().unwrap_or_default());
        agents.entry(key).or_default().0 += 1;
    }
    for ((session, agent, _), call) in calls {
        let row = agents.entry((session.clone(), agent.clone())).or_default();
        row.1 += 1;
        row.2 += i64::from(call.status == CallStatus::Failed);
    }
    let mut sessions: BTreeMap<(String, String), (i64, i64, i64)> = BTreeMap::new();
    for ((session, _), (events, calls, failed)) in &agents {
        let row = sessions.entry((session.clone(), String::new())).or_default();
        *row = (row.0 + events, row.1 + calls, row.2 + failed);
    }
    assert_eq!(count("SELECT session_id, agent_id, events, calls, failed_calls FROM agents"), agents);
    assert_eq!(count("SELECT session_id, '', events, calls, failed_calls FROM sessions"), sessions);
    let subagents: i64 = conn.query_row("SELECT sum(subagents) FROM sessions", [], |r| r.get(0)).unwrap();
    assert_eq!(subagents, agents.keys().filter(|(_, agent)| !agent.is_empty()).count() as i64);
    let total: i64 =
        conn.query_row("SELECT sum(count) FROM facets WHERE kind = 'app'", [], |r| r.get(0)).unwrap();
    assert_eq!(total, events.len() as i64);
}

/// The wall time of every call that ended is in the sketches once.
fn check_sketches(conn: &Connection, calls: &BTreeMap<CallKey, Known>) {
    let mut statement =
        conn.prepare("SELECT duration_sketch FROM rollup_hour WHERE app = '' AND user = '' AND duration_sketch IS NOT NULL").unwrap();
    let blobs = statement.query_map([], |r| r.get::<_, Vec<u8>>(0)).unwrap();
    let in_sketches: u64 =
        blobs.map(|blob| taffrail_analytics::Sketch::from_bytes(&blob.unwrap()).unwrap().count()).sum();
    let counts = |status| !matches!(status, CallStatus::Running | CallStatus::Abandoned);
    let known = calls.values().filter(|call| call.duration_ms.is_some() && counts(call.status)).count();
    assert_eq!(in_sketches, known as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_order_with_repeats_gives_what_all_events_at_once_give(
        specs in prop::collection::vec(any_spec(), 1..40),
        order in prop::collection::vec((any::<u32>(), 1usize..3), 40),
        group in 1usize..9,
        reopen_after in prop::option::of(1usize..6),
    ) {
        let events = stream(&specs);
        // Each is sent once or twice, at random places.
        let mut sent: Vec<(u32, Event)> = Vec::new();
        for (event, (place, times)) in events.iter().zip(&order) {
            for time in 0..*times {
                sent.push((place.rotate_left(7 * time as u32), event.clone()));
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let sent: Vec<Event> = sent.into_iter().map(|(_, event)| event).collect();
        let mut bed = Bed::new();
        for (n, part) in sent.chunks(group).enumerate() {
            bed.store.append(part.to_vec()).unwrap();
            if reopen_after == Some(n) {
                bed = bed.reopen();
            }
        }
        let conn = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
        let calls = model_calls(&events);
        prop_assert_eq!(&stored_calls(&conn), &calls);
        prop_assert_eq!(stored_rollups(&conn), model_rollups(&events, &calls));
        check_sessions(&conn, &events, &calls);
        check_sketches(&conn, &calls);
        let ids = conn.prepare("SELECT id, timestamp FROM events").unwrap()
            .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))).unwrap()
            .collect::<rusqlite::Result<Vec<_>>>().unwrap();
        prop_assert!(ids.iter().all(|(id, ts)| RowId(*id).ts().get() == *ts));
    }
}
