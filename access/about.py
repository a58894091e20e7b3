"""Which request this thread is at work on, so that every line of the log can say so."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_REQUEST_ID = re.compile(r"\bAR-[0-9A-Z]{4,9}\b")
_current: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def about(words: str) -> Iterator[None]:
    """Inside, the work is about the request that these words name; about none if they name none."""
    token = _current.set(named_in(words))
    try:
        yield
    finally:
        _current.reset(token)


def request_at_work() -> str:
    """The id of the request, or ""."""
    return _current.get()


def named_in(words: str) -> str:
    """The first request id in the words, or ""."""
    found = _REQUEST_ID.search(words)
    return found[0] if found else ""
