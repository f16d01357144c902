"""NATS JetStream: messages by their number in the stream, which lies in the lake's own transaction."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

from pydantic import Field, PrivateAttr, model_validator

from modelinscale.core.errors import SourceError, SpecError, Unreachable, needs
from modelinscale.core.schema import ColumnType, Schema
from modelinscale.core.secrets import Address, Reference, reveal
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._json import Row
from modelinscale.data.sources._messages import SAMPLE_ROWS, TICK_S, About, Stream, rows_of
from modelinscale.data.sources._tls import CHECK, Tls, about_certificates, plain

if TYPE_CHECKING:
    from threading import Event

    from nats.aio.msg import Msg

FETCH = 1000
"""Messages asked for at once."""
FIRST_BYTES = 16_384
"""What a message is taken to hold before any was seen."""
LOOK_S = 5.0
"""How often an idle follower asks whether the server still knows it."""
CLOSE_S = 1.0
"""How long to wait for a connection to close that never was one."""
Answer = TypeVar("Answer")


class Nats(Stream):
    """Messages of a JetStream stream, a JSON object each, in the order of their numbers.

    The number lies in the lake, in the transaction that brings the rows: nothing is acknowledged, and no consumer stays on the server.
    A message that is no JSON object goes to quarantine, named by its number.
    """

    about: ClassVar[dict[str, ColumnType]] = {"subject": "string", "sequence": "int", "timestamp": "time", "headers": "string"}

    servers: tuple[Address, ...] = Field(min_length=1)
    """``nats://host:4222`` (``tls://`` with TLS); a password in it is a reference: ``nats://mis:${ENV:NATS_PASSWORD}@host``."""
    stream: str = Field(min_length=1, pattern=r"^[^\s.*>/\\]+$")
    """The name of the stream."""
    subject: str = Field(">", pattern=r"^\S+$")
    """The subjects whose messages are read: ``orders.*``. Left out: all of the stream."""
    token: Reference | None = None
    """A token, where the server asks for one."""
    nkey: Reference | None = None
    """The seed of an NKey (``SU...``), where the server knows this client by one."""
    credentials: Reference | None = None
    """The content of a ``.creds`` file: a user's JWT and seed."""
    ca: Reference | None = None
    """The certificates (PEM) that the server's is checked against; left out: those of this machine."""
    certificate: Reference | None = None
    """This client's certificate (PEM), where the server asks for one."""
    certificate_key: Reference | None = None
    """Its key (PEM)."""

    _live: "list[_Link]" = PrivateAttr(default_factory=list)

    @property
    def _tls(self) -> Tls:
        return Tls(self.ca, self.certificate, self.certificate_key)

    @model_validator(mode="after")
    def _known_by_one(self) -> Self:
        if sum(x is not None for x in (self.token, self.nkey, self.credentials)) > 1:
            raise SpecError("`token`, `nkey` and `credentials` are ways to be known by, one at a time.", fix="Keep the one that the server asks for.")
        if self._tls.is_asked and not all(s.startswith("tls://") for s in self.servers):
            raise SpecError("`ca` and `certificate` are for encrypted connections, and `servers` asks for none.", fix="Write `tls://host:4222`.")
        return self

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """All messages that are there when it starts."""
        with self._connected() as link:
            state = link.state()
            place = self._begin(state, after)
            if after is None and self.start == "latest":
                yield self._chunk([], place, schema)
            if place.seq >= state.last:
                return
            n_pending = link.begin(place.seq + 1)
            since, kept = monotonic(), _Slices(self.rows, self.size)
            while n_pending > 0:
                found = link.take(min(n_pending, FETCH), 1.0)
                for message in found:
                    n_pending = message.metadata.num_pending
                    seq = message.metadata.sequence.stream
                    if seq <= state.last:
                        kept.add(message)
                    if seq >= state.last:
                        n_pending = 0
                        break
                for messages in kept.whole():
                    yield self._chunk(messages, place := self._behind(messages, place), schema)
                if found:
                    since = monotonic()
                elif monotonic() - since > self.timeout:
                    raise Unreachable(f"{self._name()}: no message came for {self.timeout:g} s, though {n_pending:,} are there.", fix="Look at the server.")
            if rest := kept.rest():
                yield self._chunk(rest, self._behind(rest, place), schema)

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: "Event") -> Iterator[Chunk | None]:
        """Messages as they arrive, over one connection."""
        with self._connected() as link:
            place = self._begin(link.state(), after)
            if after is None and self.start == "latest":
                yield self._chunk([], place, schema)
            link.begin(place.seq + 1)
            self._live.append(link)
            looked = monotonic()
            try:
                while not stop.is_set():
                    found = link.take(min(self.rows, FETCH), min(every_s, TICK_S))
                    kept = _Slices(self.rows, self.size)
                    for message in found:
                        kept.add(message)
                    for messages in [*kept.whole(), *([rest] if (rest := kept.rest()) else [])]:
                        yield self._chunk(messages, place := self._behind(messages, place), schema)
                    if not found:
                        yield None
                        if monotonic() - looked > LOOK_S:
                            looked = monotonic()
                            self._begin(link.state(), place.cursor())
                            if not link.known():
                                link.begin(place.seq + 1)
            finally:
                self._live.clear()

    def behind(self, cursor: Cursor) -> int | None:
        return max(self._live[0].state().last - int(cursor["seq"]), 0) if self._live else None

    def feed(self) -> Any:
        kept = ("type", "stream", "subject", "columns", "without", "also", "start")
        return {k: v for k, v in self.plain().items() if k in kept}

    def fingerprint(self) -> Any:
        """When the stream was made, and the number of its last message."""
        with self._connected() as link:
            state = link.state()
            return {"created": state.created, "last": state.last}

    def _name(self) -> str:
        return f"nats stream {self.stream}"

    @contextmanager
    def _connected(self) -> "Iterator[_Link]":
        link = _Link(self)
        try:
            yield link
        finally:
            link.close()

    def _begin(self, state: "_State", after: Cursor | None) -> "_Place":
        """Where to go on, after a look at whether the server still has what follows."""
        if after is None:
            return _Place(state.created, state.last if self.start == "latest" else max(state.first - 1, 0))
        place = _Place(after["created"], int(after["seq"]))
        if place.created != state.created or place.seq > state.last:
            raise SourceError(
                f"{self._name()}: message {place.seq:,} was read and the last is {state.last:,}: the stream was made anew, or the server lost messages.",
                fix="Move the table away (or name another `store`) and collect it from its beginning.",
            )
        if state.first > place.seq + 1:
            self._lost(state.first - place.seq - 1, self._name())
            return place._replace(seq=state.first - 1)
        return place

    def _behind(self, messages: "list[Msg]", place: "_Place") -> "_Place":
        return place._replace(seq=messages[-1].metadata.sequence.stream)

    def _chunk(self, messages: "list[Msg]", place: "_Place", schema: Schema) -> Chunk:
        rows, broken = rows_of([m.data for m in messages], lambda i: f"message {messages[i].metadata.sequence.stream}")
        about = _about(messages, {w for w, n in self.also.items() if n in schema})
        where = f"{self._name()}, from message {messages[0].metadata.sequence.stream}" if messages else self._name()
        return Chunk(self._batch(schema, rows, broken, about), place.cursor(), where)

    def _sampled(self) -> "tuple[list[Row], About, str]":
        """The oldest messages, and the newest where there are more."""
        half = SAMPLE_ROWS // 2
        with self._connected() as link:
            state = link.state()
            messages = link.some(state.first, half)
            last = messages[-1].metadata.sequence.stream if messages else state.last
            if last < state.last:
                messages += link.some(max(last, state.last - half) + 1, half)
        rows, broken = rows_of([m.data for m in messages], lambda i: f"message {messages[i].metadata.sequence.stream}")
        good = [i for i in range(len(rows)) if i not in broken]
        return [rows[i] for i in good], _about([messages[i] for i in good], set(self.also)), next(iter(broken.values()), "")


