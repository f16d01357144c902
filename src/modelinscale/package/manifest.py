"""What a package says about itself: ``manifest.json``, read by every later version of the code.

The format number rises when the meaning of a field changes; `UPGRADES` then holds one step for each number left behind.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from modelinscale.core.encoded import InputType
from modelinscale.core.errors import MisError, PackageError
from modelinscale.core.files import write_json
from modelinscale.core.identity import identity
from modelinscale.core.personal import Treated
from modelinscale.core.schema import Column
from modelinscale.core.settings import Settings
from modelinscale.core.task import Task

FORMAT = 1
"""The format this code writes."""
NAME = "manifest.json"
FILES = ("model.onnx", "golden.json", "reference.json", "card.md")
"""The files every package has beside its manifest."""
_LARGEST_BYTES = 64 << 20

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
UPGRADES: dict[int, Upgrade] = {}
"""Format number -> what turns a manifest of that format into the next one. Empty while there has been one format only."""


class Tokens(Settings):
    """How the host cuts a column's texts before the graph, which has an input of their tokens besides (`core.tokenizer`)."""

    sha256: str
    """Which tokenizer does it, the first 16 digits; it lies in ``reference.json``, in the state of the column's feature."""
    longest: int = Field(ge=1)
    """Tokens of a text at most."""


class Origin(Settings):
    """Weights that were learned elsewhere, and of which some are in the graph, as they were or trained further."""

    column: str
    """The column that they see."""
    architecture: str
    """What they are weights of, as timm or transformers call it."""
    source: str = ""
    """The name on the hub, of the folder or of the file that they came from."""
    revision: str | None = None
    """Which of the hub's revisions was asked for."""
    license: str = ""
    """What came with them says so; empty: it says nothing, and nobody may take it to be free."""
    sha256: str = ""
    """Of the file of weights as it came, the first 16 digits; of several files, of the lines that ``sha256sum`` writes of them; where timm fetched them,
    of the weights that were in it."""


class InputColumn(Settings):
    """One raw column the graph takes."""

    column: Column
    """Its name, type, and how its cells are written as text."""
    input: InputType
    """The form in which it enters the graph."""
    required: bool = False
    """Whether a cell must be there; otherwise a missing cell is fed as missing."""
    raw: Column | None = None
    """How cells come before they are cleaned; none: as ``column``."""
    clean: tuple[dict[str, Any], ...] = ()
    """What is done to a cell between ``raw`` and ``column``, in order: settings of cleaners."""

    personal: Treated | None = None
    """What is done to a cell after that, where the column is personal; none: nothing."""
    tokens: Tokens | None = None
    """A step of the host: how it is cut for an encoder learned elsewhere; none: all that is done with it is in the graph."""

    @property
    def accepts(self) -> Column:
        """The column as a client sends it."""
        return self.raw or self.cleaned

    @property
    def cleaned(self) -> Column:
        """The column after cleaning, before what is personal is taken out."""
        return self.column if self.personal is None else self.personal.before

    @property
    def name(self) -> str:
        return self.column.name

    @property
    def beside(self) -> dict[str, Column]:
        """Other columns that a missing cell is filled from, as a client sends them."""
        return {one["column"]["name"]: Column.model_validate(one["raw"]) for step in self.clean for one in step.get("beside", ())}


class Lineage(Settings):
    """Where the model comes from: enough to make it again."""

    table: str = ""
    """Identity of the lake table it learned from."""
    table_version: int | None = None
    """The version of that table."""
    data: str = ""
    """Identity of the rows and of the split into rows to learn from, to choose with and to test on."""
    spec: str = ""
    """Identity of model.yaml, every default filled in."""
    code: str = ""
    """The version of this library that made it."""
    seed: int | None = None
    """The seed every random choice derives from."""
    n_rows: dict[str, int] = Field(default_factory=dict)
    """Rows in each part: train, valid, test."""


class Parity(Settings):
    """What export proved before it wrote the package: the graph answers as the training code does."""

    n_rows: int = 0
    """Validation rows compared."""
    n_odd: int = 0
    """Rows with odd values compared: missing, empty, unseen, extreme."""
    n_edges: int = 0
    """Rows one float32 step either side of, and exactly on, a value at which the answer may jump."""
    n_edges_left_out: int = 0
    """Such rows beyond the cap, not tried; every such value was tried at least once."""
    n_ties: int = 0
    """Of the odd and edge rows: decided otherwise because they lie on the decision's border within rounding. Never a validation row."""
    largest_difference: float = 0.0
    """Largest difference of a probability (of an answer relative to its size, where numbers are predicted)."""
    bound: float = 0.0
    """What it had to stay under."""


class FileFacts(Settings):
    """One file of the package as it was written."""

    sha256: str
    size_bytes: int


