"""Rotate the key of pseudonyms: those in the lake are made again under the new key from themselves, so nobody needs the persons' own values.

Each table is written anew beside the old one and takes its place in one step; a kill leaves the old one, and the command can be given again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import NotSupportedYet, SpecError
from modelinscale.core.files import told
from modelinscale.core.personal import Keys
from modelinscale.core.secrets import anchored
from modelinscale.pipeline._collect import quarantine_name
from modelinscale.pipeline._followed import bringing
from modelinscale.pipeline._forget import GONE, SIDE, steps_on, tables_of
from modelinscale.pipeline._lineage import audit_of
from modelinscale.pipeline._logged import rewrite_logged
from modelinscale.pipeline._place import Place

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.data.lake import Table

_BLOCK_ROWS = 1 << 18


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
    keys, rows = Keys.revealed(anchored(data.pseudonym_key, place.base)), {}
    with place.store.lock("lock", wait_s=wait_s):
        _finish(place)
        for table in tables_of(place):
            uri = place.store.uri("lake", table)
            if "://" in uri:
                raise NotSupportedYet("keys of tables on object stores cannot be rotated yet.", fix="Collect again under the new key.")
            columns = [n for n in names if n in open_table(uri).schema]
            if not columns or key_id_of(uri, columns) in (None, keys.id):
                continue
            with bringing(place, table, wait_s=wait_s):
                quarantine = place.store.uri("lake", quarantine_name(table))
                if table_exists(quarantine):
                    _anew(open_table(quarantine), {"value": _in_text(keys)}, open_table(uri).last.seq)
                old = open_table(uri)
                rows[table] = old.n_rows
                _anew(old, dict.fromkeys(columns, keys.rotated), old.last.seq)
        steps = steps_on(place, dict.fromkeys(rows))
        for step in steps:
            place.discard(step)
        # A pseudonym is as long as any other, so that each can be overwritten where it stands.
        logged = rewrite_logged(place.spec, place.base, _in_text(keys))
        if rows or logged:
            audit_of(place).write("rotate", place.spec.name, key=keys.id, rows=rows, logged=logged)
    return Rotated(keys.id, rows, len(steps), logged)


def _finish(place: Place) -> None:
    """What a kill between the two renames left: the new table takes its place, the old one goes."""
    for name in place.store.list("lake"):
        if not name.endswith(GONE):
            continue
        gone = place.store.path("lake", name)
        table = gone.with_name(name.removesuffix(GONE))
        if not table.exists():
            gone.with_name(f"{table.name}{SIDE}").rename(table)
        shutil.rmtree(gone)


def _in_text(keys: Keys) -> Callable[[str], str]:
    """Pseudonyms within a text rotated."""
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, keys.ids))})\.[0-9a-f]{{32}}")
    return lambda text: pattern.sub(lambda found: keys.rotated(found[0]), text)


def _anew(old: Table, change: Mapping[str, Callable[[str], str]], seq: int) -> None:
    """The table with some text columns changed, in the place of the old one, its cursor kept and its versions gone."""
    from modelinscale.data.lake import create_table

    last, side = old.last, Path(f"{old.uri}{SIDE}")
    shutil.rmtree(side, ignore_errors=True)
    facts: dict[str, Any] = {"seq": seq, "facts": last.facts, "run": "rotate"}
    blocks = _blocks(old, change)
    new = create_table(str(side), old.schema, next(blocks, None), batch="rotate-0", cursor=last.cursor, read_schema=old.read_schema, **facts)
    for n, block in enumerate(blocks, 1):
        new = new.append(block, batch=f"rotate-{n}", **facts)
    assert new.n_rows == old.n_rows, "every row was written"
    with told(side, "write"):
        gone = Path(f"{old.uri}{GONE}")
        Path(old.uri).rename(gone)
        side.rename(old.uri)
        shutil.rmtree(gone)


def _blocks(old: Table, change: Mapping[str, Callable[[str], str]]) -> Iterator[pa.Table]:
    import pyarrow as pa

    for block in old.blocks(n_rows=_BLOCK_ROWS):
        table = pa.Table.from_batches([block])
        for name, function in change.items():
            words = table.column(name).combine_chunks().dictionary_encode()
            again = pa.array([None if v is None else function(v) for v in words.dictionary.to_pylist()], pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, again.take(words.indices))
        yield table
