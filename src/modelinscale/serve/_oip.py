"""The Open Inference Protocol v2 (REST): one named input a column, JSON or binary tensors, two named outputs.

An element of a tensor means what the same cell means in a row of ``POST /predict``, and is read by the same rules. N rows.
Source: github.com/kserve/open-inference-protocol, and Triton's binary tensor data extension.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import RequestError, did_you_mean
from modelinscale.package._cells import BadCell, ColumnReader
from modelinscale.package._images import reader_of
from modelinscale.serve._body import decode, encode
from modelinscale.serve._message import BINARY, Reply
from modelinscale.serve._oip_form import DTYPES, Asked, Infer, Tensor, beside_columns, datatype_of, outputs_of, version_of
from modelinscale.serve._oip_tensors import as_cells, from_bytes, from_json, sequences, straight, to_bytes, utf8

if TYPE_CHECKING:
    from modelinscale.package import Answer, Package


_SHARED_MEMORY = "shared_memory_region"
_EXAMPLE = '{"inputs": [{"name": ..., "shape": [N], "datatype": ..., "data": [...]}]}'
Cells = Mapping[str, Sequence[Any]]
"""The cells of other columns, from which missing ones are filled."""
_decoder = msgspec.json.Decoder(Infer)


class Translator:
    """Reads requests for one package and writes answers. Holds nothing that changes."""

    def __init__(self, package: "Package", *, max_rows: int) -> None:
        self._package = package
        self._max_rows = max_rows
        self._readers = {column.name: reader_of(column) for column in package.manifest.inputs}
        self._more = {column.name: reader_of(column) for column in beside_columns(package)}
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
        waiting: list[tuple[Tensor, Sequence[Any] | NDArray[Any], ColumnReader, int]] = []
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
                values = from_json(tensor)
            else:
                if tensor.data is not msgspec.UNSET:
                    raise RequestError(f"the input {tensor.name!r} has both `data` and `binary_data_size`.", fix="Give one of them.")
                if type(n_bytes) is not int or n_bytes < 0 or at + n_bytes > len(whole):
                    raise RequestError(f"the input {tensor.name!r}: binary_data_size {n_bytes!r} is not there; {len(whole) - at} bytes are left.")
                values = from_bytes(tensor.name, tensor.datatype, tensor.shape, whole[at : at + n_bytes], as_they_are=reader.input == "image")
                at += n_bytes
            if tensor.name in self._beside:
                others[tensor.name] = as_cells(values, n, None)
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
            n_rows, values = 1, [bytes(body) if column.input == "image" else utf8(bytes(body), column.name)]
        else:
            size = np.dtype(DTYPES[kind]).itemsize * width
            if len(body) % size:
                raise RequestError(f"{len(body)} bytes are no whole number of rows of {size} bytes ({kind}).")
            n_rows = 1 if column.input == "sequence" else len(body) // size  # of a sequence all steps
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

    def _reader(self, name: str) -> ColumnReader:
        reader = self._readers.get(name) or self._more.get(name)
        if reader is None:
            shown = name if len(name) <= 80 else f"{name[:80]}…"
            raise RequestError(f"there is no input {shown!r}.{did_you_mean(name[:200], list(self._readers))}", fix=f"Inputs: {self._names()}.")
        return reader

    def _names(self) -> str:
        return ", ".join(list(self._readers)[:40])

    def _rows_of(self, tensor: Tensor, reader: ColumnReader) -> int:
        """The first dimension. [N] and [N, 1] are the same for a column of single cells."""
        shape, width = tensor.shape, reader.column.width
        if reader.input == "sequence":
            if len(shape) != 3 - (len(shape) == 2 and width == 1) or (len(shape) == 3 and shape[2] != width) or min(shape) < 0:
                raise RequestError(f"the input {tensor.name!r} has shape {shape[:8]}, expected [N, steps, {width}].")
            self._count(shape[0])
            return shape[0]
        expected = "[N]" if width is None else f"[N, {width}]"
        fits = len(shape) == 2 and shape[1] == width if width is not None else len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        if not fits or shape[0] < 0:
            raise RequestError(f"the input {tensor.name!r} has shape {shape[:8]}, expected {expected}.")
        self._count(shape[0])
        return shape[0]

    def _count(self, n_rows: int) -> None:
        if n_rows > self._max_rows:
            raise RequestError(f"{n_rows} rows are more than the {self._max_rows} this server takes at once.", fix="Send them in several requests.", status=413)

    def _fed(
        self, name: str, datatype: str, values: Sequence[Any] | NDArray[Any], reader: ColumnReader, n_rows: int, others: Cells | None = None
    ) -> NDArray[Any]:
        """Elements in the form the graph takes."""
        if isinstance(values, np.ndarray):
            fast = straight(values, reader, n_rows)
            if fast is not None:
                return fast
        try:
            steps = reader.input == "sequence" and datatype != "BYTES"
            cells = sequences(values, n_rows, reader.column.width or 1) if steps else as_cells(values, n_rows, reader.column.width)
            return reader.read(cells, others)
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
                blobs.append(to_bytes(values, kind))
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
