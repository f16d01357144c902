"""Kafka, JetStream and Redis streams: the suite every source passes, and what streams do to their readers. Real clients, real servers."""

import asyncio
import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import SourceError, Unreachable
from modelinscale.core.schema import Schema
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.collect import Collected, collect, open_quarantine
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Chunk, Source
from modelinscale.data.sources.kafka import Kafka
from modelinscale.testing import brokers
from modelinscale.testing import sources as suite

pytestmark = pytest.mark.slow

numbers = itertools.count()
ROWS = [{"id": f"r{i}", "n": i, "x": i / 7, "at": f"2026-01-01T00:00:{i % 60:02d}"} for i in range(120)]


@dataclass(frozen=True)
class Feed:
    """A new, empty stream on a server: how to send to it, and the settings of a source that reads it."""

    send: Callable[[Sequence[bytes | None]], None]
    settings: dict[str, Any]

    def source(self, **settings: Any) -> Source:
        return Source.parse({**self.settings, **settings})

    def rows(self, rows: Sequence[dict[str, Any]]) -> None:
        self.send([json.dumps(row).encode() for row in rows])


@contextlib.contextmanager
def started(server: contextlib.AbstractContextManager[Any]) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(server)
        except brokers.NoServer as reason:
            pytest.skip(f"no server to test with: {reason}")
        yield found


@pytest.fixture(scope="module")
def cluster() -> Iterator[brokers.MockCluster]:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    try:
        found = brokers.MockCluster({})
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")
    yield found
    found.close()


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("nats", reason="the extra `nats` is not installed")
    with started(brokers.nats(tmp_path_factory.mktemp("nats"))) as address:
        yield address


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    with started(brokers.redis(tmp_path_factory.mktemp("redis"))) as address:
        yield address


@pytest.fixture(params=["nats", "redis"])
def trimmable(request: pytest.FixtureRequest) -> Feed:
    """A new stream of the kinds that a test can take messages from."""
    return nats_feed(request.getfixturevalue("nats_server")) if request.param == "nats" else redis_feed(request.getfixturevalue("redis_server"))


def kafka_feed(cluster: brokers.MockCluster, n_partitions: int = 3) -> Feed:
    topic = f"topic{next(numbers)}"
    cluster.add(topic, n_partitions)

    def send(values: Sequence[bytes | None]) -> None:
        produce(cluster.address, topic, [(value, i % n_partitions) for i, value in enumerate(values)])

    return Feed(send, {"type": "kafka", "servers": [cluster.address], "topic": topic, "timeout": "10s"})


def produce(address: str, topic: str, messages: Sequence[tuple[bytes | None, int]], **more: Any) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "log_level": 0})
    for i, (value, part) in enumerate(messages):
        producer.produce(topic, value, key=f"k{i}".encode(), partition=part, timestamp=1_767_225_600_000 + i, headers={"from": "test"}, **more)
        if i % 50_000 == 49_999:
            producer.flush()
    assert producer.flush(20) == 0


def nats_feed(address: str) -> Feed:
    import nats

    stream = f"S{next(numbers)}"

    async def work(values: Sequence[bytes | None]) -> None:
        client = await nats.connect(address)
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.*"])
        for value in values:
            await jetstream.publish(f"{stream}.a", value or b"")
        await client.close()

    def send(values: Sequence[bytes | None]) -> None:
        asyncio.run(work(values))

    send([])
    return Feed(send, {"type": "nats", "servers": [address], "stream": stream, "timeout": "10s"})


def redis_feed(address: str) -> Feed:
    import redis

    stream = f"s{next(numbers)}"

    def send(values: Sequence[bytes | None]) -> None:
        with redis.Redis.from_url(address) as client:
            for value in values:
                client.xadd(stream, {b"payload": value or b""})

    return Feed(send, {"type": "redis", "url": address, "stream": stream, "field": "payload", "timeout": "10s"})


@pytest.fixture(params=["kafka", "nats", "redis"])
def feed(request: pytest.FixtureRequest) -> Feed:
    """A new stream of each kind."""
    if request.param == "kafka":
        return kafka_feed(request.getfixturevalue("cluster"))
    if request.param == "nats":
        return nats_feed(request.getfixturevalue("nats_server"))
    return redis_feed(request.getfixturevalue("redis_server"))


