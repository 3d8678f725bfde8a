//! Windows against a slow recomputation from all events and calls at once, whatever came in whatever order under
//! whatever clock; and their limits.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use taffrail_analytics::window::{HISTORY_STEPS, Window};
use taffrail_event::event::GitOperation;
use taffrail_event::ledger::{RequestSighting, Usage};
use taffrail_event::normalize::calls as word;

use super::ledger::{line, told_by};
use super::model::{self, CallKey, Known};
use super::*;
use crate::record::{Memory, Recorder};
use crate::rollup::{self, DURATION_MS_MAX, Kind, OTHER};
use crate::windows::{Family as Of, Metric, Part, Subject};
use crate::{CostQuery, GroupBy, LedgerRow, ReadError, Scope, SeriesQuery};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A writer whose clock is an argument.
struct Desk {
    _dir: TempDir,
    conn: Connection,
    memory: Memory,
}

impl Desk {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let conn = crate::connect::read_write(&dir.path().join("taffrail.db")).unwrap();
        crate::migrate::up_on(&conn).unwrap();
        // No test here looks at what a crash leaves.
        conn.pragma_update(None, "synchronous", "OFF").unwrap();
        let memory = Memory::new(taffrail_event::prices::PriceTable::builtin());
        Self { _dir: dir, conn, memory }
    }

    fn append(&mut self, events: &[Event], committed_ms: i64) {
        let tx = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate).unwrap();
        let mut recorder = Recorder::new(&tx, &mut self.memory, committed_ms);
        for event in events {
            recorder.add(event).unwrap();
        }
        recorder.finish().unwrap();
        tx.commit().unwrap();
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, ReadError>) -> T {
        read(&self.conn).unwrap()
    }

    fn count(&self, sql: &str) -> i64 {
        self.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn requests(&self) -> Vec<LedgerRow> {
        let mut rows = Vec::new();
        self.read(|conn| {
            crate::ledger::each_request(conn, &CostQuery::default(), &mut |row| rows.push(row.clone()))
        });
        rows
    }
}

/// A call as the oracle sees it.
#[derive(Clone, Debug)]
struct OracleCall {
    session: String,
    agent_id: String,
    agent: String,
    known: Known,
    at: i64,
}

/// Everything that happened.
struct Truth {
    events: Vec<(Event, i64)>,
    calls: Vec<OracleCall>,
    requests: Vec<LedgerRow>,
}

impl Truth {
    /// Of distinct events with the clock of the commit that first brought each.
    fn of(events: Vec<(Event, i64)>, requests: Vec<LedgerRow>) -> Self {
        let plain: Vec<Event> = events.iter().map(|(event, _)| event.clone()).collect();
        let mut seen: BTreeMap<CallKey, (i64, Option<String>)> = BTreeMap::new();
        for event in &plain {
            for update in word::updates(event) {
                let agent = event.agent_id.clone().unwrap_or_default();
                let key = (event.session_id.clone(), agent, update.tool.tool_use_id.clone().unwrap());
                let entry = seen.entry(key).or_insert((i64::MAX, None));
                entry.0 = entry.0.min(event.ts.get());
                entry.1 = entry.1.clone().or_else(|| event.agent_type.clone());
            }
        }
        let calls = model::model_calls(&plain)
            .into_iter()
            .map(|(key, known)| {
                let (first, agent_type) = seen[&key].clone();
                let agent = if key.1.is_empty() {
                    "main".to_owned()
                } else {
                    agent_type.unwrap_or("subagent".to_owned())
                };
                OracleCall {
                    session: key.0,
                    agent_id: key.1,
                    agent,
                    at: known.started.unwrap_or(first),
                    known,
                }
            })
            .collect();
        Self { events, calls, requests }
    }
}

/// Where buckets make a subject's figures: a moment counts at the start of its bucket.
#[derive(Clone, Copy)]
struct Grain {
    total: i64,
    step: i64,
}

fn matches(wanted: &Option<String>, value: Option<&str>) -> bool {
    wanted.as_deref().is_none_or(|wanted| Some(wanted) == value)
}

fn agent_id_of(agent: &str) -> &str {
    if agent == "main" { "" } else { agent }
}

/// Figures of one span by looking at everything.
struct Slow<'t> {
    events: Vec<&'t (Event, i64)>,
    calls: Vec<&'t OracleCall>,
    requests: Vec<&'t LedgerRow>,
    /// Calls that may be in flight.
    flights: Vec<(i64, i64)>,
}

