"""Times llama.cpp over a prompt, over tokens one by one, and over many prompts at once.

    python llama_speed.py --library DIR --model model.gguf --cpu NAME [--threads 2]
                          [--mode single] [--new 128] [--repeat 3]
    python llama_speed.py --library DIR --model model.gguf --cpu NAME [--threads 2]
                          --mode workload [--rows 8] [--prompts 200] [--length 256] [--new 64]
                          [--split-cache]

Needs Python alone; see llama_logits.py for DIR, and for the processors that NAME can be. Everything
is set as llama.cpp has it by default: keys and values in f16, FlashAttention where it can, 2048 ids
in a batch and 512 in a pass, weights repacked for the processor, threads that stay between passes.
Loading is never timed. One line of JSON is printed.

single does what llama-bench does: `prompt_512` is the rate of one batch of 512 ids with the logits
of the last, `decode_0` and `decode_512` that of `--new` batches of one id behind nothing and behind
512 others. Ids are given, none is chosen, as in llama-bench. Each has an entry for each repetition,
in tokens a second.

workload does what llama.cpp's server does with `--prompts` requests that are all there from the
start: each batch has the last token of every row that is generating and, up to 2048 ids, what is
still to be read of prompts; a row whose text has ended gets the next prompt before the next batch.
Tokens are chosen by llama.cpp's own sampler, greedily, and none ends a text before it has `--new`
of them. `seconds` runs from the first batch to the last token. Rows share one cache; --split-cache
gives each one of its own, which the server has as an option as well. Id j of prompt i is
(i * 7919 + j * 104729 + 17) % 40000, so that another program can be given the same.
"""

import argparse
import ctypes
import json
import os
import resource
import sys
import time

from llama_logits import BOOL, INT, POINTER, UINT, Batch, Library

PROMPT = 512
DEPTHS = (0, 512)
VOCABULARY = 40_000


class PoolParams(ctypes.Structure):
    _fields_ = [
        ("cpumask", BOOL * 512), ("n_threads", INT), ("prio", INT), ("poll", UINT),
        ("strict_cpu", BOOL), ("paused", BOOL),
    ]
    EXPECTED = {"prio": 0, "poll": 50, "strict_cpu": False, "paused": False}


