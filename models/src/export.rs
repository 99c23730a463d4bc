//! Adapters for others: as llama.cpp reads them, and added to the weights.

use std::borrow::Cow;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use serde_json::{Value as Json, json};

use crate::architectures::Architecture;
use crate::config::DecoderConfig;
use crate::error::ModelError;
use crate::gguf::{Value, Written, file, interleaved};
use crate::kernels::{Mat, MatMut, Product, Stored, isa};
use crate::lora::{Adapter, Module, Pair};
use crate::weights::Weights;

/// Returns an adapter as a GGUF file that llama.cpp reads beside its base (`--lora`).
///
/// llama.cpp scales an update by `adapter.lora.alpha` over the rank of its tensors; where that is
/// not the scale (rsLoRA, other alphas of modules), B is written multiplied by what is missing.
/// Rows of B are in the order that the base's rows have there.
///
/// # Errors
/// When the adapter does not fit the model.
pub fn gguf_adapter(
    adapter: &Adapter,
    model: &DecoderConfig,
    name: &str,
) -> Result<Vec<u8>, ModelError> {
    adapter.check(model)?;
    let text = |text: &str| Value::Text(text.to_owned());
    let metadata = [
        ("general.architecture", text(model.architecture.name())),
        ("general.type", text("adapter")),
        ("general.name", text(name)),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::Float(adapter.config.alpha)),
    ];
    let mut tensors = Vec::with_capacity(2 * adapter.pairs.len());
    for ((layer, module), Pair { a, b }) in &adapter.pairs {
        let (outputs, inputs) = module.shape(model);
        let rank = adapter.config.rank(*module);
        let path = format!("blk.{layer}.{}.weight", module.gguf_name());
        let missing = f64::from(adapter.config.scale(*module)) * rank as f64 / adapter.config.alpha;
        let a = Cow::Borrowed(&a[..]);
        tensors.push(Written { name: format!("{path}.lora_a"), shape: (rank, inputs), numbers: a });
        let numbers = rows_of_b(b, (*module, rank), model, missing as f32).into();
        let name = format!("{path}.lora_b");
        tensors.push(Written { name, shape: (outputs, rank), numbers });
    }
    Ok(file(&metadata, &tensors))
}

fn rows_of_b(
    b: &[f32],
    (module, rank): (Module, usize),
    model: &DecoderConfig,
    factor: f32,
) -> Vec<f32> {
    let is_turned = model.architecture.is_interleaved_in_gguf()
        && matches!(module, Module::QProj | Module::KProj);
    let head = model.head_dim;
    let mut rows = vec![0.0; b.len()];
    for (at, row) in b.chunks_exact(rank).enumerate() {
        let to = if is_turned { at / head * head + interleaved(at % head, head) } else { at };
        let to = &mut rows[to * rank..(to + 1) * rank];
        to.iter_mut().zip(row).for_each(|(to, v)| *to = v * factor);
    }
    rows
}

/// Numbers of a merged model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits: nothing is lost.
    F32,
    /// bf16, each number rounded to the nearest.
    Bf16,
}

/// Writes `model.safetensors`: the frozen weights with an adapter added, under the names of the
/// checkpoint. One tensor is in memory at a time.
///
/// # Errors
/// When the adapter does not fit, or the file cannot be written.
pub fn write_merged(
    path: &Path,
    weights: &Weights,
    adapter: &Adapter,
    precision: Precision,
) -> Result<(), ModelError> {
    adapter.check(&weights.config)?;
    let tensor = |stored: &Stored, update| Merged::new(stored.clone(), update, precision);
    let line = |line: &[f32]| {
        let stored = Stored::plain(line.to_vec(), line.len());
        Merged { shape: vec![line.len()], ..Merged::new(stored, None, precision) }
    };
    let mut all =
        vec![("model.embed_tokens.weight".to_owned(), tensor(&weights.embed_tokens, None))];
    for (i, layer) in weights.layers.iter().enumerate() {
        let path = |part: &str| format!("model.layers.{i}.{part}");
        for (module, linear) in &layer.linears {
            let pair = adapter.pair(i, *module);
            let update = pair.map(|pair| (pair, adapter.config.scale(*module)));
            let name = path(&format!("{}.weight", module.path()));
            all.push((name, tensor(&linear.weight, update)));
            if let Some(bias) = &linear.bias {
                all.push((path(&format!("{}.bias", module.path())), line(bias)));
            }
        }
        all.push((path("input_layernorm.weight"), line(&layer.input_layernorm)));
        all.push((path("post_attention_layernorm.weight"), line(&layer.post_attention_layernorm)));
    }
    all.push(("model.norm.weight".to_owned(), line(&weights.norm)));
    if !weights.is_tied() {
        all.push(("lm_head.weight".to_owned(), tensor(&weights.lm_head, None)));
    }
    let format = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    safetensors::serialize_to_file(all, Some(format), path).map_err(|error| ModelError::Io {
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })
}

/// A tensor that is put together when it is written.
struct Merged<'a> {
    stored: Stored,
    update: Option<(&'a Pair, f32)>,
    precision: Precision,
    shape: Vec<usize>,
}

impl<'a> Merged<'a> {
    fn new(stored: Stored, update: Option<(&'a Pair, f32)>, precision: Precision) -> Self {
        let shape = vec![stored.rows(), stored.cols()];
        Self { stored, update, precision, shape }
    }
}

impl View for Merged<'_> {
    fn dtype(&self) -> Dtype {
        match self.precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut numbers = self.stored.to_vec();
        if let Some((pair, scale)) = self.update {
            let inputs = self.stored.cols();
            let rank = pair.a.len() / inputs;
            let product = Product::new(isa().exact()).added().scaled(scale);
            let (b, a) = (Mat::new(&pair.b, rank), Mat::new(&pair.a, inputs));
            product.run(MatMut::new(&mut numbers, inputs), b, a);
        }
        let rounded = |v: &f32| half::bf16::from_f32(*v).to_le_bytes();
        match self.precision {
            Precision::F32 => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Precision::Bf16 => numbers.iter().flat_map(rounded).collect(),
        }
    }

    fn data_len(&self) -> usize {
        let width = if self.precision == Precision::F32 { 4 } else { 2 };
        self.stored.rows() * self.stored.cols() * width
    }
}

/// Returns a `config.json` for transformers; `eos` is the token that ends an answer.
///
/// # Errors
/// When the rotary position has factors that such a file cannot say.
pub fn config_json(weights: &Weights, eos: u32, precision: Precision) -> Result<Json, ModelError> {
    let config = &weights.config;
    let rope = &config.rope;
    if !rope.divisors.is_empty() || rope.magnitude != 1.0 {
        let what = "the base's rotary factors have no place in a config.json".to_owned();
        return Err(ModelError::Unsupported(what));
    }
    let class = match config.architecture {
        Architecture::Llama => "LlamaForCausalLM",
        Architecture::Qwen2 => "Qwen2ForCausalLM",
        Architecture::Phi3 => "Phi3ForCausalLM",
    };
    Ok(json!({
        "architectures": [class],
        "model_type": config.architecture.name(),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": rope.theta,
        "partial_rotary_factor": rope.dims as f64 / config.head_dim as f64,
        "hidden_act": "silu",
        "tie_word_embeddings": weights.is_tied(),
        "eos_token_id": eos,
        "torch_dtype": if precision == Precision::F32 { "float32" } else { "bfloat16" },
    }))
}
