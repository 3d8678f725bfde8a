//! The one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use taffrail_event::TimestampMs;

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, within what a row id can express.
pub(crate) fn now() -> TimestampMs {
    TimestampMs::clamped(now_ms())
}