def read(source: Source, after: Any = None, schema: Schema | None = None) -> list[dict[str, Any]]:
    wanted = schema or source.columns()
    return [row for chunk in source.read(after, wanted) for row in clean(chunk.batch, wanted).batch.to_pylist()]


def last(source: Source) -> Any:
    return list(source.read(None, source.columns()))[-1].cursor


def test_every_stream_passes_the_suite_of_sources(feed: Feed) -> None:
    feed.rows(ROWS)
    source = feed.source(rows=25)
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.reading_twice_gives_the_same_chunks(source)
    suite.chunks_match_the_schema(source)
    suite.only_asked_columns_come(source)
    suite.at_the_end_nothing_comes(source)
    suite.the_fingerprint_is_plain_and_still(source)
    suite.settings_round_trip(source)

    def grow() -> int:
        feed.rows([{"id": "late", "n": 1}, {"id": "later", "n": 2}])
        return 2

    suite.new_rows_come_once(source, grow)


def test_rows_arrive_typed_and_in_order(feed: Feed) -> None:
    feed.rows(ROWS)
    source = feed.source()
    assert {c.name: c.type for c in source.columns().columns} == {"id": "string", "n": "int", "x": "float", "at": "time"}
    found = read(source)
    assert [r["n"] for r in sorted(found, key=lambda r: r["n"])] == list(range(120))
    assert found[0] | {"at": None} == {"id": "r0", "n": 0, "x": 0.0, "at": None}


def test_a_message_that_is_no_json_object_goes_to_quarantine_by_name_and_the_rest_goes_on(feed: Feed, tmp_path: Path) -> None:
    feed.send([b'{"id": "a", "n": 1}', b"\xff\xfe poison", b'[{"id": "b"}]', b'{"id": "c", "n": 3}\n{"id": "d", "n": 4}', b"", b'{"id": "e",\n "n": 5}'])
    source = feed.source()
    rules = contract(source.columns(), {}, ())
    found = collect(source, lake=str(tmp_path / "lake"), quarantine=str(tmp_path / "q"), contract=rules, max_quarantined=1.0)
    assert (found.n_added, found.n_quarantined) == (2, 4)
    lines = [line for batch in open_quarantine(str(tmp_path / "q"), str(tmp_path / "lake")) for line in batch.to_pylist()]
    assert {line["reason"].split(" (")[0] for line in lines} >= {"bytes that are not utf-8", "a list where an object with named values was expected"}
    assert all(any(word in line["value"] for word in ("offset", "message", "entry")) for line in lines), lines
    ids = [v for b in open_table(str(tmp_path / "lake")).blocks(["id"]) for v in b.column("id").to_pylist()]
    assert sorted(ids) == ["a", "e"], "a message with a line end inside is one message"


def test_a_broken_row_names_itself(feed: Feed) -> None:
    feed.send([b'{"id": "a"}', b"{", b'{"id": "c"}'])
    place = {"kafka": "[1] offset 0", "nats": "message 2", "redis": "entry "}[feed.settings["type"]]
    suite.a_broken_row_names_itself(feed.source(), place, 3)


def test_declared_columns_need_no_message(feed: Feed) -> None:
    if feed.settings["type"] == "redis":
        feed.send([b"{}"])
    source = feed.source(columns={"id": "string", "n": "int"}, without=["n"])
    assert source.columns().names == ("id",)
    suite.settings_round_trip(source)
    if feed.settings["type"] != "redis":
        suite.an_empty_source_is_told(source)
        suite.an_empty_source_is_told(feed.source())
        with pytest.raises(SourceError, match="there is no message yet to tell the columns"):
            feed.source().columns()
    feed.rows([{"id": "a", "n": 1, "z": 3}])
    assert read(source)[-1] == {"id": "a"}


def test_what_is_not_there_is_told(feed: Feed) -> None:
    name = "topic" if feed.settings["type"] == "kafka" else "stream"
    with pytest.raises(SourceError, match=f"there is no .*{name}.*nothere"):
        feed.source(**{name: "nothere"}).columns()


