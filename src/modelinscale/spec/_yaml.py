"""YAML with positions: every value remembers its line and column, and `no` stays a word."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelinscale.core.errors import SpecError

Path = tuple[str | int, ...]

MAX_DEPTH = 32
"""Mappings within mappings; a real file has five."""


@dataclass(frozen=True)
class Mistake:
    """One thing wrong in a file, where, and what to do."""

    line: int
    """Counted from 1; 0 where the place is unknown."""
    column: int
    path: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line else ""
        name = f"{self.path}: " if self.path else ""
        return f"{where}{name}{self.message} {self.fix}".rstrip()


@dataclass
class Document:
    """A parsed file: plain data, and where every key and value stands."""

    data: Any
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value (or key) at ``path``, or of the nearest thing around it that the file holds."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))


class _Loader(yaml.SafeLoader):
    """Words of YAML 1.2: only `true` and `false` are flags, so `no`, `on` and `12:30` stay what a person wrote. No aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # An alias repeats what its anchor holds: a few lines of them unfold to more than any machine can hold.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"the alias *{event.anchor} is not allowed; write the value out", event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)


_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def parse(text: str) -> Document:
    """The document and every mistake in its form (duplicate keys, keys that are not words). Raises `SpecError` when it is not YAML at all."""
    document = Document(None)
    loader = None
    try:
        loader = _Loader(text)  # refuses control characters at once
        node = loader.get_single_node()
        if node is not None:
            document.data = _build(loader, node, (), document, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise SpecError(f"{where}this is not YAML: {error.problem or 'it cannot be read'}{context}.", fix=_hint(text, mark)) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
        raise SpecError(
            f"{where}: the character U+{ord(text[error.position]):04X} is not allowed in YAML.",
            fix='Remove it, or write it as an escape within double quotes ("\\x1b").',
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"this is not YAML: {error}.", fix="Save the file as UTF-8 text without control characters.") from error
    except RecursionError as error:
        raise SpecError("this is nested too deeply.", fix=f"Keep to {MAX_DEPTH} levels.") from error
    finally:
        if loader is not None:
            loader.dispose()
    return document


def _hint(text: str, mark: Any) -> str:
    if mark is None:
        return ""
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "Indent with spaces, not with tabs."
    if line.count(": ") > 1 or (":" in line and "{" not in line):
        return "Put quotes around a text that holds `: `, and indent the lines of one block alike."
    return "Check quotes, brackets and indentation there."


def _build(loader: _Loader, node: yaml.Node, path: Path, document: Document, depth: int) -> Any:
    place = (node.start_mark.line + 1, node.start_mark.column + 1)
    document.values[path] = place
    if depth > MAX_DEPTH:
        raise SpecError(f"line {place[0]}: this is nested too deeply.", fix=f"Keep to {MAX_DEPTH} levels.")
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
        document.mistakes.append(Mistake(*place, show(path), f"the tag {node.tag!r} is not allowed here.", "Write the plain value."))
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, document, depth)
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, one, (*path, i), document, depth + 1) for i, one in enumerate(node.value)]
    try:
        return loader.construct_object(node, deep=True)
    except yaml.constructor.ConstructorError as error:
        document.mistakes.append(Mistake(*place, show(path), f"the tag {node.tag!r} is not allowed here ({error.problem}).", "Write the plain value."))
        return None


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, document: Document, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if not isinstance(key_node, yaml.ScalarNode):
            document.mistakes.append(Mistake(*place, show(path), "a key must be a word, not a list or a mapping.", "Put quotes around it if it is a text."))
            continue
        key = str(key_node.value)
        if key in found:
            line = document.keys[(*path, key)][0]
            document.mistakes.append(Mistake(*place, show((*path, key)), f"this key is already given in line {line}.", "Keep one of them."))
            continue
        document.keys[(*path, key)] = place
        found[key] = _build(loader, value_node, (*path, key), document, depth + 1)
    return found


def show(path: Path) -> str:
    """A path as a person writes it: ``features.age.clip``, ``evaluate.slices[2]``.

    >>> show(("evaluate", "slices", 2))
    'evaluate.slices[2]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
