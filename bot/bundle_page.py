"""The page behind *Download as zip*: looking at it (which mail scanners do, too) uses nothing up, its button does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flask import Flask, Response

from access.errors import PassportError, UnavailableError
from access.model import AccessRequest, Grant, SlackUser
from access.service.bundling import Bundling


class Pack(Protocol):
    """Makes the zip out of a request, its active grants and a certificate; raises ValueError."""

    def __call__(self, request: AccessRequest, grants: Sequence[Grant], certificate: str, /) -> bytes: ...


class Page(Protocol):
    """A page of the site."""

    def __call__(self, title: str, lines: Sequence[str], *, action: str = "", status: int = 200) -> Response: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSite:
    """What the page needs."""

    team_id: str
    bundling: Bundling
    pack: Pack


def register(app: Flask, site: BundleSite, page: Page) -> None:
    """Add the page."""

    def answered(act: Callable[[], Response]) -> Response:
        try:
            return act()
        except PassportError as error:
            status = 503 if isinstance(error, UnavailableError) else 403
            return page("No download", [error.sentence], status=status)
        except ValueError:
            return page("No download", ["This request has no server that ssh reaches. Look in Slack."], status=404)

    @app.get("/bundle/<request_id>/<user_id>/<token>")
    def look(request_id: str, user_id: str, token: str) -> Response:
        def seen() -> Response:
            site.bundling.look(SlackUser(team_id=site.team_id, user_id=user_id), request_id, token)
            lines = [f"An ssh configuration for {request_id}, as a zip. It works with your own key only.",
                     "The button works once."]  # fmt: skip
            return page("Download", lines, action="Download")

        return answered(seen)

    @app.post("/bundle/<request_id>/<user_id>/<token>")
    def download(request_id: str, user_id: str, token: str) -> Response:
        def packed() -> Response:
            user = SlackUser(team_id=site.team_id, user_id=user_id)
            found = site.bundling.redeem(user, request_id, token)
            response = Response(site.pack(found.request, found.grants, found.certificate), mimetype="application/zip")
            response.headers["Content-Disposition"] = f'attachment; filename="passport-{found.request.id}.zip"'
            return response

        return answered(packed)
