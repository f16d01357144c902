"""What a source may connect to over HTTP."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from modelinscale.core.errors import SourceError
from modelinscale.data.sources._net import check_address, opened, refused, shown


@contextmanager
def web(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server on a free port, and the headers of what it was asked."""
    asked: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            status, headers, body = answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]", "0.0.0.0", "224.0.0.1"]
)
@pytest.mark.parametrize("private", [False, True])
def test_metadata_and_other_special_addresses_are_never_read(host: str, private: bool) -> None:
    with pytest.raises(SourceError, match=r"a (link-local|reserved) address. No source may read from there"):
        check_address(f"http://{host}/latest", private=private)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "[::1]", "[fd12::1]", "2130706433", "0x7f.1", "100.64.0.1"])
def test_private_addresses_are_read_only_where_asked_however_they_are_written(host: str) -> None:
    with pytest.raises(SourceError, match=r"a private address. Set `private: true`"):
        check_address(f"http://{host}/rows")
    assert check_address(f"http://{host}/rows", private=True)


def test_a_public_address_may_be_read() -> None:
    assert check_address("https://9.9.9.9/x") == ("9.9.9.9",)
    assert refused("2620:fe::fe") is None


def test_a_name_with_one_bad_address_among_good_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("9.9.9.9", "169.254.169.254")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(SourceError, match=r"leads to 169.254.169.254"):
        check_address("http://rebound.example/")


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with web({"/": (200, {}, b"rows")}) as (url, asked):
        port = int(url.rpartition(":")[2])
        answers = iter(["127.0.0.1", "169.254.169.254"])  # the second answer would be another
        kinds = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        real = socket.getaddrinfo
        lies = lambda host, *a, **k: [(*kinds, (next(answers), port))] if host == "two.example" else real(host, *a, **k)  # noqa: E731
        monkeypatch.setattr(socket, "getaddrinfo", lies)
        with opened(f"http://two.example:{port}/", private=True) as answer:
            assert answer.read(10) == b"rows"
    assert asked[0]["Host"] == f"two.example:{port}"


def test_a_redirect_is_checked_like_a_first_address() -> None:
    with (
        web({"/a": (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b"")}) as (url, _),
        pytest.raises(SourceError, match=r"leads to 169.254.169.254"),
        opened(f"{url}/a", private=True),
    ):
        pass


def test_credentials_do_not_follow_to_another_host() -> None:
    with web({"/b": (200, {}, b"x")}) as (there, asked), web({"/a": (307, {"Location": f"{there}/b"}, b"")}) as (url, first):
        with opened(f"{url}/a", headers={"Authorization": "Bearer hush", "X-Kind": "rows"}, private=True) as answer:
            assert (answer.status, answer.read(9), answer.url) == (200, b"x", f"{there}/b")
        assert first[0]["Authorization"] == "Bearer hush"
        assert "Authorization" not in asked[0]
        assert "X-Kind" not in asked[0], "any header may hold a token"


def test_redirects_without_end_and_bodies_cut_short_are_told() -> None:
    with web({"/a": (302, {"Location": "/a"}, b""), "/short": (200, {"Content-Length": "9"}, b"rows")}) as (url, _):
        with pytest.raises(SourceError, match="more than 5 redirects"), opened(f"{url}/a", private=True):
            pass
        with opened(f"{url}/short", private=True) as answer:
            assert answer.read(4) == b"rows"
            with pytest.raises(SourceError, match="5 bytes too early"):
                answer.read(4)


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    assert shown("https://me:hush@host.example:8443/rows?token=hush#x") == "https://host.example:8443/rows"
    with pytest.raises(SourceError, match=r"http://169.254.0.1/rows leads") as told:
        check_address("http://me:hush@169.254.0.1/rows?token=hush")
    assert "hush" not in str(told.value)
