//! Scores against hand-made trees and the paper's words; bytes; odd data.

use proptest::prelude::*;

use super::*;

fn leaf(rows: u16) -> Node {
    Node::Leaf { rows }
}

fn split(column: u8, threshold: f32, left: Node, right: Node) -> Node {
    Node::Split { column, threshold, left: Box::new(left), right: Box::new(right) }
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} {b}");
}

/// Eight rows: two alone after two cuts, six together after one.
fn drawn() -> Node {
    split(0, 5.0, split(1, 2.0, leaf(1), leaf(1)), leaf(6))
}

fn forest(trees: &[Node]) -> Forest {
    Forest::of_trees(vec![Usual::default(); 2], trees).unwrap()
}

#[test]
fn the_average_path_is_that_of_the_paper() {
    for (rows, want) in [
        (0, 0.0),
        (1, 0.0),
        (2, 1.0),
        (3, 1.207_392_357_589_623),
        (8, 3.296_251_627_913_692_4),
        (256, 10.244_770_920_119_917),
    ] {
        near(average_path(rows), want);
    }
}

#[test]
fn scores_of_drawn_trees_are_those_of_the_paper() {
    // h = 2: two cuts, alone. 2^(-2 / c(8)).
    let one = forest(&[drawn()]);
    near(one.score(&[0.0, 0.0]), 0.656_674_439_087_990_4);
    near(one.score(&[0.0, 2.0]), 0.656_674_439_087_990_4);
    // h = 1 + c(6) = 3.70664...
    near(one.score(&[5.0, 0.0]), 0.458_660_420_238_783_34);
    // A value that equals the threshold goes right; one that is not known is the median, here 0.
    near(one.score(&[f32::NAN, f32::NAN]), 0.656_674_439_087_990_4);
    near(one.score(&[f32::INFINITY]), 0.458_660_420_238_783_34);
    // A second tree without a cut has h = c(8): the mean of the paths counts, not of the scores.
    let two = forest(&[drawn(), leaf(8)]);
    near(two.score(&[0.0, 0.0]), 0.573_007_172_332_070_5);
    near(forest(&[leaf(8)]).score(&[1.0, 1.0]), 0.5);
}

#[test]
fn contributions_of_a_drawn_tree_are_its_cuts() {
    let one = forest(&[drawn()]);
    let parts = one.contributions(&[0.0, 0.0]);
    near(parts[0], average_path(8) - 1.0 - average_path(2));
    near(parts[1], average_path(2) - 1.0 - average_path(1));
    let parts = one.contributions(&[9.0, 0.0]);
    near(parts[0], average_path(8) - 1.0 - average_path(6));
    near(parts[1], 0.0);
}

#[test]
fn impossible_trees_are_refused() {
    let error = |trees: &[Node]| Forest::of_trees(vec![Usual::default(); 2], trees).unwrap_err();
    let high = (0..9).fold(leaf(2), |tree, _| split(0, 0.0, tree, leaf(1)));
    assert_eq!(error(&[high]), CodecError::Invalid("a tree is too high"));
    assert_eq!(error(&[leaf(1)]), CodecError::Invalid("a forest is empty"));
    assert_eq!(error(&[leaf(300)]), CodecError::Invalid("a count is over its limit"));
    assert_eq!(
        error(&[leaf(8), leaf(7)]),
        CodecError::Invalid("a tree does not have the rows of its sample")
    );
    for column in [2, 64, 255] {
        let tree = split(column, 0.0, leaf(1), leaf(1));
        assert_eq!(error(&[tree]), CodecError::Invalid("a tree splits by a column that there is not"));
    }
    for threshold in [f32::NAN, f32::INFINITY] {
        assert_eq!(
            error(&[split(0, threshold, leaf(1), leaf(1))]),
            CodecError::Invalid("a threshold is not finite")
        );
    }
    assert!(Forest::of_trees(Vec::new(), &[leaf(8)]).is_err());
}

/// Algorithm 3 of the paper, word for word.
fn path_length(row: &[f32], tree: &Node, cuts: f64) -> f64 {
    match tree {
        Node::Leaf { rows } => cuts + average_path(usize::from(*rows)),
        Node::Split { column, threshold, left, right } => {
            let goes_left = row[usize::from(*column)] < *threshold;
            path_length(row, if goes_left { left } else { right }, cuts + 1.0)
        }
    }
}

/// Rows that a tree holds, after a look at each of its nodes.
fn check_tree(tree: &Node, height: u32) -> u16 {
    match tree {
        Node::Leaf { rows } => *rows,
        Node::Split { left, right, threshold, .. } => {
            assert!(height > 0 && threshold.is_finite());
            let (left, right) = (check_tree(left, height - 1), check_tree(right, height - 1));
            assert!(left > 0 && right > 0, "a cut without rows on one side");
            left + right
        }
    }
}

