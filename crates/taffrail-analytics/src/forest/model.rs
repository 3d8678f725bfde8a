//! The model of a tool family: a forest over the rows of [`crate::features`], with what must be known to trust it, and the
//! reasons of a score in words' terms.

use super::codec::{self, CodecError, Writer};
use super::random::mix;
use super::reservoir::{Reservoir, TRAINING_ROWS_MAX};
use super::{ANOMALY_SCORE, Forest, SAMPLE_ROWS, TrainError};
use crate::features::{COLUMNS, Family, Feature, Row};

/// A family with fewer rows has no model: each tree gets its full sample.
pub const MODEL_ROWS_MIN: usize = SAMPLE_ROWS;

/// Reasons of a score.
pub const REASONS_MAX: usize = 3;

/// The usual hours are the shortest part of the day with this share of the training rows.
const USUAL_HOURS_SHARE: f64 = 0.9;

const HOURS: usize = 24;
const KIND: [u8; 4] = *b"TFCM";
const FORMAT_VERSION: u8 = 1;
const NAME_BYTES_MAX: usize = 64;

/// A trained model of a family's calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What it was made of.
    pub meta: Meta,
    forest: Forest,
    usual: [UsualRange; Feature::ALL.len()],
}

/// What a model was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Whose calls it knows.
    pub family: Family,
    /// Given by whoever trains: counts up.
    pub version: u32,
    /// When; given too.
    pub trained_at_ms: i64,
    /// Rows it was trained on.
    pub rows: u64,
    /// Same rows and same seed, same model.
    pub seed: u64,
}

/// What is usual, in a feature's own unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UsualRange {
    /// One row of twenty lies lower. Of an error: 0. Of the hour: where the usual part of the day begins.
    pub low: f64,
    /// The median; of an error the share of failed calls; of the hour the middle of the usual part of the day.
    pub middle: f64,
    /// One row of twenty lies higher. Of an error: 1 where more than one in twenty fails. Of the hour: where the usual part
    /// of the day ends, perhaps the next day, so that it is less than `low`.
    pub high: f64,
}

/// Why a call is unusual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// In what.
    pub feature: Feature,
    /// Its value in the feature's unit; none where it is not known.
    pub value: Option<f64>,
    /// What is usual.
    pub usual: UsualRange,
    /// Its part of what all features shortened the path by, 0 to 1: see [`Forest::contributions`].
    pub share: f64,
}

impl Model {
    /// Trains on a family's rows. Errors where there are fewer than [`MODEL_ROWS_MIN`].
    pub fn train(
        rows: &[Row],
        family: Family,
        version: u32,
        trained_at_ms: i64,
        seed: u64,
    ) -> Result<Self, TrainError> {
        if rows.len() < MODEL_ROWS_MIN {
            return Err(TrainError::Rows(rows.len(), MODEL_ROWS_MIN));
        }
        let forest = Forest::train(rows.as_flattened(), COLUMNS, seed)?;
        let usual = Feature::ALL.map(|feature| match feature {
            Feature::Hour => usual_hours(rows),
            Feature::Error => usual_errors(rows),
            _ => usual_of_column(&forest, feature),
        });
        let meta = Meta { family, version, trained_at_ms, rows: rows.len() as u64, seed };
        Ok(Self { meta, forest, usual })
    }

    /// The score of a call, 0 to 1.
    pub fn score(&self, row: &Row) -> f64 {
        self.forest.score(row)
    }

    /// The scores of many calls.
    pub fn scores(&self, rows: &[Row]) -> Vec<f64> {
        self.forest.scores(rows.as_flattened())
    }

    /// Whether a score is one of an anomaly.
    pub fn is_anomaly(score: f64) -> bool {
        score > ANOMALY_SCORE
    }

    /// The features that made the path of a row short, the first most: at most [`REASONS_MAX`], none for a usual row.
    pub fn reasons(&self, row: &Row) -> Vec<Reason> {
        let columns = self.forest.contributions(row);
        let mut parts: Vec<(Feature, f64)> = Feature::ALL
            .into_iter()
            .map(|feature| (feature, columns[feature.columns()].iter().sum()))
            .filter(|&(_, part)| part > 0.0)
            .collect();
        parts.sort_by(|a: &(Feature, f64), b| b.1.total_cmp(&a.1));
        let whole: f64 = parts.iter().map(|(_, part)| part).sum();
        let reasons = parts.into_iter().take(REASONS_MAX).map(|(feature, part)| Reason {
            feature,
            value: feature.value(row),
            usual: self.usual(feature),
            share: part / whole,
        });
        reasons.collect()
    }

    /// What is usual in a feature.
    pub fn usual(&self, feature: Feature) -> UsualRange {
        self.usual[feature as usize]
    }

