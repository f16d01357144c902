"""The Open Inference Protocol v2 (REST): one named input a column, JSON or binary tensors, two named outputs.

An element of a tensor means what the same cell means in a row of ``POST /predict``, and is read by the same rules. N rows.
Source: github.com/kserve/open-inference-protocol, and Triton's binary tensor data extension.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelinscale import __version__
from modelinscale.core.errors import RequestError, did_you_mean
from modelinscale.package._cells import BadCell, Reader
from modelinscale.package.manifest import InputColumn
from modelinscale.serve._body import decode, encode
from modelinscale.serve._message import BINARY, Reply

if TYPE_CHECKING:
    from modelinscale.package import Answer, Package

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
_EXACT = 2.0**53
_SHARED_MEMORY = "shared_memory_region"
_EXAMPLE = '{"inputs": [{"name": ..., "shape": [N], "datatype": ..., "data": [...]}]}'


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


Cells = Mapping[str, Sequence[Any]]
"""The cells of other columns, from which missing ones are filled."""

_decoder = msgspec.json.Decoder(Infer)


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
        "inputs": [
            {"name": c.name, "datatype": datatype_of(c), "shape": [-1] if c.column.width is None else [-1, c.column.width]}
            for c in (*package.manifest.inputs, *_beside(package))
        ],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in outputs_of(package)],
    }


def _beside(package: "Package") -> list[InputColumn]:
    """Columns that are no inputs of the graph, and from which missing cells of inputs are filled."""
    names = {c.name for c in package.manifest.inputs}
    found = {name: raw for c in package.manifest.inputs for name, raw in c.beside.items() if name not in names}
    return [InputColumn(column=raw, input="string") for raw in found.values()]


def datatype_of(column: InputColumn) -> str:
    """The datatype that suits a column best; others are read too where they can hold its cells."""
    return {"int": "INT64", "float": "FP64", "bool": "BOOL", "string": "BYTES", "time": "BYTES", "vector": "FP32", "binary": "BYTES"}[column.accepts.type]


def outputs_of(package: "Package") -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of every output."""
    task = package.manifest.task
    if task.type == "regression":
        return [("prediction", "FP32", [-1])]
    kind = {bool: "BOOL", int: "INT64", str: "BYTES"}[type(task.labels[0])]
    return [("prediction", kind, [-1]), ("probabilities", "FP32", [-1, len(task.labels)])]


