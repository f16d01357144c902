"""What a model.yaml means on the data as it is: nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelinscale.core.errors import MisError, SpecError
from modelinscale.core.task import words_of
from modelinscale.pipeline._collect import source_of, treatments_of
from modelinscale.pipeline._look import look, named
from modelinscale.pipeline._personal import look_personal
from modelinscale.pipeline._place import Place
from modelinscale.pipeline._resolve import overlapping, resolve
from modelinscale.spec import ModelSpec


def check(spec: ModelSpec, base: Path) -> dict[str, Any]:
    """Columns, features, target and notes as plain data; raises what a run would raise about the file."""
    from modelinscale.data.cleaners._treatment import as_text
    from modelinscale.data.contract import contract
    from modelinscale.data.split import assign
    from modelinscale.evaluate import check as suits
    from modelinscale.train import find_task, row_weights, see

    place = Place.of(spec, base)
    seen = look(source_of(place), spec.data.columns, spec.target, treatments_of(place), as_text(spec.data.clean))
    named(spec, seen.schema)
    overlap = overlapping(spec)
    task = find_task(see([seen.frame], spec.target), spec.target, spec.task, spec.positive, spec.levels)
    suits(spec.evaluate, task)
    roles = resolve(spec, seen.schema, seen.frame, seen.profiles)
    contract(seen.schema, spec.data.checks, spec.data.key)
    for column, checks in spec.data.checks.items():
        for demand in checks:
            try:
                demand.at(base).ready()
            except MisError as error:
                raise SpecError(f"data.checks: {column}: {error.message}", fix=error.fix) from error
    if spec.train.weight:
        row_weights(seen.frame[spec.train.weight])
    assign(
        seen.frame,
        spec.data.split,
        target=spec.target,
        content=tuple(roles.features),
        time=spec.data.time,
        label_delay=spec.data.label_delay,
        classes=task.one_class,
    )
    notes = [*overlap, *([] if seen.exact else [f"seen: the first {seen.n_rows:,} rows"])]
    for one in look_personal(seen.frame, seen.schema, {*spec.targets, *spec.data.personal}):
        what = "holds" if one.sure else "may hold (by its name)"
        notes.append(f"{one.column!r} {what} {one.words} and has no rule: `data: {{personal: {{{one.column}: {one.rule.type}}}}}`, or another one.")
    if spec.model != "auto":
        notes.append(f"model: {spec.model.type}")
    return {
        "columns": [{"name": c.name, "type": c.type} for c in seen.schema.columns],
        "features": {name: feature.plain() for name, feature in roles.features.items()},
        "left_out": roles.left_out,
        "target": {"column": words_of(spec.target), "columns": list(spec.targets), "task": task.type, "labels": list(task.labels)},
        "notes": tuple(notes),
    }
