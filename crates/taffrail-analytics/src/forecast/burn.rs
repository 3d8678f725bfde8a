//! Burn rate, and when a budget will be used up.
//!
//! Spending goes on along the forecast's sums; behind their end it goes on at their mean rate, for the value and for each bound.
//! A budget begins anew at the end of its period. Hours count from now.

use super::Band;

/// How far ahead "will overrun" looks, in hours.
pub const LOOK_AHEAD_HOURS: f64 = 24.0;
/// A budget that would be used up within this time needs a stop, not a slower pace, in hours.
const PAUSE_WITHIN_HOURS: f64 = 1.0;
/// Where even the lower bound of the period's total is this many times the budget, the budget is not what is used.
const RAISE_FROM: f64 = 1.5;

/// Spending an hour, exponentially weighted: `amounts` are what was spent in equal steps, oldest first, each `step_hours` long; a
/// step counts half as much as one `half_life_hours` later (Holt 1957, with the bias of the first steps taken out as by Kingma and
/// Ba 2015). None without a step.
pub fn burn_rate_per_hour(amounts: &[f64], step_hours: f64, half_life_hours: f64) -> Option<f64> {
    if amounts.is_empty()
        || step_hours.is_nan()
        || step_hours <= 0.0
        || half_life_hours.is_nan()
        || half_life_hours <= 0.0
    {
        return None;
    }
    let fade = 0.5f64.powf(step_hours / half_life_hours);
    let (sum, weights) =
        amounts.iter().fold((0.0, 0.0), |(sum, weights), amount| (sum * fade + amount, weights * fade + 1.0));
    Some(sum / weights / step_hours)
}

/// A budget as it stands now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// What may be spent in a period.
    pub limit: f64,
    /// What was spent in the running one.
    pub spent: f64,
    /// Until it ends.
    pub hours_left: f64,
    /// Whether requests of the period have no price: they are in no sum, and no budget holds them.
    pub has_unpriced: bool,
}

/// What is to come: the sums of a forecast of spending.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'f> {
    /// Up to and with each step, of one hour each.
    pub sums: &'f [Band],
    /// The rest of the first step, in hours, above 0 and at most 1.
    pub first_hours: f64,
}

/// What will become of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Whether it is used up now.
    pub is_over: bool,
    /// Whether it will be within [`LOOK_AHEAD_HOURS`]; none where nothing can be forecast and it is not used up.
    pub will_overrun: Option<bool>,
    /// When it is expected to be used up, in hours, in this period or, within the look-ahead, in the next; none where it is not.
    pub at_hours: Option<f64>,
    /// The same by the upper bound of 95 %: hardly before that.
    pub earliest_hours: Option<f64>,
    /// By the lower bound: hardly after that; none where it may well not happen.
    pub latest_hours: Option<f64>,
    /// The running period's total at its end.
    pub period_total: Option<Band>,
    /// What to do, the most urgent first; never empty.
    pub actions: Vec<Advice>,
}

/// What to do, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Advice {
    pub action: Action,
    pub reason: Reason,
    /// For `throttle`: the spending an hour that the budget bears until its period ends.
    pub rate_per_hour: Option<f64>,
}

/// What can be advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    None,
    Watch,
    Throttle,
    Pause,
    RaiseBudget,
    SetPrices,
}

/// Why it is advised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Reason {
    WithinBudget,
    TooLittleHistory,
    MayOverrun,
    WillOverrunLater,
    WillOverrunToday,
    WillOverrunWithinTheHour,
    OverBudget,
    BudgetFarBelowUse,
    RequestsWithoutPrice,
}

impl Action {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Watch => "watch",
            Self::Throttle => "throttle",
            Self::Pause => "pause",
            Self::RaiseBudget => "raise_budget",
            Self::SetPrices => "set_prices",
        }
    }
}

impl Reason {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WithinBudget => "within_budget",
            Self::TooLittleHistory => "too_little_history",
            Self::MayOverrun => "may_overrun",
            Self::WillOverrunLater => "will_overrun_later",
            Self::WillOverrunToday => "will_overrun_within_24h",
            Self::WillOverrunWithinTheHour => "will_overrun_within_1h",
            Self::OverBudget => "over_budget",
            Self::BudgetFarBelowUse => "budget_far_below_use",
            Self::RequestsWithoutPrice => "requests_without_price",
        }
    }
}