class Translator:
    """Reads requests for one package and writes answers. Holds nothing that changes."""

    def __init__(self, package: "Package", *, max_rows: int) -> None:
        self._package = package
        self._max_rows = max_rows
        self._readers = {column.name: Reader(column) for column in package.manifest.inputs}
        self._more = {column.name: Reader(column) for column in _beside(package)}
        self._beside = {name for reader in self._readers.values() for name in reader.beside}
        self._outputs = {name: (kind, shape) for name, kind, shape in outputs_of(package)}

    # Reading.

    def read(self, body: bytes | bytearray, header: bytes | None) -> Asked:
        """Takes a request apart; ``header`` is the value of Inference-Header-Content-Length. Raises `RequestError`."""
        whole = memoryview(body)
        size = _header_size(header, len(whole))
        if size == 0:
            return self._raw(whole)
        infer = decode(_decoder, whole[:size], _EXAMPLE)
        wanted = self._wanted(infer)
        found: dict[str, NDArray[Any]] = {}
        others: dict[str, list[Any]] = {}
        seen: set[str] = set()
        waiting: list[tuple[Tensor, Sequence[Any] | NDArray[Any], Reader, int]] = []
        at, n_rows = size, None
        for tensor in infer.inputs:
            reader = self._reader(tensor.name)
            if tensor.name in seen:
                raise RequestError(f"the input {tensor.name!r} is there twice.")
            seen.add(tensor.name)
            _refuse_shared_memory(tensor.parameters)
            n = self._rows_of(tensor, reader)
            if n_rows is not None and n != n_rows:
                raise RequestError(f"the input {tensor.name!r} has {n} rows, the ones before it {n_rows}.", fix="Give all inputs the same first dimension.")
            n_rows = n
            n_bytes = tensor.parameters.get("binary_data_size")
            if n_bytes is None:
                values = _from_json(tensor)
            else:
                if tensor.data is not msgspec.UNSET:
                    raise RequestError(f"the input {tensor.name!r} has both `data` and `binary_data_size`.", fix="Give one of them.")
                if type(n_bytes) is not int or n_bytes < 0 or at + n_bytes > len(whole):
                    raise RequestError(f"the input {tensor.name!r}: binary_data_size {n_bytes!r} is not there; {len(whole) - at} bytes are left.")
                values = _from_bytes(tensor.name, tensor.datatype, tensor.shape, whole[at : at + n_bytes])
                at += n_bytes
            if tensor.name in self._beside:
                others[tensor.name] = _cells(values, n, None)
            if reader.beside:
                waiting.append((tensor, values, reader, n))
            elif tensor.name in self._readers:
                found[tensor.name] = self._fed(tensor.name, tensor.datatype, values, reader, n)
        for tensor, values, reader, n in waiting:
            found[tensor.name] = self._fed(tensor.name, tensor.datatype, values, reader, n, others)
        if at != len(whole):
            raise RequestError(f"{len(whole) - at} bytes at the end belong to no input.", fix="Let the sizes in `binary_data_size` add up to what is sent.")
        return self._asked(found, n_rows, wanted, infer.id, others)

    def _raw(self, body: memoryview) -> Asked:
        """A request without JSON: all of the body is the data of the one input."""
        inputs = self._package.manifest.inputs
        if len(inputs) != 1:
            raise RequestError(f"a raw binary request needs a model with one input; this one has {len(inputs)}.", fix="Send the JSON part too.")
        column = inputs[0]
        kind = datatype_of(column)
        width = column.column.width or 1
        values: Sequence[Any] | NDArray[Any]
        if kind == "BYTES":
            n_rows, values = 1, [_text(bytes(body), column.name)]
        else:
            size = np.dtype(DTYPES[kind]).itemsize * width
            if len(body) % size:
                raise RequestError(f"{len(body)} bytes are no whole number of rows of {size} bytes ({kind}).")
            n_rows = len(body) // size
            values = np.frombuffer(body, DTYPES[kind])
        self._count(n_rows)
        return self._asked({column.name: self._fed(column.name, kind, values, self._readers[column.name], n_rows)}, n_rows, self._wanted(None), None)

    def _asked(self, found: dict[str, NDArray[Any]], n_rows: int | None, wanted: list[tuple[str, bool]], id: str | None, others: Cells | None = None) -> Asked:
        if n_rows is None:
            raise RequestError("there are no inputs.", fix=f"Inputs: {self._names()}.")
        for name, reader in self._readers.items():
            if name not in found:
                try:
                    found[name] = reader.read([None] * n_rows, others)
                except BadCell as bad:
                    raise RequestError(f"the input {name!r} is not there, expected {bad.expected}.", fix=f"Inputs: {self._names()}.") from None
        return Asked(found, n_rows, wanted, id)

    def _reader(self, name: str) -> Reader:
        reader = self._readers.get(name) or self._more.get(name)
        if reader is None:
            shown = name if len(name) <= 80 else f"{name[:80]}…"
            raise RequestError(f"there is no input {shown!r}.{did_you_mean(name[:200], list(self._readers))}", fix=f"Inputs: {self._names()}.")
        return reader

    def _names(self) -> str:
        return ", ".join(list(self._readers)[:40])

    def _rows_of(self, tensor: Tensor, reader: Reader) -> int:
        """The first dimension. [N] and [N, 1] are the same for a column of single cells."""
        shape, width = tensor.shape, reader.column.width
        expected = "[N]" if width is None else f"[N, {width}]"
        fits = len(shape) == 2 and shape[1] == width if width is not None else len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        if not fits or shape[0] < 0:
            raise RequestError(f"the input {tensor.name!r} has shape {shape[:8]}, expected {expected}.")
        self._count(shape[0])
        return shape[0]

    def _count(self, n_rows: int) -> None:
        if n_rows > self._max_rows:
            raise RequestError(f"{n_rows} rows are more than the {self._max_rows} this server takes at once.", fix="Send them in several requests.", status=413)

    def _fed(self, name: str, datatype: str, values: Sequence[Any] | NDArray[Any], reader: Reader, n_rows: int, others: Cells | None = None) -> NDArray[Any]:
        """Elements in the form the graph takes."""
        if isinstance(values, np.ndarray):
            fast = _straight(values, reader, n_rows)
            if fast is not None:
                return fast
        try:
            return reader.read(_cells(values, n_rows, reader.column.width), others)
        except BadCell as bad:
            raise RequestError(f"the input {name!r} ({datatype}), row {bad.row}: found {bad.found}, expected {bad.expected}.") from None

    def _wanted(self, infer: Infer | None) -> list[tuple[str, bool]]:
        """The outputs to give, in the order asked for; all, when none is named."""
        parameters = infer.parameters if infer is not None else {"binary_data_output": True}
        default = _flag(parameters, "binary_data_output", False)
        if infer is None or not infer.outputs:
            return [(name, default) for name in self._outputs]
        wanted: dict[str, bool] = {}
        for output in infer.outputs:
            if output.name not in self._outputs:
                name = output.name[:80]
                raise RequestError(f"there is no output {name!r}.{did_you_mean(name, list(self._outputs))}", fix=f"Outputs: {', '.join(self._outputs)}.")
            if output.name in wanted:
                raise RequestError(f"the output {output.name!r} is asked for twice.")
            _refuse_shared_memory(output.parameters)
            if output.parameters.get("classification"):
                raise RequestError("the classification extension is not supported.", fix="Ask for the output `probabilities`.")
            wanted[output.name] = _flag(output.parameters, "binary_data", default)
        return list(wanted.items())

    # Writing.

    def write(self, asked: Asked, answer: "Answer") -> Reply:
        """The answer as asked for."""
        outputs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        for name, binary in asked.outputs:
            kind, shape = self._outputs[name]
            values = answer.prediction if name == "prediction" else answer.probability
            assert values is not None
            one: dict[str, Any] = {"name": name, "datatype": kind, "shape": [asked.n_rows, *shape[1:]]}
            if binary:
                blobs.append(_to_bytes(values, kind))
                one["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                one["data"] = values.ravel().tolist()
            outputs.append(one)
        head: dict[str, Any] = {"model_name": self._package.manifest.name, "model_version": version_of(self._package)}
        if asked.id is not None:
            head["id"] = asked.id
        body = encode({**head, "outputs": outputs})
        if not blobs:
            return Reply(200, body)
        return Reply(200, b"".join((body, *blobs)), BINARY, b"inference-header-content-length: %d\r\n" % len(body))


def _header_size(header: bytes | None, size: int) -> int:
    """Bytes of the JSON part. No header: all of the body."""
    if header is None:
        return size if size else -1
    if not header.isdigit() or len(header) > 12 or int(header) > size:
        raise RequestError(f"Inference-Header-Content-Length is {header[:30].decode('latin-1')!r}, expected a number up to the body's size ({size}).")
    return int(header)


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"the parameter {name!r} is {str(value)[:40]!r}, expected true or false.")
    return value


