"""Redis streams: entries by their id, without a consumer group; the id lies in the lake's own transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import Field, PrivateAttr, model_validator

from modelinscale.core.errors import NothingYet, NotSupportedYet, SourceError, SpecError, Unreachable, needs
from modelinscale.core.schema import ColumnType, Schema
from modelinscale.core.secrets import Address, Reference, reveal
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._json import SHOWN_CHARS, Row
from modelinscale.data.sources._messages import SAMPLE_ROWS, TICK_S, About, Stream, rows_of
from modelinscale.data.sources._tls import CHECK, Tls, about_certificates, plain

if TYPE_CHECKING:
    from threading import Event

    from redis import Redis as Client

Entry = tuple[bytes, dict[bytes, bytes]]
"""An entry's id, and its fields."""
NOTHING = (0, 0)
FIRST_BYTES = 16_384
"""What an entry is taken to hold before any was seen."""
SLICE = 1000
"""Entries asked for at once: a server answers one question at a time, and others wait meanwhile."""


class Redis(Stream):
    """Entries of a Redis stream (Redis 7, Valkey), in the order of their ids.

    Each field of an entry is a column, its text read as in a CSV file; or one field holds a JSON object (``field``). Entries that ``MAXLEN`` or ``XDEL``
    removed before they were read are noticed. No consumer group is needed and nothing is written to the server.
    """

    about: ClassVar[dict[str, ColumnType]] = {"id": "string", "timestamp": "time"}

    url: Address
    """``redis://host:6379/0`` (``rediss://`` with TLS); a password in it is a reference: ``redis://:${ENV:REDIS_PASSWORD}@host``."""
    stream: str = Field(min_length=1)
    """The key of the stream."""
    field: str | None = None
    """The field that holds a JSON object. Left out: the fields themselves are the columns."""
    ca: Reference | None = None
    """The certificates (PEM) that the server's is checked against; left out: those of this machine."""
    certificate: Reference | None = None
    """This client's certificate (PEM), where the server asks for one."""
    certificate_key: Reference | None = None
    """Its key (PEM)."""

    _live: "list[Client]" = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if (self.ca or self.certificate) and not self.url.startswith("rediss://"):
            raise SpecError("`ca` and `certificate` are for encrypted connections, and this `url` asks for none.", fix="Write `rediss://host:6379/0`.")
        return self

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """All entries that are there when it starts."""
        with self._connected() as client:
            place = _Place.of(after) if after else None
            state = self._state(client)
            if place is None and self.start == "latest":
                place = state.end
                yield self._chunk([], place, schema)
            while place is None or place.id < state.last:
                entries, place = self._take(client, place, state.last)
                if not entries:
                    return
                yield self._chunk(entries, place, schema)

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: "Event") -> Iterator[Chunk | None]:
        """Entries as they arrive, over one connection."""
        with self._connected() as client:
            place = _Place.of(after) if after else None
            if place is None and self.start == "latest":
                place = self._state(client).end
                yield self._chunk([], place, schema)
            self._live.append(client)
            try:
                while not stop.is_set():
                    entries, place = self._take(client, place, None)
                    if entries:
                        yield self._chunk(entries, place, schema)
                        continue
                    yield None
                    with self._told():
                        client.xread({self.stream: _text(place.id)}, count=1, block=max(int(min(every_s, TICK_S) * 1000), 1))
            finally:
                self._live.clear()

    def behind(self, cursor: Cursor) -> int | None:
        if not self._live:
            return None
        place = _Place.of(cursor)
        return max(self._state(self._live[0]).added - place.n, 0)

    def feed(self) -> Any:
        kept = ("type", "stream", "field", "columns", "without", "also", "start")
        return {k: v for k, v in self.plain().items() if k in kept}

    def fingerprint(self) -> Any:
        """The newest id, and how many entries were ever added."""
        with self._connected() as client:
            state = self._state(client)
            return {"last": _text(state.last), "added": state.added}

    def content(self, cursor: Cursor) -> Any:
        return cursor

    def _name(self) -> str:
        return f"redis stream {self.stream}"

    @contextmanager
    def _connected(self) -> "Iterator[Client]":
        redis = needs("redis", extra="redis")
        tls = Tls(self.ca, self.certificate, self.certificate_key)
        if tls.is_asked:
            tls.context()  # a mistake in them is told before a connection is tried
        with tls.files() as files:
            more = {name: str(path) for name, path in zip(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), files, strict=True) if path}
            try:
                client: Client = redis.Redis.from_url(
                    reveal(self.url, in_url=True), socket_timeout=self.timeout, socket_connect_timeout=self.timeout, client_name="modelinscale", **more
                )
            except ValueError as error:
                raise SourceError(f"{self._name()}: `url` cannot be used: {error}.", fix="Write `redis://host:6379/0`.") from None
            try:
                yield client
            finally:
                client.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The client's errors as ours."""
        import redis.exceptions as e

        try:
            yield
        except (e.AuthenticationError, e.NoPermissionError) as error:
            raise SourceError(f"{self._name()}: the server refuses this client: {error}.", fix="Check user, password and rights (`XRANGE`, `XINFO`).") from None
        except e.ConnectionError as error:
            if about_certificates(str(error)):
                raise SourceError(f"{self._name()}: no encrypted connection: {plain(str(error))}.", fix=CHECK) from None
            raise Unreachable(f"{self._name()}: the server cannot be reached: {str(error).rstrip('.')}.", fix="Is it up? Is `url` right?") from None
        except (e.TimeoutError, e.BusyLoadingError, e.ClusterDownError, e.TryAgainError) as error:
            raise Unreachable(f"{self._name()}: the server cannot be reached: {str(error).rstrip('.')}.", fix="Is it up? Is `url` right?") from None
        except e.ResponseError as error:
            if "no such key" in str(error).lower():
                raise NothingYet(f"there is no {self._name()}.", fix="Check `stream` and the database in `url`, or send a first entry.") from None
            fix = "Is the key a stream?" if "WRONGTYPE" in str(error) else "Check `url` and its database, and `stream`."
            raise SourceError(f"{self._name()}: {error}.", fix=fix) from None

    def _state(self, client: "Client") -> "_State":
        with self._told():
            return _State.of(client.xinfo_stream(self.stream))

    def _take(self, client: "Client", place: "_Place | None", last: "tuple[int, int] | None") -> "tuple[list[Entry], _Place]":
        """The next entries after a place, up to an id, as many as make a chunk; and the place after them."""
        entries: list[Entry] = []
        size, mean = 0, FIRST_BYTES
        while len(entries) < self.rows and size < self.size:
            # One answer must fit into memory, however large entries are. Where chunks end does not depend on it.
            n = max(min(self.rows - len(entries), SLICE, (self.size - size) // mean + 1), 1)
            with self._told(), client.pipeline(transaction=True) as both:
                both.xinfo_stream(self.stream)
                both.xrange(self.stream, min=f"({_text(place.id)}" if place else "-", max=_text(last) if last else "+", count=n)
                info, found = both.execute()
            place = self._checked(place, _State.of(info))
            taken = 0
            for entry in found:
                size += sum(len(k) + len(v) for k, v in entry[1].items())
                taken += 1
                if size >= self.size:
                    break
            entries += found[:taken]
            mean = size // max(len(entries), 1) + 1
            if taken:
                place = _Place(_id(found[taken - 1][0]), place.n + taken)
            if len(found) < n:
                break
        assert place is not None, "one question was asked at least"
        return entries, place

    def _checked(self, place: "_Place | None", state: "_State") -> "_Place":
        """The place, after a look at whether the server still has what follows it."""
        if place is None:
            return _Place(NOTHING, state.removed)
        if place.id > state.last or place.n > state.added:
            raise SourceError(
                f"{self._name()}: entry {_text(place.id)} was read and the newest is {_text(state.last)}: it was made anew, or the server lost entries.",
                fix="Move the table away (or name another `store`) and collect it from its beginning.",
            )
        # Trimming takes the oldest first: while an entry that was read is there, so is everything after it.
        if state.first is None or state.first > place.id:
            lost = state.removed - place.n
            if lost > 0:
                self._lost(lost, self._name())
                return _Place(place.id, state.removed)
        return place

    def _chunk(self, entries: list[Entry], place: "_Place", schema: Schema) -> Chunk:
        rows, broken, about = self._parsed(entries)
        where = f"{self._name()}, from entry {entries[0][0].decode()}" if entries else self._name()
        return Chunk(self._batch(schema, rows, broken, about), {"id": _text(place.id), "n": place.n}, where)

    def _parsed(self, entries: list[Entry]) -> "tuple[list[Row], dict[int, str], About]":
        about: dict[str, list[Any]] = {"id": [i.decode() for i, _ in entries], "timestamp": [_moment(i) for i, _ in entries]}
        if self.field is not None:
            wanted = self.field.encode()
            rows, broken = rows_of([fields.get(wanted, b"") for _, fields in entries], lambda i: f"entry {about['id'][i]}")
            for i in broken:
                if wanted not in entries[i][1]:
                    broken[i] = f"no field {self.field!r}: entry {about['id'][i]}"
            return rows, broken, about
        rows, broken = [], {}
        for i, (_, fields) in enumerate(entries):
            try:
                rows.append({name.decode(): value.decode() for name, value in fields.items()})
            except UnicodeDecodeError as error:
                rows.append({})
                shown = error.object[:SHOWN_CHARS].decode("utf-8", "replace")
                broken[i] = f"bytes that are not utf-8 (0x{error.object[error.start]:02x}): entry {about['id'][i]}: {shown}"
        return rows, broken, about

    def _sampled(self) -> "tuple[list[Row], About, str]":
        with self._connected() as client:
            with self._told():
                old: list[Entry] = client.xrange(self.stream, count=SAMPLE_ROWS // 2)  # type: ignore[assignment]
            if not old:
                self._state(client)  # says so where there is no stream at all
                return [], {}, ""
            with self._told():
                new: list[Entry] = client.xrevrange(self.stream, min=f"({old[-1][0].decode()}", count=SAMPLE_ROWS // 2)  # type: ignore[assignment]
        rows, broken, about = self._parsed([*old, *reversed(new)])
        good = [i for i in range(len(rows)) if i not in broken]
        return [rows[i] for i in good], {w: [v[i] for i in good] for w, v in about.items()}, next(iter(broken.values()), "")


class _Place(NamedTuple):
    """Where a reader stands: the id of the last entry read, and how many were ever added to the stream up to it."""

    id: tuple[int, int]
    n: int

    @classmethod
    def of(cls, cursor: Cursor) -> "_Place":
        return cls(_id(cursor["id"].encode()), cursor["n"])


class _State(NamedTuple):
    """The stream as it is."""

    first: tuple[int, int] | None
    """The oldest id still there."""
    last: tuple[int, int]
    """The newest id ever."""
    added: int
    """Entries ever added."""
    removed: int
    """Entries ever removed."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> "_State":
        if "entries-added" not in info:
            raise NotSupportedYet("this server does not count the entries of a stream, so lost ones could not be noticed.", fix="Use Redis 7 or Valkey.")
        added, there = int(info["entries-added"]), int(info["length"])
        first = info["first-entry"]
        return cls(_id(first[0]) if first else None, _id(info["last-generated-id"]), added, added - there)

    @property
    def end(self) -> _Place:
        return _Place(self.last, self.added)


def _id(text: bytes) -> tuple[int, int]:
    milliseconds, _, number = text.decode().partition("-")
    return int(milliseconds), int(number or 0)


def _text(id: tuple[int, int]) -> str:
    return f"{id[0]}-{id[1]}"


def _moment(id: bytes) -> datetime | None:
    try:
        return datetime.fromtimestamp(_id(id)[0] / 1000, UTC).replace(tzinfo=None)
    except (OverflowError, ValueError, OSError):  # ids that somebody chose freely
        return None
