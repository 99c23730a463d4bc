//! The families of decoders that are trained here, a file for each: which linear modules a layer
//! has, and how its `config.json` and its GGUF metadata are read.
//!
//! All are pre-norm decoders with RMS norm, rotary position, grouped attention and a gated
//! feed-forward part; one implementation computes them.

mod llama;
mod phi3;
mod qwen2;

use serde_json::Value;

use crate::config::{DecoderConfig, RopeConfig};
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::lora::Module;

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, and what is built like them.
    Llama,
    /// Qwen2 and 2.5: Llama with biases on q, k and v.
    Qwen2,
    /// Phi-3, 3.5 and 4(-mini): q, k and v in one module, gate and up in another.
    Phi3,
}

impl Architecture {
    /// All families.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Phi3];

    /// Name in `config.json` and in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Phi3 => "phi3",
        }
    }

    /// Finds a family by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Linear modules of a layer, in its order.
    pub fn modules(self) -> &'static [Module] {
        match self {
            Self::Llama => &llama::MODULES,
            Self::Qwen2 => &qwen2::MODULES,
            Self::Phi3 => &phi3::MODULES,
        }
    }

    /// Says whether a module has a bias.
    pub fn has_bias(self, module: Module) -> bool {
        self == Self::Qwen2 && qwen2::has_bias(module)
    }

    /// Says whether GGUF files hold the rows of q and k in the order of interleaved rotary
    /// position.
    pub fn is_interleaved_in_gguf(self) -> bool {
        self == Self::Llama
    }

    /// Names the modules of this family that stand for the wanted ones: where q, k and v are one
    /// module, wanting all three means it, and so with gate and up.
    ///
    /// # Errors
    /// Says which module the family does not have.
    pub fn adapted(self, wanted: &[Module]) -> Result<Vec<Module>, String> {
        let fused: [(&[Module], Module); 2] = [
            (&[Module::QProj, Module::KProj, Module::VProj], Module::QkvProj),
            (&[Module::GateProj, Module::UpProj], Module::GateUpProj),
        ];
        let has = |module: &Module| self.modules().contains(module);
        let mut adapted: Vec<Module> = wanted.iter().copied().filter(has).collect();
        for module in wanted.iter().filter(|module| !has(module)) {
            let of = fused.iter().find(|(parts, whole)| parts.contains(module) && has(whole));
            let all = of.filter(|(parts, _)| parts.iter().all(|part| wanted.contains(part)));
            let Some((_, whole)) = all else {
                let names: Vec<&str> = self.modules().iter().map(|module| module.name()).collect();
                let (name, family) = (module.name(), self.name());
                return Err(format!(
                    "{family} has no {name} to adapt; it has {}",
                    names.join(", ")
                ));
            };
            if !adapted.contains(whole) {
                adapted.push(*whole);
            }
        }
        Ok(adapted)
    }
}

/// What a model that is not trained here is told.
fn unsupported(name: &str) -> ModelError {
    let names: Vec<&str> = Architecture::ALL.iter().map(|one| one.name()).collect();
    let what = format!("architecture {name:?}; trained here are {}", names.join(", "));
    ModelError::Unsupported(what)
}

/// Reads a `config.json` as transformers writes it.
///
/// # Errors
/// When the family is not one of ours, or its shape is not whole or makes no sense.
pub fn read_json(json: &Value) -> Result<DecoderConfig, ModelError> {
    let name = json["model_type"].as_str().unwrap_or("unnamed");
    let architecture = Architecture::named(name).ok_or_else(|| unsupported(name))?;
    let json = Json(json);
    let config = match architecture {
        Architecture::Llama => llama::read_json(&json),
        Architecture::Qwen2 => qwen2::read_json(&json),
        Architecture::Phi3 => phi3::read_json(&json),
    };
    let config = config.and_then(|config| config.check().map(|()| config));
    config.map_err(|reason| ModelError::Unsupported(format!("config.json: {reason}")))
}

/// Reads the metadata of a GGUF file.
///
/// # Errors
/// When the family is not one of ours, or its shape is not whole or makes no sense.
pub fn read_gguf(file: &mut Gguf) -> Result<DecoderConfig, ModelError> {
    let name = file.text("general.architecture").unwrap_or("unnamed").to_owned();
    let architecture = Architecture::named(&name).ok_or_else(|| unsupported(&name))?;
    let mut config = base_of_gguf(file, architecture)?;
    match architecture {
        Architecture::Llama => llama::read_gguf(file, &mut config)?,
        Architecture::Qwen2 => refuse_scaling(file, &name)?,
        Architecture::Phi3 => phi3::read_gguf(file, &mut config)?,
    }
    config.check().map_err(|reason| file.malformed(reason))?;
    Ok(config)
}

/// Refuses a rotary scaling that is named and not read.
fn refuse_scaling(file: &Gguf, name: &str) -> Result<(), ModelError> {
    match file.text(&format!("{name}.rope.scaling.type")) {
        None | Some("none") => Ok(()),
        Some(kind) => {
            Err(ModelError::Unsupported(format!("rotary scaling {kind:?} is not computed here")))
        }
    }
}