def _refuse_shared_memory(parameters: dict[str, Any]) -> None:
    if _SHARED_MEMORY in parameters:
        raise RequestError("shared memory is not supported.", fix="Send the data in the request.")


def _cells(values: Sequence[Any] | NDArray[Any], n_rows: int, width: int | None) -> list[Any]:
    """Elements as JSON cells, one a row."""
    if isinstance(values, np.ndarray):
        return values.reshape(n_rows, width).tolist() if width is not None else values.tolist()
    return [list(values[i : i + width]) for i in range(0, n_rows * width, width)] if width is not None else list(values)


def _straight(values: NDArray[Any], reader: Reader, n_rows: int) -> NDArray[Any] | None:
    """Elements that need no thought, without a Python object each; None where the slow road must look."""
    column, kind = reader.column, values.dtype.kind
    if reader.cleans:
        return None
    if reader.input == "vector" and kind in "fiu":
        with np.errstate(over="ignore"):  # becomes infinite, and is looked at on the slow road
            vectors = np.ascontiguousarray(values.reshape(n_rows, column.width or 1), np.float32)
        return vectors if np.isfinite(vectors).all() else None
    if reader.input != "float64" or kind not in "fiu" or column.type not in ("float", "int"):
        return None
    numbers = np.ascontiguousarray(values, np.float64)
    missing = np.isnan(numbers)
    if np.isinf(numbers).any() or (reader.required and missing.any()):
        return None
    if column.type == "int" and not ((np.trunc(numbers) == numbers) & (np.abs(numbers) < _EXACT) | missing).all():
        return None
    return numbers


