//! The paired bootstrap: cases are drawn again with replacement, the same ones for every arm.

use super::{CounterRng, Interval, normal_cdf, normal_quantile};

/// Which cases each resample draws. One plan serves every arm, which is what pairs them.
#[derive(Clone, Debug)]
pub struct Resamples {
    cases: usize,
    indices: Vec<u32>,
}

impl Resamples {
    /// Draws `count` resamples of `cases` cases, resample `i` from stream `i` of (seed, purpose).
    pub fn draw(seed: u64, purpose: &str, cases: u32, count: u32) -> Self {
        let mut rng = CounterRng::new(seed, purpose, 0);
        let mut indices = Vec::with_capacity(cases as usize * count as usize);
        for resample in 0..count {
            rng.restart(u64::from(resample));
            indices.extend((0..cases).map(|_| rng.below(cases)));
        }
        Self { cases: cases as usize, indices }
    }

    /// Iterates over the resamples, each as indices of cases.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.indices.chunks_exact(self.cases.max(1))
    }

    /// Evaluates `statistic` on every resample.
    pub fn replicate<T>(&self, statistic: impl FnMut(&[u32]) -> T) -> Vec<T> {
        self.iter().map(statistic).collect()
    }
}

/// Returns the percentile interval of `replicates`; none where there are none.
pub fn percentile(replicates: &[f64], confidence: f64) -> Option<Interval> {
    let sorted = sorted(replicates)?;
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: quantile(&sorted, tail)?, high: quantile(&sorted, 1.0 - tail)? })
}

/// Returns the bias-corrected and accelerated interval of `observed` from its `replicates` and its
/// `jackknife` values (the statistic without case 1, without case 2, ...).
///
/// Where the correction is undefined (the statistic never varies, or never falls on both sides of
/// what was observed) it is the percentile interval.
///
/// Source: B. Efron, J. Am. Stat. Assoc. 82 (1987) 171.
pub fn bca(
    observed: f64,
    replicates: &[f64],
    jackknife: &[f64],
    confidence: f64,
) -> Option<Interval> {
    let sorted = sorted(replicates)?;
    let below = sorted.partition_point(|value| *value < observed);
    let up_to = sorted.partition_point(|value| *value <= observed);
    // Ties count half: with few cases many replicates equal what was observed.
    let bias = normal_quantile((below + up_to) as f64 / (2.0 * sorted.len() as f64));
    let acceleration = acceleration(jackknife);
    let tail = (1.0 - confidence) / 2.0;
    let bound = |tail: f64| {
        let shifted = bias + normal_quantile(tail);
        let adjusted = normal_cdf(bias + shifted / (1.0 - acceleration * shifted));
        quantile(&sorted, adjusted)
    };
    if !bias.is_finite() || !acceleration.is_finite() {
        return percentile(replicates, confidence);
    }
    Some(Interval { low: bound(tail)?, high: bound(1.0 - tail)? })
}

/// Returns how fast the standard error changes with the value, from the jackknife's skewness.
fn acceleration(jackknife: &[f64]) -> f64 {
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let (squares, cubes) = jackknife.iter().fold((0.0, 0.0), |(squares, cubes), value| {
        let distance = mean - value;
        (squares + distance * distance, cubes + distance * distance * distance)
    });
    if squares == 0.0 { 0.0 } else { cubes / (6.0 * squares.powf(1.5)) }
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(sorted)
}

/// Returns the quantile `q` of sorted values, between neighbours on a straight line.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to len")]
    let below = place.floor() as usize;
    let low = *sorted.get(below)?;
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    Some(low + (high - low) * (place - below as f64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn jackknife(values: &[f64]) -> Vec<f64> {
        let total: f64 = values.iter().sum();
        values.iter().map(|v| (total - v) / (values.len() - 1) as f64).collect()
    }

    #[test]
    fn the_correction_matches_scipy_on_every_possible_resample() {
        // All 5^5 resamples of five differences, so no draw is involved; bounds made with numpy
        // 2.4.6 and scipy 1.17.1 (norm, quantile) following scipy.stats.bootstrap's definition.
        let values = [1.0, 0.0, -1.0, 1.0, 0.5];
        let replicates: Vec<f64> = (0..3125_usize)
            .map(|code| mean(&[1, 5, 25, 125, 625].map(|place| values[code / place % 5])))
            .collect();
        for (confidence, corrected, plain) in
            [(0.95, [-0.5, 0.8], [-0.4, 0.9]), (0.9, [-0.4, 0.8], [-0.3, 0.8])]
        {
            let found = bca(mean(&values), &replicates, &jackknife(&values), confidence).unwrap();
            assert!((found.low - corrected[0]).abs() < 1e-9, "{found:?}");
            assert!((found.high - corrected[1]).abs() < 1e-9, "{found:?}");
            let found = percentile(&replicates, confidence).unwrap();
            assert!((found.low - plain[0]).abs() < 1e-9, "{found:?}");
            assert!((found.high - plain[1]).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn drawn_intervals_come_near_scipy() {
        // scipy.stats.bootstrap((values,), numpy.mean, n_resamples=400_000): both methods give
        // 0.36 to 0.6275.
        let values = [
            0.1, 0.4, 0.35, 0.8, 0.95, 0.2, 0.6, 0.6, 0.05, 1.0, 0.7, 0.3, 0.9, 0.15, 0.55, 0.45,
            0.0, 0.25, 0.65, 0.85,
        ];
        let plan = Resamples::draw(42, "test", 20, 20_000);
        let replicates = plan.replicate(|drawn| {
            drawn.iter().map(|i| values[*i as usize]).sum::<f64>() / drawn.len() as f64
        });
        for found in [
            percentile(&replicates, 0.95).unwrap(),
            bca(mean(&values), &replicates, &jackknife(&values), 0.95).unwrap(),
        ] {
            assert!((found.low - 0.36).abs() < 0.006, "{found:?}");
            assert!((found.high - 0.6275).abs() < 0.006, "{found:?}");
        }
    }

    #[test]
    fn a_statistic_that_never_varies_has_a_point_interval() {
        let found = bca(0.0, &[0.0; 100], &[0.0; 10], 0.95).unwrap();
        assert_eq!((found.low, found.high), (0.0, 0.0));
        assert_eq!(bca(0.0, &[], &[], 0.95), None);
    }

    #[test]
    fn the_plan_is_fixed_by_its_key() {
        let one = Resamples::draw(1, "a", 50, 20);
        let other = Resamples::draw(1, "a", 50, 40);
        assert!(one.iter().eq(other.iter().take(20)), "more resamples must not change the first");
        assert!(one.iter().all(|drawn| drawn.len() == 50));
        assert_eq!(Resamples::draw(1, "a", 0, 20).iter().count(), 0);
    }
}
