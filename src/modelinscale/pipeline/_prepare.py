"""Step 2, prepare: which rows train, choose and test, and what the features learn from the training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from modelinscale.core.errors import DataError
from modelinscale.core.files import write_array, write_bytes
from modelinscale.pipeline._place import Facts, Place, Result

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.pipeline._context import Context

PROFILE_ROWS = 200_000
"""Rows from which features are inferred where the file names none."""

HONEST = "honest.npy"
"""Parts of a split that does not leak; there only when the one in use was forced although it does."""


class _About(TypedDict):
    target: str
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
    }


def work(context: Context, folder: Path) -> Facts:
    from modelinscale.data.infer import profile
    from modelinscale.data.leaks import guard, honest
    from modelinscale.data.split import NAMES, assign
    from modelinscale.encode import observe
    from modelinscale.evaluate import check as suits
    from modelinscale.pipeline._context import STATE_ROWS
    from modelinscale.pipeline._resolve import resolve
    from modelinscale.train import find_task

    spec, frame = context.spec, context.frame
    if not len(frame):
        raise DataError("the table has no rows.", fix="See `mis show quarantine`: did every row break the contract?")
    context.progress("prepare", 0.0, "which rows learn, choose and test")
    task = find_task(frame[spec.target], spec.target, spec.task, spec.positive)
    suits(spec.evaluate, task)
    head = frame.head(PROFILE_ROWS)
    roles = resolve(spec, context.schema, head, {} if spec.features else profile(head.to_arrow()))
    about: _About = {"target": spec.target, "content": tuple(roles.features), "time": spec.data.time}
    more: _More = {"label_delay": spec.data.label_delay, "classes": task.type != "regression"}
    parts = assign(frame, spec.data.split, **about, **more)
    leaks = guard(frame, parts, spec.data.split, **about)
    context.progress("prepare", 0.4, "what the columns hold")
    states = observe(roles.features, frame, np.flatnonzero(parts == 0), compute=spec.compute, n_rows=STATE_ROWS)
    write_array(folder / "parts.npy", parts)
    if leaks:  # forced: what the split hides is measured once there is a model
        write_array(folder / HONEST, assign(frame, honest(spec.data.split, leaks), **about, **more))
    write_bytes(folder / "states.json", json.dumps(states, allow_nan=False).encode())
    facts: dict[str, Any] = {
        "task": task.plain(),
        "features": {name: feature.plain() for name, feature in roles.features.items()},
        "left_out": roles.left_out,
        "split": spec.data.split.resolved(spec.data.time),
        "notes": [*_unlabelled(frame, spec.target), *(leak.message for leak in leaks)],
        **{f"n_{name}": int((parts == number).sum()) for number, name in enumerate(NAMES)},
    }
    return facts


def _unlabelled(frame: pl.DataFrame, target: str) -> list[str]:
    n = frame[target].null_count()
    return [f"{n:,} of {len(frame):,} rows have no {target!r}: they stay in the table and are not learned from."] if n else []


def words(facts: Facts) -> str:
    return f"{facts['n_train']:,} rows to learn from, {facts['n_valid']:,} to choose with, {facts['n_test']:,} to test on"
