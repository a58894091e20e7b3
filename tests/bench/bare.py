"""A bare Bolt app that only acks, on Passport's server and with its threads: ``python -m tests.bench.bare PORT``.

The signing secret comes on stdin.
"""

import re
import sys

import waitress
from flask import Flask, Response, request
from slack_bolt import Ack, App
from slack_bolt.adapter.flask import SlackRequestHandler
from slack_bolt.authorization import AuthorizeResult

from bot.serve import WEB_THREADS


def main(port: int, signing_secret: str) -> None:
    """Serve until killed."""
    app = App(
        signing_secret=signing_secret,
        authorize=lambda: AuthorizeResult(enterprise_id=None, team_id=None, bot_token="xoxb-none"),
        process_before_response=True,
    )

    @app.command(re.compile(".*"))
    def acknowledge(ack: Ack) -> None:
        ack()

    site, slack = Flask("bare"), SlackRequestHandler(app)

    @site.post("/slack/events")
    def slack_events() -> Response:
        return slack.handle(request)

    @site.get("/readyz")
    def readyz() -> str:
        return "ready\n"

    waitress.serve(site, host="127.0.0.1", port=port, threads=WEB_THREADS)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.stdin.readline().strip())