    /// Bytes for the database.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.text(self.meta.family.name());
        writer.uint(self.meta.version.into());
        writer.fixed_u64(self.meta.trained_at_ms.cast_unsigned());
        writer.uint(self.meta.rows);
        writer.fixed_u64(self.meta.seed);
        writer.uint(Feature::ALL.len() as u64);
        for feature in Feature::ALL {
            let usual = self.usual(feature);
            writer.text(feature.name());
            writer.f64(usual.low);
            writer.f64(usual.middle);
            writer.f64(usual.high);
        }
        self.forest.write(&mut writer);
        codec::seal(KIND, FORMAT_VERSION, &writer.0)
    }

    /// Reads what [`Model::to_bytes`] wrote. Errors too where the model knows other features than this program.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = codec::open(KIND, FORMAT_VERSION, bytes)?;
        let family = Family::of_name(reader.text(NAME_BYTES_MAX)?);
        let meta = Meta {
            family: family.ok_or(CodecError::Invalid("an unknown tool family"))?,
            version: u32::try_from(reader.uint()?)
                .map_err(|_| CodecError::Invalid("a version is over its limit"))?,
            trained_at_ms: reader.fixed_u64()?.cast_signed(),
            rows: reader.uint()?,
            seed: reader.fixed_u64()?,
        };
        let other = CodecError::Invalid("it was trained on other features");
        if reader.count(NAME_BYTES_MAX)? != Feature::ALL.len() {
            return Err(other);
        }
        let mut usual = [UsualRange::default(); Feature::ALL.len()];
        for (feature, usual) in Feature::ALL.into_iter().zip(&mut usual) {
            if reader.text(NAME_BYTES_MAX)? != feature.name() {
                return Err(other);
            }
            *usual = UsualRange { low: reader.f64()?, middle: reader.f64()?, high: reader.f64()? };
        }
        let forest = Forest::read(&mut reader)?;
        reader.end()?;
        if forest.columns() != COLUMNS {
            return Err(other);
        }
        Ok(Self { meta, forest, usual })
    }
}

/// The rows of all families for the next training: a [`Reservoir`] of [`TRAINING_ROWS_MAX`] rows for each.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    families: [Reservoir<Row>; Family::ALL.len()],
}

impl TrainingSet {
    /// An empty set.
    pub fn new(seed: u64) -> Self {
        let families = Family::ALL.map(|family| Reservoir::new(TRAINING_ROWS_MAX, mix(seed) ^ family as u64));
        Self { families }
    }

    /// Offers the row of a call; the call's id is unique in the database.
    pub fn offer(&mut self, family: Family, call_id: i64, row: Row) {
        self.families[family as usize].offer(call_id, row);
    }

    /// The rows kept for a family.
    pub fn rows(&self, family: Family) -> Vec<Row> {
        self.families[family as usize].rows().copied().collect()
    }
}

fn usual_of_column(forest: &Forest, feature: Feature) -> UsualRange {
    let usual = forest.usual(feature.columns().start);
    let own = |scaled: f32| feature.unscaled(f64::from(scaled)).clamp(f64::MIN, f64::MAX);
    UsualRange { low: own(usual.low), middle: own(usual.median), high: own(usual.high) }
}

fn usual_errors(rows: &[Row]) -> UsualRange {
    let failed = rows.iter().filter_map(|row| Feature::Error.value(row)).filter(|&error| error > 0.5).count();
    let share = failed as f64 / rows.len().max(1) as f64;
    UsualRange { low: 0.0, middle: share, high: if share > 0.05 { 1.0 } else { 0.0 } }
}

