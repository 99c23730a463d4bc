//! Recorded randomness: ChaCha8 streams keyed by (seed, purpose, index).
//!
//! A value depends on its key and place alone, never on what was drawn before elsewhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// Returns the stream for one purpose and index under `seed`.
pub fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(b"ledger/rng/1\0");
    hash.update(seed.to_le_bytes());
    hash.update(purpose.as_bytes());
    let key: [u8; 32] = hash.finalize().into();
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// Draws from the uniform distribution over [0, 1).
pub fn unit(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1_u32 << 24) as f32
}

/// Draws from the uniform distribution over [-bound, bound).
pub fn uniform(rng: &mut ChaCha8Rng, bound: f32, count: usize) -> Vec<f32> {
    let unit = 1.0 / (1_u32 << 24) as f32;
    (0..count).map(|_| ((rng.next_u32() >> 8) as f32 * unit * 2.0 - 1.0) * bound).collect()
}

/// Shuffles `items` in place (Fisher and Yates, from the end).
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        // A 64-bit draw keeps the bias of the remainder below 2^-32 for any list we hold.
        let other = (rng.next_u64() % (last as u64 + 1)) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_every_part_of_the_key() {
        let draw = |seed, purpose: &str, index| stream(seed, purpose, index).next_u64();
        let base = draw(7, "shuffle", 0);
        assert_eq!(base, draw(7, "shuffle", 0));
        assert_ne!(base, draw(8, "shuffle", 0));
        assert_ne!(base, draw(7, "dropout", 0));
        assert_ne!(base, draw(7, "shuffle", 1));
    }

    #[test]
    fn shuffle_permutes() {
        let mut items: Vec<u32> = (0..100).collect();
        shuffle(&mut stream(1, "shuffle", 0), &mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
