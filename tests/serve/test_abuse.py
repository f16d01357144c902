"""Broken, hostile and slow clients: each gets its 4xx, or is shut out; everybody else goes on being served."""

import random
import select
import socket
import struct
import time
from typing import Any

import pytest

from modelinscale.testing import waits
from modelinscale.testing.servers import Running, head, predict, read_all, status

GOOD = b'{"rows": [{"amount": 1}]}'
JSON_LINE = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 3", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), 400),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 3", "Content-Length: 4", body=b"abcd"), 400),
        (head("POST", "/predict", JSON_LINE, "Content-Length: -1"), 400),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 99999999999999999999999"), 400),
        (head("POST", "/predict", JSON_LINE, "Content-Length : 3", body=b"abc"), 400),
        (head("POST", "/predict", JSON_LINE, "Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n"), 400),
        (head("POST", "/predict", JSON_LINE, "Transfer-Encoding: chunked", body=b"ffffffffffffffffff\r\nabc\r\n"), 400),
        (head("POST", "/predict", JSON_LINE, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
        (head("POST", "/predict", JSON_LINE), 411),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 104857600", body=b"x" * 100), 413),
        (head("GET", "/" + "x" * 9000), 414),
        (head("GET", "/", *(f"X-{i}: y" for i in range(200))), 431),
        (head("GET", "/", "X: " + "y" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300_000, 431),
        (b"GET /" + b"y" * 300_000, 414),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 5", "Expect: tea", body=b"abcde"), 417),
        (head("POST", "/predict", JSON_LINE, "Content-Length: 104857600", "Expect: 100-continue"), 413),
        (head("POST", "/predict", "Content-Type: text/plain", f"Content-Length: {len(GOOD)}", body=GOOD), 415),
        (head("GET", "/predict"), 405),
        (head("DELETE", "/v2"), 405),
        (head("OPTIONS", "/predict"), 405),
        (head("TRACE", "/"), 405),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (head("GET", "/nothing"), 404),
        (head("GET", "/v2/models/nobody"), 404),
        (head("GET", "/../../etc/passwd"), 404),
        (head("GET", "/%2e%2e/%00"), 404),
        (head("POST", "/predict/nobody", JSON_LINE, "Content-Length: 2", body=b"{}"), 404),
    ],
)
def test_a_request_that_is_not_one_gets_its_status_and_the_server_stays(server: Running, raw: bytes, code: int) -> None:
    reply = server.say(raw)
    assert status(reply) == code, reply[:300]
    assert b'{"error":' in reply
    assert b"Traceback" not in reply
    assert server.healthy()


def test_a_method_that_is_not_known_names_those_that_are(server: Running) -> None:
    assert b"\r\nallow: POST\r\n" in server.say(head("GET", "/predict"))
    assert b"\r\nallow: GET, HEAD\r\n" in server.say(head("POST", "/v2/health/live", "Content-Length: 0"))


def test_head_is_get_without_the_body(server: Running) -> None:
    full, bare = server.say(head("GET", "/v2")), server.say(head("HEAD", "/v2"))
    fields, _, body = bare.partition(b"\r\n\r\n")
    assert (status(bare), body) == (200, b"")
    assert b"content-length: %d" % len(full.partition(b"\r\n\r\n")[2]) in fields


def test_a_refused_request_leaves_the_connection_usable(server: Running) -> None:
    first = head("POST", "/nothing", JSON_LINE, f"Content-Length: {len(GOOD)}", body=GOOD, close=False)
    replies = server.say(first + predict(GOOD))
    assert replies.count(b"HTTP/1.1 404") == 1
    assert replies.count(b"HTTP/1.1 200") == 1


def test_chunked_bodies_are_read_whatever_the_chunks(server: Running) -> None:
    for size in (1, 7, 1000):
        chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(GOOD[i : i + size]), GOOD[i : i + size]) for i in range(0, len(GOOD), size))
        reply = server.say(head("POST", "/predict", JSON_LINE, "Transfer-Encoding: chunked", body=chunks + b"0\r\nTrailer: x\r\n\r\n"))
        assert status(reply) == 200


