"""A Ray cluster that loses its head, or whose nodes have no memory left: told in words, within a time that is known, and the process lives on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from modelinscale.testing.clusters import TwoNodes, two_nodes

pytestmark = [
    pytest.mark.slow,  # each starts a cluster: five seconds of the processor
    # Not imported to see whether it is there: that takes every run a second.
    pytest.mark.skipif(find_spec("ray") is None, reason="needs `pip install 'modelinscale[ray]'`"),
]

BEGIN = """
import sys, time
from modelinscale.compute import _ray_flight as flight
from modelinscale.compute.ray import Ray
from modelinscale.core.errors import ComputeError
flight.LOOK_S, flight.HEAD_S = 0.5, 2.0
ray, found = Ray(address=sys.argv[1]), []
def slow(x):
    time.sleep(0.2)
    return x
try:
    for one in ray.map(slow, range(1000)):
        found.append(one)
        if len(found) == 3:
            print("three", flush=True)
except ComputeError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    assert found == list(range(len(found))), "what came before it came in order"
ray.close()
print("lives on")
"""


@contextmanager
def _begun(cluster: TwoNodes, **settings: str) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-c", BEGIN, cluster.address]
    process = subprocess.Popen(command, env=os.environ | cluster.token | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_cluster_that_loses_its_head_is_told_and_the_process_lives_on() -> None:
    with two_nodes() as cluster, _begun(cluster) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "three\n"
        cluster.do("behead")
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "ComputeError: the head of the Ray cluster (" in said
    assert "Start the cluster again, then run again: what is done already is kept." in said
    assert said.endswith("lives on\n")
    assert "gcs_server.out" not in said, "Ray's own lines are not for users"


def test_a_task_stopped_by_a_nodes_memory_monitor_is_told_with_what_to_set() -> None:
    # Full from the start, as Ray sees it.
    full = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    with two_nodes(**full) as cluster, _begun(cluster, RAY_task_oom_retries="1") as process:
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "ComputeError: a task needed more memory than its node has, and was stopped: " in said
    assert "Set `memory_per_task` so that fewer tasks share a node" in said
    assert "(raylet)" not in said, "Ray's own lines are not for users"
