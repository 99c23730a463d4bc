//! Keys and values of what was read, in pages of 64 tokens.
//!
//! A page holds all layers. Pages that a prompt fills whole are known by what stands in them and
//! before them, so that prompts which begin alike read their beginning once (Kwon et al., 2023).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::DecoderConfig;
use crate::kernels::spacious;

/// Tokens of a page.
pub(super) const PAGE: usize = 64;

/// Keys and values of up to 64 tokens: for each layer and key head the keys, [head, 64], so that
/// scores of neighbours lie side by side, and the values, [64, head].
pub(super) struct Page {
    numbers: Vec<f32>,
    shape: Shape,
    free: Arc<Mutex<Vec<Vec<f32>>>>,
}

#[derive(Clone, Copy)]
struct Shape {
    layers: usize,
    kv_heads: usize,
    head: usize,
}

impl Shape {
    fn of(config: &DecoderConfig) -> Self {
        Self {
            layers: config.num_hidden_layers,
            kv_heads: config.num_key_value_heads,
            head: config.head_dim,
        }
    }

    /// Numbers of the keys, and of the values, of one head of a layer.
    fn part(self) -> usize {
        PAGE * self.head
    }

    fn numbers(self) -> usize {
        2 * self.layers * self.kv_heads * self.part()
    }

    fn at(self, layer: usize, kv: usize) -> usize {
        2 * (layer * self.kv_heads + kv) * self.part()
    }
}

impl Page {
    /// Returns the keys [head, 64] and the values [64, head] of a head of a layer.
    pub(super) fn of(&self, layer: usize, kv: usize) -> (&[f32], &[f32]) {
        let part = self.shape.part();
        self.numbers[self.shape.at(layer, kv)..][..2 * part].split_at(part)
    }

    /// Writes keys and values of a token of a layer, [kv heads * head] each.
    pub(super) fn put(&mut self, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let (shape, head) = (self.shape, self.shape.head);
        let heads = keys.chunks_exact(head).zip(values.chunks_exact(head)).enumerate();
        for (kv, (keys, values)) in heads {
            let both = &mut self.numbers[shape.at(layer, kv)..][..2 * shape.part()];
            let (to_keys, to_values) = both.split_at_mut(shape.part());
            for (to, key) in to_keys[slot..].iter_mut().step_by(PAGE).zip(keys) {
                *to = *key;
            }
            to_values[slot * head..][..head].copy_from_slice(values);
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(numbers);
    }
}

/// The pages of a decoder: so many at most, promised to rows before they are taken.
pub(super) struct Pool {
    shape: Shape,
    most: usize,
    promised: usize,
    free: Arc<Mutex<Vec<Vec<f32>>>>,
    known: HashMap<Beginning, Known>,
    names: u64,
    clock: u64,
}

/// What stands in a page, and the name of the page before it; before the first, one of the adapter.
type Beginning = (u64, Vec<u32>);

struct Known {
    name: u64,
    page: Arc<Page>,
    used: u64,
}

impl Pool {
    /// Holds at most `bytes` of pages, and one at least.
    pub(super) fn new(config: &DecoderConfig, bytes: usize) -> Self {
        let shape = Shape::of(config);
        Self {
            shape,
            most: (bytes / (4 * shape.numbers())).max(1),
            promised: 0,
            free: Arc::default(),
            known: HashMap::new(),
            // Names below are those of adapters.
            names: 1 << 32,
            clock: 0,
        }
    }

    /// Pages at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Promises pages to a row, if there are so many; what is only known gives way.
    pub(super) fn promise(&mut self, pages: usize) -> bool {
        if self.promised + pages > self.most {
            return false;
        }
        self.promised += pages;
        while self.promised + self.known_alone() > self.most {
            self.forget_oldest();
        }
        true
    }

    /// Takes a promise back, when a row has ended.
    pub(super) fn release(&mut self, pages: usize) {
        self.promised -= pages;
        while self.promised + self.known_alone() > self.most {
            self.forget_oldest();
        }
    }

    /// Pages that no row reads.
    fn known_alone(&self) -> usize {
        self.known.values().filter(|known| Arc::strong_count(&known.page) == 1).count()
    }

    fn forget_oldest(&mut self) {
        let alone = self.known.iter().filter(|(_, known)| Arc::strong_count(&known.page) == 1);
        let oldest = alone.min_by_key(|(_, known)| known.used).map(|(of, _)| of.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }

    /// Takes an empty page of those that were promised.
    pub(super) fn take(&self) -> Arc<Page> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = free.pop().unwrap_or_else(|| spacious(self.shape.numbers(), 0.0));
        drop(free);
        // What is hidden from a query is multiplied by zero, and so must be a number.
        numbers.fill(0.0);
        Arc::new(Page { numbers, shape: self.shape, free: Arc::clone(&self.free) })
    }

    /// Finds the page that holds `ids` behind the page `before`; returns it with its name.
    pub(super) fn find(&mut self, before: u64, ids: &[u32]) -> Option<(Arc<Page>, u64)> {
        self.clock += 1;
        let known = self.known.get_mut(&(before, ids.to_vec()))?;
        known.used = self.clock;
        Some((Arc::clone(&known.page), known.name))
    }

    /// Keeps a page that a prompt has filled; returns its name.
    pub(super) fn keep(&mut self, before: u64, ids: &[u32], page: &Arc<Page>) -> u64 {
        self.clock += 1;
        self.names += 1;
        let (name, used) = (self.names, self.clock);
        let known = Known { name, page: Arc::clone(page), used };
        self.known.entry((before, ids.to_vec())).or_insert(known).name
    }
}