/// What will become of the budget; `ahead` none where there is too little history for a forecast.
pub fn outlook(budget: &Budget, ahead: Option<Ahead<'_>>) -> Outlook {
    let is_over = budget.spent >= budget.limit;
    let ahead = ahead.filter(|ahead| !ahead.sums.is_empty());
    let crossing =
        |bound: fn(&Band) -> f64| ahead.and_then(|ahead| crossing_hours(budget, &Curve::of(&ahead, bound)));
    let at_hours = crossing(|band| band.value);
    let total = |ahead: &Ahead<'_>| {
        let at_end = |bound: fn(&Band) -> f64| budget.spent + Curve::of(ahead, bound).at(budget.hours_left);
        Band {
            value: at_end(|band| band.value),
            lower_80: at_end(|band| band.lower_80),
            upper_80: at_end(|band| band.upper_80),
            lower_95: at_end(|band| band.lower_95),
            upper_95: at_end(|band| band.upper_95),
        }
    };
    let mut outlook = Outlook {
        is_over,
        will_overrun: if is_over {
            Some(true)
        } else {
            ahead.map(|_| at_hours.is_some_and(|at| at <= LOOK_AHEAD_HOURS))
        },
        at_hours: if is_over { Some(0.0) } else { at_hours },
        earliest_hours: if is_over { Some(0.0) } else { crossing(|band| band.upper_95) },
        latest_hours: if is_over { Some(0.0) } else { crossing(|band| band.lower_95) },
        period_total: ahead.as_ref().map(total),
        actions: Vec::new(),
    };
    outlook.actions = advise(budget, &outlook);
    outlook
}

fn advise(budget: &Budget, outlook: &Outlook) -> Vec<Advice> {
    let advice = |action, reason| Advice { action, reason, rate_per_hour: None };
    let mut actions = Vec::new();
    if outlook.is_over {
        actions.push(advice(Action::Pause, Reason::OverBudget));
    } else if let Some(at) = outlook.at_hours {
        // In a period to come the whole budget is there again: nothing to slow down for now.
        let is_this_period = at <= budget.hours_left;
        actions.push(if at <= PAUSE_WITHIN_HOURS && is_this_period {
            advice(Action::Pause, Reason::WillOverrunWithinTheHour)
        } else if at <= LOOK_AHEAD_HOURS {
            let rate = (budget.limit - budget.spent) / budget.hours_left.max(f64::MIN_POSITIVE);
            Advice {
                action: Action::Throttle,
                reason: Reason::WillOverrunToday,
                rate_per_hour: is_this_period.then_some(rate).filter(|rate| rate.is_finite()),
            }
        } else {
            advice(Action::Watch, Reason::WillOverrunLater)
        });
    } else if outlook.earliest_hours.is_some() {
        actions.push(advice(Action::Watch, Reason::MayOverrun));
    }
    if outlook.period_total.is_some_and(|total| total.lower_80 > RAISE_FROM * budget.limit) {
        actions.push(advice(Action::RaiseBudget, Reason::BudgetFarBelowUse));
    }
    if budget.has_unpriced {
        actions.push(advice(Action::SetPrices, Reason::RequestsWithoutPrice));
    }
    if actions.is_empty() {
        let is_known = outlook.will_overrun.is_some();
        actions.push(advice(
            Action::None,
            if is_known { Reason::WithinBudget } else { Reason::TooLittleHistory },
        ));
    }
    actions
}

/// When the budget is used up: in this period, else in the next within the look-ahead.
fn crossing_hours(budget: &Budget, curve: &Curve) -> Option<f64> {
    let here = curve.reaches(budget.limit - budget.spent);
    if let Some(at) = here.filter(|at| *at <= budget.hours_left) {
        return Some(at);
    }
    let next = curve.reaches(curve.at(budget.hours_left) + budget.limit);
    next.filter(|at| *at > budget.hours_left && *at <= LOOK_AHEAD_HOURS)
}