impl<'t> Slow<'t> {
    /// What of the truth belongs to the subject and satisfies `within` by its moment.
    fn of(truth: &'t Truth, subject: &Subject, span: (i64, i64), within: &dyn Fn(i64) -> bool) -> Self {
        let scope = &subject.scope;
        let is_session = scope.session.is_some();
        let in_scope = |app: &str, user: Option<&str>, session: &str| match &scope.session {
            Some(wanted) => wanted == session,
            None => matches(&scope.app, Some(app)) && matches(&scope.user, user),
        };
        let is_part = |call: &OracleCall| match &subject.part {
            Part::Whole => true,
            Part::Tool(tool) => *tool == call.known.tool,
            Part::Agent(agent) if is_session => agent_id_of(agent) == call.agent_id,
            Part::Agent(agent) => *agent == call.agent,
            Part::Model(_) => false,
        };
        let events = truth.events.iter().filter(|(event, _)| {
            let part = match &subject.part {
                Part::Whole => true,
                Part::Agent(agent) if is_session => {
                    agent_id_of(agent) == event.agent_id.as_deref().unwrap_or("")
                }
                _ => false,
            };
            part && in_scope(&event.app, event.user.as_deref(), &event.session_id) && within(event.ts.get())
        });
        let of_subject = |call: &&OracleCall| {
            is_part(call) && in_scope(&call.known.app, call.known.user.as_deref(), &call.session)
        };
        let calls = truth.calls.iter().filter(of_subject);
        let flights = calls.clone().filter_map(|call| match (call.known.status, call.known.ended) {
            (CallStatus::Running, _) => (call.at < span.1).then(|| (call.at, (call.at + HOUR).min(span.1))),
            (_, Some(ended)) => Some((call.at, ended)),
            _ => None,
        });
        let requests = truth.requests.iter().filter(|row| {
            let part = match &subject.part {
                Part::Whole => true,
                Part::Tool(_) => false,
                Part::Agent(agent) if is_session => {
                    agent_id_of(agent) == row.agent_id.as_deref().unwrap_or("")
                }
                Part::Agent(agent) => *agent == row.agent_type.as_deref().unwrap_or("main"),
                Part::Model(model) => *model == row.model,
            };
            part && in_scope(&row.app, row.user.as_deref(), &row.session_id) && within(row.ts.get())
        });
        Self {
            events: events.collect(),
            flights: flights.collect(),
            calls: calls
                .filter(|call| {
                    call.known.status != CallStatus::Running && call.known.ended.is_some_and(within)
                })
                .collect(),
            requests: requests.collect(),
        }
    }

    fn status(&self, status: CallStatus) -> f64 {
        self.calls.iter().filter(|call| call.known.status == status).count() as f64
    }

    fn durations(&self) -> Vec<f64> {
        let ended = self.calls.iter().filter(|call| call.known.status != CallStatus::Abandoned);
        ended
            .filter_map(|call| call.known.duration_ms)
            .map(|ms| ms.clamp(0, DURATION_MS_MAX) as f64)
            .collect()
    }

    fn latencies(&self) -> Vec<f64> {
        self.events.iter().map(|(event, committed)| (committed - event.ts.get()).max(0) as f64).collect()
    }

    fn files(&self, kind: Option<taffrail_event::event::FileOperationKind>) -> f64 {
        let operations = self.events.iter().flat_map(|(event, _)| &event.file_operations);
        operations.filter(|operation| kind.is_none_or(|kind| operation.kind == kind)).count() as f64
    }

    fn git(&self, count: impl Fn(&GitOperation) -> f64) -> f64 {
        self.events.iter().flat_map(|(event, _)| &event.git_operations).map(count).sum()
    }

    fn tokens(&self, count: impl Fn(&Usage) -> u64) -> f64 {
        self.requests.iter().map(|row| count(&row.usage)).sum::<u64>() as f64
    }

