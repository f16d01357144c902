"""How fast a PostgreSQL table reaches the lake, against ``COPY ... TO STDOUT | wc -l``, while a writer inserts; and that every row is there once.

    python -m benchmarks.sql --rows 2000000          # the acceptance: 20000000

Starts a server of its own (Debian's), fills a table, and takes turns in one run: COPY, reading alone, a first collect, a second collect of what a writer
inserted meanwhile with transactions that commit out of order. The ids in the lake are then compared with those in the database.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _measure import run
from modelinscale.testing.databases import PASSWORD, Server, postgres

RESULTS = Path(__file__).parent / "results" / "sql.md"
TABLE = """CREATE TABLE payments (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), amount float8, n int, fee numeric(10, 2),
    country text, channel varchar(20), good bool, day date, ref uuid, x float8, y float4)"""
ROWS = """INSERT INTO payments (amount, n, fee, country, channel, good, day, ref, x, y) SELECT random() * 100, i % 1000, i % 10000 / 100.0, 'C' || i % 50,
    (ARRAY['shop', 'online', 'phone'])[1 + i % 3], i % 2 = 0, date '2025-01-01' + (i % 365)::int, gen_random_uuid(), random(), random()
    FROM generate_series(1, {n}) AS i"""
COLLECT = """
import sys, time
from modelinscale.data.sources import Source
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
url, folder = sys.argv[1:]
source = Source.parse({"type": "sql", "url": url, "table": "payments", "cursor": "id"})
start = time.perf_counter()
found = collect(source, lake=folder + "/t", quarantine=folder + "/q", contract=contract(source.columns(), {}, ()))
print(found.n_added, time.perf_counter() - start)
"""
READ = """
import sys, time
from modelinscale.data.sources import Source
source = Source.parse({"type": "sql", "url": sys.argv[1], "table": "payments", "cursor": "id"})
schema = source.columns()
start = time.perf_counter()
print(sum(c.batch.num_rows for c in source.read(None, schema)), time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    asked = parser.parse_args()
    os.environ["BENCH_PASSWORD"] = PASSWORD
    with postgres() as server, tempfile.TemporaryDirectory() as folder:
        server.run(TABLE)
        for _ in range(0, asked.rows, 1_000_000):
            server.run(ROWS.format(n=min(asked.rows, 1_000_000)))
        server.run("VACUUM ANALYZE payments")
        url = server.url("${ENV:BENCH_PASSWORD}")
        lines = [_copy(server), _read(url)]
        writer = _Writer(server)
        lines += [_collect(url, folder, "first collect, a writer inserting"), _collect(url, folder, "second collect, of what came meanwhile")]
        writer.stop()
        lines.append(_collect(url, folder, "third collect, the writer gone"))
        verdict = _compare(server, folder)
    _report(asked.rows, lines, verdict)


class _Line:
    def __init__(self, what: str, n: int, seconds: float, cpu_s: float, peak: int) -> None:
        self.what, self.n, self.seconds, self.cpu_s, self.peak = what, n, seconds, cpu_s, peak


def _copy(server: Server) -> _Line:
    """The yardstick, its best of two."""
    psql = f"psql -X -h 127.0.0.1 -p {server.port} -U mis shop -c 'COPY payments TO STDOUT' | wc -l"
    os.environ["PGPASSWORD"] = PASSWORD
    costs = [run(["sh", "-c", psql]) for _ in range(2)]
    best = min(costs, key=lambda c: c.wall_s)
    return _Line("`COPY payments TO STDOUT \\| wc -l`", int(best.output), best.wall_s, best.cpu_s, best.peak_bytes)


def _python(program: str, what: str, *arguments: str) -> _Line:
    cost = run([sys.executable, "-c", program, *arguments])
    n, seconds = cost.output.split()
    return _Line(what, int(n), float(seconds), cost.cpu_s, cost.peak_bytes)


def _read(url: str) -> _Line:
    return _python(READ, "reading alone, to Arrow", url)


def _collect(url: str, folder: str, what: str) -> _Line:
    return _python(COLLECT, what, url, folder)


class _Writer:
    """Three sessions that insert without end, holding their transactions open for different times."""

    def __init__(self, server: Server) -> None:
        self._server, self._stop = server, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(pause,)) for pause in (0.0, 0.05, 0.3)]
        for one in self._threads:
            one.start()

    def _write(self, pause: float) -> None:
        while not self._stop.is_set():
            self._server.run(f"BEGIN; {ROWS.format(n=50)}; SELECT pg_sleep({pause}); SAVEPOINT s; {ROWS.format(n=20)}; COMMIT;")

    def stop(self) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()


def _compare(server: Server, folder: str) -> str:
    import numpy as np

    from modelinscale.data.lake import open_table

    found = np.concatenate([b.column(0).to_numpy() for b in open_table(f"{folder}/t").blocks(["id"])])
    out = subprocess.run(
        [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-h",
            "127.0.0.1",
            "-p",
            str(server.port),
            "-U",
            "mis",
            "shop",
            "-c",
            "COPY (SELECT id FROM payments ORDER BY id) TO STDOUT",
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        capture_output=True,
        check=True,
    ).stdout
    expected = np.array(out.split(), np.int64)
    different = np.unique(found)
    lost, doubled = len(np.setdiff1d(expected, different)), len(found) - len(different)
    return f"{len(expected):,} rows in the database, {len(found):,} in the lake: {lost} lost, {doubled} doubled"


def _report(n_rows: int, lines: list[_Line], verdict: str) -> None:
    yard = lines[0].n / lines[0].seconds
    text = [
        "# PostgreSQL into the lake",
        "",
        f"{n_rows:,} rows × 12 mixed columns at the start; `python -m benchmarks.sql --rows {n_rows}`, {time.strftime('%Y-%m-%d')}.",
        "",
    ]
    text += [f"**{verdict}.**", "", "| | rows | s | rows/s | ratio to COPY | CPU s (ours) | peak MB |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for one in lines:
        speed = one.n / one.seconds
        text.append(f"| {one.what} | {one.n:,} | {one.seconds:.2f} | {speed:,.0f} | {speed / yard:.2f} | {one.cpu_s:.1f} | {one.peak >> 20} |")
    RESULTS.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
