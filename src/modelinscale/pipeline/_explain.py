"""What the newest run learned, explained: over test rows, or row by row of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import DataError, SourceError, UsageError
from modelinscale.core.files import write_bytes, write_json
from modelinscale.core.seeds import generator
from modelinscale.pipeline._export import PACKAGE

if TYPE_CHECKING:
    from modelinscale.explain import Explanation, Rows, Subject
    from modelinscale.pipeline._context import Context
    from modelinscale.spec import ModelSpec

BACKGROUND_ROWS = 500
"""Training rows that stand for what a column holds when nothing is known of it."""
MOST_LOCAL = 10_000
"""Rows of a file that are explained, at most."""


@dataclass(frozen=True)
class Told:
    """An explanation, and where it lies."""

    explanation: Explanation
    page: Path
    json: Path

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**self.explanation.plain(), "page": str(self.page), "json": str(self.json)}


def explain(
    spec: ModelSpec, base: Path, rows: str | None, by: str | Mapping[str, Any] | None, *, n_rows: int, out: Path | None, progress: Any, seed: int = 7
) -> Told:
    """Explains the test rows together, or (``rows`` names a file) each row of it. Raises `UsageError` when a run is not finished or the way does not suit."""
    from modelinscale.explain import Explainer, about, usual
    from modelinscale.explain._page import html
    from modelinscale.pipeline import learned

    progress("explain", 0.0, "reading what was learned")
    context = learned(spec, base)
    if context.task.several:
        raise UsageError(f"answers of {context.task.several} cannot be explained yet.", fix="Explain a model of one class or one number.")
    subject = _subject(context, seed)
    explainer = usual(subject, local=rows is not None) if by is None else Explainer.parse(by)
    seen = _of_file(context, rows) if rows is not None else _of_test(context, n_rows, seed)
    local = rows is not None or not explainer.overall
    if local and rows is None:
        seen = seen.take(np.arange(min(len(seen), 20)))
    progress("explain", 0.2, f"{explainer.type} on {len(seen):,} rows")
    found, made = about(explainer, subject, seen, local=local, seed=seed)
    folder = out or context.place.store.path("explain")
    name = f"{explainer.type}-{'rows' if local else 'overall'}"
    page, json = folder / f"{name}.html", folder / f"{name}.json"
    write_json(json, found.plain())
    write_bytes(page, html(found, made, subject, seen, spec.name).encode("utf-8", "replace"))
    progress("explain", 1.0, str(page))
    return Told(found, page, json)


def _subject(context: Context, seed: int) -> Subject:
    from modelinscale.core.decision import Decision
    from modelinscale.data.split import TRAIN
    from modelinscale.explain import Rows, Subject

    one = context.learned("model")
    train = np.flatnonzero(context.parts == TRAIN)
    kept = np.sort(generator(seed, "explain", "background").permutation(len(train))[:BACKGROUND_ROWS])
    frame = context.rows.take(train[kept], list(context.features))
    background = Rows(frame, context.encoder(one.model.form).encode(frame))
    return Subject(one.model, one.weights, context.task, Decision.model_validate(context.facts("evaluate")["decision"]), background)


def _of_test(context: Context, n_rows: int, seed: int) -> Rows:
    """Test rows by chance, each class as often as there."""
    from modelinscale.explain import Rows

    truth, weight = context.answers("test")
    kept = stratified(truth, n_rows, seed, classes=context.task.one_class)
    frame = context.rows.take(context.index("test")[kept], list(context.features))
    encoded = context.encoder(context.learned("model").model.form).encode(frame)
    return Rows(frame, encoded, truth[kept], None if weight is None else weight[kept])


def stratified(truth: NDArray[Any], n_rows: int, seed: int, *, classes: bool) -> NDArray[np.int64]:
    """Places, ascending, of about ``n_rows`` rows: of each class the same share, one at least."""
    chance = generator(seed, "explain", "sample")
    if len(truth) <= n_rows:
        return np.arange(len(truth))
    if not classes:
        return np.sort(chance.permutation(len(truth))[:n_rows])
    places = [np.flatnonzero(truth == c) for c in np.unique(truth)]
    return np.sort(np.concatenate([chance.permutation(own)[: max(1, round(len(own) * n_rows / len(truth)))] for own in places]))


def _of_file(context: Context, rows: str) -> Rows:
    """Rows of a file, read and treated as the served package would."""
    import polars as pl

    from modelinscale.data.clean import clean
    from modelinscale.data.cleaners._treatment import served_cleaning
    from modelinscale.data.privacy import served_privacy
    from modelinscale.data.sources import Source
    from modelinscale.data.treatment import treat
    from modelinscale.explain import Rows
    from modelinscale.package import open_package
    from modelinscale.score._answer import columns_of
    from modelinscale.spec._source import settings_of

    package = open_package(context.folder("export") / PACKAGE)
    columns = columns_of(package)
    source = Source.parse(settings_of(rows))
    there = source.columns().names
    missing = [name for name in columns.names if name not in there]
    if missing:
        raise SourceError(f"the rows lack {len(missing)} of the model's columns: {', '.join(missing[:10])}.", fix=f"Columns there: {', '.join(there[:30])}.")
    treatments = [one for one in (served_cleaning(package.inputs), served_privacy(package.inputs)) if one is not None]
    frames, n = [], 0
    for chunk in source.read(None, columns):
        frames.append(pl.DataFrame(treat(clean(chunk.batch, columns), treatments).batch).select(list(context.features)))
        n += len(frames[-1])
        if n >= MOST_LOCAL:
            break
    if not n:
        raise DataError(f"{rows} holds no rows.", fix="Name a file with rows to explain.")
    frame = pl.concat(frames).head(MOST_LOCAL)
    return Rows(frame, context.encoder(context.learned("model").model.form).encode(frame))