    fn value(&self, metric: Metric, (from, to): (i64, i64)) -> Option<f64> {
        use taffrail_event::event::FileOperationKind as File;
        let minutes = (to - from) as f64 / 60_000.0;
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let calls = self.calls.len() as f64 - self.status(CallStatus::Abandoned);
        let tried = calls - self.status(CallStatus::Denied) - self.status(CallStatus::Interrupted);
        let mean = |list: Vec<f64>| ratio(list.iter().sum(), list.len() as f64);
        let lines = |count: fn(&taffrail_event::event::FileOperation) -> Option<u32>| {
            let operations = self.events.iter().flat_map(|(event, _)| &event.file_operations);
            operations.map(|operation| f64::from(count(operation).unwrap_or(0))).sum::<f64>()
        };
        let cost = || {
            let known: Vec<i64> = self.requests.iter().filter_map(|row| row.cost_nano_usd).collect();
            (self.requests.is_empty() || !known.is_empty()).then(|| known.iter().sum::<i64>() as f64 / 1e9)
        };
        let request_ms =
            || self.requests.iter().filter_map(|row| row.duration_ms).map(|ms| ms as f64).collect::<Vec<_>>();
        let context =
            |usage: &Usage| usage.input + usage.cache_read + usage.cache_write_5m + usage.cache_write_1h;
        match metric {
            Metric::Calls => Some(calls),
            Metric::Succeeded => Some(self.status(CallStatus::Succeeded)),
            Metric::Failed => Some(self.status(CallStatus::Failed)),
            Metric::Denied => Some(self.status(CallStatus::Denied)),
            Metric::Interrupted => Some(self.status(CallStatus::Interrupted)),
            Metric::Abandoned => Some(self.status(CallStatus::Abandoned)),
            Metric::ErrorRatePercent => ratio(self.status(CallStatus::Failed) * 100.0, tried),
            Metric::SuccessPercent => ratio(self.status(CallStatus::Succeeded) * 100.0, tried),
            Metric::DeniedPercent => ratio(self.status(CallStatus::Denied) * 100.0, calls),
            Metric::ExecutionMsAvg => mean(self.durations()),
            Metric::ExecutionMsP50 => quantile(self.durations(), 0.5),
            Metric::ExecutionMsP95 => quantile(self.durations(), 0.95),
            Metric::ExecutionMsP99 => quantile(self.durations(), 0.99),
            Metric::ThroughputPerMin => Some(calls / minutes),
            Metric::ConcurrencyAvg => {
                let busy: i64 =
                    self.flights.iter().map(|(at, end)| ((*end).min(to) - (*at).max(from)).max(0)).sum();
                Some(busy as f64 / (to - from) as f64)
            }
            Metric::ConcurrencyMax => {
                let clipped: Vec<(i64, i64)> = self
                    .flights
                    .iter()
                    .map(|(at, end)| ((*at).max(from), (*end).min(to)))
                    .filter(|(a, b)| a < b)
                    .collect();
                let at_once = |t: i64| clipped.iter().filter(|(at, end)| *at <= t && t < *end).count();
                Some(clipped.iter().map(|(at, _)| at_once(*at)).max().unwrap_or(0) as f64)
            }
            Metric::Events => Some(self.events.len() as f64),
            Metric::Prompts => Some(
                self.events.iter().filter(|(event, _)| matches!(event.fact, Fact::Prompt { .. })).count()
                    as f64,
            ),
            Metric::Compactions => Some(
                self.events
                    .iter()
                    .map(|(event, _)| f64::from(event.metrics.compression_events.unwrap_or(0)))
                    .sum(),
            ),
            Metric::LatencyMsAvg => mean(self.latencies()),
            Metric::LatencyMsP50 => quantile(self.latencies(), 0.5),
            Metric::LatencyMsP95 => quantile(self.latencies(), 0.95),
            Metric::LatencyMsP99 => quantile(self.latencies(), 0.99),
            Metric::FileOperations => Some(self.files(None)),
            Metric::FileReads => Some(self.files(Some(File::Read))),
            Metric::FileWrites => Some(self.files(Some(File::Write))),
            Metric::FileEdits => Some(self.files(Some(File::Edit))),
            Metric::FileDeletes => Some(self.files(Some(File::Delete))),
            Metric::FileOperationsPerMin => Some(self.files(None) / minutes),
            Metric::LinesAdded => Some(lines(|operation| operation.lines_added)),
            Metric::LinesRemoved => Some(lines(|operation| operation.lines_removed)),
            Metric::GitOperations => Some(self.git(|_| 1.0)),
            Metric::GitCommits => {
                Some(self.git(|git| f64::from(git.subcommand == "commit" && git.commit.is_some())))
            }
            Metric::GitInsertions => Some(self.git(|git| f64::from(git.insertions.unwrap_or(0)))),
            Metric::GitDeletions => Some(self.git(|git| f64::from(git.deletions.unwrap_or(0)))),
            Metric::GitBranches => {
                let operations = self.events.iter().flat_map(|(event, _)| &event.git_operations);
                Some(operations.filter_map(|git| git.branch.clone()).collect::<BTreeSet<_>>().len() as f64)
            }
            Metric::Requests => Some(self.requests.len() as f64),
            Metric::InputTokens => Some(self.tokens(|usage| usage.input)),
            Metric::OutputTokens => Some(self.tokens(|usage| usage.output)),
            Metric::CacheReadTokens => Some(self.tokens(|usage| usage.cache_read)),
            Metric::CacheWriteTokens => {
                Some(self.tokens(|usage| usage.cache_write_5m + usage.cache_write_1h))
            }
            Metric::TotalTokens => Some(self.tokens(Usage::total)),
            Metric::CostUsd => cost(),
            Metric::CostHourlyUsd => cost().map(|usd| usd / minutes * 60.0),
            Metric::CacheHitPercent => {
                ratio(self.tokens(|usage| usage.cache_read) * 100.0, self.tokens(context))
            }
            Metric::ContextTokensAvg => ratio(self.tokens(context), self.requests.len() as f64),
            Metric::RequestMsAvg => mean(request_ms()),
            Metric::RequestMsP95 => quantile(request_ms(), 0.95),
        }
    }
}

/// The element at rank floor(q * (n - 1)).
fn quantile(mut list: Vec<f64>, q: f64) -> Option<f64> {
    list.sort_by(f64::total_cmp);
    let last = list.len().checked_sub(1)?;
    Some(list[(q * last as f64) as usize])
}

