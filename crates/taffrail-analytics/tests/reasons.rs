//! A planted feature is among the reasons: in rows of ADBench's usual classes, and in calls.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

mod common;

use taffrail_analytics::features::{Family, Feature, Row};
use taffrail_analytics::forest::Forest;
use taffrail_analytics::forest::model::{Model, REASONS_MAX};
use taffrail_analytics::forest::random::Random;

/// Of the planted cases, so many are named among the [`REASONS_MAX`] reasons.
const NAMED_SHARE_MIN: f64 = 0.95;

/// Cases, how many have the planted feature among the reasons, and how many as the first.
#[derive(Clone, Copy, Default)]
struct Tally {
    cases: usize,
    named: usize,
    first: usize,
}

impl Tally {
    fn add(&mut self, place: Option<usize>) {
        self.cases += 1;
        self.named += usize::from(place.is_some());
        self.first += usize::from(place == Some(0));
    }

    fn named_share(self) -> f64 {
        self.named as f64 / self.cases as f64
    }

    fn first_share(self) -> f64 {
        self.first as f64 / self.cases as f64
    }
}

/// The place of a column among the reasons that its row gets.
fn place(contributions: &[f64], column: usize) -> Option<usize> {
    let mut order: Vec<usize> =
        (0..contributions.len()).filter(|&other| contributions[other] > 0.0).collect();
    order.sort_by(|&a, &b| contributions[b].total_cmp(&contributions[a]));
    order.into_iter().take(REASONS_MAX).position(|other| other == column)
}

/// In two of a hundred rows one column gets a value so many ranges of all others beyond them; ten of those rows are asked for.
fn plant_in_set(values: &[f32], columns: usize, ranges: f32) -> Tally {
    let rows = values.len() / columns;
    let mut random = Random::new(u64::from(ranges.to_bits()));
    let mut tally = Tally::default();
    for column in 0..columns {
        let (min, max) = values
            .iter()
            .skip(column)
            .step_by(columns)
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &value| (min.min(value), max.max(value)));
        let range = if min < max { max - min } else { 1.0 };
        let value = if column % 2 == 0 { max + ranges * range } else { min - ranges * range };
        let mut with_planted = values.to_vec();
        let planted: Vec<usize> = (0..rows.div_ceil(50)).map(|_| random.below(rows)).collect();
        for &row in &planted {
            with_planted[row * columns + column] = value;
        }
        let forest = Forest::train(&with_planted, columns, random.next_u64()).unwrap();
        for &row in planted.iter().take(10) {
            tally.add(place(&forest.contributions(&with_planted[row * columns..][..columns]), column));
        }
    }
    tally
}

#[test]
fn a_planted_column_of_adbench_is_among_the_reasons() {
    let Some(sets) = common::sets() else { return };
    for ranges in [0.5, 1.0, 4.0] {
        let mut all = Tally::default();
        for set in &sets {
            let usual = (0..set.is_anomaly.len()).filter(|&row| !set.is_anomaly[row]);
            let values: Vec<f32> = usual.flat_map(|row| set.row(row).iter().copied()).collect();
            let tally = plant_in_set(&values, set.columns, ranges);
            all.cases += tally.cases;
            all.named += tally.named;
            all.first += tally.first;
        }
        println!(
            "{ranges} ranges beyond: {} cases, named {:.4}, first {:.4}",
            all.cases,
            all.named_share(),
            all.first_share()
        );
        assert!(all.named_share() >= NAMED_SHARE_MIN, "{ranges}");
    }
}

/// About a standard normal number: the sum of twelve uniform ones.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
}

/// A call of a shell on an office day: long tails, few errors, few repetitions.
fn usual_call(random: &mut Random) -> Row {
    let hour = (13.0 + 2.5 * normal(random)).clamp(7.0, 20.0);
    let angle = hour / 24.0 * std::f64::consts::TAU;
    let log =
        |middle: f64, spread: f64, random: &mut Random| (middle + spread * normal(random)).max(0.0) as f32;
    [
        log(6.0, 1.2, random),
        log(5.0, 0.7, random),
        log(6.5, 1.3, random),
        f32::from(u8::from(random.unit() < 0.02)),
        log(8.0, 1.0, random),
        (random.below(40) / 38) as f32 * 2.0_f32.ln(),
        angle.sin() as f32,
        angle.cos() as f32,
    ]
}

/// A row with one feature at so many times the largest usual value, or the hour at night.
fn planted(mut row: Row, feature: Feature, times: f32) -> Row {
    let column = feature.columns().start;
    match feature {
        Feature::Duration => row[column] = (6.0 + 1.2 * 4.0) + times.ln(),
        Feature::Tokens => row[column] = (5.0 + 0.7 * 4.0) + times.ln(),
        Feature::OutputBytes => row[column] = (6.5 + 1.3 * 4.0) + times.ln(),
        Feature::Gap => row[column] = (8.0 + 4.0) + times.ln(),
        Feature::Repetition => row[column] = (2.0 * times).ln_1p(),
        Feature::Error => row[column] = 1.0,
        Feature::Hour => {
            let angle = 3.0 / 24.0 * std::f32::consts::TAU;
            row[column] = angle.sin();
            row[column + 1] = angle.cos();
        }
    }
    row
}

/// Plants calls that the model never saw; and calls of which one in a hundred was in its history.
#[test]
fn a_planted_feature_of_a_call_is_among_the_reasons() {
    for (history, share) in [("new", 0.0), ("known", 0.01)] {
        for times in [2.0, 10.0, 100.0] {
            let mut all = Tally::default();
            for feature in Feature::ALL {
                let mut random = Random::new(feature as u64 + 10);
                let rows: Vec<Row> = (0..5_000)
                    .map(|_| {
                        let row = usual_call(&mut random);
                        if random.unit() < share { planted(row, feature, times) } else { row }
                    })
                    .collect();
                let model = Model::train(&rows, Family::Shell, 1, 0, 3).unwrap();
                let mut tally = Tally::default();
                let mut anomalies = 0;
                for _ in 0..200 {
                    let row = planted(usual_call(&mut random), feature, times);
                    let reasons = model.reasons(&row);
                    let is_planted =
                        |reason: &taffrail_analytics::forest::model::Reason| reason.feature == feature;
                    tally.add(reasons.iter().position(is_planted));
                    anomalies += usize::from(Model::is_anomaly(model.score(&row)));
                }
                println!(
                    "{history:5} x{times:<3} {:13} named {:.3}, first {:.3}, anomalies {:.3}",
                    feature.name(),
                    tally.named_share(),
                    tally.first_share(),
                    anomalies as f64 / tally.cases as f64
                );
                all.cases += tally.cases;
                all.named += tally.named;
                all.first += tally.first;
            }
            println!(
                "{history} x{times} all: named {:.4}, first {:.4}",
                all.named_share(),
                all.first_share()
            );
            assert!(all.named_share() >= NAMED_SHARE_MIN, "{history} {times}");
        }
    }
}
