#!/usr/bin/env python3
"""Makes the golden files of this folder from transformers and PEFT.

    python make.py path/to/SmolLM2-135M-Instruct.Q4_1.gguf

README.md beside this file says what each file holds and which versions made it.
"""

import argparse
import copy
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from jinja2.exceptions import UndefinedError
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from texts import BAD_CONVERSATIONS, CONVERSATIONS, LOSS_TEXT, PROMPTS, TEXTS

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LINEARS = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
PACKAGES = ["torch", "transformers", "peft", "gguf", "numpy", "safetensors", "tokenizers"]


def f32(value):
    """Returns the shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def f32s(values):
    return [f32(v) for v in values]


def write(name, document):
    """Writes one list item or object member a line, so that changes show as lines."""
    document = {"versions": {p: version(p) for p in PACKAGES}, **document}
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            items = ",\n".join("  " + json.dumps(v, ensure_ascii=False) for v in value)
            lines.append(f"{json.dumps(key)}: [\n{items}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    assert json.loads(text) == document
    (HERE / name).write_text(text, encoding="utf-8")
    print(f"{name}: {len(text.encode())} bytes")


# --- tokenizer and template ---------------------------------------------------------------------


def build_tokenizer(reader):
    """Builds the tokenizer that the file's `tokenizer.ggml.pre = smollm` declares.

    Digits stand alone, then the byte-level GPT-2 split. transformers does not read `pre` and
    leaves the digit step out, so it cannot be the reference where the two differ.
    """

    def field(name):
        return reader.fields[f"tokenizer.ggml.{name}"].contents()

    assert (field("model"), field("pre")) == ("gpt2", "smollm")
    vocab = {token: i for i, token in enumerate(field("tokens"))}
    merges = [tuple(m.split(" ")) for m in field("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(field("tokens"), field("token_type")) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer, special


def make_tokens(tokenizer, special, from_transformers):
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        row = {"text": text, "ids": ids}
        if any(token in text for token in special):
            tokenizer.encode_special_tokens = True
            row["plain_ids"] = tokenizer.encode(text).ids
            tokenizer.encode_special_tokens = False
            row["without_special"] = tokenizer.decode(ids, skip_special_tokens=True)
        theirs = from_transformers(text).input_ids
        if theirs != ids:
            row["transformers_ids"] = theirs
        rows.append(row)
    differing = sum("transformers_ids" in row for row in rows)
    print(f"tokens: {len(rows)} texts, transformers differs on {differing}")
    write("tokens.json", {"special": special, "cases": rows})


def make_template(tokenizer, from_transformers):
    rows = []
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            text = from_transformers.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
            ids = tokenizer.encode(text).ids
            rows.append(
                {"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": ids}
            )
    bad = []
    for messages in BAD_CONVERSATIONS:
        try:
            from_transformers.apply_chat_template(messages, tokenize=False)
            raise SystemExit(f"rendered, should not have: {messages}")
        except (TypeError, UndefinedError) as error:
            bad.append({"messages": messages, "python_error": str(error)})
    write(
        "template.json",
        {"template": from_transformers.chat_template, "cases": rows, "errors": bad},
    )


# --- logits of the real model -------------------------------------------------------------------


def greedy(model, ids, steps):
    """Continues greedily without a cache; returns ids and the margin over the runner-up."""
    out, margins = list(ids), []
    for _ in range(steps):
        top = model(torch.tensor([out]), use_cache=False).logits[0, -1].topk(2)
        margins.append(f32(top.values[0] - top.values[1]))
        out.append(int(top.indices[0]))
    return out[len(ids) :], margins


def prompt_case(model, double, tokenizer, prompt, fixed):
    ids = tokenizer.encode(prompt["text"]).ids
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    exact = double(torch.tensor([ids]), use_cache=False).logits[0, -1]
    top = logits.topk(20)
    tokens, margins = greedy(model, ids, 24)
    return {
        **prompt,
        "ids": ids,
        "top": [[int(i), f32(v)] for i, v in zip(top.indices, top.values)],
        "fixed_values": f32s(logits[fixed]),
        "logsumexp": f32(torch.logsumexp(logits, 0)),
        "max_abs_diff_f64": f32((logits.double() - exact).abs().max()),
        "greedy_ids": tokens,
        "greedy_margins": margins,
        "greedy_text": tokenizer.decode(tokens, skip_special_tokens=False),
    }


def loss_case(model, double, tokenizer):
    ids = tokenizer.encode(LOSS_TEXT).ids
    batch = torch.tensor([ids])
    logprobs = torch.log_softmax(model(batch).logits[0, :-1], -1)
    exact = torch.log_softmax(double(batch).logits[0, :-1], -1)
    target = batch[0, 1:, None]
    picked = logprobs.gather(1, target)[:, 0]
    loss = float(model(batch, labels=batch).loss)
    assert abs(loss + float(picked.mean())) < 1e-5
    return {
        "text": LOSS_TEXT,
        "ids": ids,
        "logprobs": f32s(picked),
        "mean_loss": f32(loss),
        "max_abs_diff_f64": f32((picked.double() - exact.gather(1, target)[:, 0]).abs().max()),
    }


def weight_cases(model, reader):
    """Spot checks of the dequantised weights, in row order of transformers (half-split rope)."""
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
        "blk.0.attn_k.weight": "model.layers.0.self_attn.k_proj.weight",
        "blk.17.attn_v.weight": "model.layers.17.self_attn.v_proj.weight",
        "blk.17.attn_output.weight": "model.layers.17.self_attn.o_proj.weight",
        "blk.29.ffn_gate.weight": "model.layers.29.mlp.gate_proj.weight",
        "blk.29.ffn_up.weight": "model.layers.29.mlp.up_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
    }
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    state = model.state_dict()
    cases = []
    for gguf_name, name in names.items():
        weight = state[name]
        case = {"gguf": gguf_name, "type": kinds[gguf_name], "name": name}
        case["shape"] = list(weight.shape)
        case["sum"] = float(weight.double().sum())
        case["sum_squares"] = float(weight.double().square().sum())
        # The second row tells half-split from interleaved rope order in q and k.
        case["row_0"] = f32s(weight.reshape(-1, weight.shape[-1])[0, :8])
        if weight.dim() == 2:
            case["row_1"] = f32s(weight[1, :8])
        cases.append(case)
    return cases


def make_logits(gguf, tokenizer, from_transformers, reader):
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    double = copy.deepcopy(model).double()
    fixed = [(i * 769 + 13) % 49152 for i in range(64)]
    prompts = []
    for prompt in PROMPTS:
        text = from_transformers.apply_chat_template(
            prompt["messages"], tokenize=False, add_generation_prompt=True
        )
        prompts.append({**prompt, "text": text})
    with torch.no_grad():
        document = {
            "gguf_sha256": GGUF_SHA256,
            "fixed_indices": fixed,
            "prompts": [prompt_case(model, double, tokenizer, p, fixed) for p in prompts],
            "loss": loss_case(model, double, tokenizer),
            "weights": weight_cases(model, reader),
        }
    write("logits.json", document)


# --- LoRA on the tiny random model --------------------------------------------------------------


def write_adapter():
    """Writes the adapter on all seven linears, and norm weights that are not all 1."""
    rng = np.random.default_rng(20261123)
    state = load_file(FIXTURES / "tiny-random-llama" / "model.safetensors")
    tensors, norms = {}, {}
    for layer in range(2):
        for linear in LINEARS:
            rows, columns = state[f"model.layers.{layer}.{linear}.weight"].shape
            prefix = f"base_model.model.model.layers.{layer}.{linear}"
            for part, shape, scale in (("A", (4, columns), 0.2), ("B", (rows, 4), 0.3)):
                values = (rng.standard_normal(shape) * scale).astype(np.float32)
                tensors[f"{prefix}.lora_{part}.weight"] = torch.from_numpy(values)
    for name in sorted(n for n in state if n.endswith("norm.weight")):
        values = (1.0 + 0.4 * rng.standard_normal(64)).astype(np.float32)
        norms[name] = torch.from_numpy(values)
    folder = FIXTURES / "tiny-random-llama-lora-all"
    folder.mkdir(exist_ok=True)
    shipped = FIXTURES / "tiny-random-llama-lora" / "adapter_config.json"
    config = json.loads(shipped.read_text())
    config["target_modules"] = sorted(linear.split(".")[1] for linear in LINEARS)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    norms_path = FIXTURES / "tiny-random-llama-norms.safetensors"
    for values, path in ((tensors, folder / "adapter_model.safetensors"), (norms, norms_path)):
        save_file(values, path, metadata={"format": "pt"})
        path.chmod(0o644)


def tiny(norms, adapter, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(
        FIXTURES / "tiny-random-llama", dtype=torch.float32, attn_implementation="eager"
    )
    if norms:
        override = load_file(FIXTURES / "tiny-random-llama-norms.safetensors")
        missing, unexpected = model.load_state_dict(override, strict=False)
        assert not unexpected and len(override) == 5
    if adapter:
        model = PeftModel.from_pretrained(model, FIXTURES / adapter, is_trainable=True)
    return model.to(dtype)


def tiny_logits(norms, adapter, sequences, fixed):
    model, double = tiny(norms, adapter).eval(), tiny(norms, adapter, torch.float64).eval()
    rows = []
    for ids in sequences:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
            exact = double(torch.tensor([ids])).logits[0]
        top = logits.topk(8, -1)
        rows.append(
            {
                "top_ids": top.indices.tolist(),
                "top_values": [f32s(v) for v in top.values],
                "fixed_values": [f32s(v) for v in logits[:, fixed]],
                "max_abs_diff_f64": f32((logits.double() - exact).abs().max()),
            }
        )
    return {"norms": norms, "adapter": adapter, "sequences": rows}


def lora_parameters(model):
    return {
        name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad
    }


def gradients(model, batch):
    model.train()
    model.zero_grad()
    out = model(**batch)
    logprobs = torch.log_softmax(out.logits[:, :-1].double(), -1)
    target = batch["labels"][:, 1:]
    kept = target != -100
    by_hand = -logprobs.gather(2, target.clamp(min=0)[..., None])[..., 0][kept].mean()
    assert abs((out.loss - by_hand).item()) < 1e-5
    out.loss.backward()
    return out.loss, lora_parameters(model)


def train(norms, adapter, batch, dtype):
    """Runs three AdamW steps; returns per-step figures, first gradients, and final weights."""
    model = tiny(norms, adapter, dtype)
    parameters = list(lora_parameters(model).values())
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, foreach=False
    )
    steps, first = [], None
    for _ in range(3):
        loss, named = gradients(model, batch)
        if first is None:
            first = {name: p.grad.detach().clone() for name, p in named.items()}
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        steps.append({"loss": f32(loss.detach()), "grad_norm": f32(norm)})
        optimizer.step()
    with torch.no_grad():
        model.eval()
        after = f32(model(**batch).loss)
    weights = {name: p.detach() for name, p in lora_parameters(model).items()}
    return steps, first, weights, after


def training_case(norms, adapter, batch):
    steps, grads, weights, after = train(norms, adapter, batch, torch.float32)
    _, grads64, weights64, _ = train(norms, adapter, batch, torch.float64)
    tensors = []
    for name, grad in grads.items():
        tensors.append(
            {
                "name": name,
                "shape": list(grad.shape),
                "grad_norm": f32(grad.norm()),
                "grad": f32s(grad.flatten()[:8]),
                "grad_max_abs_diff_f64": f32((grad.double() - grads64[name]).abs().max()),
                "after": f32s(weights[name].flatten()[:8]),
                "after_sum": float(weights[name].double().sum()),
                "after_max_abs_diff_f64": f32(
                    (weights[name].double() - weights64[name]).abs().max()
                ),
            }
        )
    return {
        "norms": norms,
        "adapter": adapter,
        "steps": steps,
        "loss_after": after,
        "tensors": tensors,
    }


def make_lora():
    write_adapter()
    sequences = [
        [1, 17, 301, 44, 5, 5, 509, 230, 77, 128, 2, 63],
        [(i * i * 7 + 3 * i + 1) % 512 for i in range(40)],
    ]
    fixed = [(i * 37 + 5) % 512 for i in range(16)]
    variants = [
        (norms, adapter)
        for norms in (False, True)
        for adapter in (None, "tiny-random-llama-lora", "tiny-random-llama-lora-all")
    ]
    rows = [
        [1, 90, 411, 33, 250, 8, 8, 176, 499, 62, 305, 2],
        [1, 71, 12, 387, 204, 55, 140, 2, 0, 0, 0, 0],
    ]
    # Row 0: 5 prompt tokens; an unsupervised stretch inside (observations). Row 1: 3, then pads.
    labels = [
        [-100] * 5 + [8, 8, -100, -100, 62, 305, 2],
        [-100] * 3 + [387, 204, 55, 140, 2] + [-100] * 4,
    ]
    mask = [[1] * 12, [1] * 8 + [0] * 4]
    batch = {
        "input_ids": torch.tensor(rows),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor(mask),
    }
    # A token at position i + 1 is predicted from position i, so the first label never counts.
    supervised = sum(label != -100 for row in labels for label in row[1:])
    write(
        "lora.json",
        {
            "sequences": sequences,
            "fixed_indices": fixed,
            "logits": [tiny_logits(n, a, sequences, fixed) for n, a in variants],
            "batch": {"input_ids": rows, "labels": labels, "attention_mask": mask},
            "supervised_tokens": supervised,
            "optimizer": {
                "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip": 1.0,
            },
            "training": [training_case(n, a, batch) for n, a in variants if a],
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    gguf = parser.parse_args().gguf.resolve()
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"{gguf} has digest {digest}, the goldens need {GGUF_SHA256}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    reader = GGUFReader(str(gguf))
    tokenizer, special = build_tokenizer(reader)
    from_transformers = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    make_tokens(tokenizer, special, from_transformers)
    make_template(tokenizer, from_transformers)
    make_lora()
    make_logits(gguf, tokenizer, from_transformers, reader)


if __name__ == "__main__":
    main()
