"""Start-up: `import modelinscale`, `mis --help`, and the server from nothing to its first answer, with its memory.

python benchmarks/cold.py PACKAGE [--repeats 7]   writes benchmarks/results/cold.md
"""

import argparse
import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _measure import MIS, run

HERE = Path(__file__).parent


def cpu(code: str, repeats: int) -> float:
    """Median CPU seconds of a Python program."""
    return statistics.median(run([sys.executable, "-c", code]).cpu_s for _ in range(repeats))


def first_answer(package: Path) -> tuple[float, int]:
    """Seconds from the command to the first decision over HTTP, and the server's resident memory then, in bytes."""
    golden = json.loads((package / "golden.json").read_text(encoding="utf-8"))
    body = json.dumps({"rows": golden["rows"][:1]})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    server = subprocess.Popen([MIS, "serve", "--package", str(package), "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                break
            except ConnectionRefusedError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.005)
        wall = time.perf_counter() - start
        status = Path(f"/proc/{server.pid}/status").read_text()
        return wall, next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("package", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    n = arguments.repeats
    bare = cpu("pass", n)
    importing = cpu("import modelinscale", n) - bare
    helps = [run([MIS, "--help"]) for _ in range(n)]
    starts = [first_answer(arguments.package.resolve()) for _ in range(n)]
    lines = [
        "# Start-up",
        "",
        f"Medians of {n}, two cores.",
        "",
        "| | measured | promised |",
        "|---|---|---|",
        f"| `import modelinscale`, CPU beyond the interpreter's {bare:.3f} s | {importing:.3f} s | < 0.1 s |",
        f"| `mis --help`, wall | {statistics.median(h.wall_s for h in helps):.3f} s | < 0.3 s |",
        f"| `mis --help`, CPU | {statistics.median(h.cpu_s for h in helps):.3f} s | < 0.3 s |",
        f"| server, from the command to the first answer | {statistics.median(s for s, _ in starts):.2f} s | < 1.5 s |",
        f"| server, resident memory after it | {statistics.median(b for _, b in starts) / 1e6:.0f} MB | < 200 MB |",
    ]
    (HERE / "results" / "cold.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
