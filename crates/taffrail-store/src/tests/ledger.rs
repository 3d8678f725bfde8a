//! The ledger: whatever comes in whatever order, it is what all of it at once gives; sums are those of the rows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rusqlite::Connection;
use taffrail_event::ledger::{
    ApiRequest, ClientModelTotal, ClientTotal, Confidence, RequestSighting, Speed, Terms, Usage, Witness,
};
use taffrail_event::prices::PriceTable;
use taffrail_event::transcript::{AgentSighting, Facts, FileFacts, Mark, MarkKind, Parser, SessionSighting};

use super::*;
use crate::{AppendError, CostBy, CostQuery, CostTotals, LedgerRow, Scope, TranscriptChunk, TranscriptFile};

pub(super) const MODEL: &str = "claude-opus-5-5";

pub(super) fn ms(at: i64) -> TimestampMs {
    TimestampMs::clamped(T0 + at)
}

/// A line of session `session`, whose file was begun at `born`, that ends with final usage.
pub(super) fn line(session: &str, born: i64, id: usize, at: i64) -> RequestSighting {
    RequestSighting {
        witness: Witness::Transcript,
        ts: ms(at),
        message_id: Some(format!("msg_{id}")),
        request_id: Some(format!("req_{id}")),
        session_id: session.to_owned(),
        born: ms(born),
        agent_id: None,
        agent_type: None,
        prompt_id: None,
        app: None,
        user: None,
        model: MODEL.to_owned(),
        usage: Some(Usage { input: 10, output: 50, cache_write_5m: 14_000, ..Usage::default() }),
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

/// The same request by OTLP.
pub(super) fn log(session: &str, id: usize, at: i64) -> RequestSighting {
    RequestSighting {
        witness: Witness::OtlpLog,
        message_id: None,
        born: TimestampMs::MIN,
        stop_reason: None,
        query_source: Some("sdk".to_owned()),
        told_cost_nano_usd: Some(71_040_000),
        ..line(session, 0, id, at)
    }
}

/// The event by which a log record comes.
pub(super) fn told_by(sighting: &RequestSighting, stamp: i64) -> Event {
    let mut event =
        of_session(event(stamp, "claude_code.api_request", Fact::Telemetry), &sighting.session_id);
    event.source = Source::Otlp;
    event.app = "unknown".to_owned();
    event.user = None;
    event.ts = sighting.ts;
    event.request = Some(Box::new(sighting.clone()));
    event
}

pub(super) fn chunk(requests: Vec<RequestSighting>) -> TranscriptChunk {
    let file = TranscriptFile { path: "/t/a.jsonl".into(), ..TranscriptFile::default() };
    TranscriptChunk { file, facts: Facts { requests, ..Facts::default() } }
}

#[derive(Clone, Debug)]
struct Spec {
    witness: usize,
    id: usize,
    has_message: bool,
    has_request: bool,
    other_request: bool,
    session: usize,
    at: i64,
    output: u64,
    split: bool,
    is_final: bool,
    agent: Option<usize>,
    model: usize,
    fast: bool,
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let ids = (0..4usize, 0..7usize, any::<bool>(), any::<bool>(), prop::bool::weighted(0.1), 0..3usize);
    let rest = (
        0..5i64,
        prop::sample::select(vec![0, 3, 50, 51]),
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.4, 0..2usize),
        0..3usize,
        prop::bool::weighted(0.1),
    );
    (ids, rest).prop_map(|(ids, rest)| {
        let (witness, id, has_message, has_request, other_request, session) = ids;
        let (at, output, split, is_final, agent, model, fast) = rest;
        Spec {
            witness,
            id,
            has_message,
            has_request,
            other_request,
            session,
            at,
            output,
            split,
            is_final,
            agent,
            model,
            fast,
        }
    })
}

fn build(spec: &Spec) -> RequestSighting {
    let witness = Witness::ALL[spec.witness];
    let is_line = matches!(witness, Witness::Transcript | Witness::Progress);
    let usage = Usage {
        input: 5,
        output: spec.output,
        cache_read: 1_000,
        cache_write_5m: if spec.split { 30 } else { 100 },
        cache_write_1h: if spec.split { 70 } else { 0 },
        web_searches: u64::from(spec.split),
    };
    let request = spec.id + if spec.other_request { 3 } else { 0 };
    // Some requests lie just before a quarter of an hour, so that their bucket depends on who tells the time.
    let at = spec.id as i64 * 20 * 60_000 + (15 * 60_000 - 2) + spec.at;
    RequestSighting {
        witness,
        message_id: (is_line && (spec.has_message || !spec.has_request)).then(|| format!("msg_{}", spec.id)),
        request_id: (!is_line || spec.has_request).then(|| format!("req_{request}")),
        born: if is_line { ms(100 * spec.session as i64) } else { TimestampMs::MIN },
        agent_id: spec.agent.map(|agent| format!("agent{agent}")),
        agent_type: spec.agent.filter(|agent| *agent == 1).map(|_| "Explore".to_owned()),
        model: ["", MODEL, "model-without-a-price"][spec.model].to_owned(),
        usage: (spec.output != 3).then_some(usage),
        is_final: spec.is_final,
        terms: Terms {
            speed: if spec.fast { Speed::Fast } else { Speed::Standard },
            service_tier: spec.split.then(|| "standard".to_owned()),
            inference_geo: None,
        },
        stop_reason: spec.is_final.then(|| "end_turn".to_owned()),
        effort: spec.split.then(|| format!("effort{}", spec.at)),
        duration_ms: spec.split.then_some(spec.at as u64),
        ttft_ms: None,
        attempts: spec.split.then_some(spec.at as u32),
        told_cost_nano_usd: (witness == Witness::OtlpLog).then_some(spec.at),
        prompt_id: spec.split.then(|| format!("prompt{}", spec.at)),
        ..line(&format!("session{}", spec.session), 0, spec.id, at)
    }
}

/// The slow and obvious way: what shares an id is one, whatever lies between.
fn model(sightings: &[RequestSighting]) -> Vec<ApiRequest> {
    let mut groups: Vec<(BTreeSet<String>, Vec<&RequestSighting>)> = Vec::new();
    for sighting in sightings {
        let mut ids: BTreeSet<String> =
            sighting.message_id.iter().chain(&sighting.request_id).cloned().collect();
        let mut members = vec![sighting];
        groups.retain(|(known, others)| {
            let is_apart = known.is_disjoint(&ids);
            if !is_apart {
                ids.extend(known.iter().cloned());
                members.extend(others);
            }
            is_apart
        });
        groups.push((ids, members));
    }
    let mut requests: Vec<ApiRequest> = groups
        .into_iter()
        .map(|(_, members)| {
            let mut request = ApiRequest::of(members[0]);
            members.iter().for_each(|member| request.see(member));
            request
        })
        .collect();
    requests
        .sort_by(|a, b| (a.ts, &a.message_ids, &a.request_ids).cmp(&(b.ts, &b.message_ids, &b.request_ids)));
    requests
}

/// Every sum that the rows give, by the reader's own types.
fn sums_of(rows: &[LedgerRow], quarter: bool) -> BTreeMap<(i64, String, String, String, String), CostTotals> {
    let mut sums: BTreeMap<_, CostTotals> = BTreeMap::new();
    for row in rows {
        let bucket = if quarter { row.ts.get() / 900_000 * 900_000 } else { 0 };
        let agent = match (&row.agent_type, &row.agent_id) {
            (Some(told), _) => told.clone(),
            (None, None) => "main".to_owned(),
            (None, Some(_)) => "subagent".to_owned(),
        };
        let key = (bucket, row.app.clone(), row.user.clone().unwrap_or_default(), row.model.clone(), agent);
        let mut one =
            CostTotals { usage: row.usage, first: Some(row.ts), last: Some(row.ts), ..CostTotals::default() };
        one.requests = i64::from(row.sources != 0);
        one.cost_nano_usd = row.cost_nano_usd.unwrap_or(0);
        let part = &mut one.by_confidence[row.confidence.unwrap() as usize];
        part.requests = one.requests;
        part.cost_nano_usd = one.cost_nano_usd;
        sums.entry(key).or_default().add(&one);
    }
    sums
}

/// The sums of the ledger are those of its rows, by app and by session, in every quarter and over all.
pub(super) fn check_sums(bed: &Bed) {
    let reader = bed.store.reader().unwrap();
    let mut rows = Vec::new();
    reader.each_request(&CostQuery::default(), &mut |row| rows.push(row.clone())).unwrap();
    let by = CostBy { app: true, user: true, model: true, agent: true, ..CostBy::default() };
    let mut buckets: Vec<i64> = rows.iter().map(|row| row.ts.get() / 900_000 * 900_000).collect();
    buckets.sort_unstable();
    buckets.dedup();
    let cuts: Vec<TimestampMs> = buckets.iter().map(|ms| TimestampMs::clamped(*ms)).collect();
    for (by, shift) in [
        (by.clone(), 0),
        (CostBy { session: true, ..by.clone() }, 0),
        // Not a quarter's edge: read from the rows.
        (by, 1),
    ] {
        let cuts: Vec<_> = cuts.iter().map(|cut| TimestampMs::clamped(cut.get() - shift)).collect();
        let query = CostQuery { by: by.clone(), cuts, ..CostQuery::default() };
        let mut told: BTreeMap<_, CostTotals> = BTreeMap::new();
        for row in reader.costs(&query).unwrap() {
            let key = (
                buckets[row.bucket],
                row.app.unwrap(),
                row.user.unwrap(),
                row.model.unwrap(),
                row.agent.unwrap(),
            );
            told.entry(key).or_default().add(&row.totals);
        }
        if shift == 0 {
            assert_eq!(told, sums_of(&rows, true));
        } else {
            let total = |sums: BTreeMap<_, CostTotals>| {
                sums.into_values().fold(CostTotals::default(), |mut all, one| {
                    all.add(&one);
                    all
                })
            };
            assert_eq!(total(told), total(sums_of(&rows, true)));
        }
    }
    let conn = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    for table in ["cost_sessions", "cost_quarters"] {
        let empty: i64 = conn
            .query_row(
                &format!("SELECT count(*) FROM {table} WHERE requests = 0 AND estimated_requests = 0"),
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(empty, 0, "{table} has rows of nothing");
    }
}

fn check_rows(bed: &Bed, expected: &[ApiRequest], prices: &PriceTable) {
    let reader = bed.store.reader().unwrap();
    let mut rows = Vec::new();
    reader.each_request(&CostQuery::default(), &mut |row| rows.push(row.clone())).unwrap();
    rows.sort_by(|a, b| (a.ts, &a.message_id, &a.request_id).cmp(&(b.ts, &b.message_id, &b.request_id)));
    assert_eq!(rows.len(), expected.len());
    for (row, request) in rows.iter().zip(expected) {
        let settled = request.settle(prices);
        assert_eq!(row.message_id.as_ref(), request.message_ids.first());
        assert_eq!(row.request_id.as_ref(), request.request_ids.first());
        assert_eq!(
            (row.ts, &row.session_id, &row.agent_id),
            (request.ts, &request.session_id, &request.agent_id)
        );
        assert_eq!((&row.model, row.usage), (&request.model_name().to_owned(), settled.usage));
        assert_eq!(row.terms, request.terms());
        assert_eq!((row.cost_nano_usd, row.confidence), (settled.cost_nano_usd, Some(settled.confidence)));
        assert_eq!((row.sources, row.provisional_output), (request.sources, settled.provisional_output));
        assert_eq!(row.effort, request.effort.as_ref().map(|told| told.value.clone()));
        assert_eq!(row.prompt_id, request.prompt_id.as_ref().map(|told| told.value.clone()));
        assert_eq!(row.told_cost_nano_usd, request.told_cost_nano_usd);
        assert_eq!(row.attempts, request.attempts.map(i64::from));
        let copies: Vec<String> = copies_of(bed, row);
        assert_eq!(copies, request.copies);
    }
}

fn copies_of(bed: &Bed, row: &LedgerRow) -> Vec<String> {
    let conn = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    let mut statement = conn
        .prepare(
            "SELECT s.session_id FROM api_requests r JOIN api_request_copies c ON c.request = r.id
                JOIN sessions s ON s.id = c.session WHERE r.message_id IS ?1 AND r.request_id IS ?2 ORDER BY 1",
        )
        .unwrap();
    let rows = statement.query_map([&row.message_id, &row.request_id], |row| row.get(0)).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn any_order_batching_and_repetition_gives_the_same_ledger(
        specs in prop::collection::vec(any_spec(), 1..30),
        order in prop::collection::vec((any::<u32>(), 1usize..3), 30),
        group in 1usize..7,
        reopen_after in prop::option::of(1usize..5),
        app_after in 0usize..6,
    ) {
        let sightings: Vec<RequestSighting> = specs.iter().map(build).collect();
        let mut sent: Vec<(u32, RequestSighting)> = Vec::new();
        for (sighting, (place, times)) in sightings.iter().zip(&order) {
            for time in 0..*times {
                sent.push((place.rotate_left(7 * time as u32), sighting.clone()));
            }
        }
        sent.sort_by_key(|(place, _)| *place);
        let mut bed = Bed::new();
        let mut stamp = 0;
        for (n, part) in sent.chunks(group).enumerate() {
            if n == app_after {
                bed.store.append(vec![of_session(prompt(7), "session1")]).unwrap();
                let facts = Facts {
                    agents: vec![AgentSighting {
                        session_id: "session0".to_owned(),
                        agent_id: "agent0".to_owned(),
                        agent_type: Some("Plan".to_owned()),
                        ..AgentSighting::default()
                    }],
                    sessions: vec![SessionSighting {
                        session_id: "session2".to_owned(),
                        app: Some("told".to_owned()),
                        first: ms(0),
                        last: ms(9),
                        ..SessionSighting::default()
                    }],
                    ..Facts::default()
                };
                bed.store.record_transcripts(vec![TranscriptChunk { file: chunk(vec![]).file, facts }]).unwrap();
            }
            let (lines, logs): (Vec<_>, Vec<_>) = part.iter().map(|(_, s)| s.clone()).partition(|s| {
                matches!(s.witness, Witness::Transcript | Witness::Progress)
            });
            let events = logs.iter().map(|log| { stamp += 1; told_by(log, stamp) }).collect();
            bed.store.append(events).unwrap();
            bed.store.record_transcripts(vec![chunk(lines)]).unwrap();
            if reopen_after == Some(n) {
                bed = bed.reopen();
            }
            check_sums(&bed);
        }
        check_rows(&bed, &model(&sightings), &PriceTable::builtin());
        // Told once more, nothing changes.
        let outcome = bed.store.record_transcripts(vec![chunk(sightings)]).unwrap();
        prop_assert_eq!((outcome.requests_new, outcome.requests_changed), (0, 0));
    }
}

const SMALL_MODEL: &str = "claude-haiku-4-5";
/// What a tenth of the request of [`line`] costs by [`MODEL`], in nano-dollars.
const PER_TENTH: i64 = 7_104_000;

/// What the client counts for some of a session's requests, and for some that nobody shows.
fn total(session: usize, tenths: u64) -> ClientTotal {
    let model = |name: &str, tenths: u64| ClientModelTotal {
        model: name.to_owned(),
        usage: Usage {
            input: tenths,
            output: 5 * tenths,
            cache_write_5m: 1_400 * tenths,
            ..Usage::default()
        },
        cost_nano_usd: PER_TENTH * tenths as i64,
    };
    let models = vec![model("claude-opus-5-5[1m]", tenths), model(SMALL_MODEL, tenths / 2)];
    ClientTotal {
        session_id: format!("session{session}"),
        cost_nano_usd: models.iter().map(|model| model.cost_nano_usd).sum(),
        models,
        has_unknown_model: false,
    }
}

#[derive(Clone, Debug)]
enum Said {
    Line(usize, usize),
    Log(usize, usize),
    Total(usize, u64),
    Compaction(usize, i64),
}

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => (0..2usize, 0..4usize).prop_map(|(session, id)| Said::Line(session, id)),
        2 => (0..2usize, 0..4usize).prop_map(|(session, id)| Said::Log(session, id)),
        3 => (0..2usize, 0..80u64).prop_map(|(session, tenths)| Said::Total(session, tenths)),
        1 => (0..2usize, 0..3i64).prop_map(|(session, at)| Said::Compaction(session, at)),
    ]
}

