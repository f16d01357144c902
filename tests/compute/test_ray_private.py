"""A private Ray cluster: on loopback, behind a token, started once a process and gone with it, however it ends."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelinscale.testing import waits

pytestmark = [
    pytest.mark.slow,  # each process starts a cluster: five seconds of the processor
    # Not imported to see whether it is there: that takes every run a second.
    pytest.mark.skipif(find_spec("ray") is None, reason="needs `pip install 'modelinscale[ray]'`"),
]

BEGIN = """
import json, os, socket, sys, threading, time
from modelinscale.compute.ray import Ray
before = dict(os.environ)
compute, found = Ray(), []
# First used in a thread that ends: what it started must not end with it.
first = threading.Thread(target=lambda: found.extend(compute.map(lambda x: -x, range(5))))
first.start()
first.join()

def children_of(pid, thread):
    try:
        return open(f"/proc/{pid}/task/{thread}/children").read().split()
    except OSError:  # it ended meanwhile
        return []

def tree(pid):
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    children = [int(c) for thread in threads for c in children_of(pid, thread)]
    return [one for c in children for one in (c, *tree(c))]

import ray
folder = ray._private.worker._global_node.get_temp_dir_path()
address = ray.get_runtime_context().gcs_address
changed = sorted(k for k in {*before, *os.environ} if before.get(k) != os.environ.get(k))
print(json.dumps({"found": found, "pids": tree(os.getpid()), "folder": folder, "address": address, "changed": changed}), flush=True)
"""
ENDS = {
    "on Ctrl-C": ("import _thread\nthreading.Timer(1, _thread.interrupt_main).start()\nlist(compute.map(lambda x: time.sleep(60), [1]))", 1),
    "by SIGKILL": ("results = compute.map(lambda x: time.sleep(x), [0, 60, 60])\nnext(results)\nos.kill(os.getpid(), 9)", -signal.SIGKILL),
}
GUARDED = '''
import traceback
for asked, function in ((Ray(cpus_per_task=4096, gpus_per_task=2, memory_per_task="1TiB"), abs), (Ray(), lambda x: 1 // (x - 1))):
    try:
        list(asked.map(function, [1]))
    except Exception:
        traceback.print_exc()
sockets = set()
for pid in (os.getpid(), *tree(os.getpid())):
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                sockets.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                pass
    except OSError:
        pass
rows = [line.split() for family in ("tcp", "tcp6") for line in open(f"/proc/net/{family}") if line.split()[3] == "0A"]
places = {row[1].split(":")[0] for row in rows if f"socket:[{row[9]}]" in sockets}
print("listens", sorted(places - {"0100007F", "0000000000000000FFFF00000100007F"}), len(places), file=sys.stderr)
from subprocess import run
# At the loopback address itself: Ray would take this machine's other one, where nothing listens.
intruder = f"""
import ray
ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
from modelinscale.compute.ray import Ray
list(Ray(address={address!r}).map(abs, [1]))
"""
another = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_NUM_REDIS_GET_RETRIES": "1"}
print(run([sys.executable, "-c", intruder], env=os.environ | another, capture_output=True, text=True).stderr, file=sys.stderr)
'''


def _run(end: str) -> tuple[int, dict[str, Any], str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", BEGIN + end], env=clean, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for_the_end_of(pids: list[int], folder: Path) -> None:
    assert len(pids) > 4, "a cluster has several processes"
    waits.until(lambda: not any(map(_runs, pids)) and not folder.exists(), "the end of the cluster")
    assert [pid for pid in pids if _runs(pid)] == []
    assert not folder.exists()


@pytest.mark.parametrize("how", sorted(ENDS))
def test_nothing_is_left_of_a_private_cluster_when_its_process_ends(how: str) -> None:
    end, expected = ENDS[how]
    code, told, said = _run(GUARDED + end if how == "on Ctrl-C" else end)
    assert told["found"] == [0, -1, -2, -3, -4]
    assert code == expected, said
    _wait_for_the_end_of(told["pids"], Path(told["folder"]))
    if how == "on Ctrl-C":
        assert "KeyboardInterrupt" in said
        assert "ZeroDivisionError" in said
        assert "while working on 1" in said
        assert "no node of the Ray cluster has 4096 CPUs and 2 GPUs and 1.0 TiB of memory" in said
        assert "listens [] 2" in said, "on loopback only"
        assert "refuses our token" in said
        assert set(told["changed"]) <= {"RAY_CLIENT_MODE"}, "the environment is as it was, but for what importing Ray sets"
