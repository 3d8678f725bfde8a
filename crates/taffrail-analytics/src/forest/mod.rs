//! Isolation forest: F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", ICDM 2008; "Isolation-Based Anomaly Detection",
//! ACM TKDD 6(1), 2012.
//!
//! A tree cuts a sample at random values of random columns until each row is alone. What is unusual is alone after few
//! cuts: `s(x) = 2^(-E[h(x)] / c(n))`, where `h` is the number of cuts and `c(n)` its mean over `n` rows. The forest knows
//! nothing of what its columns mean; [`crate::features`] does, and [`model`] binds the two.
//!
//! Limits: [`FEATURES_MAX`] columns, numbers of single precision. NaN stands for "not known" and counts as the column's
//! median: what is not known is no evidence. Infinities count as the largest finite number. A constant column is never cut.
//!
//! A seed gives the same trees on every platform: growing uses integers, comparisons and one exact product. A score may
//! differ in its last digit where a platform's logarithm does.

use std::f64::consts::LN_2;

use codec::{CodecError, Reader, Writer};
use random::Random;
use tree::{Sample, Tree};

pub mod codec;
pub mod model;
pub mod random;
pub mod reservoir;
mod tree;

pub use tree::Node;

#[cfg(test)]
mod tests;

/// Trees of a forest.
pub const TREES: usize = 100;

/// Rows that a tree is grown from; fewer where there are not so many.
pub const SAMPLE_ROWS: usize = 256;

/// Cuts at most: `ceil(log2 SAMPLE_ROWS)`, the height of a balanced tree.
pub const HEIGHT_MAX: u32 = SAMPLE_ROWS.ilog2();

/// A row whose score is over this is an anomaly.
pub const ANOMALY_SCORE: f64 = 0.7;

/// Columns at most.
pub const FEATURES_MAX: usize = 64;

/// The usual range of a column lies between these quantiles of the training rows.
pub const USUAL_QUANTILES: [f64; 2] = [0.05, 0.95];

/// Trees at most in a forest that is read from bytes, or made of drawn trees.
const TREES_MAX: usize = 1_000;

/// Rows that walk a tree at once.
const LANES: usize = 16;

/// Lanes that are taken through the forest together: their values and one tree fit the first cache.
const LANES_TOGETHER: usize = 8;

const KIND: [u8; 4] = *b"TFIF";
const FORMAT_VERSION: u8 = 1;

/// Euler's constant, with the digits of the paper and more.
const EULER: f64 = 0.577_215_664_901_532_9;

/// A trained forest.
#[derive(Clone, PartialEq)]
pub struct Forest {
    columns: Vec<Usual>,
    sample_rows: usize,
    trees: Vec<Tree>,
}

/// What is usual in a column, over the training rows in which it is known; zeros where it never is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usual {
    /// The lower of [`USUAL_QUANTILES`].
    pub low: f32,
    /// The median.
    pub median: f32,
    /// The higher of [`USUAL_QUANTILES`].
    pub high: f32,
}

/// Why there is no forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainError {
    /// So many columns; 1 to [`FEATURES_MAX`] can be had.
    Columns(usize),
    /// So many rows, where at least so many are needed.
    Rows(usize, usize),
    /// The values are no whole number of rows, or more than can be numbered.
    Shape,
}

impl std::fmt::Display for TrainError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Columns(found) => write!(f, "a forest has 1 to {FEATURES_MAX} columns, not {found}"),
            Self::Rows(found, needed) => write!(f, "a forest needs {needed} rows, there are {found}"),
            Self::Shape => f.write_str("the values are no whole number of rows"),
        }
    }
}

impl std::error::Error for TrainError {}

impl std::fmt::Debug for Forest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forest")
            .field("trees", &self.trees.len())
            .field("sample_rows", &self.sample_rows)
            .field("columns", &self.columns)
            .finish()
    }
}

