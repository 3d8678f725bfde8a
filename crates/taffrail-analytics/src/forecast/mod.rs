//! Forecasts of a series with equal steps: the method chosen by back-test, intervals from the back-test's errors.
//!
//! [`forecast`] fits every [`Method`], back-tests each over the last half of the history, and takes the mean of those whose
//! errors are near the least: at most [`AVERAGED_MAX`], within [`NEAR_BEST`] of the best. A mean of a few good forecasts errs less
//! than the one that happened to be best (Bates and Granger 1969; Makridakis et al. 2020). The errors of the mean make the
//! intervals, so what is shown beside a forecast is the error of just what is shown.
//!
//! Everything is deterministic, and bounded: of a longer history the last [`HISTORY_MAX`] points are used.

mod backtest;
pub mod burn;
mod interval;
mod model;
mod optimize;
pub mod scaling;
mod smoothing;

pub use backtest::{ORIGINS_MAX, ORIGINS_MIN, TRAIN_MIN, points_min};
pub use model::{Method, Model, Parameters};

use backtest::{BackTest, floored};
use interval::{Held, Levels, WIDEN_STEP, WIDEN_SUM, check, half_width};

/// Points of the history that are used, at most: the newest.
pub const HISTORY_MAX: usize = 2_000;
/// Steps of a forecast, at most.
pub const HORIZON_MAX: usize = 200;
/// Methods whose mean is a forecast, at most.
pub const AVERAGED_MAX: usize = 3;
/// A method is taken into the mean when its error (recent RMSE) is at most this many times the least.
pub const NEAR_BEST: f64 = 1.2;
/// The shares of the two intervals.
pub const SHARES: [f64; 2] = [0.80, 0.95];
/// Checks without which no coverage is told.
const CHECKS_MIN: usize = 20;

/// What is to be forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options<'p> {
    /// Steps ahead, 1 to [`HORIZON_MAX`].
    pub horizon: usize,
    /// Lengths of cycles worth trying, in points, such as 24 and 168 for hours.
    pub periods: &'p [usize],
    /// Counts and sums cannot be negative: forecasts and intervals end at 0.
    pub non_negative: bool,
    /// The share of the first and of the last step that counts in sums, 0 to 1: where the present lies inside a step, the first
    /// is a rest and the last is not whole.
    pub edge_shares: (f64, f64),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { horizon: 1, periods: &[], non_negative: false, edge_shares: (1.0, 1.0) }
    }
}

/// A forecast with its two intervals, in the unit of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Band {
    pub value: f64,
    pub lower_80: f64,
    pub upper_80: f64,
    pub lower_95: f64,
    pub upper_95: f64,
}

/// See [`forecast`].
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The methods whose mean this is, the best first.
    pub methods: Vec<Method>,
    /// One for each step.
    pub path: Vec<Band>,
    /// The sum up to and with each step, its interval from the errors of such sums. The first step counts by its share.
    pub sums: Vec<Band>,
    /// The sum over all steps; the first and the last count by their shares.
    pub total: Band,
    /// How far such forecasts were off on the history.
    pub accuracy: Accuracy,
    /// Every method that could be fitted, the best first.
    pub candidates: Vec<Candidate>,
    /// Points that were used.
    pub history: usize,
}

/// Errors of a back-test over all origins and steps, in the unit of the series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Mean absolute error.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Mean absolute scaled error (Hyndman and Koehler 2006): `mae` relative to that of repeating the last cycle (the shortest
    /// given, else the last point) one step ahead on the history before the back-test; none where that has no error.
    pub mase: Option<f64>,
    /// Share of later values inside the 80 % interval made from earlier errors; none where there were too few.
    pub coverage_80: Option<f64>,
    /// The same for 95 %.
    pub coverage_95: Option<f64>,
    /// The mean absolute error of the total.
    pub total_mae: f64,
    /// Forecasts that were made and held against what came.
    pub origins: usize,
}

/// A method with its errors in the back-test.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "as in Accuracy")]
pub struct Candidate {
    pub method: Method,
    pub mae: f64,
    pub rmse: f64,
}

