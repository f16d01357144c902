"""A lake table on an object store: the same as in a folder, many writers at once, and what is told when the store fails or refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from modelinscale.core.errors import LakeError, MisError
from modelinscale.core.schema import Column, Schema
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.lake import Table, create_table, open_table, table_exists
from modelinscale.testing.buckets import Server
from modelinscale.testing.clouds import CLOUDS

SCHEMA = Schema(columns=(Column(name="id", type="int"), Column(name="word", type="string")))


def rows(*ids: int, word: str = "w") -> pa.Table:
    return pa.Table.from_pylist([{"id": i, "word": f"{word}{i}"} for i in ids], schema=arrow_schema(SCHEMA))


def column(table: Table, name: str = "id", **how: Any) -> list[Any]:
    return [cell for block in table.blocks([name], **how) for cell in block.column(name).to_pylist()]


@pytest.fixture(params=[pytest.param(name, marks=[] if name == "s3" else [pytest.mark.slow]) for name in sorted(CLOUDS)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with CLOUDS[request.param]() as found:
        yield found


def uri(server: Server) -> str:
    return f"{server.scheme}://bucket/some/t"


def told(server: Server, error: object) -> str:
    """An error's words, after a look that no secret is in them."""
    words = str(error)
    for secret in (server.secret, server.wrong_secret):
        assert not [piece for piece in (secret[i : i + 16] for i in range(0, len(secret) - 16, 16)) if piece in words and "tests" not in piece]
    return words


@pytest.mark.slow
def test_a_table_on_a_store_does_what_one_in_a_folder_does(server: Server) -> None:
    how, at = server.options, uri(server)
    assert not table_exists(at, options=how)
    table = create_table(at, SCHEMA, rows(1, 2, 3), batch="a", cursor={"n": 3}, options=how)
    assert table_exists(at, options=how)
    with pytest.raises(LakeError, match="there is a table at"):
        create_table(at, SCHEMA, options=how)
    table = table.append(rows(4), batch="b", cursor={"n": 4}).upsert(rows(2, word="new"), ["id"], batch="c", cursor={"n": 5})
    table = table.append_staged([table.stage(rows(*range(5, 9)))], batch="d")
    assert (column(table), table.cursor, column(table.at(1))) == ([1, 3, 4, 2, 5, 6, 7, 8], {"n": 5}, [1, 2, 3])
    assert column(table, since=2) == [2, 5, 6, 7, 8]
    table.tag("model-m-1", 2)
    table = table.evolve(Schema(columns=(Column(name="id", type="float"), Column(name="ok", type="bool")))).compact(n_files=1)
    assert column(table) == [1.0, 3.0, 4.0, 2.0, 5.0, 6.0, 7.0, 8.0]
    assert table.vacuum(older_than=timedelta(0)).kept[2] == "named model-m-1"
    done = open_table(at, options=how).erase("word", ["w4"])
    assert (done.n_rows, set(done.tags_moved)) == (1, {"model-m-1"})
    assert column(open_table(at, options=how)) == [1.0, 3.0, 2.0, 5.0, 6.0, 7.0, 8.0]
    left = [bytes(content) for name, content in server.objects.held.items() if name.startswith("bucket/some/t/")]
    assert left
    assert not [content for content in left if b"w4" in content]


@pytest.mark.slow
def test_writers_on_a_store_at_once_lose_and_double_nothing(server: Server) -> None:
    n_writers, n_appends = 4, 20
    create_table(uri(server), SCHEMA, options=server.options)
    code = f"""
import sys, json
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_lake_buckets as t
who, uri, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
for i in range({n_appends}):
    t.open_table(uri, options=options).append(t.rows(who * 100 + i), batch=f"{{who}}-{{i}}")
"""
    words = [uri(server), json.dumps(server.options)]
    writers = [subprocess.Popen([sys.executable, "-c", code, str(who), *words]) for who in range(n_writers)]
    assert [w.wait() for w in writers] == [0] * n_writers
    table = open_table(uri(server), options=server.options)
    assert sorted(column(table)) == [who * 100 + i for who in range(n_writers) for i in range(n_appends)]
    seqs = [past.commit.seq for past in table.history() if past.commit and past.commit.batch]
    assert seqs == list(range(1, n_writers * n_appends + 1))


