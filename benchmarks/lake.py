"""Many writers of one lake table, writers killed while they commit, and versions read long after: nothing lost, nothing twice, nothing half there.

python benchmarks/lake.py [--writers 8] [--appends 200] [--kills 200] [--seed 7]   writes benchmarks/results/lake.md
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.core.schema import Schema

HERE = Path(__file__).parent
ROWS = 50
"""Rows of one append, about."""
LONGEST_S = 0.6
"""A writer is killed before it has committed for so long."""

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import lake as bench
bench.{what}(*sys.argv[2:])
"""


@dataclass(frozen=True)
class Written:
    """What writers at once came to."""

    n_commits: int
    n_rows: int
    seconds: float
    slowest_s: float
    """The longest that one append took."""
    shares: tuple[float, ...]
    """When each writer ended, as a share of the whole: near 1 for all when none was kept waiting."""


@dataclass(frozen=True)
class Killed:
    """What kills came to."""

    seen: collections.Counter[str]
    n_versions: int
    seconds: float


def schema() -> "Schema":
    from modelinscale.core.schema import Column, Schema

    return Schema(columns=(Column(name="id", type="string"), Column(name="x", type="float"), Column(name="word", type="string")))


def rows(who: str, i: int, n: int) -> "pa.Table":
    """Rows that no other call makes."""
    import pyarrow as pa

    return pa.table({"id": [f"{who}-{i}-{j}" for j in range(n)], "x": [float(j) for j in range(n)], "word": [f"word {j % 7}" for j in range(n)]})


def append_many(uri: str, who: str, n: str) -> None:
    """One of the writers: each append opens the table anew, as separate programs would. Prints its slowest append and when it ended."""
    from modelinscale.data.lake import open_table

    slowest = 0.0
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(int(n)):
        start = time.monotonic()
        open_table(uri).append(rows(who, i, ROWS), batch=f"{who}-{i}")
        slowest = max(slowest, time.monotonic() - start)
    print(slowest, time.monotonic(), flush=True)


def commit_until_killed(uri: str, seed: str) -> None:
    """Commits of every sort from the number read on standard input, one after the other, each told on standard output when it is in."""
    from modelinscale.data.lake import Table, open_table

    chance = random.Random(int(seed))
    open_table(uri)  # what is imported late is imported now
    print("ready", flush=True)
    i = int(sys.stdin.readline())
    table: Table = open_table(uri)
    while True:
        many = 120_000 if chance.random() < 0.05 else ROWS
        what = chance.choice(["append", "append", "upsert", "compact"])
        if what == "compact":
            table = table.compact(n_files=4)
            continue
        if what == "append":
            table = table.append(rows("k", i, many), batch=str(i), cursor={"i": i})
        else:
            table = table.upsert(rows("k", max(0, i - 2), many), ["id"], batch=str(i), cursor={"i": i})
        print(i, flush=True)
        i += 1


