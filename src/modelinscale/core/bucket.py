"""Object stores (S3, Google Cloud Storage, Azure): opened by address, what they refuse told in a user's words and without credentials."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelinscale.core.errors import MisError, needs
from modelinscale.core.secrets import reveal

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
"""Of addresses: ``s3://bucket/prefix``."""
_CLIENT = ("allow_http", "allow_invalid_certificates", "root_certificate", "timeout", "connect_timeout", "proxy_url", "user_agent")
_TRIES, _PATIENCE_S = 8, 120.0

_TOLD = {
    "NoSuchBucket": ("there is no such bucket", "Check the address; buckets are not made for you."),
    "ContainerNotFound": ("there is no such container", "Check the address; containers are not made for you."),
    "InvalidObjectState": ("the object is archived", "Restore it, or leave it out by the pattern."),
    "BlobArchived": ("the object is archived", "Rehydrate it, or leave it out by the pattern."),
    "ExpiredToken": ("the credentials have expired", "Get new ones and run again: it goes on where it stopped."),
    "TokenRefreshRequired": ("the credentials have expired", "Get new ones and run again: it goes on where it stopped."),
    "InvalidAccessKeyId": ("the access key is not known", "Check the credentials."),
    "InvalidToken": ("the session token is not valid", "Check the credentials."),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", "Check the credentials."),
    **dict.fromkeys(("AuthenticationFailed", "InvalidAuthentication", "AuthenticationRequired"), ("the credentials were refused", "Check the credentials.")),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock."),
    "AccessDenied": ("access was denied", "Give these credentials the right to list, read and (for a store) write and delete there."),
    "AuthorizationPermissionMismatch": ("access was denied", "Give these credentials the right to list and read there."),
    "PermanentRedirect": ("the bucket is in another region", "Write its region."),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "Write its region."),
    "IllegalLocationConstraintException": ("the bucket is in another region", "Write its region."),
    "SlowDown": ("it answers that it is asked too often", "Run again later: it goes on where it stopped."),
}

_CERTIFICATES = {
    "UnknownIssuer": "its certificate comes from an authority that this machine does not trust",
    "BadSignature": "its certificate is signed by another authority than it says",
    "Expired": "its certificate has expired",
    "ExpiredContext": "its certificate has expired",
    "NotValidForName": "its certificate is for another name",
    "NotValidForNameContext": "its certificate is for another name",
}
TRUST = "Have this machine trust the authority, or name a file with its certificates in the environment variable SSL_CERT_FILE."


class Absent(MisError):
    """There is no such object."""


def connect(url: str, options: Mapping[str, str]) -> "ObjectStore":
    """The bucket (or the part of it) at an address. ``options``: in object_store's words (``aws_endpoint``, ``aws_region``, ...), secrets by reference.

    What is not given comes from the environment and the machine's own identity (``AWS_ACCESS_KEY_ID``, instance roles, ...). Reaches for nothing yet.
    """
    store = needs("obstore.store", extra="objects")
    found = {name: reveal(value) for name, value in options.items()}
    tries, patience = int(found.pop("client_max_retries", _TRIES)), timedelta(seconds=_PATIENCE_S)
    client = {name: found.pop(name) for name in _CLIENT if name in found}
    try:
        opened: ObjectStore = store.from_url(
            url,
            config=found,
            client_options={name: value.lower() == "true" if value.lower() in ("true", "false") else value for name, value in client.items()},
            retry_config={"max_retries": tries, "retry_timeout": patience},
        )
    except Exception as error:  # noqa: BLE001  its errors have no common base here; what it says may hold what was given
        raise MisError(f"{plain(url)} cannot be opened ({type(error).__name__}).", fix="Check the address and `options`.") from None
    return opened


def plain(url: str) -> str:
    """An address without user and password, and for a web server without query."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return re.sub(r"://[^/@]*@", "://", url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@contextmanager
def told(kind: type[MisError], where: str, doing: str) -> Iterator[None]:
    """Turns what a store refuses into an error of this kind that says what and where, without credentials; conflicts and `Absent` pass as they are."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        code = _code(error)
        if code in _TOLD:
            raise kind(f"Cannot {doing} {where}: {_TOLD[code][0]}.", fix=_TOLD[code][1]) from None
        raise Absent(f"there is no {where}.") from None
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except exceptions.BaseError as error:
        what, fix = _words(error)
        raise kind(f"Cannot {doing} {where}: {what}.", fix=fix) from None


def _words(error: Exception) -> tuple[str, str]:
    from obstore import exceptions

    code, text = _code(error), str(error)
    if code not in _TOLD and isinstance(error, exceptions.PermissionDeniedError):
        return _TOLD["AccessDenied"]
    if code not in _TOLD and isinstance(error, exceptions.UnauthenticatedError):
        return _TOLD["AuthenticationFailed"]
    found = reason(text)
    if found is not None:
        return found
    status = re.search(r"status code: (\d{3})|\b([45]\d\d) [A-Z][a-z]+", text)
    number = next((g for g in status.groups() if g), "") if status else ""
    return " ".join(
        w for w in (f"it answers {number}" if number else f"it failed ({type(error).__name__})", code) if w
    ), "Run again: it goes on where it stopped."


def reason(text: str) -> tuple[str, str] | None:
    """What a client's message means, and what to do about it; None for one that is not known."""
    code = _code(text)
    if code in _TOLD:
        return _TOLD[code]
    certificate = re.search(r"InvalidCertificate\(\s*(\w+)", text)
    if certificate:
        return _CERTIFICATES.get(certificate[1], f"its certificate is refused ({certificate[1]})"), TRUST
    if "redirect" in text.lower() and "region" in text.lower():
        return _TOLD["PermanentRedirect"]
    if re.search(r"169\.254\.169\.254|//metadata[./]|/computeMetadata/", text):  # where clouds' machines ask who they are, once nothing else said it
        return "no credentials were found", "Write them by reference (`access_key: ${ENV:...}`), or set the usual variables (AWS_ACCESS_KEY_ID, ...)."
    if "BadScheme" in text:
        return "its endpoint is http, and only https is spoken to unless you allow it", "Set `allow_http: 'true'` under its `options`, or use https."
    if "error sending request" in text:
        return "it cannot be reached", "Check address, endpoint, network and certificate; then run again: it goes on where it stopped."
    if re.search(r"status code: 403|necessary privileges", text):
        return _TOLD["AccessDenied"]
    return _TOLD["AuthenticationFailed"] if "status code: 401" in text else None


def _code(error: Exception | str) -> str:
    found = re.search(r"<Code>(\w{1,60})</Code>", str(error))
    return found[1] if found else ""


def erase(store: Any, keys: list[str]) -> None:
    """Removes objects; one that is gone already is no fault."""
    import obstore

    for start in range(0, len(keys), 1000):
        try:
            obstore.delete(store, keys[start : start + 1000])
        except FileNotFoundError:
            for key in keys[start : start + 1000]:
                try:
                    obstore.delete(store, key)
                except FileNotFoundError:
                    continue