/// Why there is no forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The history is too short for a back-test.
    TooShort {
        /// Points there are.
        points: usize,
        /// Points it takes.
        needed: usize,
    },
    /// A point is NaN or infinite.
    NotFinite,
    /// The horizon is 0 or above [`HORIZON_MAX`].
    Horizon,
}

/// Forecasts the next points of a series, oldest point first.
///
/// # Errors
/// Where no honest figure can be made: see [`Refusal`].
pub fn forecast(series: &[f64], options: &Options<'_>) -> Result<Forecast, Refusal> {
    let horizon = options.horizon;
    if horizon == 0 || horizon > HORIZON_MAX {
        return Err(Refusal::Horizon);
    }
    let series = &series[series.len().saturating_sub(HISTORY_MAX)..];
    let needed = points_min(horizon);
    if series.len() < needed {
        return Err(Refusal::TooShort { points: series.len(), needed });
    }
    if !series.iter().all(|value| value.is_finite()) {
        return Err(Refusal::NotFinite);
    }
    let scale = series.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let scale = if scale > 0.0 { scale } else { 1.0 };
    let y: Vec<f64> = series.iter().map(|value| value / scale).collect();
    let floor = options.non_negative.then_some(0.0);

    let mut tests: Vec<(f64, Method, BackTest)> = Method::all(options.periods)
        .into_iter()
        .filter_map(|method| {
            let test = BackTest::run(method, &y, horizon, floor)?;
            Some((test.recent_rmse(), method, test))
        })
        .collect();
    // A stable sort: of equally good methods the plain one.
    tests.sort_by(|a, b| a.0.total_cmp(&b.0));
    let candidates = tests
        .iter()
        .map(|(_, method, test)| Candidate {
            method: *method,
            mae: test.mae() * scale,
            rmse: test.rmse() * scale,
        })
        .collect();
    let averaged = averaged(&tests);
    let used: Vec<&BackTest> = tests[..averaged].iter().map(|(.., test)| test).collect();
    let methods: Vec<Method> = tests[..averaged].iter().map(|(_, method, _)| *method).collect();
    let values = mean_path(&methods, &y, horizon, floor);
    let Some(test) = BackTest::average(&used) else {
        return Err(Refusal::TooShort { points: y.len(), needed });
    };
    let judge = Judge::new(&test, &y, options);
    let (path, sums, total) = judge.bands(&values, scale, options);
    Ok(Forecast {
        accuracy: judge.accuracy(&y, scale, options),
        methods,
        path,
        sums,
        total,
        candidates,
        history: y.len(),
    })
}

/// How many of the sorted methods are near the best.
fn averaged(tests: &[(f64, Method, BackTest)]) -> usize {
    let Some((best, ..)) = tests.first() else { return 0 };
    if *best <= 0.0 {
        return 1;
    }
    tests.iter().take(AVERAGED_MAX).take_while(|(error, ..)| *error <= best * NEAR_BEST).count()
}

fn mean_path(methods: &[Method], y: &[f64], horizon: usize, floor: Option<f64>) -> Vec<f64> {
    let mut sum = vec![0.0; horizon];
    let mut path = vec![0.0; horizon];
    let mut count = 0.0f64;
    for model in methods.iter().filter_map(|method| Model::fit(*method, y)) {
        model.path(&mut path);
        floored(&mut path, floor);
        sum.iter_mut().zip(&path).for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sum.iter_mut().for_each(|sum| *sum /= count.max(1.0));
    sum
}

/// The errors of a back-test, by step and by sum, with the level of the series at each origin.
struct Judge<'t> {
    test: &'t BackTest,
    levels: Vec<f64>,
    now: f64,
}

impl<'t> Judge<'t> {
    fn new(test: &'t BackTest, y: &[f64], options: &Options<'_>) -> Self {
        let origins = test.first..=test.first + test.origins() - 1;
        let levels = Levels::of(y, options.periods, origins.clone());
        Self { test, levels: origins.map(|origin| levels.at(origin)).collect(), now: levels.at(y.len()) }
    }

