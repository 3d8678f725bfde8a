//! Digests: whatever comes in whatever order, and whenever it is digested, the aggregates are the sums of what the
//! sessions' rows give.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;
use taffrail_analytics::digest::{
    Contribution, DIGEST_VERSION, Digest, HOUR_MS, Histogram, Key, Kind, Resolution,
};
use taffrail_analytics::trace::{Call, FileAction, MarkKind, Outcome, Trace};
use taffrail_event::event::ErrorInfo;
use taffrail_event::ledger::{FailureSighting, Witness};
use taffrail_event::prices::PriceTable;
use taffrail_event::transcript::{AgentSighting, Facts, Mark, MarkKind as ToldKind};

use super::ledger::{MODEL, chunk, line, log, told_by};
use super::model::{any_spec, stream};
use super::*;
use crate::digest::contributions;
use crate::digest::trace::{Bounds, read_within};
use crate::{
    AggregateQuery, Claimed, Dirty, Grain, KEYS_MAX, Patience, Scope, SessionDigest, TranscriptChunk,
    TranscriptFile,
};

const AT_ONCE: Patience = Patience { quiet_ms: 0, busy_ms: 0 };

/// A plain digest: one contribution for each thing seen.
fn plain(trace: &Trace) -> Digest {
    let mut contributions = Vec::new();
    let mut add = |kind: Kind, name: &str, at_ms: i64, figures: &[i64], value: Option<i64>| {
        let mut counters = vec![0; kind.counters().len()];
        counters[..figures.len()].copy_from_slice(figures);
        let mut histogram = Histogram::default();
        value.filter(|_| kind.histogram().is_some()).into_iter().for_each(|value| histogram.record(value));
        contributions.push(Contribution {
            hour_ms: at_ms - at_ms.rem_euclid(HOUR_MS),
            key: Key { kind, name: name.to_owned(), ..Key::default() },
            label: String::new(),
            counters,
            histogram,
        });
    };
    let is = |call: &Call, outcome| i64::from(call.outcome == outcome);
    for call in trace.calls.iter().filter(|call| call.outcome.has_ended()) {
        let at = call.ended_ms.unwrap_or(call.at_ms);
        let (won, lost) = (is(call, Outcome::Succeeded), is(call, Outcome::Failed));
        add(Kind::Chain, &call.tool, at, &[1, 0, lost, call.duration_ms.unwrap_or(0)], call.duration_ms);
        add(Kind::Quality, "", at, &[1, 0, won, lost, is(call, Outcome::Denied)], None);
        if let Some(error) = &call.error {
            add(Kind::Error, &error.fingerprint, at, &[1], call.duration_ms);
        }
    }
    for mark in &trace.marks {
        if matches!(mark.kind, MarkKind::Compaction { .. }) {
            add(Kind::Compaction, "", mark.ts_ms, &[1], None);
        }
    }
    for request in &trace.requests {
        add(Kind::Fill, &request.model, request.ts_ms, &[1, 0, request.context()], None);
    }
    let failed = trace.calls.iter().filter(|call| call.error.is_some());
    let resolutions = failed
        .map(|call| {
            let by = trace
                .calls
                .iter()
                .find(|later| later.at_ms > call.at_ms && later.outcome == Outcome::Succeeded);
            Resolution {
                call: call.id,
                by: by.map(|by| by.id),
                resolution_ms: by.map(|by| by.at_ms - call.at_ms),
            }
        })
        .collect();
    Digest { version: DIGEST_VERSION, contributions, resolutions, ..Digest::default() }
}

fn claim(store: &Store) -> Vec<Claimed> {
    let reader = store.reader().unwrap();
    let waiting: Vec<Dirty> = reader.dirty_sessions(1_000).unwrap();
    let ripe = store.claim_dirty(waiting, AT_ONCE).unwrap();
    ripe.into_iter().map(|session| reader.claimed(session).unwrap()).collect()
}

fn digested(claimed: Claimed) -> SessionDigest {
    let digest = claimed.read.as_ref().map(|read| plain(&read.trace)).unwrap_or_default();
    SessionDigest::of(claimed, 0, digest)
}

/// Digests what waits.
fn digest_all(store: &Store) {
    store.write_digests(claim(store).into_iter().map(digested).collect()).unwrap();
}

