"""A lake table on an object store: the same as in a folder, many writers at once, and what is told when it cannot be reached."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import LakeError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import Table, create_table, open_table, table_exists
from modelinscale.testing.buckets import Server
from modelinscale.testing.s3 import s3_server

SCHEMA = Schema(columns=(Column(name="id", type="int"), Column(name="word", type="string")))
URI = "s3://bucket/some/t"


def rows(*ids: int, word: str = "w") -> pa.Table:
    return pa.Table.from_pylist([{"id": i, "word": f"{word}{i}"} for i in ids], schema=arrow_schema(SCHEMA))


def column(table: Table, name: str = "id", **how: Any) -> list[Any]:
    return [cell for block in table.blocks([name], **how) for cell in block.column(name).to_pylist()]


@pytest.fixture
def server() -> Iterator[Server]:
    with s3_server() as found:
        yield found


def test_a_table_on_a_store_does_what_one_in_a_folder_does(server: Server) -> None:
    how = server.options
    assert not table_exists(URI, options=how)
    table = create_table(URI, SCHEMA, rows(1, 2, 3), batch="a", cursor={"n": 3}, options=how)
    assert table_exists(URI, options=how)
    with pytest.raises(LakeError, match="there is a table at"):
        create_table(URI, SCHEMA, options=how)
    table = table.append(rows(4), batch="b", cursor={"n": 4}).upsert(rows(2, word="new"), ["id"], batch="c", cursor={"n": 5})
    table = table.append_staged([table.stage(rows(*range(5, 9)))], batch="d")
    assert (column(table), table.cursor, column(table.at(1))) == ([1, 3, 4, 2, 5, 6, 7, 8], {"n": 5}, [1, 2, 3])
    assert column(table, since=2) == [2, 5, 6, 7, 8]
    table.tag("model-m-1", 2)
    table = table.evolve(Schema(columns=(Column(name="id", type="float"), Column(name="ok", type="bool")))).compact(n_files=1)
    assert column(table) == [1.0, 3.0, 4.0, 2.0, 5.0, 6.0, 7.0, 8.0]
    assert table.vacuum(older_than=timedelta(0)).kept[2] == "named model-m-1"
    done = open_table(URI, options=how).erase("word", ["w4"])
    assert (done.n_rows, set(done.tags_moved)) == (1, {"model-m-1"})
    assert column(open_table(URI, options=how)) == [1.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0]
    left = [bytes(content) for name, content in server.objects.held.items() if name.startswith("bucket/some/t/")]
    assert left
    assert not [content for content in left if b"w4" in content]


@pytest.mark.slow
def test_writers_on_a_store_at_once_lose_and_double_nothing(server: Server) -> None:
    create_table(URI, SCHEMA, options=server.options)
    code = f"""
import sys, json
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_lake_s3 as t
who = int(sys.argv[1])
for i in range(6):
    t.open_table(t.URI, options=json.loads(sys.argv[2])).append(t.rows(who * 100 + i), batch=f"{{who}}-{{i}}")
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(who), json.dumps(server.options)]) for who in range(2)]
    assert [w.wait() for w in writers] == [0] * 2
    table = open_table(URI, options=server.options)
    assert sorted(column(table)) == [who * 100 + i for who in range(2) for i in range(6)]
    seqs = [past.commit.seq for past in table.history() if past.commit and past.commit.batch]
    assert seqs == list(range(1, 13))


def test_a_store_that_overwrites_what_it_should_not_is_refused() -> None:
    with s3_server(forgetful=True) as server, pytest.raises(LakeError, match="this store overwrites an object when it is told not to"):
        create_table(URI, SCHEMA, options=server.options)


def test_a_store_that_cannot_be_reached_is_told_without_its_credentials(server: Server) -> None:
    with pytest.raises(LakeError, match="there is no table at s3://bucket/none"):
        open_table("s3://bucket/none", options=server.options)
    nobody = server.options | {"aws_endpoint": "http://127.0.0.1:1", "aws_secret_access_key": "hush-hush", "client_max_retries": "0"}
    with pytest.raises(LakeError, match=r"Cannot open the table s3://bucket/t.*Check the address, the credentials") as told:
        open_table("s3://bucket/t", options=nobody)
    assert "hush" not in str(told.value)
