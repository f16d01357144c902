"""Lance tables of others: a snapshot first, then the rows that later versions append; local or on an object store."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import SourceError, needs
from modelinscale.core.secrets import Address, reveal
from modelinscale.data.sources._versioned import AGAIN, Change, Snapshot, Version, Versioned

if TYPE_CHECKING:
    import pyarrow as pa

_SAME_PARTS = ("Append", "CreateIndex", "ReserveFragments", "UpdateConfig", "UpdateMap", "Project", "Merge")
_SAME_ROWS = ("Rewrite", "BaseOperation")  # what compaction does is not named to Python
_IO_BYTES = 64 << 20


class Lance(Versioned):
    """A Lance table that rows are appended to. The lake of another project is one, too: the columns it adds for itself are left out."""

    path: Address
    """The table's folder or address: ``events.lance``, ``s3://bucket/events.lance``."""
    options: dict[str, Address] = {}
    """For object stores, as Lance names them: ``{aws_region: eu-central-1, aws_secret_access_key: "${ENV:AWS_SECRET_ACCESS_KEY}"}``."""

    @property
    def place(self) -> str:
        return self.path

    def snapshot(self, version: Version | None = None) -> Snapshot:
        """The table as of a version. Raises `SourceError` when it cannot be opened."""
        table = self._table(version)
        parts = {f"fragment {f.fragment_id:06d}": partial(_batches, table, f) for f in table.get_fragments()}
        made = next(iter(table.get_transactions(1)), None)
        return Snapshot(str(made.uuid) if made else "", int(table.version), table.schema, parts)

    def changes(self, after: Version, until: Version) -> list[Change]:
        """What the transactions of these versions did. Raises `SourceError` when some were cleaned up."""
        found = list(reversed(self._table(until).get_transactions(until - after)))
        if len(found) < until - after or None in found:
            raise SourceError(f"{self.path}: what the versions after {after} did is no longer known.", fix=AGAIN)
        return [_change(after + 1 + i, type(one.operation).__name__) for i, one in enumerate(found)]

    def _table(self, version: Version | None) -> Any:
        lance = needs("lance", extra="lance")
        options = {name: reveal(value) for name, value in self.options.items()}
        try:
            return lance.dataset(reveal(self.path, in_url=True), version=version, storage_options=options or None)
        except (OSError, ValueError, RuntimeError) as error:
            what = self.path if version is None else f"version {version} of {self.path}"
            fix = "Is it a Lance table, and are address and `options` right?" if version is None else f"Was it cleaned up? Collect before that. {AGAIN}"
            raise SourceError(f"{what} cannot be read as a Lance table: {_short(error)}.", fix=fix) from error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0].split(", rust/")[0].rstrip(" .")[:200]


def _batches(table: Any, fragment: Any, names: list[str], n_rows: int) -> "Iterator[pa.RecordBatch]":
    yield from table.scanner(columns=names, fragments=[fragment], batch_size=n_rows, batch_readahead=2, io_buffer_size=_IO_BYTES).to_batches()


def _change(version: Version, word: str) -> Change:
    return Change(version, "append" if word in _SAME_PARTS else "rewrite" if word in _SAME_ROWS else "change", word)
