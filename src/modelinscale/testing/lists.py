"""A source for tests: rows given as text, resumable, in chunks of a few rows, with broken ones where asked."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from modelinscale.core.schema import Schema
from modelinscale.data.sources import Chunk, Cursor, Source


class Lists(Source):
    """Rows given in the settings, as text."""

    rows: dict[str, tuple[str | None, ...]]
    chunk_rows: int = 3
    broken: dict[int, str] = {}

    def columns(self) -> Schema:
        raise NotImplementedError

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        n_rows = len(next(iter(self.rows.values())))
        for start in range((after or {"row": 0})["row"], n_rows, self.chunk_rows):
            end = min(start + self.chunk_rows, n_rows)
            data: dict[str, Any] = {name: pa.array(cells[start:end], pa.string()) for name, cells in self.rows.items()}
            if self.broken:
                data["_mis_broken"] = pa.array([self.broken.get(i) for i in range(start, end)], pa.string())
            yield Chunk(pa.record_batch(data), {"row": end}, f"list, from row {start + 1}")

    def fingerprint(self) -> Any:
        return len(next(iter(self.rows.values())))
