"""What databases reached through ADBC share: batches of an executed statement, one row, names in double quotes."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from modelinscale.data.sources._sql import Database

if TYPE_CHECKING:
    import pyarrow as pa


class Adbc(Database):
    """A database whose driver gives Arrow batches."""

    _connection: Any

    def row(self, sql: str) -> tuple[Any, ...]:
        with self.told("read"), self._connection.cursor() as cursor:
            cursor.execute(sql)
            found: tuple[Any, ...] = cursor.fetchone()
            return found

    def quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'


def batches(cursor: Any) -> Generator["pa.RecordBatch", None, None]:
    """What an executed statement gives. Close it: the driver's reader is closed with it."""
    reader = cursor.fetch_record_batch()
    try:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            yield batch
    finally:
        reader.close()
