"""Fills SQLite with the rows of a file: each line is parsed, its id and text are inserted.

    python3 import_sqlite.py ROWS.jsonl DATABASE

Write-ahead log, synchronous=FULL, a commit for every 4,096 rows: each is durable when it returns.
"""

import json
import sqlite3
import sys
import time

ROWS_OF_A_COMMIT = 4096


def main(rows_path, database):
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, text TEXT NOT NULL)")
    begun = time.monotonic()
    count = 0
    pending = []

    def commit():
        db.execute("BEGIN")
        db.executemany("INSERT INTO rows VALUES (?, ?)", pending)
        db.execute("COMMIT")
        pending.clear()

    with open(rows_path, encoding="utf-8") as rows:
        for line in rows:
            row = json.loads(line)
            pending.append((row["id"], line))
            count += 1
            if len(pending) == ROWS_OF_A_COMMIT:
                commit()
    if pending:
        commit()
    db.close()
    print(json.dumps({"rows": count, "seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