def _from_json(tensor: Tensor) -> Sequence[Any] | NDArray[Any]:
    """Elements in row-major order, flat: an array, or Python values where some are missing or they are text."""
    if tensor.data is msgspec.UNSET:
        raise RequestError(f"the input {tensor.name!r} has no data.", fix="Give `data`, or `binary_data_size` and the bytes.")
    flat = _flat(tensor)
    expected = math.prod(tensor.shape)
    if len(flat) != expected:
        raise RequestError(f"the input {tensor.name!r} has {len(flat)} elements, its shape {tensor.shape} needs {expected}.")
    types = set(map(type, flat))
    missing = type(None) in types
    types.discard(type(None))
    kind = tensor.datatype
    if kind == "BYTES":
        _hold(tensor, types, {str}, "strings")
        return flat
    dtype = _dtype(kind, tensor.name)
    if kind == "BOOL":
        _hold(tensor, types, {bool}, "true or false")
        return flat
    _hold(tensor, types, {int, float} if dtype.kind == "f" else {int}, "numbers" if dtype.kind == "f" else "whole numbers")
    present = [v for v in flat if v is not None] if missing else flat
    try:
        with np.errstate(over="ignore"):  # becomes infinite, and is refused below
            numbers = np.array(present, dtype)
    except OverflowError as error:
        raise RequestError(f"the input {tensor.name!r} holds a number that {kind} cannot.") from error
    if dtype.kind == "f" and not np.isfinite(numbers).all():
        raise RequestError(f"the input {tensor.name!r} holds a number that {kind} cannot.")
    if not missing:
        return numbers
    values = iter(numbers.tolist())
    return [None if v is None else next(values) for v in flat]


def _flat(tensor: Tensor) -> list[Any]:
    data, shape = tensor.data, tensor.shape
    if not isinstance(data, list):
        raise RequestError(f"the input {tensor.name!r}: `data` must be a list.")
    for depth in range(len(shape)):
        types = set(map(type, data))
        if list not in types:
            return data
        if types != {list} or depth + 1 >= len(shape) or set(map(len, data)) != {shape[depth + 1]}:
            break
        data = list(chain.from_iterable(data))
    else:
        return data
    raise RequestError(f"the input {tensor.name!r}: the lists in `data` do not nest as the shape {shape} says.", fix="Nest them so, or give one flat list.")


def _hold(tensor: Tensor, types: set[type], allowed: set[type], words: str) -> None:
    if not types <= allowed:
        wrong = sorted(t.__name__ for t in types - allowed)
        raise RequestError(f"the input {tensor.name!r} is {tensor.datatype} and must hold {words}, found {', '.join(wrong)}.")


def _dtype(kind: str, name: str) -> "np.dtype[Any]":
    if kind not in DTYPES:
        shown = kind[:40]
        raise RequestError(
            f"the input {name!r} has the datatype {shown!r}.{did_you_mean(shown, [*DTYPES, 'BYTES'])}", fix=f"Known: {', '.join(DTYPES)}, BYTES."
        )
    return np.dtype(DTYPES[kind])


def _from_bytes(name: str, kind: str, shape: list[int], data: memoryview) -> Sequence[Any] | NDArray[Any]:
    count = math.prod(shape)
    if kind == "BYTES":
        return _strings(name, data, count)
    dtype = _dtype(kind, name)
    if len(data) != count * dtype.itemsize:
        raise RequestError(f"the input {name!r} has {len(data)} bytes, its shape {shape} of {kind} needs {count * dtype.itemsize}.")
    if kind == "BOOL":
        return np.frombuffer(data, np.uint8).astype(np.bool_)
    return np.frombuffer(data, dtype)


def _strings(name: str, data: memoryview, count: int) -> list[str]:
    """Each element: its length in bytes (4 bytes, little-endian), then its bytes."""
    found: list[str] = []
    at, size = 0, len(data)
    while at < size and len(found) <= count:
        if at + 4 > size:
            break
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > size:
            break
        found.append(_text(bytes(data[at + 4 : at + 4 + length]), name))
        at += 4 + length
    if at != size or len(found) != count:
        raise RequestError(f"the input {name!r} does not hold {count} elements of BYTES (4 bytes of length, little-endian, then as many bytes).")
    return found


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the input {name!r} holds bytes that are not UTF-8.", fix="Send UTF-8 text.") from error


def _to_bytes(values: NDArray[Any], kind: str) -> bytes:
    if kind == "BYTES":
        raw = [str(v).encode() for v in values.ravel().tolist()]
        return b"".join(chain.from_iterable((struct.pack("<I", len(r)), r) for r in raw))
    return np.ascontiguousarray(values, DTYPES[kind]).tobytes()
