"""The artefact: one folder that turns raw rows into decisions, read with NumPy and ONNX Runtime only.

``open_package`` checks every file and replays golden rows before it lets anybody use the model.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import PackageError, RequestError, did_you_mean
from modelinscale.core.steps import padded
from modelinscale.core.task import Label, Task
from modelinscale.core.tokenizer import Tokenizer, tokenizer, tokens_of
from modelinscale.package._cells import BadCell
from modelinscale.package._images import reader_of
from modelinscale.package.manifest import FILES, FileFacts, InputColumn, Lineage, Manifest, Parity, read_manifest

__all__ = ["Answer", "InputColumn", "Lineage", "Manifest", "Package", "Parity", "copy_package", "open_package", "start"]

_SHOWN_FAULTS = 5
_GRAPH_BYTES = 16 << 20
"""About how much the graph may hold of the rows it works on at once: within any `compute.memory` that a run can do with."""
_IMAGE_COPIES = 12
"""Bytes that the graph holds for each byte of an image while it changes its size: as float32, and half of it once more."""
_DTYPES = {
    "float64": np.dtype(np.float64), "int64": np.dtype(np.int64), "vector": np.dtype(np.float32),
    "string": np.dtype(object), "image": np.dtype(object), "sequence": np.dtype(object),
}  # fmt: skip
_STEP_COPIES = 24
"""Bytes that the graph holds for each byte of a sequence while it standardises or sums it up: as float64 and int64, some at a time."""


@dataclass(frozen=True)
class Answer:
    """What the graph says of N rows."""

    prediction: NDArray[Any]
    """(N,): labels (object of str, int64, bool) or numbers (float32); (N, W): several numbers, or flags of several labels."""
    probability: NDArray[np.float32] | None
    """(N, C) in the order of ``task.labels``, rows summing to 1; None for regression."""

    def __len__(self) -> int:
        return len(self.prediction)


class Package:
    """An opened package. All methods may be called from several threads at once; nothing it holds changes."""

    def __init__(self, manifest: Manifest, session: Any, folder: Path | None = None, tokenizers: Mapping[str, Tokenizer] | None = None) -> None:
        """Takes parts that were checked already: use `open_package`. ``tokenizers``: by column, what the host cuts texts with."""
        self.manifest = manifest
        self.folder = folder
        self._session = session
        self._readers = [reader_of(column) for column in manifest.inputs]
        self._tokenizers = dict(tokenizers or {})
        self._images = [column.name for column in manifest.inputs if column.input == "image"]
        self._sequences = {column.name: column.column.width or 1 for column in manifest.inputs if column.input == "sequence"}
        self._known = frozenset(c.name for c in manifest.inputs) | frozenset(manifest.ignored)
        self._outputs = ["prediction"] if manifest.task.numbers else ["prediction", "probabilities"]
        self._labels = [label_key(label) for label in manifest.task.labels]

    def __reduce__(self) -> tuple[Any, ...]:
        # A session cannot travel. Its graph does, and answers the golden rows again where it arrives: another ONNX Runtime may be there.
        assert self.folder is not None, "a package that was never written cannot be sent anywhere"
        return _opened, (self.manifest, self.folder, *(_verified(self.folder, name, self.manifest.files[name]) for name in ("model.onnx", "golden.json")))

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int | None:
        return self.manifest.version

    @property
    def task(self) -> Task:
        return self.manifest.task

    @property
    def inputs(self) -> tuple[InputColumn, ...]:
        """The raw columns, in the order of the graph."""
        return self.manifest.inputs

    @property
    def label_keys(self) -> tuple[str, ...]:
        """The classes as JSON keys, in the order of the probabilities: text as it is, numbers in digits, ``true`` / ``false``."""
        return tuple(self._labels)

    @cached_property
    def reference(self) -> dict[str, Any]:
        """What training saw: feature states and summaries of the target and of the scores, for later comparison."""
        assert self.folder is not None, "a package that was never written has no reference"
        return cast("dict[str, Any]", _json(self.folder / "reference.json"))

    @cached_property
    def card(self) -> str:
        """The model card, in Markdown."""
        assert self.folder is not None, "a package that was never written has no card"
        return (self.folder / "card.md").read_text(encoding="utf-8")

    def tensors(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        """Rows as a client sends them (column name -> JSON cell) as graph inputs, all columns of length N.

        A missing column counts as a missing cell. Raises `RequestError` (status 422) naming row, column, what was found and what was expected:
        for cells that cannot be read, for missing ones where a value must be, for unknown columns. Row numbers start at 0.
        """
        self._refuse_unknown(rows)
        found: dict[str, NDArray[Any]] = {}
        faults: list[tuple[int, str]] = []
        for reader in self._readers:
            name = reader.name
            try:
                found[name] = reader.read([row.get(name) for row in rows], {other: [row.get(other) for row in rows] for other in reader.beside})
            except BadCell as bad:
                there = name in rows[bad.row]
                faults.append((bad.row, f"row {bad.row}, column {name!r}: {f'found {bad.found}' if there else 'it is not there'}, expected {bad.expected}"))
        if faults:
            words = [text for _, text in sorted(faults)]
            more = f" (and {len(words) - _SHOWN_FAULTS} more columns)" if len(words) > _SHOWN_FAULTS else ""
            raise RequestError(f"{'; '.join(words[:_SHOWN_FAULTS])}{more}.", status=422)
        return found

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> Answer:
        """The graph's answer for ready tensors (see `inputs`): float64 (N,), object of str (N,), int64 (N,), float32 (N, width).

        Raises `RequestError` for missing or unknown tensors, wrong element types, wrong shapes.
        """
        n_rows = self._checked(tensors)
        if n_rows == 0:
            return self._nothing()
        return self._run({c.name: tensors[c.name] for c in self.manifest.inputs}, n_rows)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """For every row ``{"prediction": label or number, "probabilities": {label: p}}`` (for numbers no probabilities; of several numbers a list, or an
        object with the names of their columns, of quantiles ``{level: number}``, of several labels the list of those that are given), JSON-ready."""
        tensors = self.tensors(rows)
        if not len(rows):
            return []
        return self.shown(self._run(tensors, len(rows)))

    def shown(self, answer: Answer) -> list[dict[str, Any]]:
        """An answer as JSON-ready rows."""
        predictions = answer.prediction.tolist()
        if answer.probability is None:
            keys = self.task.answer_keys
            return [{"prediction": dict(zip(keys, p, strict=True)) if keys else p} for p in predictions]
        labels = self._labels
        if self.task.type == "multilabel":
            predictions = [self.given(flags) for flags in predictions]
        return [{"prediction": p, "probabilities": dict(zip(labels, q, strict=True))} for p, q in zip(predictions, answer.probability.tolist(), strict=True)]

    def given(self, flags: Sequence[bool]) -> list[Label]:
        """The labels that are given, in the order of all."""
        return [label for label, flag in zip(self.task.labels, flags, strict=True) if flag]

    def _run(self, tensors: Mapping[str, NDArray[Any]], n_rows: int) -> Answer:
        """Runs the graph on as many rows at once as fit into `_GRAPH_BYTES`; every row is answered by itself, so the cut changes nothing."""
        tensors = {**tensors, **{tokens_of(name): one.ids(tensors[name].tolist()).astype(np.int64) for name, one in self._tokenizers.items()}}
        if self._images or self._sequences:
            return self._answer(self._by_size(tensors, n_rows))
        most = self._most_rows(tensors) if n_rows > 1 else 1
        if n_rows <= most:
            return self._answer(self._session.run(self._outputs, tensors))
        parts = [self._session.run(self._outputs, {k: v[i : i + most] for k, v in tensors.items()}) for i in range(0, n_rows, most)]
        return self._answer([np.concatenate(columns) for columns in zip(*parts, strict=True)])

    def _by_size(self, tensors: Mapping[str, NDArray[Any]], n_rows: int) -> list[NDArray[Any]]:
        """The outputs of rows with images or sequences: one call of the graph takes images of one size and as many steps, so rows of the same sizes,
        and of about as many steps, go together; shorter sequences are filled up."""
        sizes: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for i in range(n_rows):
            shapes = [tensors[name][i].shape for name in self._images]
            shapes += [((1 << max(0, len(tensors[name][i]) - 1).bit_length()), width) for name, width in self._sequences.items()]
            sizes.setdefault(tuple(shapes), []).append(i)
        found: list[NDArray[Any]] | None = None
        for key, index in sizes.items():
            row_bytes = self.manifest.row_bytes + sum(math.prod(shape) * (4 * _STEP_COPIES if len(shape) == 2 else _IMAGE_COPIES) for shape in key)
            most = max(1, _GRAPH_BYTES // row_bytes)
            for start in range(0, len(index), most):
                at = index[start : start + most]
                part = {k: np.stack(v[at].tolist()) if k in self._images else v[at] for k, v in tensors.items()}
                part |= {k: padded(part[k].tolist(), width) for k, width in self._sequences.items()}
                outputs = self._session.run(self._outputs, part)
                if len(at) == n_rows:
                    return list(outputs)
                found = found or [np.empty((n_rows, *one.shape[1:]), one.dtype) for one in outputs]
                for whole, one in zip(found, outputs, strict=True):
                    whole[at] = one
        assert found is not None, "there are rows"
        return found

    def _most_rows(self, tensors: Mapping[str, NDArray[Any]]) -> int:
        # A text is taken apart into as many words as the longest of its batch has, each a string object of 32 bytes; a word is two characters at least.
        longest = max((max(map(len, v)) for v in tensors.values() if v.dtype == object), default=0)
        return max(1, _GRAPH_BYTES // max(1, self.manifest.row_bytes + longest // 2 * 32))

    def _answer(self, outputs: list[Any]) -> Answer:
        return Answer(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def _nothing(self) -> Answer:
        label = self.task.labels[0] if self.task.labels else 0.0
        kind = bool if self.task.type == "multilabel" else type(label)
        dtype = np.dtype({bool: np.bool_, int: np.int64, str: object, float: np.float32}[kind])
        shape = (0, self.task.n_scores) if self.task.several else (0,)
        return Answer(np.empty(shape, dtype), None if self.task.numbers else np.empty((0, len(self._labels)), np.float32))

    def _refuse_unknown(self, rows: Sequence[Mapping[str, Any]]) -> None:
        known = self._known
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise RequestError(f"row {i}: found {type(row).__name__}, expected an object with one entry a column.", status=422)
            if row.keys() <= known:
                continue
            name = str(next(key for key in row if key not in known))
            shown = name if len(name) <= 80 else f"{name[:80]}…"
            raise RequestError(
                f"row {i}: there is no column {shown!r}.{did_you_mean(name[:200], list(self._known))}",
                fix=f"Columns: {', '.join(c.name for c in self.manifest.inputs[:40])}.",
                status=422,
            )

    def _checked(self, tensors: Mapping[str, NDArray[Any]]) -> int:
        n_rows: int | None = None
        for column in self.manifest.inputs:
            tensor = tensors.get(column.name)
            if tensor is None:
                raise RequestError(f"the input {column.name!r} is not there.", fix=f"Inputs: {', '.join(c.name for c in self.manifest.inputs)}.")
            shape = (len(tensor) if tensor.ndim else 0, *(() if column.column.width is None or column.input != "vector" else (column.column.width,)))
            if tensor.shape != shape:
                raise RequestError(f"the input {column.name!r} has shape {list(tensor.shape)}, expected {['N', *shape[1:]]}.", status=422)
            if column.input == "image" and not all(_is_image(one) for one in tensor):
                fix = "Give uint8 arrays of shape [height, width, 3]."
                raise RequestError(f"the input {column.name!r} holds something else than images.", fix=fix, status=422)
            if column.input == "sequence" and not all(_is_steps(one, column.column.width or 1) for one in tensor):
                fix = f"Give float32 arrays of shape [steps, {column.column.width}]."
                raise RequestError(f"the input {column.name!r} holds something else than sequences.", fix=fix, status=422)
            if tensor.dtype != _DTYPES[column.input]:
                raise RequestError(f"the input {column.name!r} holds {tensor.dtype}, expected {_DTYPES[column.input]}.", status=422)
            if n_rows is not None and len(tensor) != n_rows:
                raise RequestError(f"the input {column.name!r} has {len(tensor)} rows, the ones before it {n_rows}.", status=422)
            n_rows = len(tensor)
        if len(tensors) > len(self.manifest.inputs):
            extra = next(name for name in tensors if all(c.name != name for c in self.manifest.inputs))
            raise RequestError(f"there is no input {extra!r}.{did_you_mean(extra, [c.name for c in self.manifest.inputs])}")
        return n_rows or 0


def _is_image(one: Any) -> bool:
    return isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3 and one.size > 0


def _is_steps(one: Any, width: int) -> bool:
    return isinstance(one, np.ndarray) and one.dtype == np.float32 and one.ndim == 2 and one.shape[1] == width


def label_key(label: Label) -> str:
    """A class as a JSON key.

    >>> label_key(True), label_key(3), label_key("a")
    ('true', '3', 'a')
    """
    return str(label).lower() if isinstance(label, bool) else str(label)


def start(model: bytes, *, n_threads: int = 1) -> Any:
    """An ONNX Runtime session of a graph: one thread (callers bring their own parallelism), quiet, repeatable.

    Raises `PackageError` when the bytes are no graph that this ONNX Runtime can run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    # Threads of a server must not burn a core while they wait for the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise PackageError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the graph: {str(error)[:300]}.",
            fix="Use the version the package was made with, or a newer one.",
        ) from error


