//! OpenTelemetry in: logs, metrics and traces over HTTP (JSON and protobuf) and gRPC.
//!
//! Every way in ends in [`take`]: decode, map, commit, and only then answer. The bounds of a body are those of
//! `ingest::body` for all of them. What cannot be used is told in the answer's `partial_success` and counted.

pub(crate) mod doors;
pub(crate) mod grpc;
pub(crate) mod http;
mod proto;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use taffrail_event::Event;
use taffrail_event::normalize::otlp::{
    self, Context, Export, LogRecord, Mapped, Point, Rejected, Signal, Span, Telemetry,
};
use taffrail_event::redact::Redactor;

use super::app::NO_APP;
use super::{Incoming, Ingest, body};
use crate::clock;
use crate::problem::Problem;
use crate::state::App;

/// The label of the counters.
const SOURCE: &str = "otlp";
/// Rows of one transaction of a request.
const CHUNK_ROWS: usize = 1_000;
/// Sessions whose project and user are remembered.
const SESSIONS_MAX: usize = 4_096;

/// What a request brought, whatever its encoding.
pub(crate) enum Brought {
    Logs(Export<LogRecord>),
    Metrics(Export<Point>),
    Spans(Export<Span>),
}

/// Decodes, maps and commits. The answer says what was rejected; everything else is stored and synced.
pub(crate) async fn take(
    app: &App,
    signal: Signal,
    bytes: usize,
    decode: impl FnOnce() -> Result<Brought, Problem> + Send + 'static,
) -> Result<Rejected, Problem> {
    let worker = app.clone();
    let work = move || decode().map(|brought| worker.ingest.understand_otlp(brought));
    let decoded = body::inline_or_blocking(bytes, work).await?;
    let metrics = &app.metrics;
    let mapped = decoded.inspect_err(|_| metrics.count_otlp(signal, "undecodable", 1))?;
    let rejected = mapped.rejected.clone();
    let (classes, odd) = (mapped.classes.clone(), mapped.odd);
    app.ingest.commit_otlp(mapped.events, mapped.telemetry).await?;
    for (class, records) in classes {
        metrics.count_otlp(signal, class.name(), records);
    }
    metrics.count_otlp(signal, "rejected", rejected.records);
    metrics.count_otlp(signal, "odd", odd);
    if rejected.records > 0 {
        tracing::debug!(records = rejected.records, reason = ?rejected.reason, "telemetry was rejected");
    }
    Ok(rejected)
}

/// What other sources have told of sessions; only what is known is remembered.
#[derive(Default)]
pub(crate) struct Known {
    sessions: Mutex<HashMap<String, Place>>,
}

/// Where a session belongs.
#[derive(Clone, Default)]
struct Place {
    app: Option<String>,
    user: Option<String>,
}

impl Ingest {
    /// Maps what was brought, and adds what only other sources know.
    fn understand_otlp(&self, brought: Brought) -> Mapped {
        let context = Context { received: clock::now(), redactor: Redactor::builtin() };
        let mut mapped = match brought {
            Brought::Logs(export) => otlp::logs(export, context),
            Brought::Metrics(export) => otlp::metrics(export, context),
            Brought::Spans(export) => otlp::spans(export, context),
        };
        let mut places: HashMap<String, Place> = HashMap::new();
        let mut place = |session: &str| match places.get(session) {
            Some(place) => place.clone(),
            None => {
                let place = self.place_of(session);
                places.insert(session.to_owned(), place.clone());
                place
            }
        };
        for event in &mut mapped.events {
            put_event(event, place(&event.session_id));
        }
        for request in mapped.telemetry.iter_mut().filter_map(|row| row.request.as_mut()) {
            let Place { app, user } = place(&request.session_id);
            request.app = app;
            request.user = user.or(request.user.take());
        }
        mapped
    }

    /// As remembered, else as stored; one read by primary key for a session that no other source has shown yet.
    fn place_of(&self, session: &str) -> Place {
        let lock = || self.known.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = lock().get(session) {
            return place.clone();
        }
        let stored = self.store.reader().and_then(|reader| reader.session(session)).ok().flatten();
        let Some(stored) = stored else { return Place::default() };
        let app = Some(stored.app).filter(|app| app != NO_APP);
        let place = Place { app, user: stored.user };
        if place.app.is_some() && place.user.is_some() {
            let mut sessions = lock();
            if sessions.len() >= SESSIONS_MAX {
                sessions.clear();
            }
            sessions.insert(session.to_owned(), place.clone());
        }
        place
    }

    async fn commit_otlp(&self, events: Vec<Event>, telemetry: Vec<Telemetry>) -> Result<(), Problem> {
        let (mut events, mut telemetry) = (events.into_iter(), telemetry.into_iter());
        loop {
            let chunk: Vec<Incoming> = events.by_ref().take(CHUNK_ROWS).map(Incoming::from).collect();
            let rows: Vec<Telemetry> = telemetry.by_ref().take(CHUNK_ROWS - chunk.len()).collect();
            if chunk.is_empty() && rows.is_empty() {
                return Ok(());
            }
            // A chunk that fails after others were stored is no harm: the exporter repeats all, and each counts once.
            self.commit_with(SOURCE, chunk, rows).await?;
        }
    }
}

/// The session's project and user; the record's own e-mail address where no other source knows the user.
fn put_event(event: &mut Event, place: Place) {
    if let Some(user) = place.user {
        event.user = Some(user);
    }
    if let Some(app) = place.app {
        event.app = app;
    }
    if let Some(request) = &mut event.request {
        request.app = Some(event.app.clone()).filter(|app| app != NO_APP);
        request.user.clone_from(&event.user);
    }
}
