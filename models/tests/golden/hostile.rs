//! Files that are cut, damaged or made to harm: an error that names the place, never a panic.

use std::path::Path;

use models::gguf::Gguf;
use models::tokenizer::Tokenizer;
use models::weights::Weights;
use models::{Model, ModelError, tiny};
use proptest::prelude::*;

use super::here;

/// Does with a file what loading a model does.
fn load(path: &Path) -> Result<(), ModelError> {
    let mut file = Gguf::open(path)?;
    let data = file.tokenizer();
    let config = file.config()?;
    Tokenizer::new(&data?)?;
    Weights::read(config, &mut file).map(|_| ())
}

fn tiny_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    tiny::write(&path, 1).unwrap();
    std::fs::read(path).unwrap()
}

fn said(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    load(&path).map_err(|error| error.to_string())
}

/// Where a text stands in a file.
fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_gguf_is_an_error_or_another_model(
        changes in prop::collection::vec((0_usize..14_000, any::<u8>()), 1..6),
        cut in prop::option::of(0_usize..200_000),
    ) {
        let mut bytes = tiny_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        let _ = said(&bytes);
    }

    #[test]
    fn a_damaged_folder_is_an_error_or_another_model(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        config_changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let from = here("fixtures/arch/phi3");
        let read = |name: &str| std::fs::read(from.join(name)).unwrap();
        let (mut weights, mut config) = (read("model.safetensors"), read("config.json"));
        for (at, byte) in changes {
            // Most of the file are numbers; what steers stands before them.
            let at = at.index(4000);
            weights[at] = byte;
        }
        for (at, byte) in config_changes {
            let at = at.index(config.len());
            config[at] = byte;
        }
        if let Some(cut) = cut {
            weights.truncate(cut.index(weights.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let _ = Weights::from_folder(folder.path());
    }
}

#[test]
fn absurd_lengths_and_shapes_are_refused_before_memory_is_asked_for() {
    let whole = tiny_bytes();
    assert_eq!(said(&whole), Ok(()));
    let key = "general.architecture";
    let at = find(&whole, key);
    let mut bytes = whole.clone();
    bytes[at - 8..at].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(said(&bytes).unwrap_err().contains("are promised"));
    // Counts of tensors and of values.
    for at in [8, 16] {
        let mut bytes = whole.clone();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(said(&bytes).is_err());
    }
    let name = "blk.0.attn_q.weight";
    let at = find(&whole, name) + name.len();
    for (dims, shape) in [(2_u32, u64::MAX), (2, 1 << 61), (9, 32), (2, 0)] {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&dims.to_le_bytes());
        bytes[at + 4..at + 12].copy_from_slice(&shape.to_le_bytes());
        let error = said(&bytes).unwrap_err();
        assert!(error.contains("attn_q"), "{dims} {shape}: {error}");
    }
    let mut bytes = whole.clone();
    bytes[at + 20..at + 24].copy_from_slice(&77_u32.to_le_bytes());
    assert!(said(&bytes).unwrap_err().contains("unknown type 77"));
    let count = "llama.attention.head_count";
    let at = find(&whole, count) + count.len() + 4;
    for heads in [0_u32, 3, 7, u32::MAX] {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&heads.to_le_bytes());
        assert!(said(&bytes).is_err(), "{heads} heads");
    }
}

#[test]
fn weights_that_are_no_numbers_are_named_with_their_row() {
    let mut bytes = tiny_bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let numbers = Gguf::open(&path).unwrap().plain("token_embd.weight").unwrap().unwrap();
    let row: Vec<u8> = numbers[64..96].iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = bytes.windows(row.len()).position(|window| window == row).unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = said(&bytes).unwrap_err();
    assert!(error.contains("model.embed_tokens.weight") && error.contains("row 2"), "{error}");
}

#[test]
fn shards_that_are_missing_or_lead_elsewhere_are_named() {
    let from = here("fixtures/arch/llama3");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&from).unwrap().flatten().filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let load = || Weights::from_folder(folder.path()).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(load(), Ok(()));
    let shard = folder.path().join("model-00002-of-00003.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 4]).unwrap();
    assert!(load().unwrap_err().contains("model-00002-of-00003"), "{:?}", load());
    std::fs::write(&shard, [&(u64::MAX - 7).to_le_bytes()[..], &bytes[8..]].concat()).unwrap();
    assert!(load().unwrap_err().contains("a header of"), "{:?}", load());
    std::fs::remove_file(&shard).unwrap();
    assert!(load().unwrap_err().contains("model-00002-of-00003"), "{:?}", load());
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let leading = text.replace("model-00002-of-00003", "../../model-00002-of-00003");
    std::fs::write(&index, leading).unwrap();
    assert!(load().unwrap_err().contains("no file name"), "{:?}", load());
}

#[test]
fn a_model_without_what_it_needs_says_what() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let whole = tiny_bytes();
    for (key, word) in
        [("tokenizer.ggml.eos_token_id", "eos_token_id"), ("tokenizer.chat_template", "template")]
    {
        let mut bytes = whole.clone();
        let at = find(&bytes, key);
        bytes[at] = b'x';
        std::fs::write(&path, &bytes).unwrap();
        let error = Model::load(&path).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    let mut bytes = whole;
    // Behind the key stand a kind and a length.
    let key = "general.architecture";
    let at = find(&bytes, key) + key.len() + 12;
    let text = &mut bytes[at..at + 5];
    assert_eq!(text, b"llama");
    text.copy_from_slice(b"mamba");
    std::fs::write(&path, &bytes).unwrap();
    let error = Model::load(&path).err().unwrap().to_string();
    assert!(error.contains("mamba") && error.contains("phi3"), "{error}");
}

#[test]
fn counts_that_no_memory_holds_are_refused_before_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let from = here("fixtures/arch/llama3");
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    std::fs::copy(
        from.join("model-00001-of-00003.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    let most = u64::MAX / 2 + 1;
    for key in ["head_dim", "hidden_size", "num_hidden_layers", "vocab_size"] {
        for value in [0, 1 << 50, most] {
            for kind in ["llama3", "linear"] {
                let mut config = whole.clone();
                config[key] = value.into();
                config["rope_parameters"]["rope_type"] = kind.into();
                std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
                let error = Weights::from_folder(folder.path()).err().unwrap().to_string();
                assert!(error.contains(key), "{key} {value}: {error}");
            }
        }
    }
}
