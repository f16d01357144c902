"""The content of a file as bytes: unpacked where it is compressed, UTF-8 where it is UTF-16 or UTF-32."""

import codecs
import lzma
import os
import zlib
from pathlib import Path
from typing import IO, Any, Protocol

from modelinscale.core.errors import SourceError

MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\x00": "xz"}
"""First bytes of compressed files: they tell, not the suffix."""
TOOLS = {"gz": "gzip -t", "bz2": "bzip2 -t", "zst": "zstd -t", "xz": "xz -t"}
"""Commands that check a compressed file."""
FOREIGN = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "Unpack it, or save the sheet as CSV."),
    b"PAR1": ("a Parquet file", "Write `source: {type: parquet, path: ...}`."),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Save the sheet as CSV."),
    b"%PDF": ("a PDF", "Save the table as CSV."),
    b"SQLite format 3\x00": ("an SQLite database", "Export the table as CSV or Parquet."),
    b"\x89HDF": ("an HDF5 file", "Export the table as CSV or Parquet."),
}
"""First bytes of files that are no text: what they are and what to do."""
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
"""Encodings whose line ends are more than one byte: turned into UTF-8 while reading, positions count the UTF-8."""

_MARKS = ((codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_STEP = 1 << 20


class _Stream(Protocol):
    def read(self, n: int, /) -> bytes: ...


class Content:
    """Bytes of one file, front to back. Positions count bytes of the content (a byte order mark included), not of the file as stored.

    Only a plain file can be entered in the middle; reaching a place in a compressed or wide one means reading all that lies before.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        """Opens the file. ``encoding``: as declared or as found before; None: a wide one is told by its first bytes.

        Raises `SourceError` when the file cannot be opened or is of a kind that is no text.
        """
        self.path = path
        try:
            self._raw = path.open("rb", buffering=0)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.", fix="Check the path and the rights.") from error
        try:
            self._start(encoding)
        except BaseException:
            self._raw.close()
            raise

    def _start(self, encoding: str | None) -> None:
        head = self._raw.read(64)
        self._raw.seek(0)
        for magic, (what, fix) in FOREIGN.items():
            if head.startswith(magic):
                raise SourceError(f"{self.path} is {what}, not text.", fix=fix)
        self.packed = next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)
        self.at = 0
        self._stream: _Stream = _Stored(self.path, self._raw, self.packed)
        self._ahead = self._stream.read(512)
        known = codecs.lookup(encoding).name if encoding else None
        self.wide = known if known in WIDE else None if known else _wide(self._ahead)
        if self.wide:
            self._stream, self._ahead = _Wide(self._stream, self._ahead, self.wide), b""
        self.marked = self.peek(3) == codecs.BOM_UTF8

    @property
    def seekable(self) -> bool:
        """Whether places in the middle can be entered without reading what lies before."""
        return self.packed is None and self.wide is None

    @property
    def size_bytes(self) -> int:
        """The size of the file as stored."""
        return os.fstat(self._raw.fileno()).st_size

    def read(self, n: int) -> bytes:
        """The next ``n`` bytes, fewer only where the content ends."""
        data, self._ahead = self._ahead[:n], self._ahead[n:]
        if len(data) < n:
            data += self._stream.read(n - len(data))
        self.at += len(data)
        return data

    def peek(self, n: int) -> bytes:
        """The next ``n`` bytes without moving."""
        if len(self._ahead) < n:
            self._ahead += self._stream.read(n - len(self._ahead))
        return self._ahead[:n]

    def seek(self, at: int) -> None:
        """Enters a plain file at byte ``at``, a place before its end."""
        assert self.seekable
        self._raw.seek(at)
        self._ahead, self.at = b"", at

    def skip(self, n: int) -> tuple[int, int]:
        """Reads on over ``n`` bytes; returns how many there were, and their CRC-32."""
        done = crc = 0
        while done < n and (data := self.read(min(_STEP, n - done))):
            crc = zlib.crc32(data, crc)
            done += len(data)
        return done, crc

    def close(self) -> None:
        self._raw.close()


class _Stored:
    """A file's bytes, unpacked; the failures of five libraries told as one error."""

    def __init__(self, path: Path, raw: IO[bytes], packed: str | None) -> None:
        self._path, self._packed, self._file, self._n = path, packed, _unpacked(raw, packed), 0

    def read(self, n: int) -> bytes:
        parts: list[bytes] = []
        while n > 0:
            try:
                part = self._file.read(n)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise self._told(error) from error
            if not part:
                break
            parts.append(part)
            n -= len(part)
            self._n += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _told(self, error: Exception) -> SourceError:
        if self._packed is None:
            return SourceError(f"{self._path} cannot be read after {self._n:,} bytes: {error}.", fix="Check the disk, and that this is a file.")
        words = str(error).lower()
        what = "ends too early" if isinstance(error, EOFError) or "ended" in words or "premature" in words or "truncated" in words else "is damaged"
        return SourceError(
            f"{self._path}: the {self._packed} compressed data {what} after {self._n:,} bytes of content ({error}).",
            fix=f"Copy or download the file again; `{TOOLS[self._packed]} {self._path.name}` checks it.",
        )


class _Wide:
    """UTF-16 or UTF-32 as UTF-8; what cannot be decoded becomes U+FFFD."""

    def __init__(self, stream: _Stream, head: bytes, encoding: str) -> None:
        self._stream, self._head, self._text = stream, head, b""
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def read(self, n: int) -> bytes:
        while len(self._text) < n:
            stored = self._head or self._stream.read(_STEP)
            self._head = b""
            self._text += self._decoder.decode(stored, final=not stored).encode("utf-8", "replace")
            if not stored:
                break
        data, self._text = self._text[:n], self._text[n:]
        return data


def _wide(head: bytes) -> str | None:
    """The wide encoding that the first bytes show: by a byte order mark, or by the zero bytes of ASCII text without one."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    half = len(head) // 2
    if half >= 8:
        zeros = [head[i : 2 * half : 2].count(0) / half for i in (0, 1)]
        if zeros[0] < 0.1 and zeros[1] > 0.7:
            return "utf-16-le"
        if zeros[1] < 0.1 and zeros[0] > 0.7:
            return "utf-16-be"
    return None


def _unpacked(raw: IO[bytes], packed: str | None) -> Any:
    if packed == "gz":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    if packed == "bz2":
        import bz2

        return bz2.BZ2File(raw)
    if packed == "xz":
        return lzma.LZMAFile(raw)
    if packed == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(raw), "zstd")
    return raw
