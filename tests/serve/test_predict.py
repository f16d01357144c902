"""``POST /predict`` on a real server."""

import gzip
import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelinscale.package import open_package
from modelinscale.testing.packages import ROWS
from modelinscale.testing.servers import Running


def gz(content: bytes) -> bytes:
    """Packed, the same at every call: names of tests are made of it."""
    return gzip.compress(content, mtime=0)


def test_rows_are_answered_in_order_by_the_first_package(server: Running, packages: dict[str, Path]) -> None:
    reply = server.post("/predict", {"rows": list(ROWS)})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["model"] == {"name": "binary", "version": 3}
    assert reply.json()["predictions"] == open_package(packages["binary"]).predict(ROWS)


@pytest.mark.parametrize("name", ["binary", "multiclass", "regression"])
def test_every_package_answers_under_its_name_as_in_python(server: Running, packages: dict[str, Path], name: str) -> None:
    reply = server.post(f"/predict/{name}", {"rows": list(ROWS)})
    assert reply.json()["predictions"] == open_package(packages[name]).predict(ROWS)
    assert reply.json()["model"]["name"] == name


def test_a_request_id_comes_back_and_a_dangerous_one_is_replaced(server: Running) -> None:
    named = server.post("/predict", {"rows": [{}]}, **{"x-request-id": "order-17/b"})
    assert (named.json()["id"], named.headers["x-request-id"]) == ("order-17/b", "order-17/b")
    for bad in ("a b", "x" * 129, '"', "<b>"):
        reply = server.post("/predict", {"rows": [{}]}, **{"x-request-id": bad})
        assert reply.json()["id"] == reply.headers["x-request-id"] != bad
        assert re.fullmatch(r"[0-9a-f]{20}", reply.json()["id"])


def test_no_rows_are_answered_with_no_predictions(server: Running) -> None:
    for name in ("binary", "regression"):
        reply = server.post(f"/predict/{name}", {"rows": []})
        assert (reply.status_code, reply.json()["predictions"]) == (200, [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{}, {"count": "many"}], r"row 1, column 'count': found \"many\", expected a whole number"),
        ([{"count": 1.5}], r"row 0, column 'count': found 1.5"),
        ([{"amuont": 1}], r"no column 'amuont'\. Did you mean 'amount'\?"),
        ([{"paid": "perhaps"}], r"column 'paid': found \"perhaps\", expected true or false"),
        ([{"at": "yesterday"}], r"column 'at': found \"yesterday\", expected a moment"),
        ([{"place": [1]}], r"column 'place': .*expected a list of 2 numbers"),
        ([{"place": [[1], 2]}], r"column 'place'"),
        ([{"place": "one, two"}], r"column 'place'"),
        ([{"city": {"a": 1}}], r"column 'city': found a JSON object"),
        ([{"amount": True}], r"column 'amount': found true"),
        ([{"amount": 10**400}], r"column 'amount'"),
        ([{"count": 2**70}], r"column 'count'"),
        ([{"amount": "1" * 100_000}], r"column 'amount'.*characters"),
        ([7], r"Expected `object`, got `int`"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_column_value_and_what_was_expected(server: Running, rows: list[Any], message: str) -> None:
    reply = server.post("/predict", {"rows": rows})
    assert reply.status_code == 422, reply.text
    error = reply.json()["error"]
    assert error.keys() == {"message", "fix", "id"}
    assert error["fix"]
    assert re.search(message, error["message"]), error["message"]
    assert error["id"] == reply.headers["x-request-id"]
    assert len(reply.content) < 2000


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"rows": [{"amount": NaN}]}', 400, "not JSON"),
        (b'{"rows": [{"amount": Infinity}]}', 400, "not JSON"),
        (b'{"rows": [{"amount": -Infinity}]}', 400, "not JSON"),
        (b'{"rows": [{"amount": 1e999}]}', 422, "out of range"),
        (b'{"rows": [{"amount": ' + b"9" * 6000 + b"}]}", 422, "out of range"),
        (b'{"rows": [{"city": "\xff"}]}', 400, "not UTF-8"),
        (b'{"rows": [{"city": "\\ud800"}]}', 400, "not JSON"),
        (b'{"rows": [{}]} and more', 400, "not JSON"),
        (b'{"rows": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 422, "Expected `object`"),
        (b'{"rows": [{"city": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]}", 400, "nested too deeply"),
        (b'{"rows": [{"city": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}]}", 400, "nested too deeply"),
        (b"[]", 422, "Expected `object`"),
        (b"null", 422, "Expected `object`"),
        (b'{"row": {}}', 422, "unknown field `row`"),
        (b'{"rows": {}}', 422, "Expected `array`"),
        (b"{}", 422, "missing required field `rows`"),
        (b'{"rows": [{"amount": 1}' + b', {"amount": 1}' * 2000 + b"]}", 413, "2001 rows are more than the 2000"),
    ],
)
def test_a_body_that_is_no_list_of_rows_is_told(server: Running, body: bytes, code: int, message: str) -> None:
    reply = server.post("/predict", body)
    assert reply.status_code == code, reply.text
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["fix"]
    assert server.healthy()


def test_a_required_column_is_asked_for(server: Running) -> None:
    reply = server.post("/predict/strict", {"rows": [{"amount": 1}]})
    assert reply.status_code == 422
    assert "column 'count': it is not there" in reply.json()["error"]["message"]
    assert server.post("/predict/strict", {"rows": [{"count": 1}]}).json()["model"] == {"name": "strict", "version": None}


def test_a_bad_row_fails_only_its_own_request_however_they_are_batched(server: Running, packages: dict[str, Path]) -> None:
    expected = open_package(packages["binary"]).predict([{"amount": float(i)} for i in range(200)])

    def ask(i: int) -> None:
        with httpx.Client(base_url=server.url) as client:
            for k in range(i, 200, 8):
                value: Any = "broken" if k % 5 == 0 else float(k)
                reply = client.post("/predict", json={"rows": [{"amount": value}]})
                if k % 5 == 0:
                    assert (reply.status_code, reply.json()["error"]["message"][:6]) == (422, "row 0,")
                else:
                    assert reply.json()["predictions"][0]["prediction"] == expected[k]["prediction"]
                    assert reply.json()["predictions"][0]["probabilities"] == pytest.approx(expected[k]["probabilities"], abs=1e-6)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "bare deflate", "two gzip members"])
