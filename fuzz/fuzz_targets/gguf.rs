#![no_main]

use models::gguf::Gguf;
use models::tokenizer::Tokenizer;
use models::weights::Weights;

// Opens the input as a GGUF file and loads all that a model consists of.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("fuzz-{}.gguf", std::process::id()));
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let Ok(mut file) = Gguf::open(&path) else { return };
    if let Ok(data) = file.tokenizer() {
        let _ = Tokenizer::new(&data);
    }
    if let Ok(config) = file.config() {
        let _ = Weights::read(config, &mut file);
    }
});