    /// One error for each origin, of what `of` makes of a path of errors.
    fn errors(&self, of: impl Fn(&[f64]) -> f64) -> Vec<f64> {
        self.test.paths().map(of).collect()
    }

    fn band(&self, value: f64, errors: &[f64], widen: f64, scale: f64, options: &Options<'_>) -> Band {
        let mut scaled: Vec<f64> =
            errors.iter().zip(&self.levels).map(|(error, level)| error.abs() / level).collect();
        scaled.sort_by(f64::total_cmp);
        let [narrow, wide] = SHARES.map(|share| half_width(&scaled, share, widen) * self.now);
        // A bound that cannot be told apart from overflow is the largest number there is.
        let unit = |x: f64| (x * scale).clamp(if options.non_negative { 0.0 } else { f64::MIN }, f64::MAX);
        Band {
            value: unit(value),
            lower_80: unit(value - narrow),
            upper_80: unit(value + narrow),
            lower_95: unit(value - wide.max(narrow)),
            upper_95: unit(value + wide.max(narrow)),
        }
    }

    fn bands(&self, values: &[f64], scale: f64, options: &Options<'_>) -> (Vec<Band>, Vec<Band>, Band) {
        let (mut path, mut sums) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        for (step, value) in values.iter().enumerate() {
            let errors = self.errors(|path| path[step]);
            path.push(self.band(*value, &errors, WIDEN_STEP * (step + 1) as f64, scale, options));
            let sum = |path: &[f64]| sum_to(path, step, options.edge_shares.0);
            sums.push(self.band(
                sum(values),
                &self.errors(sum),
                WIDEN_SUM * (step + 1) as f64,
                scale,
                options,
            ));
        }
        let total = |path: &[f64]| total_of(path, options.edge_shares);
        let total =
            self.band(total(values), &self.errors(total), WIDEN_SUM * values.len() as f64, scale, options);
        (path, sums, total)
    }

    fn accuracy(&self, y: &[f64], scale: f64, options: &Options<'_>) -> Accuracy {
        let mut held = Held::default();
        for step in 0..options.horizon {
            check(&self.errors(|path| path[step]), &self.levels, step, SHARES, &mut held);
        }
        let coverage =
            |count: usize| (held.checked >= CHECKS_MIN).then(|| count as f64 / held.checked as f64);
        let totals = self.errors(|path| total_of(path, options.edge_shares).abs());
        let mae = self.test.mae();
        Accuracy {
            mae: mae * scale,
            rmse: self.test.rmse() * scale,
            mase: naive_error(&y[..self.test.first], options.periods).map(|naive| mae / naive),
            coverage_80: coverage(held.held[0]),
            coverage_95: coverage(held.held[1]),
            total_mae: totals.iter().sum::<f64>() / totals.len().max(1) as f64 * scale,
            origins: self.test.origins(),
        }
    }
}

/// The sum up to and with a step, the first by its share.
fn sum_to(path: &[f64], step: usize, first_share: f64) -> f64 {
    path[..=step].iter().sum::<f64>() - path[0] * (1.0 - first_share)
}

/// The sum of all steps, the first and the last by their shares; of a single step the first share counts.
fn total_of(path: &[f64], (first, last): (f64, f64)) -> f64 {
    let sum = sum_to(path, path.len() - 1, first);
    if path.len() > 1 { sum - path[path.len() - 1] * (1.0 - last) } else { sum }
}

/// Mean absolute error of repeating the last cycle, one step ahead; none where it has none.
fn naive_error(y: &[f64], periods: &[usize]) -> Option<f64> {
    let cycle = periods.iter().copied().filter(|period| *period > 0 && *period < y.len()).min().unwrap_or(1);
    let errors = y.iter().zip(y.get(cycle..)?).map(|(before, after)| (after - before).abs());
    let mean = errors.sum::<f64>() / (y.len() - cycle).max(1) as f64;
    (mean > 0.0).then_some(mean)
}
