"""What a follower counts: in every piece of its news, for whoever asked and for probes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far a follower is."""

    version: int | None
    """Of the table, once there is one."""
    n_rows: int
    """In the table."""
    n_added: int
    """By this commit; in the last news of a follower: since its start."""
    n_quarantined: int
    """As ``n_added``."""
    behind: int | None
    """Rows that the source still has; None where it cannot tell."""
    behind_s: float
    """How long ago the lake had everything that the source had; before that was ever so, since the start."""
    note: str = ""
    """Why it waits, or the warnings."""
