"""Socket Mode: Slack over WebSockets that Passport opens, for those who cannot be reached from outside."""

import logging
import threading
from datetime import timedelta

from slack_bolt import App
from slack_bolt.adapter.socket_mode.builtin import SocketModeHandler
from slack_sdk import WebClient

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=30)


class Sockets:
    """Several connections, so that one being refreshed leaves no gap; Slack delivers to any one of them.

    slack_sdk reconnects a connection that was once there, but never retries a first one: this does.
    """

    def __init__(self, app: App, *, app_token: str, client: WebClient, connections: int) -> None:
        self._handlers = [SocketModeHandler(app, app_token, web_client=client, logger=_log) for _ in range(connections)]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._connect, args=(handler,), name=f"socket-{number}", daemon=True)
            for number, handler in enumerate(self._handlers, start=1)
        ]

    def start(self) -> None:
        """Begin to connect; returns at once, whether Slack can be reached or not."""
        for thread in self._threads:
            thread.start()

    @property
    def connected(self) -> int:
        """How many connections are up."""
        return sum(handler.client.is_connected() for handler in self._handlers)

    def stop(self) -> None:
        """Hang up; what was received is still answered."""
        self._stopping.set()
        for handler in self._handlers:
            handler.client.message_workers.shutdown(wait=True)
            handler.close()

    def _connect(self, handler: SocketModeHandler) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                handler.client.wss_uri = None  # an address is good for one connection only
                handler.connect()
            except Exception as error:  # noqa: BLE001 - slack_sdk raises whatever its transport does
                _log.warning("Slack's socket cannot be opened (%s); trying again", type(error).__name__)
                self._stopping.wait(pause.total_seconds())
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return
