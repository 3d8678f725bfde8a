//! What is to come, computed in the background and kept: tokens, cost and calls of the next hour and day, by scope.
//!
//! A forecast fits a dozen models to weeks of history, which takes a second or two: never on a request's time. A request is answered
//! from what is kept, says when that was computed, and asks for a newer one when it is older than [`FRESH_FOR`]. Only the first
//! request for a scope waits, at most [`FIRST_WAIT`]. One forecast is computed at a time. Limits: [`SCOPES_MAX`] scopes are kept, the
//! least recently asked for goes first; [`HOURS_BACK`] and [`QUARTERS_BACK`] bound the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use taffrail_analytics::forecast::burn::{Ahead, Budget, Outlook, burn_rate_per_hour, outlook};
use taffrail_analytics::forecast::scaling::{Scaling, recommend};
use taffrail_analytics::forecast::{Forecast, Options, Refusal, forecast};
use taffrail_analytics::window::Window;
use taffrail_event::TimestampMs;
use taffrail_event::ledger::Confidence;
use taffrail_store::{CostQuery, ReadError, Reader, Scope, StepSums, SumStep};
use tokio::sync::{Notify, watch};

use crate::api::money;
use crate::calendar::{Cut, Zone};
use crate::clock;
use crate::config;
use crate::problem::Problem;
use crate::state::{App, stopped};

/// How old a kept forecast may be before a newer one is computed.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(600);
/// The same where nothing could be forecast yet: history may just be coming in.
pub(crate) const FRESH_FOR_EMPTY: Duration = Duration::from_secs(30);
/// How long the first request for a scope waits.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Scopes that are kept.
const SCOPES_MAX: usize = 64;
/// How often the forecast of everything is looked after without being asked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// History of the forecast of a day, in hours: eight weeks.
pub(crate) const HOURS_BACK: usize = 8 * 7 * 24;
/// History of the forecast of an hour, in quarters of an hour: two weeks.
pub(crate) const QUARTERS_BACK: usize = 14 * 96;
/// Seasons that are tried: a day and a week of hours, a day of quarters.
const HOUR_PERIODS: [usize; 2] = [24, 168];
const QUARTER_PERIODS: [usize; 1] = [96];
/// A quarter counts half as much for the burn rate as one this much later, in hours.
const BURN_HALF_LIFE_HOURS: f64 = 1.0;
/// Quarters that the burn rate looks at.
const BURN_QUARTERS: usize = 24;

/// Whose future: an app, a user, both, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) app: Option<String>,
    pub(crate) user: Option<String>,
}

impl Whose {
    fn scope(&self) -> Scope {
        Scope { app: self.app.clone(), user: self.user.clone(), session: None }
    }

    fn is_all(&self) -> bool {
        self.app.is_none() && self.user.is_none()
    }
}

/// What is forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Tokens,
    CostUsd,
    Calls,
}

impl Metric {
    pub(crate) const ALL: [Self; 3] = [Self::Tokens, Self::CostUsd, Self::Calls];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::CostUsd => "cost_usd",
            Self::Calls => "calls",
        }
    }

    fn of(self, sums: &StepSums) -> Vec<f64> {
        match self {
            Self::Tokens => sums.tokens.clone(),
            Self::CostUsd => sums.cost_nano_usd.iter().map(|nano| nano / 1e9).collect(),
            Self::Calls => sums.calls.clone(),
        }
    }
}

/// How far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Horizon {
    Hour,
    Day,
}

impl Horizon {
    pub(crate) const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
        }
    }

    pub(crate) const fn ms(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 24 * 3_600_000,
        }
    }

    pub(crate) const fn step(self) -> SumStep {
        match self {
            Self::Hour => SumStep::Quarter,
            Self::Day => SumStep::Hour,
        }
    }

    /// Steps that hold the span from now on: the running one, and those that begin within the span.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "5 and 25")]
    pub(crate) const fn steps(self) -> usize {
        (self.ms() / self.step().ms()) as usize + 1
    }

    const fn history(self) -> usize {
        match self {
            Self::Hour => QUARTERS_BACK,
            Self::Day => HOURS_BACK,
        }
    }

    const fn periods(self) -> &'static [usize] {
        match self {
            Self::Hour => &QUARTER_PERIODS,
            Self::Day => &HOUR_PERIODS,
        }
    }

    /// Where the running step begins, and how much of it is over: 0 to just below 1.
    #[allow(clippy::cast_precision_loss, reason = "parts of an hour")]
    fn running(self, now: i64) -> (i64, f64) {
        let over = now.rem_euclid(self.step().ms());
        (now - over, over as f64 / self.step().ms() as f64)
    }
}