def test_a_reader_from_now_on_pins_its_place_and_misses_nothing_after_it(feed: Feed, tmp_path: Path) -> None:
    feed.rows(ROWS[:5])
    source = feed.source(start="latest")

    def go() -> Collected:
        return collect(source, lake=str(tmp_path / "l"), quarantine=str(tmp_path / "q"), contract=contract(source.columns(), {}, ()))

    assert go().n_rows == 0
    feed.rows(ROWS[5:8])
    assert go().n_added == 3
    assert go().n_added == 0


def test_a_follower_gives_what_is_there_and_what_arrives_and_stops_when_told(feed: Feed) -> None:
    feed.rows(ROWS[:10])
    source, stop, found, idle = feed.source(), threading.Event(), list[Chunk](), 0
    schema = source.columns()
    n_rows = 0
    for chunk in source.follow(None, schema, every_s=0.1, stop=stop):
        if chunk is None:
            idle += 1
            if n_rows == 10 and idle == 2:
                feed.rows(ROWS[10:14])
            if n_rows == 14:
                stop.set()
            assert idle < 200
        else:
            found.append(chunk)
            n_rows += chunk.batch.num_rows
    rows = pa.Table.from_batches([clean(c.batch, schema).batch for c in found]).to_pylist()
    assert sorted(r["n"] for r in rows) == list(range(14))
    assert list(source.read(found[-1].cursor, schema)) == [], "the follower's cursor is not the reader's"
    after_ten = next(c.cursor for i, c in enumerate(found) if sum(x.batch.num_rows for x in found[: i + 1]) >= 10)
    assert len(read(source, after_ten, schema)) == 4


def test_a_wait_that_ends_between_two_questions_to_a_server_is_only_a_wait(nats_server: str) -> None:
    # The client asks twice within one wait; where the first answer takes the whole of it, it says so in an error of its own.
    source = nats_feed(nats_server).source()
    with source._connected() as link:  # type: ignore[attr-defined]
        link.begin(1)
        assert [m for wait_us in range(100, 3000, 10) for m in link.take(5, wait_us / 1e6)] == []


def test_what_the_broker_knows_of_a_message_becomes_columns_where_asked(feed: Feed) -> None:
    feed.rows(ROWS[:3])
    words = {
        "kafka": ["partition", "offset", "timestamp", "key", "headers", "topic"],
        "nats": ["subject", "sequence", "timestamp"],
        "redis": ["id", "timestamp"],
    }
    source = feed.source(also={word: f"its_{word}" for word in words[feed.settings["type"]]})
    suite.chunks_match_the_schema(source)
    found = read(source)
    if feed.settings["type"] == "kafka":
        assert sorted((r["its_partition"], r["its_offset"], r["its_key"]) for r in found) == [(0, 0, "k0"), (1, 0, "k1"), (2, 0, "k2")]
        assert json.loads(found[0]["its_headers"]) == {"from": "test"}
        assert found[0]["its_timestamp"].isoformat() == "2026-01-01T00:00:00"
    elif feed.settings["type"] == "nats":
        assert [r["its_sequence"] for r in found] == [1, 2, 3]
    else:
        assert [r["its_id"].split("-")[0] for r in found] == sorted(r["its_id"].split("-")[0] for r in found)
    with pytest.raises(SourceError, match="have a field 'n' already"):
        feed.source(also={"timestamp": "n"}).columns()
    with pytest.raises(ValueError, match=r"`also` knows nothing called 'timestmp'.*Did you mean 'timestamp'"):
        feed.source(also={"timestmp": "t"})


def test_a_server_that_is_not_there_may_come_later(feed: Feed) -> None:
    port = brokers.free_port()
    nobody: dict[str, dict[str, Any]] = {
        "kafka": {"servers": [f"127.0.0.1:{port}"]},
        "nats": {"servers": [f"nats://127.0.0.1:{port}"]},
        "redis": {"url": f"redis://127.0.0.1:{port}"},
    }
    with pytest.raises(Unreachable, match="cannot be reached"):
        feed.source(**nobody[feed.settings["type"]], timeout=0.5).columns()


