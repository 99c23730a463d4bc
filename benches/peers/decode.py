"""Generates with llama.cpp and with ours in turns, and says how they compare.

    python3 decode.py --ours PATH --model FILE --library DIR [--rounds 5] [--out FILE]
                      [--cpus icelake,sapphirerapids] [--kernels avx512,amx-bf16]
                      [--mode single] [--repeat 3]
    python3 decode.py --ours PATH --model FILE --library DIR [--rounds 5] [--out FILE]
                      [--cpus icelake,sapphirerapids] [--kernels avx512,amx-bf16]
                      --mode workload [--our-rows 32] [--rows 1,8,16,32] [--caches unified]

FILE is a GGUF file, PATH our program that is timed, DIR llama.cpp's shared libraries (see
llama_logits.py). Each side is a process of its own in each round, and takes its turn in every
round; llama_speed.py tells what is timed in which mode. The peer makes the workload with each of
--rows, and in each of --caches (unified,split), and of each --cpus the fastest by its median is
what ours is held against.

Medians over all runs are printed with the least and the most, then ratios of medians, and behind
them the least and the most that the ratio was in a single round. With --out they are written as
JSON, with every rate, after every round: what was measured stays if a later run fails.
"""

import argparse
import datetime
import json
import os
import statistics
import sys

from train import measured, processor

PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "llama_speed.py")
SINGLE = ("prompt_512", "decode_0", "decode_512")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ours", required=True, metavar="PATH", help="built for release")
    parser.add_argument("--model", required=True, metavar="FILE")
    parser.add_argument("--library", required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mode", default="single", choices=["single", "workload"])
    parser.add_argument("--cpus", default="icelake,sapphirerapids", help="of the peer")
    parser.add_argument("--kernels", default="avx512,amx-bf16", help="paths of ours")
    parser.add_argument("--threads", type=int, default=2, help="of the peer")
    parser.add_argument("--repeat", type=int, default=3, help="of single, in each process")
    parser.add_argument("--rows", default="1,8,16,32", help="of the peer, in workload")
    parser.add_argument("--our-rows", type=int, default=32, help="in workload")
    parser.add_argument("--caches", default="unified", help="of the peer, in workload")
    parser.add_argument("--prompts", type=int, default=200, help="of workload")
    parser.add_argument("--length", type=int, default=256, help="of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to make for each prompt")
    parser.add_argument("--out", help="where the figures are written")
    args = parser.parse_args()
    for cache in args.caches.split(","):
        if cache not in ("unified", "split"):
            parser.error(f"no such cache: {cache}")
    return args


def sides(args):
    """The name of a side, what it calls itself, and its command."""
    work = ["--prompts", str(args.prompts), "--length", str(args.length), "--new", str(args.new)]
    repeat = ["--repeat", str(args.repeat)]
    for path in args.kernels.split(","):
        ours = [args.ours, args.model, "--mode", args.mode, "--kernels", path]
        variant = f"ledger {path}"
        if args.mode == "single":
            yield variant, variant, [*ours, *repeat]
        else:
            yield variant, variant, [*ours, "--rows", str(args.our_rows), *work]
    for cpu in args.cpus.split(","):
        peer = [sys.executable, PEER, "--library", args.library, "--model", args.model]
        peer += ["--cpu", cpu, "--threads", str(args.threads), "--mode", args.mode]
        variant = f"llama.cpp {cpu}"
        if args.mode == "single":
            yield variant, variant, [*peer, *repeat]
            continue
        for cache in args.caches.split(","):
            split = ["--split-cache"] if cache == "split" else []
            for rows in args.rows.split(","):
                name = f"{variant}, {rows} rows" + (", split" if split else "")
                yield name, variant, [*peer, "--rows", rows, *split, *work]


def rates(args, run):
    if args.mode == "single":
        return {key: run[key] for key in SINGLE}
    return {"new_tokens": [run["new_tokens"] / run["seconds"]]}


def checked(args, variant, run):
    """Stops where a side did something else than it was asked to."""
    if run["variant"] != variant:
        sys.exit(f"{variant} was asked for, {run['variant']} ran")
    if args.mode == "workload":
        work = {"prompt_tokens": args.prompts * args.length, "new_tokens": args.prompts * args.new}
        for key, count in work.items():
            if run[key] != count:
                sys.exit(f"{variant}: {key} is {run[key]}, not {count}")
    return run


def summary(args, of):
    every = [rates(args, run) for run in of]
    told = {"peak_rss_mb": max(run["peak_rss_mb"] for run in of)}
    if args.mode == "workload":
        told["seconds"] = [run["seconds"] for run in of]
    for key in every[0]:
        made = [rate for run in every for rate in run[key]]
        told[key] = {
            "median": round(statistics.median(made), 2),
            "least": round(min(made), 2),
            "most": round(max(made), 2),
            # Apart, so that the ratio of each round can be had.
            "rounds": [[round(rate, 2) for rate in run[key]] for run in every],
        }
    return told


def ratio(ours, peer):
    rounds = [
        statistics.median(mine) / statistics.median(other)
        for mine, other in zip(ours["rounds"], peer["rounds"])
    ]
    return {
        "ratio": round(ours["median"] / peer["median"], 3),
        "least": round(min(rounds), 3),
        "most": round(max(rounds), 3),
    }


def held_against(args, told, variants):
    """Ours beside each peer, and beside the fastest of one that had several ways."""
    keys = SINGLE if args.mode == "single" else ("new_tokens",)
    found = []
    for path in args.kernels.split(","):
        for cpu in args.cpus.split(","):
            ways = [name for name in told if variants[name] == f"llama.cpp {cpu}"]
            for key in keys:
                best = max(ways, key=lambda name: told[name][key]["median"])
                mine = told[f"ledger {path}"][key]
                beside = {"ours": f"ledger {path}", "peer": best, "rate": key}
                found.append(beside | ratio(mine, told[best][key]))
    return found


def document(args, runs, variants):
    told = {name: summary(args, of) for name, of in runs.items()}
    versions = {}
    for name, of in runs.items():
        if "version" in of[0]:
            versions[variants[name].split(" ", 1)[0]] = of[0]["version"]
    made = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "versions": versions,
        "model": os.path.basename(args.model),
        "mode": args.mode,
        "peer_threads": args.threads,
    }
    if args.mode == "workload":
        made |= {"prompts": args.prompts, "length": args.length, "new": args.new}
        made["our_rows"] = args.our_rows
    made |= {"sides": told, "ratios": held_against(args, told, variants)}
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(made, file, indent=1)
            file.write("\n")
    return made


