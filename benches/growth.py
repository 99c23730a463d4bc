"""Trains at growing lengths, batches and model shapes, and says what it takes beside the floor.

    python3 growth.py --ours ../target/release/examples/train_speed [--shapes 135m,360m] [--out FILE]

Weights are random in Q4_0 (how fast a step is does not depend on their values). The floor of a step
is its operations over the peak of the products, which --peak gives in GFLOP/s as measured on this
machine, or its bytes over --bandwidth in GB/s, whichever is more. Operations: 4 for each frozen
linear weight and token (forward, and backward to the input), the head three times as often (its
logits, and the gradient), and 6 d L of causal attention a layer, token and width. Bytes: each
frozen weight read twice as it is stored, and what is kept for the backward pass written and read.
"""

import argparse
import datetime
import json
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0] + "/peers")

from train import processor  # noqa: E402

SHAPES = {
    "135m": (576, 1536, 30, 9, 3, 49152),
    "360m": (960, 2560, 32, 15, 5, 49152),
    "1b": (2048, 8192, 16, 32, 8, 128256),
}
STEPS = [(4, 256), (4, 512), (4, 1024), (4, 2048), (8, 256), (16, 256), (32, 256)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ours", required=True)
    parser.add_argument("--shapes", default="135m,360m,1b")
    parser.add_argument("--kernels", default="amx-bf16")
    parser.add_argument("--most", type=int, default=8192, help="tokens of a step at most")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--peak", type=float, default=800, help="GFLOP/s of products")
    parser.add_argument("--bandwidth", type=float, default=20, help="GB/s of memory")
    parser.add_argument("--warm", type=int, default=1, help="steps before the one that counts")
    parser.add_argument("--out")
    return parser.parse_args()


def floor(shape, rows, length, args):
    hidden, wide, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    head, tokens = 64, rows * length
    q, kv = heads * head, kv_heads * head
    linear = layers * (hidden * (q + 2 * kv) + q * hidden + 3 * hidden * wide)
    attention = layers * 6 * q * length
    operations = tokens * (4 * linear + 4 * hidden * vocabulary + attention)
    kept = tokens * layers * 4 * (2 * q + 2 * kv + 2 * hidden + 2 * wide)
    moved = 2 * (linear + hidden * vocabulary) * 18 / 32 + (0 if args.recompute else 2 * kept)
    return max(operations / (args.peak * 1e9), moved / (args.bandwidth * 1e9))


def main():
    args = arguments()
    made = []
    for shape in args.shapes.split(","):
        for rows, length in STEPS:
            if rows * length > args.most:
                continue
            command = [args.ours, f"random:{shape}:q4_0", "--kernels", args.kernels]
            command += ["--rows", str(rows), "--length", str(length), "--steps", "1"]
            command += ["--warm", str(args.warm)]
            if args.recompute:
                command += ["--recompute", "yes"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            run = json.loads(done.stdout)
            seconds = run["step_seconds"][0]
            least = floor(shape, rows, length, args)
            made.append({
                "shape": shape, "rows": rows, "length": length,
                "tokens_per_second": round(rows * length / seconds, 1),
                "peak_rss_mb": run["peak_rss_mb"],
                "seconds": round(seconds, 2), "floor_seconds": round(least, 2),
            })
            print(json.dumps(made[-1]), flush=True)
    if args.out:
        document = {"date": datetime.date.today().isoformat(), "processor": processor(),
                    "kernels": args.kernels, "warm": args.warm, "recompute": args.recompute, "peak": args.peak,
                    "bandwidth": args.bandwidth, "steps": made}
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
