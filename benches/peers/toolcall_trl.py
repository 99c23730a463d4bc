"""Trains one epoch of the toolcall track with trl's SFTTrainer and PEFT, and says how long it took.

    python toolcall_trl.py --model DIR --rows train.jsonl [--without details.jsonl]
                           --variant padded|grouped|packed
                           --precision f32|bf16-autocast|bf16-base
                           [--max-steps N] [--threads 2] [--seed 0] [--packs 1] [--loss trl|model]
                           [--gradient-checkpointing] [--warm] [--rows-out FILE] [--show]
                           [--save DIR]

Needs torch, transformers, peft and trl (`pip install torch transformers peft trl`). DIR holds a
model as transformers saves it, with its tokenizer and chat template; nothing is downloaded.

Rows are one JSON object a line: {"prompt": [messages], "completion": [messages]}, trl's
conversational form of prompt and completion, or the track's own {"prompt": text,
"completion": text}, which become one message of the user and one of the assistant. Rows whose
prompt is also in --without (JSON lines with a prompt: the questions that are held out for the
suite) are not trained on. --rows-out writes the rows that are left in trl's form.

What is trained: LoRA of rank 16, alpha 32, dropout .05 on the seven linear layers of each block, in
f32; AdamW (fused), learning rate 6e-4, 10 steps of warm-up, then a cosine to zero at the last step,
no weight decay, gradients clipped to a norm of 1; 8 rows a step. The loss is the mean over the
answers' tokens of a step, the token that ends the turn included. What the chat template writes
behind that token (in ChatML a newline) is cut.

Variants:

- padded: batches of 8 in random order, padded to the longest
- grouped: the same with transformers' `train_sampling_strategy="group_by_length"`: rows are sorted
  by length within a quarter of the epoch, so that less is padded; the longest comes first
- packed: trl's `packing=True` with its default strategy `bfd` (best fit, decreasing): whole rows
  are laid behind each other in packs as long as 8 mean rows. It switches on `padding_free`: a pack
  is one sequence with positions that begin anew at each row, without a mask. trl documents this
  for FlashAttention 2 and 3 only, which need a GPU. With PyTorch's scaled_dot_product_attention, as
  here, transformers makes a mask out of these positions that keeps rows apart: rows do not see each
  other (--show checks it), but scores are computed and masked for all of a pack's tokens squared.
  With --packs N a step takes N shorter packs, one by one, as accumulated gradients: less of those
  squares, smaller products. A pack must take the longest row. The number of steps, about rows / 8,
  is what the packs come to; `wrapped`, trl's other strategy, is not used: it cuts rows and lets
  them see each other.

Precision:

- f32: everything in f32
- bf16-autocast: weights in f32, matrix products in bfloat16 by autocast
- bf16-base: the base's weights in bfloat16, the adapter's in f32, autocast as well

Attention is PyTorch's scaled_dot_product_attention. Activations are kept rather than computed
again, though trl's default is otherwise: --gradient-checkpointing is that default.

--loss trl is SFTTrainer's own loss: the head in tiles, computed again in the backward pass and
never kept. Without Triton, so on a CPU, it does all positions, not only those asked for, and the
product that makes the gradient in f32 whatever the precision. --loss model takes the loss of the
model's own forward pass instead, as transformers' Trainer does: also all positions, logits kept,
products in the precision that was asked for.

One line of JSON is printed. `seconds` is `trainer.train()` from call to return; rows have been
tokenised (and packed) before. `step_seconds` are the steps alone. `tokens` are those of rows,
`positions` what was computed (padding included), `supervised` those that the loss covers. `losses`
has every step. With --warm the longest batch goes forward and back once before, uncounted: what a
process pays when it first touches its memory (seconds in some virtual machines, all in the first
step) is then not in the times. `peak_rss_mb` is in MiB, of the whole process, loading included,
`import_rss_mb` what the libraries alone had taken. --show prints to stderr what the first step is
asked for, the types that a linear layer works in and, in `packed`, how far the step's logits are
from those of its rows one by one. --save writes the adapter.
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import peft
import torch
import transformers
import trl

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS_A_STEP = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--without", metavar="FILE", help="prompts that are not trained on")
    parser.add_argument("--rows-out", metavar="FILE", help="write the rows in trl's form")
    parser.add_argument("--variant", required=True, choices=["padded", "grouped", "packed"])
    choices = ["f32", "bf16-autocast", "bf16-base"]
    parser.add_argument("--precision", required=True, choices=choices)
    parser.add_argument("--max-steps", type=int, default=-1, help="end early; the cosine as well")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packs", type=int, default=1, help="packs a step")
    parser.add_argument("--loss", default="trl", choices=["trl", "model"])
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--warm", action="store_true", help="an uncounted pass before")
    parser.add_argument("--show", action="store_true", help="show what the first step is asked for")
    parser.add_argument("--save", metavar="DIR", help="write the adapter")
    return parser.parse_args()


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def conversation(row):
    """The row in trl's conversational form of prompt and completion."""
    form = {}
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = row[key]
        form[key] = [{"role": role, "content": value}] if isinstance(value, str) else value
    return form


