//! Exponential smoothing: simple (Brown), Holt's trend, the damped trend (Gardner and McKenzie 1985), and Holt and Winters'
//! additive season, in the error-correction form of Hyndman, Koehler, Ord and Snyder (2008), chapter 2:
//!
//! ```text
//! forecast = level + phi trend + season[t mod m]        error = y - forecast
//! level'   = level + phi trend + alpha error            trend' = phi trend + alpha beta error
//! season'  = season + gamma error
//! ```
//!
//! `beta` is Holt's own (statsmodels' `smoothing_trend`), `gamma` at most 1 - alpha. A fit minimises the sum of squared errors
//! of one step. For given smoothing parameters that sum is quadratic in the first states, so those are not searched: they are
//! solved for (variable projection, Golub and Pereyra 1973), and only at most four parameters are searched. Beyond
//! [`SOLVED_SEASON_MAX`] the first seasonal states are the means of the first cycles, and only level and trend are solved for.

use super::optimize::minimize;

/// Longest season whose first states are solved for: the cost grows with its square.
pub(crate) const SOLVED_SEASON_MAX: usize = 24;
/// Bounds of the damping: below it forgets the trend at once, above it is not told from none.
const PHI: (f64, f64) = (0.8, 0.98);
/// Evaluations of one search, and how many searches begin at the best points of the grid.
const EVALUATIONS_MAX: usize = 160;
const SEARCHES: usize = 3;
/// Fits whose sums of squared errors are this near to the least are told apart by how they forecast a whole cycle.
const NEAR_BEST: f64 = 1.02;
/// Added to the diagonal, relative to it: directions that no data tell stay at the first guess.
const RIDGE: f64 = 1e-10;
/// Points that the first guess of level and trend looks at where there is no season.
const FIRST_POINTS: usize = 10;

/// What a series is thought to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) trend: Trend,
    /// 0 where there is no season.
    pub(crate) period: usize,
}

/// See [`Shape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trend {
    None,
    Additive,
    Damped,
}

/// The smoothing parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weights {
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) gamma: f64,
    pub(crate) phi: f64,
}

/// A fitted model that stands behind the last point it was shown.
#[derive(Clone, Debug)]
pub(crate) struct Smoothing {
    pub(crate) weights: Weights,
    /// Sum of the squared errors of one step over the points it was fitted to.
    pub(crate) sse: f64,
    state: State,
}

#[derive(Clone, Debug, Default)]
struct State {
    level: f64,
    trend: f64,
    season: Vec<f64>,
    /// The place in `season` of the next point.
    at: usize,
}

impl State {
    fn expected(&self, weights: &Weights) -> f64 {
        self.level + weights.phi * self.trend + self.season.get(self.at).copied().unwrap_or(0.0)
    }

    /// Takes the next point in; gives the error of its forecast.
    fn advance(&mut self, weights: &Weights, y: f64) -> f64 {
        let error = y - self.expected(weights);
        self.level += weights.phi * self.trend + weights.alpha * error;
        self.trend = weights.phi * self.trend + weights.alpha * weights.beta * error;
        if let Some(season) = self.season.get_mut(self.at) {
            *season += weights.gamma * error;
            self.at = (self.at + 1) % self.season.len();
        }
        error
    }
}

impl Shape {
    /// Points that a fit needs: two whole cycles, and more points than parameters.
    pub(crate) const fn points_min(self) -> usize {
        if self.period > 0 { 2 * self.period + 2 } else { 4 }
    }

    fn dimensions(self) -> usize {
        1 + match self.trend {
            Trend::None => 0,
            Trend::Additive => 1,
            Trend::Damped => 2,
        } + usize::from(self.period > 0)
    }

    /// A point of the unit box as parameters.
    fn weights(self, point: &[f64]) -> Weights {
        let alpha = point[0];
        let (beta, phi) = match self.trend {
            Trend::None => (0.0, 0.0),
            Trend::Additive => (point[1], 1.0),
            Trend::Damped => (point[1], PHI.0 + (PHI.1 - PHI.0) * point[2]),
        };
        let gamma = if self.period > 0 { point[point.len() - 1] * (1.0 - alpha) } else { 0.0 };
        Weights { alpha, beta, gamma, phi }
    }

    fn grid(self) -> Vec<Vec<f64>> {
        let mut points = vec![Vec::new()];
        let mut cross = |values: &[f64]| {
            points = points
                .iter()
                .flat_map(|point| values.iter().map(|value| [point.as_slice(), &[*value]].concat()))
                .collect();
        };
        cross(&[0.02, 0.2, 0.5, 0.95]);
        match self.trend {
            Trend::None => {}
            Trend::Additive => cross(&[0.02, 0.3]),
            Trend::Damped => {
                cross(&[0.02, 0.3]);
                cross(&[0.8]);
            }
        }
        if self.period > 0 {
            cross(&[0.03, 0.3]);
        }
        points
    }

