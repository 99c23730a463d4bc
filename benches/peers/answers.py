"""Holds our decoder's answers and perplexity against transformers in f32, and against llama.cpp.

    python answers.py --ours ../../target/release/examples/answers --model DIR --file FILE
                      --rows FILE[,FILE] --texts FILE[,FILE] --library DIR --made DIR
                      [--part all|answers|perplexity] [--prompts 200] [--new 64] [--out FILE]
                      [--kernels scalar,avx2,avx512,amx-bf16] [--cpus icelake,sapphirerapids]
                      [--kept FILE]

Needs torch, transformers and gguf. The model is a folder as transformers saves it, in f32, and FILE
the GGUF file whose dequantised weights it has. See llama_logits.py for the library and its
processors.

answers: the `prompt` texts of rows (JSON lines), the first that differ from each other, each as one
message of a user in the model's chat template, cut to the last 512 ids. transformers answers with
the likeliest tokens, prompts of the same length together, none padded; ours by each path, 32 rows
at once, on the folder and on the file. Scalar answers only the first of them (--scalar). Told are
the answers that equal token by token, the end token with them, and where others part: the first
position that differs, both ids, what transformers has between its likeliest and next logit there,
and what a computation in f64, norms and angles with it, has between the two ids: above zero where
it sides with transformers. Transformers' answers are kept in --kept and read from there.

perplexity: the first --length ids of all texts together, the same number of each, in pieces of 512
ids that each stand alone. The file is taken as it is, and with all matrices, the embedding with
them, dequantised and written as F32, BF16, Q8_0 and Q4_0 (into --made, once; what is packed is
packed twice). transformers has each file's dequantised weights in f32, ours each path. Each piece
is read as a prompt, so that the products for single tokens are held in answers alone, but for those
of the head. llama.cpp has its usual f16 cache and FlashAttention, each processor in a process of
its own.

Parts can be run apart: of the same day, machine and versions, --out keeps the other.
"""

import argparse
import collections
import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import types

from train import processor

CUT = PIECE = 512
ROWS = 32
TOGETHER = 8
MADE = {"F32": 0, "BF16": 32, "Q8_0": 7, "Q4_0": 2}  # with what general.file_type says of them


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ours", required=True, help="the example answers, built for release")
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--file", required=True, help="the same model as a GGUF file")
    parser.add_argument("--rows", help="of answers: JSON lines with `prompt`")
    parser.add_argument("--texts", help="of perplexity: as a commit has them, for they change")
    parser.add_argument("--library", metavar="DIR", help="of perplexity: llama.cpp's")
    parser.add_argument("--made", metavar="DIR", help="of perplexity: for files that are made")
    parser.add_argument("--part", default="all", choices=["all", "answers", "perplexity"])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--scalar", type=int, default=10, help="prompts that scalar answers")
    parser.add_argument("--new", type=int, default=64, help="tokens to make at most")
    parser.add_argument("--length", type=int, default=2048, help="ids of perplexity")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-threads", type=int, default=2, help="1 on a busy machine")
    parser.add_argument("--kernels", default="scalar,avx2,avx512,amx-bf16", help="paths of ours")
    parser.add_argument("--cpus", default="icelake,sapphirerapids", help="of llama.cpp")
    parser.add_argument("--kept", metavar="FILE", help="for transformers' answers")
    parser.add_argument("--out", help="where the figures are written")
    args = parser.parse_args()
    needed = {"answers": ["rows"], "perplexity": ["texts", "library", "made"]}
    for part, names in needed.items():
        for name in names:
            if args.part in ("all", part) and not getattr(args, name):
                parser.error(f"{part} needs --{name}")
    return args


def say(begun, what):
    print(f"{time.monotonic() - begun:6.0f} s  {what}", flush=True)


