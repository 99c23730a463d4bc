//! Intervals of one proportion.

use statrs::function::beta::beta_reg;

use super::{Interval, two_sided_z};

/// Returns Wilson's score interval of `k` in `n`; none where `n` is 0 or `k` above it.
///
/// Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
pub fn wilson(k: u64, n: u64, confidence: f64) -> Option<Interval> {
    if n == 0 || k > n {
        return None;
    }
    let z = two_sided_z(confidence);
    let (n, p) = (n as f64, k as f64 / n as f64);
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the bound is exact; rounding would leave it a hair beside.
    let low = if p == 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if p == 1.0 { 1.0 } else { (centre + half).min(1.0) };
    Some(Interval { low, high })
}

/// Returns the exact (Clopper-Pearson) interval of `k` in `n`; none where `n` is 0 or `k` above it.
///
/// Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404.
pub fn clopper_pearson(k: u64, n: u64, confidence: f64) -> Option<Interval> {
    if n == 0 || k > n {
        return None;
    }
    let tail = (1.0 - confidence) / 2.0;
    let (kf, nf) = (k as f64, n as f64);
    let low = if k == 0 { 0.0 } else { beta_quantile(tail, kf, nf - kf + 1.0) };
    let high = if k == n { 1.0 } else { beta_quantile(1.0 - tail, kf + 1.0, nf - kf) };
    Some(Interval { low, high })
}

/// Returns the quantile of the beta distribution, by halving.
fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if beta_reg(a, b, middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_match_statsmodels() {
        // statsmodels 0.15.0 proportion_confint(k, n, 1 - confidence, "wilson" and "beta").
        #[rustfmt::skip]
        let table = [
            (0, 50, 0.95, [0.0, 0.071_347_599_133_359],
                [0.0, 0.071_121_736_464_198]),
            (50, 50, 0.95, [0.928_652_400_866_641, 1.0],
                [0.928_878_263_535_802, 1.0]),
            (32, 50, 0.95, [0.501_410_168_761_127, 0.758_612_503_481_533],
                [0.491_931_352_285_601, 0.770_842_933_179_413]),
            (17, 22, 0.95, [0.565_600_468_247_783, 0.898_769_600_147_515],
                [0.546_296_376_337_878, 0.921_793_739_648_108]),
            (15, 28, 0.95, [0.358_126_892_344_679, 0.704_684_300_172_046],
                [0.338_699_076_114_6, 0.724_891_439_703_404]),
            (40, 50, 0.9, [0.692_673_615_189_177, 0.876_526_473_339_061],
                [0.684_403_938_579_986, 0.887_278_386_585_924]),
            (1, 1, 0.95, [0.206_549_314_377_237, 1.0],
                [0.025, 1.0]),
            (8, 39, 0.95, [0.107_797_182_307_104, 0.355_339_680_135_823],
                [0.092_963_927_282_996, 0.364_644_240_695_119]),
        ];
        for (k, n, confidence, score, exact) in table {
            for (found, wanted) in
                [(wilson(k, n, confidence), score), (clopper_pearson(k, n, confidence), exact)]
            {
                let found = found.map(|i| [i.low, i.high]).unwrap_or([f64::NAN; 2]);
                for (a, b) in found.iter().zip(wanted) {
                    assert!((a - b).abs() < 1e-9, "{k}/{n}: {found:?} {wanted:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_said_of_no_cases() {
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(3, 2, 0.95), None);
        assert_eq!(clopper_pearson(0, 0, 0.95), None);
    }
}
