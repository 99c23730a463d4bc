"""Runs token ids through llama.cpp, with or without a LoRA adapter, and prints logits.

    python llama_logits.py --library DIR --model model.gguf --tokens 1,4093,198
                           [--lora adapter.gguf [--scale 1]] [--top 10] [--full] [--out FILE]
                           [--each] [--cpu NAME] [--threads 2] [--cache f32|f16] [--flash]
                           [--plain-weights] [--verbose]

Needs Python alone. DIR holds llama.cpp's shared libraries (libllama, libggml, libggml-base and one
or more libggml-cpu): those of a build, or those that npm has built:

    npm install --ignore-scripts node-llama-cpp
    DIR=node_modules/@node-llama-cpp/linux-x64/bins/linux-x64

The two structures that are handed over by value are those of llama.cpp 0.5.0 (node-llama-cpp
3.22.1); a library whose defaults do not lie where they should is refused.

Several libggml-cpu-NAME are one library for several processors, and ggml takes the best that runs
here; --cpu takes another: haswell is AVX2, icelake AVX-512, sapphirerapids also AMX. --tokens is a
list of ids, or @FILE with a JSON list of them. They are one sequence, nothing is put before them.

One line of JSON is printed. `positions` has an entry for each id that was given: `top` the most
likely next ids as [id, logit, natural logarithm of the probability], `log_sum` the logarithm of the
sum of all exponentials (what a logit must be reduced by for the latter), and `next` that of the id
that does follow. With --full the last has `logits`, all of them. --out writes all logits of all
positions, little-endian f32, one position behind the other, in the order of ids.

As it is called here, keys and values are kept in f32 and attention is computed without
FlashAttention, so that with a model in f32 all is f32; --cache f16 and --flash are llama.cpp's
usual way. --plain-weights forbids weights repacked for the processor. --each hands over one id at a
time, as when text is made, which takes other kernels than many at once.
"""

import argparse
import array
import ctypes
import glob
import json
import math
import os
import sys

GGML_F32, GGML_F16 = 0, 1
POINTER, BOOL, INT = ctypes.c_void_p, ctypes.c_bool, ctypes.c_int32
UINT, FLOAT = ctypes.c_uint32, ctypes.c_float
LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, POINTER)


class ModelParams(ctypes.Structure):
    _fields_ = [
        ("devices", POINTER), ("overrides", POINTER), ("n_gpu_layers", INT), ("split_mode", INT),
        ("load_mode", INT), ("lazy_mode", INT), ("main_gpu", INT), ("tensor_split", POINTER),
        ("progress", POINTER), ("progress_data", POINTER), ("kv_overrides", POINTER),
        ("vocab_only", BOOL), ("check_tensors", BOOL), ("use_extra_bufts", BOOL),
        ("no_host", BOOL), ("no_alloc", BOOL), ("load_mtp", BOOL),
    ]
    EXPECTED = {
        "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0,
        "kv_overrides": None, "vocab_only": False, "use_extra_bufts": True, "no_alloc": False,
    }


class ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", UINT), ("n_batch", UINT), ("n_ubatch", UINT), ("n_seq_max", UINT),
        ("n_rs_seq", UINT), ("n_outputs_max", UINT), ("n_outputs_max_per_seq", UINT),
        ("n_threads", INT), ("n_threads_batch", INT), ("ctx_type", INT), ("rope_scaling", INT),
        ("pooling", INT), ("attention", INT), ("flash_attn", INT), ("rope_base", FLOAT),
        ("rope_scale", FLOAT), ("yarn_ext", FLOAT), ("yarn_attn", FLOAT), ("yarn_fast", FLOAT),
        ("yarn_slow", FLOAT), ("yarn_ctx", UINT), ("defrag", FLOAT), ("eval", POINTER),
        ("eval_data", POINTER), ("type_k", INT), ("type_v", INT), ("abort", POINTER),
        ("abort_data", POINTER), ("embeddings", BOOL), ("offload_kqv", BOOL), ("no_perf", BOOL),
        ("op_offload", BOOL), ("swa_full", BOOL), ("kv_unified", BOOL), ("samplers", POINTER),
        ("n_samplers", ctypes.c_size_t), ("other", POINTER),
    ]
    EXPECTED = {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "flash_attn": -1,
        "rope_base": 0.0, "yarn_ext": -1.0, "defrag": -1.0, "type_k": GGML_F16,
        "type_v": GGML_F16, "embeddings": False, "offload_kqv": True, "op_offload": True,
        "samplers": None, "n_samplers": 0, "other": None,
    }


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", INT), ("token", POINTER), ("embd", POINTER), ("pos", POINTER),
        ("n_seq_id", POINTER), ("seq_id", POINTER), ("logits", POINTER),
    ]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--library", required=True, metavar="DIR")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True, help="ids, or @FILE")
    parser.add_argument("--lora", metavar="FILE")
    parser.add_argument("--scale", type=float, default=1.0, help="of the adapter")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--full", action="store_true", help="all logits of the last position")
    parser.add_argument("--out", metavar="FILE", help="all logits of all positions, f32")
    parser.add_argument("--each", action="store_true", help="one id at a time")
    parser.add_argument("--cpu", metavar="NAME", help="which libggml-cpu-NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", default="f32", choices=["f32", "f16"])
    parser.add_argument("--flash", action="store_true")
    parser.add_argument("--plain-weights", action="store_true", help="no repacking")
    parser.add_argument("--verbose", action="store_true", help="what llama.cpp says, to stderr")
    args = parser.parse_args()
    if args.tokens.startswith("@"):
        with open(args.tokens[1:], encoding="utf-8") as file:
            args.ids = json.load(file)
    else:
        args.ids = [int(part) for part in args.tokens.replace(",", " ").split()]
    if not args.ids:
        parser.error("no tokens")
    return args


class Library:
    """llama.cpp's functions, and what it last said."""

    def __init__(self, folder, cpu, verbose):
        self.load(folder, "libggml-base")
        ggml = self.load(folder, "libggml")
        self.llama = self.load(folder, "libllama")
        self.said = []

        def log(level, text, data):
            self.said = [*self.said[-20:], text.decode(errors="replace")]
            if verbose:
                sys.stderr.write(self.said[-1])

        self.log = LOG(log)
        self.llama.llama_log_set(self.log, None)
        if cpu:
            path = os.path.join(folder, f"libggml-cpu-{cpu}.so")
            ggml.ggml_backend_load.restype = POINTER
            if not ggml.ggml_backend_load(path.encode()):
                self.fail(f"{path} does not run here")
        else:
            ggml.ggml_backend_load_all_from_path(folder.encode())
        self.declare()

    @staticmethod
    def load(folder, name):
        found = [path for end in (".so", ".v*.so", ".so.*", ".dylib")
                 for path in sorted(glob.glob(os.path.join(folder, name + end)))]
        if not found:
            sys.exit(f"{folder} has no {name}")
        return ctypes.CDLL(found[0], mode=ctypes.RTLD_GLOBAL)

    def declare(self):
        floats = ctypes.POINTER(FLOAT)
        for name, result, *given in (
            ("llama_model_default_params", ModelParams),
            ("llama_context_default_params", ContextParams),
            ("llama_model_load_from_file", POINTER, ctypes.c_char_p, ModelParams),
            ("llama_init_from_model", POINTER, POINTER, ContextParams),
            ("llama_model_get_vocab", POINTER, POINTER),
            ("llama_vocab_n_tokens", INT, POINTER),
            ("llama_adapter_lora_init", POINTER, POINTER, ctypes.c_char_p),
            ("llama_set_adapters_lora", INT, POINTER, POINTER, ctypes.c_size_t, POINTER),
            ("llama_decode", INT, POINTER, Batch),
            ("llama_get_logits_ith", floats, POINTER, INT),
            ("llama_print_system_info", ctypes.c_char_p),
        ):
            function = getattr(self.llama, name, None)
            if function is None:
                sys.exit(f"this llama.cpp has no {name}")
            function.restype, function.argtypes = result, given
            setattr(self, name, function)

    def defaults(self, function):
        params = function()
        for key, value in params.EXPECTED.items():
            if getattr(params, key) != value:
                name = type(params).__name__
                sys.exit(f"another llama.cpp: {name}.{key} is {getattr(params, key)}, not {value}")
        return params

    def fail(self, what):
        sys.exit(f"{what}\n{''.join(self.said)}")


