"""The quarantine: a table beside the lake's with one line for each fault of each refused row."""

from dataclasses import replace
from typing import TYPE_CHECKING

from modelinscale.core.schema import Column, Schema
from modelinscale.data._units import Unit
from modelinscale.data.contract import Judged
from modelinscale.data.lake import create_table, open_table, table_exists

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

QUARANTINE = Schema(
    columns=(
        Column(name="row", type="int", nullable=False),
        Column(name="place", type="string"),
        Column(name="row_in_place", type="int"),
        Column(name="column", type="string"),
        Column(name="reason", type="string"),
        Column(name="value", type="string"),
    )
)
"""``row`` counts the rows ever read, from 1, those that came again once; ``place`` and ``row_in_place`` (from 1) say where to look in the source;
``column`` is empty when the whole row is broken."""


def of_new(judged: Judged, again: "NDArray[np.bool_]") -> tuple[Judged, Judged]:
    """The verdict without the bad ones of those rows that came ``again`` (N,), and their part of it: they were told of when they first came."""
    import pyarrow as pa

    known = again[judged.entries.column("row").to_numpy()]
    old = judged.entries.filter(pa.array(known))
    n_old = len(old.column("row").unique())
    return replace(judged, entries=judged.entries.filter(pa.array(~known)), n_bad=judged.n_bad - n_old), replace(judged, entries=old, n_bad=n_old)


def quarantine(uri: str, unit: Unit, judged: Judged, *, n_before: int, batch: str, run: str, seq: int) -> None:
    """Adds the unit's lines under the number of the commit that will bring its rows; ``n_before`` rows were read before it."""
    if not judged.n_bad:
        return
    lines = _lines(unit, judged, n_before)
    if table_exists(uri):
        open_table(uri).append(lines, batch=batch, run=run, seq=seq)
    else:
        create_table(uri, QUARANTINE, lines, batch=batch, run=run, seq=seq)


def _lines(unit: Unit, judged: Judged, n_before: int) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    rows = judged.entries.column("row").to_numpy()
    starts = np.cumsum([0, *(p.cleaned.batch.num_rows for p in unit.pieces)])
    piece = np.searchsorted(starts, rows, side="right") - 1
    places = pa.array([p.where for p in unit.pieces], pa.string())
    return pa.table(
        {
            "row": pa.array(np.cumsum(~unit.again())[rows] + n_before),
            "place": places.take(pa.array(piece)),
            "row_in_place": pa.array(rows - starts[piece] + 1),
            "column": judged.entries.column("column"),
            "reason": judged.entries.column("reason"),
            "value": judged.entries.column("value"),
        }
    )
