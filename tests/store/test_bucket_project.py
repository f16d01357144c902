"""A project whose store is a bucket: from rows to answers, on one machine and on a second one that finds everything done."""

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import StoreError
from modelinscale.core.personal import Keys
from modelinscale.data.lake import open_table
from modelinscale.pipeline._collect import table_name
from modelinscale.pipeline._place import Place
from modelinscale.store import Store
from modelinscale.store._bucket import Bucket
from modelinscale.testing.buckets import Server

pytestmark = pytest.mark.slow


def store(server: Server, cache: Path, **more: object) -> Bucket:
    made = Store.parse({"bucket": "bkt", "cache": str(cache), **server.settings("${ENV:MIS_TEST_SECRET}"), **more})
    assert isinstance(made, Bucket)
    return made


def part(server: Server) -> str:
    """A piece of the secret that must not be found anywhere."""
    return server.secret[100:140] if len(server.secret) > 200 else server.secret


def write_rows(path: Path, start: int, end: int) -> None:
    path.write_text("id,a,b,y\n" + "".join(f"{i},{i % 7},{'uvw'[i % 3]},{'yes' if (i % 7) > 3 else 'no'}\n" for i in range(start, end)), encoding="utf-8")


def project(server: Server, folder: Path, source: str, data: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(
        f"name: shop\ntarget: y\nmodel: {{type: linear}}\ndata:\n  source: {source}\n  key: [id]\n{data}"
        f"store: {json.dumps({'bucket': 'bkt', 'prefix': 'team/shop', 'lease': '4s', **server.settings('${ENV:MIS_TEST_SECRET}')})}\n",
        encoding="utf-8",
    )
    return folder


@pytest.mark.slow
def test_two_machines_share_one_project(server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    write_rows(rows, 0, 600)
    one, two = Project(project(server, tmp_path / "one", str(rows))), Project(project(server, tmp_path / "two", str(rows)))
    first = one.run()
    assert [s.fresh for s in first.steps] == [True] * len(first.steps)
    assert not [s for s in Project(one.base).run().steps if s.fresh], "the same machine finds everything done"
    assert not [s for s in two.run().steps if s.fresh], "the second machine finds everything done"
    row = {"a": 6, "b": "u"}
    assert two.package().predict([row]) == one.package().predict([row])
    write_rows(rows, 0, 700)
    assert Project(two.base).run().steps[0].facts["n_added"] == 100
    assert Project(one.base).package_folder().is_dir()
    assert not [s for s in Project(one.base).run().steps if s.fresh]
    Project(one.base).promote("1")
    assert Project(two.base).tracker.aliases("shop")["champion"] == 1
    verdict = Project(two.base).verify_audit()
    assert (verdict.broken_line, verdict.missing_anchors, verdict.torn_bytes) == (None, (), 0)
    for content in server.objects.held.values():
        assert part(server).encode() not in content
    for path in (p for folder in (one.base, two.base) for p in folder.rglob("*") if p.is_file()):
        assert part(server).encode() not in path.read_bytes(), path


def test_a_cache_that_was_removed_is_filled_again(server: Server, tmp_path: Path) -> None:
    import shutil

    rows = tmp_path / "rows.csv"
    write_rows(rows, 0, 600)
    one = Project(project(server, tmp_path / "one", str(rows)))
    one.run(until="collect")
    shutil.rmtree(one.base / ".mis")
    write_rows(rows, 0, 700)
    collected = Project(one.base).run(until="collect").steps[0]
    assert (collected.facts["n_added"], collected.facts["n_rows"]) == (100, 700), "the index of keys was built again from the table"


def test_a_table_is_opened_by_its_address_alone(server: Server, tmp_path: Path) -> None:
    import pickle

    rows = tmp_path / "rows.csv"
    write_rows(rows, 0, 50)
    one = Project(project(server, tmp_path / "one", str(rows)))
    one.run(until="collect")
    place = Place.of(one.spec, one.base)
    address = pickle.loads(pickle.dumps(place.store.uri("lake", table_name(place))))  # noqa: S301  # as tasks on other machines get it
    assert part(server).encode() not in pickle.dumps(address)
    table = open_table(address)
    assert table.at(1).vacuum(older_than=timedelta(days=1)).removed == ()
    assert table.n_rows == 50


def test_persons_are_forgotten_and_keys_rotated_in_a_bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSEUDO_KEY", "0" * 64)
    rows = tmp_path / "rows.csv"
    write_rows(rows, 0, 600)
    more = "  person: id\n  personal: {id: pseudonym}\n  pseudonym_key: ${ENV:PSEUDO_KEY}\n"
    one = Project(project(server, tmp_path / "one", str(rows), more))
    one.run()
    assert sum(one.forget(["17"]).rows.values()) == 1
    place = Place.of(one.spec, one.base)
    assert open_table(place.store.uri("lake", table_name(place))).n_rows == 599
    assert [name for name in server.objects.held if "/published/steps/prepare/" in name] == [], "steps made of the rows are gone from the bucket"
    left = {name.split("/")[4] for name in server.objects.held if name.startswith("bkt/team/shop/files/")}
    markers = [content for name, content in server.objects.held.items() if name.startswith("bkt/team/shop/published/")]
    assert all(any(at.encode() in marker for marker in markers) for at in left), "no content without its marker"
    monkeypatch.setenv("PSEUDO_KEY_2", "1" * 64)
    file = one.base / "model.yaml"
    file.write_text(file.read_text().replace("${ENV:PSEUDO_KEY}", "['${ENV:PSEUDO_KEY}', '${ENV:PSEUDO_KEY_2}']"))
    assert list(Project(one.base).rotate().rows.values()) == [599]
    old, new = Keys(["0" * 64]), Keys(["0" * 64, "1" * 64])
    found = {row["id"] for row in Project(one.base).describe("rows").facts["rows"]}
    assert found <= {new.pseudonym(i) for i in range(600)}
    lake = [content for name, content in server.objects.held.items() if "/lake/" in name]
    assert lake
    assert not any(old.id.encode() in content for content in lake)


@pytest.mark.slow
def test_a_second_machine_waits_for_the_lock_and_takes_it_from_a_dead_one(server: Server, tmp_path: Path) -> None:
    one, two = store(server, tmp_path / "one", lease="2s"), store(server, tmp_path / "two", lease="2s")
    with one.lock("lock"), pytest.raises(StoreError, match=r"in use by process \d+ on .*lets go after 2 s"), two.lock("lock"):
        pass
    code = f"""
import os, sys
from pathlib import Path
from modelinscale.store import Store
with Store.parse({one.plain()!r}).lock("lock"):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    time.sleep(3.0)  # longer than the lease: it is renewed
    with pytest.raises(StoreError, match="in use by process"), two.lock("lock"):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    start = time.monotonic()
    with one.lock("lock"):  # of the same folder: the dead holder is known to be dead, and nobody waits
        pass
    server.objects.put("bkt/locks/lock", b'{"machine": "elsewhere", "holder": "process 1 on elsewhere"}', absent=True)
    with two.lock("lock", wait_s=120.0):
        assert time.monotonic() - start > 1.0


def test_who_lost_the_lock_is_told_and_does_not_take_the_others_away(server: Server, tmp_path: Path) -> None:
    def work() -> None:
        with store(server, tmp_path / "one", lease="2s").lock("lock"):
            server.objects.put("bkt/locks/lock", b'{"machine": "other", "holder": "other"}', absent=False)
            time.sleep(1.0)

    with pytest.raises(StoreError, match="did not renew its lock for 2 s"):
        work()
    assert b"other" in server.objects.held["bkt/locks/lock"]


def test_what_two_machines_change_at_once_is_refused_to_the_second(server: Server, tmp_path: Path) -> None:
    one, two = store(server, tmp_path / "one"), store(server, tmp_path / "two")

    def note(machine: Bucket, words: str) -> None:
        (machine.cache / "track").mkdir(parents=True)
        (machine.cache / "track" / "notes").write_text(words, encoding="utf-8")

    def work() -> None:
        with one.shared():
            note(one, "mine")
            del server.objects.held["bkt/locks/lock"]  # as if the lease had run out
            with two.shared():
                note(two, "theirs")

    with pytest.raises(StoreError, match="another machine changed track at the same time"):
        work()
    with one.shared():
        assert (one.cache / "track" / "notes").read_text(encoding="utf-8") == "theirs"


def test_a_folder_that_was_discarded_elsewhere_is_not_found_here(server: Server, tmp_path: Path) -> None:
    one, two = store(server, tmp_path / "one"), store(server, tmp_path / "two")
    with one.publish("steps", "train", "x") as folder:
        (folder / "w.bin").write_bytes(b"w" * 100)
    assert (two.path("steps", "train", "x") / "w.bin").read_bytes() == b"w" * 100
    one.discard("steps", "train", "x")
    assert [name for name in server.objects.held if "files/" in name or "published/" in name] == []
    assert list(two.list("steps", "train")) == []
    fresh = store(server, tmp_path / "two")
    assert not fresh.path("steps", "train", "x").exists()


def test_what_a_bucket_refuses_is_told_without_secrets(server: Server, tmp_path: Path) -> None:
    server.objects.refused["bkt"] = (403, "AccessDenied")
    with pytest.raises(StoreError, match=r"Cannot list ..://bkt/published: access was denied. Give these credentials") as told:
        list(store(server, tmp_path).list())
    assert part(server) not in str(told.value)
    far = store(server, tmp_path / "far", endpoint="http://127.0.0.1:1", options={"client_max_retries": "0"})
    with pytest.raises(StoreError, match=r"Cannot write ..://bkt/locks/lock: it cannot be reached") as told, far.lock("lock"):
        pass
    assert part(server) not in str(told.value) + repr(far) + str(far.plain())


def n_commits(server: Server) -> int:
    return len([name for name in list(server.objects.held) if "/_versions/" in name])


def test_a_marker_and_a_lock_that_were_written_but_answered_with_a_failure_are_ours(server: Server, tmp_path: Path) -> None:
    one = store(server, tmp_path / "one", lease="2s")
    server.objects.mute = re.compile("locks/lock")
    with one.lock("lock"):
        server.objects.mute = re.compile("locks/lock")  # the next renewal
        with one.publish("steps", "train", "x") as folder:
            (folder / "w.bin").write_bytes(b"w" * 100)
            server.objects.mute = re.compile("published/")
        assert server.objects.mute is None, "the failure was told"
        server.objects.mute = re.compile("locks/lock")
        time.sleep(1.5)
    fresh = store(server, tmp_path / "two")
    assert (fresh.path("steps", "train", "x") / "w.bin").read_bytes() == b"w" * 100, "what the marker names is there"
    (one.cache / "track").mkdir(parents=True)
    for words in ("first", "second"):
        with one.shared():
            (one.cache / "track" / "notes").write_text(words, encoding="utf-8")
            server.objects.mute = re.compile("shared/track")
        assert server.objects.mute is None
        with fresh.shared():
            assert (fresh.cache / "track" / "notes").read_text(encoding="utf-8") == words


def test_a_list_that_is_gone_from_the_bucket_is_told(server: Server, tmp_path: Path) -> None:
    one = store(server, tmp_path / "one")
    (one.cache / "track").mkdir(parents=True)
    with one.shared():
        (one.cache / "track" / "notes").write_text("first", encoding="utf-8")
    server.objects.held.clear()

    def work() -> None:
        with one.shared():
            (one.cache / "track" / "notes").write_text("second", encoding="utf-8")

    with pytest.raises(StoreError, match="shared/track is gone from the bucket"):
        work()


def test_a_store_that_dies_while_a_folder_is_published_shows_nothing_of_it(server: Server, tmp_path: Path) -> None:
    for n in range(4):
        one = store(server, tmp_path / f"one{n}", options={"client_max_retries": "0", "timeout": "2s"})

        def work(one: Bucket = one, n: int = n) -> None:
            with one.publish("steps", "train", "x") as folder:
                for i in range(3):
                    (folder / f"{i}.bin").write_bytes(b"w" * 100)
                server.objects.writes_left = n

        with pytest.raises(StoreError, match="it cannot be reached") as told:
            work()
        assert part(server) not in str(told.value)
        server.objects.writes_left = None
        assert list(store(server, tmp_path / "two").list("steps", "train")) == [], "half of it is visible"
        assert not store(server, tmp_path / "two").path("steps", "train", "x").exists()


def test_a_wrong_key_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_TEST_SECRET", server.wrong_secret)
    one = store(server, tmp_path, options={"client_max_retries": "0"})
    with pytest.raises(StoreError, match=r"the credentials were refused|the secret key does not fit") as told, one.lock("lock"):
        pass
    assert server.wrong_secret[100:140] not in str(told.value) if len(server.wrong_secret) > 200 else server.wrong_secret not in str(told.value)


@pytest.mark.slow
def test_collectors_killed_while_they_write_to_a_bucket_lose_and_double_nothing(server: Server, tmp_path: Path) -> None:
    chance, n_kills = random.Random(3), 4  # on each store
    write_rows(tmp_path / "rows.csv", 0, 10_000)
    one = Project(project(server, tmp_path / "one", f"{{type: csv, path: {tmp_path / 'rows.csv'}, block: 4096}}"))
    code = """
import sys
from modelinscale.api import Project
from modelinscale.data import collect
collect.collect.__kwdefaults__["commit_rows"] = 500
project = Project(sys.argv[1])
import lance, polars
print("ready", flush=True)
project.run(until="collect")
"""
    for n in range(n_kills):
        write_rows(tmp_path / "rows.csv", 0, 10_000 + 500 * n)
        process = subprocess.Popen([sys.executable, "-c", code, str(one.base)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        kill_at, end = n_commits(server) + chance.randrange(1, 4), time.monotonic() + 120
        while n_commits(server) < kill_at and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        process.stdout.close()
    one.run(until="collect")
    place = Place.of(one.spec, one.base)
    table = open_table(place.store.uri("lake", table_name(place)))
    assert table.last.seq >= n_kills, "kills came between commits, too"
    seen = Counter(v for b in table.blocks(["id"]) for v in b.column("id").to_pylist())
    assert len(seen) == 10_000 + 500 * (n_kills - 1)
    assert set(seen.values()) == {1}
