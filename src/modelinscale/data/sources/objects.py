"""Objects on S3, Google Cloud Storage, Azure or a web server: new ones are read once each, in the order of their names, by the readers of files.

The cursor keeps for every object that was read a hash of its name and of its tag: 12 bytes, 16 letters of JSON. So one that comes late is taken, however it
is called, and one that changed after it was read is an error; 10,000 objects make 160 KB in the commit that has them.
"""

import hashlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from modelinscale.core.bucket import SCHEMES
from modelinscale.core.errors import MisError, SourceError, SpecError
from modelinscale.core.files import Scratch
from modelinscale.core.identity import identity
from modelinscale.core.schema import Schema
from modelinscale.core.secrets import Address
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._files import Files, _one_or_many
from modelinscale.data.sources._objects import Access, Found, fetch, listed

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["csv", "jsonl", "parquet"]
_SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".csv", ".tsv", ".txt", ".data"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
_PACKED = (".gz", ".bz2", ".zst", ".xz")
SAMPLE_OBJECTS, SAMPLE_BYTES = 3, 16 << 20
"""So many objects tell the columns; of large plain text so many bytes."""
AHEAD, AHEAD_BYTES = 4, 64 << 20
"""Objects brought while one is read: so many, while all together have no more bytes."""
_FOLD = 256
AGAIN = "Give new rows an object of their own, or collect into a new table (another `store`)."