/// The fewest hours on end with [`USUAL_HOURS_SHARE`] of the rows; the whole day where they are spread all over it.
fn usual_hours(rows: &[Row]) -> UsualRange {
    let mut counts = [0_usize; HOURS];
    for hour in rows.iter().filter_map(|row| Feature::Hour.value(row)) {
        counts[hour as usize % HOURS] += 1;
    }
    let needed = (counts.iter().sum::<usize>() as f64 * USUAL_HOURS_SHARE).ceil() as usize;
    let in_arc =
        |first: usize, length: usize| (first..first + length).map(|hour| counts[hour % HOURS]).sum::<usize>();
    let arcs = (1..HOURS).flat_map(|length| (0..HOURS).map(move |first| (first, length)));
    let (first, length) =
        arcs.into_iter().find(|&(first, length)| in_arc(first, length) >= needed).unwrap_or((0, HOURS));
    let hours = |half_hours: usize| half_hours as f64 / 2.0;
    UsualRange {
        low: first as f64,
        middle: hours((2 * first + length) % (2 * HOURS)),
        high: if length == HOURS { HOURS as f64 } else { ((first + length) % HOURS) as f64 },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::forest::random::Random;

    fn row_at(hour: f64, random: &mut Random) -> Row {
        let angle = hour / 24.0 * std::f64::consts::TAU;
        let duration = (100.0 + 900.0 * random.unit()).ln_1p() as f32;
        let failed = f32::from(u8::from(random.below(10) == 0));
        [duration, f32::NAN, 3.0, failed, f32::NAN, 0.0, angle.sin() as f32, angle.cos() as f32]
    }

    fn rows(hours: impl Fn(&mut Random) -> f64) -> Vec<Row> {
        let mut random = Random::new(5);
        (0..2_000)
            .map(|_| {
                let hour = hours(&mut random);
                row_at(hour, &mut random)
            })
            .collect()
    }

    fn trained(rows: &[Row]) -> Model {
        Model::train(rows, Family::Web, 3, 1_800_000_000_000, 17).unwrap()
    }

    #[test]
    fn usual_ranges_are_in_the_units_of_their_features() {
        let model = trained(&rows(|random| 9.0 + 8.0 * random.unit()));
        let duration = model.usual(Feature::Duration);
        assert!(
            (130.0..160.0).contains(&duration.low) && (940.0..970.0).contains(&duration.high),
            "{duration:?}"
        );
        assert!((500.0..600.0).contains(&duration.middle));
        assert_eq!(model.usual(Feature::Tokens), UsualRange::default());
        let error = model.usual(Feature::Error);
        assert!((0.07..0.13).contains(&error.middle) && (error.low, error.high) == (0.0, 1.0));
        assert_eq!(model.usual(Feature::Hour), UsualRange { low: 9.0, middle: 13.0, high: 17.0 });
    }

    #[test]
    fn usual_hours_may_span_midnight_or_the_whole_day() {
        let night = trained(&rows(|random| (22.0 + 5.0 * random.unit()) % 24.0));
        assert_eq!(night.usual(Feature::Hour), UsualRange { low: 22.0, middle: 0.5, high: 3.0 });
        let nothing = [[f32::NAN; COLUMNS]; 300];
        assert_eq!(usual_hours(&nothing).high, 1.0, "no hour is known: any will do");
    }

    #[test]
    fn a_reason_has_value_range_and_share() {
        let model = trained(&rows(|random| 9.0 + 8.0 * random.unit()));
        let mut random = Random::new(1);
        let mut row = row_at(3.0, &mut random);
        row[0] = 600_000_f32.ln_1p();
        row[3] = 1.0;
        let reasons = model.reasons(&row);
        assert!(Model::is_anomaly(model.score(&row)), "{}", model.score(&row));
        assert_eq!(reasons.len(), REASONS_MAX);
        assert!(reasons.is_sorted_by(|a, b| a.share >= b.share));
        assert!((reasons.iter().map(|reason| reason.share).sum::<f64>() - 1.0).abs() < 1e-6);
        let duration = reasons.iter().find(|reason| reason.feature == Feature::Duration).unwrap();
        assert!((duration.value.unwrap() - 600_000.0).abs() < 1.0 && duration.usual.high < 1_000.0);
        let hour = reasons.iter().find(|reason| reason.feature == Feature::Hour).unwrap();
        assert!((hour.value.unwrap() - 3.0).abs() < 1e-3);
        assert_eq!(model.scores(&[row, row]), [model.score(&row); 2]);
    }

    #[test]
    fn a_model_comes_back_from_its_bytes_and_from_no_others() {
        let model = trained(&rows(|random| 24.0 * random.unit()));
        let bytes = model.to_bytes();
        assert_eq!(Model::from_bytes(&bytes).as_ref(), Ok(&model));
        assert_eq!(model.meta.rows, 2_000);
        assert_eq!(Model::from_bytes(&model.forest.to_bytes()), Err(CodecError::Kind));
        for place in 0..120 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x08;
            assert!(Model::from_bytes(&damaged).is_err(), "byte {place}");
            assert!(Model::from_bytes(&bytes[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_family_with_few_rows_has_no_model() {
        let few = &rows(|_| 9.0)[..MODEL_ROWS_MIN - 1];
        let error = Model::train(few, Family::Web, 1, 0, 1).unwrap_err();
        assert_eq!(error, TrainError::Rows(MODEL_ROWS_MIN - 1, MODEL_ROWS_MIN));
    }

    #[test]
    fn a_training_set_keeps_families_apart_and_is_bounded() {
        let mut set = TrainingSet::new(1);
        for id in 0..TRAINING_ROWS_MAX as i64 + 500 {
            set.offer(Family::Shell, id, [id as f32; COLUMNS]);
        }
        set.offer(Family::Web, 7, [7.0; COLUMNS]);
        assert_eq!(set.rows(Family::Shell).len(), TRAINING_ROWS_MAX);
        assert_eq!(set.rows(Family::Web), [[7.0; COLUMNS]]);
        assert_eq!(set.rows(Family::Mcp).len(), 0);
    }
}