fn tell(bed: &Bed, all: &[Said]) {
    let mut facts = Facts::default();
    let mut events = Vec::new();
    for said in all {
        match said {
            Said::Line(session, id) => {
                let name = format!("session{session}");
                facts.requests.push(line(&name, 0, 10 * session + id, 400_000 * *id as i64));
            }
            Said::Log(session, id) => {
                let sighting = log(&format!("session{session}"), 10 * session + id, 400_000 * *id as i64);
                events.push(told_by(&sighting, (10 * session + id) as i64));
            }
            Said::Total(session, tenths) => facts.totals.push(total(*session, *tenths)),
            Said::Compaction(session, at) => facts.marks.push(Mark {
                key: format!("compaction{session}{at}"),
                session_id: format!("session{session}"),
                born: ms(0),
                agent_id: None,
                ts: ms(900_000 * at + 5),
                kind: MarkKind::Compaction { trigger: None, pre_tokens: None, post_tokens: None },
                summary: String::new(),
            }),
        }
    }
    bed.store.append(events).unwrap();
    bed.store.record_transcripts(vec![TranscriptChunk { file: chunk(vec![]).file, facts }]).unwrap();
}

fn rows_of(bed: &Bed) -> Vec<LedgerRow> {
    let mut rows = Vec::new();
    let reader = bed.store.reader().unwrap();
    reader.each_request(&CostQuery::default(), &mut |row| rows.push(row.clone())).unwrap();
    rows.sort_by_key(|row| (row.ts, row.session_id.clone(), row.model.clone(), row.request_id.clone()));
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn derived_rows_are_what_the_client_counted_beyond_the_requests(
        said in prop::collection::vec(any_said(), 1..24),
        group in 1usize..6,
    ) {
        let bed = Bed::new();
        for part in said.chunks(group) {
            tell(&bed, part);
            check_sums(&bed);
        }
        let rows = rows_of(&bed);
        for session in 0..2usize {
            let name = format!("session{session}");
            let of_session = |row: &&LedgerRow| row.session_id == name;
            let cost = |derived: bool, model: Option<&str>| -> i64 {
                let rows = rows.iter().filter(of_session).filter(|row| (row.sources == 0) == derived);
                let rows = rows.filter(|row| model.is_none_or(|model| row.model == model));
                rows.filter_map(|row| row.cost_nano_usd).sum()
            };
            let totals = said.iter().filter_map(|one| match one {
                Said::Total(of, tenths) if *of == session => Some(*tenths),
                _ => None,
            });
            let Some(tenths) = totals.max() else {
                prop_assert_eq!(cost(true, None), 0, "nobody counted");
                continue;
            };
            let beyond = |tenths: u64, model: &str| {
                (PER_TENTH * tenths as i64 - cost(false, Some(model))).max(0)
            };
            prop_assert_eq!(cost(true, Some(MODEL)), beyond(tenths, MODEL));
            // The client counted more than its tokens cost: never more than they do.
            prop_assert!(cost(true, Some(SMALL_MODEL)) <= beyond(tenths / 2, SMALL_MODEL));
            let estimated = rows.iter().filter(of_session).filter(|row| row.sources == 0);
            for row in estimated {
                prop_assert_eq!(row.confidence, Some(Confidence::Estimated));
                prop_assert!(row.cost_nano_usd.is_some_and(|cost| cost > 0));
            }
        }
        let at_once = Bed::new();
        let mut backwards = said.clone();
        backwards.reverse();
        tell(&at_once, &backwards);
        let backwards = rows_of(&at_once);
        prop_assert_eq!(&backwards, &rows);
        tell(&bed, &said);
        prop_assert_eq!(rows_of(&bed), rows, "told again");
    }
}

