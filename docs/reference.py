"""Writes docs/reference/ from the classes themselves: commands, model.yaml, kinds, Python API.

python docs/reference.py          writes
python docs/reference.py --check  writes nothing; exits 1 and names the pages that are out of date
"""

import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

HERE = Path(__file__).parent / "reference"
KINDS = ("data.sources", "data.checks", "features", "models", "metrics", "compute", "store", "track.trackers")


def pages() -> dict[str, str]:
    """Every page by file name."""
    return {"commands.md": commands(), "model_yaml.md": model_yaml(), "kinds.md": kinds(), "python.md": python()}


def commands() -> str:
    from modelinscale.cli import app

    lines = ["# Commands", "", "Every command takes `--json` (one JSON object on standard output) and exits 0, 1 (failed) or 2 (wrong use).", ""]
    group = app if isinstance(app, click.Command) else typer.main.get_command(app)
    assert isinstance(group, click.Group)
    context = click.Context(group, info_name="mis")
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden:
            continue
        lines += [f"## mis {name}", "", inspect.cleandoc(command.help or ""), ""]
        pieces = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name, parent=context)))
        lines += [f"```\nmis {name} {pieces}\n```", ""]
        rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False)]
        if rows:
            lines += ["| | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _parameter(parameter: click.Parameter) -> str:
    names = parameter.human_readable_name if isinstance(parameter, click.Argument) else ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = "" if parameter.default in (None, (), []) or callable(parameter.default) or "Sentinel" in repr(parameter.default) else f"`{parameter.default}`"
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
            lines += [f"```python\n{name}{inspect.signature(value)}\n```", "", inspect.getdoc(value) or "", ""]
            continue
        lines += [inspect.getdoc(value) or "", ""]
        for member, what in inspect.getmembers(value):
            if member.startswith("_") or member not in value.__dict__:
                continue
            if inspect.isfunction(what):
                lines += [f"### {name}.{member}", "", f"```python\n{member}{inspect.signature(what)}\n```", "", inspect.getdoc(what) or "", ""]
            elif isinstance(what, property):
                lines += [f"### {name}.{member}", "", inspect.getdoc(what) or "", ""]
    return "\n".join(lines)


def _fields(cls: type[BaseModel]) -> list[str]:
    rows = []
    for name, field in cls.model_fields.items():
        if field.default is not PydanticUndefined:
            default = f"`{_plain(field.default)}`"
        else:
            default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        rows.append(f"| `{_public(name, field)}` | {_cell(_words(field.annotation))} | {_cell(default)} | {_cell(field.description or '')} |")
    return ["| field | type | default | |", "|---|---|---|---|", *rows] if rows else []


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, BaseModel) and hasattr(value, "plain") else value


def _words(annotation: Any) -> str:
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("modelinscale.", "").replace("NoneType", "None")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    stale = []
    for name, text in pages().items():
        text = text.rstrip() + "\n"
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
