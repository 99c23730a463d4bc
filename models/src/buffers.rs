//! Memory of passes, used again: a layer's intermediate results are as large as those of the next,
//! and asking the system for them anew costs as much as some of the work.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::kernels::spacious;

/// Numbers that a short piece may have beyond what it needs.
const SLACK: usize = 4096;

static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Gives the memory that nobody uses back to the system.
pub(crate) fn release() {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Numbers of no meaning until they are written. Their memory is given back when they are dropped.
pub(crate) struct Buffer {
    memory: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// Takes memory for so many numbers.
    pub(crate) fn new(len: usize) -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // What is kept for long must not hold far more than it needs.
        let most = 2 * len + SLACK;
        let fits = |(_, one): &(usize, &Vec<f32>)| (len..=most).contains(&one.len());
        let best = free.iter().enumerate().filter(fits).min_by_key(|(_, one)| one.len());
        // Where none fits, the longest that is too short goes, so that there are never many more
        // than are used at once.
        let short = |(_, one): &(usize, &Vec<f32>)| one.len() < len;
        let longest = || free.iter().enumerate().filter(short).max_by_key(|(_, one)| one.len());
        let at = best.or_else(longest).map(|(at, _)| at);
        let mut memory = at.map(|at| free.swap_remove(at)).unwrap_or_default();
        drop(free);
        if memory.len() < len {
            drop(std::mem::take(&mut memory));
            memory = spacious(len, 0.0);
        }
        Self { memory, len }
    }

    /// Takes memory and fills it with zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}
