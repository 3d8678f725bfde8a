//! How many agents the load to come would keep busy.
//!
//! Little's law: agents busy = calls an hour times hours an agent spends on a call. What an agent does in an hour is taken from the
//! last hours; the forecast says how many calls are to come. A change is advised only where the interval of 80 % lies on one side of
//! what runs now, so that noise advises nothing.

use super::Band;

/// A change smaller than this is none.
const DEAD_BAND: f64 = 0.1;
/// The factor is kept within these: beyond, the past says little about how agents work side by side.
const FACTOR: (f64, f64) = (0.25, 4.0);

/// What to do with the number of agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Direction {
    ScaleUp,
    Hold,
    ScaleDown,
}

impl Direction {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::Hold => "hold",
            Self::ScaleDown => "scale_down",
        }
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Cause {
    MoreCallsExpected,
    FewerCallsExpected,
    SameLoadExpected,
    NoAgents,
    NoCalls,
}

impl Cause {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MoreCallsExpected => "more_calls_expected",
            Self::FewerCallsExpected => "fewer_calls_expected",
            Self::SameLoadExpected => "same_load_expected",
            Self::NoAgents => "no_agents_now",
            Self::NoCalls => "no_calls_now",
        }
    }
}

/// See [`recommend`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// What to do.
    pub direction: Direction,
    /// Agents that the forecast would keep busy, relative to now; 1 on `hold`.
    pub factor: f64,
    /// Agents that the forecast would keep busy; none where what one does is not known.
    pub agents: Option<Band>,
    /// Why.
    pub cause: Cause,
}

/// From the agents that work now, the calls they made in the last hour, and the calls that the next hour is forecast to have.
pub fn recommend(agents_now: f64, calls_last_hour: f64, next_hour: &Band) -> Scaling {
    let hold = |cause, agents| Scaling { direction: Direction::Hold, factor: 1.0, agents, cause };
    if agents_now.is_nan() || agents_now <= 0.0 {
        return hold(Cause::NoAgents, None);
    }
    if calls_last_hour.is_nan() || calls_last_hour <= 0.0 {
        return hold(Cause::NoCalls, None);
    }
    let per_agent = calls_last_hour / agents_now;
    let agents = Band {
        value: next_hour.value / per_agent,
        lower_80: next_hour.lower_80 / per_agent,
        upper_80: next_hour.upper_80 / per_agent,
        lower_95: next_hour.lower_95 / per_agent,
        upper_95: next_hour.upper_95 / per_agent,
    };
    let factor = (next_hour.value / calls_last_hour).clamp(FACTOR.0, FACTOR.1);
    let changed = |direction, cause| Scaling { direction, factor, agents: Some(agents), cause };
    if next_hour.lower_80 > calls_last_hour * (1.0 + DEAD_BAND) {
        changed(Direction::ScaleUp, Cause::MoreCallsExpected)
    } else if next_hour.upper_80 < calls_last_hour * (1.0 - DEAD_BAND) {
        changed(Direction::ScaleDown, Cause::FewerCallsExpected)
    } else {
        hold(Cause::SameLoadExpected, Some(agents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(agents: f64, calls: f64, value: f64, around: f64) -> (Direction, f64, Cause) {
        let band = Band {
            value,
            lower_80: value - around,
            upper_80: value + around,
            lower_95: value - 2.0 * around,
            upper_95: value + 2.0 * around,
        };
        let scaling = recommend(agents, calls, &band);
        (scaling.direction, scaling.factor, scaling.cause)
    }

    #[test]
    fn a_change_is_advised_only_where_the_interval_is_on_one_side() {
        assert_eq!(check(4.0, 100.0, 200.0, 50.0), (Direction::ScaleUp, 2.0, Cause::MoreCallsExpected));
        assert_eq!(check(4.0, 100.0, 200.0, 95.0), (Direction::Hold, 1.0, Cause::SameLoadExpected));
        assert_eq!(check(4.0, 100.0, 50.0, 10.0), (Direction::ScaleDown, 0.5, Cause::FewerCallsExpected));
        assert_eq!(check(4.0, 100.0, 50.0, 45.0), (Direction::Hold, 1.0, Cause::SameLoadExpected));
        assert_eq!(check(4.0, 100.0, 4_000.0, 1.0).1, 4.0, "bounded");
    }

    #[test]
    fn nothing_is_made_up_from_nothing() {
        assert_eq!(check(0.0, 100.0, 200.0, 1.0), (Direction::Hold, 1.0, Cause::NoAgents));
        assert_eq!(check(3.0, 0.0, 200.0, 1.0), (Direction::Hold, 1.0, Cause::NoCalls));
    }

    #[test]
    fn agents_are_calls_by_what_one_does() {
        let band = Band { value: 60.0, lower_80: 40.0, upper_80: 80.0, lower_95: 20.0, upper_95: 100.0 };
        let agents = recommend(3.0, 30.0, &band).agents.unwrap();
        assert!((agents.value - 6.0).abs() < 1e-12 && (agents.upper_95 - 10.0).abs() < 1e-12);
    }
}
