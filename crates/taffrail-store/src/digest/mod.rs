//! Digests of sessions, and the aggregates that are sums of their contributions.
//!
//! A commit marks the sessions that it changes (`dirty`). Whoever digests claims some, reads each as a [`TraceRead`]
//! (`trace`), and writes what its analysis gave: in one transaction the session's former contributions leave the aggregates
//! and its new ones come (`contributions`, `tables`). So the aggregates are always the sum of the newest digests, whatever
//! came late, twice or in another order, and a digest that is lost to a crash is made again.

pub(crate) mod contributions;
pub(crate) mod dirty;
mod read;
pub(crate) mod tables;
pub(crate) mod trace;
mod write;

use taffrail_analytics::digest::{DIGEST_VERSION, Digest, SessionFacts};

pub use dirty::{Backlog, Dirty, Patience};
pub use read::{AggregateQuery, Aggregates, ErrorExample, GroupRow, KEYS_LOOKED_AT_MAX};
pub use tables::{CHAIN_KEYS_MAX, DAY_MS, Grain, KEYS_MAX};
pub use trace::{TRACE_CALLS_MAX, TRACE_MARKS_MAX, TRACE_REQUESTS_MAX, TraceRead};

use crate::error::{ReadError, WriteError};
use crate::reader::Reader;
use crate::store::Store;
use crate::writer::now_ms;

/// A session that was claimed, as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claimed {
    /// Its row.
    pub session: i64,
    /// None where its row is gone: its digest goes, too.
    pub read: Option<TraceRead>,
    /// The version of its dirty mark; none where no change waits.
    version: Option<i64>,
}

/// A session's digest to be stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionDigest {
    session: i64,
    version: Option<i64>,
    /// None where the session is gone.
    content: Option<Content>,
}

/// What is stored of a session.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    session_id: String,
    app: String,
    user: String,
    cut: i64,
    took_us: i64,
    digest: Digest,
}

impl SessionDigest {
    /// The digest that `analyse` makes of what was read; `took_us` is what reading and analysing took, for the figures shown
    /// beside it.
    pub fn of(claimed: Claimed, took_us: i64, digest: Digest) -> Self {
        let Claimed { session, read, version } = claimed;
        let content = read.map(|TraceRead { trace, cut, .. }| Content {
            session_id: trace.session_id,
            app: trace.app,
            user: trace.user,
            cut,
            took_us,
            digest,
        });
        Self { session, version, content }
    }

    /// Its session's row.
    pub const fn session(&self) -> i64 {
        self.session
    }

    /// How many contributions it has: what writing it costs.
    pub fn contributions(&self) -> usize {
        self.content.as_ref().map_or(0, |content| content.digest.contributions.len())
    }
}

/// What is known of a session by its digest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredFacts {
    /// The facts.
    pub facts: SessionFacts,
    /// When it was digested, in milliseconds since the Unix epoch.
    pub digested_ms: i64,
    /// Calls, requests and marks that were left out, the oldest.
    pub cut: i64,
    /// Whether changes of it wait for the next digest.
    pub is_pending: bool,
}

impl Store {
    /// Of these sessions the ones that are ripe, now this caller's: their next change marks them anew.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn claim_dirty(&self, waiting: Vec<Dirty>, patience: Patience) -> Result<Vec<i64>, WriteError> {
        self.on_ledger(1, 0, move |_, memory, _| dirty::claim(memory, &waiting, patience, now_ms()))
            .map_err(|_| WriteError::Closed)
    }

    /// Stores digests and moves the aggregates accordingly: one transaction, all or nothing.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write_digests(&self, digests: Vec<SessionDigest>) -> Result<(), WriteError> {
        self.on_ledger(1, 0, move |conn, memory, _| {
            let written = write::write(conn, memory, digests, now_ms());
            if written.is_err() {
                memory.forget();
            }
            written.map_err(|e| crate::connect::write_error(&e))
        })
        .map_err(|_| WriteError::Closed)?
    }

    /// Marks every session whose digest is of another version than [`DIGEST_VERSION`]; how many those are.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn mark_stale_digests(&self) -> Result<u64, WriteError> {
        self.change(|conn| {
            let rows = conn.execute(
                "INSERT INTO digest_dirty (session, since, version)
                    SELECT session, ?2, 1 FROM session_digests WHERE version <> ?1
                    ON CONFLICT DO UPDATE SET version = version + 1",
                [i64::from(DIGEST_VERSION), now_ms()],
            )?;
            Ok(rows as u64)
        })
    }
}

impl Reader {
    /// The dirty sessions that have waited longest.
    pub fn dirty_sessions(&self, limit: usize) -> Result<Vec<Dirty>, ReadError> {
        dirty::oldest(self.conn(), limit)
    }

    /// How far the digests are behind.
    pub fn digest_backlog(&self) -> Result<Backlog, ReadError> {
        dirty::backlog(self.conn())
    }

    /// A session for its digest, by its row.
    pub fn claimed(&self, session: i64) -> Result<Claimed, ReadError> {
        self.at_once(|conn| {
            Ok(Claimed {
                session,
                read: trace::read(conn, session)?,
                version: dirty::version(conn, session)?,
            })
        })
    }

    /// A session as the analyses see it; none where it is unknown.
    pub fn trace(&self, session_id: &str) -> Result<Option<TraceRead>, ReadError> {
        self.at_once(|conn| {
            let rows = dirty::rows_of(conn, [session_id])?;
            rows.first().map_or(Ok(None), |session| trace::read(conn, *session))
        })
    }

    /// What the last digest of a session tells; none where it was never digested.
    pub fn session_facts(&self, session_id: &str) -> Result<Option<StoredFacts>, ReadError> {
        self.at_once(|conn| read::facts(conn, session_id))
    }

    /// Sums of the aggregates over a span, by key.
    pub fn aggregates(&self, query: &AggregateQuery<'_>) -> Result<Aggregates, ReadError> {
        self.at_once(|conn| read::aggregates(conn, query))
    }

    /// Apps of which digests tell, by name, at most `limit`.
    pub fn digest_apps(&self, limit: usize) -> Result<Vec<String>, ReadError> {
        read::apps(self.conn(), limit)
    }

    /// App and working directory of the newest sessions, each directory once.
    pub fn directories(
        &self,
        app: Option<&str>,
        sessions: usize,
    ) -> Result<Vec<(String, String)>, ReadError> {
        read::directories(self.conn(), app, sessions)
    }

    /// The newest failures of a fingerprint, newest first, and when it was first and last seen.
    pub fn error_examples(&self, fingerprint: &str, limit: usize) -> Result<Vec<ErrorExample>, ReadError> {
        self.at_once(|conn| read::error_examples(conn, fingerprint, limit))
    }

    /// When failures of a fingerprint were first and last seen, in milliseconds since the Unix epoch, in every scope.
    pub fn error_seen(&self, fingerprint: &str) -> Result<Option<(i64, i64)>, ReadError> {
        read::error_seen(self.conn(), fingerprint)
    }
}
