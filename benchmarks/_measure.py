"""Runs a command and tells what it cost."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

MIS = str(Path(sys.executable).parent / "mis")


@dataclass(frozen=True)
class Cost:
    """What one command took, all its child processes included."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Largest resident memory of the process tree, anonymous and shared together, sampled every 20 ms and never below the kernel's own peak of the parent."""
    output: str
    """Its standard output."""
    held_bytes: int = 0
    """The most anonymous memory at once, what `compute.memory` bounds: pages of files are the system's to take back."""


def run(command: list[str], cwd: Path | None = None, check: bool = True) -> Cost:
    """Runs a command to its end. Raises `RuntimeError` with its standard error when it fails and ``check`` is set."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = os.times()
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err)
        peak = _Peak(process.pid)
        code = process.wait()
        wall = time.perf_counter() - start
        after = os.times()
        out.seek(0)
        err.seek(0)
        if check and code != 0:
            raise RuntimeError(f"{' '.join(command)} exited with {code}:\n{err.read().decode()[-3000:]}")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return Cost(wall, cpu, peak.stop(), out.read().decode(), peak.held)


class _Peak:
    """Watches the resident memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._done = pid, 0, threading.Event()
        self.held = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            tree = _tree(self._pid)
            self._peak = max(self._peak, sum(_field(p, "VmRSS") for p in tree), _field(self._pid, "VmHWM"))
            self.held = max(self.held, sum(_field(p, "RssAnon") for p in tree))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it ended while we looked
            continue
    return found


def _field(pid: int, name: str) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
