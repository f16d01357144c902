"""Who brings rows into a table: one collect or one follower at a time. Others take the table as it stands while a follower is at work."""

from contextlib import AbstractContextManager

from modelinscale.core.errors import InUse
from modelinscale.pipeline._place import Place


def bringing(place: Place, table: str, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Holds the right to bring rows into a table while the block runs. Raises `InUse` when another process has it for longer than that."""
    return place.store.lock("follow", f"{table}.lock", wait_s=wait_s)


def followed(place: Place, table: str) -> bool:
    """Whether a follower brings rows into the table now. Asked by whoever holds the project's lock, so that no collect can be meant."""
    if table not in {name.removesuffix(".lock") for name in place.store.list("follow")}:
        return False
    try:
        with bringing(place, table):
            return False
    except InUse:
        return True
