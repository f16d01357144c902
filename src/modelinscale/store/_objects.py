"""A store in a bucket, worked on through a folder of this machine.

What lies where in the bucket, below the prefix:
``lake/`` the tables, read and written there by the table engine · ``published/`` one marker for each published folder, written last and never twice ·
``files/`` their content, each under a prefix of its own · ``shared/`` one list of files for each folder of `SHARED` (registry, audit, lineage), with its
content under ``blobs/`` by hash · ``locks/`` leases.

A lock is a lease: an object written only if absent, renewed while it is held, taken over once it was not renewed for `lease` by the clock of the store
itself (compared with an object written just now, so that no two machines' clocks need to agree). A machine that stops for longer than that may lose it
without noticing; nothing is damaged then, because tables, markers and lists are each written only on top of what was read.
"""

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from modelinscale.core import files
from modelinscale.core.bucket import Absent, connect, erase, told
from modelinscale.core.errors import InUse, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SHARED = ("packages", "lineage", "audit", "track")
"""Folders that the machines of a project pass on to each other: brought up to date when the project is locked, and sent when it is let go.

Sent in this order and brought in the opposite one: a registry never names a package that is not there.
"""
_ELSEWHERE = ("steps", "lake")  # what counts of these is what lies in the bucket
_FRESH_S = 2.0
_PART_BYTES = 16 << 20

Mark = dict[str, str]
"""Which write an object is of, as a condition of the next one."""


