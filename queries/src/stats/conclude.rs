//! What may be concluded, and how many more cases would allow a conclusion.

use ledger::catalogue::Verdict;

use super::{Interval, mcnemar_exact, paired_score_interval};

/// Most additional cases that planning looks at. Beyond it "more cases" is no advice.
pub const CASES_MAX: u64 = 1_000_000;

/// Judges whether a difference (candidate - reference) is shown to be no worse than `-margin`.
///
/// It passes when the whole interval lies above -margin, fails when it lies below, and is
/// inconclusive otherwise.
pub fn non_inferiority(interval: Interval, margin: f64) -> Verdict {
    if interval.low > -margin {
        Verdict::Pass
    } else if interval.high < -margin {
        Verdict::Fail
    } else {
        Verdict::Inconclusive
    }
}

/// Returns about how many more cases would settle non-inferiority if the observed rates hold.
///
/// `b` of `n` cases were right in the candidate only, `c` in the reference only. The observed rates
/// are scaled up and the interval is taken anew. None where no number of cases (up to
/// [`CASES_MAX`]) settles it: the estimate sits on the boundary itself.
pub fn cases_to_settle_non_inferiority(
    (b, c, n): (u64, u64, u64),
    margin: f64,
    confidence: f64,
) -> Option<u64> {
    let settled = |total: u64| {
        let scale = total as f64 / n as f64;
        paired_score_interval(b as f64 * scale, c as f64 * scale, total as f64, confidence)
            .is_some_and(|interval| non_inferiority(interval, margin) != Verdict::Inconclusive)
    };
    first_settled(n, settled)
}

/// Returns about how many more cases would make the exact McNemar test fall below `alpha` if the
/// observed rates hold; none where both arms are equally often alone in being right.
pub fn cases_to_settle_superiority((b, c, n): (u64, u64, u64), alpha: f64) -> Option<u64> {
    if b == c {
        return None;
    }
    let settled = |total: u64| {
        let scale = |count: u64| (u128::from(count) * u128::from(total) / u128::from(n)) as u64;
        mcnemar_exact(scale(b), scale(c)).p_two_sided < alpha
    };
    first_settled(n, settled)
}

/// Finds the first total from `n` on that is settled and answers how many that adds.
fn first_settled(n: u64, settled: impl Fn(u64) -> bool) -> Option<u64> {
    if n == 0 {
        return None;
    }
    let (mut open, mut closed) = (n, n);
    while !settled(closed) {
        if closed - n >= CASES_MAX {
            return None;
        }
        open = closed;
        closed = closed.saturating_mul(2).min(n + CASES_MAX);
    }
    while closed > open + 1 {
        let middle = open + (closed - open) / 2;
        if settled(middle) { closed = middle } else { open = middle }
    }
    Some(closed - n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_the_bounds() {
        let at = |low, high| non_inferiority(Interval { low, high }, 0.1);
        assert_eq!(at(-0.09, 0.2), Verdict::Pass);
        assert_eq!(at(-0.3, -0.11), Verdict::Fail);
        assert_eq!(at(-0.3, 0.1), Verdict::Inconclusive);
        assert_eq!(at(-0.1, 0.1), Verdict::Inconclusive, "on the margin nothing is shown");
    }

    #[test]
    fn settling_takes_the_cases_that_the_interval_needs() {
        let more = cases_to_settle_non_inferiority((5, 9, 50), 0.1, 0.9);
        let settles = |extra: u64| {
            let n = (50 + extra) as f64;
            paired_score_interval(5.0 * n / 50.0, 9.0 * n / 50.0, n, 0.9)
                .map(|interval| non_inferiority(interval, 0.1))
        };
        let more = more.unwrap_or_default();
        assert!(more > 1_000, "an estimate of -.08 lies near -.10: {more}");
        assert_eq!(settles(more), Some(Verdict::Pass));
        assert_eq!(settles(more - 1), Some(Verdict::Inconclusive));
    }

    #[test]
    fn an_estimate_on_the_boundary_never_settles() {
        assert_eq!(cases_to_settle_non_inferiority((5, 10, 50), 0.1, 0.9), None);
        assert_eq!(cases_to_settle_superiority((4, 4, 50), 0.01), None);
        assert_eq!(cases_to_settle_superiority((0, 0, 0), 0.01), None);
    }

    #[test]
    fn superiority_settles_where_the_test_says() {
        let more = cases_to_settle_superiority((5, 1, 50), 0.01).unwrap_or_default();
        assert!(more > 0);
        let at = |total: u64| mcnemar_exact(5 * total / 50, total / 50).p_two_sided < 0.01;
        assert!(at(50 + more) && !at(50 + more - 1), "{more}");
        assert_eq!(cases_to_settle_superiority((27, 0, 50), 0.01), Some(0));
    }
}
