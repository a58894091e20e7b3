"""Deliveries to the app: signed as Slack signs them, timed, and kept so that they can be sent again."""

import hashlib
import hmac
import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

from sandbox.slack.faults import Faults
from sandbox.slack.wire import Json
from sandbox.slack.workspace import Message

ACK_SECONDS = 3.0  # page "Acknowledging requests"
_ENVELOPE = {"command": "slash_commands", "event": "events_api"}
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What Slack sent to the app and what came back; an app that is down is an `error`, no exception."""

    kind: str
    user: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    payload: Json = field(repr=False)
    status: int = 0
    answer: bytes = b""
    content_type: str = ""
    answer_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ms: float = 0.0
    error: str | None = None
    message: Message | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    options: tuple[Json, ...] = ()
    replayed: bool = False

    @property
    def ok(self) -> bool:
        """Whether the app took it in time and answered what Slack understands."""
        return self.error is None and 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The text of the message that the answer put on the screen."""
        return self.message.text if self.message else ""

    @property
    def plain(self) -> str:
        """What the person reads in that message, blocks included."""
        return self.message.plain if self.message else ""

    @property
    def blocks(self) -> tuple[Json, ...]:
        """The blocks of that message."""
        return self.message.blocks if self.message else ()

    @property
    def trigger_id(self) -> str:
        """The trigger id that went with it."""
        return str(self.payload.get("trigger_id", ""))

    @property
    def response_url(self) -> str:
        """The response_url that went with it."""
        return str(self.payload.get("response_url", ""))

    def json(self) -> Json:
        """The answer's JSON object, or an empty one."""
        try:
            found = json.loads(self.answer)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the app answered."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]


class Transport(Protocol):
    """A way to the app: its request URL, or one of its sockets."""

    def carry(self, delivery: Delivery, envelope: str, seconds: float) -> Answer:
        """Bring it there; raises TimeoutError or OSError."""


class HttpTransport:
    """The app's request URL."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def carry(self, delivery: Delivery, envelope: str, seconds: float) -> Answer:
        """POST it; raises TimeoutError, or OSError when there is no answer of HTTP."""
        del envelope
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=seconds)
        try:
            connection.request("POST", self._url.path or "/", delivery.body, dict(delivery.headers))
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            kind = headers.get("content-type", "")
            return Answer(status=response.status, body=response.read(), content_type=kind, headers=headers)
        except http.client.HTTPException as error:
            raise ConnectionError(f"no answer of HTTP: {error!r}") from error
        finally:
            connection.close()


class Courier:
    """Signs, sends, times and keeps every delivery; many threads may send at once."""

    def __init__(self, signing_secret: str, notify: Callable[[], None], faults: Faults) -> None:
        self.ack_seconds = ACK_SECONDS
        self.transport: Transport | None = None
        self._secret = signing_secret.encode()
        self._notify = notify
        self._faults = faults
        self._lock = threading.Lock()
        self._kept: list[Delivery] = []

    @property
    def deliveries(self) -> list[Delivery]:
        """Everything delivered so far, in the order in which the answers came."""
        with self._lock:
            return list(self._kept)

    def send(
        self, kind: str, user: str, body: bytes, payload: Json, *, extra: Mapping[str, str] | None = None
    ) -> Delivery:
        """Sign and send; the caller looks at the answer and then keeps the delivery."""
        content_type = "application/json" if kind == "event" else _FORM
        headers = {
            "Content-Type": content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "Accept": "application/json,*/*",
            **self.signed(body, int(time.time())),
            **(extra or {}),
        }
        return self.carry(Delivery(kind=kind, user=user, body=body, headers=headers, payload=payload))

    def signed(self, body: bytes, timestamp: int) -> dict[str, str]:
        """The two headers of a request signed at this second."""
        signature = hmac.new(self._secret, b"v0:%d:%b" % (timestamp, body), hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": str(timestamp), "X-Slack-Signature": f"v0={signature}"}

    def carry(self, delivery: Delivery) -> Delivery:
        """Bring it to the app as it is, and note answer, time and error."""
        begun = time.monotonic()
        if self._faults.holds_back(partial(self._deliver, delivery)):
            return replace(delivery, error="operation_timeout")
        try:
            if self.transport is None or self._faults.is_down:
                raise ConnectionError("no app is connected, or Slack is down")
            envelope = _ENVELOPE.get(delivery.kind, "interactive")
            answer = self.transport.carry(delivery, envelope, self.ack_seconds)
        except TimeoutError:
            return replace(delivery, error="operation_timeout", ms=_ms(begun))
        except OSError:
            return replace(delivery, error="dispatch_failed", ms=_ms(begun))
        late = time.monotonic() - begun > self.ack_seconds
        failed = None if 200 <= answer.status < 300 else "dispatch_failed"
        return replace(
            delivery,
            status=answer.status,
            answer=answer.body,
            content_type=answer.content_type,
            answer_headers=answer.headers,
            ms=_ms(begun),
            error="operation_timeout" if late else failed,
        )

    def _deliver(self, delivery: Delivery) -> Delivery:
        return self.keep(self.carry(delivery))

    def keep(self, delivery: Delivery) -> Delivery:
        """Keep a finished delivery."""
        with self._lock:
            self._kept.append(delivery)
        self._notify()
        return delivery


def _ms(begun: float) -> float:
    return (time.monotonic() - begun) * 1000
