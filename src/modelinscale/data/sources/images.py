"""Images in folders and archives, a row each: the bytes as they are, what their headers say, and a label from a folder's name or a table."""

import csv
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fnmatch import fnmatch
from glob import glob, has_magic
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from modelinscale.core.errors import NotSupportedYet, SourceError
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, ColumnType, Schema
from modelinscale.core.settings import Settings
from modelinscale.core.units import Size, show_bytes
from modelinscale.data.arrow import BROKEN, arrow_type
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._archive import BadMemberError, Limits, is_archive, mark, members, refuse_others
from modelinscale.data.sources._files import AGAIN, Names, check_left_out
from modelinscale.data.sources._images import DICOM, SUFFIXES, BadImageError, header
from modelinscale.data.sources._images_folder import Entry, Folder, folders, plan

if TYPE_CHECKING:
    import pyarrow as pa

_TYPES: dict[str, ColumnType] = {
    "path": "string",
    "image": "binary",
    "label": "string",
    "width": "int",
    "height": "int",
    "format": "string",
    "size_bytes": "int",
}
_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class LabelTable(Settings):
    """A table with the label of every image."""

    table: Path
    """A CSV file with a header."""
    file: str = "file"
    """The column that names the image: its path within the folder or archive, or its name alone."""
    label: str = "label"
    """The column that has the label."""


