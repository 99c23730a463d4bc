//! How the next token is chosen from logits.
//!
//! The order is that of transformers: repetition penalty, then temperature, top-k, top-p, min-p. A
//! draw depends on the row's seed and on how many tokens the row has said, never on other rows.

use crate::kernels::argmax;
use crate::rng;

/// How tokens are chosen. The default takes the likeliest.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Draws from so many of the likeliest; 0 from all.
    pub top_k: usize,
    /// Draws from the likeliest that have this probability together; 1 from all.
    pub top_p: f32,
    /// Draws from those that are at least so likely beside the likeliest; 0 from all.
    pub min_p: f32,
    /// Divides positive logits, and multiplies negative ones, of tokens that stand in the text
    /// (Keskar et al., 2019); 1 leaves them.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first that is out of its range.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f32, (from, to): (f32, f32)| {
            let is_in = value.is_finite() && (from..=to).contains(&value);
            is_in.then_some(()).ok_or_else(|| format!("{name} {value}: from {from} to {to}"))
        };
        within("temperature", self.temperature, (0.0, 100.0))?;
        within("top_p", self.top_p, (0.0, 1.0))?;
        within("min_p", self.min_p, (0.0, 1.0))?;
        within("repetition_penalty", self.repetition_penalty, (0.01, 100.0))
    }

    /// Says whether the likeliest token is taken whatever its probability.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Chooses the token behind `text`, of which the row itself has said `said`.
    pub(super) fn choose(&self, logits: &mut [f32], text: &[u32], said: usize) -> u32 {
        self.penalise(logits, text);
        if self.is_greedy() {
            return argmax(logits);
        }
        let mut left = self.left(logits);
        let total: f64 = left.iter().map(|(_, p)| p).sum();
        let mut draw = rng::stream(self.seed, "sample", said as u64);
        let mut at = f64::from(rng::unit(&mut draw)) * total;
        let likeliest = left.first().map_or(0, |(id, _)| *id);
        left.retain(|(_, p)| *p > 0.0);
        for (id, p) in &left {
            if at < *p {
                return *id;
            }
            at -= p;
        }
        left.last().map_or(likeliest, |(id, _)| *id)
    }

    fn penalise(&self, logits: &mut [f32], text: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let mut seen = text.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                let by = self.repetition_penalty;
                *logit = if *logit > 0.0 { *logit / by } else { *logit * by };
            }
        }
    }

    /// Returns what may be drawn with its weights, the likeliest first.
    fn left(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut left: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        // Of equally likely ones the lowest comes first.
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < left.len() {
            left.select_nth_unstable_by(self.top_k - 1, order);
            left.truncate(self.top_k);
        }
        left.sort_unstable_by(order);
        let top = left.first().map_or(0.0, |(_, logit)| *logit);
        let scale = 1.0 / f64::from(self.temperature);
        let weight = |(id, logit): (u32, f32)| (id, (f64::from(logit - top) * scale).exp());
        let mut left: Vec<(u32, f64)> = left.into_iter().map(weight).collect();
        if self.top_p < 1.0 {
            let total: f64 = left.iter().map(|(_, p)| p).sum();
            let (mut sum, most) = (0.0, f64::from(self.top_p) * total);
            let more = |(_, p): &&(u32, f64)| {
                let goes_on = sum < most;
                sum += p;
                goes_on
            };
            let count = left.iter().take_while(more).count().max(1);
            left.truncate(count);
        }
        let least = f64::from(self.min_p);
        let count = left.iter().take_while(|(_, p)| *p >= least).count().max(1);
        left.truncate(count);
        left
    }
}

