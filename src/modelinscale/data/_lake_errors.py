"""What Lance and the disk refuse, as errors that say what, where and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelinscale.core import files
from modelinscale.core.bucket import reason
from modelinscale.core.errors import LakeError, MisError

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def told(uri: str, doing: str) -> Iterator[None]:
    """Lance's errors as ours: the disk's refusals as `StoreError`, anything else as a `LakeError`. It tells the system's error number only in words."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, MisError):
            raise
        found = _OS_ERROR.search(str(error))
        code = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
        refused = files.refusal(code, Path(uri), doing)
        if refused:
            raise refused from error
        known = reason(str(error)) if "://" in uri else None
        if known is not None:
            raise LakeError(f"Cannot {doing} the table {uri}: {known[0]}.", fix=known[1]) from error
        if "://" in uri:
            fix = "Check the address, the credentials and the options of the store; then whether another program changed the table."
        else:
            fix = "It is damaged, or another program changed it. Restore it, or move it away and collect again."
        raise LakeError(f"Cannot {doing} the table {uri}: {_short(error)}.", fix=fix) from error


def _short(error: Exception) -> str:
    """The first line of a message without the library's own source paths."""
    return re.sub(r",? */[^ ,]*\.rs:\d+:\d+", "", str(error).split("\n")[0]).rstrip(" .")[:300]