/// One metric over one horizon.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) metric: Metric,
    pub(crate) horizon: Horizon,
    /// Where the first step begins: it holds the moment of the computation.
    pub(crate) from_ms: i64,
    pub(crate) outcome: Result<Forecast, Refusal>,
    /// Steps of the history, whether it was enough or not.
    pub(crate) history: usize,
}

/// A budget, what was spent of it, and what will become of it.
#[derive(Clone, Debug)]
pub(crate) struct BudgetOutlook {
    pub(crate) period: &'static str,
    pub(crate) ends_ms: i64,
    pub(crate) limit_usd: f64,
    pub(crate) spent_usd: f64,
    pub(crate) outlook: Outlook,
}

/// Agents now, and what the load to come asks for.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) agents_now: i64,
    pub(crate) calls_last_hour: i64,
    /// None where there is no forecast of the calls.
    pub(crate) scaling: Option<Scaling>,
}

/// Everything that is said of a scope.
#[derive(Clone, Debug)]
pub(crate) struct Computed {
    pub(crate) at_ms: i64,
    pub(crate) items: Vec<Item>,
    /// Dollars an hour over the last hours; none before the first request with a price.
    pub(crate) burn_rate_usd_per_hour: Option<f64>,
    /// Only of everything: a budget is not of an app or a user.
    pub(crate) budgets: Vec<BudgetOutlook>,
    pub(crate) unpriced_requests: i64,
    pub(crate) load: Load,
}

impl Computed {
    pub(crate) fn fresh_for(&self) -> Duration {
        let is_empty = self.items.iter().all(|item| item.outcome.is_err());
        if is_empty { FRESH_FOR_EMPTY } else { FRESH_FOR }
    }

    fn is_stale(&self, now: i64) -> bool {
        let age = u64::try_from(now.saturating_sub(self.at_ms));
        // A clock that was put back makes what is kept a thing of the future: compute it anew.
        age.map_or(true, |age| u128::from(age) >= self.fresh_for().as_millis())
    }

    pub(crate) fn item(&self, metric: Metric, horizon: Horizon) -> Option<&Item> {
        self.items.iter().find(|item| item.metric == metric && item.horizon == horizon)
    }

    fn forecast(&self, metric: Metric, horizon: Horizon) -> Option<&Forecast> {
        self.item(metric, horizon)?.outcome.as_ref().ok()
    }
}

/// What is kept, and what waits to be computed.
pub(crate) struct Forecasts {
    inner: Mutex<Inner>,
    /// Something waits.
    wake: Notify,
    /// Counts what was computed: who waits looks again.
    done: watch::Sender<u64>,
}

impl Default for Forecasts {
    fn default() -> Self {
        Self { inner: Mutex::default(), wake: Notify::new(), done: watch::channel(0).0 }
    }
}

#[derive(Default)]
struct Inner {
    /// The most recently asked for last.
    kept: Vec<(Whose, Arc<Computed>)>,
    waiting: VecDeque<Whose>,
}

impl Inner {
    /// What is kept of a scope, which is now the most recently asked for.
    fn take_up(&mut self, whose: &Whose) -> Option<Arc<Computed>> {
        let at = self.kept.iter().position(|(kept, _)| kept == whose)?;
        let entry = self.kept.remove(at);
        let computed = Arc::clone(&entry.1);
        self.kept.push(entry);
        Some(computed)
    }

    fn ask_for(&mut self, whose: &Whose) {
        if !self.waiting.contains(whose) {
            // Whoever asked first and was forgotten asks again.
            if self.waiting.len() >= SCOPES_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(whose.clone());
        }
    }

    fn keep(&mut self, whose: Whose, computed: Arc<Computed>) {
        self.kept.retain(|(kept, _)| *kept != whose);
        if self.kept.len() >= SCOPES_MAX {
            self.kept.remove(0);
        }
        self.kept.push((whose, computed));
    }
}

