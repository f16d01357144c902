"""Kafka topics: offsets are kept in the lake's own transaction, so that a row is there exactly once whatever is killed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PrivateAttr, model_validator

from modelinscale.core.errors import SourceError, SpecError, Unreachable, did_you_mean, needs
from modelinscale.core.logs import log
from modelinscale.core.schema import ColumnType, Schema
from modelinscale.core.secrets import Reference, reveal
from modelinscale.core.settings import Settings
from modelinscale.data.sources import Chunk, Cursor
from modelinscale.data.sources._files import Names
from modelinscale.data.sources._json import Row
from modelinscale.data.sources._messages import SAMPLE_ROWS, TICK_S, About, Stream, rows_of

if TYPE_CHECKING:
    from threading import Event

    from confluent_kafka import Consumer, Message

POLL_S = 0.1
"""How long one call waits for messages; librdkafka fetches ahead meanwhile."""
TELL_S = 5.0
"""How long is tried to tell the group: it matters less than to go on."""
SETUP_S = 10.0
"""How long one connection may take to be made, encryption and password included; librdkafka's own 30 s are as much as `timeout`."""
DOWN_S = 5.0
"""After so long without a single broker that can be reached it is told; one that answers slowly has all of `timeout`."""
LOOK_S = 30.0
"""How often a follower looks for new partitions."""

Part = tuple[str, int]
"""A topic and the number of a partition of it."""


