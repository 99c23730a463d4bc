//! Statistics for paired comparisons of few cases: what a proportion, a difference or an F1 may
//! really be, and what may be concluded from it.
//!
//! Pure functions. Golden values in the tests come from SciPy and statsmodels.

mod bootstrap;
mod conclude;
mod mcnemar;
mod paired;
mod proportion;
mod rng;

pub(crate) use bootstrap::quantile;
pub use bootstrap::{Resamples, bca, percentile};
pub use conclude::{
    CASES_MAX, cases_to_settle_non_inferiority, cases_to_settle_superiority, non_inferiority,
};
pub use mcnemar::{McNemar, mcnemar_exact};
pub use paired::paired_score_interval;
pub use proportion::{clopper_pearson, wilson};
pub use rng::CounterRng;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

/// A range that a value lies in with the confidence asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// Says whether `value` lies within the bounds.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Returns the standard normal quantile of `p`; infinite at 0 and 1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    Normal::standard().inverse_cdf(p)
}

/// Returns the standard normal distribution function at `x`.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Returns the half-width quantile of a two-sided interval (1.96 for 0.95).
pub(crate) fn two_sided_z(confidence: f64) -> f64 {
    normal_quantile(0.5 + confidence / 2.0)
}

/// Rounds to six decimals, so that a stored figure does not hang on the last bits of a system's
/// logarithm.
pub fn round6(value: f64) -> f64 {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded == 0.0 { 0.0 } else { rounded }
}

/// Rounds a p-value to six significant digits, for the reason given at [`round6`].
pub fn round_p(p: f64) -> f64 {
    format!("{p:.5e}").parse().unwrap_or(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_scipy() {
        // scipy 1.17.1, norm.ppf.
        for (p, z) in
            [(0.95, 1.6448536269514722), (0.975, 1.959963984540054), (0.995, 2.5758293035489004)]
        {
            assert!((normal_quantile(p) - z).abs() < 1e-9, "{p}: {}", normal_quantile(p));
        }
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
    }

    #[test]
    fn rounding_keeps_what_is_shown() {
        assert_eq!(round6(0.123_456_789), 0.123_457);
        assert!(round6(-1e-9).is_sign_positive());
        assert_eq!(round_p(1.490_116_119_384_765_6e-8), 1.490_12e-8);
        assert_eq!(round_p(1.0), 1.0);
    }
}
