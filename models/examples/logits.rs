//! Writes the logits of a text as raw f32, [tokens, vocabulary], so that other programs can be held
//! against them:
//!
//! `cargo run --release -p models --example logits -- MODEL OUT ID,ID,... [ADAPTER]`
//!
//! MODEL is a GGUF file or a folder as transformers writes it, ADAPTER a folder that PEFT or
//! `ledger adapter export` wrote.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use models::Network;
use models::decode::Decoder;
use models::gguf::Gguf;
use models::weights::Weights;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, ids, rest @ ..] = args.as_slice() else {
        return Err("usage: logits MODEL OUT ID,ID,... [ADAPTER]".into());
    };
    let path = Path::new(model);
    let mut network = if path.is_dir() {
        Network::of_folder(path)?
    } else {
        let mut file = Gguf::open(path)?;
        Network::Ours(Arc::new(Weights::read(file.config()?, &mut file)?))
    };
    if let Some(folder) = rest.first() {
        let weights = network.weights()?;
        let read = |name: &str| std::fs::read(Path::new(folder).join(name));
        let (config, tensors) = (read("adapter_config.json")?, read("adapter_model.safetensors")?);
        let adapter = models::peft::read(&config, &tensors, &weights.config)?;
        network = Network::Ours(Arc::new(weights.merged(&adapter)?));
    }
    let ids = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let logits = Decoder::of(network, usize::MAX).text_logits(&ids)?;
    std::fs::write(out, logits.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}
