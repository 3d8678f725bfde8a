//! Learns what is usual, and says what is not: isolation forests of the calls, and drift of behaviour.
//!
//! A thread of its own, of low priority. Every [`LEARN_MS`] (and every [`EARLY_MS`] while no family of tools has a model) it
//! reads the newest [`SESSIONS_MAX`] sessions, one at a time with rests between them, trains a forest for each family of tools
//! that has enough calls, saves them under their next version, and compares what agents did in the last
//! [`RECENT_MS`] with what they did before. Every [`LOOK_EVERY`] it scores the calls that ended since the last look in at most
//! [`LOOKED_AT_MAX`] sessions that changed, and tells the engine of those that the model calls anomalies. A session that was
//! expensive to read is looked at less often: after [`SESSION_REST`] times what it took.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taffrail_analytics::drift::{self, Comparison, Group, Profile};
use taffrail_analytics::features::{self, Family, Feature};
use taffrail_analytics::forest::model::{MODEL_ROWS_MIN, Model, Reason, TrainingSet};
use taffrail_analytics::trace::Trace;
use taffrail_engine::finding::CallRef;
use taffrail_engine::signal::{Score, ScoreKind, SessionKey, Told, Via, What};
use taffrail_event::TimestampMs;
use taffrail_store::{Finding, FindingSeverity, SessionFilter, Store, StoredSession};

use crate::background::{Background, Stopping};
use crate::clock;
use crate::judge::Judge;

/// What the forests are kept as.
const KIND: &str = "isolation_forest";
/// Between two lessons, in milliseconds.
const LEARN_MS: i64 = 6 * 3_600_000;
/// The same while there is no model at all.
const EARLY_MS: i64 = 15 * 60_000;
/// Sessions of a lesson, the newest.
const SESSIONS_MAX: usize = 400;
/// Between two looks at what ended.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Sessions of one look, the newest.
const LOOKED_AT_MAX: usize = 50;
/// A session without an event for so long is looked at no more, in milliseconds.
const QUIET_MS: i64 = 10 * 60_000;
/// A session rests so many times as long as it took to look at.
const SESSION_REST: u32 = 20;
/// In a lesson the thread rests so many times as long as a session took.
const LESSON_REST: u32 = 2;
/// What counts as recent behaviour, in milliseconds; the baseline is what was before.
const RECENT_MS: i64 = 24 * 3_600_000;
/// Agents, by project and type, whose behaviour is compared.
const PROFILES_MAX: usize = 500;
/// The same rows and the same seed give the same model.
const SEED: u64 = 0x7461_6666_7261_696c;

/// Starts the thread.
pub(crate) fn start(store: Store, judge: Judge) -> Background {
    Background::start("taffrail-learn", move |stopping| Pupil::new(store, judge, stopping).run())
}

/// How far a session was looked at.
struct Looked {
    /// Its newest event then.
    last_event: TimestampMs,
    /// The calls that ended by then are scored.
    scored_ms: i64,
    not_before: Instant,
}

struct Pupil {
    store: Store,
    judge: Judge,
    stopping: Arc<Stopping>,
    models: BTreeMap<Family, Model>,
    looked: HashMap<String, Looked>,
    /// Calls that ended before are history.
    began_ms: i64,
    learnt_ms: Option<i64>,
}

impl Pupil {
    fn new(store: Store, judge: Judge, stopping: Arc<Stopping>) -> Self {
        let began_ms = clock::now_ms();
        Self {
            store,
            judge,
            stopping,
            models: BTreeMap::new(),
            looked: HashMap::new(),
            began_ms,
            learnt_ms: None,
        }
    }

    fn run(&mut self) {
        self.remember();
        loop {
            self.stopping.rest(LOOK_EVERY);
            if self.stopping.is() {
                return;
            }
            let now = clock::now();
            let every = if self.models.is_empty() { EARLY_MS } else { LEARN_MS };
            let is_due = self.learnt_ms.is_none_or(|learnt| !(0..every).contains(&(now.get() - learnt)));
            let done = if is_due { self.learn(now) } else { self.look(now) };
            if let Err(error) = done {
                tracing::warn!(error, "what is usual could not be learnt or looked up");
            }
        }
    }

