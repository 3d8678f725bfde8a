//! What the routes that read digests share: the span, the scope, the page, and how fresh the answer is.

use serde::Serialize;
use taffrail_analytics::digest::{Key, Kind};
use taffrail_analytics::window::Window;
use taffrail_store::{AggregateQuery, Aggregates, Backlog, Grain, ReadError, Reader, Scope};

use super::params::{self, text};
use crate::clock;
use crate::problem::Problem;

/// The window where none is named.
const WINDOW_DEFAULT: Window = Window::H24;

/// Over which time an answer is: whole hours, for 7d and 30d whole days, UTC. So it is longer than the window's name by less
/// than one of those.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SpanJson {
    /// The window's name.
    pub(crate) name: &'static str,
    /// Where it begins.
    pub(crate) from_ms: i64,
    /// Where it ends: now.
    pub(crate) to_ms: i64,
    /// Length of the buckets it is summed from.
    pub(crate) bucket_ms: i64,
}

/// How fresh figures are that come from digests: a session is digested some seconds after it changed.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FreshnessJson {
    /// Everything that was stored before this moment is in the figures.
    pub(crate) as_of_ms: i64,
    /// Sessions with changes that are not in the figures yet.
    pub(crate) pending_sessions: i64,
}

impl FreshnessJson {
    pub(crate) fn of(backlog: Backlog, now_ms: i64) -> Self {
        let as_of_ms = backlog.oldest_ms.map_or(now_ms, |oldest| oldest.min(now_ms));
        Self { as_of_ms, pending_sessions: backlog.pending_sessions }
    }
}

/// What of what is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) window: Window,
    pub(crate) grain: Grain,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) scope: Scope,
    pub(crate) skip: usize,
    pub(crate) limit: usize,
}

/// The parameters as they came.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) window: Option<String>,
    pub(crate) app: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) limit: Option<String>,
    pub(crate) cursor: Option<String>,
}

impl Ask {
    /// The window ends now.
    pub(crate) fn of(given: Given) -> Result<Self, Problem> {
        let window = match text(given.window) {
            None => WINDOW_DEFAULT,
            Some(name) => params::window(&name)?,
        };
        let grain = match window {
            Window::D7 | Window::D30 => Grain::Day,
            _ => Grain::Hour,
        };
        let to_ms = clock::now_ms();
        let cursor = params::cursor(given.cursor.as_deref())?;
        let skip = cursor.map(|at| usize::try_from(at.0)).transpose();
        Ok(Self {
            window,
            grain,
            from_ms: grain.bucket(to_ms.saturating_sub(window.length_ms())),
            to_ms,
            scope: Scope { app: text(given.app), session: text(given.session), user: text(given.user) },
            skip: skip
                .map_err(|_| Problem::BadRequest("the cursor is none of this list".to_owned()))?
                .unwrap_or(0),
            limit: params::limit(given.limit.as_deref())?,
        })
    }

    pub(crate) fn span(&self) -> SpanJson {
        SpanJson {
            name: self.window.name(),
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            bucket_ms: self.grain.ms(),
        }
    }

    /// Hours that the span really has.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a window")]
    pub(crate) fn hours(&self) -> f64 {
        (self.to_ms.saturating_sub(self.from_ms)).max(1) as f64 / 3_600_000.0
    }

    /// Where the span of the same length before this one begins.
    pub(crate) fn before_ms(&self) -> i64 {
        self.from_ms.saturating_sub(self.window.length_ms())
    }

    /// A query of a kind for the page that was asked for, greatest `order_by` first.
    pub(crate) fn query<'q>(
        &self,
        kind: Kind,
        order_by: usize,
        keep: &'q dyn Fn(&Key) -> bool,
    ) -> AggregateQuery<'q> {
        AggregateQuery {
            kind,
            grain: self.grain,
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            scope: self.scope.clone(),
            order_by,
            before_ms: None,
            names: None,
            keep,
            skip: self.skip,
            limit: self.limit,
            with_histograms: false,
        }
    }

    /// The totals of a kind alone.
    pub(crate) fn totals(&self, reader: &Reader, kind: Kind) -> Result<Aggregates, ReadError> {
        let none = |_: &Key| true;
        reader.aggregates(&AggregateQuery { skip: 0, limit: 0, ..self.query(kind, 0, &none) })
    }
}

/// The cursor of the next page.
pub(crate) fn cursor_of(next: Option<usize>) -> Option<String> {
    next.map(|at| at.to_string())
}

/// `part` of `whole` in percent; none where there is no whole.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn percent(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

/// How much more than before, in percent; none where there was nothing before.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn trend_percent(now: i64, before: i64) -> Option<f64> {
    (before > 0).then(|| (now - before) as f64 / before as f64 * 100.0)
}

/// A count by the hour.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn per_hour(count: i64, hours: f64) -> f64 {
    count as f64 / hours
}

/// The counter at a place, 0 where there is none.
pub(crate) fn at(counters: &[i64], slot: usize) -> i64 {
    counters.get(slot).copied().unwrap_or(0)
}