def read_rows(args):
    rows = [conversation(row) for row in lines(args.rows)]
    if args.without:
        held = {json.dumps(conversation({**row, "completion": ""})["prompt"])
                for row in lines(args.without)}
        rows = [row for row in rows if json.dumps(row["prompt"]) not in held]
    if args.rows_out:
        with open(args.rows_out, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return rows


def without_last_newline(template):
    """The template, with nothing behind the token that ends the last turn."""
    ending = "{{ text if add_generation_prompt else text.rstrip() }}"
    return "{% set text %}" + template + "{% endset %}" + ending


def lengths(tokenizer, rows):
    whole = (row["prompt"] + row["completion"] for row in rows)
    return [len(tokenizer.apply_chat_template(of, return_dict=True)["input_ids"]) for of in whole]


class Trainer(trl.SFTTrainer):
    """SFTTrainer that counts what is computed and, where asked, takes the model's own loss."""

    def __init__(self, *args, own_loss, show, **kwargs):
        super().__init__(*args, **kwargs)
        self.own_loss = own_loss
        self.show = show
        self.counted = {"tokens": 0, "positions": 0, "supervised": 0}

    def training_step(self, model, inputs, *args, **kwargs):
        ids, labels = inputs["input_ids"], inputs["labels"]
        self.counted["positions"] += ids.numel()
        mask = inputs.get("attention_mask")
        self.counted["tokens"] += ids.numel() if mask is None else int(mask.sum())
        self.counted["supervised"] += int((labels[:, 1:] != -100).sum())
        if self.show:
            self.show = False
            show_batch(self.processing_class, inputs)
            if mask is None:
                show_apart(self, model, inputs)
            show_types(model)
        return super().training_step(model, inputs, *args, **kwargs)

    def warm(self, mixed):
        """One pass over the longest rows, or the fullest pack, that leaves nothing behind."""
        data = self.train_dataset
        longest = sorted(range(len(data)), key=lambda at: -len(data[at]["input_ids"]))
        of = self.args.per_device_train_batch_size
        keys = ("input_ids", "labels", "seq_lengths")
        rows = [{key: data[at][key] for key in keys if key in data[at]} for at in longest[:of]]
        state = torch.get_rng_state()
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = self.compute_loss(self.model, self.data_collator(rows))
        loss.backward()
        self.model.zero_grad(set_to_none=True)
        torch.set_rng_state(state)
        self._metrics["train"].clear()
        self._total_train_tokens = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs["use_cache"] = False
        return transformers.Trainer.compute_loss(
            self, model, inputs, return_outputs, num_items_in_batch
        )


def show_batch(tokenizer, inputs):
    for at, (ids, labels) in enumerate(zip(inputs["input_ids"], inputs["labels"])):
        asked = labels != -100
        edges = torch.diff(asked.int(), prepend=torch.zeros(1, dtype=torch.int32))
        starts = (edges == 1).nonzero().flatten().tolist()
        ends = (edges == -1).nonzero().flatten().tolist() + [len(ids)] * int(asked[-1])
        print(f"row {at}: {len(ids)} positions, {int(asked.sum())} asked", file=sys.stderr)
        for start, end in zip(starts, ends):
            before = tokenizer.decode(ids[max(0, start - 4):start])
            text = tokenizer.decode(ids[start:end])
            print(f"  behind {before!r}: {text!r}", file=sys.stderr)


def show_apart(trainer, model, inputs):
    """How far the logits of a packed batch are from those of its rows one by one."""
    starts = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
    ends = starts[1:] + [inputs["input_ids"].shape[1]]
    model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        ids = inputs["input_ids"]
        together = model(**{key: value for key, value in inputs.items() if key != "labels"},
                         use_cache=False).logits.float()
        plain = model(input_ids=ids, use_cache=False).logits.float()
        apart, mixed = 0.0, 0.0
        for start, end in zip(starts, ends):
            alone = model(input_ids=ids[:, start:end], use_cache=False).logits.float()
            apart = max(apart, (together[:, start:end] - alone).abs().max().item())
            mixed = max(mixed, (plain[:, start:end] - alone).abs().max().item())
    model.train()
    print(f"logits of {len(starts)} packed rows differ from theirs alone by {apart:.3g} at most; "
          f"were they one text: {mixed:.3g}", file=sys.stderr)


def show_types(model):
    """The types that the first block's linear layer works in, told in the next forward pass."""
    name, layer = next((name, module) for name, module in model.named_modules()
                       if name.endswith("q_proj.base_layer"))

    def tell(module, given, result):
        handle.remove()
        print(f"{name}: weight {module.weight.dtype}, in {given[0].dtype}, out {result.dtype}",
              file=sys.stderr)

    handle = layer.register_forward_hook(tell)


class Steps(transformers.TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(round(time.perf_counter() - self.begun, 4))


def settings(args, rows, tokenizer, folder):
    long = lengths(tokenizer, rows)
    given = {"per_device_train_batch_size": ROWS_A_STEP, "max_length": max(long)}
    if args.variant == "grouped":
        given["train_sampling_strategy"] = "group_by_length"
    if args.variant == "packed":
        pack = math.ceil(ROWS_A_STEP * sum(long) / len(long) / args.packs)
        if pack < max(long):
            sys.exit(f"the longest row has {max(long)} tokens, a pack would have {pack}")
        given = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": args.packs,
                 "max_length": pack, "packing": True, "packing_strategy": "bfd"}
    return trl.SFTConfig(
        output_dir=folder,
        num_train_epochs=1,
        max_steps=args.max_steps,
        learning_rate=6e-4,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=args.precision != "f32",
        gradient_checkpointing=args.gradient_checkpointing,
        completion_only_loss=True,
        use_cpu=True,
        seed=args.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **given,
    )


def highest_rss_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main():
    args = arguments()
    import_rss = highest_rss_mb()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    rows = read_rows(args)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    tokenizer.chat_template = without_last_newline(tokenizer.chat_template)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        args.model,
        dtype=torch.bfloat16 if args.precision == "bf16-base" else torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
    )
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS,
        bias="none",
    )
    steps = Steps()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=base,
            args=settings(args, rows, tokenizer, folder),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=config,
            callbacks=[steps],
            own_loss=args.loss == "model",
            show=args.show,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        assert all(weight.dtype == torch.float32 for weight in trained)
        if args.warm:
            trainer.warm(args.precision != "f32")
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
        if args.save:
            trainer.save_model(args.save)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    result = {
        "variant": args.variant,
        "precision": args.precision,
        "loss": args.loss,
        "gradient_checkpointing": args.gradient_checkpointing,
        "warm": args.warm,
        "seconds": round(seconds, 3),
        "rows": len(rows),
        **trainer.counted,
        "steps": trainer.state.global_step,
        "step_seconds": steps.seconds,
        "losses": losses,
        "peak_rss_mb": highest_rss_mb(),
        "import_rss_mb": import_rss,
        "trained_parameters": sum(weight.numel() for weight in trained),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "trl": trl.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
