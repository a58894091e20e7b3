"""Socket Mode: Slack over WebSockets that Passport opens, for those who cannot be reached from outside.

Not slack_sdk's own client, which never retries its first connection, answers over whichever connection it has by
then, and needed a minute at full speed to notice that a connection had been cut off.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from slack_bolt import App, BoltRequest, BoltResponse
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bot.loops import Measure, unmeasured

_log = logging.getLogger(__name__)

LONGEST_PAUSE = timedelta(seconds=30)
STEADY = timedelta(seconds=10)  # a connection that lived as long is followed by the next at once
RETIRES = timedelta(seconds=30)  # how long one is still read after Slack asked for the next
LATEST = timedelta(seconds=2)  # Slack gives up after three: what begins later would come as a surprise
PING = timedelta(seconds=10)

_wire_log = logging.getLogger(f"{__name__}.wire")
_wire_log.setLevel(logging.WARNING)  # its DEBUG holds one-time addresses and all that people type


class Sockets:
    """Several connections, so that one being renewed leaves no gap; Slack delivers to any one of them.

    ``client`` must not retry by itself (``retry_handlers=[]``): its retries sleep.
    """

    def __init__(
        self,
        app: App,
        *,
        app_token: str,
        client: WebClient,
        connections: int = 2,
        workers: int = 16,
        measure: Measure = unmeasured,
    ) -> None:
        self._dispatch = measure("slack", app.dispatch)
        self._app_token = app_token
        self._client = client
        self._wanted = connections
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="socket-answer")
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[ClientConnection] = set()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to connect; returns at once, whether Slack can be reached or not."""
        for number in range(1, self._wanted + 1):
            self._begin(f"socket-{number}", failures=0)

    @property
    def connected(self) -> int:
        """How many connections are up."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        """Take nothing more, answer what was taken, then hang up."""
        self._stopping.set()
        self._pool.shutdown(wait=True)
        with self._lock:
            connections, threads = list(self._open), list(self._threads)
        for connection in connections:
            connection.close()
        for thread in threads:
            thread.join(timeout=1)  # one that waits for Slack's answer is let go: it takes nothing any more

    def _begin(self, name: str, *, failures: int) -> None:
        thread = threading.Thread(target=self._keep, args=(name, failures), name=name, daemon=True)
        with self._lock:
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()

    def _keep(self, name: str, failures: int) -> None:
        """Have a connection, and another after it, until the end."""
        asked, said = 0.0, ""
        while not self._stopping.wait(max(_pause(failures), asked)):
            began, asked = time.monotonic(), 0.0
            try:
                with connect(self._address(), logger=_wire_log, **_TIMES) as connection:
                    if self._listen(connection, name, began, failures):
                        return  # its successor runs already
            except Exception as error:  # noqa: BLE001 - whatever it is, there must be a connection again
                asked, why = _retry_after(error), _why(error)
                if why != said:
                    _log.warning("%s: no connection to Slack (%s); I go on trying", name, why)
                said = why
            failures = _failures(failures, began)

    def _address(self) -> str:
        """Where to connect, good for once; raises whatever slack_sdk raises, and ValueError."""
        url = str(self._client.apps_connections_open(app_token=self._app_token)["url"])
        if not url.startswith("wss://") and self._client.base_url.startswith("https://"):
            raise ValueError("an address without TLS")
        return url

    def _listen(self, connection: ClientConnection, name: str, began: float, failures: int) -> bool:
        """Read until the connection ends; whether its successor has been begun."""
        succeeded = False
        try:
            while not self._stopping.is_set():
                message = _read(connection.recv(timeout=RETIRES.total_seconds() if succeeded else None))
                match message.get("type"):
                    case "hello":
                        self._welcome(connection, name)
                    case "disconnect" if connection in self._open and not succeeded:
                        succeeded = True
                        self._begin(name, failures=_failures(failures, began))
                    case _ if message.get("envelope_id"):
                        self._pool.submit(self._answer, connection, message, time.monotonic())
        except (ConnectionClosed, TimeoutError):
            pass
        except RuntimeError:  # the pool is closed: Passport is stopping
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
        return succeeded

    def _welcome(self, connection: ClientConnection, name: str) -> None:
        with self._lock:
            self._open.add(connection)
        _log.info("%s: connected to Slack", name)

    def _answer(self, connection: ClientConnection, envelope: Mapping[str, Any], came: float) -> None:
        """Let the app act, and answer over the connection that asked."""
        if time.monotonic() - came > LATEST.total_seconds():
            _log.warning("Too busy for a delivery of Slack's: nothing was done, and Slack says so")
            return
        try:
            response = self._dispatch(_request(envelope))
            if response.status == 200:
                connection.send(json.dumps({"envelope_id": envelope["envelope_id"], **_payload(response)}))
        except ConnectionClosed:
            _log.warning("A connection ended before its answer: what was asked is done, but Slack was not told")
        except Exception:  # noqa: BLE001 - one delivery must not end the connection
            _log.exception("A delivery of Slack's could not be answered")


_TIMES: dict[str, Any] = {
    "open_timeout": 10,
    "close_timeout": 2,
    "ping_interval": PING.total_seconds(),
    "ping_timeout": PING.total_seconds(),
}


def _request(envelope: Mapping[str, Any]) -> BoltRequest:
    names = {"x-slack-retry-num": "retry_attempt", "x-slack-retry-reason": "retry_reason"}
    headers: dict[str, Any] = {header: str(envelope[name]) for header, name in names.items() if envelope.get(name)}
    payload = envelope.get("payload")
    return BoltRequest(mode="socket_mode", body=payload if isinstance(payload, dict) else {}, headers=headers)


def _payload(response: BoltResponse) -> dict[str, Any]:
    """What an answer of HTTP is in an envelope."""
    if not response.body:
        return {}
    kind = (response.headers.get("content-type") or [""])[0]
    return {"payload": json.loads(response.body) if kind.startswith("application/json") else {"text": response.body}}


def _read(text: str | bytes) -> Mapping[str, Any]:
    try:
        message = json.loads(text)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _pause(failures: int) -> float:
    """Nothing, then 1, 2, 4, … seconds."""
    return min(2.0 ** min(failures - 1, 16), LONGEST_PAUSE.total_seconds()) if failures else 0.0


def _failures(before: int, began: float) -> int:
    return 0 if time.monotonic() - began >= STEADY.total_seconds() else before + 1


def _retry_after(error: Exception) -> float:
    """How long Slack asks to wait, in seconds."""
    try:
        return float(error.response.headers["Retry-After"]) if isinstance(error, SlackApiError) else 0.0
    except (AttributeError, KeyError, TypeError, ValueError):
        return 0.0


def _why(error: Exception) -> str:
    """In a word, and without the address, which is as good as a token."""
    if not isinstance(error, SlackApiError):
        return type(error).__name__
    code = str(error.response.get("error"))
    return code if code.replace("_", "").isalnum() else f"HTTP {error.response.status_code}"