@pytest.mark.slow
def test_a_commit_that_was_done_but_answered_with_a_failure_counts_once(server: Server) -> None:
    server.objects.mute = re.compile("bucket/some/t/_versions/")
    table = create_table(uri(server), SCHEMA, rows(1), batch="a", options=server.options)
    for i in range(2, 5):
        server.objects.mute = re.compile("bucket/some/t/_versions/")
        table = table.append(rows(i), batch=f"b{i}")
        assert server.objects.mute is None, "the failure was told"
    assert column(open_table(uri(server), options=server.options)) == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_store_that_dies_at_any_write_leaves_the_last_whole_version(server: Server) -> None:
    how = server.options | {"client_max_retries": "1", "retry_timeout": "2s", "timeout": "3s"}
    table = create_table(uri(server), SCHEMA, rows(1, 2), batch="a", options=how)
    for n in range(3):  # the file of the rows, the transaction, the manifest
        server.objects.writes_left = n
        with pytest.raises(MisError, match="it cannot be reached") as error:
            table.append(rows(10 + n), batch=f"b{n}")
        told(server, error.value)
        server.objects.writes_left = None
        assert column(open_table(uri(server), options=how)) == [1, 2], "half of it is visible"
    server.objects.writes_left = 9
    table.append(rows(12), batch="b2")
    assert server.objects.writes_left == 6, "a commit is three writes"
    assert column(open_table(uri(server), options=how)) == [1, 2, 12]


@pytest.mark.parametrize("make", list(CLOUDS.values()), ids=list(CLOUDS))
def test_a_store_that_overwrites_what_it_should_not_is_refused(make: Any) -> None:
    with make(forgetful=True) as server, pytest.raises(LakeError, match="this store overwrites an object when it is told not to"):
        create_table(uri(server), SCHEMA, options=server.options)


REFUSED = {
    "bucket gone": ({"az": (404, "ContainerNotFound"), "gs": (404, "NoSuchBucket"), "s3": (404, "NoSuchBucket")}, "bucket", "there is no such"),
    "no right to write": ({"az": (403, "AuthorizationPermissionMismatch"), "gs": (403, "AccessDenied"), "s3": (403, "AccessDenied")}, "PUT bucket", "denied"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_a_store_refuses_is_told(server: Server, name: str) -> None:
    answers, where, words = REFUSED[name]
    table = create_table(uri(server), SCHEMA, rows(1), batch="a", options=server.options | {"client_max_retries": "0"})
    server.objects.refused[where] = answers[server.scheme]
    with pytest.raises(MisError, match=words) as error:
        table.append(rows(2), batch="b")
    told(server, error.value)
    server.objects.refused.clear()
    assert column(open_table(uri(server), options=server.options)) == [1]


def test_a_wrong_key_is_told(server: Server) -> None:
    create_table(uri(server), SCHEMA, rows(1), batch="a", options=server.options)
    wrong = {name: server.wrong_secret if value == server.secret else value for name, value in server.options.items()}
    with pytest.raises(LakeError, match=r"credentials were refused|secret key does not fit") as error:
        open_table(uri(server), options=wrong | {"client_max_retries": "0"})
    told(server, error.value)


def test_a_store_that_cannot_be_reached_is_told_without_its_credentials(server: Server) -> None:
    none = uri(server).replace("some/t", "none")
    with pytest.raises(LakeError, match=f"there is no table at {none}"):
        open_table(none, options=server.options)
    far = {name: re.sub(r":\d+", ":1", value) if value.startswith("http:") else value for name, value in server.options.items()}
    with pytest.raises(LakeError, match=r"cannot be reached") as error:
        open_table(uri(server), options=far | {"client_max_retries": "0"})
    told(server, error.value)
