"""What the steps that are still to do will take of memory and of the disk, beside what there is of either: shown by `mis plan` before the work.

N rows of the table. A run refuses by the same numbers (`_needs.refuse`, `core.files.refuse_full`); here they are only said.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelinscale.core import memory
from modelinscale.core.units import show_bytes
from modelinscale.pipeline._needs import Size, learns, libraries, needs, size_of
from modelinscale.pipeline._place import Result

if TYPE_CHECKING:
    from pathlib import Path

    from modelinscale.core.encoded import Form
    from modelinscale.pipeline._place import Place


@dataclass(frozen=True)
class Estimate:
    """What a run takes of one thing at its fullest, and what there is."""

    of: Literal["memory", "disk"]
    needed_bytes: int
    there_bytes: int
    why: str
    """What takes it, or what is not known yet."""
    refusal: str = ""
    """What the run would say instead of beginning; "" where there is enough."""
    fix: str = ""

    def __str__(self) -> str:
        return f"about {show_bytes(self.needed_bytes)} of {show_bytes(self.there_bytes)} ({self.why})"

    def plain(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "needed_bytes": self.needed_bytes,
            "there_bytes": self.there_bytes,
            "why": self.why,
            "refused": bool(self.refusal),
            "message": self.refusal or None,
            "fix": self.fix or None,
        }


def estimates(place: Place, done: dict[str, Result], steps: tuple[str, ...]) -> tuple[Estimate, ...]:
    """For the ``steps`` to do, after those that are done. Reads the size of the table that is there, and a few thousand of its rows."""
    if not steps:
        return ()
    size = _size(place, done)
    return tuple(found for found in (_memory(place, size, steps), _disk(place, size, done, steps)) if found is not None)


def _size(place: Place, done: dict[str, Result]) -> Size | None:
    """Of the table that was collected, or as it stands before the collect to come; None where there is none."""
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.pipeline._collect import table_name

    if "collect" in done:
        return size_of(place, done["collect"].facts)
    table = table_name(place)
    uri = place.store.uri("lake", table)
    return size_of(place, {"table": table, "version": open_table(uri).rows_version}) if table_exists(uri) else None


def _memory(place: Place, size: Size | None, steps: tuple[str, ...]) -> Estimate | None:
    wanted = [need for step, need in needs(place.spec, size or Size(0, 0, 0.0)).items() if step in steps]
    if not wanted:
        return None
    most, said = max(wanted, key=lambda need: need.n_bytes), place.spec.compute.memory
    error = memory.refusal(most, said)
    return Estimate(
        "memory",
        most.n_bytes + memory.BASE_BYTES,
        memory.budget(said),
        f"the least that {most.what} can do with" + ("" if size else "; what its rows take is known once they are collected"),
        error.message if error else "",
        error.fix or "" if error else "",
    )


def _disk(place: Place, size: Size | None, done: dict[str, Result], steps: tuple[str, ...]) -> Estimate | None:
    from modelinscale.core.files import full

    parts: dict[str, int] = {}
    if "collect" in steps:
        parts["rows of files that are not in the table yet, as large as they lie there"] = _unread(place)
    if size is not None:
        if "prepare" in steps:
            parts["which rows learn and test"] = 2 * size.n_rows
        if "train" in steps:
            parts["encoded rows while they are learned from"] = _encoded(place, size, done)
    unknown = "" if size else "; the rest is known once rows are collected"
    needed, there = sum(parts.values()), _there(place.store.path("work"))
    if not needed and not unknown:
        return None
    error = full(there, needed, "what is still to do")
    why = ", ".join(f"{what}: {show_bytes(n)}" for what, n in parts.items() if n)
    return Estimate("disk", needed, shutil.disk_usage(there).free, f"{why or 'rows'}{unknown}", *((error.message, error.fix or "") if error else ()))


def _there(folder: Path) -> Path:
    """The nearest folder that exists: the disk it will lie on."""
    return next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())


def _unread(place: Place) -> int:
    """Bytes of the source's files that the table has not taken in, where the source is files."""
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.data.sources._files import Files
    from modelinscale.pipeline._collect import table_name

    source, uri = place.spec.source_at(place.base), place.store.uri("lake", table_name(place))
    if not isinstance(source, Files):
        return 0
    read = (open_table(uri).cursor or {}).get("files", {}) if table_exists(uri) else {}
    return sum(max(0, path.stat().st_size - read.get(str(path), {}).get("size", 0)) for path in source.found())


def _encoded(place: Place, size: Size, done: dict[str, Result]) -> int:
    """Bytes of the encoded rows that a training keeps on the disk; 0 where they fit in memory.

    Measured on the first rows once the features are learned; before that a row is taken to be as large as in the table.
    """
    from modelinscale.data.partitions import HELD
    from modelinscale.encode.stored import shuffle_disk
    from modelinscale.pipeline._context import HELD_ENCODED

    spec, budget = place.spec, place.spec.compute.memory
    within = None if budget is None else budget - libraries(spec)
    room, rows = memory.room(within), size.n_rows * size.row_bytes
    held = rows if spec.compute.type == "local" and rows * HELD <= room else 0.0
    facts = done["prepare"].facts if "prepare" in done else {"n_train": size.n_rows, "n_valid": 0, "n_test": 0}
    n_train, n_valid = facts["n_train"], facts["n_valid"]
    used, total = n_train + n_valid + facts["n_test"], 0.0
    forms: tuple[Form, ...] = ("scaled", "plain") if learns(spec, "trees") else ("scaled",)  # the linear baseline is always learned
    forms += ("deep",) if getattr(spec.model, "type", "") == "network" else ()
    for form in forms:
        encoded, stored = _row_bytes(place, done, form) if "prepare" in done else (16 + size.row_bytes, 16 + size.row_bytes)
        if held + used * encoded * HELD_ENCODED > room:
            learned = form != "plain" and learns(spec, "mlp" if form == "scaled" else "network")
            total += stored * (n_train + n_valid) + (shuffle_disk(n_train, stored, within) if learned else 0)
    return int(total)


def _row_bytes(place: Place, done: dict[str, Result], form: Form) -> tuple[float, float]:
    """Bytes of an encoded row in memory and on the disk, from the first rows of the table."""
    from modelinscale.data.partitions import open_rows
    from modelinscale.encode.stored import row_bytes
    from modelinscale.pipeline._context import Context

    context = Context(place, lambda step, share, note: None)
    context.done = done
    collected = context.facts("collect")
    context.rows = open_rows(place.store.uri("lake", collected["table"]), collected["version"], tuple(context.features), workers=1, hold=False)
    encoded = context.encoded_bytes(form)
    return encoded, row_bytes(context.layouts(form), encoded)
