//! What is to come: forecasts of tokens, cost and calls with intervals and their error on history, budgets, and agents.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use taffrail_analytics::forecast::burn::Advice;
use taffrail_analytics::forecast::scaling::Scaling;
use taffrail_analytics::forecast::{Band, Forecast, Refusal, points_min};
use utoipa::ToSchema;

use super::params::{self, Params, text};
use crate::clock;
use crate::forecasts::{BudgetOutlook, Computed, FRESH_FOR, Horizon, Item, Load, Whose};
use crate::problem::{Problem, ProblemJson};
use crate::state::App;

const MS_PER_HOUR: f64 = 3_600_000.0;

/// Whose future, and how far.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForecastsQuery {
    /// `1h` or `24h`: only what is forecast that far ahead. Both unless told, and for every other window.
    window: Option<String>,
    /// The project.
    app: Option<String>,
    /// Who ran the agent.
    user: Option<String>,
}

/// Forecasts of a scope. Computed in the background: `computed_at` says when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForecastsJson {
    /// The project asked for.
    pub(crate) app: Option<String>,
    /// The user asked for.
    pub(crate) user: Option<String>,
    /// When this was computed, in milliseconds since the Unix epoch; null while the first one is being computed: ask again.
    pub(crate) computed_at: Option<i64>,
    /// How old it is.
    pub(crate) age_seconds: Option<f64>,
    /// It is computed anew when it is asked for and older than this.
    pub(crate) fresh_for_seconds: u64,
    /// One for each metric and horizon.
    pub(crate) items: Vec<ForecastJson>,
    /// What becomes of the money; null while the first one is being computed.
    pub(crate) cost_overrun: Option<CostOverrunJson>,
    /// What the load asks for; null while the first one is being computed.
    pub(crate) recommended_scaling: Option<ScalingJson>,
}

/// A metric over a horizon.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForecastJson {
    /// `tokens`, `cost_usd` or `calls`.
    pub(crate) metric: &'static str,
    /// `1h` or `24h`.
    pub(crate) horizon: &'static str,
    /// Length of a step.
    pub(crate) step_ms: i64,
    /// Where the first step begins; `computed_at` lies in it.
    pub(crate) from_ms: i64,
    /// Whether there is history enough for an honest figure; without it nothing is forecast.
    pub(crate) enough_data: bool,
    /// Why not: `too_little_history`.
    pub(crate) reason: Option<&'static str>,
    /// Steps of history there are: from the first step with a record on, a step without one counting as 0.
    pub(crate) history_steps: usize,
    /// Steps of history that it takes.
    pub(crate) history_steps_needed: usize,
    /// The methods whose mean it is, the best first.
    pub(crate) methods: Vec<MethodJson>,
    /// The sum from `computed_at` to the end of the horizon.
    pub(crate) total: Option<BandJson>,
    /// Each step whole.
    pub(crate) path: Vec<PointJson>,
    /// How far such forecasts were off on this history.
    pub(crate) backtest: Option<BacktestJson>,
    /// Every method that was tried, the best first.
    pub(crate) candidates: Vec<CandidateJson>,
}

/// A value with intervals that should hold it four times of five, and nineteen of twenty.
#[derive(Debug, Serialize, ToSchema)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct BandJson {
    pub(crate) value: f64,
    pub(crate) lower_80: f64,
    pub(crate) upper_80: f64,
    pub(crate) lower_95: f64,
    pub(crate) upper_95: f64,
}

/// A step of a forecast.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PointJson {
    /// Where it begins.
    pub(crate) t_ms: i64,
    #[serde(flatten)]
    pub(crate) band: BandJson,
}

/// A method.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MethodJson {
    /// `naive`, `seasonal_naive`, `mean`, `seasonal_mean`, `linear_trend`, `simple_smoothing`, `holt`, `damped_holt`,
    /// `seasonal_smoothing`, `holt_winters` or `theta`.
    pub(crate) name: &'static str,
    /// Steps of its cycle.
    pub(crate) period: Option<usize>,
}

