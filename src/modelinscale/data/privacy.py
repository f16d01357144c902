"""Privacy: personal columns are dropped, pseudonymised or masked before the contract, so that nothing personal gets further than the reader.

The last treatment. What comes after it (lake, quarantine, reports, logs, packages) holds what it left; text that was never a cell of its own column (a
broken line, a cell that could not be read) is not shown at all while any column is personal: it may hold anything.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import LakeError, SpecError, did_you_mean
from modelinscale.core.personal import Keys, Rule, Treat, shape
from modelinscale.core.schema import Schema
from modelinscale.core.secrets import MASK
from modelinscale.data.arrow import arrow_type
from modelinscale.data.clean import Cleaned, Faults

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.lake import Table
    from modelinscale.data.treatment import Treatment
    from modelinscale.package import InputColumn

__all__ = ["Keys", "Privacy", "Rule", "first_cell", "key_id_of", "refuse_other_keys", "served_privacy"]


class Privacy:
    """A treatment: the rules of some columns. Safe in threads; made anew by each process from references, never sent with a key inside."""

    def __init__(self, rules: Mapping[str, Rule], references: tuple[str, ...] = ()) -> None:
        """``references``: where the keys of pseudonyms are found. Raises `UsageError` when a pseudonym is asked for and they are not there."""
        self.rules = dict(rules)
        self._references = references
        self.keys = Keys.revealed(references) if any(r.type == "pseudonym" for r in rules.values()) else None

    def __reduce__(self) -> tuple[type["Privacy"], tuple[dict[str, Rule], tuple[str, ...]]]:
        return Privacy, (self.rules, self._references)  # a key must not lie in what is sent to other machines

    def schema(self, schema: Schema) -> Schema:
        mistakes = []
        for name, rule in self.rules.items():
            if name not in schema:
                mistakes.append(f"{name!r} is not a column.{did_you_mean(name, schema.names)}")
            elif objection := rule.objection(schema[name]):
                mistakes.append(f"{name}: {objection}.")
        if mistakes:
            raise SpecError("`data.personal`: " + " ".join(mistakes), fix="Change the rule, or the column's type under `columns`.")
        treated = [self.rules[c.name].column(c) if c.name in self.rules else c for c in schema.columns]
        return Schema(columns=tuple(c for c in treated if c is not None))

    def apply(self, rows: Cleaned) -> Cleaned:
        import pyarrow as pa

        from modelinscale.data.arrow import column_of

        arrays, names = [], []
        for name, cells in zip(rows.batch.schema.names, rows.batch.columns, strict=True):
            rule = self.rules.get(name)
            if rule is not None:
                column = column_of(name, cells.type)
                treated = rule.column(column)
                if treated is None:
                    continue
                cells = _by_value(cells, rule.treatment(column, self.keys), arrow_type(treated))
            arrays.append(cells)
            names.append(name)
        batch = pa.record_batch(arrays, names=names) if arrays else rows.batch.select([])
        return Cleaned(batch, self._faults(rows.faults))

    def _faults(self, faults: Faults) -> Faults:
        """The same faults, their values treated."""
        if not len(faults) or not self.rules:
            return faults
        import pyarrow as pa

        shown: list[str | None] = []
        for column, value in zip(faults.column.to_pylist(), faults.value.to_pylist(), strict=True):
            rule = self.rules.get(column)
            if value is None:
                shown.append(None)
            elif column == "":
                shown.append(value.split(":")[0] if value.startswith("line ") and value[5:].split(":")[0].isdigit() else MASK)
            elif rule is None:
                shown.append(shape(value))
            else:
                shown.append(self.keys.pseudonym(value) if rule.type == "pseudonym" and self.keys else MASK)
        return Faults(faults.row, faults.column, faults.reason, pa.array(shown, pa.string()))


def _by_value(cells: "pa.Array", treat: Treat, kind: "pa.DataType") -> "pa.Array":
    """Each present cell treated; each different value once."""
    import pyarrow as pa

    codes = (cells if pa.types.is_dictionary(cells.type) else cells.cast(pa.int64()) if pa.types.is_timestamp(cells.type) else cells).dictionary_encode()
    words = pa.array([None if v is None else treat(v) for v in codes.dictionary.to_pylist()], pa.int64() if pa.types.is_timestamp(kind) else kind)
    return words.take(codes.indices).cast(kind)


def first_cell(table: "Table", columns: Iterable[str]) -> Any:
    """The first cell of these columns that is not missing; None where all are."""
    blocks = (block for name in columns for block in table.blocks([name], n_rows=1024))
    return next((cell for block in blocks for cell in block.column(0).to_pylist() if cell is not None), None)


def key_id_of(uri: str, columns: Iterable[str]) -> str | None:
    """Which keys made the pseudonyms of a table (each names them); None where there is none yet."""
    from modelinscale.data.lake import open_table, table_exists

    first = first_cell(open_table(uri), columns) if table_exists(uri) else None
    return None if first is None else str(first).partition(".")[0]


def refuse_other_keys(uri: str, treatments: "Iterable[Treatment]") -> None:
    """Raises `LakeError` when new pseudonyms would not be those of the same persons in the table."""
    for one in treatments:
        if isinstance(one, Privacy) and one.keys is not None:
            found = key_id_of(uri, [name for name, rule in one.rules.items() if rule.type == "pseudonym"])
            if found is not None and found != one.keys.id:
                known = found in one.keys.ids
                raise LakeError(
                    f"the pseudonyms in {uri} were made by other keys ({found}) than `data.pseudonym_key` names now ({one.keys.id}).",
                    fix="Run `mis rotate`: it gives old rows the new key." if known else "Name the keys that made them, the oldest first.",
                )


def served_privacy(inputs: "Iterable[InputColumn]") -> Privacy | None:
    """What is done to a package's personal columns, for rows that are answered many at a time; None where nothing is personal."""
    found = {column.name: column.personal for column in inputs if column.personal is not None}
    keys = next((one.key for one in found.values() if one.key), ())
    return Privacy({name: one.rule for name, one in found.items()}, keys) if found else None
