"""Events, and their retries: at once, after a minute, after five (page "Events API")."""

import json
import threading
from collections.abc import Sequence

from sandbox.slack import payloads
from sandbox.slack.deliveries import Courier, Delivery
from sandbox.slack.wire import Json
from sandbox.slack.workspace import Workspace

RETRY_SECONDS = (0.0, 60.0, 300.0)


class Events:
    """Delivers events until the app takes them or Slack gives up."""

    def __init__(self, workspace: Workspace, courier: Courier, retry_seconds: Sequence[float]) -> None:
        self._workspace = workspace
        self._courier = courier
        self._delays = tuple(retry_seconds)
        self._lock = threading.Lock()
        self._timers: list[threading.Timer] = []

    def send(self, event: Json, *, user: str, team_id: str) -> Delivery:
        """Deliver an event; the last delivery that was made at once is answered."""
        payload = payloads.event_callback(self._workspace, event, team_id)
        return self._attempt(user, payload, 0, "")

    def close(self) -> None:
        """Drop the retries that are still to come."""
        with self._lock:
            for timer in self._timers:
                timer.cancel()

    def _attempt(self, user: str, payload: Json, number: int, reason: str) -> Delivery:
        body = json.dumps(payload).encode()
        extra = {"x-slack-retry-num": str(number), "x-slack-retry-reason": reason} if number else {}
        delivery = self._courier.keep(self._courier.send("event", user, body, payload, extra=extra))
        if delivery.ok or number >= len(self._delays) or delivery.answer_headers.get("x-slack-no-retry") == "1":
            return delivery
        reason = _reason(delivery)
        if self._delays[number] == 0:
            return self._attempt(user, payload, number + 1, reason)
        self._later(self._delays[number], user, payload, number + 1, reason)
        return delivery

    def _later(self, seconds: float, user: str, payload: Json, number: int, reason: str) -> None:
        timer = threading.Timer(seconds, self._attempt, (user, payload, number, reason))
        timer.daemon = True
        with self._lock:
            self._timers.append(timer)
        timer.start()


def _reason(delivery: Delivery) -> str:
    if delivery.error == "operation_timeout":
        return "http_timeout"
    return "http_error" if delivery.status else "connection_failed"
