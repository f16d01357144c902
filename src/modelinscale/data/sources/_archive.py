"""Archives of images, read as if their writer meant harm: no member leads out of its archive, is more than a file, or unpacks without end."""

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import IO, NamedTuple, cast

from modelinscale.core.errors import NotSupportedYet, SourceError
from modelinscale.core.units import show_bytes

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
OTHERS = (".7z", ".rar", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".bz2", ".xz", ".zst")
"""Archives and packed files that are not read."""
MOST_MEMBERS = 2_000_000
MOST_RATIO = 200
"""How many times its packed size a member may have, once it is larger than `SMALL`: photos do not pack, and even drawings stay far below."""
SMALL = 1 << 20
LONGEST_HEADER = 16 << 20
"""Of a tar: longer ones only hold what is meant to fill the memory."""
_HEAD = 1 << 16


class Limits(NamedTuple):
    """What an archive may unpack to."""

    member: int
    """Bytes of one member."""
    total: int
    """Bytes of all members together."""


class Member(NamedTuple):
    """Something in an archive: a file's bytes, or why it has none."""

    name: str
    read: Callable[[], bytes]
    """The bytes. Raises `SourceError` when the archive is damaged here, `BadMemberError` when only this member is."""
    why: str = ""


class BadMemberError(Exception):
    """This one member cannot be read, in words."""


def is_archive(name: str) -> bool:
    """Whether a name is one of an archive or a packed file, read or not."""
    return name.lower().endswith((*SUFFIXES, *OTHERS))


def refuse_others(path: Path) -> None:
    """Raises `NotSupportedYet` for an archive that is not read."""
    if not path.name.lower().endswith(SUFFIXES):
        raise NotSupportedYet(f"{path}: archives of this kind are not read yet.", fix=f"Pack it as {', '.join(SUFFIXES)}, or unpack it into a folder.")


def mark(path: Path) -> list[object]:
    """Plain data that tells this archive from another of its name: its size, and a digest of its beginning and end (where a zip lists its members)."""
    with _opened(path) as file:
        size = file.seek(0, 2)
        digest = blake2b(digest_size=12)
        for at in sorted({0, max(0, size - _HEAD)}):
            file.seek(at)
            digest.update(file.read(_HEAD))
    return [size, digest.hexdigest()]


def members(path: Path, limits: Limits) -> Iterator[Member]:
    """Everything in an archive that is no folder, one after the other: zip by name, tar in its own order. Each must be read before the next is asked for."""
    refuse_others(path)
    yield from _zipped(path, limits) if path.name.lower().endswith(".zip") else _tarred(path, limits)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", fix="Check the path and the rights.") from error
    with file:
        yield file


def _damaged(path: Path, error: object) -> SourceError:
    return SourceError(f"{path} is damaged or cut short: {error or 'it ends too early'}.", fix="Copy or pack it again; what was read before stays.")


def unsafe(name: str) -> str:
    """Why a member's name must not be used, in words; empty if it may.

    >>> unsafe("a/b.png"), unsafe("../b.png"), unsafe("/etc/b.png"), unsafe("C:/b.png")
    ('', 'a name that leads out of the archive', 'a name that leads out of the archive', 'a name that leads out of the archive')
    """
    parts = re.split(r"[/\\]", name)
    if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return "a name that leads out of the archive"
    if "\\" in name:
        return "a name with a backslash, which is a folder on one system and not on another"
    if not name or re.search(r"[\x00-\x1f\x7f]", name):
        return "a name that is empty or has control characters"
    return "a name that is no text" if name.encode("utf-8", "replace").decode() != name else ""


def _nothing() -> bytes:
    raise AssertionError("a member that is refused is not read")


def _zipped(path: Path, limits: Limits) -> Iterator[Member]:
    with _opened(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, UnicodeDecodeError) as error:
            raise _damaged(path, error) from error
        with archive:
            infos = [i for i in archive.infolist() if not i.orig_filename.endswith("/")]
            _count(path, len(infos))
            _total(path, sum(i.file_size for i in infos), limits)
            infos.sort(key=lambda i: (i.orig_filename, i.header_offset))
            before = None
            for info in infos:
                why = _zip_refusal(info, limits) or ("a name that occurs twice" if info.orig_filename == before else "")
                before = info.orig_filename
                yield Member(info.orig_filename, _nothing if why else lambda info=info: _unzip(archive, info), why)  # type: ignore[misc]


def _zip_refusal(info: zipfile.ZipInfo, limits: Limits) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if why := unsafe(info.orig_filename):
        return why
    if mode and mode != stat.S_IFREG:
        return "a link" if mode == stat.S_IFLNK else "neither a file nor a folder"
    if info.flag_bits & 0x41:
        return "encrypted"
    return _size_refusal(info.file_size, info.compress_size, limits)


