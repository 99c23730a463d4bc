"""Finds queries that nearly repeat an earlier one of the other side, with datasketch.

    python near_datasketch.py QUERIES.jsonl SHINGLE_WORDS PERMUTATIONS THRESHOLD

The same rule as ours: runs of words, MinHash for candidates, exact Jaccard similarity decides, and
what was found is left out from there on.
"""

import json
import sys
import time

from datasketch import MinHash, MinHashLSH

MARKS = " .,;:!?\u2026\u3002\uff0c\uff01\uff1f"


def shingles(query, words):
    all_words = " ".join(query.lower().split()).rstrip(MARKS).split(" ")
    size = max(1, min(words, len(all_words)))
    runs = range(len(all_words) - size + 1)
    return {" ".join(all_words[at : at + size]) for at in runs}


def main(path, words, permutations, threshold):
    words, permutations, threshold = int(words), int(permutations), float(threshold)
    with open(path, encoding="utf-8") as lines:
        queries = [json.loads(line) for line in lines]
    begun = time.monotonic()
    index = MinHashLSH(threshold=threshold, num_perm=permutations)
    sets = []
    found = 0
    for number, row in enumerate(queries):
        own = shingles(row["query"], words)
        sets.append((own, row["side"]))
        hashes = MinHash(num_perm=permutations)
        hashes.update_batch([shingle.encode() for shingle in own])
        earlier = (sets[other] for other in index.query(hashes))
        others = (other for other, side in earlier if side != row["side"])
        if any(len(own & other) >= threshold * len(own | other) for other in others):
            found += 1
        else:
            index.insert(number, hashes)
    print(json.dumps({"seconds": time.monotonic() - begun, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
