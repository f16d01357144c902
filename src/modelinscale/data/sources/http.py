"""Web APIs that answer in JSON, page by page: resumable to the row, each row once."""

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, model_validator

from modelinscale.core.clock import Clock, now
from modelinscale.core.errors import SourceError, SpecError
from modelinscale.core.identity import canonical
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, Schema
from modelinscale.core.secrets import Address, remember, reveal
from modelinscale.core.settings import Settings
from modelinscale.core.units import Duration, Size
from modelinscale.data.arrow import BROKEN
from modelinscale.data.sources import Chunk, Cursor, Source
from modelinscale.data.sources._files import Names, check_left_out
from modelinscale.data.sources._http import Client, dig, document, no_plain_secrets
from modelinscale.data.sources._http_pages import At, Page, Paging, Request, pages
from modelinscale.data.sources._json import SHOWN_CHARS, Row, column, refuse_names
from modelinscale.data.sources._messages import PlainType
from modelinscale.data.sources._net import shown

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_ROWS, SAMPLE_PAGES = 2000, 5
"""How many rows tell the columns and their types, and on how many pages these are looked for."""
MOST_AT_ONE = 10_000
"""Rows that may share the last value of `since`: all are remembered, so that none comes twice."""
AGAIN = "Collect into a new table (another `store`, or another `name`)."
_PER = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _rate(value: Any) -> str:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", str(value).strip())
    if not found or not float(found[1]):
        raise SpecError(f"{value!r} is no rate.", fix="Write requests in a time: 5/s, 100/m, 1000/h.")
    return str(value).strip()


class Since(Settings):
    """A field that only grows, by which the API gives what is new."""

    param: str
    """The parameter that takes the last value seen; the API may give rows at that value again."""
    column: str
    """The field of a row that has it: a number, or text that sorts (moments as ISO 8601)."""
    start: str | int | float | None = None
    """Where the first collect begins; left out: with everything."""


