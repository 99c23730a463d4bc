//! Every architecture against transformers and PEFT, from safetensors and from GGUF.

use std::sync::Arc;

use models::Network;
use models::architectures::Architecture;
use models::decode::Decoder;
use models::gguf::Gguf;
use models::kernels::{Factor, isa};
use models::kernels::{Format, Isa, Mat, MatMut, Product, Stored};
use models::lora::Adapter;
use models::optim::Schedule;
use models::peft;
use models::render::TrainingRow;
use models::trainer::{Target, TrainSpec, Trainer};
use models::weights::Weights;
use serde_json::Value;

use super::{floats, golden, here, ids, list};

fn dir(model: &str) -> std::path::PathBuf {
    here("fixtures/arch").join(model)
}

fn adapter(model: &str, weights: &Weights) -> Adapter {
    let dir = dir(model).join("lora");
    let config = std::fs::read(dir.join("adapter_config.json")).unwrap();
    let data = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    peft::read(&config, &data, &weights.config).unwrap()
}

/// Returns the weights of a model from each kind of file that there is.
fn weights(model: &str) -> Vec<Weights> {
    let mut all = vec![Weights::from_folder(&dir(model)).unwrap()];
    let gguf = dir(model).join("model.gguf");
    if gguf.exists() {
        let mut file = Gguf::open(&gguf).unwrap();
        all.push(Weights::read(file.config().unwrap(), &mut file).unwrap());
    }
    all
}

fn is_ours(model: &Value) -> bool {
    ["llama3", "qwen2", "phi3", "phi3_plain"].contains(&model.as_str().unwrap())
}

#[test]
fn logits_of_every_architecture_match_transformers() {
    let golden = golden("architectures.json");
    let mut seen = 0;
    for case in list(&golden["logits"]).iter().filter(|case| is_ours(&case["model"])) {
        // Beyond the context of its first training a Phi would need its other factors.
        if case["factors"] == "long" {
            continue;
        }
        let name = case["model"].as_str().unwrap();
        let length = case["length"].as_u64().unwrap() as usize;
        let text = &ids(&golden[case["input"].as_str().unwrap()])[..length];
        for mut weights in weights(name) {
            if case["adapter"] == true {
                weights = weights.merged(&adapter(name, &weights)).unwrap();
            }
            let vocabulary = weights.config.vocab_size;
            let got = Decoder::new(Arc::new(weights), 256).text_logits(text).unwrap();
            let start = case["start"].as_u64().unwrap() as usize;
            let want: Vec<f64> = list(&case["logits"]).iter().flat_map(floats).collect();
            let got = &got[start * vocabulary..];
            assert_eq!(got.len(), want.len());
            let off = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs());
            let off = off.fold(0.0, f64::max);
            let most = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            assert!(off <= 1e-5 * most, "{name} {length}: off by {off} of {most}");
            seen += 1;
        }
    }
    assert_eq!(seen, 17);
}

#[test]
fn a_text_beyond_the_first_context_of_a_phi_is_refused() {
    let weights = Weights::from_folder(&dir("phi3")).unwrap();
    let decoder = Decoder::new(Arc::new(weights), 256);
    let text = ids(&golden("architectures.json")["long"]);
    assert!(decoder.text_logits(&text[..64]).is_ok());
    let error = decoder.text_logits(&text[..65]).err().unwrap().to_string();
    assert!(error.contains("65 tokens") && error.contains("context of 64"), "{error}");
}

fn spec(isa: Isa, recompute: bool) -> TrainSpec {
    TrainSpec {
        target: Target::default(),
        rate: 1e-3,
        schedule: Schedule::Constant,
        warmup: 0,
        steps: 1,
        weight_decay: 0.0,
        clip: 1.0,
        seed: 0,
        longest: 64,
        isa,
        recompute,
    }
}

