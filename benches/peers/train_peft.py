"""Trains a LoRA adapter with PyTorch, transformers and PEFT, and says how fast that is.

    python train_peft.py --model DIR --variant f32 [--rows 4] [--length 256] [--steps 6]
                         [--threads 2] [--rank 16] [--seed 0] [--warmup 2] [--b-std 0]
                         [--start DIR] [--save-start DIR] [--dump DIR]

DIR holds a model as transformers saves it (config.json, model.safetensors); nothing is downloaded.

What is trained is fixed, so that another engine can do exactly the same:

- LoRA with alpha = 2 * rank and no dropout on the seven linear layers of each block, all in f32.
- One batch, the same in each step. Position i of row r is the token
  (r * 7919 + i * 104729 + 17) mod (size of the vocabulary). No padding; each row is a sequence of
  its own, and each position but the last is asked for its next token. The loss is the mean
  over all rows * (length - 1) of them.
- AdamW: learning rate 6e-4, betas .9 and .999, epsilon 1e-8, no weight decay, no schedule.
  Gradients are clipped to a norm of 1 over all of them together.

Variants:

- f32: everything in f32
- bf16-autocast: weights in f32, matrix products in bfloat16 by autocast
- bf16-base: the base's weights in bfloat16, the adapter's in f32, autocast as well

Attention is PyTorch's scaled_dot_product_attention and AdamW its fused kernel; activations are
kept rather than computed again.

One line of JSON is printed. `losses` has every step, those of the warm-up first; `step_seconds` and
`tokens_per_second` (all rows * length tokens by the median step) leave the warm-up out. A step is
forward, backward, clipping and the optimizer's step. `peak_rss_mb` is in MiB, of the whole process,
loading included; `import_rss_mb` is what the libraries alone had taken before the model was loaded
(PyTorch's wheels for CUDA take several hundred MiB of it, for a CPU as well).

`--save-start` writes the adapter before training as PEFT does (a folder with adapter_config.json
and adapter_model.safetensors), `--start` begins with such a folder. B is zero in a new adapter,
and then no gradient reaches A in the first step: `--b-std` draws B from a normal distribution.

`--dump` writes into a folder: gradients.safetensors, the gradients of the first step (of the
warm-up, where there is one) before clipping, in f32, under the names that
adapter_model.safetensors has; losses.json, the losses and the norms of the gradients, before
clipping, of every step. What it costs is not in the times of steps, but may be in `peak_rss_mb`.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 6e-4
CLIP = 1.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--variant", required=True, choices=["f32", "bf16-autocast", "bf16-base"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6, help="steps behind the warm-up")
    parser.add_argument("--warmup", type=int, default=2, help="steps that are not timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of a new adapter")
    parser.add_argument("--b-std", type=float, default=0.0, help="B of a new adapter; 0: zero")
    parser.add_argument("--start", metavar="DIR", help="adapter to begin with")
    parser.add_argument("--save-start", metavar="DIR", help="write the adapter before training")
    parser.add_argument("--dump", metavar="DIR", help="write losses and first gradients")
    args = parser.parse_args()
    if args.steps < 1 or args.warmup < 0:
        parser.error("at least one step must be timed")
    if args.start and args.b_std:
        parser.error("--b-std is for a new adapter, --start has one")
    return args


def batch(rows, length, vocabulary):
    row = torch.arange(rows, dtype=torch.int64)[:, None]
    at = torch.arange(length, dtype=torch.int64)[None, :]
    return (row * 7919 + at * 104729 + 17) % vocabulary


def with_adapter(base, args):
    """The base, frozen, with an adapter in f32: a new one, or that of --start."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=args.rank,
        lora_alpha=2 * args.rank,
        lora_dropout=0.0,
        target_modules=TARGETS,
        bias="none",
    )
    torch.manual_seed(args.seed)
    model = peft.get_peft_model(base, config, autocast_adapter_dtype=True)
    if args.start:
        load_start(model, config, args.start)
    elif args.b_std:
        with torch.no_grad():
            for name, tensor in adapter_parameters(model).items():
                if "lora_B" in name:
                    tensor.normal_(0.0, args.b_std)
    return model


def load_start(model, config, folder):
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        stored = json.load(file)
    for key in ("r", "lora_alpha"):
        if stored[key] != getattr(config, key):
            sys.exit(f"{folder}: {key} is {stored[key]}, not {getattr(config, key)}")
    tensors = load_file(os.path.join(folder, "adapter_model.safetensors"))
    own = adapter_parameters(model)
    # PEFT only warns of what is missing, and training would go on with other numbers.
    if tensors.keys() != own.keys():
        sys.exit(f"{folder}: other tensors: {sorted(tensors.keys() ^ own.keys())[:4]} ...")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                sys.exit(f"{folder}: {name} has shape {list(tensor.shape)}")
            own[name].copy_(tensor)


def adapter_parameters(model):
    """What is trained, by the names that PEFT's adapter_model.safetensors has."""
    named = ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
    return {name.replace(".default.", "."): tensor for name, tensor in named}


def highest_rss_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def dump_gradients(parameters, folder):
    os.makedirs(folder, exist_ok=True)
    gradients = {name: tensor.grad.float().clone() for name, tensor in parameters.items()}
    save_file(gradients, os.path.join(folder, "gradients.safetensors"))


def main():
    args = arguments()
    import_rss = highest_rss_mb()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    base = transformers.AutoModelForCausalLM.from_pretrained(
        args.model,
        dtype=torch.bfloat16 if args.variant == "bf16-base" else torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
    )
    model = with_adapter(base, args)
    if args.save_start:
        model.save_pretrained(args.save_start, save_embedding_layers=False)
    model.train()
    parameters = adapter_parameters(model)
    weights = list(parameters.values())
    assert all(tensor.dtype == torch.float32 for tensor in weights)
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    ids = batch(args.rows, args.length, base.config.vocab_size)

    def forward():
        mixed = args.variant != "f32"
        cast = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
        with cast:
            # The model shifts the labels itself, and computes the loss in f32.
            return model(input_ids=ids, labels=ids, use_cache=False).loss

    losses, norms, seconds = [], [], []
    for step in range(args.warmup + args.steps):
        begun = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        took = time.perf_counter() - begun
        if step == 0 and args.dump:
            dump_gradients(parameters, args.dump)
        begun = time.perf_counter()
        norm = torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
        took += time.perf_counter() - begun
        if step >= args.warmup:
            seconds.append(took)

    if args.dump:
        with open(os.path.join(args.dump, "losses.json"), "w", encoding="utf-8") as file:
            json.dump({"losses": losses, "gradient_norms": norms}, file)
    result = {
        "variant": args.variant,
        "tokens_per_second": round(args.rows * args.length / statistics.median(seconds), 1),
        "step_seconds": [round(second, 4) for second in seconds],
        "peak_rss_mb": highest_rss_mb(),
        "import_rss_mb": import_rss,
        "losses": losses,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
