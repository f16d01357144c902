"""The messages of the Open Inference Protocol v2: what a request may say, and what a model tells of itself."""

from typing import TYPE_CHECKING, Any

import msgspec
from numpy.typing import NDArray

from modelinscale import __version__
from modelinscale.package.manifest import InputColumn

if TYPE_CHECKING:
    from modelinscale.package import Package


DTYPES = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Fixed-size datatypes as NumPy has them; BYTES is the other one."""


class Tensor(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: dict[str, Any] = {}


class Wanted(msgspec.Struct):
    """One output asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Infer(msgspec.Struct):
    """The JSON part of an inference request."""

    inputs: list[Tensor]
    outputs: list[Wanted] = []
    id: str | None = None
    parameters: dict[str, Any] = {}


class Asked(msgspec.Struct):
    """A request as far as the model is concerned: graph inputs of equal length, and how to answer."""

    tensors: dict[str, NDArray[Any]]
    n_rows: int
    outputs: list[tuple[str, bool]]
    """Name, and whether its data goes in binary."""
    id: str | None


def server_metadata() -> dict[str, Any]:
    """The answer to ``GET /v2``."""
    return {"name": "modelinscale", "version": __version__, "extensions": ["binary_tensor_data"]}


def version_of(package: "Package") -> str:
    """The version in addresses and answers: the registry's number, or the content identity of a package that was never registered."""
    return str(package.manifest.version) if package.manifest.version is not None else package.manifest.identity


def model_metadata(package: "Package") -> dict[str, Any]:
    """The answer to ``GET /v2/models/NAME``."""
    return {
        "name": package.manifest.name,
        "versions": [version_of(package)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": c.name, "datatype": datatype_of(c), "shape": shape_of(c)} for c in (*package.manifest.inputs, *beside_columns(package))],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in outputs_of(package)],
    }


def beside_columns(package: "Package") -> list[InputColumn]:
    """Columns that are no inputs of the graph, and from which missing cells of inputs are filled."""
    names = {c.name for c in package.manifest.inputs}
    found = {name: raw for c in package.manifest.inputs for name, raw in c.beside.items() if name not in names}
    return [InputColumn(column=raw, input="string") for raw in found.values()]


def datatype_of(column: InputColumn) -> str:
    """The datatype that suits a column best; others are read too where they can hold its cells."""
    kinds = {"int": "INT64", "float": "FP64", "bool": "BOOL", "string": "BYTES", "time": "BYTES", "vector": "FP32", "sequence": "FP32", "binary": "BYTES"}
    return kinds[column.accepts.type]


def shape_of(column: InputColumn) -> list[int]:
    """Rows first, of any number; then the numbers of a vector, or the steps of a sequence, of any number too, and its channels."""
    width = column.column.width
    return [-1] if width is None else [-1, width] if column.column.type == "vector" else [-1, -1, width]


def outputs_of(package: "Package") -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of every output."""
    task = package.manifest.task
    if task.numbers:
        return [("prediction", "FP32", [-1, task.n_scores] if task.several else [-1])]
    if task.type == "multilabel":
        return [("prediction", "BOOL", [-1, task.n_scores]), ("probabilities", "FP32", [-1, task.n_scores])]
    kind = {bool: "BOOL", int: "INT64", str: "BYTES"}[type(task.labels[0])]
    return [("prediction", kind, [-1]), ("probabilities", "FP32", [-1, len(task.labels)])]
