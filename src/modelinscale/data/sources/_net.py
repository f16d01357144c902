"""What a source may connect to over HTTP: never a cloud's metadata service, nor a private network unless that is asked for.

A name is resolved once, its addresses are checked, and the connection goes to a checked address: a name that answers differently the second time leads
nowhere. Every redirect is checked like a first address, and only the first host is given credentials.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import SplitResult, urljoin, urlsplit

from modelinscale.core.errors import SourceError, Unreachable

MOST_REDIRECTS = 5
_METADATA = ipaddress.ip_address("fd00:ec2::254")  # of AWS over IPv6; over IPv4 it is link-local
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PLAIN = ("accept", "accept-encoding", "content-type", "if-match", "if-modified-since", "if-none-match", "range", "user-agent")
"""Headers that another host may see: any other one may be a credential (``X-Api-Key``)."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_address(url: str, *, private: bool = False) -> tuple[str, ...]:
    """The addresses that the host of an ``http(s)://`` URL has now, all of which may be connected to.

    Raises `SourceError` for another scheme, for a name that cannot be resolved, for link-local, multicast and unspecified addresses (cloud metadata among
    them), and unless ``private`` for every address that is not of the public internet: loopback, 10/8, 192.168/16, ...
    """
    parts = _parts(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or (443 if parts.scheme == "https" else 80), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{shown(url)}: the name {host!r} is not known ({error}).", fix="Check the address, and that this machine reaches it.") from error
    addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
    for address in addresses:
        what = refused(address, private=private)
        if what is not None:
            fix = "Set `private: true` if this server is yours." if what == "private" else "No source may read from there."
            raise SourceError(f"{shown(url)} leads to {address}, a {what} address.", fix=fix)
    return addresses


def refused(address: str, *, private: bool = False) -> str | None:
    """Why an address must not be connected to, in a word; None if it may.

    >>> refused("169.254.169.254", private=True), refused("10.0.0.1"), refused("10.0.0.1", private=True), refused("::ffff:127.0.0.1")
    ('link-local', 'private', None, 'private')
    """
    one = _within(ipaddress.ip_address(address.partition("%")[0]))
    if one.is_link_local or one == _METADATA:
        return "link-local"
    if one.is_multicast or one.is_unspecified or (one.is_reserved and not one.is_loopback):
        return "reserved"
    return None if private or one.is_global else "private"


def _within(one: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(one, ipaddress.IPv4Address):
        return one
    if one in _NAT64:
        return ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)
    return one.ipv4_mapped or one.sixtofour or one


def shown(url: str) -> str:
    """A URL without its user, password and query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def opened(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    private: bool = False,
    timeout_s: float = 30.0,
) -> Iterator["Answer"]:
    """The server's answer to a request, whatever its status, redirects followed; every address on the way is checked.

    Raises `SourceError` for a refused address, too many redirects or no connection. Retrying is the caller's.
    """
    asked = dict(headers or {})
    for _ in range(MOST_REDIRECTS + 1):
        parts = _parts(url)
        connection = _connection(url, check_address(url, private=private), timeout_s)
        response = None
        try:
            try:
                connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, {"Accept-Encoding": "identity", **asked})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(f"{shown(url)} cannot be reached: {str(error) or type(error).__name__}.", fix="Check the address and the network.") from error
            to = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not to:
                yield Answer(url, response)
                return
            there = urljoin(url, to)
            if body is not None and response.status not in (307, 308):
                raise SourceError(f"{shown(url)} leads a {method} to {shown(there)}.", fix="Name the address that takes it.")
            if (urlsplit(there).scheme, urlsplit(there).netloc) != (parts.scheme, parts.netloc):
                asked = {name: value for name, value in asked.items() if name.lower() in _PLAIN}
            if parts.scheme == "https" and urlsplit(there).scheme != "https":
                raise SourceError(f"{shown(url)} leads from https to {shown(there)}, which is not secured.", fix="Name the address it should be read from.")
            url = there
        finally:
            if response is not None:
                response.close()
            connection.close()
    raise SourceError(f"{shown(url)}: more than {MOST_REDIRECTS} redirects.", fix="Name the address that has the rows.")


class Answer:
    """A server's answer: status, headers, and a body to read once."""

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self.url, self._response = url, response
        """Where the answer came from, after redirects."""
        self.status, self.headers = response.status, response.headers

    def read(self, n: int) -> bytes:
        """The next bytes, at most ``n``; empty at the end. Raises `SourceError` when the connection breaks or the body ends too early."""
        try:
            data = self._response.read(n)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"{shown(self.url)}: the connection broke while its content came ({str(error) or type(error).__name__}).", fix="Try again."
            ) from error
        if not data and n and self._response.length:
            raise Unreachable(f"{shown(self.url)}: the content ended {self._response.length:,} bytes too early.", fix="Try again.")
        return data


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise SourceError("this address cannot be read.", fix="Write `https://host/path`.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"{shown(url)} is no address of a web server.", fix="Write `https://host/path`.")
    return parts


def _connection(url: str, addresses: tuple[str, ...], timeout_s: float) -> http.client.HTTPConnection:
    """A connection to the first checked address that answers, under the host's own name."""
    parts = _parts(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    last: OSError | None = None
    for address in addresses:
        try:
            wire = socket.create_connection((address, port), timeout_s)
        except OSError as error:
            last = error
            continue
        connection = http.client.HTTPConnection(parts.hostname or "", port, timeout=timeout_s)
        connection.default_port = 443 if parts.scheme == "https" else 80  # what the Host header leaves out
        try:
            connection.sock = ssl.create_default_context().wrap_socket(wire, server_hostname=parts.hostname) if parts.scheme == "https" else wire
        except (OSError, ssl.SSLError) as error:
            wire.close()
            raise SourceError(f"{shown(url)}: no secured connection ({error}).", fix="Check the server's certificate.") from error
        return connection
    raise Unreachable(f"{shown(url)} cannot be reached: {last}.", fix="Check the address and the network.") from last
