//! The interval of a difference of two proportions that were seen on the same cases.

use super::{Interval, two_sided_z};

/// Returns Tango's score interval of the difference (first - second) of two paired proportions;
/// none where `n` is 0 or the discordant pairs do not fit in it.
///
/// `b` are the cases that only the first got right, `c` those that only the second got right, of
/// `n`. They may be fractions: planning scales the observed rates. The interval holds its coverage
/// with few cases and with no discordant pair at all, where the plain Wald interval is empty.
///
/// Source: T. Tango, Statistics in Medicine 17 (1998) 891.
pub fn paired_score_interval(b: f64, c: f64, n: f64, confidence: f64) -> Option<Interval> {
    let counted = b.is_finite() && c.is_finite() && n.is_finite();
    if !counted || n <= 0.0 || b < 0.0 || c < 0.0 || b + c > n * (1.0 + 1e-12) {
        return None;
    }
    let z = two_sided_z(confidence);
    let estimate = (b - c) / n;
    let low = if estimate <= -1.0 {
        -1.0
    } else {
        halve(-1.0, estimate, |difference| score(b, c, n, difference) > z)
    };
    let high = if estimate >= 1.0 {
        1.0
    } else {
        halve(estimate, 1.0, |difference| score(b, c, n, difference) > -z)
    };
    Some(Interval { low, high })
}

/// Returns the score statistic of the hypothesis that the true difference is `difference`.
fn score(b: f64, c: f64, n: f64, difference: f64) -> f64 {
    // The likeliest share of "only the second" under the hypothesis, from its quadratic.
    let linear = -b - c + (2.0 * n - b + c) * difference;
    let constant = -c * difference * (1.0 - difference);
    let root = (linear * linear - 8.0 * n * constant).max(0.0).sqrt();
    let share = ((root - linear) / (4.0 * n)).max(0.0);
    let variance = n * (2.0 * share + difference * (1.0 - difference));
    let distance = b - c - n * difference;
    if variance <= 0.0 {
        return if distance == 0.0 { 0.0 } else { distance.signum() * f64::INFINITY };
    }
    distance / variance.sqrt()
}

/// Finds where `above` turns from true to false.
fn halve(mut low: f64, mut high: f64, above: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if above(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_match_an_inverted_score_test() {
        // Made with scipy 1.17.1 without the closed form used here: the trinomial likelihood is
        // maximised numerically under each hypothesis, the score statistic is inverted by brentq.
        for (b, c, n, confidence, low, high) in [
            (5.0, 9.0, 50.0, 0.9, -0.206_512_112_9, 0.045_656_116_9),
            (5.0, 9.0, 50.0, 0.95, -0.232_224_248_1, 0.071_841_738_4),
            (2.0, 4.0, 22.0, 0.9, -0.284_076_603_0, 0.103_304_119_4),
            (1.0, 0.0, 44.0, 0.95, -0.059_393_231_6, 0.118_077_097_0),
            (0.0, 0.0, 50.0, 0.95, -0.071_347_599_1, 0.071_347_599_1),
            (27.0, 0.0, 50.0, 0.95, 0.403_988_713_99, 0.670_303_478_1),
            (9.0, 5.0, 200.0, 0.9, -0.011_744_703_1, 0.054_222_218_0),
            (12.0, 2.0, 30.0, 0.95, 0.099_827_663_7, 0.534_572_999_5),
        ] {
            let found = paired_score_interval(b, c, n, confidence);
            let close =
                found.is_some_and(|i| (i.low - low).abs() < 1e-6 && (i.high - high).abs() < 1e-6);
            assert!(close, "{b} {c} {n}: {found:?}, not {low} {high}");
        }
    }

    #[test]
    fn impossible_counts_have_no_interval() {
        assert_eq!(paired_score_interval(0.0, 0.0, 0.0, 0.9), None);
        assert_eq!(paired_score_interval(30.0, 30.0, 50.0, 0.9), None);
        assert_eq!(paired_score_interval(-1.0, 0.0, 50.0, 0.9), None);
    }

    proptest! {
        #[test]
        fn the_estimate_lies_within_and_swapping_mirrors(
            (b, c, rest) in (0_u32..40, 0_u32..40, 0_u32..60),
        ) {
            let n = f64::from(b + c + rest);
            prop_assume!(n > 0.0);
            let (b, c) = (f64::from(b), f64::from(c));
            let one = paired_score_interval(b, c, n, 0.9);
            let other = paired_score_interval(c, b, n, 0.9);
            prop_assert!(one.is_some_and(|i| i.low <= (b - c) / n + 1e-12
                && (b - c) / n <= i.high + 1e-12));
            let mirrored = one.zip(other).is_some_and(|(i, j)| {
                (i.low + j.high).abs() < 1e-9 && (i.high + j.low).abs() < 1e-9
            });
            prop_assert!(mirrored, "{one:?} {other:?}");
        }
    }
}