#[test]
fn a_request_is_one_row_by_transcript_and_otlp_in_any_order() {
    let check = |by_otlp_first: bool| {
        let bed = Bed::new();
        let event = told_by(&log("s", 1, 44), 1);
        if by_otlp_first {
            bed.store.append(vec![event.clone()]).unwrap();
        }
        bed.store.record_transcripts(vec![chunk(vec![line("s", 0, 1, 0)])]).unwrap();
        bed.store.append(vec![event]).unwrap();
        bed.store.append(vec![prompt(0)]).unwrap();
        let rows = bed.store.reader().unwrap().ledger("s").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].app.as_str(), rows[0].user.as_deref()), ("app", Some("ann")));
        assert_eq!((rows[0].sources, rows[0].cost_nano_usd), (3, Some(71_040_000)));
        assert_eq!(rows[0].confidence, Some(Confidence::Exact));
        let scope = Scope { app: Some("app".to_owned()), ..Scope::default() };
        let costs = bed.store.reader().unwrap().costs(&CostQuery { scope, ..CostQuery::default() }).unwrap();
        assert_eq!((costs.len(), costs[0].totals.cost_nano_usd), (1, 71_040_000));
        let metrics = bed.store.reader().unwrap().recent(9).unwrap();
        let told = metrics.iter().find(|event| event.source == "otlp").unwrap();
        assert_eq!((told.metrics.cost_nano_usd, told.metrics.context_size), (Some(71_040_000), Some(14_010)));
        check_sums(&bed);
    };
    check(true);
    check(false);
}

