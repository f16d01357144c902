"""Rows that were set aside, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from modelinscale.pipeline import _collect
from modelinscale.pipeline._place import Place


def reasons(place: Place) -> list[tuple[tuple[str, str], int]]:
    """(column, reason) and how often, the most frequent first; column "" for a row that could not be taken apart."""
    found = Counter((line["column"] or "", line["reason"]) for line in faults(place))
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def faults(place: Place) -> Iterator[dict[str, Any]]:
    """One line a fault, in the order the rows came: row, place, row_in_place, column, reason, value."""
    from modelinscale.data.collect import open_quarantine

    name = _collect.table_name(place)
    for batch in open_quarantine(place.store.uri("lake", _collect.quarantine_name(name)), place.store.uri("lake", name)):
        yield from batch.to_pylist()
