"""Disks that refuse, for tests: a small one and a read-only one. They need the right to mount, which tests in a container often have."""

import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoMount(Exception):
    """This machine does not let the test mount anything."""


@contextmanager
def small(folder: Path, size_bytes: int) -> Iterator[Path]:
    """``folder`` as a disk of its own that holds so many bytes. Raises `NoMount`."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "-l", str(folder))


def resize(folder: Path, size_bytes: int) -> None:
    """Gives a small disk another size."""
    _run("mount", "-o", f"remount,size={size_bytes}", str(folder))


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """``folder``, with what is in it, so that even root cannot write there. Raises `NoMount`."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(folder), str(folder))
    try:
        _run("mount", "-o", "remount,ro,bind", str(folder))
        yield folder
    finally:
        _run("umount", "-l", str(folder))


@contextmanager
def no_file_larger_than(n_bytes: int) -> Iterator[None]:
    """The system refuses this process to write more into a file, as it does on a full disk."""
    ignored, before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoMount(str(error)) from error
    if done.returncode:
        raise NoMount(done.stderr.strip())
