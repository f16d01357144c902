"""Deploy: what a target must know of a project, and the files it makes of that."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelinscale.core.errors import NotSupportedYet, UsageError
from modelinscale.core.files import write_bytes
from modelinscale.core.secrets import references
from modelinscale.deploy.targets import Deployed, Target
from modelinscale.spec import ModelSpec

PLANNED_VERBS = frozenset({"update"})
"""Commands of the plan that this version does not have: a schedule of one would fail every time."""


@dataclass(frozen=True)
class Deployment:
    """What was rendered, and what was done with it."""

    target: str
    files: dict[str, str]
    notes: tuple[str, ...]
    out: Path | None = None
    """Where the files were written."""
    said: str | None = None
    """What applying, asking or undoing gave."""

    def plain(self) -> dict[str, Any]:
        return {"target": self.target, "files": self.files, "notes": list(self.notes), "out": None if self.out is None else str(self.out), "said": self.said}


def deploy(
    spec: ModelSpec, file: Path, name: str, settings: dict[str, Any], *, out: Path | None = None, apply: bool = False, status: bool = False, undo: bool = False
) -> Deployment:
    """See `Project.deploy`. ``file``: the model.yaml, absolute. Raises `UsageError` for two things asked at once."""
    if apply + status + undo > 1:
        raise UsageError("only one of --apply, --status and --undo can be done.", fix="Ask one after the other.")
    target = _target(name, settings)
    verb = getattr(target, "verb", None)
    if verb in PLANNED_VERBS:
        raise NotSupportedYet(f"`mis {verb}` is planned and not supported yet: a schedule of it would fail.", fix="Schedule `run` or `collect`.")
    what = deployed(spec, file)
    rendered = target.render(what)
    if out is not None:
        for one, text in rendered.files.items():
            write_bytes(out / one, text.encode())
    said = target.apply(what) if apply else target.status(what) if status else target.undo(what) if undo else None
    return Deployment(name, rendered.files, rendered.notes, out, said)


def deployed(spec: ModelSpec, file: Path) -> Deployed:
    """What a target must know of a project."""
    text = file.read_text(encoding="utf-8-sig")
    found = list(dict.fromkeys(reference[2:-1].partition(":")[::2] for reference in references(text)))
    root = getattr(spec.store_at(file.parent), "root", None)
    mis = Path(sys.executable).parent / "mis"
    command = (str(mis),) if mis.exists() else (shutil.which("mis") or "mis",)
    return Deployed(
        name=spec.name,
        file=file,
        text=text,
        command=command,
        secrets=tuple(name for kind, name in found if kind == "ENV"),
        secret_files=tuple(name for kind, name in found if kind == "FILE"),
        memory_bytes=spec.compute.memory,
        local_store=root if isinstance(root, Path) else None,
    )


def _target(name: str, settings: dict[str, Any]) -> Target:
    from pydantic import ValidationError

    try:
        return Target.parse({"type": name, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, UsageError):
            raise cause from None
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: {first['msg']}; found {first['input']!r}.", fix=f"See `mis deploy {name} --help`.") from None