#[test]
fn gradients_of_every_architecture_match_peft() {
    let golden = golden("architectures.json");
    let rows: Vec<TrainingRow> = list(&golden["rows"])
        .iter()
        .zip(list(&golden["labels"]))
        .map(|(row, labels)| TrainingRow {
            ids: ids(row),
            supervised: list(labels).iter().map(|v| v.as_i64() != Some(-100)).collect(),
            truncated: false,
        })
        .collect();
    let rows: Vec<&TrainingRow> = rows.iter().collect();
    for case in list(&golden["training"]) {
        let name = case["model"].as_str().unwrap();
        for weights in weights(name) {
            let adapter = adapter(name, &weights);
            let grads = std::fs::read(dir(name).join("lora/grads.safetensors")).unwrap();
            let config = std::fs::read(dir(name).join("lora/adapter_config.json")).unwrap();
            let want = peft::read(&config, &grads, &weights.config).unwrap();
            let weights = Arc::new(weights);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here() && *isa != Isa::Amx) {
                let both = [false, true].map(|recompute| {
                    let spec = spec(isa, recompute);
                    let trainer = Trainer::new(Arc::clone(&weights), &adapter, spec).unwrap();
                    trainer.gradient(&rows).unwrap()
                });
                assert_eq!(both[0].1, both[1].1, "{name}: computed again");
                close_to(&both[0].1, &stock_gradient(&weights, &adapter, &rows), 2e-5);
                let (loss, got) = both[0].clone();
                let supervised = golden["supervised_tokens"].as_f64().unwrap();
                let summed = case["summed_loss_f64"].as_f64().unwrap();
                assert!((loss - summed / supervised).abs() < 2e-5, "{name}: {loss}");
                close_to(&got, &want, 2e-5);
            }
        }
    }
}

/// The gradient by stock operations, which are what computes on a GPU.
fn stock_gradient(weights: &Arc<Weights>, adapter: &Adapter, rows: &[&TrainingRow]) -> Adapter {
    let spec = TrainSpec { target: Target::Twins, ..spec(Isa::Scalar, false) };
    Trainer::new(Arc::clone(weights), adapter, spec).unwrap().gradient(rows).unwrap().1
}

fn close_to(got: &Adapter, want: &Adapter, may: f64) {
    let (mut off, mut all) = (0.0, 0.0);
    for (key, want) in &want.pairs {
        let got = &got.pairs[key];
        let pairs = got.a.iter().zip(&want.a).chain(got.b.iter().zip(&want.b));
        for (got, want) in pairs {
            off += f64::from(got - want).powi(2);
            all += f64::from(*want).powi(2);
        }
    }
    let off = (off / all).sqrt();
    assert!(off < may, "off by {off} of the whole");
}

#[test]
fn greedy_answers_match_transformers() {
    let golden = golden("architectures.json");
    for case in list(&golden["greedy"]) {
        let name = case["model"].as_str().unwrap();
        let length = case["length"].as_u64().unwrap() as usize;
        let want = ids(&case["ids"]);
        let prompt = ids(&golden[case["input"].as_str().unwrap()])[..length].to_vec();
        for weights in weights(name) {
            // The cache would have to be made again where a Phi's factors change.
            let room = weights.config.max_position_embeddings - length;
            let want = &want[..want.len().min(room)];
            let decoder = Decoder::new(Arc::new(weights), 256);
            let prompts = [prompt.clone(), prompt[..9].to_vec()];
            let got = decoder.generate(&prompts, want.len(), u32::MAX, 2, &mut |_| {}).unwrap();
            assert_eq!(got[0].ids, want, "{name}");
        }
    }
}

#[test]
fn every_format_is_unpacked_as_the_reference_unpacks_it() {
    let path = here("fixtures/arch/quants.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
    for format in Format::ALL.into_iter().filter(|format| *format != Format::F32) {
        let take = |what: &str| tensors[&format!("{}.{what}", format.name())].clone();
        let bytes = take("bytes").flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let want = take("f32").flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let stored = Stored::packed(format, bytes, 512).unwrap();
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let got = stored.to_vec();
        let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(
            off <= 1e-6 * want.iter().fold(0.0, |most: f32, v| most.max(v.abs())),
            "{format:?}"
        );
        // From any place on, and of any length.
        for (from, len) in [(0, 512), (32, 64), (5, 100), (31, 2), (256, 256), (500, 12)] {
            let mut out = vec![f32::NAN; len];
            stored.read(2, from, &mut out);
            assert_eq!(bits(&out), bits(&got[2 * 512 + from..][..len]), "{format:?} {from} {len}");
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            products_with(isa, &stored, &got);
        }
    }
}

/// A product with a packed factor has the bits of one with its numbers.
fn products_with(isa: Isa, stored: &Stored, numbers: &[f32]) {
    let x: Vec<f32> = (0..3 * 512).map(|i| (i as f32 * 0.3).sin()).collect();
    let run = |a: Mat<'_>, b: Factor<'_>, cols: usize| {
        let mut out = vec![f32::NAN; a.rows() * cols];
        Product::new(isa).run(MatMut::new(&mut out, cols), a, b);
        out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let format = stored.format();
    let plain = Mat::new(numbers, 512);
    let forward = Mat::new(&x, 512);
    let turned = Factor::turned(stored);
    assert_eq!(run(forward, turned, 4), run(forward, plain.t().into(), 4), "{format:?} {isa:?}");
    let back = Mat::new(&x[..12], 4);
    assert_eq!(run(back, stored.into(), 512), run(back, plain.into(), 512), "{format:?} {isa:?}");
    let some = stored.slice(1, 2);
    let plain = Mat::new(&numbers[512..3 * 512], 512);
    assert_eq!(run(forward, Factor::turned(&some), 2), run(forward, plain.t().into(), 2));
}

#[test]
fn modules_that_a_family_lacks_are_named() {
    use models::lora::Module::{
        DownProj, GateProj, GateUpProj, KProj, QProj, QkvProj, UpProj, VProj,
    };
    let all = [QProj, KProj, VProj, GateProj, UpProj, DownProj];
    let adapted = Architecture::Phi3.adapted(&all).unwrap();
    assert_eq!(adapted, [DownProj, QkvProj, GateUpProj]);
    let error = Architecture::Phi3.adapted(&[QProj, VProj]).unwrap_err();
    assert!(error.contains("q_proj") && error.contains("qkv_proj"), "{error}");
    assert!(Architecture::Llama.adapted(&[QkvProj]).is_err());
    let _ = isa();
}

#[test]
fn other_families_are_evaluated_and_not_trained() {
    let golden = golden("architectures.json");
    let mut seen = 0;
    for case in list(&golden["logits"]).iter().filter(|case| !is_ours(&case["model"])) {
        let name = case["model"].as_str().unwrap();
        let network = Network::of_folder(&dir(name)).unwrap();
        let error = network.weights().err().unwrap().to_string();
        assert!(error.contains("not trained") && error.contains("qwen2"), "{error}");
        let text = ids(&golden["short"]);
        let decoder = Decoder::of(network, 256);
        let got = decoder.text_logits(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want: Vec<f64> = list(&case["logits"]).iter().flat_map(floats).collect();
        assert_eq!(got.len(), want.len());
        let off = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs());
        let off = off.fold(0.0, f64::max);
        let most = want.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        assert!(off <= 2e-5 * most, "{name}: off by {off} of {most}");
        // Read at once, a prompt is answered as it is token by token.
        let last = &got[(text.len() - 1) * 96..];
        let best = (0..96).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap() as u32;
        let answers = decoder.generate(&[text], 3, u32::MAX, 1, &mut |_| {}).unwrap();
        assert_eq!(answers[0].ids[0], best, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn what_candle_leaves_out_is_refused() {
    let cases = [
        ("granite", "residual_multiplier", 0.5.into()),
        ("gemma2", "query_pre_attn_scalar", 9.into()),
        ("mistral", "rope_scaling", serde_json::json!({"rope_type": "yarn"})),
    ];
    for (name, key, value) in cases {
        let folder = tempfile::tempdir().unwrap();
        let from = dir(name);
        std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors"))
            .unwrap();
        let text = std::fs::read_to_string(from.join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = Network::of_folder(folder.path()).err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
    }
}