class Security(Settings):
    """How the brokers are spoken to; secrets are references."""

    tls: bool = False
    """Whether the connection is encrypted."""
    ca: Reference | None = None
    """The certificates (PEM) that the brokers' are checked against; left out: those of this machine."""
    certificate: Reference | None = None
    """This client's certificate (PEM), where brokers ask for one."""
    certificate_key: Reference | None = None
    """Its key (PEM)."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the password is proven."""
    username: str | None = None
    """The user's name, or a reference to it."""
    password: Reference | None = None
    """The user's password."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.ca or self.certificate) and not self.tls:
            raise SpecError("`ca` and `certificate` are for encrypted connections, and `tls` is off.", fix="Write `tls: true`.")
        if (self.username is None) != (self.password is None):
            raise SpecError("`username` and `password` go together.", fix="Write both, or neither.")
        return self

    def settings(self) -> dict[str, str]:
        """As librdkafka wants them, secrets revealed."""
        found = {"security.protocol": ("SASL_" if self.username else "") + ("SSL" if self.tls else "PLAINTEXT")}
        named = {"ssl.ca.pem": self.ca, "ssl.certificate.pem": self.certificate, "ssl.key.pem": self.certificate_key}
        if self.username:
            named |= {"sasl.mechanism": self.mechanism, "sasl.username": self.username, "sasl.password": self.password}
        return found | {key: reveal(value) for key, value in named.items() if value}


class Kafka(Stream):
    """Messages of Kafka topics, a JSON object each.

    The place in every partition lies in the lake, in the transaction that brings the rows; the group is only told of it afterwards, so that lag shows.
    Partitions are read one after the other, in slices of ``rows`` messages; a follower takes them as they arrive. Messages of transactions that were
    not committed are not read. A message that is no JSON object goes to quarantine, named by topic, partition and offset.
    """

    about: ClassVar[dict[str, ColumnType]] = {
        "topic": "string",
        "partition": "int",
        "offset": "int",
        "timestamp": "time",
        "key": "string",
        "headers": "string",
    }

    servers: Names
    """Brokers to ask first: ``broker1:9092``."""
    topic: Names
    """A topic, or several whose messages have the same columns."""
    group: str = Field("modelinscale", min_length=1)
    """The consumer group that is told how far the lake is. For monitoring only: nothing is read by it."""
    tombstones: Literal["quarantine", "skip"] = "quarantine"
    """What becomes of messages without a value."""
    security: Security = Security()
    """Encryption and password."""

    _live: "list[Consumer]" = PrivateAttr(default_factory=list)
    """The connection of the follower at work, if there is one."""

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        """All messages that are there when it starts."""
        with self._connected() as link:
            places, ends = self._begin(link, after)
            if after is None and self.start == "latest":
                yield Chunk(self._batch(schema, [], {}, {w: [] for w in self.about}), places.cursor(), self._name())
            for part in sorted(ends):
                for messages in self._slices(link, part, places.next[part], ends[part]):
                    yield self._chunk(messages, places, schema)

    def follow(self, after: Cursor | None, schema: Schema, *, every_s: float, stop: "Event") -> Iterator[Chunk | None]:
        """Messages of all partitions as they arrive, new partitions included, over one connection."""
        with self._connected() as link:
            places, _ = self._begin(link, after)
            if after is None and self.start == "latest":
                yield Chunk(self._batch(schema, [], {}, {w: [] for w in self.about}), places.cursor(), self._name())
            link.assign(places.next)
            self._live.append(link.consumer)
            looked = monotonic()
            try:
                while not stop.is_set():
                    found, gone = link.take(self.rows, min(every_s, TICK_S))
                    for messages in self._cut([m for m in found if (m.offset() or 0) >= places.next[_part(m)]]):
                        yield self._chunk(messages, places, schema)
                    if gone:  # after the messages that came with it, which would come again
                        places, _ = self._begin(link, places.cursor())
                        link.assign(places.next)
                    if not found:
                        yield None
                        link.check()
                    if monotonic() - looked > LOOK_S:
                        looked, known = monotonic(), set(places.next)
                        link.look()
                        places, _ = self._begin(link, places.cursor())
                        if set(places.next) != known:
                            link.assign(places.next)
            finally:
                self._live.clear()

    def committed(self, cursor: Cursor) -> None:
        from confluent_kafka import KafkaException, TopicPartition

        offsets = [TopicPartition(topic, part, at) for (topic, part), at in _Places.of(cursor).next.items() if at > 0]
        try:
            if self._live:
                self._live[0].commit(offsets=offsets, asynchronous=True)
            else:
                with self._connected(TELL_S) as link:
                    link.consumer.commit(offsets=offsets, asynchronous=False)
        except (KafkaException, SourceError) as error:
            # The lake has its own offsets: this only makes the group's lag look larger than it is.
            log(__name__).warning("the group was not told", extra={"group": self.group, "error": str(error)})

    def behind(self, cursor: Cursor) -> int | None:
        from confluent_kafka import TopicPartition

        if not self._live:
            return None
        places = _Places.of(cursor).next
        ends = {part: self._live[0].get_watermark_offsets(TopicPartition(*part), cached=True)[1] for part in places}
        return sum(max(end - places[part], 0) for part, end in ends.items())

    def feed(self) -> Any:
        kept = ("type", "topic", "columns", "without", "also", "start", "tombstones")
        return {k: v for k, v in self.plain().items() if k in kept}

    def fingerprint(self) -> Any:
        """The end of every partition."""
        with self._connected() as link:
            return {"cluster": link.cluster, "ends": _nested({part: link.edges(part)[1] for part in link.partitions()})}

    def _name(self) -> str:
        return f"kafka topic {', '.join(self.topic)}"

    @contextmanager
    def _connected(self, timeout_s: float | None = None) -> "Iterator[_Link]":
        link = _Link(self, timeout_s or self.timeout)
        try:
            yield link
        finally:
            link.consumer.close()

    def _begin(self, link: "_Link", after: Cursor | None) -> "tuple[_Places, dict[Part, int]]":
        """Where to go on in each partition, and where each ends now. A partition that is new to the cursor is read from its beginning."""
        places = _Places.of(after) if after else _Places(link.cluster, {}, {}, 0)
        if places.cluster != link.cluster:
            raise SourceError(
                f"{self._name()}: the rows collected so far came from another cluster ({places.cluster}) than this one ({link.cluster}).",
                fix="Name the servers of that cluster, or another `store` or `name`.",
            )
        ends = {}
        for part in link.partitions():
            low, high = link.edges(part)
            at = places.next.get(part)
            if at is None:
                places.first[part] = places.next[part] = high if after is None and self.start == "latest" else low
            else:
                self._beyond(part, at, high)
                if at < low:
                    self._lost(low - at, _named(part))
                    places.next[part] = low
                    places = places._replace(lost=places.lost + low - at)
            ends[part] = high
        return places, ends

    def _beyond(self, part: Part, at: int, high: int) -> None:
        """Refuses an offset that the partition never had."""
        if at > high:
            raise SourceError(
                f"{_named(part)}: {at:,} messages were read and it ends at {high:,}: the topic was made anew, or the cluster lost messages.",
                fix="Move the table away (or name another `store`) and collect it from its beginning.",
            )

    def _slices(self, link: "_Link", part: Part, at: int, end: int) -> "Iterator[list[Message]]":
        """The messages of a partition from one offset up to another, in slices that follow from the offset alone."""
        if at >= end:
            return
        link.assign({part: at})
        kept: list[Message] = []
        size, since, over = 0, monotonic(), False
        while not over:
            found, gone = link.take(min(self.rows, 10_000), POLL_S)
            for message in found:
                offset = message.offset() or 0
                if offset < at:
                    continue
                at = offset + 1
                if at > end:
                    over = True
                    break
                value = message.value()
                if value is None and self.tombstones == "skip":
                    continue
                kept.append(message)
                size += len(value or b"")
                if len(kept) >= self.rows or size >= self.size:
                    yield kept
                    kept, size = [], 0
            if gone:  # removed while we read
                low, high = link.edges(part)
                self._beyond(part, at, high)
                if low > at:
                    self._lost(low - at, _named(part))
                    at = low
                link.assign({part: at})
            over = over or at >= end or part in link.ended
            if found:
                since = monotonic()
            elif not over and monotonic() - since > self.timeout:
                raise link.silent(f"no message came for {self.timeout:g} s, though {end - at:,} are there")
        if kept:
            yield kept

    def _cut(self, messages: "list[Message]") -> "Iterator[list[Message]]":
        """What arrived together, by partition and offset, in parts of bounded size."""
        if self.tombstones == "skip":
            messages = [m for m in messages if m.value() is not None]
        messages.sort(key=lambda m: (m.topic() or "", m.partition() or 0, m.offset() or 0))
        part: list[Message] = []
        size = 0
        for message in messages:
            part.append(message)
            size += len(message.value() or b"")
            if size >= self.size:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _chunk(self, messages: "list[Message]", places: "_Places", schema: Schema) -> Chunk:
        """The messages as a chunk; ``places`` moves behind them."""
        values = [m.value() for m in messages]
        rows, broken = rows_of(values, lambda i: _where(messages[i]))
        asked = {w for w, n in self.also.items() if n in schema}
        ends = messages[-1:] if _part(messages[0]) == _part(messages[-1]) else messages  # in order, so the last of a partition is said last
        for message in ends:
            places.next[_part(message)] = (message.offset() or 0) + 1
        return Chunk(self._batch(schema, rows, broken, _about(messages, asked)), places.cursor(), f"kafka {_where(messages[0])}, on")

    def _sampled(self) -> "tuple[list[Row], About, str]":
        """The oldest and the newest messages of every partition."""
        messages: list[Message] = []
        with self._connected() as link:
            parts = link.partitions()
            half = max(SAMPLE_ROWS // (2 * max(len(parts), 1)), 5)
            for part in parts:
                low, high = link.edges(part)
                ranges = [(low, high)] if high - low <= 2 * half else [(low, low + half), (high - half, high)]
                for begin, end in ranges:
                    messages += [m for found in self._slices(link, part, begin, end) for m in found]
        messages = [m for m in messages if m.value() is not None]
        rows, broken = rows_of([m.value() for m in messages], lambda i: _where(messages[i]))
        good = [i for i in range(len(rows)) if i not in broken]
        return [rows[i] for i in good], _about([messages[i] for i in good], set(self.also)), next(iter(broken.values()), "")


class _Places(NamedTuple):
    """Where a reader stands."""

    cluster: str
    first: dict[Part, int]
    """The offset each partition was begun at."""
    next: dict[Part, int]
    """The offset of the next message of each partition."""
    lost: int
    """Messages that were removed before they were read."""

    @classmethod
    def of(cls, cursor: Cursor) -> "_Places":
        found = {(topic, int(part)): at for topic, parts in cursor["topics"].items() for part, at in parts.items()}
        return cls(cursor["cluster"], {p: first for p, (first, _) in found.items()}, {p: at for p, (_, at) in found.items()}, cursor.get("lost", 0))

    def cursor(self) -> Cursor:
        found = {"cluster": self.cluster, "topics": _nested({p: [self.first[p], at] for p, at in self.next.items()})}
        return found | ({"lost": self.lost} if self.lost else {})


class _Link:
    """An open consumer that reads only what it is told to, and what went wrong on it."""

    def __init__(self, source: Kafka, timeout_s: float) -> None:
        needs("confluent_kafka", extra="kafka")
        from confluent_kafka import Consumer, KafkaException

        self._source, self._timeout_s = source, timeout_s
        self._errors: dict[int, Any] = {}
        """What the client noticed, the newest of each kind: a broker that is down is told of twenty times a second."""
        self.ended: set[Part] = set()
        self._assigned: set[Part] = set()
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(source.servers),
            "group.id": source.group,
            "client.id": "modelinscale",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": max(source.size // 512, 1024),
            "fetch.wait.max.ms": 100,
            "socket.connection.setup.timeout.ms": int(1000 * min(max(timeout_s, 1.0), SETUP_S)),
            "error_cb": self._noticed,
            "log_level": 2,  # what goes wrong is told by us, once
            **source.security.settings(),
        }
        try:
            self.consumer: Consumer = Consumer(settings, logger=log(__name__ + ".client"))
        except (KafkaException, ValueError) as error:
            raise SourceError(f"{source._name()}: librdkafka refuses the settings: {error}.", fix="Check `servers` and `security`.") from None
        try:
            self._about = self._listed()
        except BaseException:
            self.consumer.close()
            raise
        self.cluster = str(self._about.cluster_id)

    def _noticed(self, error: Any) -> None:
        self._errors.pop(error.code(), None)
        self._errors[error.code()] = error

    def look(self) -> None:
        """Asks anew what topics and partitions there are."""
        self._about = self._listed()

    def _listed(self) -> Any:
        """What there is. Asked in ever longer turns: librdkafka would wait for a dead broker as long as for a slow one."""
        from confluent_kafka import KafkaError, KafkaException

        began, turn_s = monotonic(), 1.0
        while (left_s := self._timeout_s - (monotonic() - began)) > turn_s:
            try:
                return self.consumer.list_topics(timeout=turn_s)
            except KafkaException as error:
                self.consumer.poll(0)  # hands over what the client noticed
                noticed = {*self._errors, error.args[0].code()}
                down = KafkaError._ALL_BROKERS_DOWN in noticed and monotonic() - began >= DOWN_S
                if down or noticed & {KafkaError._AUTHENTICATION, KafkaError._SSL}:
                    raise self._told(error.args[0]) from None
            turn_s *= 2
        return self._ask(lambda: self.consumer.list_topics(timeout=max(left_s, 0.1)))

    def partitions(self) -> list[Part]:
        """The partitions there were when last looked, in order. Raises `SourceError` for a topic that is not there."""
        found: list[Part] = []
        for topic in self._source.topic:
            about = self._about.topics.get(topic)
            if about is None or not about.partitions:
                known = sorted(self._about.topics)
                raise SourceError(
                    f"there is no topic {topic!r}.{did_you_mean(topic, known)}",
                    fix="Check `topic`, and that this user may read it; topics are not made by reading.",
                )
            found += [(topic, number) for number in about.partitions]
        return sorted(found)

    def edges(self, part: Part) -> tuple[int, int]:
        """The first offset there is and the one after the last."""
        from confluent_kafka import TopicPartition

        low, high = self._ask(lambda: self.consumer.get_watermark_offsets(TopicPartition(*part), timeout=self._timeout_s))
        return int(low), int(high)

    def assign(self, places: Mapping[Part, int]) -> None:
        """Reads these partitions from these offsets, and no other."""
        from confluent_kafka import TopicPartition

        self.ended.clear()
        self._assigned = set(places)
        self.consumer.assign([TopicPartition(topic, part, at) for (topic, part), at in places.items()])

    def take(self, n: int, wait_s: float) -> "tuple[list[Message], bool]":
        """Up to ``n`` messages, and whether some that were asked for are gone."""
        from confluent_kafka import KafkaError

        found, gone = [], False
        first = self.consumer.poll(wait_s)  # `consume` alone would wait its full time for the last of n
        for message in [] if first is None else [first, *self.consumer.consume(n - 1, 0)] if n > 1 else [first]:
            error, part = message.error(), _part(message)
            if part not in self._assigned:
                continue
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ended.add(part)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                gone = True
            else:
                raise self._told(error)
        if found:
            self._errors.clear()
        return found, gone

    def check(self) -> None:
        """Raises `Unreachable` when no broker can be reached any more."""
        from confluent_kafka import KafkaError, KafkaException

        if {KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION} & self._errors.keys():
            try:
                self.consumer.list_topics(timeout=min(self._timeout_s, 2.0))
            except KafkaException as error:
                raise self._told(error.args[0]) from None
            self._errors.clear()

    def silent(self, what: str) -> SourceError:
        """The error for a broker that says nothing."""
        reason = f" ({list(self._errors.values())[-1].str()})" if self._errors else ""
        return Unreachable(f"{self._source._name()}: {what}{reason}.", fix="Is the broker up, and can it be reached from here?")

    def _ask(self, question: Callable[[], Any]) -> Any:
        from confluent_kafka import KafkaException

        try:
            return question()
        except KafkaException as error:
            self.consumer.poll(0)  # hands over what the client noticed, such as a refused password
            raise self._told(error.args[0]) from None

    def _told(self, error: Any) -> SourceError:
        """A client's error as ours: what may pass by itself, and what will not."""
        from confluent_kafka import KafkaError

        refused = next((e for e in [*self._errors.values(), error] if e.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)), None)
        name, servers = self._source._name(), ", ".join(self._source.servers)
        if refused is not None:
            return SourceError(f"{name}: {servers} refuses this client: {refused.str()}.", fix="Check `security`: user, password, mechanism, certificates.")
        passing = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE, KafkaError._TIMED_OUT_QUEUE)
        if error.code() in passing or error.retriable():
            why = next((self._errors[code] for code in (KafkaError._RESOLVE, KafkaError._TRANSPORT) if code in self._errors), error)
            return Unreachable(f"{name}: {servers} cannot be reached: {why.str()}.", fix="Is the broker up? Are `servers` and `security.tls` right?")
        return SourceError(f"{name}: {error.str()} ({error.name()}).", fix="Check `topic` and this user's rights.")


