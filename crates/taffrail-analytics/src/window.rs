//! The windows that every read offers: `1m 5m 15m 1h 6h 24h 7d 30d`, and how their history is cut.
//!
//! A window ends now and begins at a whole minute (1m to 24h) or a whole hour (7d, 30d), so that it is a
//! sum of rollups; it is therefore longer than its name by less than one unit, and rates divide by its
//! true length ([`Bounds::minutes`]).
//!
//! History is [`HISTORY_STEPS`] equal steps of W/30. Where a step is a minute or longer (1h: 2 min,
//! 6h: 12 min, 24h: 48 min, 7d: 5.6 h, 30d: 24 h) it is summed from rollups, the last step holding the
//! unfinished unit; a rollup belongs to the step it begins in. Where it is shorter (1m: 2 s, 5m: 10 s,
//! 15m: 30 s) it is summed from the fine rollups of 2 seconds, which are kept for a while only; where they are not
//! there, the same steps are counted from the rows of the last W ([`Window::history_resolution`]).

/// How many steps a history has.
pub const HISTORY_STEPS: usize = 30;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A window by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Window {
    M1,
    M5,
    M15,
    H1,
    H6,
    H24,
    D7,
    D30,
}

/// The rollups a window is summed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One row every two seconds.
    Fine,
    /// One row a minute.
    Minute,
    /// One row an hour.
    Hour,
}

impl Resolution {
    /// The length of one rollup, in milliseconds.
    pub const fn ms(self) -> i64 {
        match self {
            Self::Fine => 2_000,
            Self::Minute => MINUTE_MS,
            Self::Hour => HOUR_MS,
        }
    }
}

/// A window laid on the clock; all in milliseconds since the Unix epoch, `from` inclusive, `to` exclusive
/// of what comes after now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Where the window begins, a whole minute or hour.
    pub from: i64,
    /// Now.
    pub to: i64,
    /// The length of one step of the history.
    pub step: i64,
    /// Where the first step begins; `history_from + 30 * step` is the end of the rollup that now lies in.
    pub history_from: i64,
}

impl Window {
    /// Every window, shortest first.
    pub const ALL: &[Self] =
        &[Self::M1, Self::M5, Self::M15, Self::H1, Self::H6, Self::H24, Self::D7, Self::D30];

    /// The window of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|w| w.name() == name)
    }

    /// The name in queries and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::M1 => "1m",
            Self::M5 => "5m",
            Self::M15 => "15m",
            Self::H1 => "1h",
            Self::H6 => "6h",
            Self::H24 => "24h",
            Self::D7 => "7d",
            Self::D30 => "30d",
        }
    }

    /// Its nominal length, in milliseconds.
    pub const fn length_ms(self) -> i64 {
        match self {
            Self::M1 => MINUTE_MS,
            Self::M5 => 5 * MINUTE_MS,
            Self::M15 => 15 * MINUTE_MS,
            Self::H1 => HOUR_MS,
            Self::H6 => 6 * HOUR_MS,
            Self::H24 => DAY_MS,
            Self::D7 => 7 * DAY_MS,
            Self::D30 => 30 * DAY_MS,
        }
    }

    /// The rollups it is summed from.
    pub const fn resolution(self) -> Resolution {
        match self {
            Self::D7 | Self::D30 => Resolution::Hour,
            _ => Resolution::Minute,
        }
    }

    /// The rollups its history is summed from: the coarsest that tell its steps apart.
    pub const fn history_resolution(self) -> Resolution {
        if self.step_ms() < MINUTE_MS { Resolution::Fine } else { self.resolution() }
    }

    /// The length of one step of its history, in milliseconds.
    pub const fn step_ms(self) -> i64 {
        self.length_ms() / HISTORY_STEPS as i64
    }

    /// The window that ends at `now_ms`.
    pub const fn bounds(self, now_ms: i64) -> Bounds {
        let unit = self.resolution().ms();
        let step = self.step_ms();
        let history_unit = self.history_resolution().ms();
        let history_to = floor_to(now_ms, history_unit) + history_unit;
        Bounds {
            from: floor_to(now_ms - self.length_ms(), unit),
            to: now_ms,
            step,
            history_from: history_to - step * HISTORY_STEPS as i64,
        }
    }

    /// The window of the same length before that one, for trends: it ends where the other begins.
    pub const fn previous(self, now_ms: i64) -> Bounds {
        let current = self.bounds(now_ms);
        let length = current.to - current.from;
        let from = floor_to(current.from - length, self.resolution().ms());
        Bounds {
            from,
            to: current.from,
            step: current.step,
            history_from: current.history_from - self.length_ms(),
        }
    }
}

