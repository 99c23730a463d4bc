//! AdamW, learning-rate schedules and gradient clipping.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Warm-up, then half a cosine down to zero.
    Cosine,
    /// Warm-up, then a straight line down to zero.
    Linear,
    /// Warm-up, then flat.
    Constant,
}

impl Schedule {
    /// Returns the share of the full rate at `step` (from 0) of `total`, as transformers has it.
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup.max(1) as f64;
        }
        let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Constant => 1.0,
        }
    }
}

/// AdamW (Loshchilov and Hutter, 2019) over a fixed list of parameters, with PyTorch's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Weight decay, not scaled by the gradient's moments.
    pub weight_decay: f64,
    /// Updates made.
    pub step: u64,
    /// First moments.
    pub first: Vec<Vec<f32>>,
    /// Second moments.
    pub second: Vec<Vec<f32>>,
}

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

impl AdamW {
    /// Makes an optimiser for parameters of these lengths.
    pub fn new(lengths: &[usize], weight_decay: f64) -> Self {
        let zeros = || lengths.iter().map(|len| vec![0.0; *len]).collect();
        Self { weight_decay, step: 0, first: zeros(), second: zeros() }
    }

    /// Counts an update and returns the bias corrections that `update` needs.
    pub fn advance(&mut self) -> (f64, f64) {
        self.step += 1;
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        (1.0 - BETA1.powi(step), 1.0 - BETA2.powi(step))
    }

    /// Updates parameter `index` in place.
    pub fn update(
        &mut self,
        index: usize,
        parameter: &mut [f32],
        gradient: &[f32],
        rate: f64,
        corrections: (f64, f64),
    ) {
        let (first, second) = (&mut self.first[index], &mut self.second[index]);
        let step = (rate / corrections.0) as f32;
        let root = corrections.1.sqrt() as f32;
        let keep = (1.0 - rate * self.weight_decay) as f32;
        let (b1, b2, eps) = (BETA1 as f32, BETA2 as f32, EPS as f32);
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((p, g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *p = *p * keep - step * *m / (v.sqrt() / root + eps);
        }
    }
}

/// Returns the Euclidean norm over all gradients, summed in f64 in order.
pub fn norm(gradients: &[Vec<f32>]) -> f64 {
    let squares = |g: &Vec<f32>| g.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
    gradients.iter().map(squares).sum::<f64>().sqrt()
}

/// Scales gradients down so that their norm is at most `limit`.
pub fn clip(gradients: &mut [Vec<f32>], norm: f64, limit: f64) {
    if norm > limit {
        let scale = (limit / (norm + 1e-6)) as f32;
        gradients.iter_mut().flatten().for_each(|v| *v *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_rises_and_falls() {
        let at = |step| Schedule::Cosine.factor(step, 10, 110);
        assert_eq!(at(0), 0.0);
        assert!((at(5) - 0.5).abs() < 1e-12);
        assert!((at(10) - 1.0).abs() < 1e-12);
        assert!((at(60) - 0.5).abs() < 1e-12);
        assert!(at(109) < 0.001 && at(109) > 0.0);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut gradients = vec![vec![3.0], vec![4.0]];
        let before = norm(&gradients);
        assert!((before - 5.0).abs() < 1e-12);
        clip(&mut gradients, before, 1.0);
        assert!((norm(&gradients) - 1.0).abs() < 1e-5);
        assert!((gradients[1][0] / gradients[0][0] - 4.0 / 3.0).abs() < 1e-6);
    }
}