/// The real client's run with two resumes, a compaction and a fork: see `fixtures/ledger/README.md`.
const RESUME_COMPACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ledger/resume-compact");
const PARENT: &str = "e6a406ca-d050-4f1d-b63b-5294a0710c58";
const FORK: &str = "04dba18f-1a56-46e1-9e71-a19d049fe39a";

fn transcript(session: &str) -> TranscriptChunk {
    let path = format!("{RESUME_COMPACT}/{session}.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let mut parser = Parser::new(&FileFacts::of_path(&path).unwrap());
    let taken = parser.feed(&bytes);
    parser.finish(&bytes[taken..]);
    let facts = parser.take();
    let file = TranscriptFile {
        path: path.into(),
        session_id: session.to_owned(),
        born: parser.born(),
        ..TranscriptFile::default()
    };
    TranscriptChunk { file, facts }
}

/// The log records of the run, as the client exported them.
fn log_events() -> Vec<Event> {
    let text = std::fs::read_to_string(format!("{RESUME_COMPACT}/api-requests.jsonl")).unwrap();
    let events = text.lines().zip(1i64..).map(|(line, stamp)| {
        let told: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let count = |name: &str| told[name].as_u64().unwrap();
        let sighting = RequestSighting {
            ts: TimestampMs::clamped(told["ts_ms"].as_i64().unwrap()),
            request_id: Some(text("request_id")),
            model: text("model"),
            usage: Some(Usage {
                input: count("input_tokens"),
                output: count("output_tokens"),
                cache_read: count("cache_read_tokens"),
                cache_write_5m: count("cache_creation_5m_tokens"),
                cache_write_1h: count("cache_creation_1h_tokens"),
                web_searches: 0,
            }),
            told_cost_nano_usd: Some(count("cost_usd_micros") as i64 * 1_000),
            query_source: Some(text("query_source")),
            ..log(&text("session.id"), 0, 0)
        };
        told_by(&sighting, stamp)
    });
    events.collect()
}

#[test]
fn a_fork_and_its_parent_agree_with_the_client_to_the_nano_dollar() {
    let check = |with_otlp: bool, order: &[usize]| {
        let bed = Bed::new();
        for step in order {
            match step {
                0 => drop(bed.store.record_transcripts(vec![transcript(PARENT)]).unwrap()),
                1 => drop(bed.store.record_transcripts(vec![transcript(FORK)]).unwrap()),
                _ if with_otlp => drop(bed.store.append(log_events()).unwrap()),
                _ => {}
            }
            check_sums(&bed);
        }
        let reader = bed.store.reader().unwrap();
        let parent = reader.reconcile(PARENT).unwrap().unwrap();
        let fork = reader.reconcile(FORK).unwrap().unwrap();
        assert_eq!((parent.client_nano_usd, parent.inherited_nano_usd), (Some(102_918_000), 0));
        assert_eq!((fork.client_nano_usd, fork.inherited_nano_usd), (Some(106_440_000), 102_918_000));
        assert_eq!((parent.drift_nano_usd, fork.drift_nano_usd), (Some(0), Some(0)), "{order:?}");
        let estimated = |of: &crate::Reconciliation| of.ledger.of(Confidence::Estimated).cost_nano_usd;
        let unseen = if with_otlp { 0 } else { 6_680_000 };
        assert_eq!((estimated(&parent), estimated(&fork)), (unseen, 0));
        let requests = 4 + i64::from(with_otlp);
        assert_eq!((parent.ledger.requests, fork.ledger.requests), (requests, 1));
        assert_eq!(parent.transcript_requests, 4);
        assert_eq!(parent.transcript_nano_usd, Some(96_238_000));
        assert_eq!(parent.otlp_nano_usd, with_otlp.then_some(102_918_000));
        let row = reader.session(FORK).unwrap().unwrap();
        assert_eq!(row.forked_from.as_deref(), Some(PARENT));
        assert_eq!(reader.session(PARENT).unwrap().unwrap().compactions, 1);
        assert_eq!(row.compactions, 0, "the fork only shows its parent's");
        let all = reader.reconcile_all(None, None).unwrap();
        assert_eq!(all.len(), 2);
    };
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        check(true, &order);
        check(false, &order);
    }
}

