"""A snapshot of everything a user may rely on: names and signatures of the Python API, what model.yaml may say, the command line.

A change here is a change for users: say so in CHANGELOG.md, then take the new snapshot with ``python tests/test_public_names.py``.
"""

import difflib
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

SNAPSHOTS = Path(__file__).parent / "snapshots"
API = ("modelinscale", "modelinscale.api", "modelinscale.package")
CONTRACTS = (
    "modelinscale.compute",
    "modelinscale.data.checks",
    "modelinscale.data.sources",
    "modelinscale.features",
    "modelinscale.metrics",
    "modelinscale.models",
    "modelinscale.store",
    "modelinscale.track.trackers",
)


def python_names() -> Iterator[str]:
    """Each public name of the modules users import from and of the contracts others implement, with its signature."""
    for name in (*API, *CONTRACTS):
        module = import_module(name)
        public = getattr(module, "__all__", None) or [n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", None) == name]
        for one in sorted(public):
            yield from _described(f"{name}.{one}", getattr(module, one))


def _described(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"{path}: class"
        members = {**dict.fromkeys(inspect.get_annotations(value)), **vars(value)}
        for name, member in sorted(members.items()):
            if name.startswith("_") or name == "model_config":
                continue
            raw = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if inspect.isfunction(raw):
                yield f"{path}.{name}{_signature(raw)}"
            else:
                yield f"{path}.{name}"
    elif inspect.isfunction(value):
        yield f"{path}{_signature(value)}"
    else:
        yield path


def _signature(function: Any) -> str:
    """Parameters by name, kind and whether they may be left out: types read differently from one Python to the next."""
    parts, star = [], False
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        star = star or p.kind is p.VAR_POSITIONAL
        prefix = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        parts.append(f"{prefix}{p.name}{'' if p.default is p.empty else '=…'}")
    return f"({', '.join(parts)})"


def file_keys() -> Iterator[str]:
    """Each key model.yaml knows, and each ``type:`` with its keys; required ones marked."""
    from modelinscale.core.kinds import load, names
    from modelinscale.spec import ModelSpec

    yield from _keys("", ModelSpec, ())
    for folder in (c.removeprefix("modelinscale.") for c in CONTRACTS):
        for name in names(folder):
            yield f"{folder}: type {name}"
            yield from _keys(f"{folder}.{name}", load(folder, name), ())


def _keys(path: str, cls: Any, above: tuple[type, ...]) -> Iterator[str]:
    from modelinscale.core.kinds import Kind
    from modelinscale.core.settings import Settings

    for name, field in cls.model_fields.items():
        key = f"{path}.{field.alias or name}".lstrip(".")
        yield f"{key}{' (required)' if field.is_required() else ''}"
        for inner in _classes(field.annotation):
            if issubclass(inner, Settings) and not issubclass(inner, Kind) and inner not in above:
                yield from _keys(key, inner, (*above, inner))


def _classes(annotation: Any) -> Iterator[type]:
    from typing import get_args

    if inspect.isclass(annotation) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes(inner)


def command_line() -> Iterator[str]:
    """Each command with its arguments and options."""
    import typer

    from modelinscale.cli._app import app

    group: Any = typer.main.get_command(app)
    for name, command in [("", group), *sorted(group.commands.items())]:
        for p in command.params:
            names = p.name.upper() if p.param_type_name == "argument" else " ".join(sorted([*p.opts, *p.secondary_opts]))
            many = " …" if p.nargs == -1 or getattr(p, "multiple", False) else ""
            yield f"mis {name}".rstrip() + f": {names}{many}{' (required)' if p.required else ''}"


SNAPSHOT_OF = {"python.txt": python_names, "model_yaml.txt": file_keys, "command_line.txt": command_line}


@pytest.mark.parametrize("name", SNAPSHOT_OF)
def test_public_names_are_those_of_the_snapshot(name: str) -> None:
    found = list(SNAPSHOT_OF[name]())
    assert len(found) == len(set(found)), "a name occurs twice"
    expected = (SNAPSHOTS / name).read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.unified_diff(expected, found, lineterm="", n=0) if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert not changes, f"public names changed; if that is meant, run `python {Path(__file__).name}` in tests/ and tell users:\n" + "\n".join(changes)


def test_every_public_name_of_the_package_can_be_imported_and_is_listed() -> None:
    import modelinscale

    assert all(getattr(modelinscale, name) is not None for name in modelinscale.__all__)
    assert dir(modelinscale) == sorted(modelinscale.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Projekt'"):
        _ = modelinscale.Projekt


if __name__ == "__main__":
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    for file, lines in SNAPSHOT_OF.items():
        (SNAPSHOTS / file).write_text("\n".join(lines()) + "\n", encoding="utf-8")