    /// The models of the last run.
    fn remember(&mut self) {
        let saved = match self.store.reader().and_then(|reader| reader.newest_models(KIND)) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(%error, "the models of the last run could not be read");
                return;
            }
        };
        for one in saved {
            match Model::from_bytes(&one.data) {
                Ok(model) => {
                    self.learnt_ms = self.learnt_ms.max(Some(model.meta.trained_at_ms));
                    self.models.insert(model.meta.family, model);
                }
                Err(error) => {
                    tracing::warn!(family = one.family, %error, "a saved model is damaged; it is trained anew");
                }
            }
        }
    }

    /// Reads sessions, newest first, with rests between them.
    fn each_session(&self, count: usize, mut see: impl FnMut(&StoredSession, &Trace)) -> Result<(), String> {
        let page = {
            let reader = self.store.reader().map_err(|e| e.to_string())?;
            reader.sessions(&SessionFilter::default(), None, count).map_err(|e| e.to_string())?
        };
        for session in &page.rows {
            if self.stopping.is() {
                return Err("the server stops".to_owned());
            }
            let began = Instant::now();
            let read = self.store.reader().and_then(|reader| reader.trace(&session.session_id));
            if let Some(read) = read.map_err(|e| e.to_string())? {
                see(session, &read.trace);
            }
            self.stopping.rest(began.elapsed() * LESSON_REST);
        }
        Ok(())
    }

    /// One lesson: forests for every family that has enough calls, and what agents do otherwise than they did.
    fn learn(&mut self, now: TimestampMs) -> Result<(), String> {
        let mut set = TrainingSet::new(SEED);
        let mut behaviour: BTreeMap<(String, String), [Profile; 2]> = BTreeMap::new();
        let recent_from = now.get().saturating_sub(RECENT_MS);
        let offset_ms = utc_offset_ms(now);
        self.each_session(SESSIONS_MAX, |session, trace| {
            for row in features::rows(trace, offset_ms) {
                set.offer(row.family, row.call_id, row.row);
            }
            let is_recent = session.last_event.get() >= recent_from;
            for (agent_type, profile) in drift::profiles(trace) {
                let key = (trace.app.clone(), agent_type);
                if behaviour.len() < PROFILES_MAX || behaviour.contains_key(&key) {
                    behaviour.entry(key).or_default()[usize::from(is_recent)].merge(&profile);
                }
            }
        })?;
        for family in Family::ALL {
            let rows = set.rows(family);
            if rows.len() >= MODEL_ROWS_MIN {
                self.train(family, &rows, now)?;
            }
        }
        let drifted: Vec<Finding> = behaviour
            .iter()
            .flat_map(|((app, agent_type), [baseline, recent])| {
                let changed = drift::compare(baseline, recent).into_iter().filter(Comparison::is_changed);
                changed.map(|comparison| drift_finding(app, agent_type, &comparison, now)).collect::<Vec<_>>()
            })
            .collect();
        self.store.record_findings(drifted, now).map_err(|e| e.to_string())?;
        self.learnt_ms = Some(now.get());
        Ok(())
    }

    fn train(&mut self, family: Family, rows: &[features::Row], now: TimestampMs) -> Result<(), String> {
        let version = self.models.get(&family).map_or(1, |model| model.meta.version.saturating_add(1));
        let model = Model::train(rows, family, version, now.get(), SEED).map_err(|e| e.to_string())?;
        let usual: serde_json::Map<String, Value> = Feature::ALL
            .into_iter()
            .map(|feature| {
                let usual = model.usual(feature);
                (feature.name().to_owned(), json!([usual.low, usual.middle, usual.high]))
            })
            .collect();
        let saved = self.store.save_model(&taffrail_store::Model {
            kind: KIND.to_owned(),
            family: family.name().to_owned(),
            version: i64::from(version),
            trained: now,
            rows: i64::try_from(rows.len()).unwrap_or(i64::MAX),
            about: json!({ "seed": SEED.to_string(), "usual": usual }),
            data: model.to_bytes(),
        });
        let saved = saved.map_err(|e| e.to_string())?;
        tracing::info!(
            family = family.name(),
            version = saved,
            rows = rows.len(),
            "what is usual was learnt anew"
        );
        self.models.insert(family, model);
        Ok(())
    }

    /// Scores the calls that ended since the last look.
    fn look(&mut self, now: TimestampMs) -> Result<(), String> {
        if self.models.is_empty() {
            return Ok(());
        }
        let reader = self.store.reader().map_err(|e| e.to_string())?;
        let page =
            reader.sessions(&SessionFilter::default(), None, LOOKED_AT_MAX).map_err(|e| e.to_string())?;
        let oldest = now.get().saturating_sub(QUIET_MS);
        self.looked.retain(|_, looked| looked.last_event.get() >= oldest);
        let offset_ms = utc_offset_ms(now);
        for session in page.rows.iter().filter(|session| session.last_event.get() >= oldest) {
            if self.stopping.is() {
                return Ok(());
            }
            let before = self.looked.get(&session.session_id);
            let is_due = before.is_none_or(|looked| {
                looked.last_event < session.last_event && looked.not_before <= Instant::now()
            });
            if !is_due {
                continue;
            }
            let began = Instant::now();
            let from_ms = before.map_or(self.began_ms, |looked| looked.scored_ms);
            let mut scored_ms = from_ms;
            if let Some(read) = reader.trace(&session.session_id).map_err(|e| e.to_string())? {
                let newest = read.trace.calls.iter().filter_map(|call| call.ended_ms).max();
                scored_ms = newest.unwrap_or(from_ms).max(from_ms);
                self.judge.scored(odd_calls(&self.models, &read.trace, from_ms, offset_ms));
            }
            let not_before = Instant::now() + began.elapsed() * SESSION_REST;
            let looked = Looked { last_event: session.last_event, scored_ms, not_before };
            self.looked.insert(session.session_id.clone(), looked);
        }
        Ok(())
    }
}