class Remote:
    """The work of a store in a bucket."""

    def __init__(self, url: str, options: Mapping[str, str], cache: Path, lease_s: float) -> None:
        self.url, self._options, self.cache, self._lease_s = url.rstrip("/"), options, cache, lease_s
        self._looked: dict[str, float] = {}
        self._holding = False

    @cached_property
    def _store(self) -> "ObjectStore":
        return connect(self.url, self._options)

    def _told(self, key: str, doing: str) -> Any:
        return told(StoreError, f"{self.url}/{key}", doing)

    # Folders that appear in one step.

    @contextmanager
    def publish(self, parts: tuple[str, ...]) -> Iterator[Path]:
        from obstore.exceptions import AlreadyExistsError

        name, target = "/".join(parts), self.cache.joinpath(*parts)
        with files.told(target, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
        side = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
        side.mkdir()
        try:
            yield side
            if self._holding:
                self.push()  # before the marker: what it says was registered must be found by whoever reads it
            place = f"files/{uuid.uuid4().hex}"
            found = {str(p.relative_to(side).as_posix()): p.stat().st_size for p in sorted(side.rglob("*")) if p.is_file()}
            for path in found:
                self._upload(side / path, f"{place}/{path}")
            marker = json.dumps({"form": 1, "at": place, "files": found}).encode()
            try:
                self._write(f"published/{name}", marker, None)
            except AlreadyExistsError:
                self._remove([f"{place}/{path}" for path in found])
                files_gone(side)
                self.fetch(parts)
                return
            self._looked[name] = time.monotonic()
            files_gone(target)
            side.rename(target)
        finally:
            shutil.rmtree(side, ignore_errors=True)

    def fetch(self, parts: tuple[str, ...]) -> None:
        """Brings a published folder, or the one that something lies in, into the cache; one that is gone from the bucket goes from the cache."""
        for n in range(1, len(parts) + 1):
            name, target = "/".join(parts[:n]), self.cache.joinpath(*parts[:n])
            if (parts[0] in _ELSEWHERE and n != 3) or parts[0] in SHARED:
                continue
            if target.exists() and (parts[0] not in _ELSEWHERE or time.monotonic() - self._looked.get(name, -_FRESH_S) < _FRESH_S):
                continue
            try:
                marker = json.loads(self._read(f"published/{name}"))
            except Absent:
                if parts[0] in _ELSEWHERE:
                    files_gone(target)
                continue
            self._looked[name] = time.monotonic()
            if target.exists():
                return
            with files.new_folder(target) as side:
                for path, size in marker["files"].items():
                    self._download(f"{marker['at']}/{path}", side / _inside(path), size)
            return

    def is_shared(self, parts: tuple[str, ...]) -> bool:
        return parts[0] in SHARED

    def discard(self, parts: tuple[str, ...]) -> None:
        """Takes a published folder back, here and in the bucket; the marker goes first."""
        name = "/".join(parts)
        try:
            marker = json.loads(self._read(f"published/{name}"))
        except Absent:
            pass
        else:
            self._remove([f"published/{name}"])
            self._remove([f"{marker['at']}/{path}" for path in marker["files"]])
        files_gone(self.cache.joinpath(*parts))

    def names(self, parts: tuple[str, ...]) -> list[str]:
        """Names directly inside, sorted."""
        inside = "/".join(parts)
        found = set[str]()
        for root in ("published", "locks") if parts[:1] != ("lake",) else ("lake",):
            prefix = "/".join(w for w in (root if root != "lake" else "", inside) if w)
            found |= self._names(prefix)
        folder = self.cache.joinpath(*parts)
        if parts[:1] and parts[0] not in _ELSEWHERE and folder.is_dir():
            found |= {p.name for p in folder.iterdir()}
        return sorted(name for name in found if not name.startswith("."))

    def _names(self, prefix: str) -> set[str]:
        import obstore

        with self._told(prefix, "list"):
            listed = obstore.list_with_delimiter(self._store, f"{prefix}/")
        return {PurePosixPath(p).name for p in [*listed["common_prefixes"], *(o["path"] for o in listed["objects"])]}

    # What machines pass on to each other.

    def pull(self) -> None:
        """Brings the shared folders up to date. What was changed here and not sent, when others have sent since, is theirs."""
        for name in reversed(SHARED):
            for left in (2, 1, 0):
                try:
                    self._pull(name)
                    break
                except _Gone:  # somebody sent a newer list meanwhile and took away what only the old one named
                    if not left:
                        raise

    def _pull(self, name: str) -> None:
        state = self._state(name)
        try:
            with self._told(f"shared/{name}", "read"):
                mark = self._mark(f"shared/{name}")
            if mark == state.get("mark"):
                return
            content, mark = self._read_marked(f"shared/{name}")
        except Absent:
            return
        wanted, have = json.loads(content)["files"], state.get("files", {})
        folder = self.cache / name
        for path, (digest, size) in wanted.items():
            target = folder / _inside(path)
            if not target.is_file() or have.get(path) != [digest, size] or state.get("still", {}).get(path) != _still(target):
                self._download(f"blobs/{digest}", target, size)
        for path in set(have) - set(wanted):
            (folder / _inside(path)).unlink(missing_ok=True)
        self._keep(name, mark, wanted)

    def push(self) -> None:
        """Sends what changed in the shared folders. Raises `StoreError` when another machine did so meanwhile."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for name in SHARED:
            folder, state = self.cache / name, self._state(name)
            present = (
                {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file() and _passed_on(p, folder)} if folder.is_dir() else {}
            )
            still = {path: _still(p) for path, p in present.items()}
            if still == state.get("still", {}):
                continue
            before, wanted = state.get("files", {}), dict[str, list[Any]]()
            for path, source in present.items():
                if path in before and state["still"].get(path) == still[path]:
                    wanted[path] = before[path]
                    continue
                with _settled(source, self.cache) as content:
                    wanted[path] = [files_digest(content), content.stat().st_size]
                    if wanted[path] not in before.values():
                        self._upload(content, f"blobs/{wanted[path][0]}")
            body = json.dumps({"form": 1, "files": wanted}).encode()
            try:
                mark = self._write(f"shared/{name}", body, state.get("mark"))
            except (AlreadyExistsError, PreconditionError) as error:
                raise StoreError(f"{self.url}: another machine changed {name} at the same time.", fix="Run again: it goes on from theirs.") from error
            except Absent as error:
                fix = f"Restore it; or remove {self.cache}, if the project was removed from the bucket on purpose."
                raise StoreError(f"{self.url}/shared/{name} is gone from the bucket.", fix=fix) from error
            self._keep(name, mark, wanted, still)
            kept = {digest for digest, _ in wanted.values()}
            self._remove([f"blobs/{digest}" for digest in {d for d, _ in before.values()} - kept - self._named_elsewhere(name)])

    def _named_elsewhere(self, name: str) -> set[str]:
        return {digest for other in SHARED if other != name for digest, _ in self._state(other).get("files", {}).values()}

    def look(self) -> None:
        """`pull` for a reader: at most every few seconds, and not while a process of this machine holds the project."""
        if self._holding or time.monotonic() - self._looked.get("", -_FRESH_S) < _FRESH_S:
            return
        with suppress(InUse), files.held(self.cache / ".locks" / "lock"):
            self.pull()
        self._looked[""] = time.monotonic()

    def _state(self, name: str) -> dict[str, Any]:
        path = self.cache / ".shared" / f"{name}.json"
        found = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
        if found.get("tag"):  # of an earlier version of this file, which knew tags only
            found["mark"] = {"e_tag": found.pop("tag")}
        return found

    def _keep(self, name: str, mark: Mark, wanted: dict[str, list[Any]], still: dict[str, list[int]] | None = None) -> None:
        folder = self.cache / name
        still = {path: _still(folder / path) for path in wanted} if still is None else still
        files.write_json(self.cache / ".shared" / f"{name}.json", {"mark": mark, "files": wanted, "still": still})

    # Locks.

    @contextmanager
    def lock(self, parts: tuple[str, ...], wait_s: float) -> Iterator[None]:
        end = time.monotonic() + wait_s
        with files.held(self.cache / ".locks" / "/".join(parts), wait_s=wait_s, what=self.url):
            lease = _Lease(self, "/".join(("locks", *parts)), self._lease_s)
            lease.take(max(0.0, end - time.monotonic()))
            project = parts == ("lock",)
            try:
                if project:
                    self.pull()
                    self._holding = True
                yield
                if project:
                    self.push()
                lease.check()
            finally:
                self._holding = self._holding and not project
                lease.give_back()

    @contextmanager
    def shared(self, wait_s: float) -> Iterator[None]:
        if self._holding:
            yield
        else:
            with self.lock(("lock",), wait_s):
                yield

    @cached_property
    def machine(self) -> str:
        """This machine and cache folder: two processes with this name in common cannot both hold the lock of the folder."""
        path = self.cache / ".locks" / "machine"
        if not path.is_file():
            files.write_bytes(path, uuid.uuid4().hex.encode())
        return f"{socket.gethostname()}-{path.read_text(encoding='utf-8')}-{path.stat().st_ino}"

    # Objects.

    def _upload(self, path: Path, key: str) -> None:
        import obstore

        with self._told(key, "write"):
            obstore.put(self._store, key, path, chunk_size=_PART_BYTES)

    def _download(self, key: str, target: Path, size: int) -> None:
        import obstore

        with files.told(target, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
        side = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with self._told(key, "read"):
                got = obstore.get(self._store, key)
                with files.told(target, "write"), side.open("wb") as file:
                    for part in got.stream():
                        file.write(part)
            if side.stat().st_size != size:
                raise StoreError(f"{self.url}/{key} has {side.stat().st_size:,} bytes, expected {size:,}.", fix="Run again; if it stays so, it was changed.")
            side.replace(target)
        except Absent as error:
            raise _Gone(f"{self.url}/{key} is gone, though it is listed.", fix="Was the bucket cleaned up by something else? Restore it.") from error
        finally:
            side.unlink(missing_ok=True)

    def _read(self, key: str) -> bytes:
        return self._read_marked(key)[0]

    def _read_marked(self, key: str) -> tuple[bytes, Mark]:
        import obstore

        with self._told(key, "read"):
            got = obstore.get(self._store, key)
            return bytes(got.bytes()), self._mark_of(got.meta)

    def _mark(self, key: str) -> Mark:
        import obstore

        return self._mark_of(obstore.head(self._store, key))

    def _mark_of(self, about: Any) -> Mark:
        """Google's conditions are on the number of a write; all others' on a tag, and a number they give as well need not be in every answer."""
        return {name: about[name] for name in ("e_tag", "version") if about[name] and (name == "e_tag" or self.url.startswith("gs:"))}

    def _write(self, key: str, body: bytes, on: Mark | None) -> Mark:
        """Writes an object only on top of the one that was read, or (None) only where none is. A conflict raises obstore's error, one that is gone `Absent`.

        A store may write and then fail to say so; asked again by the client, it tells of a conflict with that very write. So what lies there decides.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if on is None else on
        try:
            with self._told(key, "write"):
                return self._mark_of(obstore.put(self._store, key, body, mode=mode))
        except (AlreadyExistsError, PreconditionError) as conflict:
            try:
                found, mark = self._read_marked(key)
            except Absent:
                if on is None:
                    raise conflict from None
                raise
            if found != body:
                raise
            return mark

    def _remove(self, keys: list[str]) -> None:
        with self._told("files", "remove"):
            erase(self._store, keys)


class _Gone(StoreError):
    """An object that a list names is not there."""


class _Lease:
    """One lease: taken, renewed beside the work, given back."""

    def __init__(self, remote: Remote, key: str, lease_s: float) -> None:
        self._remote, self._key, self._lease_s = remote, key, lease_s
        self._mark: Mark | None = None
        self._lost, self._stop, self._thread = False, threading.Event(), threading.Thread(target=self._renew, daemon=True, name="lease")

    def take(self, wait_s: float) -> None:
        """Raises `StoreError` naming the holder when it is not free in time."""
        end, pause = time.monotonic() + wait_s, 0.1
        while (holder := self._try()) is not None:
            if time.monotonic() >= end:
                fix = f"Wait until it ends, or stop it; a machine that died lets go after {self._lease_s:g} s."
                raise InUse(f"{self._remote.url} is in use by {holder}.", fix=fix)
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(2 * pause, 2.0)
        self._thread.start()

    def _try(self) -> str | None:
        """Takes it, or gives its holder."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._mark = self._write(None)
            return None
        except AlreadyExistsError:
            pass
        try:
            content, mark = self._remote._read_marked(self._key)
        except Absent:
            return "another process"  # just given back
        found = json.loads(content)
        if found["machine"] != self._remote.machine and self._age_s() < self._lease_s:
            return str(found["holder"])
        # Of this folder, whose lock we hold: its holder is dead. Or not renewed for too long.
        from obstore.exceptions import PreconditionError

        try:
            self._mark = self._write(mark)
        except (PreconditionError, Absent):
            return str(found["holder"])
        return None

    def _write(self, on: Mark | None) -> Mark:
        holder = {"machine": self._remote.machine, "holder": f"process {os.getpid()} on {socket.gethostname()}", "beat": uuid.uuid4().hex}
        return self._remote._write(self._key, json.dumps(holder).encode(), on)

    def _age_s(self) -> float:
        """How long ago it was written, by the clock of the store."""
        import obstore

        probe = f"locks/.clock-{uuid.uuid4().hex}"
        with self._remote._told(self._key, "read"):
            obstore.put(self._remote._store, probe, b"")
            now = obstore.head(self._remote._store, probe)["last_modified"]
            erase(self._remote._store, [probe])
            try:
                return (now - obstore.head(self._remote._store, self._key)["last_modified"]).total_seconds()
            except FileNotFoundError:
                return 0.0

    def _renew(self) -> None:
        from obstore.exceptions import PreconditionError

        while not self._stop.wait(self._lease_s / 4):
            try:
                self._mark = self._write(self._mark)
            except (PreconditionError, Absent):  # another one's, or taken and given back by another one
                self._lost = True
                return
            except StoreError:  # out of reach for a while: tried again; `check` tells it if somebody else took it
                continue

    def check(self) -> None:
        """Raises `StoreError` when another machine took it meanwhile."""
        if self._lost:
            raise StoreError(
                f"{self._remote.url}: this process did not renew its lock for {self._lease_s:g} s, and another one took it.",
                fix="Nothing is damaged. Run again; give machines that sleep a longer `lease`.",
            )

    def give_back(self) -> None:
        self._stop.set()
        self._thread.join()
        try:
            with self._remote._told(self._key, "read"):
                ours = self._remote._mark(self._key) == self._mark
        except Absent:
            return
        if ours:
            self._remote._remove([self._key])


def files_gone(folder: Path) -> None:
    """Removes a folder of the cache, out of sight first."""
    if folder.exists():
        side = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
        with files.told(folder, "remove"):
            folder.rename(side)
        shutil.rmtree(side, ignore_errors=True)


def files_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(path: str) -> str:
    """A path of a list, sure not to lead out of its folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise StoreError(f"a list in the bucket names {path!r}.", fix="It was not written by this program: name another store.")
    return path


def _still(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _passed_on(path: Path, folder: Path) -> bool:
    inner = path.relative_to(folder)
    return path.name != "lock" and not any(part.startswith(".") for part in inner.parts) and not path.name.endswith((".lock", "-journal", "-wal", "-shm"))


@contextmanager
def _settled(path: Path, side: Path) -> Iterator[Path]:
    """The file as it is; a database by way of its own backup, so that no half of a transaction is sent."""
    with path.open("rb") as file:
        if file.read(15) != b"SQLite format 3":
            yield path
            return
    copy = side / f".{uuid.uuid4().hex}.part"
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


__all__ = ["SHARED", "Remote"]
