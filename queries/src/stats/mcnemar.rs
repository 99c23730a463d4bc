//! McNemar's exact test of paired yes-or-no outcomes.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF};

/// Largest number of discordant pairs whose tail is summed term by term. Beyond it the first term
/// would underflow.
const SUMMED_MAX: u64 = 1_000;

/// The discordant pairs of two arms and what chance alone would make of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Cases that only the first arm got right.
    pub b: u64,
    /// Cases that only the second arm got right.
    pub c: u64,
    /// Exact two-sided p-value.
    pub p_two_sided: f64,
    /// Exact p-value for the alternative that the first arm is better.
    pub p_one_sided: f64,
}

/// Tests whether two arms are equally often right, from the pairs in which they differ.
///
/// Under equality each discordant pair falls to either side with probability one half, so the
/// p-values are binomial tails. Without discordant pairs both are 1.
pub fn mcnemar_exact(b: u64, c: u64) -> McNemar {
    let n = b + c;
    let two_sided = (2.0 * lower_tail(b.min(c), n)).min(1.0);
    // P(X >= b) = P(X <= n - b) = P(X <= c), by symmetry.
    McNemar { b, c, p_two_sided: two_sided, p_one_sided: lower_tail(c, n) }
}

/// Returns P(X <= k) for X binomial(n, 1/2).
fn lower_tail(k: u64, n: u64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if n > SUMMED_MAX {
        return Binomial::new(0.5, n).map_or(f64::NAN, |binomial| binomial.cdf(k));
    }
    // Each term from the one before it: only basic arithmetic, so the same bits on any machine.
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut sum = term;
    for i in 1..=k {
        term *= (n - i + 1) as f64 / i as f64;
        sum += term;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_match_statsmodels_and_scipy() {
        // statsmodels 0.15.0 mcnemar([[10, b], [c, 10]], exact=True).pvalue and scipy 1.17.1
        // binomtest(b, b + c, alternative="greater").pvalue.
        for (b, c, two_sided, one_sided) in [
            (0, 0, 1.0, 1.0),
            (1, 0, 1.0, 0.5),
            (5, 9, 0.423_950_195_312_5, 0.910_217_285_156_25),
            (9, 5, 0.423_950_195_312_5, 0.211_975_097_656_25),
            (14, 0, 0.000_122_070_312_5, 6.103_515_625e-5),
            (27, 0, 1.490_116_119_384_765_6e-8, 7.450_580_596_923_828e-9),
            (30, 2, 2.463_348_209_857_940_7e-7, 1.231_674_104_928_970_3e-7),
            (3, 3, 1.0, 0.656_25),
            (120, 90, 0.045_114_087_864_840_696, 0.022_557_043_932_420_348),
            (700, 600, 0.006_015_793_861_044_939_5, 0.003_007_896_930_522_47),
        ] {
            let test = mcnemar_exact(b, c);
            for (found, wanted) in [(test.p_two_sided, two_sided), (test.p_one_sided, one_sided)] {
                assert!((found / wanted - 1.0).abs() < 1e-9, "{b} {c}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn swapping_the_arms_keeps_the_two_sided_value() {
        for (b, c) in [(0, 3), (4, 11), (500, 520), (10, 1_200)] {
            assert_eq!(mcnemar_exact(b, c).p_two_sided, mcnemar_exact(c, b).p_two_sided);
        }
    }
}
