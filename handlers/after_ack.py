"""What is said after the ack: a bounded pool of its own, which says that it is busy rather than lose an answer."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from http.client import HTTPException
from typing import Self

from access.errors import UnavailableError

log = logging.getLogger(__name__)

LOST = "An answer after the ack did not get through"
BUSY = "I am busy just now, and did nothing. Try again in a moment."


class AfterAck:
    """At most ``room`` answers wait or are under way; a place is taken before anything is done."""

    def __init__(self, *, workers: int = 4, room: int = 100) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="after-ack")
        self._room = threading.BoundedSemaphore(room)

    def reserve(self) -> "Place":
        """A place in the pool, before the work whose answer it will carry; raises UnavailableError when full."""
        if not self._room.acquire(blocking=False):
            raise UnavailableError(BUSY)
        return Place(self._pool, self._room.release)

    def close(self) -> None:
        """Say what is still to be said, and stop."""
        self._pool.shutdown(wait=True)


class Place:
    """A place taken; it is given back unused at the end of the ``with`` block unless ``run`` was called."""

    def __init__(self, pool: ThreadPoolExecutor, release: Callable[[], None]) -> None:
        self._pool = pool
        self._release = release
        self._used = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._used:
            self._release()

    def run(self, say: Callable[[], None]) -> None:
        """Say it from the pool."""
        self._used = True
        try:
            self._pool.submit(copy_context().run, self._say, say)
        except RuntimeError:  # the pool is closed: Passport is stopping
            self._release()
            raise

    def _say(self, say: Callable[[], None]) -> None:
        try:
            say()
        except (OSError, HTTPException) as error:  # Slack does not answer: there is nothing to look into
            log.warning("%s: %s", LOST, type(error).__name__)
        except Exception:
            log.exception(LOST)
        finally:
            self._release()