def ran(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(args, model, ids, path, *rest):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(ids, file)
        file.flush()
        command = [args.ours, model, file.name, "--kernels", path, "--threads", str(args.threads)]
        made = ran([*command, *rest])
    if made["variant"] != f"ledger {path}":
        sys.exit(f"{path} was asked for, {made['variant']} ran")
    return made


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def network(args, file=None):
    """The folder's network, or that of a GGUF file; always in f32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.torch_threads)
    plain = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    if file is None:
        made = AutoModelForCausalLM.from_pretrained(args.model, **plain)
    else:
        folder, name = os.path.split(os.path.abspath(file))
        made = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, **plain)
    if any(weight.dtype != torch.float32 for weight in made.parameters()):
        sys.exit("transformers has weights that are not in f32")
    return made.eval()


# Answers


def prompts_of(args, tokenizer):
    """Ids of the prompts, and how many come from each file."""
    found, counts = {}, collections.Counter()
    for path in args.rows.split(","):
        with open(path, encoding="utf-8") as file:
            for line in file:
                text = json.loads(line)["prompt"]
                if text in found or len(found) == args.prompts:
                    continue
                ids = tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}],
                    add_generation_prompt=True, tokenize=True, return_dict=False,
                )
                found[text] = ids[-CUT:]
                counts[os.path.basename(path)] += 1
    if len(found) < args.prompts:
        sys.exit(f"{args.rows} have {len(found)} prompts that differ")
    return list(found.values()), dict(counts)


def greedy(model, prompts, new, end):
    """Answers of prompts of one length, with the gap to the next likeliest for each token."""
    import torch

    answers, gaps = [[] for _ in prompts], [[] for _ in prompts]
    ids, cache = torch.tensor(prompts), None
    with torch.inference_mode():
        for _ in range(new):
            made = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = made.past_key_values
            best = made.logits[:, -1].topk(2)
            for row, (token, _) in enumerate(best.indices.tolist()):
                if answers[row][-1:] != [end]:
                    answers[row].append(token)
                    gaps[row].append((best.values[row, 0] - best.values[row, 1]).item())
            if all(answer[-1] == end for answer in answers):
                break
            ids = best.indices[:, :1]
    return answers, gaps


def peers_answers(args, begun, model, prompts, end):
    asked = {"prompts": prompts, "new": args.new, "end": end}
    if args.kept and os.path.exists(args.kept):
        with open(args.kept, encoding="utf-8") as file:
            kept = json.load(file)
        if kept["asked"] == asked:
            return kept["answers"], kept["gaps"]
    lengths = collections.defaultdict(list)
    for at, prompt in enumerate(prompts):
        lengths[len(prompt)].append(at)
    batches = [some[first:first + TOGETHER] for some in lengths.values()
               for first in range(0, len(some), TOGETHER)]
    answers, gaps = [None] * len(prompts), [None] * len(prompts)
    ended = 0
    for turn, batch in enumerate(batches):
        made = greedy(model, [prompts[at] for at in batch], args.new, end)
        for at, answer, gap in zip(batch, *made):
            answers[at], gaps[at] = answer, gap
        ended += len(batch)
        if turn % 10 == 9:
            say(begun, f"transformers: {ended} of {len(prompts)} answers")
    if args.kept:
        with open(args.kept, "w", encoding="utf-8") as file:
            json.dump({"asked": asked, "answers": answers, "gaps": gaps}, file)
    return answers, gaps


class Judge:
    """The network in f64, with norms and angles, which transformers always has in f32."""

    def __init__(self, model):
        import torch

        self.model, self.known = model.double(), {}
        config = model.config
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.forward = self.norm(module)
        rope = config.rope_parameters
        if rope["rope_type"] != "default":
            sys.exit(f"positions of the kind {rope['rope_type']} are not computed here")
        places = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
        steps = 1.0 / float(rope["rope_theta"]) ** places

        def turned(x, position_ids):
            angles = position_ids[..., None].double() * steps
            angles = torch.cat((angles, angles), dim=-1)
            return angles.cos(), angles.sin()

        model.model.rotary_emb.forward = turned

    @staticmethod
    def norm(module):
        eps = module.variance_epsilon

        def normed(x):
            return module.weight * x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()

        return normed

    def gap(self, ids, one, other):
        """What it has between the logits of two ids behind others."""
        import torch

        key = tuple(ids)
        if key not in self.known:
            with torch.inference_mode():
                made = self.model(torch.tensor([ids]), logits_to_keep=1, use_cache=False)
            if made.logits.dtype != torch.float64:
                sys.exit("the judge does not compute in f64")
            self.known[key] = made.logits[0, -1]
        return (self.known[key][one] - self.known[key][other]).item()


def parted(prompts, theirs, gaps, mine, judge):
    """An entry for each answer that differs."""
    found = []
    for at, (one, other) in enumerate(zip(theirs, mine)):
        if one == other:
            continue
        # Neither is the other's beginning: each has its end token or all that were asked for.
        place = next(i for i, (a, b) in enumerate(zip(one, other)) if a != b)
        gap = judge.gap(prompts[at] + one[:place], one[place], other[place])
        found.append({
            "prompt": at, "position": place, "transformers": one[place], "ours": other[place],
            "gap": gaps[at][place], "f64": gap,
        })
    return found


def answers(args, begun, keep):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    end = tokenizer.eos_token_id
    prompts, counts = prompts_of(args, tokenizer)
    lengths = sorted(map(len, prompts))
    say(begun, f"{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} ids, ended by {end}")
    model = network(args)
    theirs, gaps = peers_answers(args, begun, model, prompts, end)
    all_gaps = sorted(gap for of in gaps for gap in of)
    tokens = len(all_gaps)
    say(begun, f"transformers: {tokens} tokens, {sum(a[-1] == end for a in theirs)} ended")
    judge = Judge(model)
    result = {
        "rows": counts, "prompts": len(prompts), "shortest": lengths[0], "longest": lengths[-1],
        "prompt_tokens": sum(lengths), "new": args.new, "end": end, "tokens": tokens,
        "ended": sum(answer[-1] == end for answer in theirs),
        "gaps_below": {str(step): sum(gap < step for gap in all_gaps)
                       for step in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
        "sides": {},
    }
    plain = {}
    for path in args.kernels.split(","):
        asked = prompts[:args.scalar] if path == "scalar" else prompts
        for weights, where in (("folder", args.model), ("file", args.file)):
            rest = ["--mode", "answers", "--rows", str(ROWS), "--new", str(args.new)]
            made = ours(args, where, asked, path, *rest, "--end", str(end))
            whole = [ids if len(ids) == args.new else [*ids, end] for ids in made["answers"]]
            differing = parted(prompts, theirs, gaps, whole, judge)
            told = {
                "kernels": path, "weights": weights, "prompts": len(asked),
                "equal": len(asked) - len(differing),
                "tokens_before": sum(entry["position"] for entry in differing) + sum(
                    len(one) for one, other in zip(theirs, whole) if one == other),
                "largest_gap": max((entry["gap"] for entry in differing), default=None),
                "differing": differing,
            }
            if weights == "folder":
                plain[path] = made
            else:
                same = all(made[key] == plain[path][key] for key in ("answers", "gaps"))
                told["same_as_folder"] = same
            name = f"{path}, {weights}"
            result["sides"][name] = told
            say(begun, f"ours {name}: {told['equal']} of {len(asked)} equal")
            keep("answers", result)
    return result


def show_answers(made):
    print(f"{'ours':20} equal answers  largest gap where others part  f64 sides with transformers")
    for name, told in made["sides"].items():
        largest = "" if told["largest_gap"] is None else f"{told['largest_gap']:.3g}"
        sided = sum(entry["f64"] > 0 for entry in told["differing"])
        sided = f"{sided} of {len(told['differing'])}"
        equal = f"{told['equal']} of {told['prompts']}"
        print(f"{name:20} {equal:>13}  {largest:>29}  {sided:>27}")
    for name, told in made["sides"].items():
        for entry in told["differing"] if told["kernels"] != "amx-bf16" else []:
            print(f"{name}: prompt {entry['prompt']}, position {entry['position']}: "
                  f"transformers {entry['transformers']}, ours {entry['ours']}, "
                  f"gap {entry['gap']:.3g}, in f64 {entry['f64']:.3g}")


# Perplexity


def make(source, kind, to):
    """Writes a GGUF file with all matrices in one format."""
    import gguf
    import numpy

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(to, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value, first = field.contents(), field.types[0]
        inner = field.types[-1] if first == gguf.GGUFValueType.ARRAY else None
        value = MADE[kind] if key == "general.file_type" else value
        writer.add_key_value(key, value, first, inner)
    form = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        plain = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if plain.ndim < 2 or kind == "F32":
            writer.add_tensor(tensor.name, plain)
        else:
            writer.add_tensor(tensor.name, gguf.quantize(plain, form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def formats(args, begun):
    """The name of a format, and a GGUF file with it."""
    import gguf

    kinds = collections.Counter(tensor.tensor_type.name
                                for tensor in gguf.GGUFReader(args.file).tensors
                                if len(tensor.shape) > 1)
    as_it_is = f"{kinds.most_common(1)[0][0]}, as it is"
    os.makedirs(args.made, exist_ok=True)
    stem = os.path.splitext(os.path.basename(args.file))[0]
    for kind in MADE:
        to = os.path.join(args.made, f"{stem}-{kind.lower()}.gguf")
        if not os.path.exists(to):
            make(args.file, kind, f"{to}.part")
            os.rename(f"{to}.part", to)
            say(begun, f"{kind} was made")
        yield kind, to
        if kind == "Q8_0":
            yield as_it_is, args.file


def pieces_of(args, tokenizer):
    """The pieces, and what they are of."""
    paths = args.texts.split(",")
    share = args.length // len(paths)
    pieces, told = [], []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            ids = tokenizer(file.read(), add_special_tokens=False)["input_ids"]
        if len(ids) < share:
            sys.exit(f"{path} has {len(ids)} ids, not {share}")
        pieces += [ids[first:min(first + PIECE, share)] for first in range(0, share, PIECE)]
        told.append({"text": os.path.basename(path), "sha256": sha256(path), "ids": share})
    return pieces, told


def foretold(loss, count):
    mean = loss / count
    return {"mean_nll": mean, "perplexity": math.exp(mean), "tokens": count}


def peers_perplexity(model, pieces):
    import torch

    loss, count = 0.0, 0
    with torch.inference_mode():
        for piece in pieces:
            logits = model(torch.tensor([piece]), use_cache=False).logits[0, :-1].double()
            after = torch.tensor(piece[1:])[:, None]
            loss -= logits.log_softmax(-1).gather(1, after).sum().item()
            count += len(piece) - 1
    return foretold(loss, count)


def llama_perplexity(asked):
    """What the script does with --llama, in a process of its own."""
    import numpy

    import llama_logits
    from llama_speed import Timed

    library = Timed(asked["library"], asked["cpu"], False)
    pieces, loss, count = asked["pieces"], 0.0, 0
    given = types.SimpleNamespace(
        ids=max(pieces, key=len), model=asked["model"], threads=asked["threads"],
        cache="f16", flash=True, plain_weights=False, lora=None)
    made, size = llama_logits.context(library, given)
    for piece in pieces:
        library.llama_memory_clear(library.llama_get_memory(made), False)
        rows = llama_logits.rows(library, made, size, piece, False)
        for logits, after in zip(rows, piece[1:]):
            logits = numpy.frombuffer(logits, dtype=numpy.float32).astype(numpy.float64)
            top = logits.max()
            loss += top + math.log(numpy.exp(logits - top).sum()) - logits[after]
            count += 1
    result = foretold(float(loss), count) | {"version": library.llama_version().decode()}
    print(json.dumps(result))
    sys.stdout.flush()
    # What is still loaded is left to the system, as in llama_logits.py.
    os._exit(0)


def perplexity(args, begun, keep):
    from transformers import AutoTokenizer

    pieces, texts = pieces_of(args, AutoTokenizer.from_pretrained(args.model))
    result = {"texts": texts, "pieces": [len(piece) for piece in pieces], "formats": {}}
    for name, file in formats(args, begun):
        sides = result["formats"][name] = {}
        # Transformers reads the folder where it can: what F32 has is what the folder has.
        where = args.model if name == "F32" else file
        model = network(args, None if name == "F32" else file)
        sides["transformers f32"] = peers_perplexity(model, pieces)
        del model
        say(begun, f"{name}: transformers {sides['transformers f32']['perplexity']:.5f}")
        for path in args.kernels.split(","):
            made = ours(args, where, pieces, path, "--mode", "perplexity")
            made.pop("variant")
            sides[f"ledger {path}"] = made
            say(begun, f"{name}: ledger {path} {made['perplexity']:.5f}")
        for cpu in args.cpus.split(","):
            asked = {"library": os.path.abspath(args.library), "cpu": cpu, "model": file,
                     "threads": args.threads, "pieces": pieces}
            made = ran([sys.executable, os.path.abspath(__file__), "--llama", json.dumps(asked)])
            result["llama.cpp"] = made.pop("version")
            sides[f"llama.cpp {cpu}"] = made
            say(begun, f"{name}: llama.cpp {cpu} {made['perplexity']:.5f}")
        counts = {side["tokens"] for side in sides.values()}
        if len(counts) != 1:
            sys.exit(f"{name}: sides foretold {counts} tokens")
        keep("perplexity", result)
    return result


def show_perplexity(made):
    print("perplexity, and how much more the mean of the losses is than transformers'")
    for name, sides in made["formats"].items():
        base = sides["transformers f32"]["mean_nll"]
        for side, told in sides.items():
            more = "" if side == "transformers f32" else f"{told['mean_nll'] - base:+.2e}"
            print(f"{name:15} {side:26} {told['perplexity']:10.5f}  {more:>9}")


def main():
    if sys.argv[1:2] == ["--llama"]:
        llama_perplexity(json.loads(sys.argv[2]))  # which ends the process
    args = arguments()
    import torch
    import transformers

    begun = time.monotonic()
    document = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "threads": args.threads,
        "torch_threads": args.torch_threads,
        "model": {"file": os.path.basename(args.file), "sha256": sha256(args.file)},
    }

    if args.out and os.path.exists(args.out):
        with open(args.out, encoding="utf-8") as file:
            before = json.load(file)
        if all(before.get(key) == value for key, value in document.items()):
            document = before

    def keep(part, made):
        """What was measured stays if a later side fails."""
        document[part] = made
        if args.out:
            with open(args.out, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.write("\n")

    if args.part in ("all", "answers"):
        show_answers(answers(args, begun, keep))
    if args.part in ("all", "perplexity"):
        show_perplexity(perplexity(args, begun, keep))
    say(begun, "done")


if __name__ == "__main__":
    main()
