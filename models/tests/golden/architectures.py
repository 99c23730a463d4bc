#!/usr/bin/env python3
"""Makes the small random models of other architectures, and the numbers they have to give.

    python architectures.py [FIXTURES [OUT]]

FIXTURES is the folder to write models to (default `../fixtures/arch`), OUT the JSON file (default
`architectures.json`). README.md beside this file says what each holds and which versions made it.
"""

import argparse
import copy
import json
import math
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from make import FIXTURES, HERE, LINEARS, f32, f32s, greedy, lora_parameters, write

VOCAB = 96
ORIGINAL_CONTEXT = 64
# What every model says of itself; ids of special tokens have to lie within the vocabulary.
COMMON = {
    "vocab_size": VOCAB,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OWN = {
    "llama3": LlamaConfig(
        **COMMON,
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=2e-3,
        # With this base one wavelength stays, one is smoothed and two are stretched.
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen2": Qwen2Config(
        **COMMON,
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-3,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    ),
    "phi3": Phi3Config(
        **COMMON,
        hidden_size=32,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=3e-3,
        tie_word_embeddings=True,
        original_max_position_embeddings=ORIGINAL_CONTEXT,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.25, 1.75],
            "long_factor": [1.5, 2.5, 6.0],
        },
    ),
    "phi3_plain": Phi3Config(
        **COMMON,
        hidden_size=32,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
        },
    ),
}
ADAPTERS = {
    "llama3": {
        "r": 3,
        "lora_alpha": 5,
        "use_rslora": True,
        "rank_pattern": {"down_proj": 5},
        "alpha_pattern": {"k_proj": 11},
        "target_modules": sorted(linear.split(".")[1] for linear in LINEARS),
    },
    "qwen2": {"r": 3, "lora_alpha": 6, "target_modules": ["down_proj", "q_proj", "v_proj"]},
    "phi3": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"],
    },
}
SMALL = {**COMMON, "hidden_size": 8, "intermediate_size": 20, "rms_norm_eps": 1e-3}
ROPE = {"rope_type": "default", "rope_theta": 500.0}
# Each with the members that transformers 5 no longer writes at the top of config.json, though
# published models have them there.
FOREIGN = {
    "mistral": (
        MistralConfig(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            sliding_window=None,
            rope_parameters=dict(ROPE),
        ),
        {"rope_theta": 500.0},
    ),
    "gemma": (
        GemmaConfig(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=6,
            rope_parameters=dict(ROPE),
        ),
        {"rope_theta": 500.0},
    ),
    "gemma2": (
        Gemma2Config(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            query_pre_attn_scalar=4,
            sliding_window=64,
            final_logit_softcapping=5.0,
            attn_logit_softcapping=2.0,
            rope_parameters=dict(ROPE),
        ),
        {"rope_theta": 500.0},
    ),
    "gemma3": (
        Gemma3TextConfig(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            query_pre_attn_scalar=4,
            sliding_window=64,
            sliding_window_pattern=2,
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        ),
        {"rope_theta": 500.0, "rope_local_base_freq": 20.0, "sliding_window_pattern": 2},
    ),
    "granite": (
        GraniteConfig(
            **SMALL,
            num_attention_heads=2,
            num_key_value_heads=1,
            attention_multiplier=0.5,
            rope_parameters=dict(ROPE),
        ),
        {"rope_theta": 500.0},
    ),
    "qwen3": (
        Qwen3Config(
            **SMALL,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            tie_word_embeddings=True,
            rope_parameters=dict(ROPE),
        ),
        {"rope_theta": 500.0},
    ),
}
QUANTISED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
# Bytes of a block of 256, and where in it stand the half-precision scales.
K_QUANTS = {
    "Q2_K": (84, [80, 82]),
    "Q3_K": (110, [108]),
    "Q4_K": (144, [0, 2]),
    "Q5_K": (176, [0, 2]),
    "Q6_K": (210, [208]),
}


# --- models and adapters ------------------------------------------------------------------------