/// Kind, grain, app and user, bucket, key's name.
type Place = (&'static str, &'static str, String, String, i64, String);

/// Rows of every aggregate table that are not zero, by words.
fn stored(conn: &Connection) -> BTreeMap<Place, (Vec<i64>, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        for grain in ["hours", "days"] {
            let histogram = if kind.histogram().is_some() { "t.histogram" } else { "NULL" };
            let sql = format!(
                "SELECT coalesce(p.app, '(all)'), coalesce(p.user, '(all)'), t.bucket, k.name, {histogram}, {}
                    FROM {}_{grain} t JOIN digest_keys k ON k.id = t.key LEFT JOIN digest_places p ON p.id = t.place",
                kind.counters().join(", "),
                kind.name()
            );
            let mut statement = conn.prepare(&sql).unwrap();
            let mut rows = statement.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let figures: Vec<i64> =
                    (0..kind.counters().len()).map(|at| row.get(5 + at).unwrap()).collect();
                let histogram: Vec<u8> = row.get::<_, Option<Vec<u8>>>(4).unwrap().unwrap_or_default();
                if figures.iter().any(|value| *value != 0) || !histogram.is_empty() {
                    let place = (
                        kind.name(),
                        grain,
                        row.get(0).unwrap(),
                        row.get(1).unwrap(),
                        row.get(2).unwrap(),
                        row.get(3).unwrap(),
                    );
                    found.insert(place, (figures, histogram));
                }
            }
        }
    }
    found
}

/// The model: the digests of all sessions' rows, summed up one by one.
fn summed(store: &Store, conn: &Connection) -> BTreeMap<Place, (Vec<i64>, Vec<u8>)> {
    let mut sums: BTreeMap<Place, (Vec<i64>, Histogram)> = BTreeMap::new();
    let mut statement = conn.prepare("SELECT session_id FROM sessions").unwrap();
    let sessions: Vec<String> = statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    for session in sessions {
        let trace = store.reader().unwrap().trace(&session).unwrap().unwrap().trace;
        for one in plain(&trace).contributions {
            for (grain, length) in [("hours", HOUR_MS), ("days", 24 * HOUR_MS)] {
                for (app, user) in [("(all)", "(all)"), (trace.app.as_str(), trace.user.as_str())] {
                    let bucket = one.hour_ms.div_euclid(length) * length;
                    let place = (
                        one.key.kind.name(),
                        grain,
                        app.to_owned(),
                        user.to_owned(),
                        bucket,
                        one.key.name.clone(),
                    );
                    let (figures, histogram) = sums.entry(place).or_default();
                    figures.resize(one.counters.len(), 0);
                    figures.iter_mut().zip(&one.counters).for_each(|(sum, value)| *sum += value);
                    histogram.add(&one.histogram);
                }
            }
        }
    }
    sums.into_iter()
        .filter(|(_, (figures, histogram))| figures.iter().any(|v| *v != 0) || !histogram.is_empty())
        .map(|(place, (figures, histogram))| (place, (figures, histogram.to_bytes())))
        .collect()
}

