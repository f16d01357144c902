"""Objects of a bucket into a lake in a bucket: the collector killed again and again while objects arrive, some of them late in order.

python benchmarks/objects.py [--kills 50] [--seed 7]   writes benchmarks/results/objects.md

The collector is ``mis collect --follow`` as a process of its own, ended by SIGKILL at a random moment; three of four are killed after their first commit.
The S3 server (``modelinscale.testing.s3``) runs in this process. At the end every row of every object must be in the lake exactly once, and no other.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from modelinscale.api import Project
from modelinscale.data.lake import open_table
from modelinscale.pipeline._collect import table_name
from modelinscale.pipeline._place import Place
from modelinscale.testing.s3 import s3_server

HERE = Path(__file__).parent
ROWS = 40
"""Rows of each object."""
COLLECTOR = """
import sys, threading, lance, polars
from modelinscale.api import Project
print("ready", flush=True)
Project(sys.argv[1]).follow(stop=threading.Event(), news=lambda found: print("committed" if found.committed else "news", flush=True))
"""


def one(folder: Path, chance: random.Random) -> bool:
    """One collector from its start to its kill; whether it had committed."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the collector did not start"
    committed = False
    if chance.random() < 0.75:
        while not committed:
            line = process.stdout.readline()
            assert line, "the collector ended by itself"
            committed = "committed" in line
    time.sleep(chance.uniform(0.0, 1.0))
    assert process.poll() is None, "the collector ended by itself"
    process.kill()
    committed = "committed" in process.stdout.read() or committed
    process.wait()
    process.stdout.close()
    return committed


def killed(kills: int, chance: random.Random, folder: Path) -> str:
    """Kills collectors while objects arrive; gives a row of the report."""
    start = time.perf_counter()
    os.environ["KEY_FOR_KILLS"] = "any"
    with s3_server() as server:
        endpoint, sent, stop = server.options["aws_endpoint"], 0, threading.Event()
        key = "access_key: '${ENV:KEY_FOR_KILLS}', secret_key: '${ENV:KEY_FOR_KILLS}'"
        options = "{" + f"aws_endpoint: '{endpoint}', aws_region: us-east-1, allow_http: 'true', " + key.replace("access_key", "aws_access_key_id", 1) + "}"
        options = options.replace(", secret_key", ", aws_secret_access_key")
        (folder / "model.yaml").write_text(
            f"name: k\ntarget: y\ndata:\n  source: {{type: objects, url: 's3://bkt/rows/**/*.csv', reader: {{block: 256}}, options: {options}}}\n"
            "  follow: {every: 200ms, rows: 100}\n"
            f"store: {{type: s3, bucket: bkt, prefix: store, endpoint: '{endpoint}', region: us-east-1, {key}}}\n"
        )

        def put(i: int) -> None:
            body = "id,n,y\n" + "".join(f"m{ROWS * i + k},{k},{'ab'[k % 2]}\n" for k in range(ROWS))
            server.objects.put(f"bkt/rows/{(i * 7919) % 1000:03d}/{i:06d}.csv", body.encode(), absent=True)  # scattered: most sort before read ones

        def produce() -> None:
            nonlocal sent
            while not stop.is_set():
                put(sent)
                sent += 1
                time.sleep(0.15)

        put(0)
        sent = 1
        producer = threading.Thread(target=produce)
        producer.start()
        mid_work = 0
        try:
            for n in range(kills):
                mid_work += one(folder, chance)
                print(f"{n + 1} of {kills} kills, {sent:,} objects", flush=True)
        finally:
            stop.set()
            producer.join()
        project = Project(folder)
        project.run(until="collect")
        place = Place.of(project.spec, project.base)
        table = open_table(place.store.uri("lake", table_name(place)))
        seen = Counter(v for b in table.blocks(["id"]) for v in b.column("id").to_pylist())
        cursor = len(str(table.cursor))
    wanted = {f"m{i}" for i in range(ROWS * sent)}
    doubled, lost = sum(n - 1 for n in seen.values()), len(wanted - set(seen))
    assert (lost, doubled, set(seen) - wanted) == (0, 0, set()), f"{lost} lost, {doubled} doubled"
    took = time.perf_counter() - start
    return f"| {kills} | {mid_work} | {sent:,} | {len(wanted):,} | {sum(seen.values()):,} | {lost} | {doubled} | {table.last.seq} | {cursor:,} | {took:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = killed(asked.kills, random.Random(asked.seed), Path(folder))
    text = f"""# Objects into a lake in a bucket, killed

`python benchmarks/objects.py --kills {asked.kills} --seed {asked.seed}`: source and store on one S3 server, objects of {ROWS} rows in chunks of about 20,
most of them sorting before some that were read already.

| kills | after a commit | objects | rows sent | rows found | lost | doubled | commits | letters of the last cursor | took |
|---|---|---|---|---|---|---|---|---|---|
{row}
"""
    (HERE / "results" / "objects.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
