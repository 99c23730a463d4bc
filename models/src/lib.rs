//! The numbers: decoders, LoRA training with hand-written backward passes, tokenizer, chat
//! template and decoding. This crate knows nothing of ledgers.
//!
//! Everything runs on f32 slices in a fixed order of additions, so that one machine gives the same
//! bits whatever the number of threads. candle gives tensors, autograd bookkeeping and the GGUF
//! reader; the hot operations are ours.

pub mod architectures;
mod buffers;
pub mod checkpoint;
pub mod config;
pub mod decode;
pub mod error;
pub mod estimate;
pub mod export;
pub mod foreign;
pub mod gguf;
pub mod graph;
pub mod kernels;
pub mod lora;
pub mod model;
pub mod network;
pub mod ops;
pub mod optim;
pub mod peft;
pub mod render;
pub mod rng;
pub mod template;
pub mod tiny;
pub mod tokenizer;
pub mod trainer;
pub mod weights;

pub use error::ModelError;
pub use model::Model;
pub use network::Network;