class Images(Source):
    """Images in folders (whatever lies below them included) and in zip and tar archives.

    Columns: path (the folder's or archive's name and the path within it: unique), image (bytes as they are), label, width, height, format, size_bytes.
    Only headers are read. What is no image, damaged or unsafe is kept as a broken row that names it. New images may come under any name and are read
    once; a file that was read must not change. In an archive nothing may be added once it was read.
    """

    path: Annotated[Names, Field(min_length=1)]
    """A folder, an archive (.zip, .tar, .tar.gz), a pattern of these, or a list."""
    label: Literal["folder", "none"] | LabelTable = "folder"
    """folder: the name of the folder that an image lies in · none · or a table: ``{table: labels.csv, file: file, label: label}``."""
    only: Names = ()
    """Patterns of paths within the folder or archive that are read: ``*.png``. Left out: all images."""
    without: Names = ()
    """Columns to leave out."""
    block: Annotated[Size, Field(ge=1)] = 16 << 20
    """Bytes of images after which a chunk is closed."""
    max_image: Annotated[Size, Field(ge=1024)] = 64 << 20
    """How large an image may be, encoded."""
    max_total: Annotated[Size, Field(ge=1024)] = 1 << 40
    """How much an archive may unpack to."""

    typed: ClassVar[bool] = True

    def columns(self) -> Schema:
        """The columns, always the same. Raises `SourceError` when a folder or archive is not there or has no image."""
        names = [n for n in _TYPES if n != "label" or self.label != "none"]
        check_left_out(self.without, names, self.path[0])
        with closing(self._found(_Stand(None))) as found:
            empty = next(found, None) is None
        if empty:
            raise SourceError(f"there is no image in {', '.join(self.path)}.", fix=f"Check the path and `only`; images end in {', '.join(SUFFIXES)}.")
        return Schema(columns=tuple(Column(name=n, type=_TYPES[n]) for n in names if n not in self.without))

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of about ``block`` bytes, folder by folder and by name within each. See the contract."""
        labels = _labels(self.label) if isinstance(self.label, LabelTable) else None
        stand = _Stand(after)
        rows: list[dict[str, Any]] = []
        size = 0
        for one in self._found(stand):
            row = self._row(one, labels)
            one.done()
            stand.feed(one.path, row)
            rows.append(row)
            size += len(row.get("image") or b"") + 256
            if size >= self.block:
                yield Chunk(_batch(schema, rows), stand.cursor(), f"images, to {_shown(one.path)}")
                rows, size = [], 0
            last = one.path
        if rows:
            yield Chunk(_batch(schema, rows), stand.cursor(), f"images, to {_shown(last)}")

    def _row(self, one: "_Found", labels: dict[str, str] | None) -> dict[str, Any]:
        within = one.path.partition("/")[2]
        folder, _, name = within.rpartition("/")
        try:
            if one.why:
                raise BadImageError(one.why)
            data = one.read()
            about = header(data)
        except (BadImageError, BadMemberError) as error:
            return {BROKEN: f"{error}: {_shown(one.path)}"}
        label = None
        if labels is not None:
            label = labels.get(within, labels.get(name))
        elif folder:
            label = folder.rpartition("/")[2]
        return {
            "path": one.path, "image": data, "label": label, "width": about.width, "height": about.height, "format": about.format, "size_bytes": len(data),
        }  # fmt: skip

    def _found(self, stand: "_Stand") -> Generator["_Found", None, None]:
        """Everything that was not read yet and is an image by its name, or stands in the way of one."""
        n_passed = 0
        for root in self._roots():
            for one in self._in_folder(root, stand) if root.is_dir() else self._in_archive(root, stand):
                within = one.path.partition("/")[2]
                ignored = not one.why and _is_ignored(within)
                if ignored or not self._wanted(within) or (not one.why and self._refused(one.path, within)):
                    n_passed += not ignored
                    one.done()
                    continue
                yield one
        if n_passed:
            log(__name__).warning("files passed over that are no images by their names", extra={"n_files": n_passed, "path": ", ".join(self.path)})

    def _wanted(self, within: str) -> bool:
        return not self.only or any(fnmatch(within, p) for p in self.only)

    def _refused(self, path: str, within: str) -> bool:
        """Whether a name is no image's. Raises `NotSupportedYet` for medical images, which nobody wants passed over."""
        name = within.lower()
        if name.endswith(DICOM):
            raise NotSupportedYet(f"{_shown(path)}: DICOM images are not supported yet.", fix="Export them as PNG, or leave them out: `only: '*.png'`.")
        return not name.endswith(SUFFIXES) and not is_archive(name)

    def _in_folder(self, root: Path, stand: "_Stand") -> Iterator["_Found"]:
        for where, entries in folders(root, lambda name: name.lower() not in _IGNORED):
            key = "/".join((root.name, *where.relative_to(root).parts))
            for entry, state in plan(where, entries, stand.folders.get(key)):
                if entry is None:
                    stand.folders[key] = state
                    continue

                def done(key: str = key, state: Folder = state) -> None:
                    stand.folders[key] = state

                yield _Found(f"{key}/{entry.name}", lambda e=entry: self._bytes(e), done, self._why(entry))  # type: ignore[misc]

    def _why(self, entry: Entry) -> str:
        if not entry.why and entry.name.encode("utf-8", "replace").decode() != entry.name:
            return "a name that is no text"
        if not entry.why and is_archive(entry.name):
            return "an archive in a folder (name it under `path`)"
        return entry.why

    def _bytes(self, entry: Entry) -> bytes:
        try:
            with open(entry.path, "rb") as file:  # noqa: PTH123  a Path for each of a million names takes longer than their headers
                data = file.read(min(os.fstat(file.fileno()).st_size, self.max_image) + 1)
        except OSError as error:
            raise SourceError(
                f"{_shown(entry.path)} cannot be read: {error.strerror}.", fix="Check the rights, and that nobody moves files meanwhile."
            ) from error
        if len(data) > self.max_image:
            raise BadImageError(f"larger than {show_bytes(self.max_image)} (`max_image`)")
        return data

    def _in_archive(self, root: Path, stand: "_Stand") -> Iterator["_Found"]:
        now = mark(root)
        *before, n_read = stand.archives.get(root.name, [*now, 0])
        if before != now:
            raise SourceError(f"{root} changed after {n_read:,} of its members were read.", fix=AGAIN)
        for n, member in enumerate(members(root, Limits(self.max_image, self.max_total)), 1):
            if n <= n_read:
                continue

            def done(n: int = n) -> None:
                stand.archives[root.name] = [*now, n]

            why = member.why or ("an archive in an archive" if is_archive(member.name) else "")
            yield _Found(f"{root.name}/{member.name}", member.read, done, why)

    def _roots(self) -> list[Path]:
        """The folders and archives, by name. Raises `SourceError` when one is missing or two have one name."""
        found: set[str] = set()
        for pattern in self.path:
            if has_magic(pattern) and not Path(pattern).exists():
                matched = [m for m in glob(pattern, recursive=True) if Path(m).is_dir() or is_archive(m)]  # noqa: PTH207  a Path's own takes no absolute one
                if not matched:
                    raise SourceError(f"no folder or archive matches {pattern}.", fix="Check the path.")
                found.update(matched)
            elif not Path(pattern).exists():
                raise SourceError(f"there is no folder or archive {pattern}.", fix="Check the path.")
            elif not Path(pattern).is_dir() and not is_archive(pattern):
                raise SourceError(f"{pattern} is neither a folder nor an archive.", fix="Name the folder it lies in, and choose by `only`.")
            else:
                found.add(pattern)
        roots = [Path(f).resolve() if Path(f).name in ("", "..") else Path(f) for f in sorted(found)]
        names = [r.name for r in roots]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise SourceError(f"two folders or archives are called {twice[0]!r}, so paths would not be unique.", fix="Rename one, or read the folder above.")
        for root in roots:
            if not root.is_dir():
                refuse_others(root)
        return roots

    def feed(self) -> Any:
        """The settings, without how much is read at a time."""
        return {k: v for k, v in self.plain().items() if k not in ("block", "max_image", "max_total")}

    def content(self, cursor: Cursor) -> Any:
        """How many were read, and a digest of their paths and bytes in the order in which they were."""
        return {"n": cursor["n"], "digest": cursor["digest"]}

    def fingerprint(self) -> Any:
        """Of every folder and archive, how much is in it and a digest of names, sizes and times."""
        facts: list[Any] = []
        for root in self._roots():
            if not root.is_dir():
                about = root.stat()
                facts.append([str(root), about.st_size, about.st_mtime_ns])
                continue
            n, digest = 0, blake2b(digest_size=16)
            for where, entries in folders(root, lambda name: name.lower() not in _IGNORED):
                for entry in entries:
                    n += 1
                    digest.update(f"{where}/{entry.name}\0{entry.ctime_ns}\n".encode("utf-8", "surrogateescape"))
            facts.append([str(root), n, digest.hexdigest()])
        return facts