/// Errors of the forecasts that would have been made at earlier moments, in the metric's unit a step.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BacktestJson {
    /// Mean absolute error.
    pub(crate) mae: f64,
    /// Root of the mean squared error.
    pub(crate) rmse: f64,
    /// Relative to repeating the last cycle; below 1 is better than that.
    pub(crate) mase: Option<f64>,
    /// Mean absolute error of the total.
    pub(crate) total_mae: f64,
    /// How many of the later values the 80 % interval held.
    pub(crate) coverage_80_percent: Option<f64>,
    /// The same for 95 %.
    pub(crate) coverage_95_percent: Option<f64>,
    /// Moments at which a forecast was made and held against what came.
    pub(crate) origins: usize,
}

/// A method that was tried.
#[derive(Debug, Serialize, ToSchema)]
#[allow(missing_docs, reason = "as in BacktestJson")]
pub(crate) struct CandidateJson {
    #[serde(flatten)]
    pub(crate) method: MethodJson,
    pub(crate) mae: f64,
    pub(crate) rmse: f64,
}

/// What becomes of the money.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CostOverrunJson {
    /// What is being spent, exponentially weighted over the last six hours with a half-life of one; null before the first request with
    /// a price.
    pub(crate) burn_rate_usd_per_hour: Option<f64>,
    /// Whether any budget will be used up within 24 hours; null where none is set, or nothing can be said.
    pub(crate) will_overrun: Option<bool>,
    /// When the first of them is expected to be, in milliseconds since the Unix epoch.
    pub(crate) estimated_overrun_at: Option<i64>,
    /// Of all budgets, the most urgent first.
    pub(crate) recommended_actions: Vec<AdviceJson>,
    /// One for each budget of the configuration; none for a scope, for budgets are of everything.
    pub(crate) budgets: Vec<BudgetJson>,
    /// Requests of the history without a price: they are in no figure here.
    pub(crate) unpriced_requests: i64,
}

/// A budget.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetJson {
    /// `day` or `month`, by the calendar of the server's time zone.
    pub(crate) period: &'static str,
    /// One past the period's last millisecond.
    pub(crate) ends_ms: i64,
    /// What may be spent.
    pub(crate) limit_usd: f64,
    /// What was.
    pub(crate) spent_usd: f64,
    /// Whether that is all of it.
    pub(crate) is_over: bool,
    /// Whether it will be within 24 hours; null where there is too little history to say.
    pub(crate) will_overrun: Option<bool>,
    /// When it is expected to be used up: in this period or, within 24 hours, in the next.
    pub(crate) estimated_overrun_at: Option<i64>,
    /// Hardly before (the upper bound of 95 %).
    pub(crate) earliest_overrun_at: Option<i64>,
    /// Hardly after (the lower bound); null where it may well not happen.
    pub(crate) latest_overrun_at: Option<i64>,
    /// The period's total at its end.
    pub(crate) period_total_usd: Option<BandJson>,
    /// The most urgent first.
    pub(crate) recommended_actions: Vec<AdviceJson>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct AdviceJson {
    /// `none`, `watch`, `throttle`, `pause`, `raise_budget` or `set_prices`.
    pub(crate) action: &'static str,
    /// `within_budget`, `too_little_history`, `may_overrun`, `will_overrun_later`, `will_overrun_within_24h`,
    /// `will_overrun_within_1h`, `over_budget`, `budget_far_below_use` or `requests_without_price`.
    pub(crate) reason: &'static str,
    /// For `throttle`: what the budget bears until its period ends.
    pub(crate) usd_per_hour: Option<f64>,
}

