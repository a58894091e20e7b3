"""The log: a line per event on standard error, for people or as JSON, with the id of the request it is about."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from access.about import named_in, request_at_work
from bot.settings import Settings

OURS = ("access", "bot", "handlers", "identity", "provisioning", "storage")
HIDDEN = "[hidden]"
_TOKEN = re.compile(r"\bxox[a-z]-[\w-]{8,}|\bxapp-[\w-]{8,}")  # Slack's tokens, ours or not
_SHORTEST_SECRET = 8  # a shorter one would blank out words


def configure(*, level: str, style: str, secrets: Iterable[str] = ()) -> None:
    """Send the log to standard error, ``style`` being ``console`` or ``json``; ``secrets`` never appear in it.

    Libraries speak from WARNING on, whatever the level: their DEBUG holds tokens and bodies.
    """
    line = logging.StreamHandler(sys.stderr)
    line.setFormatter(_Safe(_Json() if style == "json" else _Console(), secrets))
    root = logging.getLogger()
    for former in [handler for handler in root.handlers if isinstance(handler.formatter, _Safe)]:
        root.removeHandler(former)
    root.addHandler(line)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    for package in OURS:
        logging.getLogger(package).setLevel(level)


def secrets_of(settings: Settings) -> list[str]:
    """Every secret that the settings hold."""
    password = urlsplit(settings.database_url).password or ""
    return [*_secrets_in(settings), password, unquote(password)]


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
        yield value.get_secret_value().partition(":")[2]  # a sealing key without its name
    elif isinstance(value, BaseModel):
        for _, field in value:
            yield from _secrets_in(field)
    elif isinstance(value, tuple):
        for part in value:
            yield from _secrets_in(part)


class _Safe(logging.Formatter):
    """Another formatter's line, without the secrets: the last look before it leaves the process."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._inner = inner
        known = {form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in (secret, _in_json(secret))}
        self._secrets = sorted(known, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self._inner.format(record)
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return _TOKEN.sub(HIDDEN, line)


class _Console(logging.Formatter):
    """For people: the request id stands before the message unless the message names it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(about)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        message, request_id = record.getMessage(), _request_of(record)
        record.about = f"{request_id}: " if request_id and request_id not in message else ""
        return super().format(record)


class _Json(logging.Formatter):
    """For machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if request_id := _request_of(record):
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def _request_of(record: logging.LogRecord) -> str:
    """What this thread is at work on; else what the message itself names."""
    return request_at_work() or named_in(record.getMessage())


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
