//! The sessions of the database as traces.

use anyhow::Result;
use taffrail_event::TimestampMs;
use taffrail_store::{Reader, SessionFilter};

use super::{Found, Span, bounded};

const PAGE: usize = 500;

/// Every session that was at work in the span, whole: what came before it is what its findings rest on.
pub(super) fn read(reader: &Reader, span: Span) -> Result<Found> {
    let filter = SessionFilter {
        from: Some(TimestampMs::clamped(span.from_ms)),
        to: Some(TimestampMs::clamped(span.to_ms)),
        ..SessionFilter::default()
    };
    let mut found = Found::default();
    let (mut cursor, mut rows) = (None, 0);
    loop {
        let page = reader.sessions(&filter, cursor, PAGE)?;
        for session in page.rows {
            let Some(read) = reader.trace(&session.session_id)? else { continue };
            if read.cut > 0 {
                let id = &session.session_id;
                found.warnings.push(format!("session {id}: the oldest {} rows are left out", read.cut));
            }
            rows += read.trace.calls.len() + read.trace.requests.len();
            bounded(rows)?;
            found.traces.push(read.trace);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}
