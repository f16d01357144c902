"""Random histories of a lake table against a plain model of it: contents, order, time travel, changes, cursor, names."""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import SEQ, Table, create_table, open_table

Row = tuple[object, ...]
START = Schema(columns=(Column(name="key", type="int"), Column(name="n", type="int"), Column(name="word", type="string")))


@dataclass
class Model:
    """What the table should be: rows in order with the commit that brought each, and every version that can be read."""

    rows: list[dict[str, object]] = field(default_factory=list)
    versions: dict[int, list[dict[str, object]]] = field(default_factory=dict)
    cursor: int = 0


def shown(table: Table, **how: int) -> list[Row]:
    names = list(table.schema.names)
    return [tuple(row[name] for name in names) for block in table.blocks(names, **how) for row in block.to_pylist()]


def cells(rows: list[dict[str, object]], table: Table) -> list[Row]:
    return [tuple(row.get(name) for name in table.schema.names) for row in rows]


def keys(table: pa.Table) -> list[object]:
    return sorted(table.column("key").to_pylist())


def check_changes(table: Table, version: int, before: list[dict[str, object]], now: list[dict[str, object]]) -> None:
    """Rows and keys since a version, against two lists of rows (each row is one object, so a replaced one is another)."""
    old, new = {id(row) for row in before}, {id(row) for row in now}
    came = [row for row in now if id(row) not in old]
    gone = [row["key"] for row in before if id(row) not in new]
    assert shown(table, since=version) == cells(came, table)
    found = table.changes_since(version, ["key"])
    fresh = [row["key"] for row in came]
    assert keys(found.inserted) == sorted(k for k in fresh if k not in gone)  # type: ignore[type-var]
    assert keys(found.updated) == sorted(k for k in fresh if k in gone)  # type: ignore[type-var]
    assert keys(found.deleted) == sorted(k for k in gone if k not in fresh)  # type: ignore[type-var]


def one_history(uri: str, seed: int, n_steps: int, *, codes: bool) -> None:
    """``codes``: its text is kept as codes, since it repeats in the first rows."""
    chance = random.Random(seed)
    next_key, pinned = (8 if codes else 0), dict[str, int]()
    first: list[dict[str, object]] = [{"key": i, "n": i, "word": f"w{i % 3}"} for i in range(next_key)]
    table = create_table(uri, START, pa.Table.from_pylist(first, schema=arrow_schema(START)), batch="0", cursor={"n": 0})
    assert pa.types.is_dictionary(lance.dataset(uri).schema.field("word").type) == codes
    model = Model(rows=list(first), versions={1: list(first)})
    acts = ["append"] * 4 + ["upsert"] * 4 + ["erase", "evolve", "compact", "vacuum", "tag", "stage", "reopen", "nothing", "drop", "sweep"]
    for step in range(n_steps):
        act = chance.choice(acts)

        def made(key: int, table: Table = table) -> dict[str, object]:
            whole = table.schema["n"].type == "int"
            row: dict[str, object] = {"key": key, "n": chance.randint(0, 99) if whole else chance.randint(0, 99) / 4, "word": f"w{chance.randint(0, 9)}"}
            return row | {c.name: chance.random() < 0.5 for c in table.schema.columns[3:]}

        def typed(rows: list[dict[str, object]], table: Table = table) -> pa.Table:
            return pa.Table.from_pylist(rows, schema=arrow_schema(table.schema))

        if act in ("append", "stage"):
            fresh = [made(next_key + i) for i in range(chance.randint(0, 12))]
            next_key += len(fresh)
            model.cursor += 1
            if act == "append":
                table = table.append(typed(fresh), batch=f"b{step}", cursor={"n": model.cursor})
            else:
                parts = [table.stage(typed(fresh[:4])), table.stage(typed(fresh[4:]))]
                table = table.append_staged(parts, batch=f"b{step}", cursor={"n": model.cursor})
            model.rows = [*model.rows, *fresh]
        elif act == "upsert":
            fresh = [made(chance.randint(0, next_key + 3)) for _ in range(chance.randint(0, 8))]
            next_key = max([next_key, *(int(str(row["key"])) + 1 for row in fresh)])
            model.cursor += 1
            table = table.upsert(typed(fresh), ["key"], batch=f"b{step}", cursor={"n": model.cursor})
            last = {row["key"]: row for row in fresh}
            model.rows = [*(row for row in model.rows if row["key"] not in last), *(row for row in fresh if last[row["key"]] is row)]
        elif act == "erase" and model.rows:
            words = [f"w{chance.randint(0, 9)}" for _ in range(chance.randint(1, 2))]
            left = [row for row in model.rows if row["word"] not in words]
            done = table.erase("word", words)
            assert done.n_rows == len(model.rows) - len(left)
            table, model.rows = open_table(uri), left
            # What held the rows even deleted is gone; so some versions that never showed one may be, but none that shows one stays.
            readable = {v.number for v in table.versions()}
            assert not [v for v, rows in model.versions.items() if v in readable and any(row["word"] in words for row in rows)]
            model.versions = {v: rows for v, rows in model.versions.items() if v in readable}
            pinned = {name: table.version if name in done.tags_moved else at for name, at in pinned.items()}
        elif act == "evolve":
            extra = [Column(name=f"c{len(table.schema.columns)}", type="bool")] if len(table.schema.columns) < 6 else []
            number = [Column(name="n", type="float")] if chance.random() < 0.3 else []
            table = table.evolve(Schema(columns=(*number, *extra)))
        elif act == "compact":
            table = table.compact(n_files=2)
        elif act == "vacuum":
            kept = table.vacuum(older_than=timedelta(0), keep_versions=chance.randint(1, 4)).kept
            table = open_table(uri)
            assert set(pinned.values()) <= set(kept)
            model.versions = {v: rows for v, rows in model.versions.items() if v in kept}
        elif act == "tag":
            name = f"model-{chance.randint(0, 2)}"
            table.tag(name)
            pinned[name] = table.version
        elif act == "drop":
            assert table.drop_after(table.last.seq).version == table.version
        elif act == "sweep":
            table.sweep()
        elif act == "reopen":
            table = open_table(uri)
        table = table.append(typed([], table), batch=f"nothing {step}")
        model.versions[table.version] = list(model.rows)
        assert shown(table) == cells(model.rows, table), f"step {step}: {act}"
        assert (table.cursor, table.tags) == ({"n": model.cursor}, pinned)
        assert shown(table.at(table.rows_version)) == cells(model.rows, table)
        version = chance.choice(sorted(model.versions))
        then = table.at(version)
        assert [r[0] for r in shown(then)] == [row["key"] for row in model.versions[version]]
        check_changes(table, version, model.versions[version], model.rows)
    seqs = lance.dataset(uri).to_table(columns=[SEQ]).column(SEQ).to_pylist()
    assert seqs == sorted(seqs)
    lance.dataset(uri).validate()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("codes", [False, True], ids=["text as text", "text as codes"])
@pytest.mark.parametrize(("seed", "n_steps"), [(1, 20), pytest.param(2, 60, marks=pytest.mark.slow)])
def test_random_histories_equal_a_plain_model(tmp_path: Path, seed: int, n_steps: int, codes: bool) -> None:
    one_history(str(tmp_path / "t"), seed, n_steps, codes=codes)
