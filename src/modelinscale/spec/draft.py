"""A first model.yaml from a look at the data: commented, complete, ready to run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from modelinscale.core.personal import Rule
    from modelinscale.core.schema import Column, Schema
    from modelinscale.core.task import Task
    from modelinscale.data.infer import Profile
    from modelinscale.features import Feature

_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_ ./%()-]*$")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"}


class Finding(Protocol):
    """A column that looks personal."""

    @property
    def column(self) -> str: ...
    @property
    def words(self) -> str:
        """What it seems to hold."""

    @property
    def rule(self) -> Rule: ...
    @property
    def sure(self) -> bool:
        """Whether its cells say so; otherwise only its name does."""


@dataclass(frozen=True)
class Sketch:
    """What is known before writing."""

    name: str
    source: str | list[str]
    n_rows: int
    exact: bool
    """Whether ``n_rows`` is all there is, or the part looked at."""
    schema: Schema
    profiles: dict[str, Profile]
    task: Task
    split: str
    """The value of ``data.split`` as YAML, or "" for the default."""
    split_note: str
    time: str | None
    features: dict[str, Feature]
    left_out: dict[str, str]
    """Column → why."""
    target_note: str
    model: str
    personal: Sequence[Finding] = ()
    """Columns that look personal."""


def write(sketch: Sketch) -> str:
    """The text of the file."""
    rows = f"{sketch.n_rows:,} rows" if sketch.exact else f"the first {sketch.n_rows:,} rows"
    width = max((len(quoted(n)) for n in sketch.features), default=0)
    lines = [
        f"# Written by `mis init` after a look at {rows}. Every line may be changed; `mis check` says what it means, `mis plan` what it redoes.",
        "version: 1",
        f"name: {quoted(sketch.name)}",
        "data:",
        f"  source: {_source(sketch.source)}",
    ]
    if sketch.time:
        lines.append(f"  time: {quoted(sketch.time)}")
    if sketch.split:
        lines.append(f"  split: {sketch.split}" + (f"  # {_plain(sketch.split_note)}" if sketch.split_note else ""))
    lines += _personal(sketch.personal)
    unshown = {one.column for one in sketch.personal if not one.sure}
    lines += [
        f"target: {quoted(sketch.task.target)}  # {_plain(sketch.target_note)}",
        "features:",
        *(
            f"  {_feature(name, feature, width)}  # {about(sketch.schema[name], sketch.profiles[name], name not in unshown)}"
            for name, feature in sketch.features.items()
        ),
    ]
    lines += [f"  # {_plain(name)}: left out, {_plain(why)}" for name, why in sketch.left_out.items()]
    lines += [
        f"model: {sketch.model}" + ("  # linear, trees and mlp compared; or one of them" if sketch.model == "auto" else ""),
        "train: {budget: 10m, seed: 7}",
    ]
    return "\n".join(lines) + "\n"


def _personal(found: Sequence[Finding]) -> list[str]:
    """The rules for columns that are personal, and as a comment those for columns that may be."""
    sure, maybe = ([one for one in found if one.sure == is_sure] for is_sure in (True, False))
    lines = ["  personal:  # done before anything is stored", *(f"    {quoted(o.column)}: {o.rule.type}  # {o.words}" for o in sure)] if sure else []
    if sure:
        lines += [f"    # {_plain(quoted(one.column))}: {one.rule.type}  # may hold {one.words} by its name" for one in maybe]
    elif maybe:
        rules = ", ".join(f"{quoted(one.column)}: {one.rule.type}" for one in maybe)
        lines.append(f"  # {_plain(f'personal: {{{rules}}}')}  # may be personal by {'their names' if len(maybe) > 1 else 'its name'}")
    return lines


def about(column: Column, profile: Profile, values: bool = True) -> str:
    """A few words on a column; without ``values`` none of its cells is shown."""
    if not values:
        return f"{profile.n_distinct:,} values, perhaps personal"
    missing = f", {_share(profile.n_missing / profile.n_rows)} missing" if profile.n_rows and profile.n_missing else ""
    if column.type in ("int", "float", "time") and profile.low is not None and profile.high is not None:
        low, high = (end.removesuffix(" 00:00:00") if column.type == "time" else end for end in (profile.low, profile.high))
        return f"{_clean(low)} to {_clean(high)}{missing}"
    if column.type == "vector":
        return f"{column.width} numbers{missing}"
    if column.type == "sequence":
        return f"sequence{missing}" if column.width == 1 else f"sequence of {column.width} channels{missing}"
    if column.type == "binary":
        return f"raw bytes{missing}"
    if profile.mean_words > 3:
        return f"text of about {profile.mean_words:.0f} words{missing}"
    top = ", ".join(_clean(v) for v, _ in profile.top[:3])
    return f"{profile.n_distinct:,} values" + (f": {top}{', ...' if profile.n_distinct > 3 else ''}" if top else "") + missing


def quoted(text: str) -> str:
    """A text as one YAML word, in quotes where it needs them.

    >>> quoted("age"), quoted("no"), quoted("a: b")
    ('age', '"no"', '"a: b"')
    """
    if _PLAIN.match(text) and text.strip() == text and text.lower() not in _WORDS and " #" not in text and not text.endswith(":"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(escaped)}"'


def located(data: list[str], out: Path) -> str | list[str]:
    """Data paths as they read from the folder of the file: relative where the data lie in or near it, absolute otherwise."""
    folder = out.resolve().parent
    found = []
    for one in data:
        path = Path(one).absolute()
        near = os.path.relpath(path, folder)
        found.append(str(path) if near.startswith("../../..") else near)
    return found[0] if len(found) == 1 else found


def _source(source: str | list[str]) -> str:
    return quoted(source) if isinstance(source, str) else _list(tuple(source))


def _list(items: tuple[str, ...]) -> str:
    return quoted(items[0]) if len(items) == 1 else "[" + ", ".join(quoted(i) for i in items) + "]"


def _feature(name: str, feature: Feature, width: int) -> str:
    settings = feature.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    settings.pop("type", None)
    word = feature.type if not settings else "{" + ", ".join([f"type: {feature.type}", *(f"{k}: {_value(v)}" for k, v in settings.items())]) + "}"
    return f"{(quoted(name) + ':').ljust(width + 1)} {word}"


def _value(value: object) -> str:
    import json

    return _escaped(json.dumps(value, ensure_ascii=False))  # only texts in quotes hold what is escaped


def _share(share: float) -> str:
    return "under 0.1%" if share < 0.001 else "over 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _escaped(text: str) -> str:
    """What stands in double quotes, its unprintable characters as escapes of YAML.

    >>> _escaped("a\\x1b\\u2028\\U000e0001")
    'a\\\\x1b\\\\u2028\\\\U000e0001'
    """
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(text: str) -> str:
    """A text as a comment may hold it: on one line, with ``\ufffd`` for what cannot be printed (a YAML file may not hold it, not even in a comment)."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _clean(text: str) -> str:
    short = _plain(text)
    return short if len(short) <= 24 else short[:21] + "..."