def start(what: str, *words: str) -> "subprocess.Popen[str]":
    code = WRITER.format(what=what)
    return subprocess.Popen([sys.executable, "-c", code, str(HERE), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def all_at_once(uri: str, n_writers: int, n_appends: int) -> Written:
    """So many processes append so often to one table at the same time."""
    from modelinscale.data.lake import create_table, open_table

    create_table(uri, schema())
    writers = [start("append_many", uri, f"w{w}", str(n_appends)) for w in range(n_writers)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    begin = time.monotonic()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * n_writers, "a writer failed"
    ended = [float(at) - begin for _, at in said]
    table = open_table(uri)
    found = [name for block in table.blocks(["id"]) for name in block.column("id").to_pylist()]
    expected = {f"w{w}-{i}-{j}" for w in range(n_writers) for i in range(n_appends) for j in range(ROWS)}
    assert len(found) == len(set(found)) == len(expected), f"{len(found):,} rows, {len(set(found)):,} different, {len(expected):,} expected"
    assert set(found) == expected
    commits = [past.commit for past in table.history() if past.commit is not None and past.commit.what == "append" and past.commit.batch]
    seqs, batches = [c.seq for c in commits], [c.batch for c in commits]
    assert seqs == list(range(1, n_writers * n_appends + 1)), "commit numbers do not go up by one"
    assert len(set(batches)) == len(batches), "a batch is in twice"
    return Written(len(commits), len(found), max(ended), max(float(s) for s, _ in said), tuple(sorted(e / max(ended) for e in ended)))


def kill_commits(uri: str, n_kills: int, seed: int) -> Killed:
    """Kills a writer so often while it commits. After each the table is opened, every version is compared with the rows saved when it was newest."""
    from modelinscale.data.lake import create_table, open_table

    chance, begin = random.Random(seed), time.monotonic()
    create_table(uri, schema(), rows("k", 0, ROWS), batch="0", cursor={"i": 0})
    saved: dict[int, list[str]] = {}
    seen: collections.Counter[str] = collections.Counter()
    done = 0
    upcoming = start("commit_until_killed", uri, str(seed))
    for kill in range(n_kills):
        writer, upcoming = upcoming, start("commit_until_killed", uri, str(seed + kill + 1))
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write(f"{done + 1}\n")
        writer.stdin.flush()
        time.sleep(chance.uniform(0, LONGEST_S))
        os.killpg(writer.pid, signal.SIGKILL)
        told = [int(line) for line in writer.communicate()[0].splitlines() if line.strip()]
        table = open_table(uri)
        cursor = table.cursor
        assert cursor is not None
        last = max([done, *told])
        assert cursor["i"] in (last, last + 1), f"kill {kill}: told {last}, found {cursor['i']}"
        seen["the last commit told" if cursor["i"] == last else "one more, which the writer did not live to tell"] += 1
        done = int(cursor["i"])
        found = [name for block in table.blocks(["id"]) for name in block.column("id").to_pylist()]
        assert table.n_rows == len(found)
        saved[table.version] = found
        table.sweep()
    os.killpg(upcoming.pid, signal.SIGKILL)
    upcoming.communicate()
    for version, names in saved.items():
        table = open_table(uri, version)
        assert [name for block in table.blocks(["id"]) for name in block.column("id").to_pylist()] == names, f"version {version} is not what it was"
    return Killed(seen, len(saved), time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--appends", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only-kills", action="store_true", help="for a look at kills alone; writes nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lake.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.only_kills:
            print(kill_commits(f"{name}/killed", arguments.kills, arguments.seed))
            return
        written = all_at_once(f"{name}/many", arguments.writers, arguments.appends)
        print(written, flush=True)
        killed = kill_commits(f"{name}/killed", arguments.kills, arguments.seed)
        print(killed, flush=True)
    lines = [
        "# Writers of one lake table",
        "",
        f"{arguments.writers} processes appended {arguments.appends} times each, {ROWS} rows an append, all at once and each time to the table opened anew",
        f"(two cores): {written.n_commits:,} commits, {written.n_rows:,} rows, every row once, commit numbers 1 to {written.n_commits:,} without a gap,",
        f"in {written.seconds:.0f} s ({written.n_commits / written.seconds:.0f} commits/s). The slowest single append took {written.slowest_s:.1f} s;"
        f" the first writer ended after {written.shares[0]:.0%} of the time.",
        "",
        f"A writer that appends, replaces by key (some commits of 120,000 rows) and joins files was killed with SIGKILL {arguments.kills} times (seed",
        f"{arguments.seed}), each time somewhere in its first {LONGEST_S} s of commits. After every kill the table opened, with:",
        "",
        "| newest version after the kill | times |",
        "|---|---|",
        *(f"| {state} | {n} |" for state, n in sorted(killed.seen.items())),
        "",
        f"{killed.n_versions} versions were read again at the end and were, row for row, what had been saved aside when each was the newest.",
    ]
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