def test_a_chunked_body_that_never_ends_is_refused_at_the_limit(server: Running) -> None:
    with server.connect() as link:
        link.sendall(head("POST", "/predict", JSON_LINE, "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(17):
            link.sendall(chunk)
        assert status(read_all(link)) == 413


def test_endless_trailers_are_refused(server: Running) -> None:
    trailers = b"".join(b"T%d: %s\r\n" % (i, b"x" * 100) for i in range(500))
    reply = server.say(head("POST", "/predict", JSON_LINE, "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n"))
    assert status(reply) in (422, 431)
    assert server.healthy()


def test_a_hundred_megabytes_are_refused_and_cost_no_memory(server: Running) -> None:
    before = server.rss_bytes()
    with server.connect() as link:
        link.sendall(head("POST", "/predict", JSON_LINE, f"Content-Length: {100 << 20}"))
        for _ in range(100):
            link.sendall(b" " * (1 << 20))
        assert status(read_all(link)) == 413
    assert server.rss_bytes() - before < 20 << 20


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server: Running) -> None:
    with server.connect() as link:
        link.sendall(head("POST", "/predict", JSON_LINE, f"Content-Length: {len(GOOD)}", "Expect: 100-continue"))
        assert link.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(GOOD)
        assert status(read_all(link)) == 200


def test_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    many = b"".join(predict(b'{"rows": [{"amount": %d}]}' % i, f"X-Request-Id: n{i}", close=i == 299) for i in range(300))
    replies = server.say(many)
    at = [replies.index(b'"id":"n%d"' % i) for i in range(300)]
    assert at == sorted(at)


def test_a_client_that_offers_another_protocol_is_answered_in_this_one(server: Running) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    raw = head("POST", "/predict", JSON_LINE, *offer, f"Content-Length: {len(GOOD)}", body=GOOD, close=False)
    with server.connect() as link:
        link.sendall(raw + head("GET", "/v2/health/live", *offer, close=False) + head("GET", "/v2"))
        replies = read_all(link)
    assert replies.count(b"HTTP/1.1 200 OK") == 3, replies


def test_http_1_0_closes_unless_asked_to_stay(server: Running) -> None:
    assert status(server.say(b"GET /v2 HTTP/1.0\r\n\r\n")) == 200
    replies = server.say(b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /v2 HTTP/1.0\r\n\r\n")
    assert replies.count(b"200 OK") == 2
    assert b"connection: keep-alive" in replies


def test_a_connection_without_a_request_is_closed(server: Running) -> None:
    start = time.monotonic()
    assert server.say(b"") == b""
    assert time.monotonic() - start > 0.5


@pytest.mark.parametrize("after", [b"GET /v2 HT", head("POST", "/predict", JSON_LINE, "Content-Length: 100", body=b'{"ro')])
def test_slow_heads_and_bodies_are_shut_out(server: Running, after: bytes) -> None:
    with server.connect() as link:
        link.sendall(after)
        reply = read_all(link)  # which waits at most two minutes
    assert status(reply) == 408


@pytest.mark.slow
def test_a_drip_of_bytes_does_not_keep_a_head_open(server: Running) -> None:
    start = time.monotonic()
    with server.connect() as link:
        link.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\n")
        reply = b""
        link.settimeout(0.2)
        while not reply and time.monotonic() - start < waits.LONG_S:
            try:
                link.sendall(b"X: y\r\n")
                reply = link.recv(1000)
            except TimeoutError:
                continue
    assert status(reply) == 408


@pytest.mark.slow
def test_a_connection_that_is_silent_after_its_answer_is_closed(server: Running) -> None:
    with server.connect() as link:
        link.sendall(head("GET", "/v2", close=False))
        start = time.monotonic()
        assert status(read_all(link)) == 200
        assert time.monotonic() - start > 1.5


def test_a_client_that_closes_its_side_first_still_gets_its_answer(server: Running) -> None:
    with server.connect() as link:
        link.sendall(predict(GOOD, close=False))
        link.shutdown(socket.SHUT_WR)
        assert status(read_all(link)) == 200


def test_clients_that_hang_up_inside_a_batch_disturb_nobody(server: Running) -> None:
    for _ in range(5):
        links = [server.connect() for _ in range(30)]
        for link in links:
            link.sendall(predict(GOOD, close=False))
        for link in links[::2]:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a polite end
            link.close()
        for link in links[1::2]:
            assert status(link.recv(1000)) == 200
            link.close()
    assert server.healthy()
    assert "mis_requests_in_flight 0\n" in server.get("/metrics").text


@pytest.mark.slow
def test_a_client_that_never_reads_is_shut_out_and_the_others_go_on(server: Running) -> None:
    with server.connect() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        page = head("GET", "/", close=False)
        link.settimeout(0.5)
        try:
            for _ in range(3000):
                link.sendall(page * 10)
        except (TimeoutError, ConnectionError):
            assert server.healthy(), "back-pressure on one connection is no business of the others"
        waits.until(lambda: "mis_connections 1\n" in server.get("/metrics").text, "the end of the connection")


def test_random_bytes_never_bring_it_down(server: Running) -> None:
    chance = random.Random(7)
    good = predict(GOOD)
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        with server.connect() as link:
            link.sendall(bytes(raw))
            link.shutdown(socket.SHUT_WR)
            reply = read_all(link)
        assert not reply or status(reply) < 500 or status(reply) in (501, 505), (bytes(raw), reply)
    assert server.healthy()


@pytest.mark.slow
def test_too_many_connections_get_503(start: Any, packages: Any) -> None:
    with start(packages["binary"], max_connections=3) as up:
        links = [up.connect() for _ in range(3)]  # which it takes in the order in which they came
        with up.connect() as link:
            reply = read_all(link)
        assert status(reply) == 503
        assert b"retry-after: 1\r\n" in reply
        for link in links:
            link.close()
        waits.until(up.healthy, "room for another")


@pytest.mark.slow
def test_bodies_that_would_fill_the_memory_get_503(start: Any, packages: Any) -> None:
    with start(packages["binary"], max_body="1MiB", max_waiting="2MiB") as up:
        links = [up.connect() for _ in range(4)]
        for link in links:
            link.sendall(head("POST", "/predict", JSON_LINE, f"Content-Length: {1 << 20}") + b" " * ((1 << 20) - 10))
        answered, _, _ = select.select(links, [], [], waits.LONG_S)
        assert {status(link.recv(1000)) for link in answered} == {503}
        for link in links:
            link.close()
        waits.until(up.healthy, "what was held is given back, which")
