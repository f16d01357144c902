"""Image cells to pixels: what `_cells.Reader` is for every other column. N rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core import pixels
from modelinscale.package._cell_rules import describe
from modelinscale.package._cells import BadCell, ColumnReader, Reader
from modelinscale.package.manifest import InputColumn


class ImageReader(ColumnReader):
    """Reads one column of images: base64 text as JSON carries it, or the bytes of a file from Python callers."""

    def __init__(self, spec: InputColumn) -> None:
        super().__init__(spec)
        self.cleans = True

    def read(self, cells: list[Any], others: Mapping[str, Sequence[Any]] | None = None) -> NDArray[Any]:
        found = np.empty(len(cells), object)
        for row, cell in enumerate(cells):
            try:
                found[row] = self._one(cell)
            except pixels.ImageError as error:
                raise BadCell(row, error.message.removesuffix("."), describe(self.accepts)) from None
            except TypeError:
                raise BadCell(row, f"a cell of type {type(cell).__name__}", describe(self.accepts)) from None
        return found

    def _one(self, cell: Any) -> pixels.Pixels:
        if cell is None or cell in ("", b""):
            if self.required:
                raise pixels.ImageError("no image")
            return pixels.missing()
        if isinstance(cell, str):
            cell = pixels.from_text(cell)
        if not isinstance(cell, bytes):
            raise TypeError
        return pixels.decode(cell)


def reader_of(column: InputColumn) -> ColumnReader:
    """What reads the cells of this column."""
    return ImageReader(column) if column.input == "image" else Reader(column)