/// Numbers as they come, the odd ones often.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => (-3_i8..4).prop_map(f32::from),
        3 => -1e3_f32..1e3,
        1 => prop_oneof![
            Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), Just(f32::MIN),
            Just(f32::MIN_POSITIVE), Just(-0.0)
        ],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_forest_is_one_of_the_paper(
        columns in 1_usize..6,
        cells in proptest::collection::vec(number(), 12..600),
        seed: u64,
    ) {
        let cells = &cells[..cells.len() / columns * columns];
        let forest = Forest::train(cells, columns, seed).unwrap();
        let rows = cells.len() / columns;
        let height = (rows.min(SAMPLE_ROWS) as f64).log2().ceil() as u32;
        let trees = forest.trees();
        prop_assert_eq!(trees.len(), TREES);
        for tree in &trees {
            prop_assert_eq!(usize::from(check_tree(tree, height)), rows.min(SAMPLE_ROWS));
        }

        // Scores are those of a slow walk, one by one and many at once; contributions sum to what they explain.
        let scores = forest.scores(cells);
        prop_assert_eq!(scores.len(), rows);
        for (row, score) in cells.chunks_exact(columns).zip(scores) {
            let finite: Vec<f32> = row.iter().zip(&forest.columns).map(known).collect();
            let mean = trees.iter().map(|tree| path_length(&finite, tree, 0.0)).sum::<f64>() / TREES as f64;
            let want = 2_f64.powf(-mean / average_path(rows.min(SAMPLE_ROWS)));
            prop_assert!((score - want).abs() < 1e-9 && (0.0..=1.0).contains(&score));
            prop_assert_eq!(forest.score(row), score);
            let explained: f64 = forest.contributions(row).iter().sum();
            prop_assert!((explained - (average_path(rows.min(SAMPLE_ROWS)) - mean)).abs() < 1e-9);
        }

        // Same rows and seed, same forest; and the same from its bytes.
        prop_assert!(Forest::train(cells, columns, seed).unwrap() == forest);
        prop_assert!(Forest::from_bytes(&forest.to_bytes()).unwrap() == forest);
        prop_assert!(Forest::of_trees(forest.columns.clone(), &trees).unwrap() == forest);
    }

    #[test]
    fn no_content_makes_the_reader_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut head = vec![1, 8, 1];
        head.extend_from_slice(&[0; 12]);
        head.extend_from_slice(&content);
        for content in [content, head] {
            let _ = Forest::from_bytes(&codec::seal(KIND, FORMAT_VERSION, &content));
        }
    }
}

/// A set without randomness.
fn ladder(rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| ((at * 7_919 + at * at % 331) % 1_009) as f32).collect()
}

#[test]
fn a_seed_gives_the_same_bytes_on_every_platform() {
    let bytes = Forest::train(&ladder(1_000, 7), 7, 42).unwrap().to_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    assert_eq!((bytes.len(), format!("{hash:016x}").as_str()), (62_832, "c6add97409a8e545"));
}

#[test]
fn every_damaged_byte_and_every_cut_is_noticed() {
    let bytes = Forest::train(&ladder(40, 3), 3, 1).unwrap().to_bytes();
    for place in (0..bytes.len()).step_by(7).chain(0..40) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (place % 8);
        assert!(Forest::from_bytes(&damaged).is_err(), "byte {place}");
        assert!(Forest::from_bytes(&bytes[..place]).is_err(), "cut at {place}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Forest::from_bytes(&longer), Err(CodecError::Damaged));
}

#[test]
fn constant_columns_are_never_cut() {
    let values: Vec<f32> = (0..300).flat_map(|row| [5.0, row as f32, f32::NAN, f32::INFINITY]).collect();
    let forest = Forest::train(&values, 4, 9).unwrap();
    let parts = forest.contributions(&[1e9, 150.0, 1e9, 0.0]);
    assert_eq!([parts[0], parts[2], parts[3]], [0.0; 3]);
    assert_ne!(parts[1], 0.0);

    let same = Forest::train(&[1.0; 600], 2, 9).unwrap();
    near(same.score(&[7.0, -7.0]), 0.5);
}

#[test]
fn what_is_not_known_is_no_evidence() {
    let values = ladder(2_000, 5);
    let forest = Forest::train(&values, 5, 3).unwrap();
    let medians: Vec<f32> = (0..5).map(|column| forest.usual(column).median).collect();
    assert_eq!(forest.score(&[f32::NAN; 5]), forest.score(&medians));
    assert_eq!(forest.score(&[]), forest.score(&medians));
    assert!(forest.score(&medians) < 0.5);
}

#[test]
fn usual_ranges_are_quantiles_of_what_is_known() {
    let mut values: Vec<f32> = (0..=100).map(|value| value as f32).collect();
    values.push(f32::NAN);
    let forest = Forest::train(&values, 1, 0).unwrap();
    assert_eq!(forest.usual(0), Usual { low: 5.0, median: 50.0, high: 95.0 });
    assert_eq!(forest.usual(1), Usual::default());
}

#[test]
fn what_cannot_be_trained_says_why() {
    let error = |values: &[f32], columns| Forest::train(values, columns, 0).unwrap_err();
    assert_eq!(error(&[], 1), TrainError::Rows(0, 2));
    assert_eq!(error(&[1.0, 2.0], 2), TrainError::Rows(1, 2));
    assert_eq!(error(&[1.0, 2.0, 3.0], 2), TrainError::Shape);
    assert_eq!(error(&[1.0], 0), TrainError::Columns(0));
    assert_eq!(error(&[1.0; 650], 65), TrainError::Columns(65));
    assert_eq!(Forest::train(&[1.0; 640], 64, 0).unwrap().columns(), 64);
}

/// The whole set is the sample where it is small; a row on its own far away is found.
#[test]
fn the_far_row_has_the_highest_score() {
    let mut values = ladder(400, 4);
    values.extend_from_slice(&[9_000.0, -9_000.0, 9_000.0, -9_000.0]);
    let forest = Forest::train(&values, 4, 11).unwrap();
    let scores = forest.scores(&values);
    let (last, others) = scores.split_last().unwrap();
    assert!(*last > ANOMALY_SCORE && others.iter().all(|score| score < last), "{last}");
}
