"""Who is at work on a lake table: its writers take turns, a sweep is alone, and who was not first tries again."""

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelinscale.core import files
from modelinscale.core.errors import LakeError, StoreError
from modelinscale.data._lake_base import Where
from modelinscale.data.arrow import INTERNAL

_PATIENCE_S = 5.0  # of waiting for one's turn; then it goes on without, and the commit itself decides
LONGEST_S = 600.0


@contextmanager
def at_work(where: Where, *, alone: bool = False, wait_s: float = LONGEST_S) -> Iterator[bool]:
    """Holds a local table as one of its writers, or ``alone``; gives whether it does. The writers of an object store do not see each other."""
    if where.folder is None:
        yield not alone
        return
    with _lock_file(where.folder / f"{INTERNAL}writers") as handle:
        held = _flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, wait_s)
        if not held and not alone:
            raise StoreError(f"the table {where.uri} is held by a sweep or an erasure.", fix="Wait until it ends, or stop it.")
        yield held


@contextmanager
def turn(where: Where) -> Iterator[None]:
    """Writers of one machine take turns, which saves work done twice. Only a courtesy: after a while one goes on without, and `land` decides."""
    if where.folder is None:
        yield
        return
    with _lock_file(where.folder / f"{INTERNAL}lock") as handle:
        _flock(handle, fcntl.LOCK_EX, _PATIENCE_S)
        yield


def attempts(where: Where) -> Iterator[int]:
    """Tries until one succeeds, ever longer apart. Raises `LakeError` when others were first for ten minutes."""
    end, n = time.monotonic() + LONGEST_S, 0
    while time.monotonic() < end:
        yield n
        n += 1
        time.sleep(random.uniform(0, min(1.0, 0.01 * 2**n)))
    raise LakeError(f"{where.uri}: other writers were first, {n} times in {LONGEST_S / 60:.0f} minutes.", fix="Run again with fewer writers at once.")


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    with files.told(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _flock(handle: int, how: int, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(random.uniform(0.001, 0.01))  # of different lengths: nobody waits in step with another