impl Bounds {
    /// Its true length, in minutes.
    pub fn minutes(&self) -> f64 {
        (self.to - self.from) as f64 / MINUTE_MS as f64
    }

    /// The step of the history in which that instant lies; none outside of all.
    pub fn step_of(&self, ts_ms: i64) -> Option<usize> {
        let index = (ts_ms - self.history_from).div_euclid(self.step);
        usize::try_from(index).ok().filter(|index| *index < HISTORY_STEPS)
    }

    /// Where each step begins, oldest first.
    pub fn steps(&self) -> impl Iterator<Item = i64> + '_ {
        (0..HISTORY_STEPS as i64).map(|index| self.history_from + index * self.step)
    }
}

const fn floor_to(ms: i64, unit: i64) -> i64 {
    ms - ms.rem_euclid(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_round_trip() {
        for window in Window::ALL {
            assert_eq!(Window::parse(window.name()), Some(*window));
        }
        assert_eq!(Window::parse("2h"), None);
        assert_eq!(Window::parse(""), None);
    }

    #[test]
    fn an_hour_begins_at_a_whole_minute_and_its_last_step_holds_now() {
        let now = 1_795_333_438_402;
        let bounds = Window::H1.bounds(now);
        assert_eq!(bounds.from % MINUTE_MS, 0);
        assert_eq!((bounds.to, bounds.step), (now, 120_000));
        assert!(bounds.to - bounds.from >= HOUR_MS && bounds.to - bounds.from < HOUR_MS + MINUTE_MS);
        assert_eq!(bounds.step_of(now), Some(HISTORY_STEPS - 1));
        assert_eq!(bounds.steps().count(), HISTORY_STEPS);
    }

    #[test]
    fn short_windows_have_their_history_in_fine_rollups() {
        let fine: Vec<_> = Window::ALL
            .iter()
            .filter(|w| w.history_resolution() == Resolution::Fine)
            .map(|w| w.name())
            .collect();
        assert_eq!(fine, ["1m", "5m", "15m"]);
        let bounds = Window::M1.bounds(1_795_333_438_402);
        assert_eq!((bounds.step, bounds.history_from), (2_000, 1_795_333_440_000 - MINUTE_MS));
    }

    proptest! {
        #[test]
        fn every_window_holds_at_least_its_length_and_less_than_one_unit_more(index in 0..8usize, now in 0i64..4_000_000_000_000) {
            let window = Window::ALL[index];
            let unit = window.resolution().ms();
            let bounds = window.bounds(now);
            prop_assert_eq!(bounds.from.rem_euclid(unit), 0);
            prop_assert!((window.length_ms()..window.length_ms() + unit).contains(&(bounds.to - bounds.from)));
            prop_assert_eq!(bounds.step * HISTORY_STEPS as i64, window.length_ms());
            let previous = window.previous(now);
            prop_assert_eq!(previous.to, bounds.from);
            prop_assert_eq!(previous.from.rem_euclid(unit), 0);
            prop_assert!(previous.to - previous.from >= window.length_ms());
            for start in bounds.steps() {
                prop_assert!(bounds.step_of(start).is_some());
            }
            prop_assert_eq!(bounds.step_of(now - 1), Some(HISTORY_STEPS - 1));
            prop_assert_eq!(bounds.step_of(bounds.history_from - 1), None);
        }
    }
}
