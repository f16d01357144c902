"""Files that are whole or not there."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelinscale.core.errors import StoreError
from modelinscale.core.files import Scratch, held, new_folder, sweep, told, write_bytes, write_json


def test_a_file_is_written_with_its_folders_and_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "f.json"
    write_json(target, {"x": 1, "ü": None})
    write_json(target, {"x": 2}, durable=True)
    assert json.loads(target.read_text(encoding="utf-8")) == {"x": 2}
    assert [p.name for p in target.parent.iterdir()] == ["f.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f"
    write_bytes(target, b"old")

    def full(self: Path, other: Path) -> Path:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"Cannot write .*f: No space left on device") as caught:
        write_bytes(target, b"new")
    assert "Free some space" in caught.value.fix
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_json_that_other_readers_refuse_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "f", float("nan"))
    assert not (tmp_path / "f").exists()


def test_errors_that_are_not_the_disks_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), told(tmp_path, "read"):
        tmp_path.read_bytes()


def _fail_half_way(target: Path) -> None:
    with new_folder(target) as side:
        (side / "half").write_text("m")
        (side / "absent").read_text()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "v1"
    with new_folder(target) as side:
        (side / "model").write_text("m")
        assert not target.exists()
    assert (target / "model").read_text() == "m"
    with pytest.raises(FileNotFoundError):
        _fail_half_way(tmp_path / "v2")
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_of_two_that_make_the_same_folder_the_first_stays(tmp_path: Path) -> None:
    target = tmp_path / "v1"
    with new_folder(target) as ours:
        (ours / "by").write_text("us")
        with new_folder(target) as theirs:
            (theirs / "by").write_text("them")
    assert (target / "by").read_text() == "them"
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def test_what_killed_writers_left_is_swept_when_old(tmp_path: Path) -> None:
    old, new, kept = tmp_path / ".v1.abc.part", tmp_path / ".v2.abc.part", tmp_path / "v3"
    for folder in (old, new, kept):
        folder.mkdir()
    (tmp_path / ".f.abc.part").write_text("half")
    for path in (old, kept, tmp_path / ".f.abc.part"):
        os.utime(path, (time.time() - 7200,) * 2)
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".v2.abc.part", "v3"]


def _hold(path: str, ready: Any, stop: Any) -> None:
    with held(Path(path)):
        ready.set()
        stop.wait(30)


def test_a_held_lock_names_its_holder_and_is_free_when_that_dies(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # never fork: other libraries of ours do not survive it
    ready, stop = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / "lock"), ready, stop))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(StoreError, match=rf"this project is in use by process {other.pid}\."), held(tmp_path / "lock"):
            pass
    finally:
        other.kill()
        other.join()
    with held(tmp_path / "lock", wait_s=60):
        pass


def test_a_lock_can_be_taken_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path / "deep" / "lock"):
            pass
    with pytest.raises(StoreError, match="the lake is in use"), held(tmp_path / "lock"), held(tmp_path / "lock", wait_s=0.1, what="the lake"):
        pass


def test_a_folder_for_scratch_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from modelinscale.core.files import Scratch
one = Scratch("spill", Path({str(tmp_path)!r}))
(one.path / "rows").write_text("Wilhelmina")
print(one.path, flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdin is not None
    left = Path(owner.stdout.readline().strip())
    with Scratch("spill", tmp_path) as mine:
        assert (left / "rows").exists(), "its process lives"
        assert mine.stat().st_mode & 0o777 == 0o700
    assert not mine.exists()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    owner.stdin.close()
    with Scratch("other", tmp_path):
        assert left.exists(), "of another name"
    with Scratch("spill", tmp_path) as mine:
        assert [p.name for p in tmp_path.iterdir()] == [mine.name]
