"""Files that are whole or not there: write to the side, then replace; one writer at a time."""

import errno
import fcntl
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelinscale.core.errors import InUse, StoreError
from modelinscale.core.units import show_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPACE = "Free some space, or put `store` on another disk."
_RIGHT = "Give this user the right to write there, or name another `store`."
_FIXES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "Raise the limit on file sizes (`ulimit -f`), or put `store` on another file system.",
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: "The file system is read-only: name another `store`.",
    errno.EIO: "The disk reports an error: check it, or put `store` on another one.",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`).",
    errno.ENOTDIR: "A file is in the way where a folder is needed: name another `store`.",
}


_SCRATCH = "Free some space, or set TMPDIR to a folder on a larger file system."
_SCRATCH_FIXES = {
    **dict.fromkeys(_FIXES, "Set TMPDIR to a folder on another file system, where this user may write."),
    errno.ENOSPC: _SCRATCH,
    errno.EDQUOT: _SCRATCH,
    errno.EMFILE: _FIXES[errno.EMFILE],
}
"""Of what lies in the folder for temporary files."""


def refusal(number: int, path: Path, doing: str, *, scratch: bool = False) -> StoreError | None:
    """The operating system's refusal with this ``errno`` as an error that says what, where and what to do; None for other errors."""
    if number not in _FIXES:
        return None
    return StoreError(f"Cannot {doing} {path}: {os.strerror(number)}.", fix=(_SCRATCH_FIXES if scratch else _FIXES)[number])


@contextmanager
def told(path: Path, doing: str, *, scratch: bool = False) -> Iterator[None]:
    """Turns the operating system's refusals into a `StoreError` that says what and where; other errors pass. ``scratch``: it is a temporary file."""
    try:
        yield
    except OSError as error:
        told_as = refusal(error.errno or 0, path, doing, scratch=scratch)
        if told_as is None:
            raise
        raise told_as from error


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Writes a file so that a reader sees the old or the new content, never a part."""
    with replaced(path, durable=durable) as file:
        file.write(content)


@contextmanager
def replaced(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write; when the block ends well it stands at ``path`` in one step, otherwise what was there stays."""
    with told(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, side = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o644)  # a temporary file is for its owner only; what we write may be read by others
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            Path(side).replace(path)
        except BaseException:
            Path(side).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Writes plain data as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(), durable=durable)


def write_array(path: Path, values: "NDArray[Any]") -> None:
    """Writes an array as ``.npy``, never pickled, whole or not at all."""
    import numpy as np

    # By way of memory: NumPy's own writing to a file does not say why it failed.
    content = io.BytesIO()
    np.lib.format.write_array(content, values, allow_pickle=False)
    write_bytes(path, content.getvalue())


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends well it appears at ``target`` in one step, otherwise nothing appears.

    If ``target`` exists by then (another process made the same thing), that one stays and ours is dropped.
    """
    with told(target, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        side = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            yield side
            side.chmod(0o755)
            try:
                side.rename(target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(side, ignore_errors=True)


def refuse_full(folder: Path, n_bytes: float, what: str) -> None:
    """Raises `StoreError` when the disk of a folder, which exists, has not so many bytes free: before the work, not in the middle of it."""
    error = full(folder, n_bytes, what)
    if error is not None:
        raise error


def full(folder: Path, n_bytes: float, what: str) -> StoreError | None:
    """Why the disk of a folder, which exists, has no room for so many bytes; None where it has."""
    free = shutil.disk_usage(folder).free
    if free >= n_bytes:
        return None
    return StoreError(f"{what} takes about {show_bytes(n_bytes)} on the disk of {folder}, and {show_bytes(free)} are free.", fix=_SPACE)


def sweep(folder: Path, *, older_than_s: float = 3600.0) -> None:
    """Removes what killed writers left at the side (``.name.….part``) once it is old enough to belong to nobody."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > older_than_s:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        except FileNotFoundError:  # its writer finished or another sweep was faster
            continue


class Scratch:
    """A folder for this process alone, for what must not outlive it. One that a killed process left goes when the next one of that name is made.

    Who is alive is told by a lock on a file in it, which the kernel lets go of however a process dies.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """``folder``: where it is made; left out: the system's folder for temporary files. Raises `StoreError` when it cannot be made."""
        where = Path(tempfile.gettempdir()) if folder is None else folder
        with told(where, "write", scratch=folder is None):
            where.mkdir(parents=True, exist_ok=True)
            for old in where.glob(f"mis-{name}-*"):
                _remove_if_dead(old)
            while True:
                self.path = Path(tempfile.mkdtemp(prefix=f"mis-{name}-", dir=where))
                try:
                    self._lock = (self.path / _ALIVE).open("wb")
                except FileNotFoundError:  # taken for a dead one's before it had its lock
                    continue
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if (self.path / _ALIVE).exists():
                    return
                self._lock.close()

    def close(self) -> None:
        """Removes it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()


_ALIVE = ".alive"


def _remove_if_dead(folder: Path) -> None:
    try:
        with (folder / _ALIVE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody's who is alive, another user's, or just being made
        return


@contextmanager
def held(path: Path, *, wait_s: float = 0.0, what: str = "this project") -> Iterator[None]:
    """Holds an exclusive lock while the block runs; the kernel lets go of it when the process dies, however it dies.

    Waits up to ``wait_s`` seconds, then raises `InUse` naming the holder.
    """
    with told(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    try:
        end = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().decode().strip() or "another process"
                    raise InUse(f"{what} is in use by {holder}.", fix="Wait until it ends, or stop it.") from None
                time.sleep(0.05)
        with told(path, "lock"):
            file.truncate(0)
            file.write(f"process {os.getpid()}".encode())
        yield
    finally:
        file.close()
