//! The forest beside scikit-learn's on fifteen sets of ADBench, ten seeds each.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{anomaly_dir, auc, sets};
use taffrail_analytics::forest::Forest;

/// Seeds unless `TAFFRAIL_ADBENCH_SEEDS` says fewer.
const SEEDS: u64 = 10;

/// The mean over the sets of how far the means are apart.
const AVERAGE_DIFFERENCE_MAX: f64 = 0.02;

/// How much worse a set may be.
const WORSE_BY_MAX: f64 = 0.05;

#[test]
fn areas_are_those_of_scikit_learn() {
    let (Some(dir), Some(sets)) = (anomaly_dir(), sets()) else { return };
    let seeds = std::env::var("TAFFRAIL_ADBENCH_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let reference = std::fs::read_to_string(dir.join("reference/sklearn_isolation_forest.tsv")).unwrap();
    let reference: BTreeMap<&str, f64> = reference
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            (cells[0], cells[4].parse().unwrap())
        })
        .collect();
    let mut differences = Vec::new();
    println!("set                      scikit-learn      here   sd over seeds   difference");
    for set in &sets {
        let areas: Vec<f64> = (0..seeds)
            .map(|seed| {
                let forest = Forest::train(&set.values, set.columns, seed).unwrap();
                auc(&forest.scores(&set.values), &set.is_anomaly)
            })
            .collect();
        let mean = areas.iter().sum::<f64>() / seeds as f64;
        let variance = areas.iter().map(|area| (area - mean).powi(2)).sum::<f64>() / seeds as f64;
        let want = reference[set.name.as_str()];
        let difference = mean - want;
        println!("{:24} {want:12.4} {mean:9.4} {:15.4} {difference:+12.4}", set.name, variance.sqrt());
        assert!(difference >= -WORSE_BY_MAX, "{}: {mean:.4}, scikit-learn has {want:.4}", set.name);
        differences.push(difference);
    }
    let count = differences.len() as f64;
    let apart = differences.iter().map(|difference| difference.abs()).sum::<f64>() / count;
    println!("mean difference {:+.4}, mean distance {apart:.4}", differences.iter().sum::<f64>() / count);
    assert!(apart <= AVERAGE_DIFFERENCE_MAX, "{apart}");
}