class _Place(NamedTuple):
    """Where a reader stands: in which stream, and the number of the last message read."""

    created: str
    seq: int

    def cursor(self) -> Cursor:
        return {"created": self.created, "seq": self.seq}


class _State(NamedTuple):
    """The stream as it is."""

    created: str
    first: int
    last: int


class _Slices:
    """Messages gathered into slices of bounded number and size that follow from the messages alone."""

    def __init__(self, rows: int, size: int) -> None:
        self._rows, self._size, self._n_bytes = rows, size, 0
        self._open: list[Msg] = []
        self._whole: deque[list[Msg]] = deque()

    def add(self, message: "Msg") -> None:
        self._open.append(message)
        self._n_bytes += len(message.data)
        if len(self._open) >= self._rows or self._n_bytes >= self._size:
            self._whole.append(self.rest())

    def whole(self) -> "Iterator[list[Msg]]":
        while self._whole:
            yield self._whole.popleft()

    def rest(self) -> "list[Msg]":
        found, self._open, self._n_bytes = self._open, [], 0
        return found


class _Link:
    """A connection, whose event loop runs on a thread of its own: callers know nothing of it, and may have a loop themselves."""

    def __init__(self, source: Nats) -> None:
        needs("nats", extra="nats")
        if source.nkey or source.credentials:
            needs("nkeys", extra="nats")
        self._source = source
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        self._pull: Any = None
        self._heard = 0
        self._mean = FIRST_BYTES
        self._next = 1
        self._reasons: list[str] = []
        try:
            self._client = self._ask(self._connected())
            self._stream = self._client.jetstream()
        except BaseException:
            self._end()
            raise

    async def _connected(self) -> Any:
        for _ in range(2):
            with contextlib.suppress(ConnectionResetError):  # a server that refuses may hang up before its reason is read
                return await self._connect()
        return await self._connect()

    async def _connect(self) -> Any:
        from nats.aio.client import Client, RawCredentials
        from nats.errors import Error

        source = self._source
        more: dict[str, Any] = {}
        if source.token:
            more["token"] = reveal(source.token)
        if source.nkey:
            more["nkeys_seed_str"] = reveal(source.nkey)
        if source.credentials:
            more["user_credentials"] = RawCredentials(reveal(source.credentials))
        if source._tls.is_asked:
            more["tls"] = source._tls.context()

        async def note(error: Exception) -> None:
            self._reasons.append(str(error) or type(error).__name__)

        class Encrypted(Client):
            """Sends no password to a server that does not encrypt, where the address asks for it: the library itself goes on in the clear."""

            def _connect_command(self) -> bytes:
                if not self._server_info.get("tls_required"):
                    raise Error("the server does not speak TLS")
                return super()._connect_command()

        client = Encrypted() if all(s.startswith("tls://") for s in source.servers) else Client()
        try:
            await client.connect(
                [reveal(s, in_url=True) for s in source.servers],
                name="modelinscale",
                allow_reconnect=False,  # who follows begins anew by number instead
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(int(min(source.timeout, 10)), 1),
                error_cb=note,
                **more,
            )
        except BaseException:
            with contextlib.suppress(Exception):  # it may never have been open, and where TLS failed it waits for ever
                await asyncio.wait_for(client.close(), CLOSE_S)
            raise
        return client

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone already
            asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(5.0)
        self._end()

    async def _leave(self) -> None:
        if self._pull is not None and not self._client.is_closed:
            with contextlib.suppress(Exception):
                await self._stream.delete_consumer(self._source.stream, self._pull._consumer)
        await self._client.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    def state(self) -> _State:
        """The stream as it is now."""
        info = self._ask(self._stream.stream_info(self._source.stream))
        return _State(str(info.created), int(info.state.first_seq), int(info.state.last_seq))

    def begin(self, seq: int) -> int:
        """Reads from this number on; gives how many messages there are."""
        self._next = seq
        return int(self._ask(self._subscribe(seq)))

    async def _subscribe(self, seq: int) -> int:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=seq, ack_policy=AckPolicy.NONE, inactive_threshold=300.0, mem_storage=True
        )
        if self._pull is not None:
            with contextlib.suppress(Exception):  # what is left of the one before
                await self._pull.unsubscribe()
        self._pull = await self._stream.pull_subscribe(self._source.subject, stream=self._source.stream, config=config)
        self._heard = 0
        return int((await self._pull.consumer_info()).num_pending)

    def known(self) -> bool:
        """Whether the server still has what we read by: it forgets that when it is restarted."""
        from nats.js.errors import NotFoundError

        async def ask() -> bool:
            try:
                await self._pull.consumer_info()
            except NotFoundError:
                return False
            return True

        return bool(self._ask(ask()))

    def take(self, n: int, wait_s: float) -> "list[Msg]":
        """Up to ``n`` of the next messages, none left out; none where none comes within ``wait_s``."""
        n = max(min(n, self._source.size // self._mean), 1)  # one answer must fit into memory, however large messages are

        async def fetch() -> "list[Msg]":
            try:
                return list(await self._pull.fetch(n, timeout=wait_s))
            except TimeoutError:  # the client's own is one; it raises the plain one where the time runs out between its two questions
                return []

        found = self._ask(fetch())
        if found:
            self._mean = sum(len(m.data) for m in found) // len(found) + 1
        for i, message in enumerate(found):
            if message.metadata.sequence.consumer != self._heard + 1:
                # Some got lost on the way: ask for them again, by number.
                self._ask(self._subscribe(self._next))
                return list(found[:i])
            self._heard, self._next = self._heard + 1, message.metadata.sequence.stream + 1
        return list(found)

    def some(self, seq: int, n: int) -> "list[Msg]":
        """Up to ``n`` messages from this number on, those that are there now."""
        left = min(self.begin(max(seq, 1)), n)
        found: list[Msg] = []
        while left > 0 and (more := self.take(left, 2.0)):
            found += more
            left -= len(more)
        return found

    def _ask(self, question: "Coroutine[Any, Any, Answer]") -> Answer:
        """Runs a question on the connection's loop; its errors as ours."""
        import nats.errors as e
        import nats.js.errors as j

        name, servers = self._source._name(), ", ".join(self._source.servers)
        future = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            return future.result(self._source.timeout + 5.0)
        except j.NotFoundError:
            raise SourceError(f"there is no {name}.", fix="Check `stream`, or make it on the server; streams are not made by reading.") from None
        except j.BadRequestError as error:  # it answers, and refuses what was asked for
            fix = f"Check `subject`: has the stream {self._source.subject!r}?" if "subject" in str(error.description) else "Check `stream` and `subject`."
            raise SourceError(f"{name}: {servers} refuses what was asked for: {error.description}.", fix=fix) from None
        except (e.AuthorizationError, e.InvalidUserCredentialsError) as error:
            raise SourceError(f"{name}: {servers} refuses this client: {error}.", fix="Check user, password or token.") from None
        except (e.Error, OSError, TimeoutError) as error:
            future.cancel()
            reason = (self._reasons or [str(error) or type(error).__name__])[-1]
            refused = next((r for r in [*self._reasons, str(error)] if "authorization" in r.lower()), None)
            if refused is not None:
                raise SourceError(f"{name}: {servers} refuses this client: {refused}.", fix="Check user, password or token.") from None
            if about_certificates(reason):
                raise SourceError(f"{name}: {servers}: no encrypted connection: {plain(reason)}.", fix=CHECK) from None
            raise Unreachable(f"{name}: {servers} cannot be reached: {reason}.", fix="Is the server up, with JetStream on? Are `servers` right?") from None


def _about(messages: "list[Msg]", asked: set[str]) -> dict[str, list[Any]]:
    """What is known of each message, for the words asked for."""
    import json

    get: dict[str, Any] = {
        "subject": lambda m: m.subject,
        "sequence": lambda m: m.metadata.sequence.stream,
        "timestamp": lambda m: m.metadata.timestamp.replace(tzinfo=None),
        "headers": lambda m: json.dumps(m.headers, ensure_ascii=False) if m.headers else None,
    }
    return {word: [get[word](m) for m in messages] for word in asked}
