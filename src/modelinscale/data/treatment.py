"""Treatments: what is done to typed rows between reading and the contract, such as cleaning and the removal of personal data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from modelinscale.core.schema import Schema
from modelinscale.data.clean import Cleaned


class Treatment(Protocol):
    """One step. It knows its settings and nothing of other rows; it runs on any partition, beside reading.

    The lake, the quarantine and every message hold only what the last treatment left: what must not get there is taken out here, from the cells and
    from the values that faults show.
    """

    def schema(self, schema: Schema) -> Schema:
        """The columns after it. Raises `SpecError` for columns it names that are not there or that it cannot treat."""

    def apply(self, rows: Cleaned) -> Cleaned:
        """As many rows in the same order, in the types of `schema`; faults may be added, and their values must be treated like the cells."""


def treated_schema(schema: Schema, treatments: Sequence[Treatment]) -> Schema:
    """The columns after all of them."""
    for treatment in treatments:
        schema = treatment.schema(schema)
    return schema


def treat(rows: Cleaned, treatments: Sequence[Treatment]) -> Cleaned:
    """The rows after all of them, in order."""
    for treatment in treatments:
        before, rows = rows.changed, treatment.apply(rows)
        if before:  # a treatment need not know what others count
            rows = replace(rows, changed={**before, **rows.changed})
    return rows