    /// The first guess of the state before the first point.
    fn first_guess(self, y: &[f64]) -> State {
        if self.period == 0 {
            let head = &y[..y.len().min(FIRST_POINTS)];
            let (intercept, slope) = line(head);
            return match self.trend {
                Trend::None => State { level: mean(head), ..State::default() },
                _ => State { level: intercept - slope, trend: slope, ..State::default() },
            };
        }
        let m = self.period;
        let (one, two) = (mean(&y[..m]), mean(&y[m..2 * m]));
        let slope = if self.trend == Trend::None { 0.0 } else { (two - one) / m as f64 };
        // The line through the middles of the first two cycles, at the place before the first point.
        let level =
            if self.trend == Trend::None { (one + two) / 2.0 } else { one - slope * (m as f64 + 1.0) / 2.0 };
        let rest = |t: usize| y[t] - (level + slope * (t + 1) as f64);
        let season = (0..m).map(|t| (rest(t) + rest(t + m)) / 2.0).collect();
        State { level, trend: slope, season, at: 0 }
    }
}

impl Smoothing {
    /// Fits to a series; none where it is too short. Values should be of the order of 1.
    pub(crate) fn fit(shape: Shape, y: &[f64]) -> Option<Self> {
        if y.len() < shape.points_min() {
            return None;
        }
        let guess = shape.first_guess(y);
        let mut solver = Solver::new(shape, &guess);
        let mut grid: Vec<(f64, Vec<f64>)> =
            shape.grid().into_iter().map(|point| (run(&guess, &shape.weights(&point), y).1, point)).collect();
        grid.sort_by(|a, b| a.0.total_cmp(&b.0));
        let found: Vec<(Weights, f64)> = grid
            .iter()
            .take(SEARCHES)
            .map(|(_, start)| {
                debug_assert_eq!(start.len(), shape.dimensions());
                let (point, sse) =
                    minimize(start, EVALUATIONS_MAX, |point| solver.sse(&shape.weights(point), y));
                (shape.weights(&point), sse)
            })
            .collect();
        let least = found.iter().map(|(_, sse)| *sse).fold(f64::INFINITY, f64::min);
        let fits = found.into_iter().filter(|(_, sse)| *sse <= least * NEAR_BEST);
        let fits: Vec<(Weights, State)> =
            fits.map(|(weights, _)| (weights, solver.first_state(&weights, y))).collect();
        let (weights, first) = fits
            .into_iter()
            .map(|(weights, first)| (path_error(shape, &first, &weights, y), weights, first))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, weights, first)| (weights, first))?;
        let (state, sse) = run(&first, &weights, y);
        Some(Self { weights, sse, state })
    }

    pub(crate) fn advance(&mut self, y: f64) {
        self.state.advance(&self.weights, y);
    }

    /// The next points.
    pub(crate) fn path(&self, out: &mut [f64]) {
        let State { level, trend, season, at } = &self.state;
        let (mut level, mut trend, m) = (*level, *trend, season.len());
        for (step, value) in out.iter_mut().enumerate() {
            trend *= self.weights.phi;
            level += trend;
            *value = level + if m > 0 { season[(at + step) % m] } else { 0.0 };
        }
    }

    pub(crate) const fn level(&self) -> f64 {
        self.state.level
    }
}

/// The state behind the last point, and the sum of squared errors.
fn run(first: &State, weights: &Weights, y: &[f64]) -> (State, f64) {
    let mut state = first.clone();
    let mut sse = 0.0;
    for value in y {
        let error = state.advance(weights, *value);
        sse += error * error;
    }
    (state, sse)
}

/// What tells fits apart whose errors of one step are nearly the same: the squared error over paths of a cycle; without a
/// season, of one step.
///
/// The sum of squared errors of a seasonal model is flat along a valley: a season that never changes and one that follows
/// explain the history equally well, and forecast differently.
fn path_error(shape: Shape, first: &State, weights: &Weights, y: &[f64]) -> f64 {
    if shape.period == 0 {
        return run(first, weights, y).1;
    }
    let mut path = vec![0.0; shape.period];
    let mut model = Smoothing { weights: *weights, sse: 0.0, state: first.clone() };
    let mut sum = 0.0;
    for origin in 0..=y.len() - shape.period {
        model.path(&mut path);
        sum +=
            path.iter().zip(&y[origin..]).map(|(forecast, actual)| (actual - forecast).powi(2)).sum::<f64>();
        if let Some(next) = y.get(origin) {
            model.advance(*next);
        }
    }
    sum
}

/// Solves for the first state that makes the sum of squared errors least.
///
/// Forecasts are linear in the first state x: `forecast_t = forecast_t(guess) + J_t (x - guess)`, where J obeys the recursions
/// of the state itself. One pass over the series sums the normal equations. The last season's first state is held: a constant
/// taken from every season and added to the level changes no forecast.
struct Solver<'g> {
    guess: &'g State,
    has_trend: bool,
    /// Seasons that are solved for.
    seasons: usize,
    /// Unknowns.
    unknowns: usize,
    /// Derivatives of the states by the unknowns: level, trend, then each season, solved for or not.
    rows: Vec<f64>,
    by: Vec<f64>,
    normal: Vec<f64>,
    right: Vec<f64>,
}

