"""Something that was learned elsewhere: a folder as the Hugging Face hub lays it out, on this machine or (only where asked) fetched from the hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import ModelError, needs
from modelinscale.core.identity import sha256_file
from modelinscale.core.settings import Settings

TOKENIZER, CONFIG, WEIGHTS = "tokenizer.json", "config.json", "model.safetensors"
"""Files of such a folder. Large weights lie in several files, which an index beside them names."""
INDEX = f"{WEIGHTS}.index.json"
_ABOUT = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
_WANTED = (TOKENIZER, "tokenizer_config.json", CONFIG, "model*.safetensors", INDEX, *_ABOUT)
_WEIGHTS = re.compile(r"[\w-][\w.-]*\.safetensors")
"""Names of files of weights: bare ones, so that an index cannot name what lies elsewhere."""
_TAUGHT = ("pretrained", "language", "tokenizer")
"""Settings that say where something learned elsewhere is."""
_PLACES = {"path", "hub", "revision"}


class Elsewhere(Settings):
    """Where something learned elsewhere is: a folder, or a name on the hub."""

    path: str | None = None
    """A folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``, absolute or from where model.yaml lies; nothing is fetched."""
    hub: str | None = Field(None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    """Its name on the Hugging Face hub (``distilbert/distilbert-base-uncased``), where there is a network; it is fetched once and kept by the hub's library."""
    revision: str | None = None
    """With `hub`: a commit, tag or branch; a commit can never become another one."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either `path` (a folder) or `hub` (a name; it is fetched)")
        if self.revision is not None and self.hub is None:
            raise ValueError("`revision` belongs to `hub`")
        return self

    @property
    def said(self) -> str:
        """Where it is from, without what is this machine's own."""
        return self.hub or Path(self.path or "").name

    @property
    def place(self) -> dict[str, Any]:
        """Its place alone, without what else may be said about it."""
        return {name: value for name, value in self.plain().items() if name in _PLACES and value is not None}

    def folder(self) -> Path:
        """The folder, fetched where it is on the hub. Raises `ModelError` where there is none or the hub cannot be reached."""
        if self.path is not None:
            folder = Path(self.path)
            if not folder.is_dir():
                raise ModelError(
                    f"there is no folder {self.path!r} of something learned elsewhere.", fix="Give the folder that `save_pretrained` wrote, or `hub: NAME`."
                )
            return folder
        hub = needs("huggingface_hub", extra="transformers")
        try:
            return Path(hub.snapshot_download(self.hub, revision=self.revision, allow_patterns=list(_WANTED)))
        except (OSError, ValueError, hub.errors.HFValidationError) as error:  # what the hub raises of its own (not found, gated, offline) are OSErrors too
            at = f" at {self.revision!r}" if self.revision else ""
            raise ModelError(
                f"{self.hub!r}{at} cannot be fetched from the hub ({_first_line(error)}).",
                fix="Fetch it where there is a network, and give its folder: `path`.",
            ) from error


def short(value: Any) -> Any:
    """``./bert`` for ``{path: ./bert}``."""
    return {"path": value} if isinstance(value, str) else value