def _size_refusal(size: int, packed: int | None, limits: Limits) -> str:
    if size > limits.member:
        return f"larger than {show_bytes(limits.member)} (`max_image`)"
    if packed is not None and size > SMALL and size > MOST_RATIO * max(packed, 1):
        return f"packed more than {MOST_RATIO} times, as no image is (a zip bomb?)"
    return ""


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError, ValueError) as error:
        raise BadMemberError(f"damaged in its archive ({str(error) or type(error).__name__})") from error
    if len(data) != info.file_size:
        raise BadMemberError("of another size than its archive says")
    return data


def _count(path: Path, n: int) -> None:
    if n > MOST_MEMBERS:
        raise SourceError(f"{path} has more than {MOST_MEMBERS:,} members.", fix="Divide it into several archives.")


def _total(path: Path, size: int, limits: Limits) -> None:
    if size > limits.total:
        raise SourceError(f"{path} unpacks to more than {show_bytes(limits.total)}.", fix="If it is not a bomb, raise `max_total`, or divide it.")


class _Forward(io.RawIOBase):
    """A tar's bytes for `tarfile`, read once from front to back: no more of them than allowed, and no header that fills the memory."""

    def __init__(self, path: Path, file: IO[bytes], limits: Limits) -> None:
        self._path, self._file, self._limits = path, file, limits
        self._packed = path.name.lower().endswith((".gz", ".tgz"))
        self._source: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if self._packed else file
        self._at = 0
        self.zeros = 0
        """Zero bytes since the last other one."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        assert offset >= self._at, "tars are read forwards"
        while self._at < offset and self._take(min(offset - self._at, 1 << 20)):
            pass
        return self._at

    def read(self, n: int | None = -1) -> bytes:
        if n is None or not 0 <= n <= LONGEST_HEADER:
            raise SourceError(f"{self._path}: a header of {n:,} bytes.", fix="No archive of images has such headers: where is it from?")
        return self._take(n)

    def _take(self, n: int) -> bytes:
        try:
            data = self._source.read(n)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(self._path, error) from error
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read: {error}.", fix="Check the disk.") from error
        self._at += len(data)
        _total(self._path, self._at, self._limits)
        if self._packed and self._at > 64 * SMALL and self._at > MOST_RATIO * max(self._file.tell(), 1):
            raise SourceError(f"{self._path} is packed more than {MOST_RATIO} times, as no images are (a bomb?).", fix="Pack it again if it is not.")
        tail = len(data) - len(data.rstrip(b"\0"))
        self.zeros = self.zeros + tail if tail == len(data) else tail
        return data

    def drain(self) -> None:
        """To the end, so that checksums are compared. Raises `SourceError` where the end of a tar is not there."""
        while self._take(1 << 20):
            pass
        if self.zeros < tarfile.BLOCKSIZE:
            raise _damaged(self._path, "its end is not there")


def _tarred(path: Path, limits: Limits) -> Iterator[Member]:
    with _opened(path) as file:
        stream = _Forward(path, file, limits)
        try:
            archive = tarfile.TarFile(fileobj=cast(IO[bytes], stream), mode="r", errorlevel=2, errors="surrogateescape", encoding="utf-8")
        except tarfile.TarError as error:
            raise _damaged(path, error) from error
        names: set[bytes] = set()
        try:
            n = 0
            while (info := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # or all headers would stay in memory
                if info.isdir():
                    continue
                _count(path, n := n + 1)
                key = blake2b(info.name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
                why = _tar_refusal(info, limits) or ("a name that occurs twice" if key in names else "")
                names.add(key)
                yield Member(info.name, _nothing if why else lambda info=info: _untar(path, archive, info), why)  # type: ignore[misc]
            if stream.zeros < tarfile.BLOCKSIZE:
                raise _damaged(path, "a header in it is damaged, or its end is not there")
            stream.drain()
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            raise _damaged(path, error) from error


def _tar_refusal(info: tarfile.TarInfo, limits: Limits) -> str:
    if why := unsafe(info.name):
        return why
    if info.issym() or info.islnk():
        return "a link"
    if not info.isreg() or info.issparse():
        return "neither a file nor a folder"
    return _size_refusal(info.size, None, limits)


def _untar(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    parts, left = [], info.size
    while left:
        try:
            part = file.read(min(left, 1 << 20))
        except tarfile.TarError as error:
            raise _damaged(path, error) from error
        if not part:
            raise _damaged(path, "it ends within a member")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