#[test]
fn a_new_price_changes_history_only_when_it_is_applied() {
    let bed = Bed::new();
    let mut unknown = line("s", 0, 2, 10);
    unknown.model = "house-model".to_owned();
    bed.store.record_transcripts(vec![chunk(vec![line("s", 0, 1, 0), unknown])]).unwrap();
    let reader = bed.store.reader().unwrap();
    let old = PriceTable::builtin().fingerprint();
    assert_eq!(reader.priced_by().unwrap(), Some(old));
    assert_eq!(reader.unpriced().unwrap()[0].model, "house-model");
    let cost = || reader.costs(&CostQuery::default()).unwrap()[0].totals;
    assert_eq!((cost().cost_nano_usd, cost().of(Confidence::Unpriced).requests), (71_040_000, 1));
    let table = std::sync::Arc::new(PriceTable::builtin().with_overrides(HOUSE_PRICES).unwrap());
    let told = bed.store.reprice(std::sync::Arc::clone(&table), true).unwrap();
    assert_eq!(cost().cost_nano_usd, 71_040_000, "a dry run changes nothing");
    let of = |model: &str| told.iter().find(|effect| effect.model == model).unwrap().clone();
    let house = of("house-model");
    assert_eq!((house.month.as_str(), house.requests, house.changed), ("2026-11", 1, 1));
    assert_eq!((house.before_nano_usd, house.after_nano_usd), (0, 10 * 1_000 + 50 * 2_000));
    assert_eq!((house.unpriced_before, house.unpriced_after), (1, 0));
    assert_eq!((of(MODEL).changed, of(MODEL).after_nano_usd), (0, 71_040_000));
    assert_eq!(bed.store.reprice(std::sync::Arc::clone(&table), false).unwrap(), told);
    assert_eq!((cost().cost_nano_usd, cost().of(Confidence::Unpriced).requests), (71_150_000, 0));
    assert_eq!(reader.priced_by().unwrap(), Some(table.fingerprint()));
    assert!(reader.unpriced().unwrap().is_empty());
    check_sums(&bed);
    // What comes now is priced by it, too.
    let mut next = line("s", 0, 3, 20);
    next.model = "house-model".to_owned();
    bed.store.record_transcripts(vec![chunk(vec![next])]).unwrap();
    assert_eq!(cost().cost_nano_usd, 71_260_000);
    assert!(bed.store.reprice(table, true).unwrap().iter().all(|effect| effect.changed == 0));
}