impl Forecasts {
    /// What is kept of a scope; asks for a newer one where it is old. The first request for a scope waits a while; none where that was
    /// not enough.
    pub(crate) async fn get(&self, whose: &Whose) -> Option<Arc<Computed>> {
        let mut done = self.done.subscribe();
        if let Some(kept) = self.look(whose, clock::now_ms()) {
            return Some(kept);
        }
        let wait = async {
            while done.changed().await.is_ok() {
                if let Some(kept) = self.lock().take_up(whose) {
                    return Some(kept);
                }
            }
            None
        };
        tokio::time::timeout(FIRST_WAIT, wait).await.ok().flatten()
    }

    fn look(&self, whose: &Whose, now: i64) -> Option<Arc<Computed>> {
        let mut inner = self.lock();
        let kept = inner.take_up(whose);
        if kept.as_ref().is_none_or(|kept| kept.is_stale(now)) {
            inner.ask_for(whose);
            self.wake.notify_one();
        }
        kept
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Computes what is asked for, one scope at a time, until the server stops.
pub(crate) async fn run(app: App, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.forecasts.wake.notified() => {}
            _ = every.tick() => { app.forecasts.look(&Whose::default(), clock::now_ms()); }
            () = stopped(&mut stop) => return,
        }
        loop {
            let next = app.forecasts.lock().waiting.pop_front();
            let Some(whose) = next else { break };
            tokio::select! {
                computed = compute(&app, whose.clone()) => match computed {
                    Ok(computed) => {
                        app.forecasts.lock().keep(whose, Arc::new(computed));
                        app.forecasts.done.send_modify(|count| *count += 1);
                    }
                    // What is kept stays; the next request asks again.
                    Err(problem) => tracing::warn!(%problem, "a forecast could not be computed"),
                },
                () = stopped(&mut stop) => return,
            }
        }
    }
}

async fn compute(app: &App, whose: Whose) -> Result<Computed, Problem> {
    let (now, budget) = (clock::now(), app.config.budget);
    let seen = app.read(move |reader| look_at(reader, &whose, budget, now)).await?;
    // Not under the slot of a read: nobody else's read waits for arithmetic.
    tokio::task::spawn_blocking(move || foresee(&seen)).await.map_err(|_| Problem::Internal)
}

/// What a forecast is made from.
#[derive(Clone, Debug)]
struct Seen {
    now: i64,
    quarters: StepSums,
    hours: StepSums,
    budgets: Vec<Spent>,
    agents_now: i64,
    calls_last_hour: i64,
}

#[derive(Clone, Debug)]
struct Spent {
    period: &'static str,
    ends_ms: i64,
    limit_usd: f64,
    spent_usd: f64,
    has_unpriced: bool,
}

fn look_at(
    reader: &Reader,
    whose: &Whose,
    budget: config::Budget,
    now: TimestampMs,
) -> Result<Seen, ReadError> {
    let scope = whose.scope();
    let summary = reader.summary(Window::H1, &scope, now)?;
    let mut budgets = Vec::new();
    let limits = [("day", Cut::Day, budget.daily_usd), ("month", Cut::Month, budget.monthly_usd)];
    for (period, cut, limit) in limits {
        let Some(limit_usd) = limit.filter(|_| whose.is_all()) else { continue };
        let next = TimestampMs::clamped(now.get() + 1);
        let slices = Zone::system().cuts(cut, now, next).unwrap_or_default();
        let Some(slice) = slices.first() else { continue };
        let query = CostQuery { from: Some(slice.from), to: Some(next), ..CostQuery::default() };
        let totals = money::total(reader, &query)?;
        budgets.push(Spent {
            period,
            ends_ms: slice.to.get(),
            limit_usd,
            spent_usd: money::usd(totals.cost_nano_usd),
            has_unpriced: totals.of(Confidence::Unpriced).requests > 0,
        });
    }
    Ok(Seen {
        now: now.get(),
        quarters: reader.step_sums(&scope, SumStep::Quarter, QUARTERS_BACK, now)?,
        hours: reader.step_sums(&scope, SumStep::Hour, HOURS_BACK, now)?,
        budgets,
        agents_now: summary.sessions.active_agents,
        calls_last_hour: summary.totals.calls,
    })
}