fn is_quantile(metric: Metric) -> bool {
    ["p50", "p95", "p99"].iter().any(|end| metric.name().ends_with(end))
}

/// Equal, but for the last digits, and quantiles within one percent.
fn close(metric: Metric, got: Option<f64>, want: Option<f64>) -> bool {
    let slack = if is_quantile(metric) { 0.01 + 1e-9 } else { 1e-9 };
    match (got, want) {
        (Some(got), Some(want)) => (got - want).abs() <= want.abs() * slack + 1e-9,
        (got, want) => got == want,
    }
}

/// Which metrics a subject has, in the words of the table in docs/ANALYTICS.md.
fn can_have(subject: &Subject, metric: Metric, has_ledger: bool) -> bool {
    let is_session = subject.scope.session.is_some();
    match (&subject.part, metric.family()) {
        (_, Of::Requests) if !has_ledger => false,
        (Part::Whole, _) => true,
        (Part::Tool(_), family) => family == Of::Calls,
        (Part::Agent(_), Of::Events) => is_session && metric != Metric::GitBranches,
        (Part::Agent(_), _) => true,
        (Part::Model(_), family) => family == Of::Requests,
    }
}

fn check_figures(desk: &Desk, truth: &Truth, subject: &Subject, window: Window, now: i64) {
    let figures = desk.read(|conn| crate::windows::read_figures(conn, window, subject, now));
    let (bounds, previous) = (window.bounds(now), window.previous(now));
    let is_session = subject.scope.session.is_some();
    let has_ledger = !truth.requests.is_empty();
    let grain = Grain { total: 1, step: if is_session { 1 } else { window.history_resolution().ms() } };
    let floor = |ms: i64, unit: i64| ms - ms.rem_euclid(unit);
    assert_eq!(figures.figures.len(), Metric::ALL.len());
    for (metric, figure) in &figures.figures {
        let (metric, name) = (*metric, metric.name());
        if !can_have(subject, metric, has_ledger) {
            assert_eq!(
                (figure.value, figure.previous, figure.history.as_slice()),
                (None, None, &[][..]),
                "{name}"
            );
            continue;
        }
        let span = (bounds.from, bounds.to);
        let total =
            Slow::of(truth, subject, span, &|ms| ms >= bounds.from && floor(ms, grain.total) < bounds.to);
        let want = total.value(metric, span);
        let at = format!("{name} of {subject:?} over {} at {now}", window.name());
        assert!(close(metric, figure.value, want), "{at}: {:?} for {want:?}", figure.value);
        let span = (previous.from, previous.to);
        let before = Slow::of(truth, subject, span, &|ms| ms >= previous.from && ms < previous.to);
        let want_before = before.value(metric, span);
        assert!(
            close(metric, figure.previous, want_before),
            "{at}, before: {:?} for {want_before:?}",
            figure.previous
        );
        let trend =
            figure.value.zip(figure.previous).filter(|(_, b)| *b != 0.0).map(|(v, b)| (v - b) / b * 100.0);
        assert_eq!(figure.trend_percent, trend);
        assert_eq!(figure.history.len(), HISTORY_STEPS);
        for (step, got) in figure.history.iter().enumerate() {
            let start = bounds.history_from + step as i64 * bounds.step;
            let of_step = |ms: i64| {
                // Requests are summed by quarters of an hour where steps are that long, and never past them.
                let unit = match metric.family() {
                    Of::Requests
                        if is_session
                            || bounds.step < 15 * MINUTE
                            || metric.name().starts_with("request_ms") =>
                    {
                        1
                    }
                    Of::Requests => 15 * MINUTE,
                    _ => grain.step,
                };
                let place = floor(ms, unit);
                let first = unit == 15 * MINUTE && step == 0 && ms >= bounds.history_from && place < start;
                ms < bounds.to
                    && (first || (place >= start && place < start + bounds.step))
                    && ms >= bounds.history_from
            };
            let clip = (start, (start + bounds.step).min(bounds.to));
            let slow = Slow::of(truth, subject, (bounds.from, bounds.to), &of_step);
            let want = match metric {
                Metric::ConcurrencyAvg => {
                    slow.value(metric, clip).map(|v| v * (clip.1 - clip.0) as f64 / bounds.step as f64)
                }
                Metric::ConcurrencyMax => slow.value(metric, clip),
                _ => slow.value(metric, (start, start + bounds.step)),
            };
            assert!(close(metric, *got, want), "{at}, step {step}: {got:?} for {want:?}");
        }
    }
}

/// How long before now something happened: within each window, and in the future.
fn any_age() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 1..MINUTE,
        4 => 1..15 * MINUTE,
        2 => 1..2 * HOUR,
        2 => 1..DAY,
        2 => 1..8 * DAY,
        2 => 1..61 * DAY,
        1 => -3 * DAY..-2 * HOUR,
    ]
}

