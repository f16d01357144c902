"""Kafka, NATS JetStream and Redis streams into the lake: killed again and again while producers write; and what a row of Kafka costs.

python benchmarks/streams.py [--kills 50] [--seed 7] [--only kafka nats redis] [--rows 400000]   writes benchmarks/results/streams.md

Each collector is ``mis collect --follow`` as a process of its own, ended by SIGKILL at a random moment; the servers and the producers live in others.
Three of four are killed after their first commit.
At the end every message that was acknowledged to a producer must be in the lake exactly once, and the lake hold no other.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from _measure import MIS
from modelinscale.api import Project
from modelinscale.data.lake import open_table
from modelinscale.testing import brokers

HERE = Path(__file__).parent
PARTITIONS = 4


class Outcome(NamedTuple):
    """What the kills of one kind left."""

    kind: str
    kills: int
    mid_work: int
    """Kills that came after the collector's first commit."""
    sent: int
    found: int
    lost: int
    doubled: int
    commits: int
    seconds: float


Send = Callable[[int, int], None]
"""Sends the messages numbered from one number up to another, and waits until the server has them."""


@contextmanager
def kafka(folder: Path) -> Iterator[tuple[str, Send]]:
    from confluent_kafka import Producer

    with brokers.kafka({"orders": PARTITIONS}) as address:
        producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "enable.idempotence": True, "log_level": 0})

        def send(start: int, end: int) -> None:
            for i in range(start, end):
                producer.produce("orders", message(i), partition=i % PARTITIONS)
            assert producer.flush(30) == 0

        yield f"{{type: kafka, servers: ['{address}'], topic: orders, rows: 500}}", send


@contextmanager
def nats(folder: Path) -> Iterator[tuple[str, Send]]:
    import nats as client

    with brokers.nats(folder) as address:
        loop = asyncio.new_event_loop()
        connection = loop.run_until_complete(client.connect(address))
        stream = connection.jetstream()
        loop.run_until_complete(stream.add_stream(name="ORDERS", subjects=["orders.*"]))

        def send(start: int, end: int) -> None:
            async def work() -> None:
                for i in range(start, end):
                    await stream.publish("orders.a", message(i))

            loop.run_until_complete(work())

        yield f"{{type: nats, servers: ['{address}'], stream: ORDERS, rows: 500}}", send
        loop.run_until_complete(connection.close())
        loop.close()


@contextmanager
def redis(folder: Path) -> Iterator[tuple[str, Send]]:
    import redis as client

    with brokers.redis(folder) as address, client.Redis.from_url(address) as connection:

        def send(start: int, end: int) -> None:
            with connection.pipeline() as many:
                for i in range(start, end):
                    many.xadd("orders", {"id": f"m{i}", "n": i, "y": "ab"[i % 2]})
                many.execute()

        yield f"{{type: redis, url: '{address}', stream: orders, rows: 500}}", send


KINDS = {"kafka": kafka, "nats": nats, "redis": redis}


def message(i: int) -> bytes:
    return b'{"id": "m%d", "n": %d, "y": "%s"}' % (i, i, b"ab"[i % 2 : i % 2 + 1])


def killed(kind: str, kills: int, chance: random.Random, folder: Path) -> Outcome:
    """Kills collectors of one kind while a producer writes, and counts what the lake holds in the end."""
    start = time.perf_counter()
    (folder / "server").mkdir(parents=True)
    with KINDS[kind](folder / "server") as (source, send):
        (folder / "model.yaml").write_text(f"name: k\ntarget: y\ndata:\n  source: {source}\n  follow: {{every: 200ms, rows: 400}}\n")
        send(0, 200)
        sent, stop = 200, threading.Event()

        def produce() -> None:
            nonlocal sent
            while not stop.is_set():
                send(sent, sent + 20)
                sent += 20
                time.sleep(0.1)  # the mock cluster keeps 5 MB of a partition

        producer = threading.Thread(target=produce)
        producer.start()
        mid_work = 0
        try:
            for n in range(kills):
                mid_work += one(folder, chance)
                print(f"{kind}: {n + 1} of {kills} kills, {sent:,} sent", flush=True)
        finally:
            stop.set()
            producer.join()
        subprocess.run([MIS, "collect", "--quiet", "-f", str(folder)], check=True, stdout=subprocess.DEVNULL)
    (lake,) = [p for p in (folder / ".mis" / "lake").iterdir() if "quarantine" not in p.name and not p.name.startswith(".")]
    table = open_table(str(lake))
    seen = Counter(v for b in table.blocks(["id"]) for v in b.column("id").to_pylist())
    wanted = {f"m{i}" for i in range(sent)}
    doubled = sum(n - 1 for n in seen.values())
    return Outcome(kind, kills, mid_work, sent, sum(seen.values()), len(wanted - set(seen)), doubled, table.last.seq, time.perf_counter() - start)


