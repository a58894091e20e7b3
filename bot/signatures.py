"""Slack's signature on what arrives over HTTP, checked before anybody reads the body."""

import hashlib
import hmac
import re
import time

from flask import Request, Response

from bot.web import SlackEndpoint

_MOST_APART = 300  # seconds; page "Verifying requests from Slack"


class SignedOnly:
    """Lets nothing to the endpoint that Slack did not sign just now.

    Bolt checks that, too, but parses the body first: nonsense of a stranger would be a traceback in the log.
    """

    def __init__(self, endpoint: SlackEndpoint, signing_secret: str) -> None:
        self._endpoint = endpoint
        self._secret = signing_secret.encode()

    def handle(self, req: Request) -> Response:
        """The endpoint's answer, or 401."""
        timestamp = req.headers.get("X-Slack-Request-Timestamp", "")
        signature = req.headers.get("X-Slack-Signature", "")
        if _is_recent(timestamp) and self._signs(timestamp, req.get_data(), signature):
            return self._endpoint.handle(req)
        return Response("", status=401)

    def _signs(self, timestamp: str, body: bytes, signature: str) -> bool:
        digest = hmac.new(self._secret, b"v0:%s:%s" % (timestamp.encode(), body), hashlib.sha256).hexdigest()
        return hmac.compare_digest(f"v0={digest}".encode(), signature.encode())


def _is_recent(timestamp: str) -> bool:
    return re.fullmatch(r"[0-9]{1,12}", timestamp) is not None and abs(time.time() - int(timestamp)) <= _MOST_APART