class SamplerParams(ctypes.Structure):
    _fields_ = [("no_perf", BOOL)]
    EXPECTED = {"no_perf": True}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--library", required=True, metavar="DIR")
    parser.add_argument("--model", required=True)
    parser.add_argument("--cpu", metavar="NAME", help="which libggml-cpu-NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mode", default="single", choices=["single", "workload"])
    parser.add_argument("--new", type=int, help="tokens to make: 128, or 64 for each prompt")
    parser.add_argument("--repeat", type=int, default=3, help="of single")
    parser.add_argument("--rows", type=int, default=8, help="of workload: texts at a time")
    parser.add_argument("--prompts", type=int, default=200, help="of workload")
    parser.add_argument("--length", type=int, default=256, help="of each of its prompts")
    parser.add_argument("--split-cache", action="store_true", help="a cache for each row")
    parser.add_argument("--verbose", action="store_true", help="what llama.cpp says, to stderr")
    args = parser.parse_args()
    if args.new is None:
        args.new = 128 if args.mode == "single" else 64
    for name in ("threads", "new", "repeat", "rows", "prompts", "length"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return args


class Timed(Library):
    """What reading logits does not need: the cache, samplers and lasting threads."""

    def declare(self):
        super().declare()
        # Functions of ggml are found through libllama, which needs the libraries they are in.
        for name, result, *given in (
            ("llama_backend_init", None),
            ("llama_version", ctypes.c_char_p),
            ("llama_n_batch", UINT, POINTER),
            ("llama_get_memory", POINTER, POINTER),
            ("llama_memory_clear", None, POINTER, BOOL),
            ("llama_memory_seq_rm", BOOL, POINTER, INT, INT, INT),
            ("llama_synchronize", None, POINTER),
            ("llama_attach_threadpool", None, POINTER, POINTER, POINTER),
            ("llama_sampler_chain_default_params", SamplerParams),
            ("llama_sampler_chain_init", POINTER, SamplerParams),
            ("llama_sampler_chain_add", None, POINTER, POINTER),
            ("llama_sampler_init_greedy", POINTER),
            ("llama_sampler_sample", INT, POINTER, POINTER, INT),
            ("ggml_backend_dev_by_type", POINTER, ctypes.c_int),
            ("ggml_backend_dev_backend_reg", POINTER, POINTER),
            ("ggml_backend_reg_get_proc_address", POINTER, POINTER, ctypes.c_char_p),
            ("ggml_threadpool_params_default", PoolParams, ctypes.c_int),
        ):
            function = getattr(self.llama, name, None)
            if function is None:
                sys.exit(f"this llama.cpp has no {name}")
            function.restype, function.argtypes = result, given
            setattr(self, name, function)

    def pool(self, threads):
        """Threads that stay between passes, as llama-bench and the server have them."""
        params = self.defaults(lambda: self.ggml_threadpool_params_default(threads))
        if params.n_threads != threads:
            sys.exit("another llama.cpp: its threads are not where they should be")
        registry = self.ggml_backend_dev_backend_reg(self.ggml_backend_dev_by_type(0))
        found = self.ggml_backend_reg_get_proc_address(registry, b"ggml_threadpool_new")
        if not found:
            sys.exit("this llama.cpp has no ggml_threadpool_new")
        made = ctypes.CFUNCTYPE(POINTER, ctypes.POINTER(PoolParams))(found)(ctypes.byref(params))
        if not made:
            self.fail("no threads can be made")
        return made

    def decode(self, context, batch):
        result = self.llama_decode(context, batch)
        if result:
            self.fail(f"llama_decode returned {result}")
        self.llama_synchronize(context)


def ids(prompt, length):
    return [(prompt * 7919 + at * 104_729 + 17) % VOCABULARY for at in range(length)]


def batch_of(tokens):
    """One sequence, whose places llama.cpp counts itself; logits of the last."""
    count = len(tokens)
    batch = Batch(n_tokens=count)
    batch.held = (INT * count)(*tokens)
    batch.token = ctypes.cast(batch.held, POINTER)
    return batch


def context(library, args):
    library.llama_backend_init()
    params = library.defaults(library.llama_model_default_params)
    params.n_gpu_layers = 0
    model = library.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        library.fail(f"{args.model} cannot be loaded")
    if library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)) < VOCABULARY:
        sys.exit(f"{args.model} has less than {VOCABULARY} tokens")
    params = library.defaults(library.llama_context_default_params)
    params.n_threads = params.n_threads_batch = args.threads
    if args.mode == "single":
        params.n_ctx = PROMPT + args.new
    else:
        params.n_ctx = args.rows * (args.length + args.new)
        params.n_seq_max = params.n_outputs_max = args.rows
        params.kv_unified = not args.split_cache
    made = library.llama_init_from_model(model, params)
    if not made:
        library.fail("no context can be made")
    library.llama_attach_threadpool(made, library.pool(args.threads), None)
    return made


def single(library, made, args):
    memory = library.llama_get_memory(made)
    prompt = batch_of(ids(0, PROMPT))
    steps = [batch_of([token]) for token in ids(1, args.new)]

    def timed(depth, batches):
        library.llama_memory_clear(memory, False)
        if depth:
            library.decode(made, batch_of(ids(2, depth)))
        begun = time.perf_counter()
        for batch in batches:
            library.decode(made, batch)
        took = time.perf_counter() - begun
        return sum(batch.n_tokens for batch in batches) / took

    wanted = {f"prompt_{PROMPT}": (0, [prompt])}
    wanted |= {f"decode_{depth}": (depth, steps) for depth in DEPTHS}
    for depth, batches in wanted.values():
        timed(depth, batches[:8])
    rates = {name: [] for name in wanted}
    for _ in range(args.repeat):
        for name, (depth, batches) in wanted.items():
            rates[name].append(round(timed(depth, batches), 2))
    return rates


class Row:
    """A place for one text at a time."""

    def __init__(self, name):
        self.name = name
        self.sequence = (INT * 1)(name)
        self.prompt = None  # of the text it has, if it has one
        self.read = 0       # ids of the prompt that were handed over
        self.text = []
        self.output = None  # where in the batch its next token comes from

    def take(self, prompt):
        self.prompt, self.read, self.text = prompt, 0, []

    def generates(self):
        return self.prompt is not None and bool(self.text)

    def reads(self):
        return self.prompt is not None and not self.text