def main():
    args = arguments()
    every = {name: (variant, command) for name, variant, command in sides(args)}
    variants = {name: variant for name, (variant, _) in every.items()}
    wide = max(len(name) for name in every)
    runs = {name: [] for name in every}
    made = None
    for turn in range(args.rounds):
        for name, (variant, command) in every.items():
            run = checked(args, variant, measured(command))
            runs[name].append(run)
            shown = [f"{key} {statistics.median(of):8.1f}" for key, of in rates(args, run).items()]
            print(f"round {turn + 1}: {name:{wide}} {'  '.join(shown)} tokens/s "
                  f"{run['peak_rss_mb']:6.0f} MiB", flush=True)
        made = document(args, runs, variants)
    print("tokens/s: median (least, most); highest MiB")
    for name, of in made["sides"].items():
        shown = [f"{key} {told['median']:.1f} ({told['least']:.1f}, {told['most']:.1f})"
                 for key, told in of.items() if isinstance(told, dict)]
        print(f"{name:{wide}} {'  '.join(shown)}  {of['peak_rss_mb']:.0f} MiB")
    print("ours beside the peer: ratio of medians (least, most of a round)")
    for beside in made["ratios"]:
        print(f"{beside['ours']:{wide}} {beside['peer']:{wide}} {beside['rate']:10} "
              f"{beside['ratio']:.2f} x ({beside['least']:.2f}, {beside['most']:.2f})")


if __name__ == "__main__":
    main()
