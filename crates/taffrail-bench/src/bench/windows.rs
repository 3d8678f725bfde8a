//! The reads of the windows in the store itself, on the large database: no HTTP, no JSON.
//!
//! Every read is looked at for every window and kind of scope, in turn, on one connection; answers are checked for rows.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use taffrail_analytics::Window;
use taffrail_event::TimestampMs;
use taffrail_store::{
    Durability, GroupBy, Metric, Options, Part, Reader, Scope, SeriesQuery, Store, Subject,
};

use super::Bench;
use crate::clock::now_ms;
use crate::fill;
use crate::report::{Section, group};
use crate::stats::Samples;
use crate::workload::{APPS, Fleet, FleetOptions};

const SUMMARY_TARGET_MS: f64 = 10.0;
const READ_TARGET_MS: f64 = 50.0;
/// The last day, appended just before, is as busy as one of ten million events in thirty days, whatever the size.
const FRESH_SPAN_MS: i64 = 24 * 3_600_000;
const FRESH_GAP_US: u64 = 260_000;
const FRESH_BATCH: usize = 1_000;

/// A read, told by what it found.
type Read = Box<dyn Fn(&Reader, TimestampMs) -> Result<usize>>;

struct Case {
    name: String,
    target_ms: f64,
    read: Read,
}

pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let dir = bench.large_db()?;
    let events = group(bench.db_events as f64);
    let mut section = Section::new(
        "",
        &format!("How long do the reads of the windows take in the store, on {events} events?"),
        "One connection, all reads in turn; `summary` and `figures` (every metric with its history) for every kind of scope, \
         the rest for all of it. The last day is as busy as one of ten million events in thirty days.",
    );
    let mut options = Options::new(dir.join("taffrail.db"));
    options.durability = Durability::Process;
    let store = Store::open(&options)?;
    let fresh_ms = bench.size.of(600_000, FRESH_SPAN_MS, FRESH_SPAN_MS);
    top_up(&store, fresh_ms)?;
    let reader = store.reader()?;
    let cases = cases(fill::session_id(bench.db_events / 4_000));
    let rounds = bench.size.of(1, 20, 200);
    let mut samples = vec![Samples::default(); cases.len()];
    for _ in 0..rounds {
        for (case, samples) in cases.iter().zip(&mut samples) {
            let begun = Instant::now();
            let found =
                (case.read)(&reader, TimestampMs::clamped(now_ms())).with_context(|| case.name.clone())?;
            samples.push_ms(begun.elapsed());
            ensure!(found > 0, "{}: nothing found", case.name);
        }
    }
    for target in [SUMMARY_TARGET_MS, READ_TARGET_MS] {
        let mut worst = (0.0, "");
        for (case, samples) in cases.iter().zip(&samples).filter(|(case, _)| case.target_ms == target) {
            section.spread(&case.name, "ms", samples);
            if let Some(spread) = samples.spread().filter(|spread| spread.p99 > worst.0) {
                worst = (spread.p99, &case.name);
            }
        }
        section.at_most(format!("p99 of the slowest ({})", worst.1), "ms", target, worst.0);
    }
    drop(reader);
    store.close();
    Ok(section)
}

/// Events of the last day, or of its end.
fn top_up(store: &Store, span_ms: i64) -> Result<()> {
    let now = now_ms();
    let seed = u64::try_from(now).unwrap_or(1);
    let options = FleetOptions::load(seed);
    let mut fleet =
        Fleet::new(FleetOptions { from_ms: now - span_ms, gap_us: FRESH_GAP_US, at_once: 48, ..options });
    loop {
        let steps: Vec<_> =
            (0..FRESH_BATCH).map(|_| fleet.step()).take_while(|step| step.ts_ms < now).collect();
        store.append(steps.iter().map(|step| fill::event(step, seed)).collect())?;
        if steps.len() < FRESH_BATCH {
            return Ok(());
        }
    }
}

fn cases(session: String) -> Vec<Case> {
    let app = Some(APPS[0].to_owned());
    let user = Some("dev".to_owned());
    let scopes = [
        ("all", Scope::default()),
        ("one app", Scope { app: app.clone(), ..Scope::default() }),
        ("one user", Scope { user: user.clone(), ..Scope::default() }),
        ("app and user", Scope { app, user, ..Scope::default() }),
        ("one session", Scope { session: Some(session), ..Scope::default() }),
    ];
    let mut cases = Vec::new();
    for window in Window::ALL {
        let mut push = |name: String, target_ms: f64, read: Read| {
            cases.push(Case { name: format!("{name}, {}", window.name()), target_ms, read });
        };
        for (name, scope) in &scopes {
            let of = scope.clone();
            push(
                format!("summary, {name}"),
                SUMMARY_TARGET_MS,
                Box::new(move |reader, now| Ok(reader.summary(*window, &of, now)?.history.len())),
            );
            let subject = Subject { scope: scope.clone(), part: Part::Whole };
            push(
                format!("figures, {name}"),
                READ_TARGET_MS,
                Box::new(move |reader, now| Ok(reader.figures(*window, &subject, now)?.figures.len())),
            );
        }
        for (name, part) in [
            ("one tool", Part::Tool("Bash".to_owned())),
            ("one type of agent", Part::Agent("main".to_owned())),
        ] {
            let subject = Subject { scope: Scope::default(), part };
            push(
                format!("figures, {name}"),
                READ_TARGET_MS,
                Box::new(move |reader, now| Ok(reader.figures(*window, &subject, now)?.figures.len())),
            );
        }
        for (metric, by) in [
            (Metric::Calls, GroupBy::None),
            (Metric::ExecutionMsP95, GroupBy::None),
            (Metric::ExecutionMsP95, GroupBy::Tool),
            (Metric::ExecutionMsP95, GroupBy::Agent),
            (Metric::Calls, GroupBy::App),
            (Metric::ExecutionMsP95, GroupBy::App),
        ] {
            let query = SeriesQuery { metric, window: *window, group_by: by, subject: Subject::default() };
            push(
                format!("series of {} by {}", metric.name(), by.name()),
                READ_TARGET_MS,
                Box::new(move |reader, now| Ok(reader.series(&query, now)?.t_ms.len())),
            );
        }
        let all = Scope::default;
        push(
            "heatmap".to_owned(),
            READ_TARGET_MS,
            Box::new(move |reader, now| Ok(reader.heatmap(*window, &all(), now)?.t_ms.len())),
        );
        push(
            "tools".to_owned(),
            READ_TARGET_MS,
            Box::new(move |reader, now| Ok(reader.tools(*window, &all(), now)?.tools.len() + 1)),
        );
        push(
            "agents".to_owned(),
            READ_TARGET_MS,
            Box::new(move |reader, now| Ok(reader.agent_stats(*window, &all(), now)?.len() + 1)),
        );
    }
    cases
}