/// Spending from now on: straight between the ends of the steps, and on at the mean rate behind the last.
struct Curve {
    /// Hours and sum, both never falling.
    corners: Vec<(f64, f64)>,
    rate: f64,
}

impl Curve {
    fn of(ahead: &Ahead<'_>, bound: fn(&Band) -> f64) -> Self {
        let mut corners = vec![(0.0, 0.0)];
        let mut most = 0.0f64;
        for (step, sum) in ahead.sums.iter().enumerate() {
            // The bounds of sums are each their own: money once spent does not come back.
            most = most.max(bound(sum));
            corners.push((ahead.first_hours + step as f64, most));
        }
        let (hours, sum) = corners[corners.len() - 1];
        Self { rate: if hours > 0.0 { sum / hours } else { 0.0 }, corners }
    }

    fn at(&self, hours: f64) -> f64 {
        let after = self.corners.partition_point(|(at, _)| *at <= hours);
        match (self.corners.get(after.wrapping_sub(1)), self.corners.get(after)) {
            (Some(&(from, low)), Some(&(to, high))) => low + (high - low) * (hours - from) / (to - from),
            (Some(&(from, low)), None) => low + self.rate * (hours - from),
            _ => 0.0,
        }
    }

    /// The first moment at which the sum is at least that; none where it never is.
    fn reaches(&self, amount: f64) -> Option<f64> {
        if amount <= 0.0 {
            return Some(0.0);
        }
        let after = self.corners.partition_point(|(_, sum)| *sum < amount);
        let &(from, low) = self.corners.get(after.checked_sub(1)?)?;
        match self.corners.get(after) {
            Some(&(to, high)) => Some(from + (to - from) * (amount - low) / (high - low)),
            None => (self.rate > 0.0).then(|| from + (amount - low) / self.rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An even rate with bounds at half and twice of it.
    fn even(rate: f64, hours: usize) -> Vec<Band> {
        (1..=hours)
            .map(|h| {
                let value = rate * h as f64;
                Band {
                    value,
                    lower_80: value * 0.75,
                    upper_80: value * 1.5,
                    lower_95: value / 2.0,
                    upper_95: value * 2.0,
                }
            })
            .collect()
    }

    fn check(budget: (f64, f64, f64), rate: f64) -> Outlook {
        let (limit, spent, hours_left) = budget;
        let sums = even(rate, 24);
        let budget = Budget { limit, spent, hours_left, has_unpriced: false };
        outlook(&budget, Some(Ahead { sums: &sums, first_hours: 1.0 }))
    }

    fn first(outlook: &Outlook) -> (Action, Reason) {
        (outlook.actions[0].action, outlook.actions[0].reason)
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn an_even_rate_uses_a_budget_up_when_division_says() {
        let outlook = check((10.0, 4.0, 12.0), 1.0);
        assert_eq!(outlook.will_overrun, Some(true));
        assert!(near(outlook.at_hours, 6.0) && near(outlook.earliest_hours, 3.0), "{outlook:?}");
        assert!(near(outlook.latest_hours, 12.0), "{outlook:?}");
        assert!(near(outlook.period_total.map(|total| total.value), 16.0));
        assert_eq!(first(&outlook), (Action::Throttle, Reason::WillOverrunToday));
        assert!(near(outlook.actions[0].rate_per_hour, 0.5));
    }

    #[test]
    fn a_day_ends_before_the_money_does_and_the_next_day_begins_anew() {
        // Five hours left, six dollars left, a dollar an hour: not today. Tomorrow's ten dollars last ten hours.
        let outlook = check((10.0, 4.0, 5.0), 1.0);
        assert!(near(outlook.at_hours, 15.0), "{outlook:?}");
        assert_eq!(outlook.actions[0].rate_per_hour, None, "what is left today is enough");
        // Tomorrow's twenty would last longer than is looked ahead.
        let outlook = check((20.0, 4.0, 5.0), 1.0);
        assert_eq!((outlook.will_overrun, outlook.at_hours), (Some(false), None));
        assert_eq!(first(&outlook), (Action::Watch, Reason::MayOverrun), "at twice the rate it might");
    }

    #[test]
    fn a_month_goes_on_behind_the_forecast_at_its_rate() {
        let outlook = check((1_000.0, 900.0, 20.0 * 24.0), 1.0);
        assert_eq!(outlook.will_overrun, Some(false), "not within a day");
        assert!(near(outlook.at_hours, 100.0), "{outlook:?}");
        assert_eq!(first(&outlook), (Action::Watch, Reason::WillOverrunLater));
    }

    #[test]
    fn what_is_over_is_over_without_a_forecast_and_what_is_not_is_not_known() {
        let budget = Budget { limit: 5.0, spent: 5.0, hours_left: 3.0, has_unpriced: true };
        let over = outlook(&budget, None);
        assert_eq!((over.is_over, over.will_overrun, over.at_hours), (true, Some(true), Some(0.0)));
        let actions: Vec<Action> = over.actions.iter().map(|advice| advice.action).collect();
        assert_eq!(actions, [Action::Pause, Action::SetPrices]);
        let unknown = outlook(&Budget { spent: 1.0, has_unpriced: false, ..budget }, None);
        assert_eq!((unknown.will_overrun, unknown.at_hours, unknown.period_total), (None, None, None));
        assert_eq!(first(&unknown), (Action::None, Reason::TooLittleHistory));
    }

    #[test]
    fn nothing_spent_is_within_and_much_more_than_the_budget_asks_for_a_larger_one() {
        assert_eq!(first(&check((5.0, 1.0, 8.0), 0.0)), (Action::None, Reason::WithinBudget));
        let outlook = check((5.0, 1.0, 8.0), 10.0);
        assert_eq!(first(&outlook), (Action::Pause, Reason::WillOverrunWithinTheHour));
        assert!(outlook.actions.iter().any(|advice| advice.action == Action::RaiseBudget));
        // A budget of nothing is over at once.
        assert!(check((0.0, 0.0, 8.0), 0.0).is_over);
    }

    #[test]
    fn a_burn_rate_is_that_of_the_last_hours() {
        assert_eq!(burn_rate_per_hour(&[], 0.25, 1.0), None);
        let rate = |amounts: &[f64]| burn_rate_per_hour(amounts, 0.25, 1.0).unwrap();
        assert!((rate(&[2.0]) - 8.0).abs() < 1e-9, "the first step is not pulled to 0");
        assert!((rate(&[1.0; 40]) - 4.0).abs() < 1e-9);
        let slowed: Vec<f64> = [1.0; 40].into_iter().chain([0.0; 4]).collect();
        assert!((rate(&slowed) - 2.0).abs() < 0.01, "half a life later it is half");
    }

    proptest! {
        #[test]
        fn moments_are_in_order_and_at_them_the_budget_is_used_up(
            steps in prop::collection::vec(0.0..50.0f64, 1..30),
            limit in 0.1..500.0f64, spent_share in 0.0..0.99f64, hours_left in 0.01..800.0f64, first_hours in 0.01..=1.0f64,
        ) {
            let mut sum = 0.0;
            let sums: Vec<Band> = steps.iter().map(|step| {
                sum += step;
                Band { value: sum, lower_80: sum * 0.7, upper_80: sum * 1.4, lower_95: sum * 0.4, upper_95: sum * 1.9 }
            }).collect();
            let budget = Budget { limit, spent: limit * spent_share, hours_left, has_unpriced: false };
            let ahead = Ahead { sums: &sums, first_hours };
            let outlook = outlook(&budget, Some(ahead));
            prop_assert!(!outlook.actions.is_empty());
            prop_assert_eq!(outlook.will_overrun, Some(outlook.at_hours.is_some_and(|at| at <= LOOK_AHEAD_HOURS)));
            if let Some(at) = outlook.at_hours {
                prop_assert!(at >= 0.0 && at.is_finite());
                prop_assert!(outlook.earliest_hours.is_some_and(|earliest| earliest <= at + 1e-6));
                if at <= hours_left {
                    let curve = Curve::of(&ahead, |band| band.value);
                    prop_assert!((budget.spent + curve.at(at) - limit).abs() <= 1e-6 * limit.max(1.0));
                }
            }
        }
    }
}