/// Logarithms of probabilities, as the model itself gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// That of the token that was taken.
    pub taken: f32,
    /// The likeliest tokens with theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl LogProbs {
    /// Reads them off logits: of the token `id`, and of the `count` likeliest.
    pub(super) fn of(logits: &[f32], id: u32, count: usize) -> Self {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - top).exp()).sum();
        let all = f64::from(top) + sum.ln();
        let of = |logit: f32| (f64::from(logit) - all) as f32;
        let mut order: Vec<u32> = (0..).zip(logits).map(|(id, _)| id).collect();
        let by =
            |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let count = count.min(order.len());
        if count > 0 && count < order.len() {
            order.select_nth_unstable_by(count - 1, by);
        }
        order.truncate(count);
        order.sort_unstable_by(by);
        let top = order.into_iter().map(|id| (id, of(logits[id as usize]))).collect();
        Self { taken: logits.get(id as usize).map_or(f32::NEG_INFINITY, |v| of(*v)), top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Vec<f32> {
        vec![1.0, 3.0, 2.0, -1.0, 3.0, 0.5]
    }

    fn drawn(sampling: &Sampling, draws: usize) -> Vec<usize> {
        let mut counts = vec![0; 6];
        for said in 0..draws {
            counts[sampling.choose(&mut logits(), &[], said) as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_likeliest_and_of_equals_the_lowest_is_taken() {
        assert_eq!(Sampling::default().choose(&mut logits(), &[], 0), 1);
        let penalty = Sampling { repetition_penalty: 2.0, ..Default::default() };
        assert_eq!(penalty.choose(&mut logits(), &[1, 1], 0), 4);
        // Divided once though it stands there twice; what is negative becomes more so.
        let mut all = logits();
        penalty.choose(&mut all, &[1, 1, 3], 0);
        assert_eq!(all, [1.0, 1.5, 2.0, -2.0, 3.0, 0.5]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Default::default() };
        let counts = drawn(&sampling, 20_000);
        let weights: Vec<f64> = logits().iter().map(|v| f64::from(*v).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let (share, want) = (*count as f64 / 20_000.0, weight / total);
            assert!((share - want).abs() < 0.015, "{counts:?}");
        }
        assert_eq!(drawn(&sampling, 50), drawn(&sampling, 50));
        assert_ne!(drawn(&sampling, 50), drawn(&Sampling { seed: 8, ..sampling }, 50));
    }

    #[test]
    fn limits_leave_the_likeliest() {
        let with = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = Sampling { temperature: 1.0, seed: 7, ..Default::default() };
            change(&mut sampling);
            let counts = drawn(&sampling, 2000);
            (0..6).filter(|id| counts[*id] > 0).collect::<Vec<_>>()
        };
        assert_eq!(with(&|s| s.top_k = 2), [1, 4]);
        assert_eq!(with(&|s| s.top_k = 1), [1]);
        // 3.0 and 3.0 have .77 together, 2.0 has .14.
        assert_eq!(with(&|s| s.top_p = 0.6), [1, 4]);
        assert_eq!(with(&|s| s.top_p = 0.8), [1, 2, 4]);
        assert_eq!(with(&|s| s.top_p = 0.0), [1]);
        assert_eq!(with(&|s| s.min_p = 0.3), [1, 2, 4]);
        assert_eq!(with(&|s| s.min_p = 1.0), [1, 4]);
        assert_eq!(with(&|s| s.temperature = 0.01), [1, 4]);
    }

    #[test]
    fn ranges_are_checked() {
        assert!(Sampling { top_p: 1.5, ..Default::default() }.check().is_err());
        assert!(Sampling { temperature: f32::NAN, ..Default::default() }.check().is_err());
        assert!(Sampling { repetition_penalty: 0.0, ..Default::default() }.check().is_err());
        assert_eq!(Sampling::default().check(), Ok(()));
    }

    #[test]
    fn log_probabilities_are_those_of_the_logits() {
        let of = LogProbs::of(&logits(), 2, 3);
        let total: f64 = logits().iter().map(|v| f64::from(*v).exp()).sum();
        assert!((f64::from(of.taken) - (2.0 - total.ln())).abs() < 1e-6);
        assert_eq!(of.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 4, 2]);
        assert_eq!(LogProbs::of(&logits(), 9, 0).top, []);
    }
}