/// Pure: the same history gives the same forecast.
fn foresee(seen: &Seen) -> Computed {
    let mut items = Vec::new();
    for metric in Metric::ALL {
        for horizon in Horizon::ALL {
            let history = metric.of(match horizon.step() {
                SumStep::Quarter => &seen.quarters,
                SumStep::Hour => &seen.hours,
            });
            let (from_ms, over) = horizon.running(seen.now);
            debug_assert!(history.len() <= horizon.history());
            let options = Options {
                horizon: horizon.steps(),
                periods: horizon.periods(),
                non_negative: true,
                edge_shares: (1.0 - over, over),
            };
            let outcome = forecast(&history, &options);
            items.push(Item { metric, horizon, from_ms, outcome, history: history.len() });
        }
    }
    let amounts = Metric::CostUsd.of(&seen.quarters);
    let recent = &amounts[amounts.len().saturating_sub(BURN_QUARTERS)..];
    let mut computed = Computed {
        at_ms: seen.now,
        items,
        burn_rate_usd_per_hour: burn_rate_per_hour(recent, 0.25, BURN_HALF_LIFE_HOURS),
        budgets: Vec::new(),
        unpriced_requests: seen.hours.unpriced_requests,
        load: Load { agents_now: seen.agents_now, calls_last_hour: seen.calls_last_hour, scaling: None },
    };
    computed.budgets = seen.budgets.iter().map(|spent| budget_outlook(spent, &computed)).collect();
    #[allow(clippy::cast_precision_loss, reason = "counts of an hour")]
    let (agents, calls) = (seen.agents_now as f64, seen.calls_last_hour as f64);
    let calls_ahead = computed.forecast(Metric::Calls, Horizon::Hour);
    computed.load.scaling = calls_ahead.map(|ahead| recommend(agents, calls, &ahead.total));
    computed
}