/// A row of a user's own price file.
const HOUSE_PRICES: &str = r#"
version = 1

[[price]]
model = "house-model"
effective_from = 2020-01-01
input = 1
output = 2
cache_read = 0
cache_write_5m = 0
cache_write_1h = 0
source = "test"
checked = 2026-11-22
"#;

#[test]
fn a_compaction_told_twice_is_one() {
    use taffrail_analytics::Window;
    use taffrail_event::transcript::{Mark, MarkKind};
    let mark = Mark {
        key: "boundary".to_owned(),
        session_id: "s".to_owned(),
        born: ms(0),
        agent_id: None,
        ts: ms(60_000),
        kind: MarkKind::Compaction {
            trigger: Some("auto".to_owned()),
            pre_tokens: Some(150_000),
            post_tokens: None,
        },
        summary: "compacted".to_owned(),
    };
    let mut hook = event(61_000, "PostCompact", Fact::PostCompact);
    hook.metrics.compression_events = Some(1);
    let check = |hook_first: bool, with_hook: bool| {
        let bed = Bed::new();
        let facts = Facts { marks: vec![mark.clone()], ..Facts::default() };
        bed.store.append(vec![prompt(0)]).unwrap();
        if with_hook && hook_first {
            bed.store.append(vec![hook.clone()]).unwrap();
        }
        let chunk = TranscriptChunk { file: chunk(vec![]).file, facts };
        bed.store.record_transcripts(vec![chunk.clone()]).unwrap();
        if with_hook {
            bed.store.append(vec![hook.clone()]).unwrap();
        }
        let again = bed.store.record_transcripts(vec![chunk]).unwrap();
        assert_eq!(again.marks_new, 0);
        let reader = bed.store.reader().unwrap();
        let now = TimestampMs::clamped(T0 + 120_000);
        for scope in [
            Scope::default(),
            Scope { app: Some("app".to_owned()), ..Scope::default() },
            Scope { session: Some("s".to_owned()), ..Scope::default() },
        ] {
            let summary = reader.summary(Window::M15, &scope, now).unwrap();
            assert_eq!(summary.totals.compactions, 1, "{hook_first} {with_hook} {scope:?}");
        }
        assert_eq!(reader.session("s").unwrap().unwrap().compactions, 1);
        assert_eq!(reader.transcript_marks("s").unwrap()[0].mark, mark);
    };
    check(true, true);
    check(false, true);
    check(false, false);
}

#[test]
fn the_newest_context_is_that_of_the_main_agent() {
    use taffrail_analytics::Window;
    let bed = Bed::new();
    bed.store.append(vec![prompt(0)]).unwrap();
    let mut side = line("s", 0, 2, 20);
    side.agent_id = Some("a1".to_owned());
    bed.store.record_transcripts(vec![chunk(vec![line("s", 0, 1, 10), side])]).unwrap();
    let mut title = log("s", 3, 30);
    title.query_source = Some("generate_session_title".to_owned());
    bed.store.append(vec![told_by(&title, 1)]).unwrap();
    let reader = bed.store.reader().unwrap();
    for scope in [Scope::default(), Scope { session: Some("s".to_owned()), ..Scope::default() }] {
        let summary = reader.summary(Window::M5, &scope, TimestampMs::clamped(T0 + 60_000)).unwrap();
        assert_eq!(summary.context_size, Some(14_010));
        assert_eq!(summary.context_utilization, Some(14_010.0 / 1_000_000.0));
    }
}

