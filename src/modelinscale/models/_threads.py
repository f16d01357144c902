"""Threads that do not get in each other's way, or in the way of other processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While the block runs, NumPy's matrix products use one thread.

    With more, those of our sizes wait for each other longer than they work, and sums come out in an order that depends on the number of cores.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def sleeping_threads() -> Iterator[None]:
    """OpenMP libraries loaded in the block let threads that wait for others sleep instead of spin; what the user set stands.

    The library reads this variable once, when it is loaded. On a machine that does other work too, spinning makes two threads of LightGBM
    8 times slower than one (15 rounds, 100,000 rows: 10.2 s and 2.9 s of CPU time, sleeping 1.5 s and 0.4 s, one thread 1.0 s and 0.25 s).
    """
    name = "OMP_WAIT_POLICY"
    if name in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ[name] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[name]