def _named(part: Part) -> str:
    return f"kafka {part[0]}[{part[1]}]"


def _part(message: "Message") -> Part:
    return message.topic() or "", message.partition() or 0


def _where(message: "Message") -> str:
    return f"{message.topic()}[{message.partition()}] offset {message.offset()}"


def _about(messages: "list[Message]", asked: set[str]) -> dict[str, list[Any]]:
    """What is known of each message, for the words asked for."""
    get: dict[str, Callable[[Message], Any]] = {
        "topic": lambda m: m.topic(),
        "partition": lambda m: m.partition(),
        "offset": lambda m: m.offset(),
        "timestamp": lambda m: _moment(*m.timestamp()),
        "key": lambda m: _words(m.key()),
        "headers": lambda m: _headers(m.headers()),
    }
    return {word: [get[word](m) for m in messages] for word in asked}


def _moment(kind: int, milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None) if kind else None


def _words(raw: bytes | str | None) -> str | None:
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw


def _headers(pairs: Any) -> str | None:
    import json

    return json.dumps({name: _words(value) for name, value in pairs}, ensure_ascii=False) if pairs else None


def _nested(flat: Mapping[Part, Any]) -> dict[str, dict[str, Any]]:
    """By topic, then by the partition's number as text, in order."""
    found: dict[str, dict[str, Any]] = {}
    for (topic, part), value in sorted(flat.items()):
        found.setdefault(topic, {})[str(part)] = value
    return found
