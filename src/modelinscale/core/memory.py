"""Memory: how much there is, what a piece of work will need, and a refusal before the work instead of the kernel's killer during it."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelinscale.core.allocators import keep_pages
from modelinscale.core.errors import DataError
from modelinscale.core.units import show_bytes

BASE_BYTES = 240 << 20
"""What the process holds before any row: the interpreter and the libraries. Measured: 203 MiB anonymous with torch, LightGBM, Polars, Lance and onnxruntime."""
MARGIN = 1.1
"""A guard stops the work when the process holds this many times its budget: allocators keep some of what was given back."""
_NEAR, _AGAIN = 0.8, 1 / 32
"""From this share of the budget on the guard has allocators give back what was freed, and again whenever so much more is held: clearing pages costs time."""
_WATCH_S = 0.02


def available(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has free, or what its container (cgroup v1 or v2) leaves, whichever is less."""
    free = _meminfo(proc / "meminfo")
    for limit, used, inactive in _limits(proc, cgroups):
        # Pages of files that nobody looked at lately are given back when memory is short.
        free = min(free, limit - used + inactive)
    return max(free, 0)


def budget(memory: int | None) -> int:
    """Bytes one process may hold in all: what the user said, or what it holds now and four fifths of what is free."""
    return memory if memory is not None else held() + available() * 4 // 5


def room(memory: int | None) -> int:
    """Bytes for rows under a budget: what is left of it beside interpreter and libraries. The same at every call when the user named the budget."""
    return max(budget(memory) - BASE_BYTES, 16 << 20)


def block(memory: int | None) -> int:
    """Bytes of what is read at a time: some lie between reading and writing, each as text, as cells and cleaned. Never below a megabyte: a row must fit."""
    return max(1 << 20, room(memory) // 64)


def held(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process holds now and cannot give back: anonymous pages.

    Pages of files it reads are the system's to take, and shared ones are Ray's object store's, which has a limit of its own.
    """
    return _fields(status).get("RssAnon", 0)


@dataclass(frozen=True)
class Need:
    """What a piece of work holds at its fullest."""

    what: str
    """``train trees``."""
    n_bytes: int
    of: str
    """What it consists of, in words: ``10,000,000 rows x 12 columns of bins``."""
    fix: str
    """What makes it smaller."""

    def __str__(self) -> str:
        return f"{self.what} needs about {show_bytes(self.n_bytes)}: {self.of}"


def refuse(need: Need, memory: int | None) -> None:
    """Raises `DataError` when the work will not fit, before any of it is done."""
    error = refusal(need, memory)
    if error is not None:
        raise error


def refusal(need: Need, memory: int | None) -> DataError | None:
    """Why the work will not fit, with the budget that would do; None where it will."""
    there = room(memory)
    if need.n_bytes <= there:
        return None
    said = f"`compute.memory` is {show_bytes(memory)}" if memory is not None else f"{show_bytes(budget(None))} are free"
    return DataError(
        f"{need}, and {said}, of which {show_bytes(there)} are left for rows.",
        fix=f"{need.fix} Or set `compute.memory` to at least {show_bytes((need.n_bytes + BASE_BYTES) * 1.05)}, on a machine that has it.",
    )


class Guard:
    """Watches what the process holds, and says so at the next `check` when it is over its budget.

    Not ``setrlimit``: a limit on address space counts what libraries reserve and never touch (threads of torch and Lance alone reserve gigabytes), and where
    it strikes, an allocation fails inside a library that then aborts the process. A thread that looks costs nothing and lets the work end with a reason.
    """

    def __init__(self, memory: int) -> None:
        self._most, self._memory = int(memory * MARGIN), memory
        self._over, self._done = 0, threading.Event()
        self._least = 0
        self.peak = 0

    def check(self, doing: str) -> None:
        """Raises `DataError` when the budget was passed since the last check."""
        if not self._over:
            return
        self._over = 0
        give_back()
        over = held()
        if over > self._most:
            raise DataError(
                f"{doing}: the process holds {show_bytes(over)}, more than `compute.memory` allows ({show_bytes(self._memory)}): stopped rather than killed.",
                fix="Raise `compute.memory`, lower `compute.workers`, or name fewer columns under `features`.",
            )

    def watch(self) -> None:
        """Looks until `stop`; what a thread of its own runs. Near the budget freed memory goes back to the system, before work is stopped for its sake."""
        while not self._done.wait(_WATCH_S):
            now = held()
            self.peak = max(self.peak, now)
            self._least = min(self._least, now)
            if now > self._memory * _NEAR and now > self._least + self._memory * _AGAIN:
                give_back()
                self._least = now = held()
            if now > self._most:
                self._over = now

    def stop(self) -> None:
        self._done.set()


def give_back() -> None:
    """Returns to the system what allocators keep of memory that was freed: hundreds of megabytes after a large table was read."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


_GUARDS: list[Guard] = []
"""The guards at work, innermost last: partition functions run deep below who knows the budget."""


@contextmanager
def guarded(memory: int | None) -> Iterator[Guard | None]:
    """While the block runs, `check` raises once the process holds more than ``memory``; None: nothing is watched. Freed memory is used again (`keep_pages`)."""
    keep_pages(memory)
    if memory is None:
        yield None
        return
    guard = Guard(memory)
    thread = threading.Thread(target=guard.watch, name="memory", daemon=True)
    thread.start()
    _GUARDS.append(guard)
    try:
        yield guard
    finally:
        _GUARDS.remove(guard)
        guard.stop()
        thread.join()


def check(doing: str) -> None:
    """Raises `DataError` when the block around (`guarded`) is over its budget; called between partitions."""
    if _GUARDS:
        _GUARDS[-1].check(doing)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _meminfo(file: Path) -> int:
    fields = _fields(file)
    if "MemAvailable" in fields:
        return fields["MemAvailable"]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")  # no Linux: half of what there is
    return pages * size // 2


def _limits(proc: Path, cgroups: Path) -> Iterator[tuple[int, int, int]]:
    """Limit, use and inactive file pages of this process's group and each group around it, where there is a limit."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is the host's and is not there: then the group stands at the root.
        inner = root / path.lstrip("/")
        for folder in [inner, *inner.parents] if inner.is_dir() else [root]:
            limit, used = _number(folder / names[0]), _number(folder / names[1])
            if limit is not None and used is not None and limit < 1 << 60:
                yield limit, used, _stat(folder / "memory.stat", names[2])
            if folder == root:
                break


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _stat(file: Path, name: str) -> int:
    try:
        return next((int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name} ")), 0)
    except OSError:
        return 0


def _fields(file: Path) -> dict[str, int]:
    """``Name: 123 kB`` lines as bytes; none where there is no such file."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    parts = (line.split() for line in lines if line.endswith("kB"))
    return {p[0].rstrip(":"): int(p[1]) * 1024 for p in parts}
