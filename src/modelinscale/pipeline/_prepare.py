"""Step 2, prepare: which rows train, choose and test, and what the features learn from the training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from modelinscale.core.errors import DataError
from modelinscale.core.files import write_array, write_bytes
from modelinscale.core.task import Targets, names_of, words_of
from modelinscale.pipeline._elsewhere import contents
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    from modelinscale.data.partitions import Rows
    from modelinscale.pipeline._context import Context

PROFILE_ROWS = 200_000
"""Rows from which features are inferred where the file names none."""

HONEST = "honest.npy"
"""Parts of a split that does not leak; there only when the one in use was forced although it does."""


class _About(TypedDict):
    target: Targets
    content: tuple[str, ...]
    time: str | None


class _More(TypedDict):
    label_delay: float
    classes: bool


def inputs(place: Place, done: dict[str, Result]) -> Facts:
    spec, collected = place.spec, done["collect"].facts
    return {
        "table": collected["table"],
        "table_version": collected["version"],
        "content": collected["content"],
        "target": spec.target,
        "task": spec.task,
        "positive": spec.positive,
        "features": dict(spec.features),
        "leave_out": spec.data.leave_out,
        "split": spec.data.split,
        "time": spec.data.time,
        "label_delay": spec.data.label_delay,
        "weight": spec.train.weight,
        **contents(place, "prepare", dict(spec.features)),
    }


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.data.infer import profile
    from modelinscale.data.leaks import guard, honest
    from modelinscale.data.split import NAMES, assign
    from modelinscale.encode import observe
    from modelinscale.evaluate import check as suits
    from modelinscale.pipeline._resolve import overlapping, resolve
    from modelinscale.train import find_task, see

    spec, rows = context.spec, context.rows
    if not len(rows):
        raise DataError("the table has no rows.", fix="See `mis show quarantine`: did every row break the contract?")
    overlap = overlapping(spec)
    context.progress("prepare", 0.0, "which rows learn, choose and test")
    seen = see((block for _, block in rows.blocks(spec.targets)), spec.target)
    task = find_task(seen, spec.target, spec.task, spec.positive, spec.levels)
    suits(spec.evaluate, task)
    head = rows.head(head_rows(rows.row_bytes, context.room))
    roles = resolve(spec, context.schema, head, {} if spec.features else profile(head.to_arrow()))
    about: _About = {"target": spec.target, "content": tuple(roles.features), "time": spec.data.time}
    more: _More = {"label_delay": spec.data.label_delay, "classes": task.one_class}
    parts = assign(rows, spec.data.split, **about, **more)
    leaks = guard(rows, parts, spec.data.split, **about, memory=spec.compute.memory)
    context.progress("prepare", 0.4, "what the columns hold")
    states = observe(context.place.located(roles.features), rows, parts, compute=spec.compute)
    write_array(folder / "parts.npy", parts)
    if leaks:  # forced: what the split hides is measured once there is a model
        write_array(folder / HONEST, assign(rows, honest(spec.data.split, leaks), **about, **more))
    # Sorted: words are counted in whatever order threads come upon them, and the same states must be the same bytes.
    write_bytes(folder / "states.json", json.dumps(states, allow_nan=False, sort_keys=True).encode())
    facts: dict[str, Any] = {
        "task": task.plain(),
        "features": {name: feature.plain() for name, feature in roles.features.items()},
        "left_out": roles.left_out,
        "split": spec.data.split.resolved(spec.data.time),
        "notes": [*overlap, *_unlabelled(rows, spec.target), *(leak.message for leak in leaks)],
        **{f"n_{name}": int(np.count_nonzero(parts == number)) for number, name in enumerate(NAMES)},
    }
    return facts


def head_rows(row_bytes: float, room: int) -> int:
    """Rows looked at to tell what columns are: fewer of very wide tables, which are looked at whole."""
    return max(1_000, min(PROFILE_ROWS, int(room / 8 / max(row_bytes, 1.0))))


def _unlabelled(rows: Rows, target: Targets) -> list[str]:
    names = names_of(target)
    n = sum(len(block) - len(block.drop_nulls(names)) for _, block in rows.blocks(names))
    lack = f"have no {names[0]!r}" if len(names) == 1 else f"lack one of {words_of(target)}"
    return [f"{n:,} of {len(rows):,} rows {lack}: they stay in the table and are not learned from."] if n else []


def words(facts: Facts) -> str:
    return f"{facts['n_train']:,} rows to learn from, {facts['n_valid']:,} to choose with, {facts['n_test']:,} to test on"
