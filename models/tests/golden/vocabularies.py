#!/usr/bin/env python3
"""Trains a small byte-level BPE for every pre-tokenizer, and records the ids it gives.

    python -B vocabularies.py

README.md beside this file says what `../fixtures/vocabularies` and `vocabularies.json` hold.
"""

import json
from importlib.metadata import version
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures" / "vocabularies"
SPECIAL = ["<|end|>", "<|start|>"]
ADDED = ["<tool_call>", "</tool_call>"]
SIZE = 560

# The patterns of the models' own tokenizer.json files, which llama.cpp names as these folders.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
PATTERNS = {
    "llama-bpe": WORDS + r"\p{N}{1,3}" + REST,
    "qwen2": WORDS + r"\p{N}" + REST,
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{SUFFIX}"
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{SUFFIX}"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

CORPUS = """
The tokenizer's job isn't hard: it splits 12345 words, 2024-07-09 dates and 3.14159 numbers.
They'll say THEY'LL, we've WE'VE, I'm I'M, don't DON'T, it's IT'S and you'd YOU'D.
    def encode(self, text):\n        return [self.ids[t] for t in text.split()]\n\n\n
camelCase CamelCase HTTPServer parseHTTPResponse snake_case kebab-case path/to/file.rs //
Das Mädchen läuft über die Straße; café, naïve, façade, señor, Ångström, Œuvre, İstanbul.
Привет, мир! Как дела? Это проверка. Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم ١٢٣٤٥.
你好，世界！这是一个测试。こんにちは世界、テストです。안녕하세요 세계. हिन्दी में परीक्षण ४५६।
🙂 😀 👩‍👩‍👧 🇩🇪 🏳️‍🌈 emoji 👍🏽 ✅ → ≠ ½ ² Ⅷ ① € £ ¥
{"name": "look_up", "arguments": {"query": "a b", "limit": 10, "offset": 100000}}
"""

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n  x",
    " \n \n",
    "\r\n\r\n a\r\n",
    "\t\ttabs\tand  spaces   ",
    "a  1   22    333",
    "Hello, world!",
    "It's, IT'S, it’s; they'LL 'Re 'tis 's 'ſ 'd'D",
    "12345678 1,234.56 007 3.14e-10 ١٢٣٤٥٦ ४५६ ½²Ⅷ①",
    "x1y22z333w4444",
    "camelCase HTTPServer XMLHttpRequest ABCdef aBC ǅungla ʰa ªb",
    "path/to//file.rs /// a/\n/b",
    "don't can't DON'T Ain'T",
    "café cafe\u0301 A\u030angstro\u0308m e\u0301\u0323 \u1e9b\u0323 ﬁ Å Å",
    "Straße İstanbul ŒUVRE ﬀ",
    "Привет, мир! ПРИВЕТ",
    "你好，世界！这是测试123。",
    "こんにちは世界、テストです。ﾃｽﾄ",
    "안녕하세요 각 각",
    "हिन्दी में परीक्षण",
    "שלום עולם مرحبا بالعالم",
    "🙂👩‍👩‍👧🇩🇪🏳️‍🌈👍🏽",
    "→≠✅ €£¥ §¶",
    "\u00a0nbsp\u2003em\u2028line\u3000wide\u200bzero",
    "\x00\x01\x1b[0m\x7f\x85\u0085",
    "\ue000\U000f0000\U0010ffff\ufffd\ufeff",
    "    def f(x):\n        return x  # note\n\n\n",
    "{\"a\": [1, 2.5, null], \"b\": {\"c\": \"d\\n\"}}",
    "<|start|>user\nhi<|end|>\n<|start|>assistant\n",
    "<tool_call>{\"name\": \"x\"}</tool_call>",
    "a<|end|>b <|end|> c<tool_call> d",
    "<|en d|> <|END|> <tool_call <|end|",
    "!!!???... --- ''' \"\"\" ``` ~~~",
    "a" * 70,
    " " * 40 + "x" + "\n" * 20,
    "unreachable word",
    "a unreachable\nunreachable",
    "ά Ά ῼ ﬃ ǆ K Ω",
    "𝒳𝓎 𝟘𝟙𝟚 𐐀𐐨",
]


def pre_tokenizer(name):
    if name == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), behavior="isolated")
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, rest])


def train(name):
    """Trains on the corpus; with `ignore_merges` one word is a token that no merges lead to."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    tokenizer.decoder = decoders.ByteLevel()
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    file = json.loads(tokenizer.to_str())
    vocab = file["model"]["vocab"]
    if name == "llama-bpe":
        vocab["Ġunreachable"] = len(vocab)
    tokenizer = Tokenizer.from_str(json.dumps(file))
    special = [AddedToken(t, special=True, normalized=False) for t in SPECIAL]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ADDED])
    return tokenizer


def case(text, tokenizer):
    encoded = tokenizer.encode(text, add_special_tokens=False)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert wrapped(text, add_special_tokens=False).input_ids == encoded.ids
    return encoded.ids, tokenizer.decode(encoded.ids, skip_special_tokens=True)


def main():
    FIXTURES.mkdir(exist_ok=True)
    kinds = []
    for name in ("smollm", "gpt-2", "llama-bpe", "qwen2", "gpt-4o"):
        tokenizer = train(name)
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (FIXTURES / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(FIXTURES / f"{name}.json"))
        cases = [case(text, tokenizer) for text in TEXTS]
        differing = {i: back for i, (_, back) in enumerate(cases) if back != TEXTS[i]}
        end = tokenizer.token_to_id(SPECIAL[0])
        ids = [ids for ids, _ in cases]
        kinds.append({"pre": name, "end": end, "ids": ids, "decoded": differing})
    lines = [f'"versions": {json.dumps({p: version(p) for p in ("tokenizers", "transformers")})}']
    texts = ",\n".join("  " + json.dumps(text, ensure_ascii=False) for text in TEXTS)
    lines.append(f'"texts": [\n{texts}\n]')
    rows = ",\n".join(
        "  " + json.dumps(kind, ensure_ascii=False, separators=(",", ":")) for kind in kinds
    )
    lines.append(f'"kinds": [\n{rows}\n]')
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    json.loads(text)
    (HERE / "vocabularies.json").write_text(text, encoding="utf-8")
    print(f"vocabularies.json: {len(TEXTS)} texts, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
