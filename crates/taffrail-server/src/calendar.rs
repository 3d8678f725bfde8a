//! Days, weeks, months and hours of a time zone as spans of time: how reports and the costs of the API are cut.
//!
//! Pure: no clock. Only the zone of the machine is looked up, and only where none is named. A day begins at its first
//! instant, which is not midnight where a clock was put forward at midnight, and has 23 to 25 hours (24.5 on Lord Howe);
//! a day that a zone left out does not exist. Limit: [`CUTS_MAX`] spans at once.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use taffrail_event::TimestampMs;

/// Spans that one call makes, at most: thirteen months of hours, or 27 years of days.
pub const CUTS_MAX: usize = 10_000;

const MINUTE_MS: i64 = 60_000;
const HOUR_MINUTES: i64 = 60;

/// How time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By the hours of the zone's clock.
    Hour,
    /// By its days.
    Day,
    /// By weeks that begin on this day.
    Week(Weekday),
    /// By its months.
    Month,
}

/// One span of time with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// `2026-11-22`; of a week its first day; of a month `2026-11`; of an hour `2026-11-22T14:00+01:00`, the offset telling
    /// the two hours apart that a clock put back strikes twice.
    pub label: String,
    /// First millisecond.
    pub from: TimestampMs,
    /// One past the last millisecond.
    pub to: TimestampMs,
}

/// Why time could not be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// No such zone.
    #[error(
        "time zone `{0}` is not known\nhint: give an IANA name such as Europe/Berlin, America/New_York or UTC"
    )]
    UnknownZone(String),
    /// More spans than [`CUTS_MAX`].
    #[error("that is more than {CUTS_MAX} {0}s\nhint: ask for a shorter time or a coarser cut")]
    TooMany(&'static str),
    /// Text that is no day.
    #[error("`{0}` is no day\nhint: give it as 2026-11-22 or 20261122")]
    NoDay(String),
}

/// A time zone and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    tz: TimeZone,
    name: String,
}

