"""Sources made of files: which files a pattern means, and where in each of them a reader stands."""

import os
from abc import abstractmethod
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import escape, glob, has_magic
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from modelinscale.core.errors import NothingYet, SourceError, SpecError, did_you_mean
from modelinscale.core.schema import Schema
from modelinscale.data.sources import Cursor, Source
from modelinscale.data.sources._content import Content


def _one_or_many(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return (str(value),)
    return tuple(str(v) if isinstance(v, Path) else v for v in value) if isinstance(value, (list, tuple)) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""One name, or a list of them."""


class Files(Source):
    """What all sources made of files share."""

    path: Annotated[Names, Field(min_length=1)]
    """A file, a pattern (``rows/*.csv``, ``**`` for any depth), or a list of these. Files are read in the order of their names."""
    without: Names = ()
    """Columns to leave out."""
    sparse: bool = False
    """Whether a file may lack columns that others have: they are missing in its rows. The columns are then those of all files, not of the first."""

    def present(self, schema: Schema, names: Collection[str]) -> Schema:
        """The columns to read from a file that has these: all, or with `sparse` those it has."""
        return schema.only([n for n in schema.names if n in names]) if self.sparse else schema

    def more(self, schema: Schema, names: Iterable[str]) -> tuple[str, ...]:
        """Of the columns that a file has those that neither the schema nor `without` names, in their order."""
        known = {*schema.names, *self.without}
        return tuple(n for n in names if n not in known)

    @abstractmethod
    def names_of(self, files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Each file with its columns as head or footer has them, those left out included; none for an empty file."""

    def union(self, files: Sequence[Path]) -> dict[str, Path]:
        """Every column of some files with the first that has it: in the order of the files, and within a file in its own. Only heads and footers are read."""
        found: dict[str, Path] = {}
        for path, names in self.names_of(files):
            for name in names:
                found.setdefault(name, path)
        if found:
            check_left_out(self.without, list(found), all_of(files))
        return {name: path for name, path in found.items() if name not in self.without}

    def only(self, files: Sequence[Path]) -> Self:
        """The source of some of its files, to be looked at: they may lack columns, those that are left out as well."""
        there = {name for _, names in self.names_of(files) for name in names} if self.without else ()
        return self.but(path=tuple(str(path) for path in files), without=tuple(name for name in self.without if name in there), sparse=True)

    def found(self) -> list[Path]:
        """The files, sorted by name, each once. Raises `SourceError` when a named file or every match of a pattern is missing."""
        files: set[str] = set()
        for pattern in self.path:
            path = Path(pattern)
            if path.is_file():
                files.add(pattern)
            elif path.is_dir():
                inside = sorted({p.suffix for p in path.iterdir() if p.is_file() and p.suffix})[:5]
                raise SourceError(f"{pattern} is a folder.", fix=f"Name its files, for example `{pattern.rstrip('/')}/*{inside[0] if inside else '.csv'}`.")
            elif has_magic(pattern):
                matched = [m for m in _matches(pattern) if Path(m).is_file()]
                if not matched:
                    raise NothingYet(f"no file matches {pattern}.", fix=_nearby(path))
                files.update(matched)
            else:
                raise SourceError(f"there is no file {pattern}.", fix=_nearby(path))
        odd = next((f for f in sorted(files) if not f.isprintable() and f.encode("utf-8", "surrogateescape") != f.encode("utf-8", "replace")), None)
        if odd is not None:
            raise SourceError(f"the file name {odd!a} is no text (UTF-8), so its place could not be kept.", fix="Rename the file.")
        return [Path(f) for f in sorted(files)]

    def feed(self) -> Any:
        """The settings, without how many rows or bytes are read at a time, and whether a file may lack a column."""
        return {k: v for k, v in self.plain().items() if k not in ("block", "rows", "sparse")}

    def content(self, cursor: Cursor) -> Any:
        """Place and checksum in every file, in the order in which they were read."""
        return [{k: v for k, v in place.items() if k != "mtime_ns"} for place in cursor["files"].values()]

    def fingerprint(self) -> Any:
        """Path, size and time of change of every file."""
        facts = []
        for path in self.found():
            about = path.stat()
            facts.append([str(path), about.st_size, about.st_mtime_ns])
        return facts


def _matches(pattern: str) -> Iterator[str]:
    """What matches, ``**`` being any depth. Each folder is gone into once, by its shortest name: links may lead in a circle."""
    head, deep, rest = pattern.partition("**")
    if not deep or not head.endswith(("", os.sep)[bool(head)]) or rest[:1] not in ("", os.sep):
        yield from glob(pattern)  # noqa: PTH207  a Path's own glob takes no absolute pattern
        return
    seen: set[str] = set()
    for base in sorted(glob(head)) if has_magic(head) else [head]:  # noqa: PTH207
        for folder in _folders(base, seen):
            yield from _matches(os.path.join(escape(folder), rest.lstrip(os.sep) or "*"))  # noqa: PTH118


def _folders(base: str, seen: set[str]) -> Iterator[str]:
    """A folder and those below it, hidden ones aside; the nearest first."""
    waiting = [base]
    for folder in waiting:
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(folder or os.curdir):  # noqa: PTH112
            continue
        seen.add(real)
        yield folder
        with suppress(PermissionError), os.scandir(folder or os.curdir) as entries:
            waiting += sorted(os.path.join(folder, e.name) for e in entries if not e.name.startswith(".") and os.path.isdir(e.path))  # noqa: PTH112, PTH118


def _nearby(path: Path) -> str:
    """What to do about a missing file: the nearest name in its folder, or what lies there."""
    folder = path.parent
    while has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either: check the path."
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if not names:
        return f"The folder {folder} is empty: check the path."
    return f"Check the path.{did_you_mean(path.name, names)} In {folder}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."


MAY_LACK = "If this file may lack columns, write `new_columns: add` under `data` (or `sparse: true` for the source): they are missing in its rows."


def all_of(files: Sequence[Path]) -> str:
    """The files in a message: the first, and how many more."""
    return f"{files[0]}{f' (with {len(files) - 1:,} more)' if len(files) > 1 else ''}"


def check_left_out(without: tuple[str, ...], names: list[str], where: Path | str) -> None:
    """Raises `SpecError` for columns to leave out that are not there."""
    unknown = [w for w in without if w not in names]
    if unknown:
        raise SpecError(f"`without` names {', '.join(map(repr, unknown))}, which {where} does not have.{did_you_mean(unknown[0], names)}")


@dataclass(frozen=True)
class Place:
    """Where a reader stands in one file: everything before byte ``at`` of its content is read."""

    at: int = 0
    crc: int = 0
    """CRC-32 of the content before ``at``."""
    line: int = 1
    """The number of the line (of the element, for arrays) at ``at``."""
    size: int = -1
    """Bytes of the file as stored, when it was last opened."""
    mtime_ns: int = -1
    done: bool = False
    """Whether ``at`` was the end."""
    ended: bool = True
    """Whether what was read ended with a line end."""
    form: dict[str, Any] | None = None
    """How the file is written, as found when it was first opened: later rows are read the same way."""

    def plain(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass(frozen=True)
class Opened:
    """A file with something left to read: its content, standing at ``place.at``, open until the next one is asked for."""

    path: Path
    content: Content
    place: Place


class Places:
    """Where a reader stands in all files; becomes the cursor of a chunk."""

    def __init__(self, after: Cursor | None) -> None:
        if after is not None and (after.get("form") != 1 or not isinstance(after.get("files"), dict)):
            raise SourceError("this cursor is not one of a source made of files, or of a newer version.", fix="Collect into a new table.")
        self._files: dict[str, dict[str, Any]] = dict(after["files"]) if after else {}

    def cursor(self, path: Path, place: Place) -> Cursor:
        """The cursor once ``path`` is read up to ``place``; remembered for the chunks that follow."""
        self._files[str(path)] = place.plain()
        return {"form": 1, "files": dict(self._files)}

    def of(self, path: Path) -> Place | None:
        """Where the reader stands in a file, or None if it is new. A file that moved keeps its place if its name and content are the same."""
        known = self._files.get(str(path))
        if known is not None:
            return Place(**known)
        for other, facts in self._files.items():
            place = Place(**facts)
            same = os.path.normpath(other) == str(path)  # once kept with its ``..``
            if Path(other).name == path.name and (same or (not Path(other).exists() and _starts_with(path, place))):
                del self._files[other]
                self._files[str(path)] = facts
                return place
        return None

    def unread(self, files: list[Path]) -> Generator[Opened, None, None]:
        """The files with something left, each opened where the reader stands in it.

        Raises `SourceError` for a file that shrank, whose read part changed, or that grew within its last line.
        """
        for path in files:
            place = self.of(path)
            about = _stat(path)
            same = place is not None and (place.size, place.mtime_ns) == (about.st_size, about.st_mtime_ns)
            if place is not None and same and place.done:
                continue
            content = Content(path, None if place is None or place.form is None else place.form.get("encoding"))
            try:
                if place is None:
                    place = Place()
                elif not same:
                    _verify(content, place)
                elif content.seekable:
                    content.seek(place.at)
                else:
                    content.skip(place.at)
                yield Opened(path, content, replace(place, size=about.st_size, mtime_ns=about.st_mtime_ns, done=False))
            finally:
                content.close()


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", fix="Check the path and the rights.") from error


def _starts_with(path: Path, place: Place) -> bool:
    content = Content(path, None if place.form is None else place.form.get("encoding"))
    try:
        return content.skip(place.at) == (place.at, place.crc)
    finally:
        content.close()


AGAIN = "If the file was replaced on purpose, give the new rows a file of their own, or collect into a new table (another `store`)."


def _verify(content: Content, place: Place) -> None:
    """Leaves the content standing at ``place.at``, sure that what lies before is what was read."""
    n, crc = content.skip(place.at)
    if n < place.at:
        raise SourceError(f"{content.path} shrank: {place.at:,} bytes of it were read before, now it has {n:,}.", fix=AGAIN)
    if crc != place.crc:
        raise SourceError(f"{content.path} changed within the part that was read before (its first {place.at:,} bytes).", fix=AGAIN)
    if not place.ended:
        following = content.peek(1)
        if following not in (b"", b"\n", b"\r"):
            raise SourceError(
                f"{content.path}: line {place.line} was read before its writer had finished it.",
                fix="Let the writer end every line before it is collected (write a new file, then rename it into place). " + AGAIN,
            )