/// The calls that ended after `from_ms` and are unlike others of their family.
fn odd_calls(models: &BTreeMap<Family, Model>, trace: &Trace, from_ms: i64, offset_ms: i64) -> Vec<Told> {
    let mut odd = Vec::new();
    let calls: HashMap<i64, usize> = trace.calls.iter().enumerate().map(|(at, call)| (call.id, at)).collect();
    for row in features::rows(trace, offset_ms) {
        let Some(call) = calls.get(&row.call_id).map(|at| &trace.calls[*at]) else { continue };
        let Some(ended_ms) = call.ended_ms.filter(|ended| *ended > from_ms) else { continue };
        let Some(model) = models.get(&row.family) else { continue };
        let score = model.score(&row.row);
        if !Model::is_anomaly(score) {
            continue;
        }
        let agent = trace.agents.get(call.agent as usize).cloned().unwrap_or_default();
        odd.push(Told {
            key: SessionKey {
                session_id: Arc::from(trace.session_id.as_str()),
                app: Arc::from(trace.app.as_str()),
                user: Arc::from(trace.user.as_str()),
            },
            agent_id: Arc::from(agent.agent_id.as_str()),
            agent_type: Arc::from(agent.agent_type.as_str()),
            at_ms: ended_ms,
            via: Via::Witness,
            what: What::Score(Box::new(Score {
                kind: ScoreKind::Anomaly,
                score,
                subject: Arc::from(row.family.name()),
                call: Some(CallRef { id: call.id, tool_use_id: call.tool_use_id.clone() }),
                reasons: model.reasons(&row.row).iter().map(in_words).collect(),
                model_version: Some(model.meta.version),
            })),
        });
    }
    odd
}

/// `duration_ms 94000 (usually 200 to 3000), 62 %`
fn in_words(reason: &Reason) -> String {
    // Rows are single precision: more than four digits would be made up.
    let number = |value: f64| {
        let unit = if value.abs() >= 1_000.0 { 10f64.powf(value.abs().log10().floor() - 3.0) } else { 0.1 };
        let told = (value / unit).round() * unit;
        if told.abs() >= 100.0 { format!("{told:.0}") } else { format!("{}", (told * 10.0).round() / 10.0) }
    };
    let value = reason.value.map_or_else(|| "unknown".to_owned(), number);
    format!(
        "{} {value} (usually {} to {}), {:.0} %",
        reason.feature.name(),
        number(reason.usual.low),
        number(reason.usual.high),
        reason.share * 100.0
    )
}

