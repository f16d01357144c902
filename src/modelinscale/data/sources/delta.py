"""Delta Lake tables: a snapshot first, then the rows that later versions append; local or on an object store."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SourceError, needs
from modelinscale.core.secrets import Address, reveal
from modelinscale.data.sources._versioned import AGAIN, Change, Snapshot, Version, Versioned

if TYPE_CHECKING:
    import pyarrow as pa

_SAME_ROWS = ("OPTIMIZE", "VACUUM", "SET TBLPROPERTIES", "ADD COLUMN", "ADD CONSTRAINT", "DROP CONSTRAINT", "UPDATE SCHEMA", "CREATE TABLE", "CHECKPOINT")
_APPENDS = ("STREAMING UPDATE", "COPY INTO")


class Delta(Versioned):
    """A Delta Lake table that rows are appended to.

    Compaction (OPTIMIZE) and VACUUM do no harm as long as the version read last can still be opened. Deletion vectors and column mapping are refused by
    the reader, with its own words.
    """

    path: Address
    """The table's folder or address: ``events``, ``s3://bucket/events``."""
    options: dict[str, Address] = {}
    """For object stores, as delta-rs names them: ``{aws_region: eu-central-1, aws_secret_access_key: "${ENV:AWS_SECRET_ACCESS_KEY}"}``."""

    @property
    def place(self) -> str:
        return self.path

    def snapshot(self, version: Version | None = None) -> Snapshot:
        """The table as of a version. Raises `SourceError` when it cannot be opened."""
        table = self._table(version)
        try:
            rows = table.to_pyarrow_dataset()
        except Exception as error:
            raise self._refused(error, version) from error
        parts = {fragment.path: partial(_batches, fragment, rows.schema) for fragment in rows.get_fragments()}
        return Snapshot(str(table.metadata().id), table.version(), rows.schema, parts)

    def changes(self, after: Version, until: Version) -> list[Change]:
        """What the log says of these versions. Raises `SourceError` when it was cleaned up further than that."""
        found = {int(entry["version"]): entry for entry in self._table(until).history(until - after)}
        gone = [v for v in range(after + 1, until + 1) if v not in found]
        if gone:
            raise SourceError(f"{self.path}: what version {gone[0]} did is no longer in the table's log; rows were read up to version {after}.", fix=AGAIN)
        return [_change(v, found[v]) for v in range(after + 1, until + 1)]

    def _table(self, version: Version | None) -> Any:
        deltalake = needs("deltalake", extra="delta")
        options = {name: reveal(value) for name, value in self.options.items()}
        try:
            return deltalake.DeltaTable(reveal(self.path, in_url=True), version=version, storage_options=options or None)
        except Exception as error:
            raise self._refused(error, version) from error

    def _refused(self, error: Exception, version: Version | None) -> SourceError:
        what = self.path if version is None else f"version {version} of {self.path}"
        fix = "Is it a Delta table, and are address and `options` right?" if version is None else f"Was it vacuumed? Collect before that. {AGAIN}"
        return SourceError(f"{what} cannot be read as a Delta table: {str(error).splitlines()[0] if str(error) else type(error).__name__}", fix=fix)


def _batches(fragment: Any, schema: "pa.Schema", names: list[str], n_rows: int) -> "Iterator[pa.RecordBatch]":
    try:
        yield from fragment.to_batches(schema=schema, columns=names, batch_size=n_rows, batch_readahead=2, use_threads=False)
    except (OSError, ValueError) as error:  # what the log names is not there, or is damaged
        raise SourceError(
            f"a Delta table's file {fragment.path} cannot be read: {str(error).splitlines()[0]}.",
            fix="Was it removed beside the table's log? Bring it back (or repair the table); the next collect goes on from there.",
        ) from error


def _change(version: Version, entry: dict[str, Any]) -> Change:
    word = str(entry.get("operation", "change without a name"))
    mode = str(entry.get("operationParameters", {}).get("mode", ""))
    if word in _APPENDS or (word == "WRITE" and mode == "Append"):
        return Change(version, "append", word)
    if word.startswith(_SAME_ROWS):
        return Change(version, "rewrite", word)
    return Change(version, "change", f"{word} ({mode})" if mode else word)
