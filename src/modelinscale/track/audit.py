"""The audit log: what was done, when and by whom, one JSON object a line, each holding the hash of the line before: no line can be changed unseen.

A line that a crash cut off (it lacks its line end) is told apart from a changed one: the next writer notes it and goes on. Lines cut off at the end by
somebody are found with an anchor: a hash of the newest line kept elsewhere (the registry keeps one at each promotion; `mis audit --head` prints it).
"""

import hashlib
import json
import os
import pwd
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import StoreError
from modelinscale.core.files import held, told
from modelinscale.core.secrets import veiled

FORMAT = 1
START = "0" * 64
"""What stands in the place of the hash before the first line."""
WAIT_S = 30.0
_TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Entry:
    """One line."""

    seq: int
    time: str
    """ISO 8601, UTC."""
    actor: str
    """``user@host``."""
    action: str
    """run, collect, register, promote, rollback, forget, rotate, vacuum, export, refuse, ..."""
    object: str
    """What it was done to: ``fraud version 3``, a table."""
    facts: dict[str, Any]
    """Plain data. Never a value of a row, never a secret."""
    hash: str
    """SHA-256 of the line's bytes, in hex."""


@dataclass(frozen=True)
class Verdict:
    """Whether the log is what was written."""

    n_lines: int
    head: str
    """The hash of the newest whole line; `START` for an empty log."""
    broken_line: int | None = None
    """The first line (from 1) that does not follow from the one before; None: the chain holds."""
    because: str = ""
    torn_bytes: int = 0
    """Bytes after the last whole line: a writer was cut off. No tampering, and nothing that ever counted."""
    missing_anchors: tuple[str, ...] = ()
    """Anchors that no line has: lines were cut off, or the log is another one."""

    @property
    def whole(self) -> bool:
        return self.broken_line is None and not self.missing_anchors


class Audit:
    """The log in one file. Writers of several processes take turns."""

    KEYS: ClassVar[frozenset[str]] = frozenset({"format", "seq", "time", "actor", "action", "object", "facts", "before"})

    def __init__(self, file: Path, clock: Clock = now) -> None:
        """Touches nothing until it is used."""
        self.file, self._clock = file, clock

    def write(self, action: str, object: str, **facts: Any) -> str:
        """Adds a line, on the disk when this returns; gives its hash, the new head."""
        with held(self.file.with_name(f"{self.file.name}.lock"), wait_s=WAIT_S, what=f"the audit log {self.file}"), told(self.file, "write"):
            handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                seq, head, torn = _end(handle, self.file)
                if torn:
                    os.ftruncate(handle, os.fstat(handle).st_size - len(torn))
                    note = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
                    seq, head = self._add(handle, seq, head, "repair", "a line that a crash cut off", note)
                _, head = self._add(handle, seq, head, action, object, facts)
                os.fsync(handle)
            finally:
                os.close(handle)
        return head

    def _add(self, handle: int, seq: int, head: str, action: str, object: str, facts: dict[str, Any]) -> tuple[int, str]:
        line = {
            "format": FORMAT,
            "seq": seq + 1,
            "time": self._clock().isoformat(timespec="milliseconds"),
            "actor": actor(),
            "action": action,
            "object": object,
            "facts": facts,
            "before": head,
        }
        # What ties the chain is not veiled: a short secret might be found in a hash.
        said = veiled(json.loads(json.dumps({k: v for k, v in line.items() if k != "before"}, default=str)))
        text = json.dumps({**said, "before": head}, separators=(",", ":")).encode()
        os.write(handle, text + b"\n")
        return seq + 1, hashlib.sha256(text).hexdigest()

    def entries(self) -> Iterator[Entry]:
        """Whole lines, oldest first, unproved: see `verify`. Lines that cannot be read are left out."""
        for text in self._lines():
            found = _parsed(text)
            if found is not None:
                yield Entry(**{k: found[k] for k in ("seq", "time", "actor", "action", "object", "facts")}, hash=hashlib.sha256(text).hexdigest())

    def head(self) -> str:
        """The hash of the newest whole line; `START` when there is none."""
        head = START
        for text in self._lines():
            head = hashlib.sha256(text).hexdigest()
        return head

    def verify(self, anchors: Sequence[str] = ()) -> Verdict:
        """Reads everything and follows the chain. ``anchors``: hashes that a line must have."""
        head, n_lines, missing = START, 0, dict.fromkeys(a for a in anchors if a and a != START)
        for number, text in enumerate(self._lines(), 1):
            found = _parsed(text)
            why = (
                "it is not a line of this log"
                if found is None
                else "the line before it was changed, removed or added"
                if found["before"] != head
                else f"its number is {found['seq']}"
                if found["seq"] != number
                else ""
            )
            if why:
                return Verdict(n_lines, head, number, why, missing_anchors=tuple(missing))
            head, n_lines = hashlib.sha256(text).hexdigest(), number
            missing.pop(head, None)
        return Verdict(n_lines, head, torn_bytes=self._torn_bytes(), missing_anchors=tuple(missing))

    def _lines(self) -> Iterator[bytes]:
        if not self.file.exists():
            return
        with told(self.file, "read"), self.file.open("rb") as file:
            yield from (line[:-1] for line in file if line.endswith(b"\n"))

    def _torn_bytes(self) -> int:
        if not self.file.exists():
            return 0
        with told(self.file, "read"), self.file.open("rb") as file:
            return next((len(line) for line in file if not line.endswith(b"\n")), 0)


def actor() -> str:
    """Who is at work: ``user@host``, as the system knows them. Not as the environment says (``USER``): anybody can set that to be another."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _end(handle: int, path: Path) -> tuple[int, str, bytes]:
    """Number and hash of the last whole line, and what lies after it. Raises `StoreError` where that line cannot be gone on from."""
    size, tail = os.fstat(handle).st_size, b""
    at = size
    while at and tail.count(b"\n") < 2:
        step = min(_TAIL_BYTES, at)
        at -= step
        tail = os.pread(handle, step, at) + tail
    *lines, torn = tail.split(b"\n")
    if not lines:
        return 0, START, torn
    found = _parsed(lines[-1])
    if found is None:
        raise StoreError(
            f"the last line of the audit log {path} was changed: it is no line of ours.", fix="See `mis audit --verify`; keep the file as evidence."
        )
    return found["seq"], hashlib.sha256(lines[-1]).hexdigest(), torn


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    fits = isinstance(found, dict) and found.keys() == Audit.KEYS and isinstance(found["seq"], int) and isinstance(found["facts"], dict)
    return found if fits else None
