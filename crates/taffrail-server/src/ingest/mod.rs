//! In: every source becomes events the same way: redact, normalize, store, and only then answer and show.

pub(crate) mod app;
pub(crate) mod body;
pub(crate) mod hooks;
pub(crate) mod legacy;
pub(crate) mod otlp;
pub(crate) mod routes_legacy;
pub(crate) mod spool;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use taffrail_event::event::{Issue, Severity, Source, Warning};
use taffrail_event::normalize::otlp::Telemetry;
use taffrail_event::normalize::{self, Delivery};
use taffrail_event::redact::Redactor;
use taffrail_event::{DedupKey, Event, EventId, TimestampMs};
use taffrail_store::{AppendError, Appended, Outcome, Store};
use tokio::sync::oneshot;

use crate::judge::Judge;
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::problem::Problem;
use app::AppResolver;
use legacy::Echo;

/// Where events come in: the label of the counters.
pub(crate) type Entrance = &'static str;

/// The session of events that name none: it keeps no project.
const NO_SESSION: &str = "unknown";

/// The common path of every source.
pub(crate) struct Ingest {
    store: Store,
    hub: Arc<Hub>,
    judge: Judge,
    metrics: Arc<Metrics>,
    pub(crate) apps: Arc<AppResolver>,
    known: otlp::Known,
    hostname: Option<String>,
}

/// One hook delivery, its payload not yet redacted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) event_id: EventId,
    pub(crate) captured: Option<TimestampMs>,
    pub(crate) received: TimestampMs,
    pub(crate) app: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) payload: &'a [u8],
    pub(crate) payload_bytes: u64,
    pub(crate) truncated: bool,
    pub(crate) hook_wall_us: Option<u64>,
    pub(crate) verdict: Option<Verdict<'a>>,
}

/// What the guard said of this call, unless it had nothing to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) decision: &'a str,
    pub(crate) rule: &'a str,
    pub(crate) reason: &'a str,
}

/// An event and, for the old contract, what its sender posted.
pub(crate) struct Incoming {
    pub(crate) event: Event,
    pub(crate) echo: Option<Echo>,
}

impl From<Event> for Incoming {
    fn from(event: Event) -> Self {
        Self { event, echo: None }
    }
}

/// Why nothing was stored, with the events where they can be tried again.
pub(crate) enum Refused {
    /// The queue is full.
    Full(Vec<Event>),
    /// The store failed.
    Failed(AppendError),
}

