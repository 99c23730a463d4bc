#![no_main]

use models::weights::Weights;

// Loads a folder whose configuration and weights come from the input, cut at its first zero byte.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
    let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (config, weights) = data.split_at(cut);
    let weights = weights.get(1..).unwrap_or_default();
    if std::fs::create_dir_all(&folder).is_err()
        || std::fs::write(folder.join("config.json"), config).is_err()
        || std::fs::write(folder.join("model.safetensors"), weights).is_err()
    {
        return;
    }
    let _ = Weights::from_folder(&folder);
});
