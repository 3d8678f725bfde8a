//! The present, for stamps on events and reports.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since the Unix epoch, UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Today's date in UTC, `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let (year, month, day) = civil(now_ms().div_euclid(DAY_MS));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-02-08T23:02:32.645Z` of milliseconds since 1970.
pub(crate) fn stamp(at_ms: i64) -> String {
    let (day, of_day) = (at_ms.div_euclid(DAY_MS), at_ms.rem_euclid(DAY_MS));
    let (year, month, date) = civil(day);
    let (seconds, ms) = (of_day / 1_000, of_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Milliseconds since 1970 of a stamp in exactly that form.
pub(crate) fn parse_stamp(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
    if bytes.len() != 24 || marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let days = days_of(part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let seconds = (part(11, 13)? * 60 + part(14, 16)?) * 60 + part(17, 19)?;
    Some(days * DAY_MS + seconds * 1_000 + part(20, 23)?)
}

/// Days since 1970-01-01 of a civil date (the same author's `days_from_civil`).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let yoe = year.rem_euclid(400);
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The civil date of a day count since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_779, (2026, 11, 22))] {
            assert_eq!(civil(days), date);
            assert_eq!(days_of(date.0, date.1, date.2), days);
        }
    }

    #[test]
    fn stamps_are_read_as_they_are_written() {
        for ms in [0, 951_782_400_001, 1_770_591_752_645, 1_793_534_400_000] {
            assert_eq!(parse_stamp(&stamp(ms)), Some(ms));
        }
        assert_eq!(stamp(1_793_534_400_000), "2026-11-01T12:00:00.000Z");
        for text in ["", "2026-02-08T23:02:32Z", "2026-02-08 23:02:32.645Z", "2026-02-0ä23:02:32.645Z"] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
    }
}