def one(folder: Path, chance: random.Random) -> bool:
    """One collector from its start to its kill, at a moment between its being imported and some commits later; whether it had committed."""
    process = subprocess.Popen([*COLLECTOR, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the collector did not start"
    committed = False
    if chance.random() < 0.75:
        while not committed:
            line = process.stdout.readline()
            assert line, "the collector ended by itself"
            committed = "committed" in line
    time.sleep(chance.uniform(0.0, 1.5))
    assert process.poll() is None, "the collector ended by itself"
    process.kill()
    committed = committed or "committed" in process.stdout.read()
    process.wait()
    process.stdout.close()
    return committed


COLLECTOR = [
    sys.executable,
    "-c",
    """
import sys, threading, lance, polars
from modelinscale.api import Project
project = Project(sys.argv[1])
print("ready", flush=True)
project.follow(stop=threading.Event(), news=lambda found: print('"committed"' if found.committed else '"news"', flush=True))
""",
]


class Cost(NamedTuple):
    """What reading Kafka cost."""

    rows: int
    plain_cpu_s: float
    json_cpu_s: float
    ours_cpu_s: float
    import_cpu_s: float


PLAIN = """
import sys, json
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "plain", "enable.auto.commit": False, "log_level": 0})
consumer.assign([TopicPartition("orders", part, 0) for part in range(int(sys.argv[2]))])
left, parse = int(sys.argv[3]), sys.argv[4] == "json"
while left:
    for message in consumer.consume(min(left, 5000), 1.0):
        value = message.value()
        if parse:
            json.loads(value)
        left -= 1
consumer.close()
"""


def cpu(command: list[str]) -> float:
    """CPU seconds of a command and its children."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def cost(n_rows: int, folder: Path) -> Cost:
    """The CPU of plain loops over a topic, and of a collect of it into the lake. The mock cluster keeps 5 MB of a partition, so there are many."""
    from confluent_kafka import Producer

    parts = max(n_rows * 110 // 4_000_000 + 1, PARTITIONS)
    with brokers.kafka({"orders": parts}) as address:
        producer = Producer({"bootstrap.servers": address, "linger.ms": 20, "batch.num.messages": 10_000, "log_level": 0})
        for i in range(n_rows):
            producer.produce("orders", b'{"id": "m%d", "n": %d, "x": %.6f, "y": "%s"}' % (i, i, i / 7, b"ab"[i % 2 : i % 2 + 1]), partition=i % parts)
            if i % 50_000 == 0:
                producer.flush()
        producer.flush()
        (folder / "model.yaml").write_text(f"name: k\ntarget: y\ndata:\n  source: {{type: kafka, servers: ['{address}'], topic: orders, rows: 50000}}\n")
        loop = [sys.executable, "-c", PLAIN, address, str(parts), str(n_rows)]
        plain, parsed = cpu([*loop, "no"]), cpu([*loop, "json"])
        ours = cpu([MIS, "collect", "--quiet", "-f", str(folder)])
        n_found = Project(folder).describe("lake").facts["n_rows"]
        assert n_found == n_rows, f"{n_found} rows of {n_rows} are in the lake"
        imports = cpu([sys.executable, "-c", "import lance, polars, pyarrow, confluent_kafka, modelinscale.pipeline"])
    return Cost(n_rows, plain, parsed, ours, imports)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument("--rows", type=int, default=400_000, help="messages of the cost part; 0 leaves it out")
    arguments = parser.parse_args()
    outcomes: list[Outcome] = []
    paid = None

    def go(kind: str) -> Outcome:
        with tempfile.TemporaryDirectory(prefix=f"streams-{kind}-") as name:
            return killed(kind, arguments.kills, random.Random(f"{arguments.seed} {kind}"), Path(name))

    with ThreadPoolExecutor(len(KINDS)) as pool:  # a collector waits for its imports most of the time
        for outcome in pool.map(go, arguments.only if arguments.kills else ()):
            outcomes.append(outcome)
            print(outcome, flush=True)
    if arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            paid = cost(arguments.rows, Path(name))
        print(paid)
    (HERE / "results" / "streams.md").write_text(report(outcomes, paid, arguments.seed), encoding="utf-8")
    if any(o.lost or o.doubled for o in outcomes):
        sys.exit("rows were lost or doubled")


def report(outcomes: list[Outcome], paid: Cost | None, seed: int) -> str:
    lines = [
        "# Streams",
        "",
        f"`python benchmarks/streams.py --kills {outcomes[0].kills if outcomes else 0} --seed {seed}`: `mis collect --follow`",
        "(a commit every 0.2 s or 400 rows) ended by SIGKILL at random moments, from before it connected to some commits later, while a producer wrote;",
        "then one collect to the end.",
        "Kafka: librdkafka's mock cluster in a process of its own, 4 partitions; NATS JetStream and Redis: Debian's servers.",
        "",
        "| source | kills | after a commit | messages sent | rows in the lake | lost | doubled | commits | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {o.kind} | {o.kills} | {o.mid_work} | {o.sent:,} | {o.found:,} | {o.lost} | {o.doubled} | {o.commits:,} | {o.seconds:.0f} |" for o in outcomes
    ]
    if paid is not None:
        net = paid.ours_cpu_s - paid.import_cpu_s
        lines += [
            "",
            f"{paid.rows:,} messages of about 60 bytes, CPU seconds of the whole process (one run, shared machine):",
            "",
            "| what | CPU s | rows per CPU s | ratio |",
            "|---|---:|---:|---:|",
            f"| a plain `consume` loop, values thrown away | {paid.plain_cpu_s:.1f} | {paid.rows / paid.plain_cpu_s:,.0f} | 1.0 |",
            f"| the same with `json.loads` | {paid.json_cpu_s:.1f} | {paid.rows / paid.json_cpu_s:,.0f} | {paid.json_cpu_s / paid.plain_cpu_s:.1f} |",
            f"| `mis collect`: parsed, typed, checked, in the lake | {paid.ours_cpu_s:.1f} | {paid.rows / paid.ours_cpu_s:,.0f} |"
            f" {paid.ours_cpu_s / paid.plain_cpu_s:.1f} |",
            f"| … without its imports ({paid.import_cpu_s:.1f} s) | {net:.1f} | {paid.rows / net:,.0f} | {net / paid.plain_cpu_s:.1f} |",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
