"""Every store, and the files beneath."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelinscale.core import files
from modelinscale.core.errors import StoreError
from modelinscale.core.kinds import names
from modelinscale.store import Store
from modelinscale.store._bucket import Bucket
from modelinscale.store.local import Local
from modelinscale.testing import stores
from modelinscale.testing.buckets import Server
from modelinscale.testing.clouds import CLOUDS


def bucket(server: Server, cache: Path, **settings: object) -> Bucket:
    """A store on a server of this process, worked on through a folder."""
    made = Store.parse({"bucket": "bkt", "prefix": "p", "cache": str(cache), **server.settings("${ENV:MIS_TEST_SECRET}"), **settings})
    assert isinstance(made, Bucket)
    return made


def test_every_store_is_covered() -> None:
    assert sorted(["local", *CLOUDS]) == names("store")


@pytest.mark.parametrize("rule", stores.SUITE, ids=lambda rule: rule.__name__)
def test_a_folder_as_store(rule: Callable[[Store], None], tmp_path: Path) -> None:
    rule(Local(root=tmp_path / "store"))


@pytest.mark.parametrize("rule", stores.SUITE, ids=lambda rule: rule.__name__)
def test_a_bucket_as_store(rule: Callable[[Store], None], tmp_path: Path, server: Server) -> None:
    rule(bucket(server, tmp_path))


def test_a_lock_waits_for_its_holder_and_is_free_once_the_holder_is_killed(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from modelinscale.core.files import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(StoreError, match=f"in use by process {holder.pid}"), files.held(tmp_path / "lock", wait_s=0.1):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with files.held(tmp_path / "lock"):  # at once: it waits for nobody
        pass


def test_a_file_is_old_or_new_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert path.read_text(encoding="utf-8") == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_what_killed_writers_left_is_swept_once_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.x.part", tmp_path / ".b.y.part"
    old.mkdir()
    (old / "f").write_text("f", encoding="utf-8")
    young.mkdir()
    (tmp_path / "kept").mkdir()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    files.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.y.part", "kept"]


def test_a_full_disk_says_what_and_where_and_leaves_the_old_file(small_disk: Path) -> None:
    files.write_bytes(small_disk / "x", b"old")
    with pytest.raises(StoreError, match=r"Cannot write .*No space left on device.*Free some space"):
        files.write_bytes(small_disk / "x", bytes(8 << 20))
    assert (small_disk / "x").read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["x"]


def test_a_full_disk_leaves_no_half_folder(small_disk: Path) -> None:
    store = Local(root=small_disk)
    with pytest.raises(StoreError, match="No space left"), store.publish("x") as folder:
        (folder / "big").write_bytes(bytes(8 << 20))
    assert list(store.list()) == []


def test_a_read_only_folder_says_so(read_only: Path) -> None:
    store = Local(root=read_only)
    with pytest.raises(StoreError, match=r"Read-only file system.*name another `store`"), store.lock("lock"):
        pass
    with pytest.raises(StoreError, match="Read-only file system"), store.publish("x"):
        pass


def test_a_file_in_the_way_of_the_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("I am a file", encoding="utf-8")
    with pytest.raises(StoreError, match="Not a directory"), Local(root=tmp_path / "store").publish("sub", "x"):
        pass


def test_other_errors_of_the_system_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.told(tmp_path, "read"):
        raise FileNotFoundError(errno.ENOENT, "gone")
    assert files.refusal(errno.ENOENT, tmp_path, "read") is None


def test_a_home_folder_may_be_written_with_a_tilde() -> None:
    assert Local(root=Path("~/mis")).root == Path.home() / "mis"
