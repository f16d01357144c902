"""Raw cells to typed cells: what a column's habits allow is read, anything else becomes null and a fault that says why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelinscale.core.schema import Schema
from modelinscale.data.arrow import BROKEN, arrow_schema, arrow_type

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data._cells import Bad

SHOWN_CHARS = 200
"""How much of an unreadable cell a fault keeps."""


@dataclass(frozen=True)
class Faults:
    """Cells that could not be read, F of them, ordered by column, then row. A row may occur several times."""

    row: "pa.Int64Array"  # (F,) position in the batch
    column: "pa.StringArray"  # (F,) its name; "" when the whole row is broken
    reason: "pa.StringArray"  # (F,)
    value: "pa.StringArray"  # (F,) its first 200 characters

    def __len__(self) -> int:
        return len(self.row)

    def table(self) -> "pa.Table":
        """Columns row, column, reason, value."""
        import pyarrow as pa

        return pa.table({"row": self.row, "column": self.column, "reason": self.reason, "value": self.value})


@dataclass(frozen=True)
class Cleaned:
    """A typed batch with as many rows as came in, and what was wrong with them."""

    batch: "pa.RecordBatch"
    faults: Faults
    changed: Mapping[str, int] = field(default_factory=dict)
    """Cells that cleaners made others, by column."""


def clean(batch: "pa.RecordBatch", schema: Schema) -> Cleaned:
    """The batch with exactly the schema's columns and Arrow types. A column the batch lacks is all null.

    A null word or an empty string is missing, not a fault. NaN is missing too: there is one way to be missing in the lake.
    """
    import pyarrow as pa

    from modelinscale.data._cells import read_cells

    bad: list[tuple[str, Bad]] = []
    arrays: list[pa.Array] = []
    present = set(batch.schema.names)
    for column in schema.columns:
        if column.name not in present:
            arrays.append(pa.nulls(batch.num_rows, arrow_type(column)))
            continue
        array, wrong = read_cells(batch.column(column.name), column)
        arrays.append(array)
        if wrong is not None:
            bad.append((column.name, wrong))
    faults = _faults(bad, batch.column(BROKEN) if BROKEN in present else None)
    return Cleaned(pa.record_batch(arrays, schema=arrow_schema(schema)), faults)


def _faults(bad: "list[tuple[str, Bad]]", broken: "pa.Array | None") -> Faults:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows, columns, reasons, values = [], [], [], []
    if broken is not None and broken.null_count < len(broken):
        where = pc.indices_nonzero(broken.is_valid()).cast(pa.int64())
        # "3 cells, expected 4: line 17: a,b,c" is a reason that many rows share, and where and what it was.
        parts = pc.extract_regex(broken.take(where).cast(pa.string()), r"(?s)^(?P<reason>.*?)(?:: (?P<value>.*))?$")
        rows.append(where)
        columns.append(pa.repeat(pa.scalar("", pa.string()), len(where)))
        reasons.append(parts.field("reason"))
        values.append(pc.utf8_slice_codeunits(parts.field("value"), 0, SHOWN_CHARS))
    for name, wrong in bad:
        rows.append(wrong.rows)
        columns.append(pa.repeat(pa.scalar(name, pa.string()), len(wrong.rows)))
        reasons.append(wrong.reason)
        values.append(pc.utf8_slice_codeunits(wrong.values, 0, SHOWN_CHARS))

    def joined(parts: "list[pa.Array]", kind: "pa.DataType") -> "pa.Array":
        return pa.concat_arrays(parts) if parts else pa.array([], kind)

    return Faults(joined(rows, pa.int64()), joined(columns, pa.string()), joined(reasons, pa.string()), joined(values, pa.string()))