def fill(model, seed):
    """Gives every weight a random value, wide enough that each changes the logits."""
    rng = np.random.default_rng(seed)
    gemma = model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = rng.standard_normal(tuple(parameter.shape))
            if name.endswith("norm.weight"):
                # Gemma adds the one itself.
                values = values * 0.2 + (0.0 if gemma else 1.0)
            elif name.endswith(".bias"):
                values = values * 0.3
            elif "embed_tokens" in name:
                values = values * (0.5 if gemma else 1.0)
            else:
                values = values * 0.25
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def build(config, folder, seed, dtype=torch.float32, shard="1GB", extra=None):
    """Makes the model and saves it, with `extra` added to its config.json."""
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fill(model, seed)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    if extra:
        path = folder / "config.json"
        merged = {**json.loads(path.read_text()), **extra}
        path.write_text(json.dumps(dict(sorted(merged.items())), indent=2) + "\n")


def load(folder, adapter=False, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    if adapter:
        model = PeftModel.from_pretrained(model, folder / "lora", is_trainable=True)
    return model.to(dtype).eval()


def write_adapter(folder, options, seed):
    """Saves an adapter with both matrices random, as PEFT saves it, without its model card."""
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)
    model = get_peft_model(load(folder), config)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in lora_parameters(model).items():
            scale = 0.2 if "lora_A" in name else 0.3
            values = rng.standard_normal(tuple(parameter.shape)) * scale
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    target = folder / "lora"
    model.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    path = target / "adapter_config.json"
    saved = json.loads(path.read_text())
    # PEFT keeps a set and the path of this machine here.
    saved["target_modules"] = sorted(saved["target_modules"])
    saved["base_model_name_or_path"] = None
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")


# --- GGUF ---------------------------------------------------------------------------------------


def permute(weight, heads):
    """Puts the rows of q or k from half-split into interleaved rotary order."""
    split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(config):
    """What each frequency is divided by, in the words of llama.cpp's converter."""
    rope = config.rope_parameters
    context = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for i in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / config.head_dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def extra_tensors(config, writer):
    """Tensors that are no weights; phi3 sets its attention factor here."""
    rope = config.rope_parameters
    named = gguf.TENSOR_NAMES
    if rope["rope_type"] == "llama3":
        name = named[gguf.MODEL_TENSOR.ROPE_FREQS] + ".weight"
        writer.add_tensor(name, llama3_factors(config))
    elif rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for tensor, key in (("LONG", "long_factor"), ("SHORT", "short_factor")):
            name = named[gguf.MODEL_TENSOR[f"ROPE_FACTORS_{tensor}"]] + ".weight"
            writer.add_tensor(name, np.array(rope[key], dtype=np.float32))


def add_parameters(config, writer):
    """The members, in the order in which llama.cpp's converter writes them."""
    rope = config.rope_parameters
    if config.model_type == "phi3":
        rotary = int(rope["partial_rotary_factor"] * config.hidden_size)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(rotary // config.num_attention_heads)
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_sliding_window(config.sliding_window or 0)
        return
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.model_type == "llama":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if config.model_type == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(config.head_dim)


def saved_tensors(folder):
    """Yields the saved tensors in the order of the files."""
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)