/// The writer's clock at a commit, against now: right, late, or broken.
fn any_clock() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -10 * MINUTE..=0,
        2 => -3 * DAY..=0,
        1 => Just(24 * 365 * DAY),
        1 => Just(-50 * 365 * DAY),
    ]
}

#[derive(Clone, Debug)]
struct Ask {
    id: usize,
    session: usize,
    agent: bool,
    model: usize,
    tokens: u64,
    duration_ms: Option<u64>,
}

fn any_ask() -> impl Strategy<Value = Ask> {
    (0..40usize, 0..2usize, any::<bool>(), 0..3usize, 0..9_000u64, prop::option::of(1u64..90_000)).prop_map(
        |(id, session, agent, model, tokens, duration_ms)| Ask {
            id,
            session,
            agent,
            model,
            tokens,
            duration_ms,
        },
    )
}

const MODELS: [&str; 3] = ["claude-opus-5-5", "claude-haiku-4-5", "of-no-known-price"];

fn request(ask: &Ask, ts: i64) -> Event {
    let sighting = RequestSighting {
        witness: taffrail_event::ledger::Witness::OtlpLog,
        model: MODELS[ask.model].to_owned(),
        usage: Some(Usage {
            input: ask.tokens,
            output: ask.tokens / 3,
            cache_read: ask.tokens * 2,
            cache_write_5m: ask.tokens / 7,
            ..Usage::default()
        }),
        agent_id: ask.agent.then(|| "a1".to_owned()),
        agent_type: ask.agent.then(|| "Explore".to_owned()),
        duration_ms: ask.duration_ms,
        query_source: Some("sdk".to_owned()),
        ..line(&format!("session{}", ask.session), 0, ask.id, ts - T0)
    };
    told_by(&sighting, ts - T0)
}

