//! Minimises a function over the unit box without derivatives: Nelder and Mead's simplex (1965), points clamped to the box.

/// Reflection, expansion, contraction, shrinkage: the coefficients of the paper.
const REFLECT: f64 = 1.0;
const EXPAND: f64 = 2.0;
const CONTRACT: f64 = 0.5;
const SHRINK: f64 = 0.5;
/// Edge of the first simplex.
const EDGE: f64 = 0.05;
/// It ends when the best and the worst corner differ by less, relative to the best.
const TOLERANCE: f64 = 1e-9;

/// The best point found from `start`, and its value. At most `evaluations_max` and a few evaluations; a value that is not
/// finite counts as infinitely bad.
pub(crate) fn minimize(
    start: &[f64],
    evaluations_max: usize,
    mut value_at: impl FnMut(&[f64]) -> f64,
) -> (Vec<f64>, f64) {
    let mut evaluations = 0;
    let mut measure = |point: &[f64]| {
        evaluations += 1;
        let value = value_at(point);
        (if value.is_finite() { value } else { f64::INFINITY }, evaluations)
    };
    let mut simplex: Vec<(Vec<f64>, f64)> = vec![(start.to_vec(), measure(start).0)];
    for axis in 0..start.len() {
        let mut corner = start.to_vec();
        corner[axis] += if corner[axis] + EDGE <= 1.0 { EDGE } else { -EDGE };
        let value = measure(&corner).0;
        simplex.push((corner, value));
    }
    loop {
        simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
        let worst = simplex.len() - 1;
        let (best_value, worst_value) = (simplex[0].1, simplex[worst].1);
        if worst == 0 || worst_value - best_value <= TOLERANCE * best_value.abs() {
            break;
        }
        let centre = centre(&simplex[..worst]);
        let reflected = away(&centre, &simplex[worst].0, REFLECT);
        let (value, spent) = measure(&reflected);
        if spent > evaluations_max {
            break;
        }
        let second_worst = simplex[worst - 1].1;
        if value < best_value {
            let expanded = away(&centre, &simplex[worst].0, EXPAND);
            let further = measure(&expanded).0;
            simplex[worst] = if further < value { (expanded, further) } else { (reflected, value) };
        } else if value < second_worst {
            simplex[worst] = (reflected, value);
        } else {
            let side = if value < worst_value { CONTRACT } else { -CONTRACT };
            let contracted = away(&centre, &simplex[worst].0, side);
            let nearer = measure(&contracted).0;
            if nearer < worst_value.min(value) {
                simplex[worst] = (contracted, nearer);
            } else {
                shrink(&mut simplex, |point| measure(point).0);
            }
        }
    }
    simplex.swap_remove(0)
}

fn centre(corners: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let axes = corners[0].0.len();
    (0..axes)
        .map(|axis| corners.iter().map(|(point, _)| point[axis]).sum::<f64>() / corners.len() as f64)
        .collect()
}

/// From `from` through `centre`, `by` times as far behind it, clamped to the box.
fn away(centre: &[f64], from: &[f64], by: f64) -> Vec<f64> {
    centre.iter().zip(from).map(|(c, f)| (c + by * (c - f)).clamp(0.0, 1.0)).collect()
}

fn shrink(simplex: &mut [(Vec<f64>, f64)], mut measure: impl FnMut(&[f64]) -> f64) {
    let (best, others) = simplex.split_at_mut(1);
    for (point, value) in others {
        for (coordinate, to) in point.iter_mut().zip(&best[0].0) {
            *coordinate = to + SHRINK * (*coordinate - to);
        }
        *value = measure(point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bowl_is_found_and_one_outside_is_found_at_the_wall() {
        let bowl =
            |at: [f64; 3]| move |p: &[f64]| p.iter().zip(at).map(|(x, c)| (x - c).powi(2)).sum::<f64>() + 1.0;
        let (point, value) = minimize(&[0.9, 0.1, 0.5], 400, bowl([0.2, 0.7, 0.33]));
        assert!(point.iter().zip([0.2, 0.7, 0.33]).all(|(x, c)| (x - c).abs() < 1e-3), "{point:?}");
        assert!(value < 1.0 + 1e-6);
        let (point, _) = minimize(&[0.5, 0.5, 0.5], 400, bowl([1.5, -0.4, 0.5]));
        assert!((point[0] - 1.0).abs() < 1e-3 && point[1] < 1e-3, "{point:?}");
    }

    #[test]
    fn the_banana_of_rosenbrock_is_followed_to_its_end() {
        let banana = |p: &[f64]| {
            let (x, y) = (p[0] * 4.0 - 2.0, p[1] * 4.0 - 2.0);
            (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2)
        };
        let (point, value) = minimize(&[0.1, 0.9], 2_000, banana);
        assert!(value < 1e-6, "{point:?} {value}");
    }

    #[test]
    fn a_function_that_is_never_finite_ends() {
        assert!(minimize(&[0.5, 0.5], 100, |_| f64::NAN).1.is_infinite());
    }
}