def write_gguf(folder, config):
    arch = gguf.MODEL_ARCH[{"llama": "LLAMA", "qwen2": "QWEN2", "phi3": "PHI3"}[config.model_type]]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    writer = gguf.GGUFWriter(path=None, arch=gguf.MODEL_ARCH_NAMES[arch])
    extra_tensors(config, writer)
    expected = {}
    for name, weight in saved_tensors(folder):
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        linear = name.split(".")[-2]
        if config.model_type == "llama" and linear in heads:
            weight = permute(weight, heads[linear])
        expected[new_name] = weight
        writer.add_tensor(new_name, np.ascontiguousarray(weight))
    writer.add_type(gguf.GGUFType.MODEL)
    parameters = writer.get_total_parameter_count()
    writer.add_name(folder.name)
    writer.add_size_label(gguf.size_label(*parameters))
    add_parameters(config, writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    path = folder / "model.gguf"
    writer.write_header_to_file(path=path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = {t.name: t for t in gguf.GGUFReader(str(path)).tensors}
    for name, weight in expected.items():
        assert read[name].data.dtype == np.float32 and np.array_equal(read[name].data, weight)


# --- numbers ------------------------------------------------------------------------------------


def logits_case(name, models, text, ids, adapter=False, start=0, factors=None):
    """Logits at all positions from `start` on."""
    batch = torch.tensor([ids])
    with torch.no_grad():
        logits, exact = (m(batch, use_cache=False).logits[0, start:] for m in models)
    case = {"model": name, "adapter": adapter, "input": text, "length": len(ids), "start": start}
    if factors:
        case["factors"] = factors
    case["max_abs_diff_f64"] = f32((logits.double() - exact).abs().max())
    case["logits"] = [f32s(row) for row in logits]
    return case


def pair(folder, adapter=False):
    return load(folder, adapter), load(folder, adapter, torch.float64)


def rope_case(name, model):
    rotary = model.model.rotary_emb
    case = {
        "model": name,
        "inv_freq": f32s(rotary.original_inv_freq),
        "attention_factor": float(rotary.attention_scaling),
    }
    if rotary.rope_type == "longrope":
        case["inv_freq_long"] = f32s(rotary.long_inv_freq)
    return case


def greedy_case(name, model, ids):
    """Ten greedy steps, each computed anew, checked against `generate` with its cache."""
    with torch.no_grad():
        tokens, margins = greedy(model, ids, 10)
        config = copy.deepcopy(model.generation_config)
        config.update(do_sample=False, max_new_tokens=10, eos_token_id=None)
        batch = torch.tensor([ids])
        mask = torch.ones_like(batch)
        cached = model.generate(batch, attention_mask=mask, generation_config=config)
    assert cached[0, len(ids) :].tolist() == tokens
    return {
        "model": name, "input": "long", "length": len(ids), "ids": tokens, "margins": margins,
    }


def summed_loss(model, rows, labels):
    """Sum of cross-entropy over the supervised tokens, each row computed by itself."""
    total = 0.0
    for ids, target in zip(rows, labels):
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(
            logits, torch.tensor(target[1:]), ignore_index=-100, reduction="sum"
        )
    return total


def training_case(name, folder, rows, labels, supervised):
    grads, losses = [], []
    for model in pair(folder, adapter=True):
        loss = summed_loss(model, rows, labels)
        (loss / supervised).backward()
        losses.append(loss.detach())
        grads.append({k: p.grad for k, p in lora_parameters(model).items()})
    path = folder / "lora" / "grads.safetensors"
    save_file({k: g.contiguous() for k, g in grads[0].items()}, path, metadata={"format": "pt"})
    with safe_open(folder / "lora" / "adapter_model.safetensors", "pt") as file:
        assert sorted(file.keys()) == sorted(grads[0])
    assert all(float(g.abs().max()) > 1e-4 for g in grads[0].values())
    worst = max(float((g.double() - grads[1][k]).abs().max()) for k, g in grads[0].items())
    return {
        "model": name,
        "summed_loss": f32(losses[0]),
        "summed_loss_f64": float(losses[1]),
        "grad_norm": f32(torch.stack([g.norm() for g in grads[0].values()]).norm()),
        "grad_max_abs_diff_f64": f32(worst),
    }


def make_own(fixtures, inputs, document):
    short, long = inputs["short"], inputs["long"]
    for number, (name, config) in enumerate(OWN.items()):
        folder = fixtures / name
        plain = name == "phi3_plain"
        dtype = torch.bfloat16 if plain else torch.float32
        shard = "30KB" if name == "llama3" else "1GB"
        build(config, folder, 20261201 + number, dtype, shard)
        longrope = name == "phi3"
        models = pair(folder)

        def case(text, length, start=0, adapter=False, using=models):
            over = length > ORIGINAL_CONTEXT
            factors = ("long" if over else "short") if longrope else None
            ids = inputs[text][:length]
            document["logits"].append(
                logits_case(name, using, text, ids, adapter, start, factors)
            )

        case("short", len(short))
        if name in ("llama3", "phi3"):
            case("long", len(long))
        if longrope:
            case("long", ORIGINAL_CONTEXT, ORIGINAL_CONTEXT - 1)
            case("long", ORIGINAL_CONTEXT + 1, ORIGINAL_CONTEXT)
        document["rope"].append(rope_case(name, models[0]))
        document["greedy"].append(greedy_case(name, models[0], long[:60]))
        if plain:
            continue
        write_gguf(folder, config)
        write_adapter(folder, ADAPTERS[name], 20261221 + number)
        case("short", len(short), adapter=True, using=pair(folder, adapter=True))
        training = training_case(
            name, folder, inputs["rows"], inputs["labels"], inputs["supervised_tokens"]
        )
        document["training"].append(training)


def make_foreign(fixtures, short, document):
    for number, (name, (config, extra)) in enumerate(FOREIGN.items()):
        folder = fixtures / name
        build(config, folder, 20261211 + number, extra=extra)
        document["logits"].append(logits_case(name, pair(folder), "short", short))


def make_quants(fixtures):
    """Four rows of 512 numbers of every type, as bytes and as what they stand for."""
    rng = np.random.default_rng(20261231)
    tensors = {}
    for name in QUANTISED:
        kind = gguf.GGMLQuantizationType[name]
        # Rows of different size, so that scales differ.
        values = rng.standard_normal((4, 512)) * np.array([[0.05], [0.3], [1.0], [4.0]])
        data = gguf.quants.quantize(values.astype(np.float32), kind)
        tensors[name] = (kind, data.view(np.uint8))
    for name, (size, scales) in K_QUANTS.items():
        kind = gguf.GGMLQuantizationType[name]
        assert gguf.GGML_QUANT_SIZES[kind] == (256, size)
        blocks = rng.integers(0, 256, (8, size), dtype=np.uint8)
        for at in scales:
            signs = rng.choice([-1.0, 1.0, 1.0], 8)
            halves = (rng.uniform(0.001, 0.01, 8) * signs).astype(np.float16)
            blocks[:, at : at + 2] = halves.reshape(8, 1).view(np.uint8)
        tensors[name] = (kind, blocks.reshape(4, 2 * size))
    saved = {}
    for name, (kind, data) in tensors.items():
        values = gguf.quants.dequantize(data, kind)
        assert values.shape == (4, 512) and values.dtype == np.float32
        assert np.isfinite(values).all()
        saved[f"{name}.bytes"] = torch.from_numpy(data.copy())
        saved[f"{name}.f32"] = torch.from_numpy(values.copy())
    save_file(saved, fixtures / "quants.safetensors")


def make_inputs():
    rng = np.random.default_rng(20261200)

    def ids(count):
        return rng.integers(3, VOCAB, count).tolist()

    rows = [ids(22), ids(15)]
    # Row 0: 8 prompt tokens, an answer, 4 tokens that are none (an observation), an answer.
    labels = [
        [-100] * 8 + rows[0][8:13] + [-100] * 4 + rows[0][17:],
        [-100] * 6 + rows[1][6:],
    ]
    return {
        "short": ids(24),
        "long": ids(80),
        "rows": rows,
        "labels": labels,
        "supervised_tokens": sum(label != -100 for row in labels for label in row[1:]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixtures", type=Path, nargs="?", default=FIXTURES / "arch")
    parser.add_argument("out", type=Path, nargs="?", default=HERE / "architectures.json")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    fixtures = arguments.fixtures.resolve()
    fixtures.mkdir(parents=True, exist_ok=True)
    inputs = make_inputs()
    document = {"rope": [], "training": [], "greedy": [], "logits": []}
    make_own(fixtures, inputs, document)
    make_foreign(fixtures, inputs["short"], document)
    make_quants(fixtures)
    write(arguments.out.resolve(), {**inputs, **document})
    files = [path for path in fixtures.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o644)
    print(f"fixtures: {sum(path.stat().st_size for path in files)} bytes")


if __name__ == "__main__":
    main()