class Http(Source):
    """Rows of a web API: a list of objects in a JSON document, in one or in pages.

    The API must give rows in an order that new rows are only added to at the end (ascending by number or time); else say by `since` how new rows are
    asked for. The page where the last collect ended is read again, and must still begin with the rows it had then. An element that is no object is kept
    as a broken row that names its page. Redirects and next pages never take credentials to another server.
    """

    url: Address
    """The address: ``https://api.example.com/v1/orders``."""
    at: str = Field("", alias="rows")
    """Where in an answer the list of rows stands: ``data.items``. Left out: the answer is the list."""
    method: Literal["GET", "POST"] = "GET"
    """How rows are asked for; a POST sends `body`, page parameters within it."""
    params: dict[str, str | int | float | bool] = {}
    """Parameters of the query; secrets as references."""
    body: dict[str, Any] = {}
    """What a POST sends, as JSON; secrets as references."""
    headers: dict[str, str] = {}
    """Headers of every request, for example ``Authorization: Bearer ${ENV:TOKEN}``."""
    page: Paging | None = None
    """How the API divides its rows; left out: it gives all at once."""
    since: Since | None = None
    """A field by which new rows are asked for."""
    declared: dict[str, PlainType] = Field({}, alias="columns")
    """The fields to read and their types. Left out: told by the first rows."""
    without: Names = ()
    """Columns to leave out."""
    rate: Annotated[str, AfterValidator(_rate)] = "5/s"
    """Requests in a time, at most: ``5/s``, ``100/m``."""
    retries: int = Field(5, ge=0, le=20)
    """How often a request is tried again after 429, 5xx or a broken connection, with growing pauses or the one the server asks for."""
    timeout: Annotated[Duration, Field(gt=0, le=600)] = 30.0
    """How long the server may stay silent."""
    max_bytes: Annotated[Size, Field(ge=1024)] = 32 << 20
    """How large an answer may be, unpacked."""
    chunk: int = Field(10_000, ge=1)
    """Rows handed on at a time, at most."""
    private: bool = False
    """Whether the server may be on this machine or in a private network. Link-local addresses (cloud metadata) are never read."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        no_plain_secrets(self.headers, "headers")
        no_plain_secrets(self.params, "params")
        no_plain_secrets(self.body, "body")
        odd = [n for n, v in self.headers.items() if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", n) or re.search(r"[\r\n\0]", v)]
        if odd:
            raise SpecError(f"`headers`: {odd[0]!r} is no header.", fix="Names are letters, digits and hyphens; values have one line.")
        if self.body and self.method == "GET":
            raise SpecError("`body` is for `method: POST`.", fix="Set `method: POST`, or use `params`.")
        if self.since is not None and self.since.param in {*self.params, *self.body}:
            raise SpecError(f"`since` and the other parameters both set {self.since.param!r}.", fix="Name it once; the first value goes into `since.start`.")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise SpecError("`url` is no address of a web server.", fix="Write `https://host/path`.")
        return self

    def remembers(self) -> tuple[str, ...]:
        """The field by which new rows are asked for."""
        return () if self.since is None else (self.since.column,)

    def columns(self) -> Schema:
        """The declared columns, or the fields of the first rows. Raises `SourceError` when there is no row to tell them."""
        from modelinscale.data.infer import infer

        if self.declared:
            return Schema(columns=tuple(Column(name=n, type=t) for n, t in self.declared.items() if n not in self.without))
        return infer(self._sample())

    def sample(self) -> "pa.Table | None":
        return None if self.declared else self._sample()

    def _sample(self) -> "pa.Table":
        import pyarrow as pa

        found: list[Row] = []
        n_seen = 0
        for page in pages(self._client(), self._request(None), self.page, self.at):
            found += [item for item in page.items if isinstance(item, dict)]
            n_seen += len(page.items)
            if len(found) >= SAMPLE_ROWS or page.number >= SAMPLE_PAGES:
                break
        where = shown(self.url)
        if not found:
            words = f"none of the first {n_seen} elements is an object" if n_seen else "there is no row yet to tell the columns"
            raise SourceError(f"{where}: {words}.", fix="Check `rows`, or declare `columns: {name: type}` under the source.")
        names = list(dict.fromkeys(name for row in found for name in row))
        refuse_names(names, where)
        check_left_out(self.without, names, where)
        return pa.table({n: column(found, n, None) for n in names if n not in self.without})

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """A chunk for each page, or several for large ones. See the contract."""
        stand = _Stand.of(after)
        headers: dict[str, str] = {}
        if stand.place is not None and self.page is None and self.since is None:
            headers = {k: v for k, v in (("If-None-Match", stand.etag), ("If-Modified-Since", stand.modified)) if v}
        client, request = self._client(), self._request(stand.since)
        held: Chunk | None = None
        first = stand.place
        for page in pages(client, request, self.page, self.at, *((first.number, first.at) if first else ()), headers=headers):
            if self.page is None and self.since is None:
                stand = stand._replace(etag=page.got.headers.get("ETag") or "", modified=page.got.headers.get("Last-Modified") or "")
            chain = blake2b(digest_size=16)
            for n in range(first.n if first else 0):
                chain.update(canonical(page.items[n]).encode("utf-8", "surrogatepass") if n < len(page.items) else b"")
            begin = 0
            if first is not None:
                begin = first.n
                if len(page.items) < begin or chain.hexdigest() != first.digest:
                    raise SourceError(
                        f"{shown(self.url)}: page {page.number} no longer begins with the {begin:,} rows that were read from it: rows were removed or changed, "
                        "or new ones do not come at the end.",
                        fix=f"Have the API sort ascending by something that does not change, or use `since`. {AGAIN}",
                    )
                first = None
            for start in range(begin, len(page.items), self.chunk):
                part = page.items[start : start + self.chunk]
                for item in part:
                    chain.update(canonical(item).encode("utf-8", "surrogatepass"))
                stand = stand._replace(place=_Place(page.number, page.at, start + len(part), chain.hexdigest()))
                rows, broken, stand = self._new(part, start, page, stand)
                if rows:
                    if held is not None:
                        yield held
                    held = Chunk(_batch(schema, rows, broken), stand.cursor(), f"{shown(self.url)}, page {page.number}, from element {start + 1}")
            if page.number == 1 and self.page is not None and self.page.next is not None and not _names_next(document(page.got), self.page.next):
                log(__name__).warning("the first page does not name a next one, not even an empty one: is `page.next` right?", extra={"next": self.page.next})
        if held is not None:
            yield held._replace(cursor=stand.ended().cursor() if self.since else held.cursor)

    def _new(self, items: list[Any], start: int, page: Page, stand: "_Stand") -> "tuple[list[Row], dict[int, str], _Stand]":
        """The rows among some elements that were not read before, {} for broken ones, why those are broken, and the place after them."""
        rows: list[Row] = []
        broken: dict[int, str] = {}
        for i, item in enumerate(items):
            why = "" if isinstance(item, dict) else f"{_WORDS.get(type(item), 'something')} where an object was expected"
            if not why and self.since is not None:
                value = item.get(self.since.column)
                if not isinstance(value, str | int | float) or isinstance(value, bool):
                    why = f"no value in {self.since.column!r}, by which rows are asked for"
                else:
                    fresh, stand = stand.saw(value, canonical(item), self.since.column)
                    if not fresh:
                        continue
            if why:
                broken[len(rows)] = f"{why}: page {page.number}, element {start + i + 1}: {canonical(item)[:SHOWN_CHARS]}"
            rows.append({} if why else item)
        return rows, broken, stand

    def _client(self) -> Client:
        number, _, per = self.rate.partition("/")
        headers = {name: reveal(value) for name, value in self.headers.items()}
        parts = urlsplit(reveal(self.url, in_url=True))
        if parts.username is not None:
            pair = b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode()
            remember(pair)
            headers = {"Authorization": f"Basic {pair}", **headers}
        gap_s = _PER[per.strip()] / float(number)
        return Client(headers=headers, private=self.private, timeout_s=self.timeout, retries=self.retries, gap_s=gap_s, most_bytes=self.max_bytes)

    def _request(self, since: "_Mark | None") -> Request:
        parts = urlsplit(reveal(self.url, in_url=True))
        url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        params = {name: reveal(_word(value)) for name, value in self.params.items()}
        body = _revealed(self.body) if self.method == "POST" else None
        value = since.value if since else self.since.start if self.since else None
        if self.since is not None and value is not None:
            if body is None:
                params[self.since.param] = _word(value)
            else:
                body[self.since.param] = value
        return Request(url, params, body)

    def feed(self) -> Any:
        """What is asked for, without how often, how fast and by whom."""
        kept = ("type", "url", "rows", "method", "params", "body", "page", "since", "columns", "without")
        return {k: v for k, v in self.plain().items() if k in kept}

    def content(self, cursor: Cursor) -> Any:
        """The place, without what the server says about the document's age."""
        return {k: v for k, v in cursor.items() if k not in ("etag", "modified")}

    def fingerprint(self, clock: Clock = now) -> Any:
        """Of one document, what it holds, in a word; pages can only be looked at by reading them, so of these it is never the same twice."""
        if self.page is not None or self.since is not None:
            return {"looked_at": clock().isoformat()}
        page = next(pages(self._client(), self._request(None), None, self.at))
        return {"rows": blake2b(canonical(page.items).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()}


_WORDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a flag", type(None): "null"}


class _Place(NamedTuple):
    """Where a reader stands: behind element ``n`` of a page."""

    number: int
    at: At
    n: int
    digest: str
    """Of those ``n`` elements."""


class _Mark(NamedTuple):
    """A value of the field by which new rows are asked for, and the rows seen at it: how often each."""

    value: str | int | float
    seen: dict[str, int]


class _Stand(NamedTuple):
    """All that a reader knows."""

    place: _Place | None
    since: _Mark | None
    """What this pass asked for."""
    top: _Mark | None
    """The largest value so far: what the next pass asks for."""
    left: dict[str, int]
    """Of the rows seen at ``since``, those that this pass has not met again."""
    etag: str = ""
    modified: str = ""

    @classmethod
    def of(cls, cursor: Cursor | None) -> "_Stand":
        if cursor is None:
            return cls(None, None, None, {})
        if cursor.get("form") != 1:
            raise SourceError("this cursor is not one of a web API, or of a newer version.", fix=AGAIN)
        place = _Place(*cursor["place"]) if cursor.get("place") else None
        since, top = (_Mark(cursor[k][0], dict(cursor[k][1])) if cursor.get(k) else None for k in ("since", "top"))
        left = dict(cursor["left"]) if "left" in cursor else dict(since.seen) if since else {}
        return cls(place, since, top, left, cursor.get("etag", ""), cursor.get("modified", ""))

    def cursor(self) -> Cursor:
        found: Cursor = {"form": 1}
        if self.place:
            found["place"] = list(self.place)
        found |= {k: [mark.value, dict(mark.seen)] for k, mark in (("since", self.since), ("top", self.top)) if mark}
        if self.place and self.since:
            found["left"] = dict(self.left)
        return found | {k: v for k, v in (("etag", self.etag), ("modified", self.modified)) if v}

    def ended(self) -> "_Stand":
        """After the last page: the next pass asks from the largest value on."""
        return _Stand(None, self.top or self.since, None, {})

    def saw(self, value: str | int | float, text: str, name: str) -> "tuple[bool, _Stand]":
        """Whether a row is new, and what is known after it."""
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        top = self.top or self.since
        for mark in (self.since, top):
            if mark is not None and isinstance(mark.value, str) != isinstance(value, str):
                raise SourceError(
                    f"{name!r} is {value!r} in one row and was {mark.value!r}: text and numbers have no order.", fix="Choose another `since.column`."
                )
        if self.since is not None and value < self.since.value:  # type: ignore[operator]
            return False, self  # asked for inclusively, or by the day: read before
        if self.since is not None and value == self.since.value and self.left.get(key, 0):
            self.left[key] -= 1
            return False, self
        if top is None or value > top.value:  # type: ignore[operator]
            top = _Mark(value, {key: 1})
        elif value == top.value:
            if len(top.seen) >= MOST_AT_ONE:
                raise SourceError(
                    f"more than {MOST_AT_ONE:,} rows have {value!r} in {name!r}.",
                    fix="Choose a finer `since.column`: one with a time, or a number that counts.",
                )
            seen = top.seen if top is self.top else dict(top.seen)
            seen[key] = seen.get(key, 0) + 1
            top = _Mark(value, seen)
        return True, self._replace(top=top)


def _batch(schema: Schema, rows: list[Row], broken: dict[int, str]) -> "pa.RecordBatch":
    import pyarrow as pa

    arrays, names = [column(rows, c.name, c) for c in schema.columns], list(schema.names)
    if broken:
        arrays.append(pa.array([broken.get(i) for i in range(len(rows))], pa.string()))
        names.append(BROKEN)
    return pa.record_batch(arrays, names=names)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _revealed(value: Any) -> Any:
    if isinstance(value, str):
        return reveal(value)
    if isinstance(value, dict):
        return {k: _revealed(v) for k, v in value.items()}
    return [_revealed(v) for v in value] if isinstance(value, list) else value


def _names_next(whole: Any, path: str) -> bool:
    """Whether the place where the next page is named is there at all, be it empty."""
    holder, last = dig(whole, path.rpartition(".")[0], ""), path.rpartition(".")[2]
    return last in holder if isinstance(holder, dict) else dig(whole, path, "") is not None