fn connect(bed: &Bed) -> Connection {
    Connection::open(bed.dir.path().join("taffrail.db")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn aggregates_are_the_sums_of_what_the_rows_give(
        specs in prop::collection::vec(any_spec(), 1..40),
        order in prop::collection::vec((any::<u32>(), 0usize..3), 40),
        requests in prop::collection::vec((0usize..3, 0usize..6, 0i64..9_000_000), 0..6),
        group in 1usize..9,
        digest_after in prop::collection::vec(any::<bool>(), 40),
        reopen_after in prop::option::of(1usize..6),
        lose in prop::option::of(1usize..6),
        gone in prop::option::of(0usize..2),
    ) {
        // Each is missing, or sent once or twice, at random places.
        let mut sent: Vec<(u32, Event)> = Vec::new();
        for (event, (place, times)) in stream(&specs).iter().zip(&order) {
            for time in 0..*times {
                sent.push((place.rotate_left(7 * time as u32), event.clone()));
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let sent: Vec<Event> = sent.into_iter().map(|(_, event)| event).collect();
        let mut requests = requests.into_iter();
        let mut bed = Bed::new();
        for (n, part) in sent.chunks(group).enumerate() {
            bed.store.append(part.to_vec()).unwrap();
            if let Some((session, id, at)) = requests.next() {
                bed.store.record_transcripts(vec![chunk(vec![line(&format!("session{session}"), 0, id, at)])]).unwrap();
            }
            if lose == Some(n) {
                // Claimed by a process that dies before it writes.
                claim(&bed.store);
                bed = bed.reopen();
            }
            if digest_after[n % 40] {
                digest_all(&bed.store);
            }
            if reopen_after == Some(n) {
                bed = bed.reopen();
            }
        }
        digest_all(&bed.store);
        let conn = connect(&bed);
        prop_assert_eq!(stored(&conn), summed(&bed.store, &conn));
        prop_assert_eq!(bed.store.reader().unwrap().digest_backlog().unwrap().pending_sessions, 0);

        if let Some(gone) = gone {
            let session = format!("session{gone}");
            conn.execute("INSERT OR REPLACE INTO digest_dirty SELECT id, 1, 1 FROM sessions WHERE session_id = ?1", [&session]).unwrap();
            for table in ["sessions", "agents", "tool_calls"] {
                conn.execute(&format!("DELETE FROM {table} WHERE session_id = ?1"), [&session]).unwrap();
            }
            digest_all(&bed.store);
            prop_assert_eq!(stored(&conn), summed(&bed.store, &conn));
        }
        let moved = conn.execute("UPDATE sessions SET source_app = 'elsewhere', user = NULL", []).unwrap();
        conn.execute("INSERT OR REPLACE INTO digest_dirty SELECT id, 1, 1 FROM sessions", []).unwrap();
        digest_all(&bed.store);
        prop_assert_eq!(stored(&conn), summed(&bed.store, &conn));
        let elsewhere = stored(&conn).into_keys().filter(|key| key.2 == "elsewhere").count();
        prop_assert!(moved == 0 || elsewhere * 2 == stored(&conn).len());
    }

    #[test]
    fn a_trace_does_not_depend_on_the_order_of_arrival(
        specs in prop::collection::vec(any_spec(), 1..30),
        order in prop::collection::vec(any::<u32>(), 30),
    ) {
        let events = stream(&specs);
        let mut shuffled: Vec<(u32, Event)> = order.into_iter().zip(events.iter().cloned()).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let (one, other) = (Bed::new(), Bed::new());
        one.store.append(events).unwrap();
        for (_, event) in shuffled {
            other.store.append(vec![event]).unwrap();
        }
        for session in ["session0", "session1"] {
            let read = |bed: &Bed| {
                let read = bed.store.reader().unwrap().trace(session).unwrap()?;
                let mut trace = read.trace;
                // A call's row is that of the event that was first to tell of it.
                trace.calls.iter_mut().for_each(|call| call.id = 0);
                // So those of one moment, as of a batch that alone tells of them, stand as they were first told of.
                trace.calls.sort_by(|a, b| (a.at_ms, &a.tool_use_id).cmp(&(b.at_ms, &b.tool_use_id)));
                Some((trace.app, trace.user, trace.agents, trace.calls, trace.marks))
            };
            prop_assert_eq!(read(&one), read(&other));
        }
    }
}

#[test]
fn the_tables_have_the_columns_of_their_kinds() {
    let bed = Bed::new();
    let conn = connect(&bed);
    for kind in Kind::ALL {
        for grain in ["hours", "days"] {
            let mut expected = vec!["place", "bucket", "key"];
            expected.extend(kind.counters());
            expected.extend(kind.histogram().map(|_| "histogram"));
            let statement = conn.prepare(&format!("SELECT * FROM {}_{grain}", kind.name())).unwrap();
            assert_eq!(statement.column_names().collect::<Vec<_>>(), expected, "{kind:?}");
        }
    }
}

#[test]
fn a_change_while_a_session_is_digested_waits_for_the_next_digest() {
    let bed = Bed::new();
    bed.store.append(vec![pre(0, Some("t"), "Bash"), post(50, Some("t"), "Bash", Some(50))]).unwrap();
    let claimed = claim(&bed.store);
    assert_eq!(claimed.len(), 1);
    bed.store.append(vec![pre(100, Some("u"), "Read"), post(150, Some("u"), "Read", Some(50))]).unwrap();
    bed.store.write_digests(claimed.into_iter().map(digested).collect()).unwrap();
    let backlog = bed.store.reader().unwrap().digest_backlog().unwrap();
    assert_eq!(backlog.pending_sessions, 1);
    digest_all(&bed.store);
    let conn = connect(&bed);
    assert_eq!(stored(&conn), summed(&bed.store, &conn));
    let counted = |bed: &Bed| bed.store.reader().unwrap().digest_backlog().unwrap().pending_sessions;
    assert_eq!(counted(&bed), 0);
    bed.store.append(vec![prompt(200)]).unwrap();
    assert_eq!(counted(&bed), 1, "a mark that was taken away is written again");
    bed.store.append(vec![prompt(200)]).unwrap();
    digest_all(&bed.store);
    bed.store.append(vec![prompt(200)]).unwrap();
    assert_eq!(counted(&bed), 0, "what is known already changes nothing");
}

#[test]
fn whatever_changes_a_session_marks_it_and_nothing_else() {
    let bed = Bed::new();
    for session in ["s", "t"] {
        bed.store.append(vec![of_session(prompt(0), session)]).unwrap();
    }
    let request = |session: &str| chunk(vec![line(session, 0, 1, 5)]);
    bed.store.record_transcripts(vec![request("s")]).unwrap();
    let marked = |what: &str, expected: &[i64]| {
        let waiting = bed.store.reader().unwrap().dirty_sessions(99).unwrap();
        let mut found: Vec<i64> = waiting.into_iter().map(|dirty| dirty.session).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{what}");
        digest_all(&bed.store);
    };
    marked("two sessions", &[1, 2]);
    let told = |facts: Facts| {
        let file = TranscriptFile { path: "/t/s.jsonl".into(), ..TranscriptFile::default() };
        bed.store.record_transcripts(vec![TranscriptChunk { file, facts }]).unwrap();
    };
    bed.store.record_transcripts(vec![request("s")]).unwrap();
    marked("a request that is known", &[]);
    bed.store.append(vec![told_by(&log("s", 1, 5), 1)]).unwrap();
    marked("telemetry of the same request", &[1]);
    told(Facts {
        agents: vec![AgentSighting {
            session_id: "s".to_owned(),
            agent_id: "a".to_owned(),
            ..AgentSighting::default()
        }],
        ..Facts::default()
    });
    marked("an agent", &[1]);
    let compaction = Mark {
        key: "c".to_owned(),
        session_id: "t".to_owned(),
        born: TimestampMs::clamped(T0 + 100),
        agent_id: None,
        ts: TimestampMs::clamped(T0),
        kind: ToldKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None },
        summary: String::new(),
    };
    told(Facts { marks: vec![compaction.clone()], ..Facts::default() });
    marked("a compaction", &[2]);
    let older = Mark { session_id: "s".to_owned(), born: TimestampMs::clamped(T0 - 100), ..compaction };
    told(Facts { marks: vec![older], ..Facts::default() });
    marked("a compaction that turns out to be another session's", &[1, 2]);
    let failure = FailureSighting {
        witness: Witness::Transcript,
        ts: TimestampMs::clamped(T0),
        key: "f".to_owned(),
        session_id: "t".to_owned(),
        agent_id: None,
        model: None,
        status_code: Some(529),
        message: String::new(),
        attempt: None,
        attempts_max: None,
        retry_in_ms: None,
        exhausted: false,
    };
    told(Facts { failures: vec![failure], ..Facts::default() });
    marked("a failed request", &[2]);
    let prices = PriceTable::builtin().with_overrides(&DEARER.replace("MODEL", MODEL)).unwrap();
    bed.store.reprice(std::sync::Arc::new(prices), false).unwrap();
    marked("another price", &[1]);
}

const DEARER: &str = r#"
version = 1

[[price]]
model = "MODEL"
effective_from = 2020-01-01
input = 1000
output = 1000
cache_read = 0
cache_write_5m = 0
cache_write_1h = 0
source = "test"
checked = 2026-11-22
"#;

#[test]
fn a_busy_session_waits_for_quiet_but_not_for_ever() {
    let bed = Bed::new();
    bed.store.append(vec![prompt(0)]).unwrap();
    let waiting = || bed.store.reader().unwrap().dirty_sessions(9).unwrap();
    let claim =
        |quiet_ms, busy_ms| bed.store.claim_dirty(waiting(), Patience { quiet_ms, busy_ms }).unwrap().len();
    let hour = 3_600_000;
    assert_eq!(claim(hour, hour), 0);
    assert_eq!(claim(hour, 0), 1, "it has waited long enough");
    assert_eq!(claim(hour, hour), 1, "claimed by nobody who lives: no change is remembered");
    bed.store.append(vec![prompt(1)]).unwrap();
    assert_eq!(claim(hour, hour), 0);
    assert_eq!(claim(0, hour), 1);
    let waiting = vec![Dirty { session: 1, since_ms: i64::MAX }];
    assert_eq!(
        bed.store.claim_dirty(waiting, Patience { quiet_ms: hour, busy_ms: hour }).unwrap(),
        [1],
        "a clock set back"
    );
}

#[test]
fn a_write_that_fails_leaves_everything_as_it_was() {
    let bed = Bed::new();
    let calls = |from: i64| {
        vec![
            pre(from, Some(&format!("t{from}")), "Bash"),
            failure(from + 50, Some(&format!("t{from}")), "Bash"),
        ]
    };
    bed.store.append(calls(0)).unwrap();
    digest_all(&bed.store);
    bed.store.append(calls(4_000_000)).unwrap();
    let conn = connect(&bed);
    let before = stored(&conn);
    // Midway: the hours are written, the days are refused.
    conn.execute_batch(
        "CREATE TRIGGER fault BEFORE INSERT ON quality_days BEGIN SELECT RAISE(ABORT, 'fault'); END;
         CREATE TRIGGER fault2 BEFORE UPDATE ON quality_days BEGIN SELECT RAISE(ABORT, 'fault'); END",
    )
    .unwrap();
    let error = bed.store.write_digests(claim(&bed.store).into_iter().map(digested).collect()).unwrap_err();
    assert!(error.to_string().contains("fault"), "{error}");
    assert_eq!(stored(&conn), before);
    assert_eq!(bed.store.reader().unwrap().digest_backlog().unwrap().pending_sessions, 1);
    conn.execute_batch("DROP TRIGGER fault; DROP TRIGGER fault2").unwrap();
    digest_all(&bed.store);
    assert_eq!(stored(&conn), summed(&bed.store, &conn));
    assert_ne!(stored(&conn), before);
}

#[test]
fn what_became_of_a_failure_stands_beside_it() {
    let bed = Bed::new();
    bed.store
        .append(vec![pre(0, Some("t"), "Bash"), failure(50, Some("t"), "Bash"), pre(60, Some("u"), "Bash")])
        .unwrap();
    digest_all(&bed.store);
    let resolved = || {
        let found = bed.store.reader().unwrap().error_examples("00112233aabbccdd", 9).unwrap();
        found.into_iter().map(|error| (error.resolved, error.resolution_ms)).collect::<Vec<_>>()
    };
    assert_eq!(resolved(), [(false, None)]);
    bed.store.append(vec![post(90, Some("u"), "Bash", None)]).unwrap();
    digest_all(&bed.store);
    assert_eq!(resolved(), [(true, Some(60))]);
    let seen = bed.store.reader().unwrap().error_seen("00112233aabbccdd").unwrap();
    assert_eq!(seen, Some((T0 + 50, T0 + 50)));
    assert_eq!(bed.store.reader().unwrap().error_seen("none").unwrap(), None);
}

fn session_digest(bed: &Bed, session: &str, keys: &[(i64, i64)]) -> SessionDigest {
    // Another moment each time, so that there is something new.
    bed.store.append(vec![of_session(prompt(1_000 + keys.len() as i64), session)]).unwrap();
    let found = claim(&bed.store);
    let claimed = found
        .into_iter()
        .find(|one| one.read.as_ref().is_some_and(|read| read.trace.session_id == session))
        .unwrap();
    let contributions = keys
        .iter()
        .map(|(key, count)| Contribution {
            hour_ms: T0 - T0 % HOUR_MS,
            key: Key { kind: Kind::File, name: format!("/{key}"), ..Key::default() },
            counters: vec![*count, 1],
            ..Contribution::default()
        })
        .collect();
    SessionDigest::of(claimed, 0, Digest { version: DIGEST_VERSION, contributions, ..Digest::default() })
}

#[test]
fn keys_beyond_the_bound_count_under_other_and_leave_it_again() {
    let bed = Bed::new();
    let many: Vec<(i64, i64)> = (0..KEYS_MAX + 10).map(|key| (key, 1)).collect();
    bed.store.write_digests(vec![session_digest(&bed, "a", &many)]).unwrap();
    // One that has a row, one that never had.
    bed.store.write_digests(vec![session_digest(&bed, "b", &[(3, 100), (KEYS_MAX + 500, 100)])]).unwrap();
    let found = |limit: usize| {
        let all = |_: &Key| true;
        let query = AggregateQuery {
            kind: Kind::File,
            grain: Grain::Day,
            from_ms: T0,
            to_ms: T0,
            scope: Scope::default(),
            order_by: 0,
            before_ms: None,
            names: None,
            keep: &all,
            skip: 0,
            limit,
            with_histograms: false,
        };
        bed.store.reader().unwrap().aggregates(&query).unwrap()
    };
    let page = found(1);
    assert_eq!(page.rows[0].key.name, "/3");
    assert_eq!((page.rows[0].get(0), page.other[0], page.totals[0]), (101, 110, KEYS_MAX + 10 + 200));
    assert_eq!((page.groups as i64, page.next), (KEYS_MAX, Some(1)));
    // Both sessions lose everything: rows and (other) are as if they had never been.
    bed.store.write_digests(vec![session_digest(&bed, "a", &[]), session_digest(&bed, "b", &[])]).unwrap();
    let page = found(9);
    assert_eq!((page.rows, page.other[0], page.totals[0]), (Vec::new(), 0, 0));
    let conn = connect(&bed);
    let rows: i64 =
        conn.query_row("SELECT count(*) FROM file_days WHERE place = 0", [], |r| r.get(0)).unwrap();
    assert_eq!(rows, KEYS_MAX + 1);
}

#[test]
fn a_page_of_groups_is_that_of_its_scope_order_and_filter() {
    let bed = Bed::new();
    let mut other = of_session(prompt(-9), "c");
    other.app = "elsewhere".to_owned();
    other.user = Some("bob".to_owned());
    bed.store.append(vec![other]).unwrap();
    digest_all(&bed.store);
    let parts = [("a", vec![(1, 5), (2, 7)]), ("b", vec![(2, 1), (3, 6)]), ("c", vec![(9, 50)])];
    for (session, keys) in parts {
        bed.store.write_digests(vec![session_digest(&bed, session, &keys)]).unwrap();
    }
    let check = |scope: Scope,
                 keep: &dyn Fn(&Key) -> bool,
                 skip: usize,
                 expected: &[(&str, i64)],
                 next: Option<usize>| {
        for grain in [Grain::Hour, Grain::Day] {
            let query = AggregateQuery {
                kind: Kind::File,
                grain,
                from_ms: T0 - 1,
                to_ms: T0 + 1,
                scope: scope.clone(),
                order_by: 0,
                before_ms: None,
                names: None,
                keep,
                skip,
                limit: 2,
                with_histograms: true,
            };
            let found = bed.store.reader().unwrap().aggregates(&query).unwrap();
            let rows: Vec<(&str, i64)> =
                found.rows.iter().map(|row| (row.key.name.as_str(), row.get(0))).collect();
            assert_eq!((rows.as_slice(), found.next), (expected, next), "{scope:?} {grain:?}");
        }
    };
    let scope = |app: Option<&str>, user: Option<&str>, session: Option<&str>| Scope {
        app: app.map(str::to_owned),
        user: user.map(str::to_owned),
        session: session.map(str::to_owned),
    };
    check(Scope::default(), &|_| true, 0, &[("/9", 50), ("/2", 8)], Some(2));
    check(Scope::default(), &|_| true, 2, &[("/3", 6), ("/1", 5)], None);
    check(Scope::default(), &|key| key.name != "/9", 0, &[("/2", 8), ("/3", 6)], Some(3));
    check(scope(Some("app"), None, None), &|_| true, 0, &[("/2", 8), ("/3", 6)], Some(2));
    check(scope(None, Some("ann"), None), &|_| true, 2, &[("/1", 5)], None);
    check(scope(Some("elsewhere"), None, None), &|_| true, 0, &[("/9", 50)], None);
    check(scope(Some("elsewhere"), Some("ann"), None), &|_| true, 0, &[], None);
    check(scope(None, None, Some("b")), &|_| true, 0, &[("/3", 6), ("/2", 1)], None);
    check(scope(Some("elsewhere"), None, Some("b")), &|_| true, 0, &[], None);
    check(scope(None, None, Some("unknown")), &|_| true, 0, &[], None);
}

#[test]
fn a_trace_has_what_every_source_tells() {
    let bed = Bed::new();
    let mut failed = failure(2_000, Some("t"), "Bash");
    failed.error = Some(ErrorInfo {
        class: "exit_code",
        message: "Exit code 1\nno".repeat(100),
        stack_trace: None,
        recoverable: true,
        retry_count: 0,
        fingerprint: "0123456789abcdef".to_owned(),
    });
    failed.metrics.output_bytes = Some(77);
    failed.metrics.result_hash = Some(5);
    failed.file_operations = vec![taffrail_event::event::FileOperation {
        kind: taffrail_event::event::FileOperationKind::Edit,
        path: "/p/a.rs".to_owned(),
        size_bytes: Some(9),
        duration_ms: None,
        lines_added: Some(3),
        lines_removed: None,
    }];
    let mut permission =
        of_tool(event(1_500, "PermissionRequest", Fact::PermissionRequest(tool(None, "Bash"))), None, "Bash");
    permission.payload.text = r#"{"tool_input":{"command":"ls"},"tool_name":"Bash"}"#.to_owned();
    let mut notification = event(1_600, "Notification", Fact::Notification { notification_type: None });
    notification.payload.text = r#"{"notification_type":"idle_prompt"}"#.to_owned();
    let mut compact = event(60_000, "PostCompact", Fact::PostCompact);
    compact.metrics.compression_events = Some(1);
    compact.payload.text = r#"{"trigger":"auto"}"#.to_owned();
    let mut asked = prompt(500);
    asked.prompt_id = Some("p1".to_owned());
    bed.store
        .append(vec![
            asked,
            pre(1_000, Some("t"), "Bash"),
            failed,
            of_agent(pre(3_000, Some("sub"), "Read"), "a1"),
            permission,
            notification,
            compact,
            event(90_000, "Stop", Fact::Stop),
        ])
        .unwrap();
    let told = |key: &str, at: i64, kind: ToldKind| Mark {
        key: key.to_owned(),
        session_id: "s".to_owned(),
        born: TimestampMs::clamped(T0),
        agent_id: None,
        ts: TimestampMs::clamped(T0 + at),
        kind,
        summary: String::new(),
    };
    let marks = vec![
        told("same prompt", 40_000, ToldKind::Prompt { prompt_id: Some("p1".to_owned()) }),
        told("another", 41_000, ToldKind::Prompt { prompt_id: Some("p2".to_owned()) }),
        told(
            "the compaction",
            61_000,
            ToldKind::Compaction { trigger: None, pre_tokens: Some(150_000), post_tokens: Some(9_000) },
        ),
    ];
    let file = TranscriptFile { path: "/t/s.jsonl".into(), ..TranscriptFile::default() };
    let requests = vec![line("s", 0, 1, 700)];
    bed.store
        .record_transcripts(vec![TranscriptChunk {
            file,
            facts: Facts { marks, requests, ..Facts::default() },
        }])
        .unwrap();

    let read = bed.store.reader().unwrap().trace("s").unwrap().unwrap();
    let trace = read.trace;
    assert_eq!((trace.app.as_str(), trace.user.as_str(), read.cut), ("app", "ann", 0));
    let agents: Vec<(&str, &str)> =
        trace.agents.iter().map(|a| (a.agent_id.as_str(), a.agent_type.as_str())).collect();
    assert_eq!(agents, [("", "main"), ("a1", "Explore")]);
    let call = &trace.calls[0];
    assert_eq!((call.at_ms, call.ended_ms, call.outcome), (T0 + 1_000, Some(T0 + 2_000), Outcome::Failed));
    assert_eq!((call.output_bytes, call.result_hash, call.agent), (Some(77), Some(5), 0));
    let error = call.error.as_ref().unwrap();
    assert_eq!((&*error.class, error.fingerprint.as_str()), ("exit_code", "0123456789abcdef"));
    assert_eq!(error.message.chars().count(), 300);
    assert_eq!((call.files[0].action, &*call.files[0].path), (FileAction::Edit, "/p/a.rs"));
    assert_eq!((trace.calls[1].agent, trace.calls[1].outcome), (1, Outcome::Running));
    assert_eq!(trace.requests[0].context(), 14_010);
    let marks: Vec<(i64, &MarkKind)> = trace.marks.iter().map(|m| (m.ts_ms - T0, &m.kind)).collect();
    let input = serde_json::json!({"command": "ls"});
    let expected = [
        (500, MarkKind::Prompt { human: true }),
        (
            1_500,
            MarkKind::PermissionRequest {
                tool: "Bash".into(),
                input_hash: taffrail_event::normalize::calls::input_hash("Bash", Some(&input)),
            },
        ),
        (1_600, MarkKind::Notification { kind: Some("idle_prompt".to_owned()) }),
        (41_000, MarkKind::Prompt { human: true }),
        (
            60_000,
            MarkKind::Compaction {
                trigger: Some("auto".to_owned()),
                pre_tokens: Some(150_000),
                post_tokens: Some(9_000),
            },
        ),
        (90_000, MarkKind::Stop),
    ];
    assert_eq!(marks, expected.iter().map(|(at, kind)| (*at, kind)).collect::<Vec<_>>());
    assert_eq!(bed.store.reader().unwrap().trace("unknown").unwrap(), None);
}

#[test]
fn of_a_session_that_is_too_long_the_newest_is_read_and_the_rest_is_counted() {
    let bed = Bed::new();
    let calls = (0..10).flat_map(|n| {
        let id = format!("t{n}");
        [pre(n * 100, Some(&id), "Bash"), post(n * 100 + 50, Some(&id), "Bash", None)]
    });
    let long = "é".repeat(5_000);
    let named =
        [pre(5_000, Some("long"), &long), event(6_000, "Stop", Fact::Stop), prompt(7_000), prompt(8_000)];
    bed.store.append(calls.chain(named).collect()).unwrap();
    let requests = (0..5).map(|n| line("s", 0, n, n as i64 * 10)).collect();
    bed.store.record_transcripts(vec![chunk(requests)]).unwrap();
    let conn = connect(&bed);
    let bounds = Bounds { calls: 4, requests: 2, marks: 2 };
    let read = read_within(&conn, 1, bounds).unwrap().unwrap();
    let at: Vec<i64> = read.trace.calls.iter().map(|call| call.at_ms - T0).collect();
    assert_eq!(at, [700, 800, 900, 5_000]);
    assert_eq!(read.trace.calls[3].tool.len(), 512, "a name of 10 KB is cut");
    let at: Vec<i64> = read.trace.requests.iter().map(|request| request.ts_ms - T0).collect();
    assert_eq!(at, [30, 40]);
    let at: Vec<i64> = read.trace.marks.iter().map(|mark| mark.ts_ms - T0).collect();
    assert_eq!(at, [7_000, 8_000]);
    // Seven calls, three requests, and one mark is known to be more.
    assert_eq!(read.cut, 7 + 3 + 1);
    assert_eq!(bed.store.reader().unwrap().trace("s").unwrap().unwrap().cut, 0);
}

#[test]
fn damaged_contributions_are_an_error_and_no_wrong_sum() {
    let bed = Bed::new();
    bed.store.append(vec![pre(0, Some("t"), "Bash"), post(50, Some("t"), "Bash", None)]).unwrap();
    digest_all(&bed.store);
    let conn = connect(&bed);
    conn.execute("UPDATE session_digests SET contributions = x'07'", []).unwrap();
    assert_eq!(contributions::decode(&[7]), None);
    bed.store.append(vec![prompt(100)]).unwrap();
    assert!(bed.store.write_digests(claim(&bed.store).into_iter().map(digested).collect()).is_err());
}

#[test]
fn digests_of_another_version_are_made_again() {
    let bed = Bed::new();
    bed.store.append(vec![prompt(0)]).unwrap();
    digest_all(&bed.store);
    assert_eq!(bed.store.mark_stale_digests().unwrap(), 0);
    connect(&bed).execute("UPDATE session_digests SET version = version + 1", []).unwrap();
    assert_eq!(bed.store.mark_stale_digests().unwrap(), 1);
    assert_eq!(bed.store.reader().unwrap().digest_backlog().unwrap().pending_sessions, 1);
}
