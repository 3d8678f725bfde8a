//! The methods, fitted: each can take the next point in and say the next path.

use super::smoothing::{Shape, Smoothing, Trend};

/// A method of forecasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// The last point again.
    Naive,
    /// The last cycle again.
    SeasonalNaive {
        /// Points of a cycle.
        period: usize,
    },
    /// The mean of the whole history.
    Mean,
    /// The mean of each place of the cycle over the whole history.
    SeasonalMean {
        /// Points of a cycle.
        period: usize,
    },
    /// A straight line through the whole history by least squares.
    LinearTrend,
    /// Simple exponential smoothing: a level.
    SimpleSmoothing,
    /// Holt: level and trend.
    Holt,
    /// Holt with a trend that dies out.
    DampedHolt,
    /// Holt and Winters: level, trend and additive season.
    HoltWinters {
        /// Points of a cycle.
        period: usize,
    },
    /// Level and additive season, no trend.
    SeasonalSmoothing {
        /// Points of a cycle.
        period: usize,
    },
    /// The theta method: simple smoothing with half the slope of the straight line (Assimakopoulos and Nikolopoulos 2000, in
    /// the form of Hyndman and Billah 2003).
    Theta,
}

impl Method {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::SeasonalNaive { .. } => "seasonal_naive",
            Self::Mean => "mean",
            Self::SeasonalMean { .. } => "seasonal_mean",
            Self::LinearTrend => "linear_trend",
            Self::SimpleSmoothing => "simple_smoothing",
            Self::Holt => "holt",
            Self::DampedHolt => "damped_holt",
            Self::HoltWinters { .. } => "holt_winters",
            Self::SeasonalSmoothing { .. } => "seasonal_smoothing",
            Self::Theta => "theta",
        }
    }

    /// Points of a cycle, where it has one.
    pub const fn period(self) -> Option<usize> {
        match self {
            Self::SeasonalNaive { period }
            | Self::SeasonalMean { period }
            | Self::HoltWinters { period }
            | Self::SeasonalSmoothing { period } => Some(period),
            _ => None,
        }
    }

    /// Every method, the plain ones first, with these seasons.
    pub fn all(periods: &[usize]) -> Vec<Self> {
        let mut methods = vec![
            Self::Naive,
            Self::Mean,
            Self::SimpleSmoothing,
            Self::Theta,
            Self::DampedHolt,
            Self::Holt,
            Self::LinearTrend,
        ];
        for &period in periods.iter().filter(|period| **period > 1) {
            methods.push(Self::SeasonalNaive { period });
            methods.push(Self::SeasonalMean { period });
            methods.push(Self::SeasonalSmoothing { period });
            methods.push(Self::HoltWinters { period });
        }
        methods
    }

    const fn shape(self) -> Option<Shape> {
        let (trend, period) = match self {
            Self::SimpleSmoothing | Self::Theta => (Trend::None, 0),
            Self::Holt => (Trend::Additive, 0),
            Self::DampedHolt => (Trend::Damped, 0),
            Self::HoltWinters { period } => (Trend::Additive, period),
            Self::SeasonalSmoothing { period } => (Trend::None, period),
            Self::Naive
            | Self::SeasonalNaive { .. }
            | Self::Mean
            | Self::SeasonalMean { .. }
            | Self::LinearTrend => return None,
        };
        Some(Shape { trend, period })
    }
}

/// A method fitted to a series, behind its last point.
#[derive(Clone, Debug)]
pub struct Model(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Cycle { last: Vec<f64>, at: usize },
    Means { means: Vec<(f64, f64)>, at: usize },
    Line(Line),
    Smooth(Smoothing),
    Theta { smooth: Smoothing, line: Line },
}

/// The smoothing parameters of a fit, in the notation of Hyndman et al.; `beta` is Holt's, relative to `alpha`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the literature's")]
pub struct Parameters {
    pub alpha: f64,
    pub beta: f64,
    pub gamma: f64,
    pub phi: f64,
    /// Sum of the squared errors of one step over the history.
    pub sse: f64,
}