/// What the load asks for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScalingJson {
    /// `scale_up`, `hold` or `scale_down`; null where there is too little history.
    pub(crate) recommendation: Option<&'static str>,
    /// Agents that the next hour would keep busy, relative to now, 0.25 to 4; 1 on `hold`.
    pub(crate) factor: Option<f64>,
    /// `more_calls_expected`, `fewer_calls_expected`, `same_load_expected`, `no_agents_now`, `no_calls_now` or
    /// `too_little_history`.
    pub(crate) reason: &'static str,
    /// Agents at work.
    pub(crate) agents_now: i64,
    /// Calls that ended in the last hour.
    pub(crate) calls_last_hour: i64,
    /// Agents that the next hour would keep busy at the pace of the last.
    pub(crate) agents_needed: Option<BandJson>,
}

/// Forecasts with intervals of tokens, cost and calls, overrun of budgets, and scaling.
#[utoipa::path(
    get, path = "/api/v1/forecasts", tag = "read", params(ForecastsQuery),
    responses((status = 200, body = ForecastsJson), (status = 400, body = ProblemJson), (status = 401, body = ProblemJson))
)]
pub(crate) async fn forecasts(
    State(app): State<App>,
    Params(query): Params<ForecastsQuery>,
) -> Result<Json<ForecastsJson>, Problem> {
    let only = match text(query.window) {
        None => None,
        Some(name) => {
            params::window(&name)?;
            Horizon::ALL.into_iter().find(|horizon| horizon.name() == name)
        }
    };
    let whose = Whose { app: text(query.app), user: text(query.user) };
    let computed = app.forecasts.get(&whose).await;
    Ok(Json(answer(whose, computed.as_deref(), only, clock::now_ms())))
}

fn answer(whose: Whose, computed: Option<&Computed>, only: Option<Horizon>, now: i64) -> ForecastsJson {
    let fresh_for = computed.map_or(FRESH_FOR, Computed::fresh_for);
    #[allow(clippy::cast_precision_loss, reason = "an age")]
    let age = |at: i64| now.saturating_sub(at).max(0) as f64 / 1_000.0;
    let items = computed.iter().flat_map(|computed| &computed.items);
    ForecastsJson {
        app: whose.app,
        user: whose.user,
        computed_at: computed.map(|computed| computed.at_ms),
        age_seconds: computed.map(|computed| age(computed.at_ms)),
        fresh_for_seconds: fresh_for.as_secs(),
        items: items.filter(|item| only.is_none_or(|only| item.horizon == only)).map(item_json).collect(),
        cost_overrun: computed.map(overrun_json),
        recommended_scaling: computed.map(|computed| scaling_json(&computed.load)),
    }
}

fn item_json(item: &Item) -> ForecastJson {
    let forecast = item.outcome.as_ref();
    let step_ms = item.horizon.step().ms();
    let needed = match item.outcome {
        Err(Refusal::TooShort { needed, .. }) => needed,
        _ => points_min(item.horizon.steps()),
    };
    let starts = (0..).map(|step| item.from_ms + step * step_ms);
    let point = |(t_ms, band)| PointJson { t_ms, band: band_json(band) };
    ForecastJson {
        metric: item.metric.name(),
        horizon: item.horizon.name(),
        step_ms,
        from_ms: item.from_ms,
        enough_data: forecast.is_ok(),
        reason: forecast.err().map(|_| "too_little_history"),
        history_steps: item.history,
        history_steps_needed: needed,
        methods: forecast.map(methods_json).unwrap_or_default(),
        total: forecast.ok().map(|forecast| band_json(&forecast.total)),
        path: forecast.map(|forecast| starts.zip(&forecast.path).map(point).collect()).unwrap_or_default(),
        backtest: forecast.ok().map(backtest_json),
        candidates: forecast.map(candidates_json).unwrap_or_default(),
    }
}

fn methods_json(forecast: &Forecast) -> Vec<MethodJson> {
    forecast
        .methods
        .iter()
        .map(|method| MethodJson { name: method.name(), period: method.period() })
        .collect()
}

fn candidates_json(forecast: &Forecast) -> Vec<CandidateJson> {
    let json = |one: &taffrail_analytics::forecast::Candidate| CandidateJson {
        method: MethodJson { name: one.method.name(), period: one.method.period() },
        mae: one.mae,
        rmse: one.rmse,
    };
    forecast.candidates.iter().map(json).collect()
}