def context(library, args):
    params = library.defaults(library.llama_model_default_params)
    params.n_gpu_layers = 0
    params.use_extra_bufts = not args.plain_weights
    model = library.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        library.fail(f"{args.model} cannot be loaded")
    params = library.defaults(library.llama_context_default_params)
    params.n_ctx = params.n_batch = params.n_ubatch = len(args.ids)
    params.n_outputs_max_per_seq = 0
    params.n_threads = params.n_threads_batch = args.threads
    params.flash_attn = int(args.flash)
    params.type_k = params.type_v = GGML_F32 if args.cache == "f32" else GGML_F16
    made = library.llama_init_from_model(model, params)
    if not made:
        library.fail("no context can be made")
    if args.lora:
        adapter = library.llama_adapter_lora_init(model, args.lora.encode())
        if not adapter:
            library.fail(f"{args.lora} cannot be loaded")
        adapters, scales = (POINTER * 1)(adapter), (FLOAT * 1)(args.scale)
        if library.llama_set_adapters_lora(made, adapters, 1, scales):
            library.fail(f"{args.lora} cannot be set")
    size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    outside = [token for token in args.ids if not 0 <= token < size]
    if outside:
        sys.exit(f"not in the vocabulary of {size}: {outside[:5]}")
    return made, size


def rows(library, made, size, ids, each):
    """The logits of each position."""
    for part in [[token] for token in ids] if each else [ids]:
        count = len(part)
        tokens, wanted = (INT * count)(*part), (ctypes.c_int8 * count)(*[1] * count)
        batch = Batch(n_tokens=count)
        batch.token = ctypes.cast(tokens, POINTER)
        batch.logits = ctypes.cast(wanted, POINTER)
        result = library.llama_decode(made, batch)
        if result:
            library.fail(f"llama_decode returned {result}")
        for at in range(count):
            found = library.llama_get_logits_ith(made, at)
            yield array.array("f", ctypes.string_at(found, 4 * size))


def told(logits, top, after):
    highest = max(logits)
    log_sum = highest + math.log(sum(math.exp(logit - highest) for logit in logits))
    best = sorted(range(len(logits)), key=lambda token: -logits[token])[:top]
    entry = {"top": [[token, logits[token], logits[token] - log_sum] for token in best],
             "log_sum": log_sum}
    if after is not None:
        entry["next"] = logits[after] - log_sum
    return entry


def main():
    args = arguments()
    library = Library(os.path.abspath(args.library), args.cpu, args.verbose)
    made, size = context(library, args)
    positions = []
    out = open(args.out, "wb") if args.out else None
    for at, logits in enumerate(rows(library, made, size, args.ids, args.each)):
        after = args.ids[at + 1] if at + 1 < len(args.ids) else None
        positions.append(told(logits, args.top, after))
        if after is None and args.full:
            positions[-1]["logits"] = list(logits)
        if out:
            if sys.byteorder == "big":
                logits.byteswap()
            logits.tofile(out)
    if out:
        out.close()
    asked = [entry["next"] for entry in positions if "next" in entry]
    result = {
        "model": os.path.basename(args.model),
        "lora": os.path.basename(args.lora) if args.lora else None,
        "scale": args.scale if args.lora else None,
        "vocabulary": size,
        "tokens": args.ids,
        "mean_loss": -sum(asked) / len(asked) if asked else None,
        "system": library.llama_print_system_info().decode(),
        "positions": positions,
    }
    print(json.dumps(result))
    sys.stdout.flush()
    # What is still loaded is left to the system: freeing it in the right order is no concern here.
    os._exit(0)


if __name__ == "__main__":
    main()
