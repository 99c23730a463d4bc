//! What can go wrong with a model, its files or its numbers.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what its name says, or ends too early.
    #[error("{} is no whole model file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file describes something that cannot be run here.
    #[error("unsupported model: {0}")]
    Unsupported(String),
    /// A tensor is absent or has another shape.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer could not be built or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template could not be read or rendered.
    #[error("chat template: {0}")]
    Template(String),
    /// An adapter does not fit the model.
    #[error("adapter: {0}")]
    Adapter(String),
    /// A prompt is longer than the context.
    #[error("prompt of {tokens} tokens and {new} new ones exceed the context of {context}")]
    Context {
        /// Tokens of the prompt.
        tokens: usize,
        /// New tokens asked for.
        new: usize,
        /// Tokens that the model can hold.
        context: usize,
    },
    /// A text needs more of the memory for keys and values than there is.
    #[error("a text of {tokens} tokens needs {needed} pages of keys and values, there are {most}")]
    Pages {
        /// Tokens of the text, new ones included.
        tokens: usize,
        /// Pages that it needs.
        needed: usize,
        /// Pages that there are.
        most: usize,
    },
    /// A setting of decoding is out of its range.
    #[error("sampling: {0}")]
    Sampling(String),
    /// Training left the numbers: a loss or gradient is not finite.
    #[error("{what} is not finite at step {step}")]
    NotFinite {
        /// What left the numbers.
        what: &'static str,
        /// Step, from 1.
        step: u64,
    },
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