fn backtest_json(forecast: &Forecast) -> BacktestJson {
    let accuracy = &forecast.accuracy;
    BacktestJson {
        mae: accuracy.mae,
        rmse: accuracy.rmse,
        mase: accuracy.mase,
        total_mae: accuracy.total_mae,
        coverage_80_percent: accuracy.coverage_80.map(|share| share * 100.0),
        coverage_95_percent: accuracy.coverage_95.map(|share| share * 100.0),
        origins: accuracy.origins,
    }
}

const fn band_json(band: &Band) -> BandJson {
    BandJson {
        value: band.value,
        lower_80: band.lower_80,
        upper_80: band.upper_80,
        lower_95: band.lower_95,
        upper_95: band.upper_95,
    }
}

fn overrun_json(computed: &Computed) -> CostOverrunJson {
    let budgets: Vec<BudgetJson> =
        computed.budgets.iter().map(|budget| budget_json(budget, computed.at_ms)).collect();
    let told: Vec<bool> = budgets.iter().filter_map(|budget| budget.will_overrun).collect();
    let mut actions: Vec<AdviceJson> = Vec::new();
    for advice in budgets.iter().flat_map(|budget| &budget.recommended_actions) {
        if !actions.iter().any(|known| known.action == advice.action) {
            actions.push(advice.clone());
        }
    }
    actions.sort_by_key(|advice| URGENCY.iter().position(|action| *action == advice.action));
    if actions.len() > 1 {
        actions.retain(|advice| advice.action != "none");
    }
    CostOverrunJson {
        burn_rate_usd_per_hour: computed.burn_rate_usd_per_hour,
        will_overrun: if told.contains(&true) { Some(true) } else { told.first().copied() },
        estimated_overrun_at: budgets.iter().filter_map(|budget| budget.estimated_overrun_at).min(),
        recommended_actions: actions,
        budgets,
        unpriced_requests: computed.unpriced_requests,
    }
}

/// Actions, the most urgent first.
const URGENCY: [&str; 6] = ["pause", "throttle", "watch", "raise_budget", "set_prices", "none"];

fn budget_json(budget: &BudgetOutlook, now: i64) -> BudgetJson {
    #[allow(clippy::cast_possible_truncation, reason = "the cast saturates, and so does the sum")]
    let at = |hours: Option<f64>| hours.map(|hours| now.saturating_add((hours * MS_PER_HOUR) as i64));
    let outlook = &budget.outlook;
    BudgetJson {
        period: budget.period,
        ends_ms: budget.ends_ms,
        limit_usd: budget.limit_usd,
        spent_usd: budget.spent_usd,
        is_over: outlook.is_over,
        will_overrun: outlook.will_overrun,
        estimated_overrun_at: at(outlook.at_hours),
        earliest_overrun_at: at(outlook.earliest_hours),
        latest_overrun_at: at(outlook.latest_hours),
        period_total_usd: outlook.period_total.as_ref().map(band_json),
        recommended_actions: outlook.actions.iter().map(advice_json).collect(),
    }
}

const fn advice_json(advice: &Advice) -> AdviceJson {
    AdviceJson {
        action: advice.action.name(),
        reason: advice.reason.name(),
        usd_per_hour: advice.rate_per_hour,
    }
}

fn scaling_json(load: &Load) -> ScalingJson {
    let of = |scaling: &Scaling| scaling.cause.name();
    let scaling = load.scaling.as_ref();
    ScalingJson {
        recommendation: scaling.map(|scaling| scaling.direction.name()),
        factor: scaling.map(|scaling| scaling.factor),
        reason: scaling.map_or("too_little_history", of),
        agents_now: load.agents_now,
        calls_last_hour: load.calls_last_hour,
        agents_needed: scaling.and_then(|scaling| scaling.agents.as_ref()).map(band_json),
    }
}