impl Model {
    /// Fits; none where the series is too short for the method. Every point must be finite, and of the order of 1 for the
    /// search to end well (scale it).
    pub fn fit(method: Method, y: &[f64]) -> Option<Self> {
        let cycle = |period: usize| {
            let last = y.get(y.len().checked_sub(period)?..)?;
            (period > 0).then(|| Kind::Cycle { last: last.to_vec(), at: 0 })
        };
        let kind = match method {
            Method::Naive => cycle(1)?,
            Method::SeasonalNaive { period } => cycle(period)?,
            Method::Mean => means(y, 1)?,
            Method::SeasonalMean { period } => means(y, period)?,
            Method::LinearTrend => Kind::Line((y.len() >= 3).then(|| Line::of(y))?),
            Method::Theta => Kind::Theta { smooth: Smoothing::fit(method.shape()?, y)?, line: Line::of(y) },
            _ => Kind::Smooth(Smoothing::fit(method.shape()?, y)?),
        };
        Some(Self(kind))
    }

    /// Takes the next point in, without fitting anew.
    pub fn advance(&mut self, y: f64) {
        match &mut self.0 {
            Kind::Cycle { last, at } => {
                last[*at] = y;
                *at = (*at + 1) % last.len();
            }
            Kind::Means { means, at } => {
                let (mean, count) = &mut means[*at];
                *count += 1.0;
                *mean += (y - *mean) / *count;
                *at = (*at + 1) % means.len();
            }
            Kind::Line(line) => line.advance(y),
            Kind::Smooth(smooth) => smooth.advance(y),
            Kind::Theta { smooth, line } => {
                smooth.advance(y);
                line.advance(y);
            }
        }
    }

    /// The next points.
    pub fn path(&self, out: &mut [f64]) {
        match &self.0 {
            Kind::Cycle { last, at } => {
                out.iter_mut().enumerate().for_each(|(step, value)| *value = last[(at + step) % last.len()]);
            }
            Kind::Means { means, at } => {
                out.iter_mut()
                    .enumerate()
                    .for_each(|(step, value)| *value = means[(at + step) % means.len()].0);
            }
            Kind::Line(line) => {
                let (intercept, slope) = line.fit();
                out.iter_mut()
                    .enumerate()
                    .for_each(|(step, value)| *value = intercept + slope * (line.n + step as f64));
            }
            Kind::Smooth(smooth) => smooth.path(out),
            Kind::Theta { smooth, line } => {
                let alpha = smooth.weights.alpha.max(1e-6);
                let (_, slope) = line.fit();
                let begun = (1.0 - (1.0 - alpha).powf(line.n)) / alpha;
                out.iter_mut()
                    .enumerate()
                    .for_each(|(step, value)| *value = smooth.level() + slope / 2.0 * (step as f64 + begun));
            }
        }
    }

    /// How it was fitted, where there was something to fit.
    pub const fn parameters(&self) -> Option<Parameters> {
        match &self.0 {
            Kind::Smooth(smooth) | Kind::Theta { smooth, .. } => {
                let weights = smooth.weights;
                Some(Parameters {
                    alpha: weights.alpha,
                    beta: weights.beta,
                    gamma: weights.gamma,
                    phi: weights.phi,
                    sse: smooth.sse,
                })
            }
            _ => None,
        }
    }
}

/// Running means by place of the cycle, with how many each is of; none without two whole cycles.
fn means(y: &[f64], period: usize) -> Option<Kind> {
    if period == 0 || y.len() < 2 * period {
        return None;
    }
    let mut model = Model(Kind::Means { means: vec![(0.0, 0.0); period], at: 0 });
    y.iter().for_each(|value| model.advance(*value));
    Some(model.0)
}

/// Least squares over t = 0, 1, ..., kept as running means so that a point is taken in at constant cost (Welford).
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    n: f64,
    y_mean: f64,
    cross: f64,
}

impl Line {
    fn of(y: &[f64]) -> Self {
        let mut line = Self::default();
        y.iter().for_each(|value| line.advance(*value));
        line
    }

    fn advance(&mut self, y: f64) {
        let t = self.n;
        let t_mean = (t - 1.0) / 2.0;
        self.n += 1.0;
        self.cross += (t - t_mean) * (y - self.y_mean) * if t > 0.0 { t / self.n } else { 0.0 };
        self.y_mean += (y - self.y_mean) / self.n;
    }

    /// Intercept and slope.
    fn fit(&self) -> (f64, f64) {
        let square = self.n * (self.n * self.n - 1.0) / 12.0;
        let slope = if square > 0.0 { self.cross / square } else { 0.0 };
        (self.y_mean - slope * (self.n - 1.0) / 2.0, slope)
    }
}
