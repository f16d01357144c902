"""Memory that is freed and taken again: page faults, counted by the system in a process of its own."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from modelinscale.core.allocators import keep_pages
if sys.argv[1] == "kept":
    keep_pages(2 << 30)
def work():
    for _ in range(50):
        a = np.ones(1 << 18); b = a * 2; c = a + b
        del a, b, c
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
POOL = """
import os, sys
from modelinscale.core.allocators import keep_pages
if sys.argv[1] == "loaded":
    import pyarrow
keep_pages(None)
import pyarrow
print(pyarrow.default_memory_pool().backend_name)
"""


def said(program: str, argument: str, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "ARROW_"))} | env
    return subprocess.run([sys.executable, "-c", program, argument], env=clean, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of glibc")
def test_arrays_that_come_and_go_are_not_cleared_by_the_kernel_each_time() -> None:
    assert int(said(FAULTS, "kept")) < int(said(FAULTS, "kept", MALLOC_MMAP_THRESHOLD_="65536")) / 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux wheels bring jemalloc")
@pytest.mark.parametrize("when", ["loaded", "later"])
def test_arrow_takes_jemalloc_unless_the_user_chose(when: str) -> None:
    assert said(POOL, when) == "jemalloc"
    assert said(POOL, when, ARROW_DEFAULT_MEMORY_POOL="system") == "system"
