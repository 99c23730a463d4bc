"""Holds our adapter's logits against those of PEFT, transformers and llama.cpp.

    python3 adapters.py --ours ../../target/release/examples/logits --model DIR --adapter DIR \
        [--merged DIR] [--gguf-model FILE --gguf-adapter FILE --library DIR] [--ids 1,2,3]

DIR of --model holds the base in f32 as transformers saves it; --adapter is what
`ledger adapter export --form peft` wrote, --merged what --form merged wrote, --gguf-adapter what
--form gguf wrote; FILE of --gguf-model is the base in f32 as a GGUF file, and --library the folder
of a built llama.cpp (see llama_logits.py). Needs torch, transformers and peft. Prints the greatest
difference of a logit over all tokens of the text, and the greatest logit.
"""

import argparse
import array
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
IDS = ",".join(str(i * 7919 % 48000 + 17) for i in range(48))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ["ours", "model", "adapter"]:
        parser.add_argument(f"--{name}", required=True)
    for name in ["merged", "gguf-model", "gguf-adapter", "library"]:
        parser.add_argument(f"--{name}")
    parser.add_argument("--ids", default=IDS)
    return parser.parse_args()


def numbers(path):
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values


def ours(args, folder):
    path = os.path.join(folder, "ours.f32")
    subprocess.run([args.ours, args.model, path, args.ids, args.adapter], check=True)
    return numbers(path)


def torch_logits(model, adapter, ids):
    import torch
    import transformers

    net = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        import peft

        net = peft.PeftModel.from_pretrained(net, adapter)
    net.eval()
    with torch.no_grad():
        logits = net(torch.tensor([[int(i) for i in ids.split(",")]])).logits[0]
    return array.array("f", logits.float().flatten().tolist())


def llama_logits(args, folder):
    path = os.path.join(folder, "llama.f32")
    command = [sys.executable, os.path.join(HERE, "llama_logits.py"), "--library", args.library]
    command += ["--model", args.gguf_model, "--lora", args.gguf_adapter, "--tokens", args.ids]
    subprocess.run([*command, "--out", path], check=True, stdout=subprocess.DEVNULL)
    return numbers(path)


def tell(name, got, want):
    if len(got) != len(want):
        sys.exit(f"{name}: {len(got)} logits instead of {len(want)}")
    off = max(abs(a - b) for a, b in zip(got, want))
    most = max(abs(v) for v in want)
    print(f"{name:14} off by {off:.2e} of {most:.1f}: {off / most:.1e}")


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(args, folder)
        tell("PEFT", mine, torch_logits(args.model, args.adapter, args.ids))
        if args.merged:
            tell("merged", mine, torch_logits(args.merged, None, args.ids))
        if args.library:
            tell("llama.cpp", mine, llama_logits(args, folder))


main()
