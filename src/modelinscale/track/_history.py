"""The moves of an alias, so that each can be taken back: MLflow keeps only where an alias is."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

KEPT_CHARS = 4_500
"""The oldest moves are dropped beyond this: MLflow keeps 5,000 characters of a tag."""


class Move(NamedTuple):
    """One move of an alias."""

    number: int
    at: str
    """When, ISO 8601 in UTC."""
    anchor: str = ""
    """The audit log's newest hash then."""


def parse(text: str | None) -> tuple[Move, ...]:
    """Moves from a tag's text, oldest first; a tag somebody else wrote over counts as no moves."""
    try:
        found = json.loads(text or "[]")
        return tuple(Move(int(number), str(at), str(anchor[0]) if anchor else "") for number, at, *anchor in found)
    except (ValueError, TypeError):
        return ()


def render(moves: Sequence[Move]) -> str:
    """Moves as a tag's text, the newest that fit."""
    kept: list[Any] = [list(move if move.anchor else move[:2]) for move in moves]
    while len(text := json.dumps(kept, separators=(",", ":"))) > KEPT_CHARS:
        kept = kept[1 + len(kept) // 10 :]
    return text


def stack(moves: Sequence[Move]) -> list[int]:
    """The versions one can go back through, the present one last: a move to the version before takes a move back.

    >>> stack([Move(1, ""), Move(2, ""), Move(3, ""), Move(2, "")])
    [1, 2]
    """
    found: list[int] = []
    for move in moves:
        if len(found) > 1 and found[-2] == move.number:
            found.pop()
        elif not found or found[-1] != move.number:
            found.append(move.number)
    return found


def before(moves: Sequence[Move], now: int | None) -> int | None:
    """The version before ``now``; moves made outside (in MLflow's own pages) are not in the list, so ``now`` may be elsewhere."""
    found = stack(moves)
    while found and found[-1] == now:
        found.pop()
    return found[-1] if found else None
