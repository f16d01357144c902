"""One thread for small matrix products: with more, they wait for each other longer than they work, and sums come out in another order."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While the block runs, NumPy's matrix products use one thread: the result is then the same on any number of cores."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield
