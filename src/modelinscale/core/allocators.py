"""How this process takes memory from the system: arrays of megabytes come and go thousands of times, and asking for each costs more than the work on it."""

import ctypes
import os
import platform
import sys

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_MOST_KEPT, _MOST_HEAP, _SHARE = 128 << 20, 32 << 20, 16
_POOL = "ARROW_DEFAULT_MEMORY_POOL"


def keep_pages(memory: int | None) -> None:
    """Lets freed memory be used again rather than given back at once, up to a sixteenth of ``memory`` (the budget in bytes; None: up to 128 MiB).

    glibc maps every array of more than some hundred kilobytes anew and unmaps it when it is freed: the kernel clears each page again, two fifths of the
    time of encoding. Arrow's rows go through jemalloc, for the same reason; its pages return after a second unused. What the user set in
    the environment (``MALLOC_*``, ``ARROW_DEFAULT_MEMORY_POOL``) stays; other C libraries than glibc stay as they are.
    """
    kept = _MOST_KEPT if memory is None else min(_MOST_KEPT, memory // _SHARE)
    if sys.platform != "linux":
        return
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM, kept)
        library.mallopt(_MMAP, min(_MOST_HEAP, kept))
    if _POOL in os.environ:
        return
    arrow = sys.modules.get("pyarrow")
    if arrow is None:
        os.environ[_POOL] = "jemalloc"  # read when Arrow is loaded
    elif "jemalloc" in arrow.supported_memory_backends():
        arrow.set_memory_pool(arrow.jemalloc_memory_pool())
