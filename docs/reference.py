"""Writes docs/reference/ from the classes themselves: commands, model.yaml, kinds, Python API.

python docs/reference.py          writes
python docs/reference.py --check  writes nothing; exits 1 and names the pages that are out of date
"""

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo

HERE = Path(__file__).parent / "reference"
KINDS = ("data.sources", "data.checks", "features", "models", "metrics", "compute", "store", "track.trackers")


def pages() -> dict[str, str]:
    """Every page by file name."""
    return {"commands.md": commands(), "model_yaml.md": model_yaml(), "kinds.md": kinds(), "python.md": python()}


def commands() -> str:
    from modelinscale.cli._app import app

    lines = ["# Commands", "", "Every command takes `--json` (one JSON object on standard output) and exits 0, 1 (failed) or 2 (wrong use).", ""]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        lines += [f"## mis {name}", "", inspect.cleandoc(command.help or ""), ""]
        context = command.make_context(f"mis {name}", [], resilient_parsing=True)
        lines += [f"```\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```", ""]
        rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        if rows:
            lines += ["| | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _parameter(parameter: Any) -> str:
    names = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = "" if not isinstance(parameter.default, str | int | float | Path) or isinstance(parameter.default, bool) else f"`{parameter.default}`"
    return f"| `{names}` | {'required' if parameter.required else default} | {_cell(getattr(parameter, 'help', '') or '')} |"


def model_yaml() -> str:
    from modelinscale.spec import ModelSpec

    lines = ["# model.yaml", "", "Everything has a default except `data.source` and `target`. Editors: `mis schema > model.schema.json`.", ""]
    todo: list[tuple[str, type[BaseModel]]] = [("", ModelSpec)]
    while todo:
        path, cls = todo.pop(0)
        lines += [f"## {path or 'the file'}", "", inspect.getdoc(cls) or "", "", *_fields(cls), ""]
        for name, field in cls.model_fields.items():
            for inner in _settings_in(field.annotation):
                todo.append((f"{path}.{_public(name, field)}".lstrip("."), inner))
    return "\n".join(lines)


def _public(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _settings_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Settings classes named by an annotation, kinds left out: they have a page of their own."""
    from modelinscale.core.kinds import Kind
    from modelinscale.core.settings import Settings

    if inspect.isclass(annotation) and issubclass(annotation, Settings) and not issubclass(annotation, Kind):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _settings_in(inner)


def kinds() -> str:
    from modelinscale.core.kinds import load, names

    lines = ["# Kinds", "", "What `type:` may name. A short form `number` equals `{type: number}`. Others add theirs through entry points.", ""]
    for folder in KINDS:
        found = names(folder)
        if not found:
            continue
        lines += [f"## {folder}", ""]
        for name in found:
            cls = load(folder, name)
            lines += [f"### {name}", "", inspect.getdoc(cls) or "", "", *_fields(cls), ""]
    return "\n".join(lines)


def python() -> str:
    import modelinscale

    lines = ["# Python", "", "```python\nimport modelinscale as mis\n```", ""]
    for name in modelinscale.__all__:
        value = getattr(modelinscale, name)
        if name.startswith("__"):
            continue
        lines += [f"## {name}", ""]
        if not inspect.isclass(value):
            lines += [*_call(name, value), inspect.getdoc(value) or "", ""]
            continue
        lines += [inspect.getdoc(value) or "", ""]
        if value.__init__.__doc__:
            lines += [*_call(name, value.__init__), inspect.cleandoc(value.__init__.__doc__), ""]
        for member, what in value.__dict__.items():
            about = inspect.getdoc(what)
            if member.startswith("_") or not about:
                continue
            if inspect.isfunction(what):
                lines += [f"### {name}.{member}", "", *_call(member, what), about, ""]
            elif isinstance(what, property | cached_property):
                lines += [f"### {name}.{member}", "", about, ""]
    return "\n".join(lines)


def _call(name: str, function: Any) -> list[str]:
    """How it is called, with types as the source writes them rather than with the modules they come from."""
    text = str(inspect.signature(function)).replace("self, ", "").replace("(self)", "()")
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations kept as text
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "...", text)
    text = re.sub(r"numpy\.ndarray\[tuple\[typing\.Any, \.\.\.\], numpy\.dtype\[([\w.]+)\]\]", r"NDArray[\1]", text)
    return [f"```python\n{name}{re.sub(r'(?:[a-z_]+[.])+(?=[A-Z])', '', text)}\n```", ""]


def _fields(cls: type[BaseModel]) -> list[str]:
    from modelinscale.core.settings import field_help

    help = field_help(cls)

    def row(name: str, field: FieldInfo) -> str:
        return f"| `{_public(name, field)}` | {_cell(_type(field))} | {_cell(_default(field))} | {_cell(help.get(name, ''))} |"

    rows = [row(name, field) for name, field in cls.model_fields.items()]
    return ["| field | type | default | |", "|---|---|---|---|", *rows] if rows else []


def _type(field: FieldInfo) -> str:
    """Durations and sizes are known by what reads them; all else by the annotation."""
    from modelinscale.core import units

    for name, unit in (("duration", units.Duration), ("size", units.Size)):
        readers = [one for one in typing.get_args(unit)[1:] if isinstance(one, BeforeValidator)]
        if any(one in field.metadata for one in readers):
            return name
    return _words(field.annotation)


def _default(field: FieldInfo) -> str:
    """As one would write it in the file; a section's or kind's own defaults stand with it."""
    from modelinscale.core.kinds import Kind

    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "depends"
    value = field.default
    if isinstance(value, Kind):
        return f"`{value.type}`"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple) and value and all(isinstance(one, str) for one in value):
        return f"`{list(value)}`"  # kinds by their names, as one writes them
    annotation: Any = field.annotation
    for one in field.metadata:
        annotation = typing.Annotated[annotation, one]
    plain = TypeAdapter(annotation).dump_python(value, mode="json")
    return {None: "", True: "`true`", False: "`false`"}[plain] if plain is None or isinstance(plain, bool) else f"`{plain}`"


def _words(annotation: Any) -> str:
    """A type as a user reads it: ``text``, ``list of text``, ``one of: auto, none``."""
    from modelinscale.core.kinds import Kind
    from modelinscale.core.settings import Settings

    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys("nothing" if one is type(None) else _words(one) for one in inner))
    if origin is tuple:
        return f"list of {_words(inner[0])}" if inner[-1] is Ellipsis else f"[{', '.join(map(_words, inner))}]"
    if origin is dict:
        return f"{_words(inner[0])} → {_words(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Kind):
        return f"[{annotation.word()}](kinds.md#{annotation.folder.replace('.', '')})"
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        return "mapping"
    plain = {str: "text", int: "whole number", float: "number", bool: "yes or no", Path: "path", date: "date"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    stale = []
    for name, text in pages().items():
        text = re.sub(r"(?<!`)``(?!`)", "`", text).rstrip() + "\n"  # docstrings quote code as reStructuredText does
        path = HERE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            HERE.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"docs/reference is out of date: {', '.join(stale)}. Run `make fix`.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