/// What all families write under the same keys.
fn base_of_gguf(file: &Gguf, architecture: Architecture) -> Result<DecoderConfig, ModelError> {
    let name = architecture.name();
    let number = |key: &str| file.number(&format!("{name}.{key}"));
    let optional = |key: &str| match file.has(&format!("{name}.{key}")) {
        true => number(key).map(Some),
        false => Ok(None),
    };
    let (hidden_size, heads) = (number("embedding_length")?, number("attention.head_count")?);
    let head_dim = optional("attention.key_length")?.unwrap_or(hidden_size / heads.max(1));
    if optional("attention.value_length")?.is_some_and(|length| length != head_dim) {
        return Err(ModelError::Unsupported("keys and values of two widths".to_owned()));
    }
    let theta = format!("{name}.rope.freq_base");
    let theta = if file.has(&theta) { file.float(&theta)? } else { 10_000.0 };
    let rope = RopeConfig {
        dims: optional("rope.dimension_count")?.unwrap_or(head_dim),
        ..RopeConfig::plain(theta, head_dim)
    };
    let config = DecoderConfig {
        architecture,
        hidden_size,
        intermediate_size: number("feed_forward_length")?,
        num_hidden_layers: number("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab_size: file.rows("token_embd.weight")?,
        max_position_embeddings: number("context_length")?,
        rope,
        rms_norm_eps: file.float(&format!("{name}.attention.layer_norm_rms_epsilon"))?,
    };
    // Families make lists as long as counts say.
    config.check().map_err(|reason| file.malformed(reason))?;
    Ok(config)
}

/// A `config.json`.
struct Json<'a>(&'a Value);

impl Json<'_> {
    fn optional(&self, key: &str) -> Result<Option<usize>, String> {
        match &self.0[key] {
            Value::Null => Ok(None),
            value => {
                let number = value.as_u64().and_then(|v| usize::try_from(v).ok());
                number.map(Some).ok_or_else(|| format!("{key} is {value}, no count"))
            }
        }
    }

    fn number(&self, key: &str) -> Result<usize, String> {
        self.optional(key)?.ok_or_else(|| format!("no {key}"))
    }

    /// Reads a number of the rotary position. transformers 5 moved these into `rope_parameters`;
    /// before, the scaling had an object of its own and the rest stood beside it.
    fn of_rope(&self, key: &str) -> Option<f64> {
        let places = [&self.0["rope_parameters"][key], &self.0["rope_scaling"][key], &self.0[key]];
        places.into_iter().find_map(Value::as_f64)
    }

    /// Reads a list of numbers of the rotary position.
    fn rope_list(&self, key: &str) -> Option<Vec<f32>> {
        let places = [&self.0["rope_parameters"][key], &self.0["rope_scaling"][key]];
        let list = places.into_iter().find_map(Value::as_array)?;
        list.iter().map(|v| v.as_f64().map(|v| v as f32)).collect()
    }

    /// Names the scaling of the rotary position.
    fn rope_kind(&self) -> &str {
        let places = [&self.0["rope_parameters"], &self.0["rope_scaling"]];
        let kind =
            |place: &&Value| place["rope_type"].as_str().or(place["type"].as_str()).is_some();
        let place = places.into_iter().find(kind);
        place.map_or("default", |place| {
            place["rope_type"].as_str().or(place["type"].as_str()).unwrap_or("default")
        })
    }

    /// Reads what all families write under the same keys; refuses what none of ours has.
    fn base(&self, architecture: Architecture) -> Result<DecoderConfig, String> {
        let (hidden_size, heads) =
            (self.number("hidden_size")?, self.number("num_attention_heads")?);
        let head_dim = self.optional("head_dim")?.unwrap_or(hidden_size / heads.max(1));
        let activation = self.0["hidden_act"].as_str().unwrap_or("silu");
        if activation != "silu" {
            return Err(format!("hidden_act is {activation:?}; only silu is computed here"));
        }
        let context = self.number("max_position_embeddings")?;
        // A token does not look beyond the window, which is not computed here: longer texts are
        // refused.
        let window = self.optional("sliding_window")?.filter(|_| self.has_window());
        let rope = RopeConfig::plain(self.of_rope("rope_theta").unwrap_or(1e4) as f32, head_dim);
        let config = DecoderConfig {
            architecture,
            hidden_size,
            intermediate_size: self.number("intermediate_size")?,
            num_hidden_layers: self.number("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: self.optional("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: self.number("vocab_size")?,
            max_position_embeddings: window.map_or(context, |window| window.min(context)),
            rope,
            rms_norm_eps: self.0["rms_norm_eps"].as_f64().ok_or("no rms_norm_eps")? as f32,
        };
        // Families make lists as long as counts say.
        config.check()?;
        Ok(config)
    }

    /// Says whether the window that is named is used, which Qwen2 says apart.
    fn has_window(&self) -> bool {
        self.0["use_sliding_window"].as_bool().unwrap_or(true)
    }

    fn is_set(&self, key: &str) -> bool {
        self.0[key].as_bool() == Some(true)
    }
}