#[test]
fn a_type_that_is_told_late_moves_the_sums() {
    let bed = Bed::new();
    let mut by_agent = line("s", 0, 1, 0);
    by_agent.agent_id = Some("a1".to_owned());
    bed.store.record_transcripts(vec![chunk(vec![by_agent])]).unwrap();
    let agents = || {
        let query = CostQuery { by: CostBy { agent: true, ..CostBy::default() }, ..CostQuery::default() };
        let rows = bed.store.reader().unwrap().costs(&query).unwrap();
        rows.into_iter().map(|row| row.agent.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(agents(), ["subagent"]);
    assert_eq!(bed.store.reader().unwrap().session("s").unwrap().unwrap().subagents, 1);
    bed.store.append(vec![of_agent(event(5, "SubagentStart", Fact::SubagentStart), "a1")]).unwrap();
    assert_eq!(agents(), ["Explore"]);
    assert_eq!(bed.store.reader().unwrap().session("s").unwrap().unwrap().subagents, 1);
    check_sums(&bed);
}

#[test]
fn what_transcripts_tell_of_sessions_and_agents_is_shown() {
    let bed = Bed::new();
    let facts = Facts {
        sessions: vec![SessionSighting {
            session_id: "s".to_owned(),
            app: Some("app".to_owned()),
            git_branch: Some("main".to_owned()),
            title: Some("Fix it".to_owned()),
            client_version: Some("2.1.330".to_owned()),
            first: ms(0),
            last: ms(500),
            last_prompt: Some("do".to_owned()),
            prompted: Some(ms(3)),
            ..SessionSighting::default()
        }],
        agents: vec![AgentSighting {
            session_id: "s".to_owned(),
            agent_id: "child".to_owned(),
            agent_type: Some("Plan".to_owned()),
            description: Some("plan it".to_owned()),
            tool_use_id: Some("toolu_1".to_owned()),
            first: Some(ms(100)),
            last: Some(ms(200)),
        }],
        marks: vec![Mark {
            key: "spawn".to_owned(),
            session_id: "s".to_owned(),
            born: ms(0),
            agent_id: Some("parent".to_owned()),
            ts: ms(99),
            kind: MarkKind::Spawn { tool_use_id: "toolu_1".to_owned(), agent_type: None },
            summary: "plan it".to_owned(),
        }],
        ..Facts::default()
    };
    let mut file = chunk(vec![]).file;
    file.size_bytes = 7;
    let outcome = bed.store.record_transcripts(vec![TranscriptChunk { file: file.clone(), facts }]).unwrap();
    assert_eq!((outcome.sessions_new, outcome.marks_new), (1, 1));
    let reader = bed.store.reader().unwrap();
    let session = reader.sessions(&crate::SessionFilter::default(), None, 9).unwrap().rows.remove(0);
    assert_eq!((session.app.as_str(), session.events, session.subagents), ("app", 0, 1));
    assert_eq!(session.title.as_deref(), Some("Fix it"));
    assert_eq!((session.git_branch.as_deref(), session.last_prompt.as_deref()), (Some("main"), Some("do")));
    let agents = reader.agents("s").unwrap();
    assert_eq!(agents.len(), 2);
    assert_eq!((agents[0].agent_id.as_deref(), agents[1].agent_id.as_deref()), (None, Some("child")));
    assert_eq!(agents[1].parent_id.as_deref(), Some("parent"));
    assert_eq!(agents[1].description.as_deref(), Some("plan it"));
    assert_eq!(reader.transcript_file(&file.path).unwrap(), Some(file.clone()));
    file.archive = Some("archive/a.zst".to_owned());
    bed.store.note_transcript(file.clone()).unwrap();
    assert_eq!(reader.transcript_files().unwrap(), [file]);
}

#[test]
fn a_description_without_a_time_does_not_make_a_session_old() {
    let bed = Bed::new();
    let agent = AgentSighting {
        session_id: "s".to_owned(),
        agent_id: "a1".to_owned(),
        description: Some("plan it".to_owned()),
        ..AgentSighting::default()
    };
    let facts = Facts { agents: vec![agent.clone()], ..Facts::default() };
    bed.store.record_transcripts(vec![TranscriptChunk { file: chunk(vec![]).file, facts }]).unwrap();
    let session = SessionSighting {
        session_id: "s".to_owned(),
        first: ms(0),
        last: ms(9),
        ..SessionSighting::default()
    };
    let agents = vec![AgentSighting { first: Some(ms(5)), last: Some(ms(6)), ..agent }];
    let facts = Facts { sessions: vec![session], agents, ..Facts::default() };
    bed.store.record_transcripts(vec![TranscriptChunk { file: chunk(vec![]).file, facts }]).unwrap();
    let reader = bed.store.reader().unwrap();
    assert_eq!(reader.session("s").unwrap().unwrap().started, ms(0));
    assert_eq!(reader.agents("s").unwrap()[1].started, ms(5));
}

#[test]
fn labels_group_sums_and_the_newest_counts() {
    let bed = Bed::new();
    let mut event = told_by(&log("s", 1, 0), 1);
    event.labels = vec![("team".to_owned(), "blue".to_owned())];
    let mut later = told_by(&log("s", 2, 9), 9);
    later.labels = vec![("team".to_owned(), "red".to_owned())];
    bed.store.append(vec![later]).unwrap();
    bed.store.append(vec![event]).unwrap();
    bed.store.append(vec![told_by(&log("other", 3, 9), 10)]).unwrap();
    let by = CostBy { label: Some("team".to_owned()), ..CostBy::default() };
    let rows = bed.store.reader().unwrap().costs(&CostQuery { by, ..CostQuery::default() }).unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.label.as_deref().unwrap(), row.totals.requests)).collect();
    assert_eq!(told, [("", 1), ("red", 2)]);
}

