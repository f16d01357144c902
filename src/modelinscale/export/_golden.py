"""Golden rows: rows as a client would send them, kept with their answers and replayed whenever the package is opened."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import pixels
from modelinscale.core.errors import ExportError
from modelinscale.core.schema import Column, Schema

if TYPE_CHECKING:
    import polars as pl

    from modelinscale.export import Parts
    from modelinscale.export._parity import Truth
    from modelinscale.package import InputColumn, Package

CHECKED_ROWS = 200
"""Rows read both as typed cells and as JSON; both roads must give the same tensors."""


def choose(package: "Package", parts: "Parts", frame: "pl.DataFrame", truth: "Truth", n: int, bound: float, schema: Schema) -> dict[str, Any]:
    """The content of ``golden.json``: ``n`` rows spread evenly over the model's answers, and one with everything missing that may be.

    Raises `ExportError` when a row sent as JSON is not the row of the table.
    """
    index = _spread(truth, max(n, min(CHECKED_ROWS, len(truth))))
    kept = [column for column in package.inputs if not _changes_again(column)]
    rows = json_rows(frame[index], [column.column for column in kept], {c.name: c.clean for c in kept})
    _same_tensors(package, rows, {column.name: truth.tensors[column.name][index] for column in kept})
    picked = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int))] if rows else []
    if not any(column.required for column in package.inputs):
        picked.append({})
    return {"rows": picked, "answers": package.predict(picked), "tolerance": bound}


def json_rows(frame: "pl.DataFrame", columns: list[Column], clean: "Mapping[str, Sequence[Mapping[str, Any]]] | None" = None) -> list[dict[str, Any]]:
    """Typed rows of the table as a client would write them in JSON, by the habits of each column; missing cells are left out.

    ``clean``: steps by column. A quantity is written with its unit where a number alone would be taken to be in another.
    """
    cells = {column.name: _with_unit(written(frame[column.name], column), (clean or {}).get(column.name, ())) for column in columns}
    return [{name: values[i] for name, values in cells.items() if values[i] is not None} for i in range(len(frame))]


def _changes_again(column: "InputColumn") -> bool:
    """Whether a cleaned cell may become another when it is cleaned again: such a cell is no example of what a client sends, so it is left out."""
    return any(step["type"] == "extract" for step in column.clean)


def _with_unit(cells: list[Any], steps: "Sequence[Mapping[str, Any]]") -> list[Any]:
    step = next((step for step in steps if step["type"] == "units" and step.get("bare") and step["bare"] != step["to"]), None)
    return cells if step is None else [None if v is None else f"{v!r} {step['to']}".replace(".", step.get("decimal", "."), 1) for v in cells]


def written(values: "pl.Series", column: Column) -> list[Any]:
    """A typed column as JSON cells, None where missing."""
    import polars as pl

    if column.type == "float":
        return [None if v is None or v != v else v for v in values.to_list()]
    if column.type == "binary":
        return [None if v is None else pixels.to_text(v) for v in values.to_list()]
    if column.type == "sequence":
        return [None if v is None else _steps(v) for v in values.to_list()]
    if column.type != "time":
        return values.to_list()
    moments = values.cast(pl.Datetime("us")).to_list()
    form = column.format
    if form in (None, "iso"):
        return [None if v is None else v.isoformat() for v in moments]
    return [None if v is None else _as_written(v, column, form) for v in moments]


def _steps(cell: list[Any]) -> list[Any]:
    """A sequence as JSON has it: a number that is missing is null."""
    return [_steps(v) if isinstance(v, list) else None if v is None or v != v else v for v in cell]


def _as_written(moment: datetime, column: Column, form: str) -> Any:
    """A moment by its column's habit; as ISO 8601 where that would lose a part of it (a clock that came as ISO into a column of days)."""
    from modelinscale.package._cell_moments import takes_iso
    from modelinscale.package._cell_rules import typed_by
    from modelinscale.package._cell_words import EPOCHS, Unreadable

    at = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    unit = EPOCHS.get(form)
    cell = moment.strftime(form) if unit is None else at // unit if at % unit == 0 else at / unit
    try:
        same = typed_by(column)(cell) == at
    except Unreadable:
        same = False
    return cell if same or not takes_iso(form) else moment.isoformat()


def _same(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether two graph inputs are the same, row by row; NaN equals NaN."""
    if found.dtype == object and len(found) and isinstance(found[0], np.ndarray):
        return np.array([np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(found, expected, strict=True)], bool)
    equal = np.asarray((found == expected) | ((found != found) & (expected != expected)))
    return np.asarray(equal.reshape(len(equal), -1).all(1), bool)


def _spread(truth: "Truth", n: int) -> NDArray[np.int64]:
    """Rows evenly spaced in the order of the answer, the surest and the least sure among them; ties by position."""
    if not len(truth):
        return np.zeros(0, np.int64)
    order = np.argsort(truth.decision.reshape(len(truth), -1)[:, 0] if truth.probability is None else truth.probability[:, -1], kind="stable")
    return np.asarray(order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(int))])


def _same_tensors(package: "Package", rows: list[dict[str, Any]], typed: Mapping[str, NDArray[Any]]) -> None:
    for name, found in package.tensors(rows).items() if rows else ():
        expected = typed[name]
        same = _same(found, expected)
        if not same.all():
            i = int((~same).argmax())
            raise ExportError(
                f"Column {name!r}: the cell {rows[i].get(name)!r} sent as JSON is read as {found[i]!r}; in the table it was {expected[i]!r}.",
                fix="Nothing was written. Please report this with the cell.",
            )