/// What is told of agents that work otherwise than they did.
fn drift_finding(app: &str, agent_type: &str, comparison: &Comparison, now: TimestampMs) -> Finding {
    let dimension = comparison.dimension.name();
    let parts = comparison.parts.iter().map(|part| {
        json!({ "group": name_of(&part.group), "baseline_share": part.baseline_share, "recent_share": part.recent_share,
            "index": part.index })
    });
    let parts: Vec<Value> = parts.collect();
    let response = taffrail_engine::Detector::BehaviourDrift.response();
    Finding {
        // One episode a day for each agent and what changed in it.
        key: format!("behaviour_drift/{app}/{agent_type}/{dimension}/{}", now.get().div_euclid(RECENT_MS)),
        detector: taffrail_engine::Detector::BehaviourDrift.name().to_owned(),
        severity: FindingSeverity::Info,
        app: app.to_owned(),
        user: None,
        session_id: None,
        agent_id: None,
        agent_type: Some(agent_type.to_owned()),
        tool_name: None,
        started: TimestampMs::clamped(now.get().saturating_sub(RECENT_MS)),
        last: now,
        ended: None,
        score: Some(comparison.divergence),
        title: format!("{agent_type} agents work otherwise than before: {}", dimension.replace('_', " ")),
        evidence: json!({ "figures": {
            "population_stability_index": { "value": comparison.index, "unit": "ratio",
                "threshold": comparison.dimension.changed_index().max(comparison.chance_index) },
            "divergence": { "value": comparison.divergence, "unit": "score" },
            "baseline_observations": { "value": comparison.baseline_count, "unit": "count" },
            "recent_observations": { "value": comparison.recent_count, "unit": "count" },
        }, "medians": comparison.medians }),
        reasons: Value::Array(parts),
        calls: Vec::new(),
        cost_nano_usd: None,
        action: "notify,investigate".to_owned(),
        advice: response.person.to_owned(),
        model_version: None,
    }
}

fn name_of(group: &Group) -> String {
    match group {
        Group::Tool(tool) => tool.clone(),
        Group::OtherTools => "(other)".to_owned(),
        Group::Succeeded => "succeeded".to_owned(),
        Group::Failed => "failed".to_owned(),
        Group::Range { from, to } if from == to => from.to_string(),
        Group::Range { from, to } => format!("{from} to {to}"),
    }
}

