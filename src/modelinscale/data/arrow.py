"""Between our column types and Arrow's: one Arrow type for each of ours, and ours for each Arrow type we can hold."""

from typing import TYPE_CHECKING

from modelinscale.core.errors import NotSupportedYet
from modelinscale.core.schema import Column, Schema

if TYPE_CHECKING:
    import pyarrow as pa

INTERNAL = "_mis_"
"""How the names of our own columns start; a source's columns must not."""
BROKEN = "_mis_broken"
"""The extra column of a chunk that says why a row could not be taken apart; null for every good row.

``reason: place: text``, for example ``3 cells, expected 4: line 17: a,b,c``: what stands before the first colon is what many rows share.
"""


def arrow_type(column: Column) -> "pa.DataType":
    """The one Arrow type cells of this column have in the lake."""
    import pyarrow as pa

    if column.type == "vector":
        return pa.list_(pa.float32(), column.width)
    if column.type == "sequence":
        return pa.list_(pa.float32() if column.width == 1 else pa.list_(pa.float32(), column.width))
    if column.type == "binary":
        return pa.large_binary()
    return {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "string": pa.string(), "time": pa.timestamp("us")}[column.type]


def arrow_schema(schema: Schema) -> "pa.Schema":
    """The lake's Arrow schema of the user's columns, in order; every field nullable (what may be missing is the contract's business)."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name, arrow_type(column)) for column in schema.columns])


def is_text(kind: "pa.DataType") -> bool:
    """Whether cells of this Arrow type are text, dictionary-encoded text included."""
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def is_bytes(kind: "pa.DataType") -> bool:
    """Whether cells of this Arrow type are bytes that need not be text."""
    import pyarrow.types as t

    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind))


def is_list(kind: "pa.DataType") -> bool:
    """Whether cells of this Arrow type are lists of any length."""
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind))


def column_of(name: str, kind: "pa.DataType") -> Column:
    """Our column for a typed source's: whole numbers int, decimals float, dates and zoned times naive UTC, durations float seconds.

    Lists of numbers are sequences, lists of lists of one width too; lists of words become text, as JSON has them.
    Raises `NotSupportedYet` for what no column type of ours can hold.
    """
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return column_of(name, kind.value_type)
    if t.is_integer(kind):
        return Column(name=name, type="int")
    if t.is_floating(kind) or t.is_decimal(kind) or t.is_duration(kind):
        return Column(name=name, type="float")
    if t.is_boolean(kind):
        return Column(name=name, type="bool")
    if is_text(kind) or t.is_null(kind) or t.is_time(kind):
        return Column(name=name, type="string")
    if t.is_date(kind) or t.is_timestamp(kind):
        return Column(name=name, type="time")
    if t.is_fixed_size_list(kind) and (t.is_integer(kind.value_type) or t.is_floating(kind.value_type)):
        return Column(name=name, type="vector", width=kind.list_size)
    if is_list(kind) and (t.is_integer(kind.value_type) or t.is_floating(kind.value_type)):
        return Column(name=name, type="sequence", width=1)
    if is_list(kind) and t.is_fixed_size_list(kind.value_type) and t.is_floating(kind.value_type.value_type):
        return Column(name=name, type="sequence", width=kind.value_type.list_size)
    if is_list(kind) and is_text(kind.value_type):
        return Column(name=name, type="string")
    if is_bytes(kind):
        return Column(name=name, type="binary")
    raise NotSupportedYet(
        f"column {name!r} holds nested cells ({kind}), which no feature reads yet.", fix=f"Leave it out: `without: [{name}]` under the source."
    )