class Filled:
    """The batch that is filled again and again, of up to `limit` ids."""

    def __init__(self, limit):
        self.limit = limit
        self.token, self.pos = (INT * limit)(), (INT * limit)()
        self.n_seq_id, self.seq_id = (INT * limit)(*[1] * limit), (POINTER * limit)()
        self.logits = (ctypes.c_int8 * limit)()
        self.batch = Batch()
        for name in ("token", "pos", "n_seq_id", "seq_id", "logits"):
            setattr(self.batch, name, ctypes.cast(getattr(self, name), POINTER))
        self.count = 0

    def add(self, row, tokens, first, output):
        start, end = self.count, self.count + len(tokens)
        self.token[start:end] = tokens
        self.pos[start:end] = range(first, first + len(tokens))
        self.seq_id[start:end] = [ctypes.addressof(row.sequence)] * len(tokens)
        self.logits[start:end] = [0] * len(tokens)
        if output:
            self.logits[end - 1] = 1
            row.output = end - 1
        self.batch.n_tokens = self.count = end

    def fill(self, rows):
        """As the server does it: first who generates, then prompts in the order of rows."""
        self.count = 0
        for row in rows:
            row.output = None
            if row.generates():
                self.add(row, row.text[-1:], len(row.prompt) + len(row.text) - 1, True)
        for row in rows:
            space = self.limit - self.count
            if row.reads() and space:
                part = row.prompt[row.read:row.read + space]
                row.read += len(part)
                self.add(row, part, row.read - len(part), row.read == len(row.prompt))
        return self.count > 0


def greedy(library):
    """In a chain, which keeps its memory from one call to the next, as the server has it."""
    params = library.defaults(library.llama_sampler_chain_default_params)
    chain = library.llama_sampler_chain_init(params)
    library.llama_sampler_chain_add(chain, library.llama_sampler_init_greedy())
    return chain


def workload(library, made, args):
    """The seconds, and the texts in the order in which they ended."""
    memory, sampler = library.llama_get_memory(made), greedy(library)
    prompts = [ids(prompt, args.length) for prompt in range(args.prompts)]
    rows = [Row(name) for name in range(args.rows)]
    filled = Filled(library.llama_n_batch(made))
    # Memory is touched for the first time here, and not below.
    library.decode(made, batch_of(ids(args.prompts, min(args.length, filled.limit))))
    library.llama_memory_clear(memory, False)
    texts, waiting = [], iter(prompts)
    begun = time.perf_counter()
    while True:
        for row in rows:
            if row.prompt is None:
                row.take(next(waiting, None))
        if not filled.fill(rows):
            break
        library.decode(made, filled.batch)
        for row in rows:
            if row.output is None:
                continue
            row.text.append(library.llama_sampler_sample(sampler, made, row.output))
            if len(row.text) == args.new:
                texts.append(row.text)
                row.prompt = None
                if not library.llama_memory_seq_rm(memory, row.name, -1, -1):
                    library.fail("what was cached of a text cannot be removed")
    return time.perf_counter() - begun, texts


def main():
    args = arguments()
    library = Timed(os.path.abspath(args.library), args.cpu, args.verbose)
    made = context(library, args)
    result = {"variant": f"llama.cpp {args.cpu}" if args.cpu else "llama.cpp"}
    if args.mode == "single":
        result |= single(library, made, args)
    else:
        seconds, texts = workload(library, made, args)
        result |= {
            "rows": args.rows,
            "cache": "split" if args.split_cache else "unified",
            "seconds": round(seconds, 3),
            "prompt_tokens": len(texts) * args.length,
            "new_tokens": sum(len(text) for text in texts),
        }
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result |= {"peak_rss_mb": round(highest / 1024, 1), "version": library.llama_version().decode()}
    print(json.dumps(result))
    sys.stdout.flush()
    # What is still loaded is left to the system, as in llama_logits.py.
    os._exit(0)


if __name__ == "__main__":
    main()
