//! Rolling-origin back-tests (Tashman 2000): at each of the last points of the history a method forecasts the path behind it
//! from what lies before it, and the errors are kept.
//!
//! Parameters are fitted to what lies before the first origin and anew at [`FITS`] - 1 later ones; between two fits the model
//! takes the points in. No forecast ever sees a point behind its origin.

use super::model::{Method, Model};

/// Origins, at most: what is older says little about errors now.
pub const ORIGINS_MAX: usize = 400;
/// Origins that a forecast needs: fewer say nothing about an interval of 95 %.
pub const ORIGINS_MIN: usize = 20;
/// Points before the first origin, at least.
pub const TRAIN_MIN: usize = 8;
/// How often the parameters are fitted during a back-test.
const FITS: usize = 3;

/// The errors of one method: forecast missed the actual value by so much, for each origin and step.
#[derive(Clone, Debug)]
pub(crate) struct BackTest {
    /// The first origin: points that lie before it.
    pub(crate) first: usize,
    horizon: usize,
    /// Actual minus forecast, origin by origin.
    errors: Vec<f64>,
}

/// Points that a forecast of that many steps needs.
pub const fn points_min(horizon: usize) -> usize {
    TRAIN_MIN + horizon + ORIGINS_MIN - 1
}

/// Where the first origin lies: half of the history is for the errors, within the bounds above.
pub(crate) fn first_origin(points: usize, horizon: usize) -> usize {
    let origins = (points / 2).clamp(ORIGINS_MIN, ORIGINS_MAX);
    (points + 1).saturating_sub(horizon + origins).max(TRAIN_MIN)
}

impl BackTest {
    /// None where the method cannot be fitted to what lies before the first origin.
    pub(crate) fn run(method: Method, y: &[f64], horizon: usize, floor: Option<f64>) -> Option<Self> {
        let first = first_origin(y.len(), horizon);
        let last = y.len().checked_sub(horizon)?;
        let refit_every = (last + 1).saturating_sub(first).div_ceil(FITS).max(1);
        let mut model = Model::fit(method, y.get(..first)?)?;
        let mut path = vec![0.0; horizon];
        let mut errors = Vec::with_capacity((last + 1).saturating_sub(first) * horizon);
        for origin in first..=last {
            if origin > first {
                let is_due = (origin - first).is_multiple_of(refit_every);
                match is_due.then(|| Model::fit(method, &y[..origin])).flatten() {
                    Some(fitted) => model = fitted,
                    None => model.advance(y[origin - 1]),
                }
            }
            model.path(&mut path);
            floored(&mut path, floor);
            errors.extend(y[origin..].iter().zip(&path).map(|(actual, forecast)| actual - forecast));
        }
        Some(Self { first, horizon, errors })
    }

    /// That of the mean of several methods' forecasts over the same origins: its errors are the mean of theirs.
    pub(crate) fn average(tests: &[&Self]) -> Option<Self> {
        let (one, others) = tests.split_first()?;
        let mut errors = one.errors.clone();
        for other in others {
            errors.iter_mut().zip(&other.errors).for_each(|(sum, error)| *sum += error);
        }
        errors.iter_mut().for_each(|sum| *sum /= tests.len() as f64);
        Some(Self { errors, first: one.first, horizon: one.horizon })
    }

    pub(crate) fn origins(&self) -> usize {
        self.errors.len() / self.horizon
    }

    /// The errors of each origin: one for each step.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[f64]> {
        self.errors.chunks_exact(self.horizon)
    }

    pub(crate) fn mae(&self) -> f64 {
        self.errors.iter().map(|e| e.abs()).sum::<f64>() / self.errors.len().max(1) as f64
    }

    /// Root of the mean squared error, where an origin counts half as much as one half of all origins later.
    pub(crate) fn recent_rmse(&self) -> f64 {
        let fade = 0.5f64.powf(2.0 / self.origins().max(1) as f64);
        let (mut sum, mut weights) = (0.0, 0.0);
        for path in self.paths() {
            let square = path.iter().map(|e| e * e).sum::<f64>() / self.horizon as f64;
            sum = sum * fade + square;
            weights = weights * fade + 1.0;
        }
        if weights > 0.0 { (sum / weights).sqrt() } else { f64::INFINITY }
    }

    pub(crate) fn rmse(&self) -> f64 {
        (self.errors.iter().map(|e| e * e).sum::<f64>() / self.errors.len().max(1) as f64).sqrt()
    }
}

pub(crate) fn floored(path: &mut [f64], floor: Option<f64>) {
    if let Some(floor) = floor {
        path.iter_mut().for_each(|value| *value = value.max(floor));
    }
}