impl Ingest {
    pub(crate) fn new(store: Store, hub: Arc<Hub>, judge: Judge, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            hub,
            judge,
            metrics,
            apps: Arc::default(),
            known: otlp::Known::default(),
            hostname: hostname(),
        }
    }

    /// Redacts and normalizes; never fails.
    pub(crate) fn understand(&self, raw: &Raw<'_>) -> Event {
        let text = String::from_utf8_lossy(raw.payload);
        let replaced = matches!(text, Cow::Owned(_));
        let redacted = Redactor::builtin().redact(&text);
        let delivery = Delivery {
            event_id: raw.event_id,
            source: Source::Hook,
            captured: raw.captured,
            received: raw.received,
            app: raw.app,
            user: raw.user,
            host: raw.host,
            payload: redacted.text.as_bytes(),
            payload_bytes: raw.payload_bytes,
            truncated: raw.truncated,
            redactions: redacted.counts.iter().map(|(_, n)| n).sum(),
            hook_wall_us: raw.hook_wall_us,
        };
        // A directory of another machine says nothing about this one's repositories.
        let local = raw.host.is_none_or(|host| Some(host) == self.hostname.as_deref());
        let resolve = |cwd: &str| if local { self.apps.of_dir(cwd) } else { None };
        let mut event = normalize::hook(&delivery, &resolve);
        if raw.app.is_none() && event.session_id != NO_SESSION {
            event.app =
                self.apps.of_session(&event.session_id, &event.app, || self.stored_app(&event.session_id));
        }
        if replaced && !event.issues.contains(&Issue::InvalidUtf8) {
            event.issues.push(Issue::InvalidUtf8);
        }
        event.warnings.extend(raw.verdict.map(warning_of));
        event
    }

    /// The project under which the session is stored; a read by primary key, once for each session and start.
    fn stored_app(&self, session_id: &str) -> Option<String> {
        let session = self.store.reader().ok()?.session(session_id).ok()??;
        Some(session.app)
    }

    /// Redacts and normalizes a post of the old contract.
    pub(crate) fn understand_post(
        &self,
        event_id: EventId,
        body: &str,
        received: TimestampMs,
    ) -> Result<Incoming, legacy::Refusal> {
        let redacted = Redactor::builtin().redact(body);
        let post = legacy::parse(&redacted.text, received)?;
        let payload = post.echo.get("payload").map_or("null", |raw| raw.get());
        let mut event = normalize::legacy(
            normalize::LegacyPost {
                event_id,
                received,
                source_app: &post.source_app,
                session_id: &post.session_id,
                hook_event_type: &post.hook_event_type,
                timestamp_ms: post.timestamp_ms,
                payload,
                fields: post.fields,
                redactions: redacted.counts.iter().map(|(_, n)| n).sum(),
                payload_bytes: payload.len() as u64,
            },
            &|cwd| self.apps.of_dir(cwd),
        );
        if event.legacy.as_ref().is_some_and(|legacy| legacy.fields.contains_key("humanInTheLoop")) {
            // A question about a call must not pass for the call's own event, which was posted before it.
            event.dedup_key = DedupKey::of_delivery(&event.session_id, event.event_id);
        }
        Ok(Incoming { event, echo: Some(post.echo) })
    }

    /// Stores a batch and waits for its commit; readers of the stream get what is new.
    pub(crate) async fn commit(
        &self,
        entrance: Entrance,
        batch: Vec<Incoming>,
    ) -> Result<Vec<Appended>, Refused> {
        self.commit_with(entrance, batch, Vec::new()).await
    }

    /// As [`Ingest::commit`], with telemetry rows in the same transaction; the answer tells of the events first.
    pub(crate) async fn commit_with(
        &self,
        entrance: Entrance,
        batch: Vec<Incoming>,
        telemetry: Vec<Telemetry>,
    ) -> Result<Vec<Appended>, Refused> {
        let events = batch.len() + telemetry.len();
        let began = Instant::now();
        let drafts: Vec<_> = batch.iter().map(|one| self.hub.draft(&one.event, one.echo.as_ref())).collect();
        let signals: Vec<_> = batch.iter().map(|one| self.judge.draft(&one.event)).collect();
        let (done, outcome) = oneshot::channel();
        let (hub, judge) = (Arc::clone(&self.hub), self.judge.clone());
        let submitted = self.store.submit_with(
            batch.into_iter().map(|one| one.event).collect(),
            telemetry,
            Box::new(move |result| {
                if let Ok(appended) = &result {
                    let new = appended.iter().zip(drafts).filter(|(a, _)| a.outcome == Outcome::Stored);
                    hub.committed(new.filter_map(|(a, draft)| Some((a.row_id.0, draft?))).collect());
                    let new = appended.iter().zip(signals).filter(|(a, _)| a.outcome == Outcome::Stored);
                    judge.committed(new.filter_map(|(a, draft)| Some((a.row_id, draft?))));
                }
                // A sender that left is no matter: its events are stored.
                let _ = done.send(result);
            }),
        );
        if let Err(full) = submitted {
            self.metrics.count(entrance, "queue_full", events);
            return Err(Refused::Full(full.events));
        }
        let result = outcome.await.unwrap_or(Err(AppendError::Closed));
        match result {
            Ok(appended) => {
                self.metrics.observe_commit(began.elapsed());
                let new = appended.iter().filter(|a| a.outcome == Outcome::Stored).count();
                self.metrics.count(entrance, "stored", new);
                self.metrics.count(entrance, "duplicate", appended.len() - new);
                Ok(appended)
            }
            Err(error) => {
                tracing::warn!(%error, events, "events were not stored");
                self.metrics.count(entrance, "failed", events);
                Err(Refused::Failed(error))
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full(_) | Refused::Failed(AppendError::QueueFull) => Self::QueueFull,
            Refused::Failed(AppendError::DiskFull(_)) => Self::DiskFull,
            Refused::Failed(AppendError::Closed) => Self::Stopping,
            Refused::Failed(error @ (AppendError::Io(_) | AppendError::Rejected(_))) => {
                Self::Store(error.to_string())
            }
        }
    }
}

fn warning_of(verdict: Verdict<'_>) -> Warning {
    let severity = match verdict.decision {
        "deny" => Severity::Critical,
        "ask" => Severity::Warning,
        _ => Severity::Info,
    };
    Warning {
        rule: format!("guard.{}", verdict.rule),
        severity,
        message: format!("{}: {}", verdict.decision, verdict.reason),
    }
}

#[cfg(unix)]
fn hostname() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

#[cfg(not(unix))]
fn hostname() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
