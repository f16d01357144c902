"""Small public data sets that come with scikit-learn: for a first try, nothing is downloaded."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from modelinscale.core.schema import Schema
from modelinscale.data.sources import Chunk, Cursor, Source

if TYPE_CHECKING:
    import pyarrow as pa

Name = Literal["iris", "wine", "breast_cancer", "diabetes", "digits"]


class Dataset(Source):
    """A data set bundled with scikit-learn; its answers are the column ``target`` (class names, or a number for diabetes)."""

    name: Name
    """iris (150 rows), wine (178) and digits (1,797): classes; breast_cancer (569): two classes; diabetes (442): a number."""
    rows: int = Field(65_536, ge=1)
    """Rows read at a time."""

    typed: ClassVar[bool] = True

    def columns(self) -> Schema:
        from modelinscale.data.infer import infer

        return infer(self.sample(), typed=self.typed)

    def sample(self) -> "pa.Table":
        """All of it."""
        return _table(self.name)

    def read(self, after: Cursor | None, schema: Schema) -> Iterator[Chunk]:
        table = _table(self.name).select(list(schema.names))
        first = after["read"] if after else 0
        while first < table.num_rows:
            batch = table.slice(first, self.rows).combine_chunks().to_batches()[0]
            yield Chunk(batch, {"read": first + batch.num_rows}, f"{self.name}, from row {first + 1}")
            first += batch.num_rows

    def feed(self) -> Any:
        """The set's name."""
        return {"type": self.type, "name": self.name}

    def fingerprint(self) -> Any:
        """The set's name and scikit-learn's version: the bundled rows never change within one."""
        import sklearn

        return [self.name, sklearn.__version__]


def _table(name: Name) -> "pa.Table":
    """Feature columns under their published names (digits: one vector of 64 grey values), then ``target``."""
    import numpy as np
    import pyarrow as pa
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    columns: dict[str, pa.Array] = {}
    if name == "digits":
        columns["pixels"] = pa.FixedSizeListArray.from_arrays(pa.array(bunch.data.astype(np.float32).reshape(-1)), bunch.data.shape[1])
    else:
        columns = {str(n): pa.array(bunch.data[:, i].astype(np.float64)) for i, n in enumerate(bunch.feature_names)}
    if name in ("diabetes", "digits"):
        columns["target"] = pa.array(bunch.target)
    else:
        columns["target"] = pa.array(np.asarray(bunch.target_names, dtype=object)[bunch.target], pa.string())
    return pa.table(columns)