class _Found(NamedTuple):
    """An image that was not read yet."""

    path: str
    read: Callable[[], bytes]
    done: Callable[[], None]
    """Moves the reader's place behind it."""
    why: str
    """Why it cannot be read; empty if it can be tried."""


class _Stand:
    """Where a reader stands."""

    def __init__(self, after: Cursor | None) -> None:
        if after is not None and (after.get("form") != 1 or "folders" not in after):
            raise SourceError("this cursor is not one of images, or of a newer version.", fix="Collect into a new table.")
        self.folders = {key: Folder(*facts) for key, facts in after["folders"].items()} if after else {}
        self.archives: dict[str, list[Any]] = dict(after["archives"]) if after else {}
        self._n, self._digest = (int(after["n"]), str(after["digest"])) if after else (0, "")

    def feed(self, path: str, row: dict[str, Any]) -> None:
        digest = blake2b(self._digest.encode(), digest_size=16)
        digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(row.get("image") or str(row.get(BROKEN)).encode("utf-8", "replace"))
        self._n, self._digest = self._n + 1, digest.hexdigest()

    def cursor(self) -> Cursor:
        folders = {key: list(state) for key, state in self.folders.items()}
        return {"form": 1, "folders": folders, "archives": dict(self.archives), "n": self._n, "digest": self._digest}


def _is_ignored(within: str) -> bool:
    """What systems leave beside images."""
    return any(part.lower() in _IGNORED or part.startswith(".") for part in within.split("/") if part not in (".", ".."))


def _shown(path: str) -> str:
    """A path as text, whatever bytes its name has."""
    return path.encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode() if not path.isprintable() else path


def _labels(settings: LabelTable) -> dict[str, str]:
    """The label of each image by path or name. Raises `SourceError` when the table is not there, lacks a column, or names an image twice differently."""
    found: dict[str, str] = {}
    try:
        with settings.table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [n for n in (settings.file, settings.label) if n not in (reader.fieldnames or [])]
            if lacking:
                have = ", ".join(reader.fieldnames or []) or "nothing"
                raise SourceError(f"{settings.table} has no column {lacking[0]!r}; it has {have}.", fix="Name the columns: `label: {table, file, label}`.")
            for row in reader:
                name, label = (row[settings.file] or "").strip().removeprefix("./"), (row[settings.label] or "").strip()
                if name and found.setdefault(name, label) != label:
                    raise SourceError(f"{settings.table}, line {reader.line_num}: {name!r} has another label than before.", fix="Keep one of the two.")
    except OSError as error:
        raise SourceError(f"the table of labels {settings.table} cannot be read: {error.strerror}.", fix="Check `label.table`.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"the table of labels {settings.table} is no CSV in UTF-8: {error}.", fix="Write it again.") from error
    return {name: label for name, label in found.items() if label}


def _batch(schema: Schema, rows: list[dict[str, Any]]) -> "pa.RecordBatch":
    import pyarrow as pa

    arrays, names = [pa.array([r.get(c.name) for r in rows], arrow_type(c)) for c in schema.columns], list(schema.names)
    if any(BROKEN in r for r in rows):
        arrays.append(pa.array([r.get(BROKEN) for r in rows], pa.string()))
        names.append(BROKEN)
    return pa.record_batch(arrays, names=names)
