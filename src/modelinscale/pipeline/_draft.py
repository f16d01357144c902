"""What a first model.yaml should say, decided from a look at the data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelinscale.core.errors import DataError, UsageError, did_you_mean
from modelinscale.data.sources import Source
from modelinscale.pipeline._look import Look, look
from modelinscale.pipeline._personal import look_personal, told
from modelinscale.pipeline._roles import choose
from modelinscale.spec import draft
from modelinscale.spec._source import settings_of

if TYPE_CHECKING:
    import polars as pl

SPLIT_NAMES = {"split", "fold", "set", "part", "partition", "subset", "dataset_split"}
SPLIT_WORDS = {"train", "training", "test", "testing", "valid", "val", "validation", "dev", "holdout", "eval"}
IN_ORDER_SHARE = 0.99
"""Rows are taken to be in time order when at least this share of neighbours is."""


@dataclass(frozen=True)
class _Split:
    """What the file should say about the split."""

    yaml: str = ""
    note: str = ""
    column: str | None = None
    time: str | None = None


def sketch(data: list[str], *, target: str, out: Path, name: str | None, model: str) -> tuple[draft.Sketch, tuple[str, ...]]:
    """The contents of a first model.yaml, and notes for whoever asked. Raises `DataError` when the target cannot be learned."""
    from modelinscale.data.leaks import suspects
    from modelinscale.data.privacy import Privacy
    from modelinscale.train import find_task

    source = Source.parse(settings_of(data if len(data) > 1 else data[0]))
    seen = look(source, {}, target)
    personal = look_personal(seen.frame, seen.schema, (target,))
    treated = {one.column: one.rule for one in personal if one.sure}
    if treated:  # nothing of them may stand in the file, not even in a comment
        seen = look(source, {}, target, (Privacy(treated),))
    if target not in seen.schema:
        columns = ", ".join(seen.schema.names[:40])
        raise UsageError(f"there is no column {target!r} to predict.{did_you_mean(target, seen.schema.names)}", fix=f"Columns: {columns}.")
    task = find_task(seen.frame[target], target, None, None)
    split = _split(seen, target)
    taken = {target: ""}
    if split.column:
        taken[split.column] = "says which part a row belongs to"
    found = suspects(seen.frame, target, seen.schema)
    roles = choose(seen.schema, seen.profiles, taken, {k: v for k, v in found.items() if k not in taken})
    if not roles.features:
        reasons = "; ".join(f"{c}: {why}" for c, why in roles.left_out.items())
        raise DataError(f"no column is left to predict {target!r} from ({reasons}).", fix="Give more columns, or write model.yaml by hand with `features`.")
    sketched = draft.Sketch(
        name=name or _name(data[0]),
        source=draft.located(data, out),
        n_rows=seen.n_rows,
        exact=seen.exact,
        schema=seen.schema,
        profiles=seen.profiles,
        task=task,
        split=split.yaml,
        split_note=split.note,
        time=split.time,
        features=roles.features,
        left_out=roles.left_out,
        target_note=_target_note(seen, target, task.type, task.labels),
        personal=personal,
        model=model,
    )
    return sketched, (*(told(one) for one in personal), *_notes(seen, split, roles.left_out, target))


def _split(seen: Look, target: str) -> _Split:
    for column in seen.schema.columns:
        if column.name != target and column.type == "string" and column.name.strip().lower() in SPLIT_NAMES:
            words = {str(v).strip().lower() for v in seen.frame[column.name].drop_nulls().unique().to_list()}
            if len(words) > 1 and words <= SPLIT_WORDS:
                return _Split(f"{{type: column, column: {draft.quoted(column.name)}}}", "the column says which rows test", column=column.name)
    moments = [c.name for c in seen.schema.columns if c.type == "time" and c.name != target]
    ordered = [c for c in moments if _in_order(seen.frame[c])]
    if len(ordered) == 1:
        return _Split(time=ordered[0])
    return _Split()


def _in_order(moments: pl.Series) -> bool:
    """Whether the rows come in time order: then a split that ignores time would learn from the future."""
    present = moments.drop_nulls()
    if len(present) < 0.99 * len(moments) or len(present) < 20 or present.n_unique() < 10:
        return False
    steps = present.diff().drop_nulls().dt.total_microseconds()
    return bool((steps >= 0).mean() >= IN_ORDER_SHARE)  # type: ignore[operator]


def _name(path: str) -> str:
    """A model name from a file name.

    >>> _name("data/My rows (2024).csv.gz")
    'My-rows-2024'
    """
    stem = Path(path).name.split(".")[0] or "model"
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_.")[:64]
    return word or "model"


def _target_note(seen: Look, target: str, type: str, labels: tuple[object, ...]) -> str:
    values = seen.frame[target].drop_nulls()
    if seen.schema[target].type in ("vector", "sequence"):
        return "lists of numbers, all predicted at once"
    if type == "multilabel":
        return f"lists of {len(labels)} labels"
    if type == "regression":
        return f"a number, {seen.profiles[target].low} to {seen.profiles[target].high}"
    if type == "binary":
        share = float((values == labels[1]).mean() or 0.0)  # type: ignore[arg-type]
        return f"two classes; to find: {labels[1]!r} ({share:.1%} of the rows)"
    return f"{len(labels)} classes"


def _notes(seen: Look, split: _Split, left_out: dict[str, str], target: str) -> tuple[str, ...]:
    notes = []
    if split.time:
        notes.append(f"rows are in the order of {split.time!r}: the newest are held out for testing.")
    if split.column:
        notes.append(f"{split.column!r} says which rows train and which test.")
    notes += [f"{column!r} is left out: {why}." for column, why in left_out.items() if column != split.column]
    missing = seen.frame[target].null_count()
    if missing:
        notes.append(f"{missing:,} of {seen.n_rows:,} rows have no {target!r}: they stay in the table and are not learned from.")
    return tuple(notes)
