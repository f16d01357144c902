"""Structured logs: an event with fields, never a print. Values of rows and secrets are never fields."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from modelinscale.core.secrets import veil, veiled

_BARE = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def log(name: str) -> logging.Logger:
    """The logger of one module: ``log(__name__).info("table opened", extra={"version": 3})``."""
    return logging.getLogger(name)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {k: v for k, v in vars(record).items() if k not in _BARE and not k.startswith("_")}  # other libraries add names of their own


def _word(value: Any) -> str:
    """A field's value as one word on one line; quoted where it has spaces or line ends."""
    text = veil(str(value))
    return text if text.isprintable() and text and " " not in text else json.dumps(text, ensure_ascii=False)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{k}={_word(v)}" for k, v in _fields(record).items())
        line = f"{record.levelname.lower():7} {record.getMessage()}" + (f"  {fields}" if fields else "")
        return veil(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname.lower(), "from": record.name, "event": record.getMessage(), **_fields(record)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(veiled(json.loads(json.dumps(line, default=str))), ensure_ascii=False)


def to_stderr(level: str = "warning", form: Literal["text", "json"] = "text") -> None:
    """Sends the project's logs to standard error; called by the command line only, a library user configures logging itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logger = logging.getLogger("modelinscale")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    if logging.lastResort is not None:  # what other libraries say where nobody listens goes to standard error too
        logging.lastResort.setFormatter(_Text())
