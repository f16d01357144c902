"""Which files of a folder were read, remembered in a line: how many, a digest of their names, sizes and times, and when the newest of them came.

A cursor must not hold a million names. Files are read by name; the digest tells whether exactly those before the mark were read. A file that came later
under an earlier name has a later time of change (ctime: set by the file system when a file is put there, whatever its writer says), and is taken if
without such files the digest is right again. Where it is not, something that was read changed, and that is an error rather than a guess.
"""

import os
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import NamedTuple

from modelinscale.core.errors import SourceError
from modelinscale.data.sources._files import AGAIN

STILL_NS = 20_000_000
"""A folder is looked at again while something in it is younger: files that come within one tick of the file system's clock cannot be told apart."""
_LOOKS = 50
_MODULUS = 1 << 96


class Entry(NamedTuple):
    """Something in a folder that is not a folder."""

    name: str
    path: str
    ctime_ns: int
    """When it came here, or was last changed."""
    about: tuple[int, int]
    """Its size, and when it was written."""
    why: str = ""
    """Why it cannot be read, in words."""


class Folder(NamedTuple):
    """What was read of a folder."""

    n: int = 0
    digest: str = "0"
    """Sum of the digests of names, sizes and times of writing."""
    base: int = -1
    """Everything that came up to this time (ns since 1970) was read, whatever its name."""
    newest: int = -1
    """When the newest of what was read came."""
    mark: str = ""
    """Of what came after ``base``, everything up to this name was read."""

    def with_(self, entry: Entry) -> "Folder":
        total = (int(self.digest, 16) + _digest(entry)) % _MODULUS
        return Folder(self.n + 1, f"{total:x}", self.base, max(self.newest, entry.ctime_ns), entry.name)

    def is_of(self, entries: list[Entry]) -> bool:
        return self.n == len(entries) and int(self.digest, 16) == sum(map(_digest, entries)) % _MODULUS


def _digest(entry: Entry) -> int:
    text = f"{entry.name}\0{entry.about[0]}\0{entry.about[1]}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).digest(), "little")


def folders(root: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[Path, list[Entry]]]:
    """A folder and all below it, by name, each with its entries by name. Links to folders are not followed: they are entries that cannot be read."""
    waiting = [root]
    while waiting:
        where = waiting.pop()
        below, entries = _listed(where, wanted)
        waiting += reversed(below)
        yield where, entries


def _listed(where: Path, wanted: Callable[[str], bool]) -> tuple[list[Path], list[Entry]]:
    for _ in range(_LOOKS):
        begun = time.time_ns()
        below, entries = _once(where, wanted)
        if all(e.ctime_ns < begun - STILL_NS for e in entries):
            break
        time.sleep(STILL_NS / 1e9)
    return below, entries


def _once(where: Path, wanted: Callable[[str], bool]) -> tuple[list[Path], list[Entry]]:
    below: list[Path] = []
    entries: list[Entry] = []
    try:
        with os.scandir(where) as found:
            for one in found:
                if one.name.startswith(".") or not wanted(one.name):
                    continue
                about = one.stat(follow_symlinks=False)
                if S_ISDIR(about.st_mode):
                    below.append(where / one.name)
                    continue
                entries.append(Entry(one.name, one.path, about.st_ctime_ns, (about.st_size, about.st_mtime_ns), _why(one, about.st_mode)))
    except OSError as error:
        raise SourceError(f"the folder {where} cannot be read: {error.strerror}.", fix="Check the path and the rights.") from error
    return sorted(below, key=lambda p: p.name), sorted(entries, key=lambda e: e.name)


def _why(one: "os.DirEntry[str]", mode: int) -> str:
    if S_ISLNK(mode):
        try:
            mode = one.stat().st_mode
        except OSError:
            return "a link that leads nowhere, or in a circle"
        if S_ISDIR(mode):
            return "a link to a folder, which is not followed"
    return "" if S_ISREG(mode) else "neither a file nor a folder"


def plan(where: Path, entries: list[Entry], state: Folder | None) -> Iterator[tuple[Entry | None, Folder]]:
    """What was not read of a folder, each with what is known once it is; no entry where only what is known changes.

    Raises `SourceError` when files that were read changed, so that new ones cannot be told from them.
    """
    state = state or Folder()
    late = [e for e in entries if e.name > state.mark and e.ctime_ns > state.base]
    if state.is_of(_but(entries, late)):
        yield from _read(late, state)
        return
    early = [e for e in entries if e.name <= state.mark and e.ctime_ns > state.newest]
    if early and state.is_of(_but(entries, late + early)):
        # First those that are as old as what was read: then a time alone says what is left.
        old = [e for e in late if e.ctime_ns <= state.newest]
        for entry in old:
            state = state.with_(entry)
            yield entry, state
        state = state._replace(base=state.newest, mark="")
        yield from _read([e for e in entries if e.ctime_ns > state.base], state)
        return
    kept = _but(entries, late + early)
    if not early and not any(e.ctime_ns > state.newest for e in entries) and len(kept) < state.n:
        total = sum(map(_digest, kept)) % _MODULUS
        state = Folder(len(kept), f"{total:x}", state.base, state.newest, state.mark)  # some were taken away, and nothing came
        yield None, state
        yield from _read(late, state)
        return
    raise SourceError(
        f"{where}: of {state.n:,} files that were read some were changed or taken away while others came, so that new ones cannot be told.",
        fix=f"Put new images into a folder of their own. {AGAIN}",
    )


def _read(entries: list[Entry], state: Folder) -> Iterator[tuple[Entry, Folder]]:
    for entry in entries:
        state = state.with_(entry)
        yield entry, state


def _but(entries: list[Entry], without: list[Entry]) -> list[Entry]:
    names = {e.name for e in without}
    return [e for e in entries if e.name not in names]