/// What local time is ahead of UTC now, in milliseconds.
fn utc_offset_ms(now: TimestampMs) -> i64 {
    let now = jiff::Timestamp::from_millisecond(now.get()).unwrap_or_default();
    i64::from(jiff::tz::TimeZone::system().to_offset(now).seconds()) * 1_000
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use taffrail_event::normalize::{Delivery, hook};
    use taffrail_event::{Event, EventId, Source};
    use taffrail_store::{FindingFilter, Options};

    use super::*;
    use crate::judge::Ears;

    const T0: i64 = 1_795_342_500_000;

    struct Bed {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        pupil: Pupil,
        ears: Ears,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("taffrail.db");
            let store = Store::open(&Options::new(&path)).unwrap();
            let (judge, ears) = Judge::new();
            let pupil = Pupil { began_ms: T0 - 1, ..Pupil::new(store, judge, Arc::default()) };
            Self { _dir: dir, path, pupil, ears }
        }
    }

    fn event(session: &str, at: i64, body: &Value) -> Event {
        let mut body = body.clone();
        body["session_id"] = json!(session);
        body["cwd"] = json!("/p");
        let payload = body.to_string();
        let delivery = Delivery {
            event_id: EventId::derived(&[payload.as_bytes(), &at.to_le_bytes()]),
            source: Source::Hook,
            captured: Some(TimestampMs::clamped(T0 + at)),
            received: TimestampMs::clamped(T0 + at),
            app: Some("harbour"),
            user: None,
            host: None,
            payload: payload.as_bytes(),
            payload_bytes: payload.len() as u64,
            truncated: false,
            redactions: 0,
            hook_wall_us: None,
        };
        hook(&delivery, &|_| None)
    }

    /// A shell command of so long with so much output.
    fn command(session: &str, n: i64, at: i64, duration_ms: i64, output: usize, failed: bool) -> Vec<Event> {
        let call = json!({"tool_name": "Bash", "tool_use_id": format!("t{n}"), "tool_input": {"command": format!("make {}", n % 40)}});
        let with = |event: &str, rest: Value| {
            let mut body = call.clone();
            body["hook_event_name"] = json!(event);
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            body
        };
        let end = match failed {
            true => with("PostToolUseFailure", json!({"error": "Exit code 1", "duration_ms": duration_ms})),
            false => with(
                "PostToolUse",
                json!({"tool_response": {"stdout": "x".repeat(output)}, "duration_ms": duration_ms}),
            ),
        };
        vec![event(session, at, &with("PreToolUse", json!({}))), event(session, at + duration_ms, &end)]
    }

    /// Usual work: 400 commands of about a second with little output; now and then one that fails, is slow, or is late.
    fn usual(bed: &Bed) {
        for n in 0..400 {
            let is_slow = n % 90 == 50;
            let duration_ms = if is_slow { 60_000 } else { 800 + (n * 37) % 600 };
            let output = if n % 70 == 30 { 60_000 } else { 100 + ((n * 53) % 300) as usize };
            let at = n * 120_000 + if n % 60 == 20 { 50_000 } else { 0 };
            bed.pupil.store.append(command("s", n, at, duration_ms, output, n % 80 == 10)).unwrap();
        }
    }

    #[test]
    fn models_are_learnt_saved_and_found_again() {
        let mut bed = Bed::new();
        let now = TimestampMs::clamped(T0 + 48_100_000);
        bed.pupil.learn(now).unwrap();
        assert!(bed.pupil.models.is_empty(), "nothing was seen");
        usual(&bed);
        bed.pupil.learn(now).unwrap();
        bed.pupil.learn(now).unwrap();
        let model = &bed.pupil.models[&Family::Shell];
        assert_eq!((model.meta.version, model.meta.rows, bed.pupil.models.len()), (2, 400, 1));
        let again = Store::open(&Options::new(&bed.path));
        assert!(again.is_err(), "there is one writer");
        let (judge, _ears) = Judge::new();
        let mut next = Pupil::new(bed.pupil.store.clone(), judge, Arc::default());
        next.remember();
        assert_eq!(next.models, bed.pupil.models);
        assert_eq!(next.learnt_ms, Some(now.get()));
    }

    #[test]
    fn a_call_unlike_the_others_is_told_once_with_its_reasons() {
        let mut bed = Bed::new();
        usual(&bed);
        let now = TimestampMs::clamped(T0 + 48_100_000);
        bed.pupil.learn(now).unwrap();
        bed.pupil.look(now).unwrap();
        let usual_calls = bed.ears.told();
        // Hours of silence, then at another time of day half an hour of work and a megabyte of output.
        bed.pupil.store.append(command("s", 900, 65_000_000, 1_800_000, 1_000_000, true)).unwrap();
        for looked in bed.pupil.looked.values_mut() {
            looked.not_before = Instant::now();
        }
        let later = TimestampMs::clamped(T0 + 67_000_000);
        bed.pupil.look(later).unwrap();
        let odd = bed.ears.told();
        assert_eq!(odd.len(), 1, "{} of the usual ones were told", usual_calls.len());
        let What::Score(score) = &odd[0].what else { panic!("{odd:?}") };
        assert!(score.score > 0.7 && score.model_version == Some(1), "{score:?}");
        assert!(score.reasons.iter().any(|reason| reason.starts_with("duration_ms 1800000")), "{score:?}");
        assert!(usual_calls.len() <= 8, "at most one in fifty of the usual: {}", usual_calls.len());
        bed.pupil.look(later).unwrap();
        assert!(bed.ears.told().is_empty(), "it is scored once");
    }

    #[test]
    fn agents_that_work_otherwise_than_before_are_found() {
        let mut bed = Bed::new();
        let day = 86_400_000;
        for session in 0..40i64 {
            let is_recent = session >= 30;
            let begin = if is_recent { 20 * day } else { 0 } + session * 600_000;
            for n in 0..20 {
                // Before one in twenty fails, now every second.
                let failed = if is_recent { n % 2 == 0 } else { n == 0 };
                let events = command(&format!("s{session}"), n, begin + n * 10_000, 900, 100, failed);
                bed.pupil.store.append(events).unwrap();
            }
        }
        bed.pupil.learn(TimestampMs::clamped(T0 + 20 * day + 50 * 600_000)).unwrap();
        let reader = bed.pupil.store.reader().unwrap();
        let found = reader.findings(&FindingFilter::default(), None, 100).unwrap().rows;
        let told: Vec<_> = found.iter().map(|row| row.finding.title.as_str()).collect();
        assert_eq!(told, ["main agents work otherwise than before: error rate"]);
        assert_eq!(found[0].finding.detector, "behaviour_drift");
        bed.pupil.learn(TimestampMs::clamped(T0 + 20 * day + 50 * 600_000)).unwrap();
        assert_eq!(
            reader.findings(&FindingFilter::default(), None, 100).unwrap().rows.len(),
            1,
            "one episode a day"
        );
    }

    #[test]
    fn reasons_are_words() {
        let usual =
            taffrail_analytics::forest::model::UsualRange { low: 200.4, middle: 900.0, high: 3_000.0 };
        let reason = Reason { feature: Feature::Duration, value: Some(94_000.0), usual, share: 0.62 };
        assert_eq!(in_words(&reason), "duration_ms 94000 (usually 200 to 3000), 62 %");
        let unknown = Reason { value: None, ..reason };
        assert!(in_words(&unknown).starts_with("duration_ms unknown"));
    }
}
