"""Apache Iceberg tables: a snapshot first, then the rows that later snapshots append."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from modelinscale.core.errors import SourceError, SpecError, needs
from modelinscale.core.secrets import Address, reveal
from modelinscale.data.sources._versioned import AGAIN, Change, Snapshot, Version, Versioned

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = {"append": "append", "replace": "rewrite"}


class Iceberg(Versioned):
    """An Iceberg table that rows are appended to, from a catalogue (by name) or from one metadata file."""

    table: str | None = None
    """Its name in the catalogue: ``shop.orders``."""
    catalog: dict[str, Address] = {}
    """The catalogue, as PyIceberg takes it: ``{type: rest, uri: https://...}``, ``{type: sql, uri: sqlite:///catalog.db}``. ``name``: ``default``."""
    metadata: Address | None = None
    """Instead of a catalogue: the address of a ``metadata.json``. Such a table never has a newer version."""
    options: dict[str, Address] = {}
    """For object stores, as PyIceberg names them: ``{s3.region: eu-central-1, s3.secret-access-key: "${ENV:AWS_SECRET_ACCESS_KEY}"}``."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.metadata is None) == (self.table is None):
            raise SpecError("an Iceberg table is named by `table` (with `catalog`) or by `metadata`.", fix="Give one of the two.")
        if self.table is not None and not self.catalog:
            raise SpecError("`table` needs a `catalog`.", fix="For example `catalog: {type: rest, uri: https://catalog.example.org}`.")
        return self

    @property
    def place(self) -> str:
        return str(self.table or self.metadata)

    def snapshot(self, version: Version | None = None) -> Snapshot:
        """The table as of a snapshot. Raises `SourceError` when it cannot be opened."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        table = self._open()
        chosen = table.current_snapshot() if version is None else table.snapshot_by_id(version)
        schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
        if chosen is None:
            if version is None:
                return Snapshot(str(table.metadata.table_uuid), 0, schema, {})
            raise SourceError(f"{self.place} has no snapshot {version} any more.", fix=f"Was it expired? Collect before that. {AGAIN}")
        tasks = {task.file.file_path: task for task in table.scan(snapshot_id=chosen.snapshot_id).plan_files()}
        return Snapshot(str(table.metadata.table_uuid), int(chosen.snapshot_id), schema, {n: partial(_batches, table, t) for n, t in tasks.items()})

    def changes(self, after: Version, until: Version) -> list[Change]:
        """What the snapshots between two did, followed back through their parents. Raises `SourceError` when one is not among them."""
        table, found, at = self._open(), [], until
        while at != after:
            one = table.snapshot_by_id(at) if at else None
            if one is None:
                raise SourceError(
                    f"{self.place}: its snapshots no longer lead back to {after}, which was read last.", fix=f"Were they expired or rolled back? {AGAIN}"
                )
            word = one.summary.operation.value if one.summary else "change without a name"
            found.append(Change(at, _KINDS.get(word, "change"), word))  # type: ignore[arg-type]
            at = one.parent_snapshot_id or 0
        return found[::-1]

    def _open(self) -> Any:
        needs("pyiceberg", extra="iceberg")
        from pyiceberg.catalog import load_catalog
        from pyiceberg.table import StaticTable

        options = {name: reveal(value) for name, value in self.options.items()}
        try:
            if self.metadata is not None:
                return StaticTable.from_metadata(reveal(self.metadata, in_url=True), options)
            properties = {name: reveal(value, in_url=True) for name, value in self.catalog.items()}
            return load_catalog(properties.pop("name", "default"), **options, **properties).load_table(str(self.table))
        except Exception as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceError(
                f"{self.place} cannot be opened as an Iceberg table: {words}", fix="Check `table`, `catalog` or `metadata`, and `options`."
            ) from error


def _batches(table: Any, task: Any, names: list[str], n_rows: int) -> "Iterator[pa.RecordBatch]":
    """One data file with its deletes applied."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    for batch in ArrowScan(table.metadata, table.io, table.schema().select(*names), AlwaysTrue()).to_record_batches([task]):
        for start in range(0, batch.num_rows, n_rows):
            yield batch.slice(start, n_rows)
