//! Time stamps and days as ccusage reads and writes them.

use anyhow::Result;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How a time stamp was written, so that it can be written the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    has_ms: bool,
    /// None is `Z`.
    offset_minutes: Option<i16>,
}

/// Milliseconds since 1970, and the spelling, of a time stamp in one of the four lengths that count: with or without
/// milliseconds, with `Z` or an offset. Any other is none, also where it is valid RFC 3339.
pub(super) fn parse(text: &str) -> Option<(i64, Stamp)> {
    let bytes = text.as_bytes();
    let (ms, zone) = match bytes.len() {
        20 | 25 => (0, 19),
        24 | 29 if bytes[19] == b'.' => (digits(&bytes[20..23])?, 23),
        _ => return None,
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.into_iter().any(|(at, mark)| bytes[at] != mark) {
        return None;
    }
    let part = |from: usize, to: usize| digits(&bytes[from..to]);
    let date = Date::new(
        i16::try_from(part(0, 4)?).ok()?,
        i8::try_from(part(5, 7)?).ok()?,
        i8::try_from(part(8, 10)?).ok()?,
    )
    .ok()?;
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_since_epoch(date);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let offset = offset_minutes(&bytes[zone..])?;
    let stamp = Stamp { has_ms: zone == 23, offset_minutes: offset };
    Some((seconds * 1_000 + ms - i64::from(offset.unwrap_or(0)) * 60_000, stamp))
}

fn offset_minutes(zone: &[u8]) -> Option<Option<i16>> {
    match *zone {
        [b'Z'] => Some(None),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
            let offset =
                i16::try_from((hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?).ok()?;
            Some(Some(if sign == b'-' { -offset } else { offset }))
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

fn days_since_epoch(date: Date) -> i64 {
    date.since(Date::constant(1970, 1, 1)).map_or(0, |span| i64::from(span.get_days()))
}

/// `2026-01-02T12:00:00.000Z`
pub(super) fn rfc3339(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// As the line had it.
pub(super) fn as_written(at_ms: i64, stamp: Stamp) -> String {
    let local = rfc3339(at_ms + i64::from(stamp.offset_minutes.unwrap_or(0)) * 60_000);
    let to_seconds = local.get(..19).unwrap_or_default();
    let text = if stamp.has_ms { local.trim_end_matches('Z') } else { to_seconds };
    match stamp.offset_minutes {
        None => format!("{text}Z"),
        Some(offset) => {
            let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
            format!("{text}{sign}{:02}:{:02}", offset / 60, offset % 60)
        }
    }
}

/// The zone whose days are meant.
pub(super) fn zone(name: Option<&str>) -> Result<TimeZone> {
    match name {
        None | Some("local") => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name).map_err(|_| {
            anyhow::anyhow!(
                "{name} is no time zone\nhint: an IANA name such as UTC or America/New_York, or local"
            )
        }),
    }
}

/// The day in that zone.
pub(super) fn day(at_ms: i64, zone: &TimeZone) -> Date {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    zone.to_datetime(at).date()
}

/// The first day of the week that `day` is in.
pub(super) fn week_of(day: Date, first: Weekday) -> Date {
    let back = day.weekday().since(first);
    day.checked_sub(i64::from(back).days()).unwrap_or(day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_four_lengths_count() {
        let noon = 1_767_355_200_000;
        let good = [
            ("2026-01-02T12:00:00Z", noon),
            ("2026-01-02T12:00:00.007Z", noon + 7),
            ("2026-01-02T12:00:00+02:00", noon - 2 * 3_600_000),
            ("2026-01-02T12:00:00.000-00:30", noon + 30 * 60_000),
        ];
        for (text, ms) in good {
            let (at_ms, stamp) = parse(text).unwrap();
            assert_eq!(at_ms, ms, "{text}");
            assert_eq!(as_written(at_ms, stamp), text);
        }
        let bad = [
            "2026-01-02T12:00:00.123456Z",
            "2026-01-02T12:00:00.1Z",
            "2026-01-02 12:00:00Z",
            "2026-01-02",
            "2026-01-02T12:00:00",
            "2026-13-02T12:00:00Z",
            "2026-02-30T12:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T12:00:60Z",
            "ä026-01-02T12:00:00Z",
            "",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn weeks_begin_on_the_day_asked_for() {
        let sunday = Date::constant(2026, 2, 22);
        assert_eq!(week_of(Date::constant(2026, 2, 25), Weekday::Sunday), sunday);
        assert_eq!(week_of(sunday, Weekday::Sunday), sunday);
        assert_eq!(week_of(sunday, Weekday::Monday), Date::constant(2026, 2, 16));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in 0_i64..4_102_444_800_000) {
            prop_assert_eq!(parse(&rfc3339(ms)).map(|(ms, _)| ms), Some(ms));
        }
    }
}
