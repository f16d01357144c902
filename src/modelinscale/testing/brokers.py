"""Real servers of messages on free ports of this machine, for tests and benchmarks: Kafka's protocol, NATS JetStream, Redis.

``python -m modelinscale.testing.brokers orders:3`` runs librdkafka's own mock cluster in a process of its own and prints its address.
"""

import argparse
import ctypes
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class NoServer(Exception):
    """This machine does not have it; the text says what is missing."""


@contextmanager
def kafka(topics: dict[str, int]) -> Iterator[str]:
    """The address of a mock cluster with these topics and their numbers of partitions. It keeps about 5 MB of each partition, the newest."""
    words = [f"{topic}:{n}" for topic, n in topics.items()]
    with subprocess.Popen([sys.executable, "-m", __name__, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise NoServer("confluent-kafka is not installed")
            yield address
        finally:
            process.kill()


@contextmanager
def nats(folder: Path, *, port: int | None = None, more: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a NATS server with JetStream, its streams in ``folder``."""
    with _server("nats-server", ["-js", "-sd", str(folder), "-a", "127.0.0.1", *more], "-p", port) as bound:
        yield f"nats://127.0.0.1:{bound}"


@contextmanager
def redis(folder: Path, *, port: int | None = None, more: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a Redis server; what it holds survives a restart in ``folder``."""
    words = ["--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--save", "", "--logfile", str(folder / "log")]
    with _server("redis-server", [*words, *more], "--port", port) as bound:
        yield f"redis://127.0.0.1:{bound}/0"


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _server(name: str, words: list[str], option: str, port: int | None) -> Iterator[int]:
    """A server that answers at ``port``, or at a free one. Another program may take a free port before the server does: then it gets another."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        raise NoServer(f"{name} is not installed")
    for bound in (port,) if port is not None else (free_port() for _ in range(5)):
        with subprocess.Popen([program, option, str(bound), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                if _answers(process, bound):
                    yield bound
                    return
            finally:
                process.kill()
    raise NoServer(f"{name} does not start (exit {process.poll()})")


def _answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Waits for the server to take connections; False once it ended, or after a minute."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            time.sleep(0.02)  # one that found its port taken ends: what answered then is another
            return process.poll() is None
        time.sleep(0.02)
    return False


class MockCluster:
    """Librdkafka's mock cluster: its own brokers in this process, spoken to over the network by anybody."""

    def __init__(self, topics: dict[str, int]) -> None:
        """Starts one broker. Raises `NoServer` where the client's library is not found."""
        self._lib = _librdkafka()
        answer = ctypes.create_string_buffer(512)
        configuration = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(configuration, b"bootstrap.servers", b"127.0.0.1:1", answer, 512)  # none: it is only a holder of the cluster
        self._lib.rd_kafka_conf_set(configuration, b"log_level", b"0", answer, 512)
        self._holder = self._lib.rd_kafka_new(0, configuration, answer, 512)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._holder, 1)
        self.address = str(self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode())
        for topic, n in topics.items():
            self.add(topic, n)

    def add(self, topic: str, n_partitions: int) -> None:
        """Makes a topic."""
        self._lib.rd_kafka_mock_topic_create(self._cluster, topic.encode(), n_partitions, 1)

    def down(self) -> None:
        """The broker hangs up and takes no connection."""
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1)

    def up(self) -> None:
        """The broker is back, with all it had."""
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1)

    def close(self) -> None:
        """Ends the cluster."""
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._holder)


def _librdkafka() -> ctypes.CDLL:
    try:
        import confluent_kafka
    except ImportError:
        raise NoServer("confluent-kafka is not installed") from None
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = next(iter(beside.glob("librdkafka*.so*")), None)
    if found is None:
        raise NoServer("the library of confluent-kafka is not found beside it")
    library = ctypes.CDLL(str(found))
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", handle, []),
        ("rd_kafka_conf_set", number, [handle, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", handle, [number, handle, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [handle]),
        ("rd_kafka_mock_cluster_new", handle, [handle, number]),
        ("rd_kafka_mock_cluster_destroy", None, [handle]),
        ("rd_kafka_mock_cluster_bootstraps", text, [handle]),
        ("rd_kafka_mock_topic_create", number, [handle, text, number, number]),
        ("rd_kafka_mock_broker_set_down", number, [handle, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_up", number, [handle, ctypes.c_int32]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _main() -> None:
    parser = argparse.ArgumentParser(description="Runs a mock Kafka cluster until it is killed; the first line is its address.")
    parser.add_argument("topics", nargs="+", help="orders:3 is a topic of three partitions")
    cluster = MockCluster({name: int(n or 1) for name, _, n in (word.partition(":") for word in parser.parse_args().topics)})
    sys.stdout.write(cluster.address + "\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    _main()