def test_packed_bodies_are_read(server: Running, coding: str) -> None:
    body = json.dumps({"rows": [{"amount": 1}] * 50}).encode()
    bare = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gz(body),
        "deflate": zlib.compress(body),
        "bare deflate": bare.compress(body) + bare.flush(),
        "two gzip members": gz(body[:30]) + gz(body[30:]),
    }[coding]
    reply = server.post("/predict", packed, **{"content-encoding": "gzip" if "gzip" in coding else "deflate"})
    assert len(reply.json()["predictions"]) == 50


def test_a_body_that_unpacks_beyond_the_limit_is_refused_without_the_memory(server: Running) -> None:
    before = server.rss_bytes()
    bomb = gz(b" " * (100 << 20))
    assert len(bomb) < 1 << 20
    reply = server.post("/predict", bomb, **{"content-encoding": "gzip"})
    assert (reply.status_code, "unpacked body is larger" in reply.text) == (413, True)
    assert server.rss_bytes() - before < 20 << 20


@pytest.mark.parametrize(
    ("packed", "coding", "code"),
    [
        (b"not gzip", "gzip", 400),
        (gz(b'{"rows": [{}]}')[:-6], "gzip", 400),
        (gz(b"") * 1500, "gzip", 400),
        (b"", "gzip", 400),
        (b"x", "br", 415),
        (b"x", "gzip, gzip", 415),
    ],
)
def test_packed_bodies_that_are_damaged_or_unknown_are_refused(server: Running, packed: bytes, coding: str, code: int) -> None:
    reply = server.post("/predict", packed, **{"content-encoding": coding})
    assert reply.status_code == code, reply.text
    if code == 415:
        assert reply.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.rows+json", 200),
        ("text/plain", 415),
        ("application/json; charset=latin-1", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/octet-stream", 415),
    ],
)
def test_only_json_is_read(server: Running, kind: str, code: int) -> None:
    assert server.post("/predict", {"rows": [{}]}, **{"content-type": kind}).status_code == code


def test_many_rows_come_back_complete(server: Running, packages: dict[str, Path]) -> None:
    rows = [{"amount": i / 7, "city": "Paris" if i % 3 else None} for i in range(2000)]
    found = server.post("/predict", {"rows": rows}).json()["predictions"]
    expected = open_package(packages["binary"]).predict(rows)
    assert [f["prediction"] for f in found] == [e["prediction"] for e in expected]