def test_messages_removed_before_they_were_read_are_an_error_that_counts_them_or_a_warning(
    trimmable: Feed, redis_server: str, nats_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    trimmable.rows(ROWS[:10])
    source = trimmable.source()
    schema, cursor = source.columns(), last(source)
    trim(trimmable, redis_server, nats_server, keep=10)
    assert list(source.read(cursor, schema)) == [], "nothing unread was removed"
    trimmable.rows(ROWS[10:40])
    trim(trimmable, redis_server, nats_server, keep=5)
    with pytest.raises(SourceError, match="up to 25 messages were removed before they were read") as told:
        list(source.read(cursor, schema))
    assert "on_gap: go_on" in told.value.fix
    with caplog.at_level(logging.WARNING):
        assert [r["n"] for r in read(trimmable.source(on_gap="go_on"), cursor, schema)] == list(range(35, 40))
    assert any(r.message == "messages lost" and vars(r)["lost"] == 25 for r in caplog.records)


def trim(feed: Feed, redis_server: str, nats_server: str, keep: int) -> None:
    if feed.settings["type"] == "redis":
        import redis

        with redis.Redis.from_url(redis_server) as client:
            client.xtrim(feed.settings["stream"], maxlen=keep, approximate=False)
        return
    import nats

    async def purge() -> None:
        client = await nats.connect(nats_server)
        await client.jetstream().purge_stream(feed.settings["stream"], keep=keep)
        await client.close()

    asyncio.run(purge())


def test_a_stream_made_anew_is_not_taken_for_the_old_one(trimmable: Feed, redis_server: str, nats_server: str) -> None:
    trimmable.rows(ROWS[:10])
    source = trimmable.source()
    schema, cursor = source.columns(), last(source)
    if trimmable.settings["type"] == "redis":
        import redis

        with redis.Redis.from_url(redis_server) as client:
            client.delete(trimmable.settings["stream"])
    else:
        import nats

        async def delete() -> None:
            client = await nats.connect(nats_server)
            await client.jetstream().delete_stream(trimmable.settings["stream"])
            await client.close()

        asyncio.run(delete())
    trimmable.rows(ROWS[:3])
    with pytest.raises(SourceError, match="made anew"):
        list(source.read(cursor, schema))


# -- Kafka


def test_kafka_offsets_lie_in_the_lake_and_the_group_is_told_afterwards(cluster: brokers.MockCluster, tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition

    feed = kafka_feed(cluster, 2)
    feed.rows(ROWS[:11])
    source = feed.source(group="lag")
    collect(source, lake=str(tmp_path / "l"), quarantine=str(tmp_path / "q"), contract=contract(source.columns(), {}, ()))
    cursor = open_table(str(tmp_path / "l")).cursor
    assert cursor is not None
    topic = feed.settings["topic"]
    assert cursor["topics"] == {topic: {"0": [0, 6], "1": [0, 5]}}
    looker = Consumer({"bootstrap.servers": cluster.address, "group.id": "lag", "log_level": 0})
    try:
        assert [p.offset for p in looker.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)] == [6, 5]
    finally:
        looker.close()


def test_kafka_messages_removed_by_retention_are_an_error_that_counts_them_or_a_warning(cluster: brokers.MockCluster, caplog: pytest.LogCaptureFixture) -> None:
    feed = kafka_feed(cluster, 1)
    feed.rows(ROWS[:10])
    source = feed.source()
    schema, cursor = source.columns(), last(source)
    padded = [json.dumps({"id": "p", "n": i, "pad": "x" * 1000}).encode() for i in range(8000)]
    feed.send(padded)  # the mock cluster keeps 5 MB of a partition
    with pytest.raises(SourceError, match=rf"{feed.settings['topic']}\[0\]: up to [\d,]+ messages were removed before they were read"):
        list(source.read(cursor, schema))
    with caplog.at_level(logging.WARNING):
        found = read(feed.source(on_gap="go_on", rows=2000), cursor, schema)
    lost = next(vars(r)["lost"] for r in caplog.records if r.message == "messages lost")
    assert [r["n"] for r in found] == list(range(lost, 8000))


def test_kafka_offsets_beyond_the_end_or_of_another_cluster_are_refused(cluster: brokers.MockCluster) -> None:
    feed = kafka_feed(cluster, 1)
    feed.rows(ROWS[:10])
    source = feed.source()
    cursor = last(source)
    beyond = json.loads(json.dumps(cursor).replace("[0, 10]", "[0, 999]"))
    with pytest.raises(SourceError, match=r"999 messages were read and it ends at 10: the topic was made anew"):
        list(source.read(beyond, source.columns()))
    with pytest.raises(SourceError, match="came from another cluster"):
        list(source.read({**cursor, "cluster": "other"}, source.columns()))


def test_kafka_tombstones_go_to_quarantine_or_are_skipped(cluster: brokers.MockCluster) -> None:
    feed = kafka_feed(cluster, 1)
    feed.send([b'{"id": "a"}', None, b'{"id": "b"}', None])
    schema = feed.source().columns()
    batch = next(feed.source().read(None, schema)).batch
    assert [str(r).split(":")[0] for r in batch.column(BROKEN).to_pylist()] == ["None", "a message without a value (a tombstone)"] * 2
    assert read(feed.source(tombstones="skip")) == [{"id": "a"}, {"id": "b"}]
    empty = kafka_feed(cluster, 1)
    empty.send([None, None])
    with pytest.raises(SourceError, match="there is no message yet"):
        empty.source().columns()


def test_kafka_partitions_that_appear_later_are_read_from_their_beginning(cluster: brokers.MockCluster) -> None:
    feed = kafka_feed(cluster, 2)
    feed.rows(ROWS[:10])
    source = feed.source(start="latest")
    schema = source.columns()
    (pinned,) = source.read(None, schema)
    old = json.loads(json.dumps(pinned.cursor))
    del old["topics"][feed.settings["topic"]]["1"]  # as if there had been one partition then
    assert sorted(r["n"] for r in read(source, old, schema)) == [1, 3, 5, 7, 9]


def test_kafka_transactions_that_were_not_committed_are_not_read(cluster: brokers.MockCluster) -> None:
    from confluent_kafka import Producer

    feed = kafka_feed(cluster, 1)
    feed.rows(ROWS[:2])
    producer = Producer({"bootstrap.servers": cluster.address, "transactional.id": "t", "log_level": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(feed.settings["topic"], json.dumps(ROWS[2]).encode(), partition=0)
    producer.flush()
    producer.commit_transaction(20)
    assert len(read(feed.source())) == 3


def test_kafka_secrets_are_references_and_never_told(cluster: brokers.MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = kafka_feed(cluster, 1)
    with pytest.raises(ValueError, match="a secret must not be written here"):
        feed.source(security={"username": "mis", "password": "hunter22"})
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter22-of-the-broker")
    source = feed.source(security={"username": "mis", "password": "${ENV:KAFKA_PASSWORD}", "mechanism": "SCRAM-SHA-256"}, timeout=1)
    assert isinstance(source, Kafka)
    assert source.security.settings()["sasl.password"] == "hunter22-of-the-broker"
    assert source.security.settings()["security.protocol"] == "SASL_PLAINTEXT"
    with pytest.raises(SourceError) as told:
        source.columns()
    assert "hunter22" not in f"{told.value}{told.value.fix}{source.plain()}{source.feed()}{source!r}"


def test_kafka_brokers_that_go_away_and_come_back(cluster: brokers.MockCluster) -> None:
    own = brokers.MockCluster({"t": 1})
    try:
        produce(own.address, "t", [(json.dumps(r).encode(), 0) for r in ROWS[:5]])
        source = Source.parse({"type": "kafka", "servers": [own.address], "topic": "t", "timeout": 2})
        schema, stop = source.columns(), threading.Event()
        following = source.follow(None, schema, every_s=0.2, stop=stop)
        first = next(c for c in following if c is not None)
        own.down()
        with pytest.raises(Unreachable, match="cannot be reached"):
            list(itertools.islice(following, 100))
        own.up()
        produce(own.address, "t", [(json.dumps(r).encode(), 0) for r in ROWS[5:8]])
        assert [r["n"] for r in read(source, first.cursor, schema)] == [5, 6, 7]
    finally:
        own.close()


def dead(timeout_s: float) -> float:
    """Seconds until brokers at a closed port are called unreachable."""
    source, began = Source.parse({"type": "kafka", "servers": [f"127.0.0.1:{brokers.free_port()}"], "topic": "t", "timeout": timeout_s}), time.monotonic()
    with pytest.raises(Unreachable, match=r"cannot be reached: .*Connection refused"):
        source.columns()
    return time.monotonic() - began


def test_kafka_brokers_that_refuse_are_told_long_before_the_time_a_slow_one_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    monkeypatch.setattr("modelinscale.data.sources.kafka.DOWN_S", 0.5)
    assert dead(30) < 10


@pytest.mark.slow
@pytest.mark.parametrize("timeout_s", [5, 30])
def test_kafka_brokers_that_are_dead_are_told_within_seconds(timeout_s: float) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    assert dead(timeout_s) < 12


# -- Redis


def test_redis_fields_are_columns_whose_text_is_read_as_in_a_csv_file(redis_server: str) -> None:
    import redis

    with redis.Redis.from_url(redis_server) as client:
        for i in range(20):
            client.xadd("fields", {"id": f"r{i}", "n": str(i), "day": "03/01/2026" if i < 19 else "04/01/2026", **({"rare": "x"} if i == 3 else {})})
        client.xadd("fields", {"id": b"\xff\xfe"})
    source = Source.parse({"type": "redis", "url": redis_server, "stream": "fields", "rows": 4})
    assert source.columns()["n"].type == "int"
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.a_broken_row_names_itself(source, "entry ", 21)


def test_redis_refuses_a_key_that_is_no_stream_and_a_wrong_password(redis_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.set("word", "x")
    with pytest.raises(SourceError, match="Is the key a stream"):
        Source.parse({"type": "redis", "url": redis_server, "stream": "word"}).columns()
    with pytest.raises(SourceError, match=r"out of range. Check `url` and its database"):
        Source.parse({"type": "redis", "url": f"{redis_server.rpartition('/')[0]}/99", "stream": "s"}).columns()
    monkeypatch.setenv("REDIS_PASSWORD", "open-sesame-1001")
    with started(brokers.redis(tmp_path, more=("--requirepass", "other"))) as address:
        host = address.removeprefix("redis://")
        source = Source.parse({"type": "redis", "url": f"redis://:${{ENV:REDIS_PASSWORD}}@{host}", "stream": "s"})
        with pytest.raises(SourceError, match="refuses this client") as told:
            source.columns()
        assert "sesame" not in f"{told.value}{told.value.fix}"


# -- NATS


def test_nats_reads_only_the_subjects_asked_for(nats_server: str) -> None:
    import nats

    async def send() -> None:
        client = await nats.connect(nats_server)
        await client.jetstream().add_stream(name="MIXED", subjects=["mixed.*"])
        for i in range(30):
            await client.jetstream().publish(f"mixed.{'ab'[i % 2]}", json.dumps({"n": i}).encode())
        await client.close()

    asyncio.run(send())
    source = Source.parse({"type": "nats", "servers": [nats_server], "stream": "MIXED", "subject": "mixed.b", "rows": 4})
    assert [r["n"] for r in read(source)] == list(range(1, 30, 2))
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.at_the_end_nothing_comes(source)
    with pytest.raises(SourceError, match=r"refuses what was asked for: .*subject.* Check `subject`: has the stream 'other\.\*'\?"):
        Source.parse({"type": "nats", "servers": [nats_server], "stream": "MIXED", "subject": "other.*"}).columns()


def test_nats_refuses_a_wrong_token_without_telling_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_TOKEN", "wrong-token-77")
    with started(brokers.nats(tmp_path, more=("--auth", "right-token-78"))) as address:
        source = Source.parse({"type": "nats", "servers": [address], "stream": "S", "token": "${ENV:NATS_TOKEN}", "timeout": 5})
        with pytest.raises(SourceError, match="refuses this client") as told:
            source.columns()
        assert "token-77" not in f"{told.value}"


def test_nats_leaves_no_consumer_on_the_server(nats_server: str) -> None:
    import nats

    feed = nats_feed(nats_server)
    feed.rows(ROWS[:10])
    read(feed.source())

    async def consumers() -> int:
        client = await nats.connect(nats_server)
        found = await client.jetstream().consumers_info(feed.settings["stream"])
        await client.close()
        return len(found)

    assert asyncio.run(consumers()) == 0


def test_nats_can_be_read_where_an_event_loop_runs_already(nats_server: str) -> None:
    feed = nats_feed(nats_server)
    feed.rows(ROWS[:10])

    async def inside() -> int:
        return len(read(feed.source()))

    assert asyncio.run(inside()) == 10