fn subjects() -> Vec<Subject> {
    let text = |value: &str| Some(value.to_owned());
    let (app, user, session) = (text("app0"), text("user0"), text("session0"));
    let whole = |scope: Scope| Subject { scope, part: Part::Whole };
    let all = Scope::default();
    let of_app = Scope { app: app.clone(), ..Scope::default() };
    let of_session = Scope { session, ..Scope::default() };
    vec![
        whole(all.clone()),
        whole(of_app.clone()),
        whole(Scope { user: user.clone(), ..Scope::default() }),
        whole(Scope { app, user, ..Scope::default() }),
        whole(of_session.clone()),
        whole(Scope { app: text("nowhere"), ..Scope::default() }),
        Subject { scope: all.clone(), part: Part::Tool("Bash".to_owned()) },
        Subject { scope: of_app.clone(), part: Part::Tool("Read".to_owned()) },
        Subject { scope: of_session.clone(), part: Part::Tool("Bash".to_owned()) },
        Subject { scope: all.clone(), part: Part::Agent("main".to_owned()) },
        Subject { scope: all.clone(), part: Part::Agent("Explore".to_owned()) },
        Subject { scope: of_app, part: Part::Agent("subagent".to_owned()) },
        Subject { scope: of_session.clone(), part: Part::Agent("a1".to_owned()) },
        Subject { scope: of_session.clone(), part: Part::Agent("main".to_owned()) },
        Subject { scope: all, part: Part::Model(MODELS[0].to_owned()) },
        Subject { scope: of_session, part: Part::Model(MODELS[1].to_owned()) },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_metric_of_every_window_and_subject_is_what_all_rows_at_once_give(
        specs in prop::collection::vec((model::any_spec(), any_age(), any::<bool>()), 1..60),
        asks in prop::collection::vec((any_ask(), any_age()), 0..25),
        order in prop::collection::vec((any::<u32>(), 1usize..3), 90),
        clocks in prop::collection::vec(any_clock(), 90),
        group in 1usize..12,
        odd in 0i64..HOUR,
    ) {
        let now = T0 + odd;
        let mut times = BTreeSet::new();
        let mut facts = BTreeSet::new();
        let mut events = Vec::new();
        for (spec, age, typed) in &specs {
            let mut event = model::build(spec, now - age - T0);
            if !typed {
                event.agent_type = None;
            }
            if let Some(git) = event.git_operations.first_mut() {
                git.branch = Some(format!("branch{}", age % 3));
            }
            events.push(event);
        }
        events.extend(asks.iter().map(|(ask, age)| request(ask, now - age)));
        // Each moment and each fact once.
        events.retain(|event| times.insert(event.ts.get()) && facts.insert(event.dedup_key.0));
        let mut sent: Vec<(u32, Event)> = Vec::new();
        for (event, (place, times)) in events.iter().zip(&order) {
            for time in 0..*times {
                sent.push((place.rotate_left(7 * time as u32), event.clone()));
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let sent: Vec<Event> = sent.into_iter().map(|(_, event)| event).collect();
        let mut desk = Desk::new();
        let mut committed = BTreeMap::new();
        for (part, clock) in sent.chunks(group).zip(clocks.iter().cycle()) {
            // Rows tell the receipt where rollups tell the commit.
            let mut part = part.to_vec();
            for event in &mut part {
                let at = committed.entry(event.dedup_key.0).or_insert(now + clock);
                event.received = TimestampMs::clamped(*at);
            }
            desk.append(&part, now + clock);
        }
        let events = events.into_iter().map(|event| { let at = committed[&event.dedup_key.0]; (event, at) }).collect();
        let truth = Truth::of(events, desk.requests());
        for subject in subjects() {
            for window in Window::ALL {
                check_figures(&desk, &truth, &subject, *window, now);
            }
        }
    }
}

/// Calls of some agents over twenty days, denser towards the end.
fn busy_desk(now: i64) -> Desk {
    let mut desk = Desk::new();
    let mut events = Vec::new();
    let tools = ["Bash", "Read", "Edit", "Grep"];
    for n in 0..400i64 {
        let at = -(n * n * 97_003) % (20 * DAY) + 7 * MINUTE - n;
        let (id, name) = (format!("toolu_{n}"), tools[(n % 7 % 4) as usize]);
        let mut call = vec![pre(at - 500, Some(&id), name)];
        call.push(if n % 9 == 0 {
            failure(at, Some(&id), name)
        } else {
            post(at, Some(&id), name, Some(n as u64))
        });
        for event in call {
            let event = if n % 3 == 0 { of_agent(event, "a1") } else { event };
            let mut event = of_session(event, &format!("s{}", n % 5));
            event.app = format!("app{}", n % 5);
            events.push(event);
        }
    }
    for part in events.chunks(37) {
        desk.append(part, now);
    }
    desk
}

/// The whole week from Monday, and the tables, add up to what the figures say.
#[test]
fn series_heatmap_tools_and_agents_agree_with_the_figures() {
    let now = T0 + 7 * MINUTE + 1_234;
    let desk = busy_desk(now);
    for window in Window::ALL {
        for scope in [
            Scope::default(),
            Scope { app: Some("app2".to_owned()), ..Scope::default() },
            Scope { session: Some("s1".to_owned()), ..Scope::default() },
        ] {
            let whole = Subject { scope: scope.clone(), part: Part::Whole };
            let value = |subject: &Subject, metric: Metric| {
                let figures = desk.read(|conn| crate::windows::read_figures(conn, *window, subject, now));
                figures.figures.into_iter().find(|(of, _)| *of == metric).unwrap().1
            };
            let calls = value(&whole, Metric::Calls);
            let rows = desk.read(|conn| crate::windows::read_tools(conn, *window, &scope, now));
            assert_eq!(rows.calls as f64, calls.value.unwrap());
            for tool in &rows.tools {
                let subject = Subject { scope: scope.clone(), part: Part::Tool(tool.tool_name.clone()) };
                let of_tool = value(&subject, Metric::Calls);
                assert_eq!(Some(tool.calls.ended as f64), of_tool.value);
                assert_eq!(Some(tool.previous_calls as f64), of_tool.previous);
                let history: Vec<_> = tool.history.iter().map(|n| Some(*n as f64)).collect();
                assert_eq!(history, of_tool.history);
                assert_eq!(tool.execution_ms.p95, value(&subject, Metric::ExecutionMsP95).value);
            }
            let heat = desk.read(|conn| crate::windows::read_heatmap(conn, *window, &scope, now));
            for (step, want) in calls.history.iter().enumerate() {
                let sum: i64 = heat.tools.iter().map(|tool| tool.cells[step].calls).sum();
                assert_eq!(Some(sum as f64), *want, "{} {scope:?} {step}", window.name());
            }
            if let Some(week) = &heat.week {
                assert_eq!(week.iter().map(|cell| cell.calls).sum::<i64>() as f64, calls.value.unwrap());
            }
            let agents = desk.read(|conn| crate::windows::read_agents(conn, *window, &scope, now));
            assert_eq!(
                agents.iter().map(|agent| agent.calls.ended).sum::<i64>() as f64,
                calls.value.unwrap()
            );
            for by in [GroupBy::None, GroupBy::Tool, GroupBy::Agent, GroupBy::App] {
                if by == GroupBy::App && scope.session.is_some() {
                    continue;
                }
                let query = SeriesQuery {
                    metric: Metric::Calls,
                    window: *window,
                    group_by: by,
                    subject: whole.clone(),
                };
                let series = desk.read(|conn| crate::windows::read_series(conn, &query, now));
                for (step, want) in calls.history.iter().enumerate() {
                    let sum: f64 = series.series.iter().filter_map(|series| series.values[step]).sum();
                    assert_eq!(Some(sum), *want, "{} {scope:?} by {} at {step}", window.name(), by.name());
                }
                let total: f64 = series.series.iter().filter_map(|series| series.total).sum();
                assert_eq!(Some(total), calls.value);
            }
        }
    }
}

/// Names beyond the limit count as others, are taken back there, and a long name is cut.
#[test]
fn rows_are_bounded_however_many_tools_there_are() {
    let mut desk = Desk::new();
    let limit = Kind::Tool.max();
    let tools = limit + 50;
    let end = |n: i64, ended: bool| {
        let (id, name) = (format!("toolu_{n}"), format!("mcp__{n}__x"));
        if ended { post(n, Some(&id), &name, Some(5)) } else { pre(n - 5_000, Some(&id), &name) }
    };
    for ended in [false, true] {
        let events: Vec<Event> = (0..tools).map(|n| end(n, ended)).collect();
        desk.append(&events, T0 + HOUR);
    }
    // A better word on a call of the others moves it out of its minute.
    let late = (tools - 1, 3 * MINUTE);
    let mut told = failure(late.1, Some(&format!("toolu_{}", late.0)), &format!("mcp__{}__x", late.0));
    told.type_name = "PostToolUse2".to_owned();
    desk.append(&[told], T0 + HOUR);
    let rows = desk.count("SELECT count(DISTINCT tool) FROM rollup_tool_hour WHERE app = '' AND user = ''");
    assert_eq!(rows, limit + 1);
    assert_eq!(desk.count("SELECT count(*) FROM rollup_names WHERE kind = 'tool'"), limit);
    let others = "SELECT sum(calls) FROM rollup_tool_hour WHERE app = '' AND user = '' AND tool = '(other)'";
    assert_eq!(desk.count(others), 50);
    assert_eq!(desk.count("SELECT sum(calls) FROM rollup_tool_hour WHERE app = '' AND user = ''"), tools);
    assert_eq!(desk.count("SELECT count(*) FROM rollup_tool_hour WHERE calls < 0"), 0);
    let stats = desk.read(|conn| crate::windows::read_tools(conn, Window::H24, &Scope::default(), T0 + HOUR));
    assert_eq!((stats.tools.len(), stats.calls), (crate::TOOLS_MAX, tools));
    assert_eq!(stats.tools[0].tool_name, OTHER);
}

#[test]
fn a_tool_with_a_name_of_10_kb_is_cut_and_found() {
    let mut desk = Desk::new();
    let long = "ä".repeat(5_000);
    let other = format!("{}x", "ä".repeat(4_999));
    desk.append(
        &[
            pre(0, Some("1"), &long),
            post(9, Some("1"), &long, Some(9)),
            pre(1, Some("2"), &other),
            post(10, Some("2"), &other, Some(9)),
        ],
        T0 + 20,
    );
    assert_eq!(desk.count("SELECT count(DISTINCT tool) FROM rollup_tool_minute"), 2);
    let longest = desk.count("SELECT max(length(CAST(tool AS BLOB))) FROM rollup_tool_minute");
    assert!(longest <= rollup::NAME_BYTES_MAX as i64, "{longest}");
    for name in [long, other] {
        let subject = Subject { scope: Scope::default(), part: Part::Tool(name) };
        let figures = desk.read(|conn| crate::windows::read_figures(conn, Window::H1, &subject, T0 + 20));
        assert_eq!(figures.figures[0].1.value, Some(1.0));
    }
}

#[test]
fn five_thousand_sessions_at_once_and_the_ends_of_time_are_counted() {
    let mut desk = Desk::new();
    let events: Vec<Event> = (0..5_000).map(|n| of_session(prompt(n % 900), &format!("s{n}"))).collect();
    desk.append(&events, T0 + 1_000);
    let ends = [TimestampMs::MIN, TimestampMs::MAX].map(|ts| {
        let mut event = of_session(prompt(7), "ends");
        event.ts = ts;
        event.event_id = EventId::derived(&[&ts.get().to_le_bytes()]);
        event.dedup_key = DedupKey::of_delivery("ends", event.event_id);
        event
    });
    for clock in [T0, i64::MIN / 4, i64::MAX / 4, T0 + 2_000] {
        desk.append(&ends, clock);
    }
    let subject = Subject::default();
    for (window, now, want) in [
        (Window::H1, T0 + 2_000, 5_000.0),
        (Window::D30, T0 + 2_000, 5_000.0),
        (Window::D30, TimestampMs::MIN.get() + 1, 1.0),
        (Window::H1, TimestampMs::MAX.get(), 1.0),
    ] {
        let figures = desk.read(|conn| crate::windows::read_figures(conn, window, &subject, now));
        let events = figures.figures.iter().find(|(metric, _)| *metric == Metric::Events).unwrap();
        assert_eq!(events.1.value, Some(want), "{} at {now}", window.name());
    }
    assert_eq!(desk.count("SELECT count(*) FROM sessions"), 5_001);
}

/// Fine rows are deleted when they are old, and a day's rows are made once, of its hours.
#[test]
fn fine_rows_go_and_days_come() {
    let mut desk = Desk::new();
    for day in 0..7i64 {
        let events: Vec<Event> =
            (0..50).map(|n| of_session(prompt(day * DAY + n * 60_000), &format!("d{day}-{n}"))).collect();
        desk.append(&events, T0 + day * DAY + 50 * MINUTE);
        let fine = desk.count("SELECT count(*) FROM rollup_fine WHERE app = '' AND user = ''");
        assert!((19..=25).contains(&fine), "day {day}: {fine}");
    }
    assert_eq!(desk.count("SELECT count(*) FROM rollup_day WHERE app = '' AND user = ''"), 6);
    assert_eq!(desk.count("SELECT sum(events) FROM rollup_day WHERE app = '' AND user = ''"), 300);
    // What comes late opens its day, which is read by its hours, until it is quiet.
    let end = T0 + 6 * DAY + 50 * MINUTE;
    desk.append(&[of_session(prompt(2 * DAY + 1), "late")], end);
    let closed = "SELECT count(*) FROM rollup_days WHERE closed = 1";
    let events = |desk: &Desk| {
        let figures =
            desk.read(|conn| crate::windows::read_figures(conn, Window::D30, &Subject::default(), end));
        figures.figures.iter().find(|(metric, _)| *metric == Metric::Events).unwrap().1.value
    };
    assert_eq!((desk.count(closed), events(&desk)), (5, Some(351.0)));
    desk.append(&[of_session(prompt(6 * DAY - 1), "later")], end + 30_000);
    desk.append(&[of_session(prompt(6 * DAY + HOUR - 1), "last")], end + 61_000);
    assert_eq!((desk.count(closed), events(&desk)), (6, Some(352.0)));
    assert_eq!(desk.count("SELECT sum(events) FROM rollup_day WHERE app = '' AND user = ''"), 301);
    // All of it at once into a new one: the same days after as many commits as there are days.
    let mut other = Desk::new();
    let events: Vec<Event> = (0..350i64)
        .map(|n| of_session(prompt(n / 50 * DAY + n % 50 * 60_000), &format!("d{}-{}", n / 50, n % 50)))
        .collect();
    other.append(&events, T0 + 6 * DAY + 50 * MINUTE);
    for n in 0..8 {
        let clock = 6 * DAY + 52 * MINUTE + n * 61_000;
        other.append(&[of_session(prompt(clock), "late")], T0 + clock);
    }
    let days = "SELECT count(*) * 1000000 + sum(events) FROM rollup_day WHERE app = 'app' AND user = 'ann'";
    assert_eq!(other.count(days), 6_000_300);
    let named = "SELECT count(*) FROM rollup_names";
    assert_eq!((other.count(named), desk.count(named)), (2, 2));
}

/// What the migration counts anew is what the writer would have counted.
#[test]
fn a_database_from_before_has_the_same_rows_after_the_migration() {
    let now = T0 + 7 * MINUTE;
    let desk = busy_desk(now);
    let mut branch = event(5, "PostToolUse", Fact::CwdChanged);
    branch.git_operations = vec![GitOperation { branch: Some("main".to_owned()), ..GitOperation::default() }];
    let mut desk = desk;
    desk.append(&[branch], now);
    let tables = ["rollup_agent_minute", "rollup_agent_hour", "rollup_branches", "rollup_names"];
    let dump = |desk: &Desk, table: &str| -> Vec<String> {
        let filter = if table == "rollup_branches" { "WHERE resolution < 86400000" } else { "" };
        let mut statement = desk.conn.prepare(&format!("SELECT * FROM {table} {filter}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|at| row.get_ref(at).map(|value| format!("{value:?}")))
                .collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.unwrap().map(|row| row.unwrap().join(", ")).collect()
    };
    let before = tables.map(|table| dump(&desk, table));
    assert!(before.iter().all(|rows| !rows.is_empty()));
    let path = std::path::PathBuf::from(desk.conn.path().unwrap());
    crate::migrate::down(&path, 4).unwrap();
    crate::migrate::up(&path).unwrap();
    for (table, before) in tables.iter().zip(&before) {
        assert_eq!(&dump(&desk, table), before, "{table}");
    }
    let days = "SELECT sum(calls) FROM rollup_day WHERE app = '' AND user = ''";
    let end = desk.count("SELECT max(day) + 86400000 FROM rollup_days WHERE closed = 1");
    let hours = format!("SELECT sum(calls) FROM rollup_hour WHERE app = '' AND user = '' AND bucket < {end}");
    assert!(desk.count(days) > 0);
    assert_eq!(desk.count(days), desk.count(&hours));
    let figures = desk.read(|conn| crate::windows::read_figures(conn, Window::M15, &Subject::default(), now));
    let calls = &figures.figures[0].1;
    assert_eq!(calls.history.iter().flatten().sum::<f64>() > 0.0, calls.value > Some(0.0));
}