impl<'g> Solver<'g> {
    fn new(shape: Shape, guess: &'g State) -> Self {
        let has_trend = shape.trend != Trend::None;
        let seasons = if shape.period <= SOLVED_SEASON_MAX { shape.period.saturating_sub(1) } else { 0 };
        let unknowns = 1 + usize::from(has_trend) + seasons;
        Self {
            guess,
            has_trend,
            seasons,
            unknowns,
            rows: vec![0.0; (2 + shape.period) * unknowns],
            by: vec![0.0; unknowns],
            normal: vec![0.0; unknowns * unknowns],
            right: vec![0.0; unknowns],
        }
    }

    /// The least sum of squared errors with these parameters.
    fn sse(&mut self, weights: &Weights, y: &[f64]) -> f64 {
        let at_guess = self.sum(weights, y);
        let Some(step) = solve(&mut self.normal, &self.right, self.unknowns) else { return at_guess };
        let gain: f64 = step.iter().zip(&self.right).map(|(x, b)| x * b).sum();
        (at_guess - gain).max(0.0)
    }

    fn first_state(&mut self, weights: &Weights, y: &[f64]) -> State {
        self.sum(weights, y);
        let mut state = self.guess.clone();
        let Some(step) = solve(&mut self.normal, &self.right, self.unknowns) else { return state };
        state.level += step[0];
        let first_season = 1 + usize::from(self.has_trend);
        if self.has_trend {
            state.trend += step[1];
        }
        for (season, by) in state.season.iter_mut().zip(&step[first_season..]) {
            *season += by;
        }
        state
    }

    /// Sums the normal equations; gives the sum of squared errors from the guess.
    fn sum(&mut self, weights: &Weights, y: &[f64]) -> f64 {
        let d = self.unknowns;
        let first_season = 1 + usize::from(self.has_trend);
        self.rows.fill(0.0);
        self.normal.fill(0.0);
        self.right.fill(0.0);
        self.rows[0] = 1.0;
        if self.has_trend {
            self.rows[d + 1] = 1.0;
        }
        for season in 0..self.seasons {
            self.rows[(2 + season) * d + first_season + season] = 1.0;
        }
        let mut state = self.guess.clone();
        let mut sse = 0.0;
        for value in y {
            let season = (!state.season.is_empty()).then_some((2 + state.at) * d);
            for (k, by) in self.by.iter_mut().enumerate() {
                *by = self.rows[k]
                    + weights.phi * self.rows[d + k]
                    + season.map_or(0.0, |at| self.rows[at + k]);
            }
            let error = state.advance(weights, *value);
            sse += error * error;
            for (k, by) in self.by.iter().enumerate() {
                let trend = weights.phi * self.rows[d + k];
                self.rows[k] += trend - weights.alpha * by;
                self.rows[d + k] = trend - weights.alpha * weights.beta * by;
                if let Some(at) = season {
                    self.rows[at + k] -= weights.gamma * by;
                }
                self.right[k] += by * error;
                let row = &mut self.normal[k * d..k * d + k + 1];
                row.iter_mut().zip(&self.by).for_each(|(sum, other)| *sum += by * other);
            }
        }
        sse
    }
}

/// Solves the symmetric system whose lower triangle is `normal` (Cholesky, in place); none where it is not positive.
fn solve(normal: &mut [f64], right: &[f64], d: usize) -> Option<Vec<f64>> {
    let ridge = RIDGE * (0..d).map(|k| normal[k * d + k]).fold(0.0, f64::max);
    for k in 0..d {
        normal[k * d + k] += ridge;
    }
    for row in 0..d {
        for column in 0..=row {
            let known: f64 = (0..column).map(|k| normal[row * d + k] * normal[column * d + k]).sum();
            let rest = normal[row * d + column] - known;
            if row == column {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                normal[row * d + row] = rest.sqrt();
            } else {
                normal[row * d + column] = rest / normal[column * d + column];
            }
        }
    }
    let mut x = right.to_vec();
    for row in 0..d {
        let known: f64 = (0..row).map(|k| normal[row * d + k] * x[k]).sum();
        x[row] = (x[row] - known) / normal[row * d + row];
    }
    for row in (0..d).rev() {
        let known: f64 = (row + 1..d).map(|k| normal[k * d + row] * x[k]).sum();
        x[row] = (x[row] - known) / normal[row * d + row];
    }
    Some(x)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Intercept and slope of least squares over t = 0, 1, ...
fn line(y: &[f64]) -> (f64, f64) {
    let n = y.len() as f64;
    let (t_mean, y_mean) = ((n - 1.0) / 2.0, mean(y));
    let (mut cross, mut square) = (0.0, 0.0);
    for (t, value) in y.iter().enumerate() {
        let from_mean = t as f64 - t_mean;
        cross += from_mean * (value - y_mean);
        square += from_mean * from_mean;
    }
    let slope = if square > 0.0 { cross / square } else { 0.0 };
    (y_mean - slope * t_mean, slope)
}