impl Zone {
    /// The zone of that IANA name; the machine's own where none is given.
    ///
    /// # Errors
    /// [`CalendarError::UnknownZone`].
    pub fn named(name: Option<&str>) -> Result<Self, CalendarError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Self::system()) };
        match TimeZone::get(name) {
            Ok(tz) => {
                let name = tz.iana_name().unwrap_or(name).to_owned();
                Ok(Self { tz, name })
            }
            Err(_) => Err(CalendarError::UnknownZone(name.chars().take(64).collect())),
        }
    }

    /// The machine's zone; UTC where it has none.
    pub fn system() -> Self {
        let tz = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        // A machine can have rules without a name (`/etc/localtime` that is no link): they hold all the same.
        let name = tz.iana_name().unwrap_or("local").to_owned();
        Self { tz, name }
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The day an instant lies in, as `2026-11-22`.
    pub fn day_of(&self, at: TimestampMs) -> String {
        self.zoned(at).date().to_string()
    }

    /// The minute of the zone's clock at an instant, as `2026-11-22 14:05`.
    pub fn minute_of(&self, at: TimestampMs) -> String {
        self.zoned(at).strftime("%Y-%m-%d %H:%M").to_string()
    }

    /// As [`Self::minute_of`], to the second.
    pub fn second_of(&self, at: TimestampMs) -> String {
        self.zoned(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// A day as a person writes it (`2026-11-22` or `20261122`): its first millisecond, and one past its last.
    ///
    /// # Errors
    /// [`CalendarError::NoDay`].
    pub fn day(&self, text: &str) -> Result<(TimestampMs, TimestampMs), CalendarError> {
        let is_dashed = text.len() == 10 && text.as_bytes()[4] == b'-';
        let is_plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
        let format = if is_dashed { "%Y-%m-%d" } else { "%Y%m%d" };
        let date = (is_dashed || is_plain).then(|| Date::strptime(format, text).ok()).flatten();
        let date = date.ok_or_else(|| CalendarError::NoDay(text.chars().take(64).collect()))?;
        Ok((self.begin(date), self.begin(date.saturating_add(1.day()))))
    }

    /// The spans that hold every millisecond from `from` to just before `to`, oldest first and without a gap. The first
    /// and the last are whole: they reach beyond what was asked for.
    ///
    /// # Errors
    /// [`CalendarError::TooMany`].
    pub fn cuts(&self, cut: Cut, from: TimestampMs, to: TimestampMs) -> Result<Vec<Slice>, CalendarError> {
        let mut slices = Vec::new();
        let mut place = self.place(cut, from);
        while place.at < to {
            let next = self.after(cut, &place);
            if next.at > place.at {
                if slices.len() == CUTS_MAX {
                    return Err(CalendarError::TooMany(cut.name()));
                }
                slices.push(Slice { label: place.label, from: place.at, to: next.at });
            } else if next.at >= TimestampMs::MAX {
                break;
            }
            place = next;
        }
        Ok(slices)
    }

    /// Where the span that holds an instant begins.
    fn place(&self, cut: Cut, at: TimestampMs) -> Place {
        let zoned = self.zoned(at);
        match cut {
            Cut::Hour => {
                let into = i64::from(zoned.minute()) * MINUTE_MS
                    + i64::from(zoned.second()) * 1_000
                    + i64::from(zoned.millisecond());
                self.hour(at.get() - into)
            }
            Cut::Day => self.date(cut, zoned.date()),
            Cut::Week(first) => {
                let back = zoned.weekday().since(first);
                self.date(cut, zoned.date().saturating_sub(i64::from(back).days()))
            }
            Cut::Month => self.date(cut, zoned.date().first_of_month()),
        }
    }

    /// Where the next one begins.
    fn after(&self, cut: Cut, place: &Place) -> Place {
        match cut {
            // To the next full hour of the clock as it stands then: a change by half an hour makes one of 30 minutes.
            Cut::Hour => {
                let minute = i64::from(self.zoned(place.at).minute());
                self.hour(place.at.get() + (HOUR_MINUTES - minute) * MINUTE_MS)
            }
            Cut::Day => self.date(cut, place.date.saturating_add(1.day())),
            Cut::Week(_) => self.date(cut, place.date.saturating_add(7.days())),
            Cut::Month => self.date(cut, place.date.saturating_add(1.month())),
        }
    }

    fn hour(&self, at_ms: i64) -> Place {
        let at = TimestampMs::clamped(at_ms);
        let zoned = self.zoned(at);
        Place { at, date: zoned.date(), label: zoned.strftime("%Y-%m-%dT%H:%M%:z").to_string() }
    }

    fn date(&self, cut: Cut, date: Date) -> Place {
        let label = match cut {
            Cut::Month => date.strftime("%Y-%m").to_string(),
            _ => date.to_string(),
        };
        Place { at: self.begin(date), date, label }
    }

    /// The first instant of a day; of a day that the zone left out that of the next.
    fn begin(&self, date: Date) -> TimestampMs {
        let begin = date.to_zoned(self.tz.clone()).map(|zoned| zoned.timestamp());
        TimestampMs::clamped(begin.unwrap_or(Timestamp::MAX).as_millisecond())
    }

    fn zoned(&self, at: TimestampMs) -> Zoned {
        // What a `TimestampMs` can hold lies far within what a `Timestamp` can.
        Timestamp::from_millisecond(at.get()).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.tz.clone())
    }
}

struct Place {
    at: TimestampMs,
    date: Date,
    label: String,
}

impl Cut {
    /// Its name in queries and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week(_) => "week",
            Self::Month => "month",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HOUR_MS: i64 = HOUR_MINUTES * MINUTE_MS;
    const WEEKDAYS: [Weekday; 2] = [Weekday::Monday, Weekday::Sunday];

    fn zone(name: &str) -> Zone {
        Zone::named(Some(name)).unwrap()
    }

    fn at(text: &str) -> TimestampMs {
        TimestampMs::clamped(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    /// Label and length in hours of each span.
    #[track_caller]
    fn check(name: &str, cut: Cut, from: &str, to: &str, expected: &[(&str, f64)]) {
        let slices = zone(name).cuts(cut, at(from), at(to)).unwrap();
        let found: Vec<(&str, f64)> = slices
            .iter()
            .map(|s| (s.label.as_str(), (s.to.get() - s.from.get()) as f64 / HOUR_MS as f64))
            .collect();
        assert_eq!(found, expected);
    }

    /// A generator without state beyond its seed, so that a failure repeats.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 33
    }

    #[test]
    fn spans_have_no_gap_and_no_overlap_in_any_zone() {
        let zones = [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "America/Sao_Paulo",
            "America/Havana",
            "Africa/Cairo",
            "Asia/Kathmandu",
            "Asia/Beirut",
            "Australia/Lord_Howe",
            "Pacific/Chatham",
            "Pacific/Apia",
            "America/St_Johns",
        ];
        let mut seed = 7;
        for name in zones {
            let zone = zone(name);
            for _ in 0..40 {
                let from = TimestampMs::clamped(
                    1_577_836_800_000 + next(&mut seed) as i64 % 500_000_000 * 1_000 + 123,
                );
                let days = next(&mut seed) as i64 % 60;
                let to = TimestampMs::clamped(
                    from.get() + days * 24 * HOUR_MS + next(&mut seed) as i64 % HOUR_MS + 1,
                );
                let cuts = [Cut::Hour, Cut::Day, Cut::Week(WEEKDAYS[(days % 2) as usize]), Cut::Month];
                for cut in cuts {
                    let slices = zone.cuts(cut, from, to).unwrap();
                    let (first, last) = (&slices[0], slices.last().unwrap());
                    assert!(first.from <= from && from < first.to, "{name} {cut:?} {from:?}: {first:?}");
                    assert!(last.from < to && to <= last.to, "{name} {cut:?} {to:?}: {last:?}");
                    for pair in slices.windows(2) {
                        assert_eq!(pair[0].to, pair[1].from, "{name} {cut:?}");
                        assert!(pair[0].from < pair[0].to);
                    }
                    let mut labels: Vec<&str> = slices.iter().map(|s| s.label.as_str()).collect();
                    labels.dedup();
                    assert_eq!(labels.len(), slices.len(), "{name} {cut:?}: each has a name of its own");
                    assert!(
                        slices.iter().all(|s| s.from.get() % (15 * MINUTE_MS) == 0),
                        "{name}: sums can be used"
                    );
                    if cut == Cut::Day {
                        assert_eq!(zone.day(&first.label).unwrap(), (first.from, first.to));
                        assert_eq!(zone.day_of(from), first.label);
                    }
                }
            }
        }
    }

    #[test]
    fn a_day_on_which_the_clock_changes_has_23_or_25_hours() {
        check(
            "Europe/Berlin",
            Cut::Day,
            "2026-03-28T12:00:00Z",
            "2026-03-30T00:00:00Z",
            &[("2026-03-28", 24.0), ("2026-03-29", 23.0), ("2026-03-30", 24.0)],
        );
        check(
            "Europe/Berlin",
            Cut::Day,
            "2026-10-25T12:00:00Z",
            "2026-10-25T13:00:00Z",
            &[("2026-10-25", 25.0)],
        );
        check(
            "America/New_York",
            Cut::Day,
            "2026-11-01T12:00:00Z",
            "2026-11-01T13:00:00Z",
            &[("2026-11-01", 25.0)],
        );
        check(
            "Australia/Lord_Howe",
            Cut::Day,
            "2026-04-05T00:00:00Z",
            "2026-04-05T00:00:01Z",
            &[("2026-04-05", 24.5)],
        );
        // The clock goes forward at midnight: the day begins at one.
        check(
            "Africa/Cairo",
            Cut::Hour,
            "2026-04-23T21:30:00Z",
            "2026-04-23T22:30:00Z",
            &[("2026-04-23T23:00+02:00", 1.0), ("2026-04-24T01:00+03:00", 1.0)],
        );
        check(
            "Africa/Cairo",
            Cut::Day,
            "2026-04-24T00:00:00Z",
            "2026-04-24T00:00:01Z",
            &[("2026-04-24", 23.0)],
        );
    }

    #[test]
    fn an_hour_that_comes_twice_has_two_names() {
        check(
            "Europe/Berlin",
            Cut::Hour,
            "2026-10-25T00:10:00Z",
            "2026-10-25T02:00:00Z",
            &[("2026-10-25T02:00+02:00", 1.0), ("2026-10-25T02:00+01:00", 1.0)],
        );
        // Lord Howe puts its clock back by half an hour, at two.
        check(
            "Australia/Lord_Howe",
            Cut::Hour,
            "2026-04-04T14:00:00Z",
            "2026-04-04T16:00:00Z",
            &[
                ("2026-04-05T01:00+11:00", 1.0),
                ("2026-04-05T01:30+10:30", 0.5),
                ("2026-04-05T02:00+10:30", 1.0),
            ],
        );
    }

    #[test]
    fn weeks_begin_when_told_and_months_have_their_length() {
        check(
            "Europe/Berlin",
            Cut::Week(Weekday::Monday),
            "2026-03-29T12:00:00Z",
            "2026-03-29T23:00:00Z",
            &[("2026-03-23", 167.0), ("2026-03-30", 168.0)],
        );
        check(
            "Europe/Berlin",
            Cut::Week(Weekday::Sunday),
            "2026-03-29T12:00:00Z",
            "2026-03-29T23:00:00Z",
            &[("2026-03-29", 167.0)],
        );
        check(
            "Europe/Berlin",
            Cut::Month,
            "2026-02-28T23:30:00Z",
            "2026-04-01T00:00:00Z",
            &[("2026-03", 31.0 * 24.0 - 1.0), ("2026-04", 30.0 * 24.0)],
        );
    }

    #[test]
    fn nothing_is_cut_into_nothing_and_too_much_is_refused() {
        let utc = zone("UTC");
        let noon = at("2026-11-22T12:00:00Z");
        assert_eq!(
            utc.cuts(Cut::Month, at("2026-11-01T00:00:00Z"), at("2026-11-01T00:00:00Z")),
            Ok(Vec::new())
        );
        assert_eq!(utc.cuts(Cut::Hour, TimestampMs::MIN, noon), Err(CalendarError::TooMany("hour")));
        let ever = utc.cuts(Cut::Month, TimestampMs::MIN, TimestampMs::MAX).unwrap();
        assert_eq!((ever[0].label.as_str(), ever[0].from), ("2020-01", TimestampMs::MIN));
        assert!(ever.len() > 800, "to the end of time, and it ends: {}", ever.len());
    }

    #[test]
    fn zones_and_days_are_told_apart_from_nonsense() {
        for name in ["Mars/Olympus", "+01:00x", "../../etc/passwd", "Europe"] {
            assert!(matches!(Zone::named(Some(name)), Err(CalendarError::UnknownZone(_))), "{name}");
        }
        assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
        assert_eq!(Zone::named(Some("")), Zone::named(None));
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.day("20261122"), berlin.day("2026-11-22"));
        for text in ["2026-13-01", "2026-02-30", "yesterday", "", "2026-1-1", "２０２６１１２２", "+2026112"]
        {
            assert!(matches!(berlin.day(text), Err(CalendarError::NoDay(_))), "{text}");
        }
    }
}
