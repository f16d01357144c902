"""Rotate the key of pseudonyms: those in the lake are made again under the new key from themselves, so nobody needs the persons' own values.

What was made from the old pseudonyms goes first, then each table is changed in one commit and its earlier versions removed, on disks and in buckets alike.
A kill at any moment leaves whole tables, and the command can be given again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from modelinscale.core.errors import SpecError, UsageError
from modelinscale.core.personal import Keys
from modelinscale.core.secrets import anchored
from modelinscale.pipeline._collect import quarantine_name
from modelinscale.pipeline._followed import bringing
from modelinscale.pipeline._forget import steps_on, tables_of
from modelinscale.pipeline._lineage import audit_of
from modelinscale.pipeline._logged import rewrite_logged
from modelinscale.pipeline._place import Place


@dataclass(frozen=True)
class Rotated:
    """What was made anew."""

    key_id: str
    """What every pseudonym starts with now."""
    rows: Mapping[str, int]
    """Table -> rows; tables that had the key already are not among them."""
    steps: int
    """Results that the next run makes again."""
    logged: int = 0
    """Rows of the prediction log."""

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def rotate(place: Place, *, wait_s: float = 600.0) -> Rotated:
    """Brings every table of the model to the newest key of ``data.pseudonym_key``.

    Raises `SpecError` when nothing is pseudonymised, `UsageError` when a table's pseudonyms were made by keys that the file does not list.
    """
    from modelinscale.data.lake import open_table, table_exists
    from modelinscale.data.privacy import key_id_of

    data = place.spec.data
    names = [name for name, rule in data.personal.items() if rule.type == "pseudonym"]
    if not names:
        raise SpecError("`data.personal` makes no pseudonyms.", fix="Nothing needs rotating.")
    keys, rows, steps = Keys.revealed(anchored(data.pseudonym_key, place.base)), dict[str, int](), 0
    with place.store.lock("lock", wait_s=wait_s), ExitStack() as held:
        tables = {name: open_table(place.store.uri("lake", name)) for name in tables_of(place)}
        old = {}
        for name, table in tables.items():
            held.enter_context(bringing(place, name, wait_s=wait_s))
            columns = [n for n in names if n in table.schema]
            found = key_id_of(table.uri, columns) if columns else None
            if found not in (None, keys.id, *keys.ids):
                raise UsageError(
                    f"a pseudonym of table {name} starts with {str(found)[:16]!r}, which none of these keys makes (they make {', '.join(keys.ids)}).",
                    fix="`data.pseudonym_key` must list every key since the first, oldest first.",
                )
            if found not in (None, keys.id):
                old[name] = columns
        # First, so that no kill leaves results of old pseudonyms that a table of new ones would be taken to have led to.
        for step in steps_on(place, dict.fromkeys(old)):
            place.discard(step)
            steps += 1
        if old:
            shutil.rmtree(place.store.path("work"), ignore_errors=True)
        for name, table in tables.items():
            quarantine = place.store.uri("lake", quarantine_name(name))
            aside = open_table(quarantine) if table_exists(quarantine) else None
            if name in old:
                if aside is not None:
                    aside.reword({"value": _in_text(keys)}, run="rotate")
                rows[name] = table.reword(dict.fromkeys(old[name], keys.rotated), run="rotate").n_rows
            else:  # a kill may have left what was before
                for one in (aside, table):
                    if one is not None:
                        one.drop_past()
        # A pseudonym is as long as any other, so that each can be overwritten where it stands.
        logged = rewrite_logged(place.spec, place.base, _in_text(keys))
        if rows or logged:
            audit_of(place).write("rotate", place.spec.name, key=keys.id, rows=rows, logged=logged)
    return Rotated(keys.id, rows, steps, logged)


def _in_text(keys: Keys) -> Callable[[str], str]:
    """Pseudonyms within a text rotated."""
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, keys.ids))})\.[0-9a-f]{{32}}")
    return lambda text: pattern.sub(lambda found: keys.rotated(found[0]), text)
