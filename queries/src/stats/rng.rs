//! Counter-based randomness: the same (seed, purpose, index) gives the same numbers everywhere.

use ledger::Digest;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// A ChaCha8 stream keyed by (seed, purpose, index).
pub struct CounterRng(ChaCha8Rng);

impl CounterRng {
    /// Makes the stream number `index` for `purpose` under `seed`.
    ///
    /// Seed and purpose make the key, the index the stream, so that stream 7 can be drawn without
    /// drawing the six before it.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let mut key = seed.to_le_bytes().to_vec();
        key.extend_from_slice(purpose.as_bytes());
        let mut rng = ChaCha8Rng::from_seed(*Digest::of(&key).as_bytes());
        rng.set_stream(index);
        Self(rng)
    }

    /// Moves to the start of stream `index`.
    pub fn restart(&mut self, index: u64) {
        self.0.set_stream(index);
        self.0.set_word_pos(0);
    }

    /// Draws a number below `bound`, each equally likely; 0 where the bound is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        // The draws that would favour small numbers lie in the first `2^32 mod bound` of each
        // product's low half.
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(bound);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
            let (high, low) = ((product >> 32) as u32, product as u32);
            if low >= unfair {
                return high;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, purpose: &str, index: u64) -> Vec<u32> {
        let mut rng = CounterRng::new(seed, purpose, index);
        (0..8).map(|_| rng.below(1000)).collect()
    }

    #[test]
    fn the_key_decides_the_draws() {
        let first = draw(7, "bootstrap", 3);
        assert_eq!(first, draw(7, "bootstrap", 3));
        assert_ne!(first, draw(8, "bootstrap", 3));
        assert_ne!(first, draw(7, "shuffle", 3));
        assert_ne!(first, draw(7, "bootstrap", 4));
        // Made with another ChaCha8, in Python: key SHA-256(seed, purpose), stream 3, block 0.
        assert_eq!(first, GOLDEN);
    }

    const GOLDEN: [u32; 8] = [155, 429, 305, 422, 218, 565, 275, 306];

    #[test]
    fn restarting_is_the_same_as_making_anew() {
        let mut rng = CounterRng::new(7, "bootstrap", 0);
        let _ = rng.below(10);
        rng.restart(3);
        let again: Vec<u32> = (0..8).map(|_| rng.below(1000)).collect();
        assert_eq!(again, draw(7, "bootstrap", 3));
    }

    #[test]
    fn draws_are_even() {
        let mut rng = CounterRng::new(1, "even", 0);
        let mut seen = [0_u32; 7];
        for _ in 0..70_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (9_600..10_400).contains(n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }
}