def open_package(folder: Path | str) -> Package:
    """Opens a package folder: checks format, size and SHA-256 of every file, then replays the golden rows.

    Raises `PackageError` that names the file and what was expected, or tells the golden row that is answered otherwise than when the package was made.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    contents = {name: _verified(folder, name, manifest.files[name]) for name in FILES}
    return _opened(manifest, folder, contents["model.onnx"], contents["golden.json"])


def _opened(manifest: Manifest, folder: Path, model: bytes, golden: bytes) -> Package:
    package = Package(manifest, start(model), folder, _tokenizers(manifest, folder))
    _fits(package)
    replay(package, _json(folder / "golden.json", golden))
    return package


def _tokenizers(manifest: Manifest, folder: Path) -> dict[str, Tokenizer]:
    """What the host cuts texts with, by column, from the states of their features."""
    wanted = {column.name: column.tokens for column in manifest.inputs if column.tokens is not None}
    if not wanted:
        return {}
    states = _json(folder / "reference.json", _verified(folder, "reference.json", manifest.files["reference.json"]))
    try:
        found = {name: tokenizer(states["features"][name]["state"]["tokenizer"]["content"], tokens.longest) for name, tokens in wanted.items()}
    except (KeyError, TypeError) as error:
        raise PackageError(f"{folder}: reference.json lacks the tokenizer of a column ({error}).", fix=_AGAIN) from error
    for name, one in found.items():
        if one.sha256 != wanted[name].sha256:
            raise PackageError(f"{folder}: the tokenizer of {name!r} is {one.sha256}, the manifest says {wanted[name].sha256}.", fix=_AGAIN)
    return found


def replay(package: Package, golden: Any) -> None:
    """Answers the golden rows again. Raises `PackageError` showing the first one answered otherwise."""
    try:
        rows, answers, tolerance = golden["rows"], golden["answers"], float(golden["tolerance"])
    except (TypeError, KeyError, ValueError) as error:
        raise PackageError(f"{package.folder}: golden.json does not hold rows, answers and tolerance.", fix=_AGAIN) from error
    if len(rows) != len(answers):
        raise PackageError(f"{package.folder}: golden.json holds {len(rows)} rows and {len(answers)} answers.", fix=_AGAIN)
    for i, (found, expected) in enumerate(zip(package.predict(rows), answers, strict=True)):
        if not _same(found, expected, tolerance):
            raise PackageError(
                f"{package.folder}: golden row {i} is answered {json.dumps(found)}, expected {json.dumps(expected)} (within {tolerance:g}).",
                fix="This machine's ONNX Runtime answers otherwise than the one the package was made with: use that version, or make the package again.",
            )


def copy_package(source: Path, target: Path, *, version: int) -> None:
    """Copies a package into an existing empty folder, with a registry number stamped into its manifest. Raises `PackageError` for a damaged source."""
    import shutil

    manifest = read_manifest(source)
    for name in FILES:
        _verified(source, name, manifest.files[name])
        shutil.copyfile(source / name, target / name)
    manifest.but(version=version).write(target)


def _verified(folder: Path, name: str, facts: FileFacts) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise PackageError(f"{path} is missing.", fix=_AGAIN) from error
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}.", fix="Give this user the right to read the package.") from error
    if len(content) != facts.size_bytes:
        raise PackageError(f"{path} holds {len(content):,} bytes, expected {facts.size_bytes:,}: it was cut off or altered.", fix=_AGAIN)
    found = hashlib.sha256(content).hexdigest()
    if found != facts.sha256:
        raise PackageError(f"{path} was altered: its SHA-256 is {found[:16]}…, expected {facts.sha256[:16]}….", fix=_AGAIN)
    return content


def _json(path: Path, content: bytes | None = None) -> Any:
    try:
        return json.loads(path.read_bytes() if content is None else content)
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not whole JSON ({error}).", fix=_AGAIN) from error


def _fits(package: Package) -> None:
    """Refuses a graph that takes or gives other tensors than the manifest says."""
    takes = {i.name for i in package._session.get_inputs()}
    gives = {o.name for o in package._session.get_outputs()}
    described = {c.name for c in package.inputs} | {tokens_of(c.name) for c in package.inputs if c.tokens is not None}
    if takes != described or not set(package._outputs) <= gives:
        raise PackageError(
            f"{package.folder}: the graph takes {sorted(takes)} and gives {sorted(gives)}; the manifest says {sorted(described)} and {package._outputs}.",
            fix=_AGAIN,
        )


def _same(found: dict[str, Any], expected: Any, tolerance: float) -> bool:
    if not isinstance(expected, dict) or found.keys() != expected.keys():
        return False
    a, b = found["prediction"], expected["prediction"]
    if "probabilities" not in found:
        if isinstance(b, dict):
            a, b = (list(a.values()) if isinstance(a, dict) and a.keys() == b.keys() else None), list(b.values())
        elif not isinstance(b, list):
            a, b = [a], [b]
        return isinstance(a, list) and len(a) == len(b) and all(abs(x - y) <= tolerance * max(1.0, abs(y)) for x, y in zip(a, b, strict=True))
    p, q = found["probabilities"], expected["probabilities"]
    return bool(a == b and type(a) is type(b) and p.keys() == q.keys() and all(abs(p[k] - q[k]) <= tolerance for k in p))


_AGAIN = "Make the package again with `mis run`, or copy the whole folder again from where it came."
