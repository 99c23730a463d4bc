"""Trains on the toolcall track with trl and with ours in turns, and says how they compare.

    python3 toolcall.py --python VENV/bin/python --ours ../../target/release/examples/toolcall_speed \
        --model DIR --base FILE --rows train.jsonl --without suite.jsonl [--rounds 5] [--steps 8]

Each side is a process of its own in each round and makes `--steps` steps of 8 rows (0: a whole
epoch). trl is timed by its own train(), ours over its steps; both have computed one batch before,
so that neither pays for the first touch of its memory. Rates are tokens of rows, without padding,
in a second. See toolcall_trl.py for the sides of trl.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

from train import processor

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--python", required=True, help="of an environment that has trl")
    parser.add_argument("--ours", required=True, help="the example toolcall_speed")
    parser.add_argument("--model", required=True, help="as transformers saves it")
    parser.add_argument("--base", required=True, help="the same model as a GGUF file")
    parser.add_argument("--rows", required=True)
    parser.add_argument("--without", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sides", default="packed:bf16-base,grouped:bf16-base,padded:f32")
    parser.add_argument("--loss", default="model", help="of trl: trl or model")
    parser.add_argument("--out")
    return parser.parse_args()


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def sides(args):
    steps = str(args.steps)
    shared = ["--rows", args.rows, "--without", args.without]
    yield "ours", [args.ours, args.base, args.rows, args.without, steps]
    script = os.path.join(HERE, "toolcall_trl.py")
    for side in args.sides.split(","):
        variant, precision = side.split(":")
        command = [args.python, "-W", "ignore", script, "--model", args.model, *shared]
        command += ["--variant", variant, "--precision", precision, "--loss", args.loss, "--warm"]
        if args.steps:
            command += ["--max-steps", steps]
        yield f"trl {side}", command


def main():
    args = arguments()
    every = dict(sides(args))
    runs = {name: [] for name in every}
    for turn in range(args.rounds):
        for name, command in every.items():
            made = run(command)
            made["rate"] = made["tokens"] / made["seconds"]
            runs[name].append(made)
            print(f"round {turn + 1}: {name:22} {made['rate']:7.1f} tokens/s", flush=True)
    summary = {}
    for name, of in runs.items():
        rates = sorted(made["rate"] for made in of)
        memory = max(made["peak_rss_mb"] for made in of)
        median = statistics.median(rates)
        summary[name] = {"rates": rates, "median": median, "peak_rss_mb": memory}
        print(f"{name:22} {median:7.1f} ({rates[0]:.1f} to {rates[-1]:.1f}) {memory} MiB")
    if args.out:
        document = {
            "date": datetime.date.today().isoformat(),
            "processor": processor(),
            "steps": args.steps,
            "sides": summary,
        }
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
