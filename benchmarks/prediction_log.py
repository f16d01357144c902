"""What the prediction log costs the server: processor time a row, latency, memory; two servers alike but for it, asked in turns.

python benchmarks/prediction_log.py [--turns 20] [--columns 10]   writes benchmarks/results/prediction_log.md
"""

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from modelinscale.core.predictions import folder_of, segments
from modelinscale.testing.packages import write_package
from modelinscale.testing.servers import Running, predict, running

HERE = Path(__file__).parent
SETTLE_S = 0.6
"""How long a turn waits at its end for the log to be written: its cost belongs to the turn."""


class Turn(NamedTuple):
    cpu_us: float
    """Processor time of the server a row."""
    median_us: float
    p99_us: float
    """Of a request, as the client sees it."""


def cpu_s(pid: int) -> float:
    """Processor time of all threads so far."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def turn(server: Running, link: socket.socket, body: bytes, n_rows: int, n_requests: int) -> Turn:
    raw, seconds, before = predict(body, close=False), [], cpu_s(server.process.pid)
    for _ in range(n_requests):
        start = time.perf_counter()
        link.sendall(raw)
        answer = link.recv(1 << 16)
        head, _, rest = answer.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < size:
            rest += link.recv(1 << 16)
        seconds.append((time.perf_counter() - start) * 1e6)
    time.sleep(SETTLE_S)
    seconds.sort()
    return Turn((cpu_s(server.process.pid) - before) * 1e6 / (n_rows * n_requests), seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--columns", type=int, default=10)
    asked = parser.parse_args()
    lines = [
        "| rows a request | processor time a row, log off | log on | the log's share | median latency off → on | p99 off → on |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        package, log = write_package(Path(folder) / "p", n_numbers=asked.columns), Path(folder) / "log"
        with running(package, log={"rows": False}) as off, running(package, log={"folder": str(log)}) as on, off.connect() as a, on.connect() as b:
            rss = [[s.rss_bytes() / 1e6 for s in (off, on)]]
            for n_rows, n_requests in ((1, 1000), (32, 200), (1000, 10)):
                body = json.dumps({"rows": [{f"x{i}": i / 7 + k for i in range(asked.columns)} for k in range(n_rows)]}).encode()
                turns: tuple[list[Turn], list[Turn]] = ([], [])
                for i in range(asked.turns + 1):
                    pair = [turn(off, a, body, n_rows, n_requests), turn(on, b, body, n_rows, n_requests)]
                    if i:  # the first is for warming up
                        turns[0].append(pair[0])
                        turns[1].append(pair[1])
                x, y = (Turn(*(statistics.median(v) for v in zip(*t, strict=True))) for t in turns)
                more = sorted(q.cpu_us - p.cpu_us for p, q in zip(*turns, strict=True))
                low, high = more[len(more) // 4], more[len(more) * 3 // 4]
                lines.append(
                    f"| {n_rows} | {x.cpu_us:.1f} µs | {y.cpu_us:.1f} µs | {statistics.median(more):.1f} µs ({low:.1f} to {high:.1f}) "
                    f"| {x.median_us:.0f} → {y.median_us:.0f} µs | {x.p99_us:.0f} → {y.p99_us:.0f} µs |"
                )
            rss.append([s.rss_bytes() / 1e6 for s in (off, on)])
            metrics = on.get("/metrics").text
            dropped = next(line.split()[-1] for line in metrics.splitlines() if line.startswith("mis_log_dropped_rows_total{"))
            n_rows = int(next(line.split()[-1] for line in metrics.splitlines() if line.startswith("mis_log_rows_total{")))
        size = sum(s.stat().st_size for s in segments(folder_of(log, "tiny")))
    text = [
        "# What the prediction log costs the server",
        "",
        f"A package of {asked.columns} number columns, one client, {asked.turns} turns each in alternation (medians, quartiles of the differences),",
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. {n_rows:,} rows logged, {dropped} dropped, {size / n_rows:.0f} bytes a row.",
        "",
        *lines,
        "",
        f"Resident memory: {rss[0][0]:.0f} MB without, {rss[0][1]:.0f} MB with the log at the start; {rss[1][0]:.0f} and {rss[1][1]:.0f} MB at the end.",
        "",
    ]
    (HERE / "results" / "prediction_log.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