def taught(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """In plain settings, what was learned elsewhere: ``tokenizer``, ``language`` or ``pretrained``, and where it is."""
    if isinstance(value, list):
        for one in value:
            yield from taught(one)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if name in _TAUGHT and isinstance(one, Mapping):
                yield name, one
            else:
                yield from taught(one)


def located(value: Any, base: Path) -> Any:
    """Plain settings with the relative paths of what was learned elsewhere taken from ``base``, the folder of model.yaml."""
    return _moved(value, lambda path: str(base / path))


def unplaced(value: Any) -> Any:
    """Plain settings, of each path of what was learned elsewhere its last part alone: where that lay is this machine's own."""
    return _moved(value, lambda path: Path(path).name or ".")


def _moved(value: Any, to: Callable[[str], str]) -> Any:
    """Plain settings with another path wherever something was learned elsewhere."""
    if isinstance(value, list):
        return [_moved(one, to) for one in value]
    if not isinstance(value, Mapping):
        return value
    return {name: _placed(one, to) if name in _TAUGHT else _moved(one, to) for name, one in value.items()}


def _placed(value: Any, to: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):
        return {**value, "path": to(value["path"])}
    return value


def read_text(folder: Path, name: str, what: str) -> str:
    """A text file of such a folder. Raises `ModelError` where it is not there or no text; ``what`` it is for is said then."""
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        there = ", ".join(sorted(one.name for one in folder.iterdir())[:8]) or "nothing"
        fix = "Write it with `transformers`: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)." if name == TOKENIZER else None
        raise ModelError(f"{str(folder)!r} has no {name}, {what}; there: {there}.", fix=fix or "Give the folder that `save_pretrained` wrote.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{str(folder / name)!r} cannot be read as text ({_first_line(error)}).") from error


def read_json(folder: Path, name: str, what: str) -> dict[str, Any]:
    """The same of a file that holds an object in JSON."""
    try:
        found = json.loads(read_text(folder, name, what))
    except ValueError as error:
        raise ModelError(f"{str(folder / name)!r} is not whole JSON ({_first_line(error)}).") from error
    if not isinstance(found, dict):
        raise ModelError(f"{str(folder / name)!r} holds no settings, but {type(found).__name__}.")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files of weights of such a folder: one, or those that an index names. Raises `ModelError` where there are none, or any is no safetensors file."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = sorted(one.name for one in folder.iterdir() if one.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        what = f"only {pickled[0]}, which is pickled: reading it could run code" if pickled else "no weights"
        raise ModelError(
            f"{str(folder)!r} has no {WEIGHTS}; there is {what}.",
            fix="Write it where you trust them: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)."
            if pickled
            else "Give the folder that `save_pretrained` wrote.",
        )
    names = read_json(folder, INDEX, "which names the files of its weights").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{str(folder / INDEX)!r} names no files of weights.", fix="Give the folder as it was saved, whole.")
    for name in names.values():
        if not isinstance(name, str) or not _WEIGHTS.fullmatch(name):
            raise ModelError(
                f"{str(folder / INDEX)!r} names {str(name)[:100]!r}, which is no safetensors file of its folder: it is not read.",
                fix="Give the folder that `save_pretrained` wrote.",
            )
        if not (folder / name).is_file():
            raise ModelError(f"{str(folder)!r} has no {name}, a file of weights that its {INDEX} names.", fix="Give the folder as it was saved, whole.")
    return [folder / name for name in sorted(set(names.values()))]


def cut_by(folder: Path) -> list[Path]:
    """The files there are that say how texts are cut."""
    return [one for name in (TOKENIZER, "tokenizer_config.json") if (one := folder / name).is_file()]


def learned_from(path: Path) -> list[Path]:
    """The files there are that an encoder is made from: of a folder its settings, its tokenizer and its weights; or one file of weights."""
    if path.is_file():
        return [path]
    return [*cut_by(path), *(one for name in (CONFIG, INDEX) if (one := path / name).is_file()), *sorted(path.glob("*.safetensors"))]


def digest(files: Sequence[Path]) -> str:
    """The first 16 digits of a file's SHA-256; of several, of the lines that ``sha256sum`` writes of them in their folder. A file that stays is read once."""
    found = [(one.name, _sha256(str(one), one.stat().st_size, one.stat().st_mtime_ns)) for one in files]
    if len(found) == 1:
        return found[0][1][:16]
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in found).encode()).hexdigest()[:16]


@lru_cache(64)
def _sha256(path: str, size_bytes: int, mtime_ns: int) -> str:
    """``size_bytes``, ``mtime_ns``: for which state of the file what is remembered holds."""
    return sha256_file(Path(path))


def license_of(folder: Path) -> str:
    """What the folder says of its license: what its README's head names, else the first line of its LICENSE; empty where it says nothing."""
    for name in _ABOUT:
        file = folder / name
        if not file.is_file():
            continue
        lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
        if name != "README.md":
            return next((line[:80] for line in lines if line), "")
        head = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
        for line in head:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip().strip("'\"")[:80]
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
