"""Trains with PyTorch + PEFT and with ours in turns, and says how they compare.

    python3 train.py --python VENV/bin/python --ours ../../target/release/examples/train_speed \
        --model DIR [--rounds 5] [--steps 3] [--out FILE]

VENV has torch, transformers and peft (`pip install torch transformers peft`); DIR holds a model as
transformers saves it. Each side is a process of its own in each round, so that neither warms the
other up, and takes its turn in every round. Medians and the spread over rounds are printed and,
with --out, written as JSON with the machine and the date.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train_peft.py")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", required=True, help="of an environment that has the peer")
    parser.add_argument("--ours", required=True, help="the example train_speed, built for release")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, behind two")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernels", default="amx-bf16,avx512", help="paths of ours")
    parser.add_argument("--base", help="bf16: ours once more, with the base rounded to it")
    parser.add_argument("--variants", default="f32,bf16-autocast,bf16-base", help="of the peer")
    parser.add_argument("--out", help="where the figures are written")
    return parser.parse_args()


def sides(args):
    shared = ["--steps", str(args.steps), "--threads", str(args.threads)]
    for path in args.kernels.split(","):
        yield f"ours {path}", [args.ours, args.model, "--kernels", path, *shared]
    if args.base:
        path = args.kernels.split(",", 1)[0]
        ours = [args.ours, args.model, "--kernels", path, "--base", args.base, *shared]
        yield f"ours {path}, {args.base}", ours
    for variant in args.variants.split(","):
        peer = [args.python, PEER, "--model", args.model, "--variant", variant]
        yield f"peft {variant}", [*peer, *shared]


def measured(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main():
    args = arguments()
    every = dict(sides(args))
    runs = {name: [] for name in every}
    for turn in range(args.rounds):
        for name, command in every.items():
            run = measured(command)
            runs[name].append(run)
            rate, memory = run["tokens_per_second"], run["peak_rss_mb"]
            print(f"round {turn + 1}: {name:20} {rate:7.1f} tokens/s {memory:7.0f} MiB", flush=True)
    summary = {}
    print(f"{'':20} tokens/s: median, least, most; highest MiB")
    for name, of in runs.items():
        rates = [run["tokens_per_second"] for run in of]
        memory = max(run["peak_rss_mb"] for run in of)
        summary[name] = {
            "tokens_per_second": [round(rate, 1) for rate in rates],
            "median": round(statistics.median(rates), 1),
            "peak_rss_mb": memory,
            "losses": of[0]["losses"],
        }
        print(f"{name:20} {statistics.median(rates):7.1f} {min(rates):7.1f} {max(rates):7.1f} "
              f"{memory:8.0f}")
    if args.out:
        versions = next((run for of in runs.values() for run in of if "torch" in run), {})
        document = {
            "date": datetime.date.today().isoformat(),
            "machine": processor(),
            "threads": args.threads,
            "peer": {key: versions.get(key) for key in ("torch", "transformers", "peft")},
            "batch": "4 rows of 256 tokens, rank 16 on seven linear layers, all positions asked",
            "sides": summary,
        }
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