#[allow(clippy::cast_precision_loss, reason = "a month of milliseconds")]
fn budget_outlook(spent: &Spent, computed: &Computed) -> BudgetOutlook {
    let (_, over) = Horizon::Day.running(computed.at_ms);
    let ahead = computed
        .forecast(Metric::CostUsd, Horizon::Day)
        .map(|forecast| Ahead { sums: &forecast.sums, first_hours: 1.0 - over });
    let budget = Budget {
        limit: spent.limit_usd,
        spent: spent.spent_usd,
        hours_left: (spent.ends_ms - computed.at_ms).max(0) as f64 / 3_600_000.0,
        has_unpriced: spent.has_unpriced,
    };
    BudgetOutlook {
        period: spent.period,
        ends_ms: spent.ends_ms,
        limit_usd: spent.limit_usd,
        spent_usd: spent.spent_usd,
        outlook: outlook(&budget, ahead),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use taffrail_analytics::forecast::burn::{Action, Reason};

    use super::*;

    /// Twenty past ten in the morning, UTC.
    const NOW: i64 = 1_795_342_800_000;

    fn work(quarters: usize) -> Vec<f64> {
        (0..quarters)
            .map(|at| if (36..68).contains(&(at % 96)) { 1e9 + (at % 5) as f64 * 1e7 } else { 0.0 })
            .collect()
    }

    fn hours(quarters: &[f64]) -> Vec<f64> {
        quarters.chunks(4).map(|hour| hour.iter().sum()).collect()
    }

    /// Three weeks of working days whose last hour just ended.
    fn seen() -> Seen {
        let all = work(21 * 96);
        let quarters = all[all.len() - QUARTERS_BACK..].to_vec();
        let sums = |values: Vec<f64>| StepSums {
            calls: values.iter().map(|value| (value / 1e8).round()).collect(),
            tokens: values.clone(),
            cost_nano_usd: values,
            unpriced_requests: 0,
        };
        Seen {
            now: NOW,
            hours: sums(hours(&all)),
            quarters: sums(quarters),
            budgets: Vec::new(),
            agents_now: 4,
            calls_last_hour: 40,
        }
    }

    #[test]
    fn a_day_of_work_is_forecast_with_its_night() {
        let computed = foresee(&seen());
        let day = computed.forecast(Metric::CostUsd, Horizon::Day).unwrap();
        // The history ends at midnight of its own clock: eight hours of four dollars come between nine and five.
        assert_eq!(day.path.len(), 25);
        assert!((day.total.value - 32.6).abs() < 4.0, "{:?}", day.total);
        assert!(day.path[12].value > 3.0 && day.path[3].value < 0.6, "{:?}", day.path);
        let again = foresee(&seen());
        assert_eq!(
            again.forecast(Metric::CostUsd, Horizon::Day),
            Some(day),
            "the same history, the same forecast"
        );
        assert!(computed.load.scaling.is_some());
        assert_eq!(computed.fresh_for(), FRESH_FOR);
    }

    #[test]
    fn a_budget_is_held_against_the_rest_of_the_day() {
        let spent = |limit_usd, spent_usd| Seen {
            budgets: vec![Spent {
                period: "day",
                ends_ms: NOW + 14 * 3_600_000,
                limit_usd,
                spent_usd,
                has_unpriced: false,
            }],
            ..seen()
        };
        let outlook = |limit, spent_usd| foresee(&spent(limit, spent_usd)).budgets.remove(0).outlook;
        let wide = outlook(500.0, 1.0);
        assert_eq!(
            (wide.will_overrun, wide.actions[0].reason),
            (Some(false), Reason::WithinBudget),
            "{wide:?}"
        );
        let tight = outlook(10.0, 1.0);
        assert_eq!(tight.will_overrun, Some(true));
        assert!((9.0..14.0).contains(&tight.at_hours.unwrap()), "in the third hour of work: {tight:?}");
        assert_eq!(tight.actions[0].action, Action::Throttle);
        assert!(outlook(10.0, 10.0).is_over);
    }

    #[test]
    fn without_history_nothing_is_said_and_it_is_looked_at_again_soon() {
        let empty = Seen { quarters: StepSums::default(), hours: StepSums::default(), ..seen() };
        let computed = foresee(&empty);
        assert!(
            computed
                .items
                .iter()
                .all(|item| matches!(item.outcome, Err(Refusal::TooShort { points: 0, .. })))
        );
        assert_eq!((computed.burn_rate_usd_per_hour, computed.load.scaling), (None, None));
        assert_eq!(computed.fresh_for(), FRESH_FOR_EMPTY);
    }

    #[test]
    fn the_least_recently_asked_for_goes_and_what_is_old_is_asked_for_once() {
        let forecasts = Forecasts::default();
        let whose = |n: usize| Whose { app: Some(format!("app{n}")), user: None };
        let empty = Seen { quarters: StepSums::default(), hours: StepSums::default(), ..seen() };
        let computed = Arc::new(foresee(&empty));
        for n in 0..SCOPES_MAX {
            forecasts.lock().keep(whose(n), Arc::clone(&computed));
        }
        assert!(forecasts.look(&whose(0), NOW).is_some());
        assert!(forecasts.lock().waiting.is_empty(), "it is fresh");
        forecasts.lock().keep(whose(SCOPES_MAX), Arc::clone(&computed));
        assert_eq!(forecasts.lock().kept.len(), SCOPES_MAX);
        assert!(forecasts.look(&whose(0), NOW).is_some(), "it was asked for");
        assert!(forecasts.look(&whose(1), NOW).is_none(), "it was not");
        let late = NOW + i64::try_from(FRESH_FOR_EMPTY.as_millis()).unwrap();
        for _ in 0..3 {
            assert!(
                forecasts.look(&whose(0), late).is_some(),
                "what is old is shown while a newer one is made"
            );
        }
        assert_eq!(forecasts.lock().waiting, [whose(1), whose(0)]);
        for n in 0..10 * SCOPES_MAX {
            assert!(forecasts.look(&whose(1_000 + n), NOW).is_none());
        }
        assert_eq!(forecasts.lock().waiting.len(), SCOPES_MAX, "bounded");
        assert!(computed.is_stale(NOW - 1), "a clock that was put back");
    }

    #[test]
    fn steps_reach_from_now_to_the_end_of_the_horizon() {
        assert_eq!((Horizon::Hour.steps(), Horizon::Day.steps()), (5, 25));
        let (from, over) = Horizon::Day.running(NOW + 90 * 60_000);
        assert_eq!(from % 3_600_000, 0);
        assert!((0.0..1.0).contains(&over));
    }
}