#[test]
fn the_listener_hears_what_changed() {
    use std::sync::{Arc, Mutex};
    let dir = TempDir::new().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let listener: Arc<crate::OnLedger> =
        Arc::new(move |changes: &[crate::LedgerChange]| ears.lock().unwrap().extend_from_slice(changes));
    let options = Options { on_ledger: Some(crate::LedgerListener(listener)), ..options(&dir) };
    let store = Store::open(&options).unwrap();
    let mut first = line("s", 0, 1, 0);
    first.usage = Some(Usage { input: 10, output: 1, cache_write_5m: 14_000, ..Usage::default() });
    first.is_final = false;
    store.append(vec![prompt(0)]).unwrap();
    store.record_transcripts(vec![chunk(vec![first])]).unwrap();
    store.append(vec![told_by(&log("s", 1, 5), 1)]).unwrap();
    store.append(vec![told_by(&log("s", 1, 5), 2)]).unwrap();
    let heard = heard.lock().unwrap();
    let told: Vec<_> = heard
        .iter()
        .map(|change| (change.is_new, change.cost_before_nano_usd, change.cost_nano_usd, change.confidence))
        .collect();
    let before = 71_040_000 - 49 * 20_000;
    assert_eq!(
        told,
        [(true, 0, before, Confidence::LowerBound), (false, before, 71_040_000, Confidence::Repaired)]
    );
    assert_eq!((heard[0].app.as_str(), heard[0].user.as_deref()), ("app", Some("ann")));
}

fn count_of(bed: &Bed) -> usize {
    rows_of(bed).len()
}

#[test]
fn an_import_is_stored_when_it_commits_and_before_anything_else_is() {
    let bed = Bed::new();
    let import = bed.store.import_transcripts();
    import.add(vec![chunk(vec![line("s", 0, 1, 0)])]).unwrap();
    import.add(vec![chunk(vec![line("s", 0, 2, 1), line("s", 0, 1, 0)])]).unwrap();
    assert_eq!(count_of(&bed), 0, "no commit yet");
    import.commit().unwrap();
    assert_eq!(count_of(&bed), 2);
    import.add(vec![chunk(vec![line("s", 0, 3, 2)])]).unwrap();
    bed.store.append(vec![prompt(0)]).unwrap();
    assert_eq!(count_of(&bed), 3, "an event does not wait for the import");
    import.add(vec![chunk(vec![line("s", 0, 4, 3)])]).unwrap();
    let other = bed.store.import_transcripts();
    other.add(vec![chunk(vec![line("t", 0, 5, 4)])]).unwrap();
    assert_eq!(count_of(&bed), 4, "two imports share no transaction");
    import.commit().unwrap();
    drop((import, other));
    let bed = bed.reopen();
    assert_eq!(count_of(&bed), 5);
    check_sums(&bed);
}

#[test]
fn an_import_whose_part_is_refused_loses_what_it_had_not_committed_and_can_tell_it_again() {
    let bed = Bed::new();
    let conn = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    conn.execute_batch(
        "CREATE TRIGGER poison BEFORE INSERT ON transcript_files WHEN NEW.records = 666
            BEGIN SELECT RAISE(ABORT, 'poison'); END",
    )
    .unwrap();
    let import = bed.store.import_transcripts();
    import.add(vec![chunk(vec![line("s", 0, 1, 0)])]).unwrap();
    import.commit().unwrap();
    let good = chunk(vec![line("t", 0, 2, 1)]);
    import.add(vec![good.clone()]).unwrap();
    let mut bad = chunk(vec![line("u", 0, 3, 2)]);
    bad.file.records = 666;
    let refused = import.add(vec![bad]);
    assert!(matches!(&refused, Err(AppendError::Rejected(why)) if why.contains("poison")), "{refused:?}");
    assert_eq!(count_of(&bed), 1);
    assert_eq!(import.add(vec![good]).unwrap().requests_new, 1);
    import.commit().unwrap();
    assert_eq!(count_of(&bed), 2);
    check_sums(&bed);
}

#[test]
fn an_import_hears_that_a_commit_on_behalf_of_others_failed() {
    let bed = Bed::new();
    let conn = Connection::open(bed.dir.path().join("taffrail.db")).unwrap();
    conn.execute_batch(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER orphan AFTER INSERT ON transcript_files WHEN NEW.records = 666
            BEGIN INSERT INTO children VALUES (1); END",
    )
    .unwrap();
    let import = bed.store.import_transcripts();
    let mut bad = chunk(vec![line("s", 0, 1, 0)]);
    bad.file.records = 666;
    import.add(vec![bad]).unwrap();
    bed.store.append(vec![prompt(0)]).unwrap();
    assert_eq!(count_of(&bed), 0);
    assert!(matches!(import.commit(), Err(AppendError::Rejected(_))));
    import.add(vec![chunk(vec![line("s", 0, 1, 0)])]).unwrap();
    import.commit().unwrap();
    assert_eq!(count_of(&bed), 1);
}