/// `c(n)`: the mean path length of an unsuccessful search in a binary search tree of `n` keys, in cuts.
///
/// `2 H(n-1) - 2 (n-1) / n` with `H(i) = ln(i) + 0.5772156649` (2008, equation 1); 1 for two rows and 0 for less (2012).
pub fn average_path(rows: usize) -> f64 {
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = rows as f64;
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

/// `2^(-mean_path / c(sample_rows))`: near 1 is an anomaly, well under 0.5 is usual, all near 0.5 is a set without anomalies.
fn score_of(mean_path: f64, sample_rows: usize) -> f64 {
    (-mean_path / average_path(sample_rows) * LN_2).exp()
}

impl Forest {
    /// Grows [`TREES`] trees from the rows, which stand one after another, each with a value for each column.
    pub fn train(values: &[f32], columns: usize, seed: u64) -> Result<Self, TrainError> {
        if columns == 0 || columns > FEATURES_MAX {
            return Err(TrainError::Columns(columns));
        }
        if !values.len().is_multiple_of(columns) || values.len() / columns > u32::MAX as usize {
            return Err(TrainError::Shape);
        }
        let rows = values.len() / columns;
        if rows < 2 {
            return Err(TrainError::Rows(rows, 2));
        }
        let usual: Vec<Usual> =
            (0..columns).map(|column| Usual::of(values.iter().skip(column).step_by(columns))).collect();
        let known: Vec<f32> =
            values.chunks_exact(columns).flat_map(|row| row.iter().zip(&usual).map(known)).collect();
        let sample_rows = rows.min(SAMPLE_ROWS);
        let mut sample = Sample {
            values: &known,
            columns,
            height: (sample_rows as u32).next_power_of_two().ilog2(),
            random: Random::new(seed),
            order: (0..columns as u8).collect(),
        };
        let mut numbers: Vec<u32> = (0..rows as u32).collect();
        let trees = (0..TREES)
            .map(|_| {
                // The first places of a shuffle (Durstenfeld 1964): a sample without replacement.
                for place in 0..sample_rows {
                    let other = place + sample.random.below(rows - place);
                    numbers.swap(place, other);
                }
                Tree::grow(&mut sample, &mut numbers[..sample_rows])
            })
            .collect();
        Ok(Self { columns: usual, sample_rows, trees })
    }

    /// A forest of drawn trees. Errors where there are none or too many, where one is too high or has a threshold that is
    /// not finite, where their leaves do not hold the same number of rows (at least two), or where a column has no place.
    pub fn of_trees(columns: Vec<Usual>, drawn: &[Node]) -> Result<Self, CodecError> {
        if columns.is_empty() || columns.len() > FEATURES_MAX || drawn.is_empty() || drawn.len() > TREES_MAX {
            return Err(CodecError::Invalid("a count is over its limit"));
        }
        let mut writer = Writer::default();
        let trees = drawn.iter().map(Tree::of).collect::<Result<Vec<_>, _>>()?;
        let sample_rows = trees[0].sample_rows();
        Self { columns, sample_rows, trees }.write(&mut writer);
        Self::from_bytes(&codec::seal(KIND, FORMAT_VERSION, &writer.0))
    }

    /// Its trees, drawn: what [`Forest::of_trees`] takes.
    pub fn trees(&self) -> Vec<Node> {
        self.trees.iter().map(Tree::drawn).collect()
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Rows that each tree was grown from.
    pub fn sample_rows(&self) -> usize {
        self.sample_rows
    }

    /// What is usual in a column; zeros for a column that there is not.
    pub fn usual(&self, column: usize) -> Usual {
        self.columns.get(column).copied().unwrap_or_default()
    }

    /// The anomaly score of a row, 0 to 1. A row that is too short is filled up as not known.
    pub fn score(&self, row: &[f32]) -> f64 {
        let mut values = [[0.0]; FEATURES_MAX];
        self.fill(&mut values, 0, row);
        let mut sum = [0.0];
        for tree in &self.trees {
            tree.paths(&values, &mut sum);
        }
        score_of(sum[0] / self.trees.len() as f64, self.sample_rows)
    }

    /// The scores of many rows that stand one after another: several times as fast as one by one, and the same.
    pub fn scores(&self, values: &[f32]) -> Vec<f64> {
        let columns = self.columns.len();
        let mut scores = Vec::with_capacity(values.len() / columns);
        let mut lanes = vec![[[0.0; LANES]; FEATURES_MAX]; LANES_TOGETHER];
        for block in values.chunks(columns * LANES * LANES_TOGETHER) {
            let rows = block.chunks_exact(columns);
            let count = rows.len();
            for (place, row) in rows.enumerate() {
                self.fill(&mut lanes[place / LANES], place % LANES, row);
            }
            let mut sums = [[0.0; LANES]; LANES_TOGETHER];
            let used = count.div_ceil(LANES);
            for tree in &self.trees {
                for (lane, sums) in lanes[..used].iter().zip(&mut sums) {
                    tree.paths(lane, sums);
                }
            }
            let means = sums.as_flattened().iter().take(count).map(|sum| sum / self.trees.len() as f64);
            scores.extend(means.map(|mean| score_of(mean, self.sample_rows)));
        }
        scores
    }

    /// By how many cuts each column shortened the row's mean path, against that of a row of the sample.
    ///
    /// A row at a node of `n` rows may expect `c(n)` cuts more. A cut to a child of `m` rows makes that `1 + c(m)`; the
    /// difference `c(n) - 1 - c(m)` is put to the account of the column that was cut, and meant over the trees. The sum over
    /// the columns is exactly `c(sample) - E[h(x)]`, so it explains the score without a rest. It is the path decomposition
    /// of A. Saabas ("Interpreting random forests", 2014) with the expected path as the value of a node; the local DIFFI of
    /// M. Carletti, M. Terzi, G. A. Susto (2023) counts columns of short paths instead, and does not sum to the score.
    pub fn contributions(&self, row: &[f32]) -> Vec<f64> {
        let row: Vec<f32> =
            self.columns.iter().enumerate().map(|(at, usual)| known((&at_or_nan(row, at), usual))).collect();
        let mut sums = vec![0.0; self.columns.len()];
        for tree in &self.trees {
            for (column, before, after) in tree.walk(&row) {
                sums[column] += average_path(before) - 1.0 - average_path(after);
            }
        }
        for sum in &mut sums {
            *sum /= self.trees.len() as f64;
        }
        sums
    }

    /// Bytes for the database: columns' usual ranges, rows of a sample, trees; see [`codec`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        codec::seal(KIND, FORMAT_VERSION, &writer.0)
    }

    /// Reads what [`Forest::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = codec::open(KIND, FORMAT_VERSION, bytes)?;
        let forest = Self::read(&mut reader)?;
        reader.end()?;
        Ok(forest)
    }

    fn write(&self, writer: &mut Writer) {
        writer.uint(self.columns.len() as u64);
        writer.uint(self.sample_rows as u64);
        writer.uint(self.trees.len() as u64);
        for usual in &self.columns {
            writer.f32(usual.low);
            writer.f32(usual.median);
            writer.f32(usual.high);
        }
        for tree in &self.trees {
            tree.write(writer);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let columns = reader.count(FEATURES_MAX)?;
        let sample_rows = reader.count(SAMPLE_ROWS)?;
        let trees = reader.count(TREES_MAX)?;
        if columns == 0 || sample_rows < 2 || trees == 0 {
            return Err(CodecError::Invalid("a forest is empty"));
        }
        let columns = (0..columns)
            .map(|_| Ok(Usual { low: reader.f32()?, median: reader.f32()?, high: reader.f32()? }))
            .collect::<Result<Vec<_>, _>>()?;
        let trees =
            (0..trees).map(|_| Tree::read(reader, columns.len(), sample_rows)).collect::<Result<_, _>>()?;
        Ok(Self { columns, sample_rows, trees })
    }

    fn fill<const N: usize>(&self, values: &mut [[f32; N]; FEATURES_MAX], lane: usize, row: &[f32]) {
        for (at, (column, usual)) in values.iter_mut().zip(&self.columns).enumerate() {
            column[lane] = known((&at_or_nan(row, at), usual));
        }
    }
}

impl Usual {
    fn of<'a>(values: impl Iterator<Item = &'a f32>) -> Self {
        let mut known: Vec<f32> =
            values.filter(|value| !value.is_nan()).map(|&value| finite(value)).collect();
        if known.is_empty() {
            return Self::default();
        }
        known.sort_unstable_by(f32::total_cmp);
        let at = |q: f64| known[(q * (known.len() - 1) as f64).round() as usize];
        Self { low: at(USUAL_QUANTILES[0]), median: at(0.5), high: at(USUAL_QUANTILES[1]) }
    }
}

fn at_or_nan(row: &[f32], at: usize) -> f32 {
    row.get(at).copied().unwrap_or(f32::NAN)
}

/// The value as the trees take it.
fn known((value, usual): (&f32, &Usual)) -> f32 {
    if value.is_nan() { usual.median } else { finite(*value) }
}

fn finite(value: f32) -> f32 {
    value.clamp(f32::MIN, f32::MAX)
}