class Manifest(Settings):
    """Everything about a package that is not the graph itself."""

    format: int = FORMAT
    name: str = Field(min_length=1)
    """The model's name in model.yaml."""
    version: int | None = None
    """The number the registry gave; none for a package that was never registered."""
    identity: str = Field(min_length=1)
    """Content identity: the same inputs give the same one."""
    created: str = ""
    """When it was made, ISO 8601 in UTC."""
    made_by: str = ""
    """The library and its version that wrote it."""
    family: str = ""
    """The model family: linear, trees, mlp."""
    main: str = ""
    """The metric that counts most."""
    metrics: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """On test rows, by name: ``value``, ``low``, ``high``."""
    task: Task
    inputs: tuple[InputColumn, ...]
    """The raw columns it takes, in the order of the graph."""
    ignored: tuple[str, ...] = ()
    """Columns of the table that are no input (the target among them): a client may send them, they change nothing."""
    row_bytes: int = Field(0, ge=0)
    """About how many bytes the graph holds for one row while it works, besides the words of a text; 0: not known."""
    lineage: Lineage = Lineage()
    origins: tuple[Origin, ...] = ()
    """Weights learned elsewhere that are in the graph: whose licenses hold for this package too."""
    refit: str = ""
    """Why it should be learned again: rows it learned from were erased. Empty: no reason is known."""
    parity: Parity = Parity()
    files: dict[str, FileFacts] = Field(default_factory=dict)
    """SHA-256 and size of every other file."""

    def write(self, folder: Path) -> None:
        """Writes ``manifest.json``, sealed: a seal is the identity of all the rest, so that a changed manifest is noticed."""
        plain = _lean(self.plain())
        write_json(folder / NAME, {**plain, "seal": identity(plain)})


def _lean(plain: dict[str, Any]) -> dict[str, Any]:
    """Without later fields that say nothing here, so that a version that does not know them reads all packages that do not need them."""
    return {
        **{name: value for name, value in plain.items() if value or name != "origins"},
        "task": {name: value for name, value in plain["task"].items() if value or name != "targets"},
        "inputs": [{name: value for name, value in one.items() if value is not None or name != "tokens"} for one in plain["inputs"]],
    }


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package folder. Raises `PackageError` for a missing, altered, truncated, foreign or newer one."""
    path = folder / NAME
    if not folder.is_dir():
        raise PackageError(f"{folder}: there is no such folder.", fix="Give the folder of a package, which holds a manifest.json.")
    if not path.is_file():
        raise PackageError(f"{folder} is not a package: it has no {NAME}.", fix="Give the folder `mis run` names as `package`.")
    found = _parsed(path)
    if not isinstance(found, Mapping) or not isinstance(found.get("format"), int) or isinstance(found.get("format"), bool):
        raise PackageError(f"{path} is not the manifest of one of our packages: it has no format number.", fix="Give the folder of a package that `mis` made.")
    return _checked(path, upgraded(_unsealed(path, dict(found)), UPGRADES, FORMAT, path))


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PackageError(f"{path} holds {path.stat().st_size:,} bytes; a manifest holds a few thousand.", fix=_AGAIN)
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}.", fix="Give this user the right to read the package.") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not whole JSON ({error}): it was cut off or altered.", fix=_AGAIN) from error


def _unsealed(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The manifest without its seal. A newer format is reported as such before anything else."""
    if found["format"] > FORMAT:
        raise PackageError(
            f"{path} has format {found['format']}; this version of modelinscale reads up to {FORMAT}.", fix="Upgrade: pip install --upgrade modelinscale."
        )
    seal = found.pop("seal", None)
    if seal != identity(found):
        raise PackageError(f"{path} was altered after it was written: its seal is {seal!r}, its content gives {identity(found)!r}.", fix=_AGAIN)
    return found


def upgraded(found: dict[str, Any], steps: Mapping[int, Upgrade], newest: int, path: Path) -> dict[str, Any]:
    """The manifest in the newest format, one step at a time."""
    while found["format"] < newest:
        step = steps.get(found["format"])
        if step is None:
            raise PackageError(f"{path} has format {found['format']}, which no version of modelinscale has written.", fix=_AGAIN)
        before = found["format"]
        found = step(found)
        assert found["format"] == before + 1, f"the upgrade of format {before} must give format {before + 1}"
    return found


def _checked(path: Path, found: dict[str, Any]) -> Manifest:
    try:
        manifest = Manifest.model_validate(found)
    except (ValidationError, MisError) as error:
        words = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]) if isinstance(error, ValidationError) else str(error)
        raise PackageError(f"{path} does not describe a package: {words}.", fix=_AGAIN) from error
    missing = [name for name in FILES if name not in manifest.files]
    if missing:
        raise PackageError(f"{path} does not list {', '.join(missing)}.", fix=_AGAIN)
    return manifest


_AGAIN = "Make the package again with `mis run`, or copy the whole folder again from where it came."

__all__ = ["FILES", "FORMAT", "NAME", "UPGRADES", "FileFacts", "InputColumn", "Lineage", "Manifest", "Origin", "Parity", "Tokens", "read_manifest", "upgraded"]