class Objects(Source):
    """Objects by address and pattern, each read once. They do not change once they are there: one that does is an error."""

    url: Annotated[tuple[Address, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
    """``s3://bucket/rows/*.csv``, ``gs://``, ``az://``, ``https://``, ``file:///``; ``**/`` is any depth; or a list of these."""
    format: Format | None = None
    """Left out: told by the suffix."""
    reader: dict[str, Any] = {}
    """Settings of the format's own source: ``{separator: ";"}``."""
    options: dict[str, Address] = {}
    """For object stores, in object_store's words: ``{aws_region: eu-central-1, aws_access_key_id: "${ENV:KEY}"}``. Left out: the usual environment."""
    private: bool = False
    """Whether web addresses of this machine and of private networks may be read."""
    spool: Path | None = None
    """The folder that objects are brought to while they are read. Left out: the system's folder for temporary files."""

    _most: tuple[int, Schema] | None = PrivateAttr(None)
    """How large chunks may be (`within`)."""

    @model_validator(mode="after")
    def _readable(self) -> "Objects":
        formats = {self.format or _format(one) for one in self.url}
        if len(formats) > 1:
            raise SpecError("the objects are of different formats.", fix="Name objects of one format.")
        if "path" in self.reader or "type" in self.reader:
            raise SpecError("`reader` holds settings of the format only.", fix="Write addresses in `url`, and the format in `format`.")
        self._reader(("x",))
        return self

    @property
    def typed(self) -> bool:  # type: ignore[override]
        """Whether the format declares types."""
        return self._reader(("x",)).typed

    def columns(self) -> Schema:
        """The columns of some of the objects. Raises `SourceError` when there is none."""
        from modelinscale.data.infer import infer

        return infer(self.sample(), typed=self.typed)

    def sample(self) -> "pa.Table":
        """Rows of up to three objects, spread over all."""
        found = self._listed()
        chosen = list(found)[:: max(1, len(found) // SAMPLE_OBJECTS)][:SAMPLE_OBJECTS]
        with self._folder() as folder:
            paths = {str(self._sampled(one, found[one], folder / str(i))): one for i, one in enumerate(chosen)}
            with _named(paths):
                table = self._reader(tuple(paths)).sample()
        assert table is not None, "files have samples"
        return table

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """Chunks of one object after the other. See the contract; an object that changed after it was read raises `SourceError`."""
        stands, found = _Stands(after), self._listed()
        by_name = {one.name: one for one in found}
        todo = [one for one in found if not stands.has(one)]
        if stands.at is not None:
            partly = by_name.get(stands.at["name"])
            if partly is None or partly.tag != stands.at["tag"]:
                raise SourceError(f"{stands.at['name']} changed or went after a part of it was read.", fix=AGAIN)
            todo = [partly, *(one for one in todo if one != partly)]
        with self._folder() as folder, ThreadPoolExecutor(AHEAD, thread_name_prefix="objects") as pool:
            for one, path in self._brought(todo, found, folder, pool):
                yield from self._rows(one, path, stands, schema)
                path.unlink()

    def _rows(self, one: Found, path: Path, stands: "_Stands", schema: Schema) -> Iterator[Chunk]:
        """The rows of one object. The last chunk is held back, so that its cursor can say that the object is done."""
        before = {"form": 1, "files": {str(path): stands.at["place"]}} if stands.at is not None and stands.at["name"] == one.name else None
        held: Chunk | None = None
        with _named({str(path): one}):
            for chunk in self._reader((str(path),)).read(before, schema):
                if held is not None:
                    yield held
                stands.at = {"name": one.name, "tag": one.tag, "place": chunk.cursor["files"][str(path)]}
                held = Chunk(chunk.batch, stands.cursor(), chunk.where.replace(str(path), one.name), chunk.more)
        stands.finish(one)
        if held is not None:
            yield held._replace(cursor=stands.cursor())

    def _brought(self, todo: list[Found], found: dict[Found, str], folder: Path, pool: ThreadPoolExecutor) -> Iterator[tuple[Found, Path]]:
        """Each object with its local file, in order; the next ones come while one is read."""
        coming: deque[tuple[Found, Path, Future[None]]] = deque()
        n_next, n_bytes = 0, 0
        while coming or n_next < len(todo):
            while n_next < len(todo) and (not coming or (len(coming) < AHEAD and n_bytes + todo[n_next].size <= AHEAD_BYTES)):
                one = todo[n_next]
                path = folder / str(n_next) / _file_name(one)
                path.parent.mkdir()
                coming.append((one, path, pool.submit(fetch, one, found[one], path, self._access)))
                n_next, n_bytes = n_next + 1, n_bytes + one.size
            one, path, done = coming.popleft()
            done.result()
            yield one, path
            n_bytes -= one.size

    def feed(self) -> Any:
        """Addresses, format and its settings; the endpoint, which is part of what an address means."""
        endpoint = {name: value for name, value in self.options.items() if "endpoint" in name}
        return {"type": self.type, "url": list(self.url), "format": self.format, "reader": self.reader, **endpoint}

    def content(self, cursor: Cursor) -> Any:
        """The tags of all objects in the order in which they were read, in short, and the place in the last one."""
        place = (cursor.get("at") or {}).get("place", {})
        return [cursor["chain"], {k: v for k, v in place.items() if k != "mtime_ns"}]

    def fingerprint(self) -> Any:
        """How many objects there are, and a hash of their names and tags."""
        found = self._listed()
        return [len(found), identity([[one.name, one.tag] for one in found])]

    @property
    def _access(self) -> Access:
        return Access(self.options, self.private)

    def _listed(self) -> dict[Found, str]:
        """The objects by name, and the address by which each was found."""
        found = {one: pattern for pattern in self.url for one in listed(pattern, self._access)}
        return dict(sorted(found.items()))

    def within(self, n_bytes: int, schema: Schema) -> Self:
        """What reads each object is."""
        found = self.model_copy()
        found._most = n_bytes, schema
        return found

    def _reader(self, paths: tuple[str, ...]) -> Files:
        reader = Source.parse({"type": self.format or _format(self.url[0]), **self.reader, "path": list(paths)})
        assert isinstance(reader, Files)
        return reader if self._most is None else reader.within(*self._most)

    def _sampled(self, one: Found, pattern: str, folder: Path) -> Path:
        """An object, or the start of one that is large and plain text."""
        folder.mkdir()
        path = folder / _file_name(one)
        cut = one.size > SAMPLE_BYTES and not one.name.endswith((*_PACKED, ".parquet", ".pq")) and (self.format or _format(self.url[0])) != "parquet"
        fetch(one, pattern, path, self._access, SAMPLE_BYTES if cut else None)
        if cut:
            content = path.read_bytes()
            path.write_bytes(content[: content.rfind(b"\n") + 1] or content)
        return path

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with Scratch("objects", self.spool) as folder:
            yield folder


class _Stands:
    """Where a reader stands: what was read, and how far the object is read that it is in."""

    def __init__(self, after: Cursor | None) -> None:
        if after is not None and (after.get("form") != 1 or "chain" not in after):
            raise SourceError("this cursor is not one of objects, or of a newer version.", fix="Collect into a new table.")
        self._text: str = after["read"] if after else ""
        self._more = b64decode(after["more"]) if after else b""
        self.chain: str = after["chain"] if after else ""
        self.at: dict[str, Any] | None = after.get("at") if after else None
        whole = b64decode(self._text) + self._more
        self._tags = {whole[i : i + 8]: whole[i + 8 : i + 12] for i in range(0, len(whole), 12)}

    def has(self, one: Found) -> bool:
        """Whether an object was read. Raises `SourceError` when it is another one by now."""
        name, tag = _hash(one.name, 8), _hash(one.tag, 4)
        if name in self._tags and self._tags[name] != tag:
            raise SourceError(f"{one.name} changed after it was read.", fix=AGAIN)
        return name in self._tags

    def finish(self, one: Found) -> None:
        name, tag = _hash(one.name, 8), _hash(one.tag, 4)
        self._tags[name], self.at = tag, None
        self._more += name + tag
        self.chain = identity([self.chain, one.tag, one.size])
        if len(self._more) >= 12 * _FOLD:  # in one string that all later cursors share
            self._text, self._more = b64encode(b64decode(self._text) + self._more).decode(), b""

    def cursor(self) -> Cursor:
        found: Cursor = {"form": 1, "read": self._text, "more": b64encode(self._more).decode(), "chain": self.chain}
        return found if self.at is None else {**found, "at": self.at}


def _hash(text: str, n: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=n).digest()


def _format(url: str) -> Format:
    name = _path(url).lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    suffix = PurePosixPath(name).suffix
    if suffix not in _SUFFIXES:
        raise SpecError("the format cannot be told from the suffix.", fix="Write `format: csv`, `jsonl` or `parquet`.")
    return _SUFFIXES[suffix]


def _path(address: str) -> str:
    """What follows the host or bucket, as names are written: only addresses of the web and of files are encoded."""
    scheme = address.partition("://")[0]
    return address.partition("://")[2] if scheme in SCHEMES else unquote(urlsplit(address).path)


def _file_name(one: Found) -> str:
    """The object's own last name, as a file may be called."""
    return PurePosixPath(_path(one.name)).name.replace("\0", "_")[-100:] or "object"


@contextmanager
def _named(paths: dict[str, Found]) -> Iterator[None]:
    """Errors about a local file name the object instead."""
    try:
        yield
    except MisError as error:
        message, fix = error.message, error.fix
        for path, one in paths.items():
            message, fix = message.replace(path, one.name), fix.replace(path, one.name)
        raise type(error)(message, fix=fix) from error
