//! An adapter that stays apart from its base, so that rows with several adapters, or none, are
//! computed together and packed weights stay packed.

use crate::buffers::Buffer;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::kernels::{Isa, Mat, Seen, add_product, product_of_kept};
use crate::lora::{Adapter, Module};

/// An adapter, made ready to be read with.
pub(super) struct Apart {
    layers: Vec<[Option<Pair>; Module::COUNT]>,
}

struct Pair {
    /// [rank, inputs].
    a: Vec<f32>,
    /// The transpose of B, [rank, outputs].
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

impl Apart {
    /// Makes an adapter of a model ready.
    ///
    /// # Errors
    /// When it does not fit the model.
    pub(super) fn new(adapter: &Adapter, config: &DecoderConfig) -> Result<Self, ModelError> {
        adapter.check(config)?;
        let pair = |layer: usize, module: Module| {
            let pair = adapter.pair(layer, module)?;
            let (rank, (outputs, _)) = (adapter.config.rank(module), module.shape(config));
            let b = (0..rank).flat_map(|r| (0..outputs).map(move |o| o * rank + r));
            Some(Pair {
                a: pair.a.clone(),
                b: b.map(|at| pair.b[at]).collect(),
                rank,
                scale: adapter.config.scale(module),
            })
        };
        let of = |layer| Module::ALL.map(|module| pair(layer, module));
        Ok(Self { layers: (0..config.num_hidden_layers).map(of).collect() })
    }

    /// Adds the update of a module to `out`: x [rows, inputs], out [rows, outputs].
    pub(super) fn add(
        &self,
        isa: Isa,
        (layer, module): (usize, Module),
        x: &[f32],
        out: &mut [f32],
    ) {
        let Some(pair) = &self.layers[layer][module as usize] else { return };
        let (inputs, outputs) = (pair.a.len() / pair.rank, pair.b.len() / pair.rank);
        let mut down = Buffer::new(x.len() / inputs * pair.rank);
        let seen = Seen::from(Mat::new(x, inputs));
        product_of_kept(isa, pair.scale, seen, Mat::new(&pair.a, inputs), &mut down);
        let factors = (Mat::new(&down, pair.rank), Mat::new(&pair.b, outputs));
        add_product(isa, 1.0, factors, None, out);
    }
}
